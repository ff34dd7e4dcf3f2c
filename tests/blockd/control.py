#!/usr/bin/python3
"""The control socket: what the calls mean, what they leave on disk, and hostile input."""
import json
import os
import socket
import stat
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from errno import EBUSY, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, EOPNOTSUPP, EROFS

import nbd
import rig
from rig import BLOCKD, Case, main

MB = 1 << 20
NOBODY = "00000000-0000-4000-8000-000000000000"


def can_connect(path, uid):
    """Whether a process of that uid gets an NBD greeting from the socket."""
    code = ("import os,socket,sys; os.setgroups([]); os.setgid(%d); os.setuid(%d);"
            "s=socket.socket(socket.AF_UNIX); s.connect(%r); sys.exit(s.recv(8) != b'NBDMAGIC')"
            % (uid, uid, path))
    return subprocess.run(["/usr/bin/python3", "-c", code], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


class Control(Case):
    def test_ping(self):
        a = self.d.ok("ping")
        self.assertEqual(a["pid"], self.d.process.pid)
        self.assertTrue(a["version"])

    def test_calls_can_be_repeated(self):
        d, v, c = self.d, str(uuid.uuid4()), str(uuid.uuid4())
        for _ in range(2):
            d.ok("create", id=v, size=MB)
        self.assertEqual(d.err("create", id=v, size=2 * MB), EEXIST)
        for _ in range(2):
            d.ok("clone", id=c, parent=v, size=2 * MB)
        self.assertEqual(d.err("clone", id=c, parent=v, size=3 * MB), EEXIST)
        self.assertEqual(d.err("create", id=c, size=2 * MB), EEXIST)
        self.assertEqual(d.err("clone", id=str(uuid.uuid4()), parent=NOBODY, size=MB), ENOENT)
        for _ in range(2):
            d.ok("resize", id=v, size=3 * MB)
        self.assertEqual(d.err("resize", id=v, size=MB), EINVAL)
        self.assertEqual(d.err("resize", id=NOBODY, size=MB), ENOENT)
        x = d.export(c, id="att")
        self.assertEqual(d.export(c, id="att"), x)
        self.assertEqual(d.err("export", id="att", volume=v, uid=os.getuid(), gid=os.getgid()),
                         EEXIST)
        self.assertEqual(d.err("export", id="b", volume=NOBODY, uid=0, gid=0), ENOENT)
        a = d.ok("stat", id=c)
        self.assertEqual((a["size"], a["parent"], a["exports"]), (2 * MB, v, 1))
        self.assertEqual(d.err("remove", id=c), EBUSY)
        for _ in range(2):
            d.ok("unexport", id="att")
        self.assertFalse(os.path.exists(x))
        for _ in range(2):
            d.ok("remove", id=c)
        self.assertEqual(d.err("stat", id=c), ENOENT)

    def test_revert_and_shrink(self):
        """Not while exported; snapshots all stay."""
        d, v = self.d, self.d.create(2 * MB)
        snaps = [str(uuid.uuid4()) for _ in range(3)]
        for i, s in enumerate(snaps):
            x = d.export(v, id="x")
            h = nbd.NBD()
            h.connect_unix(x)
            h.pwrite(bytes([i + 1]) * 5000, 3000)
            d.ok("snapshot", id=s, volume=v)
            self.assertEqual(d.err("revert", id=v, to=s), EBUSY)
            self.assertEqual(d.err("resize", id=v, size=MB, shrink=True), EBUSY)
            h.shutdown()
            d.ok("unexport", id="x")
        self.assertEqual(d.err("resize", id=v, size=MB), EINVAL)
        for _ in range(2):
            d.ok("resize", id=v, size=MB, shrink=True)
        self.assertEqual(d.ok("stat", id=v)["size"], MB)
        for i in (1, 0, 2, 0):
            d.ok("revert", id=v, to=snaps[i])
            self.assertEqual(d.ok("stat", id=v)["size"], 2 * MB)
            h = nbd.NBD()
            h.connect_unix(d.export(v, id="x"))
            self.assertEqual(h.pread(5000, 3000), bytes([i + 1]) * 5000)
            h.shutdown()
            d.ok("unexport", id="x")
        self.assertEqual(d.err("revert", id=v, to=NOBODY), ENOENT)
        self.assertEqual(d.err("revert", id=v, to=v), EINVAL)
        self.assertEqual(d.err("revert", id=snaps[0], to=snaps[1]), EROFS)
        self.assertEqual(d.err("flatten", id=snaps[0]), EROFS)

    def test_flatten(self):
        """Under a guest; then the parent may go."""
        d, v, c = self.d, self.d.create(8 * MB), str(uuid.uuid4())
        h = nbd.NBD()
        h.connect_unix(d.export(v, id="x"))
        h.pwrite(b"base" * MB, MB)
        h.shutdown()
        d.ok("unexport", id="x")
        d.ok("clone", id=c, parent=v, size=8 * MB)
        h = nbd.NBD()
        h.connect_unix(d.export(c, id="y"))
        d.ok("flatten", id=c)
        n = 0
        while "flatten" in d.ok("stat", id=c):
            h.pwrite(b"new!" * 256, 2 * MB + n % 1000 * 1024)
            n += 1
        self.assertEqual(d.ok("stat", id=c)["parent"], "")
        d.ok("remove", id=v)
        while os.path.exists(os.path.join(d.state, "pool", v)):
            d.ok("ping")  # who flattened may hold it for a moment
        self.assertEqual(h.pread(MB, MB), b"base" * (MB // 4))
        d.ok("flatten", id=c, cancel=True)
        self.assertEqual(d.err("flatten", id=NOBODY), ENOENT)
        h.shutdown()

    def test_snapshot(self):
        """Of a volume in use: what it had then, whoever goes first."""
        d, v, s, c = self.d, self.d.create(2 * MB), str(uuid.uuid4()), str(uuid.uuid4())
        h = nbd.NBD()
        h.connect_unix(d.export(v, id="x"))
        h.pwrite(b"then" * 1000, 5000)
        for _ in range(2):
            d.ok("snapshot", id=s, volume=v)
        h.pwrite(b"now!" * 1000, 5000)
        d.ok("resize", id=v, size=3 * MB)
        self.assertEqual(d.err("create", id=s, size=2 * MB), EEXIST)
        self.assertEqual(d.err("snapshot", id=v, volume=s), EEXIST)
        self.assertEqual(d.err("snapshot", id=v, volume=v), EINVAL)
        self.assertEqual(d.err("snapshot", id=s), EINVAL)
        self.assertEqual(d.err("snapshot", id=str(uuid.uuid4()), volume=NOBODY), ENOENT)
        self.assertEqual(d.err("resize", id=s, size=3 * MB), EROFS)
        a = d.ok("stat", id=s)
        self.assertEqual((a["size"], a["parent"], a["immutable"]), (2 * MB, v, True))
        r = nbd.NBD()
        r.connect_unix(d.export(s, id="s"))
        self.assertTrue(r.is_read_only())
        self.assertEqual(r.pread(4000, 5000), b"then" * 1000)
        self.assertEqual(h.pread(4000, 5000), b"now!" * 1000)
        h.shutdown()
        r.shutdown()
        d.ok("unexport", id="x")
        d.ok("unexport", id="s")
        d.ok("clone", id=c, parent=s, size=2 * MB)
        d.ok("remove", id=v)
        d.ok("snapshot", id=s, volume=v)  # it is there, as was asked
        d.kill()
        d.start()
        d.ok("remove", id=s)
        r = nbd.NBD()
        r.connect_unix(d.export(c))
        self.assertEqual(r.pread(4000, 5000), b"then" * 1000)
        r.shutdown()

    def test_import(self):
        path, v = self.path("raw"), str(uuid.uuid4())
        with open(path, "wb") as f:
            f.write(b"image" * 1000)
        self.d.ok("import", id=v, path=path)
        os.unlink(path)
        self.d.ok("import", id=v, path=path)
        a = self.d.ok("stat", id=v)
        self.assertEqual((a["size"], a["immutable"], a["parent"]), (5120, True, ""))
        self.assertEqual(self.d.err("import", id=str(uuid.uuid4()), path=path), ENOENT)
        self.assertEqual(self.d.err("import", id=str(uuid.uuid4()), path="etc/passwd"), EINVAL)
        self.assertEqual(self.d.err("import", id=str(uuid.uuid4()), path="/dev/zero"), EINVAL)
        os.symlink("/etc/hostname", self.path("link"))
        self.assertEqual(self.d.call("import", id=str(uuid.uuid4()), path=self.path("link"))["ok"],
                         False)

    def test_import_from_another_file_system(self):
        path, v = "/dev/shm/import-" + uuid.uuid4().hex, str(uuid.uuid4())
        self.addCleanup(os.unlink, path)
        with open(path, "wb") as f:
            f.seek(5 * MB)
            f.write(os.urandom(300001))
        self.d.ok("import", id=v, path=path)
        used = self.d.ok("stat", id=v)["used"]
        self.assertGreaterEqual(used, 300001)
        self.assertLess(used, 2 * MB if rig.CEPH_POOL else MB)  # Ceph counts whole objects: 4 MiB to the end
        self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", path, self.d.uri(v))

    def test_lists(self):
        vs = sorted(self.d.create(MB) for _ in range(20))
        got = self.d.ok("list")
        self.assertEqual([v["id"] for v in got["volumes"]], vs)
        self.assertFalse(got["more"])
        got = self.d.ok("list", after=vs[9])
        self.assertEqual([v["id"] for v in got["volumes"]], vs[10:])
        for v in vs[:3]:
            self.d.export(v, id="e" + v)
        got = self.d.ok("list_exports")
        self.assertEqual([(x["id"], x["volume"]) for x in got["exports"]],
                         [("e" + v, v) for v in vs[:3]])
        self.assertEqual(len(self.d.ok("list_exports", after="e" + vs[0])["exports"]), 2)

    def test_folders_let_only_the_guest_in(self):
        v = self.d.create(MB)
        x = self.d.ok("export", id="guest", volume=v, uid=12345, gid=12346)["socket"]
        os.chmod(self.d.top, 0o755)
        st = os.stat(os.path.dirname(x))
        self.assertEqual((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (0o700, 12345, 12346))
        self.assertEqual(stat.S_IMODE(os.stat(x).st_mode), 0o666)
        for path in (self.d.control, self.d.shared):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertTrue(can_connect(x, 12345))
        self.assertFalse(can_connect(x, 54321))
        self.assertTrue(can_connect(self.d.shared, 0))
        self.assertFalse(can_connect(self.d.shared, 12345))
        os.chmod(self.d.shared, 0o666)  # credentials are looked at, whatever the mode
        self.assertFalse(can_connect(self.d.shared, 12345))

    def test_a_guest_cannot_lead_us_astray(self):
        """The guest owns the folder: what it plants there is not followed."""
        v, target = self.d.create(MB), self.path("target")
        with open(target, "w") as f:
            f.write("precious")
        x = self.d.export(v, id="g")
        os.unlink(x)
        os.symlink(target, x)
        os.symlink(self.d.top, os.path.dirname(x) + "/dir")
        self.d.kill()
        self.d.start()
        self.assertTrue(stat.S_ISSOCK(os.lstat(x).st_mode))
        self.d.ok("unexport", id="g")
        self.assertFalse(os.path.exists(os.path.dirname(x)))
        with open(target) as f:
            self.assertEqual(f.read(), "precious")

    def test_its_lock_leads_nowhere(self):
        """Root opens it, and gives it away: blockd's user owns the folder that it is in."""
        target, lock = self.path("target"), os.path.join(self.d.state, "lock")
        with open(target, "w") as f:
            f.write("precious")
        self.d.kill()
        for plant in (os.symlink, os.link):
            os.unlink(lock)
            plant(target, lock)
            self.assertRaises(AssertionError, self.d.start)
            self.assertEqual(os.stat(target).st_uid, os.getuid())
        os.unlink(lock)
        self.d.start()

    def test_exports_outlive_the_daemon(self):
        d = self.d
        v, w = d.create(MB), d.create(MB)
        a, b = d.export(v, id="a"), d.export(w, id="b", readonly=True)
        gone = d.export(v, id="gone")
        d.ok("unexport", id="gone")
        for again in (d.kill, d.stop):
            again()
            d.start()
            self.assertEqual([x["id"] for x in d.ok("list_exports")["exports"]], ["a", "b"])
            for path, volume, ro in ((a, v, False), (b, w, True)):
                h = nbd.NBD()
                h.connect_unix(path)
                self.assertEqual(h.is_read_only(), ro)
                h.shutdown()
            self.assertFalse(os.path.exists(gone))
            self.assertEqual(d.export(v, id="a"), a)
            self.assertEqual(d.err("remove", id=v), EBUSY)

    def test_an_export_that_could_not_be_restored(self):
        """Its facts stay, and asking for it again brings it back."""
        d, v = self.d, self.d.create(MB)
        x = d.export(v, id="x")
        d.stop()
        blocker = os.path.join(d.run, "exports", ".x.sock.new")
        os.makedirs(os.path.join(blocker, "full"))
        d.start()
        self.assertFalse(can_connect(x, 0))
        self.assertEqual(d.err("remove", id=v), EBUSY)
        os.makedirs(os.path.join(blocker, "full"))  # the first was collected at start
        self.assertFalse(d.call("export", id="x", volume=v, uid=os.getuid(),
                                gid=os.getgid())["ok"])
        os.rmdir(os.path.join(blocker, "full"))
        os.rmdir(blocker)
        self.assertEqual(d.export(v, id="x"), x)
        self.assertTrue(can_connect(x, 0))

    def test_unexport_closes_connections(self):
        v = self.d.create(MB)
        x = self.d.export(v, id="x")
        h, other = nbd.NBD(), nbd.NBD()
        h.connect_unix(x)
        other.set_export_name(v)
        other.connect_unix(self.d.shared)
        self.assertEqual(self.d.ok("list_exports")["exports"][0]["connections"], 1)
        self.d.ok("unexport", id="x")
        with self.assertRaises(nbd.Error):
            h.pread(512, 0)
        self.assertEqual(other.pread(4, 0), bytes(4))
        self.assertEqual(self.d.err("remove", id=v), EBUSY)  # somebody reads it on the shared one
        other.shutdown()

    def test_hostile_lines(self):
        bad = [b"", b"{", b"nonsense", b"[]", b"5", b"null", b'"op"', b"{}", b'{"op":5}',
               b'{"op":"ping","op":"ping"}', b'{"op":"create"}', b'{"op":"create","id":5,"size":1}',
               b'{"op":"create","id":"../../etc","size":512}',
               b'{"op":"create","id":"%s","size":"512"}' % NOBODY.encode(),
               b'{"op":"create","id":"%s","size":-512}' % NOBODY.encode(),
               b'{"op":"create","id":"%s","size":1.5}' % NOBODY.encode(),
               b'{"op":"create","id":"%s","size":9223372036854775807}' % NOBODY.encode(),
               b'{"op":"create","id":"%s","size":9223372036854775296}' % NOBODY.encode(),
               b'{"op":"create","id":"%s","size":99999999999999999999}' % NOBODY.encode(),
               b'{"op":"create","id":"%s","size":512}' % NOBODY.upper().replace("0", "A").encode(),
               b'{"op":"stat","id":"\\u0000"}', b'{"op":"stat","id":"%s"}' % (b"x" * 5000),
               b"[" * 100000, b'{"a":' * 50000, b"\xff\xfe\x00", b'{"op":"\xff"}',
               b'{"op":"loglevel","level":99}', b'{"op":"list","after":7}']
        for line in bad:
            a = json.loads(self.d.raw_call(line + b"\n"))
            self.assertIs(a["ok"], False, line[:80])
            self.assertGreater(a["errno"], 0)
            self.assertTrue(a["error"])
        self.assertEqual(self.d.err("nosuch"), EOPNOTSUPP)
        v = self.d.create(MB)
        me = {"volume": v, "uid": os.getuid(), "gid": os.getgid()}
        for name in ("", ".", "..", "a/b", "../x", "/abs", ".hidden", "a\nb", "x" * 64, "a b"):
            self.assertIn(self.d.err("export", id=name, **me), (EINVAL, ENAMETOOLONG), name)
            self.assertIn(self.d.err("unexport", id=name), (EINVAL, ENAMETOOLONG), name)
        for uid in (-1, 2**32 - 1, 2**40):
            self.assertEqual(self.d.err("export", id="x", volume=v, uid=uid, gid=0), EINVAL)
        self.assertEqual(self.d.ok("list_exports")["exports"], [])
        self.d.ok("ping")

    def test_a_huge_line_closes_the_connection(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(self.d.control)
            try:
                for _ in range(64):
                    s.sendall(b"x" * 65536)
            except (BrokenPipeError, ConnectionResetError):
                pass
            try:
                self.assertEqual(s.recv(100), b"")
            except ConnectionResetError:
                pass
        self.d.ok("ping")

    def test_many_lines_and_crumbs(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(self.d.control)
            s.sendall(b'{"op":"ping"}\n' * 50 + b'{"op":')
            for b in b'"ping"}\n':
                s.sendall(bytes([b]))
            f = s.makefile("rb")
            for _ in range(51):
                self.assertTrue(json.loads(f.readline())["ok"])

    def test_many_at_once(self):
        d = self.d
        idle = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for s in idle:
            self.addCleanup(s.close)
            s.connect(d.control)
        base = d.create(64 * MB)

        def one(i):
            v = d.clone(base, 64 * MB)
            x = "e%d" % i
            h = nbd.NBD()
            h.connect_unix(d.export(v, id=x))
            h.pwrite(b"%08d" % i, i * 4096)
            h.flush()
            assert h.pread(8, i * 4096) == b"%08d" % i
            h.shutdown()
            if i % 2:
                d.ok("unexport", id=x)
                d.ok("remove", id=v)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, range(100)))
        self.assertEqual(len(d.ok("list")["volumes"]), 51)
        self.assertEqual(len(d.ok("list_exports")["exports"]), 50)

    def test_same_call_at_once(self):
        v, c = str(uuid.uuid4()), str(uuid.uuid4())
        for op, args in (("create", {"id": v, "size": MB}),
                         ("clone", {"id": c, "parent": v, "size": MB}),
                         ("export", {"id": "x", "volume": c, "uid": 0, "gid": 0}),
                         ("unexport", {"id": "x"}), ("remove", {"id": c})):
            answers = []
            ts = [threading.Thread(target=lambda: answers.append(self.d.call(op, **args)))
                  for _ in range(12)]
            for t in ts:
                t.start()
            for t in ts:
                t.join()
            self.assertTrue(all(a["ok"] for a in answers), answers)

    def test_one_blockd_a_state(self):
        p = subprocess.run([BLOCKD, "--state", self.d.state, "--run", self.path("run2")],
                           stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("another blockd is using", p.stderr)
        self.d.ok("ping")

    def test_another_run_folder_after_a_kill(self):
        self.d.kill()
        p = subprocess.run([BLOCKD, "--state", self.d.state, "--run", self.path("run2")],
                           stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("was killed here", p.stderr)
        self.d.start()
        self.d.stop()
        self.d.run = self.path("run2")
        self.d.start()

    def test_long_paths(self):
        self.d.stop()
        self.d.run = self.path("r" * 30)
        self.d.start()
        v = self.d.create(MB)
        me = {"volume": v, "uid": os.getuid(), "gid": os.getgid()}
        self.assertEqual(self.d.err("export", id="x" * 63, **me), ENAMETOOLONG)
        self.assertEqual(self.d.ok("list_exports")["exports"], [])

    def test_command_line(self):
        self.assertIn("blockd ", self.tool(BLOCKD, "--version"))
        self.tool(BLOCKD, "--nonsense", rc=2)
        self.tool(BLOCKD, "--state", "/tmp", rc=2)
        if rig.CEPH_POOL:
            return
        self.d.create(MB)
        self.assertIn("another blockd", self.tool(BLOCKD, "--check", self.d.state, rc=2))
        self.d.stop()
        self.assertEqual(self.tool(BLOCKD, "--check", self.d.state), "0 findings\n")
        self.tool(BLOCKD, "--check", self.path("nowhere"), rc=2)
        os.mkdir(os.path.join(self.d.state, "pool", str(uuid.uuid4())))
        self.assertIn("half made", self.tool(BLOCKD, "--check", self.d.state, rc=1))
        self.assertIn("mended", self.tool(BLOCKD, "--check", self.d.state, "--repair"))
        self.d.start()

    def test_loglevel(self):
        self.assertEqual(self.d.ok("loglevel")["level"], 6)
        self.assertEqual(self.d.ok("loglevel", level=7)["level"], 7)
        self.assertEqual(self.d.ok("loglevel")["level"], 7)


class Pages(Case):
    def test_more_than_a_page(self):
        with ThreadPoolExecutor(8) as pool:
            want = sorted(pool.map(lambda _: self.d.create(MB), range(1010)))
        got, after = [], ""
        while True:
            a = self.d.ok("list", after=after)
            got += [v["id"] for v in a["volumes"]]
            after = got[-1]
            if not a["more"]:
                break
        self.assertEqual(got, want)
        self.d.stop()
        self.d.start()  # a thousand volumes are read again
        self.assertTrue(self.d.ok("list")["more"])


main()
