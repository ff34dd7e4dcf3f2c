#!/usr/bin/python3
"""What doc/SECURITY.md claims of a running cloud: who may see and do what, what is done to text that
users write, where secrets are not, and what each process may do.

In network and mount namespaces of its own.  Asks of the machine: root, QEMU, dnsmasq, haproxy,
setpriv, unshare.
"""
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml

BUILD = os.environ["BUILD"]
STRATO = BUILD + "/cli/strato"
T = os.environ.get("TEST_FOLDER", "")
C = T + "/cloud"
STATE = T + "/state"
A, B = C + "/tenants/a", C + "/tenants/b"
STRANGER = 65534
SECRETS = {"user data": "planted-user-data"}
MARK = "pwned"
NASTY = [
    b'"/><pwned a="', b"'/><pwned/><x a='", b"]]><pwned/>", b"&pwned;<!-- pwned", b"</name><pwned/>",
    b'x","pwned":"1', b"x,pwned=on", b"-pwned", b"--pwned=1", b"$(touch $PWNED)", b"`touch $PWNED`",
    b";touch $PWNED #", b"|touch $PWNED", b"../../pwned", b"/etc/pwned", b"x\npwned 1\n", b"x\r\npwned 1\r\n",
    b"server pwned 127.0.0.1:1", b"%n%s%n pwned", b"LD_PRELOAD=/pwned", b"pwned\0hidden", b"\xff\xfepwned", b"pwned" * 1000,
    "\u202epwned".encode(), b"\x1b]0;pwned\x07"]
# Whoever may write these says in XML what QEMU gets: admins.
XML_BY_ADMINS = {"extra.xml"}


def run(*argv, **kw):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **kw)


def read(path, mode=""):
    with open(path, "r" + mode, errors=None if mode else "replace") as f:
        return f.read()


def write(path, data):
    """One open, one write, one close; the errno of the first that fails, or 0."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    except OSError as e:
        return e.errno
    try:
        os.write(fd, data if isinstance(data, bytes) else data.encode())
        return 0
    except OSError as e:
        return e.errno
    finally:
        os.close(fd)


def until(what, seconds=180):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def state(path, want):
    r = run(STRATO, "wait", path, want, "--timeout", "240")
    assert r.returncode == 0, (path, want, r.stderr, read(path + "/error"))


def volume(path, size="8M"):
    os.mkdir(path)
    assert write(path + "/size", size) == 0
    state(path, "available")


def status(pid):
    return dict(re.findall(r"^(\w+):\s*(.*)$", read(f"/proc/{pid}/status"), re.M))


def ours():
    """pid: argv of every process of this cloud."""
    out = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            argv = read(f"/proc/{pid}/cmdline", "b")
        except OSError:
            continue
        if T.encode() in argv:
            out[int(pid)] = argv.split(b"\0")[:-1]
    return out


def called(name):
    return [p for p, argv in ours().items() if os.path.basename(argv[0]).decode() == name]


def files(*tops):
    for top in tops:
        for folder, dirs, names in os.walk(top):
            dirs[:] = [d for d in dirs if not os.path.islink(folder + "/" + d)]
            for name in names:
                path = folder + "/" + name
                if name != "ns" and stat.S_ISREG(os.lstat(path).st_mode):  # a namespace is no file
                    yield path


AS_STRANGER = """
import ctypes, errno, os, select, sys
uid, gids, userns = int(sys.argv[1]), [int(g) for g in sys.argv[2].split(',') if g], sys.argv[3] == '1'
libc = ctypes.CDLL(None)
os.setgroups(gids); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
libc.prctl(4, 1, 0, 0, 0)  # its /proc is its own again
if userns:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) != 0:
        sys.exit(77)
    open('/proc/self/setgroups', 'w').write('deny')
    open('/proc/self/uid_map', 'w').write('0 %d 1' % uid)
    open('/proc/self/gid_map', 'w').write('0 %d 1' % uid)
    assert os.getuid() == 0
def tell(f):
    try:
        f()
        return 'yes'
    except OSError as e:
        return errno.errorcode[e.errno]
def attr(p):
    with open(p) as f: f.read(1)
def poll(p):
    fd = os.open(p, os.O_RDONLY); select.poll().register(fd, 2)
acts = {'stat': os.stat, 'list': os.listdir, 'read': attr, 'poll': poll, 'readlink': os.readlink, 'mkdir': os.mkdir,
        'rmdir': os.rmdir, 'chdir': os.chdir, 'write': lambda p: os.close(os.open(p, os.O_WRONLY)),
        'create': lambda p: os.close(os.open(p, os.O_WRONLY | os.O_CREAT)),
        'link': lambda p: os.symlink(*p.split('<', 1)), 'rename': lambda p: os.rename(p, p + 'x'),
        'xattr': lambda p: os.listxattr(p), 'watch': lambda p: watch(p),
        'truncate': lambda p: os.truncate(p, 0), 'connect': lambda p: connect(p)}
def watch(p):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init()
    if libc.inotify_add_watch(fd, p.encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), p)
def connect(p):
    import socket
    socket.socket(socket.AF_UNIX).connect(p)
for line in sys.stdin.read().splitlines():
    act, path = line.split(' ', 1)
    print(tell(lambda: acts[act](path)))
"""


def as_user(asks, groups=(), userns=False, uid=STRANGER):
    """What each (act, path) gives to that user: "yes" or the errno's name."""
    text = "".join(f"{act} {path}\n" for act, path in asks)
    r = run(sys.executable, "-c", AS_STRANGER, str(uid), ",".join(map(str, groups)), str(int(userns)),
            input=text.encode())
    if r.returncode == 77:
        return None
    assert r.returncode == 0, r.stderr
    return r.stdout.decode().split()


class Security(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.mkdir(C)
        for tenant in (A, B):
            if tenant == A:
                r = run(STRATO, "up", "--state", STATE, "--mount", C)
                assert r.returncode == 0, r.stderr
            os.mkdir(tenant)
            state(tenant, "active")
        volume(A + "/volumes/v")
        volume(B + "/volumes/v")
        cls.id = {t: read(t + "/volumes/v/id").strip() for t in (A, B)}

    @classmethod
    def tearDownClass(cls):
        os.chdir("/")
        run(STRATO, "down", "--guests", "--force", "--state", STATE, "--mount", C)
        for pid in ours():  # servers of networks, which outlive a cloud that went down
            os.kill(pid, signal.SIGKILL)

    # ---- who sees what

    def pairs(self, folder):
        """The same of what is there and of what is not."""
        no_id = "00000000-0000-4000-8000-000000000000"
        for act in ("stat", "list", "read", "poll", "readlink", "mkdir", "rmdir", "chdir", "write", "create",
                    "rename", "xattr", "watch", "truncate"):
            for there, missing in (("volumes/v", "volumes/w"), ("volumes/v/size", "volumes/w/size"),
                                   ("volumes/.id/" + self.id[A], "volumes/.id/" + no_id),
                                   ("volumes/v/.wait/available", "volumes/w/.wait/available"),
                                   ("volumes/v/data", "volumes/w/data"), ("volumes/v/nbd", "volumes/w/nbd"),
                                   ("events", "nothing"), ("errors", "nothing")):
                yield (act, f"{folder}/{there}"), (act, f"{folder}/{missing}")
        for there, missing in ((self.id[A], no_id),):
            for act in ("stat", "read", "write", "truncate", "watch"):
                yield (act, f"{C}/.data/{there}"), (act, f"{C}/.data/{missing}")

    def alike(self, groups, userns=False):
        pairs = list(self.pairs(A))
        got = as_user([x for p in pairs for x in p], groups, userns)
        if got is None:
            self.skipTest("no user namespaces here")
        for pair, there, missing in zip(pairs, got[::2], got[1::2]):
            self.assertEqual(there, missing, pair)
            self.assertIn(there, ("EACCES", "ENOENT", "EPERM"), pair)

    def test_stranger_sees_no_difference(self):
        self.alike(())

    def test_other_tenant_sees_no_difference(self):
        self.alike((int(read(B + "/gid")),))

    def test_root_of_a_user_namespace_is_nobody(self):
        self.alike((), userns=True)
        asks = [("mkdir", C + "/tenants/mine"), ("list", C + "/admin"), ("write", C + "/flavors/tiny/vcpus")]
        for what, got in zip(asks, as_user(asks, userns=True) or []):
            self.assertIn(got, ("EACCES", "EPERM"), what)

    def test_no_link_into_another_tenant(self):
        """By path, by id, by a way around: as if it were not there."""
        gid = int(read(B + "/gid"))
        os.mkdir(B + "/instances/l")
        ways = ["../../a/volumes/{}", A + "/volumes/{}", "../../../../a/volumes/{}", "volumes/../../a/volumes/{}"]
        asks = [("link", f"{way.format(name)}<{B}/instances/l/volumes/vd{chr(98 + i)}")
                for i, way in enumerate(ways) for name in ("v", "none")]
        asks += [("link", f"{x}<{B}/instances/l/volumes/vdz") for x in (self.id[A], self.id[A][:-1] + "0")]
        got = as_user(asks, (gid,))
        for ask, there, missing in zip(asks[::2], got[::2], got[1::2]):
            self.assertEqual(there, missing, ask)
            self.assertNotEqual(there, "yes", ask)
        os.rmdir(B + "/instances/l")

    def test_sockets_are_not_theirs(self):
        for path in (STATE + "/run/blockd.sock", STATE + "/run/nbd.sock"):
            self.assertEqual(as_user([("connect", path)]), ["EACCES"])

    def test_shared_socket_is_for_root(self):
        """Also for one who was handed a way in, it asks who it is."""
        os.chmod(STATE + "/run/nbd.sock", 0o666)
        code = ("import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setresuid(65534, 65534, 65534);"
                "s.connect(sys.argv[1]); s.settimeout(20); sys.exit(len(s.recv(8)))")
        try:
            self.assertEqual(run(sys.executable, "-c", code, STATE + "/run/nbd.sock").returncode, 0)
        finally:
            os.chmod(STATE + "/run/nbd.sock", 0o600)

    # ---- one's export is not another's

    def control(self, **request):
        s = socket.socket(socket.AF_UNIX)
        s.connect(STATE + "/run/blockd.sock")
        s.sendall(json.dumps(request).encode() + b"\n")
        with s, s.makefile() as f:
            return json.loads(f.readline())

    def test_no_export_by_another_name(self):
        uid = 1000000777
        a = self.control(op="export", id="sec-a", volume=self.id[A], uid=uid, gid=uid)["socket"]
        b = self.control(op="export", id="sec-b", volume=self.id[B], uid=uid + 1, gid=uid + 1)["socket"]
        self.assertEqual(as_user([("connect", a), ("connect", b), ("list", os.path.dirname(a))], uid=uid),
                         ["yes", "EACCES", "EACCES"])
        self.assertEqual(as_user([("create", os.path.dirname(a) + "/x"), ("truncate", STATE + "/run/exports/x")],
                                 uid=uid), ["EACCES"] + as_user([("truncate", STATE + "/run/exports/y")], uid=uid))
        import nbd  # pylint: disable=import-outside-toplevel
        for name in (self.id[B], "sec-b", "../" + self.id[B], self.id[A] + "\n" + self.id[B], "*"):
            h = nbd.NBD()
            h.set_export_name(name)
            with self.assertRaises(nbd.Error, msg=name):
                h.connect_unix(a)
        h = nbd.NBD()
        h.connect_unix(a)
        self.assertEqual(h.get_size(), 8 << 20)
        h.shutdown()
        for x in ("sec-a", "sec-b"):
            self.assertTrue(self.control(op="unexport", id=x)["ok"])

    def test_import_takes_no_descriptor_of_its_own(self):
        for path in ("/proc/self/fd/5", "/proc/1/root/etc/shadow"):
            got = self.control(op="import", id="11111111-0000-4000-8000-000000000001", path=path)
            self.assertEqual(got["errno"], errno.EINVAL)

    # ---- what each process may do

    def test_processes(self):
        """Capabilities as doc/SECURITY.md says."""
        (b,), (s,) = called("blockd"), called("stratod")
        got = status(b)
        owner = os.stat(STATE + "/blockd").st_uid
        self.assertNotEqual(owner, 0)
        self.assertEqual(got["Uid"].split(), [str(owner)] * 4)
        for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(got[caps], 16), 0, caps)
        self.assertEqual((got["NoNewPrivs"], got["Seccomp"]), ("1", "2"))
        never = [9, 15, 16, 17, 20, 22, 25, 26, 28, 30, 32, 34, 35, 36, 37, 38, 40]
        for caps in ("CapPrm", "CapBnd"):
            for cap in never:
                self.assertFalse(int(status(s)[caps], 16) >> cap & 1, (caps, cap))
        for path in files(STATE + "/blockd", STATE + "/run/map"):
            self.assertEqual(os.stat(path).st_uid, owner, path)
        # Root's own folder, in which blockd can plant nothing.
        self.assertEqual(os.stat(STATE + "/run").st_uid, 0)
        self.assertEqual(os.stat(STATE + "/run").st_mode & 0o022, 0)

    def test_no_memory_in_cores(self):
        for pid in called("blockd") + called("stratod"):
            self.assertEqual(int(read(f"/proc/{pid}/coredump_filter"), 16), 0)
        (b,) = called("blockd")
        if not BUILD.endswith("-asan"):  # LeakSanitizer looks at its own process
            self.assertEqual(os.stat(f"/proc/{b}/maps").st_uid, 0)
            uid = os.stat(STATE + "/blockd").st_uid
            self.assertEqual(as_user([("read", f"/proc/{b}/maps"), ("read", f"/proc/{b}/environ")], uid=uid),
                             ["EACCES", "EACCES"])

    # ---- text that users write, and secrets

    def texts(self, top):
        """Every file below that takes text of a user's."""
        for path in files(top):
            name = os.path.basename(path)
            if os.lstat(path).st_mode & 0o222 and name not in XML_BY_ADMINS | {"ctl", "spec", "error", "errors", "new", "data"} and \
                    "/.wait" not in path:
                yield path

    def hurt(self, top):
        """Writes all of NASTY into each, leaves what was taken there last; how many were."""
        taken = 0
        for path in list(self.texts(top)):
            was = read(path, "b")
            for n, text in enumerate(NASTY):
                if write(path, text) != 0:
                    continue
                taken += 1
                self.assertIn(read(path, "b").rstrip(b"\n"), (text.rstrip(b"\n"), text.rstrip(b"\r\n")), (path, text))
                self.assertNotIn(b"\0", text, path)
            if MARK.encode() not in read(path, "b") and read(path, "b") != was:
                write(path, was)
        return taken

    def test_text_is_only_text(self):
        i = A + "/instances/i"
        network = A + "/networks/default"
        os.mkdir(i)
        os.symlink(network, i + "/networks/default")
        os.mkdir(A + "/load_balancers/l")
        listener = A + "/load_balancers/l/listeners/w"
        os.mkdir(listener)
        os.mkdir(A + "/security_groups/g")
        os.environ["PWNED"] = T + "/touched"
        for top in (i, A + "/volumes/v", network, A + "/load_balancers/l", A + "/security_groups/g"):
            self.assertGreater(self.hurt(top), 5, top)
            for n, text in enumerate(NASTY):  # and as what a user calls things
                name = text.decode(errors="replace").replace("/", "-").replace("\0", "-")[:200]
                try:
                    with open(f"{top}/metadata/{name}", "wb") as f:
                        f.write(text)
                except OSError as e:
                    self.assertIn(e.errno, (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EDQUOT, errno.EFBIG), name)
        for text in NASTY:
            name = text.decode(errors="surrogateescape").replace("\0", "-")
            if "/" in name:
                continue
            for kind in ("instances", "volumes", "networks", "load_balancers"):
                try:
                    os.mkdir(f"{A}/{kind}/{name}")
                    self.assertRegex(name, r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
                    os.rmdir(f"{A}/{kind}/{name}")
                except OSError as e:
                    self.assertIn(e.errno, (errno.EINVAL, errno.ENAMETOOLONG), (kind, name))
        for path in (A + "/errors", A + "/events", C + "/self/error"):
            self.assertFalse(re.search(rb"[\0-\x08\x0b-\x1f\x7f]|^pwned", read(path, "b"), re.M), path)
            read(path, "b").decode()
        self.start(i, network, listener)
        self.nothing_got_through(i)
        self.secrets_are_nowhere(i)

    def start(self, i, network, listener):
        for path in (i + "/zone", i + "/features"):  # words that a host must have
            write(path, "\n")
        for path, value in ((i + "/flavor", "tiny"), (i + "/screen", "vnc"), (listener + "/port", "80")):
            self.assertEqual(write(path, value), 0, (path, read(A + "/errors")))
        with open(i + "/metadata/user_data", "w") as f:
            f.write("#cloud-config " + SECRETS["user data"])
        os.symlink(network, A + "/load_balancers/l/network")
        os.symlink(i, listener + "/members/i")
        os.symlink(A + "/volumes/v", i + "/volumes/vda")
        self.assertEqual(write(i + "/ctl", "start"), 0, read(A + "/errors"))
        state(i, "active")
        self.assertEqual(write(i + "/ctl", "vnc"), 0)
        until(lambda: "password " in read(i + "/vnc") or read(i + "/error"))
        self.assertIn("password ", read(i + "/vnc"), read(i + "/error"))
        SECRETS["VNC password"] = re.search(r"password (\S+)", read(i + "/vnc"))[1]

    def nothing_got_through(self, i):
        self.assertFalse(os.path.exists(T + "/touched"))
        domains = [p for p in files(STATE) if p.endswith(".xml") and "/cache/" not in p]
        self.assertTrue(any("/libvirt/" in p for p in domains), domains)
        for path in domains:
            for e in xml.fromstring(read(path, "b")).iter():
                self.assertNotIn(MARK, e.tag, path)
                self.assertFalse([k for k in e.attrib if MARK in k], path)
                self.assertNotIn("LD_PRELOAD", str(e.attrib))
        for pid, argv in ours().items():
            self.assertFalse([a for a in argv if MARK.encode() in a], argv)
            self.assertNotIn(b"pwned\0", read(f"/proc/{pid}/environ", "b").replace(b"PWNED=", b""))
            self.assertFalse([v for v in read(f"/proc/{pid}/environ", "b").split(b"\0")
                              if v.startswith(b"LD_PRELOAD=/pwned") or b"pwned" in v])
        for path in files(STATE + "/run/net"):
            if "/meta/" not in path:
                self.assertNotIn(MARK.encode(), read(path, "b"), path)
        for name in ("dnsmasq", "haproxy", "stratofs-metadata", "qemu-system-x86_64"):
            until(lambda n=name: called(n))

    def secrets_are_nowhere(self, i):
        """Nor is the token of the console's or the metadata service's: they are in memory alone."""
        SECRETS["blockd's passphrase"] = self.encrypted()
        for what, secret in SECRETS.items():
            secret = secret.encode()
            for pid, argv in ours().items():
                self.assertNotIn(secret, b" ".join(argv), what)
                self.assertNotIn(secret, read(f"/proc/{pid}/environ", "b"), what)
            for path in files(STATE):
                if path.startswith(STATE + "/libvirt/run/qemu/"):  # libvirt's own notes of a running guest
                    if secret in read(path, "b"):
                        self.assertEqual((os.stat(path).st_mode & 0o777, os.stat(path).st_uid), (0o600, 0), path)
                elif "/log/" in path or path.endswith((".xml", ".log", ".conf", ".cfg")) or "/instances/" in path:
                    self.assertNotIn(secret, read(path, "b"), (what, path))
                if secret in read(path, "b"):  # where it is kept it is root's alone, or of who serves it
                    self.assertEqual(os.stat(path).st_mode & 0o007, 0, (what, path))
            for name in ("events", "error", "spec", "domain.xml"):
                self.assertNotIn(secret, read(f"{i}/{name}", "b").replace(SECRETS["user data"].encode(), b"")
                                 if name == "spec" else read(f"{i}/{name}", "b"), (what, name))
        for folder in ("log", "stratod", "blockd", "keys"):
            self.assertEqual(os.stat(f"{STATE}/{folder}").st_mode & 0o077, 0, folder)

    def encrypted(self):
        os.mkdir(A + "/volumes/e")
        self.assertEqual(write(A + "/volumes/e/encrypted", "1"), 0)
        self.assertEqual(write(A + "/volumes/e/size", "8M"), 0)
        state(A + "/volumes/e", "available")
        uid = str(os.stat(STATE + "/blockd").st_uid)
        name = "stratofs:" + read(A + "/volumes/e/id").strip()
        key = run("setpriv", "--reuid=" + uid, "--clear-groups", "keyctl", "search", "@u", "user", name)
        self.assertEqual(key.returncode, 0, key.stderr)
        text = run("setpriv", "--reuid=" + uid, "--clear-groups", "keyctl", "print", key.stdout.decode().strip())
        self.assertGreater(len(text.stdout.strip()), 20)
        return text.stdout.decode().strip()


def in_folder():
    folder = tempfile.mkdtemp(prefix="st.")
    os.chmod(folder, 0o711)
    os.environ["TEST_FOLDER"] = folder
    os.environ["LC_ALL"] = "C"
    try:
        script = ("ip link set lo up; mkdir $TEST_FOLDER/cgroup; mount --rbind /sys/fs/cgroup $TEST_FOLDER/cgroup && "
                  "mount -t sysfs sysfs /sys && mount --move $TEST_FOLDER/cgroup /sys/fs/cgroup && "
                  "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$@\"")
        return subprocess.run(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
                               sys.executable, os.path.abspath(__file__), *sys.argv[1:]], check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    missing = [p for p in ("qemu-system-x86_64", "dnsmasq", "haproxy", "setpriv", "unshare", "keyctl") if not shutil.which(p)]
    if os.getuid() != 0 or missing:
        print("SKIP: only for root, with", *missing, file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    if not T:
        sys.exit(in_folder())
    unittest.main(verbosity=2)
