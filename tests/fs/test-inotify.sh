#!/bin/bash
# inotify sees what the cloud itself changes; nothing is asked of anybody while nobody watches.
. "$(dirname "$0")/lib-fs.sh"
requires inotifywait
WATCH=$BUILD/fs/stratofs-watch
export WATCH
start_fs

helper() { pgrep -P "$host_pid" -f stratofs-watch; }
watch() { # NAME FILE...: until the watches stand
        local name=$1
        shift
        spawn inotifywait -m "$@" >"$T/$name" 2>"$T/$name.err"
        watcher=$!
        wait_line "$T/$name.err" established 20
}
unwatch() {
        kill "$watcher"
        wait_gone "$watcher" 10
}
# The volume's job is the cloud's own: `size` makes it, and it gets available by itself.
mkdir volumes/v || fail "mkdir"
watch one volumes/v/state
echo 1M >volumes/v/size || fail "size"
wait_line "$T/one" 'volumes/v/state MODIFY' 20
is "the state that it announces is there" "$(cat volumes/v/.wait/available@20)" available
unwatch

mkdir volumes/w || fail "mkdir"
watch dirs volumes/w volumes . events
echo 1M >volumes/w/size || fail "size"
wait_line "$T/dirs" 'volumes/w/ MODIFY state' 20
wait_line "$T/dirs" 'volumes/w/ MODIFY events' 20
wait_line "$T/dirs" 'volumes/ MODIFY index' 20
wait_line "$T/dirs" './ MODIFY events' 20
wait_line "$T/dirs" 'events MODIFY' 20
# Nobody but the cloud takes it away.
unwatch
is "it modified nothing: no failure" "$(cat volumes/w/error volumes/v/error errors)" ""
[ "$(stat -c %Y volumes/v/state)" -le "$(stat -c %Y volumes/w/state)" ] || fail "a time was changed"

# poll(2) on `events` needs no helper.
/usr/bin/python3 - <<'END' || fail "poll on events"
import os, select
for path, change in (("events", "volumes/polled"), ("volumes/w/events", None)):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 1 << 16)
    p = select.poll()
    p.register(fd, select.POLLPRI)
    assert p.poll(0) == [], "nothing happened"
    if os.fork() == 0:
        if change:
            os.mkdir(change)
        else:
            open("volumes/w/size", "w").write("2M\n")
        os._exit(0)
    assert p.poll(20000), path
    os.wait()
END
ok "poll(2) wakes on events"

# A helper that is stuck or gone hinders nobody, and another comes later.
pid=$(helper) || fail "no helper"
kill -STOP "$pid"
watch again volumes
for i in $(seq 30); do
        echo "name=s$i size=1M" >volumes/new || fail "new"
done
cat volumes/s30/.wait/available@20 >/dev/null || fail "with a stuck helper"
ok "a stuck helper hinders nobody"
other() { p=$(helper) && [ "$p" != "$pid" ]; }
again() {
        echo "x$((n++))" >volumes/v/description
        other && grep -q 'volumes/ MODIFY index' "$T/again"
}
n=0
wait_until 40 again || fail "no other helper tells"
ok "another took its place"
kill -9 "$(helper)"
rmdir volumes/s* || fail "rmdir"
ok "a dead one hinders nobody"
unwatch
# It ends with the mount, in the middle of its work, too.
watch last volumes
(for i in $(seq 200); do echo "$i" >volumes/v/description || exit; done) 2>/dev/null &
writer=$!
pid=$(helper)
unwatch
wait $writer
end_fs
[ ! "$pid" ] || wait_gone "$pid" 10
ok "the helper ends with the mount"
