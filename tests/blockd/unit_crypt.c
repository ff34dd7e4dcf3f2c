/* Encrypted volumes over the local driver: against a model in memory, by threads that meet in one
 * sector; what is on disk; keys given, missing, wrong, erased. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "backend/volume/crypt/keyring.h"
#include "backend/volume/volume.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

enum { SIZE = 3 << 20, GROWN = 5 << 20, OPS = 600, MEMBERS = 3 };

static const char passphrase[] = "5f0c9ad8c1c54e3f9d7a1b2c3d4e5f60718293a4b5c6d7e8f9012345678a9bcd";

struct rig {
        char *dir, *state, *run;
        bool direct;
        struct volume_pool *pool;
        struct member_model {
                char id[VOLUME_ID_SIZE];
                struct volume *v;
                uint64_t size;
                uint8_t bytes[GROWN];
        } m[MEMBERS];
};

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                if (r_ != 0)                                                                       \
                        fail_msg("%s: %d %s", #call, r_, e ? err_msg(e) : "");                     \
        } while (0)

/* With words, and these. */
#define FAILS(code, words, call)                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                assert_int_equal(call, code);                                                      \
                if (!strstr(err_msg(e), words))                                                    \
                        fail_msg("'%s' does not say '%s'", err_msg(e), words);                     \
        } while (0)

static void pool_up(struct rig *r)
{
        const struct volume_pool_config c = {.state = r->state, .run = r->run, .direct = r->direct};

        OK(volume_pool_open(&volume_driver_local, &c, &r->pool, &e));
}

static void pool_down(struct rig *r)
{
        for (int i = 0; i < MEMBERS; i++)
                r->m[i].v = volume_close(r->m[i].v);
        r->pool = volume_pool_close(r->pool);
}

static int rig_new(void **state, bool direct)
{
        struct rig *r = calloc(1, sizeof(*r));
        const char *tmp = getenv("TMPDIR");

        r->dir = path_printf("%s/unit-crypt.XXXXXX", tmp ? tmp : "/tmp");
        assert_non_null(mkdtemp(r->dir));
        r->state = path_printf("%s/state", r->dir);
        r->run = path_printf("%s/run", r->dir);
        r->direct = direct;
        for (int i = 0; i < MEMBERS; i++)
                id_text(r->m[i].id, id_new());
        pool_up(r);
        *state = r;
        return 0;
}

static int rig_up(void **state)
{
        return rig_new(state, false);
}

static int rig_up_direct(void **state)
{
        return rig_new(state, true);
}

static int rig_down(void **state)
{
        struct rig *r = *state;

        for (int i = 0; i < MEMBERS; i++) {
                r->m[i].v = volume_close(r->m[i].v);
                volume_remove(r->pool, r->m[i].id, NULL); /* and its key leaves the keyring */
        }
        pool_down(r);
        remove_tree(r->dir, NULL);
        free(r->dir);
        free(r->state);
        free(r->run);
        free(r);
        return 0;
}

static struct volume *opened(struct rig *r, int i)
{
        if (!r->m[i].v)
                OK(volume_open(r->pool, r->m[i].id, false, &r->m[i].v, &e));
        return r->m[i].v;
}

static void first(struct rig *r)
{
        r->m[0].size = SIZE;
        OK(volume_create_encrypted(r->pool, r->m[0].id, SIZE, passphrase, &e));
}

static void compare(struct rig *r, int i)
{
        uint8_t *got = malloc(GROWN);

        assert_int_equal(volume_size(opened(r, i)), r->m[i].size);
        OK(volume_pread(opened(r, i), got, r->m[i].size, 0));
        for (uint64_t b = 0; b < r->m[i].size; b++)
                if (got[b] != r->m[i].bytes[b])
                        fail_msg("volume %d differs at %llu: %02x, not %02x", i,
                                 (unsigned long long)b, got[b], r->m[i].bytes[b]);
        free(got);
}

static void fill_random(uint8_t *p, size_t n)
{
        for (size_t i = 0; i < n; i++)
                p[i] = rand();
}

/* Small or large, aligned or not. */
static void range(uint64_t size, uint64_t *off, uint64_t *n)
{
        uint64_t unit = (const unsigned[]){1, 512, 4096}[rand() % 3];
        uint64_t most = (const unsigned[]){600, 9000, 2 << 20}[rand() % 3];

        *off = rand() % size / unit * unit;
        *n = (1 + rand() % most + unit - 1) / unit * unit;
        *n = MIN(*n, size - *off);
}

static void random_write(struct rig *r, int i, uint64_t off, uint64_t n)
{
        uint8_t *p = malloc(n);

        fill_random(p, n);
        OK(volume_pwrite(opened(r, i), p, n, off, rand() % 8 ? 0 : VOLUME_FUA));
        memcpy(r->m[i].bytes + off, p, n);
        free(p);
}

static void random_zero(struct rig *r, int i, uint64_t off, uint64_t n)
{
        const unsigned flags[] = {0, VOLUME_NO_HOLE, VOLUME_FUA, VOLUME_FAST};
        int ret = volume_zero(opened(r, i), n, off, flags[rand() % 4]);

        if (ret == 0)
                memset(r->m[i].bytes + off, 0, n);
        else
                assert_int_equal(ret, -ENOTSUP);
}

/* What was trimmed may read as zeros: it is zeroed, to know. */
static void random_trim(struct rig *r, int i, uint64_t off, uint64_t n)
{
        uint8_t *got = malloc(n + 1);

        OK(volume_trim(opened(r, i), n, off, 0));
        OK(volume_pread(opened(r, i), got, n, off));
        for (uint64_t b = 0; b < n; b++)
                assert_true(got[b] == 0 || got[b] == r->m[i].bytes[off + b]);
        memcpy(r->m[i].bytes + off, got, n);
        free(got);
}

/* Reads and writes that do not overlap, of all sizes. */
static void random_batch(struct rig *r, int i)
{
        enum { N = 100 };
        uint64_t slot = r->m[i].size / N / 512 * 512;
        struct volume_io io[N] = {};
        uint8_t *buf = malloc(N * slot);

        for (int k = 0; k < N; k++) {
                uint64_t skip = rand() % 3 ? 0 : rand() % (slot / 2);
                uint64_t at = k * slot + skip, most = rand() % 2 ? 4096 : slot;

                if (rand() % 2)
                        at = (at + 4095) / 4096 * 4096;
                io[k] = (struct volume_io){.op = rand() % 2 ? VOLUME_WRITE : VOLUME_READ,
                                           .p = buf + k * slot,
                                           .n = MIN((k + 1) * slot - at, most),
                                           .off = at};
                if (io[k].op == VOLUME_WRITE)
                        fill_random(io[k].p, io[k].n);
        }
        volume_run(opened(r, i), io, N);
        for (int k = 0; k < N; k++) {
                assert_int_equal(io[k].result, 0);
                if (io[k].op == VOLUME_READ)
                        assert_memory_equal(io[k].p, r->m[i].bytes + io[k].off, io[k].n);
                else
                        memcpy(r->m[i].bytes + io[k].off, io[k].p, io[k].n);
        }
        free(buf);
}

struct walk {
        const uint8_t *bytes;
        uint64_t at;
};

static int check_extent(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        struct walk *w = arg;

        assert_int_equal(off, w->at);
        w->at += len;
        for (uint64_t b = off; kind != VOLUME_DATA && b < off + len; b++)
                assert_int_equal(w->bytes[b], 0);
        return 0;
}

static void random_step(struct rig *r, int members)
{
        int i = rand() % members;
        struct walk w = {r->m[i].bytes, 0};
        uint64_t off, n;

        range(r->m[i].size, &off, &n);
        switch (rand() % 9) {
        case 0:
                random_zero(r, i, off, n);
                break;
        case 1:
                random_trim(r, i, off, n);
                break;
        case 2:
                random_batch(r, i);
                break;
        case 3: {
                uint8_t *got = malloc(n);

                OK(volume_pread(opened(r, i), got, n, off));
                assert_memory_equal(got, r->m[i].bytes + off, n);
                free(got);
                break;
        }
        case 4:
                OK(volume_extents(opened(r, i), r->m[i].size, 0, check_extent, &w));
                assert_int_equal(w.at, r->m[i].size);
                break;
        default:
                random_write(r, i, off, n);
        }
}

static void grow_family(struct rig *r)
{
        memcpy(r->m[1].bytes, r->m[0].bytes, GROWN);
        r->m[1].size = GROWN;
        OK(volume_clone(r->pool, r->m[1].id, r->m[0].id, GROWN, &e));
        memcpy(r->m[2].bytes, r->m[0].bytes, GROWN);
        r->m[2].size = SIZE;
        OK(volume_snapshot(r->pool, r->m[2].id, r->m[0].id, &e));
}

static void test_model(void **state)
{
        struct rig *r = *state;

        srand(1);
        first(r);
        for (int k = 0; k < OPS; k++)
                random_step(r, 1);
        compare(r, 0);
        grow_family(r);
        assert_true(volume_readonly(opened(r, 2)));
        for (int k = 0; k < OPS; k++) {
                random_step(r, 2);
                if (k % 200 == 0) {
                        pool_down(r);
                        pool_up(r);
                }
        }
        for (int i = 0; i < MEMBERS; i++)
                compare(r, i);
        /* Whatever goes first, the others stay. */
        r->m[0].v = volume_close(r->m[0].v);
        OK(volume_remove(r->pool, r->m[0].id, &e));
        pool_down(r);
        pool_up(r);
        compare(r, 1);
        compare(r, 2);
}

/* Whether a file below the folder has these bytes at a multiple of 16. */
static bool on_disk(const char *dir, const uint8_t pattern[16])
{
        _cleanup_free_ struct dirent **names = NULL;
        int n = scandir(dir, &names, NULL, NULL);
        bool found = false;

        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, names[i]->d_name);
                _cleanup_free_ char *text = NULL;
                struct stat st;
                size_t len = 0;

                if (names[i]->d_name[0] != '.' && lstat(path, &st) == 0) {
                        if (S_ISDIR(st.st_mode))
                                found |= on_disk(path, pattern);
                        else if (file_read(path, 64 << 20, &text, &len, NULL) == 0)
                                for (size_t at = 0; at + 16 <= len; at += 16)
                                        found |= memcmp(text + at, pattern, 16) == 0;
                }
                free(names[i]);
        }
        return found;
}

static void test_disk(void **state)
{
        static const uint8_t pattern[16] = "plain text here";
        struct rig *r = *state;
        uint8_t *p = malloc(SIZE);
        char plain[VOLUME_ID_SIZE];
        struct volume *v;

        for (int at = 0; at < SIZE; at += 16)
                memcpy(p + at, pattern, 16);
        first(r);
        OK(volume_pwrite(opened(r, 0), p, SIZE - 100, 16, 0));
        OK(volume_pwrite(opened(r, 0), p, 512, 512, VOLUME_FUA));
        OK(volume_flush(opened(r, 0)));
        OK(volume_snapshot(r->pool, r->m[2].id, r->m[0].id, &e));
        OK(volume_pwrite(opened(r, 0), p, 512, 1024, 0)); /* copies up */
        OK(volume_flush(opened(r, 0)));
        assert_false(on_disk(r->dir, pattern));
        /* That it would be found: */
        OK(volume_create(r->pool, id_text(plain, id_new()), SIZE, &e));
        OK(volume_open(r->pool, plain, false, &v, &e));
        OK(volume_pwrite(v, p, 512, 512, VOLUME_FUA));
        volume_close(v);
        assert_true(on_disk(r->dir, pattern));
        free(p);
}

/* Zeroing gives back what was written, and costs nothing where nothing was. */
static void test_thin(void **state)
{
        struct rig *r = *state;
        struct volume_info info;
        uint64_t full;

        first(r);
        OK(volume_stat(r->pool, r->m[0].id, &info, &e));
        assert_true(info.used < 64 << 10);
        random_write(r, 0, 0, SIZE);
        OK(volume_flush(opened(r, 0)));
        OK(volume_stat(r->pool, r->m[0].id, &info, &e));
        full = info.used;
        assert_true(full >= SIZE);
        OK(volume_trim(opened(r, 0), SIZE / 2, 0, 0));
        OK(volume_zero(opened(r, 0), SIZE / 4, SIZE / 2, 0));
        OK(volume_stat(r->pool, r->m[0].id, &info, &e));
        assert_true(info.used <= full / 4 + (64 << 10));
        memset(r->m[0].bytes, 0, SIZE / 4 * 3);
        compare(r, 0);
}

/* ---- threads ---- */

enum { THREADS = 6, ROUNDS = 300, SLOT = 600 };

struct worker {
        struct rig *r;
        int number;
        const char *failed;
};

/* Its own bytes in a sector that all write; two of them write whole sectors beside. */
static void *work(void *arg)
{
        struct worker *w = arg;
        struct volume *v;
        uint8_t mine[SLOT], got[SLOT], sector[4096];
        uint64_t off = 4096 + (uint64_t)w->number * SLOT; /* the last ones reach into the next */

        if (volume_open(w->r->pool, w->r->m[0].id, false, &v, NULL) < 0) {
                w->failed = "open";
                return NULL;
        }
        for (int i = 0; i < ROUNDS && !w->failed; i++) {
                memset(mine, w->number * 37 + i, SLOT);
                memset(sector, i, sizeof(sector));
                if (volume_pwrite(v, mine, SLOT, off, 0) < 0)
                        w->failed = "write";
                if (volume_pwrite(v, sector, 4096, (16 + w->number % 2) * 4096, 0) < 0)
                        w->failed = "write of a sector";
                if (volume_zero(v, 100, 18 * 4096 + w->number * 100, 0) < 0)
                        w->failed = "zero";
        }
        if (!w->failed && (volume_pread(v, got, SLOT, off) < 0 || memcmp(got, mine, SLOT) != 0))
                w->failed = "a write was lost";
        volume_close(v);
        return NULL;
}

static void test_threads(void **state)
{
        struct worker w[THREADS];
        pthread_t t[THREADS];
        struct rig *r = *state;

        first(r);
        for (int i = 0; i < THREADS; i++) {
                w[i] = (struct worker){.r = r, .number = i};
                assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
                pthread_join(t[i], NULL);
                if (w[i].failed)
                        fail_msg("thread %d: %s", i, w[i].failed);
        }
}

/* ---- keys ---- */

static void drop_key(struct rig *r, const char *family)
{
        _cleanup_free_ char *name = path_printf("stratofs:%s", family);

        keyring_drop(name);
}

static void test_keys(void **state)
{
        struct rig *r = *state;
        struct volume_info info;
        struct volume *v;

        first(r);
        random_write(r, 0, 0, SIZE);
        OK(volume_clone(r->pool, r->m[1].id, r->m[0].id, SIZE, &e));
        OK(volume_stat(r->pool, r->m[1].id, &info, &e));
        assert_string_equal(info.family, r->m[0].id);
        assert_false(info.locked);
        pool_down(r);
        drop_key(r, r->m[0].id);
        pool_up(r);
        OK(volume_stat(r->pool, r->m[1].id, &info, &e));
        assert_true(info.locked);
        FAILS(-ENOKEY, "has not been given", volume_open(r->pool, r->m[1].id, true, &v, &e));
        FAILS(-EKEYREJECTED, "not its key", volume_key(r->pool, r->m[1].id, "no", &e));
        FAILS(-ENOKEY, "has not been given", volume_open(r->pool, r->m[1].id, true, &v, &e));
        FAILS(-EINVAL, "passphrase", volume_key(r->pool, r->m[1].id, "", &e));
        OK(volume_key(r->pool, r->m[1].id, passphrase, &e));
        OK(volume_key(r->pool, r->m[0].id, passphrase, &e));
        compare(r, 0);
        FAILS(-EKEYREJECTED, "not its key", volume_key(r->pool, r->m[1].id, "no", &e));
        compare(r, 0);
}

static void test_refused(void **state)
{
        struct rig *r = *state;

        FAILS(-EINVAL, "4096",
              volume_create_encrypted(r->pool, r->m[0].id, SIZE + 512, passphrase, &e));
        OK(volume_create(r->pool, r->m[0].id, SIZE, &e));
        FAILS(-EEXIST, "not encrypted",
              volume_create_encrypted(r->pool, r->m[0].id, SIZE, passphrase, &e));
        FAILS(-EINVAL, "not encrypted", volume_key(r->pool, r->m[0].id, passphrase, &e));
        OK(volume_remove(r->pool, r->m[0].id, &e));
        FAILS(-ENOENT, "no such volume", volume_key(r->pool, r->m[0].id, passphrase, &e));
        first(r);
        first(r); /* may be repeated */
        FAILS(-EKEYREJECTED, "not its key",
              volume_create_encrypted(r->pool, r->m[0].id, SIZE, "other", &e));
        FAILS(-EEXIST, "encrypted", volume_create(r->pool, r->m[0].id, SIZE, &e));
        FAILS(-EINVAL, "4096", volume_resize(r->pool, r->m[0].id, SIZE + 512, &e));
        FAILS(-EINVAL, "4096", volume_clone(r->pool, r->m[1].id, r->m[0].id, SIZE + 512, &e));
        OK(volume_create(r->pool, r->m[1].id, SIZE, &e));
        FAILS(-EEXIST, "not encrypted", volume_clone(r->pool, r->m[1].id, r->m[0].id, SIZE, &e));
        opened(r, 0);
        FAILS(-EBUSY, "in use", volume_remove(r->pool, r->m[0].id, &e));
        compare(r, 0); /* it is still there, and still encrypted */
        pool_down(r);
        pool_up(r);
        compare(r, 0);
}

static void test_erase(void **state)
{
        struct rig *r = *state;
        _cleanup_free_ char *header = path_printf("%s/crypt/%s/header", r->state, r->m[0].id);
        _cleanup_free_ char *copy = path_printf("%s/header", r->dir);
        _cleanup_free_ char *name = path_printf("stratofs:%s", r->m[0].id);
        _cleanup_free_ char *left = NULL;
        char secret[128];
        size_t n;

        first(r);
        grow_family(r);
        assert_int_equal(link(header, copy), 0);
        OK(volume_remove(r->pool, r->m[0].id, &e));
        OK(volume_remove(r->pool, r->m[2].id, &e));
        assert_int_equal(access(header, F_OK), 0);
        compare(r, 1);
        r->m[1].v = volume_close(r->m[1].v);
        OK(volume_remove(r->pool, r->m[1].id, &e));
        OK(volume_remove(r->pool, r->m[1].id, &e));
        assert_int_equal(access(header, F_OK), -1);
        /* Who had it open, or finds its blocks, finds noise. */
        OK(file_read(copy, 16 << 20, &left, &n, &e));
        assert_true(n > 256 << 10);
        assert_null(memmem(left, n, "LUKS\xba\xbe", 6));
        assert_null(memmem(left, n, "pbkdf2", 6));
        assert_int_equal(keyring_get(name, secret, sizeof(secret)), -ENOKEY);
        first(r); /* the id is free, with a new key */
        compare(r, 0);
}

/* A call that a crash cut off is undone or finished at the next start. */
static void test_cut_off(void **state)
{
        struct rig *r = *state;
        _cleanup_free_ char *m = path_printf("%s/crypt/%s/m.%s", r->state, r->m[0].id, r->m[0].id);
        _cleanup_free_ char *c = path_printf("%s/crypt/%s/c.%s", r->state, r->m[0].id, r->m[0].id);
        _cleanup_free_ char *gone =
                path_printf("%s/crypt/%s/c.%s", r->state, r->m[0].id, r->m[1].id);
        _cleanup_free_ char *rm = path_printf("%s/crypt/%s/r.%s", r->state, r->m[0].id, r->m[0].id);
        _cleanup_free_ char *dir = path_printf("%s/crypt/%s", r->state, r->m[0].id);
        struct volume_info info;

        first(r);
        random_write(r, 0, 0, SIZE);
        pool_down(r);
        assert_int_equal(rename(m, c), 0);
        OK(file_replace(gone, "", 0, 0600, &e));
        pool_up(r);
        compare(r, 0); /* made, and not said */
        assert_int_equal(access(m, F_OK), 0);
        assert_int_equal(access(gone, F_OK), -1); /* never made */
        pool_down(r);
        assert_int_equal(rename(m, rm), 0);
        pool_up(r);
        assert_int_equal(volume_stat(r->pool, r->m[0].id, &info, NULL), -ENOENT);
        assert_int_equal(access(dir, F_OK), -1);
        /* A member that cannot be found keeps its key: it may only be that it could not be read. */
        memset(r->m[0].bytes, 0, SIZE);
        first(r);
        pool_down(r);
        {
                _cleanup_free_ char *at = path_printf("%s/pool/%s", r->state, r->m[0].id);
                _cleanup_free_ char *away = path_printf("%s/away", r->dir);

                assert_int_equal(rename(at, away), 0);
                pool_up(r);
                pool_down(r);
                assert_int_equal(access(m, F_OK), 0);
                assert_int_equal(rename(away, at), 0);
        }
        pool_up(r);
        compare(r, 0);
}

static int changed_one(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        if (kind == VOLUME_DATA)
                *(uint64_t *)arg += len;
        return 0;
}

static void test_changes(void **state)
{
        struct rig *r = *state;
        struct volume_changes *c;
        uint64_t n = 0;

        first(r);
        random_write(r, 0, 0, SIZE);
        OK(volume_snapshot(r->pool, r->m[2].id, r->m[0].id, &e));
        random_write(r, 0, 5 * 4096 + 100, 5000);
        OK(volume_changes_open(opened(r, 0), r->m[2].id, &c, &e));
        OK(volume_changes_walk(c, SIZE, 0, changed_one, &n));
        volume_changes_close(c);
        assert_int_equal(n, 2 * 4096);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)
        const struct CMUnitTest tests[] = {
                TEST(test_model),
                cmocka_unit_test_setup_teardown(test_model, rig_up_direct, rig_down),
                TEST(test_disk),
                TEST(test_thin),
                TEST(test_threads),
                TEST(test_keys),
                TEST(test_refused),
                TEST(test_erase),
                TEST(test_cut_off),
                TEST(test_changes),
        };

        fault_init();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
