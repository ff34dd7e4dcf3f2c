"""Ceph misbehaves under load: an OSD killed, the cluster full, its answers slow, a key revoked.

Clients' I/O waits and goes on, calls of the control socket end in time with words, and nothing that
was acknowledged is lost.  CEPH_CONF and CEPH_DIR are a cluster of ours (contrib/ceph-dev).
STRATOFS_LONG=1: outages of half a minute, and more of each.
"""
import errno
import json
import os
import signal
import subprocess
import sys
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "blockd"))
os.environ.setdefault("CEPH_POOL", "rbd")
import nbd
from rig import BLOCKD, CEPH_POOL, MB, Blockd, Case, Client, load, main

CEPH_DEV = os.path.join(os.path.dirname(__file__), "..", "..", "contrib", "ceph-dev")
LONG = bool(os.environ.get("STRATOFS_LONG"))


def ceph(*args):
    return subprocess.run(["ceph", *args], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, text=True).stdout


def osd(name="osd.0"):
    return int(subprocess.run([CEPH_DEV, "pid", name, os.environ["CEPH_DIR"]], check=True,
                              stdout=subprocess.PIPE).stdout)


def osd_start():
    subprocess.run([CEPH_DEV, "start", "osd.0", os.environ["CEPH_DIR"]], check=True, timeout=60)


def until(seconds, what, *args):
    end = time.monotonic() + seconds
    while not what(*args):
        if time.monotonic() > end:
            raise AssertionError("not within %d s: %s %s" % (seconds, what, args))
        time.sleep(0.1)


class Trouble(Case):
    def clients(self):
        return [Client(self.d.export(self.d.create(4 * MB)), 4 * MB, i) for i in range(2)]

    def finish(self, clients):
        for c in clients:
            self.assertEqual(c.reconnects, 0)
            c.h.shutdown()
            c.check()

    def test_osd_killed(self):
        """And back, several times: every request is answered, late."""
        clients = self.clients()
        with load(clients) as step:
            for _ in range(4 if LONG else 2):
                step()
                os.kill(osd(), signal.SIGKILL)
                time.sleep(30 if LONG else 1)
                osd_start()
                step()
        self.finish(clients)

    def test_slow(self):
        """Requests that take a second each: nothing but slow."""
        clients = self.clients()
        v = self.d.create(MB)
        with load(clients) as step:
            for _ in range(6 if LONG else 2):
                os.kill(osd(), signal.SIGSTOP)
                try:
                    time.sleep(2)  # far from its read lease
                finally:
                    os.kill(osd(), signal.SIGCONT)
                step()
                self.d.ok("stat", id=v)
        self.finish(clients)

    def test_full(self):
        """Calls say so at once, guests wait, what is removed makes room, and then all goes on."""
        d = self.d
        clients = self.clients()
        gone, other = d.create(8 * MB), d.create(MB)
        with load(clients) as step:
            step()
            for k, v in (("nearfull", "0.00001"), ("backfillfull", "0.00002"), ("full", "0.00003")):
                ceph("osd", "set-%s-ratio" % k, v)
            try:
                until(30, lambda: "full" in ceph("osd", "dump", "--format", "plain").split("\n")[0] or
                      "full osd" in ceph("health", "detail"))
                new = str(uuid.uuid4())
                until(20, lambda: d.call("create", id=str(uuid.uuid4()), size=MB)["ok"] is False)
                began = time.monotonic()
                a = d.call("create", id=new, size=MB)
                self.assertEqual((a["ok"], a["errno"]), (False, errno.ENOSPC), a)
                self.assertIn("full", a["error"])
                self.assertLess(time.monotonic() - began, 10)
                d.ok("stat", id=other)
                d.ok("remove", id=gone)
                self.assertEqual(d.err("stat", id=gone), errno.ENOENT)
            finally:
                for k, v in (("full", "0.95"), ("backfillfull", "0.90"), ("nearfull", "0.85")):
                    ceph("osd", "set-%s-ratio" % k, v)
            step()
            until(30, lambda: d.call("create", id=new, size=MB)["ok"])
        self.finish(clients)

    def test_key_revoked(self):
        """A blockd whose key is taken away says so; with the key back all is there."""
        key = self.path("keyring")
        caps = ["mon", "profile rbd", "osd", "profile rbd pool=" + CEPH_POOL]
        who = "client.t" + uuid.uuid4().hex[:8]
        with open(key, "w") as f:
            f.write(ceph("auth", "get-or-create", who, *caps))
        conf = self.path("ceph.conf")
        with open(os.environ["CEPH_CONF"]) as f:
            text = f.read().replace("keyring = %s/keyring" % os.environ["CEPH_DIR"],
                                    "keyring = " + key)
        with open(conf, "w") as f:
            f.write(text)
        self.d.stop()
        self.d.options[-1] = "rbd:%s,conf=%s,id=%s" % (CEPH_POOL, conf, who[7:])
        self.d.start()
        v = self.d.create(MB)
        h = nbd.NBD()
        h.connect_uri(self.d.uri(v))
        h.pwrite(b"k" * 4096, 0)
        h.flush()
        h.shutdown()
        self.d.stop()
        ceph("auth", "rm", who)
        out = self.tool(BLOCKD, *self.d.places(), rc=1)
        self.assertIn("refuses the key of " + who, out)
        ceph("auth", "add", who, *caps, "-i", key)
        self.d.start()
        h = nbd.NBD()
        h.connect_uri(self.d.uri(v))
        self.assertEqual(h.pread(4096, 0), b"k" * 4096)
        h.shutdown()


main()
