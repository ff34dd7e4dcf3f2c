/* Batches of I/O on the local driver, against a model in memory: through the page cache and past
 * it, with io_uring and without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>

#include "backend/volume/local/local.h"
#include "backend/volume/volume.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

enum { SIZE = (3 << 20) + 512, BATCH = 150, ROUNDS = 60 };

struct mode {
        bool direct;
        const char *fault;
};
static const struct mode modes[] = {
        {.fault = ""},
        {.fault = "volume.ring=EIO"},
        {.direct = true, .fault = ""},
        {.direct = true, .fault = "volume.ring=EIO"},
};

struct rig {
        char *dir, *state, *run;
        const struct mode *mode;
        struct volume_pool *pool;
        char id[VOLUME_ID_SIZE];
        struct volume *v;
        uint8_t model[SIZE];
};

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != 0)                                                                       \
                        fail_msg("%s: %d %s", #call, r_, e ? err_msg(e) : "");                     \
        } while (0)

static void pool_up(struct rig *r)
{
        const struct volume_pool_config c = {
                .state = r->state, .run = r->run, .direct = r->mode->direct};

        OK(fault_set(r->mode->fault));
        OK(volume_pool_open(&volume_driver_local, &c, &r->pool, &e));
}

static void pool_down(struct rig *r)
{
        r->v = volume_close(r->v);
        r->pool = volume_pool_close(r->pool);
}

static void rig_up(struct rig *r, const struct mode *mode)
{
        const char *tmp = getenv("TMPDIR");

        *r = (struct rig){.mode = mode};
        r->dir = path_printf("%s/unit-run.XXXXXX", tmp ? tmp : "/tmp");
        assert_non_null(mkdtemp(r->dir));
        r->state = path_printf("%s/state", r->dir);
        r->run = path_printf("%s/run", r->dir);
        pool_up(r);
}

static void rig_down(struct rig *r)
{
        pool_down(r);
        assert_int_equal(local_check(r->state, false, stderr, NULL), 0);
        OK(fault_set(""));
        remove_tree(r->dir, NULL);
        free(r->dir);
        free(r->state);
        free(r->run);
        free(r);
}

static int forget_file(const char *path, const struct stat *st _unused_, int type,
                       struct FTW *w _unused_)
{
        int fd = type == FTW_F ? open(path, O_RDONLY) : -1;

        if (fd >= 0) {
                fdatasync(fd);
                posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
                close(fd);
        }
        return 0;
}

/* Reads must wait again. */
static void forget_cache(struct rig *r)
{
        _cleanup_free_ char *pool = path_printf("%s/pool", r->state);

        nftw(pool, forget_file, 8, FTW_PHYS);
}

static void fresh_id(char *ret)
{
        char text[ID_TEXT_SIZE];

        strcpy(ret, id_text(text, id_new()));
}

static void fill(uint8_t *p, size_t n)
{
        uint8_t x = 1 + random() % 250;

        for (size_t i = 0; i < n; i++)
                p[i] = x + i % 5;
}

/* 1 to max, and at most limit. */
static uint64_t up_to(uint64_t max, uint64_t limit)
{
        uint64_t n = 1 + random() % max;

        return MIN(n, limit);
}

/* A volume with data and holes in `layers` layers, none of which holds everything. */
static void make_layers(struct rig *r, int layers)
{
        uint64_t size = SIZE - layers * 512;

        fresh_id(r->id);
        OK(volume_create(r->pool, r->id, size, &e));
        for (int l = 0;; l++) {
                OK(volume_open(r->pool, r->id, false, &r->v, &e));
                for (int i = 0; i < 12; i++) {
                        uint64_t off = random() % size, n = up_to(100000, size - off);

                        fill(r->model + off, n);
                        OK(volume_pwrite(r->v, r->model + off, n, off, 0));
                        off = random() % size / 4096 * 4096;
                        n = MIN(UINT64_C(65536), size - off);
                        OK(volume_zero(r->v, n, off, 0));
                        memset(r->model + off, 0, n);
                }
                if (l == layers)
                        break;
                char from[VOLUME_ID_SIZE];

                r->v = volume_close(r->v);
                strcpy(from, r->id);
                fresh_id(r->id);
                size += 512;
                OK(volume_clone(r->pool, r->id, from, size, &e));
        }
        assert_int_equal(size, SIZE);
}

static uint64_t cut(void)
{
        return random() % SIZE / (uint64_t[]){1, 512, 4096, 4096}[random() % 4] * 4096 % SIZE;
}

static int by_value(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

/* Cuts the volume at random and reads or writes a part of each piece: no two meet in a byte, many
 * in a block. */
static size_t make_batch(struct volume_io *io, uint8_t *memory)
{
        size_t n = 1 + random() % (random() % 4 ? 12 : BATCH), used = 0;
        uint64_t at[BATCH + 1];

        for (size_t i = 0; i < n; i++)
                at[i] = random() % 2 ? cut() : (uint64_t)random() % SIZE;
        at[n] = SIZE;
        qsort(at, n, sizeof(at[0]), by_value);
        for (size_t i = 0; i < n; i++) {
                uint64_t off = at[i], len = at[i + 1] - at[i];

                if (random() % 3 && off / 4096 * 4096 + 8192 <= at[i + 1]) {
                        off = (off + 4095) / 4096 * 4096;
                        len = at[i + 1] - off;
                        len = up_to(40, len / 4096) * 4096;
                }
                io[i] = (struct volume_io){.op = random() % 2 ? VOLUME_READ : VOLUME_WRITE,
                                           .p = memory + off +
                                                (random() % 4 ? 0 : 1 + random() % 9),
                                           .n = len,
                                           .off = off,
                                           .result = 77};
                if (io[i].op == VOLUME_WRITE) {
                        fill(io[i].p, len);
                        io[i].flags = random() % 10 ? 0 : VOLUME_FUA;
                }
                /* Memory is laid out as the volume is, with room for the shift. */
                memory += 16384;
                used++;
        }
        return used;
}

static void check_batch(struct rig *r, const struct volume_io *io, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                assert_int_equal(io[i].result, 0);
                if (io[i].op == VOLUME_WRITE)
                        memcpy(r->model + io[i].off, io[i].p, io[i].n);
                else if (memcmp(r->model + io[i].off, io[i].p, io[i].n) != 0)
                        fail_msg("read of %zu at %llu differs", io[i].n,
                                 (unsigned long long)io[i].off);
        }
}

static void check_all(struct rig *r)
{
        uint8_t *got = malloc(SIZE);

        OK(volume_pread(r->v, got, SIZE, 0));
        assert_memory_equal(got, r->model, SIZE);
        free(got);
}

static void run_batches(struct rig *r)
{
        uint8_t *memory = aligned_alloc(4096, (SIZE + 16384 * (BATCH + 2)) / 4096 * 4096);
        struct volume_io io[BATCH];

        for (int round = 0; round < ROUNDS; round++) {
                size_t n = make_batch(io, memory);

                volume_run(r->v, io, n);
                check_batch(r, io, n);
                if (random() % 4 == 0)
                        forget_cache(r);
                if (random() % 16 == 0)
                        OK(volume_flush(r->v));
                if (random() % 32 == 0) {
                        pool_down(r);
                        pool_up(r);
                        OK(volume_open(r->pool, r->id, false, &r->v, &e));
                }
        }
        check_all(r);
        free(memory);
}

static void batches_match_the_model(void **state _unused_)
{
        for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
                for (int layers = 0; layers < 4; layers++) {
                        struct rig *r = calloc(1, sizeof(*r));

                        srandom(layers);
                        rig_up(r, &modes[i]);
                        make_layers(r, layers);
                        assert_int_equal(volume_alignment(r->v), modes[i].direct ? 4096 : 1);
                        run_batches(r);
                        rig_down(r);
                }
}

static void each_is_checked(void **state _unused_)
{
        struct rig *r = calloc(1, sizeof(*r));
        uint8_t buf[8192];
        struct volume_io io[] = {
                {.op = VOLUME_READ, .p = buf, .n = 1, .off = SIZE},
                {.op = VOLUME_WRITE, .p = buf, .n = 2, .off = SIZE - 1},
                {.op = VOLUME_READ, .p = buf, .n = 4096, .off = SIZE - 4096},
                {.op = VOLUME_WRITE, .flags = VOLUME_NO_HOLE, .p = buf, .n = 1},
                {.op = VOLUME_READ, .p = buf, .n = 0, .off = SIZE},
                {.op = VOLUME_READ, .p = buf, .n = 1, .off = UINT64_MAX},
                {.op = VOLUME_READ, .p = buf, .n = VOLUME_IO_MAX + 1, .off = 0},
        };
        const int want[] = {-EINVAL, -ENOSPC, 0, -EINVAL, 0, -EINVAL, -EINVAL};
        struct volume *reader;

        rig_up(r, &modes[0]);
        make_layers(r, 1);
        volume_run(r->v, io, ARRAY_SIZE(io));
        for (size_t i = 0; i < ARRAY_SIZE(io); i++)
                assert_int_equal(io[i].result, want[i]);
        assert_memory_equal(buf, r->model + SIZE - 4096, 4096);
        volume_run(r->v, io, 0);
        OK(volume_open(r->pool, r->id, true, &reader, &e));
        io[1].off = 0;
        volume_run(reader, io, 3);
        assert_int_equal(io[1].result, -EROFS);
        assert_int_equal(io[2].result, 0);
        volume_close(reader);
        rig_down(r);
}

/* What is lent is what is read. */
static void lent_bytes_are_the_volumes(void **state _unused_)
{
        struct rig *r = calloc(1, sizeof(*r));
        uint64_t lent = 0, not_lent = 0, off = 0;

        srandom(5);
        rig_up(r, &modes[0]);
        make_layers(r, 3);
        while (off < SIZE) {
                uint64_t n = up_to(100000, SIZE - off);
                struct volume_file f = {};
                uint8_t got[100000];
                int k = volume_lend(r->v, n, off, &f);

                if (k == 0) {
                        not_lent++;
                        off += 1 + random() % 4096;
                        continue;
                }
                lent++;
                assert_int_equal(k, 1);
                assert_in_range(f.len, 1, n);
                OK(pread_full(f.fd, got, f.len, f.off));
                assert_memory_equal(got, r->model + off, f.len);
                off += f.len;
                volume_return(r->v, &f);
        }
        assert_true(lent > 10 && not_lent > 10);
        assert_int_equal(volume_lend(r->v, 1, SIZE, &(struct volume_file){}), -EINVAL);
        rig_down(r);
        r = calloc(1, sizeof(*r));
        rig_up(r, &modes[2]);
        make_layers(r, 0);
        OK(volume_pwrite(r->v, "x", 1, 0, 0));
        assert_int_equal(volume_lend(r->v, 1, 0, &(struct volume_file){}), 0);
        rig_down(r);
}

/* A base whose file is shorter than its volume. */
static void past_the_files_end_are_zeros(void **state _unused_)
{
        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
                struct rig *r = calloc(1, sizeof(*r));
                _cleanup_free_ char *path = NULL;
                uint8_t *buf = aligned_alloc(4096, 16384);
                struct volume_io io[] = {
                        {.op = VOLUME_READ, .p = buf, .n = 4096},
                        {.op = VOLUME_READ, .p = buf + 4096, .n = 4096, .off = 4096},
                        {.op = VOLUME_READ, .p = buf + 8192, .n = 8192},
                };
                struct volume_file f;
                char base[VOLUME_ID_SIZE];

                rig_up(r, &modes[i]);
                fresh_id(base);
                fresh_id(r->id);
                path = path_printf("%s/raw", r->dir);
                OK(file_replace(path, "hello", 5, 0644, &e));
                OK(volume_import(r->pool, base, path, &e));
                OK(volume_clone(r->pool, r->id, base, 8192, &e));
                OK(volume_open(r->pool, r->id, false, &r->v, &e));
                memset(buf, 1, 16384);
                volume_run(r->v, io, ARRAY_SIZE(io));
                for (size_t j = 0; j < ARRAY_SIZE(io); j++)
                        assert_int_equal(io[j].result, 0);
                assert_memory_equal(buf, "hello\0\0", 8);
                assert_memory_equal(buf + 8192, buf, 8192);
                for (int j = 5; j < 8192; j++)
                        assert_int_equal(buf[j], 0);
                if (!modes[i].direct) {
                        assert_int_equal(volume_lend(r->v, 4096, 0, &f), 1);
                        assert_int_equal(f.len, 5);
                        volume_return(r->v, &f);
                        assert_int_equal(volume_lend(r->v, 100, 5, &f), 0);
                }
                free(buf);
                rig_down(r);
        }
}

static int write_fua(struct rig *r, uint64_t off, size_t count)
{
        static uint8_t buf[4096] __attribute__((aligned(4096)));
        struct volume_io io[16];
        int worst = 0;

        for (size_t i = 0; i < count; i++)
                io[i] = (struct volume_io){VOLUME_WRITE, VOLUME_FUA, buf, 4096, off + i * 4096, 77};
        volume_run(r->v, io, count);
        for (size_t i = 0; i < count; i++)
                worst = MIN(worst, io[i].result);
        return worst;
}

/* A write that must be durable waits for the map's log only where the map changes, and a sync that
 * fails is remembered either way. */
static void durable_writes(void **state _unused_)
{
        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
                struct rig *r = calloc(1, sizeof(*r));

                rig_up(r, &modes[i]);
                make_layers(r, 1);
                OK(volume_zero(r->v, 1 << 20, 0, 0));
                OK(volume_flush(r->v));
                OK(fault_set("volume.maplog=ENOSPC:1"));
                assert_int_equal(write_fua(r, 8192, 2), -ENOSPC);
                assert_int_equal(write_fua(r, 8192, 2), 0);
                OK(fault_set("volume.maplog=ENOSPC"));
                assert_int_equal(write_fua(r, 8192, 2), 0);
                OK(fault_set("volume.maplog=ENOSPC:1"));
                assert_int_equal(write_fua(r, 8192, 3), -ENOSPC); /* the third is new */
                assert_int_equal(write_fua(r, 8192, 16), 0);
                assert_int_equal(write_fua(r, 8192, 16), 0);
                OK(fault_set("volume.sync=ENOSPC:1"));
                assert_int_equal(write_fua(r, 8192, 1), -ENOSPC);
                assert_int_equal(write_fua(r, 8192, 1), 0);
                OK(fault_set("volume.sync=ENODATA:1")); /* a bad sector, say */
                assert_int_equal(write_fua(r, 8192, 1), -ENODATA);
                assert_int_equal(write_fua(r, 8192, 1), -EIO);
                assert_int_equal(volume_flush(r->v), -EIO);
                pool_down(r);
                assert_int_equal(local_check(r->state, true, stderr, NULL), 0);
                pool_up(r);
                rig_down(r);
        }
}

enum { THREADS = 4, CELL = 8192, CELLS = SIZE / CELL };

struct writer {
        struct rig *r;
        int me;
        bool *stop;
        unsigned batches;
};

/* Cell c belongs to thread c % THREADS: it is written whole with one value, and read back. */
static void *write_cells(void *arg) /* NULL, or itself when something was wrong */
{
        struct writer *w = arg;
        uint8_t *memory = aligned_alloc(4096, 2 * 32 * CELL), *back = memory + 32 * CELL;
        uint8_t value[CELLS] = {};
        unsigned seed = w->me;
        void *ret = NULL;

        for (; !ret && !__atomic_load_n(w->stop, __ATOMIC_RELAXED); w->batches++) {
                struct volume_io io[32];
                size_t n = 0;

                for (int k = 0; k < 16; k++) {
                        int c = (rand_r(&seed) % (CELLS / THREADS)) / 16 * 16 + k;

                        c = c * THREADS % (CELLS / THREADS * THREADS) + w->me;
                        if (n > 0 && io[n - 1].off >= (uint64_t)c * CELL)
                                continue;
                        io[n] = (struct volume_io){.op = rand_r(&seed) % 2, .n = CELL};
                        io[n].off = (uint64_t)c * CELL;
                        io[n].p = (io[n].op == VOLUME_WRITE ? memory : back) + n * CELL;
                        if (io[n].op == VOLUME_WRITE)
                                memset(io[n].p, ++value[c], CELL);
                        n++;
                }
                volume_run(w->r->v, io, n);
                for (size_t i = 0; i < n; i++) {
                        uint8_t want = value[io[i].off / CELL], *p = io[i].p;

                        if (io[i].result != 0 || p[0] != want || memcmp(p, p + 1, CELL - 1) != 0)
                                ret = w;
                }
        }
        free(memory);
        return ret;
}

/* Every cell of a clone is one write's, whole. */
static void check_cells(struct rig *r, const char *id)
{
        uint8_t *got = malloc(SIZE);
        struct volume *v;

        OK(volume_open(r->pool, id, false, &v, &e));
        OK(volume_pread(v, got, SIZE, 0));
        for (int c = 0; c < CELLS; c++)
                assert_memory_equal(got + c * CELL, got + c * CELL + 1, CELL - 1);
        volume_close(v);
        free(got);
}

static void clones_while_batches_run(void **state _unused_)
{
        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
                struct rig *r = calloc(1, sizeof(*r));
                struct writer w[THREADS];
                pthread_t t[THREADS];
                bool stop = false;

                rig_up(r, &modes[i]);
                fresh_id(r->id);
                OK(volume_create(r->pool, r->id, SIZE, &e));
                OK(volume_open(r->pool, r->id, false, &r->v, &e));
                for (int k = 0; k < THREADS; k++) {
                        w[k] = (struct writer){.r = r, .me = k, .stop = &stop};
                        assert_int_equal(pthread_create(&t[k], NULL, write_cells, &w[k]), 0);
                }
                for (int k = 0; k < 12; k++) {
                        char id[VOLUME_ID_SIZE];

                        fresh_id(id);
                        OK(volume_clone(r->pool, id, r->id, SIZE, &e));
                        check_cells(r, id);
                        forget_cache(r);
                }
                __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
                for (int k = 0; k < THREADS; k++) {
                        void *wrong;

                        pthread_join(t[k], &wrong);
                        assert_null(wrong);
                        assert_true(w[k].batches > 0);
                }
                rig_down(r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(batches_match_the_model),
                cmocka_unit_test(each_is_checked),
                cmocka_unit_test(lent_bytes_are_the_volumes),
                cmocka_unit_test(past_the_files_end_are_zeros),
                cmocka_unit_test(durable_writes),
                cmocka_unit_test(clones_while_batches_run),
        };

        setenv("STRATOFS_FAULT", "", 1); /* armed, for fault_set() */
        fault_init();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
