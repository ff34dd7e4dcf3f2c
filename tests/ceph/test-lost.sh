#!/bin/bash
# The mount while its Ceph cluster is away: it answers, says what is the matter, and goes on.
. "$(dirname "$0")/../lib.sh"
requires rbd
ceph_dev=$(realpath "$(dirname "$0")/../../contrib/ceph-dev")
away=3
[ -z "${STRATOFS_LONG:-}" ] || away=30

cat >"$T/conf" <<CONF
volumes = rbd:rbd/lost$$
ceph_conf = $CEPH_CONF
CONF
start_cloud --conf "$T/conf"
cd "$C/tenants/default" || fail "cd"
mkdir volumes/v && echo 64M >volumes/v/size && cat volumes/v/.wait/available@30 >/dev/null ||
        fail "volume: $(cat volumes/v/error)"
head -c 8M /dev/urandom >"$T/raw"
dd if="$T/raw" of=volumes/v/data bs=1M count=4 conv=notrunc,fsync status=none || fail "bytes"

kill -9 "$("$ceph_dev" pid osd.0 "$CEPH_DIR")" || fail "kill the OSD"
answers() {
        timeout 5 ls -lR "$C/tenants/default" >/dev/null && timeout 5 cat volumes/index volumes/v/state >/dev/null
}
expect "the mount answers" answers
expect "what is asked for is taken" timeout 5 mkdir volumes/w
expect "and is a job" timeout 5 bash -c 'echo 32M >volumes/w/size'
spawn dd if="$T/raw" of=volumes/v/data bs=1M skip=4 seek=4 conv=notrunc,fsync status=none
writer=$!
expect_text volumes/w/state creating
end=$((SECONDS + away))
while [ $SECONDS -lt $end ]; do
        answers || fail "the mount does not answer"
        sleep 0.2
done
kill -0 $writer 2>/dev/null || fail "a write ended without its cluster"
expect_text volumes/w/state creating
ok "the mount answered all the while"
(cd / && "$ceph_dev" start osd.0 "$CEPH_DIR") || fail "start the OSD"
cat volumes/w/.wait/available@120 >/dev/null || fail "w: $(cat volumes/w/state volumes/w/error)"
wait $writer || fail "the write failed"
cmp -n 8388608 "$T/raw" volumes/v/data || fail "other bytes"
ok "the write, and the volume, went on"

# A start without the cluster is refused in time, and says why.
cd / && "$STRATO" down --state "$T/state" --mount "$C" >/dev/null || fail "strato down"
kill -9 "$("$ceph_dev" pid mon.a "$CEPH_DIR")" || fail "kill the monitor"
timeout 60 "$STRATO" up --state "$T/state" --mount "$C" >"$T/out" 2>&1 && fail "it came up without"
grep -q "no monitor of the Ceph cluster" "$T/out" "$T/state/log/blockd.log" || fail "words"
ok "a start without its cluster ends, with words"
"$ceph_dev" start mon.a "$CEPH_DIR" || fail "start the monitor"
start_cloud
cmp -n 8388608 "$T/raw" "$C/tenants/default/volumes/v/data" || fail "other bytes after it"
ok "and with it all is there"
stop_cloud
