"""The whole way: upload, inspect with qemu-img confined, publish, and the same bytes come out."""
import filecmp
import hashlib
from kit import *

SIZE = 32 * MIB
SRC = source("src.raw", SIZE)
IMAGES = path("images")
HIDDEN = [("qcow2", "qcow2", []), ("qcow2", "qcow2", ["-c"]), ("vmdk", "vmdk", []),
          ("vmdk", "vmdk", ["-o", "subformat=streamOptimized"]), ("vdi", "vdi", []),
          ("vdi", "vdi", ["-o", "static=on"]), ("vpc", "vhd", ["-o", "force_size=on"]),
          ("vpc", "vhd", ["-o", "subformat=fixed,force_size=on"])]


def view(ident):
    return os.path.join(IMAGES, ident, "raw")


def round_trips():
    for n, (driver, fmt, opts) in enumerate(HIDDEN):
        ident = f"i{n}"
        converted(SRC, "c", driver, *opts)
        upload(IMAGES, ident, path("c"))
        out = probe("inspect", IMAGES, ident, fmt, 0)
        check(out == f"ok {fmt} {SIZE} {os.path.getsize(path('c'))}", f"inspect {opts}: {out}")
        for _ in range(2):  # publish is repeatable
            out = probe("publish", IMAGES, ident, fmt)
            check(out == f"ok {fmt} {SIZE} {view(ident)}", f"publish {fmt} {opts}: {out}")
        check(os.path.exists(view(ident)) and filecmp.cmp(SRC, view(ident), False),
              f"bytes of {fmt} {opts}")
        if os.path.exists(view(ident)):
            check(os.stat(view(ident)).st_blocks * 512 < SIZE, f"{fmt} {opts} stays sparse")
    # a VHD whose size is its geometry
    converted(SRC, "c", "vpc")
    upload(IMAGES, "chs", path("c"))
    out = probe("publish", IMAGES, "chs", "vhd")
    check(out.startswith("ok vhd "), f"chs: {out}")
    upload(IMAGES, "plain", SRC)
    out = probe("publish", IMAGES, "plain", "img")
    check(out == f"ok raw {SIZE} {IMAGES}/plain/upload", f"raw: {out}")
    with open(SRC, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    check(probe("checksum", IMAGES, "plain") == f"ok {digest}", "checksum")
    put("k", b"070701" + b"0" * 104)
    upload(IMAGES, "ari", path("k"))
    out = probe("publish", IMAGES, "ari", "ari")
    check(out.startswith("err -22 ") and "no raw view" in out, f"ari: {out}")


def hostile():
    """One of each kind through the driver: refused, and nothing is made of it."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", "/etc/passwd",
        path("h-qcow2"), "1M")
    converted(SRC, "h-vmdk", "vmdk", "-o", "subformat=monolithicFlat")
    put("h-vdi", patched(converted(SRC, "c", "vdi"), (0x1b8, b"\1" * 16)))
    put("h-vhd", converted(SRC, "c", "vpc")[:-512])
    for fmt in ("qcow2", "vmdk", "vdi", "vhd"):
        upload(IMAGES, f"h-{fmt}", path(f"h-{fmt}"))
        out = probe("publish", IMAGES, f"h-{fmt}", fmt)
        check(out.startswith("err -22 image"), f"hostile {fmt}: {out}")
        check(os.listdir(os.path.join(IMAGES, f"h-{fmt}")) == ["upload"], f"files of {fmt}")


def second_opinion():
    """What our parsers let pass and qemu-img does not."""
    q = converted(SRC, "q", "qcow2")
    table = int.from_bytes(q[48:56], "big")
    block = int.from_bytes(q[table:table + 8], "big")
    put("bad", patched(q, (block, bytes(512))))  # clusters in use that count as free
    upload(IMAGES, "bad", path("bad"))
    out = probe("inspect", IMAGES, "bad", "qcow2", 0)
    check(out.startswith("err -22 ") and "image is damaged: qemu-img check finds" in out, out)
    out = probe("inspect", IMAGES, "i0", "qcow2", MIB)
    check(out.startswith("err -22 ") and "allowed" in out, out)


def broken_stream():
    """A compressed cluster that does not decompress fails in publish and leaves nothing."""
    q = bytearray(converted(SRC, "q", "qcow2", "-c"))
    l1 = int.from_bytes(q[40:48], "big")
    l2 = int.from_bytes(q[l1:l1 + 8], "big") & 0x00fffffffffffe00
    for i in range(l2, l2 + 4096, 8):
        entry = int.from_bytes(q[i:i + 8], "big")
        if entry >> 62 & 1:
            off = entry & ((1 << 54) - 1)
            q[off:off + 32] = b"\xff" * 32
            break
    else:
        check(False, "no compressed cluster to break")
    put("bs", bytes(q))
    upload(IMAGES, "bs", path("bs"))
    out = probe("publish", IMAGES, "bs", "qcow2")
    check(out.startswith("err -22 ") and "convert refuses" in out, out)
    check(os.listdir(os.path.join(IMAGES, "bs")) == ["upload"], "leftovers of a failed publish")


def interrupted():
    converted(SRC, "c", "qcow2")
    upload(IMAGES, "cut", path("c"))
    folder = os.path.join(IMAGES, "cut")
    out = probe("publish", IMAGES, "cut", "qcow2", 0)
    check(out.startswith("err -125 "), f"cancel: {out}")
    check(os.listdir(folder) == ["upload"], "leftovers of a cancel")
    for point in ("sync", "rename", "renamed"):
        for action in ("kill", "EIO"):
            probe("publish", IMAGES, "cut", "qcow2",
                  env={"STRATOFS_FAULT": f"image.publish.{point}={action}"})
            out = probe("publish", IMAGES, "cut", "qcow2")
            check(out.startswith("ok "), f"after {action} at {point}: {out}")
            check(filecmp.cmp(SRC, view("cut"), False), f"bytes after {action} at {point}")
            check(sorted(os.listdir(folder)) == ["raw", "upload"], f"files after {point}")
            os.unlink(view("cut"))


def full_disk():
    tmp = path("full")
    os.makedirs(tmp)
    run("mount", "-t", "tmpfs", "-o", "size=2m", "none", tmp)
    try:
        converted(SRC, "c", "qcow2", "-c")
        upload(tmp, "x", path("c"))
        out = probe("publish", tmp, "x", "qcow2")
        check(out.startswith("err -28 ") and "No space left" in out, f"full disk: {out}")
        check(os.listdir(os.path.join(tmp, "x")) == ["upload"], "leftovers of a full disk")
    finally:
        run("umount", tmp)


for part in (round_trips, hostile, second_opinion, broken_stream, interrupted, full_disk):
    part()
finish()
