#!/bin/bash
# Encrypted volumes through the mount: made blank and from an image, over restarts and a boot's
# forgetting, and gone for good with their tenant.
. "$(dirname "$0")/../lib.sh"
requires_root
requires cryptsetup keyctl qemu-img setpriv
start_cloud
cd "$C/tenants/default" || fail "no default tenant"

made() {
        [ "$(cat "volumes/$1/.wait/available@60")" = available ] || fail "no volume $1: $(cat "volumes/$1/error")"
}

# --- blank
mkdir volumes/v
[ "$(cat volumes/v/encrypted)" = 0 ] || fail "encrypted by itself"
expect "a mark in the draft" bash -c 'echo 1 >volumes/v/encrypted'
expect_errno EINVAL 'echo 1049088 >volumes/v/size'
echo 16M >volumes/v/size
made v
expect_status 1 bash -c 'echo 0 >volumes/v/encrypted'
id=$(cat volumes/v/id)
header=$T/state/blockd/crypt/$id/header
expect "LUKS2" cryptsetup luksDump "$header"
expect_text "$T/out" "aes-xts-plain64"
yes 'plain text of ours' | head -c 8M >"$T/text"
expect "written" dd if="$T/text" of=volumes/v/data bs=1M conv=notrunc,fsync
expect "read back" cmp -n 8388608 "$T/text" volumes/v/data
! grep -rlqs 'plain text of ours' "$T/state" || fail "plain text on disk"
ok "no plain text on disk"

# --- from an image: copied and encrypted, with room behind it
qemu-img create -q -f qcow2 "$T/disk.qcow2" 70M
qemu-io -f qcow2 -c 'write -P 77 1M 3M' "$T/disk.qcow2" >/dev/null || fail "qemu-io"
cp "$T/disk.qcow2" images/
[ "$(cat images/disk/.wait/active@60)" = active ] || fail "no image"
mkdir volumes/w
echo 1 >volumes/w/encrypted
ln -s ../../images/disk volumes/w/source
made w
expect "the image's bytes" qemu-img compare -f raw -F qcow2 volumes/w/data "$T/disk.qcow2"
expect "of a family of its own" test -e "$T/state/blockd/crypt/$(cat volumes/w/id)/header"

# --- no plain copy of it by the way
mkdir backups/b
expect_errno EOPNOTSUPP 'ln -s ../../volumes/v backups/b/source'
expect_text backups/b/error "would hold its plain bytes"
rmdir backups/b || fail "rmdir backup"

# --- what grows from it has its key; types may ask for it
mkdir volumes/v/snapshots/s
[ "$(cat volumes/v/snapshots/s/.wait/available@60)" = available ] || fail "no snapshot"
mkdir volumes/clone
ln -s ../v/snapshots/s volumes/clone/source
made clone
[ "$(cat volumes/clone/encrypted)" = 1 ] || fail "a clone of an encrypted volume does not say so"
expect "in the same family" test -e "$T/state/blockd/crypt/$id/m.$(cat volumes/clone/id)"
expect "with its bytes" cmp -n 8388608 "$T/text" volumes/clone/data
dd if=/dev/zero of=volumes/v/data bs=1M count=1 conv=notrunc,fsync status=none
expect "reverted" bash -c 'echo "revert s" >volumes/v/ctl'
made v
expect "as it was" cmp -n 8388608 "$T/text" volumes/v/data
expect_errno EINVAL 'echo "shrink 8389120" >volumes/v/ctl'
mkdir "$C/volume_types/vault"
echo 1 >"$C/volume_types/vault/encrypted"
mkdir volumes/typed
echo vault >volumes/typed/type
[ "$(cat volumes/typed/encrypted)" = 1 ] || fail "the type encrypts nothing"
expect_errno EINVAL 'echo 0 >volumes/typed/encrypted'
ln -s ../clone volumes/typed/source
made typed
expect "of the clone's family, too" test -e "$T/state/blockd/crypt/$id/m.$(cat volumes/typed/id)"
expect "with its bytes" cmp -n 8388608 "$T/text" volumes/typed/data
mkdir volumes/more
echo vault >volumes/more/type
ln -s ../../images/disk volumes/more/source
made more
expect "a type makes a copy of a plain image" test -e "$T/state/blockd/crypt/$(cat volumes/more/id)/header"
! grep -rlqs 'plain text of ours' "$T/state" || fail "plain text on disk"
expect "rmdir" rmdir volumes/typed volumes/more
rmdir volumes/clone || fail "rmdir clone"
rmdir volumes/v/snapshots/s || fail "rmdir snapshot"
# --- from a plain volume: a copy of one moment, whatever is written meanwhile
mkdir volumes/p
echo 64M >volumes/p/size
made p
yes one | head -c 64M >"$T/one"
expect "written" dd if="$T/one" of=volumes/p/data bs=1M conv=notrunc,fsync
mkdir volumes/x
echo 1 >volumes/x/encrypted
ln -s ../p volumes/x/source
data=$T/state/blockd/pool/$(cat volumes/x/id)/data.0
wait_until 20 test -s "$data"
wait_until 20 bash -c "[ \"\$(stat -c %b '$data')\" -gt 0 ]" # its beginning is copied
echo two | dd of=volumes/p/data conv=notrunc,fsync status=none || fail "dd"
echo two | dd of=volumes/p/data bs=4 seek=16777215 conv=notrunc,fsync status=none || fail "dd"
made x
case $(head -c 3 volumes/x/data)-$(tail -c 4 volumes/x/data) in
one-two) fail "bytes of two moments" ;;
*) ok "one moment's bytes" ;;
esac
wait_until 20 bash -c "[ \"\$(find '$T/state/blockd/pool' -mindepth 1 -maxdepth 1 | wc -l)\" = 5 ]" ||
        fail "volumes: $(ls "$T/state/blockd/pool")"
ok "the snapshot is gone"
rmdir volumes/x volumes/p

# The keyring is of blockd's user.
of_blockd() {
        setpriv --reuid="$blockd" --clear-groups "$@"
}
blockd=$(stat -c %u "$T/state/blockd")
[ "$blockd" != 0 ] || fail "blockd is root"
! keyctl search @u user "stratofs:$id" >/dev/null 2>&1 || fail "root's keyring has the key"

# --- the tenant's key is nobody's to see
key=$T/state/keys/$(cat id)
[ "$(stat -c '%a %s' "$key")" = "600 32" ] || fail "the key's file"
[ "$(stat -c %a "$T/state/keys")" = 700 ] || fail "the keys' folder"
of_blockd keyctl print "$(of_blockd keyctl search @u user "stratofs:$id")" >"$T/passphrase" || fail "no key in the keyring"
printf %s "$(cat "$T/passphrase")" >"$T/secret"
expect "it opens the header" cryptsetup luksOpen --test-passphrase --key-file "$T/secret" "$header"
! grep -rqsF "$(cat "$T/secret")" "$T/state" || fail "the passphrase is on disk"
ok "the passphrase is nowhere on disk"

# --- a boot: both daemons begin anew and the keyring is empty
cd /
stop_cloud
of_blockd keyctl unlink "$(of_blockd keyctl search @u user "stratofs:$id")" @u >/dev/null || fail "keyctl"
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
wait_until 20 cmp -n 8388608 "$T/text" volumes/v/data || fail "it stays locked"
ok "stratod gives the key again"

# --- to another tenant, who opens it with a key of his own
mkdir "$C/tenants/other" || fail "a tenant"
expect "the other tenant" "$STRATO" wait "$C/tenants/other" active --timeout 30
mkdir volumes/c && ln -s ../../volumes/v volumes/c/source
made c
expect_errno EBUSY 'echo offer >volumes/v/ctl'
expect_text volumes/v/error "its key is also that of"
rmdir volumes/c
expect "it is offered" wait_until 20 bash -c 'echo offer >volumes/v/ctl'
echo "name=mine transfer=$(cat volumes/v/transfer)" >"$C/tenants/other/volumes/new" || fail "transfer"
mine=$C/tenants/other/volumes/mine
expect "it is the other's" "$STRATO" wait "$mine" available --timeout 60
wait_until 20 test ! -e "volumes/.id/$id" || fail "the old one is still there"
expect "with its bytes" cmp -n 8388608 "$T/text" "$mine/data"
[ "$(cat "$mine/encrypted")" = 1 ] || fail "not encrypted"
opens() {
        cryptsetup luksOpen --test-passphrase --key-file "$1" "$header" >"$T/out" 2>"$T/err"
}
! opens "$T/secret" || fail "the first tenant's key opens it still"
printf %s "$(of_blockd keyctl print "$(of_blockd keyctl search @u user "stratofs:$id")")" >"$T/secret2"
opens "$T/secret2" || fail "the other tenant's key does not open it"
ok "only the other tenant's key opens it"
cd /
stop_cloud
of_blockd keyctl unlink "$(of_blockd keyctl search @u user "stratofs:$id")" @u >/dev/null || fail "keyctl"
start_cloud
wait_until 20 cmp -n 8388608 "$T/text" "$mine/data" || fail "it stays locked"
ok "and gets it again after a boot"

# --- gone
cd "$C/tenants/default" || fail "no default tenant"
expect "rmdir" rmdir "$mine"
wait_until 20 test ! -e "$header" || fail "the header is still there"
! of_blockd keyctl search @u user "stratofs:$id" >/dev/null 2>&1 || fail "the key is still in the keyring"
ok "with the volume its key goes"
expect "rmdir" rmdir volumes/w
cd /
stop_cloud
