#include "backend/image/unpack.h"

#include <ctype.h>
#include <inttypes.h>
#include <strings.h>

enum { HEAD_SIZE = 4096, TAIL_SIZE = 512, ISO_MAGIC = 32769 };

#define DESCRIPTOR_NAME "a bare VMDK descriptor that names other files, an image must be whole"

/* What the first bytes look like. */
enum look {
        LOOK_DATA,
        LOOK_TEXT,
        LOOK_QCOW2,
        LOOK_VMDK,
        LOOK_VDI,
        LOOK_VHD,
        LOOK_ISO,
        LOOK_KERNEL,
        LOOK_RAMDISK,
        LOOK_TAR,
        LOOK_REFUSED, /* a format that we know and do not offer */
};

struct magic {
        const char *bytes;
        uint8_t n;
        uint16_t off;
        enum look look;
        const char *name;
};
static const struct magic magics[] = {
        {"QFI\xfb", 4, 0, LOOK_QCOW2, "a qcow2 image"},
        {"KDMV", 4, 0, LOOK_VMDK, "a VMDK image"},
        {"\x7f\x10\xda\xbe", 4, 0x40, LOOK_VDI, "a VDI image"},
        {"conectix", 8, 0, LOOK_VHD, "a VHD image"},
        {"HdrS", 4, 0x202, LOOK_KERNEL, "a Linux kernel"},
        {"\x7f"
         "ELF",
         4, 0, LOOK_KERNEL, "an ELF file"},
        {"070701", 6, 0, LOOK_RAMDISK, "a cpio archive"},
        {"070702", 6, 0, LOOK_RAMDISK, "a cpio archive"},
        {"\x1f\x8b\x08", 3, 0, LOOK_RAMDISK, "gzip data"},
        {"\xfd"
         "7zXZ\0",
         6, 0, LOOK_RAMDISK, "xz data"},
        {"\x28\xb5\x2f\xfd", 4, 0, LOOK_RAMDISK, "zstd data"},
        {"\x02\x21\x4c\x18", 4, 0, LOOK_RAMDISK, "lz4 data"},
        {"\x04\x22\x4d\x18", 4, 0, LOOK_RAMDISK, "lz4 data"},
        {"BZh", 3, 0, LOOK_RAMDISK, "bzip2 data"},
        {"vhdxfile", 8, 0, LOOK_REFUSED, "a VHDX image"},
        {"QED\0", 4, 0, LOOK_REFUSED, "a QED image"},
        {"COWD", 4, 0, LOOK_REFUSED, "an ESX COWD image"},
        {"# Disk DescriptorFile", 21, 0, LOOK_REFUSED, DESCRIPTOR_NAME},
        {"WithoutFreeSpace", 16, 0, LOOK_REFUSED, "a Parallels image"},
        {"WithouFreSpacExt", 16, 0, LOOK_REFUSED, "a Parallels image"},
        {"Bochs Virtual HD Image", 22, 0, LOOK_REFUSED, "a Bochs image"},
        {"#!/bin/sh\n#V2.0 Format\n", 23, 0, LOOK_REFUSED, "a cloop image"},
        {"PK\3\4", 4, 0, LOOK_REFUSED, "a ZIP archive"},
        {"ustar", 5, 257, LOOK_TAR, "a tar archive"},
};

struct seen {
        enum look look;
        const char *name;
};

static bool looks_like_text(const uint8_t *p, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (p[i] == 0x7f || (p[i] < 0x20 && !isspace(p[i])))
                        return false;
        return true;
}

/* "# Disk DescriptorFile" may stand behind comments and blank lines; QEMU skips those. */
static bool is_descriptor(const uint8_t *p, size_t n)
{
        return memmem(p, n, "Disk DescriptorFile", 19) != NULL;
}

static int look_at_end(const struct image_input *in, struct seen *s, struct err **e)
{
        uint8_t tail[TAIL_SIZE], iso[5];
        int r;

        if (in->size > TAIL_SIZE) {
                r = input_peek(in, tail, sizeof(tail), in->size - TAIL_SIZE, e);
                if (r < 0)
                        return r;
                if (memcmp(tail, "conectix", 8) == 0) {
                        *s = (struct seen){LOOK_VHD, "a VHD image"};
                        return 0;
                }
                if (memcmp(tail, "koly", 4) == 0) {
                        *s = (struct seen){LOOK_REFUSED, "a DMG image"};
                        return 0;
                }
        }
        r = input_peek(in, iso, sizeof(iso), ISO_MAGIC, e);
        if (r >= 0 && memcmp(iso, "CD001", 5) == 0)
                *s = (struct seen){LOOK_ISO, "an ISO 9660 image"};
        return r;
}

static int look(const struct image_input *in, struct seen *s, struct err **e)
{
        uint8_t head[HEAD_SIZE];
        size_t have = MIN(in->size, (uint64_t)HEAD_SIZE);
        int r = input_peek(in, head, sizeof(head), 0, e);

        if (r < 0)
                return r;
        for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
                const struct magic *m = magics + i;

                if (memcmp(head + m->off, m->bytes, m->n) == 0) {
                        *s = (struct seen){m->look, m->name};
                        return 0;
                }
        }
        *s = (struct seen){LOOK_DATA, "raw data"};
        if (looks_like_text(head, have)) {
                *s = (struct seen){LOOK_TEXT, "text"};
                if (is_descriptor(head, have))
                        *s = (struct seen){LOOK_REFUSED, DESCRIPTOR_NAME};
        }
        return look_at_end(in, s, e);
}

/* What a hint promises; LOOK_DATA when it promises nothing. */
static const struct {
        const char *hint;
        enum look look;
} promises[] = {
        {"qcow2", LOOK_QCOW2}, {"qcow", LOOK_QCOW2},     {"vmdk", LOOK_VMDK},
        {"vdi", LOOK_VDI},     {"vhd", LOOK_VHD},        {"vpc", LOOK_VHD},
        {"iso", LOOK_ISO},     {"aki", LOOK_KERNEL},     {"vmlinuz", LOOK_KERNEL},
        {"ari", LOOK_RAMDISK}, {"initrd", LOOK_RAMDISK}, {"ami", LOOK_DATA},
};

static int hint_check(const char *hint, const struct seen *s, struct err **e)
{
        char text[INPUT_TEXT_SIZE];

        for (size_t i = 0; hint && i < ARRAY_SIZE(promises); i++) {
                if (strcasecmp(hint, promises[i].hint) != 0 || promises[i].look == s->look)
                        continue;
                if (s->look == LOOK_REFUSED)
                        break;
                return err_set(e, -EINVAL, "image is declared '%s' but it is %s",
                               input_text(text, hint, strlen(hint)), s->name);
        }
        return 0;
}

static int raw_parse(const struct image_input *in, bool ami, struct image_header *ret,
                     struct err **e)
{
        const char *fs = NULL;
        bool table;
        int r = partitions_check(in, &table, e);

        if (r < 0)
                return r;
        if (ami && table)
                return err_set(e, -EINVAL, "image is declared 'ami' but it has a partition table");
        if (ami && (r = filesystem_check(in, &fs, e)) < 0)
                return r;
        if (ami && !fs)
                return err_set(e, -EINVAL, "image is declared 'ami' but it has no file system");
        ret->format = ami ? IMAGE_AMI : IMAGE_RAW;
        ret->virtual_size = in->size;
        return 0;
}

static int parse(const struct image_input *in, const struct seen *s, const char *hint,
                 struct image_header *ret, struct err **e)
{
        bool raw = hint && (strcasecmp(hint, "raw") == 0 || strcasecmp(hint, "bin") == 0);

        switch (s->look) {
        case LOOK_QCOW2:
                return qcow2_parse(in, ret, e);
        case LOOK_VMDK:
                return vmdk_parse(in, ret, e);
        case LOOK_VDI:
                return vdi_parse(in, ret, e);
        case LOOK_VHD:
                return vhd_parse(in, ret, e);
        case LOOK_ISO:
                return iso_parse(in, ret, e);
        case LOOK_KERNEL:
                return kernel_parse(in, ret, e);
        case LOOK_RAMDISK:
                if (raw)
                        return raw_parse(in, false, ret, e);
                ret->format = IMAGE_ARI;
                ret->virtual_size = in->size;
                return 0;
        case LOOK_TAR:
                if (raw)
                        return raw_parse(in, false, ret, e);
                return tar_parse(in, ret, e);
        case LOOK_REFUSED:
                return err_set(e, -EINVAL, "image is %s: refused, not a format on offer", s->name);
        case LOOK_DATA:
        case LOOK_TEXT:
                break;
        }
        return raw_parse(in, hint && strcasecmp(hint, "ami") == 0, ret, e);
}

int image_detect(const struct image_input *in, const char *hint, uint64_t max_virtual,
                 struct image_header *ret, struct err **e)
{
        struct image_input bounded = *in;
        struct image_header h = {};
        struct seen s;
        int r;

        bounded.max_virtual = max_virtual;
        if (in->size == 0)
                return err_set(e, -EINVAL, "image is empty");
        if ((r = look(in, &s, e)) < 0 || (r = hint_check(hint, &s, e)) < 0 ||
            (r = parse(&bounded, &s, hint, &h, e)) < 0 ||
            (r = input_size_check(&bounded, h.virtual_size, e)) < 0)
                return r;
        *ret = h;
        return 0;
}
