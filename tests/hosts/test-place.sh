#!/bin/bash
# Three whole hosts: what one changes the others show, where guests are placed and why, starts that
# race, and hosts that drain, are away, are evacuated and removed.  Guests here have nothing to boot.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
requires qemu-system-x86_64 pgrep
t=tenants/default
ROUNDS=$([ "${STRATOFS_LONG:-}" ] && echo 100 || echo 6)

# instance NAME [KEY=VALUE...]: made on a, with a volume of its own.
instance() {
        local name=$1
        shift
        on a "cd $t && mkdir volumes/$name && echo 1M >volumes/$name/size &&
                echo 'name=$name flavor=tiny $*' >instances/new && ln -s volumes/$name instances/$name/volumes/vda" ||
                fail "instance $name"
}
runs() {
        shows a "$t/instances/$1/state" active && shows a "$t/instances/$1/host" "$2"
}
start() {
        on "${2:-a}" "echo start >$t/instances/$1/ctl" || fail "start $1"
}
stop() {
        on a "echo stop now >$t/instances/$1/ctl" || fail "stop $1"
        await shows a "$t/instances/$1/state" stopped
}
# The job of the last start of an instance, and what it says of where.
why() {
        on a "cd $t/jobs && for job in \$(grep -l instance.start */op | sort -rn); do job=\${job%/op}
                readlink \$job/target | grep -q '/$1\$' || grep -q 'instances/$1\$' \$job/target 2>/dev/null || continue
                cat \$job/why; break; done"
}
says() {
        why "$1" | grep -qF -- "$2" || fail "why of $1: $(why "$1"), not: $2"
}
admin() {
        on a "echo '$3' >admin/hosts/$1/$2" || fail "admin $*"
}

for host in a b c; do host_on $host; done
sed -i /cloud_key/d "$T/c/disk/conf"
for host in a b c; do strato_up $host; done
for host in a b c; do
        for other in a b c; do
                await shows $host admin/hosts/$other/state up
        done
done
ok "three hosts know each other"

# A change shows on the others.  Measured where both mounts are seen, from the end of the one call to the first look
# that has it; asserted is only that it comes.
python3 - "/proc/$(host_pid a)/root/srv/cloud/$t" "/proc/$(host_pid b)/root/srv/cloud/$t" <<'END' || fail "not seen"
import os, sys, time
a, b = sys.argv[1:]
times = []
for i in range(40):
    path = f"groups/late-{i}"
    os.mkdir(f"{a}/{path}")
    start = time.monotonic()
    while not os.path.isdir(f"{b}/{path}"):
        assert time.monotonic() < start + 10, path
        time.sleep(0.0005)
    times.append(time.monotonic() - start)
    os.rmdir(f"{a}/{path}")
times.sort()
print(f"ok: seen on the other host after {times[20] * 1e3:.1f} ms (median), {times[-1] * 1e3:.1f} ms at worst")
END

# A tenant's Unix group is on each host, and goes with it.
has_group() {
        [ "$(on "$1" getent group st-second | cut -d: -f3)" = "$2" ]
}
on a 'mkdir tenants/second' || fail tenant
await shows a tenants/second/state active
for host in a b c; do await has_group $host "$(on a cat tenants/second/gid)"; done
on c 'rmdir tenants/second' || fail "rmdir tenant: $(on c cat self/error)"
for host in a b c; do await has_group $host ''; done
ok "the groups of tenants"

# An encrypted volume is the same on each host that has the cloud's key; another one sees nothing.
on a "cd $t && mkdir volumes/secret && echo 1 >volumes/secret/encrypted && echo 4M >volumes/secret/size &&
        cat volumes/secret/.wait/available@30 >/dev/null && echo 'words of a' >volumes/secret/data" || fail "encrypted volume"
await shows b $t/volumes/secret/state available
await on b "head -c 10 $t/volumes/secret/data | grep -q 'words of a'" # within two seconds it has the key
on b "echo 'words of b' >$t/volumes/secret/data && mkdir $t/volumes/secret/snapshots/s &&
        cat $t/volumes/secret/snapshots/s/.wait/available@30 >/dev/null && mkdir $t/volumes/clone &&
        ln -s ../secret/snapshots/s $t/volumes/clone/source && cat $t/volumes/clone/.wait/available@30 >/dev/null" || fail clone
[ "$(on a "head -c 10 $t/volumes/clone/data")" = 'words of b' ] || fail "a does not read b's clone"
on c "head -c 10 $t/volumes/secret/data" >"$T/out" 2>"$T/err" && fail "c read: $(cat "$T/out")"
on c "echo plain >$t/volumes/secret/data" 2>"$T/err" && fail "c wrote"
image=$(on a cat $t/volumes/secret/id)
rbd -p rbd --namespace hosts export "volume-$image" - 2>/dev/null | grep -qa 'words of' && fail "it is not encrypted"
on a "rmdir $t/volumes/secret/snapshots/s && rmdir $t/volumes/secret" || fail "rmdir: $(on a cat self/error)"
[ "$(on a "head -c 10 $t/volumes/clone/data")" = 'words of b' ] || fail "the key went with the first of its family"
on b "rmdir $t/volumes/clone" || fail "rmdir: $(on b cat self/error)"
no_header() {
        ! rados -p rbd -N hosts ls | grep -q '^stratofs.crypt\.'
}
await no_header
ok "encrypted volumes"

# Zones, features, a group that keeps apart, one that keeps together.
admin a zone north
admin b zone south
admin c zone south
admin b features 'gpu ssd'
instance zoned zone=north
instance gpu features=gpu
start zoned b
start gpu c
await runs zoned a
await runs gpu b
says zoned "a: chosen, score"
says zoned "b: no: it is in zone 'south', not 'north'"
says gpu "c: no: it has no 'gpu'"
ok "zones and features"

on a "cd $t/groups && mkdir apart near && echo anti-affinity >apart/policy && echo affinity >near/policy" || fail groups
for i in 1 2 3 4; do
        instance apart$i
        on a "ln -s groups/apart $t/instances/apart$i/group" || fail "group"
done
for i in 1 2 3; do start apart$i; done
for i in 1 2 3; do await shows a $t/instances/apart$i/state active; done
[ "$(on a "cat $t/instances/apart[123]/host" | sort | tr -d '\n')" = abc ] || fail "together: $(on a cat $t/groups/apart/members)"
start apart4
await shows a $t/instances/apart4/error 'another of its group is there'
for i in 1 2 3; do stop apart$i; done
for i in 1 2; do
        instance near$i
        on a "ln -s groups/near $t/instances/near$i/group" || fail "group"
        start near$i
        await shows a $t/instances/near$i/state active
done
[ "$(on a "cat $t/instances/near1/host")" = "$(on a "cat $t/instances/near2/host")" ] || fail "apart: $(on a cat $t/groups/near/members)"
says near2 'no: its group is elsewhere'
for i in near1 near2 zoned gpu; do stop $i; done
ok "groups"

# What is given away, and where least or most is left.
for host in a b c; do admin $host memory_percent 100; done
admin a memory_percent 1
admin c memory_percent 1
instance p1
instance p2
on a "echo pack >$t/placement" || fail placement
start p1
await runs p1 b
says p1 'a: no: memory: 256'
for host in a b c; do admin $host memory_percent 150; done
start p2
await runs p2 b
says p2 'b: chosen'
stop p2
on a "echo spread >$t/placement" || fail placement
start p2
await shows a $t/instances/p2/state active
runs p2 b && fail "not spread: $(why p2)"
stop p2
stop p1
ok "over-commit, pack and spread"

# All hosts are told to start the same instance at the same time: one start, one guest.
instance raced
for round in $(seq $ROUNDS); do
        rm -f "$T"/won-*
        pids=''
        for host in a b c; do
                on $host "echo start >$t/instances/raced/ctl" 2>/dev/null >&2 && touch "$T/won-$host" &
                pids="$pids $!"
        done
        wait $pids
        set -- "$T"/won-*
        [ $# = 1 ] && [ -e "$1" ] || fail "round $round: accepted by: $*"
        await shows a $t/instances/raced/state active
        guests=''
        for host in a b c; do guests="$guests$(guest_of $host $t/instances/raced)"; done
        [ "$(wc -w <<<"$guests")" = 1 ] || fail "round $round: QEMUs: $guests"
        stop raced
done
ok "$ROUNDS races for a start had one winner each, and one guest"

# drain: no new guests.
on b "echo drain >admin/hosts/a/ctl" || fail drain
await shows c admin/hosts/a/state draining
instance drained zone=north
start drained
await shows a $t/instances/drained/error 'no host may have it'
says drained 'a: no: it is draining'
on b "echo undrain >admin/hosts/a/ctl" || fail undrain
await shows a admin/hosts/a/state up
start drained
await runs drained a
ok "a draining host gets none"

# A stratod that is killed and back in time has lost nothing.
qemu=$(guest_of a $t/instances/drained)
on a 'kill -KILL $(head -n 1 /srv/state/run/stratod.pid)' || fail kill
await shows a $t/instances/drained/state active
shows a admin/hosts/a/state up || fail "a is $(on a cat admin/hosts/a/state)"
[ "$(guest_of a $t/instances/drained)" = "$qemu" ] || fail "another guest"
ok "killed, and back in time"

# One that stands still for longer than its lease is taken over; its blockd and its guest would go on, were they not
# fenced.  When it goes on it finds out, and they end before it serves.
stratod=$(host_pids a '^[^ ]*/stratod --mount')
kill -STOP "$stratod" || fail "no stratod: $stratod"
await shows b admin/hosts/a/state down
await shows b $t/instances/drained/state error
shows b $t/instances/drained/error "its host 'a' died" || fail "words: $(on b cat $t/instances/drained/error)"
test_is_gone "$qemu" && fail "a's QEMU is gone by itself: this shows nothing"
kill -CONT "$stratod"
await shows b admin/hosts/a/state up
test_is_gone "$qemu" || fail "a serves, and its old guest runs"
on b "echo reboot hard >$t/instances/drained/ctl" || fail "start what died"
await runs drained a
ok "stood still, taken over, and back"

# One that was stopped is away, and its guests go on; evacuated, they start elsewhere, though they did not ask.
instance here
on b "echo drain >admin/hosts/b/ctl; echo drain >admin/hosts/c/ctl" || fail drain
await shows a admin/hosts/c/state draining
start here
await runs here a
on b "echo undrain >admin/hosts/b/ctl; echo undrain >admin/hosts/c/ctl" || fail undrain
on b 'rmdir admin/hosts/a' 2>"$T/err" && fail "a host that is up was removed"
shows b self/error "host 'a' is up" || fail "words: $(on b cat self/error)"
on a sh -c 'cd /; exec "$@"' sh "$STRATO" down --mount /srv/cloud --state /srv/state >"$T/out" 2>"$T/err" || fail "strato down"
await shows b admin/hosts/a/state away
shows b $t/instances/here/state active || fail "it was taken over"
on b 'rmdir admin/hosts/a' 2>"$T/err" && fail "a host with guests was removed"
shows b self/error instances/ || fail "words: $(on b cat self/error)"
on b "echo evacuate >$t/instances/here/ctl" 2>"$T/err" && fail "its host may be alive"
on b 'echo evacuate >admin/hosts/a/ctl' || fail evacuate
await shows b admin/hosts/a/state down
await shows b $t/instances/here/state active
shows b $t/instances/here/host a && fail "it is on a still"
await shows b $t/instances/drained/error "no host"
ok "evacuated; what only its zone could have says so"

on b 'rmdir admin/hosts/a' || fail "rmdir: $(on b cat self/error)"
await on c test ! -e admin/hosts/a
qemu=$(guest_pids a)
[ "$qemu" ] || fail "a's QEMUs are gone by themselves: this shows nothing"
strato_up a
await shows b admin/hosts/a/state up
for pid in $qemu; do
        test_is_gone "$pid" || fail "a serves, and its old guest runs"
done
ok "removed, and back as a new host: what it still ran is gone"
hosts_off
grep -hE 'Sanitizer|runtime error' "$T"/*/disk/state/log/*.log >&2 && fail "see above"
ok "that was all"
