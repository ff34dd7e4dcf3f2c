#!/usr/bin/python3
"""Several clients at once: what one's flush and writes mean to another; clients that are slow, silent,
half closed or liars; connections at rest.  Afterwards nothing of them is left in the server."""
import contextlib
import os
import random
import resource
import struct
import time

from raw import (ACK, EIO, EXTENDED, FLUSH, FUA, INFO, MB, OPT, PAYLOAD, READ, SIMPLE, STATUS, STRUCTURED,
                 TRIM, WRITE, ZEROES, Raw, connect)
from rig import THREADS, Case, main

FORMS = (SIMPLE, STRUCTURED, EXTENDED)


class Clients(Case):
    fault = None

    def setUp(self):
        super().setUp()
        if self.fault is not None:
            self.d.stop()
            self.d.start(fault=self.fault)
        self.open = contextlib.ExitStack()
        self.addCleanup(self.open.close)

    def connect(self, socket, form=STRUCTURED, name=b""):
        r = connect(socket, form, name=name)
        self.open.callback(r.s.close)
        return r

    def raw(self, socket):
        r = Raw(socket)
        self.open.callback(r.s.close)
        return r

    def write(self, r, off, data, flags=0):
        return r.do(WRITE, off, len(data), flags | (PAYLOAD if r.extended else 0), data)

    def proc(self, what):
        return "/proc/%d/%s" % (self.d.process.pid, what)

    def counts(self):
        """Threads and descriptors of the server."""
        return len(os.listdir(self.proc("task"))), len(os.listdir(self.proc("fd")))

    def wait(self, what, test):
        end = time.monotonic() + 60
        while not test():
            self.assertLess(time.monotonic(), end, "%s: %s" % (what, self.counts()))
            time.sleep(0.01)

    def wait_counts(self, want):
        self.wait("threads and descriptors are not %s" % (want,), lambda: self.counts() == want)

    def wait_rest(self):
        """Until no connection has a thread; ThreadSanitizer has one of its own."""
        alone = THREADS + ("libtsan" in self.maps())
        self.wait("no rest", lambda: self.counts()[0] == alone)

    def pss(self):
        """Bytes of memory that are the server's own."""
        with open(self.proc("smaps_rollup")) as f:
            return sum(int(line.split()[1]) << 10 for line in f if line.startswith("Pss:"))

    def maps(self):
        with open(self.proc("maps")) as f:
            return f.read()

    def sanitized(self):
        """Then memory is the sanitizer's."""
        return any(name in self.maps() for name in ("libasan", "libtsan"))


class Order(Clients):
    fault = ""

    def sockets(self):
        """Exports of which nothing is left for a flush to do; from here on a sync fails."""
        for make in (self.d.create, lambda n: self.d.clone(self.d.create(n), n)):
            self.d.ok("fault", points="")
            socket = self.d.export(make(4 * MB))
            keeper = self.connect(socket)  # a volume that is opened anew is taken for dirty
            self.assertEqual(keeper.do(FLUSH).error, 0)
            self.d.ok("fault", points="volume.sync=EIO")
            self.assertEqual(keeper.do(FLUSH).error, 0)
            yield socket
            keeper.s.close()

    def test_a_flush_covers_all_connections(self):
        """The sync fails, so it was tried; without something written it is not."""
        changes = (lambda r: self.write(r, 5, b"small"), lambda r: self.write(r, 0, b"x" * 300000),
                   lambda r: r.do(TRIM, 0, MB), lambda r: r.do(ZEROES, 0, MB))
        for form in FORMS:
            for change in changes:
                for socket in self.sockets():
                    a, b = self.connect(socket, form), self.connect(socket, form)
                    self.assertEqual(b.do(READ, 0, 4096).error, 0)
                    self.assertEqual(b.do(FLUSH).error, 0)
                    self.assertEqual(change(a).error, 0)
                    self.assertEqual(b.do(FLUSH).error, EIO)
                    a.s.close()
                    b.s.close()

    def test_fua_syncs(self):
        """Of small writes in a batch, long ones and those in pieces, TRIM and WRITE_ZEROES."""
        changes = (lambda r: self.write(r, 5, b"small", FUA),
                   lambda r: self.write(r, 0, b"x" * 100000, FUA),
                   lambda r: self.write(r, 100, b"x" * 1000000, FUA),
                   lambda r: r.do(TRIM, 0, MB, FUA), lambda r: r.do(ZEROES, 0, MB, FUA))
        for form in FORMS:
            for change in changes:
                for socket in self.sockets():
                    r = self.connect(socket, form)
                    self.assertEqual(change(r).error, EIO)
                    r.s.close()

    def test_fua_in_the_middle_of_a_batch(self):
        for form in FORMS:
            for socket in self.sockets():
                r = self.connect(socket, form)
                payload = PAYLOAD if r.extended else 0
                r.send(b"".join(r.pack(WRITE, i * 512, 512, payload | (FUA if i == 20 else 0),
                                       b"b" * 512, cookie=i) for i in range(40)))
                codes = [r.answer(WRITE, i * 512, 512, i).error for i in range(40)]
                self.assertEqual(codes[20], EIO)
                self.assertEqual(set(codes[:20]), {0})
                r.s.close()

    def test_what_one_wrote_another_reads(self):
        rnd = random.Random(7)
        noise = rnd.randbytes(MB)
        v = self.d.clone(self.d.create(16 * MB), 16 * MB)
        socket = self.d.export(v)
        ends = [self.connect(socket, form) for form in (EXTENDED, STRUCTURED, SIMPLE)]
        left = 10000
        while left > 0:
            a, b = rnd.sample(ends, 2)
            n = min(left, rnd.choice((1, 2, 17, 64, 65, 100)))
            left -= n
            sizes = rnd.choice(((1, 512, 4096), (4096, 65535), (65536, 200000))) if n < 65 else (512,)
            asked, at = [], rnd.randrange(8192)
            for _ in range(n):
                k = rnd.choice(sizes)
                asked.append((at, k, noise[at * 7 % (MB - k):][:k]))
                at += k + rnd.choice((0, 0, 1, 4096))
            a.send(b"".join(a.pack(WRITE, off, k, PAYLOAD if a.extended else 0, data, cookie=off)
                            for off, k, data in asked))
            for off, k, _ in asked:
                self.assertEqual(a.answer(WRITE, off, k, off).error, 0)
            b.send(b"".join(b.pack(READ, off, k, cookie=off) for off, k, _ in asked))
            want = {off: (k, data) for off, k, data in asked}
            for off, (k, data) in self.in_any_order(b, want):
                self.assertTrue(data == k, off)

    def in_any_order(self, r, want):
        """Reads answered in whatever order: their offset, what is expected and what came."""
        while want:
            off = self.next_cookie(r)
            n, data = want.pop(off)
            yield off, (data, bytes(r.answer(READ, off, n, off).data))

    def next_cookie(self, r):
        head = r.s.recv(16, 0x2 | 0x100)  # MSG_PEEK | MSG_WAITALL: in all forms it is at byte 8
        return struct.unpack(">Q", head[8:])[0]


class Bad(Clients):
    def setUp(self):
        super().setUp()
        self.v = self.d.create(8 * MB)
        self.socket = self.d.export(self.v)
        self.wait_rest()
        self.base = self.counts()

    def gone(self):
        self.open.close()
        self.wait_counts(self.base)

    def test_the_deadline_of_the_handshake(self):
        """Nobody gets past it: not by silence, not by talk, not a byte at a time, not unread."""
        talk = OPT + struct.pack(">II", 4711, 0)
        silent, slow, chatty, full = (self.raw(self.socket) for _ in range(4))
        full.send(talk * 1000)
        began = time.monotonic()
        slow.s.settimeout(0.5)
        for i in range(60):
            slow.send(talk[i % len(talk):][:1])
            if i % 2:
                chatty.send(talk)
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                if not slow.s.recv(1):
                    break
            if time.monotonic() > began + 30:
                self.fail("a slow client stays for ever")
        for r in (silent, chatty, full):
            r.closed()
        self.gone()

    def test_half_closed_after_requests(self):
        """Who sends no more still gets every reply."""
        for form in FORMS:
            r = self.connect(self.socket, form)
            payload = PAYLOAD if r.extended else 0
            r.send(r.pack(WRITE, 0, 300000, payload, b"h" * 300000, cookie=1) +
                   r.pack(READ, 4096, 200000, cookie=2) + r.pack(FLUSH, cookie=3))
            r.s.shutdown(1)
            self.assertEqual(r.answer(WRITE, 0, 300000, 1).error, 0)
            self.assertEqual(r.answer(READ, 4096, 200000, 2).data, b"h" * 200000)
            self.assertEqual(r.answer(FLUSH, 0, 0, 3).error, 0)
            self.assertEqual(r.closed(), b"")
        self.gone()

    def test_half_closed_within_a_request(self):
        for form in FORMS:
            whole = self.connect(self.socket, form)
            data = whole.pack(WRITE, 0, 300000, PAYLOAD if whole.extended else 0, b"n" * 300000)
            for n in (1, 4, 27, 28, 31, 32, 33, 100000, 200000, 299999):
                r = self.connect(self.socket, form)
                r.send(data[:n])
                r.s.shutdown(1)
                self.assertEqual(r.closed(), b"")
        self.gone()

    def test_half_closed_in_the_handshake(self):
        go = OPT + struct.pack(">IIIH", 7, 6, 0, 0)
        for n in range(len(go)):
            r = self.raw(self.socket)
            r.send(go[:n])
            r.s.shutdown(1)
            self.assertEqual(r.closed(), b"")
        r = self.raw(self.socket)
        r.send(go)
        r.s.shutdown(1)
        self.assertEqual([r.reply()[1] for _ in range(2)], [INFO, ACK])
        self.assertEqual(r.closed(), b"")
        self.gone()

    def test_a_byte_at_a_time(self):
        for form in FORMS:
            r = self.connect(self.socket, form)
            data = b"".join(r.pack(WRITE, i, 5, PAYLOAD if r.extended else 0, b"crumb", cookie=i) +
                            r.pack(READ, i, 7, cookie=100 + i) + r.pack(ZEROES, i, 9, cookie=200 + i)
                            for i in range(8))
            for b in data:
                r.send(bytes([b]))
            for i in range(8):
                self.assertEqual(r.answer(WRITE, i, 5, i).error, 0)
                self.assertEqual(r.answer(READ, i, 7, 100 + i).data, b"crumb\0\0")
                self.assertEqual(r.answer(ZEROES, i, 9, 200 + i).error, 0)
        self.gone()

    def test_liars(self):
        """They promise more than they send, or hang up with replies unread."""
        for form in FORMS:
            for k in range(20):
                r = self.connect(self.socket, form)
                r.request(WRITE, 0, 2 * MB, PAYLOAD if r.extended else 0, b"x" * (k * 30000))
                r.s.close()
                r = self.connect(self.socket, form)
                r.send(r.pack(READ, 0, 4 * MB) * 8)
                if k % 2:
                    r.get(1000)
                r.s.close()
        self.gone()

    def test_readers_who_do_not_read(self):
        """What they ask for waits in the socket; the server keeps a buffer or two for each."""
        for form, n, count in ((STRUCTURED, MB, 30), (EXTENDED, 60000, 30), (SIMPLE, 4 * MB, 10)):
            writer = self.connect(self.socket)
            self.write(writer, 0, b"d" * (8 * MB))
            writer.s.close()
            base = self.pss()
            for _ in range(count):
                r = self.connect(self.socket, form)
                r.s.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    for _ in range(100):
                        r.s.sendall(r.pack(READ, 0, n) * 64)
            cost = self.pss() - base
            if not self.sanitized():
                self.assertLess(cost, count * ((512 << 10) + n) + 4 * MB, form)
            self.assertEqual(self.connect(self.socket).do(READ, 0, 4).data, b"dddd")
            self.gone()

    def test_as_many_as_there_may_be(self):
        """2,048; one more is turned away until one goes."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(
            8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
        name = self.v.encode()
        rs = [self.connect(self.d.shared, SIMPLE, name) for _ in range(2048)]
        self.assertEqual(self.counts()[1], self.base[1] + 2048 + 1)  # and the volume's file
        with self.assertRaises((EOFError, ConnectionResetError, BrokenPipeError, AssertionError)):
            self.connect(self.d.shared, SIMPLE, name)
        rs.pop().s.close()

        def again():
            with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
                return self.connect(self.d.shared, SIMPLE, name)
        self.wait("the place never came back", again)
        for r in rs[::100]:
            self.assertEqual(r.do(READ, 0, 4).data, bytes(4))
        self.gone()


class Rest(Clients):
    """A connection that is silent for a second has no thread and no buffers."""

    def setUp(self):
        super().setUp()
        self.v = self.d.create(8 * MB)
        self.socket = self.d.export(self.v)
        self.wait_rest()
        self.base = self.counts()

    def test_wakes(self):
        rs = [self.connect(self.socket, form) for form in FORMS * 20]
        for round in range(3):
            self.wait_rest()
            for i, r in enumerate(rs):
                r.send(r.pack(WRITE, i * 8, 8, PAYLOAD if r.extended else 0, b"%08d" % (i + round)))
            for i, r in enumerate(rs):
                self.assertEqual(r.answer(WRITE, i * 8, 8).error, 0)
                self.assertEqual(r.do(READ, i * 8, 8).data, b"%08d" % (i + round))

    def test_rests_within_a_request(self):
        """At any byte: what had come is kept."""
        asked = []
        for form in FORMS:
            for n in (1, 4, 27, 28, 30, 32, 33, 34, 1000, 150000, 299999):
                r = self.connect(self.socket, form)
                data = r.pack(WRITE, 1, 300000, PAYLOAD if r.extended else 0, b"r" * 300000)
                r.send(data[:n])
                asked.append((r, data[n:]))
            r = self.connect(self.socket, form)
            data = r.pack(WRITE, 1, 40000, PAYLOAD if r.extended else 0, b"r" * 40000)
            r.send(r.pack(FLUSH) + data[:20000])
            r.answer(FLUSH, 0, 0)
            asked.append((r, data[20000:]))
        for _ in range(2):
            self.wait_rest()
            for i, (r, rest) in enumerate(asked):
                r.send(rest[:5])
                asked[i] = r, rest[5:]
        self.wait_rest()
        for r, rest in asked:
            r.send(rest)
            self.assertEqual(r.answer(WRITE, 1, 0).error, 0)
            self.assertEqual(r.do(READ, 0, 5).data, b"\0rrrr")

    def test_hangs_up_at_rest(self):
        rs = [self.connect(self.socket, form) for form in FORMS * 10]
        self.wait_rest()
        for r in rs[::2]:
            r.s.close()
        for r in rs[1::2]:
            r.s.shutdown(1)
        for r in rs[1::2]:
            self.assertEqual(r.closed(), b"")
        self.open.close()
        self.wait_counts(self.base)

    def test_unexport_and_stop_at_rest(self):
        export = self.d.export(self.v, id="leaving")
        rs = [self.connect(export, form) for form in FORMS * 10]
        stays = [self.connect(self.socket, form) for form in FORMS]
        self.wait_rest()
        self.d.ok("unexport", id="leaving")
        for r in rs:
            self.assertEqual(r.closed(), b"")
        for r in stays:
            self.assertEqual(r.do(READ, 0, 4).data, bytes(4))
        self.wait_rest()
        self.d.stop()
        for r in stays:
            self.assertEqual(r.closed(), b"")

    def test_stops_without_memory(self):
        """Hardly a thread can be made: each connection waits for its turn to end."""
        export = self.d.export(self.v, id="leaving")
        name = self.v.encode()
        for _ in range(60):
            self.connect(export)
        for _ in range(200):
            self.connect(self.d.shared, STRUCTURED, name)
        self.wait_rest()
        if not self.sanitized():  # these take what they need, or give up
            with open(self.proc("statm")) as f:
                size = int(f.read().split()[0]) * resource.getpagesize()
            resource.prlimit(self.d.process.pid, resource.RLIMIT_AS, (size + 3 * MB, size + 3 * MB))
        self.d.ok("unexport", id="leaving")
        self.d.stop()

    def test_leaving_while_waking(self):
        """Requests, hang-ups and the end of the export at once, again and again."""
        rnd = random.Random(1)
        for i in range(3):
            export = self.d.export(self.v, id="leaving%d" % i)
            rs = [self.connect(export, form) for form in FORMS * 15]
            self.wait_rest()
            rnd.shuffle(rs)
            for k, r in enumerate(rs):
                if k == 30:
                    self.d.ok("unexport", id="leaving%d" % i)
                if k % 3 == 0:
                    r.s.close()
                else:
                    r.send(r.pack(READ, 0, 70000))
            self.open.close()
            self.wait_counts(self.base)
        self.d.stop()

    def test_a_thousand_idle_ones(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(
            8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
        name = self.v.encode()
        data = random.Random(4).randbytes(MB)

        def busy(r):
            self.assertEqual(self.write(r, MB, data).error, 0)
            self.assertTrue(r.do(READ, MB, MB).data == data)
            self.assertEqual(self.write(r, 5, b"small").error, 0)
            self.assertEqual(r.do(READ, 0, 10).data, b"\0\0\0\0\0small"[:10])
        busy(self.connect(self.d.shared, STRUCTURED, name))
        self.wait_rest()
        base = self.pss()
        for i in range(1000):
            busy(self.connect(self.d.shared, FORMS[i % 3], name))
        self.wait_rest()
        cost = self.pss() - base
        print("%d bytes for each of 1000 idle connections" % (cost // 1000), end=" ", flush=True)
        if not self.sanitized():
            self.assertLess(cost, 16 * MB)
        self.open.close()
        self.wait_counts(self.base)


main()
