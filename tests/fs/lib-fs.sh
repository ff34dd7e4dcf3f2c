# A mount on a store in memory (fs-host), for the tests of fs/ alone.  After start_fs the current
# folder is the default tenant's; $C is the mount.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

start_fs() {
        requires nbdkit
        mkdir -p "$C" "$T/d" "$T/state/log"
        spawn "$BUILD/tests/fs/fs-host" "$C" "$T/d" "$T/nbd.sock" "$@" >"$T/ready" 2>"$T/state/log/host.log"
        host_pid=$!
        wait_line "$T/ready" ready 20
        G=$(cat "$C/tenants/default/gid")
        cd "$C/tenants/default" || fail "no default tenant"
        wait_until 20 grep -q active state || fail "the default tenant is $(cat state)"
}

# The volumes' files, as blockd would serve them.
start_nbd() {
        rm -f "$T/nbd.sock"
        spawn nbdkit -f -U "$T/nbd.sock" file dir="$T/d/vol" >"$T/nbd.log" 2>&1
        nbd_pid=$!
        wait_until 10 test -S "$T/nbd.sock" || fail "nbdkit does not start"
}

# Ends the mount and looks at what the sanitizers said.
end_fs() {
        cd /
        kill -TERM $host_pid
        wait $host_pid || fail "fs-host ended with $?"
        ! mountpoint -q "$C" || fail "the mount is still there"
        ok "it ends and unmounts"
}

# One request to a UNIX socket, and its answer of one line.
socket() {
        /usr/bin/python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
print(s.makefile().readline(), end="")' "$1"
}

volume() {
        mkdir "volumes/$1" && echo "${2:-1M}" >"volumes/$1/size" &&
                [ "$(cat "volumes/$1/.wait/available@20")" = available ] || fail "no volume $1"
}

is() {
        [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
        ok "$1"
}
