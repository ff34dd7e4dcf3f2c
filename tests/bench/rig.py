"""What the benchmarks share: servers on a UNIX socket, their processes, and fio's nbd engine."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid

SIZE = 2 << 30  # of what is served, unless told otherwise
TICK = os.sysconf("SC_CLK_TCK")


def say(*words):
    print(*words, file=sys.stderr, flush=True)


# Servers


class Server:
    """One that is started on the file at path; argv(sock, path) is its command line."""

    ours = False
    pid = 0  # of what was started, for as long as it runs

    def __init__(self, name, argv, export="", direct=False):
        self.name, self.argv, self.export, self.direct = name, argv, export, direct

    def setup(self, top):
        self.top, self.path = top, top + "/peers.raw"

    def files(self):
        return [self.path]

    def missing(self):
        program = self.argv("", "")[0]
        return None if shutil.which(program) else program + " is not installed"

    def start(self):
        sock = "%s/%s.sock" % (self.top, self.name)
        remove(sock)
        self.pid = spawn(self.argv(sock, self.path), self.top + "/log")
        self.await_socket(sock)
        return "nbd+unix:///%s?socket=%s" % (self.export, sock)

    def await_socket(self, sock):
        deadline = time.monotonic() + 20
        while True:
            with socket.socket(socket.AF_UNIX) as s:
                try:
                    return s.connect(sock)
                except OSError:
                    if time.monotonic() > deadline or not self.runs():
                        self.fail()
            time.sleep(0.005)

    def runs(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def fail(self):
        with open(self.top + "/log", errors="replace") as f:
            raise SystemExit("%s does not serve:\n%s" % (self.name, f.read()))

    def stop(self):
        if self.pid:
            stop(self.pid)
            self.pid = 0


class Daemon(Server):
    """One that has no way to stay in the foreground; it tells its pid in a file."""

    def start(self):
        uri = super().start()
        with open("%s/%s.sock.pid" % (self.top, self.name)) as f:
            parent, self.pid = self.pid, int(f.read())
        os.waitpid(parent, 0)
        return uri

    def runs(self):
        return True


class Blockd(Server):
    ours = True

    def __init__(self, name, exe, args=(), direct=False, layers=0):
        self.name, self.exe, self.args, self.direct = name, exe, list(args), direct
        self.layers = layers

    def missing(self):
        text = subprocess.run([self.exe, "--help"], stdout=subprocess.PIPE).stdout.decode()
        for a in self.args:
            if a.startswith("--") and a not in text:
                return "this blockd has no " + a
        return None

    def setup(self, top):
        """Makes the volume, flat or with layers below it, and fills it with the peers' bytes."""
        self.top = "%s/%s" % (top, self.name)
        os.mkdir(self.top)
        self.volume = str(uuid.uuid4())
        try:
            self.launch()
            self.call("create", id=self.volume, size=SIZE)
            uri = self.attach()
            run(["nbdcopy", "--flush", top + "/peers.raw", uri])
            for _ in range(self.layers):
                self.push()
                # So that each layer has something, all over the volume.
                run(["fio"] + fio_job(uri, "randwrite", 4096, 32, 1) + ["--io_size=8M"])
        finally:
            self.stop()

    def push(self):
        id = str(uuid.uuid4())
        a = self.ask("snapshot", id=id, volume=self.volume)
        if not a["ok"]:  # one from before there were snapshots: a clone pushes a layer, too
            self.call("clone", id=id, parent=self.volume, size=SIZE)

    def launch(self):
        r, w = os.pipe()
        self.pid = spawn([self.exe, "--state", self.top + "/state", "--run", self.top + "/run",
                          "--ready-fd", str(w)] + self.args, self.top + "/log", [w])
        os.close(w)
        ready = os.read(r, 1)
        os.close(r)
        if ready != b"1":
            self.fail()

    def start(self):
        self.launch()
        return self.attach()

    def attach(self):
        a = self.call("export", id="bench", volume=self.volume, uid=os.getuid(), gid=os.getgid())
        return "nbd+unix:///?socket=" + a["socket"]

    def ask(self, op, **args):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.top + "/run/blockd.sock")
            s.sendall(json.dumps(dict(args, op=op)).encode() + b"\n")
            return json.loads(s.makefile("rb").readline())

    def call(self, op, **args):
        a = self.ask(op, **args)
        if not a["ok"]:
            raise SystemExit("%s: %s: %s" % (self.name, op, a["error"]))
        return a

    def files(self):
        """Those with data: a map is short."""
        found = (os.path.join(d, n) for d, _, names in os.walk(self.top + "/state") for n in names)
        return [p for p in found if os.path.isfile(p) and os.path.getsize(p) >= 1 << 20]


# Processes


def run(argv):
    """What it prints; its words on standard error are shown when it fails."""
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, errors="replace")
    if p.returncode != 0:
        raise SystemExit("%s: exit %d\n%s%s" % (" ".join(argv), p.returncode, p.stdout, p.stderr))
    return p.stdout


def spawn(argv, log, fds=()):
    with open(log, "wb") as f:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, pass_fds=fds)
    p.returncode = 0  # the module is not to wait for it behind our back: stop() does, by pid
    return p.pid


def stop(pid):
    below = children(pid)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    for c in set(below) & set(children(os.getpid())):  # what it left is ours
        stop(c)


def adopt_orphans():
    """A daemon is our child, too: its pid is good until we have waited for it."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def process_stat(pid):
    with open("/proc/%s/stat" % pid) as f:
        return f.read().rsplit(")", 1)[1].split()


def children(pid):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(process_stat(name)[1]) == pid:
                found.append(int(name))
        except OSError:
            pass
    return found


def cpu(pid):
    """Seconds of processor time of pid and below, since each began.  A process's clock counts
    nanoseconds, ended threads among them; children that have ended are known to a tick."""
    try:
        fields = process_stat(pid)
        sum = time.clock_gettime(~pid << 3 | 2) + (int(fields[13]) + int(fields[14])) / TICK
    except OSError:
        return 0.0  # it ended meanwhile, and is its parent's by now
    for c in children(pid):
        sum += cpu(c)
    return sum


def settle(pid, before):
    """Waits for the processes of connections to be gone, that is to be counted."""
    deadline = time.monotonic() + 2
    while set(children(pid)) - before and time.monotonic() < deadline:
        time.sleep(0.005)


# One run


def prepare(paths, state):
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    if state == "dropped":
        return
    step = bytearray(1 << 20)
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        if state == "small":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for off, end in data_of(fd):
            while off < end:
                off += os.preadv(fd, [memoryview(step)[:end - off]], off)
        os.close(fd)


def data_of(fd):
    """Where a file has no holes: a layer has few blocks."""
    size, end = os.fstat(fd).st_size, 0
    while end < size:
        try:
            off = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # none from here on
            return
        end = os.lseek(fd, off, os.SEEK_HOLE)
        yield off, end


def fio_job(uri, rw, size, depth, jobs, span=SIZE):
    return ["--name=x", "--ioengine=nbd", "--uri=" + uri, "--rw=" + rw, "--bs=%d" % size,
            "--iodepth=%d" % depth, "--numjobs=%d" % jobs, "--group_reporting",
            "--size=%d" % span, "--randrepeat=0", "--norandommap", "--output-format=json"]


def fio_run(wrap, uri, rw, size, depth, jobs, seconds):
    """I/O done, I/O a second, p99 in microseconds."""
    return fio_result(rw, wrap + ["fio"] + fio_job(uri, rw, size, depth, jobs) +
                      ["--time_based", "--runtime=%d" % seconds])


def fio_result(rw, argv):
    out = run(argv)
    side = json.loads(out[out.index("{"):])["jobs"][0]["write" if "write" in rw else "read"]
    p99 = side["clat_ns"].get("percentile", {}).get("99.000000")
    return side["total_ios"], side["iops"], p99 and p99 / 1000
