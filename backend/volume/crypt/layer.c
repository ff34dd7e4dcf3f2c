/* The layer: bytes to sectors, sectors to ciphertext, for any driver.
 *
 * The driver sees whole sectors only, so that what it holds is ciphertext of whole sectors or
 * nothing, which reads as zeros.  Who writes part of a sector reads the rest of it, and has the
 * sector for himself meanwhile; who writes whole ones shares them. */
#include "backend/volume/crypt/vault.h"

enum {
        SECTOR = XTS_SECTOR,
        STRIPE_SHIFT = 20, /* 1 MiB */
        GROUP = 64,        /* of a batch, given to the driver at once */
};

struct handle {
        const struct volume_driver *driver;
        void *inner;
        struct vault *vault;
        struct member *member;
        struct vault_volume *volume;
};

struct layer_changes {
        const struct volume_driver *driver;
        void *inner;
};

int vault_wrap(struct vault *v, const struct volume_driver *d, void *inner, const char *id,
               void **ret, struct err **e)
{
        struct handle *h = calloc(1, sizeof(*h));
        int r;

        if (!h)
                return err_errno(e, -ENOMEM, "open");
        *h = (struct handle){.driver = d, .inner = inner, .vault = v};
        r = vault_take(v, id, &h->member, &h->volume, e);
        if (r < 0)
                free(h);
        else
                *ret = h;
        return r;
}

static void layer_close(void *v)
{
        struct handle *h = v;

        vault_return(h->vault, h->member);
        h->driver->close(h->inner);
        free(h);
}

static uint64_t layer_size(void *v)
{
        struct handle *h = v;

        return h->driver->size(h->inner);
}

static bool layer_immutable(void *v)
{
        struct handle *h = v;

        return h->driver->immutable && h->driver->immutable(h->inner);
}

static uint64_t down(uint64_t off)
{
        return off / SECTOR * SECTOR;
}

static uint64_t up(uint64_t off)
{
        return down(off + SECTOR - 1);
}

static bool whole(uint64_t n, uint64_t off)
{
        return off % SECTOR == 0 && n % SECTOR == 0;
}

/* ---- locks ---- */

static uint64_t stripes(uint64_t n, uint64_t off)
{
        uint64_t first = off >> STRIPE_SHIFT, last = (off + n - 1) >> STRIPE_SHIFT, mask = 0;

        if (last - first >= VAULT_STRIPES - 1)
                return UINT64_MAX;
        for (uint64_t i = first; i <= last; i++)
                mask |= UINT64_C(1) << (i % VAULT_STRIPES);
        return mask;
}

/* In one order, whoever comes. */
static void lock(struct handle *h, uint64_t mask, bool exclusive)
{
        for (; mask; mask &= mask - 1) {
                pthread_rwlock_t *l = &h->volume->stripes[__builtin_ctzll(mask)];

                if (exclusive)
                        pthread_rwlock_wrlock(l);
                else
                        pthread_rwlock_rdlock(l);
        }
}

static void unlock(struct handle *h, uint64_t mask)
{
        for (; mask; mask &= mask - 1)
                pthread_rwlock_unlock(&h->volume->stripes[__builtin_ctzll(mask)]);
}

/* ---- single reads and writes ---- */

static int read_sectors(struct handle *h, void *p, size_t n, uint64_t off)
{
        int r = h->driver->pread(h->inner, p, n, off);

        return r < 0 ? r : xts_decrypt(h->volume->xts, p, n, off);
}

static int layer_pread(void *v, void *p, size_t n, uint64_t off)
{
        struct handle *h = v;
        size_t size = MIN(up(off + n) - down(off), (uint64_t)BOUNCE_SIZE);
        uint8_t *buf;
        int r = 0;

        if (whole(n, off))
                return read_sectors(h, p, n, off);
        buf = bounce_take(vault_bounces(h->vault), size);
        if (!buf)
                return -ENOMEM;
        while (n > 0 && r == 0) {
                uint64_t from = down(off);
                size_t k = MIN(n, size - (off - from));

                r = read_sectors(h, buf, up(off + k) - from, from);
                memcpy(p, buf + (off - from), k);
                p = (uint8_t *)p + k;
                off += k;
                n -= k;
        }
        bounce_return(vault_bounces(h->vault), buf, size);
        return r;
}

/* The sectors that the n bytes lie in, with what else is in them, into buf.  With the stripes. */
static int fill_sectors(struct handle *h, uint8_t *buf, const void *p, size_t n, uint64_t off)
{
        uint64_t from = down(off), to = up(off + n);
        int r = 0;

        if (whole(n, off))
                return xts_encrypt(h->volume->xts, buf, p, n, off);
        if (off != from || to - from == SECTOR)
                r = read_sectors(h, buf, SECTOR, from);
        if (r == 0 && off + n != to && to - from > SECTOR)
                r = read_sectors(h, buf + (to - from - SECTOR), SECTOR, to - SECTOR);
        if (r < 0)
                return r;
        memcpy(buf + (off - from), p, n);
        return xts_encrypt(h->volume->xts, buf, buf, to - from, from);
}

/* With the stripes: exclusive, unless the range is whole sectors. */
static int write_sectors(struct handle *h, const void *p, size_t n, uint64_t off, unsigned flags)
{
        size_t size = MIN(up(off + n) - down(off), (uint64_t)BOUNCE_SIZE);
        bool pieces = up(off + n) - down(off) > size;
        uint8_t *buf = bounce_take(vault_bounces(h->vault), size);
        int r = buf ? 0 : -ENOMEM;

        while (n > 0 && r == 0) {
                uint64_t from = down(off);
                size_t k = MIN(n, size - (off - from));

                r = fill_sectors(h, buf, p, k, off);
                if (r == 0)
                        r = h->driver->pwrite(h->inner, buf, up(off + k) - from, from,
                                              pieces ? flags & ~(unsigned)VOLUME_FUA : flags);
                p = (const uint8_t *)p + k;
                off += k;
                n -= k;
        }
        bounce_return(vault_bounces(h->vault), buf, size);
        if (r == 0 && pieces && flags & VOLUME_FUA)
                r = h->driver->flush(h->inner);
        return r;
}

static int layer_pwrite(void *v, const void *p, size_t n, uint64_t off, unsigned flags)
{
        const uint64_t mask = stripes(n, off);
        struct handle *h = v;
        int r;

        lock(h, mask, !whole(n, off));
        r = write_sectors(h, p, n, off, flags);
        unlock(h, mask);
        return r;
}

static int layer_flush(void *v)
{
        struct handle *h = v;

        return h->driver->flush(h->inner);
}

/* ---- zeroing ---- */

/* Part of a sector, or of two. */
static int write_zeros(struct handle *h, uint64_t n, uint64_t off, unsigned flags)
{
        static const uint8_t zeros[2 * SECTOR];

        return n > 0 ? write_sectors(h, zeros, n, off, flags & VOLUME_FUA) : 0;
}

static int layer_zero(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        const uint64_t mask = stripes(n, off), end = off + n;
        uint64_t from = up(off), to = down(end);
        struct handle *h = v;
        int r = 0;

        if (from >= to)
                from = to = end; /* no sector is whole */
        lock(h, mask, !whole(n, off));
        if (from < to)
                r = h->driver->zero(h->inner, to - from, from, flags);
        if (r == 0)
                r = write_zeros(h, from - off, off, flags);
        if (r == 0)
                r = write_zeros(h, end - to, to, flags);
        unlock(h, mask);
        return r;
}

static int layer_trim(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        const uint64_t from = up(off), to = down(off + n);
        struct handle *h = v;
        uint64_t mask;
        int r;

        if (from >= to)
                return 0;
        mask = stripes(to - from, from);
        lock(h, mask, false);
        r = h->driver->trim(h->inner, to - from, from, flags);
        unlock(h, mask);
        return r;
}

/* ---- batches ---- */

/* Those of a batch that the driver is given at once. */
struct group {
        struct volume_io io[GROUP];
        struct volume_io *of[GROUP];
        size_t n, used; /* entries; bytes of the bounce buffer */
        uint64_t mask;  /* stripes that it writes to */
};

static void run_inner(struct handle *h, struct group *g)
{
        if (h->driver->run) {
                h->driver->run(h->inner, g->io, g->n);
                return;
        }
        for (size_t i = 0; i < g->n; i++) {
                struct volume_io *io = &g->io[i];

                if (io->result != VOLUME_IO_WAITS)
                        continue; /* it could not be encrypted */
                io->result = io->op == VOLUME_WRITE
                                     ? h->driver->pwrite(h->inner, io->p, io->n, io->off, io->flags)
                                     : h->driver->pread(h->inner, io->p, io->n, io->off);
        }
}

static void run_group(struct handle *h, struct group *g)
{
        uint8_t *buf = g->used ? bounce_take(vault_bounces(h->vault), g->used) : NULL;
        size_t at = 0;

        for (size_t i = 0; i < g->n; i++) {
                struct volume_io *io = &g->io[i];

                if (io->op != VOLUME_WRITE)
                        continue;
                io->result = buf ? xts_encrypt(h->volume->xts, buf + at, io->p, io->n, io->off)
                                 : -ENOMEM;
                if (io->result == 0) {
                        io->p = buf + at;
                        io->result = VOLUME_IO_WAITS;
                }
                at += io->n;
        }
        lock(h, g->mask, false);
        run_inner(h, g);
        unlock(h, g->mask);
        for (size_t i = 0; i < g->n; i++) {
                struct volume_io *io = &g->io[i];

                if (io->op == VOLUME_READ && io->result == 0)
                        io->result = xts_decrypt(h->volume->xts, io->p, io->n, io->off);
                g->of[i]->result = io->result;
        }
        bounce_return(vault_bounces(h->vault), buf, g->used);
        g->n = g->used = g->mask = 0;
}

static void run_one(struct handle *h, struct volume_io *io)
{
        io->result = io->op == VOLUME_WRITE ? layer_pwrite(h, io->p, io->n, io->off, io->flags)
                                            : layer_pread(h, io->p, io->n, io->off);
}

static void layer_run(void *v, struct volume_io *io, size_t n)
{
        struct handle *h = v;
        struct group g;

        g.n = g.used = g.mask = 0; /* its arrays are filled as far as used */
        for (size_t i = 0; i < n; i++) {
                size_t bytes = io[i].op == VOLUME_WRITE ? io[i].n : 0;

                if (io[i].result != VOLUME_IO_WAITS)
                        continue;
                if (!whole(io[i].n, io[i].off) || bytes > BOUNCE_SIZE || n == 1) {
                        run_one(h, &io[i]);
                        continue;
                }
                if (g.n == GROUP || g.used + bytes > BOUNCE_SIZE)
                        run_group(h, &g);
                g.io[g.n] = io[i];
                g.of[g.n++] = &io[i];
                g.used += bytes;
                if (bytes)
                        g.mask |= stripes(bytes, io[i].off);
        }
        if (g.n > 0)
                run_group(h, &g);
}

/* ---- what passes through ---- */

static int layer_extents(void *v, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        struct handle *h = v;

        return h->driver->extents(h->inner, n, off, each, arg);
}

static int layer_changes_open(void *v, const char *since, void **ret, struct err **e)
{
        _cleanup_free_ struct layer_changes *c = calloc(1, sizeof(*c));
        struct handle *h = v;
        int r;

        if (!c)
                return err_errno(e, -ENOMEM, "changes");
        if (!h->driver->changes_open)
                return err_set(e, -ENOTSUP, "%s pools do not know changes", h->driver->name);
        c->driver = h->driver;
        r = h->driver->changes_open(h->inner, since, &c->inner, e);
        if (r == 0)
                *ret = TAKE_PTR(c);
        return r;
}

static int layer_changes_walk(void *c, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        struct layer_changes *changes = c;

        return changes->driver->changes_walk(changes->inner, n, off, each, arg);
}

static void layer_changes_close(void *c)
{
        struct layer_changes *changes = c;

        changes->driver->changes_close(changes->inner);
        free(changes);
}

static int layer_cache(void *v, uint64_t n, uint64_t off)
{
        struct handle *h = v;

        return h->driver->cache ? h->driver->cache(h->inner, n, off) : 0;
}

static bool layer_sparse_hint(void *v, uint64_t n, uint64_t off)
{
        struct handle *h = v;

        return h->driver->sparse_hint && h->driver->sparse_hint(h->inner, n, off);
}

/* Sectors that a large write is cut through cost less than gathering it would. */
/* Of the driver's bytes, which are as good without the key. */
static int layer_check(void *v, const struct volume_check *how, struct err **e)
{
        struct handle *h = v;

        if (!h->driver->check)
                return err_set(e, -ENOTSUP, "%s pools have no checks", h->driver->name);
        return h->driver->check(h->inner, how, e);
}

static int layer_activate(void *v, struct err **e)
{
        struct handle *h = v;

        return h->driver->activate ? h->driver->activate(h->inner, e) : 0;
}

static int layer_deactivate(void *v, struct err **e)
{
        struct handle *h = v;

        return h->driver->deactivate ? h->driver->deactivate(h->inner, e) : 0;
}

static size_t layer_alignment(void *v)
{
        struct handle *h = v;

        return h->driver->alignment ? h->driver->alignment(h->inner) : 1;
}

const struct volume_driver volume_layer_crypt = {
        .name = "encrypted",
        .close = layer_close,
        .activate = layer_activate,
        .deactivate = layer_deactivate,
        .size = layer_size,
        .immutable = layer_immutable,
        .pread = layer_pread,
        .pwrite = layer_pwrite,
        .flush = layer_flush,
        .zero = layer_zero,
        .trim = layer_trim,
        .extents = layer_extents,
        .changes_open = layer_changes_open,
        .changes_walk = layer_changes_walk,
        .changes_close = layer_changes_close,
        .cache = layer_cache,
        .check = layer_check,
        .sparse_hint = layer_sparse_hint,
        .run = layer_run,
        .alignment = layer_alignment,
};
