"""A cloud of a test's own, whose fault points can be set while it runs (see common/fault.h)."""
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

BUILD = os.environ["BUILD"]
STRATO = os.path.join(BUILD, "cli/strato")
POLL = 0.02


# A file of an object that is no more, opened before the daemon's death and read after it, is stale.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Stuck(Exception):
    """Something did not come to rest, or is not what was promised."""


def go_inside():
    """Into a network of our own, with no libvirtd: guests are those of the embedded driver."""
    if os.getuid() != 0:
        print("SKIP: only for root", file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    if "STRATOFS_INNER" not in os.environ:
        os.environ["STRATOFS_INNER"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private",
                              sys.executable, *sys.argv])
    os.makedirs("/run/libvirt", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run/libvirt"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def wait_for(seconds, what, ready):
    """What ready() gives once it is true."""
    end = time.monotonic() + seconds
    while True:
        got = ready()
        if got:
            return got
        if time.monotonic() > end:
            raise Stuck(f"in vain for {seconds} s: {what}")
        time.sleep(POLL)


def read(path):
    with open(path) as f:
        return f.read().strip()


def write(path, text):
    """One write, as echo does; no file is made."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode() + b"\n")
    finally:
        os.close(fd)


class Cloud:
    def __init__(self, disk=None):
        """disk: the size of one of its own, which can be full."""
        self.dir = tempfile.mkdtemp(prefix="sweep.")
        self.disk = disk
        if disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + disk, "none", self.dir],
                           check=True)
        os.chmod(self.dir, 0o711)
        self.state = os.path.join(self.dir, "state")
        self.root = os.path.join(self.dir, "cloud")
        points = os.path.join(self.dir, "points")  # blockd writes there, too, as a user of its own
        self.faults = os.path.join(points, "faults")
        os.mkdir(points)
        os.chmod(points, 0o777)
        os.mkdir(self.root)
        self.strato("up")

    def strato(self, verb, *words, check=True):
        r = subprocess.run([STRATO, verb, *words, "--state", self.state, "--mount", self.root],
                           env={**os.environ, "STRATOFS_FAULT": "@" + self.faults},
                           capture_output=True, text=True, timeout=120)
        if check and r.returncode:
            raise Stuck(f"strato {verb}: {r.stdout}{r.stderr}")
        return r

    def close(self, keep=False):
        """keep: the logs, in a folder that is named."""
        self.disarm()
        self.strato("down", "--guests", "--force", check=False)
        if keep:
            kept = tempfile.mkdtemp(prefix="sweep-logs.")
            for log in ("log", "libvirt/log"):
                if os.path.isdir(os.path.join(self.state, log)):
                    shutil.copytree(os.path.join(self.state, log), os.path.join(kept, log))
            print(f"logs: {kept}", file=sys.stderr)
        if self.disk:
            subprocess.run(["umount", "--lazy", self.dir], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.root, "tenants", *parts)

    # ---- faults ----

    def arm(self, points):
        """Appears whole, at once: the daemons look at every point they reach."""
        with open(self.faults + ".trace", "a") as f:
            os.chmod(f.name, 0o666)
        with open(self.faults + ".new", "w") as f:
            f.write(points)
        os.rename(self.faults + ".new", self.faults)

    def disarm(self):
        for name in (self.faults, self.faults + ".trace"):
            if os.path.exists(name):
                os.unlink(name)

    def armed(self):
        """False once a `kill` was met."""
        return os.path.exists(self.faults)

    def traced(self):
        """(program, point) in the order in which they were reached."""
        try:
            return [tuple(l.split()) for l in read(self.faults + ".trace").splitlines()]
        except FileNotFoundError:
            return []

    # ---- rest ----

    RESTING = {"available", "in-use", "active", "stopped", "paused", "suspended", "shelved",
               "error", "deleted", "up", "down", "enabled", "rescued", "resized", "draft"}

    @staticmethod
    def read_if(path):
        """None: it is not there, or not any more."""
        try:
            return read(path)
        except OSError as e:
            if e.errno in GONE:
                return None
            raise

    def states(self):
        """What is on its way: (path, state)."""
        found = []
        top = self.path()
        for tenant in os.listdir(top):
            for kind in ("volumes", "images", "instances", "backups", "networks", "floating_ips"):
                folder = os.path.join(top, tenant, kind)
                for name in os.listdir(folder) if os.path.isdir(folder) else ():
                    state = os.path.join(folder, name, "state")
                    now = self.read_if(state)
                    if now is not None and now not in self.RESTING:
                        found.append((os.path.join(tenant, kind, name), now))
            folder = os.path.join(top, tenant, "jobs")
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                if self.read_if(os.path.join(folder, name, "state")) in ("running", "queued"):
                    op = self.read_if(os.path.join(folder, name, "op"))
                    found.append((os.path.join(tenant, "jobs", name), op))
        return found

    def rest(self, seconds=60):
        end = time.monotonic() + seconds
        while True:
            left = self.states()
            if not left:
                return
            if time.monotonic() > end:
                raise Stuck(f"not at rest after {seconds} s: {left}")
            time.sleep(POLL)

    def fsck(self):
        """Blockd hears of the end of a guest's connections a moment after it."""
        words = []

        def clean():
            r = self.strato("doctor", "fsck", "--json", check=False)
            words[:] = [r.stdout + r.stderr]
            return r.returncode == 0 and all(c["verdict"] == "ok" for c in json.loads(r.stdout))

        try:
            wait_for(20, "fsck", clean)
        except Stuck:
            raise Stuck(f"doctor fsck: {words[0]}") from None

    def tail(self, n=15):
        for name in ("stratod.log", "blockd.log"):
            path = os.path.join(self.state, "log", name)
            if os.path.exists(path):
                sys.stderr.write(f"--- {name}\n")
                sys.stderr.writelines(open(path, errors="replace").readlines()[-n:])
