#!/bin/bash
# An instance boots from a rescue disk beside its own, gets a new boot disk, and is shelved; what is
# on its other disk stays through all of it.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img socat
requires_root

to() { # to STATE
        expect "it is $1" "$STRATO" wait instances/web "$1" --timeout 90
}
tell() { # tell VERB...
        echo "$*" >instances/web/ctl || fail "$*: $(cat instances/web/error)"
}
ready() { # has booted: its log begins with its start
        wait_until 90 grep -q "STRATOFS-GUEST ready" "$log" || fail "it does not boot"
}
says() { # says WORD COMMAND: what the command prints in the guest
        n=$((n + 1))
        guest_types web "echo STRATOFS-GUEST said-$n \$($1) ."
        wait_until 30 grep -q "STRATOFS-GUEST said-$n [^\$].*[.]" "$log" || fail "no answer: $1"
        said=$(sed -n "s/.*STRATOFS-GUEST said-$n \([^\$].*\)[.].*/\1/p" "$log" | tr -d " ")
}
n=0
root='grep " / ext4" /proc/mounts | cut -d" " -f1'

guest_image "$T/debian.qcow2"
guest_image "$T/rescue.qcow2" --label rescue
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" "$T/rescue.qcow2" images/ || fail "cp into images/"
echo 'name=data size=64M' >volumes/new
mkdir instances/web
echo small >instances/web/flavor
ln -s images/debian instances/web/image
tell start
to active
id=$(cat instances/web/id)
log=$T/state/instances/$id/console.log
ready
ln -s volumes/data instances/web/volumes/
expect "the data disk" "$STRATO" wait volumes/data in-use --timeout 30
wait_line "$log" "STRATOFS-GUEST disk vdb" 60
says 'echo precious | dd of=/dev/vdb conv=fsync 2>/dev/null; echo mine >/mine; sync; cat /mine'
[ "$said" = mine ] || fail "it said '$said'"
before=$(readlink instances/web/volumes/vda)

# --- rescue: its own disks are there, it does not run from them
expect_errno ENOENT 'echo rescue nothing >instances/web/ctl'
expect_errno EBUSY 'echo unrescue >instances/web/ctl'
tell rescue rescue
to rescued
ready
says "$root"
[ "$said" = /dev/vdc1 ] || fail "its root is '$said'"
says 'mkdir -p /run/m; mount -t ext4 -o ro /dev/vda1 /run/m; cat /run/m/mine; umount /run/m'
[ "$said" = mine ] || fail "its own disk has '$said'"
expect_errno EBUSY 'echo stop >instances/web/ctl'
expect_errno EBUSY 'rm instances/web/volumes/vda'
expect_errno EBUSY rmdir instances/web
# one that is switched off is started into its rescue again
guest_types web /bin/bye
to stopped
tell start
to rescued
ready
tell unrescue
to active
ready
says "$root"
[ "$said" = /dev/vda1 ] || fail "its root is '$said'"
wait_until 30 test ! -e volumes/web-rescue || fail "the rescue disk is left"

# --- rebuild: a new boot disk, the other one as it was
tell rebuild images/debian
to active
ready
says 'cat /mine 2>/dev/null; head -c 8 /dev/vdb'
[ "$said" = precious ] || fail "it has '$said'"
[ "$(cat instances/web/id)" = "$id" ] || fail "it is another one"
[ "$(readlink instances/web/image)" = ../../images/debian ] || fail "image"
[ "$(ls volumes | grep -c web-root)" = 1 ] || fail "its old disk is left: $before"

# --- shelved: it takes no place
[ "$(grep -c '^vcpus .*used=1' usage quota 2>/dev/null | head -n 1)" ] || fail "usage"
tell shelve
to shelved
[ -z "$(cat instances/web/host)" ] || fail "it has a host"
grep -E '^(vcpus|memory)' usage | grep -qvE '[ =]0$' && fail "it takes some: $(cat usage)"
[ -z "$(guest_pid instances/web)" ] || fail "QEMU runs"
rm instances/web/volumes/vdb || fail "detach while it is shelved"
ln -s volumes/data instances/web/volumes/ || fail "attach while it is shelved"
expect_errno EBUSY 'echo start >instances/web/ctl'
tell unshelve
to active
ready
says 'head -c 8 /dev/vdb'
[ "$said" = precious ] || fail "it has '$said'"
tell stop now
to stopped
rmdir instances/web
cd / && stop_cloud
