#!/usr/bin/python3
"""Changed blocks: the metadata contexts that backup tools read, with the clients they use."""
import json
import os
import random
import threading
import uuid

import nbd
import raw
from rig import Case, main

MB = 1 << 20
BLOCK = 4096


def connect(socket, *contexts):
    h = nbd.NBD()
    for c in contexts:
        h.add_meta_context(c)
    h.connect_unix(socket)
    return h


def dirty(snapshot):
    return "stratofs:dirty/" + snapshot


def status(h, size=None, flags=0):
    """{context: [(offset, length, flags)]} of all the export."""
    got, size = {}, size or h.get_size()

    def extent(context, off, entries, err):
        at = off
        for length, state in zip(entries[::2], entries[1::2]):
            got.setdefault(context, []).append((at, length, state))
            at += length
        return 0
    h.block_status(size, 0, extent, flags)
    return got


def changed(h, context):
    """The numbers of the blocks that it says are changed."""
    entries = status(h)[context]
    at = 0
    for off, length, state in entries:
        assert off == at and state in (0, 1), entries
        at += length
    assert at == h.get_size()
    return {b for off, length, state in entries if state
            for b in range(off // BLOCK, (off + length + BLOCK - 1) // BLOCK)}


class Dirty(Case):
    def test_since_each_snapshot(self):
        """Three snapshots, asked about on one connection with the allocation; what is written later
        shows at once."""
        d, v = self.d, self.d.create(4 * MB)
        w = connect(d.export(v))
        snapshots, want = [], []
        for i in range(3):
            w.pwrite(b"%d" % i * 5000, i * 100 * BLOCK + 1)
            want = [blocks | {i * 100, i * 100 + 1} for blocks in want] + [set()]
            snapshots.append(d.snapshot(v))
        names = [dirty(s) for s in snapshots]
        h = connect(d.export(v), nbd.CONTEXT_BASE_ALLOCATION, *names)
        for name, blocks in zip(names, want):
            self.assertTrue(h.can_meta_context(name))
            self.assertEqual(changed(h, name), blocks)
        self.assertEqual(sum(e[1] for e in status(h)[nbd.CONTEXT_BASE_ALLOCATION]), 4 * MB)
        w.zero(BLOCK, 50 * BLOCK)
        w.pwrite(b"x", 60 * BLOCK + 1)
        w.trim(BLOCK, 0)
        for name, blocks in zip(names, want):
            self.assertEqual(changed(h, name), blocks | {50, 60, 0})
        self.assertEqual([len(e) for e in status(h, flags=nbd.CMD_FLAG_REQ_ONE).values()], [1] * 4)
        newer = d.snapshot(v)
        w.pwrite(b"y", 70 * BLOCK)
        self.assertEqual(changed(h, names[2]), {50, 60, 0, 70})
        self.assertEqual(changed(connect(d.export(v), dirty(newer)), dirty(newer)), {70})

    def test_growth(self):
        d, v = self.d, self.d.create(MB)
        s = d.snapshot(v)
        d.ok("resize", id=v, size=MB + 5 * BLOCK)
        h = connect(d.export(v), dirty(s))
        self.assertEqual(changed(h, dirty(s)), {256, 257, 258, 259, 260})

    def test_what_is_offered(self):
        """What a volume was or came from; not other people's, not what is no snapshot."""
        d, base = self.d, self.d.create(MB)
        image, mine, other = d.snapshot(base), d.create(MB), d.create(MB)
        clone = d.clone(image, MB)
        cousin = d.clone(image, MB)
        own, cousins, others = d.snapshot(clone), d.snapshot(cousin), d.snapshot(other)
        own2 = d.snapshot(clone)
        c = connect(d.export(clone), nbd.CONTEXT_BASE_ALLOCATION, dirty(own), dirty(image),
                    dirty(cousins), dirty(others), dirty(mine), dirty(clone), dirty(base))
        for name, there in ((dirty(own), True), (dirty(image), True), (dirty(cousins), False),
                            (dirty(others), False), (dirty(mine), False), (dirty(clone), False),
                            (dirty(base), False)):
            self.assertEqual(c.can_meta_context(name), there, name)
        h = connect(d.export(own2), dirty(own), dirty(cousins))
        self.assertTrue(h.can_meta_context(dirty(own)))  # both of one volume
        self.assertFalse(h.can_meta_context(dirty(cousins)))
        for name in ("stratofs:dirty/", "stratofs:dirty/x", dirty(str(uuid.uuid4())), "stratofs:",
                     dirty(own.upper()), dirty(own) + "0", "x" * 4000):
            h = connect(d.export(clone), name)
            self.assertFalse(h.can_meta_context(name), name)

    def test_many(self):
        d, v = self.d, self.d.create(MB)
        names = [dirty(d.snapshot(v)) for _ in range(12)]
        h = connect(d.export(v), *names)
        self.assertEqual([h.can_meta_context(n) for n in names], [True] * 8 + [False] * 4)
        self.assertEqual(len(status(h)), 8)

    def test_list(self):
        d, v = self.d, self.d.create(MB)
        s = d.snapshot(v)
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.connect_unix(d.export(v))
        for queries, want in (([], ["base:allocation", dirty(s)]),
                              (["base:"], ["base:allocation"]), (["stratofs:"], [dirty(s)]),
                              ([dirty(s), dirty(v)], [dirty(s)]),
                              (["stratofs:dirty/", "nobody:"], [dirty(s)])):
            got = []
            h.clear_meta_contexts()
            for q in queries:
                h.add_meta_context(q)
            h.opt_list_meta_context(got.append)
            self.assertEqual(got, want)
        h.opt_abort()

    def test_removal(self):
        """A snapshot that is compared with stays; one that went between asking and going is an
        error in the handshake, and the connection may try again."""
        d, v = self.d, self.d.create(MB)
        s = d.snapshot(v)
        socket = d.export(v)
        h = connect(socket, dirty(s))
        self.assertEqual(d.err("remove", id=s), 16)
        self.assertEqual(changed(h, dirty(s)), set())
        h.shutdown()
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.add_meta_context(dirty(s))
        h.connect_unix(socket)
        if hasattr(h, "opt_set_meta_context"):
            got = []
            h.set_request_meta_context(False)
            h.opt_set_meta_context(got.append)
            self.assertEqual(got, [dirty(s)])
            self.wait_removed(s)
            with self.assertRaises(nbd.Error):
                h.opt_go()
            h.clear_meta_contexts()
            h.opt_set_meta_context(got.append)
            h.opt_go()
            self.assertEqual(h.pread(1, 0), b"\0")
        else:
            self.wait_removed(s)
            h.opt_go()
            self.assertFalse(h.can_meta_context(dirty(s)))
        h.shutdown()

    def test_many_queries(self):
        """One option asks for everything many times over: it is told once, or is too much."""
        v = self.d.create(MB)
        snapshots = {self.d.snapshot(v) for _ in range(3)}
        r = raw.Raw(self.d.export(v))
        self.assertEqual(r.ask(8), [(raw.ACK, b"")])
        got = r.ask(9, raw.contexts(b"", *[b"stratofs:", b"stratofs:dirty/"] * 32))
        self.assertEqual(sorted(p[4:].decode() for _, p in got[:-1]), sorted(map(dirty, snapshots)))
        one = dirty(snapshots.pop()).encode()
        for option in (9, 10):
            self.assertEqual([p[4:] for _, p in r.ask(option, raw.contexts(b"", *[one] * 64))],
                             [one, b""])
            for queries in ([one] * 65, [b"stratofs:"] * 5000):
                got = r.ask(option, raw.contexts(b"", *queries))
                self.assertEqual([k for k, _ in got], [raw.TOO_BIG])
        self.assertEqual(r.go()[-1][0], raw.ACK)
        r.s.close()

    def wait_removed(self, s):
        """The connection that was shut down lets go of it when its thread sees that."""
        while self.d.call("remove", id=s)["ok"] is not True:
            os.sched_yield()

    def test_tools(self):
        d, v = self.d, self.d.create(MB)
        s = d.snapshot(v)
        socket = d.export(v)
        h = connect(socket)
        h.pwrite(b"n" * 8192, 65536)
        text = self.tool("nbdinfo", "--json", "--map=" + dirty(s),
                         "nbd+unix:///?socket=" + socket)
        self.assertEqual([(e["offset"], e["length"], e["type"]) for e in json.loads(text)],
                         [(0, 65536, 0), (65536, 8192, 1), (73728, MB - 73728, 0)])
        text = self.tool("qemu-img", "map", "--output=json", "--image-opts",
                         "driver=nbd,server.type=unix,server.path=%s,x-dirty-bitmap=%s"
                         % (socket, dirty(s)))
        self.assertEqual([(e["start"], e["length"]) for e in json.loads(text) if not e["data"]],
                         [(65536, 8192)])

    def test_incremental_backups(self):
        """Of a volume that is written all the time: each takes a snapshot, copies what changed since
        the one before, and removes that; the copy is the snapshot, byte for byte."""
        d, size = self.d, 4 * MB
        v = d.create(size)
        stop, failed = threading.Event(), []

        def write():
            rnd, h = random.Random(5), connect(socket)
            try:
                while not stop.is_set():
                    n = rnd.choice((512, 4096, 10000))
                    off = rnd.randrange(size - n)
                    what = rnd.randrange(8)
                    if what == 0:
                        h.zero(n, off)
                    elif what == 1:
                        h.trim(n, off)
                    else:
                        h.pwrite(rnd.randbytes(n), off)
            except nbd.Error as e:
                failed.append(e)
        socket = d.export(v)
        copy, last, copied = bytearray(size), d.snapshot(v), 0
        copy[:] = connect(d.export(last, id="s" + last)).pread(size, 0)
        d.ok("unexport", id="s" + last)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(15):
                s = d.snapshot(v)
                h = connect(d.export(s, id="s" + s), dirty(last))
                for b in changed(h, dirty(last)):
                    copy[b * BLOCK:(b + 1) * BLOCK] = h.pread(BLOCK, b * BLOCK)
                    copied += 1
                self.assertTrue(copy == h.pread(size, 0))
                d.ok("unexport", id="s" + s)
                d.ok("remove", id=last)
                last = s
        finally:
            stop.set()
            writer.join()
        self.assertEqual(failed, [])
        self.assertGreater(copied, 0)
        self.assertLess(copied, 15 * size // BLOCK)


main()
