#!/usr/bin/python3
"""stratofs-hold and a blockd that is killed: clients queue, nothing acknowledged is lost; and the
holder by itself, with programs that are worse than blockd."""
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid

import nbd
from rig import HOLDER, MB, Blockd, Case, Client, Held, load, main


def pss(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.M).group(1))


class Killed(Case):
    def setUp(self):
        self.d = Held()
        self.addCleanup(self.d.clean)

    def wait_new(self, old):
        while self.d.pid == old:
            pass

    def lives(self, pid):
        with open("/proc/%d/status" % pid) as f:
            return "zombie" not in f.read()

    def test_killed_under_load(self):
        base = self.d.create(8 * MB)
        clients = [Client(self.d.export(v), 8 * MB, i) for i, v in
                   enumerate((base, self.d.clone(base, 8 * MB), self.d.create(8 * MB)))]
        with load(clients) as step:
            for _ in range(8):
                self.wait_new(self.d.kill())
                step()
        for c in clients:
            self.assertGreater(c.reconnects, 0)
            c.check()
        print("longest gap %.0f ms" % (1000 * max(c.gap for c in clients)), file=sys.stderr)

    def test_tcp(self):
        """The port stays ours while blockd is away, also one that the kernel chose."""
        d = Held(options=["--listen", "127.0.0.1:0", "--plain-tcp"])
        self.addCleanup(d.clean)
        port = d.ports()[0]
        v = d.create(MB)
        d.export(v, id="x", clients=["any"])
        pid = d.pid
        os.kill(d.process.pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        while self.lives(pid):
            pass
        with socket.create_connection(("127.0.0.1", port), 60) as s:
            os.kill(d.process.pid, signal.SIGCONT)
            self.assertEqual(s.recv(8), b"NBDMAGIC")
        h = nbd.NBD()
        h.connect_uri("nbd://127.0.0.1:%d/x" % port)
        self.assertEqual(h.get_size(), MB)
        h.shutdown()

    def test_connect_during_the_outage(self):
        """The program is away for as long as we like: connect() succeeds, and waits."""
        v = self.d.create(MB)
        path = self.d.export(v)
        inode = os.stat(path).st_ino
        pid = self.d.pid
        os.kill(self.d.process.pid, signal.SIGSTOP)  # so that nobody starts it again
        os.kill(pid, signal.SIGKILL)
        while self.lives(pid):
            pass
        for p in (path, self.d.shared, self.d.control):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(p)
        waiting = []
        for _ in range(10):
            s = socket.socket(socket.AF_UNIX)
            self.addCleanup(s.close)
            s.connect(path)
            waiting.append(s)
        os.kill(self.d.process.pid, signal.SIGCONT)
        for s in waiting:
            s.settimeout(30)
            self.assertEqual(s.recv(8), b"NBDMAGIC")
        self.assertEqual(os.stat(path).st_ino, inode)
        self.assertNotEqual(self.d.pid, pid)

    def test_sockets_that_changed_meanwhile(self):
        """A guest removes or replaces its socket's name: it gets a new socket."""
        paths = [self.d.export(self.d.create(MB)) for _ in range(3)]
        inodes = [os.stat(p).st_ino for p in paths]
        os.unlink(paths[0])
        os.rename(paths[1], paths[1] + ".moved")
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(paths[1])
            self.wait_new(self.d.kill())
        for p in paths:
            h = nbd.NBD()
            h.connect_unix(p)
            self.assertEqual(h.get_size(), MB)
            h.shutdown()
        self.assertEqual([os.stat(p).st_ino == i for p, i in zip(paths, inodes)],
                         [False, False, True])
        with socket.socket(socket.AF_UNIX) as s:
            # Nobody holds the old one any more.
            while True:
                try:
                    s.connect(paths[1] + ".moved")
                    s.close()
                    s = socket.socket(socket.AF_UNIX)
                except ConnectionRefusedError:
                    break

    def test_unexport_lets_go(self):
        held = self.held()
        x = "x" + uuid.uuid4().hex
        v = self.d.create(MB)
        self.d.export(v, id=x)
        self.wait_held(held + 1)
        self.d.ok("unexport", id=x)
        self.wait_held(held)
        self.wait_new(self.d.kill())
        self.wait_held(held)

    def test_failed_start_lets_nothing_go(self):
        """A successor that cannot start, and starts of the holder that fail: all is still held."""
        path = self.d.export(self.d.create(MB))
        inode, pid = os.stat(path).st_ino, self.d.pid
        self.wait_held(3)
        limits = os.path.join(self.d.state, "limits")
        os.rename(limits, limits + ".x")
        with open(limits, "w"):
            pass
        self.assertFalse(self.d.call("replace")["ok"])
        self.wait_held(3)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while self.d.log().count("start: open") < 3:
            self.assertLess(time.monotonic(), deadline, self.d.log())
        os.unlink(limits)
        os.rename(limits + ".x", limits)
        h = nbd.NBD()
        h.connect_unix(path)
        self.assertEqual(h.get_size(), MB)
        self.assertEqual(os.stat(path).st_ino, inode)
        self.wait_held(3)

    def held(self):
        """Sockets that listen in the holder, beside the one that it hears us by."""
        top = "/proc/%d/fd" % self.d.process.pid
        return sum(os.readlink(os.path.join(top, f)).startswith("socket:")
                   for f in os.listdir(top)) - 1

    def wait_held(self, n):
        deadline = time.monotonic() + 30
        while self.held() != n:
            self.assertLess(time.monotonic(), deadline, "%d held, not %d" % (self.held(), n))

    def test_holder_is_small(self):
        for _ in range(100):
            self.d.export(self.d.create(MB))
        print("holder of 102 sockets: PSS %d KiB" % pss(self.d.process.pid), file=sys.stderr)
        self.wait_held(102)
        self.wait_new(self.d.kill())
        self.assertEqual(len(self.d.ok("list_exports")["exports"]), 100)
        self.wait_held(102)

    def test_second_blockd(self):
        """On the same run folder, with a state of its own: refused, and the first one serves on."""
        other = os.path.join(self.d.top, "other")
        inode = os.stat(self.d.control).st_ino
        with self.assertRaisesRegex(AssertionError, "another blockd is using '[^']*/run'"):
            Blockd(state=other, top=self.d.top)
        self.assertEqual(os.stat(self.d.control).st_ino, inode)
        self.d.ok("ping")


class Holder(Case):
    """Programs made of Python, that say which start this is by a file."""

    def setUp(self):
        self.d = Blockd()  # for its folder
        self.addCleanup(self.d.clean)

    PROGRAM = '''
import os, signal, socket, sys, time
top = sys.argv[1]
def notify(text, fds=()):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0"))
    socket.send_fds(s, [text.encode()], list(fds))
starts = os.path.join(top, "starts")
with open(starts, "a") as f:
    f.write("x")
start = os.path.getsize(starts)
listen = (os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_FDNAMES"),
          os.environ.get("LISTEN_PID") == str(os.getpid()))
'''

    def hold(self, program, *options):
        return subprocess.Popen([HOLDER, *options, "--", "/usr/bin/python3", "-c",
                                 self.PROGRAM + program, self.d.top],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def run_hold(self, program):
        p = self.hold(program)
        out = p.communicate(timeout=60)[0]
        return p.returncode, out

    def test_ends_like_its_program(self):
        self.assertEqual(self.run_hold("sys.exit(0)"), (0, ""))
        self.assertEqual(self.run_hold("sys.exit(7)"), (7, ""))
        self.assertEqual(self.run_hold("os.kill(os.getpid(), 11)"), (-11, ""))
        self.assertEqual(subprocess.run([HOLDER, "--", "/nowhere"], stderr=subprocess.DEVNULL,
                                        check=False).returncode, 127)

    def test_started_again_until_it_is_content(self):
        self.assertEqual(self.run_hold('''
notify("READY=1")
if start < 6:
    os.kill(os.getpid(), 9) if start % 2 else os._exit(3)
print(start)
'''), (0, "6\n"))

    def test_descriptors(self):
        """Names, order, doubles, removal; a bad name; ours are still ours."""
        self.assertEqual(self.run_hold('''
def pipe(text):
    r, w = os.pipe()
    os.write(w, text)
    return r
if start == 1:
    assert listen == (None, None, False), listen
    a = pipe(b"aa")
    notify("FDSTORE=1\\nFDNAME=a", [a])
    notify("FDSTORE=1\\nFDNAME=a", [a])
    notify("FDSTORE=1\\nFDNAME=b", [pipe(b"b1"), pipe(b"b2")])
    notify("FDSTORE=1\\nFDNAME=c", [pipe(b"c")])
    notify("FDSTORE=1\\nFDNAME=bad:name", [a])
    notify("NOTHING=known", [a])
    notify("READY=1")
    os.kill(os.getpid(), 9)
elif start == 2:
    assert listen == ("4", "a:b:b:c", True), listen
    for fd, text in zip(range(3, 7), (b"aa", b"b1", b"b2", b"c")):
        assert os.read(fd, 9) == text
    notify("FDSTOREREMOVE=1\\nFDNAME=b")
    notify("FDSTOREREMOVE=1\\nFDNAME=nobody")
    os._exit(1)
else:
    assert listen == ("2", "a:c", True), listen
    print("good")
'''), (0, "good\n"))

    def test_many_descriptors(self):
        """More than it will hold: it holds what it can, and the program starts."""
        self.assertEqual(self.run_hold('''
if start == 1:
    for i in range(700):
        notify("FDSTORE=1\\nFDNAME=" + "%0200d" % i, [0])
    notify("READY=1")
    os.kill(os.getpid(), 9)
print(listen[0], len(listen[1]) + 1)
'''), (0, "%d %d\n" % ((100 << 10) // 201, (100 << 10) // 201 * 201)))

    def test_a_successor(self):
        """The main process names another, ends, and the holder follows that one."""
        p = self.hold('''
if start == 1:
    notify("READY=1")
    pid = os.fork()
    if pid:
        notify("MAINPID=%d" % pid)
        os._exit(0)
    while os.getppid() != int(sys.argv[2]) if len(sys.argv) > 2 else False:
        pass
    signal.signal(signal.SIGTERM, lambda *a: (print("told"), sys.stdout.flush(), os._exit(0)))
    print("here")
    sys.stdout.flush()
    while True:
        signal.pause()
''')
        self.assertEqual(p.stdout.readline(), "here\n")
        p.terminate()
        self.assertEqual(p.communicate(timeout=60)[0], "told\n")
        self.assertEqual(p.returncode, 0)

    def test_a_successor_that_dies(self):
        self.assertEqual(self.run_hold('''
if start == 1:
    notify("READY=1")
    pid = os.fork()
    if pid:
        notify("MAINPID=%d" % pid)
        os._exit(0)
    os.kill(os.getpid(), 9)
print(start)
'''), (0, "2\n"))

    def test_a_successor_that_nobody_sees_die(self):
        """The one before it reaps it, and dies without a word."""
        self.assertEqual(self.run_hold('''
if start == 1:
    notify("READY=1")
    pid = os.fork()
    if pid == 0:
        signal.pause()
    notify("MAINPID=%d" % pid)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.kill(os.getpid(), 9)
print(start)
'''), (0, "2\n"))

    def test_told_to_end_while_it_waits(self):
        """A program that always dies, and SIGTERM in between."""
        p = self.hold('''
notify("READY=1")
if start == 8:
    print("often")
    sys.stdout.flush()
os._exit(1)
''')
        self.assertEqual(p.stdout.readline(), "often\n")
        p.terminate()
        p.communicate(timeout=60)
        self.assertIn(p.returncode, (0, 1, -signal.SIGTERM))

    def test_strangers_are_not_heard(self):
        """Another uid sends: nothing is stored, nothing believed."""
        if os.getuid() != 0:
            self.skipTest("only root can be another")
        self.assertEqual(self.run_hold('''
if start == 1:
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        notify("FDSTORE=1\\nFDNAME=evil", [0])
        notify("READY=1\\nMAINPID=1")
        os._exit(0)
    os.waitpid(pid, 0)
    notify("FDSTORE=1\\nFDNAME=good", [0])
    notify("READY=1")
    os.kill(os.getpid(), 9)
print(listen[1])
'''), (0, "good\n"))


main()
