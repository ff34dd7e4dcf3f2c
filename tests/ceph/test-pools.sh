#!/bin/bash
# A cloud with two pools, files and Ceph: types choose, volumes move, and change hands.
. "$(dirname "$0")/../lib.sh"
requires rbd
space=pools$$
ceph="rbd:rbd/$space"

cat >"$T/conf" <<CONF
volumes = local $ceph
ceph_conf = $CEPH_CONF
CONF
start_cloud --conf "$T/conf"
cd "$C/tenants/default" || fail "cd"
images() {
        rbd -p rbd --namespace "$space.$1" ls 2>/dev/null
}
# What is refused, and with which words.
refused() {
        ! (cd "$2" && eval "$3") 2>/dev/null || fail "not refused: $3"
        grep -q "$1" "$2/error" || fail "$3: $(cat "$2/error")"
}
available() {
        cat "volumes/$1/.wait/available@60" >/dev/null || fail "$1: $(cat "volumes/$1/error")"
}

mkdir "$C/volume_types/fast" && echo "$ceph" >"$C/volume_types/fast/pool" || fail "a type's pool"
refused "no pool of this cloud" "$C/volume_types/fast" "echo rbd:nosuch >pool"
mkdir volumes/l && echo 64M >volumes/l/size || fail "mkdir"
available l
expect_text volumes/l/pool local
echo 'name=f size=64M type=fast' >volumes/new || fail "new: $(cat errors)"
available f
expect_text volumes/f/pool "$ceph"
expect_text volumes/f/host ""
[ "$(images default)" = "volume-$(cat volumes/f/id)" ] || fail "rbd ls: $(images default)"
grep -q "pool=$ceph" volumes/index || fail "index: $(cat volumes/index)"
ok "a type chooses the pool"

head -c 20M /dev/urandom >"$T/raw"
dd if="$T/raw" of=volumes/l/data bs=1M conv=notrunc,fsync status=none || fail "bytes"
refused "another pool" volumes/l "echo fast >type"
echo 'retype fast' >volumes/l/ctl || fail "retype: $(cat volumes/l/error)"
available l
expect_text volumes/l/pool "$ceph"
expect_text volumes/l/type fast
images default | grep -q "volume-$(cat volumes/l/id)" || fail "rbd ls: $(images default)"
cmp -n 20971520 "$T/raw" volumes/l/data || fail "other bytes in Ceph"
[ -z "$(find "$T/state/blockd/pool" -name "$(cat volumes/l/id)")" ] || fail "it is in files, too"
echo 'retype -' >volumes/l/ctl || fail "retype: $(cat volumes/l/error)"
available l
expect_text volumes/l/pool local
cmp -n 20971520 "$T/raw" volumes/l/data || fail "other bytes in files"
left() {
        ! images default | grep -q "volume-$1"
}
wait_until 20 left "$(cat volumes/l/id)" || fail "left in Ceph"
# Both daemons die in the middle: the job goes on, from its beginning.
echo 'retype fast' >volumes/l/ctl || fail "retype: $(cat volumes/l/error)"
kill -9 "$(head -n1 "$T/state/run/blockd.pid")" "$(head -n1 "$T/state/run/stratod.pid")" || fail "kill"
available l
expect_text volumes/l/pool "$ceph"
cmp -n 20971520 "$T/raw" volumes/l/data || fail "other bytes after a move that was cut off"
echo 'retype -' >volumes/l/ctl && job=$(readlink -f volumes/l/job) && echo cancel >"$job/ctl" 2>/dev/null
available l
cmp -n 20971520 "$T/raw" volumes/l/data || fail "other bytes, whether it was cancelled or not"
[ "$(cat volumes/l/pool)" = local ] || { echo 'retype -' >volumes/l/ctl && available l; } ||
        fail "back: $(cat volumes/l/error)"
expect_text volumes/l/pool local
ok "a move that was cut off goes on"

mkdir volumes/l/snapshots/s && cat volumes/l/snapshots/s/.wait/available@20 >/dev/null || fail "snap"
refused "it has snapshots" volumes/l "echo 'retype fast' >ctl"
ok "volumes move, there and back"

# What a clone cannot do over pools is copied.
mkdir volumes/c && echo fast >volumes/c/type && ln -s ../l/snapshots/s volumes/c/source ||
        fail "from a snapshot in files: $(cat errors)"
available c
expect_text volumes/c/pool "$ceph"
cmp -n 20971520 "$T/raw" volumes/c/data || fail "other bytes in the copy"
cp "$T/raw" images/disk && cat images/disk/.wait/active@60 >/dev/null || fail "upload"
mkdir volumes/i && echo fast >volumes/i/type && ln -s ../../images/disk volumes/i/source ||
        fail "from an image in files"
available i
cmp -n 20971520 "$T/raw" volumes/i/data || fail "other bytes than the image"
ok "sources in another pool are copied"

mkdir volumes/e && echo 1 >volumes/e/encrypted && echo 32M >volumes/e/size || fail "encrypted"
available e
dd if="$T/raw" of=volumes/e/data bs=1M conv=notrunc,fsync status=none || fail "bytes"
echo 'retype fast' >volumes/e/ctl || fail "retype an encrypted one: $(cat volumes/e/error)"
available e
cmp -n 20971520 "$T/raw" volumes/e/data || fail "other bytes after the move"
! rbd -p rbd --namespace "$space.default" export "volume-$(cat volumes/e/id)" - 2>/dev/null |
        head -c 20M | cmp -s -n 4096 - "$T/raw" || fail "in the clear"
ok "an encrypted one, too"

# An image with bytes, two snapshots (one with a name that ours cannot have) and a clone of somebody's.
rbd create -p rbd --size 16M "old$$" || fail "an image"
rbd -p rbd bench --io-type write --io-total 4M --io-size 1M --io-pattern seq "old$$" >/dev/null || fail "bytes"
rbd -p rbd snap create --no-progress "old$$@s" && rbd -p rbd snap create --no-progress "old$$@day:1" || fail "snapshots"
rbd -p rbd clone --rbd-default-clone-format 2 "old$$@s" "child$$" || fail "a clone"
was=$(rbd export -p rbd --no-progress "old$$@s" - | sha256sum)
mkdir volumes/o || fail "mkdir"
refused "no image in a pool" volumes/o "echo rbd:other/old$$ >manage"
# What somebody has open or locked is not taken: it would have two writers.
rbd -p rbd lock add "old$$" theirs || fail "lock"
echo "rbd:rbd/old$$" >volumes/o/manage || fail "manage"
! cat volumes/o/.wait/available@30 >/dev/null 2>&1 && grep -q "has locked it" volumes/o/error ||
        fail "with a lock: $(cat volumes/o/state volumes/o/error)"
locker=$(rbd -p rbd lock ls "old$$" --format json | jq -r '.[0].locker')
rmdir volumes/o && rbd -p rbd lock rm "old$$" theirs "$locker" && mkdir volumes/o || fail "again"
echo "rbd:rbd/old$$" >volumes/o/manage || fail "manage"
available o
expect_text volumes/o/size 16777216
expect_text volumes/o/pool "$ceph"
[ "$(cd volumes/o/snapshots && ls -d */ | tr -d / | tr '\n' ' ')" = "day-1 s " ] || fail "snapshots: $(ls volumes/o/snapshots)"
expect_text volumes/o/snapshots/day-1/description day:1
[ "$(sha256sum <volumes/o/snapshots/s/data)" = "$was" ] || fail "other bytes in the snapshot"
dd if="$T/raw" of=volumes/o/data bs=1M count=16 conv=notrunc,fsync status=none || fail "bytes"
[ "$(sha256sum <volumes/o/snapshots/s/data)" = "$was" ] || fail "the snapshot changed"
mkdir volumes/o/snapshots/ours && cat volumes/o/snapshots/ours/.wait/available@30 >/dev/null || fail "a snapshot of ours"
"$STRATO" doctor --fsck --state "$T/state" >"$T/fsck" 2>&1 || fail "fsck: $(cat "$T/fsck")"
rmdir volumes/o/snapshots/day-1 && wait_until 30 test ! -e volumes/o/snapshots/day-1 || fail "a snapshot goes"
refused "stays in its pool" volumes/o "echo release rbd:a/b >ctl"
# A snapshot that is going away is waited for.
released() {
        wait_until 30 sh -c "echo 'release rbd:$1' >volumes/o/ctl" && wait_until 30 test ! -e volumes/o ||
                fail "release: $(cat volumes/o/error)"
}
released "new$$"
rbd export -p rbd --no-progress "new$$" - | cmp -n 16777216 - "$T/raw" || fail "other bytes"
[ "$(rbd -p rbd snap ls "new$$" --format json | jq -c '[.[].name]')" = '["s","ours"]' ] ||
        fail "snapshots: $(rbd -p rbd snap ls "new$$")"
[ "$(rbd export -p rbd --no-progress "new$$@s" - | sha256sum)" = "$was" ] || fail "other bytes in the image's snapshot"
[ "$(rbd export -p rbd --no-progress "child$$" - | sha256sum)" = "$was" ] || fail "other bytes in the clone"
"$STRATO" doctor --fsck --state "$T/state" >"$T/fsck" 2>&1 || fail "fsck: $(cat "$T/fsck")"

# Once more, with all that it has now; before a revert its snapshots are of another image.
mkdir volumes/o && echo "rbd:rbd/new$$" >volumes/o/manage || fail "manage"
available o
[ "$(cd volumes/o/snapshots && ls -d */ | tr -d / | tr '\n' ' ')" = "ours s " ] || fail "snapshots: $(ls volumes/o/snapshots)"
echo 'revert s' >volumes/o/ctl && available o || fail "revert: $(cat volumes/o/error)"
[ "$(sha256sum <volumes/o/data)" = "$was" ] || fail "other bytes after the revert"
echo "release rbd:newer$$" >volumes/o/ctl && wait_until 30 grep -q "of before it was reverted" volumes/o/error ||
        fail "released: $(cat volumes/o/error)"
available o
rmdir volumes/o/snapshots/ours volumes/o/snapshots/s && wait_until 30 test ! -e volumes/o/snapshots/s || fail "rmdir"
released "newer$$"
[ "$(rbd export -p rbd --no-progress "newer$$" - | sha256sum)" = "$was" ] || fail "other bytes"
ok "an image is adopted with its snapshots and clones, and released"

echo ceph-key >ctl && wait_until 20 grep -q "its Ceph key is in" events || fail "key: $(cat error)"
key=$(sed -n 's/.*its Ceph key is in \(.*\) on host.*/\1/p' events)
[ "$(stat -c %a "$key")" = 600 ] || fail "mode of $key"
who=$(sed -n 's/^\[\(.*\)\]$/\1/p' "$key")
rbd -n "$who" --keyring "$key" -p rbd --namespace "$space.default" ls >"$T/out" || fail "its key"
grep -q "volume-$(cat volumes/f/id)" "$T/out" || fail "its key shows: $(cat "$T/out")"
echo 'ceph-key revoke' >ctl && wait_until 20 grep -q "revoked" events || fail "revoke"
[ ! -e "$key" ] || fail "its file is left"
ok "a tenant's key, on request"

if [ "$(id -u)" = 0 ]; then
        mkdir "$C/tenants/b" && cat "$C/tenants/b/.wait/active@20" >/dev/null || fail "tenant b"
        for v in c e; do
                echo offer >volumes/$v/ctl || fail "offer"
                mkdir "$C/tenants/b/volumes/$v" &&
                        cat volumes/$v/transfer >"$C/tenants/b/volumes/$v/transfer" ||
                        fail "accept $v: $(cat "$C/tenants/b/volumes/$v/error")"
                cat "$C/tenants/b/volumes/$v/.wait/available@60" >/dev/null ||
                        fail "accept $v: $(cat "$C/tenants/b/volumes/$v/error")"
                cmp -n 20971520 "$T/raw" "$C/tenants/b/volumes/$v/data" || fail "other bytes: $v"
                images b | grep -q "volume-$(cat "$C/tenants/b/volumes/$v/id")" ||
                        fail "in b's namespace: $(images b)"
                ! rbd -p rbd --namespace "$space.b" info "volume-$(cat "$C/tenants/b/volumes/$v/id")" |
                        grep parent || fail "it has a parent in the other tenant's"
        done
        ok "another tenant's namespace: a copy"
        rmdir "$C"/tenants/b/volumes/[ce] && wait_until 60 rmdir "$C/tenants/b" || fail "rmdir b"
fi

cd / && stop_cloud
