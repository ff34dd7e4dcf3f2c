#!/bin/bash
# An instance gets another flavor, goes back, gets it for good; becomes images from which another one
# boots; is backed up, and the backups rotate.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img socat
requires_root

to() { # to STATE [INSTANCE]
        expect "${2:-web} is $1" "$STRATO" wait "instances/${2:-web}" "$1" --timeout 120
}
tell() { # tell VERB...
        echo "$*" >instances/web/ctl || fail "$*: $(cat instances/web/error)"
}
processors() { # N
        guest_types web "echo STRATOFS-GUEST processors-$1 \$(nproc) ."
        wait_line "$log" "STRATOFS-GUEST processors-$1 $1 ." 60
}
ready() { # has booted: its log begins with its start
        wait_until 90 grep -q "STRATOFS-GUEST ready" "$log" || fail "it does not boot"
}

guest_image "$T/debian.qcow2"
start_cloud
mkdir "$C/flavors/wide"
echo 2 >"$C/flavors/wide/vcpus"
echo 3 >"$C/flavors/wide/vcpus_max"
echo 384M >"$C/flavors/wide/memory"
echo 2G >"$C/flavors/wide/disk"
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" images/ || fail "cp into images/"
echo 'name=data size=64M' >volumes/new
mkdir instances/web
echo small >instances/web/flavor
ln -s images/debian instances/web/image
tell start
to active
log=$T/state/instances/$(cat instances/web/id)/console.log
ready
ln -s volumes/data instances/web/volumes/vdb
wait_line "$log" "STRATOFS-GUEST disk vdb" 60

# --- another flavor, and back
tell resize wide
to resized
ready
processors 2
expect_errno EBUSY 'echo resize small >instances/web/ctl'
[ "$(cat instances/web/resized_from)" = small ] || fail "resized_from"
tell revert
to active
ready
processors 1
[ "$(cat instances/web/flavor)" = small ] || fail "flavor"

# --- and for good: its disk grows when that is said
tell resize wide
to resized
ready
grep -q 'vda 2147483648' "$log" && fail "its disk has grown already"
tell confirm
to active
wait_line "$log" "STRATOFS-GUEST disk vda 2147483648" 60
[ "$(cat instances/web/vcpus)" = 2 ] || fail "vcpus"

# --- one processor more, while it runs
expect_errno EINVAL 'echo 4 >instances/web/vcpus'
echo 3 >instances/web/vcpus || fail "a third processor"
guest_types web 'until [ -e /sys/devices/system/cpu/cpu2/online ]; do sleep 1; done; echo 1 >/sys/devices/system/cpu/cpu2/online; echo STRATOFS-GUEST "plugged" $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST plugged 42" 60
processors 3

# --- backups of one moment, of which the newest is kept
guest_types web 'echo precious | dd of=/dev/vdb conv=fsync 2>/dev/null; echo mine >/mine; sync; echo STRATOFS-GUEST wrote $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST wrote 42" 60
expect_errno EINVAL 'echo backup b1 sometimes >instances/web/ctl'
tell backup b1 last:1
expect "its backup" "$STRATO" wait backups/b1 available --timeout 120
expect "and of its other disk" "$STRATO" wait backups/b1-vdb available --timeout 120
tell backup b2
expect "the next one" "$STRATO" wait backups/b2-vdb available --timeout 120
wait_until 60 test ! -e backups/b1-vdb || fail "the first is left"
wait_until 60 test ! -e backups/b1 || fail "the first is left"

# --- images, which outlive it and its disks
tell image golden
expect "image of its boot disk" "$STRATO" wait images/golden active --timeout 60
expect "image of the other" "$STRATO" wait images/golden-vdb active --timeout 60
[ "$(head -c 8 images/golden-vdb/data)" = precious ] || fail "its bytes"
[ "$(stat -L -c %s images/golden/data)" = 2147483648 ] || fail "its size"
[ "$(cat instances/web/state)" = active ] || fail "it goes on"
tell stop now
to stopped
rmdir instances/web volumes/data || fail "rmdir"
mkdir instances/two
echo small >instances/two/flavor
ln -s images/golden instances/two/image
echo start >instances/two/ctl || fail "start"
to active two
log=$T/state/instances/$(cat instances/two/id)/console.log
wait_line "$log" "STRATOFS-GUEST ready" 120
guest_types two 'echo STRATOFS-GUEST "has" $(cat /mine) .'
wait_line "$log" "STRATOFS-GUEST has mine" 60
echo stop now >instances/two/ctl
to stopped two
rmdir instances/two
rmdir images/golden images/golden-vdb images/debian || fail "rmdir images"
cd / && stop_cloud
