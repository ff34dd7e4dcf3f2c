/* VirtualBox VDI, version 1.1.  All numbers are little-endian. */
#include "backend/image/detect.h"

#include <inttypes.h>

enum {
        HEADER_SIZE = 512,
        TYPE_DYNAMIC = 1,
        TYPE_STATIC = 2,
        TYPE_DIFFERENCING = 4,
        BLOCK_SIZE = 1 << 20, /* the only one that VirtualBox writes and QEMU reads */
        MAP_CHUNK = 64 << 10,
};
#define BLOCK_NONE 0xffffffffU
#define BLOCK_ZERO 0xfffffffeU

struct vdi {
        const struct image_input *in;
        uint32_t type;
        uint32_t map_off, data_off;
        uint64_t size;
        uint32_t blocks, allocated;
};

static bool uuid_set(const uint8_t *p)
{
        static const uint8_t zero[16];

        return memcmp(p, zero, sizeof(zero)) != 0;
}

static int header_check(struct vdi *v, struct err **e)
{
        uint8_t h[HEADER_SIZE];
        int r = input_read(v->in, h, sizeof(h), 0, "VDI header", e);

        if (r < 0)
                return r;
        if (get_le32(h + 0x44) != 0x00010001)
                return err_set(e, -EINVAL, "VDI version %u.%u is not offered", get_le16(h + 0x46),
                               get_le16(h + 0x44));
        v->type = get_le32(h + 0x4c);
        if (v->type == TYPE_DIFFERENCING || uuid_set(h + 0x1a8) || uuid_set(h + 0x1b8))
                return err_set(e, -EINVAL,
                               "image is a differencing VDI that names a parent: refused, an image "
                               "must be whole");
        if (v->type != TYPE_DYNAMIC && v->type != TYPE_STATIC)
                return err_set(e, -EINVAL, "VDI image type %u is not offered", v->type);
        v->map_off = get_le32(h + 0x154);
        v->data_off = get_le32(h + 0x158);
        v->size = get_le64(h + 0x170);
        v->blocks = get_le32(h + 0x180);
        v->allocated = get_le32(h + 0x184);
        if (get_le32(h + 0x168) != 512 || get_le32(h + 0x178) != BLOCK_SIZE || v->map_off % 512 ||
            v->data_off % 512 || v->map_off < HEADER_SIZE)
                return err_set(e, -EINVAL, "VDI sector size, block size or offsets are not valid");
        r = input_size_check(v->in, v->size, e);
        if (r < 0)
                return r;
        if (v->size > (uint64_t)v->blocks * BLOCK_SIZE)
                return err_set(e, -EINVAL,
                               "image is out of proportion: virtual size %" PRIu64
                               " is more than its %u blocks hold",
                               v->size, v->blocks);
        if (v->allocated > v->in->size / BLOCK_SIZE)
                return err_set(e, -EINVAL,
                               "image is truncated: %u allocated blocks do not fit the file",
                               v->allocated);
        return 0;
}

static int block_check(const struct vdi *v, uint64_t index, uint32_t entry, struct err **e)
{
        uint64_t guest = index * BLOCK_SIZE;

        if (entry == BLOCK_NONE || entry == BLOCK_ZERO || guest >= v->size)
                return 0;
        if (entry >= v->allocated)
                return err_set(e, -EINVAL, "VDI block %u is past the %u allocated ones", entry,
                               v->allocated);
        return input_want(v->in, v->data_off + (uint64_t)entry * BLOCK_SIZE,
                          MIN((uint64_t)BLOCK_SIZE, v->size - guest), "block", e);
}

int vdi_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        struct vdi v = {.in = in};
        uint8_t map[MAP_CHUNK];
        uint64_t bytes;
        int r = header_check(&v, e);

        if (r < 0)
                return r;
        bytes = (uint64_t)v.blocks * 4;
        r = input_want(in, v.map_off, bytes, "block map", e);
        bytes = (v.size + BLOCK_SIZE - 1) / BLOCK_SIZE * 4; /* what is past the disk is not read */
        for (uint64_t done = 0; r >= 0 && done < bytes; done += sizeof(map)) {
                uint64_t n = MIN(bytes - done, sizeof(map));

                r = input_read(in, map, n, v.map_off + done, "block map", e);
                for (uint64_t i = 0; r >= 0 && i < n; i += 4)
                        r = block_check(&v, (done + i) / 4, get_le32(map + i), e);
        }
        if (r < 0)
                return r;
        ret->format = IMAGE_VDI;
        ret->virtual_size = v.size;
        return 0;
}
