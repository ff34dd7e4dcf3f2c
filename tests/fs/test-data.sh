#!/bin/bash
# Bytes: volumes through NBD, images by upload.
. "$(dirname "$0")/lib-fs.sh"
requires qemu-img qemu-io rsync
start_fs
volume v 10M

# --- without a block service
expect_errno EIO cat volumes/v/data
expect_text "$C/self/error" "blockd"
is "stat needs none" "$(stat -L -c '%s %b' volumes/v/data)" "10485760 20480"
start_nbd

# --- a volume
head -c 3M /dev/urandom >"$T/r"
expect "dd" dd if="$T/r" of=volumes/v/data bs=1M seek=2 conv=fsync,notrunc
expect "reads back" cmp -n 3145728 -i 0:2097152 "$T/r" volumes/v/data
expect "the file has it" cmp -n 3145728 -i 0:2097152 "$T/r" "$T/d/vol/$(cat volumes/v/id)"
is "holes" "$(qemu-img map -f raw --output=json volumes/v/data |
        /usr/bin/python3 -c 'import json, sys
print([(e["start"], e["data"]) for e in json.load(sys.stdin)])')" \
        "[(0, False), (2097152, True), (5242880, False)]"
expect "cp out" cp volumes/v/data "$T/copy"
expect "... is the same" cmp volumes/v/data "$T/copy"
expect "punch" fallocate -p -o 2M -l 1M volumes/v/data
expect "punched" cmp -n 1048576 -i 2097152:0 volumes/v/data /dev/zero
expect "zero" fallocate -z -o 3M -l 1M volumes/v/data
expect "zeroed" cmp -n 2097152 -i 2097152:0 volumes/v/data /dev/zero
expect "cp in" cp "$T/r" volumes/v/data
expect "truncation is nothing" truncate -s 1M volumes/v/data
is "the size stays" "$(stat -L -c %s volumes/v/data)" 10485760
expect_errno EFBIG truncate -s 20M volumes/v/data
expect_errno EFBIG dd if=/dev/zero of=volumes/v/data bs=1M seek=9 count=2 conv=notrunc
expect_errno EINVAL 'echo x >>volumes/v/data'
expect_errno EPERM rm volumes/v/data
expect "qemu-img convert" qemu-img convert -n -O raw "$T/r" volumes/v/data
expect "qemu-io" qemu-io -f raw -c 'write -P 7 4096 8192' -c 'read -P 7 4096 8192' \
        -c 'discard 4096 4096' -c 'read -P 0 4096 4096' volumes/v/data
/usr/bin/python3 - <<'END' || fail "seeks"
import errno, os
fd = os.open("volumes/v/data", os.O_RDONLY)
for off in (10485760, 10485761):
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        try:
            os.lseek(fd, off, whence)
            raise SystemExit("no ENXIO at the end")
        except OSError as e:
            assert e.errno == errno.ENXIO
assert os.lseek(fd, 10485759, os.SEEK_HOLE) <= 10485760
END
ok "seeks end with ENXIO"

# --- the block service goes and comes back under an open file
exec 4<volumes/v/data
head -c 4096 <&4 >/dev/null || fail "read"
kill -9 $nbd_pid
wait_gone $nbd_pid 10
start_nbd
head -c 4096 <&4 >"$T/back" || fail "a read after the block service came back"
exec 4<&-
ok "an open file survives a restart of the block service"

# --- uploads
qemu-img create -q -f qcow2 "$T/debian.qcow2" 20M
qemu-io -c 'write -P 5 0 3M' "$T/debian.qcow2" >/dev/null
expect "cp" cp "$T/debian.qcow2" images/
is "active" "$(cat images/debian/.wait/active@60)" active
is "format" "$(cat images/debian/format)" qcow2
is "checksum" "$(cat images/debian/checksum)" "$(sha256sum <"$T/debian.qcow2" | cut -d' ' -f1)"
expect "data is what was uploaded" cmp images/debian/data "$T/debian.qcow2"
is "disk's size is the guest's" "$(stat -L -c %s images/debian/disk)" 20971520
is "data's is the file's" "$(stat -L -c %s images/debian/data)" "$(stat -c %s "$T/debian.qcow2")"
expect "disk is what a guest sees" cmp -n 3145728 images/debian/disk \
        <(head -c 3145728 /dev/zero | tr '\0' '\5')
expect_errno EEXIST cp "$T/debian.qcow2" images/
expect_errno EPERM dd if=/dev/zero of=images/debian/disk count=1
expect_errno EBUSY dd if=/dev/zero of=images/debian/data count=1
for how in 'cat "$T/debian.qcow2" >images/x.qcow2' 'dd if="$T/debian.qcow2" of=images/x.img bs=64k' \
        'tee images/x.qcow2 <"$T/debian.qcow2"' 'rsync "$T/debian.qcow2" images/x.qcow2' \
        'rsync -a --inplace "$T/debian.qcow2" images/x.qcow2' \
        'install -m 644 "$T/debian.qcow2" images/x.qcow2' \
        'mkdir images/x && cp "$T/debian.qcow2" images/x/data'; do
        expect "$how" env T="$T" bash -c "$how"
        is "... is active" "$(cat images/x/.wait/active@60)" active
        cmp images/x/data "$T/debian.qcow2" || fail "its bytes"
        rmdir images/x || fail "rmdir"
done
expect "a clone" bash -c 'mkdir volumes/c && ln -s images/debian volumes/c/source'
is "available" "$(cat volumes/c/.wait/available@60)" available
is "its size" "$(cat volumes/c/size)" 20971520
is "readlink" "$(readlink volumes/c/source)" ../../images/debian

# --- a disk copied onto a blank volume is a clone
clones() {
        grep -c "^$(cat "volumes/$1/id") " "$T/d/clones"
}
for how in 'cp' '/usr/bin/python3 -c "
import os, sys
a, b = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY)
done = 0
while n := os.copy_file_range(a, b, 1 << 40):
    done += n
assert done == 20971520, done"'; do
        volume k 24M
        expect "${how%% *} of a disk" bash -c "$how images/debian/disk volumes/k/data"
        is "... made one clone" "$(clones k)" 1
        is "... of the size it had" "$(cat volumes/k/size) $(cat volumes/k/state)" "25165824 available"
        is "... which can boot" "$(cat volumes/k/bootable)" 1
        is "... of its source" "$(readlink volumes/k/source)" ../../images/debian
        expect "... has the bytes" cmp -n 20971520 images/debian/disk volumes/k/data
        expect "... and zeros behind" cmp -n 4194304 -i 20971520:0 volumes/k/data /dev/zero
        expect "... is written" dd if="$T/r" of=volumes/k/data bs=4k count=1 conv=notrunc
        rmdir volumes/k && wait_until 20 test ! -e volumes/k || fail "rmdir"
done
volume k 24M
expect "cp of a volume" cp volumes/v/data volumes/k/data
is "... made one clone" "$(clones k)" 1
expect "... has the bytes" cmp -n 10485760 volumes/v/data volumes/k/data
expect "cp onto what was written" cp images/debian/disk volumes/k/data
is "... copied" "$(clones k)" 1
expect "... the bytes" cmp -n 20971520 images/debian/disk volumes/k/data
volume part 20M
expect "a part of it" /usr/bin/python3 -c '
import os
a = os.open("images/debian/disk", os.O_RDONLY)
b = os.open("volumes/part/data", os.O_WRONLY)
assert os.copy_file_range(a, b, 1 << 20, 0, 0) == 1 << 20'
is "... is copied" "$(clones part)" 0
expect "... and no more" cmp -n 1048576 -i 1048576:0 volumes/part/data /dev/zero
volume small 1M
expect_errno EFBIG cp images/debian/disk volumes/small/data
expect_errno EOPNOTSUPP cp --reflink=always images/debian/disk volumes/part/data
expect "cp --sparse" cp --sparse=always images/debian/disk volumes/part/data
expect "out again" cp volumes/part/data "$T/part"
expect "... the same" cmp "$T/part" images/debian/disk

# --- cut off: a writer that was killed never makes an image
mkfifo "$T/pipe"
/usr/bin/python3 - "$T/debian.qcow2" <<'END' || fail "killed writer"
import os, signal, subprocess, sys
data = open(sys.argv[1], "rb").read()
p = subprocess.Popen(["cp", "/dev/stdin", "images/cut.qcow2"], stdin=subprocess.PIPE)
p.stdin.write(data) # all of a valid image, but its writer does not end by itself
p.stdin.flush()
while not os.path.exists("images/cut") or int(open("images/cut/size").read() or 0) < len(data):
    pass
p.send_signal(signal.SIGKILL)
p.wait()
END
is "a killed writer's image is in error" "$(cat images/cut/.wait/error@20)" error
expect_text images/cut/error "killed by a signal"
expect_errno EIO cat images/cut/.wait/active@20
end_fs
