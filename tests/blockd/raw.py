"""An NBD client that says what it is told to, true or not, in all three forms of replies.

Numbers and layouts: the NBD project's proto.md.
"""
import socket
import struct

MB = 1 << 20
OPT, REP = b"IHAVEOPT", 0x3E889045565A9
REQ, EXTENDED_REQ = 0x25609513, 0x21E41C71
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C
ACK, SERVER, INFO, META = 1, 2, 3, 4
UNSUP, INVALID, UNKNOWN, TOO_BIG, EXT_HEADER_REQD = (0x80000000 + n for n in (1, 3, 6, 9, 10))
EPERM, EIO, EINVAL, ENOSPC, ENOTSUP = 1, 5, 22, 28, 95
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST, PAYLOAD = (1 << n for n in range(6))
DATA_CHUNK, HOLE_CHUNK, STATUS_CHUNK, STATUS_EXT_CHUNK, ERROR_CHUNK = 1, 2, 5, 6, 0x8001


def text(s):
    """A string as options carry it."""
    return struct.pack(">I", len(s)) + s


def contexts(name, *queries):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return text(name) + struct.pack(">I", len(queries)) + b"".join(text(q) for q in queries)


class Answer:
    """A whole reply: error; of a read its bytes; of BLOCK_STATUS its extents, by context id."""

    def __init__(self):
        self.error = 0
        self.data = None
        self.kinds = []
        self.extents = {}


class Raw:
    def __init__(self, path, flags=3):
        self.extended = False
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(60)
        try:
            self.s.connect(path)
            assert self.get(18) == b"NBDMAGICIHAVEOPT\0\3"
        except (OSError, EOFError):
            self.s.close()
            raise
        self.send(struct.pack(">I", flags))

    def send(self, data):
        try:
            self.s.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the door closed while we were talking; closed() will tell

    def get(self, n):
        data = bytearray(n)
        view = memoryview(data)
        while n > 0:
            k = self.s.recv_into(view)
            if k == 0:
                raise EOFError
            view = view[k:]
            n -= k
        return bytes(data)

    def closed(self):
        """Everything up to the end of the connection, which must come."""
        data = b""
        try:
            while True:
                piece = self.s.recv(65536)
                if not piece:
                    return data
                data += piece
        except ConnectionResetError:
            return data

    # ---- the handshake ----

    def option(self, number, data=b"", length=None):
        self.send(OPT + struct.pack(">II", number, len(data) if length is None else length) + data)

    def reply(self):
        magic, option, kind, n = struct.unpack(">QIII", self.get(20))
        assert magic == REP
        return option, kind, self.get(n)

    def ask(self, number, data=b"", length=None):
        """All replies to the option up to its ACK or error."""
        self.option(number, data, length)
        out = []
        while not out or (out[-1][0] != ACK and out[-1][0] < 0x80000000):
            option, kind, payload = self.reply()
            assert option == number
            out.append((kind, payload))
        if number == 11 and out[-1][0] == ACK:
            self.extended = True
        return out

    def go(self, name=b""):
        return self.ask(7, text(name) + b"\0\0")

    # ---- transmission ----

    def pack(self, kind, off=0, n=0, flags=0, payload=b"", cookie=7):
        form, magic = (">IHHQQQ", EXTENDED_REQ) if self.extended else (">IHHQQI", REQ)
        return struct.pack(form, magic, flags, kind, cookie, off, n) + payload

    def request(self, kind, off=0, n=0, flags=0, payload=b"", cookie=7):
        self.send(self.pack(kind, off, n, flags, payload, cookie))

    def simple(self):
        magic, error, cookie = struct.unpack(">IIQ", self.get(16))
        assert magic == SIMPLE, hex(magic)
        return error, cookie

    def chunk(self):
        """flags, type, cookie, payload; with extended headers the request's offset follows."""
        if self.extended:
            magic, flags, kind, cookie, off, n = struct.unpack(">IHHQQQ", self.get(32))
            assert magic == EXTENDED, hex(magic)
            assert n <= 33 * MB, n
            return flags, kind, cookie, self.get(n), off
        magic, flags, kind, cookie, n = struct.unpack(">IHHQI", self.get(20))
        assert magic == STRUCTURED, hex(magic)
        return flags, kind, cookie, self.get(n)

    def answer(self, kind, off, n, cookie=7):
        """The whole reply to that request, in whatever form proto.md allows for it."""
        a = Answer()
        magic = struct.unpack(">I", self.s.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL))[0]
        if magic == SIMPLE:
            assert not self.extended, "a simple reply among extended ones"
            a.error, got = self.simple()
            assert got == cookie, (got, cookie)
            if kind == READ and a.error == 0:
                a.data = self.get(n)
            return a
        if kind == READ:
            a.data = bytearray(min(n, 32 * MB))
        seen, last = 0, False
        while not last:
            flags, what, got, data, *at = self.chunk()
            assert got == cookie and flags & ~1 == 0, (got, flags)
            assert at in ([], [off]), (at, off)
            last = flags & 1
            a.kinds.append(what)
            seen += self.take(a, kind, what, data, off, n)
        if kind == READ and a.error == 0:
            assert seen == n, (seen, n)
        return a

    def take(self, a, kind, what, data, off, n):
        """One chunk of an answer; how many bytes of a read it told."""
        if what == 0:
            assert data == b""
        elif what == ERROR_CHUNK:
            a.error, k = struct.unpack(">IH", data[:6])
            assert a.error and len(data) == 6 + k
        elif kind == READ and what in (DATA_CHUNK, HOLE_CHUNK):
            at, = struct.unpack(">Q", data[:8])
            piece = data[8:] if what == DATA_CHUNK else bytes(struct.unpack(">I", data[8:])[0])
            assert piece and off <= at and at + len(piece) <= off + n, (at, len(piece))
            a.data[at - off:at - off + len(piece)] = piece
            return len(piece)
        elif kind == STATUS and what == STATUS_CHUNK and not self.extended:
            words = struct.unpack(">%dI" % (len(data) // 4), data)
            a.extents[words[0]] = list(zip(words[1::2], words[2::2]))
        elif kind == STATUS and what == STATUS_EXT_CHUNK and self.extended:
            context, count = struct.unpack(">II", data[:8])
            words = struct.unpack(">%dQ" % (2 * count), data[8:])
            a.extents[context] = list(zip(words[::2], words[1::2]))
        else:
            raise AssertionError("chunk %#x in reply to %d" % (what, kind))
        return 0

    def do(self, kind, off=0, n=0, flags=0, payload=b"", cookie=7):
        self.request(kind, off, n, flags, payload, cookie)
        return self.answer(kind, off, n, cookie)


def connect(path, form=STRUCTURED, context=True, name=b""):
    """In transmission, in that form, with base:allocation selected if the form has it."""
    r = Raw(path)
    if form != SIMPLE:
        assert r.ask(11 if form == EXTENDED else 8) == [(ACK, b"")]
        if context:
            got = r.ask(10, contexts(name, b"base:allocation"))
            assert got == [(META, struct.pack(">I", 1) + b"base:allocation"), (ACK, b"")], got
    assert r.go(name)[-1][0] == ACK
    return r
