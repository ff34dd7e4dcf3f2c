"""Two pools behind one blockd, files and Ceph: namespaces, images, clones across them, moves.

CEPH_CONF and CEPH_DIR are a cluster of ours (contrib/ceph-dev).
"""
import errno
import json
import os
import struct
import subprocess
import sys
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "blockd"))
pool = os.environ.pop("CEPH_POOL", "rbd")  # the rig's volumes are in files
import nbd
from rig import MB, Blockd, Case, main


def rbd(*args, space="", text=False):
    out = subprocess.run(["rbd", "--pool", pool, "--namespace", space] +
                         ([] if text else ["--format", "json"]) + list(args), check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT if text else None,
                         timeout=60).stdout
    return out.decode() if text else json.loads(out)


class Pools(Case):
    def setUp(self):
        self.space = uuid.uuid4().hex
        self.ceph = "rbd:%s/%s" % (pool, self.space)
        self.d = Blockd(options=["--pool", "local", "--pool", self.ceph])
        self.addCleanup(self.d.clean)

    def tenant(self, name):
        return self.space + "." + name

    def make(self, size, space="", where=None, passphrase=None, **more):
        v = str(uuid.uuid4())
        self.d.ok("place", id=v, pool=self.ceph if where is None else where, space=space)
        if passphrase:
            more["passphrase"] = passphrase
        self.d.ok("create", id=v, size=size, **more)
        return v

    def open(self, v):
        h = nbd.NBD()
        h.connect_uri(self.d.uri(v))
        return h

    def write(self, v, data, off=0):
        h = self.open(v)
        h.pwrite(data, off)
        h.flush()
        h.shutdown()
        self.closed(v)

    def read(self, v, n, off=0):
        h = self.open(v)
        data = h.pread(n, off)
        h.shutdown()
        self.closed(v)
        return data

    def closed(self, v):
        """A connection is over a moment after its client has gone."""
        while self.d.ok("stat", id=v)["users"]:
            time.sleep(0.02)

    def move(self, v, origin, to, **more):
        nxt, size = 0, 1
        while nxt < size:
            a = self.d.ok("move", id=v, to=to, offset=nxt, **{"from": origin}, **more)
            nxt, size = a["next"], a["size"]
        self.d.ok("move", id=v, to=to, end="moved", **{"from": origin})

    def test_namespaces(self):
        a, b = self.make(MB, "one"), self.make(MB, "two")
        self.assertEqual(rbd("ls", space=self.tenant("one")), ["volume-" + a])
        self.assertEqual(rbd("ls", space=self.tenant("two")), ["volume-" + b])
        self.assertEqual(rbd("ls", space=self.space), [])
        self.write(a, b"a" * 4096)
        s = self.d.snapshot(a)
        c = str(uuid.uuid4())
        self.d.ok("place", id=c, pool=self.ceph, space="two")
        self.d.ok("clone", id=c, parent=s, size=MB)
        info = rbd("info", "volume-" + c, space=self.tenant("two"))
        self.assertEqual(info["parent"]["pool_namespace"], self.tenant("one"))
        self.assertEqual(self.read(c, 4096), b"a" * 4096)
        # A restart finds all of them.
        self.d.stop()
        self.d.start()
        self.assertEqual(self.read(c, 4096), b"a" * 4096)
        self.d.ok("flatten", id=c)
        while self.d.ok("stat", id=c)["parent"]:
            time.sleep(0.05)
        for v in (s, a, b):
            self.d.ok("remove", id=v)
        self.assertEqual(self.read(c, 4096), b"a" * 4096)
        self.d.ok("remove", id=c)
        end = time.monotonic() + 60
        while any(rbd("ls", space=self.tenant(t)) for t in ("one", "two")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.2)

    def test_half_made(self):
        """Who dies while it makes an image leaves half of one, or a clone without its parent."""
        space = self.tenant("one")
        v, c = str(uuid.uuid4()), str(uuid.uuid4())
        parent = self.make(MB, "one")
        self.write(parent, b"p" * 4096)
        for x in (v, c):
            self.d.ok("place", id=x, pool=self.ceph, space="one")
        path = self.path("id")
        with open(path, "wb") as f:  # cls_rbd's string: its length, then its bytes
            f.write(struct.pack("<I", 12) + b"0123456789ab")
        subprocess.run(["rados", "-p", pool, "-N", space, "put", "rbd_id.volume-" + v, path], check=True)
        rbd("create", "--size", "1M", "volume-" + c, space=space, text=True)
        self.d.ok("create", id=v, size=MB)
        self.write(v, b"v" * 4096)
        self.assertEqual(self.read(v, 4096), b"v" * 4096)
        self.d.ok("clone", id=c, parent=self.d.snapshot(parent), size=MB)
        self.assertEqual(self.read(c, 4096), b"p" * 4096)

    def test_foreign_images_stay(self):
        """Images of others that look like ours are left alone, and one that another host may be making."""
        v = self.make(MB, "one")
        young = "new-" + str(uuid.uuid4())
        for name in ("deleted-precious", young, "new-thing"):
            rbd("create", "--size", "1M", name, space=self.tenant("one"), text=True)
        self.d.ok("remove", id=v)
        end = time.monotonic() + 60
        while any(n.startswith("volume-") for n in rbd("ls", space=self.tenant("one"))):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        time.sleep(0.5)
        self.assertIn("deleted-precious", rbd("ls", space=self.tenant("one")))
        self.assertIn("new-thing", rbd("ls", space=self.tenant("one")))
        self.assertIn(young, rbd("ls", space=self.tenant("one")))

    def test_image_once(self):
        """A base is an image with a protected snapshot; volumes are its clones, at once."""
        path = self.path("raw")
        with open(path, "wb") as f:
            f.write(os.urandom(8 * MB))
        base = str(uuid.uuid4())
        self.d.ok("place", id=base, pool=self.ceph)
        self.d.ok("import", id=base, path=path)
        snaps = rbd("snap", "ls", "image-" + base, space=self.space)
        self.assertEqual([(x["name"], x["protected"]) for x in snaps], [("base", "true")])
        took, clones = [], []
        for i in range(5):
            c = str(uuid.uuid4())
            self.d.ok("place", id=c, pool=self.ceph, space="t%d" % (i % 2))
            began = time.monotonic()
            self.d.ok("clone", id=c, parent=base, size=16 * MB)
            took.append(time.monotonic() - began)
            clones.append(c)
        print("clone: %.0f ms at best, %.0f at worst" % (min(took) * 1e3, max(took) * 1e3))
        with open(path, "rb") as f:
            self.assertEqual(self.read(clones[1], 8 * MB), f.read())
        self.d.ok("remove", id=base)
        self.assertEqual(self.d.err("stat", id=base), errno.ENOENT)
        self.assertEqual(len(self.read(clones[0], 4096)), 4096)
        for c in clones:
            self.d.ok("remove", id=c)
        end = time.monotonic() + 60
        while rbd("ls", space=self.space):
            self.assertLess(time.monotonic(), end, rbd("ls", space=self.space))
            time.sleep(0.2)

    def test_other_pool_is_no_parent(self):
        v = self.make(MB, where="local")
        c = str(uuid.uuid4())
        self.d.ok("place", id=c, pool=self.ceph)
        self.assertEqual(self.d.err("clone", id=c, parent=v, size=MB), errno.EXDEV)
        self.assertEqual(self.d.err("place", id=v, pool=self.ceph), errno.EEXIST)
        self.assertEqual(self.d.err("place", id=str(uuid.uuid4()), pool="nosuch"), errno.ENODEV)

    def test_move(self):
        """There and back, with its bytes and holes; a move that is given up leaves it as it was."""
        v = self.make(80 * MB, where="local")
        data = {0: os.urandom(MB), 63 * MB: os.urandom(2 * MB), 79 * MB: os.urandom(MB)}
        for off, b in data.items():
            self.write(v, b, off)
        a = self.d.ok("move", id=v, to=self.ceph, space="one", offset=0, **{"from": "local"})
        self.assertLess(a["next"], a["size"])
        self.assertRaises(nbd.Error, self.open, v)  # nobody has it meanwhile
        self.d.kill()
        self.d.start()
        self.assertRaises(nbd.Error, self.open, v)
        self.d.ok("move", id=v, to=self.ceph, end="forget", **{"from": "local"})
        self.assertNotIn("volume-" + v, rbd("ls", space=self.tenant("one")))
        self.assertEqual(self.read(v, MB), data[0])
        self.move(v, "local", self.ceph, space="one")
        self.assertIn("volume-" + v, rbd("ls", space=self.tenant("one")))
        self.assertFalse(os.path.exists(os.path.join(self.d.state, "pool", v)))
        for off, b in data.items():
            self.assertEqual(self.read(v, len(b), off), b)
        self.assertLess(self.d.ok("stat", id=v)["used"], 20 * MB)
        self.move(v, self.ceph, "local")
        for off, b in data.items():
            self.assertEqual(self.read(v, len(b), off), b)
        self.assertEqual([x["id"] for x in self.d.ok("list")["volumes"]], [v])

    def test_move_encrypted(self):
        v = self.make(8 * MB, where="local", passphrase="p" * 64)
        self.write(v, b"secret" * 1000, 4096)
        a = self.d.call("move", id=v, to=self.ceph, **{"from": "local"})
        self.assertEqual(a["errno"], errno.ENOKEY, a)
        self.move(v, "local", self.ceph, space="one", passphrase="q" * 64)
        self.assertEqual(self.read(v, 6000, 4096), b"secret" * 1000)
        raw = subprocess.run(["rbd", "-p", pool, "--namespace", self.tenant("one"), "export",
                              "volume-" + v, "-"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, timeout=60).stdout
        self.assertNotIn(b"secret", raw)
        self.d.stop()
        self.d.start()
        self.d.ok("key", id=v, passphrase="q" * 64)
        self.assertEqual(self.read(v, 6000, 4096), b"secret" * 1000)

    def test_encrypted(self):
        """Snapshots, clones, reverts and deletions of an encrypted one, in any order."""
        v = self.make(8 * MB, "one", passphrase="p" * 64)
        self.write(v, b"1" * 65536)
        s = self.d.snapshot(v)
        self.write(v, b"2" * 65536)
        t = self.d.snapshot(v)
        c = self.d.clone(s, 8 * MB)
        self.assertEqual(self.read(c, 65536), b"1" * 65536)
        self.write(c, b"3" * 4096, 4096)
        self.d.ok("revert", id=v, to=s)
        self.assertEqual(self.read(v, 65536), b"1" * 65536)
        self.d.ok("revert", id=v, to=t)
        self.assertEqual(self.read(v, 65536), b"2" * 65536)
        self.d.ok("resize", id=v, size=12 * MB)
        self.write(v, b"e" * 4096, 10 * MB)
        for x in (s, v):
            self.d.ok("remove", id=x)
        self.assertEqual(self.read(t, 65536), b"2" * 65536)
        self.assertEqual(self.read(c, 65536)[:8192], b"1" * 4096 + b"3" * 4096)
        self.d.ok("flatten", id=c)
        while self.d.ok("stat", id=c)["parent"]:
            time.sleep(0.05)
        self.d.ok("remove", id=t)
        self.assertEqual(self.read(c, 65536)[:8192], b"1" * 4096 + b"3" * 4096)
        self.d.ok("remove", id=c)

    def adopted(self, name, space=""):
        v = str(uuid.uuid4())
        a = self.d.call("adopt", id=v, pool=self.ceph, name=(space + "/" if space else "") + name)
        return v, a

    def refused(self, name, words):
        v, a = self.adopted(name)
        self.assertEqual((a["ok"], a.get("errno")), (False, errno.EBUSY), a)
        self.assertIn(words, a["error"])
        self.assertEqual(self.d.err("stat", id=v), errno.ENOENT)
        self.assertIn(name, rbd("ls"))

    def test_adopt(self):
        """An image of somebody's becomes a volume and an image again; in its own namespace."""
        for space in ("", self.tenant("one")):
            if space:
                subprocess.run(["rbd", "namespace", "create", "%s/%s" % (pool, space)], check=True)
            name = "legacy-" + uuid.uuid4().hex
            rbd("create", "--size", "8M", "--image-feature", "layering", name, space=space, text=True)
            v, a = self.adopted(name, space)
            self.assertTrue(a["ok"], a)
            self.assertEqual(self.adopted(name, space)[1]["errno"], errno.ENOENT)
            self.assertIn("volume-" + v, rbd("ls", space=space))
            self.assertIn("fast-diff", rbd("info", "volume-" + v, space=space)["features"])
            self.write(v, b"mine" * 1024, 4096)
            c = self.d.clone(self.d.snapshot(v), 8 * MB)
            self.assertEqual(self.read(c, 4096, 4096), b"mine" * 1024)
            rbd("create", "--size", "1M", "taken", space=space, text=True)
            self.assertEqual(self.d.err("release", id=v, name="taken"), errno.EEXIST)
            rbd("rm", "--no-progress", "taken", space=space, text=True)
            self.d.ok("release", id=v, name=name)
            self.assertEqual(self.d.err("stat", id=v), errno.ENOENT)
            self.assertIn(name, rbd("ls", space=space))
            out = subprocess.run(["rbd", "-p", pool, "--namespace", space, "export",
                                  "--no-progress", name, "-"], check=True,
                                 stdout=subprocess.PIPE).stdout
            self.assertEqual(out[4096:8192], b"mine" * 1024)

    def test_adopt_refused(self):
        name = "used-" + uuid.uuid4().hex
        rbd("create", "--size", "8M", name, text=True)
        rbd("lock", "add", name, "mine", text=True)
        self.refused(name, "has locked it")
        lock = rbd("lock", "ls", name)[0]
        rbd("lock", "rm", name, lock["id"], lock["locker"], text=True)
        with subprocess.Popen(["rbd", "bench", "--io-type", "write", "--io-total", "1T",
                               "--io-size", "4K", "--io-threads", "1", "%s/%s" % (pool, name)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
            try:
                while not rbd("status", name)["watchers"]:
                    time.sleep(0.05)
                v, a = self.adopted(name)
                self.assertEqual(a.get("errno"), errno.EBUSY, a)
            finally:
                other.terminate()
        while rbd("status", name)["watchers"]:
            time.sleep(0.1)
        a = self.adopted("nosuch-" + name)[1]
        self.assertEqual(a["errno"], errno.ENOENT, a)
        v = self.make(MB, "one")
        a = self.adopted("volume-" + v, self.tenant("one"))[1]
        self.assertIn("already", a["error"])

    def test_adopt_snapshots(self):
        """Its snapshots come along, and clones that somebody has of it, of both formats, live on."""
        name = "old-" + uuid.uuid4().hex
        rbd("create", "--size", "8M", name, text=True)
        rbd("snap", "create", "--no-progress", name + "@s1", text=True)
        rbd("snap", "protect", name + "@s1", text=True)
        rbd("snap", "create", "--no-progress", name + "@s2", text=True)
        rbd("clone", "--rbd-default-clone-format", "1", name + "@s1", name + "-1", text=True)
        rbd("clone", "--rbd-default-clone-format", "2", name + "@s2", name + "-2", text=True)
        v, a = self.adopted(name)
        self.assertEqual([s["name"] for s in a["snapshots"]], ["s1", "s2"], a)
        s1, s2 = (s["id"] for s in a["snapshots"])
        again = self.d.call("adopt", id=v, pool=self.ceph, name=name)
        self.assertEqual(again["snapshots"], a["snapshots"])
        self.write(v, b"mine" * 1024, 4096)
        self.assertEqual(self.read(s2, 4096, 4096), bytes(4096))
        self.assertEqual(self.d.ok("stat", id=s1)["parent"], v)
        c = self.d.clone(s1, 8 * MB)
        self.write(c, b"c" * 4096)
        self.assertEqual(self.d.call("remove", id=s1)["errno"], errno.EBUSY)
        own = self.d.snapshot(v)
        self.assertEqual(self.d.call("release", id=v, name=name, snapshots=[
            {"id": s2, "name": "a/b"}])["errno"], errno.EINVAL)
        self.assertEqual(self.d.call("release", id=v, name=name, snapshots=[
            {"id": "nonsense", "name": "x"}])["errno"], errno.EINVAL)
        self.d.ok("release", id=v, name=name, snapshots=[
            {"id": s2, "name": "second"}, {"id": own, "name": "third"}])
        self.assertEqual([s["name"] for s in rbd("snap", "ls", name)], ["s1", "second", "third"])
        for gone in (v, s1, s2, own):
            self.assertEqual(self.d.err("stat", id=gone), errno.ENOENT)
        for child in (name + "-1", name + "-2"):
            self.assertEqual(rbd("info", child)["parent"]["image"], name)
        self.assertEqual(self.read(c, 4096), b"c" * 4096)

    def test_key(self):
        """A tenant's key is for its namespace alone, and bars nobody."""
        v = self.make(MB, "one")
        self.make(MB, "two")
        key = self.d.ok("grant", pool=self.ceph, space="one")["key"]
        self.assertEqual(self.d.ok("grant", pool=self.ceph, space="one")["key"], key)
        path, who = self.path("keyring"), key.split("]")[0].lstrip("[")
        with open(path, "w") as f:
            f.write(key)

        def may(*args):
            return subprocess.run([*args, "-n", who, "--keyring", path], timeout=60,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        p = may("rbd", "ls", "%s/%s" % (pool, self.tenant("one")))
        self.assertEqual((p.returncode, p.stdout.strip()), (0, "volume-" + v), p.stdout)
        image = "%s/%s/mine" % (pool, self.tenant("one"))
        self.assertEqual(may("rbd", "create", "--size", "1M", image).returncode, 0)
        for where in (pool, "%s/%s" % (pool, self.tenant("two")), "%s/%s" % (pool, self.space)):
            self.assertNotEqual(may("rbd", "ls", where).returncode, 0, where)
        p = may("ceph", "osd", "blocklist", "add", "127.0.0.1:0/12345")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("denied", p.stdout)
        self.d.ok("grant", pool=self.ceph, space="one", revoke=True)
        self.d.ok("grant", pool=self.ceph, space="one", revoke=True)
        self.assertNotEqual(may("rbd", "ls", "%s/%s" % (pool, self.tenant("one"))).returncode, 0)

    def test_encrypted_elsewhere(self):
        """Another host knows what is encrypted, and what its key is wrapped in now."""
        v = self.make(4 * MB, "one", passphrase="p" * 64)
        self.write(v, b"secret" * 1000)
        other = Blockd(options=["--pool", "local", "--pool", self.ceph])
        self.addCleanup(other.clean)
        self.d.stop()
        self.d, mine = other, self.d
        info = other.ok("stat", id=v)
        self.assertEqual((info["family"], info["users"]), (v, 0))
        other.ok("key", id=v, passphrase="p" * 64)
        self.assertEqual(self.read(v, 6000), b"secret" * 1000)
        other.ok("rekey", id=v, passphrase="p" * 64, next="q" * 64)
        c = other.clone(v, 4 * MB)
        other.stop()
        mine.start()
        self.d = mine
        self.assertEqual(mine.ok("stat", id=c)["family"], v)
        self.assertEqual(mine.err("rekey", id=v, passphrase="q" * 64, next="r" * 64), errno.EBUSY)
        self.assertEqual(mine.err("key", id=c, passphrase="p" * 64), errno.EKEYREJECTED)
        mine.ok("key", id=c, passphrase="q" * 64)
        self.assertEqual(self.read(c, 6000), b"secret" * 1000)
        mine.ok("remove", id=v)
        self.assertEqual(self.read(c, 6000), b"secret" * 1000)
        mine.ok("remove", id=c)
        left = subprocess.run(["rados", "-p", pool, "-N", self.space, "ls"], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        self.assertNotIn("stratofs.crypt." + v, left)

    def test_lists_are_one(self):
        want = sorted([self.make(MB, where="local") for _ in range(3)] +
                      [self.make(MB, "one") for _ in range(3)])
        self.assertEqual([x["id"] for x in self.d.ok("list")["volumes"]], want)
        self.assertEqual([x["id"] for x in self.d.ok("list", after=want[2])["volumes"]], want[3:])


main()
