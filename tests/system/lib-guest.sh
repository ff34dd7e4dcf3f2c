# For system tests: the guest image, and words of a running guest's console.  After tests/lib.sh.

# guest_image FILE [OPTION...]: a copy of the guest that all tests of this build folder share.
guest_image() {
        local file=$1 made
        shift
        made=$BUILD/guest$(printf %s "$@").qcow2
        (
                flock 9
                [ -s "$made" ] || "$SOURCE/contrib/make-guest" "$made" "$@" >/dev/null
        ) 9>"$BUILD/guest.lock" || fail "make-guest"
        cp "$made" "$file" || fail "no guest image"
}

# shut TEXT... into the guest's console
guest_types() {
        local name=$1
        shift
        echo "$*" | socat -t0.5 - "UNIX:$(cat "$C/tenants/default/instances/$name/console")" \
                >/dev/null || fail "console of $name"
}

# pid of the QEMU whose command line names this instance's id
guest_pid() {
        local id
        id=$(cat "$1/id") || return 1
        grep -las -- "$id" /proc/[0-9]*/cmdline | while read -r file; do
                tr "\0" "\n" 2>/dev/null <"$file" | head -n 1 | grep -q qemu && echo "${file//[!0-9]/}"
        done | head -n 1
}

daemon_pid() {
        # pid file of stratod or blockd below the state folder
        "$STRATO" status --json --state "$T/state" --mount "$C" |
                /usr/bin/python3 -c "import json, sys
print(json.load(sys.stdin)['$1']['pid'])"
}
