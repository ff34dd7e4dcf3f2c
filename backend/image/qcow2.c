/* qcow2, versions 2 and 3 (QEMU, docs/interop/qcow2.txt).  All numbers are big-endian. */
#include "backend/image/detect.h"

#include <inttypes.h>

enum {
        HEADER_V2 = 72,
        HEADER_V3 = 104,
        L1_MAX = 32 << 20,      /* bytes; QEMU's own ceiling */
        REFTABLE_MAX = 8 << 20, /* bytes; QEMU's own ceiling */
        SNAPSHOTS_MAX = 4096,
        EXTENSIONS_MAX = 64,
};
#define OFFSET_MASK 0x00fffffffffffe00ULL
#define L2_COMPRESSED (1ULL << 62)
#define L2_ZERO 1ULL

enum {
        INCOMPAT_DIRTY = 1 << 0,
        INCOMPAT_CORRUPT = 1 << 1,
        INCOMPAT_DATA_FILE = 1 << 2,
        INCOMPAT_COMPRESSION = 1 << 3,
        INCOMPAT_EXTENDED_L2 = 1 << 4,
        INCOMPAT_KNOWN = 0x1f,
};
enum { EXT_END = 0, EXT_DATA_FILE = 0x44415441, EXT_LUKS = 0x0537be77 };

struct qcow2 {
        const struct image_input *in;
        uint32_t version;
        uint64_t backing_off;
        uint32_t backing_len;
        uint32_t cluster_bits;
        uint64_t cluster; /* bytes */
        uint64_t size;    /* virtual, bytes */
        uint32_t crypt;
        uint32_t l1_entries;
        uint64_t l1_off;
        uint64_t reftable_off;
        uint32_t reftable_clusters;
        uint32_t snapshots;
        uint64_t snapshots_off;
        uint64_t incompat;
        uint32_t refcount_order;
        uint32_t header_len;
        uint8_t compression;
};

static int header_read(struct qcow2 *q, struct err **e)
{
        uint8_t h[112];
        int r = input_want(q->in, 0, HEADER_V2, "qcow2 header", e);

        if (r < 0)
                return r;
        r = input_peek(q->in, h, sizeof(h), 0, e);
        if (r < 0)
                return r;
        q->version = get_be32(h + 4);
        q->backing_off = get_be64(h + 8);
        q->backing_len = get_be32(h + 16);
        q->cluster_bits = get_be32(h + 20);
        q->size = get_be64(h + 24);
        q->crypt = get_be32(h + 32);
        q->l1_entries = get_be32(h + 36);
        q->l1_off = get_be64(h + 40);
        q->reftable_off = get_be64(h + 48);
        q->reftable_clusters = get_be32(h + 56);
        q->snapshots = get_be32(h + 60);
        q->snapshots_off = get_be64(h + 64);
        q->refcount_order = 4;
        q->header_len = HEADER_V2;
        if (q->version == 1)
                return err_set(e, -EINVAL, "image is qcow version 1, which is not offered");
        if (q->version != 2 && q->version != 3)
                return err_set(e, -EINVAL, "qcow2 version %u is unknown", q->version);
        if (q->version == 2)
                return 0;
        r = input_want(q->in, 0, HEADER_V3, "qcow2 header", e);
        if (r < 0)
                return r;
        q->incompat = get_be64(h + 72);
        q->refcount_order = get_be32(h + 96);
        q->header_len = get_be32(h + 100);
        q->compression = q->header_len > HEADER_V3 ? h[104] : 0;
        return 0;
}

static int refuse_backing(const struct qcow2 *q, struct err **e)
{
        char name[1023], text[INPUT_TEXT_SIZE];
        size_t n = MIN((size_t)q->backing_len, sizeof(name));
        int r = input_peek(q->in, name, n, q->backing_off, e);

        if (r < 0)
                return r;
        return err_set(e, -EINVAL,
                       "image names a backing file '%s': refused, an image must be whole",
                       input_text(text, name, n));
}

static int refuse_data_file(const struct qcow2 *q, uint64_t off, uint32_t len, struct err **e)
{
        char name[1023], text[INPUT_TEXT_SIZE];
        size_t n = MIN((size_t)len, sizeof(name));
        int r = input_peek(q->in, name, n, off, e);

        if (r < 0)
                return r;
        return err_set(e, -EINVAL,
                       "image names an external data file '%s': refused, an image must be whole",
                       input_text(text, name, n));
}

/* The header extensions lie between the header and the end of the first cluster. */
static int extensions_check(const struct qcow2 *q, struct err **e)
{
        uint64_t off = q->header_len;

        for (int i = 0; i < EXTENSIONS_MAX && off + 8 <= q->cluster; i++) {
                uint8_t h[8];
                uint32_t type, len;
                int r = input_peek(q->in, h, sizeof(h), off, e);

                if (r < 0)
                        return r;
                type = get_be32(h);
                len = get_be32(h + 4);
                if (type == EXT_END)
                        return 0;
                if (len > q->cluster - off - 8)
                        return err_set(e, -EINVAL, "qcow2 header extension %#x is too long", type);
                if (type == EXT_DATA_FILE)
                        return refuse_data_file(q, off + 8, len, e);
                if (type == EXT_LUKS)
                        return err_set(e, -EINVAL, "image is encrypted (LUKS): refused");
                off += 8 + ((uint64_t)len + 7) / 8 * 8;
        }
        if (off + 8 <= q->cluster)
                return err_set(e, -EINVAL, "qcow2 header has more than %d extensions",
                               EXTENSIONS_MAX);
        return 0;
}

static int features_check(const struct qcow2 *q, struct err **e)
{
        if (q->incompat & INCOMPAT_DATA_FILE)
                return err_set(e, -EINVAL,
                               "image keeps its data in an external file: refused, an image must "
                               "be whole");
        if (q->incompat & INCOMPAT_CORRUPT)
                return err_set(e, -EINVAL, "image is marked as corrupt");
        if (q->incompat & INCOMPAT_DIRTY)
                return err_set(e, -EINVAL, "image is marked as in use: it was not closed cleanly");
        if (q->incompat & ~(uint64_t)INCOMPAT_KNOWN)
                return err_set(e, -EINVAL, "image needs unknown qcow2 features (%#" PRIx64 ")",
                               q->incompat & ~(uint64_t)INCOMPAT_KNOWN);
        if (q->compression > 1 || (q->compression && !(q->incompat & INCOMPAT_COMPRESSION)))
                return err_set(e, -EINVAL, "qcow2 compression type %u is unknown", q->compression);
        return 0;
}

static uint64_t l2_entry_size(const struct qcow2 *q)
{
        return q->incompat & INCOMPAT_EXTENDED_L2 ? 16 : 8;
}

static int geometry_check(struct qcow2 *q, struct err **e)
{
        uint64_t span, need;

        if (q->cluster_bits < 9 || q->cluster_bits > 21 ||
            (q->incompat & INCOMPAT_EXTENDED_L2 && q->cluster_bits < 14))
                return err_set(e, -EINVAL, "qcow2 cluster size 2^%u is not valid", q->cluster_bits);
        q->cluster = 1ULL << q->cluster_bits;
        if (q->version == 3 &&
            (q->header_len < HEADER_V3 || q->header_len > q->cluster || q->header_len % 8))
                return err_set(e, -EINVAL, "qcow2 header length %u is not valid", q->header_len);
        if (q->refcount_order > 6)
                return err_set(e, -EINVAL, "qcow2 refcount order %u is not valid",
                               q->refcount_order);
        if (q->size > INT64_MAX)
                return err_set(e, -EINVAL, "image is out of proportion: virtual size %" PRIu64,
                               q->size);
        span = q->cluster * (q->cluster / l2_entry_size(q));
        need = q->size / span + (q->size % span != 0);
        if (q->l1_entries < need)
                return err_set(e, -EINVAL,
                               "image is out of proportion: virtual size %" PRIu64 " needs %" PRIu64
                               " L1 entries, it has %u",
                               q->size, need, q->l1_entries);
        return input_size_check(q->in, q->size, e);
}

static int table_check(const struct qcow2 *q, uint64_t off, uint64_t bytes, const char *what,
                       struct err **e)
{
        if (off % q->cluster || off == 0)
                return err_set(e, -EINVAL, "qcow2 %s at byte %" PRIu64 " is misplaced", what, off);
        return input_want(q->in, off, bytes, what, e);
}

static int refcounts_check(const struct qcow2 *q, struct err **e)
{
        _cleanup_free_ uint8_t *table = NULL;
        uint64_t bytes = (uint64_t)q->reftable_clusters * q->cluster;
        int r;

        if (bytes == 0)
                return err_set(e, -EINVAL, "qcow2 refcount table is missing");
        r = table_check(q, q->reftable_off, bytes, "refcount table", e);
        if (r < 0)
                return r;
        r = input_load(q->in, &table, bytes, REFTABLE_MAX, q->reftable_off, "refcount table", e);
        if (r < 0)
                return r;
        for (uint64_t i = 0; i < bytes; i += 8) {
                uint64_t off = get_be64(table + i);

                r = off ? table_check(q, off, q->cluster, "refcount block", e) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

/* A compressed cluster's length is known to the sector only, and its last sector may be cut. */
static int compressed_check(const struct qcow2 *q, uint64_t entry, struct err **e)
{
        unsigned shift = 62 - (q->cluster_bits - 8);
        uint64_t off = entry & ((1ULL << shift) - 1);
        uint64_t sectors = ((entry & ~(3ULL << 62)) >> shift) + 1;
        uint64_t end = (off & ~511ULL) + sectors * 512;

        return input_want(q->in, off, MAX(end - 511, off + 1) - off, "compressed cluster", e);
}

/* One L2 entry that maps `want` bytes of the disk. */
static int l2_entry_check(const struct qcow2 *q, const uint8_t *p, uint64_t want, struct err **e)
{
        uint64_t entry = get_be64(p), off = entry & OFFSET_MASK;

        if (entry & L2_COMPRESSED)
                return compressed_check(q, entry, e);
        if (off == 0)
                return 0;
        if (off % q->cluster)
                return err_set(e, -EINVAL, "qcow2 cluster at byte %" PRIu64 " is misplaced", off);
        if (q->incompat & INCOMPAT_EXTENDED_L2) {
                if ((get_be64(p + 8) & UINT32_MAX) == 0)
                        return 0; /* no subcluster is allocated */
        } else if (q->version == 3 && entry & L2_ZERO) {
                return 0; /* reads as zeros whatever is there */
        }
        return input_want(q->in, off, want, "cluster", e);
}

static int l2_check(const struct qcow2 *q, uint64_t off, uint64_t guest, uint8_t *l2,
                    struct err **e)
{
        uint64_t step = l2_entry_size(q);
        int r = table_check(q, off, q->cluster, "L2 table", e);

        if (r < 0)
                return r;
        r = input_read(q->in, l2, q->cluster, off, "L2 table", e);
        for (uint64_t i = 0; r >= 0 && i < q->cluster && guest < q->size; i += step) {
                r = l2_entry_check(q, l2 + i, MIN(q->cluster, q->size - guest), e);
                guest += q->cluster;
        }
        return r;
}

/* Follows the active L1 table to every cluster. */
static int clusters_walk(const struct qcow2 *q, const uint64_t *l1, struct err **e)
{
        _cleanup_free_ uint8_t *l2 = malloc(q->cluster);
        uint64_t span = q->cluster * (q->cluster / l2_entry_size(q));

        if (!l2)
                return err_errno(e, -ENOMEM, "read L2 table");
        for (uint64_t i = 0; i < q->l1_entries && i * span < q->size; i++) {
                int r = l1[i] ? l2_check(q, l1[i], i * span, l2, e) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

static int clusters_check(const struct qcow2 *q, struct err **e)
{
        _cleanup_free_ uint64_t *l1 = NULL, *sorted = NULL;
        uint64_t bytes = (uint64_t)q->l1_entries * 8;
        _cleanup_free_ uint8_t *raw = NULL;
        int r = table_check(q, q->l1_off, bytes, "L1 table", e);

        if (r < 0)
                return r;
        r = input_load(q->in, &raw, bytes, L1_MAX, q->l1_off, "L1 table", e);
        if (r < 0)
                return r;
        l1 = malloc(bytes);
        sorted = malloc(bytes);
        if (!l1 || !sorted)
                return err_errno(e, -ENOMEM, "read L1 table");
        for (uint32_t i = 0; i < q->l1_entries; i++)
                l1[i] = sorted[i] = get_be64(raw + i * 8ULL) & OFFSET_MASK;
        if (input_has_twice(sorted, q->l1_entries))
                return err_set(e, -EINVAL,
                               "image is out of proportion: two L1 entries lead to one L2 table");
        return clusters_walk(q, l1, e);
}

/* The snapshots are not offered, but a reader walks their table. */
static int snapshots_check(const struct qcow2 *q, struct err **e)
{
        uint64_t off = q->snapshots_off;

        if (q->snapshots == 0)
                return 0;
        if (q->snapshots > SNAPSHOTS_MAX)
                return err_set(e, -EINVAL,
                               "image is out of proportion: %u internal snapshots (limit %d)",
                               q->snapshots, SNAPSHOTS_MAX);
        if (off % q->cluster || off == 0)
                return err_set(e, -EINVAL, "qcow2 snapshot table at byte %" PRIu64 " is misplaced",
                               off);
        for (uint32_t i = 0; i < q->snapshots; i++) {
                uint8_t h[40];
                uint64_t n;
                int r = input_read(q->in, h, sizeof(h), off, "snapshot table", e);

                if (r < 0)
                        return r;
                n = sizeof(h) + get_be32(h + 36) + (uint64_t)get_be16(h + 12) + get_be16(h + 14);
                r = input_want(q->in, off, n, "snapshot table", e);
                if (r < 0)
                        return r;
                r = table_check(q, get_be64(h), (uint64_t)get_be32(h + 8) * 8, "snapshot L1 table",
                                e);
                if (r < 0)
                        return r;
                off += (n + 7) / 8 * 8;
        }
        return 0;
}

int qcow2_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        struct qcow2 q = {.in = in};
        int r = header_read(&q, e);

        if (r < 0)
                return r;
        if (q.backing_off)
                return refuse_backing(&q, e);
        if (q.crypt)
                return err_set(e, -EINVAL, "image is encrypted (%s): refused",
                               q.crypt == 1   ? "AES"
                               : q.crypt == 2 ? "LUKS"
                                              : "unknown method");
        if ((r = geometry_check(&q, e)) < 0 || (r = extensions_check(&q, e)) < 0 ||
            (r = features_check(&q, e)) < 0 || (r = refcounts_check(&q, e)) < 0 ||
            (r = clusters_check(&q, e)) < 0 || (r = snapshots_check(&q, e)) < 0)
                return r;
        ret->format = IMAGE_QCOW2;
        ret->virtual_size = q.size;
        return 0;
}
