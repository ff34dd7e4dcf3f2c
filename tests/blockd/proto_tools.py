#!/usr/bin/python3
"""Other people's NBD clients against the daemon: libnbd, qemu-img, qemu-io, nbdcopy, nbdinfo."""
import json
import os
import random
import uuid

import nbd
import rig
from rig import Case, main

MB = 1 << 20


class Tools(Case):
    def connect(self, socket, name=""):
        h = nbd.NBD()
        h.set_export_name(name)
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        h.connect_unix(socket)
        return h

    def image(self, size=20 * MB):
        """A raw file with data, holes, and an odd tail."""
        path = self.path("image.raw")
        rnd = random.Random(5)
        with open(path, "wb") as f:
            for off in range(0, size, 3 * MB):
                f.seek(off)
                f.write(rnd.randbytes(100000 + off % 4096))
            f.truncate(size)
        return path

    def imported(self):
        path = self.image()
        v = str(uuid.uuid4())
        self.d.ok("import", id=v, path=path)
        return path, v

    def test_facts(self):
        v = self.d.create(64 * MB)
        info = json.loads(self.tool("nbdinfo", "--json", "nbd+unix:///?socket=" + self.d.export(v)))
        x = info["exports"][0]
        self.assertEqual(x["export-size"], 64 * MB)
        self.assertEqual(x["export-name"], v)
        for can in ("can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero",
                    "can_multi_conn", "can_df", "can_cache"):
            self.assertIs(x[can], True, can)
        self.assertFalse(x["is_read_only"])
        self.assertEqual(x["block_size_minimum"], 1)
        self.assertEqual(x["block_size_maximum"], 32 * MB)
        self.assertIn("base:allocation", x["contexts"])
        self.assertIn(v, x["description"])
        self.assertIn('"virtual-size": %d' % (64 * MB),
                      self.tool("qemu-img", "info", "--output=json", self.d.uri(v)))

    def test_list(self):
        vs = {self.d.create(MB) for _ in range(5)}
        info = json.loads(self.tool("nbdinfo", "--json", "--list",
                                    "nbd+unix:///?socket=" + self.d.shared))
        self.assertEqual({x["export-name"] for x in info["exports"]}, vs)

    def test_convert_compare(self):
        path, base = self.imported()
        clone = self.d.clone(base, 20 * MB)
        plain = self.d.create(20 * MB)
        self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", path, self.d.uri(clone))
        self.tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", self.d.uri(clone),
                  self.d.uri(plain))
        self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", path, self.d.uri(plain))
        out = self.path("out.qcow2")
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.d.uri(plain), out)
        self.tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", path, out)
        # Holes came along as holes.
        used = self.d.ok("stat", id=plain)["used"]
        if not rig.CEPH_POOL:  # whole objects are counted
            self.assertLess(used, 4 * MB)

    def test_nbdcopy(self):
        path, base = self.imported()
        plain, back = self.d.create(20 * MB), self.path("back")
        self.tool("nbdcopy", "--flush", "-C", "4", path, self.d.uri(plain))
        self.tool("nbdcopy", self.d.uri(plain), back)
        self.tool("cmp", path, back)
        self.tool("nbdcopy", self.d.uri(base), self.d.uri(self.d.create(20 * MB)))

    def test_both_ways(self):
        """Several connections, requests and sizes; whole and only what is allocated."""
        path, base = self.imported()
        clone = self.d.clone(base, 20 * MB)
        for i, args in enumerate((("-C", "1", "-R", "1"), ("-C", "4", "-R", "64"), ("--allocated",),
                                  ("--synchronous",), ("--request-size=4096", "-S", "0"))):
            back, plain = self.path("back%d" % i), self.d.create(20 * MB)
            self.tool("nbdcopy", *args, self.d.uri(clone), back)
            self.tool("cmp", path, back)
            self.tool("nbdcopy", "--flush", *args, back, self.d.uri(plain))
            self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", path, self.d.uri(plain))

    def test_qemu_img(self):
        path, base = self.imported()
        clone = self.d.uri(self.d.clone(base, 20 * MB))
        mine = json.loads(self.tool("qemu-img", "map", "--output=json", "-f", "raw", clone))
        self.assertEqual(sum(x["length"] for x in mine), 20 * MB)
        with open(path, "rb") as f:
            for x in mine:
                f.seek(x["start"])
                if x["zero"]:
                    self.assertFalse(f.read(x["length"]).strip(b"\0"))
        for args in (("-w",), ("-w", "--flush-interval=64"), ()):
            self.tool("qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "32", "-s", "4096",
                      *args, clone)
        qcow2 = self.path("x.qcow2")
        self.tool("qemu-img", "convert", "-W", "-m", "8", "-f", "raw", "-O", "qcow2", clone, qcow2)
        plain = self.d.uri(self.d.create(20 * MB))
        self.tool("qemu-img", "convert", "-n", "-W", "-m", "8", "-O", "raw", qcow2, plain)
        self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", plain, clone)

    def test_nbdsh(self):
        """The shell is libnbd's binding with a prompt: the system's Python runs it."""
        out = self.tool("/usr/bin/python3", "-m", "nbd", "-u", self.d.uri(self.d.create(MB)),
                        "-c", "h.pwrite(b'shell', 9)", "-c", "print(h.pread(7, 8))")
        self.assertIn("\\x00shell\\x00", out)

    def test_map(self):
        path, base = self.imported()
        clone = self.d.clone(base, 24 * MB)
        self.tool("qemu-io", "-f", "raw", "-c", "write -P 3 22M 4k", "-c", "write -z -u 3M 64k",
                  self.d.uri(clone))
        extents = json.loads(self.tool("nbdinfo", "--json", "--map", self.d.uri(clone)))
        self.assertEqual(sum(x["length"] for x in extents), 24 * MB)

        def kind(off):
            return next(x["type"] for x in extents
                        if x["offset"] <= off < x["offset"] + x["length"])
        self.assertEqual(kind(0), 0)
        if rig.CEPH_POOL:  # which tells whole objects
            return
        self.assertEqual(kind(MB), 3)
        self.assertEqual(kind(3 * MB), 3)       # data below, zeroed here
        self.assertEqual(kind(3 * MB + 70000), 0)
        self.assertEqual(kind(22 * MB), 0)      # past the parent
        self.assertEqual(kind(23 * MB), 3)

    def test_random_against_a_model(self):
        _, base = self.imported()
        size = 20 * MB + 512
        clone = self.d.clone(base, size)
        with open(self.path("image.raw"), "rb") as f:
            model = bytearray(f.read())
        model += bytes(size - len(model))
        h = self.connect(self.d.export(clone))
        rnd = random.Random(11)
        for i in range(600):
            n = rnd.choice((1, 512, 4096, 5000, 70000, 300000))
            off = rnd.randrange(0, size - n)
            if rnd.random() < 0.5:
                off = off // 4096 * 4096
            what = rnd.randrange(6)
            if what < 2:
                data = rnd.randbytes(n)
                h.pwrite(data, off, rnd.choice((0, 0, nbd.CMD_FLAG_FUA)))
                model[off:off + n] = data
            elif what == 2:
                h.zero(n, off, rnd.choice((0, nbd.CMD_FLAG_NO_HOLE)))
                model[off:off + n] = bytes(n)
            elif what == 3:
                self.assertEqual(h.pread(n, off),
                                 model[off:off + n])
            elif what == 4:
                got = bytearray(n)

                def chunk(part, at, status, error):
                    if status == nbd.READ_DATA:
                        got[at - off:at - off + len(part)] = part
                h.pread_structured(n, off, chunk, rnd.choice((0, nbd.CMD_FLAG_DF)))
                self.assertEqual(got, model[off:off + n])
            else:
                entries = []
                h.block_status(n, off, lambda c, o, e, err: entries.extend(e))
                at = off
                for length, state in zip(entries[::2], entries[1::2]):
                    if state & nbd.STATE_ZERO:
                        self.assertFalse(any(model[at:at + length]))
                    at += length
                self.assertGreater(at, off)
        h.flush()
        h.shutdown()
        back = self.path("back")
        self.tool("nbdcopy", self.d.uri(clone), back)
        with open(back, "rb") as f:
            self.assertEqual(f.read(), model)

    def test_simple_replies(self):
        """A client without structured replies (the kernel's) reads holes as bytes."""
        v = self.d.create(40 * MB)
        h = nbd.NBD()
        h.set_request_structured_replies(False)
        h.connect_unix(self.d.export(v))
        self.assertFalse(h.get_structured_replies_negotiated())
        data = os.urandom(32 * MB)
        h.pwrite(data, 4096)
        self.assertEqual(h.pread(32 * MB, 4096), data)
        self.assertEqual(h.pread(8192, 36 * MB), bytes(8192))

    def test_readonly(self):
        v = self.d.create(MB)
        h = self.connect(self.d.export(v, readonly=True))
        self.assertTrue(h.is_read_only())
        h.set_strict_mode(0)
        for what in (lambda: h.pwrite(b"x", 0), lambda: h.zero(1, 0), lambda: h.trim(1, 0)):
            with self.assertRaises(nbd.Error) as c:
                what()
            self.assertEqual(c.exception.errno, "EPERM")
        self.assertEqual(h.pread(1, 0), b"\0")

    def test_limits(self):
        v = self.d.create(MB)
        h = self.connect(self.d.export(v))
        h.set_strict_mode(0)

        def refused(errno, what):
            with self.assertRaises(nbd.Error) as c:
                what()
            self.assertEqual(c.exception.errno, errno)
        refused("EINVAL", lambda: h.pread(512, MB))
        refused("EINVAL", lambda: h.pread(2, MB - 1))
        refused("ENOSPC", lambda: h.pwrite(b"xx", MB - 1))
        refused("ENOSPC", lambda: h.zero(2, MB - 1))
        refused("EINVAL", lambda: h.trim(2, MB - 1))
        refused("EINVAL", lambda: h.block_status(2, MB - 1, lambda *a: 0))
        refused("EINVAL", lambda: h.cache(2, MB - 1))
        self.assertEqual(h.pread(1, MB - 1), b"\0")  # still friends

    def test_multi_conn(self):
        """A write through one connection is read, and made durable, through another."""
        v = self.d.create(MB)
        socket = self.d.export(v)
        a, b = self.connect(socket), self.connect(socket)
        self.assertTrue(a.can_multi_conn())
        a.pwrite(b"A" * 5000, 100)
        self.assertEqual(b.pread(5000, 100), b"A" * 5000)
        b.flush()
        self.d.kill()
        self.d.start()
        self.assertEqual(self.connect(socket).pread(5000, 100), b"A" * 5000)

    def test_wrong_name(self):
        v, other = self.d.create(MB), self.d.create(MB)
        socket = self.d.export(v)
        self.connect(socket, v).shutdown()
        with self.assertRaises(nbd.Error):
            self.connect(socket, other)
        with self.assertRaises(nbd.Error):
            self.connect(self.d.shared, "")
        self.connect(self.d.shared, other).shutdown()

    def test_online_growth(self):
        v = self.d.create(MB)
        socket = self.d.export(v)
        a = self.connect(socket)
        a.pwrite(b"end", MB - 3)
        self.d.ok("resize", id=v, size=5 * MB)
        b = self.connect(socket)
        self.assertEqual(b.get_size(), 5 * MB)
        b.pwrite(b"new", 5 * MB - 3)
        self.assertEqual(b.pread(6, MB - 3), b"end\0\0\0")
        self.assertEqual(a.pread(3, MB - 3), b"end")

    def test_fast_zero(self):
        h = self.connect(self.d.export(self.d.create(MB)))
        h.pwrite(b"x" * 8192, 0)
        h.zero(8192, 0, nbd.CMD_FLAG_FAST_ZERO)
        self.assertEqual(h.pread(8192, 0), bytes(8192))


main()
