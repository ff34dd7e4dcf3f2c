#!/bin/bash
# A guest's serial console: the log of this boot and of those before, followed through the mount; a
# terminal on it, by a socket and by strato console.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 socat
requires_root

expect "kernel and ramdisk" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/kernel/vmlinuz" images/vmlinuz.aki
cp "$T/kernel/initrd.gz" images/initrd.ari
expect "the ramdisk is active" "$STRATO" wait images/initrd active --timeout 60
echo 'name=web flavor=small kernel=images/vmlinuz ramdisk=images/initrd' >instances/new || fail "new"
echo 'console=ttyS0' >instances/web/cmdline
expect_status 1 "$STRATO" console web --mount "$C"
expect_text "$T/err" "does not run"
[ -z "$(cat instances/web/console.log)" ] || fail "it has said something"
tail -n +1 -f instances/web/console.log >"$T/followed" 2>/dev/null &
test_pids="$test_pids $!"
echo start >instances/web/ctl
expect "it is active" "$STRATO" wait instances/web active --timeout 60
wait_line "$T/followed" "STRATOFS-GUEST ready" 90
guest_types web 'echo first $((40 + 2))'
wait_line "$T/followed" "first 42" 30
[ "$(stat -c %s instances/web/console.log)" -ge "$(wc -c <"$T/followed")" ] || fail "its size"

# --- a terminal, typed into as people do: through a pty
cat >"$T/type.py" <<'END'
import os, pty, select, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def until(text):
    global seen
    end = time.monotonic() + 60
    while text not in seen:
        if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit("no %r in %r" % (text, seen))
        seen += os.read(fd, 4096)
    seen = seen[seen.index(text) + len(text):]
until(b"^] leaves")
lflag = lambda: termios.tcgetattr(fd)[3]
while lflag() & termios.ICANON:
    time.sleep(0.01)
os.write(fd, b"echo typed $((40 + 2))\r")
until(b"typed 42")
until(b"# ")
os.write(fd, b"sleep 1000\r")
until(b"sleep 1000")
os.write(fd, b"\x03")  # the guest's, not ours
until(b"# ")
os.write(fd, b"echo stopped $((40 + 3))\r")
until(b"stopped 43")
os.write(fd, b"\x1dnot for the guest")
until(b"Left.")
assert lflag() & termios.ICANON, "the terminal stays raw"
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
expect "strato console, by name" /usr/bin/python3 "$T/type.py" "$STRATO" console web --mount "$C"
wait_line "$T/followed" "typed 42" 30
grep -q "not for the guest" instances/web/console.log && fail "what stands behind ^] was sent"
echo 'echo piped $((40 + 4))' | "$STRATO" console instances/web >"$T/out" 2>"$T/err" || fail "piped"
expect_text "$T/out" "piped 44"

# --- each start begins a log; three boots before are kept; who follows goes on
before=$(md5sum <instances/web/console.log)
for boot in 2 3 4 5; do
        wait_until 60 test -s instances/web/console.log || fail "it says nothing"
        echo 'stop now' >instances/web/ctl
        expect "it is off" "$STRATO" wait instances/web stopped --timeout 60
        [ $boot = 2 ] && before=$(md5sum <instances/web/console.log)
        echo start >instances/web/ctl
        expect "boot $boot" "$STRATO" wait instances/web active --timeout 60
        case $boot in
        2) [ "$(md5sum <instances/web/console.log.1)" = "$before" ] || fail "console.log.1" ;;
        4) [ "$(md5sum <instances/web/console.log.3)" = "$before" ] || fail "console.log.3" ;;
        5) [ "$(md5sum <instances/web/console.log.3)" != "$before" ] || fail "the oldest is left" ;;
        esac
done
wait_line instances/web/console.log "STRATOFS-GUEST ready" 90
grep -q "first 42" instances/web/console.log && fail "two boots in one log"
guest_types web 'echo last $((40 + 5))'
wait_line "$T/followed" "last 45" 30
cd / && stop_cloud
