#!/bin/bash
# The layout, looking without touching, rm -r, editors and other tools, metadata, scratch files.
. "$(dirname "$0")/lib-fs.sh"
requires rsync vim tar
start_fs
volume v
mkdir instances/web && ln -s volumes/v instances/web/volumes/ || fail "an instance with a disk"
echo kept >instances/web/metadata/key || fail "metadata"

# --- the root
is "the root" "$(ls "$C" | tr '\n' ' ')" "admin flavors help self tenants version volume_types "
is "self" "$(readlink "$C/self")" ".users/$(id -u)"
is "a collection" "$(ls volumes | tr '\n' ' ')" "help index new v "
is "hidden: .id" "$(readlink "volumes/.id/$(cat volumes/v/id)")" ../v
is "data is a link" "$(readlink volumes/v/data)" "../../../../.data/$(cat volumes/v/id)"
expect "data's bytes are found by id" test -f "$C/.data/$(cat volumes/v/id)"
expect_text index "volumes/v $(cat volumes/v/id) in-use"
expect_text volumes/index "v $(cat volumes/v/id)"
expect_text volumes/v/.json '"id"'
is "nothing hidden is listed" "$(find . -name '.?*' | head -n 1)" ""

# --- looking is free and safe
expect "find" find . -type f
expect "grep -r" grep -rq volumes .
expect "ls -lR" ls -lR .
expect "du" du -s .
tar cf "$T/tar" instances volumes || fail "tar"
is "tar keeps the text" "$(tar xOf "$T/tar" volumes/v/size)" "$(cat volumes/v/size)"
for f in $(find volumes instances -type f -perm -400); do
        [ "$(stat -c %s "$f")" = "$(wc -c <"$f")" ] || fail "st_size of $f"
done
ok "st_size is true everywhere"
ls -U volumes/v >"$T/order"
[ "$(grep -n '^size$' "$T/order" | cut -d: -f1)" -lt "$(grep -n '^metadata$' "$T/order" | cut -d: -f1)" ] ||
        fail "attributes are listed before directories"
inode=$(stat -c %i volumes/v/size)
echo 3 >/proc/sys/vm/drop_caches 2>/dev/null
is "node ids are stable" "$(stat -c %i volumes/v/size)" "$inode"

# --- rm -r harms nothing
: >"$C/self/errors"
rm -rf instances/web 2>"$T/err" && fail "rm -rf succeeded"
is "the link is there" "$(readlink instances/web/volumes/v* )" ../../../volumes/v
is "metadata is there" "$(cat instances/web/metadata/key)" kept
is "one record of it" "$(grep -c EPERM "$C/self/errors")" 1
rm -r volumes 2>"$T/err" && fail "rm -r of a collection succeeded"
[ -d volumes/v ] || fail "rm -r of a collection"
ok "rm -r of a collection harms nothing"
expect "another process may remove the link" rm "$(echo instances/web/volumes/*)"
expect "... and the object" rmdir instances/web

# --- tools that write through temporaries
expect "sed -i" sed -i 's/.*/by sed/' volumes/v/description
is "sed -i" "$(cat volumes/v/description)" "by sed"
expect_status 4 sed -i 's/.*/99Z/' volumes/v/size
expect "vim" vim -e -s -N -u NONE -c '%s/.*/by vim/' -c wq volumes/v/description </dev/null
is "vim" "$(cat volumes/v/description)" "by vim"
echo 'by rsync' >"$T/description"
expect "rsync" rsync "$T/description" volumes/v/description
is "rsync" "$(cat volumes/v/description)" "by rsync"
echo 'by cp' >"$T/description"
expect "cp" cp "$T/description" volumes/v/
is "cp" "$(cat volumes/v/description)" "by cp"
is "nothing is left" "$(ls -A volumes/v | grep -E '^sed|swp|~')" ""

# --- scratch files: their user's alone, bounded
echo mine >volumes/v/.x.swp || fail "scratch"
is "its user reads it" "$(cat volumes/v/.x.swp)" mine
if [ "$(id -u)" = 0 ]; then
        expect_errno ENOENT setpriv --reuid=65534 --regid=65534 --groups="$G" cat volumes/v/.x.swp
fi
expect_errno EFBIG dd if=/dev/zero of=volumes/v/.big bs=1M count=2
expect_errno EDQUOT 'for i in $(seq 40); do echo x >volumes/v/.s$i || exit 1; done'
for i in $(seq 40); do rm -f volumes/v/.s$i; done
rm volumes/v/.x.swp volumes/v/.big || fail "rm of scratch files"
expect_errno ENOENT cat volumes/v/.x.swp

# --- metadata
cd volumes/v/metadata || fail "metadata"
echo one >k1 && printf 'a\nb\n' >k2 && cp "$T/description" k3 || fail "keys"
is "keys" "$(cat k1 k2 k3 | tr '\n' ' ')" "one a b by cp "
expect "mv renames a key" mv k1 k4
expect "sed -i a key" sed -i s/a/A/ k2
expect "vim a key" vim -e -s -N -u NONE -c '%s/b/B/' -c wq k2 </dev/null
is "both" "$(tr '\n' ' ' <k2)" "A B "
echo more >>k2
is "append" "$(tr '\n' ' ' <k2)" "A B more "
expect "rsync a key" rsync "$T/description" k5
expect_errno EFBIG 'head -c 5000 /dev/zero | tr "\0" x | dd of=k6 bs=5000 iflag=fullblock'
expect_errno EPERM mkdir sub
expect "rm a key" rm k4
is "the keys" "$(ls | tr '\n' ' ')" "k2 k3 k5 k6 "
cd ../../..
expect_text volumes/v/spec '"k2"'

# --- who may what
if [ "$(id -u)" = 0 ]; then
        as() {
                local groups=$1
                shift
                setpriv --reuid=65534 --regid=65534 $groups "$@"
        }
        expect_errno EACCES as --clear-groups ls .
        expect "a member" as "--groups=$G" bash -c 'mkdir volumes/m && echo 1M >volumes/m/size'
        expect_errno EINVAL as "--groups=$G" bash -c 'echo 0 >volumes/m/size'
        expect "his failures are his" as "--groups=$G" grep -q 'EINVAL' "$C/self/error"
        expect_errno EACCES as "--groups=$G" ls "$C/.users/0"
        expect_errno EACCES as "--groups=$G" ls "$C/admin"
        expect_errno EACCES as "--groups=$G" mkdir "$C/tenants/x"
        expect_errno EACCES as "--groups=$G" bash -c "echo 9 >$C/flavors/small/vcpus"
        expect_errno EACCES as "--groups=$G" bash -c 'echo volumes limit=9 >quota'
        expect_errno EACCES as --clear-groups cat "$C/.data/$(cat volumes/v/id)"
        expect "flavors are for all" as --clear-groups cat "$C/flavors/small/vcpus"
        expect "root sets a quota" bash -c 'echo volumes limit=2 >quota'
        expect_errno EDQUOT mkdir volumes/toomany
        expect_text errors EDQUOT
fi

# --- ten thousand
echo 'volumes limit=max' >quota 2>/dev/null
for i in $(seq 10000); do echo "name=p$i"; done >"$T/many"
expect "10,000 drafts in one copy" cp "$T/many" volumes/new
is "all are listed once" "$(ls -U volumes | sort | uniq | grep -c '^p')" 10000
end_fs
