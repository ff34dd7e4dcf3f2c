#!/bin/bash
# Two whole hosts (stratod, blockd, libvirt, mount each) on one real Ceph store: one drains, one
# dies, is taken over, comes back.  Run by tests/ceph-run.
. "$(dirname "$0")/../lib.sh"
requires_root
requires ceph qemu-system-x86_64 pgrep
LEASE=4

# up NAME: starts that host, its mount is $T/NAME/mnt.
up() {
        mkdir -p "$T/$1/mnt"
        chmod 711 "$T/$1"
        cat >"$T/$1.conf" <<END
store = rados:$STRATOFS_POOL/lost
ceph_conf = $CEPH_CONF
host = $1
lease = $LEASE
END
        "$STRATO" up --mount "$T/$1/mnt" --state "$T/$1/state" --conf "$T/$1.conf" \
                >"$T/out" 2>"$T/err" || fail "strato up: host $1"
}
down() {
        for host in a b; do
                [ -d "$T/$host/mnt" ] && "$STRATO" down --guests --force --mount "$T/$host/mnt" \
                        --state "$T/$host/state" >/dev/null 2>&1
        done
        test_end
}
trap down EXIT
await() {
        wait_until 60 "$@" || {
                tail -n 20 "$T"/*/state/log/*.log >&2
                fail "in vain: $*"
        }
}
holds() {
        grep -qF -- "$2" "$1"
}
# The host's line in the tree, seen from the other.
A=$T/a/mnt B=$T/b/mnt
HA=$B/admin/hosts/a HB=$A/admin/hosts/b
up a
up b
await test -d "$HA"
await test -d "$HB"
await holds "$HA/state" up
await holds "$HB/state" up
[ "$(cut -d' ' -f1 "$HA/capacity" | tr '\n' ' ')" = 'vcpus memory disk ' ] || fail capacity
[ "$(awk '$1 == "memory" {print ($2 > 0)}' "$HA/capacity")" = 1 ] || fail "no memory"
holds "$HB/used" 'instances 0' || fail "used"
holds "$HB/ctl" drain || fail "no drain"
ok "two hosts know each other"

# An instance goes where its local volume is, whoever is asked, and the job says why.
t=tenants/default
mkdir "$A/$t/volumes/v" && echo 1M >"$A/$t/volumes/v/size" || fail volume
await holds "$B/$t/volumes/v/state" available
mkdir "$B/$t/instances/web" && echo tiny >"$B/$t/instances/web/flavor" &&
        ln -s volumes/v "$B/$t/instances/web/volumes/" || fail instance
await holds "$A/$t/volumes/v/state" in-use
echo reboot hard >"$B/$t/instances/web/ctl" || fail start
await holds "$B/$t/instances/web/state" active
holds "$B/$t/instances/web/host" a || fail "it runs on $(cat "$B/$t/instances/web/host")"
job=$(grep -l 'instance.start' "$B/$t"/jobs/*/op | head -n 1)
job=${job%/op}
holds "$job/host" a || fail "its job ran elsewhere"
holds "$job/why" 'a: chosen, score ' || fail "why: $(cat "$job/why")"
holds "$job/why" "b: no: volume 'v' is local to a" || fail "why: $(cat "$job/why")"
guest=$(cat "$B/$t/instances/web/id")
pgrep -f "uuid $guest" >/dev/null || fail "no guest"
ok "placed, and said why"

# A daemon that is killed and back before its lease is over has lost nothing, least of all a guest.
kill -KILL $(pgrep -f "stratod .*--mount $A") || fail kill
up a
await test -d "$A/$t"
holds "$HA/state" up || fail "a is $(cat "$HA/state")"
pgrep -f "uuid $guest" >/dev/null || fail "its guest is gone"
holds "$A/$t/instances/web/state" active || fail "it is $(cat "$A/$t/instances/web/state")"
ok "killed, and back in time"

# drain: no new guests, and what is left.
echo drain >"$HA/ctl" || fail drain
await holds "$A/admin/hosts/a/state" draining
holds "$HA/instances" "$t/instances/web active" || fail "left: $(cat "$HA/instances")"
holds "$HA/used" 'instances 1' || fail used
mkdir "$A/$t/instances/late" && echo tiny >"$A/$t/instances/late/flavor" || fail instance
mkdir "$B/$t/volumes/w" && echo 1M >"$B/$t/volumes/w/size" || fail volume
await holds "$A/$t/volumes/w/state" available
ln -s volumes/w "$A/$t/instances/late/volumes/" || fail link
echo start >"$A/$t/instances/late/ctl" || fail start
await holds "$A/$t/instances/late/state" active
holds "$A/$t/instances/late/host" b || fail "it went to a draining host"
echo undrain >"$HA/ctl" || fail undrain
await holds "$A/admin/hosts/a/state" up
ok "drained"

# a stands still for longer than its lease: b takes over.
stratod=$(pgrep -f "stratod .*--mount $T/a/mnt") || fail "no stratod"
epoch=$(cat "$HA/epoch")
kill -STOP $stratod
await holds "$HA/state" down
await holds "$B/$t/instances/web/state" error
holds "$B/$t/instances/web/error" "its host 'a' died" || fail "no words"
mkdir "$B/$t/volumes/x" || fail "the other goes on"
ok "taken over"

# It comes back, and finds out: the guest that others have written off ends before it serves.
pgrep -f "uuid $guest" >/dev/null || fail "its guest died with it?"
kill -CONT $stratod
await holds "$HA/state" up
[ "$(cat "$HA/epoch")" -gt "$epoch" ] || fail "the same life"
pgrep -f "uuid $guest" >/dev/null && fail "its guest runs on"
await test -d "$A/$t/volumes/x"
mkdir "$A/$t/volumes/y" || fail "it does not serve"
await test -d "$B/$t/volumes/y"
echo start >"$B/$t/instances/web/ctl" || fail start
await holds "$B/$t/instances/web/state" active
holds "$B/$t/instances/web/host" a || fail "it runs on $(cat "$B/$t/instances/web/host")"
ok "back"

# A daemon that is stopped is no dead host, and its guests go on.
"$STRATO" down --mount "$A" --state "$T/a/state" >"$T/out" 2>"$T/err" || fail "strato down"
await holds "$HA/state" away
holds "$B/$t/instances/web/state" active || fail "it was taken over"
up a
await holds "$HA/state" up
echo 'stop now' >"$B/$t/instances/web/ctl" || fail stop
echo 'stop now' >"$B/$t/instances/late/ctl" || fail stop
await holds "$B/$t/instances/late/state" stopped
await holds "$B/$t/instances/web/state" stopped
ok "away, and back"
