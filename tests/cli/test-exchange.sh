#!/bin/bash
# What comes in and goes out, on a real blockd: copies, clones by copying, files that become volumes
# and back, volumes that change the tenant.
. "$(dirname "$0")/../lib.sh"
requires cmp qemu-img nbdcopy nbdinfo socat
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
volume() {
        mkdir "volumes/$1" && echo "${2:-16M}" >"volumes/$1/size" &&
                [ "$(cat "volumes/$1/.wait/available@20")" = available ] || fail "no volume $1"
}
gone() {
        rmdir "volumes/$1" && wait_until 20 test ! -e "volumes/$1" || fail "rmdir $1"
}
is() {
        [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
        ok "$1"
}
# op ANSWER-KEY VOLUME
of_blockd() {
        echo '{"op":"stat","id":"'"$(cat "volumes/$2/id")"'"}' |
                socat -t10 - "UNIX:$T/state/run/blockd.sock" |
                /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}
# 16 MiB with 1 MiB of data at 4 MiB
truncate -s 16M "$T/sparse" && head -c 1M /dev/urandom |
        dd of="$T/sparse" bs=1M seek=4 conv=notrunc status=none || fail "a sparse file"
few() { # of the file's blocks: not all of it
        [ "$(stat -c %b "$1")" -le 4096 ]
}

# --- in and out, through the mount and through the URI
volume v
uri=$(cat volumes/v/nbd)
for how in 'cp "$T/sparse" volumes/v/data' 'cp --sparse=always "$T/sparse" volumes/v/data' \
        'dd if="$T/sparse" of=volumes/v/data bs=1M conv=notrunc,fsync status=none' \
        'qemu-img convert -n -f raw -O raw "$T/sparse" volumes/v/data' \
        'qemu-img convert -n -f raw -O raw "$T/sparse" "$uri"' 'nbdcopy "$T/sparse" "$uri"'; do
        expect "in: $how" env T="$T" uri="$uri" bash -c "$how"
        expect "... the bytes" cmp "$T/sparse" volumes/v/data
done
gone v
volume v
uri=$(cat volumes/v/nbd)
nbdcopy "$T/sparse" "$uri" || fail "nbdcopy"
is "holes stay holes in the volume" "$(nbdinfo --map --totals "$uri" |
        awk '$4 != "hole,zero" && $4 != "zero" {n += $1} END {print (n <= 2097152)}')" 1
for how in 'cp --sparse=always volumes/v/data "$T/o"' \
        'dd if=volumes/v/data of="$T/o" bs=1M conv=sparse status=none' \
        'qemu-img convert -f raw -O raw volumes/v/data "$T/o"' \
        'qemu-img convert -f raw -O raw "$uri" "$T/o"' 'nbdcopy "$uri" "$T/o"'; do
        rm -f "$T/o"
        expect "out: $how" env T="$T" uri="$uri" bash -c "$how"
        expect "... the bytes" cmp "$T/sparse" "$T/o"
        expect "... sparse" few "$T/o"
done
rm -f "$T/o"
expect "out as qcow2" qemu-img convert -f raw -O qcow2 volumes/v/data "$T/o"
expect "... the bytes" qemu-img compare -f raw -F qcow2 "$T/sparse" "$T/o"

# --- a disk copied onto a blank volume is its clone
qemu-img convert -f raw -O qcow2 "$T/sparse" "$T/disk.qcow2" && cp "$T/disk.qcow2" images/ &&
        [ "$(cat images/disk/.wait/active@60)" = active ] || fail "no image"
volume k 20M
expect "cp of an image's disk" cp images/disk/disk volumes/k/data
is "... is its clone" "$(of_blockd parent k)" "$(cat images/disk/id)"
is "... and says so" "$(readlink volumes/k/source) $(cat volumes/k/bootable)" "../../images/disk 1"
is "... has no bytes of its own" "$(of_blockd used k)" 0
expect "... the bytes" cmp -n 16777216 "$T/sparse" volumes/k/data
expect "... writable" dd if="$T/sparse" of=volumes/k/data bs=1M count=1 skip=4 conv=notrunc,fsync
expect "... the image is as it was" cmp "$T/sparse" images/disk/disk
volume w
expect "cp of a volume" cp volumes/v/data volumes/w/data
is "... is its clone" "$(of_blockd parent w)" "$(cat volumes/v/id)"
volume large 5G
volume copy 6G
dd if="$T/sparse" of=volumes/large/data bs=1M skip=4 count=1 seek=4900 conv=notrunc,fsync status=none ||
        fail "write"
expect "cp of more than one call can copy" cp volumes/large/data volumes/copy/data
is "... is its clone" "$(of_blockd parent copy)" "$(cat volumes/large/id)"
is "... has no bytes of its own" "$(of_blockd used copy)" 0
expect "... the bytes" cmp -n 1048576 -i 4194304:5138022400 "$T/sparse" volumes/copy/data
volume open
exec 4<volumes/open/data
head -c 512 <&4 >/dev/null
expect "cp onto one that is open elsewhere" cp images/disk/disk volumes/open/data
is "... copies" "$(of_blockd parent open)" ""
expect "... the bytes" cmp "$T/sparse" volumes/open/data
exec 4<&-
expect "cp onto one with a snapshot" bash -c 'mkdir volumes/blank && echo 16M >volumes/blank/size &&
        cat volumes/blank/.wait/available@20 && mkdir volumes/blank/snapshots/s &&
        cat volumes/blank/snapshots/s/.wait/available@20 && cp images/disk/disk volumes/blank/data'
expect "... the bytes" cmp "$T/sparse" volumes/blank/data
expect "... the snapshot is blank" cmp -n 16777216 volumes/blank/snapshots/s/data /dev/zero

# --- files that are there
dir=$T/state
cp --sparse=always "$T/sparse" "$dir/adopt.raw" || fail "a file"
inode=$(stat -c %i "$dir/adopt.raw")
expect "manage a raw file" bash -c "echo 'name=m manage=$dir/adopt.raw' >volumes/new"
is "... a volume" "$(cat volumes/m/.wait/available@30)" available
is "... of its size" "$(cat volumes/m/size)" 16777216
expect "... its bytes" cmp "$T/sparse" volumes/m/data
[ ! -e "$dir/adopt.raw" ] || fail "its name is still there"
[ -n "$(find "$dir" -inum "$inode")" ] || fail "the file was not taken in place"
ok "... in place"
dd if="$T/sparse" of=volumes/m/data bs=1M count=1 skip=4 seek=8 conv=notrunc,fsync status=none ||
        fail "write"
cp volumes/m/data "$T/m" || fail "read"
expect_errno EINVAL 'echo "release relative" >volumes/m/ctl'
expect "release" bash -c "echo 'release $dir/back.raw' >volumes/m/ctl"
wait_until 30 test ! -e volumes/m || fail "it is still there"
expect "... a raw file" cmp "$T/m" "$dir/back.raw"
expect "... sparse" few "$dir/back.raw"
is "... and nothing else" "$(ls "$dir" | grep -c 'back.raw')" 1
expect "and back" bash -c "echo 'name=m manage=$dir/back.raw' >volumes/new"
is "... a volume" "$(cat volumes/m/.wait/available@30)" available
expect "... its bytes" cmp "$T/m" volumes/m/data
: >"$dir/taken.raw"
expect "release onto what is there" bash -c "echo 'release $dir/taken.raw' >volumes/m/ctl"
wait_until 20 grep -q "is there already" volumes/m/error || fail "no words"
is "... is refused" "$(cat volumes/m/.wait/available@20)" available
expect "... the volume is whole" cmp "$T/m" volumes/m/data
cp "$T/disk.qcow2" "$dir/q.qcow2" || fail "cp"
expect "manage a qcow2" bash -c "echo 'name=q manage=$dir/q.qcow2' >volumes/new"
is "... a volume" "$(cat volumes/q/.wait/available@60)" available
expect "... its bytes" cmp "$T/sparse" volumes/q/data
[ -e "$dir/q.qcow2" ] || fail "the qcow2 is gone"
qemu-img create -q -f qcow2 -b "$T/sparse" -F raw "$dir/evil.qcow2" || fail "qemu-img"
expect "one with a backing file" bash -c "echo 'name=evil manage=$dir/evil.qcow2' >volumes/new"
is "... ends in error" "$(cat volumes/evil/.wait/error@30)" error
expect_text volumes/evil/error "backing file"
rmdir volumes/evil || fail "rmdir"
mkdir volumes/none || fail "mkdir"
expect_errno EINVAL 'echo relative >volumes/none/manage'

# --- shrink, said in words
volume s
head -c 16M /dev/urandom >"$T/bytes" && cp "$T/bytes" volumes/s/data || fail "fill"
expect_errno EINVAL 'echo 8M >volumes/s/size'
expect_errno EINVAL 'echo shrink >volumes/s/ctl'
expect "shrink" bash -c 'echo "shrink 8M" >volumes/s/ctl'
is "... available" "$(cat volumes/s/.wait/available@20)" available
is "... smaller" "$(cat volumes/s/size)" 8388608
expect "... what is left" cmp -n 8388608 "$T/bytes" volumes/s/data
is "... is all" "$(wc -c <volumes/s/data)" 8388608
echo 16M >volumes/s/size && cat volumes/s/.wait/available@20 >/dev/null || fail "grow"
expect "grown again, what was past is lost" cmp -n 8388608 -i 8388608:0 volumes/s/data /dev/zero

# --- to another tenant
mkdir "$C/tenants/other" && wait_until 20 grep -q active "$C/tenants/other/state" || fail "tenant"
mkdir volumes/k/snapshots/s && cat volumes/k/snapshots/s/.wait/available@20 >/dev/null || fail "snap"
expect_errno EBUSY 'echo offer >volumes/k/ctl'
rmdir volumes/k/snapshots/s || fail "rmdir"
wait_until 20 test ! -e volumes/k/snapshots/s || fail "rmdir"
cp volumes/k/data "$T/k" && echo offer >volumes/k/ctl || fail "offer"
key=$(cat volumes/k/transfer)
is "a key" "${#key}" 40
grep -rqa --exclude='data.*' "$key" "$T/state" && fail "the key is in the state folder"
expect_errno EBUSY cat volumes/k/data
expect_errno ENOENT "echo name=x transfer=wrong >$C/tenants/other/volumes/new"
expect "taken" bash -c "echo name=mine transfer=$key >$C/tenants/other/volumes/new"
is "... available" "$(cat "$C/tenants/other/volumes/mine/.wait/available@30")" available
expect "... the bytes" cmp "$T/k" "$C/tenants/other/volumes/mine/data"
wait_until 20 test ! -e volumes/k || fail "it is still there"
expect_errno ENOENT "echo name=again transfer=$key >$C/tenants/other/volumes/new"
cd / && stop_cloud && start_cloud && cd "$C/tenants/other" || fail "restart"
expect "after a restart" cmp "$T/k" volumes/mine/data
