/* Background work and changes of metadata that fail half-way: nothing may be lost by that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "backend/volume/volume.h"
#include "common/fault.h"
#include "common/fileio.h"

enum { BLOCK = 4096, MIB = 1 << 20 };

#define A "00000000-0000-4000-8000-00000000000a"
#define B "00000000-0000-4000-8000-00000000000b"

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != 0)                                                                       \
                        fail_msg("%s: %d %s\n", #call, r_, e ? err_msg(e) : "");                   \
        } while (0)

struct rig {
        char *dir, *state, *run;
        struct volume_pool *pool;
};

static void pool_up(struct rig *r)
{
        const struct volume_pool_config c = {.state = r->state, .run = r->run};

        OK(volume_pool_open(&volume_driver_local, &c, &r->pool, &e));
}

static int rig_up(void **state)
{
        struct rig *r = calloc(1, sizeof(*r));
        const char *tmp = getenv("TMPDIR");

        r->dir = path_printf("%s/unit-merge-fault.XXXXXX", tmp ? tmp : "/tmp");
        assert_non_null(mkdtemp(r->dir));
        r->state = path_printf("%s/state", r->dir);
        r->run = path_printf("%s/run", r->dir);
        pool_up(r);
        *state = r;
        return 0;
}

static int rig_down(void **state)
{
        struct rig *r = *state;

        fault_set("");
        volume_pool_close(r->pool);
        remove_tree(r->dir, NULL);
        free(r->dir);
        free(r->state);
        free(r->run);
        free(r);
        return 0;
}

static void put(struct rig *r, const char *id, uint64_t off, uint8_t byte)
{
        struct volume *v;
        uint8_t b[BLOCK];

        memset(b, byte, BLOCK);
        OK(volume_open(r->pool, id, false, &v, &e));
        OK(volume_pwrite(v, b, BLOCK, off, 0));
        OK(volume_flush(v));
        volume_close(v);
}

static void is(struct rig *r, const char *id, uint64_t off, uint8_t byte)
{
        uint8_t got[BLOCK], want[BLOCK];
        struct volume *v;

        memset(want, byte, BLOCK);
        OK(volume_open(r->pool, id, true, &v, &e));
        OK(volume_pread(v, got, BLOCK, off));
        volume_close(v);
        assert_memory_equal(got, want, BLOCK);
}

static void all_work(struct rig *r)
{
        while (volume_pool_work(r->pool) > 0)
                ;
}

/* A descriptor hears of lost writes once: a flattening that heard of it must not go on. */
static void flatten_hears_of_lost_writes(void **state)
{
        const uint64_t size = 300ULL * MIB;
        struct volume_info info;
        struct rig *r = *state;

        OK(volume_create(r->pool, A, size, &e));
        put(r, A, 0, 1);
        put(r, A, size - BLOCK, 2);
        OK(volume_clone(r->pool, B, A, size, &e));
        OK(volume_flatten(r->pool, B, false, &e));
        OK(fault_set("volume.merge.sync=EIO:1"));
        all_work(r);
        OK(volume_stat(r->pool, B, &info, &e));
        assert_int_equal(info.flatten_failed, -EIO);
        assert_true(info.flattening);
        is(r, B, 0, 1);
        is(r, B, size - BLOCK, 2);
}

static void fill(struct rig *r, const char *id, uint64_t size)
{
        uint8_t b[BLOCK];
        struct volume *v;

        OK(volume_open(r->pool, id, false, &v, &e));
        for (uint64_t off = 0; off < size; off += BLOCK) {
                memset(b, off / BLOCK % 255 + 1, BLOCK);
                OK(volume_pwrite(v, b, BLOCK, off, 0));
        }
        OK(volume_flush(v));
        volume_close(v);
}

static void is_filled(struct rig *r, const char *id, uint64_t size)
{
        for (uint64_t off = 0; off < size; off += BLOCK)
                is(r, id, off, off / BLOCK % 255 + 1);
}

/* Who flattens into a full pool, or cancels, does not leave it fuller. */
static void flatten_gives_room_back(void **state)
{
        const uint64_t size = 8ULL * MIB;
        struct volume_info info;
        struct rig *r = *state;

        OK(volume_create(r->pool, A, size, &e));
        fill(r, A, size);
        OK(volume_clone(r->pool, B, A, size, &e));
        put(r, B, MIB, 1);
        OK(volume_flatten(r->pool, B, false, &e));
        OK(fault_set("volume.merge.copy=ENOSPC:3"));
        all_work(r);
        OK(volume_stat(r->pool, B, &info, &e));
        assert_int_equal(info.flatten_failed, -ENOSPC);
        assert_true(info.used < MIB);
        OK(volume_flatten(r->pool, B, false, &e));
        do {
                assert_int_equal(volume_pool_work(r->pool), 1);
                OK(volume_stat(r->pool, B, &info, &e));
        } while (info.used < MIB);
        OK(volume_flatten(r->pool, B, true, &e));
        all_work(r);
        OK(volume_stat(r->pool, B, &info, &e));
        assert_true(info.used < MIB && !info.flattening);
        OK(volume_flatten(r->pool, B, false, &e));
        all_work(r);
        OK(volume_stat(r->pool, B, &info, &e));
        assert_true(!info.flattening && info.used >= size);
        is(r, B, MIB, 1);
        put(r, B, MIB, MIB / BLOCK % 255 + 1);
        is_filled(r, B, size);
}

/* A volume that a guest has open, with a layer on the one that is flattened. */
static void flatten_begun_anew(void **state)
{
        struct volume_info info;
        struct rig *r = *state;
        struct volume *v;

        OK(volume_create(r->pool, A, MIB, &e));
        fill(r, A, MIB);
        OK(volume_clone(r->pool, B, A, MIB, &e));
        put(r, B, 0, 7);
        OK(volume_open(r->pool, B, false, &v, &e));
        OK(volume_flatten(r->pool, B, false, &e));
        assert_int_equal(volume_pool_work(r->pool), 1);
        assert_int_equal(volume_pool_work(r->pool), 1);
        OK(volume_flatten(r->pool, B, true, &e));
        assert_int_equal(volume_pool_work(r->pool), 1);
        OK(volume_flatten(r->pool, B, false, &e));
        for (int i = 0; i < 1000 && volume_pool_work(r->pool) > 0; i++)
                ;
        OK(volume_stat(r->pool, B, &info, &e));
        assert_false(info.flattening);
        volume_close(v);
        is(r, B, 0, 7);
        is(r, B, BLOCK, 2);
}

#define S "00000000-0000-4000-8000-00000000000c"

/* Two frozen layers with as much data, and a top. */
static void make_layers(struct rig *r, uint64_t size)
{
        OK(volume_create(r->pool, A, size, &e));
        fill(r, A, size);
        OK(volume_snapshot(r->pool, B, A, &e));
        fill(r, A, size);
        put(r, A, 2ULL * MIB, 78);
        OK(volume_snapshot(r->pool, S, A, &e));
        put(r, A, 0, 1);
        OK(volume_remove(r->pool, S, &e));
        OK(volume_remove(r->pool, B, &e));
}

/* A volume of the same name and form is not the one whose layers are being merged. */
static void made_anew(void **state)
{
        const uint64_t size = 8ULL * MIB;
        struct rig *r = *state;

        make_layers(r, size);
        for (int i = 0; i < 2; i++)
                assert_int_equal(volume_pool_work(r->pool), 1);
        OK(volume_remove(r->pool, A, &e));
        make_layers(r, size);
        put(r, A, MIB, 77);
        all_work(r);
        is(r, A, 0, 1);
        is(r, A, MIB, 77);
        is(r, A, 2ULL * MIB, 78);
        put(r, A, MIB, MIB / BLOCK % 255 + 1);
        put(r, A, 2ULL * MIB, 2 * MIB / BLOCK % 255 + 1);
        is_filled(r, A, size);
}

/* As after kill -9: nothing is flushed, the live maps stay. */
static void again(struct rig *r)
{
        volume_pool_abandon(r->pool, true);
        r->pool = volume_pool_close(r->pool);
        pool_up(r);
}

static void killed_writing(struct rig *r, const char *id, uint8_t byte)
{
        struct volume *v;
        uint8_t b[BLOCK];

        memset(b, byte, BLOCK);
        OK(volume_open(r->pool, id, false, &v, &e));
        OK(volume_pwrite(v, b, BLOCK, 0, 0));
        volume_pool_abandon(r->pool, true);
        volume_close(v);
        again(r);
        is(r, id, 0, byte);
}

/* The metadata is there, only not for sure: what was refused must not come true at the next start,
 * on top of what was written since. */
static void refused_stays_refused(void **state)
{
        struct rig *r = *state;

        OK(volume_create(r->pool, A, MIB, &e));
        put(r, A, 0, 1);
        OK(volume_snapshot(r->pool, B, A, &e));
        put(r, A, 0, 2);
        OK(fault_set("volume.meta=EIO:1"));
        assert_int_equal(volume_revert(r->pool, A, B, NULL), -EIO);
        is(r, A, 0, 2);
        killed_writing(r, A, 3);
        OK(fault_set("volume.meta=EIO:1"));
        assert_int_equal(volume_shrink(r->pool, A, MIB / 2, NULL), -EIO);
        killed_writing(r, A, 4);
        is(r, A, MIB - BLOCK, 0);
}

static void merge_that_failed_has_not_happened(void **state)
{
        static const char *const points[] = {"volume.meta=EIO:1", "volume.merged=EIO:1"};
        struct rig *r = *state;

        for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
                uint8_t byte = 10 * (i + 1);

                if (i == 0)
                        OK(volume_create(r->pool, A, MIB, &e));
                put(r, A, 0, byte);
                put(r, A, BLOCK, byte + 1);
                OK(volume_snapshot(r->pool, B, A, &e));
                put(r, A, 0, byte + 2);
                OK(volume_remove(r->pool, B, &e));
                OK(fault_set(points[i]));
                all_work(r);
                killed_writing(r, A, byte + 3);
                is(r, A, BLOCK, byte + 1);
                all_work(r);
                is(r, A, 0, byte + 3);
                is(r, A, BLOCK, byte + 1);
        }
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(flatten_hears_of_lost_writes),
                T(flatten_gives_room_back),
                T(flatten_begun_anew),
                T(made_anew),
                T(refused_stays_refused),
                T(merge_that_failed_has_not_happened),
        };

        setenv("STRATOFS_FAULT", "", 1);
        fault_init();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
