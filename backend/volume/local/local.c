/* The local driver's table: from the front door's calls to the pool's and the stacks'. */
#include "backend/volume/local/pool.h"
#include "backend/volume/local/verify.h"

struct handle {
        struct pool *pool;
        struct entry *entry;
        struct stack *stack; /* the entry's, for as long as it is open */
};

static int local_pool_open(const struct volume_pool_config *c, void **ret, struct err **e)
{
        struct pool *p;
        int r = pool_open(c, &p, e);

        if (r == 0)
                *ret = p;
        return r;
}

static void local_pool_abandon(void *pool, bool abandoned)
{
        struct pool *p = pool;

        p->abandoned = abandoned;
}

static void local_pool_close(void *pool)
{
        pool_close(pool);
}

static int local_create(void *pool, const char *id, uint64_t size, struct err **e)
{
        return pool_create(pool, id, size, e);
}

static int local_import(void *pool, const char *id, const char *path, struct err **e)
{
        return pool_import(pool, id, path, e);
}

static int local_clone(void *pool, const char *id, const char *parent, uint64_t size,
                       struct err **e)
{
        return pool_clone(pool, id, parent, size, e);
}

static int local_snapshot(void *pool, const char *id, const char *of, struct err **e)
{
        return pool_snapshot(pool, id, of, e);
}

static int local_resize(void *pool, const char *id, uint64_t size, struct err **e)
{
        return pool_resize(pool, id, size, e);
}

static int local_shrink(void *pool, const char *id, uint64_t size, struct err **e)
{
        return pool_shrink(pool, id, size, e);
}

static int local_revert(void *pool, const char *id, const char *to, struct err **e)
{
        return pool_revert(pool, id, to, e);
}

static int local_flatten(void *pool, const char *id, bool cancel, struct err **e)
{
        return pool_flatten(pool, id, cancel, e);
}

static void local_background(void *pool, bool on)
{
        pool_background(pool, on);
}

static int local_work(void *pool)
{
        return pool_work(pool);
}

static int local_remove(void *pool, const char *id, struct err **e)
{
        return pool_remove(pool, id, e);
}

static int local_stat(void *pool, const char *id, struct volume_info *ret, struct err **e)
{
        return pool_stat(pool, id, ret, e);
}

static int local_list(void *pool, const char *after, volume_info_fn each, void *arg, struct err **e)
{
        return pool_list(pool, after, each, arg, e);
}

static int local_open(void *pool, const char *id, void **ret, struct err **e)
{
        struct handle *h = calloc(1, sizeof(*h));
        int r;

        if (!h)
                return err_errno(e, -ENOMEM, "open");
        h->pool = pool;
        r = pool_volume_open(pool, id, &h->entry, e);
        if (r < 0) {
                free(h);
                return r;
        }
        h->stack = h->entry->stack;
        *ret = h;
        return 0;
}

static void local_close(void *v)
{
        struct handle *h = v;

        pool_volume_close(h->pool, h->entry);
        free(h);
}

static struct stack *stack_of(void *v)
{
        return ((struct handle *)v)->stack;
}

static uint64_t local_size(void *v)
{
        return stack_size(stack_of(v));
}

static bool local_immutable(void *v)
{
        return stack_of(v)->readonly;
}

static int local_pread(void *v, void *p, size_t n, uint64_t off)
{
        return stack_read(stack_of(v), p, n, off);
}

static int local_pwrite(void *v, const void *p, size_t n, uint64_t off, unsigned flags)
{
        return stack_write(stack_of(v), p, n, off, flags);
}

static int local_flush(void *v)
{
        return stack_flush(stack_of(v));
}

static int local_zero(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        return stack_zero(stack_of(v), n, off, flags);
}

static int local_trim(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        return stack_trim(stack_of(v), n, off, flags);
}

static int local_extents(void *v, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        return stack_extents(stack_of(v), n, off, each, arg);
}

static int local_changes_open(void *v, const char *since, void **ret, struct err **e)
{
        struct handle *h = v;
        struct changes *c;
        int r = pool_changes_open(h->pool, h->stack, since, &c, e);

        if (r == 0)
                *ret = c;
        return r;
}

static int local_changes_walk(void *c, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        return pool_changes_walk(c, n, off, each, arg);
}

static void local_changes_close(void *c)
{
        pool_changes_close(c);
}

static int local_check_open(void *v, const struct volume_check *how, struct err **e)
{
        struct handle *h = v;

        return pool_verify(h->pool, h->stack, how, e);
}

static int local_cache(void *v, uint64_t n, uint64_t off)
{
        stack_cache(stack_of(v), n, off);
        return 0;
}

static bool local_sparse_hint(void *v, uint64_t n, uint64_t off)
{
        return n >= 64 << 10 && stack_starts_sparse(stack_of(v), n, off);
}

static void local_run(void *v, struct volume_io *io, size_t n)
{
        stack_run(stack_of(v), io, n);
}

static int local_lend(void *v, uint64_t n, uint64_t off, struct volume_file *ret)
{
        return stack_lend(stack_of(v), n, off, ret);
}

static void local_give_back(void *v _unused_, struct volume_file *f)
{
        layer_free(f->lender);
}

static size_t local_alignment(void *v)
{
        return ((struct handle *)v)->pool->direct ? MAP_BLOCK : 1;
}

const struct volume_driver volume_driver_local = {
        .name = "local",
        .caps = VOLUME_CAP_CLONE | VOLUME_CAP_IMPORT | VOLUME_CAP_GROW_OPEN | VOLUME_CAP_SNAPSHOT |
                VOLUME_CAP_REVERT,
        .pool_open = local_pool_open,
        .pool_close = local_pool_close,
        .pool_abandon = local_pool_abandon,
        .create = local_create,
        .import = local_import,
        .clone = local_clone,
        .snapshot = local_snapshot,
        .resize = local_resize,
        .shrink = local_shrink,
        .revert = local_revert,
        .flatten = local_flatten,
        .background = local_background,
        .work = local_work,
        .remove = local_remove,
        .stat = local_stat,
        .list = local_list,
        .open = local_open,
        .close = local_close,
        .size = local_size,
        .immutable = local_immutable,
        .pread = local_pread,
        .pwrite = local_pwrite,
        .flush = local_flush,
        .zero = local_zero,
        .trim = local_trim,
        .extents = local_extents,
        .changes_open = local_changes_open,
        .changes_walk = local_changes_walk,
        .changes_close = local_changes_close,
        .check = local_check_open,
        .cache = local_cache,
        .sparse_hint = local_sparse_hint,
        .run = local_run,
        .lend = local_lend,
        .give_back = local_give_back,
        .alignment = local_alignment,
};
