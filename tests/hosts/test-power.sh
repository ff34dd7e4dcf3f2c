#!/bin/bash
# A host loses its power under a guest that writes; another fences it, and the guest goes on there.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-hosts.sh"
requires qemu-system-x86_64 pgrep
t=tenants/default

expect "a guest" "$SOURCE/contrib/make-guest" "$T/guest.qcow2" --size 256M
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

on b "cp $T/guest.qcow2 $t/images/debian.qcow2" || fail images
await shows a $t/images/debian/state active
expect "a kernel" "$SOURCE/contrib/make-guest" --kernel "$T/kernel"
on b "cp $T/kernel/vmlinuz $t/images/vmlinuz.aki; cp $T/kernel/initrd.gz $t/images/initrd.ari" || fail images
await shows a $t/images/vmlinuz/state active
await shows a $t/images/initrd/state active
on a "cd $t;        echo 'name=kern flavor=tiny kernel=images/vmlinuz ramdisk=images/initrd' >instances/new; echo console=ttyS0 quiet > instances/kern/cmdline
echo start >instances/kern/ctl; cat instances/kern/.wait/active@60; cat instances/kern/error"
on a 'cat tenants/default/instances/kern/host; ls -l /srv/state/instances/*/' ; on b 'ls -l /srv/state/images/*/'
await grep -a "GUEST ready" $T/a/disk/state/instances/*/console.log
on a "echo stop now >$t/instances/kern/ctl"
on b "rm $t/instances/kern/kernel; rm $t/instances/kern/ramdisk; rmdir $t/images/vmlinuz; rmdir $t/images/initrd; rbd -p rbd --namespace hosts ls"
on a "cd $t; mkdir volumes/v && echo 64M >volumes/v/size && cat volumes/v/.wait/available@20 && echo stamp 0 0 >volumes/v/data
        echo 'name=web flavor=tiny image=images/debian restart=elsewhere' >instances/new &&
        ln -s volumes/v instances/web/volumes/vdb" || fail instance
on a "echo start >$t/instances/web/ctl" || fail start
await shows b $t/instances/web/state active
here=$(on a cat $t/instances/web/host)
[ $here = a ] && there=b || there=a
await stamped $here 1 3
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
