#!/bin/bash
# qemu:///system: chosen where a libvirtd answers, and what happens while it is down.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 libvirtd virtlogd virsh
requires_root

libvirtd_up() {
        mkdir -p /var/log/libvirt /run/libvirt
        if [ ! -S /run/libvirt/virtlogd-sock ] || ! virsh -c qemu:///system version >/dev/null 2>&1; then
                spawn virtlogd
        fi
        spawn libvirtd
        libvirtd=$!
        wait_until 180 virsh -c qemu:///system capabilities || fail "libvirtd does not answer"
}
virsh -c qemu:///system version >/dev/null 2>&1 && skip "a libvirtd that is not ours runs here"
libvirtd_up
guest_image "$T/debian.qcow2"
start_cloud
[ "$(cat "$C/admin/hosts/$(hostname)/compute")" = system ] || fail "compute mode"
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" images/
mkdir volumes/root instances/web
ln -s ../../images/debian volumes/root/source
echo small >instances/web/flavor
ln -s volumes/root instances/web/volumes/vda
expect "the volume" "$STRATO" wait volumes/root in-use --timeout 60

kill "$libvirtd"
wait_gone "$libvirtd" 20
echo start >instances/web/ctl || fail "start is accepted"
"$STRATO" wait instances/web active --timeout 60 2>/dev/null && fail "started without libvirtd"
[ "$(cat instances/web/state)" = draft ] || fail "state: $(cat instances/web/state)"
expect_text instances/web/error "libvirt"
libvirtd_up
echo start >instances/web/ctl || fail "start"
expect "later it works" "$STRATO" wait instances/web active --timeout 180
wait_line instances/web/console.log "STRATOFS-GUEST ready" 120

# libvirtd restarts under the guest; its end is seen all the same.
kill "$libvirtd"
wait_gone "$libvirtd" 20
[ "$(cat instances/web/state)" = active ] || fail "state without libvirtd"
libvirtd_up
echo stop >instances/web/ctl
expect "it stops" "$STRATO" wait instances/web stopped --timeout 90
cd / && stop_cloud
