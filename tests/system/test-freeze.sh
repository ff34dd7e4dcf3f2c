#!/bin/bash
# Snapshots of a guest that writes: its file systems are frozen by its agent, so that they need no
# recovery; without an agent that answers they are taken all the same, and say so; the guest goes
# on, whatever dies meanwhile.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img socat mke2fs dumpe2fs e2fsck
requires_root

up() {
        "$STRATO" up --state "$T/state" --mount "$C" >"$T/out" 2>"$T/err" || fail "strato up again"
        cd "$C/tenants/default" || fail "the mount is back"
}
words() {
        grep -c "STRATOFS-GUEST $1" "$log"
}
more_words() {
        [ "$(words "$1")" -gt "$2" ]
}
goes_on() { # what it wrote before the snapshot may be told late
        local before
        for _ in 1 2; do
                before=$(words wrote)
                wait_until 60 more_words wrote "$before" || fail "the guest writes no more"
        done
        ok "the guest writes on"
}
taken() { # snapshot NAME, with `frozen` as it should be
        expect "snapshot $1 is taken" "$STRATO" wait "volumes/data/snapshots/$1" available --timeout 120
        expect "of both volumes" "$STRATO" wait "volumes/root/snapshots/$1" available --timeout 30
        for v in root data; do
                [ "$(cat "volumes/$v/snapshots/$1/frozen")" = "$2" ] ||
                        fail "$v: frozen is not $2: $(tail -n 3 instances/web/events)"
        done
        dd if="volumes/data/snapshots/$1/data" of="$T/$1" bs=1M conv=sparse status=none || fail "read it"
        dumpe2fs -h "$T/$1" >"$T/$1.facts" 2>/dev/null || fail "no file system in it"
}
clean() {
        ! grep -q needs_recovery "$T/$1.facts" || fail "its journal is to be replayed"
        expect "its file system is whole" e2fsck -fn "$T/$1"
}

guest_image "$T/debian.qcow2" --agent
truncate -s 256M "$T/ext4"
mke2fs -q -t ext4 "$T/ext4" || fail "mke2fs"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" images/ || fail "cp into images/"
mkdir volumes/root instances/web
ln -s ../../images/debian volumes/root/source
echo 'name=data size=256M' >volumes/new
expect "the second disk" "$STRATO" wait volumes/data available --timeout 30
dd if="$T/ext4" of=volumes/data/data bs=1M conv=notrunc,fsync status=none || fail "its file system"
echo small >instances/web/flavor
ln -s volumes/root instances/web/volumes/vda
ln -s volumes/data instances/web/volumes/vdb
echo start >instances/web/ctl
expect "it becomes active" "$STRATO" wait instances/web active --timeout 120
log=$T/state/instances/$(cat instances/web/id)/console.log
wait_line "$log" "STRATOFS-GUEST ready" 120
guest_types web 'mkdir -p /run/d; mount -t ext4 /dev/vdb /run/d && echo STRATOFS-GUEST mounted $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST mounted 42" 60
cat >"$T/write" <<'END'
n=0; while :; do n=$((n+1)); dd if=/dev/urandom of=/run/d/new bs=64k count=4 2>/dev/null; mv /run/d/new /run/d/$((n%20)); echo STRATOFS-GUEST "wrote" $n; done &
END
guest_types web "$(cat "$T/write")"
goes_on

# --- the agent answers, once it has come up
tries=0
heard() {
        tries=$((tries + 1))
        echo "snapshot try-$tries" >instances/web/ctl &&
                "$STRATO" wait volumes/data/snapshots/try-$tries available --timeout 60 &&
                [ "$(cat volumes/data/snapshots/try-$tries/frozen)" = 1 ]
}
wait_until 120 heard || fail "the agent is not heard: $(tail -n 3 instances/web/events)"
goes_on
echo 'snapshot a' >instances/web/ctl || fail "snapshot"
taken a 1
clean a
goes_on

expect_text snapshots "volumes/data/snapshots/a $(cat volumes/data/snapshots/a/id) available"
expect_text snapshots "volumes/root/snapshots/a $(cat volumes/root/snapshots/a/id) available"

# --- it does not: as a power cut would leave it, which the journal is for
guest_types web 'kill -STOP $(cat /run/agent.pid) && echo STRATOFS-GUEST halted $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST halted 42" 60
echo 'snapshot b' >instances/web/ctl || fail "snapshot"
taken b 0
expect_text "$T/b.facts" needs_recovery
expect_text instances/web/events "as after a power cut"
goes_on
guest_types web 'kill -CONT $(cat /run/agent.pid) && echo STRATOFS-GUEST released $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST released 42" 60
echo 'snapshot c' >instances/web/ctl || fail "snapshot"
taken c 1
clean c
goes_on

# --- stratod dies while the guest is frozen and stands still, and goes on at its next start
cd /
unhold
kill -9 "$(daemon_pid stratod)"
STRATOFS_FAULT=snapshot.taken=kill:1
export STRATOFS_FAULT
up
unset STRATOFS_FAULT
unhold
pid=$(daemon_pid stratod)
echo 'snapshot d' >instances/web/ctl || fail "snapshot"
cd /
wait_gone "$pid" 60
up
taken d 1
clean d
goes_on
[ "$(cat instances/web/state)" = active ] || fail "it is $(cat instances/web/state)"

# --- blockd dies: the guest is neither frozen nor paused for longer than that takes
cd /
kill -9 "$(daemon_pid blockd)"
cd "$C/tenants/default" || fail "the mount"
echo 'snapshot e' >instances/web/ctl || fail "snapshot"
taken e 1
clean e
goes_on

# --- an agent that is gone
guest_types web 'kill $(cat /run/agent.pid) && echo STRATOFS-GUEST killed $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST killed 42" 60
echo 'snapshot f' >instances/web/ctl || fail "snapshot"
taken f 0
expect_text instances/web/events "not connected"
goes_on
echo 'stop now' >instances/web/ctl
expect "it stops" "$STRATO" wait instances/web stopped --timeout 60
cd / && stop_cloud
