#!/bin/bash
# The story of the README, typed as fast as a person pastes it: an image is copied in, a volume is
# cloned from it, a guest boots from the volume over NBD, everything goes again.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img socat
requires_root

guest_image "$T/debian.qcow2"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"

# --- in, without waiting anywhere: each command is accepted while the one before is at work
cp "$T/debian.qcow2" images/ || fail "cp into images/"
mkdir volumes/root && ln -s ../../images/debian volumes/root/source || fail "clone"
echo 4G >volumes/root/size || fail "grow"
mkdir instances/web && echo small >instances/web/flavor || fail "flavor"
ln -s volumes/root instances/web/volumes/vda || fail "attach"
[ "$(readlink instances/web/volumes/vda)" = ../../../volumes/root ] || fail "readlink"
echo start >instances/web/ctl || fail "start"
expect "it becomes active" "$STRATO" wait instances/web active --timeout 120

[ "$(cat images/debian/state)" = active ] || fail "image is $(cat images/debian/state)"
[ "$(cat images/debian/format)" = qcow2 ] || fail "format"
[ "$(cat images/debian/size)" = "$(stat -c %s "$T/debian.qcow2")" ] || fail "image size"
[ "$(cat images/debian/checksum)" = "$(sha256sum <"$T/debian.qcow2" | cut -d' ' -f1)" ] ||
        fail "checksum"
cmp images/debian/data "$T/debian.qcow2" || fail "data is not what was uploaded"
[ "$(cat volumes/root/size)" = $((4 << 30)) ] || fail "volume size"
[ "$(cat volumes/root/state)" = in-use ] || fail "volume state"
[ "$(cat volumes/root/attached_to)" = web:vda ] || fail "attached_to"
log=instances/web/console.log
wait_line $log "STRATOFS-GUEST ready" 120
expect_text $log "STRATOFS-GUEST up"
expect_text $log "STRATOFS-GUEST disk vda 4294967296"
expect_text $log "STRATOFS-GUEST pattern ok"
true_size() { # it may grow between the two looks
        [ "$(stat -c %s $log)" = "$(wc -c <$log)" ]
}
wait_until 10 true_size || fail "console.log does not show its true size"
[ "$(ls -ld "/proc/$(guest_pid instances/web)" | awk '{print $3}')" != root ] ||
        fail "QEMU runs as root"
ok "QEMU runs as a user of its own"

# --- its disk grows while it runs
echo 5G >volumes/root/size || fail "grow under a guest"
wait_line $log "STRATOFS-GUEST disk vda 5368709120" 60
expect "it is at rest" "$STRATO" wait volumes/root in-use --timeout 60
[ "$(cat volumes/root/size)" = $((5 << 30)) ] || fail "volume size"
expect_errno EINVAL 'echo 4G > volumes/root/size'

# --- what is in use stays
expect_errno EBUSY rmdir volumes/root
expect_text volumes/root/error "instances/web"
expect_errno EBUSY rmdir instances/web
expect_errno EBUSY 'echo start > instances/web/ctl'
expect_text instances/web/error "legal now: stop"
expect_errno EBUSY dd if=volumes/root/data of=/dev/null count=1

# --- a disk comes and goes while it runs
echo 'name=more size=128M' >volumes/new || fail "new"
ln -s volumes/more instances/web/volumes/ || fail "live attach"
[ -L instances/web/volumes/vdb ] || fail "the next free device is vdb"
wait_line $log "STRATOFS-GUEST disk vdb 134217728" 60
echo 'snapshot both' >instances/web/ctl || fail "snapshot"
for v in root more; do
        expect "snapshot of $v" "$STRATO" wait volumes/$v/snapshots/both available --timeout 60
done
[ "$(cat instances/web/state)" = active ] || fail "it goes on after its snapshot"
[ "$(cat volumes/root/snapshots/both/size)" = $((5 << 30)) ] || fail "size of the snapshot"
expect "it can be read" cmp -n 512 volumes/more/snapshots/both/data /dev/zero
expect_errno EEXIST 'echo "snapshot both" >instances/web/ctl'
expect_errno EINVAL 'echo "snapshot /" >instances/web/ctl'
echo pause >instances/web/ctl
expect "it is paused" "$STRATO" wait instances/web paused --timeout 30
echo 'snapshot still' >instances/web/ctl || fail "snapshot of a paused guest"
expect "taken" "$STRATO" wait volumes/more/snapshots/still available --timeout 60
[ "$(cat instances/web/state)" = paused ] || fail "who was paused stays so"
rmdir volumes/{root,more}/snapshots/both volumes/{root,more}/snapshots/still || fail "rmdir"
echo 192M >volumes/more/size || fail "grow under a paused guest"
expect "it has grown" "$STRATO" wait volumes/more in-use --timeout 60
echo resume >instances/web/ctl
wait_line $log "STRATOFS-GUEST disk vdb 201326592" 60
rm instances/web/volumes/vdb || fail "detach"
wait_line $log "STRATOFS-GUEST gone vdb" 60
expect "the volume is free again" "$STRATO" wait volumes/more available --timeout 60

# --- rm -r of a running guest harms nothing
mkdir -p instances/web/metadata && echo there >instances/web/metadata/key
rm -rf instances/web 2>/dev/null && fail "rm -rf of an instance succeeded"
[ -L instances/web/volumes/vda ] || fail "rm -rf took a disk away"
[ "$(cat instances/web/metadata/key)" = there ] || fail "rm -rf took metadata away"
[ "$(cat instances/web/state)" = active ] || fail "rm -rf changed the state"
ok "rm -rf of a running guest harms nothing"

# --- out, again without waiting
echo stop >instances/web/ctl || fail "stop"
rmdir instances/web || fail "rmdir of a stopping instance"
rmdir volumes/root volumes/more || fail "rmdir of the volumes"
rmdir images/debian || fail "rmdir of the image"
[ -z "$(ls instances volumes images | grep -vE '^(new|help|index|instances:|volumes:|images:|)$')" ] ||
        fail "names are left: $(ls instances volumes images)"
gone() {
        [ -z "$(find "$T/state/blockd/pool" -mindepth 1 -name '*-*-*-*' 2>/dev/null)" ] &&
                [ -z "$(find "$T/state/images" "$T/state/instances" -mindepth 1 2>/dev/null)" ]
}
wait_until 60 gone || fail "left on the disk: $(find "$T/state" -mindepth 2 | grep -v log)"
ok "nothing is left behind"
cd / && stop_cloud
