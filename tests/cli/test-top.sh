#!/bin/bash
# strato top: live on a terminal, plain text and JSON elsewhere; an admin's view and a tenant's.
. "$(dirname "$0")/../fs/lib-fs.sh"
requires jq
start_fs

top="$STRATO top --state $T/state --mount $C"
screen() {
        /usr/bin/python3 "$TESTS/cli/screen.py" "$@" 2>"$T/err" || fail "screen: status $?: $*"
}

for i in 1 2 3; do
        echo "name=v$i size=${i}M" >volumes/new || fail "new"
done
mkdir instances/web instances/db && echo small >instances/web/flavor &&
        echo medium >instances/db/flavor || fail "instances"

screen "$top" see '^TENANT +INSTANCE' see '^HOST +STATE' see '^default .* 3 +6M' see '^q end' \
        key q
ok "one screen with all tables, q ends it"
screen "$top" see 'of 2 guests run' see '^default +web' on 'mkdir instances/late' \
        see 'of 3 guests run' see '^default +late' on 'rmdir instances/late' see 'of 2 guests run' \
        key q
ok "it is live"
screen "$top" see '^q end' key h see '^Tab, Shift-Tab ' key x see '^default +web' key '?' \
        see 'any key goes back' key q
ok "help"
# The guests' table, sorted by its second column: both ways.
screen "$top" see '^default +web' key '3\x1bOD' see 'default +db .*\ndefault +web ' key r \
        see 'default +web .*\ndefault +db ' key r see 'default +db .*\ndefault +web ' \
        key '\x1bOC\x1bOC\x1bOC\x1bOC' see 'default +db .* 2G .*\ndefault +web ' key r \
        see 'default +web .*\ndefault +db .* 2G' key q
ok "sorted by what is chosen"
screen "$top" see '^default +web' key p see '\(held\)' on 'mkdir instances/held' key ' ' \
        see '^default +held' on 'rmdir instances/held' key q
ok "held, and going on"
screen "$top" see '^default +web' size 10x50 see '^q end[^\n]*\Z' see '\A[^\n]{40,50}\n' \
        size 40x120 see "^HOST +STATE" size 3x10 see "^[0-9:]{8}" size 24x80 see '^default +web' key q
ok "any size"
for i in $(seq 40); do
        mkdir "instances/g$i" || fail "mkdir"
done
screen "$top" see 'of 42 guests run' key '3\x1bOD' see '^default +db ' key 'G' \
        see '^default +web' key 'g' see '^default +db ' key q
ok "more than fit: the end, the begin"
# The cloud goes: it says so.
screen_gone() {
        /usr/bin/python3 "$TESTS/cli/screen.py" "$STRATO top --state $T/state --mount $T/gone" 2>&1
}
screen_gone >"$T/out"
[ $? = 3 ] || fail "no cloud: status"
status=0
/usr/bin/python3 "$TESTS/cli/screen.py" "$top" see '^q end' signal 2 2>"$T/err" || status=$?
[ $status = 1 ] || fail "interrupted: status $status"
status=0
TERM=none; export TERM
"$STRATO" top --state "$T/state" --mount "$C" </dev/null 2>&1 | head -n 3 >"$T/out"
expect_text "$T/out" "$C"
ok "no terminal: text"

expect_status 0 $top --once
expect_text "$T/out" "INSTANCE"
grep -qE '^default +42 ' "$T/out" || fail "the tenant's usage"
expect_status 0 $top --json
jq -e '(.instances | length) == 42 and .tenants[0].volume_size == 6291456 and
        (.hosts | length) == 1 and .jobs == []' "$T/out" >/dev/null || fail "JSON"
ok "JSON: numbers as they are"
if [ "$(id -u)" = 0 ]; then
        chmod 711 "$T"
        setpriv --reuid=65534 --regid=65534 --groups="$G" $top --json >"$T/out" || fail "a member"
        jq -e '(.hosts == []) and (.instances | length) == 42' "$T/out" >/dev/null ||
                fail "a member sees its tenant, no hosts"
        setpriv --reuid=65534 --regid=65534 --clear-groups $top --json >"$T/out" || fail "nobody"
        jq -e '.tenants == [] and .instances == []' "$T/out" >/dev/null || fail "nobody sees that"
        ok "a member's own, a stranger's nothing"
fi
end_fs
