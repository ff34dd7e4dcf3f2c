#!/usr/bin/python3
"""Guests that were libvirt's before: listed by doctor, left alone; adopted as they are, running or
not; used by the cloud's verbs and by virsh; let go of again, with everything as it was."""
import os
import re
import subprocess

import own_host
from own_host import (C, LIBVIRT, STRATO, T, await_, fail, processes, read, run, virsh_state, write)

D = C + "/tenants/default/"
DOMAIN = """<domain type='qemu'><name>%s</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<description>was here before</description><os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/>
<target dev='vda' bus='virtio'/></disk><serial type='pty'/></devices></domain>"""


def ok(words):
    print("ok: " + words, flush=True)


def virsh(*words):
    r = run("virsh", "-q", "-c", LIBVIRT, *words)
    if r.returncode:
        fail("virsh %s: %s" % (" ".join(words), r.stderr))
    return r.stdout.strip()


def refused(path, text, words):
    try:
        write(path, text)
    except OSError:
        if words not in read(C + "/self/error"):
            fail("%s: not '%s': %s" % (text, words, read(C + "/self/error")))
        return
    fail("%s was not refused" % text)


def is_state(name, state):
    await_("%s is %s" % (name, state),
           lambda: read(D + "instances/%s/state" % name) == state or
           read(D + "instances/%s/state" % name))


def doctor():
    return run(STRATO, "doctor", "--state", T + "/state", "--mount", C).stdout


def definition(name):
    """Without our mark, and without what libvirt writes anew at each start."""
    xml = virsh("dumpxml", "--inactive", name)
    return re.sub(r"(?s)\s*(<metadata>.*</metadata>|<metadata/>)", "", xml)


def main():
    own_host.enter(__file__)
    try:
        own_host.libvirtd_up()
        for name in ("old-web", "old-db", "theirs"):
            with open("%s/%s.raw" % (T, name), "wb") as f:
                f.write(b"no boot sector".ljust(1 << 20, b"."))
            os.chmod("%s/%s.raw" % (T, name), 0o666)
            write("%s/%s.xml" % (T, name), DOMAIN % (name, "%s/%s.raw" % (T, name)))
            virsh("define", "%s/%s.xml" % (T, name))
        write(T + "/passing.xml", DOMAIN.replace("vda", "vdb") % ("passing", T + "/theirs.raw"))
        virsh("start", "old-web")
        before = {n: definition(n) for n in ("old-web", "old-db", "theirs")}
        qemu = processes("qemu-system-x86_64")
        own_host.cloud_up()
        report = doctor()
        for name in ("old-web", "old-db", "theirs"):
            if not re.search(r"(?m)^ok +guests: .*\b%s\b" % name, report):
                fail("doctor does not list %s: %s" % (name, report))
        ok("doctor lists them")

        refused(D + "ctl", "adopt", "adopt takes the name")
        refused(D + "ctl", "adopt old-web -x", "no name for an instance")
        write(D + "ctl", "adopt nobody")
        await_("words", lambda: "Domain not found" in read(D + "errors") or read(D + "errors"))
        virsh("create", T + "/passing.xml")
        write(D + "ctl", "adopt passing")
        await_("words", lambda: "is transient" in read(D + "errors") or read(D + "errors"))
        virsh("destroy", "passing")
        write(D + "ctl", "adopt old-web web")
        write(D + "ctl", "adopt old-db")
        is_state("web", "active")
        is_state("old-db", "stopped")
        web, db = D + "instances/web/", D + "instances/old-db/"
        for path, name in ((web, "old-web"), (db, "old-db")):
            if read(path + "id") != virsh("domuuid", name):
                fail("another id")
            if (read(path + "vcpus"), read(path + "memory")) != ("2", str(64 << 20)):
                fail("%s vcpus, %s" % (read(path + "vcpus"), read(path + "memory")))
            if definition(name) != before[name]:
                fail("%s has changed:\n%s\n%s" % (name, before[name], definition(name)))
        if processes("qemu-system-x86_64") != qemu:
            fail("its guest was restarted")
        report = doctor()
        if not re.search(r"(?m)^ok +guests: libvirt has 1 .*: theirs", report):
            fail("doctor: " + report)
        ok("two are adopted, the running one without noticing")

        refused(web + "ctl", "rescue x", "was adopted")
        refused(web + "ctl", "resize tiny", "was adopted")
        refused(web + "ctl", "snapshot s", "no volumes")
        refused(web + "ctl", "delete", "was adopted")
        write(D + "volumes/new", "name=v size=1M")
        try:
            os.symlink("volumes/v", web + "volumes/vdz")
            fail("a volume was attached")
        except OSError:
            pass
        for verb, state, theirs in (("pause", "paused", "paused"), ("resume", "active", "running"),
                                    ("suspend", "suspended", "absent"),
                                    ("resume", "active", "running"),
                                    ("reboot hard", "active", "running"),
                                    ("stop now", "stopped", "absent"),
                                    ("start", "active", "running")):
            write(web + "ctl", verb)
            is_state("web", state)
            await_(verb, lambda: not os.path.lexists(web + "job") or "its job goes on")
            if virsh_state(read(web + "id")) != theirs:
                fail("%s: libvirt says %s" % (verb, virsh_state(read(web + "id"))))
        ok("the cloud's verbs")
        virsh("start", "old-db")
        is_state("old-db", "active")
        virsh("suspend", "old-db")
        is_state("old-db", "paused")
        virsh("destroy", "old-db")
        is_state("old-db", "stopped")
        ok("what virsh does to them is seen")

        # The cloud ends, libvirtd too; both are back, and know it.
        own_host.libvirtd_kill()
        own_host.libvirtd_up()
        is_state("web", "active")
        os.rmdir(D + "instances/web")
        os.rmdir(D + "instances/old-db")
        await_("they are gone", lambda: not os.listdir(T + "/state/instances") or "left")
        for name in before:
            if definition(name) != before[name] or "stratofs" in virsh("dumpxml", name):
                fail("%s has changed: %s" % (name, virsh("dumpxml", name)))
        if virsh("domstate", "old-web") != "running" or virsh("domstate", "old-db") != "shut off":
            fail("they were touched")
        ok("let go of, as they were")
        write(D + "ctl", "adopt old-web web")
        is_state("web", "active")
        os.rmdir(D + "instances/web")
        subprocess.run(["virsh", "-q", "-c", LIBVIRT, "destroy", "old-web"], check=True)
        if virsh_state(virsh("domuuid", "theirs")) != "absent":
            fail("one that nobody adopted was started")
    finally:
        own_host.leave()


main()
