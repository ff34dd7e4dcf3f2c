"""Every format is known by its content; every refusal has its errno and its words."""
import gzip
import random
import struct
from kit import *

SIZE = 4 * MIB
SRC = source("src.raw", SIZE)
RAW = get("src.raw")


def qcow2():
    q = converted(SRC, "q", "qcow2")
    for opts in (["-o", "compat=0.10"], ["-c"], ["-o", "extended_l2=on"],
                 ["-o", "cluster_size=512"], ["-o", "cluster_size=2M"],
                 ["-c", "-o", "compression_type=zstd"]):
        accepts(converted(SRC, "q2", "qcow2", *opts), "qcow2", "qcow2", SIZE)
    accepts(q, "-", "qcow2", SIZE)
    accepts(q, "img", "qcow2", SIZE)
    run("qemu-img", "create", "-q", "-f", "qcow2", path("e"), "1G")
    accepts(get("e"), "qcow2", "qcow2", 1 << 30)
    run("qemu-img", "snapshot", "-c", "one", path("e"))
    snap = get("e")
    accepts(snap, "qcow2", "qcow2", 1 << 30)

    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", "/etc/passwd",
        path("b"), "1M")
    refuses(get("b"), "image names a backing file '/etc/passwd': refused, an image must be whole")
    refuses(patched(q, (8, be64(len(q) - 4)), (16, be32(1000))), "names a backing file")
    refuses(patched(q, (8, be64(0x200)), (16, be32(4)), (0x200, b"a\n\x1b'")),
            "backing file 'a???'")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={path('ext')}", path("d"), "1M")
    refuses(get("d"), "external")
    refuses(patched(q, (72, be64(4))), "external file")
    refuses(patched(q, (72, be64(2))), "marked as corrupt")
    refuses(patched(q, (72, be64(1))), "marked as in use")
    refuses(patched(q, (72, be64(1 << 40))), "unknown qcow2 features (0x10000000000)")
    refuses(patched(q, (32, be32(1))), "encrypted (AES)")
    refuses(patched(q, (32, be32(2))), "encrypted (LUKS)")
    refuses(patched(q, (4, be32(1))), "qcow version 1")
    refuses(patched(q, (4, be32(4))), "version 4 is unknown")
    refuses(patched(q, (20, be32(8))), "cluster size 2^8")
    refuses(patched(q, (20, be32(63))), "cluster size 2^63")
    refuses(patched(q, (24, be64(0))), "virtual size of 0")
    refuses(patched(q, (24, be64(1 << 62))), "out of proportion")
    refuses(patched(q, (24, be64(1 << 63))), "out of proportion")
    refuses(patched(q, (24, be64(1 << 63 - 1)))[:4096], "out of proportion")
    refuses(patched(q, (36, be32(0x400000))), "truncated: L1 table")
    refuses(patched(q, (36, be32(0xffffffff))), "truncated: L1 table")
    refuses(patched(q, (40, be64(0))), "L1 table at byte 0 is misplaced")
    refuses(patched(q, (40, be64(1 << 40))), "truncated: L1 table")
    refuses(patched(q, (48, be64(1 << 40))), "truncated: refcount table")
    refuses(patched(q, (56, be32(0))), "refcount table is missing")
    refuses(patched(q, (56, be32(0xffffffff))), "truncated: refcount table")
    refuses(patched(q, (96, be32(7))), "refcount order 7")
    refuses(patched(q, (100, be32(99))), "header length 99")
    refuses(patched(snap, (60, be32(0x10000))), "internal snapshots")
    refuses(patched(snap, (64, be64(1 << 40))), "truncated: snapshot table")
    refuses(patched(snap, (64, be64(3))), "snapshot table at byte 3 is misplaced")
    refuses(patched(snap, (int.from_bytes(snap[64:72], "big"), be64(1 << 40))),
            "truncated: snapshot L1")
    refuses(q[:71], "truncated")
    refuses(q[:100], "truncated")
    refuses(q, "more than the 1048576 allowed", limit=MIB)
    refuses(patched(q, (104 if q[103] == 104 else q[103], be32(0x44415441) + be32(4) + b"/etc")),
            "external data file '/etc'")
    l1 = int.from_bytes(q[40:48], "big")
    refuses(patched(q, (l1, be64(1 << 63 | 1 << 40))), "truncated: L2 table")
    l2 = int.from_bytes(q[l1:l1 + 8], "big") & 0x00fffffffffffe00
    refuses(patched(q, (l2, be64(1 << 63 | 1 << 40))), "truncated: cluster")
    # every L1 entry leads to the same L2 table: a walk as long as the peer likes
    bomb = patched(q, (24, be64(1 << 40)), (36, be32(2048)), (l1, be64(1 << 63 | l2) * 2048))
    refuses(bomb, "two L1 entries lead to one L2 table")
    for q in (q, converted(SRC, "qc", "qcow2", "-c")):
        for cut in range(0, len(q), 64 * KIB):
            if not any(q[cut:]):
                continue  # zeros that nothing but padding can lack
            out = probe("detect", put("t", q[:cut]), "qcow2", 0)
            check(out.startswith("err -22 "), f"cut at {cut} of {len(q)}: {out}")


def vmdk():
    v = converted(SRC, "v", "vmdk")
    s = converted(SRC, "s", "vmdk", "-o", "subformat=streamOptimized")
    accepts(v, "vmdk", "vmdk", SIZE)
    accepts(s, "-", "vmdk", SIZE)
    desc = v.index(b"# Disk DescriptorFile")
    end = v.index(b"\0", desc)
    text = v[desc:end]

    def with_text(new):
        return v[:desc] + new.ljust(20 * 512, b"\0") + v[desc + 20 * 512:]

    accepts(with_text(text), "vmdk", "vmdk", SIZE)
    refuses(with_text(text.replace(b"monolithicSparse", b"monolithicFlat")), "'monolithicFlat'")
    refuses(with_text(text.replace(b"monolithicSparse", b"twoGbMaxExtentSparse")), "not offered")
    refuses(with_text(text.replace(b" SPARSE ", b" FLAT ")), "VMDK extent")
    refuses(with_text(text.replace(b"parentCID=ffffffff", b"parentCID=12345678")),
            "parentCID 12345678")
    refuses(with_text(text + b'\nparentFileNameHint="/etc/shadow"\n'), "parent '/etc/shadow'")
    refuses(with_text(text + b'\nRW 100 SPARSE "other.vmdk"\n'), "more than one VMDK extent")
    refuses(with_text(text.replace(b'SPARSE "', b'SPARSE "/etc/')), "extent elsewhere '/etc/")
    refuses(with_text(b"# Disk DescriptorFile\n"), "no createType")
    refuses(text, "names other files", hint="vmdk")
    refuses(b"# comment\n" + text, "names other files")
    for sub in ("monolithicFlat", "twoGbMaxExtentSparse"):
        refuses(converted(SRC, f"x-{sub}", "vmdk", "-o", f"subformat={sub}"), "names other files")
    refuses(patched(v, (12, le64(0))), "no capacity")
    refuses(patched(v, (12, le64(1 << 62))), "out of proportion")
    refuses(patched(v, (12, le64(1 << 50))), "out of proportion")
    refuses(patched(v, (12, le64(1 << 34))), "two directory entries")
    refuses(patched(v, (12, le64(1 << 36))), "truncated: grain directory")
    refuses(patched(v, (20, le64(0))), "grain size 0")
    refuses(patched(v, (20, le64(3))), "grain size 3")
    refuses(patched(v, (28, le64(0))), "no embedded descriptor")
    refuses(patched(v, (28, le64(1 << 60))), "truncated: VMDK descriptor")
    refuses(patched(v, (36, le64(1 << 40))), "out of proportion")
    refuses(patched(v, (44, le32(513))), "grain table size 513")
    refuses(patched(v, (4, le32(9))), "version 9")
    refuses(patched(v, (56, le64(1 << 58))), "truncated: grain directory")
    refuses(patched(v, (56, le64((1 << 64) - 1))), "footer is missing")
    gd = 512 * int.from_bytes(v[56:64], "little")
    bomb = patched(v, (12, le64(128 * 512 * 2)), (gd + 4, v[gd:gd + 4]))
    refuses(bomb, "two directory entries lead to one grain table")
    for image in (v, s):
        refuses(image, "more than the 1048576 allowed", limit=MIB)
    for whole in (v, s):
        for cut in range(1024, len(whole), 64 * KIB):
            if any(whole[cut:]):
                refuses(whole[:cut], "truncated", hint="vmdk")


def vdi():
    v = converted(SRC, "vdi", "vdi")
    accepts(v, "vdi", "vdi", SIZE)
    refuses(v, "more than the 1048576 allowed", limit=MIB)
    accepts(converted(SRC, "vdis", "vdi", "-o", "static=on"), "-", "vdi", SIZE)
    refuses(patched(v, (0x44, le32(0x00020001))), "version 2.1")
    refuses(patched(v, (0x4c, le32(4))), "names a parent")
    refuses(patched(v, (0x1b8, b"\1" * 16)), "names a parent")
    refuses(patched(v, (0x1a8, b"\1" * 16)), "names a parent")
    refuses(patched(v, (0x4c, le32(3))), "image type 3")
    refuses(patched(v, (0x178, le32(4096))), "not valid")
    refuses(patched(v, (0x170, le64(1 << 62))), "out of proportion")
    refuses(patched(v, (0x170, le64(0))), "virtual size of 0")
    refuses(patched(v, (0x180, le32(0xffffffff))), "truncated: block map")
    refuses(patched(v, (0x184, le32(0xffffffff))), "truncated")
    refuses(patched(v, (0x154, le32(0xfffffe00))), "truncated: block map")
    refuses(patched(v, (int.from_bytes(v[0x154:0x158], "little"), le32(77))), "past the")
    for cut in range(512, len(v), 64 * KIB):
        refuses(v[:cut], "truncated", hint="vdi")


def summed(data, off, n, at):
    total = sum(data[off:off + n]) - sum(data[off + at:off + at + 4])
    return patched(data, (off + at, be32(~total & 0xffffffff)))


def vhd():
    d = converted(SRC, "vhd", "vpc", "-o", "force_size=on")
    f = converted(SRC, "vhdf", "vpc", "-o", "subformat=fixed,force_size=on")
    accepts(d, "vhd", "vhd", SIZE)
    accepts(f, "vpc", "vhd", SIZE)
    refuses(d, "more than the 1048576 allowed", limit=MIB)
    end = len(d) - 512
    accepts(converted(SRC, "vhdc", "vpc"), "-", "vhd", int(probe("detect", path("vhdc"), "vhd", 0)
                                                            .split()[2]))

    def both(off, new):  # the footer and its copy
        x = patched(d, (off, new), (end + off, new))
        return summed(summed(x, 0, 512, 64), end, 512, 64)

    refuses(both(60, be32(4)), "differencing")
    refuses(both(60, be32(9)), "disk type 9")
    refuses(both(48, be64(1 << 60)), "out of proportion")
    refuses(both(48, be64(0)), "virtual size of 0")
    refuses(both(16, be64(1 << 60)), "truncated: VHD dynamic header")
    refuses(patched(d, (end + 100, b"x")), "checksum")
    refuses(summed(patched(d, (48, be64(8 * MIB))), 0, 512, 64), "do not agree")
    dyn = int.from_bytes(d[16:24], "big")
    refuses(patched(d, (dyn, b"x")), "dynamic header is missing")
    refuses(patched(d, (dyn + 70, b"x")), "dynamic header is damaged")
    refuses(summed(patched(d, (dyn + 40, b"\1" * 16)), dyn, 1024, 36), "names a parent")
    refuses(summed(patched(d, (dyn + 32, be32(3))), dyn, 1024, 36), "block size 3")
    refuses(summed(patched(d, (dyn + 28, be32(0xffffffff))), dyn, 1024, 36), "truncated: block")
    bat = int.from_bytes(d[dyn + 16:dyn + 24], "big")
    refuses(patched(d, (bat, be32(0xfffffff0))), "truncated: block")
    refuses(f[1024:], "truncated: a fixed VHD")
    for cut in range(512, len(d), 64 * KIB):
        refuses(d[:cut], "truncated", hint="vhd") if cut > 512 else refuses(d[:cut], "")
    refuses(f[:-512], "declared 'vhd' but it is raw data", hint="vhd")
    run("qemu-img", "create", "-q", "-f", "vhdx", path("vhdx"), "4M")
    refuses(get("vhdx"), "VHDX", hint="vhd")


def iso():
    os.makedirs(path("tree"))
    put("tree/file", RAW[:MIB])
    run("genisoimage", "-quiet", "-R", "-o", path("iso"), path("tree"))
    i = get("iso")
    accepts(i, "iso", "iso", len(i))
    refuses(i[:-400 * KIB], "truncated: the ISO 9660 volume")
    refuses(i[:33 * KIB], "truncated")
    refuses(patched(i, (32768, b"\x07")), "no primary")


def raw():
    def mbr(*parts, size=MIB):
        b = bytearray(size)
        for n, (kind, start, count) in enumerate(parts):
            b[446 + 16 * n:462 + 16 * n] = struct.pack("<B3xB3xII", 0, kind, start, count)
        b[510:512] = b"\x55\xaa"
        return bytes(b)

    accepts(RAW, "img", "raw", SIZE)
    accepts(RAW, "bin", "raw", SIZE)
    accepts(b"some text\n", "-", "raw", 10)
    accepts(mbr((0x83, 1, 2047)), "raw", "raw", MIB)
    refuses(mbr((0x83, 1, 2048)), "truncated: partition 1")
    refuses(mbr((0x83, 1, 10), (0x0f, 0xffffffff, 0xffffffff)), "truncated: partition 2")

    def gpt(sector=512, alt=None, last=100, entries=128, size=128):
        b = bytearray(mbr((0xee, 1, 0xffffffff)))
        alt = len(b) // sector - 1 if alt is None else alt
        struct.pack_into("<8sIIIIQQQQ16sQIII", b, sector, b"EFI PART", 0x10000, 92, 0, 0, 1, alt,
                         34, 2000, bytes(16), 2, entries, size, 0)
        struct.pack_into("<16s16sQQQ", b, 2 * sector, b"\1" * 16, b"\2" * 16, 40, last, 0)
        return bytes(b)

    accepts(gpt(), "raw", "raw", MIB)
    accepts(gpt(4096, last=200), "-", "raw", MIB)
    refuses(gpt(alt=2048), "truncated: the backup GPT")
    refuses(gpt(alt=(1 << 64) - 1), "truncated: the backup GPT")
    refuses(gpt()[:-512], "truncated: the backup GPT")
    refuses(gpt(last=5000), "truncated: GPT partition 1")
    refuses(gpt(entries=1 << 30), "GPT with")
    refuses(gpt()[:512], "truncated: GPT header")
    refuses(b"", "image is empty")

    with open(path("fs"), "wb") as f:
        f.truncate(8 * MIB)
    run("/usr/sbin/mkfs.ext4", "-q", "-F", path("fs"))
    accepts(get("fs"), "ami", "ami", 8 * MIB)
    accepts(get("fs"), "-", "raw", 8 * MIB)
    refuses(get("fs")[:-MIB], "truncated: the ext file system", hint="ami")
    refuses(mbr((0x83, 1, 10)), "partition table", hint="ami")
    refuses(RAW, "no file system", hint="ami")


def boot():
    k = bytearray(random.Random(2).randbytes(64 * KIB))
    k[0x1f1] = 3
    k[0x1f4:0x1f8] = le32((64 * KIB - 4 * 512) // 16)
    k[0x1fe:0x200] = b"\x55\xaa"
    k[0x202:0x208] = b"HdrS\x0f\x02"
    k = bytes(k)
    for hint in ("aki", "vmlinuz", "-"):
        accepts(k, hint, "aki", len(k))
    refuses(k[:-16], "truncated: kernel")
    refuses(patched(k, (0x206, b"\x01\x01")), "boot protocol")
    elf = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, 0, 64, 0, 0, 64,
                      56, 1, 0, 0, 0) + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 4096, 4096, 0)
    elf = elf.ljust(4096, b"\0")
    accepts(elf, "aki", "aki", 4096)
    refuses(elf[:4000], "truncated: ELF segment")
    refuses(patched(elf, (18, b"\xb7\0")), "another machine (183)")
    cpio = b"070701" + b"0" * 104
    for data in (cpio, gzip.compress(cpio), b"\x28\xb5\x2f\xfd" + bytes(60), b"\xfd7zXZ\0" + bytes(60),
                 b"\x02\x21\x4c\x18" + bytes(60)):
        accepts(data, "initrd", "ari", len(data))
        accepts(data, "-", "ari", len(data))
    refuses(RAW, "declared 'aki' but it is raw data", hint="aki")
    refuses(b"text\n", "declared 'ari' but it is text", hint="ari")


def hints():
    for hint in ("qcow2", "vmdk", "vdi", "vhd", "iso"):
        refuses(b"hello world\n", f"declared '{hint}' but it is text", hint=hint)
        refuses(RAW, f"declared '{hint}' but it is raw data", hint=hint)
    refuses(converted(SRC, "q", "qcow2"), "declared 'vmdk' but it is a qcow2 image", hint="vmdk")
    refuses(b"QED\0" + bytes(4096), "QED")
    refuses(bytes(257) + b"ustar" + bytes(4096), "tar archive")


for part in (qcow2, vmdk, vdi, vhd, iso, raw, boot, hints):
    part()
finish()
