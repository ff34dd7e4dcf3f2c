/* Transmission: requests and their replies. */
#include "blockd/nbd.h"
#include "blockd/session.h"

enum {
        PIECE = 128 << 10,     /* a long payload is written in pieces of at least this */
        BLOCK = 4096,          /* and they end on a multiple of this */
        CHUNK = 252 << 10,     /* data in one structured chunk where we may choose */
        EXTENTS_READ = 64,     /* pieces one read is cut into */
        EXTENTS_STATUS = 4096, /* descriptors in one block status */
};

struct request {
        unsigned flags, type;
        uint64_t cookie, off;
        uint32_t len;
};

/* The one place where our codes become NBD's. */
static uint32_t wire_errno(int r)
{
        switch (r) {
        case 0:
                return 0;
        case -EPERM:
        case -EROFS:
                return NBD_EPERM;
        case -ENOMEM:
                return NBD_ENOMEM;
        case -EINVAL:
                return NBD_EINVAL;
        case -ENOSPC:
        case -EDQUOT:
        case -EFBIG:
                return NBD_ENOSPC;
        case -ENOTSUP:
                return NBD_ENOTSUP;
        default:
                return NBD_EIO;
        }
}

static int reply_simple(struct session *s, uint64_t cookie, int error)
{
        uint8_t *p = session_room(s, NBD_SIMPLE_SIZE);

        if (!p)
                return -EPIPE;
        p = be32_put(p, NBD_SIMPLE_REPLY_MAGIC);
        p = be32_put(p, wire_errno(error));
        be64_put(p, cookie);
        s->out_len += NBD_SIMPLE_SIZE;
        return 0;
}

static uint8_t *chunk_put(uint8_t *p, unsigned flags, unsigned type, uint64_t cookie, uint32_t len)
{
        p = be32_put(p, NBD_STRUCTURED_REPLY_MAGIC);
        p = be16_put(p, flags);
        p = be16_put(p, type);
        p = be64_put(p, cookie);
        return be32_put(p, len);
}

/* Ends a structured reply with an error. */
static int reply_error_chunk(struct session *s, uint64_t cookie, int error)
{
        uint8_t *p = session_room(s, NBD_CHUNK_SIZE + 6);

        if (!p)
                return -EPIPE;
        p = chunk_put(p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, 6);
        be16_put(be32_put(p, wire_errno(error)), 0);
        s->out_len += NBD_CHUNK_SIZE + 6;
        return 0;
}

/* Data straight from the volume into the buffer of replies; 1 when it ended in an error chunk. */
static int read_data_chunk(struct session *s, const struct request *q, uint64_t off, uint32_t len,
                           bool done)
{
        uint8_t *p = session_room(s, NBD_CHUNK_SIZE + 8 + len);
        int r;

        if (!p)
                return -EPIPE;
        r = volume_pread(s->volume, p + NBD_CHUNK_SIZE + 8, len, off);
        if (r < 0) {
                r = reply_error_chunk(s, q->cookie, r);
                return r < 0 ? r : 1;
        }
        p = chunk_put(p, done ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_OFFSET_DATA, q->cookie,
                      8 + len);
        be64_put(p, off);
        s->out_len += NBD_CHUNK_SIZE + 8 + len;
        return 0;
}

static int read_hole_chunk(struct session *s, const struct request *q, uint64_t off, uint32_t len,
                           bool done)
{
        uint8_t *p = session_room(s, NBD_CHUNK_SIZE + 12);

        if (!p)
                return -EPIPE;
        p = chunk_put(p, done ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_OFFSET_HOLE, q->cookie, 12);
        be32_put(be64_put(p, off), len);
        s->out_len += NBD_CHUNK_SIZE + 12;
        return 0;
}

/* Extents gathered from a walk, neighbours of one kind joined. */
struct extents {
        struct extent {
                uint32_t len;
                uint32_t state; /* NBD_STATE_* */
        } * list;
        size_t n, max;
};

static int extent_add(void *arg, uint64_t off _unused_, uint64_t len, enum volume_kind kind)
{
        static const uint32_t states[] = {
                [VOLUME_DATA] = 0,
                [VOLUME_HOLE] = NBD_STATE_HOLE | NBD_STATE_ZERO,
                [VOLUME_ZERO] = NBD_STATE_HOLE | NBD_STATE_ZERO,
        };
        struct extents *x = arg;

        if (x->n > 0 && x->list[x->n - 1].state == states[kind]) {
                x->list[x->n - 1].len += len;
                return 0;
        }
        if (x->n == x->max)
                return 1;
        x->list[x->n++] = (struct extent){.len = len, .state = states[kind]};
        return 0;
}

static int read_pieces(struct session *s, const struct request *q, struct extent *list, size_t n)
{
        uint64_t off = q->off, end = q->off + q->len;

        for (size_t i = 0; i < n; i++) {
                uint32_t left = list[i].len;

                while (left > 0) {
                        uint32_t k = list[i].state ? left : MIN(left, (uint32_t)CHUNK);
                        bool done = off + k == end;
                        int r = list[i].state ? read_hole_chunk(s, q, off, k, done)
                                              : read_data_chunk(s, q, off, k, done);

                        if (r != 0)
                                return MIN(r, 0);
                        off += k;
                        left -= k;
                }
        }
        return 0;
}

static int read_structured(struct session *s, const struct request *q)
{
        struct extent list[EXTENTS_READ + 1];
        struct extents x = {.list = list, .max = EXTENTS_READ};
        uint32_t known = 0;

        if (q->len == 0) {
                uint8_t *p = session_room(s, NBD_CHUNK_SIZE);

                if (!p)
                        return -EPIPE;
                chunk_put(p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, q->cookie, 0);
                s->out_len += NBD_CHUNK_SIZE;
                return 0;
        }
        if (q->flags & NBD_CMD_FLAG_DF || !volume_sparse_hint(s->volume, q->len, q->off)) {
                int r;

                if (!(q->flags & NBD_CMD_FLAG_DF) && q->len > CHUNK) {
                        list[0] = (struct extent){.len = q->len};
                        return read_pieces(s, q, list, 1);
                }
                r = read_data_chunk(s, q, q->off, q->len, true);
                return MIN(r, 0);
        }
        if (volume_extents(s->volume, q->len, q->off, extent_add, &x) < 0)
                x.n = 0;
        for (size_t i = 0; i < x.n; i++)
                known += list[i].len;
        if (known < q->len)
                list[x.n++] = (struct extent){.len = q->len - known};
        return read_pieces(s, q, list, x.n);
}

static int cmd_read(struct session *s, const struct request *q)
{
        uint8_t *p;
        int r = 0;

        if (q->flags & NBD_CMD_FLAG_DF && !s->structured)
                r = -EINVAL;
        if (q->len > VOLUME_IO_MAX || q->off > volume_size(s->volume) ||
            q->len > volume_size(s->volume) - q->off)
                r = -EINVAL;
        if (r < 0)
                return s->structured ? reply_error_chunk(s, q->cookie, r)
                                     : reply_simple(s, q->cookie, r);
        if (s->structured)
                return read_structured(s, q);
        p = session_room(s, NBD_SIMPLE_SIZE + q->len);
        if (!p)
                return -EPIPE;
        r = volume_pread(s->volume, p + NBD_SIMPLE_SIZE, q->len, q->off);
        if (r < 0)
                return reply_simple(s, q->cookie, r);
        p = be32_put(p, NBD_SIMPLE_REPLY_MAGIC);
        be64_put(be32_put(p, 0), q->cookie);
        s->out_len += NBD_SIMPLE_SIZE + q->len;
        return 0;
}

/* Remembers the write; its payload is taken as it comes. */
static int cmd_write(struct session *s, const struct request *q)
{
        uint64_t size = volume_size(s->volume);
        int error = 0;

        if (q->len > SESSION_DRAIN)
                return -EPROTO;
        if (volume_readonly(s->volume))
                error = -EPERM;
        else if (q->len > VOLUME_IO_MAX || q->flags & ~NBD_CMD_FLAG_FUA)
                error = -EINVAL;
        else if (q->off > size || q->len > size - q->off)
                error = -ENOSPC;
        if (q->len == 0)
                return reply_simple(s, q->cookie, error);
        s->write.cookie = q->cookie;
        s->write.off = q->off;
        s->write.left = q->len;
        s->write.flags = q->flags & NBD_CMD_FLAG_FUA ? VOLUME_FUA : 0;
        s->write.cut = false;
        s->write.error = error;
        return 0;
}

static ssize_t payload_step(struct session *s, const uint8_t *p, size_t n)
{
        size_t k = MIN(n, (size_t)s->write.left);
        bool last = k == s->write.left, whole = last && !s->write.cut;
        int r;

        if (!last && s->write.error == 0) {
                if (n < PIECE)
                        return 0;
                k -= (s->write.off + k) % BLOCK;
        }
        if (s->write.error == 0)
                s->write.error =
                        volume_pwrite(s->volume, p, k, s->write.off, whole ? s->write.flags : 0);
        s->write.cut = true;
        s->write.off += k;
        s->write.left -= k;
        if (!last)
                return k;
        if (s->write.error == 0 && s->write.flags & VOLUME_FUA && !whole)
                s->write.error = volume_flush(s->volume);
        r = reply_simple(s, s->write.cookie, s->write.error);
        return r < 0 ? r : (ssize_t)k;
}

static int cmd_flush(struct session *s, const struct request *q)
{
        if (q->off || q->len)
                return reply_simple(s, q->cookie, -EINVAL);
        return reply_simple(s, q->cookie, volume_flush(s->volume));
}

static int cmd_trim(struct session *s, const struct request *q)
{
        unsigned flags = q->flags & NBD_CMD_FLAG_FUA ? VOLUME_FUA : 0;

        return reply_simple(s, q->cookie, volume_trim(s->volume, q->len, q->off, flags));
}

static int cmd_cache(struct session *s, const struct request *q)
{
        return reply_simple(s, q->cookie, volume_cache(s->volume, q->len, q->off));
}

static int cmd_write_zeroes(struct session *s, const struct request *q)
{
        unsigned flags = 0;

        if (q->flags & NBD_CMD_FLAG_FUA)
                flags |= VOLUME_FUA;
        if (q->flags & NBD_CMD_FLAG_NO_HOLE)
                flags |= VOLUME_NO_HOLE;
        if (q->flags & NBD_CMD_FLAG_FAST_ZERO)
                flags |= VOLUME_FAST;
        return reply_simple(s, q->cookie, volume_zero(s->volume, q->len, q->off, flags));
}

static int cmd_block_status(struct session *s, const struct request *q)
{
        struct extents x = {.max = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_STATUS};
        _cleanup_free_ struct extent *list = NULL;
        uint8_t *p;
        int r = 0;

        if (!s->allocation || q->len == 0)
                r = -EINVAL;
        if (r == 0) {
                x.list = list = calloc(x.max, sizeof(*list));
                r = list ? volume_extents(s->volume, q->len, q->off, extent_add, &x) : -ENOMEM;
        }
        if (r < 0 && s->structured)
                return reply_error_chunk(s, q->cookie, r);
        if (r < 0)
                return reply_simple(s, q->cookie, r);
        p = session_room(s, NBD_CHUNK_SIZE + 4 + x.n * 8);
        if (!p)
                return -EPIPE;
        s->out_len += NBD_CHUNK_SIZE + 4 + x.n * 8;
        p = chunk_put(p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, q->cookie, 4 + x.n * 8);
        p = be32_put(p, 1);
        for (size_t i = 0; i < x.n; i++)
                p = be32_put(be32_put(p, list[i].len), list[i].state);
        return 0;
}

static int cmd_disc(struct session *s, const struct request *q _unused_)
{
        s->phase = SESSION_OVER;
        return 0;
}

static const struct {
        int (*run)(struct session *s, const struct request *q);
        unsigned flags; /* legal beside FUA, which every command may carry */
} commands[] = {
        [NBD_CMD_READ] = {cmd_read, NBD_CMD_FLAG_DF},
        [NBD_CMD_WRITE] = {cmd_write, ~0u}, /* the payload has to be taken first */
        [NBD_CMD_DISC] = {cmd_disc, ~0u},
        [NBD_CMD_FLUSH] = {cmd_flush, 0},
        [NBD_CMD_TRIM] = {cmd_trim, 0},
        [NBD_CMD_CACHE] = {cmd_cache, 0},
        [NBD_CMD_WRITE_ZEROES] = {cmd_write_zeroes, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO},
        [NBD_CMD_BLOCK_STATUS] = {cmd_block_status, NBD_CMD_FLAG_REQ_ONE},
};

ssize_t request_step(struct session *s, const uint8_t *p, size_t n)
{
        struct request q;
        int r;

        if (s->write.left > 0)
                return payload_step(s, p, n);
        if (n < NBD_REQUEST_SIZE)
                return 0;
        if (be32_get(p) != NBD_REQUEST_MAGIC)
                return -EPROTO;
        q.flags = be16_get(p + 4);
        q.type = be16_get(p + 6);
        q.cookie = be64_get(p + 8);
        q.off = be64_get(p + 16);
        q.len = be32_get(p + 24);
        if (q.type >= ARRAY_SIZE(commands))
                r = reply_simple(s, q.cookie, -EINVAL);
        else if (!(q.flags & ~(commands[q.type].flags | NBD_CMD_FLAG_FUA)))
                r = commands[q.type].run(s, &q);
        else if (s->structured && (q.type == NBD_CMD_READ || q.type == NBD_CMD_BLOCK_STATUS))
                r = reply_error_chunk(s, q.cookie, -EINVAL);
        else
                r = reply_simple(s, q.cookie, -EINVAL);
        return r < 0 ? r : NBD_REQUEST_SIZE;
}
