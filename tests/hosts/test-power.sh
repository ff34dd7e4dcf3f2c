#!/bin/bash
# A guest that writes, on hosts that lose their power, or the others: at no time two of it write its volume.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
requires qemu-system-x86_64 pgrep
t=tenants/default web=tenants/default/instances/web

# stamp LIFE NUMBER: what the guest on that host said last of this life; contrib/guest/stamp.
console() {
        cat "$T/$1/disk/state/instances"/*/console.log 2>/dev/null | tr -d '\r'
}
last_stamp() {
        console "$1" | sed -n "s/.*STRATOFS-GUEST stamp $2 \([0-9]*\)$/\1/p" | tail -n 1
}
stamps() {
        [ "$(last_stamp "$1" "$2")" -ge "$3" ]
}
# began HOST LIFE NUMBER: that life found all that was acknowledged to the one before.
began() {
        local found
        found=$(console "$1" | sed -n "s/.*STRATOFS-GUEST stamp found $(($2 - 1)) \([0-9]*\)$/\1/p")
        [ "$found" ] && [ "$found" -ge "$3" ] ||
                fail "life $2 found '$found', $3 was acknowledged: $(console "$1" | tail -n 5)"
}
sound() {
        console "$1" | grep -E 'stamp BAD' && fail "somebody else wrote the volume of host $1's guest"
        return 0
}
states() {
        for host in $hosts_names; do
                on "$1" cat "admin/hosts/$host/state"
        done | sort -u
}
all_up() {
        [ "$(states "$1")" = up ]
}

expect "a guest" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
host_on a
host_on b
strato_up a
strato_up b
await all_up a
await all_up b
on b "cp $T/kernel/vmlinuz $t/images/vmlinuz.aki && cp $T/kernel/initrd.gz $t/images/initrd.ari" || fail images
await shows a $t/images/vmlinuz/state active
await shows a $t/images/initrd/state active
# Encrypted: who takes over has the key, too.
on a "cd $t && mkdir volumes/v && echo 1 >volumes/v/encrypted && echo 64M >volumes/v/size && cat volumes/v/.wait/available@30 >/dev/null &&
        echo stamp 0 0 >volumes/v/data &&
        echo 'name=web flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd restart=elsewhere' >instances/new &&
        echo 'console=ttyS0 quiet no_timer_check' >instances/web/cmdline &&
        ln -s volumes/v instances/web/volumes/vda" || fail instance
on a 'echo drain >admin/hosts/b/ctl' || fail drain
on b "echo start >$web/ctl" || fail start
await shows b $web/state active
shows b $web/host a || fail "it is on a draining host"
await stamps a 1 3
on b 'echo undrain >admin/hosts/b/ctl' || fail undrain
ok "a guest writes on a"

# Power failure: b fences a, and boots the guest.
host_kill a
acknowledged=$(last_stamp a 1)
await shows b admin/hosts/a/state down
ceph osd blocklist ls 2>/dev/null | grep -q "^$(host_address a):" || fail "a is not fenced"
await shows b $web/state active
shows b $web/host b || fail "host: $(on b cat $web/host)"
await stamps b 2 3
began b 2 "$acknowledged"
ok "a lost its power: the guest goes on where b is, and found what was acknowledged"

# a is back, and b is cut off, guest and all.
host_on a
strato_up a
await all_up b
await shows a $web/host b
qemu=$(guest_of b $web)
[ "$qemu" ] || fail "no QEMU on b"
host_cut b
await shows a admin/hosts/b/state down
await shows a $web/host a
held=$(last_stamp b 2)
on b "echo x >$web/description" 2>"$T/err" && fail "a partitioned host took a change"
grep -q 'Read-only file system' "$T/err" || fail "words: $(cat "$T/err")"
shows b $t/errors 'lease' || fail "errors: $(on b cat $t/errors)"
shows b $web/state active || fail "a partitioned host does not read"
test_is_gone "$qemu" && fail "b's QEMU is gone by itself: this shows nothing"
await stamps a 3 3
began a 3 "$held"
[ "$(last_stamp b 2)" = "$held" ] || fail "b's guest wrote on: $(last_stamp b 2), not $held"
ok "b is cut off: its guest's writes are held, reading goes on, a change is refused; the guest writes on a"

# Healed: it stands down, and its QEMU has ended before it serves again.
host_mend b
await all_up a
test_is_gone "$qemu" || fail "b serves, and its QEMU is there"
count=$(last_stamp a 3)
await stamps a 3 $((count + 10))
console b | grep -q "stamp 2 $((held + 1))\$" && fail "a write of b's guest was acknowledged after all"
sound a
sound b
await on b "mkdir $t/volumes/w"
on b "cd $t/volumes/w && echo 1M >size && cat .wait/available@30 >/dev/null && echo words >data && grep -qa words data" ||
        fail "b has no volumes any more: $(on b cat self/error)"
on a "echo words | cmp -n 6 - $t/volumes/w/data" || fail "a does not read what b wrote"
ok "healed: b stood down, its QEMU ended, nothing of it landed"

hosts_off
grep -hE 'Sanitizer|runtime error' "$T"/*/disk/state/log/*.log >&2 && fail "see above"
ok "that was all"
