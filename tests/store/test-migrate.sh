#!/bin/bash
# strato up --conf, and strato migrate-store: SQLite to RADOS and back.  Run by tests/ceph-run.
. "$(dirname "$0")/../lib.sh"
requires_root
requires rados jq

conf() {
        printf 'store = %s\nceph_conf = %s\nceph_timeout = 5\n' "$2" "$CEPH_CONF" >"$T/$1.conf"
}
conf rados "rados:$STRATOFS_POOL/moved"
conf other "rados:$STRATOFS_POOL/other"
conf sqlite sqlite
migrate() {
        "$STRATO" migrate-store --state "$T/state" --conf "$T/$1.conf" >"$T/out" 2>"$T/err"
}
refused() {
        migrate "$1" && fail "migrate-store to $1 was not refused"
        expect_text "$T/err" "$2"
}
# Everything but what the start of a daemon changes.
picture() {
        find "$C"/tenants "$C"/flavors -name .json | sort | xargs cat | jq -cS 'del(.jobs?)'
        find "$C"/tenants -path '*/metadata/*' -type f | sort | xargs grep -H ''
}
db=$T/state/stratod/cloud.db

# --- a cloud on SQLite
start_cloud
mkdir "$C/tenants/second" "$C/tenants/second/volumes/x" || fail mkdir
for i in $(seq 300); do
        mkdir "$C/tenants/default/volumes/v$i" || fail mkdir
        echo "words of $i" >"$C/tenants/default/volumes/v$i/metadata/note"
done
rmdir "$C/tenants/default/volumes/v7" || fail rmdir
echo 10M >"$C/tenants/default/volumes/v1/size"
wait_line "$C/tenants/default/volumes/v1/state" available 20
picture >"$T/before"
[ "$(grep -c note "$T/before")" = 299 ] || fail "the picture is not whole"
refused rados "the cloud is up"
stop_cloud

# --- to RADOS
refused sqlite "in '$db' already"
printf 'store = rados:no-such-pool\nceph_conf = %s\n' "$CEPH_CONF" >"$T/none.conf"
refused none "no-such-pool"
printf 'store = etcd:cloud\n' >"$T/bad.conf"
refused bad "line 1"
sum=$(sha256sum <"$db")
migrate rados || fail "$(cat "$T/err")"
expect_text "$T/out" "records are in 'rados:$STRATOFS_POOL/moved' now"
[ "$(rados -p "$STRATOFS_POOL" -N moved ls | grep -c '^scope')" = 3 ] || fail "not three scopes"
ok "what was there is untouched ($([ "$sum" = "$(sha256sum <"$db")" ] && echo 'but for its epoch: not even that' ||
        echo 'but for its epoch'))"
"$BUILD/fs/stratod" --mount "$C" --state "$T/state" --run "$T/state/run" --conf "$T/sqlite.conf" \
        2>"$T/err" && fail "a store that was moved was opened"
expect_text "$T/err" "it was moved to"
cp "$T/rados.conf" "$T/state/stratod.conf"
start_cloud
picture >"$T/after"
cmp "$T/before" "$T/after" || fail "$(diff "$T/before" "$T/after" | head -n 5)"
ok "the same cloud, from RADOS, without a word about it"
mkdir "$C/tenants/default/volumes/on-rados" || fail mkdir
node=$(stat -c %i "$C/tenants/default/volumes/on-rados")
picture >"$T/before"

# --- another host has it open
conf back sqlite
cp -r "$T/state" "$T/state2"
rm -f "$T/state2"/*.pid "$T/state2"/*/lock
printf 'store = rados:%s/moved\nceph_conf = %s\nceph_timeout = 5\n' "$STRATOFS_POOL" "$CEPH_CONF" >"$T/state2/stratod.conf"
"$BUILD/fs/stratod" --migrate-store --state "$T/state2" --conf "$T/other.conf" 2>"$T/err" &&
        fail "migrated while a host has it open"
expect_text "$T/err" "hosts have it open"
stop_cloud

# --- and back
migrate back || fail "$(cat "$T/err")"
ls "$db".[0-9]* >/dev/null || fail "the old database is gone"
start_cloud
picture >"$T/after"
cmp "$T/before" "$T/after" || fail "$(diff "$T/before" "$T/after" | head -n 5)"
ok "the same cloud, from SQLite again"
mkdir "$C/tenants/default/volumes/on-sqlite" || fail mkdir
[ "$(stat -c %i "$C/tenants/default/volumes/on-sqlite")" -gt "$node" ] || fail "a number is given again"
stop_cloud
refused rados "was moved to"
migrate other || fail "$(cat "$T/err")"
start_cloud --conf "$T/other.conf"
[ -d "$C/tenants/default/volumes/on-sqlite" ] || fail "lost on the way"
stop_cloud
ok "and to another namespace"

# --- a cluster that is not there is an error with words, not a hang
sed 's/^mon host.*/mon host = 127.0.0.1:1/' "$CEPH_CONF" >"$T/dead-ceph.conf"
printf 'store = rados:%s\nceph_conf = %s\nceph_timeout = 2\n' "$STRATOFS_POOL" "$T/dead-ceph.conf" >"$T/dead.conf"
mkdir "$T/dead"
expect_status 1 timeout 60 "$STRATO" up --state "$T/dead" --mount "$C" --conf "$T/dead.conf"
expect_text "$T/err" "connect as client.admin"
