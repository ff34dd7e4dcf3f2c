/* BLOCK_STATUS. */
#include "blockd/context.h"
#include "blockd/request.h"

enum {
        EXTENTS = 4096, /* descriptors in one chunk */
        CONTEXTS = 1 + SESSION_CONTEXTS,
};

int extent_add(void *arg, uint64_t off _unused_, uint64_t len, enum volume_kind kind)
{
        static const uint32_t states[] = {
                [VOLUME_DATA] = 0,
                [VOLUME_HOLE] = NBD_STATE_HOLE | NBD_STATE_ZERO,
                [VOLUME_ZERO] = NBD_STATE_HOLE | NBD_STATE_ZERO,
        };
        struct extents *x = arg;
        const uint32_t state =
                x->dirty ? (kind == VOLUME_DATA ? NBD_STATE_DIRTY : 0) : states[kind];
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

/* The ids to answer for, at most CONTEXTS of them; how many, or -EINVAL. */
static int choose_ids(const struct session *s, const uint8_t *ids, size_t n, uint32_t ret[CONTEXTS])
{
        int chosen = 0;

        for (uint32_t id = CONTEXT_ALLOCATION_ID; n == 0 && id <= CONTEXTS; id++)
                if (context_has(s, id))
                        ret[chosen++] = id;
        for (size_t i = 0; i < n; i++) {
                uint32_t id = be32_get(ids + i * 4);

                if (!context_has(s, id))
                        return -EINVAL;
                for (int k = 0; k < chosen; k++)
                        if (ret[k] == id)
                                return -EINVAL;
                ret[chosen++] = id;
        }
        return chosen > 0 ? chosen : -EINVAL;
}

static int walk(struct session *s, const struct request *q, uint32_t id, struct extents *x)
{
        x->n = x->total = 0;
        x->dirty = id >= CONTEXT_DIRTY_ID;
        if (!x->dirty)
                return volume_extents(s->volume, q->len, q->off, extent_add, x);
        return volume_changes_walk(s->contexts.dirty[id - CONTEXT_DIRTY_ID].changes, q->len, q->off,
                                   extent_add, x);
}

int block_status(struct session *s, const struct request *q, const uint8_t *ids, size_t n)
{
        struct extents x = {.max = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS,
                            .len_max = s->form == FORM_EXTENDED ? UINT64_MAX : UINT32_MAX};
        _cleanup_free_ struct extent *list = NULL;
        uint32_t chosen[CONTEXTS];
        int many = q->len > 0 ? choose_ids(s, ids, n, chosen) : -EINVAL;

        if (many < 0)
                return reply_failure(s, q, many);
        x.list = list = calloc(x.max, sizeof(*list));
        if (!list)
                return reply_failure(s, q, -ENOMEM);
        for (int i = 0; i < many; i++) {
                int r = walk(s, q, chosen[i], &x);

                if (r < 0)
                        return reply_failure(s, q, r);
                r = put_extents(s, q, chosen[i], &x, i == many - 1);
                if (r < 0)
                        return r;
        }
        return 0;
}
