/* Volumes as blockd sees them: the interface that volume drivers implement, and the checked front
 * door that everybody uses.  Drivers: backend/volume/local (files), later rbd.
 *
 * Threads: a pool's calls may come from any thread at once; an open volume's I/O may come from
 * many threads at once (one a connection).  Every call may block on the disk.
 * Errors: negative errno with words where there is a `struct err **`; I/O gives bare -errno. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

enum {
        VOLUME_BLOCK = 4096,        /* granularity of a layer's map */
        VOLUME_IO_MAX = 32 << 20,   /* most bytes of one read or write */
};
#define VOLUME_SIZE_MAX (1ULL << 46) /* 64 TiB */

enum volume_io_flags {
        VOLUME_FUA = 1,       /* durable before it returns */
        VOLUME_NO_HOLE = 2,   /* zero: keep the space allocated */
        VOLUME_FAST_ZERO = 4, /* zero: -ENOTSUP rather than write zeros as data */
};

enum volume_caps { VOLUME_CAP_TRIM = 1, VOLUME_CAP_FAST_ZERO = 2, VOLUME_CAP_SNAPSHOT = 4 };

enum extent_kind { EXTENT_DATA, EXTENT_ZERO, EXTENT_HOLE }; /* HOLE: zero and not allocated */
struct extent {
        uint64_t len;
        enum extent_kind kind;
};

struct volume_info {
        char id[37];
        uint64_t size;   /* bytes, a multiple of 512 */
        uint64_t used;   /* bytes its own layer occupies */
        char parent[37]; /* "" if none */
        bool base;       /* an imported image: immutable, clones grow from it */
};

struct volume;      /* an open volume: one per id and pool, counted */
struct volume_pool; /* an open pool */

struct volume_driver {
        size_t struct_size;
        const char *name;
        unsigned caps;
        /* Required.  dir: the pool's folder; scratch: a folder on tmpfs that survives the process
         * but not the boot. */
        int (*open_pool)(const char *dir, const char *scratch, void **ret, struct err **e);
        void (*close_pool)(void *pool);
        /* Required; semantics and idempotency as in control/driver/volume.h. */
        int (*create)(void *pool, const char *id, uint64_t size, struct err **e);
        int (*import)(void *pool, const char *id, const char *path, struct err **e);
        int (*clone)(void *pool, const char *id, const char *parent, uint64_t size,
                     struct err **e);
        int (*resize)(void *pool, const char *id, uint64_t size, struct err **e);
        int (*remove)(void *pool, const char *id, struct err **e);
        int (*stat)(void *pool, const char *id, struct volume_info *ret, struct err **e);
        int (*list)(void *pool, int (*each)(void *arg, const struct volume_info *i), void *arg,
                    struct err **e);
        /* Required.  One handle per id at a time: the front door counts its users. */
        int (*open)(void *pool, const char *id, void **ret, struct err **e);
        int (*close)(void *h); /* flushes; what it returns is logged */
        uint64_t (*size)(void *h);
        /* Required.  Range-checked; whole or -errno. */
        int (*pread)(void *h, void *buf, uint32_t n, uint64_t off);
        int (*pwrite)(void *h, const void *buf, uint32_t n, uint64_t off, unsigned flags);
        int (*flush)(void *h);
        /* Optional: NULL means written as zeros by the front door (-ENOTSUP for FAST_ZERO). */
        int (*zero)(void *h, uint64_t n, uint64_t off, unsigned flags);
        /* Optional: NULL means success that frees nothing. */
        int (*trim)(void *h, uint64_t n, uint64_t off, unsigned flags);
        /* Optional: NULL means one extent of data.  Fills at most max extents beginning at off and
         * not past off+n; gives their number (at least 1).  Neighbours may have the same kind. */
        int (*extents)(void *h, uint64_t n, uint64_t off, struct extent *ret, unsigned max);
};

extern const struct volume_driver volume_local;

/* --- the front door: checks ids, ranges and flags, opens once, counts users, traces ------------- */

int volume_pool_open(const struct volume_driver *d, const char *dir, const char *scratch,
                     struct volume_pool **ret, struct err **e);
/* Every volume must have been closed. */
void volume_pool_close(struct volume_pool *p);
int volume_create(struct volume_pool *p, const char *id, uint64_t size, struct err **e);
int volume_import(struct volume_pool *p, const char *id, const char *path, struct err **e);
int volume_clone(struct volume_pool *p, const char *id, const char *parent, uint64_t size,
                 struct err **e);
/* An open volume is resized under its users: volume_size() is the new one at once. */
int volume_resize(struct volume_pool *p, const char *id, uint64_t size, struct err **e);
/* -EBUSY while it is open. */
int volume_remove(struct volume_pool *p, const char *id, struct err **e);
int volume_stat(struct volume_pool *p, const char *id, struct volume_info *ret, struct err **e);
int volume_list(struct volume_pool *p, int (*each)(void *arg, const struct volume_info *i),
                void *arg, struct err **e);

/* Shares the handle with other users of the same volume.  -ENOENT, -EUCLEAN (damaged). */
int volume_open(struct volume_pool *p, const char *id, struct volume **ret, struct err **e);
void volume_close(struct volume *v);
uint64_t volume_size(struct volume *v);
bool volume_readonly(struct volume *v); /* an imported base */
unsigned volume_caps(struct volume *v);
const char *volume_id(struct volume *v);
/* -EINVAL range or flags, -EROFS, -ENOSPC, -EIO. */
int volume_pread(struct volume *v, void *buf, uint32_t n, uint64_t off);
int volume_pwrite(struct volume *v, const void *buf, uint32_t n, uint64_t off, unsigned flags);
int volume_flush(struct volume *v);
int volume_zero(struct volume *v, uint64_t n, uint64_t off, unsigned flags);
int volume_trim(struct volume *v, uint64_t n, uint64_t off, unsigned flags);
int volume_extents(struct volume *v, uint64_t n, uint64_t off, struct extent *ret, unsigned max);
