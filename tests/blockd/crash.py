#!/usr/bin/python3
"""blockd killed at awkward moments; guests that reconnect; a disk that is full."""
import glob
import os
import random
import shutil
import subprocess
import uuid

import nbd
from rig import Blockd, Case, main

MB = 1 << 20


def connect(socket):
    h = nbd.NBD()
    h.connect_unix(socket)
    return h


class QemuIo:
    """A qemu-io that waits for its server to come back, given one command at a time (it does not
    look for a second one that came with the first)."""

    def __init__(self, socket):
        self.p = subprocess.Popen(
            ["stdbuf", "-oL", "qemu-io", "--image-opts",
             "driver=nbd,server.type=unix,server.path=%s,reconnect-delay=60" % socket],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def send(self, command):
        self.p.stdin.write(command + "\n")
        self.p.stdin.flush()

    def until(self, words):
        text = ""
        while words not in text:
            line = self.p.stdout.readline()
            if not line:
                raise AssertionError("qemu-io ended: " + text)
            if "error" in line.lower() or "failed" in line.lower():
                raise AssertionError(text + line)
            text += line
        return text

    def close(self):
        self.p.stdin.close()
        self.p.stdout.close()
        return self.p.wait()


class Crash(Case):
    def test_guests_reconnect(self):
        """I/O waits while blockd is gone, then goes on; unflushed bytes are there."""
        base = self.d.create(32 * MB)
        socket = self.d.export(self.d.clone(base, 32 * MB))
        q = QemuIo(socket)
        q.send("write -P 1 0 64k")
        q.until("wrote 65536")
        q.send("write -P 2 100000 5000")
        q.until("wrote 5000")
        for i in range(3):
            self.d.kill()
            q.send("write -P %d 1M 64k" % (i + 3))
            self.d.start()
            q.until("wrote 65536")
            q.send("read -P 1 0 64k")
            q.until("read 65536")
            q.send("read -P 2 100000 5000")
            q.until("read 5000")
            q.send("read -P %d 1M 64k" % (i + 3))
            q.until("read 65536")
        q.send("flush")
        self.assertEqual(q.close(), 0)

    def test_unflushed_writes_survive(self):
        rnd = random.Random(3)
        for parent in (False, True):
            v = self.d.create(8 * MB)
            if parent:
                v = self.d.clone(v, 8 * MB)
            socket = self.d.export(v)
            model = bytearray(8 * MB)
            for _ in range(6):
                h = connect(socket)
                for _ in range(50):
                    n = rnd.choice((512, 4096, 7777, 100000))
                    off = rnd.randrange(8 * MB - n)
                    data = rnd.randbytes(n)
                    h.pwrite(data, off)
                    model[off:off + n] = data
                self.d.kill()
                self.d.start()
                h = connect(socket)
                self.assertEqual(h.pread(8 * MB, 0), model)
                h.shutdown()

    def test_a_clean_stop_flushes_what_nobody_opened(self):
        """Killed with unflushed writes, started and stopped: no live map is needed any more."""
        d = self.d
        base = d.create(8 * MB)
        volumes = [d.clone(base, 8 * MB) for _ in range(3)]
        clients = [connect(d.export(v)) for v in volumes]
        for h in clients:
            h.pwrite(b"kept" * 1024, 5 * MB)
        d.kill()
        maps = os.path.join(d.run, "map")
        self.assertEqual(len(os.listdir(maps)), 3)
        d.start()
        d.stop()
        self.assertFalse(os.path.exists(maps))
        self.assertFalse(os.path.exists(os.path.join(d.state, "claim")))
        shutil.rmtree(d.run)  # as a reboot does
        d.start()
        for v in volumes:
            h = connect(d.export(v))
            self.assertEqual(h.pread(4096, 5 * MB), b"kept" * 1024)
            h.shutdown()

    def test_killed_in_the_middle_of_a_call(self):
        d = self.d
        base = d.create(MB)
        for op in ("create", "clone"):
            v = str(uuid.uuid4())
            args = {"id": v, "size": MB}
            if op == "clone":
                args["parent"] = base
            d.stop()
            d.start(fault="volume.create=kill")
            self.assertEqual(d.raw_call(('{"op":"%s",%s}\n' % (op, ",".join(
                '"%s":%s' % (k, v if isinstance(v, int) else '"%s"' % v)
                for k, v in args.items()))).encode()), b"")
            d.process.wait()
            d.start()
            self.assertFalse(os.path.exists(os.path.join(d.state, "pool", v)))
            d.ok(op, **args)
            d.ok("remove", id=v)
        self.assertEqual(len(os.listdir(os.path.join(d.state, "pool"))), 1)

    def test_failing_disk(self):
        """A failed sync is an error for good, and other volumes go on."""
        d = self.d
        base = d.create(MB)
        bad, good = d.export(d.clone(base, MB)), d.export(d.clone(base, MB))
        d.stop()
        d.start(fault="volume.sync=EIO:1")
        h, g = connect(bad), connect(good)
        h.pwrite(b"x" * 512, 0)
        for what in (h.flush, h.flush, lambda: h.pwrite(b"y" * 512, 0)):
            with self.assertRaises(nbd.Error) as c:
                what()
            self.assertEqual(c.exception.errno, "EIO")
        self.assertEqual(h.pread(3, 0), b"xxx")
        g.pwrite(b"z" * 512, 0)
        g.flush()

    def test_garbage_is_collected(self):
        d = self.d
        v = d.create(MB)
        d.stop()
        pool = os.path.join(d.state, "pool")
        half = os.path.join(pool, str(uuid.uuid4()))
        os.mkdir(half)
        open(os.path.join(half, "data.0"), "w").close()
        for name in ("meta.new", "data.7", "map.0.new"):
            open(os.path.join(pool, v, name), "w").close()
        d.start()
        self.assertEqual(os.listdir(pool), [v])
        self.assertEqual(sorted(os.listdir(os.path.join(pool, v))),
                         ["data.0", "meta", "meta.bak"])

    def test_a_bad_volume_does_not_stop_the_others(self):
        d = self.d
        bad, good = d.create(MB), d.create(MB)
        d.stop()
        meta = os.path.join(d.state, "pool", bad, "meta")
        for path in meta, meta + ".bak":
            with open(path, "w") as f:
                f.write("garbage")
        d.start()
        self.assertEqual([v["id"] for v in d.ok("list")["volumes"]], [good])
        self.assertIn(bad, d.log())
        self.assertEqual(d.call("create", id=bad, size=MB)["ok"], False)
        self.assertTrue(os.path.exists(os.path.join(d.state, "pool", bad, "data.0")))

    def test_a_newer_format_is_refused(self):
        d = self.d
        v = d.create(MB)
        d.stop()
        meta = os.path.join(d.state, "pool", v, "meta")
        with open(meta) as f:
            text = f.read()
        with open(meta, "w") as f:
            f.write(text.replace('"format":1', '"format":4').split(',"crc32c"')[0] + "}")
        with self.assertRaises(AssertionError) as c:
            d.start()
        self.assertIn("format 4", str(c.exception))
        with open(meta, "w") as f:
            f.write(text)
        d.start()


class Full(Case):
    def setUp(self):
        super().setUp()
        self.d.stop()
        os.makedirs(self.path("small"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.path("small")],
                       check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.path("small")], check=True)
        self.d.state = self.path("small")
        self.d.start()
        self.addCleanup(self.d.stop)

    def fill(self, h):
        """Writes until there is no room; how far it came."""
        for off in range(0, 64 * MB, 65536):
            try:
                h.pwrite(b"f" * 65536, off)
            except nbd.Error as e:
                self.assertEqual(e.errno, "ENOSPC")
                return off
        self.fail("8 MiB held 64")

    def test_full_disk(self):
        base = self.d.create(64 * MB)
        for v in (self.d.clone(base, 64 * MB), base):
            h = connect(self.d.export(v))
            end = self.fill(h)
            self.assertEqual(h.pread(65536, end - 65536), b"f" * 65536)
            self.assertFalse(h.pread(65536, 60 * MB).strip(b"\0"))
            h.trim(4 * MB, 0)
            h.pwrite(b"again" * 1000, 0)
            h.flush()
            self.assertEqual(h.pread(5000, 0), b"again" * 1000)
            self.assertEqual(h.pread(65536, end - 65536), b"f" * 65536)
            h.trim(64 * MB, 0)
            h.flush()
            h.shutdown()

    def test_no_room_for_a_volume(self):
        base = self.d.create(64 * MB)
        h = connect(self.d.export(base))
        self.fill(h)
        subprocess.run(["dd", "if=/dev/zero", "of=" + self.path("small/fill"), "bs=4k"],
                       stderr=subprocess.DEVNULL, check=False)
        v = str(uuid.uuid4())
        a = self.d.call("create", id=v, size=MB)
        if not a["ok"]:
            self.assertEqual(a["errno"], 28)
            self.assertEqual(glob.glob(self.path("small/pool/" + v)), [])
        os.unlink(self.path("small/fill"))
        h.trim(MB, 0)
        self.d.ok("create", id=v, size=MB)


main()
