#!/usr/bin/python3
"""Verbs of an instance x kinds of trouble: in the middle of each, libvirtd is restarted, killed or
hung, the guest's QEMU is killed, or the whole host goes.  Each time the cloud has to come to rest:
no state that is on its way, state and libvirt and volumes and exports of one mind, words in
`events`, and an instance that can still be deleted.

A choice of pairs; all of them with STRATOFS_LONG=1.  PAIRS="stop:kill start:host" names some.
It has mounts, processes and a libvirtd of its own; what is left when it ends goes with them.
"""
import glob
import os
import random
import signal
import subprocess
import sys
import time

import own_host
from own_host import (C, T, await_, blockd, cloud_up, fail, is_gone, kill, libvirtd_up, processes,
                      read, virsh_state, write)

def restart():
    """As a service manager does it: one that does not end is killed."""
    pids = processes("libvirtd")
    kill(pids, signal.SIGTERM)
    end = time.monotonic() + 5
    while not all(map(is_gone, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    own_host.libvirtd_kill()
    libvirtd_up()


def killed():
    own_host.libvirtd_kill()
    libvirtd_up()


def hung(seconds=1.5):
    pids = processes("libvirtd")
    kill(pids, signal.SIGSTOP)
    time.sleep(seconds)
    kill(pids, signal.SIGCONT)


def hung_long():
    """Longer than the keepalive: the connection is given up, calls end unknown."""
    hung(40)


def qemu():
    pids = [p for p in processes("qemu-system-x86_64") if UUID in open("/proc/%d/cmdline" % p).read()]
    kill(pids, signal.SIGKILL)


def host():
    """All of it at once, and what lives in memory with it."""
    mine = {os.getpid(), 1}
    os.chdir("/")
    for _ in range(3):
        kill([int(p.split("/")[2]) for p in glob.glob("/proc/[0-9]*")
              if int(p.split("/")[2]) not in mine], signal.SIGKILL)
        time.sleep(0.05)
    await_("all are dead", lambda: len(glob.glob("/proc/[0-9]*")) == 2 or "some live", 20)
    subprocess.run(["umount", "-l", C], check=False)
    subprocess.run("rm -rf /run/libvirt/* %s/state/run/*" % T, shell=True, check=True)
    libvirtd_up()
    cloud_up()


KINDS = {"restart": restart, "kill": killed, "hang": hung, "hang-long": hung_long, "qemu": qemu,
         "host": host}


# --- the instance

MEANS = {"active": "running", "rescued": "running", "resized": "running", "paused": "paused",
         "stopped": "absent", "suspended": "absent", "shelved": "absent", "draft": "absent", "deleted": "absent"}


def exports_of(uuids):
    return [x for x in blockd(op="list_exports")["exports"] if x["volume"] in uuids]


def at_rest(i, volumes):
    """None, or what is not."""
    if not os.path.isdir(i):
        return None if virsh_state(UUID) == "absent" else "deleted, and the guest is there"
    state = read(i + "/state")
    if state not in MEANS:
        return "state " + state
    if os.path.lexists(i + "/job"):
        return "job " + os.readlink(i + "/job")
    if virsh_state(UUID) != MEANS[state]:
        return "%s, and libvirt says %s" % (state, virsh_state(UUID))
    links = {os.path.basename(os.readlink(i + "/volumes/" + n)) for n in os.listdir(i + "/volumes")}
    for v in volumes:
        if v not in links and not os.path.exists("volumes/" + v):
            continue
        want = "in-use" if v in links else "available"
        if read("volumes/%s/state" % v) != want:
            return "volume %s is %s, not %s" % (v, read("volumes/%s/state" % v), want)
    ids = {read("volumes/%s/id" % v) for v in links}
    n = len(exports_of(ids))
    if n != (len(ids) if MEANS[state] != "absent" else 0):
        return "%s, %d volumes and %d exports" % (state, len(ids), n)
    return None


def to(i, verb, *states):
    write(i + "/ctl", verb)
    await_("%s before" % verb, lambda: read(i + "/state") in states or read(i + "/state"))


# verb: state to begin in, what to write (or a function)
VERBS = {
    "start": ("stopped", "start"), "stop": ("active", "stop now"), "stop-soft": ("active", "stop 2"),
    "reboot": ("active", "reboot soft"), "reboot-hard": ("active", "reboot hard"),
    "pause": ("active", "pause"), "resume": ("paused", "resume"),
    "suspend": ("active", "suspend"), "wake": ("suspended", "resume"),
    "snapshot": ("active", "snapshot s1"), "image": ("active", "image %s-img"),
    "rescue": ("active", "rescue disk"), "unrescue": ("rescued", "unrescue"),
    "rebuild": ("active", "rebuild disk"), "shelve": ("active", "shelve"),
    "unshelve": ("shelved", "unshelve"), "resize": ("active", "resize wide"),
    "revert": ("resized", "revert"), "attach": ("active", None), "detach": ("active", None),
    "send-key": ("active", "send-key a"), "delete": ("active", "delete"),
}
WAY = {"stopped": [("start", "active"), ("stop now", "stopped")], "active": [("start", "active")],
       "paused": [("start", "active"), ("pause", "paused")],
       "suspended": [("start", "active"), ("suspend", "suspended")],
       "rescued": [("start", "active"), ("rescue disk", "rescued")],
       "shelved": [("start", "active"), ("shelve", "shelved")],
       "resized": [("start", "active"), ("resize wide", "resized")]}


def prepare(verb, name):
    global UUID
    i = "instances/" + name
    os.mkdir(i)
    UUID = read(i + "/id")
    write(i + "/flavor", "narrow")
    os.symlink("images/disk", i + "/image")
    write("volumes/new", "name=%s-data size=1M" % name)
    write("volumes/new", "name=%s-more size=1M" % name)
    for v in ("data", "more"):
        await_("volume", lambda: read("volumes/%s-%s/state" % (name, v)) == "available" or "not made")
    os.symlink("volumes/%s-data" % name, i + "/volumes/vdb")
    for word, state in WAY[VERBS[verb][0]]:
        to(i, word, state)
    if verb == "detach":
        os.symlink("volumes/%s-more" % name, i + "/volumes/vdc")
        await_("it is attached", lambda: read("volumes/%s-more/state" % name) == "in-use" or "no")
    await_("before", lambda: at_rest(i, [name + "-data", name + "-more"]))
    return i


def begin(verb, i, name):
    if verb == "attach":
        os.symlink("volumes/%s-more" % name, i + "/volumes/vdc")
    elif verb == "detach":
        os.unlink(i + "/volumes/vdc")
    else:
        text = VERBS[verb][1]
        write(i + "/ctl", text % name if "%" in text else text)


def pair(verb, kind, n):
    name = "i%d" % n
    volumes = [name + "-data", name + "-more"]
    os.chdir(C + "/tenants/default")
    i = prepare(verb, name)
    # Those of a host that went are in its log; the cloud's begin anew.
    lines = len(read("events").splitlines()) if kind != "host" else 0
    rng = random.Random("%s:%s" % (verb, kind))
    began = time.monotonic()
    begin(verb, i, name)
    time.sleep(rng.uniform(0.0, 0.25))
    KINDS[kind]()
    os.chdir(C + "/tenants/default")
    await_("%s:%s" % (verb, kind), lambda: at_rest(i, volumes))
    settled = time.monotonic() - began
    state = read(i + "/state") if os.path.isdir(i) else "gone"
    if verb != "send-key" and len(read("events").splitlines()) <= lines:
        fail("%s:%s: nobody told what happened" % (verb, kind))
    error = read(i + "/error").splitlines() if state != "gone" else []
    # And it can be got rid of, whatever it is.
    if state != "gone":
        write(i + "/ctl", "delete")
        await_("%s:%s, deletion" % (verb, kind),
               lambda: not os.path.exists("%s/state/instances/%s" % (T, UUID)) or "its folder is left")
    await_("%s:%s, deletion" % (verb, kind), lambda: at_rest(i, volumes))
    for v in volumes:
        for s in glob.glob("volumes/%s/snapshots/*" % v):
            if os.path.isdir(s):
                os.rmdir(s)
        os.rmdir("volumes/" + v)
    print("ok: %-12s %-10s %-10s %5.1f s %s" % (verb, kind, state, settled, error[0] if error else ""),
          flush=True)


SHORT = "start:kill start:host stop:restart pause:hang suspend:kill attach:qemu delete:kill"


def main():
    own_host.enter(__file__)
    try:
        libvirtd_up()
        cloud_up()
        compute = read(glob.glob(C + "/admin/hosts/*/compute")[0])
        if compute != "system":
            fail("compute is " + compute)
        own_host.new_flavors(narrow="64M", wide="96M")
        own_host.new_image("disk")
        if os.environ.get("PAIRS"):
            chosen = os.environ["PAIRS"].split()
        elif os.environ.get("STRATOFS_LONG") == "1":
            chosen = ["%s:%s" % (v, k) for v in VERBS for k in KINDS if k != "hang-long"]
            chosen += ["%s:hang-long" % v for v in ("start", "stop", "suspend", "attach")]
        else:
            chosen = SHORT.split()
        bad = []
        for n, p in enumerate(chosen):
            libvirtd_up()
            try:
                pair(*p.split(":"), n)
            except SystemExit:
                bad.append(p)
        if bad:
            print("FAIL: " + " ".join(bad))
            sys.exit(1)
    finally:
        own_host.leave()


main()
