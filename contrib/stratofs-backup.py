#!/usr/bin/env python3
"""Reads a backup store of Stratofs without Stratofs (doc/backup-store.md).

    stratofs-backup.py DIR list
    stratofs-backup.py DIR verify [ID]...
    stratofs-backup.py DIR extract ID FILE

Needs python3 and the zstd command.  ID may be the beginning of one, or the backup's name if only
one has it.  extract writes a sparse raw image; it refuses a FILE that exists, unless it is a
device.  Exit status: 0 well, 1 something is bad, 2 not to be done."""
import hashlib
import json
import os
import re
import stat
import subprocess
import sys

BLOCK = 4096
HEX = re.compile(r"[0-9a-f]{64}\Z")


class Bad(Exception):
    pass


class Refused(Exception):
    pass


def manifest(store, backup):
    """Its head, and its chunks as pairs of checksum (None: zeros) and number."""
    path = os.path.join(store, "manifests", backup + ".jsonl")
    with open(path, "rb") as f:
        lines = f.read().splitlines(keepends=True)
    try:
        want = json.loads(lines[-1])["sha256"]
        head = json.loads(lines[0])
        chunks = [json.loads(line) for line in lines[1:-1]]
    except (ValueError, IndexError, KeyError, TypeError):
        raise Bad("manifest %s is not as it was written" % path)
    if hashlib.sha256(b"".join(lines[:-1])).hexdigest() != want or head["id"] != backup:
        raise Bad("manifest %s is not as it was written" % path)
    if head["format"] != "stratofs-backup" or head["version"] != 1:
        raise Refused("%s is of another release" % path)
    chunks = [(c, 1) if isinstance(c, str) else (None, c) for c in chunks]
    size, unit = head["size"], head["chunk_size"]
    if sum(n for _, n in chunks) != -(-size // unit) or \
            any(c is not None and not HEX.match(c) for c, _ in chunks):
        raise Bad("manifest %s makes no sense" % path)
    return head, chunks


def pieces(head, chunks):
    """Offset, length and checksum of what the backup consists of."""
    off = 0
    for name, n in chunks:
        length = min(n * head["chunk_size"], head["size"] - off)
        yield off, length, name
        off += length


def chunk(store, name, length):
    """The bytes of a chunk, checked."""
    path = os.path.join(store, "chunks", name[:2], name)
    if not os.path.exists(path):
        raise Bad("chunk %s is missing" % name)
    run = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if run.returncode:
        raise Bad("chunk %s: %s" % (name, run.stderr.decode(errors="replace").strip()))
    if len(run.stdout) != length or hashlib.sha256(run.stdout).hexdigest() != name:
        raise Bad("chunk %s has other bytes than its name says" % name)
    return run.stdout


def ids(store):
    return sorted(n[:-6] for n in os.listdir(os.path.join(store, "manifests"))
                  if n.endswith(".jsonl"))


def find(store, word):
    found = [i for i in ids(store) if i.startswith(word)]
    if not found:
        for i in ids(store):
            try:
                if manifest(store, i)[0].get("name") == word:
                    found.append(i)
            except Bad:
                pass
    if len(found) != 1:
        raise Refused("%s backup is called '%s'" % ("more than one" if found else "no", word))
    return found[0]


def list_all(store):
    bad = 0
    heads = []
    for i in ids(store):
        try:
            heads.append(manifest(store, i)[0])
        except Bad as e:
            bad = 1
            print(e)
    for h in sorted(heads, key=lambda h: h["created"]):
        print(h["id"], h["created"], "%14d" % h["size"],
              "%s/%s" % (h.get("tenant", ""), h.get("volume_name", "")), h.get("name", ""))
    return bad


def verify(store, words):
    """Each chunk once, however many backups have it."""
    good, known_bad, result = set(), {}, 0
    for i in [find(store, w) for w in words] or ids(store):
        bad = []
        try:
            head, chunks = manifest(store, i)
            for off, length, name in pieces(head, chunks):
                if name is None or (name, length) in good:
                    continue
                try:
                    if name in known_bad:
                        raise known_bad[name]
                    chunk(store, name, length)
                    good.add((name, length))
                except Bad as e:
                    known_bad[name] = e
                    bad.append("at byte %d: %s" % (off, e))
        except Bad as e:
            bad.append(str(e))
        print(i, "bad" if bad else "good")
        for words in bad:
            print("   ", words)
        result |= bool(bad)
    return result


def write_sparse(fd, off, data, sparse):
    """All but blocks of zeros, where the file has them anyway."""
    at = 0
    while at < len(data):
        end = at + BLOCK
        zeros = not any(data[at:end])
        while end < len(data) and (not any(data[end:end + BLOCK])) == zeros:
            end += BLOCK
        if not (zeros and sparse):
            os.pwrite(fd, data[at:end], off + at)
        at = end


def extract(store, word, path):
    head, chunks = manifest(store, find(store, word))
    device = os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode)
    fd = os.open(path, os.O_RDWR | (0 if device else os.O_CREAT | os.O_EXCL), 0o600)
    if not device:
        os.ftruncate(fd, head["size"])
    for off, length, name in pieces(head, chunks):
        if name is not None:
            write_sparse(fd, off, chunk(store, name, length), not device)
            continue
        while device and length:
            n = min(length, 1 << 20)
            os.pwrite(fd, bytes(n), off)
            off, length = off + n, length - n
    os.fsync(fd)
    os.close(fd)
    return 0


def main(args):
    if len(args) == 2 and args[1] == "list":
        return list_all(args[0])
    if len(args) >= 2 and args[1] == "verify":
        return verify(args[0], args[2:])
    if len(args) == 4 and args[1] == "extract":
        return extract(args[0], args[2], args[3])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Bad as e:
        print(e, file=sys.stderr)
        sys.exit(1)
    except (Refused, OSError) as e:
        print(e, file=sys.stderr)
        sys.exit(2)
