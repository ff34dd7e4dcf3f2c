#!/usr/bin/python3
"""Encrypted volumes through blockd: keys over restarts, what is on disk, what cryptsetup reads."""
import errno
import os
import random
import re
import signal
import subprocess
import uuid

import nbd
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from rig import Case, Client, load, main

MB = 1 << 20
SECTOR = 4096
ENOKEY, EKEYREJECTED = 126, 129
PASSPHRASE = "c0ffee" * 10


def connect(path, volume=""):
    h = nbd.NBD()
    h.set_export_name(volume)
    h.connect_unix(path)
    return h


def keyctl(*args):
    return subprocess.run(("keyctl",) + args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True)


class Crypt(Case):
    def setUp(self):
        super().setUp()
        self.families = []
        self.addCleanup(lambda: [self.forget(f) for f in self.families])

    def create(self, size=4 * MB):
        v = str(uuid.uuid4())
        self.families.append(v)
        self.d.ok("create", id=v, size=size, passphrase=PASSPHRASE)
        return v

    def forget(self, family):
        """What a boot does to the keyring."""
        key = keyctl("search", "@u", "user", "stratofs:" + family)
        if key.returncode == 0:
            keyctl("unlink", key.stdout.strip(), "@u")
        return key.returncode == 0

    def header(self, family):
        return os.path.join(self.d.state, "crypt", family, "header")

    def raw(self, volume):
        with open(os.path.join(self.d.state, "pool", volume, "data.0"), "rb") as f:
            return f.read()

    def cryptsetup(self, *args, rc=0, secret=PASSPHRASE):
        p = subprocess.run(("cryptsetup",) + args, input=secret, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=120)
        self.assertEqual(p.returncode, rc, p.stdout)
        return p.stdout

    def volume_key(self, family):
        path = self.path("volume-key")
        self.cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", path, "--key-file", "-",
                        "--batch-mode", self.header(family))
        with open(path, "rb") as f:
            return f.read()

    def test_format(self):
        """cryptsetup knows the header and opens it; with the key that it takes out of it, another
        implementation of AES-XTS finds the bytes."""
        v = self.create()
        data = random.Random(1).randbytes(4 * MB)
        h = connect(self.d.shared, v)
        h.pwrite(data, 0)
        h.pwrite(b"odd", 12345)
        h.zero(2 * SECTOR, 10 * SECTOR)
        h.flush()
        want = bytearray(data)
        want[12345:12348] = b"odd"
        want[10 * SECTOR:12 * SECTOR] = bytes(2 * SECTOR)
        self.assertEqual(h.pread(4 * MB, 0), want)
        dump = self.cryptsetup("luksDump", self.header(v))
        for words in ("Version:       \t2", "cipher: aes-xts-plain64", "sector: 4096 [bytes]",
                      "offset: 0 [bytes]"):
            self.assertIn(words, dump)
        self.cryptsetup("luksOpen", "--test-passphrase", "--key-file", "-", "--header",
                        self.header(v), os.path.join(self.d.state, "pool", v, "data.0"))
        self.cryptsetup("luksOpen", "--test-passphrase", "--key-file", "-", self.header(v), rc=2,
                        secret="wrong")
        key, raw = self.volume_key(v), self.raw(v)
        self.assertEqual(len(key), 64)
        for n in range(0, len(raw), SECTOR):
            sector = raw[n:n + SECTOR]
            if n in (10 * SECTOR, 11 * SECTOR):
                self.assertEqual(sector, bytes(SECTOR))
                continue
            tweak = (n // 512).to_bytes(16, "little")
            d = Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor()
            self.assertEqual(d.update(sector) + d.finalize(), want[n:n + SECTOR], n)

    def test_restart(self):
        """The key outlives blockd, killed or not; what was written is there; exports go on."""
        d, v = self.d, self.create()
        socket = d.export(v)
        c = Client(socket, 4 * MB, 3)
        for how in (d.kill, d.stop, d.kill):
            for i in range(20):
                c.step()
            how()
            d.start()
        c.check()
        self.assertGreater(c.reconnects, 0)

    def test_replaced(self):
        d = self.d
        clients = [Client(d.export(self.create()), 4 * MB, i) for i in range(2)]
        with load(clients) as step:
            step()
            self.tool(d.words("0")[0], "--replace", "--run", d.run)
            step()
        for c in clients:
            self.assertEqual(c.reconnects, 0)
            c.check()
        # The successor is nobody's child; it ends at the latest when its control socket is closed.
        os.kill(d.ok("ping")["pid"], signal.SIGTERM)
        d.process.wait()
        self.until_down()

    def until_down(self):
        while True:
            try:
                self.d.ok("ping")
            except (OSError, ValueError):
                return

    def test_locked(self):
        """After a boot: refused, in words, until the key is given; no other key will do."""
        d, v = self.d, self.create()
        clone = d.clone(v, 8 * MB)
        socket = d.export(clone)
        connect(socket).pwrite(b"secret", 100)
        self.assertEqual(d.ok("locked")["volumes"], [])
        d.stop()
        if not self.forget(v):
            self.skipTest("no keyring")
        d.start()
        self.assertEqual([x["family"] for x in d.ok("locked")["volumes"]], [v])
        self.assertTrue(d.ok("stat", id=clone)["locked"])
        words = "its key (family '%s') has not been given" % v
        # libnbd keeps the server's words to itself, QEMU shows them.
        uri = "nbd+unix:///?socket=" + socket
        self.assertIn("policy", self.tool("nbdinfo", "--size", uri, rc=1))
        self.assertIn(words, self.tool("qemu-img", "info", uri, rc=1))
        self.assertRegex(d.log(), "a client is refused: .*" + re.escape(words))
        self.assertEqual(d.err("key", id=clone, passphrase="wrong"), EKEYREJECTED)
        self.assertIn("not its key", d.call("key", id=clone, passphrase="wrong")["error"])
        with self.assertRaises(nbd.Error):
            connect(socket)
        d.ok("key", id=clone, passphrase=PASSPHRASE)
        self.assertEqual(connect(socket).pread(6, 100), b"secret")
        self.assertFalse(d.ok("stat", id=v)["locked"])
        self.assertNotIn(PASSPHRASE, d.log())

    def test_no_keyring(self):
        """Then the key is in memory only, and blockd says so."""
        d = self.d
        d.stop()
        d.start(fault="volume.keyring=ENOSYS")
        v = self.create()
        connect(d.shared, v).pwrite(b"secret", 100)
        self.create()
        self.assertEqual(d.log().count("no keyring"), 1)
        self.assertFalse(d.ok("stat", id=v)["locked"])
        d.kill()
        d.start()
        self.assertTrue(d.ok("stat", id=v)["locked"])
        with self.assertRaises(nbd.Error):
            connect(d.shared, v)
        d.ok("key", id=v, passphrase=PASSPHRASE)
        self.assertEqual(connect(d.shared, v).pread(6, 100), b"secret")

    def test_family(self):
        """Clones and snapshots read the same bytes, change apart, and share the key until the last
        of them is gone."""
        d, v = self.d, self.create()
        w = connect(d.shared, v)
        w.pwrite(b"a" * MB, 0)
        s = d.snapshot(v)
        w.pwrite(b"b" * 5000, 1000)
        w.shutdown()
        clone = d.clone(s, 4 * MB)
        self.assertEqual(d.ok("stat", id=clone)["family"], v)
        with self.assertRaises(nbd.Error):
            connect(d.shared, s).pwrite(b"x", 0)
        h = connect(d.shared, clone)
        self.assertEqual(h.pread(MB, 0), b"a" * MB)
        h.pwrite(b"c" * 100, 0)
        h.flush()
        self.assertEqual(connect(d.shared, s).pread(MB, 0), b"a" * MB)
        h.shutdown()
        for gone in (v, s):
            # Connections that were just closed may be a moment in ending.
            while d.call("remove", id=gone).get("errno") == errno.EBUSY:
                pass
            self.assertTrue(os.path.exists(self.header(v)))
        d.kill()
        d.start()
        h = connect(d.shared, clone)
        self.assertEqual(h.pread(200, 0), b"c" * 100 + b"a" * 100)
        h.shutdown()
        # A copy that somebody has of the header's file is noise afterwards, too.
        os.link(self.header(v), self.path("stolen"))
        self.cryptsetup("luksDump", self.path("stolen"))
        while d.call("remove", id=clone).get("errno") == errno.EBUSY:
            pass
        self.assertFalse(os.path.exists(os.path.dirname(self.header(v))))
        self.cryptsetup("luksDump", self.path("stolen"), rc=1)
        self.assertFalse(self.forget(v))

    def test_changes(self):
        d, v = self.d, self.create()
        w = connect(d.shared, v)
        w.pwrite(b"a" * MB, 0)
        s = d.snapshot(v)
        w.pwrite(b"b", 5 * SECTOR + 7)
        h = nbd.NBD()
        h.add_meta_context("stratofs:dirty/" + s)
        h.set_export_name(v)
        h.connect_unix(d.shared)
        got = []
        h.block_status(4 * MB, 0, lambda c, off, entries, err: got.extend(entries) or 0)
        self.assertEqual(got, [5 * SECTOR, 0, SECTOR, 1, 4 * MB - 6 * SECTOR, 0])

    def test_copy(self):
        """A plain image's bytes, piece by piece; its holes stay holes."""
        d, image = self.d, str(uuid.uuid4())
        path = self.path("image")
        size = 130 * MB + 512
        with open(path, "wb") as f:
            f.write(b"plain text begin" * 1000)
            f.seek(70 * MB)
            f.write(b"plain text later" * 1000)
            f.truncate(size)
        d.ok("import", id=image, path=path)
        v, at, calls = self.create(130 * MB + SECTOR), 0, 0
        while at < size:
            at = d.ok("copy", id=v, **{"from": image}, offset=at)["next"]
            calls += 1
        self.assertEqual((at, calls), (size, 3))
        self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", d.uri(v), path)
        self.assertLess(d.ok("stat", id=v)["used"], MB)
        self.assertNotIn(b"plain text", self.raw(v))
        self.assertEqual(d.err("copy", id=v, **{"from": image}, offset=size + 1), errno.EINVAL)
        small = self.create()
        self.assertEqual(d.err("copy", id=small, **{"from": image}, offset=0), errno.EINVAL)

    def test_killed_while_making(self):
        """kill -9 at each point of making: afterwards it is not there, or it is and encrypted; the
        repeated call makes it."""
        for point in ("volume.mark", "volume.create"):
            d, v = self.d, str(uuid.uuid4())
            self.families.append(v)
            d.stop()
            d.start(fault=point + "=kill")
            with self.assertRaises(Exception):
                d.ok("create", id=v, size=4 * MB, passphrase=PASSPHRASE)
            d.process.wait()
            d.start()
            self.assertEqual(d.err("stat", id=v), errno.ENOENT)
            self.assertFalse(os.path.exists(self.header(v)))
            d.ok("create", id=v, size=4 * MB, passphrase=PASSPHRASE)
            connect(d.shared, v).pwrite(b"plain text" * 1000, 0)
            parent, v = v, str(uuid.uuid4())
            d.stop()
            d.start(fault=point + "=kill")
            with self.assertRaises(Exception):
                d.ok("snapshot", id=v, volume=parent)
            d.process.wait()
            d.start()
            d.ok("snapshot", id=v, volume=parent)
            self.assertEqual(connect(d.shared, v).pread(10, 10), b"plain text")
            self.assertNotIn(b"plain text", self.raw(parent))

    def opens(self, header, passphrase):
        return subprocess.run(("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", "-", header),
                              input=passphrase, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True).returncode == 0

    def test_rekey(self):
        """Another passphrase opens the header and the old one does not; the bytes and who reads them
        notice nothing; only the last member of a family can."""
        d, v = self.d, self.create()
        n = connect(d.shared, v)
        n.pwrite(b"plain text" * 1000, 0)
        clone = str(uuid.uuid4())
        d.ok("clone", id=clone, parent=v, size=4 * MB)
        self.assertEqual(d.err("rekey", id=v, passphrase=PASSPHRASE, next="other"), errno.EBUSY)
        d.ok("remove", id=clone)
        self.assertEqual(d.err("rekey", id=v, passphrase="wrong", next="other"), errno.EKEYREJECTED)
        self.assertEqual(d.err("rekey", id=v, passphrase=PASSPHRASE, next=""), errno.EINVAL)
        self.assertTrue(self.opens(self.header(v), PASSPHRASE))
        for _ in range(2):  # may be repeated
            d.ok("rekey", id=v, passphrase=PASSPHRASE, next="other")
            self.assertFalse(self.opens(self.header(v), PASSPHRASE))
            self.assertTrue(self.opens(self.header(v), "other"))
        self.assertEqual(self.cryptsetup("luksDump", self.header(v)).count(": luks2"), 1)
        self.assertEqual(n.pread(10, 10), b"plain text")
        d.stop()
        self.forget(v)
        d.start()
        self.assertEqual(d.err("key", id=v, passphrase=PASSPHRASE), errno.EKEYREJECTED)
        d.ok("key", id=v, passphrase="other")
        self.assertEqual(connect(d.shared, v).pread(10, 10), b"plain text")
        plain = str(uuid.uuid4())
        d.ok("create", id=plain, size=MB)
        self.assertEqual(d.err("rekey", id=plain, passphrase="a", next="b"), errno.EINVAL)

    def test_killed_while_rekeying(self):
        """Then both open it; the repeated call ends it, in either direction."""
        d, v = self.d, self.create()
        connect(d.shared, v).pwrite(b"plain text" * 1000, 0)
        for passphrase, then in ((PASSPHRASE, "other"), ("other", PASSPHRASE)):
            d.stop()
            d.start(fault="volume.rekey=kill")
            with self.assertRaises(Exception):
                d.ok("rekey", id=v, passphrase=passphrase, next=then)
            d.process.wait()
            self.assertTrue(self.opens(self.header(v), passphrase))
            self.assertTrue(self.opens(self.header(v), then))
            d.start()
            self.assertEqual(connect(d.shared, v).pread(10, 10), b"plain text")
            d.ok("rekey", id=v, passphrase=passphrase, next=then)
            self.assertFalse(self.opens(self.header(v), passphrase))
            self.assertTrue(self.opens(self.header(v), then))

    def test_header_gone(self):
        """Without its header nothing can be read, and blockd says so and serves the others."""
        d, v, other = self.d, self.create(), self.create()
        d.stop()
        os.rename(self.header(v), self.path("header"))
        d.start()
        with self.assertRaises(nbd.Error):
            connect(d.shared, v)
        connect(d.shared, other)
        with open(self.header(v), "wb") as f:
            f.write(b"x" * 100000)
        self.assertEqual(d.err("key", id=v, passphrase=PASSPHRASE), errno.EUCLEAN)
        os.rename(self.path("header"), self.header(v))
        connect(d.shared, v)


if __name__ == "__main__":
    main()
