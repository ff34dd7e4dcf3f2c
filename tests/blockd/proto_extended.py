#!/usr/bin/python3
"""Extended headers: what no client in Debian 12 speaks yet."""
import struct

from raw import (ACK, CACHE, DATA_CHUNK, DF, DISC, EINVAL, ENOSPC, EPERM, ERROR_CHUNK, EXTENDED,
                 EXT_HEADER_REQD, FAST, FLUSH, FUA, HOLE_CHUNK, INFO, INVALID, MB, META, PAYLOAD, READ,
                 REQ_ONE, SIMPLE, STATUS, STRUCTURED, TRIM, WRITE, ZEROES, Raw, connect, contexts)
from rig import Case, main

GB, TB = 1 << 30, 1 << 40


def narrowed(off, effect, *ids):
    return struct.pack(">Q", effect) + b"".join(struct.pack(">I", i) for i in ids)


class Negotiation(Case):
    def setUp(self):
        super().setUp()
        self.socket = self.d.export(self.d.create(MB))

    def raw(self):
        r = Raw(self.socket)
        self.addCleanup(r.s.close)
        return r

    def flags(self, r):
        got = [p for k, p in r.go() if k == INFO and p[:2] == b"\0\0"]
        return struct.unpack(">HQH", got[0])[2]

    def test_order(self):
        r = self.raw()
        self.assertEqual(r.ask(8), [(ACK, b"")])
        self.assertEqual(r.ask(11, b"x")[0][0], INVALID)
        self.assertEqual(r.ask(8), [(ACK, b"")])
        self.assertEqual(r.ask(11), [(ACK, b"")])
        self.assertEqual(r.ask(8)[0][0], EXT_HEADER_REQD)
        self.assertEqual(r.ask(8, b"x")[0][0], INVALID)
        self.assertEqual(r.ask(10, contexts(b"", b"base:allocation"))[-1][0], ACK)
        self.assertTrue(self.flags(r) & 1 << 12)  # BLOCK_STAT_PAYLOAD
        self.assertEqual(r.do(READ, 0, 1).data, b"\0")

    def test_without_structured_replies_before(self):
        r = self.raw()
        self.assertEqual(r.ask(11), [(ACK, b"")])
        self.assertEqual([k for k, _ in r.ask(10, contexts(b"", b"base:allocation"))], [META, ACK])
        r.go()
        self.assertEqual(r.do(STATUS, 0, MB).extents, {1: [(MB, 3)]})

    def test_only_where_asked_for(self):
        for before in ((), (8,)):
            r = self.raw()
            for option in before:
                r.ask(option)
            self.assertFalse(self.flags(r) & 1 << 12)

    def test_magic_of_the_other_form(self):
        r = connect(self.socket, EXTENDED)
        self.addCleanup(r.s.close)
        r.send(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 1) + bytes(4))
        self.assertEqual(r.closed(), b"")
        r = connect(self.socket, STRUCTURED)
        self.addCleanup(r.s.close)
        r.send(struct.pack(">IHHQQQ", 0x21E41C71, 0, 0, 7, 0, 1))
        self.assertEqual(r.closed(), b"")

    def test_export_name_after_it(self):
        r = self.raw()
        r.ask(11)
        r.option(1)
        self.assertEqual(len(r.get(10)), 10)
        self.assertEqual(r.do(WRITE, 5, 3, PAYLOAD, b"abc").error, 0)
        self.assertEqual(r.do(READ, 4, 5).data, b"\0abc\0")

    def test_export_name_before_it(self):
        r = self.raw()
        r.option(1)
        r.get(10)
        self.assertEqual(r.do(READ, 0, 4).data, bytes(4))


class Wide(Case):
    """Lengths that need more than 32 bits."""
    SIZE = 8 * TB

    def setUp(self):
        super().setUp()
        base = self.d.create(self.SIZE)
        self.volumes = [base, self.d.clone(base, self.SIZE)]

    def each(self, form=EXTENDED):
        for v in self.volumes:
            r = connect(self.d.export(v), form)
            self.addCleanup(r.s.close)
            yield r

    def put(self, r, *offs):
        for off in offs:
            self.assertEqual(r.do(WRITE, off, 8192, PAYLOAD if r.extended else 0,
                                  b"w" * 8192).error, 0)

    def test_commands(self):
        size = self.SIZE
        for r in self.each():
            ends = (0, GB, 5 * GB + 512, size - 8192)
            for kind in (TRIM, ZEROES):
                self.put(r, *ends)
                for flags in (0, FUA):
                    self.assertEqual(r.do(kind, 1, size - 1, flags).error, 0)
                self.assertEqual(r.do(READ, 0, 1).data, b"w")
                for off in ends:
                    data = r.do(READ, off + 4096 * (off == 0), 4096).data
                    if kind == ZEROES:
                        self.assertEqual(data, bytes(4096))
                    else:
                        self.assertIn(data.strip(b"w"), (b"", bytes(4096), bytes(3584)))
            self.assertEqual(r.do(ZEROES, 0, size, FAST).error, 0)
            for kind in (CACHE, STATUS, TRIM, ZEROES):
                past = ENOSPC if kind == ZEROES else EINVAL
                self.assertEqual(r.do(kind, 0, size).error, 0)
                for off, n in ((0, size + 1), (1, size), (size, 1), (0, 2**63), (0, 2**64 - 1),
                               (2**64 - 1, 2**64 - 1), (size // 2, 2**64 - size // 2)):
                    self.assertEqual(r.do(kind, off, n).error, past, (kind, off, n))
            self.assertEqual(r.do(READ, 0, 2**32 + 1).error, EINVAL)
            self.assertEqual(r.do(READ, 0, 2**63).error, EINVAL)
            self.assertEqual(r.do(STATUS, 0, size).extents, {1: [(size, 3)]})

    def test_block_status(self):
        size = self.SIZE
        for r in self.each():
            self.put(r, 5 * GB, 6 * TB)
            want = [(5 * GB, 3), (8192, 0), (6 * TB - 5 * GB - 8192, 3), (8192, 0),
                    (2 * TB - 8192, 3)]
            a = r.do(STATUS, 0, size)
            self.assertEqual(a.kinds, [6])
            self.assertEqual(a.extents, {1: want})
            self.assertEqual(r.do(STATUS, 0, size, REQ_ONE).extents, {1: want[:1]})
            self.assertEqual(r.do(STATUS, 1, 4 * GB + 1).extents, {1: [(4 * GB + 1, 3)]})
            self.assertEqual(r.do(STATUS, 5 * GB, 8193).extents, {1: [(8192, 0), (1, 3)]})

    def test_block_status_in_32_bits(self):
        for r in self.each(STRUCTURED):
            self.put(r, 6 * GB)
            got, = r.do(STATUS, 0, 2**32 - 1).extents.values()
            self.assertEqual(got, [(2**32 - 1, 3)])
            self.assertEqual(r.do(STATUS, 6 * GB, 4 * GB - 4096).extents,
                             {1: [(8192, 0), (4 * GB - 12288, 3)]})

    def test_longest_in_32_bits(self):
        """TRIM and WRITE_ZEROES are not bound by what a payload may be."""
        for form in (SIMPLE, STRUCTURED):
            for r in self.each(form):
                for kind in (TRIM, ZEROES, CACHE):
                    for n in (32 * MB + 1, 2**32 - 512, 2**32 - 1):
                        self.put(r, 4096, n - 4096)
                        self.assertEqual(r.do(kind, 0, n).error, 0)
                    if kind == ZEROES:
                        self.assertEqual(r.do(READ, n - 4096, 4097).data, bytes(4096) + b"w")


class Payloads(Case):
    def setUp(self):
        super().setUp()
        self.size = 40 * MB
        self.v = self.d.create(self.size)
        self.socket = self.d.export(self.v)
        self.r = self.raw()

    def raw(self, **args):
        r = connect(self.socket, EXTENDED, **args)
        self.addCleanup(r.s.close)
        return r

    def in_step(self, r=None):
        a = (r or self.r).do(READ, 0, 4, cookie=99)
        self.assertEqual((a.error, a.data), (0, bytes(4)))

    def test_write_without_the_flag_has_no_payload(self):
        for flags in (0, FUA):
            for n in (0, 1, 512, 33 * MB, 2**40):
                self.assertEqual(self.r.do(WRITE, 0, n, flags).error, EINVAL, n)
                self.in_step()

    def test_payloads_where_none_belongs(self):
        for kind in (READ, FLUSH, TRIM, CACHE, ZEROES, 8, 99, 65535):
            for n in (0, 1, 28, 512, 4096, 200000, 300001):
                for flags in (PAYLOAD, PAYLOAD | FUA):
                    a = self.r.do(kind, 0, n, flags, b"\x25\x60\x95\x13" * (n // 4) + bytes(n % 4))
                    self.assertEqual((a.error, a.kinds), (EINVAL, [ERROR_CHUNK]), (kind, n))
                    self.in_step()

    def test_payloads_in_crumbs(self):
        wanted = []
        data = b""
        for i, (kind, n) in enumerate(((WRITE, 3), (READ, 100), (WRITE, 0), (STATUS, 12), (99, 7),
                                       (WRITE, 40))):
            payload = narrowed(0, MB, 1) if kind == STATUS else b"\0" * n
            data += self.r.pack(kind, 0, n, PAYLOAD, payload, cookie=i)
            wanted.append((kind, n, i, 0 if kind in (WRITE, STATUS) else EINVAL))
        for b in data:
            self.r.send(bytes([b]))
        for kind, n, i, error in wanted:
            self.assertEqual(self.r.answer(kind, 0, n, i).error, error)
        self.in_step()

    def test_long_payloads(self):
        for kind in (WRITE, READ, ZEROES, STATUS, 99):
            self.assertEqual(self.r.do(kind, 0, 33 * MB, PAYLOAD, b"x" * (33 * MB)).error, EINVAL)
            self.in_step()
        self.assertEqual(self.r.do(WRITE, 8 * MB, 32 * MB, PAYLOAD, b"y" * (32 * MB)).error, 0)
        self.assertEqual(self.r.do(READ, 8 * MB, 32 * MB).data, b"y" * (32 * MB))
        for kind in (WRITE, READ, STATUS, 99):
            for n in (64 * MB + 1, 2**32, 2**63, 2**64 - 1):
                r = self.raw()
                r.request(kind, 0, n, PAYLOAD)
                self.assertEqual(r.closed(), b"")

    def test_a_disconnect_is_never_answered(self):
        for flags, n, payload in ((0, 0, b""), (PAYLOAD, 0, b""), (PAYLOAD, 5, b"later"),
                                  (0x8000, 3, b"")):
            r = self.raw()
            r.request(DISC, 0, n, flags, payload)
            self.assertEqual(r.closed(), b"", (flags, n))

    def test_narrowed_block_status(self):
        r = self.r
        for effect, flags in ((self.size, 0), (self.size, REQ_ONE), (1, 0), (4096, FUA)):
            p = narrowed(0, effect, 1)
            a = r.do(STATUS, 0, len(p), PAYLOAD | flags, p)
            self.assertEqual(a.extents, {1: [(effect, 3)]})
        for p in (narrowed(0, MB), narrowed(0, MB, 2), narrowed(0, MB, 1, 2), narrowed(0, MB, 1, 1),
                  narrowed(0, MB, 0), narrowed(0, MB, *range(1, 120)), narrowed(0, MB, *range(1, 5000)),
                  narrowed(0, 0, 1), narrowed(0, self.size + 1, 1), narrowed(0, 2**64 - 1, 1),
                  b"", b"\0" * 7, narrowed(0, MB, 1) + b"\0", narrowed(0, MB, 1)[:-1]):
            a = r.do(STATUS, 0, len(p), PAYLOAD, p)
            self.assertEqual((a.error, a.kinds), (EINVAL, [ERROR_CHUNK]), p[:20])
            self.in_step()
        p = narrowed(0, MB, 1)
        for flags in (DF, FAST, 64, 0x8000):
            self.assertEqual(r.do(STATUS, 0, len(p), PAYLOAD | flags, p).error, EINVAL)
            self.in_step()
        self.assertEqual(r.do(STATUS, self.size - 4096, len(p), PAYLOAD, p).error, EINVAL)

    def test_narrowed_without_a_context(self):
        r = self.raw(context=False)
        p = narrowed(0, MB, 1)
        self.assertEqual(r.do(STATUS, 0, len(p), PAYLOAD, p).error, EINVAL)
        self.assertEqual(r.do(STATUS, 0, MB).error, EINVAL)
        self.in_step(r)

    def test_readonly(self):
        r = connect(self.d.export(self.v, readonly=True), EXTENDED)
        self.addCleanup(r.s.close)
        for kind in (TRIM, ZEROES):
            self.assertEqual(r.do(kind, 0, 2**40).error, EPERM)
            self.assertEqual(r.do(kind, 0, 4096).error, EPERM)
        self.assertEqual(r.do(WRITE, 0, 200000, PAYLOAD, b"x" * 200000).error, EPERM)
        self.assertEqual(r.do(WRITE, 0, 3, PAYLOAD, b"xyz").error, EPERM)
        self.in_step(r)

    def test_every_chunk_carries_the_offset(self):
        """answer() looks; here are replies of many chunks and the offsets that lie."""
        for off in range(MB, 3 * MB, 131072):
            self.r.do(WRITE, off, 70000, PAYLOAD, b"d" * 70000)
        a = self.r.do(READ, MB - 10, 3 * MB)
        self.assertGreater(a.kinds.count(DATA_CHUNK), 8)
        self.assertGreater(a.kinds.count(HOLE_CHUNK), 8)
        self.assertEqual(self.r.do(READ, MB - 10, 3 * MB, DF).kinds, [DATA_CHUNK])
        for kind in (READ, FLUSH, TRIM, ZEROES, CACHE, STATUS, 77):
            self.assertNotEqual(self.r.do(kind, 2**64 - 7, 1).error, 0)

    def test_burst(self):
        """Everything at once, replies in any order but each under its cookie and offset."""
        data, asked = b"", {}
        for i in range(1000):
            off = i * 4096
            kind = (WRITE, TRIM, STATUS, FLUSH, 55)[i % 5]
            n = 4096 * (kind != FLUSH)
            data += self.r.pack(kind, off * (kind != FLUSH), n, PAYLOAD if kind == WRITE else 0,
                                b"b" * 4096 if kind == WRITE else b"", cookie=i)
            asked[i] = off * (kind != FLUSH), EINVAL if kind == 55 else 0
        self.r.s.setblocking(True)
        self.r.send(data)
        while asked:
            flags, kind, cookie, payload, at = self.r.chunk()
            off, error = asked.pop(cookie)
            self.assertEqual((flags, at), (1, off))
            self.assertEqual(kind == ERROR_CHUNK, error != 0)


main()
