"""What is RBD's own: images that `rbd` knows, and a cluster or a blockd that dies.

CEPH_CONF, CEPH_DIR and CEPH_POOL are a cluster of ours (contrib/ceph-dev).
"""
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "blockd"))
import nbd
from raw import MB, READ, REQ, SIMPLE, WRITE, Raw
from rig import BLOCKD, CEPH_POOL, Blockd, Case, Client, load, main

CEPH_DEV = os.path.join(os.path.dirname(__file__), "..", "..", "contrib", "ceph-dev")
ETIMEDOUT = 110


def rbd(d, *args):
    """What `rbd` says, as JSON, of the namespace that blockd has its volumes in."""
    out = subprocess.run(["rbd", "--format", "json", "--pool", CEPH_POOL, "--namespace",
                          d.options[-1].rpartition("/")[2], *args],
                         check=True, stdout=subprocess.PIPE, timeout=60).stdout
    return json.loads(out)


def osd_kill():
    """Not SIGSTOP: a group of one OSD that was stopped for about as long as its read lease, 16 s, may
    stay "laggy" for ever, and answer nothing."""
    pid = subprocess.run([CEPH_DEV, "pid", "osd.0", os.environ["CEPH_DIR"]], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    os.kill(int(pid), signal.SIGKILL)


def osd_start():
    subprocess.run([CEPH_DEV, "start", "osd.0", os.environ["CEPH_DIR"]], check=True, timeout=60)


class Images(Case):
    def test_names(self):
        d = self.d
        v = d.create(8 * MB)
        s = d.snapshot(v)
        c = d.clone(s, 8 * MB)
        self.assertEqual(sorted(rbd(d, "ls")), sorted(["volume-" + v, "volume-" + c]))
        self.assertEqual([x["name"] for x in rbd(d, "snap", "ls", "volume-" + v)], [s])
        info = rbd(d, "info", "volume-" + c)
        self.assertEqual(info["parent"]["image"], "volume-" + v)
        self.assertEqual(info["size"], 8 * MB)
        self.assertIn("exclusive-lock", info["features"])

    def gone(self):
        """All of it: the last steps are the background's."""
        end = time.monotonic() + 60
        while rbd(self.d, "ls"):
            self.assertLess(time.monotonic(), end, rbd(self.d, "ls"))
            time.sleep(0.2)

    def test_any_order(self):
        d = self.d
        v = d.create(8 * MB)
        h = nbd.NBD()
        h.connect_uri(d.uri(v))
        h.pwrite(b"1" * 65536, 0)
        s = d.snapshot(v)
        h.pwrite(b"2" * 65536, 0)
        h.shutdown()
        c = d.clone(s, 8 * MB)
        for gone in (v, s):
            d.ok("remove", id=gone)
            self.assertEqual(d.err("stat", id=gone), 2)
        h = nbd.NBD()
        h.connect_uri(d.uri(c))
        self.assertEqual(h.pread(65536, 0), b"1" * 65536)
        h.shutdown()
        while not d.call("remove", id=c)["ok"]:  # its connection is being closed
            time.sleep(0.05)
        self.gone()

    def test_flatten(self):
        d = self.d
        v = d.create(8 * MB)
        c = d.clone(v, 8 * MB)
        d.ok("flatten", id=c)
        while d.ok("stat", id=c)["parent"]:
            time.sleep(0.05)
        self.assertNotIn("parent", rbd(d, "info", "volume-" + c))
        d.ok("remove", id=v)
        d.ok("remove", id=c)
        self.gone()

    def test_locked_elsewhere(self):
        """The image that somebody else has locked is not written, nor removed."""
        d = self.d
        v = d.create(MB)
        other = Blockd(options=())
        self.addCleanup(other.clean)
        other.stop()
        other.options[-1] = d.options[-1]
        other.start()
        h, g = nbd.NBD(), nbd.NBD()
        h.connect_uri(d.uri(v))
        h.pwrite(b"h" * 512, 0)
        g.connect_uri(other.uri(v))
        self.assertRaises(nbd.Error, g.pwrite, b"g" * 512, 0)
        self.assertEqual(g.pread(512, 0), b"h" * 512)
        g.shutdown()
        self.assertIn("locked by", other.log())
        end = time.monotonic() + 20
        while (a := other.call("remove", id=v)) and "is open" in a["error"]:
            self.assertLess(time.monotonic(), end)
        self.assertIn("locked by", a["error"])
        h.pwrite(b"i" * 512, 0)
        h.shutdown()

    def test_moves(self):
        """A volume that two blockds have open, as when its guest moves: the writer is the one that
        was given it, and the other's writes wait."""
        d = self.d
        v = d.create(MB)
        other = Blockd(options=())
        self.addCleanup(other.clean)
        other.stop()
        other.options[-1] = d.options[-1]
        other.start()
        h, g = nbd.NBD(), nbd.NBD()
        h.connect_uri(d.uri(v))
        h.pwrite(b"h" * 512, 0)
        g.connect_uri(other.uri(v))
        self.assertEqual(g.pread(512, 0), b"h" * 512)
        early = threading.Thread(target=g.pwrite, args=(b"g" * 512, 0))
        early.start()  # a guest there that is quicker than the word to let go
        d.ok("activate", id=v, active=False)
        early.join()
        self.assertEqual(h.pread(512, 0), b"g" * 512)
        late = threading.Thread(target=h.pwrite, args=(b"l" * 512, 512))
        late.start()  # it did not get away after all
        other.ok("activate", id=v, active=False)
        self.assertEqual(g.pread(512, 512), bytes(512))
        d.ok("activate", id=v)
        late.join()
        self.assertEqual(g.pread(1024, 0), b"g" * 512 + b"l" * 512)
        h.pwrite(b"m" * 512, 0)
        h.shutdown()
        g.shutdown()


class Flights(Case):
    """What is in flight at once, see blockd/flight.h."""
    SLOT = 64 << 10

    def still(self, v):
        """Its counters, once nothing is in flight."""
        end = time.monotonic() + 60
        while (s := self.d.ok("stats", id=v))["in_flight"]:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)
        return s

    def test_all_at_once(self):
        d, rnd = self.d, random.Random(6)
        v = d.create(64 * self.SLOT)
        h = nbd.NBD()
        h.connect_uri(d.uri(v))
        want = [bytes(self.SLOT)] * 64
        done = {"write": 0, "zero": 0, "trim": 0, "flush": 0, "read": 0}
        for turn in range(6):
            cookies = []
            for i, kind in enumerate(rnd.choices(("write", "zero", "trim"), k=64)):
                if kind == "write":
                    want[i] = bytes([turn + 1]) + rnd.randbytes(self.SLOT - 1)
                    cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(want[i])),
                                                i * self.SLOT))
                else:
                    call = h.aio_zero if kind == "zero" else h.aio_trim
                    want[i] = bytes(self.SLOT) if kind == "zero" else None
                    cookies.append(call(self.SLOT, i * self.SLOT))
                done[kind] += 1
            cookies.append(h.aio_flush())
            done["flush"] += 1
            self.finish(h, cookies)
            got = [nbd.Buffer(self.SLOT) for _ in want]
            self.finish(h, [h.aio_pread(b, i * self.SLOT) for i, b in enumerate(got)])
            done["read"] += 64
            for have, expect in zip(got, want):
                if expect is not None:
                    self.assertEqual(have.to_bytearray(), expect)
        s = self.still(v)
        self.assertEqual({k: s[k]["ops"] for k in done}, done)
        h.shutdown()

    def finish(self, h, cookies):
        for c in cookies:
            while not h.aio_command_completed(c):
                h.poll(-1)

    def test_client_that_does_not_read(self):
        """Replies that the socket does not take are sent when it does, in whole."""
        v = self.d.create(32 * MB)
        r = Raw(self.d.export(v))
        r.go()
        for i in range(32):
            r.request(WRITE, i * MB, MB, payload=bytes([i + 1]) * MB)
            self.assertEqual(r.simple(), (0, 7))
        for i in range(64):
            r.send(struct.pack(">IHHQQI", REQ, 0, READ, i, i % 32 * MB, MB))
        left = set(range(64))
        while left:
            self.assertEqual(struct.unpack(">II", r.get(8)), (SIMPLE, 0))
            i, = struct.unpack(">Q", r.get(8))
            self.assertEqual(r.get(MB), bytes([i % 32 + 1]) * MB)
            left.remove(i)
        r.s.close()

    def test_client_that_vanishes(self):
        v = self.d.create(16 * MB)
        for i in range(4):
            r = Raw(self.d.export(v))
            r.go()
            for k in range(48):
                r.send(struct.pack(">IHHQQI", REQ, 0, WRITE if k % 2 else READ, k, k * 65536, 65536) +
                       b"v" * 65536 * (k % 2))
            r.send(struct.pack(">IHHQQI", REQ, 0, WRITE, 99, 0, MB) + b"half")
            r.s.close()
        self.assertEqual(self.still(v)["write"]["errors"], 0)
        self.d.ok("list")


class Deaths(Case):
    def test_killed(self):
        """kill -9 under load: nothing acknowledged is lost, and the successor writes at once, not
        when Ceph has forgotten its predecessor."""
        d = self.d
        clients = [Client(d.export(d.create(4 * MB)), 4 * MB, i) for i in range(2)]
        longest = 0
        for _ in range(3):
            with load(clients) as step:
                step()
            for c in clients:
                c.h = None
            d.kill()
            began = time.monotonic()
            d.start()
            for c in clients:
                c.connect()
                c.step()
            longest = max(longest, time.monotonic() - began)
            self.assertIn("is barred from the Ceph cluster", d.log())
        print("longest from start to two writes: %.2f s" % longest)
        self.assertLess(longest, 20)  # left alone, it is 29
        for c in clients:
            c.check()

    def test_clean_stop_bars_nobody(self):
        d = self.d
        v = d.create(MB)
        h = nbd.NBD()
        h.connect_uri(d.uri(v))
        h.pwrite(b"x" * 512, 0)
        h.shutdown()
        d.stop()
        self.assertEqual(os.listdir(os.path.join(d.state, "ceph")), [])
        d.start()
        self.assertNotIn("is barred", d.log())

    def test_cluster_lost(self):
        """I/O waits and goes on; calls end with words."""
        seconds = 30 if os.environ.get("STRATOFS_LONG") else 0  # a call's time-out is 15 already
        d = self.d
        c = Client(d.export(d.create(4 * MB)), 4 * MB, 7)
        with load([c]) as step:
            step()
            osd_kill()
            lost = time.monotonic()
            try:
                a = d.call("create", id=str(uuid.uuid4()), size=MB)
                self.assertEqual((a["ok"], a["errno"]), (False, ETIMEDOUT), a)
                self.assertIn("does not answer", a["error"])
                while time.monotonic() < lost + seconds:
                    time.sleep(0.2)
            finally:
                osd_start()
            step()
        self.assertEqual(c.reconnects, 0)
        c.h.shutdown()
        c.check()
        d.ok("list")

    def test_unreachable_at_start(self):
        conf = self.path("ceph.conf")
        with open(conf, "w") as f:
            f.write("[global]\nfsid = %s\nmon host = [v2:127.0.0.1:1/0]\n"
                    "keyring = %s/keyring\n" % (uuid.uuid4(), os.environ["CEPH_DIR"]))
        for target, words in (("rbd:%s,conf=%s" % (CEPH_POOL, conf), "no monitor"),
                              ("rbd:nosuch", "has no pool 'nosuch'"),
                              ("rbd:%s,conf=/nowhere" % CEPH_POOL, "configuration"),
                              ("rbd:", "names no Ceph pool"),
                              ("nosuch:", "nosuch")):
            out = self.tool(BLOCKD, "--state", self.path("s"), "--run", self.path("r"), "--pool",
                            target, rc=1)
            self.assertIn(words, out)


main()
