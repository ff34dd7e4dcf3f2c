#!/bin/bash
# A guest that writes goes to another host while it runs, and comes back while it is off.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
requires qemu-system-x86_64 pgrep tar
t=tenants/default
i=$t/instances/web

expect "a guest" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
host_on a
host_on b
strato_up a
strato_up b
await shows a admin/hosts/b/state up
await shows b admin/hosts/a/state up
for h in a b; do
        await on a "echo qemu+tcp://$h/system >admin/hosts/$h/migration_uri" # a renewal may come between
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
        [ -z "$(ls "$T/$1/disk/state/instances")" ] || fail "files are left on $1"
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
        left "$1"
}

on b "cp $T/kernel/vmlinuz $t/images/vmlinuz.aki; cp $T/kernel/initrd.gz $t/images/initrd.ari" || fail images
await shows a $t/images/vmlinuz/state active
await shows a $t/images/initrd/state active
on a "cd $t; mkdir volumes/v && echo 64M >volumes/v/size && cat volumes/v/.wait/available@20 && echo stamp 0 0 >volumes/v/data
        echo 'name=web flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd' >instances/new &&
        echo 'console=ttyS0 quiet no_timer_check' >instances/web/cmdline &&
        ln -s volumes/v instances/web/volumes/vda" || fail instance
on a "echo start >$i/ctl" || fail start
await shows b $i/state active
here=$(on a cat $i/host)
[ "$here" = a ] && there=b || there=a
wait_until 30 stamped "$here" 3 || fail "it does not write"
ok "a guest on $here writes"

moves "$here" "$there" "echo migrate >$i/ctl"
why=$(on a "cat \$(dirname \$(grep -l instance.migrate $t/jobs/*/op))/why")
grep -q "^$there: chosen" <<<"$why" && grep -q "^$here: no: it is where it is" <<<"$why" || fail "why: $why"
ok "it went on on $there"

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
