"""Checks and scrubs of volumes in use: what is found, what is mended, what reads give meanwhile."""
import errno
import glob
import os
import random
import shutil
import time

import nbd

from rig import MB, Blockd, Case, main

BLOCK = 4096
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1 << 32)
FLIPS = int(os.environ.get("FLIPS", "8"))  # bits a file


def flip(path, at, bit=0):
    """One bit of the file, in place."""
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))


def connect(d, volume):
    h = nbd.NBD()
    h.connect_uri(d.uri(volume))
    return h


class Check(Case):
    def folder(self, volume):
        return os.path.join(self.d.state, "pool", volume)

    def check(self, volume, **more):
        """The report of one check, when it has ended."""
        self.d.ok("check", id=volume, start=True, **more)
        while True:
            a = self.d.ok("check", id=volume)
            if a["state"] != "running":
                break
            time.sleep(0.01)
        self.assertEqual(a["state"], "done", a)
        return a

    def stack(self, size=8 * MB):
        """A volume with a frozen layer below it, and its bytes."""
        v = self.d.create(size)
        h = connect(self.d, v)
        model = bytearray(random.Random(1).randbytes(size // 2)) + bytearray(size // 2)
        h.pwrite(bytes(model[:size // 2]), 0)
        h.flush()
        s = self.d.snapshot(v)
        for off in range(0, size, 16 * BLOCK):
            model[off:off + BLOCK] = bytes([off // BLOCK % 255 + 1]) * BLOCK
            h.pwrite(bytes(model[off:off + BLOCK]), off)
        h.flush()
        return v, s, h, model

    def test_clean(self):
        v, s, h, model = self.stack()
        for id in v, s:
            for how in ({}, {"scrub": True}, {"scrub": True, "sums": True}, {"scrub": True}):
                a = self.check(id, **how)
                self.assertEqual(a["findings"], [])
                self.assertEqual(a["done"], a["total"])
        self.assertEqual(h.pread(len(model), 0), model)
        self.assertEqual(self.d.err("check", id="0" * 8 + "-0000-4000-8000-" + "0" * 12),
                         errno.ENOENT)
        self.assertEqual(self.d.ok("check", id=self.d.create(MB))["state"], "none")

    def test_token(self):
        """The one that was begun, and not another."""
        v = self.d.create(MB)
        self.check(v, token="7")
        a = self.d.ok("check", id=v, start=True, token="7")
        self.assertEqual((a["state"], a["token"]), ("done", "7"))

    def test_meta_online(self):
        v, s, h, model = self.stack()
        for name in "meta", "meta.bak":
            flip(os.path.join(self.folder(v), name), 30)
            a = self.check(v)
            self.assertEqual((a["found"], a["repaired"]), (1, 1), a)
            self.assertIn(name, a["findings"][0])
            self.assertTrue(a["findings"][0].endswith(": repaired"))
            self.assertEqual(self.check(v)["found"], 0)
        os.unlink(os.path.join(self.folder(v), "meta"))
        self.assertEqual(self.check(v)["repaired"], 1)
        h.shutdown()
        self.d.stop()
        self.d.start()
        self.assertEqual(connect(self.d, v).pread(len(model), 0), model)

    def test_log_online(self):
        v, s, h, model = self.stack()
        for at in 3, 20, 70, 100, 140:
            flip(os.path.join(self.folder(v), "map.1"), at, at % 8)
            a = self.check(v)
            self.assertEqual((a["found"], a["repaired"]), (1, 1), a)
            self.assertIn("map.1", a["findings"][0])
            self.assertEqual(self.check(v)["found"], 0)
            model[at * BLOCK:(at + 1) * BLOCK] = bytes([at]) * BLOCK
            h.pwrite(bytes([at]) * BLOCK, at * BLOCK)
            h.flush()
        # A frozen layer's, whose map is in memory while it is open.
        self.d.snapshot(v)
        h.pwrite(b"n" * BLOCK, 0)
        model[:BLOCK] = b"n" * BLOCK
        flip(os.path.join(self.folder(v), "map.1"), 90)
        self.assertEqual(self.check(v)["repaired"], 1)
        self.assertEqual(self.check(v)["found"], 0)
        h.shutdown()
        self.d.stop()
        self.assertEqual(self.tool(*self.d_check()), "0 findings\n")
        self.d.start()
        self.assertEqual(connect(self.d, v).pread(len(model), 0), model)

    def d_check(self):
        from rig import BLOCKD
        return BLOCKD, "--check", self.d.state

    def test_last_group(self):
        """What a flush promised is not taken for a torn tail, wherever in it the bit is."""
        v, s, h, model = self.stack()
        h.pwrite(b"p" * BLOCK, 5 * BLOCK)
        h.flush()
        log = os.path.join(self.folder(v), "map.1")
        size = os.path.getsize(log)
        h.shutdown()
        self.d.stop()
        # The mark is the last 104 bytes; before it is the group of the last flush.
        for at in range(size - 208, size - 104, 13):
            flip(log, at)
            self.d.start()
            with self.assertRaises(nbd.Error):
                connect(self.d, v)
            a = self.check(v)
            self.assertIn("damaged", a["findings"][0])
            self.d.stop()
            flip(log, at)
        # One that was written anew has a mark, too.
        self.d.start()
        h = connect(self.d, v)
        self.assertEqual(h.pread(BLOCK, 5 * BLOCK), b"p" * BLOCK)
        flip(log, 70)
        self.assertEqual(self.check(v)["repaired"], 1)
        size = os.path.getsize(log)
        h.shutdown()
        self.d.stop()
        flip(log, size - 110)
        self.d.start()
        with self.assertRaises(nbd.Error):
            connect(self.d, v)
        self.d.stop()
        flip(log, size - 110)
        self.d.start()
        self.assertEqual(connect(self.d, v).pread(BLOCK, 5 * BLOCK), b"p" * BLOCK)

    def test_header(self):
        v, s, h, model = self.stack()
        h.shutdown()
        self.d.stop()
        for at in 0, 8, 12, 20, 33, 50, 60:
            flip(os.path.join(self.folder(v), "map.1"), at)
            self.d.start()
            self.assertEqual(connect(self.d, v).pread(len(model), 0), model)
            self.assertIn("header of its map log is damaged", self.d.log())
            self.d.stop()
            self.assertEqual(self.tool(*self.d_check()), "0 findings\n")

    def test_at_rest(self):
        """blockd --check says it as well, and --repair mends it."""
        v, s, h, model = self.stack()
        h.shutdown()
        self.d.stop()
        for name, at in ("meta", 20), ("meta.bak", 20), ("map.1", 20):
            flip(os.path.join(self.folder(v), name), at)
            self.assertIn(" is damaged", self.tool(*self.d_check(), rc=1))
            self.assertIn("(mended)", self.tool(*self.d_check(), "--repair"))
            self.assertEqual(self.tool(*self.d_check()), "0 findings\n")
        for name in "meta", "meta.bak":
            flip(os.path.join(self.folder(v), name), 20)
        self.assertIn("checksum", self.tool(*self.d_check(), "--repair", rc=1))
        for name in "meta", "meta.bak":
            flip(os.path.join(self.folder(v), name), 20)
        self.d.start()
        self.assertEqual(connect(self.d, v).pread(len(model), 0), model)

    def test_short_file(self):
        v, s, h, model = self.stack()
        os.truncate(os.path.join(self.folder(v), "data.1"), 2 * MB)
        a = self.check(v)
        self.assertEqual(a["found"], 1, a)
        self.assertIn("data.1 ends at byte 2097152", a["findings"][0])
        os.rename(os.path.join(self.folder(v), "data.0"), self.path("away"))
        self.assertEqual(self.check(v)["found"], 2)
        os.rename(self.path("away"), os.path.join(self.folder(v), "data.0"))
        h.shutdown()

    def test_sums(self):
        v, s, h, model = self.stack()
        self.assertEqual(self.check(v, scrub=True, sums=True)["found"], 0)
        data = os.path.join(self.folder(v), "data.0")
        bad = 5  # a block that the top layer does not hold
        flip(data, bad * BLOCK + 77, 3)
        for off, n in (bad * BLOCK, BLOCK), (bad * BLOCK + 512, 10), (0, 1 * MB):
            for id in v, s:
                with self.assertRaises(nbd.Error) as c:
                    connect(self.d, id).pread(n, off)
                self.assertEqual(c.exception.errnum, errno.EIO)
        # All others are served, and the connection with them.
        self.assertEqual(h.pread(bad * BLOCK, 0), model[:bad * BLOCK])
        rest = (bad + 1) * BLOCK
        self.assertEqual(h.pread(len(model) - rest, rest), model[rest:])
        # Copying up a part of it must not make it good.
        with self.assertRaises(nbd.Error):
            h.pwrite(b"x" * 100, bad * BLOCK + 100)
        where = "byte %d " % (bad * BLOCK)
        self.assertTrue(any(where in f for f in self.check(v)["findings"]))
        a = self.check(v, scrub=True)
        self.assertTrue(any(where + "does not match" in f for f in a["findings"]), a)
        self.assertIn("does not match its checksum", self.d.log())
        # A clone of it, and a new start, know as well.
        h.shutdown()
        self.d.stop()
        self.d.start()
        with self.assertRaises(nbd.Error):
            connect(self.d, self.d.clone(s, len(model))).pread(BLOCK, bad * BLOCK)
        # Written as a whole it is good again in the volume.
        h = connect(self.d, v)
        h.pwrite(b"w" * BLOCK, bad * BLOCK)
        self.assertEqual(h.pread(BLOCK, bad * BLOCK), b"w" * BLOCK)
        flip(data, bad * BLOCK + 77, 3)
        self.assertEqual(self.check(v, scrub=True)["found"], 0)

    def merge(self, damage=None):
        """A volume with checksums whose two frozen layers are about to become one."""
        v, first, h, model = self.stack()
        second = self.d.snapshot(v)
        self.assertEqual(self.check(v, scrub=True, sums=True)["found"], 0)
        if damage:
            flip(os.path.join(self.folder(v), damage[0]), damage[1])
        h.shutdown()
        self.d.ok("remove", id=first)
        return v, second, model

    def test_merged(self):
        """Checksums go with the layers that they are of, and a scrub makes new ones."""
        v, second, model = self.merge()
        while len([f for f in os.listdir(self.folder(v)) if f.startswith("data.")]) > 2:
            time.sleep(0.01)
        self.assertEqual([f for f in os.listdir(self.folder(v)) if f.startswith("sum.")], [])
        for id in v, second:
            self.assertEqual(connect(self.d, id).pread(len(model), 0), model)
        a = self.check(v, scrub=True, sums=True)
        self.assertEqual(a["found"], 0, a)
        flip(os.path.join(self.folder(v), "data.0"), 5 * BLOCK)
        with self.assertRaises(nbd.Error):
            connect(self.d, v).pread(BLOCK, 5 * BLOCK)

    def test_merge_of_damaged(self):
        """Neither what stays in its file nor what is copied loses its checksum when it is bad."""
        for name, block in ("data.0", 5), ("data.1", 16):
            with self.subTest(name):
                v, second, model = self.merge((name, block * BLOCK + 9))
                while v + ": layers cannot be merged" not in self.d.log():
                    time.sleep(0.01)
                with self.assertRaises(nbd.Error) as c:
                    connect(self.d, v).pread(BLOCK, block * BLOCK)
                self.assertEqual(c.exception.errnum, errno.EIO)

    def test_sums_damaged(self):
        """They are made anew, and said to be."""
        v, s, h, model = self.stack()
        self.check(v, scrub=True, sums=True)
        path = os.path.join(self.folder(v), "sum.0")
        flip(path, 4096 + 400)
        self.assertEqual(h.pread(len(model), 0), model)
        a = self.check(v)
        self.assertIn("sum.0 are damaged", a["findings"][0])
        self.assertEqual(self.check(v, scrub=True)["repaired"], 1)
        self.assertEqual(self.check(v, scrub=True)["found"], 0)
        h.shutdown()
        self.d.stop()
        flip(path, 40)
        self.d.start()
        self.assertIn("sum.0 is damaged", self.check(v)["findings"][0])
        self.assertEqual(self.check(v, scrub=True, sums=True)["repaired"], 1)
        self.assertEqual(self.check(v, scrub=True)["found"], 0)

    def test_busy(self):
        """Guests go on while it runs; it is cancelled, by hand and by what needs the volume."""
        v, s, h, model = self.stack(32 * MB)
        for n in range(3):
            self.d.ok("check", id=v, start=True, scrub=True, rate=1 * MB)
            self.assertEqual(self.d.err("check", id=v, start=True), errno.EBUSY)
            for i in range(200):
                h.pwrite(os.urandom(BLOCK), random.randrange(len(model) // BLOCK) * BLOCK)
            h.flush()
            self.d.snapshot(v)
            self.d.ok("resize", id=v, size=(33 + n) * MB)
            self.assertEqual(self.d.ok("check", id=v)["state"], "running")
            self.assertEqual(self.d.ok("check", id=v, cancel=True)["state"], "cancelled")
        self.d.ok("check", id=s, start=True, scrub=True, rate=1 * MB)
        self.d.ok("remove", id=s)
        self.d.ok("check", id=v, start=True, scrub=True, rate=1 * MB)
        self.d.stop()
        self.d.start()
        self.assertEqual(self.check(v)["found"], 0)

    def test_writes_are_no_finding(self):
        v, s, h, model = self.stack(32 * MB)
        rnd = random.Random(3)
        self.d.ok("check", id=v, start=True, scrub=True)
        rounds = 0
        while rounds < 5:
            for i in range(100):
                off = rnd.randrange(len(model) // BLOCK) * BLOCK
                if i % 7 == 0:
                    h.zero(BLOCK, off)
                elif i % 11 == 0:
                    h.flush()
                else:
                    h.pwrite(rnd.randbytes(BLOCK), off)
            a = self.d.ok("check", id=v)
            if a["state"] != "running":
                self.assertEqual((a["state"], a["findings"]), ("done", []), a)
                self.d.ok("check", id=v, start=True, scrub=rounds % 2 == 0)
                rounds += 1
        self.d.ok("check", id=v, cancel=True)


class Flips(Case):
    """A bit of each file of the state folder, at rest: right bytes, or none and a word."""

    def make(self):
        d, rnd = self.d, random.Random(SEED)
        models = {}

        def write(v, model, times):
            h = connect(d, v)
            for _ in range(times):
                n = rnd.choice((512, BLOCK, 3 * BLOCK))
                off = rnd.randrange(0, len(model) - n, 512)
                model[off:off + n] = rnd.randbytes(n)
                h.pwrite(bytes(model[off:off + n]), off)
                if rnd.randrange(4) == 0:
                    h.flush()
            h.flush()
            h.shutdown()

        v = d.create(2 * MB)
        models[v] = bytearray(2 * MB)
        write(v, models[v], 100)
        for _ in range(2):
            s = d.snapshot(v)
            models[s] = bytearray(models[v])
            write(v, models[v], 40)
        c = d.clone(s, 2 * MB)
        models[c] = bytearray(models[s])
        write(c, models[c], 40)
        for id in v, c:
            d.ok("check", id=id, start=True, scrub=True, sums=True)
            while d.ok("check", id=id)["state"] == "running":
                time.sleep(0.01)
        d.export(v, id="x1")
        d.ok("limit", id=c, iops=1000000)
        d.stop()
        return models

    def look(self, d, models, name):
        """Reads that failed; asserts that no others gave wrong bytes."""
        failed = 0
        for v, model in models.items():
            for off in range(0, len(model), 64 << 10):
                try:
                    h = connect(d, v)
                    got = h.pread(64 << 10, off)
                    h.shutdown()
                except nbd.Error:
                    failed += 1
                    continue
                self.assertEqual(got, model[off:off + (64 << 10)], "%s: wrong bytes" % name)
        return failed

    def found(self, d, models):
        """Lines of a scrub of all volumes."""
        n = 0
        for v in models:
            a = d.call("check", id=v, start=True, scrub=True, sums=True)
            while a["ok"] and a["state"] == "running":
                time.sleep(0.005)
                a = d.call("check", id=v)
            n += a["found"] if a["ok"] else 1
        return n

    def test_each_file(self):
        models = self.make()
        rnd, counts = random.Random(SEED + 1), {}
        base = self.path("base")
        shutil.copytree(self.d.state, base)
        names = [os.path.relpath(p, base) for p in glob.glob(base + "/**", recursive=True)
                 if os.path.isfile(p) and os.path.getsize(p) > 0]
        # The bytes of a layer that may be written have no checksums.
        tops = [n for n in names if os.path.basename(n).startswith("data.") and not
                os.path.exists(os.path.join(base, os.path.dirname(n),
                                            os.path.basename(n).replace("data.", "sum.")))]
        names = sorted(set(names) - set(tops))
        self.assertTrue(any("sum." in n for n in names))
        print("\nseed %d, %d bits in each of %d files" % (SEED, FLIPS, len(names)), flush=True)
        for name in names:
            kind = "".join(c for c in os.path.basename(name) if not c.isdigit())
            for _ in range(FLIPS):
                self.one(base, name, rnd, models, counts.setdefault(kind, {}))
        for kind, c in sorted(counts.items()):
            print("%-12s %s" % (kind, c))
        self.d.start()

    def one(self, base, name, rnd, models, counts):
        d = self.d
        shutil.rmtree(d.state)
        shutil.copytree(base, d.state)
        path = os.path.join(d.state, name)
        at, bit = rnd.randrange(os.path.getsize(path)), rnd.randrange(8)
        flip(path, at, bit)
        what = "seed %d: %s byte %d bit %d" % (SEED, name, at, bit)
        before = len(d.log())
        try:
            d.start()
        except AssertionError as e:
            self.assertIn(os.path.basename(name), str(e), what)
            counts["refused"] = counts.get("refused", 0) + 1
            return
        failed = self.look(d, models, what)
        found = self.found(d, models)
        wrote = d.log()[before:]
        named = found > 0 or "damaged" in wrote or "left out" in wrote or "checksum" in wrote
        if failed:
            self.assertTrue(named, what + "\n" + wrote)
        key = "unread" if failed else "repaired or named" if named else "harmless"
        counts[key] = counts.get(key, 0) + 1
        d.stop()


if __name__ == "__main__":
    main()
