/* BLOCK_STATUS. */
#include "blockd/request.h"

enum { EXTENTS = 4096 }; /* descriptors in one reply */

static int add(struct extents *x, uint64_t len, uint32_t state)
{
        struct extent *last = x->n > 0 ? &x->list[x->n - 1] : NULL;
        uint64_t room;

        if (last && last->state == state) {
                room = x->len_max - last->len;
                last->len += MIN(len, room);
        } else {
                if (x->n == x->max)
                        return 1;
                room = x->len_max;
                x->list[x->n++] = (struct extent){.len = MIN(len, room), .state = state};
        }
        x->total += MIN(len, room);
        return len > room; /* a part answers, too: the client asks on from there */
}

int extent_add(void *arg, uint64_t off _unused_, uint64_t len, enum volume_kind kind)
{
        return add(arg, len, kind == VOLUME_DATA ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO);
}

static int changed_add(void *arg, uint64_t off _unused_, uint64_t len, enum volume_kind kind)
{
        return add(arg, len, kind == VOLUME_DATA ? NBD_STATE_DIRTY : 0);
}

static int put_extents(struct session *s, const struct request *q, uint32_t id,
                       const struct extents *x, bool last)
{
        const bool extended = s->form == FORM_EXTENDED;
        const size_t len = extended ? 8 + x->n * 16 : 4 + x->n * 8;
        uint8_t *start = session_room(s, chunk_size(s) + len), *p;

        if (!start)
                return -EPIPE;
        p = chunk_put(s, start, last ? NBD_REPLY_FLAG_DONE : 0,
                      extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS,
                      q->cookie, q->off, len);
        p = be32_put(p, id);
        if (extended)
                p = be32_put(p, x->n);
        for (size_t i = 0; i < x->n; i++) {
                const struct extent *k = &x->list[i];

                p = extended ? be64_put(be64_put(p, k->len), k->state)
                             : be32_put(be32_put(p, k->len), k->state);
        }
        session_put(s, start, p - start);
        return 0;
}

/* The extents of one context, as a chunk. */
static int describe(struct session *s, const struct request *q, unsigned context, bool last)
{
        struct extents x = {.max = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS,
                            .len_max = s->form == FORM_EXTENDED ? UINT64_MAX : UINT32_MAX};
        struct volume_changes *changes = s->contexts[context].changes;
        _cleanup_free_ struct extent *list = calloc(x.max, sizeof(*list));
        int r;

        if (!list)
                return -ENOMEM;
        x.list = list;
        r = changes ? volume_changes_walk(changes, q->len, q->off, changed_add, &x)
                    : volume_extents(s->volume, q->len, q->off, extent_add, &x);
        return r < 0 ? r : put_extents(s, q, context + 1, &x, last);
}

/* The contexts asked for, as bits; 0: the ids make no sense. */
static unsigned wanted(const struct session *s, const uint8_t *ids, size_t n)
{
        unsigned bits = 0;

        if (!ids)
                return (1u << s->ncontexts) - 1;
        for (size_t i = 0; i < n; i++) {
                uint32_t id = be32_get(ids + i * 4);

                if (id == 0 || id > s->ncontexts || bits & 1u << (id - 1))
                        return 0;
                bits |= 1u << (id - 1);
        }
        return bits;
}

int block_status(struct session *s, const struct request *q, const uint8_t *ids, size_t n)
{
        unsigned left = wanted(s, ids, n);
        int r = left == 0 || q->len == 0 ? -EINVAL : 0;

        for (unsigned i = 0; left != 0 && r == 0; i++) {
                if (!(left & 1u << i))
                        continue;
                left &= ~(1u << i);
                r = describe(s, q, i, left == 0);
        }
        return r < 0 && s->phase != SESSION_OVER ? reply_failure(s, q, r) : r;
}
