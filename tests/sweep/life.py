#!/usr/bin/python3
"""Random life: what several users in tenants of their own do at the same time, by a seed, against a
model that says for each call what it gives or with which errno it fails, while trouble comes.

Trouble is a daemon killed at a fault point, a disk that is full, an engine or a blockd that fails.
A kill is none of the users' business: no call fails because of it.  A call or a job that met an
error may have failed; what it was at is then looked at anew, or can be deleted.

life.py [SECONDS]   STRATOFS_SEED, STRATOFS_USERS (3), STRATOFS_GUESTS (1: instances are started, too;
                    so it is in the long form).  The same seed draws the same actions; where in
                    them trouble comes depends on the machine, too."""
import contextlib
import errno
import os
import random
import subprocess
import sys
import threading
import time
import traceback

from acts import KINDS, MB, awaits, content, fill, holds
from cloud import GONE, Cloud, Stuck, go_inside, read, wait_for, write

SEED = int(os.environ.get("STRATOFS_SEED", "1"))
LONG = os.environ.get("STRATOFS_LONG") == "1"
GUESTS = os.environ.get("STRATOFS_GUESTS", "1" if LONG else "0") == "1"
USERS = int(os.environ.get("STRATOFS_USERS", "3"))
STRANGER = 54321
BLOCK = 64 << 10
PATIENCE = 240  # a machine that does much else
UNLUCKY = (errno.EIO, errno.ENOSPC)  # what trouble may make of a call

KILLS = ("job.step", "job.stepped", "store.begin", "store.commit", "fs.answer", "do.export",
         "done.export", "volume.write", "volume.flush", "do.snapshot", "done.snapshot", "do.create",
         "done.create", "do.remove", "done.remove", "ask.export", "asked.export", "do.clone",
         "ask.compute.start", "did.compute.start", "ask.compute.destroy", "did.compute.destroy",
         "ask.compute.pause", "did.compute.pause", "did.compute.save", "did.backup.create",
         "did.image.inspect", "did.network.apply")
ERRORS = ("ask.compute.start", "ask.compute.destroy", "ask.compute.pause", "ask.compute.resume",
          "did.compute.start", "did.compute.destroy", "did.compute.pause", "ask.create",
          "ask.snapshot", "ask.clone", "ask.remove", "ask.resize", "ask.backup.create",
          "did.image.checksum", "volume.write", "volume.flush")


class Trouble:
    """What is armed, and since when calls may fail."""

    def __init__(self, cloud, rng):
        self.cloud, self.rng = cloud, rng
        self.errors = self.kills = self.full = 0
        self.hurting, self.quiet = False, 0.0  # whether calls may fail now; since when not
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, name="trouble")

    def kill(self):
        self.cloud.arm(",".join(f"{point}=kill:{self.rng.randint(1, 2)}"
                                for point in self.rng.sample(KILLS, 4)))
        for _ in range(15):
            if self.stop.wait(0.1) or not self.cloud.armed():
                break
        self.kills += not self.cloud.armed()

    def error(self):
        self.errors += 1
        what = self.rng.choice(("EIO", "ENOSPC"))
        self.cloud.arm(f"{self.rng.choice(ERRORS)}={what}:{self.rng.randint(1, 2)}")
        self.stop.wait(self.rng.uniform(0.2, 1.5))

    def fill(self):
        """Nothing is left of the disk for a moment."""
        self.full += 1
        self.errors += 1
        path = os.path.join(self.cloud.dir, "hog")
        with contextlib.suppress(OSError), open(path, "wb", buffering=0) as f:
            while not self.stop.is_set():
                f.write(bytes(MB))
        self.stop.wait(self.rng.uniform(0.1, 0.8))
        os.unlink(path)

    def run(self):
        while not self.stop.wait(self.rng.uniform(0.2, 1.5)):
            what = self.rng.choice((self.kill, self.kill, self.error, self.fill))
            self.hurting = what != self.kill
            what()
            self.cloud.disarm()
            self.quiet = time.monotonic() if self.hurting else self.quiet
            self.hurting = False

    def excuses(self, start):
        """Whether what began then may have met an error."""
        return self.hurting or self.quiet >= start


class User:
    """One tenant and its model."""

    def __init__(self, cloud, trouble, n):
        self.cloud, self.trouble = cloud, trouble
        self.name = f"life{n}"
        self.rng = random.Random(f"{SEED}.{n}")
        self.top = cloud.path(self.name)
        self.volumes = {}  # name: {"size", "blocks": {number: seed}, "snaps": {name: blocks}}
        self.images = {}   # name: bytes
        self.backups = {}  # name: blocks and size
        self.instances = {}  # name: {"state", "volumes": {disk: name}}
        self.groups = {}   # name: set of rules
        self.done = self.failed = self.predicted = 0
        self.serial = 0
        self.history = []

    def path(self, *parts):
        return os.path.join(self.top, *parts)

    def draw(self, what):
        return self.rng.choice(sorted(what)) if what else None

    def new_name(self):
        self.serial += 1
        return f"n{self.serial}"

    def idle(self):
        used = {v for i in self.instances.values() for v in i["volumes"].values()}
        return {v for v in self.volumes if v not in used}

    # ---- calls ----

    def refused(self, code, f, *args):
        """The call fails with that errno; or with what trouble makes of it."""
        start = time.monotonic()
        try:
            f(*args)
        except OSError as e:
            if e.errno != code and not (e.errno in UNLUCKY and self.trouble.excuses(start)):
                raise Stuck(f"{f.__name__}{args}: {e}, not {errno.errorcode[code]}") from None
            self.predicted += 1
            return
        raise Stuck(f"{f.__name__}{args} went well, not {errno.errorcode[code]}")

    def look(self, path):
        """The state where it comes to rest; None: it is not there."""
        def rest():
            state = self.cloud.read_if(os.path.join(path, "state"))
            return (state,) if state is None or state in Cloud.RESTING else None
        return wait_for(PATIENCE, f"{path} comes to rest", rest)[0]

    def expect(self, path, state):
        got = self.look(path)
        if got != state:
            raise Stuck(f"{path} is {got}, not {state}: "
                        f"{self.cloud.read_if(os.path.join(path, 'error'))}\n" + self.events(path))

    def events(self, path):
        with contextlib.suppress(OSError):
            return "\n".join(read(os.path.join(path, "events")).splitlines()[-8:])
        return ""

    # ---- volumes ----

    def bytes_of(self, blocks, size):
        text = bytearray(size)
        for b, seed in blocks.items():
            text[b * BLOCK:(b + 1) * BLOCK] = content(BLOCK, seed)
        return bytes(text)

    def check(self, name):
        v = self.volumes[name]
        holds(self.path("volumes", name), self.bytes_of(v["blocks"], v["size"]))

    def made(self, name, size, blocks):
        self.expect(self.path("volumes", name), "available")
        self.volumes[name] = {"size": size, "blocks": dict(blocks), "snaps": {}}

    def volume_new(self):
        name, size = self.new_name(), self.rng.randint(1, 4) * MB
        os.mkdir(self.path("volumes", name))
        write(self.path("volumes", name, "size"), str(size))
        self.made(name, size, {})

    def volume_line(self):
        name, size = self.new_name(), self.rng.randint(1, 4)
        write(self.path("volumes/new"), f"name={name} size={size}M")
        self.made(name, size * MB, {})

    def volume_write(self):
        name = self.draw(self.idle())
        if not name:
            return
        v = self.volumes[name]
        for _ in range(self.rng.randint(1, 3)):
            b, seed = self.rng.randrange(v["size"] // BLOCK), f"{self.name}.{self.serial}"
            self.serial += 1
            v["blocks"][b] = seed
            fill(self.path("volumes", name), content(BLOCK, seed), b * BLOCK)

    def volume_check(self):
        name = self.draw(self.idle())
        if name:
            self.check(name)

    def volume_grow(self):
        name = self.draw(self.idle())
        if name:
            v = self.volumes[name]
            write(self.path("volumes", name, "size"), str(v["size"] + MB))
            self.expect(self.path("volumes", name), "available")
            got = int(read(self.path("volumes", name, "size")))
            if got != v["size"] + MB:  # it goes back to what it is when that fails
                raise Stuck(f"{name} has {got} bytes, not {v['size'] + MB}")
            v["size"] = got

    def volume_rename(self):
        name, new = self.draw(self.idle()), self.new_name()
        if name:
            os.rename(self.path("volumes", name), self.path("volumes", new))
            self.volumes[new] = self.volumes.pop(name)

    def volume_delete(self):
        name = self.draw(self.idle())
        if not name:
            return
        if self.volumes[name]["snaps"]:
            self.refused(errno.EBUSY, os.rmdir, self.path("volumes", name))
            return
        os.rmdir(self.path("volumes", name))
        del self.volumes[name]
        wait_for(PATIENCE, f"{name} is gone", lambda: not os.path.exists(self.path("volumes", name)))

    def snapshot_new(self):
        name = self.draw(self.idle())
        if name:
            v, s = self.volumes[name], self.new_name()
            os.mkdir(self.path("volumes", name, "snapshots", s))
            self.expect(self.path("volumes", name, "snapshots", s), "available")
            v["snaps"][s] = (dict(v["blocks"]), v["size"])

    def with_snapshot(self):
        name = self.draw({n for n in self.idle() if self.volumes[n]["snaps"]})
        return (name, self.draw(self.volumes[name]["snaps"])) if name else (None, None)

    def snapshot_clone(self):
        name, s = self.with_snapshot()
        if name:
            new = self.new_name()
            blocks, size = self.volumes[name]["snaps"][s]
            os.mkdir(self.path("volumes", new))
            os.symlink(f"../{name}/snapshots/{s}", self.path("volumes", new, "source"))
            self.made(new, size, blocks)
            self.check(new)

    def snapshot_delete(self):
        name, s = self.with_snapshot()
        if name:
            path = self.path("volumes", name, "snapshots", s)
            os.rmdir(path)
            del self.volumes[name]["snaps"][s]
            wait_for(PATIENCE, f"{path} is gone", lambda: not os.path.exists(path))
            self.check(name)

    # ---- images, backups ----

    def image_new(self):
        if len(self.images) > 2:
            return
        name, text = self.new_name(), content(MB, f"{self.name}.{self.serial}")
        source = os.path.join(self.cloud.dir, f"{self.name}.raw")
        with open("/dev/shm/" + os.path.basename(self.cloud.dir) + self.name, "w+b") as f:
            f.write(text)
            f.flush()
            r = subprocess.run(["cp", f.name, self.path("images", name + ".raw")],
                               capture_output=True, text=True)
            os.unlink(f.name)
        if r.returncode:
            raise OSError(errno.EIO, r.stderr, source)
        self.expect(self.path("images", name), "active")
        self.images[name] = text

    def image_clone(self):
        name, new = self.draw(self.images), self.new_name()
        if name:
            os.mkdir(self.path("volumes", new))
            os.symlink(f"../../images/{name}", self.path("volumes", new, "source"))
            self.expect(self.path("volumes", new), "available")
            holds(self.path("volumes", new), self.images[name])
            os.rmdir(self.path("volumes", new))

    def image_delete(self):
        name = self.draw(self.images)
        if name:
            os.rmdir(self.path("images", name))
            del self.images[name]

    def backup_new(self):
        name, new = self.draw(self.idle()), self.new_name()
        if name and len(self.backups) < 3:
            os.mkdir(self.path("backups", new))
            os.symlink(f"../../volumes/{name}", self.path("backups", new, "source"))
            self.expect(self.path("backups", new), "available")
            self.backups[new] = (dict(self.volumes[name]["blocks"]), self.volumes[name]["size"])

    def backup_restore(self):
        name, new = self.draw(self.backups), self.new_name()
        if name:
            os.mkdir(self.path("volumes", new))
            os.symlink(f"../../backups/{name}", self.path("volumes", new, "source"))
            self.made(new, self.backups[name][1], self.backups[name][0])
            self.check(new)

    def backup_delete(self):
        name = self.draw(self.backups)
        if name:
            os.rmdir(self.path("backups", name))
            del self.backups[name]

    # ---- instances ----

    ENDS = {("stopped", "start"): "active", ("draft", "start"): "active",
            ("active", "pause"): "paused", ("paused", "resume"): "active",
            ("active", "stop 0"): "stopped", ("paused", "stop 0"): "stopped",
            ("active", "reboot hard"): "active", ("active", "suspend"): "suspended",
            ("suspended", "resume"): "active"}
    VERBS = ("start", "pause", "resume", "stop 0", "reboot hard", "suspend")

    def instance_new(self):
        if len(self.instances) < 2:
            name = self.new_name()
            os.mkdir(self.path("instances", name))
            write(self.path("instances", name, "flavor"), "tiny")
            self.instances[name] = {"state": "draft", "volumes": {}}

    def instance_verb(self):
        name = self.draw(self.instances)
        if not name:
            return
        i, verb = self.instances[name], self.rng.choice(self.VERBS)
        if (i["state"], verb) in (("suspended", "reboot hard"), ("stopped", "reboot hard")):
            return  # a start in other words
        end = self.ENDS.get((i["state"], verb))
        if end == "active" and i["state"] in ("draft", "stopped") and not (
                GUESTS and i["volumes"]):
            return  # it has nothing to boot from
        ctl = self.path("instances", name, "ctl")
        if not end:
            self.refused(errno.EBUSY, write, ctl, verb)
            return
        write(ctl, verb)
        self.expect(self.path("instances", name), end)
        i["state"] = end

    def instance_attach(self):
        name, v = self.draw(self.instances), self.draw(self.idle())
        if name and v and self.instances[name]["state"] in ("draft", "stopped") and len(
                self.instances[name]["volumes"]) < 4:
            disks = self.instances[name]["volumes"]
            disk = min({f"vd{x}" for x in "abcdefgh"} - set(disks))
            link = self.path("instances", name, "volumes", disk)
            os.symlink(f"../../../volumes/{v}", link)
            disks[disk] = v
            self.refused(errno.EEXIST, os.symlink, f"../../../volumes/{v}", link)

    def instance_detach(self):
        name = self.draw(self.instances)
        if not name or self.instances[name]["state"] not in ("draft", "stopped"):
            return
        disk = self.draw(self.instances[name]["volumes"])
        if disk:
            os.unlink(self.path("instances", name, "volumes", disk))
            v = self.instances[name]["volumes"].pop(disk)
            self.expect(self.path("volumes", v), "available")
            self.check(v)

    def instance_delete(self):
        name = self.draw(self.instances)
        if not name or self.rng.random() < 0.6:
            return
        i = self.instances[name]
        if i["state"] not in ("draft", "stopped"):
            return
        os.rmdir(self.path("instances", name))
        wait_for(PATIENCE, f"{name} is gone",
                 lambda: not os.path.exists(self.path("instances", name)))
        del self.instances[name]
        for v in i["volumes"].values():  # the job goes on when the name is gone
            wait_for(PATIENCE, f"{v} is free",
                     lambda v=v: read(self.path("volumes", v, "state")) == "available")

    # ---- lists, and what is refused ----

    def group_new(self):
        if len(self.groups) < 2:
            name = self.new_name()
            os.mkdir(self.path("security_groups", name))
            self.groups[name] = set()

    def group_rule(self):
        name = self.draw(self.groups)
        if name:
            rule, rules = f"in tcp {self.rng.randint(1, 9)}", self.groups[name]
            sign = "-" if rule in rules else "+"
            write(self.path("security_groups", name, "rules"), sign + rule)
            (rules.discard if sign == "-" else rules.add)(rule)
            got = {l for l in read(self.path("security_groups", name, "rules")).splitlines()
                   if l.startswith("in tcp")}
            if got != rules:
                raise Stuck(f"rules of {name}: {got}, not {rules}")

    def nonsense(self):
        name = self.draw(self.volumes)
        v = self.path("volumes", name or "none")
        if not name:
            self.refused(errno.ENOENT, os.rmdir, v)
            return
        code, f, *args = self.rng.choice((
            (errno.EEXIST, os.mkdir, v), (errno.EINVAL, os.mkdir, self.path("volumes/.x")),
            (errno.EINVAL, write, v + "/ctl", "fly"),
            (errno.ENOENT if name in self.idle() else errno.EBUSY, write, v + "/ctl", "revert no"),
            (errno.ENOENT, os.rename, self.path("volumes/no"), self.path("volumes/more")),
            (errno.ENOENT, os.rmdir, self.path("volumes/no"))))
        self.refused(code, f, *args)

    def stranger(self):
        """A user of no tenant sees nothing of this one."""
        r = subprocess.run(["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}",
                            "--clear-groups", "cat", self.path("volumes/index")],
                           capture_output=True, text=True)
        if r.returncode == 0 or r.stdout or "Permission denied" not in r.stderr:
            raise Stuck(f"a stranger read {r.stdout!r}, {r.stderr!r}")
        self.predicted += 1

    def tool(self):
        """find(1) walks what others change meanwhile."""
        r = subprocess.run(["find", self.top, "-maxdepth", "2"], capture_output=True, text=True)
        for name in self.volumes:
            if self.path("volumes", name) not in r.stdout.splitlines():
                raise Stuck(f"find does not see {name}: {r.stderr}")

    ACTIONS = ((volume_new, 4), (volume_line, 2), (volume_write, 10), (volume_check, 4),
               (volume_grow, 2), (volume_rename, 2), (volume_delete, 3), (snapshot_new, 3),
               (snapshot_clone, 2), (snapshot_delete, 2), (image_new, 1), (image_clone, 1),
               (image_delete, 1), (backup_new, 1), (backup_restore, 1), (backup_delete, 1),
               (instance_new, 3), (instance_verb, 8), (instance_attach, 5), (instance_detach, 3),
               (instance_delete, 1), (group_new, 1), (group_rule, 2), (nonsense, 4), (stranger, 1),
               (tool, 1))

    # ---- living ----

    def again(self):
        """After an error: everything goes that can, and the model begins anew."""
        for _ in range(4):
            for kind in KINDS:
                top = self.path(kind)
                for name in os.listdir(top):
                    path = os.path.join(top, name)
                    if name != "default" and os.path.isdir(path):
                        self.away(path)
        left = [os.path.join(k, n) for k in KINDS for n in os.listdir(self.path(k))
                if n != "default" and os.path.isdir(self.path(k, n))]
        if left:
            raise Stuck(f"cannot be taken away: {left}")
        for model in (self.volumes, self.images, self.backups, self.instances, self.groups):
            model.clear()

    def away(self, path):
        with contextlib.suppress(OSError):
            snaps = os.path.join(path, "snapshots")
            for s in os.listdir(snaps) if os.path.isdir(snaps) else ():
                if os.path.isdir(os.path.join(snaps, s)):
                    os.rmdir(os.path.join(snaps, s))
        with contextlib.suppress(OSError):
            if "/instances/" in path and self.look(path) in ("active", "paused"):
                write(os.path.join(path, "ctl"), "stop 0")
                self.look(path)
            elif "/instances/" in path and self.look(path) == "suspended":
                write(os.path.join(path, "ctl"), "resume")
                self.look(path)
        with contextlib.suppress(OSError):
            os.rmdir(path)
        with contextlib.suppress(Stuck):
            wait_for(5, path, lambda: not os.path.exists(path))

    def live(self, until):
        os.mkdir(self.top)
        wait_for(PATIENCE, self.top, lambda: os.path.isdir(self.path("volumes")))
        actions, weights = zip(*self.ACTIONS)
        while time.monotonic() < until and not self.trouble.stop.is_set():
            action = self.rng.choices(actions, weights)[0]
            start = time.monotonic()
            self.history.append(action.__name__)
            try:
                action(self)
                self.done += 1
            except (OSError, Stuck):
                if not self.trouble.excuses(start):
                    raise
                self.failed += 1
                self.again()

    def finish(self):
        for name in self.idle():
            self.expect(self.path("volumes", name), "available")
            self.check(name)
        for name, i in self.instances.items():
            self.expect(self.path("instances", name), i["state"])
        self.again()


def run(user, until, failures):
    try:
        user.live(until)
    except Exception as e:  # pylint: disable=broad-except
        failures.append(user)
        print(f"FAIL {user.top} after {len(user.history)}: {' '.join(user.history[-8:])}\n"
              f"{time.strftime('%H:%M:%S', time.gmtime())} {type(e).__name__} {e}", flush=True)
        print("its last errors:", *read(os.path.join(user.top, "errors")).splitlines()[-2:], sep="\n", flush=True)
        traceback.print_exc(limit=-4)
        user.trouble.stop.set()


def main():
    if not LONG and len(sys.argv) < 2:
        print("the long form only (STRATOFS_LONG=1)")
        return
    go_inside()
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600 if LONG else 12
    c = Cloud(disk="512M")
    trouble = Trouble(c, random.Random(SEED))
    users = [User(c, trouble, n) for n in range(USERS)]
    failures = []
    try:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=run, args=(u, until, failures)) for u in users]
        for t in threads:
            t.start()
        trouble.thread.start()
        for t in threads:
            t.join()
        trouble.stop.set()
        trouble.thread.join()
        c.disarm()
        if not failures:
            c.rest(PATIENCE)
            for u in users:
                u.finish()
            c.rest(PATIENCE)
            c.fsck()
    except (OSError, Stuck):
        failures.append(None)
        traceback.print_exc(limit=-4)
    finally:
        trouble.stop.set()
        print(f"seed {SEED}: {len(users)} users, {sum(u.done for u in users)} actions, "
              f"{sum(u.predicted for u in users)} refused as predicted, "
              f"{sum(u.failed for u in users)} failed by trouble, {trouble.kills} kills, "
              f"{trouble.errors} errors ({trouble.full} times a full disk)", flush=True)
        if failures:
            c.tail(60)
        c.close(keep=bool(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
