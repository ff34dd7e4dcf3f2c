#!/bin/bash
# A guest that writes, and is spoken to, goes to another host while it runs, and comes back while it is off.  Before that:
# guests of one network on two hosts reach each other by the address and the name that each has, and those of another
# tenant do not.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
requires qemu-system-x86_64 pgrep tar socat dnsmasq nft haproxy
t=tenants/default
i=$t/instances/web

expect "a guest" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
host_on a
host_on b
strato_up a
strato_up b
await shows a admin/hosts/b/state up
await shows b admin/hosts/a/state up
for h in a b; do # a renewal may come between
        await on a "echo qemu+tcp://$h/system >admin/hosts/$h/migration_uri"
        await on a "echo $(host_address $h) >admin/hosts/$h/address"
done

# stamps HOST: the last number of the guest's first life that is in its console's log there.
stamps() {
        cat "$T/$1/disk/state/instances"/*/console.log 2>/dev/null | tr -d '\r' |
                sed -n "s/^STRATOFS-GUEST stamp 1 \([0-9]*\)$/\1/p" | tail -n 1
}
stamped() {
        [ "$(stamps "$1")" -ge "$2" ]
}
# Neither a guest, nor its disks, nor its files are there.
left() {
        [ -z "$(guest_of "$1" $i)" ] || fail "a guest is left on $1"
        [ -z "$(find "$T/$1/disk/state" -path '*exports*' -type s)" ] || fail "an export is left on $1"
        [ ! -e "$T/$1/disk/state/instances/$id" ] || fail "files are left on $1"
}
# whole HOST: no line of its console is missing since it found its disk, and none is there twice.
whole() {
        on "$1" cat $i/console.log | tr -d '\r' | sed '$d' >"$T/said" # the last may be half of one
        [ "$(stat -c %s "$T/said")" -gt 0 ] && grep -q 'stamp found 0 0' "$T/said" || fail "its console's log begins elsewhere"
        sed -n 's/.*STRATOFS-GUEST stamp 1 \([0-9]*\)$/\1/p' "$T/said" | awk '$1 != NR { print "line", NR, "is", $1; exit 1 }' ||
                fail "its console's log has a gap"
}
# moves FROM TO COMMAND: after it the guest that was there is here, and in no other life.
moves() {
        local before
        before=$(stamps "$1")
        on "$1" "$3" || fail "$3"
        await shows "$2" $i/host "$2"
        await shows "$1" $i/state active
        [ "$(guest_of "$2" $i | wc -w)" = 1 ] || fail "no guest on $2"
        wait_until 30 stamped "$2" $((before + 5)) || fail "it does not write on behind $before"
        grep -q 'stamp 2 ' "$T/$2/disk/state/instances"/*/console.log && fail "it was started anew"
        whole "$2"
        left "$1"
}

# boot TENANT/NAME: off, in the tenant's first network
boot() {
        on a "cd tenants/${1%/*}; echo 'name=${1#*/} flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd' >instances/new &&
                echo 'console=ttyS0 quiet no_timer_check' >instances/${1#*/}/cmdline &&
                ln -s networks/default instances/${1#*/}/networks/" || fail "instance $1"
}
log_of() { # TENANT/NAME: on the host where it is
        local at
        at=$(on a cat "tenants/${1%/*}/instances/${1#*/}/host" "tenants/${1%/*}/instances/${1#*/}/id" | tr '\n' ' ')
        set -- $at
        echo "$T/$1/disk/state/instances/$2/console.log"
}
# says TENANT/NAME LINE: types it into the guest's console
says() {
        local i=tenants/${1%/*}/instances/${1#*/}
        on "$(on a cat $i/host)" "socat -t0.5 - UNIX:\$(cat $i/console)" <<<"$2" >/dev/null || fail "console of $1"
}
# answers TENANT/NAME COMMAND: runs it there; what it came to
asked=0
answers() {
        asked=$((asked + 1))
        says "$1" "$2 >/dev/null 2>&1 && echo 'answer $asked 'yes || echo 'answer $asked 'no"
        wait_until 60 grep -qE "answer $asked (yes|no)" "$(log_of "$1")" || fail "$1 does not say: $2"
        grep -qE "answer $asked yes" "$(log_of "$1")"
}
yes() {
        answers "$@" || fail "$1: failed: $2"
}
no() {
        answers "$@" && fail "$1: succeeded: $2"
        :
}
# tunnelled NAME: packets between the hosts that were counted under it
tunnelled() {
        nft list counter bridge tunnels "$1" | awk '/packets/ { print $2 }'
}

on b "mkdir tenants/other; cat tenants/other/.wait/active@30" || fail tenant
for x in default other; do
        on b "cp $T/kernel/vmlinuz tenants/$x/images/vmlinuz.aki; cp $T/kernel/initrd.gz tenants/$x/images/initrd.ari
                echo vxlan >tenants/$x/networks/default/type" || fail "images and network of $x"
        await shows a tenants/$x/images/vmlinuz/state active
        await shows a tenants/$x/images/initrd/state active
        await shows a tenants/$x/networks/default/type vxlan
done
nft -f - <<END || fail "counters"
table bridge tunnels {
        counter ours { }
        counter others { }
        chain c {
                type filter hook forward priority 0
                udp dport 14789 @th,96,24 $(on a cat $t/networks/default/segment) counter name ours
                udp dport 14789 @th,96,24 $(on a cat tenants/other/networks/default/segment) counter name others
        }
}
END
for x in default/web default/peer other/stranger; do
        boot $x
done
on a "cd $t; mkdir volumes/v && echo 1 >volumes/v/encrypted && echo 64M >volumes/v/size && cat volumes/v/.wait/available@20 && echo stamp 0 0 >volumes/v/data
        ln -s volumes/v instances/web/volumes/vda" || fail instance
for x in default/web default/peer other/stranger; do
        on a "echo start >tenants/${x%/*}/instances/${x#*/}/ctl" || fail "start $x"
        await shows b tenants/${x%/*}/instances/${x#*/}/state active
done
id=$(on a cat $i/id)
here=$(on a cat $i/host)
[ "$here" = a ] && there=b || there=a
[ "$(on a cat $t/instances/peer/host)" = "$there" ] || fail "both are on $here"
wait_until 90 stamped "$here" 3 || fail "it does not write"
ok "a guest on $here writes to an encrypted volume"

ready() {
        grep -q "STRATOFS-GUEST net eth0 $(on b cat tenants/${1%/*}/instances/${1#*/}/addresses)/24" "$(log_of $1)" &&
                grep -q "STRATOFS-GUEST ready" "$(log_of $1)"
}
for x in default/web default/peer other/stranger; do
        wait_until 90 ready $x || fail "$x: $(tail -n 5 "$(log_of $x)")"
done
[ "$(on a cat tenants/other/instances/stranger/addresses)" = "$(on a cat $i/addresses)" ] || fail "their addresses differ"
yes default/peer "ping -c 2 -W 5 web.internal"
yes default/web "ping -c 2 -W 5 peer.internal"
yes default/peer "ping -c 1 -W 5 10.77.0.1"
yes default/web "ping -c 1 -W 5 10.77.0.1"
ok "guests of one network reach each other and the outside, on two hosts"
no other/stranger "ping -c 1 -W 2 10.0.0.3"
no other/stranger "ping -c 1 -W 1 10.0.0.99"
no other/stranger "ping -c 1 -W 1 -b 10.0.0.255"
no other/stranger "nslookup peer.internal 10.0.0.1"
[ "$(tunnelled ours)" -ge 8 ] || fail "$(nft list table bridge tunnels)"
[ "$(tunnelled others)" = 0 ] || fail "to a host where the network is not: $(nft list table bridge tunnels)"
ok "another tenant's reaches neither, and nothing of its network leaves its host"

# An address outside, in the hosts' own network, and a load balancer whose members are on both hosts.
on a "echo 10.77.0.100-10.77.0.109 >admin/hosts/a/floating && cd $t && mkdir floating_ips/f security_groups/open &&
        echo 'in icmp from any' >security_groups/open/rules && ln -s security_groups/default security_groups/open instances/web/security_groups/ &&
        ln -s instances/web floating_ips/f/target" || fail "floating IP"
outside() {
        busybox ping -q -c 1 -W 2 10.77.0.100 >/dev/null &&
                ip neigh show 10.77.0.100 | grep -qF "$(on "$1" cat /sys/class/net/eth0/address)"
}
wait_until 20 outside "$here" || fail "the outside does not reach it: $(ip neigh)"
on b "cd $t && lb=load_balancers/lb && mkdir \$lb \$lb/listeners/www && ln -s networks/default \$lb/network &&
        echo 80 >\$lb/listeners/www/port && echo 8080 >\$lb/listeners/www/member_port &&
        ln -s instances/web instances/peer \$lb/listeners/www/members/" || fail "load balancer"
for x in web peer; do
        yes default/$x "mkdir /tmp/w; echo from-$x >/tmp/w/who; httpd -p 8080 -h /tmp/w"
done
vip=$(on b cat $t/load_balancers/lb/address)
balanced() {
        answers default/peer "for n in 1 2 3 4; do wget -q -O - http://$vip/who; done | sort | uniq -c | tr -d '\n ' | grep -x 2from-peer2from-web"
}
wait_until 30 balanced || fail "the load balancer at $vip"
ok "a floating IP leads in, a load balancer to members on both hosts"

says default/peer "ping -i 0.2 10.0.0.2 >/tmp/stream & echo \$! >/tmp/pid"
moves "$here" "$there" "echo migrate >$i/ctl"
yes default/peer "kill -INT \$(cat /tmp/pid); wait"
says default/peer "sed -n 's/.*seq=\([0-9]*\) .*/\1/p' /tmp/stream | sort -nu | awk 'END { print \"heard\", NR, \"of\", \$1 + 1 }'"
wait_until 20 grep -q '^heard [0-9]' "$(log_of default/peer)" || fail "no count"
read -r _ heard _ of <<<"$(grep '^heard [0-9]' "$(log_of default/peer)" | tr -d '\r')"
[ "$of" -ge 10 ] && [ $((of - heard)) -le 1 ] || fail "of $of packets $heard were answered"
yes default/web "ping -c 2 -W 5 peer.internal"
ok "meanwhile it answered $heard of $of packets"
wait_until 20 outside "$there" || fail "its floating IP did not come along: $(ip neigh)"
wait_until 30 balanced || fail "the load balancer at $vip lost it"
ok "its floating IP came along, the load balancer finds it"
why=$(on a "cat \$(dirname \$(grep -l instance.migrate $t/jobs/*/op))/why")
grep -q "^$there: chosen" <<<"$why" && grep -q "^$here: no: it is where it is" <<<"$why" || fail "why: $why"
ok "it went on on $there, with every line that it said"

on a "echo 'stop now' >$i/ctl" || fail stop
await shows a $i/state stopped
last=$(stamps "$there")
on a "echo migrate $here >$i/ctl" || fail "migrate $here"
await shows b $i/host "$here"
await shows b $i/state stopped
left "$there"
[ "$(stamps "$here")" ] || fail "its console's log did not come along"
on b "echo start >$i/ctl" || fail start
await shows a $i/state active
found() {
        kept=$(grep -o 'stamp found 1 [0-9]*' "$T/$here/disk/state/instances"/*/console.log) && kept=${kept##* }
}
wait_until 30 found || fail "it does not come up"
[ "$kept" -ge "$last" ] || fail "its disk has $kept, and it said that it wrote $last"
grep -Eq 'stamp (BAD|refused)' "$T/$here/disk/state/instances"/*/console.log && fail "its disk was not its own"
ok "off, it went back"

[ "${STRATOFS_LONG:-}" ] || exit 0

# What interrupts it.  At a mebibyte a second it takes half a minute.
uuid=$(on a cat $i/id)
other() {
        [ "$1" = a ] && echo b || echo a
}
lives() { # both hosts' QEMUs of it
        local h
        for h in a b; do
                [ -z "${hosts_init[$h]:-}" ] || guest_of $h $i
        done | wc -w
}
writes() { # HOST: its last number there, of any life
        cat "$T/$1/disk/state/instances"/*/console.log 2>/dev/null | tr -d '\r' | grep -c '^STRATOFS-GUEST stamp [0-9]* [0-9]*$'
}
goes_on() {
        [ "$(writes "$1")" -gt "$2" ]
}
under_way() {
        on "$1" virsh -c qemu:///system domjobinfo "$uuid" | grep -q 'Operation:.*Outgoing migration' &&
                on "$1" virsh -c qemu:///system domjobinfo "$uuid" | grep -q 'Memory processed: *[1-9]'
}
departs() {
        here=$(on "$1" cat $i/host)
        there=$(other "$here")
        on "$here" virsh -c qemu:///system migrate-setspeed "$uuid" 1 >/dev/null || fail speed
        on "$1" "echo migrate >$i/ctl" || fail migrate
        await under_way "$here"
}
fast() {
        on "$1" virsh -c qemu:///system migrate-setspeed "$uuid" 1000 >/dev/null 2>&1 || :
}
one_of() { # HOST [dead]: it is one guest, on the host that says so, and writes
        await shows "$1" $i/state active
        now=$(on "$1" cat $i/host)
        wait_until 20 eval '[ "$(lives)" = 1 ]' || fail "$(lives) guests"
        [ "$(guest_of "$now" $i)" ] || fail "its host is $now, its guest elsewhere"
        count=$(writes "$now")
        wait_until 30 goes_on "$now" $((count + 3)) || fail "it does not write"
        grep -Eq 'stamp (BAD|refused)' "$T/$now/disk/state/instances"/*/console.log && fail "its disk was not its own"
        [ "$2" ] || [ -z "$(find "$T/$(other "$now")/disk/state" -path '*exports*' -type s)" ] ||
                fail "an export is left"
}
daemon_on() { # HOST WORDS: the pid there
        on "$1" pgrep -f -- "$2" | head -n 1
}

departs a
job=$(on a "dirname \$(grep -l instance.migrate $t/jobs/*/op | sort -V | tail -n 1)")
await on "$here" "grep -Eq '^[0-9.]+% [1-9][0-9]*/[0-9]+$' $job/progress"
on a "echo cancel >$job/ctl" || fail cancel
one_of a ""
[ "$now" = "$here" ] || fail "it is on $now"
ok "cancelled"

departs a
on "$here" kill -KILL "$(daemon_on "$here" stratod.*mount)"
sleep 1
fast "$here"
strato_up "$here"
one_of "$there" ""
ok "the daemon of the host that it leaves was killed; it is on $now"

departs b
on "$there" kill -KILL "$(daemon_on "$there" stratod.*mount)"
fast "$here"
strato_up "$there"
one_of "$here" ""
ok "the daemon of the host that it goes to was killed; it is on $now"

departs a
on "$here" kill -KILL "$(daemon_on "$here" '^libvirtd')"
on "$here" libvirtd -d --listen -p /run/libvirtd.pid
one_of a ""
ok "the libvirtd of the host that it leaves was killed; it is on $now"

departs a
on "$there" kill -KILL "$(daemon_on "$there" '^libvirtd')"
on "$there" libvirtd -d --listen -p /run/libvirtd.pid
one_of a ""
ok "the libvirtd of the host that it goes to was killed; it is on $now"

here=$(on a cat $i/host) there=$(other "$here")
fast "$here"
on "$there" "echo drain >admin/hosts/$here/ctl" || fail drain
await shows "$there" $i/host "$there"
one_of "$there" ""
on "$there" "echo undrain >admin/hosts/$here/ctl" || fail undrain
ok "drained"

departs a
host_kill "$there"
await shows "$here" admin/hosts/$there/state down
one_of "$here" dead
[ "$now" = "$here" ] || fail "it is on $now"
ok "the host that it goes to died"
