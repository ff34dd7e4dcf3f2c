#!/usr/bin/python3
"""What earlier releases left on disk is opened by this one, whole; what a later one left is refused
in words.

    old.py describe ROOT       the cloud at ROOT as JSON: attributes, links, metadata, sums of bytes
    old.py open ARCHIVE        unpacks what make-state made, opens it and compares
    old.py newer ARCHIVE       numbers of formats are raised, one at a time
"""
import glob
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

GLOBAL = ("flavors", "volume_types")
# Figures of the moment, and what a later release may word otherwise.
PASSING = {"jobs"}
PLACE = "/tmp/stratofs-of-old"


def read(path):
    with open(path, "rb") as f:
        return f.read()


def text(path):
    return read(path).decode().strip()


def objects(root):
    """Paths of all that has a spec, below the root."""
    tops = [os.path.join(root, g) for g in GLOBAL]
    tenants = os.path.join(root, "tenants")
    for t in os.listdir(tenants):
        t = os.path.join(tenants, t)
        if os.path.isdir(t):
            yield t
            tops += [os.path.join(t, kind) for kind in os.listdir(t) if kind not in PASSING]
    while tops:
        top = tops.pop()
        if not os.path.isdir(top) or os.path.islink(top):
            continue
        for name in os.listdir(top):
            o = os.path.join(top, name)
            if os.path.islink(o) or not os.path.isfile(os.path.join(o, "spec")):
                continue
            yield o
            tops += [os.path.join(o, sub) for sub in os.listdir(o)
                     if os.path.isdir(os.path.join(o, sub))]


def describe_one(o):
    d = {f: text(os.path.join(o, f)) for f in ("id", "state", "created")}
    d["spec"] = json.loads(text(os.path.join(o, "spec")))
    data = os.path.join(o, "data")
    if os.path.basename(os.path.dirname(o)) == "volumes" and d["state"] != "draft":
        try:
            d["sha256"] = hashlib.sha256(read(data)).hexdigest()
        except OSError as e: # a guest has it
            d["sha256"] = os.strerror(e.errno)
    for f in ("rules", "quota", "taken", "checksum", "addresses", "attached_to"):
        if os.path.isfile(os.path.join(o, f)):
            d[f] = text(os.path.join(o, f))
    return d


def describe(root):
    return {os.path.relpath(o, root): describe_one(o) for o in sorted(objects(root))}


# ---- a cloud of this build ----

BUILD = os.environ.get("BUILD", "")
STRATO = os.path.join(BUILD, "cli/strato")
ROOT = os.path.join(PLACE, "cloud")
STATE = os.path.join(PLACE, "state")
DEFAULT = os.path.join(ROOT, "tenants/default")


def go_inside():
    """A host of the old one's name, with a /tmp of its own: paths are part of what was kept."""
    if os.getuid() != 0:
        print("SKIP: only for root", file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    if "STRATOFS_INNER" not in os.environ:
        os.environ["STRATOFS_INNER"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--uts", "--propagation", "private",
                              sys.executable, *sys.argv])
    os.makedirs("/run/libvirt", exist_ok=True)
    os.makedirs(PLACE, exist_ok=True)
    for where in ("/run/libvirt", PLACE):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "none", where], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["hostname", "old"], check=True)
    hosts = os.path.join(PLACE, "hosts") # libvirt asks for the name's address, and here nobody answers
    with open(hosts, "w") as f:
        f.write("127.0.0.1 localhost old\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


def ok(words):
    print("ok: " + words, flush=True)


def fail(words):
    print("FAIL: " + words, file=sys.stderr)
    for log in ("stratod.log", "blockd.log"):
        path = os.path.join(STATE, "log", log)
        if os.path.exists(path):
            print("--- %s\n%s" % (log, "".join(open(path).readlines()[-20:])), file=sys.stderr)
    sys.exit(1)


def strato(verb, *words):
    return subprocess.run([STRATO, verb, *words, "--state", STATE, "--mount", ROOT], text=True,
                          capture_output=True, timeout=120)


def unpack(archive):
    shutil.rmtree(STATE, ignore_errors=True)
    os.makedirs(ROOT, exist_ok=True)
    subprocess.run(["tar", "--zstd", "-xf", archive, "-C", PLACE], check=True)


def up():
    r = strato("up")
    if r.returncode:
        fail("strato up: " + r.stdout + r.stderr)


def put(path, words):
    with open(os.path.join(DEFAULT, path), "w") as f:
        f.write(words + "\n")


def await_state(path, state):
    path = os.path.join(DEFAULT, path)
    if text(os.path.join(path, ".wait", state + "@180")) != state:
        fail("%s is %s: %s" % (path, text(path + "/state"), text(path + "/error")))


def differences(was, now, where):
    """What was said then must be said now; more may be said."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in was:
            if key not in now:
                yield "%s/%s is gone" % (where, key)
            else:
                yield from differences(was[key], now[key], where + "/" + key)
    elif isinstance(was, str) and isinstance(now, str) and "\n" in was: # a line each
        for line in set(was.splitlines()) - set(now.splitlines()):
            yield "%s no longer says %r" % (where, line)
    elif was != now:
        yield "%s was %r and is %r" % (where, was, now)


def volume_from(name, source):
    os.mkdir(DEFAULT + "/volumes/" + name)
    os.symlink("../../" + source, DEFAULT + "/volumes/" + name + "/source")
    await_state("volumes/" + name, "available")
    return read(DEFAULT + "/volumes/" + name + "/data")


def expected_bytes():
    """What make-state wrote to a volume before its snapshot."""
    return (b"lines of an earlier release\n" * 1000).ljust(4 << 20, b"\0")


def with_text(old, at, words):
    return old[:at] + words + old[at + len(words):]


def check_bytes():
    before = expected_bytes()
    after = with_text(before, 4096, b"after the snapshot")
    wanted = {"volumes/plain/snapshots/before": before, "volumes/secret/snapshots/before": before,
              "backups/full": after, "backups/later": with_text(after, 65536, b"changed after full")}
    for n, (source, data) in enumerate(wanted.items()):
        if volume_from("new%d" % n, source) != data:
            fail(source + " has other bytes")
    ok("snapshots and backups have their bytes")
    if read(DEFAULT + "/volumes/secret/data") != after:
        fail("the encrypted volume has other bytes")
    ok("the encrypted volume is read with its key")


def check_defaults(was, now):
    """What kinds have learnt since is as in a new object, of what a new one has by itself."""
    for kind, name in (("volumes", "draft"), ("instances", "draft"), ("security_groups", "web"),
                       ("groups", "apart")):
        os.mkdir("%s/%s/fresh" % (DEFAULT, kind))
        fresh = json.loads(text("%s/%s/fresh/spec" % (DEFAULT, kind)))
        path = "tenants/default/%s/%s" % (kind, name)
        for key in set(now[path]["spec"]) - set(was[path]["spec"]):
            if now[path]["spec"][key] != fresh.get(key):
                fail("%s: %s is %r, of a new one %r" % (path, key, now[path]["spec"][key],
                                                        fresh.get(key)))
        os.rmdir("%s/%s/fresh" % (DEFAULT, kind))
    ok("what is new is as in new objects")


def check_use():
    os.mkdir(DEFAULT + "/volumes/plain/snapshots/now")
    await_state("volumes/plain/snapshots/now", "available")
    put("volumes/plain/size", "8M")
    await_state("volumes/plain", "available")
    put("volumes/plain/ctl", "check")
    ok("it is used on: a snapshot, a larger volume")
    if not os.environ.get("STRATOFS_LONG"):
        return
    put("instances/on/ctl", "start") # an engine that is new to a host looks at its emulators for long
    await_state("instances/on", "active")
    put("instances/on/ctl", "stop now")
    await_state("instances/on", "stopped")
    ok("and a guest")


def open_(archive):
    unpack(archive)
    with open(os.path.join(PLACE, "described.json")) as f:
        was = json.load(f)
    up()
    now = describe(ROOT)
    wrong = list(differences(was, now, ""))
    if wrong:
        fail("\n".join(wrong))
    ok("%d objects are what they were" % len(was))
    check_bytes()
    check_defaults(was, now)
    check_use()
    r = strato("doctor", "--fsck") if "--fsck" in strato("doctor", "--help").stdout else None
    if r and r.returncode:
        fail(r.stdout + r.stderr)
    strato("down", "--guests", "--force")
    up()
    if list(differences(was["tenants/default/groups/apart"],
                        describe_one(DEFAULT + "/groups/apart"), "")):
        fail("another start finds something else")
    ok("it starts again")


# ---- formats of a release to come ----

NEXT = 99 # no release of ours will know it soon


def newer_volume(id):
    """Text without a checksum passes for older; its number is looked at first."""
    for name in ("meta", "meta.bak"):
        path = "%s/blockd/pool/%s/%s" % (STATE, id, name)
        d = json.loads(text(path))
        d["format"] = NEXT
        del d["crc32c"]
        with open(path, "w") as f:
            f.write(json.dumps(d))


def newer_map(id):
    path = "%s/blockd/pool/%s/map.0" % (STATE, id)
    with open(path, "r+b") as f:
        head = bytearray(f.read(64))
        head[8:12] = NEXT.to_bytes(4, "little")
        head[60:64] = crc32c(head[:60]).to_bytes(4, "little")
        f.seek(0)
        f.write(head)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def newer_backup(id):
    """Its last line is the checksum of the others."""
    path = "%s/backups/manifests/%s.jsonl" % (STATE, id)
    lines = read(path).splitlines(keepends=True)[:-1]
    lines[0] = lines[0].replace(b'"version":1', b'"version":%d' % NEXT)
    body = b"".join(lines)
    with open(path, "wb") as f:
        f.write(body + b'{"sha256":"%s"}\n' % hashlib.sha256(body).hexdigest().encode())


def newer_json(pattern):
    for path in glob.glob(os.path.join(STATE, pattern)):
        d = json.loads(text(path))
        d["format"] = NEXT
        with open(path, "w") as f:
            json.dump(d, f)
        return
    fail("nothing is " + pattern)


def newer_store():
    db = sqlite3.connect(STATE + "/stratod/cloud.db")
    n = db.execute("pragma user_version").fetchone()[0]
    db.execute("pragma user_version = %d" % (n + 1))
    db.commit()
    db.close()


def refused_start(raise_it, words, archive):
    unpack(archive)
    raise_it()
    r = strato("up", "--timeout", "30")
    said = r.stdout + r.stderr
    path = os.path.join(STATE, "log", "stratod.log")
    if os.path.exists(path):
        said += open(path).read()
    if r.returncode == 0 or words not in said:
        fail("status %d, without %r: %s" % (r.returncode, words, said))
    strato("down", "--guests", "--force")


def newer_record():
    """A record of a kind as the next release may write it."""
    db = sqlite3.connect(STATE + "/stratod/cloud.db")
    for scope, key, value in db.execute("select scope, key, value from records").fetchall():
        d = json.loads(value)
        if d.get("kind") == "volume":
            d["v"] += 1
            db.execute("update records set value = ? where scope = ? and key = ?",
                       (json.dumps(d).encode(), scope, key))
            break
    else:
        fail("no record of a volume")
    db.commit()
    db.close()


def newer(archive):
    refused_start(newer_store, "newer than version", archive)
    ok("a store of a later version is refused")
    refused_start(newer_record, "made by a newer release", archive)
    ok("a record of a later version is refused")

    with open(PLACE + "/described.json") as f:
        was = json.load(f)
    ids = {n: was["tenants/default/" + n]["id"] for n in ("volumes/clone", "volumes/plain",
                                                         "volumes/root", "backups/full")}
    refused_start(lambda: newer_volume(ids["volumes/clone"]), "this program knows", archive)
    ok("a pool with a volume of a later format is refused: it could be in use by what it does not know")

    unpack(archive)
    newer_map(ids["volumes/clone"])
    newer_backup(ids["backups/full"])
    newer_json("blockd/limits/*.json")
    up()
    try:
        read(DEFAULT + "/volumes/clone/data")
        fail("a map of a later version is read")
    except OSError:
        pass
    with open(STATE + "/log/blockd.log") as f:
        log = f.read() + text(DEFAULT + "/errors")
    for words in ("version %d" % NEXT, "it has format %d, this program knows" % NEXT):
        if words not in log:
            fail("nobody says: %s\n%s" % (words, log))
    ok("maps and limits of a later format are refused in words")
    if hashlib.sha256(read(DEFAULT + "/volumes/plain/data")).hexdigest() != \
            was["tenants/default/volumes/plain"]["sha256"]:
        fail("another volume has other bytes")
    ok("the others are served")
    os.mkdir(DEFAULT + "/volumes/r")
    try:
        os.symlink("../../backups/full", DEFAULT + "/volumes/r/source")
        text(DEFAULT + "/volumes/r/.wait/available@20")
        fail("a backup of a later version is restored")
    except OSError:
        pass
    if "version newer than" not in text(DEFAULT + "/volumes/r/error"):
        fail("no words: " + text(DEFAULT + "/volumes/r/error"))
    ok("a backup of a later version is refused")


def main():
    if sys.argv[1] == "describe":
        json.dump(describe(sys.argv[2]), sys.stdout, indent=1, sort_keys=True)
        return
    go_inside()
    try:
        {"open": open_, "newer": newer}[sys.argv[1]](os.path.abspath(sys.argv[2]))
    finally:
        strato("down", "--guests", "--force")
        subprocess.run(["umount", "-l", PLACE], check=False)
        os.rmdir(PLACE)


if __name__ == "__main__":
    main()
