#!/bin/bash
# Walks, watchers, and who looks: none starts work, waits, reads a disk or takes anything away.
. "$(dirname "$0")/lib-tools.sh"
requires find grep tar du df stat file watch tail inotifywait git sudo su updatedb.plocate setpriv
requires_root
WATCH=$BUILD/fs/stratofs-watch
export WATCH
begin looking
export T

# No block service runs: a disk that is read is a failure, and a wait would hang.
facts() {
        cat events jobs/index index
        find jobs -type f
        cat "$C/self/errors"
}
looks() {
        facts >"$T/before"
        run "$1" || fail "status $?: $1"
        facts >"$T/after"
        diff "$T/before" "$T/after" >"$T/out" || fail "changes something: $1"
        row "$1" works "${2:-}"
}
shows() {
        looks "$2" "${3:-prints \`$1\`}"
        run "$2"
        [ "$(cat "$T/out")" = "$1" ] || fail "does not print '$1': $2"
}

looks 'ls -lAR .'
looks 'ls -lL volumes/v/data' "its size is known without the disk"
shows volumes/v/description 'grep -rlx old volumes'
looks 'grep -rq no-such-word . ; [ $? = 1 ]' "every file is read; links to disks are not followed"
looks 'find . -type f -exec cat {} + >$O/all'
looks 'find $C -xdev >$O/all' "nothing hidden: no \`.wait\`, no \`.data\`"
is "nothing hidden" "$(grep -c '/\.' "$O/all")" "$(grep -c '/\.users/' "$O/all")"
shows volumes/v/size 'find volumes -name size'
looks 'find . -newer volumes/v/id -links 1 -size -9k -user root -perm -400 -ls'
looks 'tar cf $O/all.tar .'
looks 'cp -r . $O/all.d'
looks 'du -sh .'
shows 1 "du -s volumes/v/metadata | cut -f1" "its keys, rounded up"
looks 'df . && df -i .'
shows stratofs "df --output=source . | tail -n 1"
looks 'updatedb.plocate -l 0 --prunefs none -U $C -o $O/db; plocate -cd $O/db volumes/v/size' "a walk like any other"
looks 'updatedb.plocate -l 0 --prunefs fuse.stratofs -U $T -o $O/db; ! plocate -d $O/db cloud/tenants' \
        "left out by its type, as \`contrib/updatedb\` has it"
shows fuse.stratofs "findmnt -no FSTYPE \$C" "the type"
shows 'regular file 4' "stat -c '%F %s' volumes/v/description"
shows 'volumes/v/description: ASCII text' 'file volumes/v/description'
shows 'volumes/v: directory' "file volumes/v | tr -s ' '"
looks 'wc -c volumes/v/size; md5sum volumes/v/spec; head -c 3 volumes/v/id; sort index; awk 1 index'
stopped 'not a git repository' 'git status' "it stops at the mount"
refused EPERM 'git init volumes/v'

# --- those that stay and watch
follow() {
        local seen=$1 do=$2
        shift 2
        spawn timeout 60 bash -c "$*" >"$T/follow" 2>&1
        watcher=$!
        wait_until 20 grep -q "${ready:-.}" "$T/follow" || fail "it does not begin: $*"
        bash -c "$do" || fail "$do"
        wait_until 20 grep -qE "$seen" "$T/follow" || fail "no '$seen' from: $*"
        kill $watcher
        wait_gone $watcher 10
        row "$*" works "sees \`$do\`"
}
ready=active follow 'volumes/followed created' 'mkdir volumes/followed' tail -n 99 -f events
ready='old' follow watched 'echo watched >volumes/v/description' \
        TERM=vt100 watch -n 0.1 cat volumes/v/description
ready=established follow 'CREATE,ISDIR made' 'mkdir volumes/made' inotifywait -m volumes
ready=established follow 'DELETE,ISDIR made' 'rmdir volumes/made' inotifywait -m volumes
ready=established follow 'CLOSE_WRITE,CLOSE description' 'echo seen >volumes/v/description' \
        inotifywait -m volumes/v
ready=established follow 'ATTRIB size' 'touch volumes/v/size' inotifywait -m volumes/v
# What the cloud does by itself: a helper of the daemon touches it, and so the kernel tells.
mkdir volumes/made2 || fail "mkdir"
ready=established follow 'volumes/made2/ MODIFY state' 'echo 1M >volumes/made2/size' \
        inotifywait -m volumes/made2
ready=established follow 'volumes/ MODIFY index' 'echo 2M >volumes/made2/size' inotifywait -m volumes
ready=established follow 'events MODIFY' 'rmdir volumes/made2' inotifywait -m events
# What the cloud does by itself: a helper of the daemon touches it, and so the kernel tells.
ready=established follow 'volumes/made2/ MODIFY state' 'echo 1M >volumes/made2/size' \
        'mkdir volumes/made2; inotifywait -m volumes/made2'
ready=established follow 'volumes/ MODIFY index' 'echo 2M >volumes/made2/size' inotifywait -m volumes
ready=established follow 'events MODIFY' 'rmdir volumes/made2' inotifywait -m events

# --- as somebody else
stopped 'Permission denied' "su -s /bin/sh nobody -c 'ls .'" "a tenant is its members'"
stopped 'Permission denied' "sudo -n -u nobody cat volumes/v/id"
works "su -s /bin/sh nobody -c 'cat \$C/flavors/small/vcpus \$C/help' >\$O/all" "what is for all"
works "sudo -n -u nobody -g '#'\$(cat gid) cat volumes/v/id" "a member, by \`-g\`"
sets mine "sudo -n -u nobody -g '#'\$(cat gid) sh -c 'echo mine >volumes/v/description'"
sets sedum "sudo -n -u nobody -g '#'\$(cat gid) sed -i s/mine/sedum/ volumes/v/description"
stopped "Operation not permitted" "sudo -n -u nobody -g '#'\$(cat gid) cp -p \$O/text volumes/v/description" \
        "the owner alone sets times; the value is set"
finish
