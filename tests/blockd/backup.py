#!/usr/bin/python3
"""Backups that copy only what has changed since the last, and who may ask for that."""
import random
import threading
import uuid

import nbd
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


class Backup(Case):
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
        """More than a session takes: the others are not selected, and what is selected works."""
        d, v = self.d, self.d.create(MB)
        names = [dirty(d.snapshot(v)) for _ in range(20)]
        h = connect(d.export(v), *names)
        can = [n for n in names if h.can_meta_context(n)]
        self.assertGreater(len(can), 4)
        self.assertLess(len(can), 20)
        self.assertEqual(sorted(status(h)), sorted(can))

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
