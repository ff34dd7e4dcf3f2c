#include "blockd/copy.h"

#include "common/macro.h"

enum { STEP = 1 << 20 };

struct copy {
        struct volume *from, *to;
        uint8_t *buf;
        uint64_t at; /* where an extent of data was found, and its length; none: 0 */
        uint64_t len;
};

static int find_data(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        struct copy *c = arg;

        if (kind != VOLUME_DATA)
                return 0;
        c->at = off;
        c->len = len;
        return 1;
}

static int copy_data(struct copy *c)
{
        while (c->len > 0) {
                size_t n = MIN(c->len, (uint64_t)STEP);
                int r = volume_pread(c->from, c->buf, n, c->at);

                if (r == 0)
                        r = volume_pwrite(c->to, c->buf, n, c->at, 0);
                if (r < 0)
                        return r;
                c->at += n;
                c->len -= n;
        }
        return 0;
}

static int copy_range(struct copy *c, uint64_t off, uint64_t end)
{
        int r = 0;

        while (r == 0 && off < end) {
                c->at = end;
                c->len = 0;
                r = volume_extents(c->from, end - off, off, find_data, c);
                if (r == 0)
                        r = copy_data(c);
                off = c->at;
        }
        return r < 0 ? r : volume_flush(c->to);
}

int copy_piece(struct volume_pool *p, const char *to, const char *from, uint64_t off,
               uint64_t *ret_next, struct err **e)
{
        _cleanup_(volume_closep) struct volume *source = NULL, *target = NULL;
        _cleanup_free_ uint8_t *buf = NULL;
        uint64_t size;
        int r = volume_open(p, from, true, &source, e);

        if (r == 0)
                r = volume_open(p, to, false, &target, e);
        if (r < 0)
                return r;
        size = volume_size(source);
        if (off > size || volume_size(target) < size)
                return err_set(e, -EINVAL, "volume '%s' has %llu bytes, '%s' has %llu", from,
                               (unsigned long long)size, to,
                               (unsigned long long)volume_size(target));
        buf = aligned_alloc(4096, STEP);
        if (!buf)
                return err_errno(e, -ENOMEM, "copy");
        *ret_next = off + MIN(size - off, (uint64_t)COPY_PIECE);
        r = copy_range(&(struct copy){.from = source, .to = target, .buf = buf}, off, *ret_next);
        return r < 0 ? err_errno(e, r, "copy '%s' to '%s'", from, to) : 0;
}
