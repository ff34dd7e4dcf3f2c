#!/usr/bin/python3
"""Metadata contexts: what has changed since a snapshot, as backup tools ask for it."""
import json
import random
import uuid

import nbd
from rig import Case, main

MB = 1 << 20
SIZE = 16 * MB


class Dirty(Case):
    def setUp(self):
        super().setUp()
        self.v = self.d.create(SIZE)

    def snapshot(self, of=None):
        s = str(uuid.uuid4())
        self.d.ok("snapshot", id=s, volume=of or self.v)
        return s

    def connect(self, socket, name="", *contexts):
        h = nbd.NBD()
        for c in contexts:
            h.add_meta_context(c)
        h.set_export_name(name)
        h.connect_unix(socket)
        self.addCleanup(h.shutdown)
        return h

    def extents(self, h, n, off, context):
        """[(length, flags)] of the range, asking on until it is all told."""
        got = []

        def each(name, at, pairs, error):
            if name == context:
                got.extend(zip(pairs[::2], pairs[1::2]))

        end = off + n
        while off < end:
            got_before = len(got)
            h.block_status(end - off, off, each)
            off += sum(length for length, _ in got[got_before:])
        return got

    def changed(self, h, context):
        """The 4 KiB blocks that the context says have changed."""
        blocks, off = set(), 0
        for length, flags in self.extents(h, SIZE, 0, context):
            if flags & 1:
                blocks |= set(range(off // 4096, (off + length + 4095) // 4096))
            off += length
        self.assertEqual(off, SIZE)
        return blocks

    def test_random_writes_between_snapshots(self):
        rnd = random.Random(self.id())
        h = self.connect(self.d.shared, self.v)
        since = {}
        for _ in range(5):
            since[self.snapshot()] = set()
            for _ in range(40):
                off = rnd.randrange(SIZE - 65536)
                n = rnd.randrange(1, 65536)
                what = rnd.choice(("write", "zero", "trim"))
                if what == "write":
                    h.pwrite(rnd.randbytes(n), off)
                elif what == "zero":
                    h.zero(n, off)
                else:
                    h.trim(n, off)
                touched = set(range(off // 4096, (off + n + 4095) // 4096))
                for blocks in since.values():
                    blocks |= touched
        now = h.pread(SIZE, 0)
        names = ["stratofs:dirty/" + s for s in since]
        g = self.connect(self.d.shared, self.v, "base:allocation", *names)
        for s, touched in since.items():
            told = self.changed(g, "stratofs:dirty/" + s)
            self.assertLessEqual(told, touched)  # never more than was touched
            then = self.connect(self.d.shared, s).pread(SIZE, 0)
            for b in range(SIZE // 4096):
                if then[b * 4096:(b + 1) * 4096] != now[b * 4096:(b + 1) * 4096]:
                    self.assertIn(b, told)  # never less than has changed
        self.assertEqual(sum(n for n, _ in self.extents(g, SIZE, 0, "base:allocation")), SIZE)

    def test_writes_while_connected(self):
        s = self.snapshot()
        h = self.connect(self.d.shared, self.v, "stratofs:dirty/" + s)
        self.assertEqual(self.changed(h, "stratofs:dirty/" + s), set())
        h.pwrite(b"x" * 4096, 8192)
        self.assertEqual(self.changed(h, "stratofs:dirty/" + s), {2})
        self.snapshot()
        h.pwrite(b"x", 5 * 4096)
        self.assertEqual(self.changed(h, "stratofs:dirty/" + s), {2, 5})

    def test_tools(self):
        h = self.connect(self.d.shared, self.v)
        h.pwrite(b"a" * MB, 0)
        s = self.snapshot()
        h.pwrite(b"b" * 65536, 4 * MB)
        context = "stratofs:dirty/" + s
        told = json.loads(self.tool("nbdinfo", "--json", "--map=" + context, self.d.uri(self.v)))
        self.assertEqual([(e["offset"], e["length"]) for e in told if e["type"] & 1],
                         [(4 * MB, 65536)])
        shown = self.tool("nbdinfo", self.d.uri(self.v))
        self.assertIn(context, shown)
        told = json.loads(self.tool(
            "qemu-img", "map", "--output=json", "--image-opts",
            "driver=nbd,export=%s,server.type=unix,server.path=%s,x-dirty-bitmap=%s" % (
                self.v, self.d.shared, context)))
        # QEMU shows a dirty extent as one without data.
        self.assertEqual([(e["start"], e["length"]) for e in told if not e["data"]],
                         [(4 * MB, 65536)])

    def test_a_guest_sees_its_own_only(self):
        s = self.snapshot()
        other = self.d.clone(s, SIZE)
        self.d.ok("export", id="guest", volume=self.v, uid=0, gid=0)
        path = self.d.run + "/exports/guest/nbd.sock"
        for c, can in (("stratofs:dirty/" + s, True), ("stratofs:dirty/" + other, False),
                       ("stratofs:dirty/" + self.v, False), ("stratofs:dirty/x", False),
                       ("stratofs:dirty/" + str(uuid.uuid4()), False)):
            self.assertEqual(self.connect(path, "", c).can_meta_context(c), can, c)

    def test_a_snapshot_goes_when_nobody_compares(self):
        s = self.snapshot()
        context = "stratofs:dirty/" + s
        h = nbd.NBD()
        h.add_meta_context(context)
        h.set_export_name(self.v)
        h.connect_unix(self.d.shared)
        self.assertTrue(h.can_meta_context(context))
        self.assertEqual(self.d.err("remove", id=s), 16)
        h.shutdown()
        self.d.ok("export", id="x", volume=self.v, uid=0, gid=0)
        self.d.ok("unexport", id="x")
        while self.d.call("remove", id=s)["ok"] is not True:
            self.assertGreater(self.d.ok("stat", id=s)["users"], 0)


if __name__ == "__main__":
    main()
