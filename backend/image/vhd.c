/* Microsoft VHD, fixed and dynamic ("Virtual Hard Disk Image Format Specification" 1.0).  All
 * numbers are big-endian. */
#include "backend/image/detect.h"

#include <inttypes.h>

enum {
        FOOTER_SIZE = 512,
        DYNAMIC_SIZE = 1024,
        TYPE_FIXED = 2,
        TYPE_DYNAMIC = 3,
        TYPE_DIFFERENCING = 4,
        BAT_CHUNK = 64 << 10,
        BLOCK_MAX = 256 << 20,
        TABLE_MAX = 64 << 20, /* bytes; the format's largest disk needs 4 MiB */
};
#define BLOCK_NONE 0xffffffffU
#define CHS_MAX_SECTORS (65535ULL * 16 * 255)

struct vhd {
        const struct image_input *in;
        uint32_t type;
        uint64_t dynamic_off;
        uint64_t size; /* what readers see, bytes */
        uint64_t other_size;
        uint64_t table_off;
        uint32_t blocks;
        uint32_t block_size;
};

/* One's complement of the sum of all bytes but the checksum's own. */
static bool checksum_good(const uint8_t *p, size_t n, size_t at)
{
        uint32_t sum = 0;

        for (size_t i = 0; i < n; i++)
                if (i < at || i >= at + 4)
                        sum += p[i];
        return ~sum == get_be32(p + at);
}

/* Writers that mean current_size; all others mean the cylinders, heads and sectors. */
static bool size_is_current(const uint8_t *app)
{
        static const char apps[][4] = {"win ", "qem2",          "d2v ", {'t', 'a', 'p', 0},
                                       "CTXS", {'w', 'a', 0, 0}};

        for (size_t i = 0; i < ARRAY_SIZE(apps); i++)
                if (memcmp(app, apps[i], 4) == 0)
                        return true;
        return false;
}

static int footer_read(struct vhd *v, uint64_t off, struct err **e)
{
        uint8_t f[FOOTER_SIZE];
        uint64_t chs, current;
        int r = input_read(v->in, f, sizeof(f), off, "VHD footer", e);

        if (r < 0)
                return r;
        if (memcmp(f, "conectix", 8) != 0)
                return err_set(e, -EINVAL,
                               "image is truncated: a VHD ends with a footer, this does "
                               "not");
        if (!checksum_good(f, sizeof(f), 64))
                return err_set(e, -EINVAL, "VHD footer is damaged: its checksum is wrong");
        if (get_be32(f + 12) >> 16 != 1)
                return err_set(e, -EINVAL, "VHD version %u is not offered", get_be32(f + 12) >> 16);
        v->type = get_be32(f + 60);
        v->dynamic_off = get_be64(f + 16);
        current = get_be64(f + 48) / 512 * 512;
        chs = (uint64_t)get_be16(f + 56) * f[58] * f[59];
        if (size_is_current(f + 28) || chs == CHS_MAX_SECTORS) {
                v->size = current;
                v->other_size = 0;
        } else {
                v->size = chs * 512;
                v->other_size = current;
        }
        return 0;
}

static int dynamic_read(struct vhd *v, struct err **e)
{
        static const uint8_t zero[16];
        uint8_t h[DYNAMIC_SIZE];
        int r = input_read(v->in, h, sizeof(h), v->dynamic_off, "VHD dynamic header", e);

        if (r < 0)
                return r;
        if (memcmp(h, "cxsparse", 8) != 0)
                return err_set(e, -EINVAL, "VHD dynamic header is missing");
        if (!checksum_good(h, sizeof(h), 36))
                return err_set(e, -EINVAL, "VHD dynamic header is damaged: its checksum is wrong");
        if (memcmp(h + 40, zero, sizeof(zero)) != 0 || get_be16(h + 64))
                return err_set(e, -EINVAL,
                               "image is a VHD that names a parent: refused, an image must be "
                               "whole");
        v->table_off = get_be64(h + 16);
        v->blocks = get_be32(h + 28);
        v->block_size = get_be32(h + 32);
        if (v->block_size < 512 || v->block_size > BLOCK_MAX || v->block_size & (v->block_size - 1))
                return err_set(e, -EINVAL, "VHD block size %u is not valid", v->block_size);
        if (v->size > (uint64_t)v->blocks * v->block_size)
                return err_set(e, -EINVAL,
                               "image is out of proportion: virtual size %" PRIu64
                               " is more than its %u blocks hold",
                               v->size, v->blocks);
        return 0;
}

/* A block is a bitmap of its sectors, in whole sectors, and then its data. */
static int block_check(const struct vhd *v, uint64_t index, uint32_t entry, struct err **e)
{
        uint64_t guest = index * v->block_size;
        uint64_t bitmap = (v->block_size / (512 * 8) + 511) / 512 * 512;

        if (entry == BLOCK_NONE || guest >= v->size)
                return 0;
        return input_want(v->in, (uint64_t)entry * 512,
                          MAX(bitmap, (uint64_t)512) +
                                  MIN((uint64_t)v->block_size, v->size - guest),
                          "block", e);
}

static int blocks_check(const struct vhd *v, struct err **e)
{
        uint8_t bat[BAT_CHUNK];
        uint64_t bytes = (uint64_t)v->blocks * 4;
        int r = input_want(v->in, v->table_off, bytes, "block allocation table", e);

        if (r >= 0 && bytes > TABLE_MAX)
                return err_set(e, -EINVAL, "image is out of proportion: %u VHD blocks", v->blocks);
        for (uint64_t done = 0; r >= 0 && done < bytes; done += sizeof(bat)) {
                uint64_t n = MIN(bytes - done, sizeof(bat));

                r = input_read(v->in, bat, n, v->table_off + done, "block allocation table", e);
                for (uint64_t i = 0; r >= 0 && i < n; i += 4)
                        r = block_check(v, (done + i) / 4, get_be32(bat + i), e);
        }
        return r;
}

static int layout_check(struct vhd *v, bool at_start, struct err **e)
{
        int r;

        switch (v->type) {
        case TYPE_FIXED:
                if (MAX(v->size, v->other_size) > v->in->size - FOOTER_SIZE)
                        return err_set(e, -EINVAL,
                                       "image is truncated: a fixed VHD of %" PRIu64
                                       " bytes in a file of %" PRIu64,
                                       v->size, v->in->size);
                return 0;
        case TYPE_DYNAMIC:
                if (!at_start)
                        return err_set(e, -EINVAL, "VHD has no copy of its footer at the start");
                r = dynamic_read(v, e);
                return r < 0 ? r : blocks_check(v, e);
        case TYPE_DIFFERENCING:
                return err_set(e, -EINVAL,
                               "image is a differencing VHD that names a parent: refused, an image "
                               "must be whole");
        default:
                return err_set(e, -EINVAL, "VHD disk type %u is not offered", v->type);
        }
}

int vhd_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        struct vhd v = {.in = in}, head = {.in = in};
        uint8_t magic[8];
        bool at_start;
        int r = input_want(in, 0, FOOTER_SIZE, "VHD footer", e);

        if (r < 0 || (r = input_peek(in, magic, sizeof(magic), 0, e)) < 0)
                return r;
        /* The copy at the start is what QEMU reads: it is looked at first, and must agree. */
        at_start = memcmp(magic, "conectix", 8) == 0;
        if (at_start && (r = footer_read(&head, 0, e)) < 0)
                return r;
        if (at_start && head.type == TYPE_DIFFERENCING)
                return layout_check(&head, true, e);
        if ((r = footer_read(&v, in->size - FOOTER_SIZE, e)) < 0)
                return r;
        if (at_start && in->size > FOOTER_SIZE &&
            (head.type != v.type || head.size != v.size || head.other_size != v.other_size ||
             head.dynamic_off != v.dynamic_off))
                return err_set(e, -EINVAL, "VHD footer and its copy at the start do not agree");
        r = input_size_check(in, v.size, e);
        if (r < 0)
                return r;
        r = layout_check(&v, at_start, e);
        if (r < 0)
                return r;
        ret->format = IMAGE_VHD;
        ret->virtual_size = v.size;
        ret->chs_size = v.other_size;
        return 0;
}
