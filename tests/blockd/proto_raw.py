#!/usr/bin/python3
"""What well-behaved clients never send: malformed options and requests, lies about lengths."""
import struct
import unittest

from raw import (ACK, EINVAL, ENOSPC, EPERM, INFO, INVALID, MB, META, OPT, REQ, SERVER, TOO_BIG, UNKNOWN,
                 UNSUP, Raw)
import rig
from rig import Case, main


class Handshake(Case):
    def setUp(self):
        super().setUp()
        self.v = self.d.create(MB)
        self.socket = self.d.export(self.v)

    def raw(self, flags=3):
        r = Raw(self.socket, flags)
        self.addCleanup(r.s.close)
        return r

    def test_unknown_client_flags(self):
        self.assertEqual(self.raw(flags=7).closed(), b"")

    def test_bad_option_magic(self):
        r = self.raw()
        r.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(r.closed(), b"")

    def test_unknown_options(self):
        r = self.raw()
        self.assertEqual(r.ask(4711, b"data")[0][0], UNSUP)
        self.assertEqual(r.ask(0)[0][0], UNSUP)
        self.assertEqual(r.ask(5)[0][0], UNSUP)  # STARTTLS
        self.assertEqual(r.ask(4, b"x" * 100)[0][0], UNSUP)
        self.assertEqual(r.go()[-1][0], ACK)

    def test_list(self):
        r = self.raw()
        v = self.v.encode()
        self.assertEqual(r.ask(3), [(SERVER, struct.pack(">I", 36) + v), (ACK, b"")])
        self.assertEqual(r.ask(3, b"x")[0][0], INVALID)

    def test_abort(self):
        r = self.raw()
        self.assertEqual(r.ask(2), [(ACK, b"")])
        self.assertEqual(r.closed(), b"")

    def test_lengths_that_lie(self):
        r = self.raw()
        name = self.v.encode()
        bad = [b"", b"\0", struct.pack(">I", 100) + b"abc", struct.pack(">I", 0xFFFFFFFF),
               struct.pack(">I", 36) + name, struct.pack(">I", 36) + name + b"\0\2\0\0",
               struct.pack(">I", 36) + name + b"\0\0x"]
        for data in bad:
            for option in (6, 7):
                self.assertEqual(r.ask(option, data)[0][0], INVALID, data)
        r.ask(8)
        for data in bad[:4] + [struct.pack(">I", 36) + name + struct.pack(">II", 1, 50) + b"base",
                               struct.pack(">I", 36) + name + struct.pack(">I", 0xFFFFFFFF),
                               struct.pack(">I", 36) + name + struct.pack(">I", 0) + b"more"]:
            for option in (9, 10):
                self.assertEqual(r.ask(option, data)[0][0], INVALID, data)
        self.assertEqual(r.ask(8, b"x")[0][0], INVALID)
        self.assertEqual(r.go()[-1][0], ACK)

    def test_names(self):
        r = self.raw()
        for name in (b"nobody", b"x" * 4096, b"x" * 60000, self.v.encode() + b"\0", b"../" * 5):
            self.assertEqual(r.go(name)[0][0], UNKNOWN)
        self.assertEqual(r.go(self.v.encode())[-1][0], ACK)

    def test_long_options(self):
        r = self.raw()
        self.assertEqual(r.ask(3, b"x" * 100000)[0][0], TOO_BIG)
        self.assertEqual(r.ask(7, b"\xff" * 70000)[0][0], TOO_BIG)
        self.assertEqual(r.ask(3)[-1][0], ACK)
        r.option(7, length=0xFFFFFFFF)
        self.assertEqual(r.closed(), b"")

    def test_too_many_options(self):
        r = self.raw()
        r.send((OPT + struct.pack(">II", 4711, 0)) * 5000)
        self.assertLess(len(r.closed()), 5000 * 20)

    def test_info_does_not_begin(self):
        r = self.raw()
        data = struct.pack(">IH", 0, 4) + struct.pack(">HHHH", 3, 1, 2, 9)
        kinds = [struct.unpack(">H", p[:2])[0] for k, p in r.ask(6, data) if k == INFO]
        self.assertEqual(sorted(kinds), [0, 1, 2, 3])
        self.assertEqual(r.ask(6, data)[-1][0], ACK)

    def test_export_name(self):
        r = self.raw()
        r.option(1, b"")
        self.assertEqual(struct.unpack(">Q", r.get(10)[:8])[0], MB)
        r.request(0, 0, 4)
        self.assertEqual(r.simple(), (0, 7))
        self.assertEqual(r.get(4), bytes(4))
        r = self.raw(flags=1)  # without NO_ZEROES
        r.option(1, self.v.encode())
        self.assertEqual(r.get(134)[10:], bytes(124))
        r = self.raw()
        r.option(1, b"nobody")
        self.assertEqual(r.closed(), b"")

    def test_meta_context(self):
        r = self.raw()
        v = struct.pack(">I", 0)

        def q(*queries):
            return v + struct.pack(">I", len(queries)) + b"".join(
                struct.pack(">I", len(x)) + x for x in queries)
        self.assertEqual(r.ask(10, q(b"base:allocation"))[0][0], INVALID)  # too early
        r.ask(8)
        self.assertEqual(r.ask(9, q())[0][1][4:], b"base:allocation")
        self.assertEqual(r.ask(9, q(b"base:"))[0][1][4:], b"base:allocation")
        self.assertEqual(r.ask(9, q(b"qemu:x")), [(ACK, b"")])
        self.assertEqual(r.ask(10, q()), [(ACK, b"")])
        self.assertEqual(r.ask(10, q(b"base:")), [(ACK, b"")])
        got = r.ask(10, q(b"x" * 5000, b"qemu:y", b"base:allocation"))
        self.assertEqual([k for k, _ in got], [META, ACK])
        r.ask(10, q())  # the last one counts
        r.go()
        r.request(7, 0, 4096)
        self.assertEqual(r.chunk()[1], 0x8001)

    def test_silence_is_sent_away(self):
        r = self.raw()
        self.assertEqual(r.ask(8)[0][0], ACK)
        self.assertEqual(r.closed(), b"")  # after ten seconds
        self.assertIn("timed out", self.d.log())

    def test_handshake_in_crumbs(self):
        r = self.raw()
        for b in OPT + struct.pack(">II", 7, 6) + bytes(6):
            r.send(bytes([b]))
        self.assertEqual(r.reply()[1], INFO)
        self.assertEqual(r.reply()[1], ACK)


class Transmission(Case):
    def setUp(self):
        super().setUp()
        self.v = self.d.create(MB)
        self.socket = self.d.export(self.v)

    def raw(self, structured=True, context=True, socket=None):
        r = Raw(socket or self.socket)
        self.addCleanup(r.s.close)
        if structured:
            r.ask(8)
            if context:
                r.ask(10, struct.pack(">III", 0, 1, 15) + b"base:allocation")
        self.assertEqual(r.go()[-1][0], ACK)
        return r

    def error(self, r):
        flags, kind, cookie, data = r.chunk()
        self.assertEqual((flags, kind, cookie), (1, 0x8001, 7))
        return struct.unpack(">I", data[:4])[0]

    def test_bad_magic(self):
        r = self.raw()
        r.send(b"x" * 28)
        self.assertEqual(r.closed(), b"")

    def test_unknown_commands_and_flags(self):
        r = self.raw()
        for kind in (8, 9, 99, 65535):
            r.request(kind)
            self.assertEqual(r.simple(), (EINVAL, 7))
        for kind in (0, 7):
            r.request(kind, 0, 512, flags=0x8000)
            self.assertEqual(self.error(r), EINVAL)
        for kind, flags in ((3, 2), (4, 4), (6, 8), (5, 16), (6, 0x100)):
            r.request(kind, 0, 0 if kind == 3 else 512, flags=flags)
            self.assertEqual(r.simple(), (EINVAL, 7), kind)
        r.request(1, 0, 4, flags=2, payload=b"abcd")
        self.assertEqual(r.simple(), (EINVAL, 7))
        r.request(0, 0, 4)
        self.assertEqual(r.chunk()[3][8:], bytes(4))  # nothing was written; still in step

    def test_df_needs_structured(self):
        r = self.raw(structured=False)
        r.request(0, 0, 512, flags=4)
        self.assertEqual(r.simple(), (EINVAL, 7))
        r.request(7, 0, 512)
        self.assertEqual(r.simple(), (EINVAL, 7))

    def test_block_status_needs_context(self):
        r = self.raw(context=False)
        r.request(7, 0, 512)
        self.assertEqual(self.error(r), EINVAL)

    def test_ranges(self):
        r = self.raw()
        for off, n in ((MB, 1), (MB - 1, 2), (1 << 63, 1), (2**64 - 1, 1), (2**64 - 512, 1024),
                       (0, 33 * MB), (0, 0xFFFFFFFF)):
            r.request(0, off, n)
            self.assertEqual(self.error(r), EINVAL)
            r.request(7, off, n)
            if (off, n) == (0, 33 * MB) or (off, n) == (0, 0xFFFFFFFF) or n:
                self.assertEqual(self.error(r), EINVAL)
            r.request(4, off, n)
            self.assertEqual(r.simple()[0], EINVAL)
            r.request(6, off, n)
            self.assertEqual(r.simple()[0], ENOSPC)
        for off in (MB, 1 << 63, 2**64 - 1):
            r.request(1, off, 3, payload=b"abc")
            self.assertEqual(r.simple()[0], ENOSPC)

    def test_nothing(self):
        r = self.raw()
        r.request(0, 0, 0)
        self.assertEqual(r.chunk(), (1, 0, 7, b""))
        for kind in (1, 4, 5, 6):
            r.request(kind, 0, 0)
            self.assertEqual(r.simple(), (0, 7))
        r.request(7, 0, 0)
        self.assertEqual(self.error(r), EINVAL)
        r.request(3, 1, 0)
        self.assertEqual(r.simple(), (EINVAL, 7))

    def test_long_writes(self):
        r = self.raw()
        r.request(1, 0, 33 * MB)
        r.send(bytes(33 * MB))
        self.assertEqual(r.simple(), (EINVAL, 7))  # read and thrown away
        r.request(1, 0, 65 * MB)
        self.assertEqual(r.closed(), b"")

    def test_readonly(self):
        r = self.raw(socket=self.d.export(self.v, readonly=True))
        r.request(1, 0, 5, payload=b"hello")
        self.assertEqual(r.simple(), (EPERM, 7))
        r.request(4, 0, 512)
        self.assertEqual(r.simple(), (EPERM, 7))
        r.request(6, 0, 512)
        self.assertEqual(r.simple(), (EPERM, 7))
        r.request(3)
        self.assertEqual(r.simple(), (0, 7))

    def test_burst(self):
        """Many requests in one segment are all answered, each under its cookie, in any order."""
        r = self.raw()
        r.send(b"".join(struct.pack(">IHHQQI", REQ, 0, 1, i, i * 512, 512) + bytes([i + 1]) * 512
                        for i in range(200)))
        self.assertEqual(sorted(r.simple() for _ in range(200)), [(0, i) for i in range(200)])
        r.send(b"".join(struct.pack(">IHHQQI", REQ, 0, 0, 1000 + i, i * 512, 512)
                        for i in range(200)))
        for flags, kind, cookie, chunk in sorted(r.chunk() for _ in range(200)):
            self.assertEqual((flags, kind), (1, 1))
            self.assertEqual(chunk[8:], bytes([cookie - 1000 + 1]) * 512)

    def test_write_in_crumbs(self):
        r = self.raw()
        data = bytes(range(256)) * 2048
        r.request(1, 333, len(data))
        for i in range(0, len(data), 77777):
            r.send(data[i:i + 77777])
        self.assertEqual(r.simple(), (0, 7))
        r.request(0, 333, len(data), flags=4)
        self.assertEqual(r.chunk()[3][8:], data)

    @unittest.skipIf(rig.CEPH_POOL, "Ceph tells whole objects")
    def test_req_one(self):
        r = self.raw()
        r.request(1, 4096, 4096, payload=b"d" * 4096)
        self.assertEqual(r.simple()[0], 0)
        r.request(7, 0, MB, flags=8)
        _, kind, _, data = r.chunk()
        self.assertEqual((kind, data), (5, struct.pack(">III", 1, 4096, 3)))
        r.request(7, 0, MB)
        _, kind, _, data = r.chunk()
        self.assertEqual(data, struct.pack(">IIIIIII", 1, 4096, 3, 4096, 0, MB - 8192, 3))

    @unittest.skipIf(rig.CEPH_POOL, "Ceph tells whole objects")
    def test_holes_in_reads(self):
        r = self.raw()
        r.request(1, 512 * 1024, 4096, payload=b"d" * 4096)
        self.assertEqual(r.simple()[0], 0)
        r.request(0, 0, MB)
        kinds = []
        while not kinds or not kinds[-1][0]:
            flags, kind, _, data = r.chunk()
            kinds.append((flags & 1, kind))
        self.assertEqual(kinds, [(0, 2), (0, 1), (1, 2)])

    def test_disc(self):
        r = self.raw()
        r.request(1, 0, 4, payload=b"last")
        r.request(2)
        self.assertEqual(r.simple(), (0, 7))
        self.assertEqual(r.closed(), b"")

    def test_a_client_that_vanishes(self):
        for _ in range(20):
            r = self.raw()
            r.request(1, 0, 100000)
            r.send(b"half")
            r.s.close()
        self.assertEqual(self.d.call("ping")["ok"], True)

    def test_too_many_connections(self):
        rs = [self.raw() for _ in range(64)]
        with self.assertRaises((EOFError, ConnectionResetError, AssertionError)):
            Raw(self.socket)
        rs.pop().s.close()
        for _ in range(1000):  # the slot comes back when the server has noticed
            try:
                self.raw()
                break
            except (EOFError, ConnectionResetError, BrokenPipeError):
                pass
        else:
            self.fail("the slot never came back")


if __name__ == "__main__":
    main()
