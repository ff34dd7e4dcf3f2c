/* The null driver: every volume exists, is 1 GiB, reads as zeros and forgets writes.  It measures
 * what the layers above cost, and gives the fuzzers a pool without a disk. */
#include "backend/volume/volume.h"

#define NULL_SIZE (UINT64_C(1) << 30)

static int null_pool_open(const struct volume_pool_config *c _unused_, void **ret,
                          struct err **e _unused_)
{
        *ret = NULL;
        return 0;
}

static void null_pool_abandon(void *pool _unused_, bool abandoned _unused_)
{
}

static void null_pool_close(void *pool _unused_)
{
}

static int null_create(void *pool _unused_, const char *id _unused_, uint64_t size _unused_,
                       struct err **e _unused_)
{
        return 0;
}

static int null_remove(void *pool _unused_, const char *id _unused_, struct err **e _unused_)
{
        return 0;
}

static int null_stat(void *pool _unused_, const char *id, struct volume_info *ret,
                     struct err **e _unused_)
{
        *ret = (struct volume_info){.size = NULL_SIZE};
        snprintf(ret->id, sizeof(ret->id), "%s", id);
        return 0;
}

static int null_list(void *pool _unused_, const char *after _unused_, volume_info_fn each _unused_,
                     void *arg _unused_, struct err **e _unused_)
{
        return 0;
}

static int null_open(void *pool _unused_, const char *id _unused_, void **ret,
                     struct err **e _unused_)
{
        *ret = NULL;
        return 0;
}

static void null_close(void *v _unused_)
{
}

static uint64_t null_size(void *v _unused_)
{
        return NULL_SIZE;
}

static int null_pread(void *v _unused_, void *p, size_t n, uint64_t off _unused_)
{
        memset(p, 0, n);
        return 0;
}

static int null_pwrite(void *v _unused_, const void *p _unused_, size_t n _unused_,
                       uint64_t off _unused_, unsigned flags _unused_)
{
        return 0;
}

static int null_flush(void *v _unused_)
{
        return 0;
}

static int null_zero(void *v _unused_, uint64_t n _unused_, uint64_t off _unused_,
                     unsigned flags _unused_)
{
        return 0;
}

/* Alternates every 64 KiB, so that those who walk extents have something to walk. */
static int null_extents(void *v _unused_, uint64_t n, uint64_t off, volume_extent_fn each,
                        void *arg)
{
        while (n > 0) {
                uint64_t len = MIN(n, 65536 - off % 65536);
                int r = each(arg, off, len, off / 65536 % 2 ? VOLUME_HOLE : VOLUME_DATA);

                if (r != 0)
                        return MIN(r, 0);
                off += len;
                n -= len;
        }
        return 0;
}

static int null_changes_open(void *v _unused_, const char *since _unused_, void **ret,
                             struct err **e _unused_)
{
        *ret = NULL;
        return 0;
}

static bool null_sparse_hint(void *v _unused_, uint64_t n, uint64_t off _unused_)
{
        return n >= 65536;
}

const struct volume_driver volume_driver_null = {
        .name = "null",
        .pool_open = null_pool_open,
        .pool_close = null_pool_close,
        .pool_abandon = null_pool_abandon,
        .create = null_create,
        .resize = null_create,
        .remove = null_remove,
        .stat = null_stat,
        .list = null_list,
        .open = null_open,
        .close = null_close,
        .size = null_size,
        .pread = null_pread,
        .pwrite = null_pwrite,
        .flush = null_flush,
        .zero = null_zero,
        .trim = null_zero,
        .extents = null_extents,
        .changes_open = null_changes_open,
        .changes_walk = null_extents,
        .changes_close = null_close,
        .sparse_hint = null_sparse_hint,
};
