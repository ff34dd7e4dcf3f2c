"""What the image tests share: making images, patching bytes, asking the driver."""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

PROBE = sys.argv[1]
DIR = tempfile.mkdtemp(prefix="image-")
KIB, MIB = 1 << 10, 1 << 20
failures = []


def path(name):
    return os.path.join(DIR, name)


def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def put(name, data):
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name)


def get(name):
    with open(path(name), "rb") as f:
        return f.read()


def patched(data, *edits):
    b = bytearray(data)
    for off, new in edits:
        b[off:off + len(new)] = new
    return bytes(b)


def be16(v):
    return struct.pack(">H", v)


def be32(v):
    return struct.pack(">I", v)


def be64(v):
    return struct.pack(">Q", v)


def le32(v):
    return struct.pack("<I", v)


def le64(v):
    return struct.pack("<Q", v)


def probe(*argv, env=None):
    p = subprocess.run([PROBE, *map(str, argv)], stdout=subprocess.PIPE, text=True,
                       env={**os.environ, **(env or {})})
    return p.stdout.strip()


def check(good, what):
    if not good:
        failures.append(what)
        print("FAIL", what)


def accepts(data, hint, fmt, size):
    """Our parsers take the bytes for that format and virtual size."""
    out = probe("detect", put("t", data), hint, 0)
    check(out == f"ok {fmt} {size}", f"hint {hint}: {out!r}, wanted {fmt} {size}")


def refuses(data, words, hint="-", limit=0):
    """Our parsers refuse the bytes with -EINVAL and those words."""
    out = probe("detect", put("t", data), hint, limit)
    check(out.startswith("err -22 ") and words in out, f"{out!r}, wanted -22 and {words!r}")


def source(name, size, seed=1):
    """A sparse raw disk with some data, incompressible and not."""
    rnd = random.Random(seed)
    with open(path(name), "wb") as f:
        f.truncate(size)
        for off in range(0, size, size // 8):
            f.seek(off)
            f.write(rnd.randbytes(96 * KIB) + b"stratofs" * 8192)
        f.seek(size - 512)
        f.write(rnd.randbytes(512))
    return path(name)


def converted(src, name, fmt, *opts):
    run("qemu-img", "convert", "-f", "raw", "-O", fmt, *opts, src, path(name))
    return get(name)


def upload(images, ident, src):
    os.makedirs(os.path.join(images, ident), exist_ok=True)
    shutil.copy(src, os.path.join(images, ident, "upload"))


def finish():
    shutil.rmtree(DIR)
    sys.exit(1 if failures else 0)
