#!/bin/bash
# A volume's bytes through `data`: what reaches the block service, call by call.
. "$(dirname "$0")/lib-tools.sh"
requires nbdkit qemu-img fallocate cp dd
begin data
family=data
volume w

# Every request is in $T/requests.
rm -f "$T/nbd.sock"
: >"$T/requests"
spawn nbdkit -f -U "$T/nbd.sock" --filter=log file dir="$T/d/vol" logfile="$T/requests"
nbd_pid=$!
wait_until 10 test -S "$T/nbd.sock" || fail "nbdkit does not start"
# What was asked for, in order: "Write Write Flush".
asked() {
        tail -n +$((known + 1)) "$T/requests" |
                grep -oE ' (Read|Write|Flush|Zero|Trim) id=[0-9]+ .*\.\.\.$' |
                sed 's/^ Zero .*trim=1.*/Punch/; s/^ \([A-Za-z]*\) .*/\1/' | uniq | tr '\n' ' '
}
# asks REQUESTS COMMAND NOTE
asks() {
        known=$(wc -l <"$T/requests")
        run "$2" || fail "status $?: $2"
        echo "$(asked)" >"$T/asked"
        grep -qE -- "$1" "$T/asked" || fail "asks for $(cat "$T/asked"), not $1: $2"
        row "$2" works "$3"
}
none='^$'
dd="dd of=volumes/w/data conv=notrunc status=none"

asks '^Write Flush $' "$dd if=/dev/urandom bs=64k count=4 conv=fsync,notrunc" "fsync is a flush"
asks '^Flush $' "sync volumes/w/data" "also by another descriptor"
asks '^Write $' "$dd if=/dev/urandom bs=64k count=4" "no flush that nobody asked for"
asks '^Write Flush Write Flush $' "$dd if=/dev/urandom bs=64k count=2 oflag=dsync" "each write is on the disk when it returns"
asks '^Read $' "dd if=volumes/w/data of=/dev/null bs=4k count=1 skip=3 status=none" ""
asks "$none" "dd if=volumes/w/data of=/dev/null bs=1M skip=1 status=none" "behind the end: nothing"
asks '^Punch Flush $' "fallocate -p -o 64k -l 64k volumes/w/data" "a hole"
asks '^Zero Flush $' "fallocate -z -o 128k -l 64k volumes/w/data" "zeros that stay allocated"
asks "^Flush $" "fallocate -l 1M volumes/w/data" "the disk has its size"
asks "$none" "truncate -s 0 volumes/w/data" "a disk keeps its size and its bytes"
cat >"$O/seek.py" <<'END'
"""The data and holes of a file."""
import os
import sys
fd = os.open(sys.argv[1], os.O_RDONLY)
at, end = 0, os.fstat(fd).st_size
while at < end:
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        assert e.errno == 6, e
        break
    at = os.lseek(fd, data, os.SEEK_HOLE)
    print("%dk-%dk" % (data >> 10, at >> 10), end=" ")
END
run 'fallocate -p -o 0 -l 1M volumes/w/data && dd if=/dev/urandom of=volumes/w/data bs=64k seek=2 count=2 conv=notrunc'
says '128k-256k ' '/usr/bin/python3 $O/seek.py volumes/w/data' "SEEK_DATA, SEEK_HOLE: what is written, no more"
works 'cp --sparse=always volumes/w/data $O/sparse && [ $(du -k $O/sparse | cut -f1) -le 128 ]' "zeros become holes"
works 'cmp volumes/w/data $O/sparse'
works 'cp --sparse=always $O/sparse volumes/w/data && cmp volumes/w/data $O/sparse'
works 'tail -c 4096 volumes/w/data | cmp -n 4096 - /dev/zero'

# --- the end, and what is refused
refused EFBIG "$dd if=/dev/zero bs=1M seek=1 count=1"
refused EFBIG "$dd if=/dev/zero bs=1M count=2" "the first is written"
works '/usr/bin/python3 -c "
import os
f = os.open(\"volumes/w/data\", os.O_WRONLY)
assert os.pwrite(f, bytes(8192), (1 << 20) - 4096) == 4096"' "a write over the end is short"
refused EFBIG 'truncate -s 2M volumes/w/data'
refused EFBIG 'fallocate -l 2M volumes/w/data'
refused EINVAL 'echo x >>volumes/w/data'
stopped 'not supported' 'fallocate -c -o 0 -l 4k volumes/w/data' "no collapsing, no inserting"
refused EPERM 'rm volumes/w/data'
refused EPERM 'chmod 600 volumes/w/data'

# --- clones
clones() {
        grep -c "^$(cat "volumes/$1/id") " "$T/d/clones" 2>/dev/null
}
for how in cp 'cp -Lp' 'cp --reflink=auto' 'cp --sparse=never'; do
        volume k
        works "$how volumes/w/data volumes/k/data" "one clone: no bytes are moved"
        [ "$(clones k)" = 1 ] || fail "no clone: $how"
        cmp volumes/w/data volumes/k/data || fail "the bytes: $how"
        rmdir volumes/k && wait_until 20 test ! -e volumes/k || fail "rmdir"
done
volume k
works 'cp --sparse=always volumes/w/data volumes/k/data && cmp volumes/w/data volumes/k/data' \
        "cp reads and writes"
is "no clone" "$(clones k)" 0
refused EPERM 'cp -a volumes/w/data volumes/k/data' "it copies the link: \`cp -Lp\`"
stopped 'not supported' 'cp --reflink=always volumes/w/data volumes/k/data' "the kernel asks no FUSE file system; plain \`cp\` clones"

# --- a back end that is full behind its first half and cannot flush
kill $nbd_pid
wait_gone $nbd_pid 10
rm -f "$T/nbd.sock"
spawn nbdkit -f -U "$T/nbd.sock" eval get_size='echo 1048576' pread='head -c $3 /dev/zero' \
        pwrite='cat >/dev/null; [ $4 -lt 524288 ] || { echo ENOSPC >&2; exit 1; }' \
        flush='echo EIO >&2; exit 1'
wait_until 10 test -S "$T/nbd.sock" || fail "nbdkit does not start"
works "$dd if=/dev/zero bs=64k count=1"
refused ENOSPC "$dd if=/dev/zero bs=64k seek=15 count=1"
refused EIO "$dd if=/dev/zero bs=64k count=1 conv=fsync,notrunc" "no fsync that pretends"
refused EIO "$dd if=/dev/zero bs=64k count=1 oflag=dsync"
finish
