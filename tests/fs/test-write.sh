#!/bin/bash
# Attributes, ctl, spec, new: what a write does, and what bad input gets.
. "$(dirname "$0")/lib-fs.sh"
start_fs

# --- the long way, and what is in an object
mkdir volumes/v || fail "mkdir"
is "a draft" "$(cat volumes/v/state)" draft
for f in id state created updated ctl spec error events metadata size data; do
        [ -e volumes/v/$f ] || [ -L volumes/v/$f ] || fail "no $f"
done
expect "printf without a newline" bash -c 'printf 10M >volumes/v/size'
is "waits until it is there" "$(cat volumes/v/.wait/available@20)" available
is "read as bytes" "$(cat volumes/v/size)" 10485760
is "st_size is the text's length" "$(stat -c %s volumes/v/size)" 9
is "state's time is the transition's" "$(stat -c %Y volumes/v/state)" \
        "$(date -d "$(grep -- '-> available' volumes/v/events | cut -d' ' -f1)" +%s)"
expect_errno EEXIST mkdir volumes/v

# --- bad values change nothing and leave words with a caret
for bad in 0 -1 1Z '10 G B' $'\xff\xfe' ''; do
        expect_errno EINVAL "echo '$bad' >volumes/v/size"
done
echo '10 G B' >volumes/v/size 2>/dev/null
expect_text volumes/v/error '  input: 10 G B'
expect_text volumes/v/error '           ^'
expect_text "$C/self/error" 'volumes/v/size EINVAL'
expect_text errors 'volumes/v/size EINVAL'
head -c 1048576 /dev/zero | tr '\0' 9 >"$T/digits"
expect_errno EFBIG dd if="$T/digits" of=volumes/v/size bs=1M
expect_errno EINVAL "printf '12M\n13M\n' >volumes/v/size"
is "the first line stood" "$(cat volumes/v/size)" $((12 << 20))
is "available again" "$(cat volumes/v/.wait/available@20)" available
printf '14M\n15M\n' >"$T/two"
expect_errno EINVAL dd if="$T/two" of=volumes/v/size bs=64
is "two lines in one write: none stands" "$(cat volumes/v/size)" $((12 << 20))

# --- truncation, offsets, modes, times
echo text >volumes/v/description
expect "an empty write" bash -c ': >volumes/v/description'
expect "truncate to 0" truncate -s0 volumes/v/description
is "truncation changes nothing" "$(cat volumes/v/description)" text
expect_errno EINVAL truncate -s5 volumes/v/description
expect "append means the same" bash -c 'echo more >>volumes/v/description'
is "append replaces" "$(cat volumes/v/description)" more
expect "dd at an offset" dd if=/dev/stdin of=volumes/v/description seek=3 bs=16 conv=notrunc <<<other
is "the offset is ignored" "$(cat volumes/v/description)" other
expect "touch" touch volumes/v/description
expect "the same mode" chmod 660 volumes/v/description
expect_errno EPERM chmod 600 volumes/v/description
expect_errno EPERM chown 1:1 volumes/v/description
expect_errno EACCES 'echo x >volumes/v/state'
expect_errno ENOENT 'echo 10G >volumes/v/sise'
expect_text volumes/v/error "no file 'sise'"
expect_errno EPERM ln volumes/v/size volumes/v/x
expect_errno EPERM mkfifo volumes/v/fifo
! getfattr -d volumes/v/size 2>&1 | grep -q user || fail "xattrs"

# --- ctl: one verb a line
expect_errno EINVAL 'echo frobnicate >volumes/v/ctl'
expect_text volumes/v/error '^^^^^^^^^^'
expect_errno EBUSY 'printf reset >volumes/v/ctl'
mkdir instances/i && is "legal verbs are listed" "$(head -n 1 instances/i/ctl)" start

# --- new: lines, JSON, the answer on the same descriptor
exec 3<>volumes/new
echo 'name=n1 size=1M description=one' >&3 || fail "new"
read -r name id <&3
exec 3>&-
is "new answers with the name" "$name" n1
is "... and the id" "$id" "$(cat volumes/n1/id)"
is "... and sets the rest" "$(cat volumes/n1/description)" one
printf 'name=n2\nname=n3 size=2M\n' >"$T/lines"
expect "several lines in one copy" cp "$T/lines" volumes/new
[ -d volumes/n2 ] && [ -d volumes/n3 ] || fail "two objects"
printf '{"name": "n4",\n "size": "3M",\n "description": "a } in \\" text"}' >"$T/n4.json"
expect "JSON" cp "$T/n4.json" volumes/new
is "a brace inside a string" "$(cat volumes/n4/description)" 'a } in " text'
expect_errno EEXIST cp "$T/n4.json" volumes/new
expect_errno EINVAL 'echo x >volumes/new'
expect_errno EINVAL 'echo name=../x >volumes/new'
expect_errno EINVAL 'echo name=q size=1Z >volumes/new'
[ ! -e volumes/q ] || fail "a refused new left an object"
expect "a token" bash -c 'echo name=t1 token=abc >volumes/new; echo name=t1 token=abc >volumes/new'

# --- spec: whole, in the write that closes the outermost brace
(
        printf '{"description"'
        sleep 0.1 # another process ends with the descriptor open: that is no end of input
        printf ': "piece by piece"}'
) >volumes/n1/spec || fail "spec in pieces"
is "spec in pieces" "$(cat volumes/n1/description)" "piece by piece"
expect_errno EINVAL 'echo "{\"description\": 1, }" >volumes/n1/spec'
expect_errno EINVAL 'echo text >volumes/n1/spec'
expect_errno EINVAL 'printf "{\"a\"" | tee volumes/n1/spec'
expect "a spec can be copied" bash -c 'mkdir volumes/n5; cp volumes/n1/spec volumes/n5/spec'
is "copied" "$(cat volumes/n5/description)" "piece by piece"
exec 3<>volumes/n1/spec
echo '{"metadata": {"k": "v"}, "description": "two", "size": "1M"}' >&3 || fail "spec"
is "spec answers with what it changed" "$(cat <&3)" $'metadata/k\ndescription: piece by piece -> two'
echo '{"metadata": {"k": "v"}, "description": "two", "size": "1M"}' >&3 || fail "spec again"
is "a spec that is true already changes nothing" "$(cat <&3)" ""
exec 3>&-
expect_text volumes/n1/events "volumes/n1 spec: metadata/k, description"
rev=$(sed -n 's/.*"rev": \([0-9]*\).*/\1/p' volumes/n1/.json)
expect "the revision that was read" bash -c "echo '{\"rev\": $rev, \"description\": \"three\"}' >volumes/n1/spec"
expect_errno ESTALE "echo '{\"rev\": $rev, \"description\": \"lost\"}' >volumes/n1/spec"
expect_errno EINVAL "echo '{\"description\": \"half\", \"size\": \"1K\"}' >volumes/n1/spec"
is "all or nothing" "$(cat volumes/n1/description)" three

# --- rename, delete, and what is refused
expect "mv renames" mv volumes/n5 volumes/n6
[ ! -e volumes/n5 ] && [ -d volumes/n6 ] || fail "mv"
expect_errno EPERM mv volumes/n6 images/
expect_errno EEXIST mv -T volumes/n6 volumes/n1
expect_errno EPERM mv volumes/n6/description volumes/n6/other
expect_errno EPERM mv "$T/two" volumes/n6/description
expect_errno EPERM mkdir volumes/n6/sub
expect_errno EPERM mkdir sub
expect_errno EPERM rmdir volumes
expect_errno EPERM rmdir volumes/n6/metadata
expect_errno EPERM rm volumes/n6/size
expect "rmdir deletes" rmdir volumes/n6
[ ! -e volumes/n6 ] || fail "rmdir"

# --- failures are kept and cleared
: >"$C/self/errors" || fail "clearing"
is "self/errors is cleared" "$(cat "$C/self/errors")" ""
expect_errno EINVAL 'echo bad >admin/loglevel || echo bad >"'"$C"'/admin/loglevel"'
expect "loglevel" bash -c "echo debug >$C/admin/loglevel; grep -q debug $C/admin/loglevel"
end_fs
