#!/bin/bash
# Debian's own cloud-init, in a guest made of Debian's packages, finds all that an instance has for it: on
# its config drive, and at the metadata service.  Long: it is not part of every run.
[ "${STRATOFS_LONG:-}" ] || exit 0
if [ "${1:-}" != inside ]; then
        [ "$(id -u)" = 0 ] || { echo "SKIP: only for root" >&2; exit 77; }
        exec 8</proc/self/ns/net
        exec unshare --net --mount --propagation private "$0" inside
fi
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 qemu-img mmdebstrap mke2fs cpio dnsmasq nft ip

# --- the guest: packages and no kernel; that of contrib/make-guest comes with the modules it needs
made=$BUILD/cloud-init.tar
sources=/etc/apt/sources.list.d/debian.sources
[ -e $sources ] || sources=/etc/apt/sources.list
if [ ! -s "$made" ]; then
        # The packages come by the network that the test came from.
        expect "Debian's packages" nsenter --net=/proc/self/fd/8 mmdebstrap --quiet --mode=root --variant=minbase \
                --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
                --include=systemd-sysv,cloud-init,netbase,udev,iproute2,e2fsprogs bookworm "$made.part.tar" $sources
        mv "$made.part.tar" "$made"
fi
tree=$T/tree
mkdir "$tree" && tar -C "$tree" -xf "$made" --exclude='./dev/*' || fail tree
: >"$tree/etc/machine-id"
rm -f "$tree/etc/resolv.conf"
units=$tree/etc/systemd/system
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
mkdir -p "$units/multi-user.target.wants"
ln -sf /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/"
# What an emulated processor would only lose its time with.
for unit in e2scrub_reap.service remote-fs.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
        e2scrub_all.timer fstrim.timer systemd-pstore.service getty.target serial-getty@ttyS0.service \
        systemd-networkd-wait-online.service systemd-journal-flush.service systemd-update-utmp.service \
        systemd-timesyncd.service systemd-resolved.service systemd-logind.service cloud-init-hotplugd.socket; do
        ln -sfn /dev/null "$units/$unit"
done
cat >"$tree/etc/cloud/cloud.cfg.d/90_test.cfg" <<'END'
cloud_init_modules: [ write-files, set_hostname, update_hostname, users-groups, ssh ]
cloud_config_modules: [ runcmd ]
cloud_final_modules: [ scripts-vendor, scripts-user ]
END
# One disk for each way: cloud-init is to look in one place.
for way in ConfigDrive OpenStack; do
        echo "datasource_list: [ $way ]" >"$tree/etc/cloud/cloud.cfg.d/91_way.cfg"
        rm -f "$T/root.raw" && truncate -s 1G "$T/root.raw"
        mke2fs -q -F -t ext4 -m 0 -E lazy_itable_init=1,lazy_journal_init=1 -d "$tree" "$T/root.raw" || fail mke2fs
        qemu-img convert -f raw -O qcow2 "$T/root.raw" "$T/$way.qcow2" || fail qemu-img
done
rm -r "$tree" "$T/root.raw"

# --- its ramdisk: make-guest's modules, and an init that goes on to the disk
expect "a kernel" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
mkdir "$T/over" && cat >"$T/over/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read -r m; do /bin/busybox insmod "/lib/modules/$m"; done </lib/modules/order
/bin/busybox mkdir -p /new
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
END
chmod 755 "$T/over/init"
(cd "$T/over" && echo init | cpio --quiet -o -H newc -R 0:0 | gzip) >>"$T/kernel/initrd.gz"

# --- the cloud, in a network of its own
ip link set lo up
mkdir "$T/cgroup" && mount --rbind /sys/fs/cgroup "$T/cgroup" && mount -t sysfs sysfs /sys &&
        mount --move "$T/cgroup" /sys/fs/cgroup || fail "sysfs"
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/kernel/vmlinuz" images/vmlinuz.aki
cp "$T/kernel/initrd.gz" images/initrd.ari
cp "$T/ConfigDrive.qcow2" "$T/OpenStack.qcow2" images/
for image in vmlinuz initrd ConfigDrive OpenStack; do
        expect "$image" "$STRATO" wait "images/$image" active --timeout 300
done
cat >vendor_data <<'END'
#cloud-config
write_files:
- path: /run/vendor
  content: from-the-operator
END
cat >"$T/user_data" <<'END'
#cloud-config
runcmd:
- [sh, -c, 'set -- $(sed -n "s/.*\"datasource\": \"\([^ \"]*\).*/\1/p" /run/cloud-init/result.json /run/cloud-init/status.json | head -n 1) $(grep -c a@b /home/debian/.ssh/authorized_keys) $(grep -o "\"colour\": \"[a-z]*\"" /run/cloud-init/instance-data.json | tail -n 1 | cut -d\" -f4) $(cat /run/vendor) $(ip -4 -o address show scope global | sed -n "s/.*inet \([^ ]*\).*/\1/p"); echo STRATOFS-GUEST cloud $(hostname) "$@" . > /dev/ttyS0']
END
mkdir networks/fixed && echo 10.9.0.0/24 >"$T/cidr"
mkdir networks/fixed/subnets/a && echo 0 >networks/fixed/subnets/a/dhcp
cat "$T/cidr" >networks/fixed/subnets/a/cidr || fail "a network without DHCP"

# tells NAME IMAGE NETWORK CONFIG_DRIVE SOURCE: an instance that is to find all that
tells() {
        mkdir "instances/$1"
        echo small >"instances/$1/flavor"
        echo "$4" >"instances/$1/config_drive"
        echo "host-$1" >"instances/$1/hostname"
        echo 'console=ttyS0 root=/dev/vda rw no_timer_check systemd.show_status=0' >"instances/$1/cmdline"
        echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2LQy7s5jF0mPH8WjHEf1kcXU6l6vVIXvZc3xMPh8ap a@b' >"instances/$1/ssh_key"
        echo blue >"instances/$1/metadata/colour"
        cp "$T/user_data" "instances/$1/metadata/user_data" || fail "its user_data"
        ln -s images/vmlinuz "instances/$1/kernel"
        ln -s images/initrd "instances/$1/ramdisk"
        ln -s "images/$2" "instances/$1/image"
        ln -s "networks/$3" "instances/$1/networks/" || fail "its network"
        echo start >"instances/$1/ctl"
        expect "$1 is active" "$STRATO" wait "instances/$1" active --timeout 300
        wait_until 420 grep -q "STRATOFS-GUEST cloud" "instances/$1/console.log" ||
                fail "cloud-init says nothing: $(tail -n 30 "instances/$1/console.log")"
        grep "STRATOFS-GUEST cloud" "instances/$1/console.log"
        expect_text "instances/$1/console.log" \
                "STRATOFS-GUEST cloud host-$1 DataSource$5 1 blue from-the-operator $(cat "instances/$1/addresses")/24 ."
        echo 'stop now' >"instances/$1/ctl"
        expect "$1 is off" "$STRATO" wait "instances/$1" stopped --timeout 60
}
tells drive ConfigDrive fixed 1 ConfigDrive
tells asks OpenStack default 0 OpenStackLocal
cd / && stop_cloud
