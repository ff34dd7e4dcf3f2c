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
requires qemu-system-x86_64 socat dnsmasq nft ip unshare
ip link set lo up

# Somebody else's bridge and rules, which must be as they were at the end.
ip link add foreign type bridge && ip link set foreign up
nft add table inet foreign && nft add chain inet foreign c
nft list ruleset >"$T/rules.before"
ip -br link >"$T/links.before"

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
        wait_until 60 grep -qE "^answer $asked (yes|no)" "$log" || fail "$1 does not say: $2"
        grep -qE "^answer $asked yes" "$log"
}
yes() {
        answers "$@" || fail "$1: failed: $2"
        ok "$1: $2"
}
no() {
        answers "$@" && fail "$1: succeeded: $2"
        ok "$1: not: $2"
}
# boot TENANT/NAME
boot() {
        local i="$C/tenants/${1%/*}/instances/${1#*/}"
        echo "name=${1#*/} flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd cmdline=console=ttyS0" \
                >"$C/tenants/${1%/*}/instances/new" || fail "new $1"
        ln -s networks/default "$i/networks/" || fail "network of $1"
        [ "$(cat "$i/addresses")" ] || fail "$1 has no address before it starts"
        echo start >"$i/ctl" || fail "start $1"
}
up() {
        local i="$C/tenants/${1%/*}/instances/${1#*/}"
        wait_line "$i/console.log" "STRATOFS-GUEST ready" 90
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
boot default/a
boot default/b
boot other/c
[ "$(cat instances/a/addresses)" = 10.0.0.2 ] || fail "address"
[ "$(cat instances/b/addresses)" = 10.0.0.3 ] || fail "address"
[ "$(readlink instances/a/networks/default)" = ../../../networks/default/ports/a ] || fail "the link"
up default/a
up default/b
up other/c

yes default/a "ping -c 2 -W 5 10.0.0.3"
yes default/a "nslookup b.internal 10.0.0.1"
yes default/b "ping -c 1 -W 5 a.internal"
# The same address in the other tenant's network is its own.
no other/c "ping -c 1 -W 2 10.0.0.3"
no other/c "nslookup a.internal 10.0.0.1"
# Speaking as somebody else.
no default/a "ip addr add 10.0.0.77/24 dev eth0; ping -I 10.0.0.77 -c 1 -W 2 10.0.0.1"
no default/a "ping -c 1 -W 2 169.254.0.1"
no default/a "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up; ping -c 1 -W 2 10.0.0.3"

cd / && stop_cloud
ip -br link | sed 's/@.*//' >"$T/links.after"
nft list ruleset >"$T/rules.after"
diff "$T/rules.before" "$T/rules.after"; expect "the host's rules are as they were" cmp "$T/rules.before" "$T/rules.after"
[ -z "$(grep '^sn' "$T/links.after")" ] || fail "devices are left: $(cat "$T/links.after")"
[ -z "$(ls -A "$T/state/run/net" 2>/dev/null)" ] || fail "namespaces are left"
ok "nothing is left"
