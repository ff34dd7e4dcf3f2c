#!/bin/bash
# A cloud whose configuration says where volumes are: in a Ceph pool, through the mount.
. "$(dirname "$0")/../lib.sh"
requires rbd
space=mount$$

cat >"$T/conf" <<CONF
# one machine, its volumes in Ceph
volumes = rbd:rbd/$space
ceph_conf = $CEPH_CONF
CONF
start_cloud --conf "$T/conf"
cd "$C/tenants/default" || fail "cd"
# The cloud's images are in the pool's namespace, each tenant's volumes in one of its own.
images() {
        rbd -p rbd --namespace "$space" ls
        rbd -p rbd --namespace "$space.default" ls
}

mkdir volumes/v && echo 1G >volumes/v/size && cat volumes/v/.wait/available@20 >/dev/null ||
        fail "mkdir, size"
expect_text volumes/v/pool "rbd:rbd/$space"
expect_text volumes/v/host ""
[ "$(images)" = "volume-$(cat volumes/v/id)" ] || fail "rbd ls: $(images)"
ok "a volume is an image"

head -c 8M /dev/urandom >"$T/raw"
expect "bytes into a volume" dd if="$T/raw" of=volumes/v/data bs=1M conv=notrunc,fsync status=none
cmp -n 8388608 "$T/raw" volumes/v/data || fail "other bytes"
ok "bytes"

cp "$T/raw" images/disk && cat images/disk/.wait/available@60 >/dev/null 2>&1 ||
        cat images/disk/.wait/active@60 >/dev/null || fail "upload"
images | grep -q "^image-" || fail "no image in: $(images)"
mkdir volumes/root && ln -s ../../images/disk volumes/root/source &&
        cat volumes/root/.wait/available@20 >/dev/null || fail "a volume from an image"
cmp -n 8388608 "$T/raw" volumes/root/data || fail "other bytes than the image"
rbd -p rbd --namespace "$space" snap ls "image-$(cat images/disk/id)" | grep -q "base.*yes" ||
        fail "the image's snapshot is not protected"
rbd -p rbd --namespace "$space.default" info "volume-$(cat volumes/root/id)" |
        grep -q "parent: rbd/$space/image-$(cat images/disk/id)@base" || fail "no clone of it"
ok "an image, once, and a clone of it"

mkdir volumes/v/snapshots/s && cat volumes/v/snapshots/s/.wait/available@20 >/dev/null ||
        fail "snapshot"
mkdir volumes/c && ln -s ../v/snapshots/s volumes/c/source &&
        cat volumes/c/.wait/available@20 >/dev/null || fail "clone"
cmp -n 8388608 "$T/raw" volumes/c/data || fail "other bytes in the clone"
ok "snapshot and clone"

mkdir instances/web && expect "attached" ln -s volumes/c instances/web/volumes/
rm instances/web/volumes/* && rmdir instances/web || fail "detach"

cd / && "$STRATO" down --state "$T/state" --mount "$C" >/dev/null || fail "strato down"
start_cloud
cd "$C/tenants/default" || fail "cd"
cmp -n 8388608 "$T/raw" volumes/v/data || fail "other bytes after a restart"
ok "without --conf, the same pool"
rmdir volumes/v/snapshots/s && wait_until 20 test ! -e volumes/v/snapshots/s || fail "rmdir snapshot"
rmdir volumes/v volumes/c volumes/root && wait_until 30 test ! -e volumes/v || fail "rmdir"
rmdir images/disk || fail "rmdir image"
gone() {
        [ -z "$(images)" ]
}
wait_until 60 gone || fail "left: $(images)"
ok "all gone"
cd / && stop_cloud
