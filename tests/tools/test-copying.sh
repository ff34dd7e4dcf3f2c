#!/bin/bash
# Files and objects copied, moved, linked, made and removed.
. "$(dirname "$0")/lib-tools.sh"
requires rsync tar install busybox dd node
begin copying

# --- cp
sets text 'cp $O/text volumes/v/description'
sets text 'cp -f $O/text volumes/v/'"description"
for cp in 'cp -p' 'cp -a' 'cp --preserve=mode,ownership'; do
        echo old >volumes/v/description
        sets text "$cp \$O/text volumes/v/description" "mode, owner and time stay the tenant's"
done
refused EPERM 'cp --remove-destination $O/text volumes/v/description'
refused EPERM 'cp -b $O/text volumes/v/description'
works 'cp volumes/v/spec $O/v.json && cp $O/v.json volumes/v/spec' "what is read can be written"
works 'mkdir volumes/twin && cp volumes/v/spec volumes/twin/spec' "a twin, without its bytes"
is "its size" "$(cat volumes/twin/size)" 1048576
works 'cp -r volumes/v $O/v && cp -a volumes/v $O/va' "all its text; \`data\` stays a link"
stopped 'File exists' 'cp -r volumes/v volumes/w' "leaves a draft \`w\`: cp the \`spec\`"
is "a draft" "$(cat volumes/w/state)" draft
keys text 'cp $O/text volumes/v/metadata/k'

# --- mv, install
refused EPERM 'mv $O/text volumes/v/description' "\`cp\` writes a value"
is "nothing is lost" "$(cat "$O/text")" text
refused EPERM 'mv volumes/v/description $O/description' "a copy is there"
works 'mv volumes/twin volumes/renamed'
refused EEXIST 'mv -T volumes/renamed volumes/v'
refused EPERM 'mv volumes/renamed images/'
works 'mv volumes/v/metadata/k volumes/v/metadata/l && mv volumes/v/metadata/l volumes/v/metadata/k'
works 'mv $O/text volumes/v/metadata/l && echo text >$O/text && rm volumes/v/metadata/l'
refused EPERM 'install -m 644 $O/text volumes/v/description' "\`cp\` writes a value"

# --- ln, mkdir, touch, truncate
works 'ln -s volumes/renamed instances/web/volumes/' "attached as the next free device"
is "vdb" "$(readlink instances/web/volumes/vdb)" ../../../volumes/renamed
volume other
works 'ln -sfn ../../../volumes/other instances/web/volumes/vdb' "the old one is detached"
is "another" "$(readlink instances/web/volumes/vdb)" ../../../volumes/other
works 'rm instances/web/volumes/vdb' "detached"
refused ENOENT 'ln -s nothing instances/web/volumes/vdc'
refused EPERM 'ln volumes/v/size volumes/v/x'
works 'mkdir -p volumes/v volumes/made && rmdir volumes/made'
refused EPERM 'mkdir -p volumes/v/x/y'
refused EPERM 'mkdir -m 700 volumes/made' "it is made, with the tenant's mode"
sets text 'touch volumes/v/description volumes/v' "accepted; times are the cloud's"
refused ENOENT 'touch volumes/v/nothing'
refused EPERM 'touch volumes/nothing'
sets text 'truncate -s 0 volumes/v/description' "nothing changes"
refused EINVAL 'truncate -s 9 volumes/v/description'
refused EPERM 'chmod 600 volumes/v/description'
refused EPERM 'chown nobody volumes/v/description'

# --- dd
echo from dd >"$O/dd"
sets 'from dd' 'dd if=$O/dd of=volumes/v/description'
sets text 'dd if=$O/text of=volumes/v/description conv=fsync,notrunc' "offsets are ignored"
sets 'from dd' 'dd if=$O/dd of=volumes/v/description oflag=direct,sync seek=1 conv=notrunc'
sets text 'dd if=$O/text of=volumes/v/description bs=1' "pieces of one line: each makes it longer"
refused EINVAL 'dd if=/dev/zero of=volumes/v/size count=1'

# --- tar
works 'tar cf $O/v.tar volumes/v instances' "sizes are true"
is "with the text" "$(tar xOf "$O/v.tar" volumes/v/description)" text
refused EPERM 'tar xf $O/v.tar volumes/v/description' "tar unlinks what it replaces"
sets text 'echo new >volumes/v/description; tar xf $O/v.tar --overwrite volumes/v/description'
works 'tar cf - -C volumes/v metadata | tar xf - -C volumes/w' "keys of metadata"
is "the key" "$(cat volumes/w/metadata/k)" text

# --- rsync
echo "by rsync" >"$O/r"
sets 'by rsync' 'rsync $O/r volumes/v/description' "by way of a scratch file, one write"
sets text 'rsync --inplace $O/text volumes/v/description'
sets 'by rsync' 'rsync -t $O/r volumes/v/description' "without \`-t\` or \`-I\`, a file of the same size and time counts as the same"
works 'rsync -a volumes/v/ $O/rsync/'
mkdir "$O/keys" && echo 1 >"$O/keys/one" && echo 2 >"$O/keys/k"
works 'rsync -r --delete $O/keys/ volumes/v/metadata/'
is "two keys" "$(cd volumes/v/metadata && echo * $(cat *))" "k one 2 1"
rm "$O/keys/one"
keys 2 'rsync -r --inplace --delete $O/keys/ volumes/v/metadata/'
is "one key" "$(ls volumes/v/metadata)" k
refused EPERM 'rsync -a $O/keys/ volumes/v/metadata/' "status 23, the values are set: \`-r\` does not ask for owners"
refused ENOENT 'rsync $O/r volumes/v/'

# --- rm -r and its like
kept() {
        [ -L instances/web/volumes/vda ] && [ "$(cat instances/web/metadata/kept)" = kept ] ||
                fail "not kept after $1"
}
echo kept >instances/web/metadata/kept
for remove in 'rm -r instances/web' 'rm -rf instances/web' 'busybox rm -rf instances/web' \
        'find instances/web -delete' \
        "/usr/bin/python3 -c 'import shutil; shutil.rmtree(\"instances/web\")'" \
        'rm -r instances' 'rm -rf ./*'; do
        refused EPERM "$remove" "links, metadata and the object stay"
        kept "$remove"
done
refused EPERM 'rm volumes/v/description'
refused EPERM 'rmdir volumes/v/metadata'
refused EBUSY 'rmdir volumes/v'
mkdir "$O/empty"
refused EPERM 'rsync -r --delete $O/empty/ instances/web/' \
        "**detaches**, which is what it was asked for; keys and attributes stay"
[ -z "$(ls instances/web/volumes | grep vda)" ] || fail "kept"
works "node -e 'fs.rmSync(\"volumes/w\", {recursive: true})'" \
        "**deletes**: Node's rmSync and Go's RemoveAll try rmdir first, and rmdir is deletion"
[ ! -e volumes/w ] || fail "Node's rmSync"
works 'rmdir instances/web volumes/*/' "deletes"
is "nothing is left" "$(find volumes instances -mindepth 1 -type d)" ""
finish
