/* A local volume: made, written, flushed, snapshotted, grown.  What was flushed and acknowledged is
 * read again, whatever else was there can be taken away. */
#include "nth.h"

#include <stdlib.h>

#include "backend/volume/volume.h"

enum { SIZE = 1 << 20, WRITES = 4, LEN = 8192 };

static const char id[] = "00000000-0000-4000-8000-000000000001",
                  snap[] = "00000000-0000-4000-8000-000000000002";

struct acks {
        bool made, snapped, grown, asked_to_grow;
        bool asked[2 * WRITES], wrote[2 * WRITES], flushed[2 * WRITES];
};
const size_t nth_shared = sizeof(struct acks);

static int pool_open(const char *dir, struct volume_pool **ret)
{
        char state[64], run[64];
        struct volume_pool_config c = {.state = state, .run = run};

        snprintf(state, sizeof(state), "%s/state", dir);
        snprintf(run, sizeof(run), "%s/run", dir);
        return volume_pool_open(&volume_driver_local, &c, ret, NULL);
}

static void fill(char *buf, unsigned i)
{
        memset(buf, 'a' + (int)i, LEN);
}

/* Each at a place of its own, not at the beginning of a block. */
static uint64_t place(unsigned i)
{
        return i * 3 * LEN + 512;
}

static void writes(struct volume *v, struct acks *a, unsigned from)
{
        char buf[LEN];

        for (unsigned i = from; i < from + WRITES; i++) {
                fill(buf, i);
                a->asked[i] = true;
                a->wrote[i] = volume_pwrite(v, buf, LEN, place(i), 0) == 0;
                if (i % 2 && volume_flush(v) == 0)
                        for (unsigned k = 0; k <= i; k++)
                                a->flushed[k] |= a->wrote[k];
        }
}

void nth_work(void *shared, const char *dir)
{
        struct acks *a = shared;
        struct volume_pool *pool;
        struct volume *v;

        if (pool_open(dir, &pool) < 0)
                return;
        a->made = volume_create(pool, id, SIZE, NULL) == 0;
        if (a->made && volume_open(pool, id, false, &v, NULL) == 0) {
                writes(v, a, 0);
                a->snapped = volume_snapshot(pool, snap, id, NULL) == 0;
                writes(v, a, WRITES);
                a->asked_to_grow = true;
                a->grown = volume_resize(pool, id, 2 * SIZE, NULL) == 0;
                volume_close(v);
        }
        volume_pool_close(pool);
}

/* What was flushed is there; what was not is as it was or as it was to be. */
static void holds(struct volume_pool *pool, const char *which, const struct acks *a, unsigned n)
{
        char buf[LEN], want[LEN], zeros[LEN] = {};
        struct volume *v;

        CHECK(volume_open(pool, which, true, &v, NULL) == 0);
        for (unsigned i = 0; i < n; i++) {
                fill(want, i);
                CHECK(volume_pread(v, buf, LEN, place(i)) == 0);
                if (a->flushed[i])
                        CHECK(memcmp(buf, want, LEN) == 0);
                else if (!a->asked[i])
                        CHECK(memcmp(buf, zeros, LEN) == 0);
                else
                        for (unsigned k = 0; k < LEN; k++)
                                CHECK(buf[k] == want[k] || !buf[k]);
        }
        volume_close(v);
}

void nth_check(const void *shared, const char *dir)
{
        const struct acks *a = shared;
        struct volume_pool *pool;
        struct volume_info info;
        bool there, snapped;

        CHECK(pool_open(dir, &pool) == 0);
        CHECK(volume_pool_work(pool) >= 0);
        there = volume_exists(pool, id, NULL) == 0;
        snapped = volume_exists(pool, snap, NULL) == 0;
        CHECK(!a->made || there);
        CHECK(!a->snapped || snapped);
        if (there) {
                CHECK(volume_stat(pool, id, &info, NULL) == 0);
                CHECK(a->grown ? info.size == 2 * SIZE
                               : info.size == SIZE || (a->asked_to_grow && info.size == 2 * SIZE));
                holds(pool, id, a, 2 * WRITES);
        }
        if (snapped) {
                holds(pool, snap, a, WRITES);
                CHECK(volume_remove(pool, snap, NULL) == 0);
        }
        if (there)
                holds(pool, id, a, 2 * WRITES);
        CHECK(volume_remove(pool, id, NULL) == 0 || !there);
        CHECK(volume_create(pool, id, SIZE, NULL) == 0);
        volume_pool_close(pool);
}
