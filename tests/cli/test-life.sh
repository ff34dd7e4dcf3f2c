#!/bin/bash
# A cloud's life as strato sees it: up, up again, a daemon killed, in use, waiting, checked, down.
. "$(dirname "$0")/../lib.sh"
requires jq
strato() {
        "$STRATO" "$1" --state "$T/state" "${@:2}"
}
pid_of() {
        strato status --json | jq -r ".$1.pid"
}

start_cloud
expect_status 0 strato status
expect_text "$T/out" "mount    $C, mounted"
expect_text "$T/out" "default"
expect_status 0 strato status --json
jq -e '.up and .blockd.running and .stratod.running and .guests == 0 and .stratod.pss > 0 and
        (.tenants[] | select(.name == "default") | .volumes == 0)' "$T/out" >/dev/null ||
        fail "status --json"

# Again: nothing changes.
blockd=$(pid_of blockd) stratod=$(pid_of stratod)
expect_status 0 strato up
expect_text "$T/out" "up already"
[ "$(pid_of blockd) $(pid_of stratod)" = "$blockd $stratod" ] || fail "up started another"
# At once: one of them starts, all succeed.
expect_status 0 strato down
for i in 1 2 3; do
        strato up --json >"$T/up.$i" &
        ups[i]=$!
done
for i in 1 2 3; do
        wait "${ups[i]}" || fail "three at once: status $?"
done
[ "$(jq -s 'map(select(.started.stratod)) | length' "$T"/up.*)" = 1 ] || fail "who started it"
ok "three at once start one cloud"

# stratod dies, and nobody notices.
blockd=$(pid_of blockd) stratod=$(pid_of stratod)
echo 'name=kept size=8M' >"$C/tenants/default/volumes/new" || fail "new"
expect_status 0 strato wait "$C/tenants/default/volumes/kept" available --timeout 30
kill -9 "$stratod"
[ "$(cat "$C/tenants/default/volumes/kept/state")" = available ] || fail "the mount died with it"
expect_status 0 strato up
expect_text "$T/out" "up already"
[ "$(pid_of stratod)" != "$stratod" ] || fail "it was not killed"
# With its holder it is gone; only it comes back.
stratod=$(pid_of stratod)
unhold
kill -9 "$stratod"
wait_gone "$stratod" 10
expect_status 4 strato status
expect_text "$T/out" "stale"
expect_status 3 strato wait "$C/tenants/default/volumes/kept" gone
expect_status 3 strato top --once
expect_status 0 strato up
expect_text "$T/out" "stratod was missing"
[ "$(pid_of blockd)" = "$blockd" ] || fail "blockd was started anew"
[ "$(cat "$C/tenants/default/volumes/kept/state")" = available ] || fail "what was made is lost"
# blockd dies, and is there again without a word from anybody.
stratod=$(pid_of stratod)
kill -9 "$blockd"
wait_gone "$blockd" 10
healed() {
        strato status --json | jq -e --argjson old "$blockd" \
                '.up and .blockd.running and .blockd.pid != $old' >/dev/null
}
wait_until 30 healed || fail "blockd was not started again"
expect_status 0 strato up
expect_text "$T/out" "up already"
[ "$(pid_of stratod)" = "$stratod" ] || fail "stratod was started anew"
# Its holder dies: blockd goes on, and nobody may start a second one beside it.
holder=$(ps -o ppid= -p "$(pid_of blockd)" | tr -d ' ') blockd=$(pid_of blockd)
[ "$(ps -o comm= -p "$holder")" = stratofs-hold ] || fail "blockd's parent is no holder"
kill -9 "$holder"
wait_gone "$holder" 10
expect_status 4 strato status
expect_status 1 strato up
expect_text "$T/err" "another blockd is using"
kill "$blockd"
wait_gone "$blockd" 30
expect_status 0 strato up
expect_text "$T/out" "blockd was missing"

# Waiting.
cd "$C/tenants/default/volumes" || fail "no volumes"
expect_status 0 strato wait kept available
expect_status 124 strato wait kept in-use --timeout 1
expect_text "$T/err" "'kept' is 'available' after 1 s"
expect_status 2 strato wait kept boiled
strato wait kept gone --timeout 60 &
waiter=$!
rmdir kept || fail "rmdir"
wait $waiter || fail "it never was gone: $?"
expect_status 1 strato wait kept available
expect_status 0 strato wait kept gone
expect_status 1 strato wait "$T/kept" gone
cd "$TESTS" || exit 1

expect_status 0 strato top --once
expect_text "$T/out" "no instances"
mkdir "$C/tenants/default/volumes/busy" && echo 1M >"$C/tenants/default/volumes/busy/size" &&
        cat "$C/tenants/default/volumes/busy/.wait/available@20" >/dev/null || fail "no volume"
expect_status 0 strato top --once
! grep -q busy "$T/out" || fail "a volume at rest is shown"
(until [ -e "$T/enough" ]; do
        dd if=/dev/zero of="$C/tenants/default/volumes/busy/data" bs=4k count=64 conv=notrunc,fsync \
                2>"$T/dd" || break
done) &
busy=$!
test_pids="$test_pids $busy"
expect_status 0 strato top --once
grep -qE '^default +busy +[0-9]+ +[0-9]+ ' "$T/out" || fail "a busy volume is not shown"
: >"$T/enough"
wait $busy
ok "top shows what volumes do"

# In use: down says by whom, and changes nothing.
tail -f "$C/tenants/default/events" >/dev/null 2>&1 &
holder=$!
test_pids="$test_pids $holder"
holds() {
        [ "$(ls -l /proc/$holder/fd | grep -c events)" = 1 ]
}
wait_until 10 holds || fail "tail does not hold the mount"
expect_status 1 strato down
expect_text "$T/err" "'$C' is in use by tail ($holder)"
expect_status 0 strato status
kill $holder
wait $holder 2>/dev/null
# strato itself, started inside, is in nobody's way.
(cd "$C" && exec "$STRATO" down --state "$T/state") || fail "down from inside"
expect_status 3 strato status
ok "down from inside"
expect_status 0 strato up
(cd "$C" && "$STRATO" down --force --state "$T/state" >"$T/out" && true) || fail "down --force"
ok "down --force under a shell's feet"
[ -z "$(ls "$C")" ] || fail "the mount point is not empty"

# The mount point is remembered, a new one is taken.
expect_status 0 strato up --mount "$T/elsewhere"
expect_status 0 strato status
expect_text "$T/out" "mount    $T/elsewhere, mounted"
expect_status 1 strato up --mount "$C"
expect_text "$T/err" "is mounted on '$T/elsewhere'"
# Another state folder finds the mount point taken.
expect_status 1 "$STRATO" up --state "$T/other" --mount "$T/elsewhere"
expect_text "$T/err" "another cloud is mounted on '$T/elsewhere'"
"$STRATO" status --state "$T/other" --json --mount "$T/elsewhere" | jq -e '.blockd.running' >/dev/null &&
        fail "its blockd was left"
"$STRATO" down --state "$T/other" --mount "$T/elsewhere" >/dev/null || fail "down of the other"
mountpoint -q "$T/elsewhere" || fail "down took another cloud's mount away"
ok "two clouds do not touch each other"

# fsck: all well; then bytes that nobody asked for.
mkdir "$T/elsewhere/tenants/default/volumes/v"
echo 1M >"$T/elsewhere/tenants/default/volumes/v/size"
expect_status 0 strato wait "$T/elsewhere/tenants/default/volumes/v" available --timeout 30
strato doctor --fsck --json >"$T/out"
[ "$(jq -r '.[] | select(.check == "fsck").verdict' "$T/out")" = ok ] || fail "fsck"
[ "$(jq -r '.[] | select(.check == "serve").verdict' "$T/out")" = ok ] || fail "doctor: serve"
[ "$(jq -r '.[] | select(.check == "mount").verdict' "$T/out")" = ok ] || fail "doctor: mount"
[ "$(jq -r '.[] | select(.check == "boot").verdict' "$T/out")" != fail ] || fail "doctor: boot"
ok "doctor finds nothing wrong"
/usr/bin/python3 - "$T/state/run/blockd.sock" <<'END' || fail "blockd's control socket"
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'{"op": "create", "size": 4096, "id": "11111111-2222-4333-8444-555555555555"}\n')
answer = json.loads(s.makefile().readline())
sys.exit(0 if answer["ok"] else str(answer))
END
strato doctor --fsck >"$T/out"
expect_text "$T/out" "warn fsck: bytes without a volume: 11111111-2222-4333-8444-555555555555"
expect_status 0 strato down
ok "all"
