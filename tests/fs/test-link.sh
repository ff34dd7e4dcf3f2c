#!/bin/bash
# Links, waits, poll, events.
. "$(dirname "$0")/lib-fs.sh"
start_fs
volume a
volume b
mkdir instances/web volumes/draft || fail "mkdir"

# --- links
expect "a link by a path from the tenant" ln -s volumes/a instances/web/volumes/vda
is "readlink is canonical" "$(readlink instances/web/volumes/vda)" ../../../volumes/a
expect "it can be followed" test -f instances/web/volumes/vda/size
expect "the next free device" ln -s volumes/b instances/web/volumes/
is "vdb" "$(readlink instances/web/volumes/vdb)" ../../../volumes/b
expect_errno EEXIST ln -sT volumes/b instances/web/volumes/vdb
expect_errno ENOENT ln -s nothing instances/web/volumes/vdc
expect_text instances/web/error "nothing"
expect_errno EINVAL ln -s "$C/flavors/small" instances/web/volumes/vdc
expect_errno ENOENT ln -s volumes/a volumes/draft/sauce
expect_text volumes/draft/error "its links: source"
expect_errno EINVAL ln -s instances/web volumes/draft/source
expect_errno EEXIST ln -sT volumes/a instances/web/volumes
expect_errno EPERM mv instances/web/volumes/vdb instances/web/volumes/vdc
expect_errno EBUSY rmdir volumes/a
expect_text volumes/a/error instances/web
rm instances/web/volumes/vdb || fail "detach"
[ ! -L instances/web/volumes/vdb ] || fail "rm of a link"
expect "ln -sfn replaces" ln -sfn ../../../volumes/b instances/web/volumes/vda
is "replaced" "$(readlink instances/web/volumes/vda)" ../../../volumes/b
expect_errno ENOENT ln -sfn nothing instances/web/volumes/vda
is "a failed replacement puts it back" "$(readlink instances/web/volumes/vda)" ../../../volumes/b
is "no temporary is left" "$(ls instances/web/volumes)" vda
expect "a tenant of its own" bash -c "mkdir $C/tenants/acme && cat $C/tenants/acme/.wait/active@20"
mkdir "$C/tenants/acme/volumes/other" || fail "mkdir in acme"
expect_errno EPERM ln -s ../../../../acme/volumes/other instances/web/volumes/vdc

# --- waits
is "a state that is there" "$(cat volumes/a/.wait/available)" available
expect_errno ENOENT cat volumes/a/.wait/nosuchstate
expect_errno ETIMEDOUT cat volumes/b/.wait/error@1
expect_text "$C/self/error" "ETIMEDOUT"
expect_errno EAGAIN dd if=volumes/b/.wait/error iflag=nonblock
mkdir volumes/g
exec 5<volumes/g/.wait/gone@20
rmdir volumes/g
is "gone" "$(cat <&5)" gone
exec 5<&-
/usr/bin/python3 - <<'END' || fail "signals free a wait"
import subprocess, signal, time
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
    p = subprocess.Popen(["cat", "volumes/b/.wait/error"], preexec_fn=lambda:
                         signal.signal(signal.SIGINT, signal.SIG_DFL))
    while b"fuse" not in open(f"/proc/{p.pid}/wchan", "rb").read() and \
            open(f"/proc/{p.pid}/stat").read().split(")")[1].split()[0] not in "SD":
        time.sleep(0.01)
    p.send_signal(sig)
    assert p.wait(10) == -sig, p.returncode
END
ok "signals free a wait"

# --- poll(2)
/usr/bin/python3 - <<'END' || fail "poll"
import os, select, subprocess
fd = os.open("volumes/a/state", os.O_RDONLY)
assert os.read(fd, 100) == b"available\n"
p = select.poll()
p.register(fd, select.POLLPRI)
assert p.poll(0) == []
child = subprocess.Popen(["bash", "-c", "echo 5M >volumes/a/size"])
assert p.poll(20000), "no event"
child.wait()
os.lseek(fd, 0, 0)
assert os.read(fd, 100)
END
ok "poll wakes on a transition"

# --- a growing log
spawn tail -n 1 -F events >"$T/tail" 2>&1
wait_until 10 test -s "$T/tail" || fail "tail -f says nothing"
mkdir volumes/logged
wait_line "$T/tail" "volumes/logged created" 10

# --- a tenant goes with its group, and only when it is empty
expect_errno EBUSY rmdir "$C/tenants/acme"
expect_text "$C/tenants/acme/error" "volumes/other"
group=$(cat "$C/tenants/acme/group")
[ "$(stat -c %G "$C/tenants/acme")" = "$group" ] || fail "group of the tenant's directory"
expect "the empty tenant goes" rmdir "$C/tenants/acme/volumes/other" "$C/tenants/acme"
group_gone() {
        ! getent group "$group"
}
wait_until 20 group_gone || fail "group $group is left"
end_fs
