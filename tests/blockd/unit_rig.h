/* What the tests of the local driver share: a pool in a folder of its own, and volumes beside their
 * models, in memory that a child shares which will be killed.
 *
 * Before it is included the test says how many VOLUMES there are and how many BYTES each has at
 * most; its struct family begins with their models. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <unistd.h>

#include "backend/volume/local/local.h"
#include "backend/volume/volume.h"
#include "common/fileio.h"
#include "common/name.h"

struct model {
        char id[VOLUME_ID_SIZE], parent[VOLUME_ID_SIZE];
        bool there, immutable;
        uint64_t size;
        uint8_t bytes[BYTES];
};

struct family;

struct rig {
        char *dir, *state, *run;
        struct volume_pool *pool;
        struct volume *open[VOLUMES];
        struct family *f;
        struct model *v; /* f->v */
        size_t shared;   /* sizeof(*f) */
        bool in_child;   /* which must not go on as if it were the test */
};

static struct rig *the_rig;

#define FAIL(...)                                                                                  \
        do {                                                                                       \
                if (the_rig && the_rig->in_child) {                                                \
                        fprintf(stderr, __VA_ARGS__);                                              \
                        _exit(1);                                                                  \
                }                                                                                  \
                fail_msg(__VA_ARGS__);                                                             \
        } while (0)

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != 0)                                                                       \
                        FAIL("%s: %d %s\n", #call, r_, e ? err_msg(e) : "");                       \
        } while (0)

/* TEST_POOL is DRIVER:TARGET, of a pool that is not local. */
static inline bool is_local(void)
{
        return !getenv("TEST_POOL");
}

/* How often: where each call goes over a network less, unless there is time. */
static inline int times(int local, int elsewhere)
{
        return is_local() || getenv("STRATOFS_LONG") ? local : elsewhere;
}

static void pool_up(struct rig *r)
{
        struct volume_pool_config c = {.state = r->state, .run = r->run};
        const struct volume_driver *driver = &volume_driver_local;
        const char *pool = getenv("TEST_POOL");
        char name[16];

        if (pool) {
                snprintf(name, sizeof(name), "%.*s", (int)strcspn(pool, ":"), pool);
                OK(volume_driver_find(name, &driver, &e));
                c.target = pool + strlen(name) + 1;
        }
        OK(volume_pool_open(driver, &c, &r->pool, &e));
}

static void close_all(struct rig *r)
{
        for (int i = 0; i < VOLUMES; i++)
                r->open[i] = volume_close(r->open[i]);
}

static void pool_down(struct rig *r)
{
        close_all(r);
        r->pool = volume_pool_close(r->pool);
}

/* shared: sizeof(struct family). */
static struct rig *rig_new(size_t shared)
{
        struct rig *r = calloc(1, sizeof(*r));
        const char *tmp = getenv("TMPDIR");

        assert_non_null(r);
        r->dir = path_printf("%s/unit.XXXXXX", tmp ? tmp : "/tmp");
        assert_non_null(mkdtemp(r->dir));
        r->state = path_printf("%s/state", r->dir);
        r->run = path_printf("%s/run", r->dir);
        r->shared = shared;
        r->f = mmap(NULL, shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(r->f, MAP_FAILED);
        r->v = (struct model *)r->f;
        the_rig = r;
        pool_up(r);
        return r;
}

static int rig_down(void **state)
{
        struct rig *r = *state;

        if (r->pool)
                pool_down(r);
        remove_tree(r->dir, NULL);
        munmap(r->f, r->shared);
        free(r->dir);
        free(r->state);
        free(r->run);
        free(r);
        the_rig = NULL;
        return 0;
}

static struct volume *handle(struct rig *r, int i)
{
        if (!r->open[i])
                OK(volume_open(r->pool, r->v[i].id, false, &r->open[i], &e));
        return r->open[i];
}

static void compare(struct rig *r, int i)
{
        struct model *m = &r->v[i];
        static uint8_t got[BYTES];

        if (volume_size(handle(r, i)) != m->size || volume_readonly(handle(r, i)) != m->immutable)
                FAIL("volume %d has %llu bytes, not %llu\n", i,
                     (unsigned long long)volume_size(handle(r, i)), (unsigned long long)m->size);
        OK(volume_pread(handle(r, i), got, m->size, 0));
        for (uint64_t b = 0; b < m->size; b++)
                if (got[b] != m->bytes[b])
                        FAIL("volume %d, byte %llu is %d, not %d\n", i, (unsigned long long)b,
                             got[b], m->bytes[b]);
}

/* Somewhere in the volume: any bytes, sectors or blocks, most often few. */
static void range(const struct model *m, uint64_t longest, uint64_t *off, uint64_t *n)
{
        uint64_t unit = (uint64_t[]){1, 512, 4096}[random() % 3];

        *off = random() % m->size / unit * unit;
        *n = (1 + random() % (random() % 4 ? 9000 : longest)) / unit * unit;
        *n = MIN(MAX(*n, unit), m->size - *off);
}
