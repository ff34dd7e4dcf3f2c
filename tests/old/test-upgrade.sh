#!/bin/bash
# The programs are replaced by others under a guest that writes and reads back all the time: stratod
# and blockd go over to them, no request of the guest fails, and the mount is away for a moment.
# STRATOFS_OLD is the build folder of an earlier release; without it this one's follow each other.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../system/lib-guest.sh"
[ "${STRATOFS_LONG:-}" ] || { echo "SKIP: minutes, with STRATOFS_LONG=1" && exit 0; }
requires qemu-system-x86_64 qemu-img socat
requires_root
OLD=${STRATOFS_OLD:-$BUILD}
P=$T/programs

# install BUILD: its programs where the others were, each renamed into its place as packages do it
install_from() {
        local file
        (cd "$1" && find cli fs blockd backend metadata -type f -perm /111 2>/dev/null) |
                while read -r file; do
                        mkdir -p "$P/${file%/*}"
                        cp "$1/$file" "$P/$file.new" && mv "$P/$file.new" "$P/$file"
                done
}
# the longest time without an answer of the mount, in ms
watch_mount() {
        /usr/bin/python3 - "$C/tenants/default/state" "$T/gap" <<'PY'
import os, sys, time
longest, last, failed = 0, time.monotonic(), 0
while not os.path.exists(sys.argv[2] + ".end"):
    try:
        with open(sys.argv[1]) as f:
            f.read()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    except OSError:
        failed += 1
    time.sleep(0.005)
with open(sys.argv[2], "w") as f:
    print(round(longest * 1000), failed, file=f)
PY
}

install_from "$OLD"
STRATO=$P/cli/strato
guest_image "$T/debian.qcow2"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
cp "$T/debian.qcow2" images/
mkdir volumes/root instances/web
ln -s ../../images/debian volumes/root/source
echo small >instances/web/flavor
echo 'name=more size=128M' >volumes/new
expect "a volume" "$STRATO" wait volumes/more available --timeout 60
ln -s volumes/root instances/web/volumes/vda
ln -s volumes/more instances/web/volumes/vdb
echo start >instances/web/ctl
expect "it starts" "$STRATO" wait instances/web active --timeout 300
wait_line instances/web/console.log "STRATOFS-GUEST ready" 300
console=$T/state/instances/$(cat instances/web/id)/console.log
qemu=$(guest_pid instances/web)
guest_types web 'verify() { pattern $2 >/dev/null && echo STRATOFS-GUEST verified $1 || echo STRATOFS-GUEST $((40 + 2)) bad; }'
guest_types web 'while true; do verify root; verify more /dev/vdb; done &'
wait_line "$console" "verified more" 120
cd /
verified() { grep -c "STRATOFS-GUEST verified" "$console"; }
more() { [ "$(verified)" -gt $((before + 3)) ]; }

spawn watch_mount
install_from "$BUILD"
blockd=$(daemon_pid blockd) stratod=$(daemon_pid stratod)
before=$(verified)
expect "strato up --replace" "$STRATO" up --replace --state "$T/state" --mount "$C"
[ "$(daemon_pid blockd)" != "$blockd" ] || fail "blockd was not replaced"
[ "$(daemon_pid stratod)" != "$stratod" ] || fail "stratod was not replaced"
for daemon in blockd stratod; do
        cmp -s "/proc/$(daemon_pid $daemon)/exe" "$BUILD/$([ $daemon = blockd ] && echo blockd || echo fs)/$daemon" ||
                fail "$daemon is not the new one"
done
ok "they are the new ones"
wait_until 120 more || fail "the guest does not go on"
touch "$T/gap.end"
wait_until 10 test -s "$T/gap" || fail "no figure"
read -r longest failed <"$T/gap"
echo "the mount did not answer for $longest ms at most; $failed looks failed meanwhile"
! grep -q "42 bad" "$console" || fail "the guest read something else"
! grep -qiE "i/o error|blk_update_request" "$console" || fail "an I/O error in the guest"
[ "$(guest_pid "$C/tenants/default/instances/web")" = "$qemu" ] || fail "it is another guest"
ok "the guest wrote and read back all the time"
expect "it is still ours" "$STRATO" ctl "$C/tenants/default/instances/web" "stop now"
expect "it stops" "$STRATO" wait "$C/tenants/default/instances/web" stopped --timeout 120
