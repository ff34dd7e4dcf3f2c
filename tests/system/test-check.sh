#!/bin/bash
# Checks, scrubs and space of volumes, through the mount, with blockd as it is.  No guests.
. "$(dirname "$0")/../lib.sh"
requires fallocate socat
requires_root
start_cloud
cd "$C/tenants/default" || fail "no default tenant"

flip() { # FILE OFFSET
        /usr/bin/python3 - "$1" "$2" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    b = f.read(1)[0]
    f.seek(-1, 1)
    f.write(bytes([b ^ 4]))
END
}
run() { # VERB VOLUME FOUND REPAIRED
        before=$(cat "volumes/$2/checked")
        echo "$1" >"volumes/$2/ctl" || fail "$1 $2"
        changed() { [ "$(cat "volumes/$2/checked")" != "$1" ]; }
        wait_until 60 changed "$before" "$2" || fail "no report of $1 $2"
        [[ $(cat "volumes/$2/checked") == "$1 "*" found $3 repaired $4" ]] ||
                fail "$1 $2: $(cat "volumes/$2/checked"): $(cat "volumes/$2/findings")"
        [ "$(wc -l <"volumes/$2/findings")" = "$3" ] || fail "$(cat "volumes/$2/findings")"
        ok "$1 $2: found $3, repaired $4"
}

# --- a volume on an image
head -c 8M /dev/urandom >"$T/base.raw"
cp "$T/base.raw" images/ || fail "cp into images/"
mkdir volumes/v && ln -s ../../images/base volumes/v/source || fail "clone"
wait_until 60 grep -qx available volumes/v/state || fail "volume is $(cat volumes/v/state)"
run check v 0 0
run scrub v 0 0
pool=$(dirname "$(find "$T/state" -type d -name "$(cat volumes/v/id)" -path '*/pool/*')")
[ -d "$pool" ] || fail "no pool"
v=$pool/$(cat volumes/v/id) base=$pool/$(cat images/base/id)

flip "$v/meta" 20
run check v 1 1
expect_text volumes/v/findings "meta on disk"
run check v 0 0

# --- checksums
expect_errno EINVAL 'echo 2 >volumes/v/checksums'
echo 1 >volumes/v/checksums || fail "checksums"
[ ! -e "$base/sum.0" ] || fail "checksums without a scrub"
run scrub v 0 0
[ -e "$base/sum.0" ] || fail "no checksums"
cmp "$T/base.raw" volumes/v/data || fail "bytes"
flip "$base/data.0" 5000000
run scrub v 1 0
expect_text volumes/v/findings "byte 4997120 does not match its checksum"
expect_text volumes/v/events "found 1"
expect_errno EIO dd if=volumes/v/data of=/dev/null bs=4096 skip=1220 count=1
dd if=volumes/v/data bs=4096 count=1220 status=none | cmp -n 4997120 - "$T/base.raw" ||
        fail "what is good is served"
flip "$base/data.0" 5000000
cmp "$T/base.raw" volumes/v/data || fail "bytes"

# --- a scrub stands aside, and is cancelled
echo 'name=big size=1G' >volumes/new || fail "new"
wait_until 60 grep -qx available volumes/big/state || fail "big"
head -c 256M /dev/zero | tr '\0' x | dd of=volumes/big/data bs=1M conv=notrunc,fsync status=none ||
        fail "write"
echo scrub >volumes/big/ctl || fail "scrub"
expect_errno EBUSY 'echo check >volumes/big/ctl'
echo 2G >volumes/big/size || fail "grow"
wait_until 60 sh -c "grep -qx $((2 << 30)) volumes/big/size && grep -qx available volumes/big/state" ||
        fail "it does not grow while it is scrubbed"
job=$(grep -l volume.scrub jobs/*/op | sort -V | tail -n 1)
job=${job%/op}
grep -qx running "$job/state" || fail "the scrub is $(cat "$job/state")"
wait_until 30 grep -q "/" "$job/progress" || fail "progress: $(cat "$job/progress")"
echo cancel >"$job/ctl" || fail "cancel"
wait_until 30 grep -qx cancelled "$job/state" || fail "the scrub is $(cat "$job/state")"

# --- space
used() { [ "$(cat volumes/big/used)" "$1" "$2" ]; }
wait_until 30 used -ge $((256 << 20)) || fail "used: $(cat volumes/big/used)"
expect "punch" fallocate --punch-hole --offset 64M --length 128M volumes/big/data
wait_until 30 used -lt $((140 << 20)) || fail "used after punching: $(cat volumes/big/used)"
uri=$(cat volumes/big/nbd)
expect "trim and zero through NBD" /usr/bin/python3 -c '
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.trim(48 << 20, 0)
h.zero(60 << 20, 196 << 20)
h.flush()
h.shutdown()' "$uri"
wait_until 30 used -lt $((24 << 20)) || fail "used after trim: $(cat volumes/big/used)"
wait_until 30 used -gt $((16 << 20)) || fail "used after trim: $(cat volumes/big/used)"
v_used() { [ "$(cat volumes/v/used)" -lt $((1 << 20)) ]; }
wait_until 30 v_used || fail "a clone takes what it has itself: $(cat volumes/v/used)"
echo "volume_size limit=3G" >quota || fail "quota"
full() { [ "$(df --output=$1 -B1 . | tail -n 1 | tr -d ' ')" "$2" "$3" ]; }
all=$(cat volumes/big/used)
wait_until 10 full used -ge $((all / 4096 * 4096)) || fail "df: $(df -B1 .)"
full used -lt $((all + (4 << 20))) || fail "df: $(df -B1 .)"
size=$(df --output=size -B1 . | tail -n 1 | tr -d ' ')
[ "$size" -le $((3 << 30)) ] || fail "df says $size bytes in all"
expect "punch all" fallocate --punch-hole --offset 0 --length 2G volumes/big/data
wait_until 30 full used -lt $((all / 2)) || fail "df: $(df -B1 .)"
cd /
stop_cloud
