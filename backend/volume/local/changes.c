/* Which blocks two volumes may have different: what the layers above the nearest one they share
 * map. */
#include "backend/volume/local/pool.h"

/* A map is looked through in windows, so that a long hole above does not cost its whole length for
 * each small piece below. */
enum { WINDOW = 64 << 20 };

struct changes {
        struct pool *pool;
        struct stack *stack; /* the volume's: open longer than this */
        struct entry *since; /* open */
        struct stack *other; /* its stack */
};

/* Both stacks' io, shared.  By address: two walks in opposite directions with a snapshot waiting
 * for each stack would else wait for each other. */
static void lock_both(const struct changes *c)
{
        struct stack *first = MIN(c->stack, c->other), *second = MAX(c->stack, c->other);

        pthread_rwlock_rdlock(&first->io);
        pthread_rwlock_rdlock(&second->io);
}

static void unlock_both(const struct changes *c)
{
        pthread_rwlock_unlock(&c->stack->io);
        pthread_rwlock_unlock(&c->other->io);
}

static unsigned depth(const struct layer *l)
{
        unsigned n = 0;

        for (; l; l = l->parent)
                n++;
        return n;
}

/* The nearest, NULL if there is none.  Merges change parents under the layers' lock: one between
 * two steps would lead past it, and past the ground. */
static const struct layer *shared_layer(const struct changes *c)
{
        const struct layer *l = c->stack->top, *k = c->other->top;
        unsigned n, m;

        WITH_LOCK(&c->pool->layers_lock);
        n = depth(l);
        m = depth(k);
        for (; n > m; n--)
                l = l->parent;
        for (; m > n; m--)
                k = k->parent;
        for (; l != k; k = k->parent)
                l = l->parent;
        return l;
}

int pool_changes_open(struct pool *p, struct stack *s, const char *since, struct changes **ret,
                      struct err **e)
{
        _cleanup_free_ struct changes *c = calloc(1, sizeof(*c));
        bool shares;
        int r;

        if (!c)
                return err_errno(e, -ENOMEM, "changes");
        r = pool_volume_open(p, since, &c->since, e);
        if (r < 0)
                return r;
        c->pool = p;
        c->stack = s;
        c->other = c->since->stack;
        lock_both(c);
        shares = shared_layer(c);
        unlock_both(c);
        if (!shares) {
                pool_volume_close(p, c->since);
                return err_set(e, -EINVAL, "they share nothing");
        }
        *ret = TAKE_PTR(c);
        return 0;
}

void pool_changes_close(struct changes *c)
{
        pool_volume_close(c->pool, c->since);
        free(c);
}

/* Whether zeros there may differ from the base. */
static bool seen(const struct layer *base, uint64_t off)
{
        return !base || off < base->size;
}

/* Whether a layer above base says anything of the bytes at off, for how many of the n they do or do
 * not all the same.  Layers above another have maps. */
static bool mapped_above(const struct layer *l, const struct layer *base, uint64_t off, uint64_t *n)
{
        for (; l != base; l = l->parent) {
                enum map_state state;
                uint64_t blocks;

                if (!l->mapped)
                        return true; /* it has nothing below it any more */
                if (off >= l->size)
                        return seen(base, off);
                *n = MIN(*n, l->size - off);
                blocks = (off % MAP_BLOCK + *n + MAP_BLOCK - 1) / MAP_BLOCK;

                blocks = map_run(&l->map, off / MAP_BLOCK, blocks, &state);
                *n = MIN(*n, blocks * MAP_BLOCK - off % MAP_BLOCK);
                if (state != MAP_HOLE)
                        return true;
                if (off >= l->overlap)
                        return seen(base, off);
                *n = MIN(*n, l->overlap - off);
        }
        return false;
}

static enum volume_kind piece_at(const struct changes *c, const struct layer *base, uint64_t off,
                                 uint64_t *n)
{
        uint64_t end = c->other->size;

        if (off >= end)
                return VOLUME_DATA;
        *n = MIN(MIN(*n, (uint64_t)WINDOW), end - off);
        return mapped_above(c->stack->top, base, off, n) ||
                               mapped_above(c->other->top, base, off, n)
                       ? VOLUME_DATA
                       : VOLUME_HOLE;
}

static int walk(const struct changes *c, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        /* Looked for each time: layers are pushed, and merged. */
        const struct layer *base = shared_layer(c);
        enum volume_kind kind = VOLUME_HOLE;
        uint64_t len = 0; /* of kind, up to off */
        int r = 0;

        while (n > 0 && r == 0) {
                uint64_t piece = n;
                enum volume_kind next = piece_at(c, base, off, &piece);

                if (len > 0 && next != kind) {
                        r = each(arg, off - len, len, kind);
                        len = 0;
                }
                kind = next;
                len += piece;
                off += piece;
                n -= piece;
        }
        if (r == 0)
                r = each(arg, off - len, len, kind);
        return MIN(r, 0);
}

int pool_changes_walk(struct changes *c, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        int r;

        lock_both(c);
        r = walk(c, n, off, each, arg);
        unlock_both(c);
        return r;
}
