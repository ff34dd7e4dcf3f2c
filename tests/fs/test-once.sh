#!/bin/bash
# Each change survives a death just after its commit and just before its answer, and is made once; a
# stuck request ends in EIO, the holder's death in an end, a replacement in nothing at all.
. "$(dirname "$0")/../lib.sh"
requires jq
[ "${1:-}" != record ] || export STRATOFS_NO_RESEND=1
strato() {
        "$STRATO" "$1" --state "$T/state" "${@:2}"
}
main_pid() {
        head -n1 "$T/state/run/stratod.pid"
}
lives() {
        grep -c " of this mount goes on" "$T/state/log/stratod.log"
}
died=0
# COMMAND...: succeeds, over one death at least
over_death() {
        local words=$1
        shift
        "$@" >"$T/out" 2>"$T/err" || fail "$words: status $?: $*"
        [ "$(lives)" -gt $died ] || fail "$words: nobody died"
        died=$(lives)
        ok "$words"
}
line() {
        echo "$1" >"$2"
}

STRATOFS_FAULT=fs.answer=kill:1 start_cloud
cd "$C/tenants/default" || fail "no tenant"
# --- the daemon dies at each answer to a change, once
over_death "mkdir" mkdir volumes/a
over_death "an attribute" line 4M volumes/a/size
expect "it is made" [ "$(cat volumes/a/.wait/available@60)" = available ]
over_death "new" bash -c 'exec 3<>volumes/new && echo "name=b size=2M" >&3 && [ "$(head -n1 <&3)" = "b $(cat volumes/b/id)" ]'
expect "it is made" [ "$(cat volumes/b/.wait/available@60)" = available ]
expect "once" [ "$(ls -d volumes/b* | wc -l)" = 1 ]
over_death "two lines at once" bash -c 'printf "name=c size=1M\nname=d size=1M\n" >volumes/new'
expect "both are made" [ "$(cat volumes/c/.wait/available@60 volumes/d/.wait/available@60)" = $'available\navailable' ]
over_death "metadata" line value volumes/a/metadata/key
expect "it has its value" [ "$(cat volumes/a/metadata/key)" = value ]
over_death "metadata, appended" bash -c 'echo more >>volumes/a/metadata/key'
expect "once" [ "$(cat volumes/a/metadata/key)" = $'value\nmore' ]
over_death "mv of metadata" mv volumes/a/metadata/key volumes/a/metadata/other
expect "it moved" [ "$(ls volumes/a/metadata)" = other ]
over_death "rm of metadata" rm volumes/a/metadata/other
over_death "a verb" line check volumes/a/ctl
wait_until 30 grep -q available volumes/a/state
expect "one job" [ "$(ls -d jobs/*/ | wc -l)" = "$(jq -r .state jobs/*/.json | wc -l)" ]
over_death "mv" mv volumes/d volumes/e
expect "it has another name" [ "$(ls -d volumes/[de])" = volumes/e ]
mkdir instances/web
died=$(lives)
over_death "ln -s" ln -s volumes/a instances/web/volumes/vda
over_death "ln -sfn" ln -sfn volumes/b instances/web/volumes/vda
expect "it points there" [ "$(readlink instances/web/volumes/vda)" = ../../../volumes/b ]
over_death "rm of a link" rm instances/web/volumes/vda
rev=$(jq .rev volumes/a/.json)
over_death "a spec of one revision" bash -c "echo '{\"rev\": $rev, \"size\": \"8M\"}' >volumes/a/spec"
expect "it grows" [ "$(cat volumes/a/.wait/available@60; cat volumes/a/size)" = $'available\n8388608' ]
over_death "rmdir" rmdir volumes/e
expect_errno ENOENT stat volumes/e
expect "the shell is where it was" [ "$(cat ../../version | head -n1)" ]
cd / && stop_cloud
rm -r "$T/state"

# --- a handler that is stuck
STRATOFS_FAULT=fs.link=delay:60000 STRATOFS_WATCHDOG=2 start_cloud
before=$(main_pid)
expect_errno EIO ln "$C/version" "$C/other"
[ "$(main_pid)" != "$before" ] || fail "the stuck process lives"
expect_text "$T/state/log/stratod.log" "makes no progress for 2 s"
expect "others are answered" cat "$C/version"
stop_cloud

# --- replaced while it is used
start_cloud
mkdir -p "$C/tenants/default/volumes/v"
cd "$C/tenants/default/volumes/v" || fail "no volume"
exec 4<state
cat .wait/gone >"$T/gone" &
waiter=$!
test_pids="$test_pids $waiter"
before=$(main_pid) blockd=$(strato status --json | jq .blockd.pid)
expect_status 0 strato up --replace
expect_text "$T/out" "programs as they are now"
[ "$(main_pid)" != "$before" ] || fail "it is the same process"
[ "$(strato status --json | jq .blockd.pid)" != "$blockd" ] || fail "blockd is the same process"
expect_text "$T/state/log/stratod.log" "makes room for its successor"
expect "the folder is still there" [ "$(cat state && cat <&4)" = $'draft\ndraft' ]
rmdir ../v
wait $waiter || fail "the waiter"
expect "it was told" [ "$(cat "$T/gone")" = gone ]
expect_status 0 strato up
expect_text "$T/out" "up already"
expect_status 0 strato status
expect_text "$T/out" "held by stratofs-hold"
cd / || exit 1

# --- Ctrl-C reaches a wait that was parked in another life
mkdir "$C/tenants/default/volumes/waited"
/usr/bin/python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp("cat", ["cat", sys.argv[1]])' "$C/tenants/default/volumes/waited/.wait/gone" &
waiter=$!
test_pids="$test_pids $waiter"
waits() {
        [ "$(ls -l /proc/$waiter/fd | grep -c '/.wait/gone')" = 1 ]
}
wait_until 10 waits || fail "nobody waits"
kill -9 "$(main_pid)"
expect "it answers" cat "$C/version"
kill -INT $waiter
wait_gone $waiter 10
rmdir "$C/tenants/default/volumes/waited"

# --- a session that the new program does not understand is mounted anew
holder=$(strato status --json | jq .stratod.holder.pid)
memory=$(ls -l "/proc/$holder/fd" | sed -n 's|.* \([0-9]*\) -> /memfd:stratofs-session.*|\1|p')
printf '\377' | dd of="/proc/$holder/fd/$memory" bs=1 seek=8 conv=notrunc status=none || fail "no memory file"
exec 4<"$C/version"
kill -9 "$(main_pid)"
answers() {
        cat "$C/version"
}
wait_until 30 answers || fail "no mount"
expect_text "$T/state/log/stratod.log" "mounted anew: the session before this one cannot be gone on with"
cat <&4 2>"$T/err" && fail "the old mount answers"
expect_text "$T/err" "Transport endpoint is not connected"
exec 4<&-
expect "it is kept, too" [ "$(kill -9 "$(main_pid)"; cat "$C/version" | head -n1)" ]

# --- the holder is killed: the daemon goes on alone; killed, too, the mount is gone at once
exec 4<&-
holder=$(strato status --json | jq .stratod.holder.pid)
[ "$(ps -o comm= -p "$holder")" = stratofs-hold ] || fail "who is $holder?"
pss=$(strato status --json | jq .stratod.holder.pss)
echo "the holder has $((pss / 1024)) KiB (PSS)"
kill -9 "$holder"
wait_line "$T/state/run/stratod.pid" alone 10
expect_status 0 strato status
expect_text "$T/out" "its holder was killed"
expect_status 0 strato up
expect_text "$T/out" "up already"
expect_status 1 strato up --replace
expect "it answers" cat "$C/version"
cat "$C/tenants/default/.follow" >/dev/null 2>"$T/follower" &
follower=$!
test_pids="$test_pids $follower"
follows() {
        [ "$(ls -l /proc/$follower/fd | grep -c '/\.follow')" = 1 ]
}
wait_until 10 follows || fail "nobody follows"
kill -9 "$(main_pid)"
wait_gone $follower 10
expect_text "$T/follower" "Software caused connection abort"
expect_errno ENOTCONN cat "$C/version"
expect_status 0 strato up
expect_text "$T/out" "stratod was missing"
expect "it answers" cat "$C/version"

# --- both at once
holder=$(strato status --json | jq .stratod.holder.pid)
kill -STOP "$holder"
kill -9 "$(main_pid)" "$holder"
gone() {
        ! cat "$C/version" 2>/dev/null
}
wait_until 10 gone || fail "it answers"
expect_errno ENOTCONN cat "$C/version"
expect_status 0 strato up
expect_status 0 strato down
! mountpoint -q "$C" || fail "it is still mounted"
expect_status 3 strato status
! pgrep -f "stratofs-hold.*$T" || fail "a holder is left"

# --- as a service manager starts it
"$BUILD/cli/stratofs-hold" -- "$STRATO" serve stratod --state "$T/state" --mount "$C" 2>"$T/served" &
served=$!
test_pids="$test_pids $served"
wait_line "$T/served" serving 60
exec 4<"$C/tenants/default/id" 5<"$C/tenants/default/id"
for fd in 4 5; do
        before=$(main_pid)
        kill -9 "$before"
        expect "it goes on" [ "$(cat <&$fd)" = "$(cat "$C/tenants/default/id")" ]
        [ "$(main_pid)" != "$before" ] || fail "it is the same process"
done
exec 4<&- 5<&-
kill $served
wait $served || fail "it ended with $?"
! mountpoint -q "$C" || fail "it is still mounted"
! grep -q "Sanitizer\|runtime error" "$T/state/log/stratod.log" "$T/served" || fail "its log"
ok "all"
