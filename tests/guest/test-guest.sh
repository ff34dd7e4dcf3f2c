#!/bin/bash
# The guest that contrib/make-guest makes boots from its disk and from kernel and initrd alone, and
# says and does what the other tests rely on.
. "$(dirname "$0")/../lib.sh"
requires qemu-system-x86_64 qemu-img socat

monitor() {
        echo "$*" | socat -t2 - "UNIX:$T/monitor" >"$T/monitor.out"
}
type_line() {
        echo "$*" | socat -t0.2 - "UNIX:$T/serial" >/dev/null
}
boot() {
        rm -f "$T/serial" "$T/monitor" "$T/console"
        spawn qemu-system-x86_64 -accel tcg -m 192 -nodefaults -display none "$@" \
                -chardev "socket,id=s,path=$T/serial,server=on,wait=off,logfile=$T/console" \
                -serial chardev:s -monitor "unix:$T/monitor,server=on,wait=off"
        qemu=$!
        wait_line "$T/console" "STRATOFS-GUEST ready" 120
}

expect "a disk is made" "$SOURCE/contrib/make-guest" "$T/guest.qcow2" --size 512M
expect "the image is sound" qemu-img check "$T/guest.qcow2"
[ "$(stat -c %s "$T/guest.qcow2")" -lt $((60 << 20)) ] || fail "the image is over 60 MiB"
expect_status 1 "$SOURCE/contrib/make-guest" "$T/other.qcow2" --size 1Z
expect_text "$T/err" "not a size"
[ ! -e "$T/other.qcow2" ] || fail "a refused size left a file"

# The disk was grown after it was made, as a cloned volume is.
expect "the image grows" qemu-img resize "$T/guest.qcow2" 4G
truncate -s 100M "$T/second"
boot -drive "if=virtio,file=$T/guest.qcow2,format=qcow2"
expect_text "$T/console" "STRATOFS-GUEST up"
expect_text "$T/console" "STRATOFS-GUEST disk vda 4294967296"
expect_text "$T/console" "STRATOFS-GUEST pattern ok"

type_line 'echo sum $((40 + 2))'
wait_line "$T/console" "sum 42" 20
monitor "drive_add 0 if=none,id=d,file=$T/second,format=raw"
monitor "device_add virtio-blk-pci,drive=d,id=hot"
wait_line "$T/console" "STRATOFS-GUEST disk vdb 104857600" 20
type_line 'pattern vdb && echo vdb was good'
wait_line "$T/console" "vdb was good" 60
monitor "block_resize d 200M"
wait_line "$T/console" "STRATOFS-GUEST disk vdb 209715200" 20
monitor "device_del hot"
wait_line "$T/console" "STRATOFS-GUEST gone vdb" 20
grep -q "STRATOFS-GUEST tick" "$T/console" && fail "it ticks unasked"
type_line 'tick on'
wait_line "$T/console" "STRATOFS-GUEST tick 2" 20
type_line 'tick off'
monitor system_powerdown
wait_line "$T/console" "STRATOFS-GUEST bye" 20
wait_gone $qemu 20
wait $qemu || fail "QEMU ended with status $?"

expect "kernel and initrd are made" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
boot -kernel "$T/kernel/vmlinuz" -initrd "$T/kernel/initrd.gz" \
        -append "console=ttyS0 stratofs.pattern=vda" -drive "if=virtio,file=$T/second,format=raw"
expect_text "$T/console" "STRATOFS-GUEST up"
expect_text "$T/console" "STRATOFS-GUEST disk vda 209715200"
expect_text "$T/console" "STRATOFS-GUEST pattern ok"
monitor system_powerdown
wait_line "$T/console" "STRATOFS-GUEST bye" 20
wait_gone $qemu 20
ok "all"
