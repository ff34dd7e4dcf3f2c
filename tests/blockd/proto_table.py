#!/usr/bin/python3
"""Every command with every flag at every edge, in the three forms of replies, against a model of
proto.md's rules and of the bytes.  And what INFO and GO tell."""
import itertools
import random
import struct

from raw import (ACK, CACHE, DATA_CHUNK, DF, EINVAL, ENOSPC, EPERM, ERROR_CHUNK, EXTENDED, FAST, FLUSH,
                 FUA, INFO, INVALID, MB, META, NO_HOLE, PAYLOAD, READ, REQ_ONE, SIMPLE, STATUS,
                 STRUCTURED, TRIM, UNKNOWN, WRITE, ZEROES, Raw, connect, contexts, text)
from rig import Case, main

SIZE = 33 * MB + 1536
LONG = 32 * MB
LEGAL = {READ: FUA | DF, WRITE: FUA, FLUSH: FUA, TRIM: FUA, CACHE: FUA,
         ZEROES: FUA | NO_HOLE | FAST, STATUS: FUA | REQ_ONE}
FLAGS = (0, FUA, NO_HOLE, DF, REQ_ONE, FAST, PAYLOAD, 64, 0x8000, FUA | DF, FUA | NO_HOLE,
         FUA | NO_HOLE | FAST, FUA | REQ_ONE, FUA | DF | REQ_ONE)
OFFSETS = (0, 1, 511, 512, 4095, 4096, 65535, SIZE - 4096, SIZE - 512, SIZE - 1, SIZE, SIZE + 1,
           2**63, 2**64 - 1)
LENGTHS = (0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 200001)
LONG_LENGTHS = (LONG - 1, LONG, LONG + 1)
NAMES = {SIMPLE: "simple", STRUCTURED: "structured", EXTENDED: "extended"}


class Model:
    """One export: its bytes, and what each command is to answer."""

    def __init__(self, readonly, data):
        self.readonly = readonly
        self.data = data

    def codes(self, form, kind, flags, off, n):
        """The answers that are right; where two rules are broken, either's."""
        wrong = set()
        if kind in (WRITE, TRIM, ZEROES) and self.readonly:
            wrong.add(EPERM)
        legal = LEGAL[kind] | (PAYLOAD if (form, kind) == (EXTENDED, WRITE) else 0)
        if flags & ~legal or (flags & DF and form == SIMPLE):
            wrong.add(EINVAL)
        if kind == FLUSH:
            if off or n:
                wrong.add(EINVAL)
            return wrong or {0}
        if off + n > SIZE:
            wrong.add(ENOSPC if kind in (WRITE, ZEROES) else EINVAL)
        if kind in (READ, WRITE) and n > LONG:
            wrong.add(EINVAL)
        if kind == STATUS and (form == SIMPLE or n == 0):
            wrong.add(EINVAL)
        if (form, kind) == (EXTENDED, WRITE) and not flags & PAYLOAD:
            wrong.add(EINVAL)
        return wrong or {0}

    def apply(self, kind, off, n, payload):
        if kind == WRITE:
            self.data[off:off + n] = payload
        elif kind == ZEROES:
            self.data[off:off + n] = bytes(n)


class Table(Case):
    def setUp(self):
        super().setUp()
        rnd = random.Random(2)
        self.bytes = rnd.randbytes(LONG + MB)
        self.cases = 0

    def volumes(self):
        """(what, socket, model): a plain volume, a clone with data below it, and read only."""
        base = self.d.create(SIZE)
        data = bytearray(SIZE)
        r = connect(self.d.export(base), STRUCTURED)
        for off, n in ((0, 5000), (MB, 300000), (20 * MB + 5, 8 * MB), (SIZE - 700, 700)):
            self.assertEqual(r.do(WRITE, off, n, 0, self.bytes[:n]).error, 0)
            data[off:off + n] = self.bytes[:n]
        self.assertEqual(r.do(FLUSH).error, 0)
        r.s.close()
        clone = self.d.clone(base, SIZE)
        plain = self.d.create(SIZE)
        yield "clone", self.d.export(clone), Model(False, data)
        yield "plain", self.d.export(plain), Model(False, bytearray(SIZE))
        yield "readonly", self.d.export(clone, readonly=True), Model(True, data)

    def case(self, r, model, form, kind, flags, off, n):
        flags |= PAYLOAD if (form, kind) == (EXTENDED, WRITE) and flags != PAYLOAD else 0
        where = "%s: command %d flags %#x off %d len %d" % (NAMES[form], kind, flags, off, n)
        carries = flags & PAYLOAD if form == EXTENDED else kind == WRITE
        at = self.cases * 37 % MB
        payload = self.bytes[at:at + n] if carries else b""
        a = r.do(kind, off, n, flags, payload, cookie=self.cases)
        self.cases += 1
        self.assertIn(a.error, model.codes(form, kind, flags, off, n), where)
        if a.error:
            if form == EXTENDED or (form == STRUCTURED and kind in (READ, STATUS)):
                self.assertEqual(a.kinds[-1], ERROR_CHUNK, where)
            return
        model.apply(kind, off, n, payload)
        if kind == READ:
            self.assertTrue(a.data == model.data[off:off + n], where)
            if flags & DF and n:
                self.assertEqual(a.kinds, [DATA_CHUNK], where)
        elif kind == STATUS:
            self.check_status(model, a.extents, flags, off, n, where)
        elif kind == TRIM and n:
            self.check_trim(r, model, off, n, where)

    def check_status(self, model, extents, flags, off, n, where):
        (context, got), = extents.items()
        self.assertEqual(context, 1, where)
        self.assertTrue(got and all(k > 0 for k, _ in got), where)
        if flags & REQ_ONE:
            self.assertEqual(len(got), 1, where)
        self.assertLessEqual(sum(k for k, _ in got), n, where)
        for k, state in got:
            self.assertIn(state, (0, 1, 2, 3), where)
            if state & 2:
                self.assertEqual(model.data.count(0, off, off + k), k, where)
            off += k

    def check_trim(self, r, model, off, n, where):
        """Whole blocks read as zeros or as they were; the rest as it was."""
        got = bytearray(r.do(READ, off, min(n, LONG)).data)
        at = off
        while at < off + len(got):
            end = min(at // 4096 * 4096 + 4096, off + len(got))
            new, old = got[at - off:end - off], model.data[at:end]
            self.assertTrue(new == old or not any(new), where)
            at = end
        model.data[off:off + len(got)] = got

    def edges(self, form, kind):
        lengths = LENGTHS + ((2**32, 2**63, 2**64 - 1) if form == EXTENDED and kind != WRITE else ())
        for off, n in itertools.product(OFFSETS, lengths):
            yield off, n
        for off in OFFSETS:
            if off < SIZE <= off + LENGTHS[-1]:
                yield off, SIZE - off
                yield off, SIZE - off + 1

    def run_table(self, what, socket, model, form):
        r = connect(socket, form)
        self.addCleanup(r.s.close)
        for kind in LEGAL:
            for off, n in self.edges(form, kind):
                for flags in FLAGS if n in (0, 1, 4096, 65536) or off == 0 else FLAGS[:2]:
                    if kind != WRITE and form == EXTENDED and flags & PAYLOAD:
                        continue  # proto_extended.py's
                    self.case(r, model, form, kind, flags, off, n)
            for off, n in itertools.product((0, 1, SIZE - LONG, SIZE - LONG + 1), LONG_LENGTHS):
                self.case(r, model, form, kind, 0, off, n)
        for off in range(0, SIZE, LONG):
            n = min(LONG, SIZE - off)
            self.assertTrue(r.do(READ, off, n).data == model.data[off:off + n], what)
        r.s.close()

    def test_table(self):
        for what, socket, model in self.volumes():
            for form in (SIMPLE, STRUCTURED, EXTENDED):
                self.run_table(what, socket, model, form)
        print("%d cases" % self.cases, end=" ", flush=True)
        self.assertGreater(self.cases, 10000)


class Told(Case):
    """What the handshake tells about an export."""

    def setUp(self):
        super().setUp()
        self.v = self.d.create(5 * MB)
        self.rw = self.d.export(self.v)
        self.ro = self.d.export(self.v, readonly=True)

    def raw(self, socket, form):
        r = Raw(socket)
        self.addCleanup(r.s.close)
        if form != SIMPLE:
            self.assertEqual(r.ask(11 if form == EXTENDED else 8)[0][0], ACK)
        return r

    def infos(self, r, option, *types):
        got = r.ask(option, text(b"") + struct.pack(">H%dH" % len(types), len(types), *types))
        self.assertEqual(got[-1], (ACK, b""))
        self.assertTrue(all(k == INFO for k, _ in got[:-1]))
        return {struct.unpack(">H", p[:2])[0]: p[2:] for _, p in got[:-1]}

    def flags(self, form, readonly):
        f = 1 | 4 | 8 | 1 << 8 | 1 << 10
        f |= 2 if readonly else 1 << 5 | 1 << 6 | 1 << 11
        f |= 1 << 7 if form != SIMPLE else 0
        return f | (1 << 12 if form == EXTENDED else 0)

    def test_infos(self):
        name, description = self.v.encode(), b"volume " + self.v.encode()
        block = struct.pack(">III", 1, 4096, 32 * MB)
        every = {1: name, 2: description, 3: block}
        for form in NAMES:
            for socket, readonly in ((self.rw, False), (self.ro, True)):
                export = struct.pack(">QH", 5 * MB, self.flags(form, readonly))
                for n in range(4):
                    for types in itertools.permutations((0, 1, 2, 3, 4, 77, 65535), n):
                        r = r if n else self.raw(socket, form)
                        want = {0: export, **{k: every[k] for k in types if k in every}}
                        self.assertEqual(self.infos(r, 6, *types), want)
                self.assertEqual(self.infos(r, 6, 3, 3, 3), {0: export, 3: block})
                self.assertEqual(self.infos(r, 7, 1, 3), {0: export, 1: name, 3: block})
                self.assertEqual(r.do(READ, 0, 1).data, b"\0")

    def test_export_name_tells_the_same_flags(self):
        for form in NAMES:
            for socket, readonly in ((self.rw, False), (self.ro, True)):
                r = self.raw(socket, form)
                r.option(1)
                self.assertEqual(struct.unpack(">QH", r.get(10)),
                                 (5 * MB, self.flags(form, readonly)))

    def test_contexts(self):
        alloc = b"base:allocation"
        lists = {(): 1, (alloc,): 1, (b"base:",): 1, (b"base:alloc",): 0, (b"",): 0, (b"base",): 0,
                 (b"x:y", b"base:"): 1, (alloc, alloc): 1, (b"BASE:ALLOCATION",): 0,
                 (alloc + b"\0",): 0, (b"qemu:",): 0}
        sets = {**lists, (): 0, (b"base:",): 0, (b"x:y", b"base:"): 0}
        for form in (STRUCTURED, EXTENDED):
            r = self.raw(self.rw, form)
            for option, table in ((9, lists), (10, sets)):
                for queries, n in table.items():
                    got = r.ask(option, contexts(b"", *queries))
                    self.assertEqual([k for k, _ in got], [META] * n + [ACK], queries)
                    for _, p in got[:-1]:
                        self.assertEqual(p[4:], alloc)
            for option in (9, 10):
                self.assertEqual(r.ask(option, contexts(b"nobody", alloc))[0][0], UNKNOWN)
        r = self.raw(self.rw, SIMPLE)
        for option in (9, 10):
            self.assertEqual(r.ask(option, contexts(b"", alloc))[0][0], INVALID)

    def selected(self, *before, go=b"", socket=None):
        """Whether BLOCK_STATUS works after these SETs."""
        r = self.raw(socket or self.d.shared, STRUCTURED)
        for data in before:
            r.ask(10, data)
        self.assertEqual(r.go(go)[-1][0], ACK)
        return r.do(STATUS, 0, MB).error == 0

    def test_what_was_selected_for_whom(self):
        a, b, alloc = self.v.encode(), self.d.create(5 * MB).encode(), b"base:allocation"
        ours, theirs = contexts(a, alloc), contexts(b, alloc)
        self.assertTrue(self.selected(ours, go=a))
        self.assertFalse(self.selected(ours, go=b))
        self.assertFalse(self.selected(ours, theirs, go=a))
        self.assertTrue(self.selected(ours, theirs, go=b))
        self.assertFalse(self.selected(ours, contexts(a), go=a))
        self.assertFalse(self.selected(ours, contexts(b"nobody", alloc), go=a))
        self.assertFalse(self.selected(ours, b"\0", go=a))
        self.assertFalse(self.selected(go=a))
        # One export on the socket: its name and none are the same.
        self.assertTrue(self.selected(contexts(b"", alloc), go=a, socket=self.rw))
        self.assertTrue(self.selected(contexts(a, alloc), go=b"", socket=self.rw))


main()
