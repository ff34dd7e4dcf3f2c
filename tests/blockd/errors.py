#!/usr/bin/python3
"""What a client sees when the back end fails: each errno as NBD's code for it, for each command; and
a disk that is full, against a model."""
import errno
import os
import random
import subprocess

import nbd
from rig import Case, main

MB = 1 << 20

# proto.md, "Error values": all that exist there but EOVERFLOW and ESHUTDOWN, which mean other things
# than an errno of the disk's.
CODES = {"EPERM": "EPERM", "EROFS": "EPERM", "EIO": "EIO", "ENOMEM": "ENOMEM", "EINVAL": "EINVAL",
         "ENOSPC": "ENOSPC", "EDQUOT": "ENOSPC", "EFBIG": "ENOSPC", "ENOTSUP": "ENOTSUP",
         "EOPNOTSUPP": "ENOTSUP"}
# Of Linux's others, what a file system, a block device or a network storage comes up with.
OTHERS = ("EACCES", "EAGAIN", "EBADF", "EBUSY", "ECONNRESET", "EFAULT", "EINTR", "EMFILE", "ENODATA",
          "ENODEV", "ENOENT", "ENOLINK", "ENOMEDIUM", "ENXIO", "EOVERFLOW", "EPIPE", "EPROTO",
          "ESHUTDOWN", "ESTALE", "ETIMEDOUT", "EUCLEAN", "EREMOTEIO", "EILSEQ")

COMMANDS = {
    "volume.read": ("pread", lambda h: h.pread(512, 0)),
    "volume.write": ("pwrite", lambda h: h.pwrite(b"x" * 512, 0)),
    "volume.write ": ("pwrite fua", lambda h: h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)),
    "volume.write  ": ("trim", lambda h: h.trim(4096, 0)),
    "volume.write   ": ("zero", lambda h: h.zero(4096, 0)),
    "volume.flush": ("flush", lambda h: h.flush()),
    "volume.cache": ("cache", lambda h: h.cache(4096, 0)),
    "volume.extents": ("block_status", lambda h: h.block_status(4096, 0, lambda *a: 0)),
}


def connect(socket, structured=True):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if structured:
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_unix(socket)
    return h


class Errno(Case):
    def setUp(self):
        super().setUp()
        self.d.stop()
        self.d.start(fault="")

    def seen(self, point, name, run, h):
        """The code that the client gets, by its name."""
        self.d.ok("fault", points="%s=%s" % (point.strip(), name))
        with self.assertRaises(nbd.Error) as c:
            run(h)
        return errno.errorcode[c.exception.errnum].replace("EOPNOTSUPP", "ENOTSUP")

    def test_every_errno_of_every_command(self):
        want = dict({name: "EIO" for name in OTHERS}, **CODES)
        v = self.d.create(MB)
        socket = self.d.export(v)
        for structured in (True, False):
            h = connect(socket, structured)
            h.pwrite(b"kept" * 1024, 0)
            for point, (what, run) in COMMANDS.items():
                if what == "block_status" and not structured:
                    continue
                for name, code in want.items():
                    self.assertEqual(self.seen(point, name, run, h), code, (what, name))
                self.d.ok("fault", points="")
            # The connection and the bytes have come to no harm.
            self.assertEqual(h.pread(4096, 0), b"kept" * 1024)
            for _, run in COMMANDS.values():
                if structured or run is not COMMANDS["volume.extents"][1]:
                    run(h)
            h.shutdown()

    def test_points_that_are_not_understood(self):
        self.d.ok("fault", points="volume.read=EIO")
        self.assertEqual(self.d.err("fault", points="volume.read=ENOTHING"), errno.EINVAL)
        self.assertEqual(self.d.err("fault"), errno.EINVAL)
        h = connect(self.d.export(self.d.create(MB)))
        with self.assertRaises(nbd.Error):  # the old ones still hold
            h.pread(1, 0)
        self.d.stop()
        self.d.start()
        self.assertEqual(self.d.err("fault", points=""), errno.EPERM)

    def test_a_failed_piece_of_a_long_write(self):
        """32 MiB come in many pieces: one error, and the connection goes on."""
        h = connect(self.d.export(self.d.create(64 * MB)))
        self.d.ok("fault", points="volume.write=ENOSPC:2")
        try:
            h.pwrite(b"l" * (32 * MB), 0)
        except nbd.Error as e:
            self.assertEqual(e.errno, "ENOSPC")
        else:  # it was one piece: this is the second
            with self.assertRaises(nbd.Error) as c:
                h.pwrite(b"l" * (32 * MB), 0)
            self.assertEqual(c.exception.errno, "ENOSPC")
        h.pwrite(b"m" * (32 * MB), 0)
        self.assertEqual(h.pread(32 * MB, 0), b"m" * (32 * MB))

    def test_export_that_is_not_listened_to(self):
        """An error, and not a success the next time either, until somebody accepts."""
        v = self.d.create(MB)
        args = dict(id="x", volume=v, uid=os.getuid(), gid=os.getgid(), readonly=False)
        self.d.ok("fault", points="export.watch=ENOSPC")
        for _ in range(2):
            self.assertEqual(self.d.err("export", **args), errno.ENOSPC)
        self.d.ok("fault", points="")
        for _ in range(2):
            self.assertEqual(connect(self.d.ok("export", **args)["socket"]).get_size(), MB)

    def test_delay(self):
        """A slow disk is only slow: requests on their way are answered, in whatever order."""
        h = connect(self.d.export(self.d.create(MB)))
        self.d.ok("fault", points="volume.read=delay:50:1")
        buf = nbd.Buffer(512)
        cookies = [h.aio_pread(buf, 0) for _ in range(8)]
        while h.aio_in_flight():
            h.poll(-1)
        for c in cookies:
            self.assertTrue(h.aio_command_completed(c))
        self.assertIn("fault point 'volume.read'", self.d.log())


class Full(Case):
    """A disk with less room than its volumes."""

    def setUp(self):
        super().setUp()
        self.d.stop()
        os.makedirs(self.path("small"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", self.path("small")],
                       check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.path("small")], check=True)
        self.d.state = self.path("small")
        self.d.start()
        self.addCleanup(self.d.stop)
        self.rnd = random.Random(12)

    def ballast(self, size):
        """A file that takes room, or gives it back."""
        with open(self.path("small/ballast"), "ab") as f:
            os.truncate(f.fileno(), 0)
            if size:
                os.posix_fallocate(f.fileno(), 0, size)

    def settle(self, h, model, off, data):
        """A write that failed may have done a part of it: each byte is old or new."""
        got = h.pread(len(data), off)
        for i, b in enumerate(got):
            self.assertIn(b, (model[off + i], data[i]))
        model[off:off + len(data)] = got

    def scribble(self, h, model, ops):
        """Random operations; how many found no room.  Nothing else may fail."""
        full = 0
        for _ in range(ops):
            n = self.rnd.choice((512, 4096, 7777, 65536))
            off = self.rnd.randrange(len(model) - n)
            data = self.rnd.randbytes(n) if self.rnd.random() < 0.9 else bytes(n)
            try:
                if any(data):
                    h.pwrite(data, off)
                else:
                    h.zero(n, off)
                model[off:off + n] = data
            except nbd.Error as e:
                self.assertEqual(e.errno, "ENOSPC")
                self.settle(h, model, off, data)
                full += 1
            if self.rnd.random() < 0.05:
                try:
                    h.flush()
                except nbd.Error as e:
                    self.assertEqual(e.errno, "ENOSPC")
                    full += 1
        return full

    def check(self, h, model):
        self.assertTrue(h.pread(len(model), 0) == model)

    def test_full_and_room_again(self):
        """Writes find no room, with a snapshot below and without; what was acknowledged stays, also
        over a restart; with room again all goes on."""
        d, size = self.d, 8 * MB
        for layered in (False, True):
            v, model, then = d.create(size), bytearray(size), None
            h = connect(d.export(v, id="x"))
            self.scribble(h, model, 40)
            if layered:
                snapshot = d.snapshot(v)
                then = bytes(model)
            # As good as no room: 256 KiB.
            free = os.statvfs(self.path("small"))
            self.ballast(free.f_bavail * free.f_frsize - 256 * 1024)
            self.assertGreater(self.scribble(h, model, 200), 0)
            self.check(h, model)
            self.ballast(0)
            h.flush()  # nothing was lost: no error stays
            self.check(h, model)
            self.assertFalse(d.ok("stat", id=v)["failed"])
            h.pwrite(b"room" * 16384, MB)
            model[MB:MB + 65536] = b"room" * 16384
            d.kill()
            d.start()
            h = connect(d.export(v, id="x"))
            self.check(h, model)
            if layered:
                s = connect(d.export(snapshot, id="s"))
                self.check(s, then)
                s.shutdown()
                d.ok("unexport", id="s")
            h.shutdown()
            d.ok("unexport", id="x")
            d.ok("remove", id=v)
            if layered:
                d.ok("remove", id=snapshot)

    def test_no_room_for_a_snapshot(self):
        """It fails as a whole, and may be tried again."""
        d, size = self.d, 4 * MB
        v, model = d.create(size), bytearray(size)
        h = connect(d.export(v))
        self.scribble(h, model, 30)
        free = os.statvfs(self.path("small"))
        self.ballast(free.f_bavail * free.f_frsize)
        s = "00000000-0000-4000-8000-000000000001"
        self.assertEqual(d.err("snapshot", id=s, volume=v), errno.ENOSPC)
        self.assertEqual(d.err("stat", id=s), errno.ENOENT)
        self.check(h, model)
        self.ballast(0)
        d.ok("snapshot", id=s, volume=v)
        then = bytes(model)
        self.assertEqual(self.scribble(h, model, 20), 0)
        self.check(connect(d.export(s)), then)
        self.check(h, model)


main()
