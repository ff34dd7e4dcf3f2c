#!/bin/bash
# strato tour on a real cloud: it goes through, and leaves nothing.
. "$(dirname "$0")/../lib.sh"
strato() {
        "$STRATO" "$1" --state "$T/state" --mount "$C" "${@:2}"
}
expect_status 3 strato tour
start_cloud
cd "$C/tenants/default" || fail "no tenant"
mkdir volumes/mine || fail "mkdir"
before=$(ls -d [a-iv]*/*/ | sort)
expect_status 0 strato tour </dev/null
cp "$T/out" "$T/tour"
expect_text "$T/tour" '$ echo 64MB > volumes/tour/size'
expect_text "$T/tour" 'EINVAL: set size: '
expect_text "$T/tour" 'start'
[ "$(grep -cx hello "$T/tour")" = 2 ] || fail "the volume and its clone do not say hello"
[ "$(ls -d [a-iv]*/*/ | sort)" = "$before" ] || fail "it left $(ls -d [a-iv]*/*/)"
ok "nothing is left"
expect_status 0 strato tour default </dev/null
# ended in the middle, it takes along what it made: its first read from the terminal is cut off
/usr/bin/python3 - "$STRATO" tour --state "$T/state" --mount "$C" >"$T/cut" <<'END' || fail "the cut tour"
import os, pty, signal, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen, told = b"", 0
while True:
    try:
        part = os.read(fd, 4096)
    except OSError:
        break
    if not part:
        break
    seen += part
    while seen.count(b"[Enter goes on") > told:
        told += 1
        os.write(fd, b"\n" if told < 5 else b"\x03")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert b"rmdir" in seen and b"snapshots/before" not in seen, seen
END
[ "$(ls -d [a-iv]*/*/ | sort)" = "$before" ] || fail "the cut tour left $(ls -d [a-iv]*/*/)"
mkdir volumes/tour
expect_status 1 strato tour </dev/null
expect_text "$T/err" "is there"
[ -d volumes/tour ] || fail "it took what was there"
cd /
stop_cloud
