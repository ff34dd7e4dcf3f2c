#!/usr/bin/python3
"""Many clients, much that comes and goes, and a tenant that floods beside one that does not.

The short form says whether all is answered, nothing leaks and who floods is held back; with
STRATOFS_LONG=1 it takes its time (CLIENTS_S, 600; CYCLES, 10; OBJECTS, 10000) and prints figures.
PARTS (clients cycles floods) says which.
"""
import os
import re
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../sweep"))
import cloud
from cloud import BUILD, Cloud, read, wait_for, write

LONG = os.environ.get("STRATOFS_LONG") == "1"
CLIENTS_S = os.environ.get("CLIENTS_S", "600" if LONG else "3")
CYCLES = int(os.environ.get("CYCLES", "10" if LONG else "3"))
OBJECTS = os.environ.get("OBJECTS", "10000" if LONG else "200")
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PARTS = os.environ.get("PARTS", "clients cycles floods").split()
LOAD = os.path.join(BUILD, "tests/load/load")
FLOODS = ("mkdir", "write", "events", "wait")


def ok(words):
    print("ok: " + words, flush=True)


def fail(words):
    sys.exit("FAIL: " + words)


def load(*words, uid=0, group=0, nice=0):
    """A process; figures() waits for it."""
    who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={group}"] if uid else []
    return subprocess.Popen(["nice", "-n", str(nice), *who, LOAD, *map(str, words)],
                            stdout=subprocess.PIPE, text=True)


def figures(p, check=True):
    """{call: {calls, refused, p50, p99, max}}, times in microseconds."""
    out = p.communicate()[0]
    if check and p.returncode:
        fail(f"load ended with {p.returncode}: {out}")
    return {line.split()[0]: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}
            for line in out.splitlines()}


def show(title, table):
    for call, f in table.items():
        print(f"{title:10} {call:7}", " ".join(f"{k}={v}" for k, v in f.items()), flush=True)


class Daemons:
    def __init__(self, c):
        self.pids = {}
        for name in ("stratod", "blockd"):
            self.pids[name] = int(read(f"{c.state}/run/{name}.pid").split()[0])

    def sizes(self):
        """(KiB resident, descriptors) of each."""
        now = {}
        for name, pid in self.pids.items():
            status = read(f"/proc/{pid}/status")
            now[name] = (int(re.search(r"VmRSS:\s+(\d+)", status)[1]),
                         len(os.listdir(f"/proc/{pid}/fd")))
        return now


def clients(c, d):
    before = d.sizes()
    p = load("work", c.path("default"), 64, CLIENTS_S)
    if LONG:
        show("beside", figures(load("stat", c.path("default"), max(1, int(CLIENTS_S) - 5))))
    show("64 clients", figures(p))
    c.rest()
    left = [n for kind in ("volumes", "instances", "groups") for n in os.listdir(c.path("default", kind))
            if n not in ("new", "help", "index")]
    if left:
        fail(f"what was removed is there: {left}")
    ok("64 clients were answered all that they asked")
    # Connections and caches that a quiet daemon lets go of take their moment.
    wait_for(60, "descriptors as before", lambda: all(
        d.sizes()[n][1] <= before[n][1] + 8 for n in before))
    ok("their descriptors are closed")


def cycles(c, d):
    sizes = []
    for _ in range(CYCLES):
        figures(load("cycle", c.path("default"), OBJECTS, 16))
        sizes.append(d.sizes())
        if LONG:
            print("cycle", len(sizes), sizes[-1], os.getloadavg()[0], flush=True)
    for name in d.pids:
        (old, fds), (new, fds_now) = sizes[1][name], sizes[-1][name]
        if new > old * 1.05 + 1024 or fds_now > fds + 4:
            fail(f"{name} grew from {sizes[1][name]} to {sizes[-1][name]}")
    ok(f"{CYCLES} times {OBJECTS} objects: memory and descriptors are flat")


class Tenant:
    def __init__(self, c, name, uid):
        self.path, self.uid = c.path(name), uid
        os.mkdir(self.path)
        wait_for(20, name, lambda: read(self.path + "/state") == "active")
        self.group = int(read(self.path + "/gid"))
        os.mkdir(self.path + "/volumes/v")

    def remove(self):
        """Its group goes with it."""
        for kind in ("volumes", "groups"):
            for name in os.listdir(f"{self.path}/{kind}"):
                if name not in ("new", "help", "index"):
                    os.rmdir(f"{self.path}/{kind}/{name}")
        os.rmdir(self.path)
        wait_for(20, "its end", lambda: not os.path.exists(self.path))

    def load(self, verb, *words, **more):
        return load(verb, self.path, *words, uid=self.uid, group=self.group, **more)


def quota(a):
    write(a.path + "/quota", "volumes limit=4")
    r = subprocess.run(["setpriv", f"--reuid={a.uid}", f"--regid={a.uid}", f"--groups={a.group}",
                        "mkdir"] + [f"{a.path}/volumes/q{i}" for i in range(20)],
                       capture_output=True, text=True)
    made = sum(n.startswith("q") for n in os.listdir(a.path + "/volumes"))
    if made != 3 or "quota" not in r.stderr.lower():
        fail(f"{made} volumes were made: {r.stderr}")
    if "quota of tenant" not in read(a.path + "/errors"):
        fail("no words for it")
    ok("who makes more than its quota is refused, with words")


def waits(a):
    f = figures(a.load("flood", 400, 2, "wait"), check=False)["wait"]
    busy = read(a.path + "/errors").count("too many waits")
    if not f["refused"] or not busy:
        fail(f"400 waits of a user: {f}")
    ok("a user has so many waits and no more")


def shares(c, a, b):
    """Two requests of a user are stuck; what else it asks waits, up to a number, and its neighbour
    does not."""
    c.arm("trace,fs.answer=delay:4000\n")
    stuck = [a.load("flood", 1, 1, what) for what in ("write", "mkdir")]
    wait_for(10, "two that are stuck", lambda: sum(p == "fs.answer" for _, p in c.traced()) >= 2)
    c.arm("")
    neighbour = b.load("stat", 3)
    time.sleep(0.1)  # it asks
    crowd = figures(a.load("flood", 1300, 5, "look"), check=False)["stat"]
    for p in stuck:
        figures(p, check=False)
    show("neighbour", figures(neighbour))
    show("user", {"stat": crowd})
    if crowd["calls"] != 1300 or crowd["refused"] != 1300 - 1024:
        fail(f"of 1300 looks of one user beside another: {crowd}")
    ok("a user's requests wait for those before, 1024 of them; its neighbour's do not")
    c.disarm()


def fairness(a, b):
    """b beside nobody, beside as many processes of a that ask nobody, and beside a's floods."""
    medians = {}
    for _ in range(ROUNDS):
        for what in ("nothing", "spin", *FLOODS):
            p = a.load("flood", 32, 5, what, nice=19) if what != "nothing" else None
            time.sleep(0.7)
            for call, f in figures(b.load("probe", 4)).items():
                medians.setdefault((what, call), []).append(f["p50"])
            if p:
                figures(p, check=False)
    print("microseconds, median of %d rounds' medians; load %.1f" % (ROUNDS, os.getloadavg()[0]))
    for what in ("nothing", "spin", *FLOODS):
        print("%-8s" % what, " ".join(
            "%s=%d (%.2f of spin)" % (call, m, m / statistics.median(medians["spin", call]))
            for call in ("stat", "list", "read", "make", "remove")
            for m in [statistics.median(medians[what, call])]), flush=True)


def main():
    cloud.go_inside()
    os.environ["STRATOFS_COMPUTE"] = "test"
    c = Cloud()
    try:
        d = Daemons(c)
        # They are simulated: there is room for all.
        write(f"{c.root}/admin/hosts/{os.uname().nodename}/vcpus_percent", "100000")
        write(f"{c.root}/admin/hosts/{os.uname().nodename}/memory_percent", "100000")
        if "clients" in PARTS:
            clients(c, d)
        if "cycles" in PARTS:
            cycles(c, d)
        if "floods" not in PARTS:
            return
        a, b = Tenant(c, "a", 61001), Tenant(c, "b", 61002)
        quota(a)
        waits(a)
        shares(c, a, b)
        if LONG:
            fairness(a, b)
        a.remove()
        b.remove()
    finally:
        c.close()


if __name__ == "__main__":
    main()
