#!/bin/bash
# A guest whose disks are in a pool of its host alone goes to another one while it runs, and its disks with
# it.  Long: it is not part of every run.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
. "$(dirname "$0")/../system/lib-guest.sh"
requires qemu-system-x86_64 pgrep
[ "${STRATOFS_LONG:-}" ] || exit 0
t=tenants/default
i=$t/instances/web

guest_image "$T/guest.qcow2"
for h in a b; do
        host_on $h
        sed -i '/^volumes/d' "$T/$h/disk/conf"
        strato_up $h
done
await shows a admin/hosts/b/state up
await shows b admin/hosts/a/state up
for h in a b; do
        await on a "echo qemu+tcp://$h/system >admin/hosts/$h/migration_uri"
done
stamps() {
        cat "$T/$1/disk/state/instances"/*/console.log 2>/dev/null | tr -d '\r' |
                sed -n "s/^STRATOFS-GUEST stamp 1 \([0-9]*\)$/\1/p" | tail -n 1
}
stamped() {
        [ "$(stamps "$1")" -ge "$2" ]
}
on a "cp '$T/guest.qcow2' $t/images/" || fail image
await shows a $t/images/guest/state active
on a "cd $t; mkdir volumes/v && echo 64M >volumes/v/size && cat volumes/v/.wait/available@20 && echo stamp 0 0 >volumes/v/data
        mkdir volumes/root && ln -s images/guest volumes/root/source && cat volumes/root/.wait/available@60
        echo 'name=web flavor=tiny' >instances/new && ln -s volumes/root instances/web/volumes/vda &&
        ln -s volumes/v instances/web/volumes/vdb && echo start >instances/web/ctl" || fail instance
await shows a $i/state active
[ "$(on a cat $i/host)" = a ] || fail "it is on $(on a cat $i/host)"
wait_until 240 stamped a 3 || fail "it does not write: $(tail -n 5 "$T"/a/disk/state/instances/*/console.log)"
before=$(stamps a)
on a "echo migrate >$i/ctl" || fail migrate
await shows b $i/host b
await shows b $i/state active
wait_until 120 stamped b 5 || fail "it does not write there"
[ "$(stamps b)" -gt "$before" ] || fail "it wrote $before, and then $(stamps b)"
grep -Eq 'stamp (BAD|refused|2 )' "$T/b/disk/state/instances"/*/console.log && fail "its disk was not its own"
shows a $t/volumes/v/host b && shows a $t/volumes/root/host b || fail "its volumes are said to be elsewhere"
[ -z "$(guest_of a $i)" ] || fail "a guest is left"
ok "it went on on b, with its disks"

last=$(stamps b)
on b "echo 'stop now' >$i/ctl" || fail stop
await shows b $i/state stopped
on b "echo migrate >$i/ctl" || fail "migrate, off"
await shows a $i/host a
await shows b $i/state stopped
shows b $t/volumes/v/host a && shows b $t/volumes/root/host a || fail "its volumes are said to be elsewhere"
[ -z "$(guest_of a $i)$(guest_of b $i)" ] || fail "a guest is left"
[ -z "$(find "$T"/[ab]/disk/state -path '*exports*' -type s)" ] || fail "an export is left"
job=$(on b "dirname \$(grep -l instance.migrate $t/jobs/*/op | sort -V | tail -n 1)")
on b cat "$job/progress" | grep -Eq "^100%|^[0-9.]+% [1-9]" || fail "progress: $(on b cat "$job/progress")"
ok "off, it went back to a, with its disks"

# One whose volume has snapshots stays.
on a "mkdir $t/volumes/v/snapshots/s && cat $t/volumes/v/snapshots/s/.wait/available@20" >/dev/null || fail snapshot
on a "echo migrate >$i/ctl" || fail "migrate with a snapshot"
await shows a $i/error "v"
await shows a $i/state stopped
shows a $i/host a || fail "it left its snapshot behind"
on a "rmdir $t/volumes/v/snapshots/s" || fail "rmdir snapshot"

on a "echo start >$i/ctl" || fail start
found() {
        kept=$(grep -o 'stamp found 1 [0-9]*' "$T/a/disk/state/instances"/*/console.log | tail -n 1) && kept=${kept##* }
        [ "$kept" ]
}
wait_until 240 found || fail "it does not come up"
[ "$kept" -ge "$last" ] || fail "its disk has $kept, and it said that it wrote $last"
ok "what it wrote is there"
