"""What users do, each as a generator of three parts: what has to be there first; the act itself;
then, once all is at rest, whether it is as the calls had said, and everything away again.

A call that returned is a promise.  Daemons that die are none of the caller's business: no call
fails because of that."""
import contextlib
import hashlib
import os
import subprocess

from cloud import Stuck, read, wait_for, write

MB = 1 << 20
ACTS = {}
SLOW = set()  # a guest without a system has half a minute to power off
T = "tenants/default"


def act(f):
    ACTS[f.__name__] = f
    return f


def slow(f):
    SLOW.add(f.__name__)
    return f


def same(what, got, want):
    if got != want:
        raise Stuck(f"{what}: {got!r}, not {want!r}")


def state_is(path, want):
    got = read(os.path.join(path, "state"))
    if got != want:
        raise Stuck(f"state of {path}: {got!r}, not {want!r}: {read(os.path.join(path, 'error'))}")


def awaits(path, state, seconds=60):
    def there():
        now = read(os.path.join(path, "state"))
        if now == "error":
            raise Stuck(f"{path}: error: {read(os.path.join(path, 'error'))}")
        return now == state
    wait_for(seconds, f"{path} {state}", there)


def gone(path, seconds=60):
    wait_for(seconds, f"{path} is gone", lambda: not os.path.exists(path))


def remove(path):
    os.rmdir(path)
    gone(path)


def content(n, seed):
    return hashlib.shake_128(seed.encode()).digest(n)


def fill(volume, text, at=0):
    fd = os.open(os.path.join(volume, "data"), os.O_WRONLY)
    try:
        done = 0
        while done < len(text):  # one that met an error may be short: the next one has it
            done += os.pwrite(fd, text[done:], at + done)
        os.fsync(fd)
    finally:
        os.close(fd)


def holds(volume, text, at=0):
    with open(os.path.join(volume, "data"), "rb", buffering=0) as f:
        f.seek(at)
        got = b""
        while len(got) < len(text):
            piece = f.read(len(text) - len(got))
            if not piece:
                break
            got += piece
    same(f"sha256 of {volume}", hashlib.sha256(got).hexdigest(), hashlib.sha256(text).hexdigest())


def volume(c, name, size="8M", **attrs):
    path = c.path("default/volumes", name)
    os.mkdir(path)
    for k, v in attrs.items():
        write(os.path.join(path, k), v)
    write(os.path.join(path, "size"), size)
    awaits(path, "available")
    return path


def snapshot(v, name):
    path = os.path.join(v, "snapshots", name)
    os.mkdir(path)
    awaits(path, "available")
    return path


def instance(c, name, *volumes):
    """Boots nothing: what runs is QEMU with its disks, which is all that is asked for here."""
    path = c.path("default/instances", name)
    os.mkdir(path)
    write(os.path.join(path, "flavor"), "tiny")
    for v in volumes:
        os.symlink("../../../volumes/" + v, os.path.join(path, "volumes", v))
    return path


def running(c, name, *volumes):
    path = instance(c, name, *volumes)
    write(os.path.join(path, "ctl"), "start")
    awaits(path, "active")
    return path


def end(path):
    if read(os.path.join(path, "state")) not in ("stopped", "error", "shelved", "draft"):
        write(os.path.join(path, "ctl"), "stop 0")
        awaits(path, "stopped")
    remove(path)


@act
def volume_made(c):
    path = c.path("default/volumes/a")
    yield
    os.mkdir(path)
    write(os.path.join(path, "size"), "8M")
    yield
    state_is(path, "available")
    same("size", read(os.path.join(path, "size")), str(8 * MB))
    remove(path)


@act
def volume_by_line(c):
    path = c.path("default/volumes/a")
    yield
    write(c.path("default/volumes/new"), "name=a size=4M")
    yield
    state_is(path, "available")
    remove(path)


@act
def volume_encrypted(c):
    path = c.path("default/volumes/a")
    text = content(MB, "encrypted")
    yield
    os.mkdir(path)
    write(os.path.join(path, "encrypted"), "1")
    write(os.path.join(path, "size"), "32M")
    awaits(path, "available")
    fill(path, text)
    yield
    state_is(path, "available")
    holds(path, text)
    remove(path)


@act
def volume_written(c):
    path = volume(c, "a")
    text = content(3 * MB, "written")
    yield
    fill(path, text, 4096)
    yield
    holds(path, text, 4096)
    remove(path)


@act
def volume_grown(c):
    path = volume(c, "a")
    fill(path, b"x" * 4096)
    yield
    write(os.path.join(path, "size"), "16M")
    yield
    state_is(path, "available")
    same("size", read(os.path.join(path, "size")), str(16 * MB))
    holds(path, b"x" * 4096)
    remove(path)


@act
def volume_shrunk(c):
    path = volume(c, "a")
    fill(path, b"x" * 4096)
    yield
    write(os.path.join(path, "ctl"), "shrink 4M")
    yield
    same("size", read(os.path.join(path, "size")), str(4 * MB))
    holds(path, b"x" * 4096)
    remove(path)


@act
def volume_deleted(c):
    path = volume(c, "a")
    fill(path, content(MB, "deleted"))
    yield
    os.rmdir(path)
    yield
    gone(path)


@act
def snapshot_made(c):
    v = volume(c, "a")
    old, new = content(MB, "old"), content(MB, "new")
    fill(v, old)
    s = os.path.join(v, "snapshots/s")
    yield
    os.mkdir(s)
    awaits(s, "available")
    fill(v, new)
    yield
    state_is(s, "available")
    holds(v, new)
    b = c.path("default/volumes/b")
    os.mkdir(b)
    os.symlink("../a/snapshots/s", os.path.join(b, "source"))
    awaits(b, "available")
    holds(b, old)
    remove(b)
    remove(s)
    remove(v)


@act
def snapshot_cloned(c):
    v = volume(c, "a")
    text = content(MB, "cloned")
    fill(v, text)
    snapshot(v, "s")
    b = c.path("default/volumes/b")
    yield
    os.mkdir(b)
    os.symlink("../a/snapshots/s", os.path.join(b, "source"))
    yield
    state_is(b, "available")
    holds(b, text)
    remove(b)
    remove(os.path.join(v, "snapshots/s"))
    remove(v)


@act
def snapshot_reverted(c):
    v = volume(c, "a")
    old = content(MB, "before")
    fill(v, old)
    snapshot(v, "s")
    fill(v, content(MB, "after"))
    yield
    write(os.path.join(v, "ctl"), "revert s")
    yield
    state_is(v, "available")
    holds(v, old)
    remove(os.path.join(v, "snapshots/s"))
    remove(v)


@act
def snapshot_deleted(c):
    v = volume(c, "a")
    old, new = content(MB, "kept"), content(MB // 2, "over it")
    fill(v, old)
    s = snapshot(v, "s")
    fill(v, new)
    yield
    os.rmdir(s)
    yield
    gone(s)
    holds(v, new + old[len(new):])
    remove(v)


@act
def clone_flattened(c):
    v = volume(c, "a")
    text = content(2 * MB, "flattened")
    fill(v, text)
    snapshot(v, "s")
    b = c.path("default/volumes/b")
    os.mkdir(b)
    os.symlink("../a/snapshots/s", os.path.join(b, "source"))
    awaits(b, "available")
    yield
    write(os.path.join(b, "ctl"), "flatten")
    yield
    state_is(b, "available")
    holds(b, text)
    remove(os.path.join(v, "snapshots/s"))
    remove(v)
    holds(b, text)
    remove(b)


@act
def image_uploaded(c):
    path = c.path("default/images/i")
    text = content(4 * MB, "image")
    source = os.path.join(c.dir, "i.raw")
    with open(source, "wb") as f:
        f.write(text)
    yield
    subprocess.run(["cp", source, c.path("default/images/i.raw")], check=True)
    yield
    state_is(path, "active")
    with open(os.path.join(path, "disk"), "rb") as f:
        same("image", hashlib.sha256(f.read()).hexdigest(), hashlib.sha256(text).hexdigest())
    remove(path)


@act
def image_cloned(c):
    text = content(2 * MB, "image of a volume")
    source = os.path.join(c.dir, "i.raw")
    with open(source, "wb") as f:
        f.write(text)
    subprocess.run(["cp", source, c.path("default/images/i.raw")], check=True)
    image = c.path("default/images/i")
    awaits(image, "active")
    b = c.path("default/volumes/b")
    yield
    os.mkdir(b)
    os.symlink("../../images/i", os.path.join(b, "source"))
    yield
    state_is(b, "available")
    holds(b, text)
    remove(b)
    remove(image)


@act
def backup_taken(c):
    v = volume(c, "a")
    text = content(3 * MB, "backup")
    fill(v, text)
    b = c.path("default/backups/b")
    yield
    os.mkdir(b)
    os.symlink("../../volumes/a", os.path.join(b, "source"))
    yield
    state_is(b, "available")
    r = c.path("default/volumes/r")
    os.mkdir(r)
    os.symlink("../../backups/b", os.path.join(r, "source"))
    awaits(r, "available")
    holds(r, text)
    remove(r)
    remove(b)
    remove(v)


@act
def backup_restored(c):
    v = volume(c, "a")
    text = content(3 * MB, "restored")
    fill(v, text)
    b = c.path("default/backups/b")
    os.mkdir(b)
    os.symlink("../../volumes/a", os.path.join(b, "source"))
    awaits(b, "available")
    r = c.path("default/volumes/r")
    yield
    os.mkdir(r)
    os.symlink("../../backups/b", os.path.join(r, "source"))
    yield
    state_is(r, "available")
    holds(r, text)
    remove(r)
    remove(b)
    remove(v)


@act
def instance_started(c):
    volume(c, "a")
    i = instance(c, "i", "a")
    yield
    write(os.path.join(i, "ctl"), "start")
    yield
    state_is(i, "active")
    state_is(c.path("default/volumes/a"), "in-use")
    end(i)
    remove(c.path("default/volumes/a"))


@act
def instance_stopped(c):
    volume(c, "a")
    i = running(c, "i", "a")
    yield
    write(os.path.join(i, "ctl"), "stop 0")
    yield
    state_is(i, "stopped")
    remove(i)
    remove(c.path("default/volumes/a"))


@act
def instance_rebooted(c):
    volume(c, "a")
    i = running(c, "i", "a")
    yield
    write(os.path.join(i, "ctl"), "reboot hard")
    yield
    state_is(i, "active")
    end(i)
    remove(c.path("default/volumes/a"))


@act
def instance_paused(c):
    volume(c, "a")
    i = running(c, "i", "a")
    yield
    write(os.path.join(i, "ctl"), "pause")
    awaits(i, "paused")
    write(os.path.join(i, "ctl"), "resume")
    yield
    state_is(i, "active")
    end(i)
    remove(c.path("default/volumes/a"))


@act
def instance_suspended(c):
    volume(c, "a")
    i = running(c, "i", "a")
    yield
    write(os.path.join(i, "ctl"), "suspend")
    awaits(i, "suspended")
    write(os.path.join(i, "ctl"), "resume")
    yield
    state_is(i, "active")
    end(i)
    remove(c.path("default/volumes/a"))


@slow
@act
def instance_shelved(c):
    volume(c, "a")
    i = running(c, "i", "a")
    yield
    write(os.path.join(i, "ctl"), "shelve")
    awaits(i, "shelved")
    write(os.path.join(i, "ctl"), "unshelve")
    yield
    state_is(i, "active")
    end(i)
    remove(c.path("default/volumes/a"))


@act
def instance_deleted(c):
    volume(c, "a")
    i = running(c, "i", "a")
    write(os.path.join(i, "ctl"), "stop 0")
    awaits(i, "stopped")
    yield
    os.rmdir(i)
    yield
    gone(i)
    state_is(c.path("default/volumes/a"), "available")
    remove(c.path("default/volumes/a"))


@act
def disk_plugged(c):
    v = volume(c, "a")
    volume(c, "root")
    i = running(c, "i", "root")
    yield
    os.symlink("../../../volumes/a", os.path.join(i, "volumes/a"))
    yield
    state_is(v, "in-use")
    end(i)
    remove(v)
    remove(c.path("default/volumes/root"))


@act
def instance_snapshot(c):
    volume(c, "a")
    volume(c, "b")
    i = running(c, "i", "a", "b")
    yield
    write(os.path.join(i, "ctl"), "snapshot s")
    yield
    for v in ("a", "b"):
        state_is(c.path("default/volumes", v, "snapshots/s"), "available")
    end(i)
    for v in ("a", "b"):
        remove(c.path("default/volumes", v, "snapshots/s"))
        remove(c.path("default/volumes", v))


@act
def tenant_made(c):
    t = c.path("sweep")
    yield
    os.mkdir(t)
    wait_for(30, "the tenant's folders", lambda: os.path.isdir(os.path.join(t, "volumes")))
    yield
    same("its volumes", [n for n in os.listdir(os.path.join(t, "volumes")) if os.path.isdir(
        os.path.join(t, "volumes", n))], [])
    os.rmdir(t)
    gone(t)


@act
def group_changed(c):
    g = c.path("default/security_groups/g")
    rules = os.path.join(g, "rules")
    os.mkdir(g)
    yield
    write(rules, "+in tcp 22")
    write(rules, "+in tcp 80")
    write(rules, "-in tcp 22")
    yield
    same("rules", [l for l in read(rules).splitlines() if l.startswith("in tcp")], ["in tcp 80"])
    os.rmdir(g)
    gone(g)


KINDS = ("instances", "backups", "volumes", "images", "security_groups")


def objects(c, kind):
    top = c.path("default", kind)
    return [os.path.join(top, n) for n in os.listdir(top) if os.path.isdir(os.path.join(top, n))]


def remains(c):
    """What there is beyond what a new tenant has."""
    return [p for k in KINDS for p in objects(c, k) if not p.endswith("/default")] + [
        c.path(t) for t in os.listdir(c.path()) if t == "sweep"]


def in_error(c):
    return [p for k in KINDS for p in objects(c, k) if c.read_if(os.path.join(p, "state")) == "error"]


def clear(c):
    """Takes away whatever an act has left, as well as that can be done."""
    for _ in range(3):  # clones before what they are of
        for path in remains(c):
            snaps = os.path.join(path, "snapshots")
            with contextlib.suppress(OSError, Stuck):
                for s in os.listdir(snaps) if os.path.isdir(snaps) else ():
                    if os.path.isdir(os.path.join(snaps, s)):
                        remove(os.path.join(snaps, s))
            with contextlib.suppress(OSError, Stuck):
                if "/instances/" in path:
                    end(path)
                else:
                    remove(path)
