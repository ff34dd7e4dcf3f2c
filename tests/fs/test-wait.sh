#!/bin/bash
# .follow, and many who wait at once: what they cost, that signals free them, that a user is capped.
# WAITERS=10000 measures what the manual promises.
. "$(dirname "$0")/lib-fs.sh"
waiters=$BUILD/tests/fs/waiters
many=${WAITERS:-1000}
start_fs
start_nbd
volume v
volume other

# --- .follow: each event once, from the open on; its end is the object's
exec 4<volumes/v/.follow
mkdir volumes/elsewhere
echo 2M >volumes/v/size
read -r line <&4
is "the first event is its own" "$(cut -d' ' -f3- <<<"$line")" "volumes/v state available -> extending"
read -r line <&4
is "then the next" "$(cut -d' ' -f3- <<<"$line")" "volumes/v state extending -> available"
expect_errno EAGAIN dd if=volumes/v/.follow iflag=nonblock
expect_errno EACCES 'echo x >volumes/v/.follow'
ls -a volumes/v | grep -q follow && fail "it is listed"
exec 4<&-
cat volumes/other/.follow >"$T/stream" &
test_pids="$test_pids $!"
stream=$!
/usr/bin/python3 -c 'import signal, subprocess
signal.signal(signal.SIGINT, signal.SIG_DFL)
import os
os.execvp("cat", ["cat", ".follow"])' >"$T/tenant" &
test_pids="$test_pids $!"
held() {
        [ "$(ls -l /proc/"$1"/fd 2>/dev/null | grep -c '\.follow')" = 1 ]
}
wait_until 10 held $stream || fail "no follower"
wait_until 10 held $! || fail "no follower of the tenant"
tenant=$!
rmdir volumes/other
wait $stream || fail "a stream ends with its object: $?"
mkdir volumes/more
wait_line "$T/tenant" "volumes/more created" 10
expect_text "$T/stream" "volumes/other state available -> deleting"
kill -INT $tenant || fail "the follower is gone"
wait_gone $tenant 10
/usr/bin/python3 - <<'END' || fail "poll on .follow"
import os, select
fd = os.open("volumes/v/.follow", os.O_RDONLY | os.O_NONBLOCK)
p = select.poll()
p.register(fd, select.POLLIN)
assert p.poll(0) == []
with open("volumes/v/size", "w") as f:
    f.write("3M")
assert p.poll(20000), "no event"
assert b"volumes/v state" in os.read(fd, 4096)
END
ok "poll wakes a follower"
# who falls behind by more than the log holds is told how many records are gone
cat volumes/v/.wait/available >"$T/out" || fail "v grows no more"
exec 4<.follow
for i in {1..900}; do echo "name=filler-of-the-log-with-a-long-name-$i"; done >"$T/lines"
cp "$T/lines" volumes/new || fail "900 drafts"
read -r line <&4
[[ $line =~ ^lost\ [1-9][0-9]*$ ]] || fail "not lost: $line"
ok "$line"
is "nothing is told twice, nothing is left out" \
        "$(($(timeout 5 cat <&4 | wc -l) + ${line#lost }))" 900
exec 4<&-

# --- many
in_read() {
        [ "$(cat /proc/"$1"/task/*/syscall 2>/dev/null | grep -c '^0 ')" = "$2" ]
}
parked() {
        wait_until 120 in_read "$1" "$2" || fail "not all $2 are in their read"
}
facts() {
        awk '/^VmRSS|^Threads/ {printf "%s ", $2}' /proc/$host_pid/status
}
spawn "$waiters" 64 volumes/v/.wait/error >"$T/warm"
warm=$!
wait_line "$T/warm" parked 20
parked $warm 64
kill -9 $warm
wait_gone $warm 20
read -r rss threads < <(facts)
spawn "$waiters" "$many" volumes/v/.wait/change volumes/v/.wait/error volumes/v/.follow >"$T/many"
crowd=$!
wait_line "$T/many" parked 120
parked $crowd "$many"
expect "the tree answers meanwhile" cat volumes/v/state
read -r rss_now threads_now < <(facts)
echo "$many parked: $((rss_now - rss)) KiB, threads $threads -> $threads_now"
[ $((threads_now - threads)) -lt 32 ] || fail "they hold threads"
[ $((rss_now - rss)) -lt 32768 ] || fail "they cost too much"
kill -9 $crowd
wait_gone $crowd 60
ok "SIGKILL frees them"
spawn "$waiters" "$many" volumes/v/.follow >"$T/again"
crowd=$!
wait_line "$T/again" parked 120
echo 4M >volumes/v/size
wait_line "$T/again" "ended $many failed 0" 60

# --- one user has so many, the others still can
if [ "$(id -u)" = 0 ]; then
        requires setpriv
        member="setpriv --reuid 65534 --regid 65534 --groups $G"
        spawn $member "$waiters" 300 volumes/v/.wait/error >"$T/capped"
        crowd=$!
        wait_line "$T/capped" parked 60
        parked $crowd 256
        expect_status 1 $member cat volumes/v/.wait/error@1
        expect_text "$T/err" "busy"
        is "another user waits" "$(cat volumes/v/.wait/available@5)" available
        kill -9 $crowd
        wait_gone $crowd 20
        expect_status 1 $member cat volumes/v/.wait/error@1
        expect_text "$T/err" "timed out"
fi
end_fs
