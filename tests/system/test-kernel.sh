#!/bin/bash
# aki and ari: an instance boots a kernel and a ramdisk directly; `image` alone makes the root.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 socat
requires_root

expect "kernel and ramdisk" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
guest_image "$T/debian.qcow2"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/kernel/vmlinuz" images/vmlinuz.aki
cp "$T/kernel/initrd.gz" images/initrd.ari
expect "the kernel is active" "$STRATO" wait images/vmlinuz active --timeout 60
expect "the ramdisk is active" "$STRATO" wait images/initrd active --timeout 60
[ "$(cat images/vmlinuz/format) $(cat images/initrd/format)" = "aki ari" ] || fail "formats"
expect_errno EINVAL 'mkdir volumes/v && ln -s images/vmlinuz volumes/v/source'
echo 'name=direct flavor=small kernel=images/vmlinuz ramdisk=images/initrd' >instances/new ||
        fail "new"
expect_errno EINVAL ln -s images/initrd instances/direct/image
echo 'console=ttyS0' >instances/direct/cmdline
echo start >instances/direct/ctl
expect "it is active" "$STRATO" wait instances/direct active --timeout 60
wait_line instances/direct/console.log "STRATOFS-GUEST ready" 60
echo 'stop now' >instances/direct/ctl
expect "it is off" "$STRATO" wait instances/direct stopped --timeout 60

# An image alone: the root volume is made at the start and goes with the instance.
cp "$T/debian.qcow2" images/
echo 'name=auto flavor=small image=images/debian' >instances/new || fail "new with image"
echo start >instances/auto/ctl
expect "it is active" "$STRATO" wait instances/auto active --timeout 120
[ "$(readlink instances/auto/volumes/vda)" = ../../../volumes/auto-root ] || fail "root volume"
wait_line instances/auto/console.log "STRATOFS-GUEST ready" 120
echo pause >instances/auto/ctl
expect "paused" "$STRATO" wait instances/auto paused --timeout 30
echo resume >instances/auto/ctl
expect "resumed" "$STRATO" wait instances/auto active --timeout 30
echo 'stop now' >instances/auto/ctl
rmdir instances/auto || fail "rmdir"
gone() {
        [ ! -e volumes/auto-root ]
}
wait_until 30 gone || fail "the root volume outlived its instance"
cd / && stop_cloud
