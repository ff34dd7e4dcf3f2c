# Several whole hosts on this machine, for the tests that tests/hosts/in-hosts runs.  After tests/lib.sh.
#
# A host has network, mount, PID and UTS namespaces of its own, a libvirtd, and on its disk, which outlives it,
# the same paths as any other: /srv/cloud (the mount), /srv/state, /srv/conf.  All sit at one bridge,
# 10.77.0.11, .12, ... in the order of their first power-on; /etc/hosts names them.  Seen from the test they
# are below $T/NAME: `disk` is /srv, without the mount.
#
#     host_on NAME              powers it on: it has its network and its libvirtd, nothing of ours
#     host_conf NAME LINE...    its /srv/conf: the store and the volumes of the cluster, the cloud's key, and these lines
#     strato_up NAME [OPTION...]    strato up there
#     on NAME COMMAND...        runs the command there, in the mount (in / without one); one argument is a line for bash
#     host_cut NAME             the switch forwards nothing of it any more: no side is told
#     host_mend NAME            it does again
#     host_kill NAME            power failure: nobody hears of it, all its processes are gone at once
#     hosts_off                 everything, in the end; tests call it by their own trap
#     host_pid NAME             its process 1, as numbered here
#     host_pids NAME REGEX      as numbered here, of the processes there whose command lines match
#     guest_of NAME PATH        the pid, as numbered here, of the QEMU of the instance at PATH in NAME's mount
#     guest_pids NAME [ID]      of all there, or of the instance with that id
#     await COMMAND...          until it succeeds; else the test fails with the hosts' logs
#     shows NAME PATH TEXT      whether that file in its mount holds TEXT; for `await`
#     LEASE                     seconds; 4

LEASE=${LEASE:-4}
SPACE=hosts
hosts_names=''
declare -A hosts_index hosts_init

host_address() {
        echo "10.77.0.$((10 + hosts_index[$1]))"
}

host_table() {
        local n
        echo 127.0.0.1 localhost
        for n in $hosts_names; do
                echo "$(host_address "$n") $n"
        done
}

# What is on a new host's disks.
host_install() {
        local dir=$T/$1 n
        hosts_names="$hosts_names $1"
        n=$(wc -w <<<"$hosts_names")
        hosts_index[$1]=$n
        mkdir -p "$dir/disk/cloud" "$dir"/libvirt/{lib,cache,log}
        chmod 711 "$dir" "$dir/disk"
        mkfifo "$dir/plugged" "$dir/ready"
        cp -a /etc "$dir/etc" # groups of tenants are made there
        sed -i /^st-/d "$dir"/etc/group "$dir"/etc/gshadow
        rm -f "$dir/etc/machine-id" "$dir/etc/hosts"
        tr -d - </proc/sys/kernel/random/uuid >"$dir/etc/machine-id"
        # Other hosts' libvirtds reach it, as for migrations, and nobody else is in the room.
        printf '%s\n' "host_uuid = \"$(cat /proc/sys/kernel/random/uuid)\"" 'listen_tls = 0' 'listen_tcp = 1' \
                'auth_tcp = "none"' >"$dir/etc/libvirt/libvirtd.conf"
        # One set of cgroups for all hosts would mix them up.
        echo 'cgroup_controllers = []' >"$dir/etc/libvirt/qemu.conf"
        "$(dirname "${BASH_SOURCE[0]}")/../qemu-conf" >>"$dir/etc/libvirt/qemu.conf"
        # What QEMU is able to was asked before, by another test of this build folder.
        [ ! -d "$BUILD/libvirt-cache" ] || cp -a "$BUILD/libvirt-cache/." "$dir/libvirt/cache"
        [ -e "$T/cloud.key" ] || (umask 077 && head -c 32 /dev/urandom >"$T/cloud.key")
        host_conf "$1"
}

host_conf() {
        local name=$1
        shift
        {
                printf '%s\n' "store = rados:$STRATOFS_POOL/$SPACE" "volumes = rbd:rbd/$SPACE" \
                        "ceph_conf = $CEPH_CONF" "host = $name" "lease = $LEASE" "cloud_key = $T/cloud.key"
                [ $# = 0 ] || printf '%s\n' "$@"
        } >"$T/$name/disk/conf"
}

host_plug() {
        ip link show "p-$1" >/dev/null 2>&1 ||
                ip link add "p-$1" type veth peer name eth0 netns "${hosts_init[$1]}" || return
        ip link set "p-$1" master fabric up
}

host_on() {
        local name=$1 dir=$T/$1 n parent said
        [ "${hosts_index[$name]:-}" ] || host_install "$name"
        for n in $hosts_names; do
                host_table >"$T/$n/etc/hosts"
        done
        unshare --mount --net --uts --pid --ipc --fork --kill-child --propagation private \
                "$TESTS/hosts/host-init" "$name" "$(host_address "$name")" "$dir" >>"$T/$name.log" 2>&1 &
        parent=$!
        disown $parent
        wait_until 10 pgrep -P $parent || fail "host $name does not begin: $(cat "$T/$name.log")"
        hosts_init[$name]=$(pgrep -P $parent)
        wait_until 10 host_plug "$name" || fail "no cable for host $name: $(host_plug "$name" 2>&1)"
        echo plugged >"$dir/plugged"
        read -r -t 90 said <>"$dir/ready" || fail "host $name does not come up: $(cat "$T/$name.log")"
        host_probed "$name"
}

# The first of a build folder asks each QEMU what it is, and leaves the answer to the others.
host_probed() {
        [ ! -d "$BUILD/libvirt-cache" ] || return 0
        on "$1" virsh -c qemu:///system capabilities >/dev/null || fail "libvirt of host $1"
        cp -a "$T/$1/libvirt/cache" "$BUILD/libvirt-cache.$$" &&
                mv -T "$BUILD/libvirt-cache.$$" "$BUILD/libvirt-cache" 2>/dev/null || :
        rm -rf "$BUILD/libvirt-cache.$$"
}

host_pid() {
        echo "${hosts_init[$1]}"
}

on() {
        local name=$1
        shift
        [ $# != 1 ] || set -- bash -c "$1"
        nsenter --mount --net --uts --pid --ipc -t "${hosts_init[$name]}" \
                sh -c 'cd /srv/cloud 2>/dev/null || cd /; exec "$@"' sh "$@"
}

# The kernel's keyring of root is one for all hosts: what one of them knows the others would know.
strato_up() {
        local name=$1
        shift
        on "$name" env STRATOFS_FAULT="volume.keyring=ENOSYS${STRATOFS_FAULT:+,$STRATOFS_FAULT}" "$STRATO" up --mount /srv/cloud --state /srv/state --conf /srv/conf "$@" >"$T/out" 2>"$T/err" ||
                fail "strato up: host $name"
}

# The device at the host's end shows nothing of it.
host_cut() {
        ip link set "p-$1" nomaster || fail "cut $1"
}
host_mend() {
        ip link set "p-$1" master fabric || fail "mend $1"
}

# Cut first: a kernel that closes its dead processes' connections says so to the other side.
host_kill() {
        local pid=${hosts_init[$1]}
        host_cut "$1"
        kill -KILL "$pid"
        wait_gone "$pid" 20
        unset "hosts_init[$1]"
        ip link del "p-$1" 2>/dev/null || :
}

hosts_off() {
        local name
        for name in "${!hosts_init[@]}"; do
                kill -KILL "${hosts_init[$name]}" 2>/dev/null
                wait_until 20 test_is_gone "${hosts_init[$name]}"
        done
}

host_pids() {
        local pid
        for pid in $(pgrep -f -- "$2"); do
                [ "$(readlink "/proc/$pid/ns/pid")" != "$(readlink "/proc/${hosts_init[$1]}/ns/pid")" ] || echo "$pid"
        done
}

guest_pids() {
        host_pids "$1" "^[^ ]*qemu-system.*uuid ${2:-}"
}

guest_of() {
        local id
        id=$(on "$1" cat "$2/id") && guest_pids "$1" "$id"
}

hosts_logs() {
        local file
        for file in "$T"/*/disk/state/log/*.log "$T"/*.log; do
                [ -s "$file" ] || continue
                echo "--- ${file#"$T"/}"
                tail -n 25 "$file"
        done >&2
}

await() {
        wait_until 60 "$@" || {
                hosts_logs
                fail "in vain: $*"
        }
}

shows() {
        on "$1" grep -qF -- "$3" "$2"
}

hosts_end() {
        local status=$?
        [ $status = 0 ] || hosts_logs
        hosts_off
        (exit $status)
        test_end
}
trap hosts_end EXIT
