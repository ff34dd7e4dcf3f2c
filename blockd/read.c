/* Large reads: holes as holes, and data from the file to the socket without passing through us. */
#include "blockd/request.h"

enum {
        PIECE = 252 << 10,      /* data in one chunk when it passes through the buffer */
        DIRECT_PIECE = 1 << 20, /* when that is not the work, but the waiting for the disk */
        EXTENTS = 64,           /* pieces one read is cut into */
};

struct piece {
        uint64_t off;
        uint32_t len;
        bool last;
};

static uint8_t *data_head(struct session *s, uint8_t *p, const struct request *q,
                          const struct piece *k)
{
        if (s->form == FORM_SIMPLE)
                return done_put(s, p, q->cookie, q->off, 0);
        p = chunk_put(s, p, k->last ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_OFFSET_DATA,
                      q->cookie, q->off, 8 + (uint64_t)k->len);
        return be64_put(p, k->off);
}

/* Through the buffer.  1: it failed, and the reply ends with that. */
static int send_read(struct session *s, const struct request *q, const struct piece *k)
{
        const size_t head = s->form == FORM_SIMPLE ? NBD_SIMPLE_SIZE : chunk_size(s) + 8;
        const size_t align = volume_alignment(s->volume);
        uint8_t *p = session_room(s, align + head + MAX(k->len, (uint32_t)REPLY_MAX));
        int r;

        if (!p)
                return -EPIPE;
        /* The buffer is aligned: so is the data, if it follows a gap. */
        p = s->work->out + (s->work->used + head + align - 1) / align * align - head;
        r = volume_pread(s->volume, p + head, k->len, k->off);
        if (r < 0) {
                r = reply_failure(s, q, r);
                return r < 0 ? r : 1;
        }
        data_head(s, p, q, k);
        session_put(s, p, head + k->len);
        return 0;
}

static int send_lent(struct session *s, const struct request *q, const struct piece *k,
                     const struct volume_file *f)
{
        uint8_t *p = session_room(s, REPLY_MAX);
        int r;

        if (!p)
                return -EPIPE;
        session_put(s, p, data_head(s, p, q, k) - p);
        r = session_send(s);
        if (r == 0)
                r = s->owner.send_file(s->owner.arg, f->fd, f->off, k->len);
        if (r < 0) /* the reply cannot be taken back: only a closed connection is true */
                s->phase = SESSION_OVER;
        return r;
}

/* The start of the piece, as far as one chunk goes.  1 as send_read(). */
static int send_data(struct session *s, const struct request *q, struct piece *k, bool whole)
{
        const uint32_t piece = volume_alignment(s->volume) == 1 ? PIECE : DIRECT_PIECE;
        struct volume_file f;
        int r;

        if (s->owner.send_file && volume_lend(s->volume, k->len, k->off, &f) > 0) {
                if (f.len >= k->len || (!whole && f.len >= SESSION_LARGE)) {
                        k->last &= f.len >= k->len;
                        k->len = MIN(k->len, f.len);
                        r = send_lent(s, q, k, &f);
                        volume_return(s->volume, &f);
                        return r;
                }
                volume_return(s->volume, &f);
        }
        if (!whole && k->len > piece) {
                k->len = piece;
                k->last = false;
        }
        return send_read(s, q, k);
}

static int send_hole(struct session *s, const struct request *q, const struct piece *k)
{
        uint8_t *p = session_room(s, chunk_size(s) + 12), *end;

        if (!p)
                return -EPIPE;
        end = chunk_put(s, p, k->last ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_OFFSET_HOLE,
                        q->cookie, q->off, 12);
        end = be32_put(be64_put(end, k->off), k->len);
        session_put(s, p, end - p);
        return 0;
}

static int send_extent(struct session *s, const struct request *q, const struct extent *x,
                       uint64_t off)
{
        uint64_t end = off + x->len;

        while (off < end) {
                struct piece k = {.off = off, .len = end - off, .last = end == q->off + q->len};
                int r = x->state ? send_hole(s, q, &k) : send_data(s, q, &k, false);

                if (r != 0)
                        return r;
                off += k.len;
        }
        return 0;
}

static int send_sparse(struct session *s, const struct request *q)
{
        struct extent list[EXTENTS + 1];
        struct extents x = {.list = list, .max = EXTENTS, .len_max = UINT32_MAX};
        uint64_t off = q->off;
        int r = 0;

        if (!volume_sparse_hint(s->volume, q->len, q->off) ||
            volume_extents(s->volume, q->len, q->off, extent_add, &x) < 0)
                x.n = x.total = 0;
        if (x.total < q->len)
                list[x.n++] = (struct extent){.len = q->len - x.total};
        for (size_t i = 0; i < x.n && r == 0; i++) {
                r = send_extent(s, q, &list[i], off);
                off += list[i].len;
        }
        return MIN(r, 0);
}

int read_large(struct session *s, const struct request *q)
{
        struct piece k = {.off = q->off, .len = q->len, .last = true};
        int r;

        if (s->form != FORM_SIMPLE && !(q->flags & NBD_CMD_FLAG_DF))
                return send_sparse(s, q);
        r = send_data(s, q, &k, true);
        return MIN(r, 0);
}
