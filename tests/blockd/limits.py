#!/usr/bin/python3
"""Limits and counters: kept, changed while a client waits, durable; nobody starves."""
import json
import os
import socket
import struct
import threading
import uuid
from errno import EINVAL, ENOENT

import nbd
from rig import Case, main

MB = 1 << 20
NOBODY = "00000000-0000-4000-8000-000000000000"
NONE = dict(iops=0, bandwidth=0, iops_burst=0, bandwidth_burst=0, burst_seconds=0)
OPS = ("read", "write", "flush", "trim", "zero", "status", "cache")


def connect(path, structured=True):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    h.add_meta_context("base:allocation")
    h.connect_unix(path)
    return h


class Greedy(threading.Thread):
    """Keeps depth reads in flight until told to stop; counts those that were answered."""

    def __init__(self, path, depth):
        super().__init__()
        self.h, self.depth, self.done = connect(path), depth, 0
        self.stopping = threading.Event()
        self.start()

    def run(self):
        h, buf, sent = self.h, nbd.Buffer(4096), 0
        while self.done < sent or not self.stopping.is_set():
            while sent - self.done < self.depth and not self.stopping.is_set():
                h.aio_pread(buf, 0, completion=self.completed)
                sent += 1
            h.poll(1000)

    def completed(self, error):
        self.done += 1
        return 1

    def stop(self):
        self.stopping.set()
        self.join()
        self.h.shutdown()


class Raw:
    """Requests sent, answers read when the test wants them."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(60)
        self.s.connect(path)
        self.recv(18)
        self.s.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0))
        self.recv(10)

    def recv(self, n):
        out = b""
        while len(out) < n:
            piece = self.s.recv(n - len(out))
            if not piece:
                raise EOFError
            out += piece
        return out

    def read(self, cookie, n=512, off=0):
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, off, n))

    def answer(self, n=512):
        magic, error, cookie = struct.unpack(">IIQ", self.recv(16))
        assert magic == 0x67446698
        if not error:
            self.recv(n)
        return error, cookie


class Limits(Case):
    def raw(self, path):
        c = Raw(path)
        self.addCleanup(c.s.close)
        return c

    def stats(self, v):
        return self.d.ok("stats", id=v)

    def in_flight(self, v, n):
        """Until as many wait."""
        while self.stats(v)["in_flight"] != n:
            pass

    def debt(self, path, v):
        """One I/O a second, and so many asked for at once that the next would wait for weeks."""
        self.d.ok("limit", id=v, bandwidth=1)
        h = connect(path)
        h.pread(MB, 0)  # passes: a request is never too large
        return h

    def test_calls(self):
        d, v = self.d, self.d.create(MB)
        for _ in range(2):
            d.ok("limit", id=v, iops=500, bandwidth=MB, iops_burst=1000, burst_seconds=10)
        got = self.stats(v)
        self.assertEqual({k: got[k] for k in NONE},
                         dict(iops=500, bandwidth=MB, iops_burst=1000, bandwidth_burst=0,
                              burst_seconds=10))
        d.ok("limit", id=v, bandwidth=2 * MB)  # the whole set: what is not named is not limited
        self.assertEqual({k: self.stats(v)[k] for k in NONE}, dict(NONE, bandwidth=2 * MB))
        for bad in (dict(iops=-1), dict(iops=1 << 40), dict(bandwidth=1 << 60),
                    dict(burst_seconds=1 << 30), dict(iops="5"), dict(iops=1.5),
                    dict(iops=1 << 64)):
            self.assertEqual(d.err("limit", id=v, **bad), EINVAL, bad)
        for bad in (NOBODY, "../../x", ""):
            self.assertIn(d.err("limit", id=bad, iops=5), (ENOENT, EINVAL))
            self.assertIn(d.err("stats", id=bad), (ENOENT, EINVAL))
        self.assertEqual({k: self.stats(v)[k] for k in NONE}, dict(NONE, bandwidth=2 * MB))

    def test_limits_are_durable(self):
        d = self.d
        v, w, gone = d.create(MB), d.create(MB), d.create(MB)
        d.ok("limit", id=v, iops=500, iops_burst=700)
        d.ok("limit", id=w, iops=500)
        d.ok("limit", id=w)
        d.ok("limit", id=gone, iops=9)
        d.ok("remove", id=gone)
        files = os.listdir(os.path.join(d.state, "limits"))
        self.assertEqual(files, [v + ".json"])
        with open(os.path.join(d.state, "limits", NOBODY + ".json"), "w") as f:
            json.dump(dict(NONE, format=1, volume=NOBODY, iops=3), f)  # killed during a remove
        with open(os.path.join(d.state, "limits", "x.json"), "w") as f:
            f.write("{")
        for end in (d.kill, d.stop):
            end()
            d.start()
            got = self.stats(v)
            self.assertEqual((got["iops"], got["iops_burst"]), (500, 700))
            self.assertEqual(self.stats(w)["iops"], 0)
            self.assertFalse(os.path.exists(os.path.join(d.state, "limits", NOBODY + ".json")))
        self.assertIn("limits 'x.json' left out", d.log())
        d.ok("create", id=gone, size=MB)
        self.assertEqual(self.stats(gone)["iops"], 0)

    def test_live_change(self):
        """Who waits notices; a limit from before the connection holds, and one from after."""
        for when in ("before", "after"):
            v = self.d.create(4 * MB)
            x = self.d.export(v)
            first = connect(x) if when == "after" else None
            h = self.debt(x, v)
            waiting = [self.raw(x) for _ in range(4)]
            for i, c in enumerate(waiting):
                c.read(i)
                self.in_flight(v, i + 1)
            self.assertEqual(self.stats(v)["read"]["ops"], 1)
            self.d.ok("limit", id=v)
            for i, c in enumerate(waiting):
                self.assertEqual(c.answer(), (0, i))
            h.shutdown()
            if first:
                self.debt(x, v).shutdown()
                with_first = threading.Thread(target=first.pread, args=(512, 0))
                with_first.start()
                self.in_flight(v, 1)
                self.d.ok("limit", id=v, iops=1000)
                with_first.join()
                first.shutdown()

    def test_what_is_before_is_answered(self):
        """In one burst: those that may pass are answered before the one that waits."""
        v = self.d.create(4 * MB)
        c = self.raw(self.d.export(v))
        self.d.ok("limit", id=v, bandwidth=1)
        c.s.sendall(b"".join(struct.pack(">IHHQQI", 0x25609513, 0, t, i, 0, n)
                             for i, (t, n) in enumerate([(3, 0), (0, MB), (3, 0), (0, 512)])))
        self.assertEqual(c.answer(0), (0, 0))
        self.assertEqual(c.answer(MB), (0, 1))
        self.assertEqual(c.answer(0), (0, 2))
        self.in_flight(v, 1)
        self.d.ok("limit", id=v)
        self.assertEqual(c.answer(), (0, 3))

    def test_waiting_ends_with_the_connection(self):
        """The client goes, its export goes, blockd stops: nobody waits for weeks."""
        v = self.d.create(4 * MB)
        x = self.d.export(v, id="x")
        self.debt(x, v).shutdown()
        c = self.raw(x)
        c.read(1)
        self.in_flight(v, 1)
        c.s.close()
        self.in_flight(v, 0)
        c = self.raw(x)
        c.read(1)
        self.in_flight(v, 1)
        self.d.ok("unexport", id="x")
        with self.assertRaises(EOFError):
            c.answer()
        c = self.raw(self.d.export(v))
        c.read(1)
        self.in_flight(v, 1)
        self.d.stop()
        self.d.start()

    def test_the_volume_is_limited_not_the_connection(self):
        """Two exports of one volume share; flush and trim do not wait for bytes."""
        v, other = self.d.create(4 * MB), self.d.create(4 * MB)
        x, y, z = self.d.export(v), self.d.export(v), self.d.export(other)
        self.debt(x, v).shutdown()
        c = self.raw(y)
        c.read(1)
        self.in_flight(v, 1)
        h = connect(z)
        h.pwrite(bytes(MB), 0)  # another volume does not wait
        h.shutdown()
        h = connect(x)
        h.flush()
        h.shutdown()
        self.d.ok("limit", id=v)
        self.assertEqual(c.answer(), (0, 1))

    def test_the_rate_is_kept(self):
        """By the I/Os that were served, on the daemon's clock: at least as long as they must take."""
        v = self.d.create(4 * MB)
        h = connect(self.d.export(v))
        self.d.ok("limit", id=v, iops=100)
        for i in range(60):  # ten are saved up, one is on credit
            h.pread(512, i * 512)
        self.assertGreaterEqual(self.stats(v)["read"]["usec"], (60 - 11) * 10000 * 0.8)
        self.d.ok("limit", id=v, bandwidth=MB)
        before = self.stats(v)["write"]["usec"]
        for i in range(6):  # a tenth is saved up, one is on credit
            h.pwrite(bytes(128 << 10), 0)
        self.assertGreaterEqual(self.stats(v)["write"]["usec"] - before,
                                (6 - 2) * 125000 * 0.8)
        h.shutdown()

    def test_nobody_starves(self):
        """A greedy export against a modest one: on two volumes, and under one limit."""
        for limit in (None, 2000):
            v = self.d.create(4 * MB)
            w = v if limit else self.d.create(4 * MB)
            if limit:
                self.d.ok("limit", id=v, iops=limit)
            greedy, modest = Greedy(self.d.export(v), 64), connect(self.d.export(w))
            while greedy.done < 64:
                pass
            before = greedy.done
            for i in range(300):
                modest.pread(4096, i * 4096)
            after = greedy.done
            while greedy.done == after:
                pass
            greedy.stop()
            modest.shutdown()
            self.assertGreater(after, before)
            if limit:  # in turn: what is behind 64 others would get a 65th
                self.assertLess(after - before, 300 * 20)

    def test_counters(self):
        d, v = self.d, self.d.create(MB)
        x = d.export(v)
        a = self.stats(v)
        self.assertEqual((a["since"], a["in_flight"]), (0, 0))
        h = connect(x)
        h.set_strict_mode(0)
        h.pwrite(bytes(range(256)) * 16, 0)
        h.pread(8192, 0)
        h.pread(MB, 0)
        h.pwrite(bytes(MB), 0)  # its payload comes in pieces
        h.flush()
        h.trim(4096, 0)
        h.zero(8192, 0)
        h.cache(4096, 0)
        h.block_status(MB, 0, lambda *a: 0)
        for bad in (lambda: h.pread(512, MB), lambda: h.pread(128 << 10, MB),
                    lambda: h.pwrite(bytes(512), MB), lambda: h.pwrite(bytes(MB), MB),
                    lambda: h.trim(512, 2 * MB)):
            with self.assertRaises(nbd.Error):
                bad()
        want = dict(read=(4, 8192 + MB, 2), write=(4, 4096 + MB, 2), flush=(1, 0, 0),
                    trim=(2, 4096, 1), zero=(1, 8192, 0), cache=(1, 4096, 0), status=(1, 0, 0))

        def check():
            got = self.stats(v)
            self.assertEqual({k: (got[k]["ops"], got[k]["bytes"], got[k]["errors"]) for k in OPS},
                             want)
            for k in OPS:
                self.assertEqual(sum(got[k]["latency"]), got[k]["ops"])
                self.assertLessEqual(len(got[k]["latency"]), 28)
            return got

        while self.stats(v)["in_flight"]:
            pass
        since = check()["since"]
        self.assertGreater(since, 0)
        h.shutdown()  # a closed connection's are kept
        while d.ok("list_exports")["exports"][0]["connections"]:
            pass
        self.assertEqual(check()["since"], since)
        listed = d.ok("stats")
        self.assertEqual([x["id"] for x in listed["volumes"]], [v])
        d.kill()
        d.start()
        self.assertEqual(self.stats(v)["read"]["ops"], 0)

    def test_listing_pages(self):
        vs = sorted(str(uuid.UUID(int=i, version=4)) for i in range(1, 320))
        for v in vs:
            self.d.ok("create", id=v, size=512)
            self.d.ok("limit", id=v, iops=7)
        got, after = [], ""
        while True:
            a = self.d.ok("stats", after=after)
            got += [x["id"] for x in a["volumes"]]
            if not a["more"]:
                break
            after = got[-1]
        self.assertEqual(got, vs)


if __name__ == "__main__":
    main()
