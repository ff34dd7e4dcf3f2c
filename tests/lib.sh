# Helpers for the shell tests (bash).  A test begins with
#
#     . "$(dirname "$0")/../lib.sh"
#
# and is run by meson with BUILD set to the build folder.  It gets $T, a folder of its own that is
# gone afterwards; every process started by `spawn` or `start_cloud` is ended with it.
#
#     ok WORDS                     says that a step holds
#     fail WORDS                   says why not, and ends the test
#     skip WORDS                   exit 77; with CI=true a failure, as there every part must be real
#     requires PROGRAM...          skips when one is missing
#     requires_root                skips for a plain user
#     expect WORDS COMMAND...      the command succeeds
#     expect_status N COMMAND...   exit status N; its output is in $T/out and $T/err
#     expect_errno EINVAL COMMAND...  fails, and stderr ends with the text of that errno; one
#                                  argument is a line for bash: expect_errno EINVAL 'echo 0 > size'
#     expect_text FILE TEXT        FILE holds TEXT
#     wait_line FILE TEXT SECONDS  until FILE holds TEXT
#     wait_until SECONDS COMMAND...  until the command succeeds
#     wait_gone PID SECONDS        until that process is no more
#     spawn COMMAND...             in the background; its pid is in $!
#     start_cloud [OPTION...]      strato up in $T/state and $T/cloud ($C)
#     stop_cloud                   strato down --guests
#     unhold                       kills stratod's holder: from then on a death of stratod is one

set -u
LC_ALL=C
export LC_ALL
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SOURCE=$(dirname "$TESTS")
BUILD=${BUILD:-$SOURCE/build-test}
STRATO=$BUILD/cli/strato
T=$(mktemp -d "${TMPDIR:-/tmp}/st.XXXXXX")
# A guest's QEMU may run as a user of its own, and must get through to its sockets.
chmod 711 "$T"
C=$T/cloud
test_pids=''
test_cloud=''

ok() {
        echo "ok: $*"
}

fail() {
        echo "FAIL: $*" >&2
        for file in "$T/out" "$T/err" "$T"/state/log/*.log "$T"/state/instances/*/console.log; do
                [ -s "$file" ] || continue
                echo "--- ${file#"$T"/}" >&2
                tail -n 30 "$file" >&2
        done
        exit 1
}

skip() {
        [ "${CI:-}" != true ] || fail "not here: $*"
        echo "SKIP: $*" >&2
        exit 77
}

requires() {
        for program in "$@"; do
                command -v "$program" >/dev/null || skip "$program is not installed"
        done
}

requires_root() {
        [ "$(id -u)" = 0 ] || skip "only for root"
}

expect() {
        local words=$1
        shift
        "$@" >"$T/out" 2>"$T/err" || fail "$words: status $?: $*"
        ok "$words"
}

expect_status() {
        local want=$1 got=0
        shift
        "$@" >"$T/out" 2>"$T/err" || got=$?
        [ $got = "$want" ] || fail "status $got, not $want: $*"
        ok "status $want: $*"
}

expect_errno() {
        local name=$1 text got=0
        shift
        text=$(/usr/bin/python3 -c 'import errno, os, sys
print(os.strerror(getattr(errno, sys.argv[1])))' "$name") || fail "no errno is called $name"
        if [ $# = 1 ]; then
                bash -c "$1" >"$T/out" 2>"$T/err" || got=$?
        else
                "$@" >"$T/out" 2>"$T/err" || got=$?
        fi
        [ $got != 0 ] || fail "succeeded, not $name: $*"
        grep -qF "$text" "$T/err" || fail "not $name ($text): $*"
        ok "$name: $*"
}

expect_text() {
        grep -qF -- "$2" "$1" || {
                cp "$1" "$T/out" 2>/dev/null
                fail "$1 does not hold: $2"
        }
        ok "${1##*/} holds: $2"
}

wait_until() {
        local deadline=$(($(date +%s%N) + $1 * 1000000000))
        shift
        until "$@" >/dev/null 2>&1; do
                [ "$(date +%s%N)" -lt $deadline ] || return 1
                sleep 0.05
        done
}

wait_line() {
        wait_until "$3" grep -qF -- "$2" "$1" || {
                cp "$1" "$T/out" 2>/dev/null
                fail "no '$2' in ${1##*/} within $3 s"
        }
        ok "${1##*/}: $2"
}

# A zombie whose parent is slow is gone, too.
test_is_gone() {
        ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"
}

wait_gone() {
        wait_until "$2" test_is_gone "$1" || fail "process $1 still runs after $2 s"
}

spawn() {
        "$@" &
        test_pids="$test_pids $!"
}

start_cloud() {
        test_cloud=1
        mkdir -p "$C"
        "$STRATO" up --state "$T/state" --mount "$C" "$@" >"$T/out" 2>"$T/err" ||
                fail "strato up: status $?"
        ok "strato up"
}

stop_cloud() {
        test_cloud=''
        "$STRATO" down --guests --force --state "$T/state" --mount "$C" >"$T/out" 2>"$T/err" ||
                fail "strato down: status $?"
}

unhold() {
        local file=$T/state/run/stratod.pid
        kill -9 "$(ps -o ppid= -p "$(head -n1 "$file")" | tr -d ' ')"
        wait_line "$file" alone 10
}

test_end() {
        local status=$? pid mount
        trap - EXIT
        [ "$test_cloud" ] &&
                "$STRATO" down --guests --force --state "$T/state" --mount "$C" >/dev/null 2>&1
        for pid in $test_pids; do
                kill "$pid" 2>/dev/null
        done
        for pid in $test_pids; do
                wait_until 5 test_is_gone "$pid" || kill -9 "$pid" 2>/dev/null
        done
        awk -v t="$T/" 'index($5, t) == 1 {print $5}' /proc/self/mountinfo | tac |
                while read -r mount; do
                        umount -l "$mount" 2>/dev/null || fusermount3 -uz "$mount"
                done
        rm -rf --one-file-system "$T"
        exit $status
}
trap test_end EXIT
trap 'exit 1' HUP INT TERM
