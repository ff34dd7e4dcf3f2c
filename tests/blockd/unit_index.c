/* The index of an open stack against the walk from layer to layer: every look-up, while the stack
 * is written, snapshotted, merged, grown, shrunk, reverted and cloned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "backend/volume/local/index.h"
#include "backend/volume/local/pool.h"
#include "common/fileio.h"
#include "common/name.h"

enum { SNAPSHOTS = 24, LARGEST = 5 << 20, SECTOR = 512 };

struct rig {
        char *dir, *state, *run;
        struct pool *pool;
        struct entry *en; /* open, or NULL */
        char id[VOLUME_ID_SIZE], snap[SNAPSHOTS][VOLUME_ID_SIZE];
        unsigned names;
        unsigned indexed; /* look-ups that an index answered */
};

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != 0)                                                                       \
                        fail_msg("%s: %d %s", #call, r_, e ? err_msg(e) : "");                     \
        } while (0)

static void rig_up(struct rig *r)
{
        const char *tmp = getenv("TMPDIR");
        struct volume_pool_config c;

        *r = (struct rig){.dir = path_printf("%s/unit-index.XXXXXX", tmp ? tmp : "/tmp")};
        assert_non_null(mkdtemp(r->dir));
        r->state = path_printf("%s/state", r->dir);
        r->run = path_printf("%s/run", r->dir);
        c = (struct volume_pool_config){.state = r->state, .run = r->run};
        OK(pool_open(&c, &r->pool, &e));
}

static void rig_down(struct rig *r)
{
        if (r->en)
                pool_volume_close(r->pool, r->en);
        pool_close(r->pool);
        OK(remove_tree(r->dir, &e));
        free(r->dir);
        free(r->state);
        free(r->run);
}

static void name(struct rig *r, char id[VOLUME_ID_SIZE])
{
        snprintf(id, VOLUME_ID_SIZE, "%08x-0000-4000-8000-000000000000", ++r->names);
}

static bool zeros(struct layer *l, uint64_t off, size_t n)
{
        static const char none[SECTOR];
        char buf[SECTOR] = {1};

        assert_true(n <= SECTOR);
        assert_int_equal(layer_read(l, buf, n, off), 0);
        return memcmp(buf, none, n) == 0;
}

/* A merge may have put zeros into a file where the index remembers a hole. */
static void same(struct layer *top, const struct piece *k, uint64_t off)
{
        struct piece w = layer_walk(top, off, SECTOR);

        assert_int_equal(w.len, SECTOR);
        if (k->layer || !w.layer)
                assert_ptr_equal(k->layer, w.layer);
        else
                assert_true(!w.layer->mapped && zeros(top, off, SECTOR));
        if (k->hole && !w.layer)
                assert_true(w.hole);
}

static void look(struct rig *r, uint64_t off, uint64_t n)
{
        struct layer *top = r->en->stack->top;
        struct piece k = layer_resolve(top, off, n);

        r->indexed += top->index != NULL;
        assert_in_range(k.len, 1, n);
        for (uint64_t at = 0; at + SECTOR <= k.len; at += SECTOR)
                same(top, &k, off + at);
}

/* All of it, in pieces of one block, of random lengths, and as long as they are. */
static void look_all(struct rig *r)
{
        uint64_t size = r->en->stack->size, n;
        int way = random() % 3;

        for (uint64_t off = 0; off < size; off += n) {
                n = way == 0 ? 4096 - off % 4096 : (1 + random() % 4096) * (uint64_t)SECTOR;
                n = MIN(n, size - off);
                if (way == 2)
                        n = layer_resolve(r->en->stack->top, off, size - off).len;
                look(r, off, n);
        }
}

static void write_some(struct rig *r)
{
        static char buf[1 << 20];
        struct stack *s = r->en->stack;

        memset(buf, 1 + random() % 255, sizeof(buf));
        for (int i = random() % 12; i >= 0; i--) {
                uint64_t n = (1 + random() % (i % 4 ? 24 : 1500)) * (uint64_t)SECTOR, off;
                int how = random() % 6;

                n = MIN(MIN(n, sizeof(buf)), s->size);
                off = random() % ((s->size - n) / SECTOR + 1) * SECTOR;
                if (how == 0)
                        assert_int_equal(stack_trim(s, n, off, 0), 0);
                else if (how == 1)
                        assert_int_equal(stack_zero(s, n, off, 0), 0);
                else
                        assert_int_equal(stack_write(s, buf, n, off, 0), 0);
        }
}

static void snapshot(struct rig *r)
{
        unsigned i = random() % SNAPSHOTS;

        if (r->snap[i][0]) { /* its layers are merged by and by */
                OK(pool_remove(r->pool, r->snap[i], &e));
                r->snap[i][0] = '\0';
                return;
        }
        name(r, r->snap[i]);
        OK(pool_snapshot(r->pool, r->snap[i], r->id, &e));
}

static uint64_t random_size(uint64_t from, uint64_t to)
{
        return (from + random() % (to - from + 1)) / SECTOR * SECTOR;
}

/* Changes of the volume at rest. */
static void change(struct rig *r)
{
        unsigned i = random() % SNAPSHOTS;
        uint64_t size = r->en->stack->size;
        bool shrink = random() % 2;

        pool_volume_close(r->pool, r->en);
        r->en = NULL;
        if (shrink)
                OK(pool_shrink(r->pool, r->id, random_size(MAX(size / 2, UINT64_C(4096)), size),
                               &e));
        else if (r->snap[i][0])
                OK(pool_revert(r->pool, r->id, r->snap[i], &e));
        while (random() % 4 && pool_work(r->pool) > 0)
                ;
        OK(pool_volume_open(r->pool, r->id, &r->en, &e));
}

static void step(struct rig *r)
{
        int what = random() % 20;

        if (what < 9)
                write_some(r);
        else if (what < 13)
                snapshot(r);
        else if (what < 17)
                pool_work(r->pool);
        else if (what < 18 && r->en->stack->size < LARGEST)
                OK(pool_resize(r->pool, r->id, random_size(r->en->stack->size, LARGEST), &e));
        else if (what < 19)
                change(r);
        else
                while (pool_work(r->pool) > 0)
                        ;
        /* Some regions are looked up now, the others know fewer layers when they are. */
        if (random() % 2)
                look(r, 0, MIN(r->en->stack->size, (uint64_t)(1 + random() % 300) * SECTOR));
        if (random() % 4 == 0)
                look_all(r);
}

static void agrees_with_the_walk(void **state)
{
        (void)state;
        for (unsigned seed = 1; seed <= 6; seed++) {
                struct rig r;

                rig_up(&r);
                srandom(seed);
                name(&r, r.id);
                OK(pool_create(r.pool, r.id, random_size(1 << 20, 3 << 20), &e));
                if (seed % 2) { /* over what another volume has */
                        char clone[VOLUME_ID_SIZE];

                        name(&r, clone);
                        OK(pool_volume_open(r.pool, r.id, &r.en, &e));
                        write_some(&r);
                        snapshot(&r);
                        write_some(&r);
                        OK(pool_clone(r.pool, clone, r.id, LARGEST, &e));
                        pool_volume_close(r.pool, r.en);
                        memset(r.snap, 0, sizeof(r.snap));
                        strcpy(r.id, clone);
                }
                OK(pool_volume_open(r.pool, r.id, &r.en, &e));
                for (int i = 0; i < 200; i++) {
                        step(&r);
                        if (i == 120 && seed % 2)
                                OK(pool_flatten(r.pool, r.id, false, &e));
                }
                look_all(&r);
                assert_true(r.indexed > 100);
                rig_down(&r);
        }
}

/* Many layers, and slots that merging left behind. */
static void many_layers(void **state)
{
        enum { MANY = 300 };
        struct rig r;
        char buf[4096] = "x", (*ids)[VOLUME_ID_SIZE] = calloc(MANY, VOLUME_ID_SIZE);

        (void)state;
        rig_up(&r);
        srandom(11);
        name(&r, r.id);
        OK(pool_create(r.pool, r.id, LARGEST, &e));
        OK(pool_volume_open(r.pool, r.id, &r.en, &e));
        for (int i = 0; i < MANY; i++) {
                name(&r, ids[i]);
                OK(pool_snapshot(r.pool, ids[i], r.id, &e));
                assert_int_equal(stack_write(r.en->stack, buf, sizeof(buf),
                                             random() % (LARGEST / 4096) * 4096, 0),
                                 0);
                look(&r, random() % (LARGEST / 4096) * 4096, 4096);
        }
        look_all(&r);
        for (int i = 0; i < MANY; i++) {
                OK(pool_remove(r.pool, ids[i * 7 % MANY],
                               &e)); /* 7 and MANY have no factor in common */
                while (random() % 3 && pool_work(r.pool) > 0)
                        ;
                if (i % 10 == 0) {
                        name(&r, ids[i * 7 % MANY]);
                        OK(pool_snapshot(r.pool, ids[i * 7 % MANY], r.id, &e));
                        look_all(&r);
                }
        }
        while (pool_work(r.pool) > 0)
                ;
        look_all(&r);
        rig_down(&r);
        free(ids);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(agrees_with_the_walk),
                cmocka_unit_test(many_layers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
