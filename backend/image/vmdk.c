/* VMware VMDK in one file: monolithicSparse and streamOptimized ("Virtual Disk Format 5.0").  All
 * numbers are little-endian and count sectors of 512 bytes. */
#include "backend/image/detect.h"
#include "backend/image/vmdk.h"

#include <inttypes.h>

enum {
        SECTOR = 512,
        DESCRIPTOR_MAX = 64 << 10,
        GRAIN_MAX = 1 << 14,      /* sectors: 8 MiB */
        DIRECTORY_MAX = 32 << 20, /* bytes */
        TABLE_ENTRIES_MAX = 512,  /* QEMU's own ceiling */
        FLAG_REDUNDANT = 1 << 1,
        FLAG_COMPRESSED = 1 << 16,
        FLAG_MARKERS = 1 << 17,
};
#define DIRECTORY_AT_END UINT64_MAX

struct vmdk {
        const struct image_input *in;
        uint32_t version, flags;
        uint64_t capacity, grain;
        uint64_t desc_off, desc_len;
        uint32_t table_entries;
        uint64_t redundant_off, directory_off;
        uint64_t directory_entries;
};

static int header_read(struct vmdk *v, uint64_t off, struct err **e)
{
        uint8_t h[SECTOR];
        int r = input_read(v->in, h, sizeof(h), off, "VMDK header", e);

        if (r < 0)
                return r;
        if (memcmp(h, "KDMV", 4) != 0)
                return err_set(e, -EINVAL, "image is truncated: its VMDK footer is missing");
        v->version = get_le32(h + 4);
        v->flags = get_le32(h + 8);
        v->capacity = get_le64(h + 12);
        v->grain = get_le64(h + 20);
        v->desc_off = get_le64(h + 28);
        v->desc_len = get_le64(h + 36);
        v->table_entries = get_le32(h + 44);
        v->redundant_off = get_le64(h + 48);
        v->directory_off = get_le64(h + 56);
        return 0;
}

static int geometry_check(struct vmdk *v, struct err **e)
{
        uint64_t span;

        if (v->version < 1 || v->version > 3)
                return err_set(e, -EINVAL, "VMDK version %u is not offered", v->version);
        /* With no capacity a reader would follow the descriptor to other files. */
        if (v->capacity == 0)
                return err_set(e, -EINVAL,
                               "VMDK header has no capacity: refused, its descriptor "
                               "would name other files");
        if (v->capacity > INT64_MAX / SECTOR)
                return err_set(e, -EINVAL,
                               "image is out of proportion: VMDK of %" PRIu64 " sectors",
                               v->capacity);
        if (v->grain == 0 || v->grain > GRAIN_MAX || v->grain & (v->grain - 1))
                return err_set(e, -EINVAL, "VMDK grain size %" PRIu64 " is not valid", v->grain);
        if (v->table_entries == 0 || v->table_entries > TABLE_ENTRIES_MAX)
                return err_set(e, -EINVAL, "VMDK grain table size %u is not valid",
                               v->table_entries);
        span = v->grain * v->table_entries;
        v->directory_entries = v->capacity / span + (v->capacity % span != 0);
        if (v->directory_entries > DIRECTORY_MAX / 4)
                return err_set(e, -EINVAL,
                               "image is out of proportion: VMDK of %" PRIu64
                               " sectors needs %" PRIu64 " grain tables",
                               v->capacity, v->directory_entries);
        return input_size_check(v->in, v->capacity * SECTOR, e);
}

static int sectors_want(const struct vmdk *v, uint64_t sector, uint64_t bytes, const char *what,
                        struct err **e)
{
        uint64_t off = sector > UINT64_MAX / SECTOR ? UINT64_MAX : sector * SECTOR;

        return input_want(v->in, off, bytes, what, e);
}

static int descriptor_check(const struct vmdk *v, struct err **e)
{
        _cleanup_free_ uint8_t *raw = NULL;
        _cleanup_free_ char *text = NULL;
        int r;

        if (v->desc_off == 0 || v->desc_len == 0)
                return err_set(e, -EINVAL,
                               "VMDK has no embedded descriptor: it is one part of a "
                               "disk");
        if (v->desc_len > DESCRIPTOR_MAX / SECTOR)
                return err_set(e, -EINVAL,
                               "image is out of proportion: VMDK descriptor of %" PRIu64 " sectors",
                               v->desc_len);
        r = sectors_want(v, v->desc_off, v->desc_len * SECTOR, "VMDK descriptor", e);
        if (r < 0)
                return r;
        r = input_load(v->in, &raw, v->desc_len * SECTOR, DESCRIPTOR_MAX, v->desc_off * SECTOR,
                       "VMDK descriptor", e);
        if (r < 0)
                return r;
        text = strndup((char *)raw, v->desc_len * SECTOR);
        if (!text)
                return err_errno(e, -ENOMEM, "read VMDK descriptor");
        return vmdk_descriptor_check(text, e);
}

/* A compressed grain tells its length in a marker: 8 bytes of position, 4 of length. */
static int grain_check(const struct vmdk *v, uint32_t sector, uint64_t guest, struct err **e)
{
        uint64_t want = MIN(v->grain, v->capacity - guest) * SECTOR,
                 off = (uint64_t)sector * SECTOR;
        uint8_t marker[12];
        int r;

        if (sector <= 1)
                return 0; /* none, or zeros */
        if (!(v->flags & FLAG_COMPRESSED))
                return input_want(v->in, off, want, "grain", e);
        if (!(v->flags & FLAG_MARKERS))
                return input_want(v->in, off, SECTOR, "grain", e);
        r = input_read(v->in, marker, sizeof(marker), off, "grain", e);
        if (r < 0)
                return r;
        want = get_le32(marker + 8);
        if (want > 2 * v->grain * SECTOR + SECTOR)
                return err_set(e, -EINVAL, "VMDK grain at byte %" PRIu64 " is longer than a grain",
                               off);
        return input_want(v->in, off + sizeof(marker), want, "grain", e);
}

static int table_check(const struct vmdk *v, uint32_t sector, uint64_t guest, struct err **e)
{
        uint8_t table[TABLE_ENTRIES_MAX * 4];
        int r = input_read(v->in, table, v->table_entries * 4, (uint64_t)sector * SECTOR,
                           "grain table", e);

        for (uint32_t i = 0; r >= 0 && i < v->table_entries && guest < v->capacity; i++) {
                r = grain_check(v, get_le32(table + i * 4), guest, e);
                guest += v->grain;
        }
        return r;
}

/* Every grain that the directory leads to. */
static int directory_walk(const struct vmdk *v, const uint8_t *dir, bool grains, struct err **e)
{
        uint64_t span = v->grain * v->table_entries;

        for (uint64_t i = 0; i < v->directory_entries; i++) {
                uint32_t table = get_le32(dir + i * 4);
                int r = 0;

                if (table && grains)
                        r = table_check(v, table, i * span, e);
                else if (table)
                        r = sectors_want(v, table, v->table_entries * 4ULL, "grain table", e);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int directory_check(const struct vmdk *v, uint64_t sector, bool grains, struct err **e)
{
        uint64_t bytes = v->directory_entries * 4;
        _cleanup_free_ uint64_t *sorted = NULL;
        _cleanup_free_ uint8_t *dir = NULL;
        int r = sectors_want(v, sector, bytes, "grain directory", e);

        if (r < 0)
                return r;
        r = input_load(v->in, &dir, bytes, DIRECTORY_MAX, sector * SECTOR, "grain directory", e);
        if (r < 0)
                return r;
        sorted = calloc(v->directory_entries, sizeof(*sorted));
        if (!sorted)
                return err_errno(e, -ENOMEM, "read grain directory");
        for (uint64_t i = 0; i < v->directory_entries; i++)
                sorted[i] = get_le32(dir + i * 4);
        if (input_has_twice(sorted, v->directory_entries))
                return err_set(e, -EINVAL,
                               "image is out of proportion: two directory entries lead to one "
                               "grain table");
        return directory_walk(v, dir, grains, e);
}

/* A stream's directory comes last; the footer, a copy of the header, knows where.  The trailer is
 * footer marker, footer, end marker: a sector each. */
static int footer_check(struct vmdk *v, struct err **e)
{
        struct vmdk head = *v;
        int r = input_want(v->in, 0, 4 * SECTOR, "VMDK footer", e);

        if (r < 0 || (r = header_read(v, v->in->size - 2 * SECTOR, e)) < 0)
                return r;
        if (v->capacity != head.capacity || v->grain != head.grain || v->flags != head.flags ||
            v->desc_off != head.desc_off || v->desc_len != head.desc_len ||
            v->table_entries != head.table_entries || v->version != head.version)
                return err_set(e, -EINVAL, "VMDK footer and header do not agree");
        if (v->directory_off == DIRECTORY_AT_END)
                return err_set(e, -EINVAL, "VMDK footer does not know the grain directory");
        return 0;
}

int vmdk_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        struct vmdk v = {.in = in};
        int r;

        if ((r = header_read(&v, 0, e)) < 0 || (r = geometry_check(&v, e)) < 0 ||
            (r = descriptor_check(&v, e)) < 0)
                return r;
        if (v.directory_off == DIRECTORY_AT_END && (r = footer_check(&v, e)) < 0)
                return r;
        r = directory_check(&v, v.directory_off, true, e);
        if (r < 0)
                return r;
        if (v.flags & FLAG_REDUNDANT) {
                r = directory_check(&v, v.redundant_off, false, e);
                if (r < 0)
                        return r;
        }
        ret->format = IMAGE_VMDK;
        ret->virtual_size = v.capacity * SECTOR;
        return 0;
}
