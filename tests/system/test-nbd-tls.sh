#!/bin/bash
# libvirt and QEMU as they are, with disks from a blockd over TCP: one with TLS, there at the start,
# and one without, attached while the guest runs.  No stratod.
if [ "${STRATOFS_INNER-}" != 1 ]; then
        # A mount namespace, for a configuration of our own; and in it a libvirtd of our own.
        exec unshare -m --propagation private env STRATOFS_INNER=1 bash "$0" "$@"
fi
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 libvirtd virtlogd virsh openssl socat nbdcopy
requires_root
export LIBVIRT_DEFAULT_URI=qemu:///system

expect "credentials" /usr/bin/python3 - "$TESTS/blockd" "$T" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
import credentials
top = sys.argv[2]
ca = credentials.Authority(top)
ca.issue(top + "/server", "server", "localhost", ["DNS:localhost"])
ca.issue(top + "/client", "client", "host7")
END
expect "kernel and initrd" "$SOURCE/contrib/make-guest" --kernel "$T/boot"

call() {
        echo "$1" | socat -t30 - "UNIX:$T/run/blockd.sock" >"$T/out"
        grep -q '"ok":true' "$T/out" || fail "blockd: $1"
}
spawn "$BUILD/blockd/blockd" --state "$T/state" --run "$T/run" --listen 127.0.0.1:0 \
        --tls-dir "$T/server" --plain-tcp --loglevel 7 2>"$T/blockd.log"
wait_line "$T/blockd.log" "serves" 60
port=$(sed -n 's/.*listens on 127.0.0.1 port \([0-9]*\),.*/\1/p' "$T/blockd.log")
secret=5c0e0000-0000-4000-8000-000000000001
open=5c0e0000-0000-4000-8000-000000000002
for v in $secret $open; do
        call '{"op":"create","id":"'$v'","size":1048576}'
done
call '{"op":"export","id":"secret","volume":"'$secret'","uid":0,"gid":0,"clients":["cn:host7"]}'
call '{"op":"export","id":"open","volume":"'$open'","uid":0,"gid":0,"clients":["any"]}'
head -c 1048576 /dev/urandom >"$T/bytes"
sum=$(md5sum <"$T/bytes" | cut -d' ' -f1)
nbdcopy "$T/bytes" "nbd+unix:///$secret?socket=$T/run/nbd.sock" || fail "fill the volume"

cat >"$T/qemu.conf" <<END
user = "root"
group = "root"
security_driver = "none"
nbd_tls_x509_cert_dir = "$T/client"
nbd_tls_x509_verify = 1
END
mount --bind "$T/qemu.conf" /etc/libvirt/qemu.conf || fail "our own qemu.conf"
for d in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
        mkdir -p "$d"
        mount -t tmpfs -o mode=0755 libvirt "$d" || fail "a libvirt of our own"
done
spawn virtlogd
spawn libvirtd
wait_until 120 virsh version || fail "libvirtd does not answer"

# disk NAME TARGET TLS
disk() {
        cat <<END
<disk type='network' device='disk'>
  <driver name='qemu' type='raw'/>
  <source protocol='nbd' name='$1' tls='$3'><host name='localhost' port='$port'/></source>
  <target dev='$2' bus='virtio'/>
</disk>
END
}
cat >"$T/web.xml" <<END
<domain type='qemu'>
  <name>web</name>
  <memory unit='MiB'>192</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>$T/boot/vmlinuz</kernel>
    <initrd>$T/boot/initrd.gz</initrd>
    <cmdline>console=ttyS0</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <controller type='pci' model='pcie-root'/>
    $(yes "<controller type='pci' model='pcie-root-port'/>" | head -n 8)
    $(disk secret vda yes)
    <serial type='unix'>
      <source mode='bind' path='$T/serial'/>
      <log file='$T/console' append='off'/>
    </serial>
  </devices>
</domain>
END
disk open vdb no >"$T/open.xml"
disk secret vdc no >"$T/plainly.xml"

# Its end is ours, too, while our libvirtd is there to see to it.
guest_end() {
        local status=$?
        virsh destroy web >/dev/null 2>&1
        (exit $status)
        test_end
}
trap guest_end EXIT
expect "the guest starts" virsh create "$T/web.xml"
wait_line "$T/console" "STRATOFS-GUEST ready" 180
wait_line "$T/console" "STRATOFS-GUEST disk vda 1048576" 60
expect_text "$T/blockd.log" "cn:host7: TLSv1.3"
expect "a disk without TLS is attached" virsh attach-device web "$T/open.xml" --live
wait_line "$T/console" "STRATOFS-GUEST disk vdb 1048576" 60
expect_status 1 virsh attach-device web "$T/plainly.xml" --live
ok "the other is not for clients without TLS"

type_line() {
        echo "$*" | socat -t1 - "UNIX:$T/serial" >/dev/null || fail "the guest's console"
}
type_line 'echo sum $(md5sum </dev/vda)'
wait_line "$T/console" "sum $sum" 60
type_line 'dd if=/dev/vda of=/dev/vdb bs=64k && dd if=/dev/vdb of=/dev/vda bs=64k count=1 seek=8 && sync && echo written $((40 + 2))'
wait_line "$T/console" "written 42" 60
expect "the guest ends" virsh destroy web
nbdcopy "nbd+unix:///$open?socket=$T/run/nbd.sock" "$T/back" || fail "read the volume"
expect "what the guest wrote without TLS" cmp "$T/bytes" "$T/back"
nbdcopy "nbd+unix:///$secret?socket=$T/run/nbd.sock" "$T/back" || fail "read the volume"
dd if="$T/bytes" of="$T/bytes" bs=64k count=1 seek=8 conv=notrunc 2>/dev/null
expect "what the guest wrote with TLS" cmp "$T/bytes" "$T/back"
