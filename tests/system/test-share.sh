#!/bin/bash
# A volume that two guests have at once, one that they may only read, and types' limits.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-guest.sh"
requires qemu-system-x86_64 socat
requires_root

expect "kernel and ramdisk" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
is() {
        [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
        ok "$1"
}
cp "$T/kernel/vmlinuz" images/vmlinuz.aki && cp "$T/kernel/initrd.gz" images/initrd.ari || fail "cp"
cat images/{vmlinuz,initrd}/.wait/active@60 >/dev/null || fail "the kernel is no image"
echo 'name=shared multi_attach=1' >"$C/volume_types/new" || fail "a type"
echo 'name=both size=1M type=shared' >volumes/new && echo 'name=ro size=1M' >volumes/new &&
        cat volumes/{both,ro}/.wait/available@20 >/dev/null || fail "volumes"
head -c 1M /dev/urandom >"$T/bytes" && cp "$T/bytes" volumes/ro/data || fail "fill"
sum=$(md5sum <"$T/bytes" | cut -d' ' -f1)
echo 1 >volumes/ro/readonly || fail "readonly"
expect_errno EACCES dd if=/dev/zero of=volumes/ro/data count=1 conv=notrunc

for i in one two; do
        echo "name=$i flavor=small kernel=images/vmlinuz ramdisk=images/initrd cmdline=console=ttyS0" \
                >instances/new || fail "new"
        expect "$i links it" ln -s volumes/both "instances/$i/volumes/vda"
done
expect "one links the other, too" ln -s volumes/ro instances/one/volumes/vdb
expect_errno EBUSY ln -s volumes/ro instances/two/volumes/vdb
echo start >instances/one/ctl && echo start >instances/two/ctl || fail "start"
for i in one two; do
        expect "$i is active" "$STRATO" wait "instances/$i" active --timeout 90
        wait_line "instances/$i/console.log" "STRATOFS-GUEST ready" 180
done
is "attached to both" "$(cat volumes/both/attached_to)" "one:vda two:vda"
is "and in use" "$(cat volumes/both/state)" in-use
for i in one two; do
        tr '\0' '\n' <"/proc/$(guest_pid "instances/$i")/cmdline" >"$T/cmdline"
        expect_text "$T/cmdline" '"share-rw":true'
done

# --- what one writes the other reads
guest_types one 'echo from-one | dd of=/dev/vda bs=512 count=1 conv=sync && sync && echo wrote $((40 + 2))'
wait_line instances/one/console.log "wrote 42" 60
guest_types two 'echo 3 >/proc/sys/vm/drop_caches; echo read $(dd if=/dev/vda bs=512 count=1 | head -n 1)'
wait_line instances/two/console.log "read from-one" 60

# --- to be read only, from end to end
guest_types one 'echo sum $(md5sum </dev/vdb) ro=$(cat /sys/block/vdb/ro)'
wait_line instances/one/console.log "sum $sum - ro=1" 60
guest_types one 'dd if=/dev/zero of=/dev/vdb count=1 || echo refused $((40 + 3))'
wait_line instances/one/console.log "refused 43" 60
echo '{"op":"list_exports"}' | socat -t10 - "UNIX:$T/state/run/blockd.sock" >"$T/exports"
/usr/bin/python3 - "$T/exports" "$(cat volumes/ro/id)" <<'END' || fail "exports"
import json, sys
got = [(x["volume"] == sys.argv[2], x["readonly"]) for x in json.load(open(sys.argv[1]))["exports"]]
assert sorted(got) == [(False, False), (False, False), (True, True)], got
END
ok "the export refuses writes"
expect_errno EBUSY 'echo 0 >volumes/ro/readonly'

# --- one of two lets go, comes back, and the other never notices
expect "one lets go" rm instances/one/volumes/vda
wait_until 60 test ! -e instances/one/volumes/vda || fail "it is still there"
wait_line instances/one/console.log "STRATOFS-GUEST gone vda" 60
is "the other has it" "$(cat volumes/both/attached_to) $(cat volumes/both/state)" "two:vda in-use"
guest_types two 'echo from-two | dd of=/dev/vda bs=512 count=1 conv=sync && sync && echo wrote $((40 + 4))'
wait_line instances/two/console.log "wrote 44" 60
expect "it comes back" ln -s volumes/both instances/one/volumes/vdc
expect "in use again" "$STRATO" wait volumes/both in-use --timeout 60
came_back() { # under the name that is free
        [ "$(grep -c "STRATOFS-GUEST disk vda 1048576" instances/one/console.log)" = 2 ]
}
wait_until 60 came_back || fail "the guest does not see it again"
guest_types one 'dd if=/dev/vda bs=512 count=1 2>/dev/null | head -n 1'
wait_line instances/one/console.log "from-two" 60

# --- growth reaches both
echo 2M >volumes/both/size || fail "size"
wait_line instances/two/console.log "STRATOFS-GUEST disk vda 2097152" 60
wait_line instances/one/console.log "STRATOFS-GUEST disk vda 2097152" 60
for i in one two; do
        echo 'stop now' >"instances/$i/ctl"
        expect "$i is off" "$STRATO" wait "instances/$i" stopped --timeout 60
done
expect "both let go" rm instances/one/volumes/vdc instances/two/volumes/vda
is "at rest" "$(cat volumes/both/state)" available
cd / && stop_cloud
