#!/bin/bash
# The daemon dies and nobody notices: killed 20 times under load, once with the kernel sending the
# requests again, once (HOLD=record) by the record of them.
. "$(dirname "$0")/../lib.sh"
requires jq
[ "${1:-}" != record ] || export STRATOFS_NO_RESEND=1
pid_of() {
        "$STRATO" status --state "$T/state" --json | jq -r ".stratod.pid // 0"
}
volume() {
        echo "name=$1 size=$2" >"$C/tenants/default/volumes/new" &&
                [ "$(cat "$C/tenants/default/volumes/$1/.wait/available@30")" = available ] || fail "no volume $1"
}

start_cloud
volume v 1M
volume disk 4M
volume other 1M
volume waited 1M
stratod=$(pid_of)
/usr/bin/python3 "$TESTS/fs/hold-load.py" "$C" "${KILLS:-20}" head -n1 "$T/state/run/stratod.pid" ||
        fail "somebody noticed"
[ "$(pid_of)" != "$stratod" ] || fail "it was not killed"
[ "${1:-}" != record ] || expect_text "$T/state/log/stratod.log" "by the record of requests"
ok "nobody noticed"
cd /
[ "$("$STRATO" down --state "$T/state")" = "The cloud is down." ] || fail "down"
! mountpoint -q "$C" || fail "it is still mounted"
! grep -q "given up\|Sanitizer\|runtime error" "$T/state/log/stratod.log" || fail "its log"
ok "down ends it"
