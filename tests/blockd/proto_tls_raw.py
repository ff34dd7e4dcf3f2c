#!/usr/bin/python3
"""What well-behaved clients never do around STARTTLS: injected text, halves of handshakes, silence."""
import os
import shutil
import socket
import ssl
import struct
import tempfile
import time

import credentials
import rig
from proto_raw import ACK, INVALID, META, OPT, Raw, SERVER, UNSUP
from rig import THREADS, Blockd, main

MB = 1 << 20
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, SET_META = 1, 2, 3, 5, 6, 7, 8, 10
TLS_REQD, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (5, 6, 9))


def setUpModule():
    global CRED
    CRED = tempfile.mkdtemp(prefix="cred.", dir=os.environ.get("TMPDIR", "/tmp"))
    ca = credentials.Authority(CRED)
    ca.issue(CRED + "/server", "server", "localhost", ["DNS:localhost", "IP:127.0.0.1"])
    ca.issue(CRED + "/host7", "client", "host7")
    other = credentials.Authority(CRED, "other")
    other.issue(CRED + "/stranger", "client", "host7")


def tearDownModule():
    shutil.rmtree(CRED)


def context(who="host7"):
    c = ssl.create_default_context(cafile=CRED + "/ca/ca-cert.pem")
    c.load_cert_chain("%s/%s/client-cert.pem" % (CRED, who), "%s/%s/client-key.pem" % (CRED, who))
    return c


class Tcp(Raw):
    """Raw over TCP, and the TLS client as bytes: what it says is sent by the test."""

    def __init__(self, port, flags=3, receive=None):
        self.s = socket.socket()
        if receive:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.s.settimeout(60)
        self.s.connect(("127.0.0.1", port))
        assert self.get(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.send(struct.pack(">I", flags))

    def ask(self, option, data=b"", length=None):
        self.option(option, data, length)
        return self.reply()[1]

    def starttls(self, ctx=None, at_once=1 << 20):
        """The upgrade, in pieces of so many bytes."""
        assert self.ask(STARTTLS) == ACK
        self.incoming, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = (ctx or context()).wrap_bio(self.incoming, out, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            data = out.read()
            for i in range(0, len(data), at_once):
                self.s.sendall(data[i:i + at_once])
            if done:
                break
            self.feed()
        self.tls, self.out = tls, out
        self.plain = (self.send, self.get)
        self.send, self.get = self.tls_send, self.tls_get

    def feed(self):
        data = self.s.recv(65536)
        if not data:
            raise EOFError
        self.incoming.write(data)

    def tls_send(self, data):
        self.tls.write(data)
        self.s.sendall(self.out.read())

    def tls_get(self, n):
        data = b""
        while len(data) < n:
            try:
                data += self.tls.read(n - len(data))
            except ssl.SSLWantReadError:
                self.feed()
        return data


def hello():
    out = ssl.MemoryBIO()
    tls = context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()


def go(name):
    return struct.pack(">I", len(name)) + name.encode() + b"\0\0"


def meta(name, context_name=b"base:allocation"):
    return struct.pack(">I", len(name)) + name.encode() + struct.pack(">II", 1, len(context_name)) \
        + context_name


class Case(rig.Case):
    options = ()
    handshake_ms = 60000

    def setUp(self):
        self.d = Blockd(options=["--listen", "127.0.0.1:0", "--tls-dir", CRED + "/server",
                                 "--handshake-ms", str(self.handshake_ms), *self.options])
        self.addCleanup(self.d.clean)
        self.port = self.d.ports()[0]
        self.v = self.d.create(MB)
        self.d.export(self.v, id="x", clients=["cn:host7"])

    def client(self, **more):
        c = Tcp(self.port, **more)
        self.addCleanup(c.s.close)
        return c


class Forced(Case):
    def test_before_tls(self):
        c = self.client()
        for option in (LIST, INFO, GO, STRUCTURED, SET_META, 77):
            self.assertEqual(c.ask(option, go("x")), TLS_REQD)
        c.option(GO, bytes(100000))
        self.assertEqual(c.reply()[1], TLS_REQD)
        self.assertEqual(c.ask(STARTTLS, b"data"), INVALID)
        self.assertEqual(c.ask(ABORT), ACK)
        self.assertEqual(c.closed(), b"")
        for name in (b"x", b"", b"unknown"):
            c = self.client()
            c.option(EXPORT_NAME, name)
            self.assertEqual(c.closed(), b"")
        c = self.client(flags=2)  # no fixed newstyle: no TLS
        c.option(STARTTLS)
        self.assertEqual(c.closed(), b"")

    def test_inside_tls(self):
        c = self.client()
        c.starttls()
        self.assertEqual(c.ask(STARTTLS), INVALID)
        self.assertEqual(c.ask(77), UNSUP)
        self.assertEqual(c.ask(GO, bytes(100000)), TOO_BIG)
        c.option(LIST)
        self.assertEqual(c.reply()[1:], (SERVER, b"\0\0\0\1x"))
        self.assertEqual(c.reply()[1], ACK)
        self.assertEqual(c.ask(GO, go("y")), UNKNOWN)
        c.option(EXPORT_NAME, b"x")
        self.assertEqual(struct.unpack(">Q", c.get(10)[:8])[0], MB)
        c.send(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))
        self.assertEqual(c.get(16 + 512), struct.pack(">IIQ", 0x67446698, 0, 7) + bytes(512))

    def test_stranger(self):
        c = self.client()
        with self.assertRaises((EOFError, OSError, ssl.SSLError)):
            c.starttls(context("stranger"))
            c.ask(LIST)
        c.s.close()
        self.d.stop()  # the words may come after the connection's end
        self.assertEqual(self.d.log().count("unable to get local issuer certificate") +
                         self.d.log().count("self-signed certificate"), 1, self.d.log())

    def test_byte_by_byte(self):
        c = self.client()
        c.starttls(at_once=1)
        self.assertEqual(c.ask(STRUCTURED), ACK)

    def test_injection(self):
        listing = OPT + struct.pack(">II", LIST, 0)
        c = self.client()
        c.send(OPT + struct.pack(">II", STARTTLS, 0) + listing)
        self.assertEqual(c.closed(), b"")  # not even the ACK
        c = self.client()
        c.send(OPT + struct.pack(">II", STARTTLS, 0) + b"I")
        self.assertEqual(c.closed(), b"")
        c = self.client()
        c.send(OPT + struct.pack(">II", STARTTLS, 0) + hello())
        self.assertEqual(c.closed(), b"")
        # Behind the ACK it is no TLS, and read by nobody else.
        c = self.client()
        self.assertEqual(c.ask(STARTTLS), ACK)
        c.send(listing)
        self.assertNotIn(b"\3\xe8\x89\4", c.closed())

    def test_halves(self):
        h = hello()
        for n in (0, 1, 5, 6, len(h) // 2, len(h) - 1, len(h)):
            c = self.client()
            self.assertEqual(c.ask(STARTTLS), ACK)
            c.send(h[:n])
            c.s.close()
        for junk in (b"\x16\3\1\xff\xff" + bytes(70000), b"\x16\3\1\0\4\1\xff\xff\xff",
                     b"\x80\x2e\1\0\2", b"GET / HTTP/1.0\r\n\r\n" * 10):
            c = self.client()
            self.assertEqual(c.ask(STARTTLS), ACK)
            c.send(junk)
            try:
                c.s.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has been closed already
            c.closed()
        self.client().starttls()

    def test_truncated(self):
        """A cut between two records is no end of the stream; and a request is whole or not at all."""
        c = self.client()
        c.starttls()
        c.option(EXPORT_NAME, b"x")
        c.get(10)
        c.send(struct.pack(">IHHQQI", 0x25609513, 0, 1, 7, 0, 4096) + b"a" * 2048)
        c.s.close()
        self.client().starttls()

    def test_unix(self):
        c = Raw(self.d.shared)
        self.addCleanup(c.s.close)
        c.option(STARTTLS)
        self.assertEqual(c.reply()[1], UNSUP)


class Selective(Case):
    options = ("--plain-tcp",)

    def test_new_start(self):
        """What was negotiated in the plain is forgotten."""
        self.d.export(self.v, id="p", clients=["any"])
        c = self.client()
        c.option(LIST)
        self.assertEqual(c.reply()[1:], (SERVER, b"\0\0\0\1p"))
        self.assertEqual(c.reply()[1], ACK)
        self.assertEqual(c.ask(GO, go("x")), UNKNOWN)
        self.assertEqual(c.ask(STRUCTURED), ACK)
        self.assertEqual(c.ask(SET_META, meta("p")), META)
        self.assertEqual(c.reply()[1], ACK)
        c.starttls()
        self.assertEqual(c.ask(SET_META, meta("x")), INVALID)
        self.assertEqual(c.ask(STRUCTURED), ACK)
        self.assertEqual(c.ask(SET_META, meta("x")), META)
        self.assertEqual(c.reply()[1], ACK)
        self.assertIn("a client without TLS: 127.0.0.1", self.d.log())

    def test_not_fixed(self):
        c = self.client(flags=2)
        self.assertEqual(c.ask(STARTTLS), UNSUP)


class Stalled(Case):
    options = ("--plain-tcp",)
    handshake_ms = 3000

    def idle(self, fds=None):
        """Waits until no connection has a thread, with so many descriptors; returns their number."""
        proc = "/proc/%d/" % self.d.process.pid
        end = time.monotonic() + 60
        while True:
            now = len(os.listdir(proc + "task")), len(os.listdir(proc + "fd"))
            if now[0] == THREADS and now[1] == (fds or now[1]):
                return now[1]
            self.assertLess(time.monotonic(), end, "%s, not %s" % (now, fds))
            time.sleep(0.05)

    def stall(self, how):
        c = self.client()
        if how == 0:  # says nothing
            return c
        if how == 1:  # half an option
            c.send(OPT[:5])
            return c
        if how == 2:
            c.starttls()  # and then nothing
            return c
        if how == 3:
            c.starttls()
            self.tls_half(c)
            return c
        assert c.ask(STARTTLS) == ACK
        if how == 4:
            c.send(hello()[:77])
        elif how == 5:
            c.send(hello())  # and reads nothing
        return c

    def tls_half(self, c):
        """Half of a record."""
        c.tls.write(OPT + struct.pack(">II", LIST, 0))
        record = c.out.read()
        c.s.sendall(record[:len(record) // 2])

    def test_200(self):
        before = self.idle()
        clients = [self.stall(i % 7) for i in range(200)]
        dribble = self.client()
        self.assertEqual(dribble.ask(STARTTLS), ACK)
        data = hello()
        with self.assertRaises(OSError):  # a byte now and then does not prolong it
            for i in range(len(data)):
                dribble.s.sendall(data[i:i + 1])
                dribble.s.settimeout(0.2)
                try:
                    if dribble.s.recv(1) == b"":
                        raise ConnectionResetError
                except TimeoutError:
                    pass
        for c in clients:
            Raw.closed(c)
        self.idle(before)

    def test_never_reads(self):
        """Answers that nobody takes end with the deadline, too."""
        for i in range(100):
            self.d.export(self.v, id="e%03d" % i + "x" * 50, clients=["any"])
        before = self.idle()
        plain, tls = self.client(receive=4096), self.client(receive=4096)
        tls.starttls()
        listing = OPT + struct.pack(">II", LIST, 0)
        for c in plain, tls:
            for _ in range(8):
                c.send(listing * 100)
        self.idle(before)


if __name__ == "__main__":
    main()
