#!/usr/bin/python3
"""Writes the seed inputs of the fuzz targets: corpus.py DIR."""
import json, os, struct, sys

ID = b"00000000-0000-4000-8000-000000000001"


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def request(kind, off=0, length=0, flags=0, payload=b""):
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, 77, off, length) + payload


def go(name=b"", infos=(0, 1, 2, 3), number=7):
    return option(number, struct.pack(">I", len(name)) + name + struct.pack(">H", len(infos)) +
                  b"".join(struct.pack(">H", i) for i in infos))


def context(number, name, *queries):
    return option(number, struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) +
                  b"".join(struct.pack(">I", len(q)) + q for q in queries))


def extended(kind, off=0, length=0, flags=0, payload=b""):
    return struct.pack(">IHHQQQ", 0x21E41C71, flags, kind, 77, off, length) + payload


def status(off, effect, *ids):
    p = struct.pack(">Q", effect) + b"".join(struct.pack(">I", i) for i in ids)
    return extended(7, off, len(p), 32, p)


DIRTY = b"stratofs:dirty/00000000-0000-4000-8000-00000000000%d"
START = struct.pack(">I", 3)
FULL = START + option(8) + context(9, b"") + context(10, ID, b"base:allocation") + go(ID)
COMMANDS = [
    request(0, 0, 4096), request(0, 1 << 20, 200000), request(0, 65536, 300000, 4),
    request(1, 512, 512, 1, b"w" * 512), request(3), request(4, 0, 1 << 20, 1),
    request(6, 0, 1 << 20, 2), request(6, 5, 1 << 20, 16), request(5, 0, 4096),
    request(7, 0, 1 << 30), request(7, 0, 1 << 30, 8), request(99), request(0, 1 << 63, 1),
    request(0, 0, 1 << 31), request(1, 1 << 30, 10, 0, b"x" * 10), request(2),
]
EXTENDED = START + option(8) + option(11) + context(10, ID, b"base:allocation") + go(ID)
WIDE = [
    extended(0, 0, 4096), extended(0, 1 << 20, 200000), extended(0, 65536, 300000, 4),
    extended(1, 512, 512, 33, b"w" * 512), extended(1, 512, 512), extended(3),
    extended(4, 0, 1 << 33), extended(6, 0, 1 << 33, 2), extended(5, 0, 1 << 33),
    extended(7, 0, 1 << 33), extended(7, 0, 1 << 33, 8), status(0, 1 << 33, 1), status(0, 4096),
    status(0, 4096, 2), status(0, 4096, 1, 1), status(0, 0, 1), extended(7, 0, 4, 32, b"abcd"),
    extended(0, 0, 5, 32, b"abcde"), extended(99, 0, 5, 32, b"abcde"), extended(99),
    extended(0, 0, 1 << 40), extended(1, 1 << 40, 4, 32, b"past"), extended(2),
]
SESSION = {
    "extended": EXTENDED + b"".join(WIDE),
    "extended-order": START + option(11) + option(8) + option(11, b"x") + option(11) + go(ID) +
    extended(7, 0, 4096) + extended(0, 0, 1) + request(0, 0, 1),
    "extended-big": EXTENDED + extended(1, 1000, 300000, 33, b"B" * 300000) +
    extended(0, 0, 70000, 32, b"p" * 70000) + extended(2),
    "contexts": START + option(8) + context(9, b"") + context(9, ID, b"base:", b"x:y", b"base:z") +
    context(10, ID, b"base:", b"qemu:x", b"stratofs:dirty/" + ID) + context(10, b"nobody", b"x") +
    context(10, b"", b"base:allocation") + go(b"") + request(7, 0, 1 << 20),
    "all": FULL + b"".join(COMMANDS),
    "export-name": START + option(1, ID) + request(0, 0, 10) + request(2),
    "zeroes": struct.pack(">I", 1) + option(1) + request(0, 0, 10),
    "abort": START + option(3) + option(2),
    "list-data": START + option(3, b"x") + option(5) + option(4711, b"abc") + go(b"nobody"),
    "info": START + go(ID, number=6) + go(ID, (9, 3)) + request(2),
    "short-go": START + option(7, b"\0\0\0\x50abc") + option(7) + option(10, b"\0\0\0\0\0\0\0\x09"),
    "long": START + option(3, b"L" * 70000) + option(2),
    "simple": START + go(b"") + b"".join(COMMANDS),
    "flags": struct.pack(">I", 7),
    "write-big": FULL + request(1, 1000, 300000, 1, b"B" * 300000) + request(2),
    "contexts": START + option(8) + context(9, b"") + context(9, b"", b"stratofs:") +
                context(10, ID, b"base:allocation", DIRTY % 2, DIRTY % 3, DIRTY % 1) + go(ID) +
                request(7, 0, 1 << 20) + request(7, 70000, 1 << 29, 8) + request(2),
    "contexts-extended": START + option(11) + context(10, b"", DIRTY % 4, b"base:allocation") +
                         go(b"") + extended(7, 0, 1 << 30) +
                         extended(7, 0, 12, 32, struct.pack(">QI", 1 << 29, 1)) +
                         extended(7, 0, 16, 32, struct.pack(">QII", 1 << 20, 2, 2)) + extended(2),
}

CONTROL = [
    {"op": "ping"}, {"op": "create", "id": ID.decode(), "size": 1 << 30},
    {"op": "import", "id": ID.decode(), "path": "/nonexistent"},
    {"op": "clone", "id": ID.decode(), "parent": ID.decode()[:-1] + "2", "size": 1 << 30},
    {"op": "resize", "id": ID.decode(), "size": 1 << 31}, {"op": "remove", "id": ID.decode()},
    {"op": "stat", "id": ID.decode()}, {"op": "list", "after": ""},
    {"op": "export", "id": "a", "volume": ID.decode(), "uid": 0, "gid": 0, "readonly": True},
    {"op": "unexport", "id": "a"}, {"op": "list_exports"}, {"op": "loglevel", "level": 0},
    {"op": 5}, [], {"op": "create", "id": "../x", "size": -1}, {"op": "export", "id": "a/b"},
    {"op": "snapshot", "id": ID.decode(), "volume": ID.decode()[:-1] + "2"},
    {"op": "fault", "points": "volume.read=EIO"},
]


def maplog():
    head = b"STRAMAP1" + struct.pack("<II", 1, 4096) + bytes(16) + bytes(28) + bytes(4)
    rec = struct.pack("<Q", 3) + b"\x55" * 64

    def batch(group, count, flags):
        return b"SMLB" + bytes(4) + struct.pack("<QIIQ", group, count, flags, 0) + rec * count

    return head + batch(1, 1, 1) + batch(2, 2, 0) + batch(2, 1, 1) + batch(3, 1, 1)


META = [
    {"format": 1, "id": ID.decode(), "layers": [{"n": 0, "size": 1048576}]},
    {"format": 1, "id": ID.decode(), "layers": [{"n": 0, "size": 512}, {"n": 3, "size": 1024}],
     "parent": ID.decode(), "origin": {"volume": ID.decode(), "layer": 2}, "removed": True},
    {"format": 2}, {"format": 1, "id": "x", "layers": []},
    {"format": 2, "id": ID.decode(), "layers": [{"n": 0, "size": 512}], "parent": ID.decode(),
     "origin": {"volume": ID.decode(), "layer": 2}, "immutable": True},
    {"format": 3},
]


def main(top):
    def put(target, name, data):
        os.makedirs(os.path.join(top, target), exist_ok=True)
        with open(os.path.join(top, target, name), "wb") as f:
            f.write(data)

    for i, (name, data) in enumerate(SESSION.items()):
        put("session", name, bytes([3]) + data)
        if len(data) < 5000:
            put("session", name + "-slow", bytes([i % 3 + 4]) + data)
            put("session", name + "-rest", bytes([i % 3 + 8]) + data)
    for i, line in enumerate(CONTROL):
        put("control", "%02d" % i, json.dumps(line).encode())
    put("control", "all", b"\n".join(json.dumps(c).encode() for c in CONTROL))
    put("maplog", "mended", b"\1" + maplog())
    put("maplog", "plain", b"\0" + maplog())
    for i, meta in enumerate(META):
        put("meta", "%d" % i, json.dumps(meta).encode())


main(sys.argv[1])
