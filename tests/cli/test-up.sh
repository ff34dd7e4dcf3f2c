#!/bin/bash
# strato up, down and status around daemons that fail: the words, the exit status, what is left.
# The daemons are scripts here; that real ones come up is for the other tests.
. "$(dirname "$0")/../lib.sh"
export STRATOFS_PROGRAMS=$T/programs
mkdir "$T/programs" "$T/cloud"
ln -s "$BUILD/cli/stratofs-hold" "$T/programs/"
strato() {
        "$STRATO" "$1" --state "$T/state" --mount "$C" "${@:2}"
}

# A daemon made of shell: says what it was given, then does what the test wants.
daemon() {
        {
                cat <<'END'
#!/bin/bash
name=${0##*/} given="$*" state='' ready=''
while [ $# -gt 0 ]; do
        case $1 in
        --state) state=$2 ;;
        --ready-fd) ready=$2 ;;
        esac
        shift 2
done
echo "$given" >"$state/$name.given"
serve() {
        if [ "$ready" ]; then
                printf r >&"$ready"
        else # its holder, or systemd, listens
                /usr/bin/python3 -c 'import os, socket
name = os.environ.get("NOTIFY_SOCKET")
if name:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(b"READY=1", name.replace("@", "\0"))'
        fi
        exec sleep 1000
}
END
                echo "$2"
        } >"$T/programs/$1"
        chmod 755 "$T/programs/$1"
}
running() {
        strato status --json 2>/dev/null | jq -e ".$1.running" >/dev/null
}
requires jq

expect_status 3 strato status
expect_text "$T/out" "The cloud is down"
expect_status 0 strato down
expect_text "$T/out" "down already"
[ ! -e "$T/state" ] || fail "looking made a state folder"

expect_status 1 strato up
expect_text "$T/err" "there is no program 'blockd' in '$T/programs'"

daemon blockd 'echo "<3>2026-01-31T12:00:00.123Z the disk is on fire" >&2; exit 7'
expect_status 1 strato up
expect_text "$T/err" "blockd ended at its start with status 7: the disk is on fire"
expect_text "$T/err" "$T/state/log/blockd.log"
expect_text "$T/state/log/blockd.log" "Z the disk is on fire"
[ "$(stat -c %a "$T/state/blockd" "$T/state/images" "$T/state/log")" = $'700\n700\n700' ] ||
        fail "modes of what is inside the state folder"

# Only what it said this time is told.
daemon blockd 'exit 3'
expect_status 1 strato up
expect_text "$T/err" "status 3: it said nothing"
daemon blockd 'kill -SEGV $$'
expect_status 1 strato up
expect_text "$T/err" "blockd was ended by signal 11"
daemon blockd 'exec sleep 1000'
expect_status 1 strato up --timeout 1
expect_text "$T/err" "blockd did not serve in time"
running blockd && fail "what did not serve was left"

# stratod fails: the blockd of this call goes, too.
daemon blockd serve
daemon stratod 'echo "no /dev/fuse" >&2; exit 1'
expect_status 1 strato up --loglevel 7
expect_text "$T/err" "stratod ended at its start with status 1: no /dev/fuse"
expect_text "$T/state/blockd/blockd.given" "--state $T/state/blockd --run $T/state/run"
expect_text "$T/state/blockd/blockd.given" "--loglevel 7"
expect_text "$T/state/stratod.given" "--mount $C --state $T/state --run $T/state/run"
running blockd && fail "blockd was left half started"
expect_status 3 strato status

# stratod says it serves and does not.
daemon stratod serve
expect_status 1 strato up
expect_text "$T/err" "'$C' does not answer"
expect_status 0 strato down

# A blockd that ran before stays when stratod fails.
"$STRATO" serve blockd --state "$T/state" </dev/null >/dev/null 2>&1 &
test_pids="$test_pids $!"
served=$!
wait_until 10 running blockd || fail "strato serve blockd does not run"
[ "$(strato status --json | jq .blockd.pid)" = $served ] || fail "serve is not the daemon itself"
daemon stratod 'exit 1'
expect_status 1 strato up
running blockd || fail "a blockd that ran before was stopped"
expect_status 4 strato status
expect_text "$T/out" "A part is missing"
expect_status 1 "$STRATO" serve blockd --state "$T/state"
expect_text "$T/err" "blockd runs already, pid $served"

# A pid file of somebody else's process means nothing: the lock does.
expect_status 0 strato down
wait_gone $served 10
echo $$ >"$T/state/run/blockd.pid"
expect_status 3 strato status
expect_status 0 strato down
ok "we were not taken for blockd"

# The mount point.
touch "$C/precious"
expect_status 1 strato up
expect_text "$T/err" "the mount point '$C' is not empty"
rm "$C/precious"
if [ "$(id -u)" = 0 ]; then
        mount -t tmpfs none "$C" || fail "no tmpfs"
        expect_status 1 strato up
        expect_text "$T/err" "another file system is mounted on '$C'"
        expect_status 0 strato down
        mountpoint -q "$C" || fail "down took away what is not ours"
        umount "$C"
fi
running blockd && fail "blockd was left"

# The mount point is remembered.
daemon blockd 'exit 1'
"$STRATO" up --state "$T/state" --mount "$T/other" >/dev/null 2>&1
"$STRATO" status --state "$T/state" --json >"$T/out"
[ "$(jq -r .mount "$T/out")" != "$T/other" ] || fail "a failed up is remembered"

# A program that serves no more: its holder gives up what it holds.
cat >"$T/once" <<'END'
#!/bin/bash
[ ! -e "$0.served" ] || exec sleep 1000
: >"$0.served"
/usr/bin/python3 -c 'import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0"))'
exit 1
END
chmod 755 "$T/once"
expect_status 1 "$T/programs/stratofs-hold" --give-up 1 -- "$T/once"
expect_text "$T/err" "did not serve again for 1 s"
ok "all"
