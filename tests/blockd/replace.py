#!/usr/bin/python3
"""blockd replaced under load: clients notice nothing; and successors that fail."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import uuid

import credentials
import nbd
from rig import BLOCKD, MB, Case, Client, Held, load, main


def get(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            raise AssertionError("the server closed the connection")
        data += piece
    return data


def option(number, data):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def request(command, cookie, offset, length):
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length)


def handshake(s):
    """By EXPORT_NAME, without zeroes: transmission with simple replies."""
    get(s, 18)
    s.sendall(struct.pack(">I", 3) + option(1, b""))
    get(s, 10)


# In a successor's place: starts one, and passes on what the two say.
PROXY = """#!/usr/bin/python3
import json, os, signal, socket, struct, sys, time
old = os.getppid()
s = socket.socket(fileno=3)
ours, theirs = socket.socketpair()
child = os.fork()
if child == 0:
    os.dup2(theirs.fileno(), 3)
    os.set_inheritable(3, True)
    os.execv('%s', ['%s'] + sys.argv[1:])
theirs.close()
def pass_on(a, b):
    head, fds, flags, who = socket.recv_fds(a, 8, 1)
    if len(head) < 8:
        sys.exit(0)
    n, k = struct.unpack('=II', head)
    rest = a.recv(n + k, socket.MSG_WAITALL)
    socket.send_fds(b, [head], fds)
    b.sendall(rest)
    for fd in fds:
        os.close(fd)
    return json.loads(rest[:n])
answers = 1  # those of the successor that are to come
def pass_until(*ops):
    global answers
    while True:
        for _ in range(answers):
            pass_on(ours, s)
        m = pass_on(s, ours)
        answers = m['op'] in ('start', 'arrived', 'done')
        if m['op'] in ops:
            return m
"""


class Program(Held):
    """A blockd that is started from a copy, which tests put something else in place of."""

    def start(self, fault=None):
        self.program = os.path.join(self.top, "blockd")
        self.put_blockd()
        super().start(fault)

    def put(self, text):
        with open(self.program + ".new", "w") as f:
            f.write(text)
        os.chmod(self.program + ".new", 0o755)
        os.rename(self.program + ".new", self.program)

    def put_blockd(self):
        shutil.copy(BLOCKD, self.program + ".new")
        os.rename(self.program + ".new", self.program)


class Replacing(Case):
    options = ()

    def setUp(self):
        self.d = Program(options=self.options)
        self.addCleanup(self.d.clean)

    def raw(self, path):
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(60)
        s.connect(path)
        return s

    def replace(self):
        p = subprocess.run([BLOCKD, "--replace", "--run", self.d.run], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
        self.assertEqual(p.returncode, 0, p.stdout + self.d.log())
        self.assertEqual(self.d.pid, int(p.stdout))
        return int(p.stdout)

    def refused(self):
        """Words of a replacement that fails; the one that runs stays."""
        pid = self.d.pid
        a = self.d.call("replace")
        self.assertFalse(a["ok"], a)
        self.assertEqual(self.d.pid, pid)
        return a["error"]


class Replace(Replacing):
    def clients(self):
        base = self.d.create(8 * MB)
        volumes = [base] + [self.d.clone(base, 8 * MB) for _ in range(2)] + [self.d.create(8 * MB)]
        clients = [Client(self.d.export(v), 8 * MB, i) for i, v in enumerate(volumes)]
        for c in clients:
            c.may_reconnect = False
        return clients

    def test_under_load(self):
        """Twenty in a row: no client reconnects, none sees an error, every byte is right."""
        clients = self.clients()
        inode = os.stat(clients[0].path).st_ino
        pids = {self.d.pid}
        with load(clients) as step:
            for _ in range(20):
                step(6)
            usual = [c.gap for c in clients]
            for c in clients:
                c.gap = 0
            for _ in range(20):
                pids.add(self.replace())
                step()
        self.assertEqual(len(pids), 21)
        self.assertEqual(os.stat(clients[0].path).st_ino, inode)
        gap = max(c.gap for c in clients)
        print("longest gap %.1f ms, without replacements %.1f ms" %
              (1000 * gap, 1000 * max(usual)), file=sys.stderr)
        self.assertLess(gap, 5)
        for c in clients:
            self.assertEqual(c.h.pread(c.size, 0), c.model)
            c.h.shutdown()
        self.d.stop()
        self.d.start()
        for c in clients:
            c.check()

    def test_killed_and_replaced(self):
        """What is unflushed goes through replacements and kills alike."""
        clients = self.clients()
        for c in clients:
            c.may_reconnect = True
        with load(clients) as step:
            for _ in range(4):
                self.replace()
                step()
                pid = self.d.kill()
                while self.d.pid == pid:
                    pass
                step()
        for c in clients:
            c.check()

    def test_checks_meanwhile(self):
        """A check that runs is ended, and who asks the successor finds that there is none."""
        clients = self.clients()
        v = self.d.create(64 * MB)
        h = nbd.NBD()
        h.connect_uri(self.d.uri(v))
        h.pwrite(b"x" * (32 * MB), 0)
        h.shutdown()
        with load(clients) as step:
            for _ in range(3):
                self.d.ok("check", id=v, start=True, scrub=True, rate=MB, token="9")
                self.replace()
                step()
                self.assertEqual(self.d.ok("check", id=v)["state"], "none")
        for c in clients:
            self.assertEqual(c.reconnects, 0)
            c.check()

    def test_in_the_middle(self):
        """Of a payload, of a request's head, of the handshake, of nothing; unread replies."""
        v = self.d.create(8 * MB)
        path = self.d.export(v)
        data = os.urandom(MB)
        payload, head, fresh, halfway, resting = (self.raw(path) for _ in range(5))
        for s in (payload, head, resting):
            handshake(s)
        get(fresh, 3)
        get(halfway, 18)
        halfway.sendall(struct.pack(">I", 3) + option(8, b"") + b"IHAVE")
        get(halfway, 20)
        payload.sendall(request(1, 7, 4096, MB) + data[:300001])
        ask = request(0, 9, 4096, 1000)
        head.sendall(ask[:11])
        shared = self.raw(self.d.shared)
        get(shared, 18)
        shared.sendall(struct.pack(">I", 3))
        for i in range(3):
            self.replace()
            payload.sendall(data[300001 + i * 100000:300001 + (i + 1) * 100000])
        payload.sendall(data[600001:])
        self.assertEqual(get(payload, 16), struct.pack(">IIQ", 0x67446698, 0, 7))
        head.sendall(ask[11:])
        self.assertEqual(get(head, 16 + 1000),
                         struct.pack(">IIQ", 0x67446698, 0, 9) + data[:1000])
        resting.sendall(request(0, 8, 4095, 2))
        self.assertEqual(get(resting, 18), struct.pack(">IIQ", 0x67446698, 0, 8) + b"\0" + data[:1])
        get(fresh, 15)
        fresh.sendall(struct.pack(">I", 3) + option(1, b""))
        self.assertEqual(get(fresh, 10)[:8], struct.pack(">Q", 8 * MB))
        halfway.sendall(option(1, b"")[5:])
        get(halfway, 10)
        halfway.sendall(request(0, 5, 4096, 10))
        # Structured replies were chosen before the first replacement.
        self.assertEqual(get(halfway, 4), struct.pack(">I", 0x668e33ef))
        shared.sendall(option(1, v.encode()))
        self.assertEqual(get(shared, 10)[:8], struct.pack(">Q", 8 * MB))

    def test_contexts(self):
        """Metadata contexts stay selected."""
        v = self.d.create(MB)
        self.d.export(v)
        snap = str(uuid.uuid4())
        h = nbd.NBD()
        h.add_meta_context("base:allocation")
        h.add_meta_context("stratofs:dirty/" + snap)
        self.d.ok("snapshot", id=snap, volume=v)
        h.connect_uri(self.d.uri(v))
        h.pwrite(b"x" * 4096, 65536)
        self.assertTrue(h.can_meta_context("stratofs:dirty/" + snap))
        seen = []
        for _ in range(2):
            extents = {}
            h.block_status(MB, 0, lambda name, off, e, err: extents.update({name: list(e)}) or 0)
            seen.append(extents)
            self.replace()
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0]["stratofs:dirty/" + snap][:4], [65536, 0, 4096, 1])

    def test_one_that_does_not_read(self):
        """Its replies fill the socket: it is closed, the others are not."""
        c = Client(self.d.export(self.d.create(8 * MB)), 8 * MB, 1)
        c.may_reconnect = False
        lazy = self.raw(self.d.export(self.d.create(8 * MB)))
        handshake(lazy)
        lazy.sendall(b"".join(request(0, i, 0, MB) for i in range(8)))
        get(lazy, 100)
        with load([c]) as step:
            step()
            self.replace()
            step()
        with self.assertRaisesRegex(AssertionError, "closed"):
            get(lazy, 8 * (MB + 16))

    def test_held_to_their_limits(self):
        """Guests with requests that wait for their limit's sake: nobody waits for them, and they
        are handed over with what they asked for."""
        c = Client(self.d.export(self.d.create(8 * MB)), 8 * MB, 1)
        c.may_reconnect = False
        slow, debt, alone = (self.d.create(64 * MB) for _ in range(3))
        self.d.ok("limit", id=slow, iops=2)
        self.d.ok("limit", id=debt, bandwidth=MB)
        self.d.ok("limit", id=alone, bandwidth=MB)
        paths = [self.d.export(v) for v in (slow, debt, alone)]
        socks = [self.raw(p) for p in paths]
        for s in socks:
            handshake(s)
        # What QEMU has in flight; and one that goes into debt for longer than anyone waits.
        socks[0].sendall(b"".join(request(0, i, 0, 4096) for i in range(16)))
        big = request(0, 1, 0, 32 * MB)
        socks[1].sendall(big + request(0, 2, 0, 512) + request(0, 3, 0, 512)[:20])
        get(socks[1], 16 + 32 * MB)
        data = os.urandom(600000)
        socks[2].sendall(big)
        get(socks[2], 16 + 32 * MB)
        socks[2].sendall(request(1, 2, 4096, len(data)) + data[:100000])
        done = []
        with load([c]) as step:
            for _ in range(2):
                step()
                done.append(struct.unpack(">IIQ", get(socks[0], 16 + 4096)[:16]))
                self.replace()
            step()
        socks[1].sendall(request(0, 3, 0, 512)[20:])
        socks[2].sendall(data[100000:])
        for i in (2, 3):
            self.assertEqual(get(socks[1], 16 + 512)[:16], struct.pack(">IIQ", 0x67446698, 0, i))
        self.assertEqual(get(socks[2], 16), struct.pack(">IIQ", 0x67446698, 0, 2))
        self.d.ok("limit", id=alone)
        h = nbd.NBD()
        h.connect_unix(paths[2])
        self.assertEqual(h.pread(len(data), 4096), data)
        self.d.ok("limit", id=slow)
        while len(done) < 16:
            done.append(struct.unpack(">IIQ", get(socks[0], 16 + 4096)[:16]))
        self.assertEqual(done, [(0x67446698, 0, i) for i in range(16)])
        self.assertLessEqual(self.d.ok("stats", id=slow)["read"]["ops"], 16)

    def test_one_that_reads_slowly(self):
        """It takes a reply piece by piece: it is not what does not read at all."""
        slow = self.raw(self.d.export(self.d.create(8 * MB)))
        handshake(slow)
        slow.sendall(b"".join(request(0, i, 0, MB) for i in range(4)))
        got, over = bytearray(), threading.Event()

        def read():
            while not over.is_set():
                got.extend(get(slow, 64 << 10))
                over.wait(0.1)

        t = threading.Thread(target=read)
        t.start()
        self.replace()
        over.set()
        t.join()
        self.assertEqual(len(got) + len(get(slow, 4 * (MB + 16) - len(got))), 4 * (MB + 16))

    def test_a_long_call(self):
        """A call that takes too long: it is not replaced, until that has ended."""
        self.d.stop()
        self.d.start(fault="volume.create=delay:15000:1")
        first, done = str(uuid.uuid4()), []
        t = threading.Thread(target=lambda: done.append(self.d.call("create", id=first, size=MB)))
        t.start()
        while not os.path.exists(os.path.join(self.d.state, "pool", first)):
            pass
        self.assertIn("takes too long", self.refused())
        self.assertEqual(done, [])
        t.join()
        self.assertTrue(done[0]["ok"], done)
        self.replace()

    def test_new_clients_meanwhile(self):
        """Clients come and go all the time, and control calls with them."""
        path = self.d.export(self.d.create(MB))
        over, errors, done = threading.Event(), [], [0, 0]

        def come(i):
            try:
                while not over.is_set():
                    h = nbd.NBD()
                    h.connect_unix(path)
                    h.pread(512, 0)
                    h.shutdown()
                    done[i] += 1
            except Exception as e:
                errors.append(e)

        threads = [threading.Thread(target=come, args=(i,)) for i in range(2)]
        for t in threads:
            t.start()
        for _ in range(10):
            before = list(done)
            self.replace()
            while not errors and any(a <= b for a, b in zip(done, before)):
                pass
        over.set()
        for t in threads:
            t.join()
        self.assertEqual(errors, [])

    def test_by_signal(self):
        """SIGHUP, to the holder as to blockd itself."""
        for target in (lambda: self.d.process.pid, lambda: self.d.pid):
            pid = self.d.pid
            os.kill(target(), signal.SIGHUP)
            while True:
                try:
                    if self.d.pid != pid:
                        break
                except ValueError:  # the old one ended without an answer: ask again
                    pass

    def test_bad_successors(self):
        clients = self.clients()
        with load(clients) as step:
            for text in ("not a program", "#!/bin/sh\nexit 3\n", "#!/bin/sh\nkill -9 $$\n",
                         "#!/bin/sh\nexec " + BLOCKD + " --nonsense \"$@\"\n",
                         # It says it is there, and ends before or in the middle of its part.
                         "#!/usr/bin/python3\nimport json, os, struct\n"
                         "t = json.dumps({'op': 'hello', 'format': 1}).encode()\n"
                         "os.write(3, struct.pack('=II', len(t), 0) + t)\nos.read(3, 4)\n",
                         "#!/usr/bin/python3\nimport json, os, struct\n"
                         "t = json.dumps({'op': 'hello', 'format': 99}).encode()\n"
                         "os.write(3, struct.pack('=II', len(t), 0) + t)\nos.read(3, 4)\n"):
                self.d.put(text)
                self.assertIn("replace", self.refused())
                step()
            self.d.put_blockd()
            self.replace()
            step()

    def test_successor_dies_midway(self):
        """It says it has everything, takes one volume, and dies: the rest never notices, and what
        it took is served again."""
        clients = self.clients()
        for c in clients:
            c.may_reconnect = True
        program = """#!/usr/bin/python3
import json, socket, struct
s = socket.socket(fileno=3)
def say(op):
    t = json.dumps({'op': op, 'format': 1}).encode()
    s.sendall(struct.pack('=II', len(t), 0) + t)
def hear():
    head, fds, flags, who = socket.recv_fds(s, 8, 1)
    n, k = struct.unpack('=II', head)
    t = json.loads(s.recv(n, socket.MSG_WAITALL))
    if k:
        s.recv(k, socket.MSG_WAITALL)
    return t['op']
say('hello')
while hear() != 'start':
    pass
say('ok')
while hear() != 'arrived':
    pass
"""
        with load(clients) as step:
            self.d.put(program)
            self.refused()
            step()
            self.d.put_blockd()
            self.replace()
            step()
        self.assertEqual(sum(c.reconnects > 0 for c in clients), 1)
        for c in clients:
            c.check()

    def test_counted_once(self):
        """What a connection did is counted once when it is not handed over after all."""
        v = self.d.create(MB)
        s = self.raw(self.d.export(v))
        handshake(s)
        for i in range(3):
            s.sendall(request(0, i, 0, 512))
            get(s, 16 + 512)
        self.d.put("""#!/usr/bin/python3
import json, socket, struct
s = socket.socket(fileno=3)
def say(op):
    t = json.dumps({'op': op, 'format': 1}).encode()
    s.sendall(struct.pack('=II', len(t), 0) + t)
say('hello')
while True:
    head, fds, flags, who = socket.recv_fds(s, 8, 1)
    if json.loads(s.recv(struct.unpack('=II', head)[0], socket.MSG_WAITALL))['op'] == 'start':
        break
s.shutdown(socket.SHUT_RD)  # no connection can be sent
say('ok')
""")
        for i in range(2):
            self.refused()
            s.sendall(request(0, 9, 0, 512))
            get(s, 16 + 512)
            self.assertEqual(self.counted(v, "read", 4 + i)["read"]["ops"], 4 + i)

    def counted(self, v, op, n):
        """The counters, once there are as many: counting comes after the reply."""
        while True:
            a = self.d.ok("stats", id=v)
            if a[op]["ops"] >= n:
                return a

    def test_failed_write_is_counted(self):
        """One whose payload was arriving when it was handed over."""
        self.d.stop()
        self.d.start(fault="")
        v = self.d.create(MB)
        s = self.raw(self.d.export(v))
        handshake(s)
        s.sendall(request(1, 1, 0, 500000) + bytes(300001))
        self.replace()
        self.d.ok("fault", points="volume.write=EIO")
        s.sendall(bytes(500000 - 300001))
        self.assertEqual(get(s, 16), struct.pack(">IIQ", 0x67446698, 5, 1))
        a = self.counted(v, "write", 1)
        self.assertEqual({k: a["write"][k] for k in ("ops", "bytes", "errors")},
                         {"ops": 1, "bytes": 0, "errors": 1})
    def test_predecessor_dies_midway(self):
        """The successor goes on with what it has."""
        clients = self.clients()
        for c in clients:
            c.may_reconnect = True
        pid = self.d.pid
        self.d.put(PROXY % (BLOCKD, BLOCKD) + """
pass_until('arrived')
os.kill(old, signal.SIGKILL)
""")
        with load(clients) as step:
            with self.assertRaises(ValueError):
                self.d.call("replace")
            step()
            self.assertNotEqual(self.d.pid, pid)
            self.d.put_blockd()
        self.assertLess(sum(c.reconnects > 0 for c in clients), len(clients))
        for c in clients:
            c.check()

    def test_successor_asked_to_be_replaced(self):
        """One that still takes over does not hand on what it has."""
        clients = self.clients()
        for c in clients:
            c.may_reconnect = False
        self.d.put(PROXY % (BLOCKD, BLOCKD) + """
pass_until('arrived')
os.kill(child, signal.SIGHUP)
while 'it takes over itself' not in open('%s').read():
    time.sleep(0.01)
while pass_until('arrived', 'done')['op'] == 'arrived':
    pass
pass_on(ours, s)
""" % os.path.join(self.d.top, "log"))
        with load(clients) as step:
            step()
            old = self.d.pid
            self.d.ok("replace")
            self.assertNotEqual(self.d.pid, old)
            self.d.put_blockd()
            step()
        for c in clients:
            c.check()

    def test_successor_told_to_end(self):
        """Before it has a volume that somebody waits for: it ends, and with it all."""
        clients = self.clients()
        for c in clients:
            c.may_reconnect = True
            c.step()
        self.d.put(PROXY % (BLOCKD, BLOCKD) + """
import fcntl, termios
v = list(pass_until('start')['volumes'])[0].encode()
pass_on(ours, s)
c = socket.socket(socket.AF_UNIX)
c.connect('%s')
c.recv(18, socket.MSG_WAITALL)
c.sendall(struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 1, len(v)) + v)
while struct.unpack('i', fcntl.ioctl(c, termios.TIOCOUTQ, bytes(4)))[0]:
    time.sleep(0.01)
os.kill(child, signal.SIGTERM)
print(os.waitpid(child, 0), file=open('%s', 'w'))
""" % (self.d.shared, self.path("ended")))
        a = self.d.call("replace")
        self.assertFalse(a["ok"], a)
        self.assertEqual(self.d.process.wait(60), 0, self.d.log())
        with open(self.path("ended")) as f:
            self.assertIn(", 0)", f.read())
        self.d.start()
        for c in clients:
            c.check()

    def test_told_to_end_meanwhile(self):
        c = Client(self.d.export(self.d.create(8 * MB)), 8 * MB, 1)
        for _ in range(5):
            c.step()
        os.kill(self.d.process.pid, signal.SIGHUP)
        self.d.process.terminate()
        self.assertEqual(self.d.process.wait(60), 0)
        self.d.start()
        c.check()

    def test_control_calls_meanwhile(self):
        """Each is answered by the one or by the other, or not at all and may be repeated."""
        over, errors, made = threading.Event(), [], set()

        def make():
            while not over.is_set():
                v = str(uuid.uuid4())
                while True:
                    try:
                        a = self.d.call("create", id=v, size=4096)
                    except (ValueError, ConnectionError):
                        continue
                    break
                if not a["ok"]:
                    errors.append(a)
                    return
                made.add(v)

        threads = [threading.Thread(target=make) for _ in range(3)]
        for t in threads:
            t.start()
        for _ in range(6):
            n = len(made)
            self.replace()
            while len(made) < n + 10 and not errors:
                pass
        over.set()
        for t in threads:
            t.join()
        self.assertEqual(errors, [])
        self.assertEqual({v["id"] for v in self.d.ok("list")["volumes"]}, made)


class Returned(Replacing):
    options = ("--listen", "127.0.0.1:0", "--plain-tcp", "--handshake-ms", "120000")

    def test_a_request_that_takes_too_long(self):
        """One volume does not come to rest: what has moved comes back, and nobody is cut off."""
        self.d.stop()
        self.d.start(fault="")
        first, tcp, last, other = (self.d.create(8 * MB) for _ in range(4))
        self.d.export(tcp, id="tcp", clients=["any"])
        path = self.d.export(other)
        clients = [Client(self.d.export(first), 8 * MB, 1),
                   Client("nbd://127.0.0.1:%d/tcp" % self.d.ports()[0], 8 * MB, 2)]
        for c in clients:
            c.may_reconnect = False
        halfway, resting, fresh, stuck = (self.raw(p) for p in (path, path, path,
                                                                self.d.export(last)))
        for s in (halfway, resting, stuck):
            handshake(s)
        get(fresh, 5)
        data = os.urandom(MB)
        halfway.sendall(request(1, 7, 0, MB) + data[:300001])
        self.d.ok("fault", points="volume.read=delay:40000:1")
        stuck.sendall(request(0, 3, 0, 512))
        while "fault point 'volume.read'" not in self.d.log():
            pass
        words = []
        t = threading.Thread(target=lambda: words.append(self.refused()))
        with load(clients) as step:
            t.start()
            halfway.sendall(data[300001:600001])
            while not words and t.is_alive():
                step()
            t.join()
            step()
        self.assertIn("do not come to rest", words[0])
        halfway.sendall(data[600001:])
        self.assertEqual(get(halfway, 16), struct.pack(">IIQ", 0x67446698, 0, 7))
        get(fresh, 13)
        fresh.sendall(struct.pack(">I", 3) + option(1, b""))
        get(fresh, 10)
        for s in (fresh, resting):
            s.sendall(request(0, 4, 0, MB))
            self.assertEqual(get(s, 16 + MB), struct.pack(">IIQ", 0x67446698, 0, 4) + data)
        get(stuck, 16 + 512)
        self.replace()
        for c in clients:
            c.step()
            c.check()


class Direct(Replace):
    """Large payloads gather in memory, and are written as far as they came."""

    options = ("--cache", "direct")


class Tcp(Replacing):
    """Plain connections go on, those with TLS are closed between two requests and come again; the
    port that the kernel chose stays, also when blockd is killed."""

    @classmethod
    def setUpClass(cls):
        cls.cred = tempfile.mkdtemp(prefix="cred.", dir=os.environ.get("TMPDIR", "/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.cred)
        os.mkdir(cls.cred + "/server")
        credentials.psk(cls.cred + "/server", **credentials.KEYS)
        cls.options = ("--listen", "127.0.0.1:0", "--plain-tcp", "--tls-dir", cls.cred + "/server")

    def client(self, i, form):
        v = self.d.create(8 * MB)
        x = "x%d" % i
        self.d.ok("export", id=x, volume=v, uid=os.getuid(), gid=os.getgid(), readonly=False,
                  clients=["any"])
        return Client(form % (self.d.ports()[0], x), 8 * MB, i)

    def test_under_load(self):
        plain = self.client(1, "nbd://127.0.0.1:%d/%s")
        plain.may_reconnect = False
        tls = self.client(2, "nbds://host7@localhost:%d/%s?tls-psk-file=" + self.cred +
                          "/server/keys.psk")
        fresh = socket.create_connection(("127.0.0.1", self.d.ports()[0]))
        self.addCleanup(fresh.close)
        fresh.settimeout(60)
        get(fresh, 18)
        with load([plain, tls]) as step:
            for i in range(5):
                self.replace()
                step()
                self.assertEqual(tls.reconnects, i + 1)
            plain.may_reconnect = True
            pid = self.d.kill()
            step()
            self.assertNotEqual(self.d.pid, pid)
        for c in (plain, tls):
            c.check()

    def test_silent_handshakes(self):
        """One says nothing after STARTTLS was taken: it is not waited for for long."""
        s = socket.create_connection(("127.0.0.1", self.d.ports()[0]))
        self.addCleanup(s.close)
        s.settimeout(60)
        get(s, 18)
        s.sendall(struct.pack(">I", 3) + option(5, b""))
        self.assertEqual(get(s, 20)[12:16], struct.pack(">I", 1))
        self.replace()
        self.assertEqual(s.recv(1), b"")


main()
