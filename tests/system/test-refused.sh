#!/bin/bash
# Images that must never be opened by a guest, copies that were cut off, and a full disk: each is
# refused with words, and nothing half made stays usable.
. "$(dirname "$0")/../lib.sh"
requires qemu-img
requires_root

mkdir -p "$T/state"
mount -t tmpfs -o size=160M,mode=0711 tmpfs "$T/state" || fail "tmpfs"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"

# refused NAME FILE WORDS: uploaded under that file name, ends in error with these words.
refused() {
        local name=${1%.*}
        cp "$2" "images/$1" 2>"$T/err" || {
                expect_text images/errors "$3" # refused in the write already
                return
        }
        "$STRATO" wait "images/$name" active --timeout 60 >/dev/null 2>&1 &&
                fail "$1 was accepted"
        [ "$(cat "images/$name/state")" = error ] || fail "$1: $(cat "images/$name/state")"
        grep -qi -- "$3" "images/$name/error" || fail "$1: $(cat "images/$name/error")"
        expect_errno EBUSY "mkdir volumes/from-$name && ln -s ../../images/$name volumes/from-$name/source"
        rmdir "volumes/from-$name" "images/$name" || fail "rmdir of what was refused"
        ok "$1: $3"
}

cd "$T" || fail "cd"
head -c 1M /dev/urandom >plain.raw
qemu-img create -q -f qcow2 -b /etc/passwd -F raw backing.qcow2 1M
qemu-img create -q -f qcow2 -o data_file="$T/outside.raw",data_file_raw=on outside.qcow2 1M
qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M
qemu-img create -q -f qcow2 huge.qcow2 1M
/usr/bin/python3 -c "
import struct
with open('huge.qcow2', 'r+b') as f:
    f.seek(24); f.write(struct.pack('>Q', 1 << 63))
    f.truncate(4096)"
qemu-img convert -O qcow2 plain.raw whole.qcow2
head -c 500000 whole.qcow2 >cut.qcow2
echo "this is a letter, not a disk" >letter.txt
qemu-img create -q -f vpc parent.vhd 4M && /usr/bin/python3 -c "
import struct
def fix(f, at):
    f.seek(at); b = bytearray(f.read(512))
    b[60:64] = struct.pack('>I', 4)          # differencing
    b[64:68] = b'\0' * 4
    b[64:68] = struct.pack('>I', ~sum(b) & 0xffffffff)
    f.seek(at); f.write(b)
with open('parent.vhd', 'r+b') as f:
    f.seek(0, 2); end = f.tell()
    fix(f, 0); fix(f, end - 512)"
cd "$C/tenants/default" || fail "cd"

refused backing.qcow2 "$T/backing.qcow2" "backing file"
refused outside.qcow2 "$T/outside.qcow2" "data file"
refused flat.vmdk "$T/flat.vmdk" "extent\|descriptor\|other files"
refused huge.qcow2 "$T/huge.qcow2" "out of proportion"
refused cut.qcow2 "$T/cut.qcow2" "cut\|truncated\|past the end\|ends"
refused letter.qcow2 "$T/letter.txt" "qcow2"
refused parent.vhd "$T/parent.vhd" "parent\|differencing"

# --- a declared size or checksum that the copy does not meet
mkdir images/sized && echo 2000000 >images/sized/size
cp "$T/plain.raw" images/sized/data
"$STRATO" wait images/sized active --timeout 30 2>/dev/null && fail "wrong size accepted"
expect_text images/sized/error "1048576 arrived"
mkdir images/summed && printf '%064d\n' 0 >images/summed/checksum
cp "$T/plain.raw" images/summed/data
"$STRATO" wait images/summed active --timeout 30 2>/dev/null && fail "wrong checksum accepted"
expect_text images/summed/error "SHA-256 is"
rmdir images/sized images/summed

# --- a writer killed in the middle
mkfifo "$T/pipe"
cat "$T/pipe" >images/killed.raw &
writer=$!
exec 3>"$T/pipe"
head -c 100000 "$T/plain.raw" >&3
received() {
        [ "$(cat images/killed/size)" = 100000 ]
}
wait_until 10 received || fail "size while copying: $(cat images/killed/size)"
[ "$(cat images/killed/state)" = saving ] || fail "state while copying"
kill -9 $writer
exec 3>&-
cut_off() {
        [ "$(cat images/killed/state)" = error ]
}
wait_until 10 cut_off || fail "killed writer: $(cat images/killed/state)"
expect_text images/killed/error "signal"
rmdir images/killed

# --- a whole one is taken, and is what it was
cp "$T/whole.qcow2" images/
expect "a whole image" "$STRATO" wait images/whole active --timeout 60
cmp "$T/plain.raw" images/whole/disk || fail "disk is not what went in"
expect_errno EEXIST cp "$T/whole.qcow2" images/

# --- a full disk
filler=$T/state/filler
dd if=/dev/zero of="$filler" bs=64k 2>/dev/null
expect_errno ENOSPC cp "$T/plain.raw" images/full.raw
dd if=/dev/zero of="$filler" bs=1k oflag=append conv=notrunc 2>/dev/null
full=''
for i in $(seq 200); do
        mkdir "volumes/full$i" 2>"$T/err" && continue
        grep -q "No space left" "$T/err" || fail "full disk: $(cat "$T/err")"
        full=$i
        break
done
[ "$full" ] || fail "200 objects fitted on a full disk"
[ ! -e "volumes/full$full" ] || fail "what was refused is there"
expect_text errors "ENOSPC"
rm "$filler"
expect "after space came" mkdir volumes/again
echo 1M >volumes/again/size
expect "a volume" "$STRATO" wait volumes/again available --timeout 30
cd / && stop_cloud
