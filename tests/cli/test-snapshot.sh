#!/bin/bash
# Snapshots of volumes, and volumes made from them and from volumes, on a real blockd.
. "$(dirname "$0")/../lib.sh"
requires cmp
start_cloud
cd "$C/tenants/default" || fail "no default tenant"
write() {
        head -c "$2" /dev/urandom >"$T/new" && dd if="$T/new" of="volumes/$1/data" bs=64K \
                seek="$3" conv=notrunc,fsync status=none || fail "write $1"
}
keep() {
        cat "volumes/$1/data" >"$T/$2" || fail "read $1"
}

# --- taking, typed as fast as one types
mkdir volumes/v && echo 16M >volumes/v/size && mkdir volumes/v/snapshots/empty || fail "mkdir"
[ "$(cat volumes/v/snapshots/empty/.wait/available@20)" = available ] || fail "no snapshot"
write v 3M 0
keep v one
# What is written after it is available is not in it.
mkdir volumes/v/snapshots/one && cat volumes/v/snapshots/one/.wait/available@20 >/dev/null ||
        fail "no snapshot"
write v 1M 7
keep v two
mkdir volumes/v/snapshots/two && cat volumes/v/snapshots/two/.wait/available@20 >/dev/null ||
        fail "no snapshot"
write v 2M 20
keep v now
expect "the first" cmp volumes/v/snapshots/one/data "$T/one"
expect "the second" cmp volumes/v/snapshots/two/data "$T/two"
expect "the volume" cmp volumes/v/data "$T/now"
expect "an empty one is zeros" cmp -n 16777216 volumes/v/snapshots/empty/data /dev/zero
[ "$(cat volumes/v/snapshots/one/size)" = 16777216 ] || fail "its size"
expect_errno EPERM dd if=/dev/zero of=volumes/v/snapshots/one/data count=1 conv=notrunc
expect_text volumes/v/snapshots/index "two "
expect_text volumes/v/snapshots/help "at one moment"
expect_errno EEXIST mkdir volumes/v/snapshots/one
mkdir volumes/draft || fail "mkdir"
expect_errno EBUSY mkdir volumes/draft/snapshots/s
expect_text "$C/self/error" "volume 'draft' is draft"
echo 'name=three description=words' >volumes/v/snapshots/new || fail "new"
expect_text volumes/v/snapshots/three/description words
expect_errno EPERM mv volumes/v/snapshots/three volumes/

# --- volumes from them
mkdir volumes/c volumes/d || fail "mkdir"
expect "a clone of a snapshot" ln -s ../v/snapshots/one volumes/c/source
expect "from the tenant's folder, by Tab" ln -s volumes/v/snapshots/two volumes/d/source
cat volumes/{c,d}/.wait/available@20 >/dev/null || fail "no clones"
[ "$(readlink volumes/c/source)" = ../../volumes/v/snapshots/one ] || fail "readlink"
expect "the link leads there" cmp volumes/c/source/data "$T/one"
expect "the clone's bytes" cmp volumes/c/data "$T/one"
expect "the other's" cmp volumes/d/data "$T/two"
mkdir volumes/e && ln -s volumes/v volumes/e/source && cat volumes/e/.wait/available@20 >/dev/null ||
        fail "a clone of a volume"
expect "a volume's clone" cmp volumes/e/data "$T/now"
write c 1M 3
expect "the snapshot is as it was" cmp volumes/v/snapshots/one/data "$T/one"
mkdir volumes/small || fail "mkdir"
expect_errno ENOENT ln -s volumes/v/snapshots/nothing volumes/small/source
expect_errno EINVAL ln -s volumes/small volumes/small/source
expect "a draft goes at once" rmdir volumes/small volumes/draft
keep c c

# --- nobody's way out
expect_errno EBUSY rmdir volumes/v
expect_text volumes/v/error "it has snapshots: empty one two three"
expect "renamed" mv volumes/v/snapshots/one volumes/v/snapshots/first
[ "$(readlink volumes/c/source)" = ../../volumes/v/snapshots/first ] || fail "the link follows"
rm -r volumes/v 2>/dev/null && fail "rm -r of a volume"
expect "rm -r harmed nothing" cmp volumes/v/snapshots/first/data "$T/one"

# --- through a restart
cd / && stop_cloud && start_cloud && cd "$C/tenants/default" || fail "restart"
expect "after a restart" cmp volumes/v/snapshots/first/data "$T/one"
expect "the clone, too" cmp volumes/c/data "$T/c"

# --- going back, and letting the source go
echo 'revert first' >volumes/v/ctl || fail "revert"
expect "it has gone back" "$STRATO" wait volumes/v available --timeout 20
expect "to what it held" cmp volumes/v/data "$T/one"
expect "the later one stays" cmp volumes/v/snapshots/two/data "$T/two"
expect_errno ENOENT 'echo "revert nothing" >volumes/v/ctl'
write v 2M 30
keep v now
echo flatten >volumes/d/ctl || fail "flatten"
wait_until 30 test ! -L volumes/d/source || fail "it still leans on its source"
expect "its bytes are its own" cmp volumes/d/data "$T/two"
echo 'shrink 8M' >volumes/e/ctl || fail "shrink"
expect "smaller" "$STRATO" wait volumes/e available --timeout 20
[ "$(cat volumes/e/size)" = 8388608 ] || fail "size after shrink"

# --- described: what is missing is taken, once
cat >"$T/s.yaml" <<'END'
volumes:
  v: {snapshots: [two, four]}
  s: {size: 1M, snapshots: [one]}
END
apply() {
        "$STRATO" "$1" "$T/s.yaml" --state "$T/state" --mount "$C"
}
apply diff >"$T/plan"
apply apply >"$T/out" 2>"$T/err" || fail "apply"
cmp "$T/plan" "$T/out" || fail "diff told: $(cat "$T/plan")"
expect_text "$T/out" "~ volumes/v snapshot four"
expect "the described" grep -x available volumes/v/snapshots/four/state volumes/s/snapshots/one/state
[ ! "$(apply apply)" ] || fail "again"
rmdir volumes/v/snapshots/four volumes/s/snapshots/one volumes/s || fail "rmdir"

# --- deleting, in any order
expect "the middle one" rmdir volumes/v/snapshots/two
expect "the first" rmdir volumes/v/snapshots/first volumes/v/snapshots/empty
[ ! -e volumes/c/source ] || fail "the link to what is gone"
wait_until 20 test ! -e volumes/v/snapshots/first || fail "it is still there"
expect "what was made from it lives on" cmp volumes/c/data "$T/c"
expect "and the other" cmp volumes/d/data "$T/two"
expect "and the volume" cmp volumes/v/data "$T/now"
expect "all at once" rmdir volumes/v/snapshots/three volumes/v
expect "the rest" rmdir volumes/c volumes/d volumes/e
cd /
wait_until 20 "$STRATO" doctor --fsck --state "$T/state" || fail "something stays"
ok "nothing is left behind"
