#!/bin/bash
# Backups from the tree to the disk: full, incremental, restored, verified, expired, cut off.
. "$(dirname "$0")/../lib.sh"
requires zstd jq
MB=1048576

is() {
        [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
        ok "$1"
}
# backup NAME [VOLUME]: taken and whole
backup() {
        mkdir "backups/$1" && ln -s "../../volumes/${2:-v}" "backups/$1/source" &&
                [ "$(cat "backups/$1/.wait/available@120")" = available ] ||
                fail "backup $1: $(cat "backups/$1/state" "backups/$1/error")"
}
# restored NAME BACKUP: a new volume of it
restored() {
        mkdir "volumes/$1" && ln -s "../../backups/$2" "volumes/$1/source" &&
                [ "$(cat "volumes/$1/.wait/available@120")" = available ] ||
                fail "volume $1: $(cat "volumes/$1/state" "volumes/$1/error")"
}
# has BACKUP FILE: restored, it is the same; and so says the tool
has() {
        restored r "$1"
        expect "$1 restored is what it was" cmp "volumes/r/data" "$2"
        expect "its volume goes" rmdir volumes/r
        expect "extract" /usr/bin/python3 "$SOURCE/contrib/stratofs-backup.py" "$STORE" extract \
                "$(cat "backups/$1/id")" "$T/extracted"
        expect "$1 extracted is what it was" cmp "$T/extracted" "$2"
        rm "$T/extracted"
}
gone() { # backup IDs no longer in the store
        [ ! -e "$STORE/manifests/$1.jsonl" ]
}
chunks() {
        find "$STORE/chunks" -type f | wc -l
}
job_of() {
        for j in jobs/*/op; do
                [ "$(cat "$j")" = "$1" ] && [ "$(cat "${j%op}state")" = running ] && echo "${j%/op}"
        done | tail -n 1
}
moves() {
        job=$(job_of "$1") && [ "$job" ] && grep -q '^[0-9.]*% [1-9]' "$job/progress"
}

start_cloud
STORE=$T/state/backups
cd "$C/tenants/default" || fail "no tenant"
echo "name=v size=64M" >volumes/new && cat volumes/v/.wait/available@30 >/dev/null || fail "volume"
# 40 MiB of bytes, 8 MiB of zeros that were written, the rest never.
head -c $((40 * MB)) /dev/urandom >"$T/v"
truncate -s 48M "$T/v"
dd if="$T/v" of=volumes/v/data bs=1M conv=notrunc,fsync 2>"$T/err" || fail "fill"
truncate -s 64M "$T/v"

# --- a full one
backup full
is "full" "$(cat backups/full/incremental)" 0
full_read=$(cat backups/full/read_bytes)
[ "$full_read" -ge $((40 * MB)) ] && [ "$full_read" -le $((48 * MB)) ] || fail "read $full_read bytes"
is "40 chunks: zeros and holes are none" "$(chunks)" 40
is "size" "$(cat backups/full/size)" $((64 * MB))
is "volume" "$(cat backups/full/volume)" v
cp "$T/v" "$T/full"
has full "$T/full"
mkdir backups/x
expect_errno EINVAL 'echo relative >backups/x/target'
expect_errno EINVAL 'echo /a/../b >backups/x/target'
rmdir backups/x
expect "a volume of it is as thin" restored thin full
used=$(/usr/bin/python3 - "$T/state/run/blockd.sock" "$(cat volumes/thin/id)" <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(json.dumps({"op": "stat", "id": sys.argv[2]}).encode() + b"\n")
print(json.loads(s.makefile().readline())["used"])
PY
)
[ "$used" -le $((41 * MB)) ] || fail "a restored volume takes $used bytes"
rmdir volumes/thin

# --- one percent changed, all over the place
/usr/bin/python3 - volumes/v/data "$T/v" <<'PY' || fail "change"
import os, random, sys
random.seed(4)
files = [os.open(f, os.O_RDWR) for f in sys.argv[1:]]
for block in random.sample(range(40 * 256), 40 * 256 // 100):
    data = random.randbytes(4096)
    for f in files:
        os.pwrite(f, data, block * 4096)
for f in files:
    os.fsync(f)
PY
backup inc
is "incremental" "$(cat backups/inc/incremental)" 1
is "parent" "$(cat backups/inc/parent)" full
inc_read=$(cat backups/inc/read_bytes)
[ "$inc_read" -gt 0 ] && [ $((inc_read * 100)) -lt $((full_read * 3)) ] ||
        fail "$inc_read of $full_read bytes were read"
ok "an incremental one read $inc_read bytes, the full one $full_read"
has inc "$T/v"
has full "$T/full"
backup same
is "nothing changed: nothing read" "$(cat backups/same/read_bytes)" 0
is "... nothing stored" "$(cat backups/same/new_bytes)" 0
cp "$T/v" "$T/same"
has same "$T/same"

# --- grown, and trimmed
echo 70M >volumes/v/size && cat volumes/v/.wait/available@30 >/dev/null || fail "grow"
truncate -s 70M "$T/v"
fallocate -p -o 3M -l 2M volumes/v/data && fallocate -p -o 3M -l 2M "$T/v" || fail "punch"
printf end | tee >(dd of="$T/v" bs=1 seek=$((70 * MB - 3)) conv=notrunc 2>/dev/null) |
        dd of=volumes/v/data bs=1 seek=$((70 * MB - 3)) conv=notrunc,fsync 2>/dev/null
backup grown
is "still incremental" "$(cat backups/grown/incremental)" 1
has grown "$T/v"

# --- onto an old volume
echo "name=old size=80M" >volumes/new && cat volumes/old/.wait/available@30 >/dev/null || fail "old"
head -c 80M /dev/urandom >"$T/noise"
dd if="$T/noise" of=volumes/old/data bs=1M conv=notrunc,fsync 2>"$T/err" || fail "noise"
expect_errno EINVAL 'echo "restore" >backups/inc/ctl'
expect_errno ENOENT 'echo "restore nothing" >backups/inc/ctl'
exec 5>>/dev/null 6<>volumes/old/data || fail "open"
expect_errno EBUSY 'echo "restore old" >backups/grown/ctl'
exec 5>&- 6>&-
not_open() {
        echo "restore old" >backups/grown/ctl
}
wait_until 10 not_open || fail "restore: $(cat self/error 2>/dev/null)"
is "restored" "$(cat volumes/old/.wait/available@60)" available
expect "it is the backup" cmp -n $((70 * MB)) volumes/old/data "$T/v"
expect "... and zeros" cmp -i $((70 * MB)):0 -n $((10 * MB)) volumes/old/data /dev/zero
echo "name=small size=1M" >volumes/new && cat volumes/small/.wait/available@30 >/dev/null
expect_errno EINVAL 'echo "restore small" >backups/full/ctl'
rmdir volumes/old volumes/small

# --- deleting any harms none
id=$(cat backups/inc/id)
before=$(chunks)
expect "rmdir" rmdir backups/inc
wait_until 30 gone "$id" || fail "its manifest is there"
id=$(cat backups/full/id)
expect "rmdir" rmdir backups/full
wait_until 30 gone "$id" || fail "its manifest is there"
fewer() {
        [ "$(chunks)" -lt "$before" ]
}
wait_until 30 fewer || fail "no chunk went"
has same "$T/same"
has grown "$T/v"

# --- a flipped byte
echo verify >backups/grown/ctl || fail "verify"
verified() {
        grep -q "$1" backups/grown/verified
}
wait_until 60 verified '^20..-' || fail "verify: $(cat backups/grown/error)"
ok "verified $(cat backups/grown/verified)"
expect "the tool says so, too" /usr/bin/python3 "$SOURCE/contrib/stratofs-backup.py" "$STORE" verify
victim=$(grep -m1 '^"' "$STORE/manifests/$(cat backups/grown/id).jsonl" | tr -d '"')
file=$STORE/chunks/${victim:0:2}/$victim
cp "$file" "$T/chunk"
flip() {
        /usr/bin/python3 - "$file" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(1000)
    b = f.read(1)
    f.seek(1000)
    f.write(bytes([b[0] ^ 1]))
PY
}
flip
expect_status 1 /usr/bin/python3 "$SOURCE/contrib/stratofs-backup.py" "$STORE" verify
expect_text "$T/out" "$victim"
mkdir volumes/bad && ln -s ../../backups/grown volumes/bad/source
[ "$(cat volumes/bad/.wait/error@60)" = error ] || fail "restored from bad bytes"
expect_text volumes/bad/error "$victim"
rmdir volumes/bad
echo verify >backups/grown/ctl
wait_until 60 verified "$victim" || fail "not found: $(cat backups/grown/verified)"
ok "the flipped byte is found: $(cat backups/grown/verified)"
expect_text backups/grown/error "$victim"
# The volume has the bytes still: the next one mends them all.
backup mend
echo verify >backups/grown/ctl
wait_until 60 verified '^20..-' || fail "not mended: $(cat backups/grown/verified)"
ok "the next backup mended it"
has grown "$T/v"

# --- retention
expect_errno EINVAL 'echo fortnightly:2 >volumes/v/keep'
expect_errno EINVAL 'echo daily:0 >volumes/v/keep'
expect_errno EINVAL 'echo expire >volumes/v/ctl'
echo 1 >backups/same/protected
expect_errno EPERM rmdir backups/same
echo last:2 >volumes/v/keep || fail "keep"
backup newest
left() {
        [ "$(ls backups | grep -xE 'same|grown|mend|newest' | tr '\n' ' ')" = "$1" ]
}
wait_until 30 left "mend newest same " || fail "left: $(ls backups)"
ok "expired"
echo last:1 >volumes/v/keep && echo expire >volumes/v/ctl || fail "expire"
wait_until 30 left "newest same " || fail "left: $(ls backups)"
echo >volumes/v/keep

# --- elsewhere, if an admin allows it
mkdir "$T/elsewhere" "$T/full-of-things"
touch "$T/full-of-things/x"
echo "name=away target=$T/elsewhere source=volumes/v" >backups/new || fail "new"
is "away" "$(cat backups/away/.wait/available@60)" available
is "... is full: another target" "$(cat backups/away/incremental)" 0
mkdir backups/x && echo "$T/full-of-things" >backups/x/target && ln -s ../../volumes/v backups/x/source
is "no store is made among things" "$(cat backups/x/.wait/error@30)" error
rmdir backups/x
mv "$T/elsewhere" "$T/unmounted" && mkdir "$T/elsewhere"
mkdir backups/x && echo "$T/elsewhere" >backups/x/target && ln -s ../../volumes/v backups/x/source
is "nor in a mount point without its mount" "$(cat backups/x/.wait/error@30)" error
expect_text backups/x/error "is it mounted"
rmdir backups/x
rmdir "$T/elsewhere" && mv "$T/unmounted" "$T/elsewhere"
expect "rmdir" rmdir backups/away
nothing_away() {
        [ "$(find "$T/elsewhere" -type f | wc -l)" = 2 ]
}
wait_until 30 nothing_away || fail "left: $(find "$T/elsewhere" -type f | head)"

# --- cancelled, cut off: chunks are slow now
cd /
stop_cloud
export STRATOFS_FAULT=backup.chunk.write=delay:300
start_cloud
cd "$C/tenants/default" || fail "no tenant"
head -c $((40 * MB)) /dev/urandom >"$T/w"
dd if="$T/w" of=volumes/v/data bs=1M conv=notrunc,fsync 2>"$T/err" || fail "fill"
dd if="$T/w" of="$T/v" bs=1M conv=notrunc 2>"$T/err"
manifests=$(ls "$STORE/manifests" | wc -l) before=$(chunks)
mkdir backups/stop && ln -s ../../volumes/v backups/stop/source || fail "backup"
wait_until 30 moves backup.create || fail "no progress"
[ "$(cat backups/stop/rate)" -gt 0 ] || fail "no rate"
expect_errno EBUSY rmdir volumes/v
expect_text "$C/self/error" "backup 'stop' is being taken of it"
echo cancel >"$job/ctl" || fail "cancel"
is "cancelled" "$(cat "$job/.wait/cancelled@30")" cancelled
is "it is no backup" "$(cat backups/stop/state)" error
is "nor in the store" "$(ls "$STORE/manifests" | wc -l)" "$manifests"
rmdir backups/stop || fail "rmdir"

mkdir backups/patient && ln -s ../../volumes/v backups/patient/source || fail "backup"
wait_until 30 moves backup.create || fail "no progress"
pid=$("$STRATO" status --state "$T/state" --json | jq -r .blockd.pid)
kill -9 "$pid"
wait_gone "$pid" 10
is "blockd dies: it begins again" "$(cat backups/patient/.wait/available@120)" available
has patient "$T/v"
rmdir backups/patient || fail "rmdir"
swept() {
        [ "$(chunks)" -le "$before" ]
}
wait_until 30 swept || fail "its chunks are left"

mkdir backups/cut && ln -s ../../volumes/v backups/cut/source || fail "backup"
wait_until 30 moves backup.create || fail "no progress"
pid=$("$STRATO" status --state "$T/state" --json | jq -r .stratod.pid)
cd /
unhold
kill -9 "$pid"
wait_gone "$pid" 10
is "a cut-off backup is none" "$(ls "$STORE/manifests" | wc -l)" "$manifests"
unset STRATOFS_FAULT
expect "up again" "$STRATO" up --state "$T/state" --mount "$C"
cd "$C/tenants/default" || fail "no tenant"
is "it goes on by itself" "$(cat backups/cut/.wait/available@60)" available
has cut "$T/v"
backup after
is "and the next is incremental" "$(cat backups/after/incremental)" 1

# --- without the volume
expect "rmdir of the volume" rmdir volumes/v
has after "$T/v"
"$STRATO" doctor --fsck --state "$T/state" --json >"$T/out"
[ "$(jq -r '.[] | select(.check == "fsck").verdict' "$T/out")" = ok ] || fail "fsck"
echo 0 >backups/same/protected
for b in backups/*/; do
        case $b in backups/new/ | backups/\*/) continue ;; esac
        rmdir "$b" || fail "rmdir $b"
done
empty() {
        [ "$(chunks)" = 0 ] && [ "$(ls "$STORE/manifests" "$STORE/tmp" | grep -c .)" -le 3 ]
}
wait_until 60 empty || fail "left: $(find "$STORE" -type f | head)"
ok "nothing is left"
cd /
stop_cloud
! grep -E 'AddressSanitizer|LeakSanitizer' "$T"/state/log/*.log || fail "a sanitizer has words"
ok "all"
