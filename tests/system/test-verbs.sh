#!/bin/bash
# What a running guest is told and done to: it sleeps in a file and wakes where it was, hears keys,
# gets a password from its agent, panics on request.
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
count() {
        grep -c "STRATOFS-GUEST $1" "$log"
}
more() { # more WORD THAN
        [ "$(count "$1")" -gt "$2" ]
}

guest_image "$T/debian.qcow2" --agent
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" images/ || fail "cp into images/"
mkdir volumes/root instances/web
ln -s ../../images/debian volumes/root/source
echo small >instances/web/flavor
echo 1 >instances/web/config_drive
echo host-1 >instances/web/hostname
echo vnc >instances/web/screen
echo 'ssh-ed25519 AAAA somebody@somewhere' >instances/web/ssh_key
echo blue >instances/web/metadata/colour
{ printf '#cloud-config\nruncmd: []\n# ' && head -c 60000 /dev/zero | tr '\0' x && echo; } >instances/web/metadata/user_data ||
        fail "a user_data of 60000 bytes"
expect_errno EFBIG 'head -c 70000 /dev/zero | tr "\0" x >instances/web/metadata/user_data'
expect_errno EFBIG 'head -c 5000 /dev/zero | tr "\0" x >instances/web/metadata/colour2'
rm instances/web/metadata/colour2
expect_errno EINVAL 'echo "{ \"a\": " >vendor_data'
printf '#cloud-config\npackages: [vim]\n' >vendor_data
ln -s volumes/root instances/web/volumes/vda
tell start
to active
log=$T/state/instances/$(cat instances/web/id)/console.log
memory=$T/state/instances/$(cat instances/web/id)/memory
wait_line "$log" "STRATOFS-GUEST ready" 120

# --- its screen, and its description, which follows what is plugged
banner=$(timeout 20 socat -u "UNIX:$(sed -n 's/^socket //p' instances/web/vnc)" - | head -c 12)
[ "$banner" = "RFB 003.008" ] || fail "its screen says '$banner'"
expect_text instances/web/domain.xml "graphics type='vnc'"
echo 'name=more size=64M' >volumes/new
expect "another disk" "$STRATO" wait volumes/more available --timeout 60
ln -s volumes/more instances/web/volumes/vdb
expect "it is plugged in" "$STRATO" wait volumes/more in-use --timeout 60
expect_text instances/web/domain.xml "target dev='vdb'"
# One that does not answer keeps it, and its link comes back.
guest_types web 'echo STRATOFS-GUEST runs $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST runs 42" 60
tell pause
to paused
rm instances/web/volumes/vdb
expect "it is asked to let go" "$STRATO" wait volumes/more detaching --timeout 10
expect "it is back" "$STRATO" wait volumes/more in-use --timeout 60
[ -L instances/web/volumes/vdb ] || fail "the link is not back"
expect_text instances/web/error "did not let go"
# The guest answers late, when it runs again: then it has no disk, and the link goes.
tell resume
to active
expect "it goes" "$STRATO" wait volumes/more available --timeout 60
grep -q "target dev='vdb'" instances/web/domain.xml && fail "it is still described"

# --- its config drive: a label that cloud-init looks for, OpenStack's layout
guest_types web 'mkdir -p /run/c; mount -t iso9660 -o ro $(findfs LABEL=config-2) /run/c; cd /run/c/openstack/latest; echo STRATOFS-GUEST "config" $(cat meta_data.json) $(md5sum <user_data) $(cat vendor_data.json network_data.json) $(ls ..) $(md5sum <../../ec2/latest/user-data) .; cd /; umount /run/c; echo STRATOFS-GUEST read $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST read 42" 60
config=$(sed -n 's/.*STRATOFS-GUEST config //p' "$log")
for text in '"hostname": "host-1"' '"colour": "blue"' '"default": "ssh-ed25519 AAAA somebody@somewhere"' \
        "\"uuid\": \"$(cat instances/web/id)\"" "$(md5sum <instances/web/metadata/user_data | cut -c1-32)" '"availability_zone": "nova"' '"random_seed": "' \
        '"cloud-init": "#cloud-config\npackages: [vim]"' '"links": []' '2018-08-27' 'latest'; do
        [[ $config == *"$text"* ]] || fail "no $text in its config drive: $config"
done
ok "it has its config drive"

# --- suspended, over a death of the daemon, and back
guest_types web 'tick on'
wait_line "$log" "STRATOFS-GUEST tick 1" 60
tell suspend
to suspended
[ -z "$(guest_pid instances/web)" ] || fail "QEMU runs"
[ "$(stat -c %a "$memory")" = 600 ] || fail "its memory may be read"
[ "$(cat instances/web/power)" = off ] || fail "power is $(cat instances/web/power)"
[ "$(cat volumes/root/state)" = in-use ] || fail "its disk is not its own any more"
expect_errno EBUSY 'echo pause >instances/web/ctl'
expect_errno EBUSY 'echo reboot >instances/web/ctl'
tell snapshot asleep
expect "its disk is taken" "$STRATO" wait volumes/root/snapshots/asleep available --timeout 30
cd /
kill -9 "$(daemon_pid stratod)"
"$STRATO" up --state "$T/state" --mount "$C" >"$T/out" 2>"$T/err" || fail "strato up again"
cd "$C/tenants/default" || fail "the mount"
[ "$(cat instances/web/state)" = suspended ] || fail "it is $(cat instances/web/state)"
ticks=$(count tick)
tell resume
to active
wait_until 60 more tick "$ticks" || fail "it does not go on"
[ "$(count up)" = 1 ] || fail "it has booted anew"
[ ! -e "$memory" ] || fail "its memory is still there"
guest_types web pattern
wait_until 60 more "pattern ok" 1 || fail "its disk does not answer"
ok "it goes on where it was"

# --- keys
guest_types web 'for e in /sys/class/input/event*; do grep -q "AT Translated" $e/device/name && exec 5</dev/input/${e##*/}; done; (head -c 24 <&5 >/dev/null && echo STRATOFS-GUEST key $((40 + 2))) & echo STRATOFS-GUEST armed $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST armed 42" 60
expect_errno EINVAL 'echo send-key ctrl hyper >instances/web/ctl'
tell send-key shift a
wait_line "$log" "STRATOFS-GUEST key 42" 60

# --- a password, which nobody has seen
# What the agent calls is not in this guest's busybox.
guest_types web 'printf "#!/bin/sh\nIFS=: read -r u h; echo \"\$1 \$u \$h\" >/etc/shadow\n" >/bin/chpasswd; chmod 755 /bin/chpasswd; echo STRATOFS-GUEST users $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST users 42" 60
heard() { # its agent, once it has come up
        tell set-password root correct-horse
        wait_until 30 ended && grep -q "a password is set" instances/web/events
}
ended() {
        ! [ -e instances/web/job ]
}
wait_until 120 heard || fail "its agent is not heard: $(tail -n 3 instances/web/events)"
guest_types web 'echo STRATOFS-GUEST "shadow" $(cat /etc/shadow)'
wait_line "$log" 'STRATOFS-GUEST shadow -e root $6$' 60
/usr/bin/python3 -W ignore -c '
import crypt, re, sys
h = re.findall(r"GUEST shadow -e root (\S+)", open(sys.argv[1]).read())[-1]
sys.exit(crypt.crypt("correct-horse", h) != h)' "$log" || fail "it is another password"
expect_errno EINVAL 'echo set-password root >instances/web/ctl'
expect_errno EINVAL 'echo set-pasword root correct-horse >instances/web/ctl'
if grep -rq correct-horse "$T/state" errors instances/web/error jobs/*/error; then
        fail "it is written somewhere"
fi
ok "the password is set and nowhere to be seen"

# --- it panics when asked to, and a reboot helps
guest_types web 'echo 1 >/proc/sys/kernel/unknown_nmi_panic; echo 1 >/proc/sys/kernel/panic_on_io_nmi; echo STRATOFS-GUEST brittle $((40 + 2))'
wait_line "$log" "STRATOFS-GUEST brittle 42" 60
tell crash-dump
wait_line "$log" "Kernel panic" 60
expect_text instances/web/events "non-maskable"
tell reboot hard
to active
wait_until 120 more ready 1 || fail "it does not boot"

# --- a memory that is lost is told, and left for a fresh start
tell suspend
to suspended
truncate -s 4000 "$memory"
tell resume
expect_status 1 "$STRATO" wait instances/web active --timeout 60
to suspended
[ -s instances/web/error ] || fail "nobody said why"
tell reboot hard
to active
wait_until 120 more ready 0 || fail "it does not boot"
tell suspend
to suspended
rmdir instances/web || fail "rmdir of a suspended instance"
gone() {
        [ ! -e "${log%/*}" ]
}
wait_until 30 gone || fail "its folder is left"
cd / && stop_cloud
