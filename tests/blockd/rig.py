"""What the tests of the daemon share: a blockd in a folder of its own, and its control socket.

The daemon's path is argv[1]; unittest gets the rest.  HOLDER is stratofs-hold beside it.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

import nbd

MB = 1 << 20
HOLDER = os.environ.get("HOLDER", "")
BLOCKD = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "blockd"


# A Ceph pool that volumes are in, if not in files: see tests/ceph.
CEPH_POOL = os.environ.get("CEPH_POOL")

THREADS = 2  # of a blockd that nobody talks to: the event loop's, and the pool's


class Blockd:
    def __init__(self, state=None, top=None, options=()):
        self.top = top or tempfile.mkdtemp(prefix="bd.", dir=os.environ.get("TMPDIR", "/tmp"))
        self.state = state or os.path.join(self.top, "state")
        self.run = os.path.join(self.top, "run")
        # A test is run a second time with other options: see meson.build.
        self.options = os.environ.get("BLOCKD_OPTIONS", "").split() + list(options)
        if CEPH_POOL:
            # Nobody else's volumes are in its namespace.
            self.options += ["--pool", "rbd:%s/%s" % (CEPH_POOL, uuid.uuid4().hex)]
        self.process = None
        self.start()

    def places(self):
        return ["--state", self.state, "--run", self.run, *self.options]

    def words(self, ready):
        """The command line; ready is a descriptor."""
        return [BLOCKD, *self.places(), "--ready-fd", ready]

    def start(self, fault=None):
        r, w = os.pipe()
        env = dict(os.environ)
        env.pop("STRATOFS_FAULT", None)
        if fault is not None:
            env["STRATOFS_FAULT"] = fault
        with open(os.path.join(self.top, "log"), "ab") as log:
            self.process = subprocess.Popen(
                self.words(str(w)), pass_fds=[w], stderr=log, env=env)
        os.close(w)
        ready = os.read(r, 1)
        os.close(r)
        if ready != b"1":
            self.process.wait()
            raise AssertionError("blockd did not start:\n" + self.log())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """A clean stop; anything but exit 0 (a sanitizer's word, say) is a failure."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        rc = self.process.wait(60)
        if rc != 0:
            raise AssertionError("blockd ended with %d:\n%s" % (rc, self.log()))

    def log(self):
        with open(os.path.join(self.top, "log"), errors="replace") as f:
            return f.read()

    def clean(self):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.top, ignore_errors=True)

    def ports(self):
        """Those that it listens on since its last start."""
        last = self.log().rpartition("blockd stopped")[2]
        return [int(n) for n in re.findall(r"listens on \S+ port (\d+)", last)]

    @property
    def control(self):
        return os.path.join(self.run, "blockd.sock")

    @property
    def shared(self):
        return os.path.join(self.run, "nbd.sock")

    def raw_call(self, text):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(self.control)
            s.sendall(text)
            return s.makefile("rb").readline()

    def call(self, op, **args):
        """The whole answer."""
        return json.loads(self.raw_call(json.dumps(dict(args, op=op)).encode() + b"\n"))

    def ok(self, op, **args):
        a = self.call(op, **args)
        if a["ok"] is not True:
            raise AssertionError("%s %s: %s" % (op, args, a))
        return a

    def err(self, op, **args):
        a = self.call(op, **args)
        if a["ok"] is not False or not a["error"] or "\n" in a["error"]:
            raise AssertionError("%s %s: %s" % (op, args, a))
        return a["errno"]

    def uri(self, volume):
        return "nbd+unix:///%s?socket=%s" % (volume, self.shared)

    def create(self, size):
        v = str(uuid.uuid4())
        self.ok("create", id=v, size=size)
        return v

    def clone(self, parent, size):
        v = str(uuid.uuid4())
        self.ok("clone", id=v, parent=parent, size=size)
        return v

    def snapshot(self, volume):
        s = str(uuid.uuid4())
        self.ok("snapshot", id=s, volume=volume)
        return s

    def export(self, volume, readonly=False, id=None, **more):
        return self.ok("export", id=id or "x" + uuid.uuid4().hex, volume=volume,
                       uid=os.getuid(), gid=os.getgid(), readonly=readonly, **more)["socket"]


class Held(Blockd):
    """A blockd below stratofs-hold: `process` is the holder."""

    program = BLOCKD

    def words(self, ready):
        return [HOLDER, "--ready-fd", ready, "--", self.program, *self.places()]

    @property
    def pid(self):
        """blockd's own."""
        return self.ok("ping")["pid"]

    def kill(self):
        """Kills blockd; its holder sees to the rest.  The pid it had."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        return pid


class Client:
    """Writes and verifies; connects again whenever the server ends the connection, and counts."""

    def __init__(self, path, size, seed):
        self.path, self.size = path, size
        self.may_reconnect = True
        self.rnd = random.Random(seed)
        self.model = bytearray(size)
        self.reconnects = self.done = 0
        self.gap = 0
        self.h = None
        self.connect()

    def connect(self):
        self.h = nbd.NBD()
        if self.path[0] == "/":
            self.h.connect_unix(self.path)
        else:
            self.h.set_uri_allow_local_file(True)
            self.h.connect_uri(self.path)

    def again(self, error):
        if not self.may_reconnect:
            raise error
        self.reconnects += 1
        self.connect()

    def step(self):
        n = self.rnd.choice((512, 4096, 7777, 300000))
        off = self.rnd.randrange(self.size - n)
        data = self.rnd.randbytes(n)
        began = time.monotonic()
        while True:
            try:
                self.h.pwrite(data, off)
                break
            except nbd.Error as e:
                # Not acknowledged; it may be half there, so it is written again.
                self.again(e)
        self.model[off:off + n] = data
        while True:
            try:
                off = self.rnd.randrange(self.size - 65536)
                if self.h.pread(65536, off) != self.model[off:off + 65536]:
                    raise AssertionError("bytes at %d are not what was written" % off)
                break
            except nbd.Error as e:
                self.again(e)
        self.gap = max(self.gap, time.monotonic() - began)  # two requests', in seconds
        self.done += 1

    def check(self):
        self.connect()
        if self.h.pread(self.size, 0) != self.model:
            raise AssertionError("the volume is not what was written")
        self.h.shutdown()


@contextlib.contextmanager
def load(clients):
    """All of them step all the time; gives a function that waits until each made some steps."""
    over, errors = threading.Event(), []

    def work(c):
        try:
            while not over.is_set():
                c.step()
        except Exception as e:
            errors.append(e)

    def step(n=3):
        before = [c.done for c in clients]
        while not errors and any(c.done < b + n for c, b in zip(clients, before)):
            time.sleep(0.005)

    threads = [threading.Thread(target=work, args=(c,)) for c in clients]
    for t in threads:
        t.start()
    try:
        yield step
    finally:
        over.set()
        for t in threads:
            t.join()
    if errors:
        raise errors[0]


class Case(unittest.TestCase):
    def setUp(self):
        self.d = Blockd()
        self.addCleanup(self.d.clean)

    def tool(self, *args, rc=0):
        p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           timeout=120)
        self.assertEqual(p.returncode, rc, "%s\n%s\n%s" % (args, p.stdout, self.d.log()))
        return p.stdout

    def path(self, name):
        return os.path.join(self.d.top, name)


def main():
    unittest.main(verbosity=2)
