#include "backend/volume/local/index.h"

enum {
        REGION = MAP_LINE_BLOCKS, /* blocks: a line of each map */
        FEW = 8,                  /* layers that are as quickly walked */
        /* Slots that are none. */
        HOLE = UINT16_MAX,
        ZERO = UINT16_MAX - 1,
        WALK = UINT16_MAX - 2, /* a layer or what is seen of one ends inside the block */
        SLOTS_MAX = WALK,
};

struct run {
        uint16_t start, slot; /* start: a block of the region */
};

struct region {
        struct region *next; /* of those that were replaced */
        uint16_t top;        /* the last slot that it knows */
        uint16_t n;
        struct run run[];
};

struct index {
        uint64_t nregions;
        struct region *_Atomic *region;
        struct region *_Atomic retired; /* somebody may be reading them */
        _Atomic uint64_t bytes;
        unsigned nslots, distinct, aslots;
        struct layer **slot;
};

static size_t region_bytes(const struct region *r)
{
        return r ? sizeof(*r) + r->n * sizeof(r->run[0]) : 0;
}

/* ---- regions ---- */

/* A layer laid over what is below it: blocks from first on, which is the region's. */
static void lay(uint16_t *of, const struct layer *l, unsigned slot, uint64_t first)
{
        const uint64_t size = l->size / MAP_BLOCK, overlap = l->overlap / MAP_BLOCK;

        for (unsigned b = 0; b < REGION;) {
                enum map_state state = MAP_DATA;
                unsigned n = REGION - b;
                uint16_t is;

                if (l->mapped)
                        n = map_run(&l->map, first + b, n, &state);
                is = state == MAP_DATA ? slot : state == MAP_ZERO ? ZERO : HOLE;
                for (; n > 0; n--, b++)
                        if (first + b > size)
                                of[b] = HOLE;
                        else if (first + b == size)
                                of[b] = l->size % MAP_BLOCK ? WALK : HOLE;
                        else if (state != MAP_HOLE || first + b > overlap)
                                of[b] = is;
                        else if (first + b == overlap)
                                of[b] = l->overlap % MAP_BLOCK ? WALK : HOLE;
        }
}

static void unpack(uint16_t *of, const struct region *r)
{
        for (unsigned i = 0, b = 0; i < r->n; i++)
                for (unsigned end = i + 1 < r->n ? r->run[i + 1].start : REGION; b < end; b++)
                        of[b] = r->run[i].slot;
}

static struct region *pack(const uint16_t *of, unsigned top)
{
        unsigned n = 1, i = 0;
        struct region *r;

        for (unsigned b = 1; b < REGION; b++)
                n += of[b] != of[b - 1];
        r = malloc(sizeof(*r) + n * sizeof(r->run[0]));
        if (!r)
                return NULL;
        *r = (struct region){.top = top, .n = n};
        r->run[0] = (struct run){.slot = of[0]};
        for (unsigned b = 1; b < REGION; b++)
                if (of[b] != of[b - 1])
                        r->run[++i] = (struct run){.start = b, .slot = of[b]};
        return r;
}

/* From what is known of it, NULL if nothing. */
static struct region *build(const struct index *x, uint64_t at, const struct region *old)
{
        uint16_t of[REGION];

        if (old)
                unpack(of, old);
        else
                for (unsigned b = 0; b < REGION; b++)
                        of[b] = HOLE;
        for (unsigned i = old ? old->top + 1 : 0; i < x->nslots; i++)
                if (i + 1 == x->nslots || x->slot[i] != x->slot[i + 1]) /* merged: once */
                        lay(of, x->slot[i], i, at * REGION);
        return pack(of, x->nslots - 1);
}

static void retire(struct index *x, struct region *r)
{
        r->next = x->retired;
        while (!atomic_compare_exchange_weak(&x->retired, &r->next, r))
                ;
}

/* The region as it is now; NULL when there is no room for it. */
static const struct region *region_get(struct index *x, uint64_t at)
{
        struct region *old = atomic_load(&x->region[at]), *new;

        if (old && old->top == x->nslots - 1)
                return old;
        if (!old && x->bytes > INDEX_BYTES_MAX)
                return NULL;
        new = build(x, at, old);
        if (!new)
                return NULL;
        if (!atomic_compare_exchange_strong(&x->region[at], &old, new)) {
                free(new); /* another thread was faster */
                return old;
        }
        x->bytes += region_bytes(new);
        if (old)
                retire(x, old);
        return new;
}

static void free_retired(struct index *x)
{
        struct region *r = atomic_exchange(&x->retired, NULL);

        while (r) {
                struct region *next = r->next;

                x->bytes -= region_bytes(r);
                free(r);
                r = next;
        }
}

/* ---- looking up ---- */

static unsigned run_at(const struct region *r, unsigned b)
{
        unsigned low = 0, high = r->n;

        while (high - low > 1) {
                unsigned mid = (low + high) / 2;

                if (r->run[mid].start <= b)
                        low = mid;
                else
                        high = mid;
        }
        return low;
}

int index_find(struct index *x, uint64_t off, uint64_t n, struct piece *ret)
{
        const uint64_t first = off / MAP_BLOCK, last = (off + n - 1) / MAP_BLOCK;
        uint64_t b = first;
        unsigned is = HOLE;

        while (b <= last) {
                const struct region *r = NULL;
                unsigned i = 0, slot = HOLE;

                if (b / REGION < x->nregions) {
                        r = region_get(x, b / REGION);
                        i = r ? run_at(r, b % REGION) : 0;
                        slot = r ? r->run[i].slot : WALK; /* no room: block by block */
                }
                if (b > first && slot != is)
                        break;
                is = slot;
                if (b / REGION >= x->nregions)
                        b = last + 1; /* past all of them */
                else if (is == WALK)
                        b++;
                else
                        b += (i + 1 < r->n ? r->run[i + 1].start : (unsigned)REGION) - b % REGION;
                if (is == WALK)
                        break;
        }
        *ret = (struct piece){.len = MIN(n, b * MAP_BLOCK - off), .hole = is == HOLE};
        if (is < SLOTS_MAX)
                ret->layer = x->slot[is];
        return is == WALK ? INDEX_WALK : INDEX_FOUND;
}

/* ---- its layers ---- */

void index_free(struct index *x)
{
        if (!x)
                return;
        free_retired(x);
        for (uint64_t i = 0; i < x->nregions && x->bytes > 0; i++) {
                x->bytes -= region_bytes(x->region[i]);
                free(x->region[i]);
        }
        free(x->region);
        free(x->slot);
        free(x);
}

static unsigned depth(struct layer *l)
{
        unsigned n = 0;

        for (; l; l = l->parent)
                n++;
        return n;
}

static int regions_grow(struct index *x, uint64_t size)
{
        uint64_t n = (size + REGION * MAP_BLOCK - 1) / (REGION * MAP_BLOCK);
        struct region *_Atomic *p;

        if (n <= x->nregions)
                return 0;
        p = calloc(n, sizeof(*p)); /* untouched pages of it cost nothing */
        if (!p)
                return -ENOMEM;
        for (uint64_t i = 0; i < x->nregions; i++)
                if (x->region[i])
                        p[i] = x->region[i];
        free(x->region);
        x->region = p;
        x->nregions = n;
        return 0;
}

struct index *index_new(struct layer *top)
{
        unsigned n = depth(top->parent), i = n;
        struct index *x;
        int r = 0;

        if (n < FEW || n >= SLOTS_MAX)
                return NULL;
        x = calloc(1, sizeof(*x));
        if (!x)
                return NULL;
        x->slot = reallocarray(NULL, n, sizeof(struct layer *));
        if (!x->slot) {
                free(x);
                return NULL;
        }
        x->nslots = x->aslots = x->distinct = n;
        /* The chain may become shorter meanwhile, when layers are merged: what is left is below. */
        for (struct layer *l = top->parent; l && i > 0 && r == 0; l = l->parent) {
                x->slot[--i] = l;
                r = regions_grow(x, l->size);
        }
        for (; i > 0; i--)
                x->slot[i - 1] = x->slot[i];
        if (r < 0) {
                index_free(x);
                return NULL;
        }
        return x;
}

struct index *index_push(struct index *x, struct layer *top)
{
        struct layer *l = top->parent;

        if (!x)
                return index_new(top);
        free_retired(x);
        /* Merging leaves slots behind. */
        if (x->nslots + 1 >= SLOTS_MAX || x->nslots > 64 + 2 * x->distinct ||
            x->bytes > INDEX_BYTES_MAX) {
                index_free(x);
                return index_new(top);
        }
        if (x->nslots == x->aslots) {
                unsigned n = x->aslots * 2;
                struct layer **p = reallocarray(x->slot, n, sizeof(*p));

                if (p) {
                        x->slot = p;
                        x->aslots = n;
                }
        }
        if (x->nslots == x->aslots || regions_grow(x, l->size) < 0) {
                index_free(x);
                return NULL;
        }
        x->slot[x->nslots++] = l;
        x->distinct++;
        return x;
}

void index_replace(struct index *x, const struct layer *upper, const struct layer *lower,
                   struct layer *merged)
{
        unsigned i = x ? x->nslots : 0;

        while (i > 0 && x->slot[i - 1] != upper)
                i--;
        if (i == 0)
                return;
        free_retired(x);
        while (i-- > 0 && (!lower || x->slot[i] == upper || x->slot[i] == lower))
                x->slot[i] = merged;
        x->distinct = 1;
        for (i = 1; i < x->nslots; i++)
                x->distinct += x->slot[i] != x->slot[i - 1];
}
