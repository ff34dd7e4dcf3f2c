#!/bin/bash
# A host loses its power under a guest that writes; another fences it, and the guest goes on there.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
requires qemu-system-x86_64 pgrep
t=tenants/default

expect "a guest" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
host_on a
host_on b
strato_up a
strato_up b
await shows a admin/hosts/b/state up
await shows b admin/hosts/a/state up

# What the guest's console says on that host; stamps LIFE: the last number of that life.
console() {
        cat "$T/$1/disk/state/instances"/*/console.log 2>/dev/null | tr -d '\r'
}
stamps() {
        console "$1" | sed -n "s/^STRATOFS-GUEST stamp $2 \([0-9]*\)$/\1/p" | tail -n 1
}
stamped() {
        [ "$(stamps "$1" "$2")" -ge "$3" ]
}

on b "cp $T/kernel/vmlinuz $t/images/vmlinuz.aki; cp $T/kernel/initrd.gz $t/images/initrd.ari" || fail images
await shows a $t/images/vmlinuz/state active
await shows a $t/images/initrd/state active
on a "cd $t; mkdir volumes/v && echo 64M >volumes/v/size && cat volumes/v/.wait/available@20 && echo stamp 0 0 >volumes/v/data
        echo 'name=web flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd restart=elsewhere' >instances/new &&
        echo 'console=ttyS0 quiet no_timer_check' >instances/web/cmdline &&
        ln -s volumes/v instances/web/volumes/vda" || fail instance
on a "echo start >$t/instances/web/ctl" || fail start
await shows b $t/instances/web/state active
here=$(on a cat $t/instances/web/host)
[ $here = a ] && there=b || there=a
wait_until 30 stamped $here 1 3 || { on $here "ls -l $t/instances/web/volumes/; head -c 100 $t/volumes/v/data";  console $here; ls -lR $T/$here/disk/state/instances; fail stamp; }
ok "a guest on $here writes"

host_kill $here
date +%T.%N
await shows $there admin/hosts/$here/state down
date +%T.%N
await shows $there $t/instances/web/host $there
await shows $there $t/instances/web/state active
date +%T.%N
await stamped $there 2 3
date +%T.%N
hosts_logs
rbd -p rbd --namespace hosts ls
ceph osd blocklist ls
