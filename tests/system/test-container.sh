#!/bin/bash
# Containers: a root from a tar archive, users of their own, and the verbs of other guests.  In
# namespaces of the test's, with a libvirtd that nobody else meets.
if [ "${1:-}" != inside ]; then
        [ "$(id -u)" = 0 ] || { echo "SKIP: only for root" >&2; exit 77; }
        exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$0" inside
fi
shift
. "$(dirname "$0")/../lib.sh"
requires libvirtd virtlogd virsh socat dnsmasq nft ip busybox tar zstd
[ -e /usr/lib/libvirt/libvirt_lxc ] || skip "libvirt's LXC driver is not installed"
ip link set lo up
# sysfs shows the devices of the namespace it was mounted in.  libvirt takes a unified hierarchy
# below a tmpfs for one that it could mount into a container, which it cannot.
mkdir "$T/cgroup" && mount --rbind /sys/fs/cgroup "$T/cgroup" && mount -t sysfs sysfs /sys &&
        mount --move "$T/cgroup" /sys/fs/cgroup || fail "sysfs"
[ ! -d /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified
mkdir -p /run/libvirt /var/lib/libvirt /var/log/libvirt /run/netns
for d in /run/libvirt /var/lib/libvirt /var/log/libvirt /run/netns; do
        mount -t tmpfs -o mode=0755 tmpfs $d || fail "tmpfs on $d"
done
R=$T/tree
U=qemu+unix:///system

libvirtd_up() {
        [ -S /run/libvirt/virtlogd-sock ] || spawn env -C / virtlogd 2>>"$T/libvirtd.log"
        spawn env -C / libvirtd 2>>"$T/libvirtd.log"
        libvirtd=$!
        wait_until 60 virsh -q -c lxc:///system list || fail "libvirtd does not answer"
}
# says COMMAND: types it into the container's console
says() {
        echo "$1" | socat -t0.2 - "UNIX:$(cat "$I/console")" >/dev/null || fail "console"
}
asked=0
# answers COMMAND: runs it there
answers() {
        asked=$((asked + 1))
        says "$1 >/dev/null 2>&1 && echo answer-$asked 'yes' || echo answer-$asked 'no'"
        wait_until 30 grep -qE "answer-$asked (yes|no)" "$I/console.log" ||
                { cp "$I/console.log" "$T/out"; fail "it does not say: $1"; }
        grep -qE "answer-$asked yes" "$I/console.log"
}
yes() {
        answers "$1" || fail "failed inside: $1"
        ok "inside: $1"
}
no() {
        answers "$1" && fail "succeeded inside: $1"
        ok "inside, not: $1"
}
settles() {
        expect "it is $1" "$STRATO" wait "$I" "$1" --timeout 60
}

# A tree of busybox: its init starts a shell on the console.
mkdir -p "$R"/bin "$R"/sbin "$R"/dev "$R"/proc "$R"/sys "$R"/etc/init.d "$R"/tmp "$R"/root
cp "$(command -v busybox)" "$R/bin/busybox"
for a in sh ls cat id mount ps ip sleep ping udhcpc grep touch chown stat echo mknod hostname poweroff reboot test wget; do
        ln -s busybox "$R/bin/$a"
done
ln -s /bin/busybox "$R/sbin/init"
printf '%s\n' '::sysinit:/etc/init.d/rcS' 'console::respawn:/bin/sh' >"$R/etc/inittab"
cat >"$R/etc/init.d/rcS" <<'E'
#!/bin/sh
echo "boot $(cat /proc/1/uid_map)"
ip link set eth0 up 2>/dev/null && udhcpc -i eth0 -q -n -t 20 -T 1 -s /etc/dhcp >/dev/null
echo "container up"
E
cat >"$R/etc/dhcp" <<'E'
#!/bin/sh
[ "$1" = bound ] && ip addr add "$ip/$mask" dev "$interface" && ip route add default via $router
E
chmod 755 "$R/etc/init.d/rcS" "$R/etc/dhcp"
tar -C "$R" --owner=0 --group=0 -cf "$T/box.tar" . || fail "tar"
zstd -q "$T/box.tar" -o "$T/zbox.tar.zst" || fail "zstd"

libvirtd_up
start_cloud
mkdir "$C/flavors/box" && echo 64M >"$C/flavors/box/memory" && echo lxc >"$C/flavors/box/hypervisor" ||
        fail "flavor"
cd "$C/tenants/default" || fail "no default tenant"

# Images: known by their content; what leads out of a root is refused at the door.
/usr/bin/python3 - "$T" <<'E' || fail "archives"
import io, sys, tarfile
def make(name, *entries):
    with tarfile.open("%s/%s.tar" % (sys.argv[1], name), "w") as t:
        for path, kind, link in entries:
            x = tarfile.TarInfo(path)
            x.type, x.linkname, x.size = kind, link, 5 if kind == tarfile.REGTYPE else 0
            t.addfile(x, io.BytesIO(b"owned"))
R, S, L, C = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
make("up", ("a/../../owned", R, ""))
make("top", ("/tmp/owned", R, ""))
make("hard", ("x", L, "/etc/passwd"))
make("device", ("disk", C, ""))
make("through", ("sbin", S, "/tmp"), ("sbin/init", R, ""))
E
for i in up:leads top:begins hard:begins device:device; do
        cp "$T/${i%:*}.tar" images/
        "$STRATO" wait "images/${i%:*}" error --timeout 60 >/dev/null || fail "$i: $(cat "images/${i%:*}/state")"
        expect_text "images/${i%:*}/error" "${i#*:}"
done
cp "$T/box.tar" "$T/zbox.tar.zst" "$T/through.tar" images/ || fail "upload"
for i in box zbox.tar through; do
        expect "image $i" "$STRATO" wait "images/$i" active --timeout 60
        expect_text "images/$i/format" tar
done

# What does not fit is said before anything begins.
I=instances/c
mkdir instances/vm && echo tiny >instances/vm/flavor
expect_errno EINVAL ln -s ../../images/box instances/vm/image
mkdir $I && echo box >$I/flavor && echo 1 >$I/config_drive && mkdir -p volumes/v
expect_errno EINVAL 'echo start >instances/c/ctl'
echo 1M >volumes/v/size && expect "volume" "$STRATO" wait volumes/v available --timeout 30
expect_errno ENOTSUP ln -s volumes/v $I/volumes/
ln -s ../../images/through $I/image && echo start >$I/ctl || fail "start"
"$STRATO" wait $I active --timeout 60 2>/dev/null && fail "started from an archive that leads out"
expect_text $I/error "through symlink"
[ ! -e /tmp/owned ] && [ ! -e /tmp/init ] || fail "an archive led out"
rm $I/image && ln -s ../../images/zbox.tar $I/image && ln -s networks/default $I/networks/ || fail "links"

echo start >$I/ctl || fail "start"
settles active
wait_line $I/console.log "container up" 60
id=$(cat $I/id)
base=$(sed -n 's/^boot *0 *\([0-9]*\) *65536/\1/p' $I/console.log | tr -d '\r')
[ "$base" -ge 2000000000 ] || fail "its users: $base"
[ "$(stat -c %u "$T/state/instances/$id/tree/root")" = "$base" ] || fail "owner of its root"
pid=$(virsh -q -c lxc:///system list --id)
first=$(cat "/proc/$pid/task/$pid/children")
grep -qE "^Uid:[[:space:]]+$base" "/proc/${first% }/status" || fail "root inside is $(grep Uid "/proc/${first% }/status")"
ok "root inside is user $base outside"
yes "test \$(id -u) = 0"
yes "test \$(stat -c %u /etc) = 0"
yes "touch /mine && chown 1000 /mine"
no "mknod /disk b 7 0"
no "cat $T/state/stratod/cloud.db"
no "echo 1 > /proc/sys/kernel/panic"
yes "ip addr | grep $(cat $I/addresses)/24"
yes "ping -c 1 -W 5 10.0.0.1"
yes "grep $id /var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json"
yes "wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json | grep $id"
[ "$(stat -c %u "$T/state/instances/$id/tree/root/mine")" = $((base + 1000)) ] || fail "owner of a file"

# Verbs that mean nothing to it are not offered, and refused in words.
expect_errno ENOTSUP 'echo suspend >instances/c/ctl'
expect_errno ENOTSUP 'echo migrate >instances/c/ctl'
expect_errno ENOTSUP 'echo "snapshot s" >instances/c/ctl'
grep -q suspend $I/ctl && fail "suspend is offered"
expect_text $I/error "is a container"

echo pause >$I/ctl && settles paused
echo resume >$I/ctl && settles active
yes "test -e /mine"

# Restarts: soft, hard, and its own; each finds the same root and the same network.
for how in soft hard; do
        [ $how = soft ] || { echo pause >$I/ctl && settles paused; }
        echo "reboot $how" >$I/ctl || fail "reboot $how"
        settles active
        wait_line $I/console.log "container up" 60
        yes "test -e /mine"
        yes "ping -c 1 -W 5 10.0.0.1"
done
expect_text $I/console.log.1 "container up"
before=$(virsh -q -c lxc:///system list --id)
says "reboot"
own() { [ "$(virsh -q -c lxc:///system list --id)" != "$before" ] && [ "$(cat $I/state)" = active ]; }
wait_until 60 own || fail "it did not restart itself"
twice() { [ "$(grep -c "container up" $I/console.log)" -ge 2 ]; }
wait_until 60 twice || { cp $I/console.log "$T/out"; fail "its console is lost"; }
yes "ping -c 1 -W 5 10.0.0.1"

# libvirtd dies and comes back, the cloud goes and comes: it goes on, and is still ours.
kill -9 $libvirtd && wait_gone $libvirtd 20
libvirtd_up
cd / && expect "the cloud goes" "$STRATO" down --state "$T/state" --mount "$C"
start_cloud && cd "$C/tenants/default" || fail "no default tenant"
expect_text $I/state active
echo 'echo still-$((40 + 2))' | "$STRATO" console "$C/tenants/default/$I" >"$T/out" || fail "strato console"
wait_line "$T/out" "still-42" 1
expect_text $I/console.log "still-42"
wait_until 30 grep -q '[1-9]' $I/metrics/cpu || fail "no metrics: $(cat $I/metrics/cpu)"
wait_until 30 grep -q 'rx_bytes=[1-9]' $I/metrics/network || fail "no metrics: $(cat $I/metrics/network)"
yes "ping -c 1 -W 5 10.0.0.1"
# Its console's program dies: one look later there is another.
kill "$(pgrep -f "stratofs-console $T/state/instances/$id/")" || fail "no console program"
echo pause >$I/ctl && settles paused && echo resume >$I/ctl && settles active
yes "test -e /mine"
# Killed: the reconciler sees it.
first=$(virsh -q -c lxc:///system list --id)
kill -9 "$first"
settles stopped
echo start >$I/ctl && settles active
wait_line $I/console.log "container up" 60
echo stop >$I/ctl
settles stopped
[ -z "$(virsh -q -c lxc:///system list --name --all)" ] || fail "libvirt has it still"
ip -br link | grep '^snt' && fail "its cable is there still"
rmdir $I && wait_until 30 test ! -e "$T/state/instances/$id" || fail "its folder is there still"
ok "its folder is gone"
cd / && stop_cloud
