#!/bin/bash
# Two stratods, each with its own mount and state, one store in RADOS.  Run by tests/ceph-run.
. "$(dirname "$0")/../lib.sh"
requires_root
requires ceph rados mountpoint
POOL=$STRATOFS_POOL

# configure NAME: writes its configuration.
configure() {
        mkdir -p "$T/$1/mnt" "$T/$1/run"
        chmod 711 "$T/$1"
        cat >"$T/$1.conf" <<END
# a host of the test
store = rados:$POOL/two
ceph_conf = $T/ceph.conf
ceph_user = client.strato
ceph_timeout = 5
host = host-$1
END
}
# daemon NAME [OPTION]: becomes its stratod.
daemon() {
        exec "$BUILD/fs/stratod" --mount "$T/$1/mnt" --state "$T/$1/state" --run "$T/$1/run" \
                ${2-"--conf=$T/$1.conf"} >>"$T/$1.log" 2>&1
}
# host NAME: writes its configuration and starts its stratod; its mount is $T/NAME/mnt.
host() {
        configure "$1"
        daemon "$@" &
        eval "pid_$1=$!"
        test_pids="$test_pids $!"
        await mountpoint -q "$T/$1/mnt"
}
await() {
        wait_until 20 "$@" || {
                tail -n 20 "$T"/*.log >&2
                fail "in vain: $*"
        }
}
list() {
        ls "$1" | sort | tr '\n' ' '
}
same() {
        [ "$(list "$A/volumes")" = "$(list "$B/volumes")" ]
}

# A user of the cluster who may do what stratod(8) says, and no more.
ceph auth get-or-create client.strato mon 'allow r' osd "allow rwx pool=$POOL" -o "$T/keyring" || fail "no user"
sed "s|^keyring = .*|keyring = $T/keyring|" "$CEPH_CONF" >"$T/ceph.conf"
grep -q "$T/keyring" "$T/ceph.conf" || fail "the configuration has no keyring"

# A first host dies before it has made the cloud: the numbers that it took are nobody's.
configure early
(STRATOFS_FAULT=store.commit=kill:1 daemon early)
[ $? = 137 ] || fail "it did not die at its first commit"
# The next one dies when it has made the cloud, and nothing in it.
(STRATOFS_FAULT=store.commit=kill:3 daemon early)
[ $? = 137 ] || fail "it did not die at its third commit"

# Both at once on an empty store: one fills it, the other waits for that.
host a &
starter=$!
host b
wait $starter
host_a=$(pgrep -f "mount $T/a/mnt") && host_b=$(pgrep -f "mount $T/b/mnt") || fail "no stratod"
test_pids="$test_pids $host_a $host_b"
A=$T/a/mnt/tenants/default B=$T/b/mnt/tenants/default
[ "$(ls "$T/a/mnt/tenants" | grep -c default)" = 1 ] || fail "one store was filled twice: $(ls "$T/a/mnt/tenants")"
[ "$(cat "$T/a/mnt/tenants/default/id")" = "$(cat "$B/id")" ] || fail "two clouds"
await test -d "$T/a/mnt/admin/hosts/host-b"
await test -d "$T/b/mnt/admin/hosts/host-a"
[ "$(ls "$A/../../flavors" | grep -cE '^(tiny|small|medium|large|xlarge)$')" = 5 ] || fail "what a cloud begins with: $(ls "$A/../../flavors")"
ok "two hosts, one cloud"

mkdir "$A/volumes/v1" || fail mkdir
await test -d "$B/volumes/v1"
[ "$(cat "$A/volumes/v1/id")" = "$(cat "$B/volumes/v1/id")" ] || fail "another volume"
echo 'first words' >"$A/volumes/v1/metadata/note"
wait_line "$B/volumes/v1/metadata/note" 'first words' 5
echo 'longer than the first words' >"$B/volumes/v1/metadata/note"
wait_line "$A/volumes/v1/metadata/note" 'longer than the first words' 5
mv "$B/volumes/v1" "$B/volumes/v2" || fail mv
await test -d "$A/volumes/v2"
[ ! -e "$A/volumes/v1" ] || fail "the old name is there still"
mkdir "$A/instances/web" "$A/volumes/short" && echo 1G >"$A/volumes/v2/size" || fail mkdir
await test -d "$B/instances/web"
await grep -q creating "$B/volumes/v2/state"
ln -s volumes/v2 "$B/instances/web/volumes/vda" || fail link
await test -L "$A/instances/web/volumes/vda"
expect_errno EBUSY rmdir "$A/volumes/v2"
rm "$A/instances/web/volumes/vda" || fail unlink
await test ! -L "$B/instances/web/volumes/vda"
rmdir "$B/volumes/short" || fail rmdir
await test ! -e "$A/volumes/short"
ok "what one does the other shows: made, written, renamed, linked, removed"

# A waiter on one host hears of what the other does.
mkdir "$A/volumes/waited" || fail mkdir
await test -d "$B/volumes/waited"
cat "$B/volumes/waited/.wait/gone" >/dev/null &
waiter=$!
rmdir "$A/volumes/waited" || fail rmdir
wait $waiter || fail "the wait ended badly"
ok "a wait ends by what another host does"

# A tenant that one host makes.
mkdir "$T/a/mnt/tenants/second" || fail "mkdir of a tenant"
await test -d "$T/b/mnt/tenants/second/volumes"
mkdir "$T/b/mnt/tenants/second/volumes/x" || fail "mkdir in it"
await test -d "$T/a/mnt/tenants/second/volumes/x"
ok "a tenant of the one is the other's, too"

# Both write one tenant, as fast as they can: nothing is lost, no name is given twice.
many() {
        for i in $(seq 100); do
                mkdir "$1/volumes/$2-$i" || echo "$2-$i" >>"$T/refused"
                mkdir "$1/volumes/both-$i" 2>/dev/null && echo "$i" >>"$T/won-$2"
        done
}
touch "$T/won-a" "$T/won-b"
many "$A" a &
other=$!
many "$B" b
wait $other
[ ! -s "$T/refused" ] || fail "refused: $(tr '\n' ' ' <"$T/refused")"
[ "$(cat "$T/won-a" "$T/won-b" | sort -n | uniq -d | wc -l)" = 0 ] || fail "a name was given twice"
[ "$(cat "$T/won-a" "$T/won-b" | wc -l)" = 100 ] || fail "a name was given to nobody"
await same
[ "$(ls "$A/volumes" | grep -c '^[ab]')" = 300 ] || fail "$(ls "$A/volumes" | wc -l) names"
[ "$(stat -c %i "$A"/volumes/*-* | sort -u | wc -l)" = 300 ] || fail "a number was given twice"
[ "$(stat -c %i "$A"/volumes/*-*)" = "$(stat -c %i "$B"/volumes/*-*)" ] || fail "other numbers"
ok "both write one tenant"

# How long it takes.
python3 - "$A" "$B" <<'END' || fail "slow"
import os, sys, time
a, b = sys.argv[1:]
times = []
for i in range(50):
    path = f"volumes/late-{i}"
    os.mkdir(f"{a}/{path}")
    start = time.monotonic()
    while not os.path.isdir(f"{b}/{path}"):
        assert time.monotonic() < start + 5
        time.sleep(0.0005)
    times.append(time.monotonic() - start)
times.sort()
print(f"ok: seen on the other host after {times[25] * 1e3:.1f} ms (median), {times[-1] * 1e3:.1f} ms at worst")
END

# A host that dies, and comes back without being told which store it had.
kill -KILL "$host_a" && wait_gone "$host_a" 10
umount -l "$T/a/mnt"
mkdir "$B/volumes/meanwhile" && rmdir "$B/volumes/a-1" || fail "the other goes on"
host a ''
await test -d "$A/volumes/meanwhile"
[ ! -e "$A/volumes/a-1" ] || fail "what was removed meanwhile is there"
mkdir "$A/volumes/back" || fail mkdir
await test -d "$B/volumes/back"
ok "a host dies and comes back"

# A host that stood still hears of all that it missed.
host_b=$(pgrep -f "mount $T/b/mnt")
kill -STOP "$host_b"
for i in $(seq 20); do mkdir "$A/volumes/stopped-$i" || fail mkdir; done
kill -CONT "$host_b"
await same
ok "a host that was stopped catches up"

# The cluster stands still: what is known can be read, a change is an error with words, and when the
# cluster is back it was made on both hosts or on none.
osd=$("$SOURCE/contrib/ceph-dev" pid osd.0 "$CEPH_DIR") || fail "no OSD"
kill -STOP "$osd"
mkdir "$A/volumes/late" 2>"$T/err" && fail "a change was made without the store"
grep -q 'Connection timed out' "$T/err" || fail "$(cat "$T/err")"
timeout 2 ls -l "$A/volumes" "$B/volumes" >/dev/null || fail "the mount hangs"
expect_text "$A/errors" "the store does not answer"
kill -CONT "$osd"
await mkdir "$B/volumes/again"
await test -d "$A/volumes/again"
await same
[ -d "$A/volumes/late" ] || mkdir "$A/volumes/late" || fail "the name cannot be used"
await same
ok "a cluster that stands still"

for host in a b; do
        pid=$(pgrep -f "mount $T/$host/mnt") || fail "host $host is gone"
        kill "$pid"
        wait_gone "$pid" 20
        grep -E 'Sanitizer|runtime error' "$T/$host.log" >&2 && fail "host $host: see above"
done
ok "both end as they are told"
