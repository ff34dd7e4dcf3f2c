#!/bin/bash
# A guest with all the hardware there is, seen from inside: UEFI, a TPM, SCSI disks, a CD that changes
# while it runs, a watchdog, an RNG, NUMA nodes, memory that is plugged in, a screen that asks for a
# password, an element of its admin's.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img socat genisoimage swtpm openssl
requires_root
[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || skip "ovmf is not installed"

to() { # to STATE
        expect "it is $1" "$STRATO" wait instances/web "$1" --timeout 90
}
tell() { # tell VERB...
        echo "$*" >instances/web/ctl || fail "$*: $(cat instances/web/error)"
}
idle() {
        ! [ -e instances/web/job ]
}
iso() { # iso NAME: an image with a file that says so
        mkdir "$T/$1" && echo "this is $1" >"$T/$1/name"
        genisoimage -quiet -rock -volid "$1" -output "$T/$1.iso" "$T/$1" || fail "genisoimage"
        cp "$T/$1.iso" images/ || fail "cp of an ISO image"
        expect "$1 is there" "$STRATO" wait "images/$1" active --timeout 60
}

expect "kernel and ramdisk" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/kernel/vmlinuz" images/vmlinuz.aki
cp "$T/kernel/initrd.gz" images/initrd.ari
iso one
iso two
for image in vmlinuz initrd; do
        expect "$image" "$STRATO" wait "images/$image" active --timeout 60
done

# --- a flavor that asks for much, and words for what does not go together
mkdir "$C/flavors/board"
echo 2 >"$C/flavors/board/vcpus"
echo 4 >"$C/flavors/board/cores"
echo 256M >"$C/flavors/board/memory"
echo 512M >"$C/flavors/board/memory_max"
echo Nehalem >"$C/flavors/board/cpu"
echo 2 >"$C/flavors/board/numa"
mkdir instances/web
expect_errno EINVAL 'echo board >instances/web/flavor'
expect_text instances/web/error "do not fill sockets of 4"
echo 2 >"$C/flavors/board/cores"
echo board >instances/web/flavor || fail "flavor"
[ "$(cat instances/web/hardware)" = "cores=2 cpu=Nehalem numa=2" ] || fail "$(cat instances/web/hardware)"
ln -s images/vmlinuz instances/web/kernel
ln -s images/initrd instances/web/ramdisk
echo 'console=ttyS0 no_timer_check memhp_default_state=online' >instances/web/cmdline
echo 'name=data size=64M' >volumes/new
expect "a disk" "$STRATO" wait volumes/data available --timeout 60
ln -s volumes/data instances/web/volumes/vda
expect_errno EINVAL ln -s images/initrd instances/web/cdrom
ln -s images/one instances/web/cdrom || fail "cdrom"
echo uefi >instances/web/firmware
echo scsi >instances/web/disk_bus
echo 1 >instances/web/tpm
echo poweroff >instances/web/watchdog
echo vnc >instances/web/screen
expect_errno EINVAL 'echo "disk floppy" >instances/web/boot'
echo 'cdrom disk' >instances/web/boot || fail "boot"

# --- what its admin merges in
expect_errno EINVAL 'echo "<domain><name>x</name></domain>" >instances/web/extra.xml'
expect_text instances/web/error "<name> is this cloud's own"
expect_errno EINVAL 'echo "<domain><devices></domain>" >instances/web/extra.xml'
cat >instances/web/extra.xml <<'END'
<domain>
  <devices>
    <sound model='ich9'/>
  </devices>
</domain>
END
expect_text instances/web/extra.xml "<sound model='ich9'/>"

tell start
to active
dir=$T/state/instances/$(cat instances/web/id)
log=$dir/console.log
wait_line "$log" "STRATOFS-GUEST ready" 240
for text in "sound model='ich9'" "watchdog model='i6300esb'" "tpm model='tpm-crb'" \
        "topology sockets='1' dies='1' cores='2' threads='1'" "Nehalem</model>" "loader readonly='yes' type='pflash'"; do
        expect_text instances/web/domain.xml "$text"
done

# --- seen from inside
guest_types web 'yes() { [ -e "$1" ] && echo -n " $2"; }; echo STRATOFS-GUEST board "$(yes /sys/firmware/efi uefi; yes /dev/tpm0 tpm; yes /dev/sda scsi; yes /dev/sr0 cd; yes /dev/hwrng rng; yes /sys/devices/system/node/node1 numa; grep -qs 0x25ab /sys/bus/pci/devices/*/device && echo -n " watchdog"; grep -q "cpu cores.*: 2" /proc/cpuinfo && echo -n " cores"; grep -q Nehalem /proc/cpuinfo && echo -n " cpu"; grep -qs 0x293e /sys/bus/pci/devices/*/device && echo -n " sound")" .'
wait_line "$log" "STRATOFS-GUEST board  uefi tpm scsi cd rng numa watchdog cores cpu sound ." 120

# --- the CD changes while it runs, and is not torn from a guest that uses it
guest_types web 'mkdir -p /run/c; mount -o ro /dev/sr0 /run/c && echo STRATOFS-GUEST cd-1 $(cat /run/c/name) .'
wait_line "$log" "STRATOFS-GUEST cd-1 this is one ." 120
rm instances/web/cdrom || fail "rm cdrom"
wait_until 60 idle || fail "a job does not end"
expect_text instances/web/error "shut"
[ "$(readlink instances/web/cdrom)" = ../../images/one ] || fail "the link is not back"
guest_types web 'umount /run/c; echo STRATOFS-GUEST unmounted $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST unmounted 42" 120
ln -sfn images/two instances/web/cdrom || fail "another CD"
wait_until 60 idle || fail "a job does not end"
guest_types web 'mount -o ro /dev/sr0 /run/c && echo STRATOFS-GUEST cd-2 $(cat /run/c/name) .; umount /run/c; echo STRATOFS-GUEST read $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST cd-2 this is two ." 120
wait_line "$log" "STRATOFS-GUEST read 42" 120
rm instances/web/cdrom || fail "rm cdrom"
wait_until 60 idle || fail "a job does not end"
[ ! -e instances/web/cdrom ] || fail "it is not out: $(cat instances/web/error)"
grep -q "$(cat images/two/id)" instances/web/domain.xml && fail "it is still in the drive"
rmdir images/one images/two || fail "its images are still used"

# --- memory
expect_errno EINVAL 'echo 300M >instances/web/memory'
expect_errno EINVAL 'echo 1G >instances/web/memory'
expect_text instances/web/error "its flavor allows"
echo 512M >instances/web/memory || fail "memory"
wait_until 60 idle || fail "a job does not end"
grown() {
        guest_types web 'echo STRATOFS-GUEST memory $(($(sed -n "s/MemTotal: *\([0-9]*\).*/\1/p" /proc/meminfo) / 400000)) .'
        grep -q "STRATOFS-GUEST memory 1 ." "$log"
}
wait_until 60 grown || fail "its memory has not grown: $(cat instances/web/error)"
ok "it has more memory"

# --- the screen: nobody gets in before the verb, and nobody without its password
screen() { # screen PASSWORD: does it let this in?
        /usr/bin/python3 "$SOURCE/tests/system/vnc.py" "$(sed -n 's/^socket //p' instances/web/vnc)" "$1"
}
grep -q password instances/web/vnc && fail "a password, unasked"
screen expired && fail "it lets in whom it does not know"
tell vnc 120
wait_until 60 grep -q password instances/web/vnc || fail "no password: $(cat instances/web/error)"
password=$(sed -n 's/^password //p' instances/web/vnc)
screen "$password" || fail "it does not let in"
screen wrongpwd && fail "it lets in by another password"
grep -rq -- "$password" instances/web/domain.xml instances/web/spec instances/web/events && fail "it is to be read"
[ "$(stat -c %g "$dir/screen/vnc.sock")" = "$(cat gid)" ] || fail "its tenant's members cannot come to it"
tell vnc 1
shut() {
        ! screen "$(sed -n 's/^password //p' instances/web/vnc)"
}
wait_until 30 shut || fail "it does not end"
ok "its screen is guarded"

# --- a disk of its controller comes and goes
echo 'name=more size=64M' >volumes/new
expect "another disk" "$STRATO" wait volumes/more available --timeout 60
ln -s volumes/more instances/web/volumes/vdb
expect "it is plugged in" "$STRATO" wait volumes/more in-use --timeout 60
wait_line "$log" "STRATOFS-GUEST disk sdb 67108864" 120
rm instances/web/volumes/vdb || fail "rm of a link"
expect "it goes" "$STRATO" wait volumes/more available --timeout 60
wait_line "$log" "STRATOFS-GUEST gone sdb" 120

# --- its figures
has() { # has FILE PATTERN
        grep -qE "$2" "instances/web/metrics/$1"
}
wait_until 60 has memory '^usable [1-9]' || fail "no figures of its memory: $(cat instances/web/metrics/memory)"
has cpu '^cpu_nsec [1-9][0-9]{8}' || fail "no figures of its processors"
has disk '^vda rd_ops=[1-9]' || fail "no figures of its disk: $(cat instances/web/metrics/disk)"
samples() {
        [ "$(wc -l <instances/web/metrics/hour)" -gt "$1" ]
}
samples 2 || fail "no history"
[ "$(wc -l <instances/web/metrics/day)" = 2 ] || fail "the day: $(cat instances/web/metrics/day)"
[ "$(awk '{print NF}' instances/web/metrics/hour | sort -u)" = 16 ] || fail "fields"

# --- asleep and back, TPM and all
guest_types web 'echo STRATOFS-GUEST awake $((40 + 2)) $(cat /sys/class/tpm/tpm0/tpm_version_major)'
wait_line "$log" "STRATOFS-GUEST awake 42 2" 120
tell suspend
to suspended
[ -z "$(pgrep -f "swtpm.*$dir")" ] || fail "its TPM runs without it"
tell resume
to active
guest_types web 'echo STRATOFS-GUEST again $((40 + 2)) $(cat /sys/class/tpm/tpm0/pcr-sha256/0 | cut -c1-4)'
wait_line "$log" "STRATOFS-GUEST again 42 " 120

# --- what was its own goes with it
[ "$(stat -c %a "$dir/nvram.fd")" = 600 ] || fail "no variables of UEFI"
[ -s "$dir/tpm/tpm2-00.permall" ] || fail "no state of its TPM"
tell stop now
to stopped
[ -s "$dir/tpm/tpm2-00.permall" ] || fail "its TPM has forgotten"
samples 2 || fail "its history is gone"
[ -s instances/web/metrics/cpu ] && fail "figures of a guest that is off"
rmdir instances/web
gone() {
        [ ! -e "$dir" ]
}
wait_until 30 gone || fail "something is left: $(ls "$dir")"
pgrep -f "swtpm.*$dir" && fail "its TPM runs"
cd / && stop_cloud
