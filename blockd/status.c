/* BLOCK_STATUS. */
#include "blockd/request.h"

enum { EXTENTS = 4096 }; /* descriptors in one reply */

int extent_add(void *arg, uint64_t off _unused_, uint64_t len, enum volume_kind kind)
{
        static const uint32_t states[] = {
                [VOLUME_DATA] = 0,
                [VOLUME_HOLE] = NBD_STATE_HOLE | NBD_STATE_ZERO,
                [VOLUME_ZERO] = NBD_STATE_HOLE | NBD_STATE_ZERO,
        };
        struct extents *x = arg;
        struct extent *last = x->n > 0 ? &x->list[x->n - 1] : NULL;
        uint64_t room;

        if (last && last->state == states[kind]) {
                room = x->len_max - last->len;
                last->len += MIN(len, room);
        } else {
                if (x->n == x->max)
                        return 1;
                room = x->len_max;
                x->list[x->n++] = (struct extent){.len = MIN(len, room), .state = states[kind]};
        }
        x->total += MIN(len, room);
        return len > room; /* a part answers, too: the client asks on from there */
}

static int put_extents(struct session *s, const struct request *q, uint32_t id,
                       const struct extents *x)
{
        const bool extended = s->form == FORM_EXTENDED;
        const size_t len = extended ? 8 + x->n * 16 : 4 + x->n * 8;
        uint8_t *start = session_room(s, chunk_size(s) + len), *p;

        if (!start)
                return -EPIPE;
        p = chunk_put(s, start, NBD_REPLY_FLAG_DONE,
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

int block_status(struct session *s, const struct request *q, const uint8_t *ids, size_t n)
{
        struct extents x = {.max = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS,
                            .len_max = s->form == FORM_EXTENDED ? UINT64_MAX : UINT32_MAX};
        _cleanup_free_ struct extent *list = NULL;
        int r = 0;

        if (!s->allocation || q->len == 0)
                r = -EINVAL;
        for (size_t i = 0; i < n; i++)
                if (be32_get(ids + i * 4) != 1)
                        r = -EINVAL;
        if (r == 0) {
                x.list = list = calloc(x.max, sizeof(*list));
                r = list ? volume_extents(s->volume, q->len, q->off, extent_add, &x) : -ENOMEM;
        }
        return r < 0 ? reply_failure(s, q, r) : put_extents(s, q, 1, &x);
}
