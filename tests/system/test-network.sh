#!/bin/bash
# Networks: real guests get the address that was known before, resolve names, reach each other and
# nobody else.  All of it in a network namespace of the test's: its "host" has no way out.
if [ "${1:-}" != inside ]; then
        [ "$(id -u)" = 0 ] || { echo "SKIP: only for root" >&2; exit 77; }
        exec unshare --net --mount --propagation private "$0" inside
fi
shift
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 socat dnsmasq nft ip unshare openssl
ip link set lo up
# sysfs shows the devices of the namespace it was mounted in; libvirt wants its cgroups.
mkdir "$T/cgroup" && mount --rbind /sys/fs/cgroup "$T/cgroup" && mount -t sysfs sysfs /sys &&
        mount --move "$T/cgroup" /sys/fs/cgroup || fail "sysfs"

# Somebody else's bridge and rules, which must be as they were at the end.
ip link add foreign type bridge && ip link set foreign up
nft add table inet foreign && nft add chain inet foreign c
nft list ruleset >"$T/rules.before"
# The outside: a namespace behind a cable of the "host".
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
ip netns add outside
ip link add cable type veth peer name eth0 netns outside
ip addr add 192.0.2.1/24 dev cable && ip link set cable up
ip -n outside addr add 192.0.2.2/24 dev eth0 && ip -n outside link set eth0 up
ip -n outside route add default via 192.0.2.1

# says TENANT/NAME COMMAND: types it into the guest's console
says() {
        local socket
        socket=$(cat "$C/tenants/${1%/*}/instances/${1#*/}/console") || fail "console of $1"
        echo "$2" | socat -t0.5 - "UNIX:$socket" >/dev/null || fail "console of $1"
}
# answers TENANT/NAME COMMAND: runs it there and gives its exit status in words, yes or no
asked=0
answers() {
        asked=$((asked + 1))
        says "$1" "$2 >/dev/null 2>&1 && echo 'answer $asked 'yes || echo 'answer $asked 'no"
        local log="$C/tenants/${1%/*}/instances/${1#*/}/console.log"
        wait_until 60 grep -qE "answer $asked (yes|no)" "$log" || { tail -n 5 "$log"; fail "$1 does not say: $2"; }
        grep -qE "answer $asked yes" "$log"
}
yes() {
        answers "$@" || fail "$1: failed: $2"
        ok "$1: $2"
}
no() {
        answers "$@" && fail "$1: succeeded: $2"
        ok "$1: not: $2"
}
# none TENANT/NAME COMMAND...: none of them succeeds; all at once, as each waits for its time
none() {
        local guest=$1 first=$((asked + 1)) line='' c log n
        log="$C/tenants/${guest%/*}/instances/${guest#*/}/console.log"
        shift
        for c; do
                asked=$((asked + 1))
                line+="(if $c >/dev/null 2>&1; then echo 'answer $asked 'yes; else echo 'answer $asked 'no; fi) & "
        done
        says "$guest" "$line"
        for ((n = first; n <= asked; n++)); do
                wait_until 60 grep -qE "answer $n (yes|no)" "$log" || { tail -n 5 "$log"; fail "$guest does not say: $1"; }
                grep -qE "answer $n yes" "$log" && fail "$guest: succeeded: $1"
                ok "$guest: not: $1"
                shift
        done
}
# boot TENANT/NAME
boot() {
        local i="$C/tenants/${1%/*}/instances/${1#*/}"
        echo "name=${1#*/} flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd" \
                >"$C/tenants/${1%/*}/instances/new" || fail "new $1"
        # A busy machine gives an emulated guest too few ticks for the check of its timer.
        echo console=ttyS0 no_timer_check >"$i/cmdline" || fail "cmdline of $1"
        ln -s networks/default "$i/networks/" || fail "network of $1"
        [ "$(cat "$i/addresses")" ] || fail "$1 has no address before it starts"
        echo start >"$i/ctl" || fail "start $1"
}
up() {
        local i="$C/tenants/${1%/*}/instances/${1#*/}"
        wait_line "$i/console.log" "STRATOFS-GUEST ready" 180
        grep -F "STRATOFS-GUEST net eth0 $(cat "$i/addresses")/24" "$i/console.log" ||
                fail "$1 has another address: $(grep net "$i/console.log")"
        ok "$1 has the address that was known"
}

expect "kernel and ramdisk" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
start_cloud
mkdir "$C/tenants/other" || fail "second tenant"
expect "its group is there" "$STRATO" wait "$C/tenants/other" active --timeout 60
for t in default other; do
        cp "$T/kernel/vmlinuz" "$C/tenants/$t/images/vmlinuz.aki"
        cp "$T/kernel/initrd.gz" "$C/tenants/$t/images/initrd.ari"
        for i in vmlinuz initrd; do
                expect "$i is active" "$STRATO" wait "$C/tenants/$t/images/$i" active --timeout 60
        done
done
cd "$C/tenants/default" || fail "no tenant"
expect_text networks/default/subnets/default/cidr 10.0.0.0/24
[ -z "$(ip -br link | grep '^sn')" ] || fail "something was made before there is a guest"
mkdir -p "$T/a.metadata" && echo '#cloud-config of a' >"$T/a.metadata/user_data"
boot default/a
boot default/b
boot other/c
cp "$T/a.metadata/user_data" instances/a/metadata/user_data || fail "user data"
echo '#cloud-config of the tenant' >"$C/tenants/other/vendor_data" || fail "vendor data"
[ "$(cat instances/a/addresses)" = 10.0.0.2 ] || fail "address"
[ "$(cat instances/b/addresses)" = 10.0.0.3 ] || fail "address"
[ "$(readlink instances/a/networks/default)" = ../../../networks/default/ports/a ] || fail "the link"
up default/a
up default/b
up other/c

yes default/a "ping -c 2 -W 5 10.0.0.3"
yes default/a "nslookup b.internal 10.0.0.1"
yes default/b "ping -c 1 -W 5 a.internal"
# Out by the host, answers only in; nothing of a guest's reaches the host itself.
yes default/a "ping -c 1 -W 5 192.0.2.2"
none default/a "ping -c 1 -W 2 192.0.2.1" "ping -c 1 -W 2 169.254.0.1" \
        "nc -w 2 169.254.169.254 81 </dev/null" "nc -w 2 10.0.0.1 80 </dev/null"
ip netns exec outside busybox ping -q -c 1 -W 2 10.0.0.3 >/dev/null && fail "the outside reaches a guest"
# The same address in the other tenant's network is its own; its way out leads to no neighbour.
yes other/c "ping -c 1 -W 5 192.0.2.2"
none other/c "ping -c 1 -W 2 10.0.0.3" "nslookup a.internal 10.0.0.1" "ping -c 1 -W 2 169.254.1.0"
# Each is told of itself: the same address, another tenant, another guest.
meta=http://169.254.169.254
yes default/a "wget -q -O - $meta/openstack/latest/meta_data.json | grep $(cat instances/a/id)"
yes default/b "wget -q -O - $meta/openstack/latest/meta_data.json | grep $(cat instances/b/id)"
yes other/c "wget -q -O - $meta/openstack/latest/meta_data.json | grep $(cat "$C/tenants/other/instances/c/id")"
yes default/a "wget -q -O - $meta/2009-04-04/meta-data/local-ipv4 | grep -x 10.0.0.2"
yes default/a "wget -q -O - $meta/openstack/latest/network_data.json | grep $(cat networks/default/ports/a/mac)"
yes default/a "wget -q -O - $meta/latest/user-data | grep 'cloud-config of a'"
no default/b "wget -q -O - $meta/latest/user-data"
yes other/c "wget -q -O - $meta/openstack/latest/vendor_data.json | grep 'of the tenant'"
no default/a "wget -q -O - $meta/openstack/latest/vendor_data.json | grep 'of the tenant'"
# A token, when one is asked for; nothing, when nothing is to be said.
echo tokens >instances/b/metadata_service || fail "metadata_service"
untold() {
        no default/b "wget -q -O - $meta/latest/meta-data/instance-id"
}
wait_until 5 eval 'grep -q "^.tokens" "$T/state/run/net/$(cat networks/default/id)/meta/10.0.0.3"' || fail "no word of tokens"
untold
yes default/b "printf 'PUT /latest/api/token HTTP/1.0\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n' | nc -w 5 169.254.169.254 80 | tail -n 1 >/tmp/token; wget -q -O - --header \"X-aws-ec2-metadata-token: \$(cat /tmp/token)\" $meta/latest/meta-data/instance-id"
echo off >instances/b/metadata_service || fail "metadata_service"
wait_until 5 eval '[ ! -e "$T/state/run/net/$(cat networks/default/id)/meta/10.0.0.3" ]' || fail "b is still told"
untold
echo on >instances/b/metadata_service || fail "metadata_service"
# The password, once.
yes default/a "wget -q -O - --post-data c2VjcmV0 $meta/openstack/latest/password"
no default/a "wget -q -O - --post-data other $meta/openstack/latest/password"
wait_until 10 grep -qx c2VjcmV0 instances/a/password || fail "no password"
yes default/a "wget -q -O - $meta/openstack/latest/password | grep -x c2VjcmV0"
expect_errno EPERM 'echo mine >instances/a/password'
echo >instances/a/password || fail "not cleared"
[ -z "$(cat instances/a/password)" ] || fail "the password is still there"
# Speaking as somebody else.
no default/a "ip addr add 10.0.0.77/24 dev eth0; ping -I 10.0.0.77 -c 1 -W 2 10.0.0.1"
no default/a "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up; ping -c 1 -W 2 10.0.0.3"
yes default/a "ip link set eth0 down; ip link set eth0 address $(cat networks/default/ports/a/mac); ip link set eth0 up; net eth0; ping -c 1 -W 5 10.0.0.3"

# Whatever is broken is back within seconds, and guests know nothing but a pause.
id=$(cat networks/default/id)
short=${id//-/}
short=${short:0:12}
table=stratofs_$(nft list tables bridge | sed -n 's/.*stratofs_//p')
ns=$T/state/run/net/$id/ns
inside() {
        nsenter --net="$ns" "$@"
}
again() {
        wait_until 20 "$@" || fail "not back: $*"
}
# That guests know nothing of it but a pause.
reached() {
        yes default/b "ping -c 1 -W 2 10.0.0.2 || ping -c 1 -W 5 10.0.0.2"
}
server() {
        local pid
        pid=$(cat "$T/state/run/net/$id/dnsmasq.pid") && [ "$pid" != "$killed" ] && [ -d "/proc/$pid" ]
}
nft delete table bridge "$table" || fail "no bridge table"
nft delete table ip "$table" || fail "no table"
inside nft flush ruleset
again nft list table bridge "$table"
again nft list table ip "$table"
again eval 'inside nft list chain ip $table forward | grep -q "^[[:space:]]*drop"'
reached
told() {
        local pid
        pid=$(cat "$T/state/run/net/$id/metadata.pid") && [ "$pid" != "$silenced" ] && [ -d "/proc/$pid" ]
}
killed=$(cat "$T/state/run/net/$id/dnsmasq.pid")
silenced=$(cat "$T/state/run/net/$id/metadata.pid")
kill -9 "$killed" "$silenced"
again server
again told
reached
yes default/b "wget -q -O - $meta/latest/meta-data/hostname | grep -x b"
ip link del "snb$short"
again eval '[ "$(bridge link | grep -c "master snb$short")" = 3 ]'
[ "$(bridge -d link | grep -c "isolated on")" = 3 ] || fail "ports are not isolated"
reached
ip link del "snv$short"
again ip link show "snv$short"
reached
ip link del "snu$short"
again ip link show "snu$short"
reached
killed=$(cat "$T/state/run/net/$id/dnsmasq.pid")
umount "$ns" && rm "$ns"
again server
reached
yes default/b "ping -c 1 -W 5 192.0.2.2"
# Without stratod it all goes on.
kill -9 "$(daemon_pid stratod)"
yes_before=$(cat "$T/state/run/net/$id/dnsmasq.pid")
[ -d "/proc/$yes_before" ] || fail "DHCP and DNS ended with stratod"
expect "up again" "$STRATO" up --state "$T/state" --mount "$C"
cd "$C/tenants/default" || fail "no tenant"
[ "$(cat "$T/state/run/net/$id/dnsmasq.pid")" = "$yes_before" ] || fail "DHCP began anew"
yes default/b "ping -c 1 -W 5 a.internal"

# A device of ours that nothing accounts for is named, and goes.
clean() {
        "$STRATO" doctor --fsck --state "$T/state" --mount "$C" | grep -q "all as they should be"
}
expect "nothing is astray" clean
named() { # it may go before it is looked for
        ip link show snb000000000000 || ip link add snb000000000000 type bridge
        ip link set snb000000000000 alias "$(cat "$T/state/run/net/owner")"
        "$STRATO" doctor --fsck --state "$T/state" --mount "$C" | grep snb000000000000
}
wait_until 20 named || fail "doctor does not name an orphan"
swept() {
        ! ip link show snb000000000000
}
wait_until 20 swept || fail "an orphan stays"

# Security groups, on running guests.
yes default/b "httpd -p 80 -h /"
get="printf 'GET /init HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc b.internal 80 | grep insmod"
yes default/a "$get"
expect "a group" mkdir security_groups/web
ln -s security_groups/web instances/b/security_groups/ || fail "link of the group"
none default/a "${get/timeout 5/timeout 2}" "ping -c 1 -W 2 10.0.0.3"
echo 'in tcp 80-88 from group default' >security_groups/web/rules || fail "rule"
yes default/a "$get"
no default/a "ping -c 1 -W 2 10.0.0.3"
echo '+ in icmp from 10.0.0.2' >security_groups/web/rules || fail "rule"
yes default/a "ping -c 1 -W 5 10.0.0.3"
printf -- '- in icmp from 10.0.0.2/32\n- out any\n' >security_groups/web/rules || fail "rules"
no default/a "ping -c 1 -W 2 10.0.0.3"
no default/b "ping -c 1 -W 2 192.0.2.2"
yes default/a "$get" # an answer needs no rule
[ "$(cat security_groups/web/rules)" = "in tcp 80-88 from group default" ] || fail "rules"
expect_errno EINVAL 'echo "in tcp 99999" >security_groups/web/rules'
expect_errno EINVAL 'echo "sideways any" >security_groups/web/rules'
expect_errno ENOENT 'echo "in any from group nobody" >security_groups/web/rules'
expect_errno EBUSY rmdir security_groups/web
rm instances/b/security_groups/web || fail "unlink of the group"
yes default/b "ping -c 1 -W 5 192.0.2.2"

# Floating IPs: the outside reaches a guest, as far as its group lets it.
outside() {
        ip netns exec outside busybox ping -c 1 -W 3 "$1"
}
expect_errno ENOSPC mkdir floating_ips/web
expect_errno EINVAL "echo 192.0.2.9-192.0.2.1 >'$C'/admin/hosts/*/floating"
echo 198.51.100.1-198.51.100.2 >"$(echo "$C"/admin/hosts/*/floating)" || fail "pool"
expect "an address" mkdir floating_ips/web
expect_text floating_ips/web/address 198.51.100.1
ln -s instances/b floating_ips/web/target || fail "floating IP"
expect_errno EBUSY 'mkdir floating_ips/more && ln -s instances/b floating_ips/more/target'
expect_errno ENOSPC mkdir "$C/tenants/other/floating_ips/x"
outside 198.51.100.1 && fail "the default group lets the outside in"
mkdir security_groups/open && echo 'in icmp from any' >security_groups/open/rules || fail "group"
ln -s security_groups/open instances/b/security_groups/ || fail "link of the group"
wait_until 10 outside 198.51.100.1 || fail "no way to the floating IP"
web() {
        ip netns exec outside timeout 3 busybox nc 198.51.100.1 80 </dev/null
}
web && fail "a port that no rule names"
echo 'in tcp 80 from 192.0.2.0/24' >security_groups/open/rules || fail "rule"
wait_until 10 web || fail "no way to the floating IP's port 80"
yes other/c "ping -c 1 -W 5 198.51.100.1"
yes default/b "ping -c 1 -W 5 192.0.2.2"
# It speaks from its address outside; others from the host's.
ip netns exec outside nft -f - <<END || fail "rules of the outside"
table ip only {
        chain in {
                type filter hook input priority 0
                icmp type echo-request ip saddr != 198.51.100.1 drop
        }
}
END
yes default/b "ping -c 1 -W 5 192.0.2.2"
no default/a "ping -c 1 -W 2 192.0.2.2"
ip netns exec outside nft delete table ip only
yes default/a "ping -c 1 -W 5 192.0.2.2"
rm floating_ips/web/target || fail "unlink"
away() {
        ! outside 198.51.100.1 && [ -z "$(ip route show 198.51.100.1)" ]
}
wait_until 10 away || fail "the floating IP still leads there"
rmdir floating_ips/web floating_ips/more || fail "rmdir"
rm instances/b/security_groups/open || fail "unlink of the group"

# Load balancers: two guests behind one address.
for i in a b; do
        yes default/$i "mkdir -p /tmp/w && echo from-$i >/tmp/w/who && httpd -p 8080 -h /tmp/w"
done
lb=load_balancers/web
mkdir $lb $lb/listeners/http || fail "load balancer"
expect_errno EINVAL ln -s instances/a $lb/listeners/http/members/
ln -s networks/default $lb/network || fail "its network"
vip=$(cat $lb/address)
expect_errno EINVAL "echo https >$lb/listeners/http/protocol"
expect_errno EINVAL "echo 'who me' >$lb/listeners/http/check_path"
expect_errno EBUSY ln -s networks/default/ports/web instances/a/networks/more
for line in http:protocol 8080:member_port http:check /who:check_path 1:check_interval 80:port; do
        echo "${line%:*}" >"$lb/listeners/http/${line#*:}" || fail "$line"
done
mkdir $lb/listeners/raw && echo 1 >$lb/listeners/raw/check_interval && echo 8080 >$lb/listeners/raw/port || fail "second listener"
expect_errno EEXIST "echo 80 >$lb/listeners/raw/port"
for i in a b; do
        ln -s instances/$i $lb/listeners/http/members/ && ln -s instances/$i $lb/listeners/raw/members/ ||
                fail "member $i"
done
balanced() {
        [ "$(grep -c "^\(http\|raw\)/[ab] state=$1 " $lb/stats)" = "$2" ]
}
wait_until 20 balanced up 4 || { cat $lb/stats; fail "members are not up"; }
get="for i in 1 2 3 4; do wget -q -O - http://$vip"
yes default/a "$get/who; done | sort | uniq -c | tr -d '\n ' | grep -x 2from-a2from-b"
yes default/b "$get:8080/who; done | sort | uniq -c | tr -d '\n ' | grep -x 2from-a2from-b"
no default/a "timeout 4 wget -q -O - http://$vip:81/who"
no other/c "timeout 4 wget -q -O - http://$vip/who"
wait_until 10 grep -qE '^http sessions=[1-9]' $lb/stats || fail "nothing was counted: $(cat $lb/stats)"
yes default/a "killall httpd"
wait_until 20 balanced down 2 || fail "nobody saw the end of a: $(cat $lb/stats)"
yes default/a "$get/who; done | sort | uniq -c | tr -d '\n ' | grep -x 4from-b"
pid=$(cat "$T/state/run/net/$id/"lb-*.pid)
kill -9 "$pid"
yes default/b "n=0; until timeout 4 wget -q -O - http://$vip/who | grep from-b || [ \$n = 15 ]; do sleep 1; n=\$((n + 1)); done; [ \$n -lt 15 ]"
# From outside, as far as its port's groups let it.
mkdir floating_ips/lb security_groups/public && ln -s networks/default/ports/web floating_ips/lb/target ||
        fail "floating IP"
fetch() {
        ip netns exec outside timeout 4 busybox wget -q -O - "http://$(cat floating_ips/lb/address)/who" | grep -x from-b
}
fetch && fail "the default group lets the outside in"
echo 'in tcp 80 from any' >security_groups/public/rules || fail "rule"
for g in default public; do
        ln -s security_groups/$g networks/default/ports/web/security_groups/ || fail "group $g"
done
wait_until 10 fetch || fail "the outside does not get through"
# TLS ends here, with a certificate that is ours; its key is shown to nobody.
for i in mine other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$i.internal" \
                -keyout "$T/$i.key" -out "$T/$i.crt" 2>/dev/null || fail "a certificate"
done
expect_errno EINVAL "cat '$T/mine.crt' '$T/other.key' >$lb/listeners/http/certificate"
cat "$T/mine.crt" "$T/mine.key" >$lb/listeners/http/certificate || fail "certificate"
expect "all but the key is shown" cmp "$T/mine.crt" $lb/listeners/http/certificate
echo https >$lb/listeners/http/protocol || fail "https"
secure() {
        printf 'GET /who HTTP/1.0\r\n\r\n' | ip netns exec outside timeout 4 openssl s_client -quiet \
                -CAfile "$T/mine.crt" -verify_return_error -connect "$(cat floating_ips/lb/address):80" 2>/dev/null |
                grep -x from-b
}
wait_until 20 secure || fail "no TLS"
fetch && fail "it still answers without TLS"
[ "$(stat -c '%a %u' "$T/state/run/net/$id/"lb-*.pem)" = "600 0" ] || fail "others may read the key"
expect_errno EBUSY "echo >$lb/listeners/http/certificate"
expect_errno EBUSY rmdir instances/b
expect_errno EBUSY rm $lb/network
rm floating_ips/lb/target && rmdir floating_ips/lb && expect "the load balancer goes" rmdir $lb
[ ! -e networks/default/ports/web ] || fail "its port is left"
rmdir security_groups/public || fail "rmdir"
unbalanced() {
        ! ls "$T/state/run/net/$id/"lb-* && test_is_gone "$pid"
}
wait_until 10 unbalanced || fail "HAProxy is left"
expect_errno ENOTSUP mkdir vpns/office

# Hot plug.
mkdir networks/second networks/second/subnets/s || fail "second network"
expect_errno EINVAL ln -s networks/second instances/a/networks/
expect_errno EINVAL 'echo 10.0.0.7/24 >networks/second/subnets/s/cidr'
echo 192.168.7.0/24 >networks/second/subnets/s/cidr || fail "cidr"
mkdir networks/second/ports/p || fail "a port by hand"
expect_errno EINVAL 'echo 192.168.8.9 >networks/second/ports/p/address'
echo 192.168.7.99 >networks/second/ports/p/address || fail "address"
ln -s networks/second/ports/p instances/a/networks/second || fail "hot plug"
[ "$(cat instances/a/addresses)" = "10.0.0.2 192.168.7.99" ] || fail "addresses"
yes default/a 'n=0; until [ -e /sys/class/net/eth1 ] || [ $n = 20 ]; do sleep 1; n=$((n + 1)); done; net eth1; ip addr show dev eth1 | grep 192.168.7.99/24'
yes default/a "ping -c 1 -W 5 192.168.7.1"
expect_errno EBUSY rmdir networks/second/ports/p
expect_errno EBUSY 'echo 192.168.7.98 >networks/second/ports/p/address'
rm instances/a/networks/second || fail "hot unplug"
unplugged() {
        [ ! -e instances/a/networks/second ]
}
wait_until 40 unplugged || fail "it is still plugged in"
no default/a "[ -e /sys/class/net/eth1 ]"
expect_errno EBUSY rmdir networks/second
expect "the port goes" rmdir networks/second/ports/p
expect "the network goes" rmdir networks/second
expect_errno EBUSY rmdir networks/default

# Suspended it has no device here and keeps its address; back, it is plugged in as before.
echo suspend >instances/a/ctl || fail "suspend"
expect "a is suspended" "$STRATO" wait instances/a suspended --timeout 60
tap=$(tr -d - <networks/default/ports/a/id)
tap=snt${tap:0:12}
put_away() {
        ! ip link show "$tap"
}
wait_until 10 put_away || fail "the device of a suspended guest is left"
expect_errno EBUSY 'echo 10.0.0.9 >networks/default/ports/a/address'
echo resume >instances/a/ctl || fail "resume"
expect "a is back" "$STRATO" wait instances/a active --timeout 60
yes default/a "ping -c 2 -W 5 10.0.0.3"

# A tenant that holds no more than it began with goes.
echo stop now >"$C/tenants/other/instances/c/ctl" || fail "stop"
expect "c is off" "$STRATO" wait "$C/tenants/other/instances/c" stopped --timeout 60
rmdir "$C/tenants/other/instances/c" || fail "rmdir"
rmdir "$C/tenants/other/images/"{vmlinuz,initrd} || fail "rmdir"
empty() {
        rmdir "$C/tenants/other"
}
wait_until 20 empty || fail "the tenant does not go"
cd / && stop_cloud
ip link show foreign >/dev/null || fail "somebody else's bridge is gone"
nft list ruleset >"$T/rules.after"
expect "the host's rules are as they were" cmp "$T/rules.before" "$T/rules.after"
[ -z "$(ip -br link | grep '^sn')" ] || fail "devices are left: $(ip -br link)"
[ -z "$(ls -A "$T/state/run/net" 2>/dev/null)" ] || fail "namespaces are left"
ok "nothing is left"
