#!/usr/bin/python3
"""blockd killed at each fault point, at its first hits, in the middle of a script of every kind of
operation: the next blockd goes on with what was acknowledged, and what was under way is done again."""
import contextlib
import glob
import os
import random
import re
import subprocess
import time
import uuid

import nbd
from rig import BLOCKD, Case, main

MB = 1 << 20
PASSPHRASE = "6c1d9a7e0b5f4c3d8e2a1f0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d"
NEXT = PASSPHRASE[::-1]
HITS = 3  # a point is tried at so many of its hits
HERE = os.path.dirname(os.path.abspath(__file__))


def points():
    """All that the sources have: what FAULT() names, and names that are handed on to it."""
    found = set()
    for folder in ("backend/volume", "blockd"):
        for path in glob.glob(os.path.join(HERE, "../..", folder, "**/*.c"), recursive=True):
            with open(path) as f:
                text = f.read()
            found.update(re.findall(r'FAULT\("([^"]+)"\)', text))
            found.update(re.findall(r'"((?:volume|export)\.[a-z.]+)"', text))
    return sorted(found)


def documented():
    """Those of the manual's page."""
    with open(os.path.join(HERE, "../../doc/blockd.8.rst")) as f:
        text = f.read().partition("\nSTRATOFS_FAULT\n")[2].partition("\nSEE ALSO\n")[0]
    return sorted(set(re.findall(r"\b(?:volume|export)(?:\.[a-z]+)+\b", text)))


class Killed(Exception):
    pass


class Script:
    """A model of some volumes, and the steps that change both."""

    def __init__(self, d):
        self.d = d
        self.bytes = {}     # name: what was acknowledged
        self.ids = {}
        self.handles = {}
        self.under_way = None   # (name, offset, bytes): the write that may have happened
        self.encrypted = set()

    def id(self, name):
        return self.ids.setdefault(name, str(uuid.uuid4()))

    def handle(self, name):
        if name not in self.handles:
            h = nbd.NBD()
            h.add_meta_context("base:allocation")
            h.connect_unix(self.d.export(self.id(name), id="x-" + self.id(name)))
            self.handles[name] = h
        return self.handles[name]

    def drop(self, name):
        h = self.handles.pop(name, None)
        if h:
            h.shutdown()

    # Each may be done again.

    def create(self, name, size):
        self.d.ok("create", id=self.id(name), size=size)
        self.bytes.setdefault(name, bytearray(size))

    def encrypt(self, name, size):
        self.encrypted.add(name)
        self.d.ok("create", id=self.id(name), size=size, passphrase=PASSPHRASE)
        self.bytes.setdefault(name, bytearray(size))

    def keys(self):
        """After a restart; of volumes that are there."""
        for name in self.encrypted:
            for passphrase in PASSPHRASE, NEXT:  # one of them opens it
                self.d.call("key", id=self.id(name), passphrase=passphrase)

    def rekey(self, name):
        self.d.ok("rekey", id=self.id(name), passphrase=PASSPHRASE, next=NEXT)

    def clone(self, name, parent):
        self.d.ok("clone", id=self.id(name), parent=self.id(parent), size=len(self.bytes[parent]))
        self.bytes.setdefault(name, bytearray(self.bytes[parent]))

    def snapshot(self, name, of):
        self.d.ok("snapshot", id=self.id(name), volume=self.id(of))
        self.bytes.setdefault(name, bytearray(self.bytes[of]))

    def resize(self, name, size):
        self.drop(name)
        self.d.ok("resize", id=self.id(name), size=size)
        self.bytes[name].extend(bytes(size - len(self.bytes[name])))

    def idle(self, name):
        self.drop(name)
        self.d.ok("unexport", id="x-" + self.id(name))

    def shrink(self, name, size):
        self.idle(name)
        self.d.ok("resize", id=self.id(name), size=size, shrink=True)
        del self.bytes[name][size:]

    def revert(self, name, to):
        self.idle(name)
        self.change(name, 0, bytes(self.bytes[to]), lambda h: self.d.ok(
            "revert", id=self.id(name), to=self.id(to)), handle=False)

    def flatten(self, name):
        """Until it is."""
        self.d.ok("flatten", id=self.id(name))
        while "flatten" in self.d.ok("stat", id=self.id(name)):
            time.sleep(0.005)

    def remove(self, name):
        self.idle(name)
        self.d.ok("remove", id=self.id(name))
        self.bytes.pop(name, None)

    def change(self, name, off, data, call, handle=True):
        self.under_way = (name, off, data)
        call(self.handle(name) if handle else None)
        self.bytes[name][off:off + len(data)] = data
        self.under_way = None

    def write(self, name, off, n, flags=0):
        data = random.Random(off + n).randbytes(n)
        self.change(name, off, data, lambda h: h.pwrite(data, off, flags))

    def zero(self, name, off, n, flags=0):
        self.change(name, off, bytes(n), lambda h: h.zero(n, off, flags))

    def trim(self, name, off, n):
        """Of whole blocks: they read as zeros."""
        self.change(name, off, bytes(n), lambda h: h.trim(n, off))

    def flush(self, name):
        self.handle(name).flush()

    def together(self, name, off, n):
        """Several at once, in one batch if it comes to that."""
        data = random.Random(off).randbytes(16 * n)
        buffers = [nbd.Buffer.from_bytearray(bytearray(data[k * n:(k + 1) * n]))
                   for k in range(16)]

        def run(h):
            cookies = [h.aio_pwrite(b, off + k * n) for k, b in enumerate(buffers)]
            while h.aio_in_flight() > 0:
                h.poll(-1)
            for c in cookies:
                h.aio_command_completed(c)  # its error, if it had one
        for _ in range(20):
            self.change(name, off, data, run)

    def read(self, name):
        size = len(self.bytes[name])
        got = self.handle(name).pread(size, 0)
        assert self.verify(name, got) is None, name

    def status(self, name):
        self.handle(name).block_status(len(self.bytes[name]), 0, lambda *a: 0)

    def cache(self, name):
        self.handle(name).cache(65536, 0)

    def steps(self):
        fua = nbd.CMD_FLAG_FUA
        return [
            (self.create, "a", 2 * MB), (self.write, "a", 0, 100000), (self.flush, "a"),
            (self.write, "a", 8192, 4096, fua), (self.snapshot, "s", "a"),
            (self.write, "a", 5120, 1024), (self.write, "a", 65536, 65536),
            (self.flush, "a"), (self.write, "a", 65536, 4096, fua),
            (self.zero, "a", 70000 // 512 * 512, 20480), (self.trim, "a", 16384, 16384),
            (self.status, "a"), (self.cache, "a"), (self.read, "a"), (self.read, "s"),
            (self.resize, "a", 3 * MB), (self.write, "a", 2 * MB + 512, 9000 // 512 * 512),
            (self.clone, "c", "s"), (self.write, "c", 0, 4096, fua),
            (self.together, "c", 32768, 4096), (self.flush, "c"), (self.clone, "d", "a"),
            (self.write, "d", MB, 4096), (self.remove, "s"), (self.flush, "d"),
            (self.remove, "c"), (self.read, "a"), (self.read, "d"), (self.remove, "d"),
            (self.flush, "a"), (self.snapshot, "r", "a"), (self.write, "a", 65536, 8192),
            (self.snapshot, "q", "a"), (self.revert, "a", "r"), (self.read, "a"),
            (self.remove, "q"), (self.remove, "r"),
            (self.clone, "f", "a"), (self.write, "f", 4096, 4096),
            (self.flatten, "f"), (self.shrink, "f", MB), (self.read, "f"),
            (self.encrypt, "e", MB), (self.write, "e", 512, 9216), (self.flush, "e"),
            (self.rekey, "e"),
            (self.snapshot, "es", "e"), (self.write, "e", 8192, 4096, fua), (self.read, "es"),
            (self.remove, "es"), (self.read, "e"), (self.remove, "e"),
        ]

    def verify(self, name, got):
        """None, or the first sector that is neither what was acknowledged nor under way."""
        old, new = self.bytes[name], bytearray(self.bytes[name])
        if self.under_way and self.under_way[0] == name:
            _, off, data = self.under_way
            new[off:off + len(data)] = data
        for o in range(0, len(got), 512):
            if got[o:o + 512] not in (old[o:o + 512], new[o:o + 512]):
                return o
        return None

    def verify_all(self, under_way):
        """under_way: the step that was cut off, or None."""
        there = {v["id"]: v for v in self.d.ok("list")["volumes"]}
        for name in self.bytes:
            removing = under_way and under_way[:2] == (self.remove, name)
            if removing and self.ids[name] not in there:
                continue
            size = there[self.ids[name]]["size"]
            resized = under_way and under_way[:2] in ((self.resize, name), (self.shrink, name))
            assert size == len(self.bytes[name]) or (resized and size == under_way[2]), name
            size = min(size, len(self.bytes[name]))
            bad = self.verify(name, self.handle(name).pread(size, 0))
            assert bad is None, (name, bad)
        for name, v in self.ids.items():
            making = under_way and under_way[0] in (
                self.create, self.clone, self.snapshot, self.encrypt) \
                and under_way[1] == name
            assert v not in there or name in self.bytes or making, name

    def do(self, step):
        try:
            step[0](*step[1:])
        except (nbd.Error, OSError, ValueError):
            # A dead server is what the fault point is for; anything else is not.
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.d.process.wait(5) == -9:
                    raise Killed
            raise

    def run(self):
        """Whether blockd was killed on the way; it is started again then, once."""
        was = False
        for step in self.steps():
            try:
                self.do(step)
            except Killed:
                was = True
                self.handles.clear()
                self.d.start()
                self.keys()
                self.verify_all(step)
                self.do(step)
                self.under_way = None
        return was


class EveryPoint(Case):
    def check(self):
        p = subprocess.run([BLOCKD, "--check", self.d.state], stdout=subprocess.PIPE, text=True)
        self.assertEqual((p.returncode, p.stdout), (0, "0 findings\n"))

    def one(self, point, hit):
        """Whether the point was hit so often."""
        d = self.d
        d.stop()
        d.options = ["--cache", "direct"] if point == "volume.ring" else []
        d.start(fault="%s=kill:%d" % (point, hit))
        s = Script(d)
        was = s.run()
        s.verify_all(None)
        for name in list(s.handles):
            s.drop(name)
        d.stop()
        self.check()
        d.start()
        s.keys()
        s.verify_all(None)
        for name in list(s.bytes):
            s.remove(name)
        return was

    def test_kill(self):
        found = points()
        self.assertIn("volume.push", found)
        self.assertEqual(found, documented())
        for point in found:
            hits = 0
            for hit in range(1, HITS + 1):
                with self.subTest(point=point, hit=hit):
                    if not self.one(point, hit):
                        break
                    hits += 1
            print("%-24s %d kills" % (point, hits), flush=True)
            self.assertGreater(hits, 0, "%s was not reached" % point)


main()
