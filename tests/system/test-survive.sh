#!/bin/bash
# Daemons die, the story goes on: stratod and blockd are killed in the middle, a guest notices
# neither; a guest that leaves by itself is shown stopped.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img socat
requires_root

up() {
        "$STRATO" up --state "$T/state" --mount "$C" >"$T/out" 2>"$T/err" || fail "strato up again"
}
ticks() {
        grep -c "STRATOFS-GUEST tick" "$T/state/instances/$id/console.log"
}
ticks_grow() {
        [ "$(ticks)" -gt "$before" ]
}

guest_image "$T/debian.qcow2"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" images/
mkdir volumes/root instances/web
ln -s ../../images/debian volumes/root/source
echo small >instances/web/flavor
ln -s volumes/root instances/web/volumes/vda
echo start >instances/web/ctl

# --- stratod dies while the image is being saved and the guest is starting
id=$(cat instances/web/id)
cd /
kill -9 "$(daemon_pid stratod)"
up
cd "$C/tenants/default" || fail "the mount is back"
expect "the story goes on" "$STRATO" wait instances/web active --timeout 120
wait_line instances/web/console.log "STRATOFS-GUEST ready" 120
guest_types web tick on
wait_line instances/web/console.log "STRATOFS-GUEST tick 2" 30
qemu=$(guest_pid instances/web)

# --- stratod dies under a running guest
cd /
kill -9 "$(daemon_pid stratod)"
before=$(ticks)
wait_until 30 ticks_grow || fail "the guest stopped with stratod"
up
cd "$C/tenants/default" || fail "the mount is back"
[ "$(cat instances/web/state)" = active ] || fail "state after restart: $(cat instances/web/state)"
[ "$(guest_pid instances/web)" = "$qemu" ] || fail "the guest was restarted"
ok "the guest never noticed"

# --- blockd dies under a running guest that writes and reads back, on a disk that was there at the
# start and on one that came later, and is back after a second: no error, and never a pause.  The
# stratod that started and plugged is gone: what it did to QEMU stays.
echo 'name=more size=128M' >volumes/new || fail "new"
ln -s volumes/more instances/web/volumes/ || fail "live attach"
wait_line instances/web/console.log "STRATOFS-GUEST disk vdb" 60
expect "it is attached" "$STRATO" wait volumes/more in-use --timeout 60
guest_types web 'verify() { pattern $2 >/dev/null && echo STRATOFS-GUEST verified $1 || echo STRATOFS-GUEST $((40 + 2)) bad; }'
guest_types web 'while true; do verify root; verify more /dev/vdb; done &'
verified() {
        grep -c "STRATOFS-GUEST verified $1" "$T/state/instances/$id/console.log"
}
both_go_on() {
        [ "$(verified root)" -gt "$root" ] && [ "$(verified more)" -gt "$more" ]
}
root=0 more=0
wait_until 60 both_go_on || fail "the guest does not write"
for round in 1 2; do
        root=$(($(verified root) + 1)) more=$(($(verified more) + 1))
        cd /
        blockd=$(daemon_pid blockd)
        holder=$(ps -o ppid= -p "$blockd" | tr -d ' ')
        kill -STOP "$holder"
        kill -9 "$blockd"
        [ $round = 1 ] || kill -9 "$(daemon_pid stratod)"
        sleep 1 # it is away that long
        kill -CONT "$holder" # it starts blockd again
        up
        cd "$C/tenants/default" || fail "the mount"
        wait_until 120 both_go_on || fail "the guest did not go on: $(cat instances/web/power)"
        [ "$(cat instances/web/state)" = active ] || fail "state is $(cat instances/web/state)"
done

# --- blockd is replaced under it, again and again
for round in 1 2 3; do
        root=$(($(verified root) + 1)) more=$(($(verified more) + 1))
        blockd=$(daemon_pid blockd)
        kill -HUP "$blockd"
        wait_gone "$blockd" 30
        [ "$(daemon_pid blockd)" != "$blockd" ] || fail "blockd was not replaced"
        wait_until 120 both_go_on || fail "the guest did not go on"
done
grep -c "was replaced" "$T/state/log/blockd.log" | grep -qx 3 || fail "three replacements"
grep -qE "I/O error|STRATOFS-GUEST 42 bad" instances/web/console.log && fail "the guest saw an error"
grep -q "I/O error" "$T/state/log/stratod.log" && fail "the guest was paused"
ok "the guest outlived blockd"

# --- the guest powers itself off
guest_types web poweroff -f
expect "it shows stopped" "$STRATO" wait instances/web stopped --timeout 60
echo start >instances/web/ctl
expect "it starts again" "$STRATO" wait instances/web active --timeout 60

# --- QEMU is killed
kill -9 "$(guest_pid instances/web)"
expect "it shows stopped again" "$STRATO" wait instances/web stopped --timeout 60
expect "its deletion" rmdir instances/web
cd / && stop_cloud
