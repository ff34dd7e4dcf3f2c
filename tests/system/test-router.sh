#!/bin/bash
# Routers as a user meets them, on the mount; with STRATOFS_LONG=1 real guests go through one.  In a
# network namespace of the test's.
if [ "${1:-}" != inside ]; then
        [ "$(id -u)" = 0 ] || { echo "SKIP: only for root" >&2; exit 77; }
        exec unshare --net --mount --propagation private "$0" inside
fi
shift
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires dnsmasq nft ip unshare
ip link set lo up
mkdir "$T/cgroup" && mount --rbind /sys/fs/cgroup "$T/cgroup" && mount -t sysfs sysfs /sys &&
        mount --move "$T/cgroup" /sys/fs/cgroup || fail "sysfs"
start_cloud
cd "$C/tenants/default" || fail "no tenant"

# lan NAME CIDR...
lan() {
        local name=$1 i=0
        shift
        mkdir "networks/$name" || fail "network $name"
        for cidr in "$@"; do
                i=$((i + 1))
                mkdir "networks/$name/subnets/s$i" && echo "$cidr" >"networks/$name/subnets/s$i/cidr" ||
                        fail "subnet $cidr"
        done
}
lan lan 10.1.0.0/24 fd00:0:0:1::/64
lan dmz 10.2.0.0/24 fd00:0:0:2::/64
lan clash 10.1.0.0/16
expect "a router" mkdir routers/r
ln -s networks/lan networks/dmz routers/r/networks/ || fail "networks of the router"
expect_errno EINVAL ln -s networks/clash routers/r/networks/
expect_errno EBUSY ln -s networks/lan routers/r/gateway
ln -s networks/default routers/r/gateway || fail "gateway"
expect_text routers/r/address 10.0.0.2
[ "$(readlink routers/r/gateway)" = ../../networks/default ] || fail "readlink $(readlink routers/r/gateway)"
expect_errno EBUSY rmdir networks/lan
expect_errno EINVAL 'echo 10.9.0.0/16 via 10.7.0.1 >routers/r/routes'
printf '10.9.0.0/16 via 10.1.0.9\n10.8.0.0/16 via 10.1.0.9\n- 10.9.0.0/16 via 10.1.0.9\n' >routers/r/routes ||
        fail "routes"
expect_text routers/r/routes "10.8.0.0/16 via 10.1.0.9"
echo tcp 8080 to 10.2.0.2 80 >routers/r/forwards || fail "forwards"
grep -q '^router r network=lan network=dmz gateway=default address=10.0.0.2$' networks/lan/topology ||
        fail "topology: $(cat networks/lan/topology)"
grep -q '^graph "lan" {' networks/lan/topology.dot || fail "topology.dot"
expect_errno ENOTSUP 'echo gre >networks/lan/type'
echo vxlan >networks/clash/type || fail "vxlan"
expect_text networks/clash/mtu 1450
mkdir "$C/tenants/other" || fail "tenant"
"$STRATO" wait "$C/tenants/other" active --timeout 60 || fail "tenant"
mkdir "$C/tenants/other/routers/r" || fail "router"
expect_errno EPERM ln -s ../../../default/networks/clash "$C/tenants/other/routers/r/gateway"
echo 1 >networks/clash/shared || fail "shared"
ln -s ../../../default/networks/clash "$C/tenants/other/routers/r/gateway" || fail "a shared network"
expect_text "$C/tenants/other/routers/r/address" 10.1.0.2
expect_errno EBUSY 'echo 0 >networks/clash/shared'
echo 'networks limit=4' >quota || fail "quota"
expect_errno EDQUOT mkdir networks/more
rmdir "$C/tenants/other/routers/r" || fail "rmdir of a router"

if [ "${STRATOFS_LONG:-}" = 1 ]; then
        requires qemu-system-x86_64 socat
        expect "kernel and ramdisk" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
        cp "$T/kernel/vmlinuz" images/vmlinuz.aki && cp "$T/kernel/initrd.gz" images/initrd.ari || fail "images"
        for i in vmlinuz initrd; do
                expect "$i is active" "$STRATO" wait "images/$i" active --timeout 60
        done
        for i in lan dmz; do
                echo "name=$i flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd" \
                        >instances/new || fail "new $i"
                echo console=ttyS0 no_timer_check >"instances/$i/cmdline" || fail "cmdline"
                ln -s "networks/$i" "instances/$i/networks/" || fail "network of $i"
                echo start >"instances/$i/ctl" || fail "start $i"
        done
        for i in lan dmz; do
                wait_line "instances/$i/console.log" "STRATOFS-GUEST ready" 180
        done
        [ "$(cut -d' ' -f1 instances/lan/addresses)" = 10.1.0.2 ] || fail "address"
        asked=0
        # answers GUEST COMMAND
        answers() {
                asked=$((asked + 1))
                echo "$2 >/dev/null 2>&1 && echo 'answer $asked 'yes || echo 'answer $asked 'no" |
                        socat -t0.5 - "UNIX:$(cat "instances/$1/console")" >/dev/null
                wait_until 60 grep -qE "answer $asked (yes|no)" "instances/$1/console.log" || fail "$1: $2"
                grep -qE "answer $asked yes" "instances/$1/console.log"
        }
        expect "from network to network" answers lan "ping -c 2 -W 5 10.2.0.2"
        expect "and back" answers dmz "ping -c 2 -W 5 10.1.0.2"
        expect "also by IPv6" answers lan "ping -6 -c 3 -W 5 $(cut -d' ' -f2 instances/dmz/addresses)"
        [ "$(awk '$1 == "out_packets" { print $2 }' networks/lan/ports/lan/stats)" -gt 0 ] || fail "stats"
        rm routers/r/networks/dmz || fail "unlink"
        wait_until 10 eval '! answers lan "ping -c 1 -W 1 10.2.0.2"' || fail "the way is still there"
fi
cd / && stop_cloud
[ -z "$(ip -br link | grep '^sn')" ] || fail "devices are left: $(ip -br link)"
[ -z "$(ls -A "$T/state/run/net" 2>/dev/null)" ] || fail "namespaces are left"
ok "nothing is left"
