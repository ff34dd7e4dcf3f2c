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

on b "cp $T/kernel/vmlinuz $t/images/vmlinuz.aki; cp $T/kernel/initrd.gz $t/images/initrd.ari" || fail images
await shows a $t/images/vmlinuz/state active
await shows a $t/images/initrd/state active
on a "cd $t; mkdir volumes/v && echo 1 >volumes/v/encrypted && echo 64M >volumes/v/size && cat volumes/v/.wait/available@20 && echo stamp 0 0 >volumes/v/data
        echo 'name=web flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd' >instances/new &&
        echo 'console=ttyS0 quiet no_timer_check' >instances/web/cmdline &&
        ln -s volumes/v instances/web/volumes/vda" || fail instance
on a "echo start >$i/ctl" || fail start
await shows b $i/state active
here=$(on a cat $i/host)
[ "$here" = a ] && there=b || there=a
wait_until 30 stamped "$here" 3 || fail "it does not write"
ok "a guest on $here writes to an encrypted volume"

moves "$here" "$there" "echo migrate >$i/ctl"
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
