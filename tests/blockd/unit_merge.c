/* Revert, shrink, flatten and the merging of layers, against a model in memory: a family of
 * volumes, snapshots and clones, with a step of the background work between any two calls, kill -9
 * at the fault points, and guests that read and write meanwhile. */
enum { VOLUMES = 10, BLOCK = 4096, BLOCKS = 80, BYTES = BLOCKS * BLOCK };

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "common/fault.h"
#include "unit_rig.h"

/* AddressSanitizer makes each opening of a layer ten times as long: a few rounds must do. */
#ifdef __SANITIZE_ADDRESS__
#define ROUNDS(n) ((n) / 8 + 1)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ROUNDS(n) ((n) / 8 + 1)
#endif
#endif
#ifndef ROUNDS
#define ROUNDS(n) (n)
#endif

/* Shared with the child that will be killed. */
struct family {
        struct model v[VOLUMES];
        struct model next; /* what the call under way makes of v[calling] */
        int calling;       /* -1: none */
};

static int rig_up(void **state)
{
        struct rig *r = rig_new(sizeof(struct family));

        r->f->calling = -1;
        *state = r;
        return 0;
}

static bool is(struct rig *r, int i, const struct model *m)
{
        static uint8_t got[BYTES];

        if (volume_size(handle(r, i)) != m->size)
                return false;
        OK(volume_pread(handle(r, i), got, m->size, 0));
        return memcmp(got, m->bytes, m->size) == 0;
}

/* ---- calls; each becomes so at once or not at all ---- */

static struct model *begin(struct rig *r, int i)
{
        r->f->next = r->f->v[i];
        r->f->calling = i;
        return &r->f->next;
}

static void done(struct rig *r)
{
        r->f->v[r->f->calling] = r->f->next;
        r->f->calling = -1;
}

static void op_write(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        static uint8_t buf[BYTES];
        uint64_t off, n;

        range(m, 90000, &off, &n);
        for (uint64_t b = 0; b < n; b++)
                buf[b] = 1 + random() % 255;
        OK(volume_pwrite(handle(r, i), buf, n, off, 0));
        memcpy(m->bytes + off, buf, n);
}

static void op_zero(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t off, n;

        range(m, 90000, &off, &n);
        OK(volume_zero(handle(r, i), n, off, random() % 3 ? 0 : VOLUME_NO_HOLE));
        memset(m->bytes + off, 0, n);
}

static void fresh(struct model *m)
{
        char text[ID_TEXT_SIZE];

        memset(m, 0, sizeof(*m));
        strcpy(m->id, id_text(text, id_new()));
        m->there = true;
}

static void op_create(struct rig *r, int i)
{
        struct model *m = begin(r, i);

        fresh(m);
        m->size = 512 * (1 + random() % (BYTES / 512));
        OK(volume_create(r->pool, m->id, m->size, &e));
        done(r);
}

static uint64_t grown(uint64_t size)
{
        uint64_t more = 512 * (random() % 20);

        return MIN(size + more, (uint64_t)BYTES);
}

static void op_grow_from(struct rig *r, int i, int from, bool snapshot)
{
        const struct model *p = &r->f->v[from];
        struct model *m = begin(r, i);

        fresh(m);
        memcpy(m->bytes, p->bytes, BYTES);
        strcpy(m->parent, p->id);
        m->immutable = snapshot;
        m->size = snapshot ? p->size : grown(p->size);
        if (snapshot)
                OK(volume_snapshot(r->pool, m->id, p->id, &e));
        else
                OK(volume_clone(r->pool, m->id, p->id, m->size, &e));
        done(r);
}

static void op_resize(struct rig *r, int i)
{
        struct model *m = begin(r, i);

        m->size = grown(m->size);
        OK(volume_resize(r->pool, m->id, m->size, &e));
        done(r);
}

static void refused(int r)
{
        if (r != -EBUSY)
                FAIL("of a volume in use: %d\n", r);
}

static void op_shrink(struct rig *r, int i)
{
        struct model *m;

        if (r->open[i])
                refused(volume_shrink(r->pool, r->f->v[i].id, 512, NULL));
        r->open[i] = volume_close(r->open[i]);
        m = begin(r, i);
        m->size = 512 * (1 + random() % (m->size / 512));
        memset(m->bytes + m->size, 0, BYTES - m->size);
        OK(volume_shrink(r->pool, m->id, m->size, &e));
        done(r);
}

static void op_revert(struct rig *r, int i, int to)
{
        struct model *m, *s = &r->f->v[to];

        if (r->open[i])
                refused(volume_revert(r->pool, r->f->v[i].id, s->id, NULL));
        r->open[i] = volume_close(r->open[i]);
        m = begin(r, i);
        m->size = s->size;
        memcpy(m->bytes, s->bytes, BYTES);
        OK(volume_revert(r->pool, m->id, s->id, &e));
        done(r);
}

static void op_remove(struct rig *r, int i)
{
        r->open[i] = volume_close(r->open[i]);
        begin(r, i)->there = false;
        OK(volume_remove(r->pool, r->f->v[i].id, &e));
        done(r);
}

/* A snapshot of i, or -1. */
static int snapshot_of(struct rig *r, int i)
{
        for (int n = 0, k = random() % VOLUMES; n < VOLUMES; n++, k = (k + 1) % VOLUMES)
                if (r->f->v[k].there && r->f->v[k].immutable &&
                    streq(r->f->v[k].parent, r->f->v[i].id))
                        return k;
        return -1;
}

static void one_op(struct rig *r)
{
        int i = random() % VOLUMES, j = random() % VOLUMES, what = random() % 32, s;
        struct model *m = &r->f->v[i];

        if (!m->there && r->f->v[j].there && what % 8)
                op_grow_from(r, i, j, what % 3);
        else if (!m->there)
                op_create(r, i);
        else if (what < 8 && !m->immutable)
                op_write(r, i);
        else if (what < 9 && !m->immutable)
                op_zero(r, i);
        else if (what == 9 && !m->immutable)
                op_resize(r, i);
        else if ((what == 11 || what == 10) && !m->immutable)
                op_shrink(r, i);
        else if (what < 14 && !m->immutable && (s = snapshot_of(r, i)) >= 0)
                op_revert(r, i, s);
        else if (what == 14 && !m->immutable)
                OK(volume_flatten(r->pool, m->id, random() % 3 == 0, &e));
        else if (what < 17)
                op_remove(r, i);
        else if (what < 20)
                r->open[i] = volume_close(r->open[i]);
        else if (what < 24)
                compare(r, i);
        else
                volume_pool_work(r->pool);
}

static int check_change(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        const struct model **two = arg;

        for (uint64_t b = off; b < off + len && kind == VOLUME_HOLE; b++)
                if (b >= two[1]->size || two[0]->bytes[b] != two[1]->bytes[b])
                        FAIL("byte %llu changed", (unsigned long long)b);
        return 0;
}

static void check_changes(struct rig *r, int i, int j)
{
        const struct model *two[] = {&r->f->v[i], &r->f->v[j]};
        struct volume_changes *c;

        if (i == j || !two[0]->there || !two[1]->there ||
            volume_changes_open(handle(r, i), two[1]->id, &c, NULL) < 0)
                return;
        OK(volume_changes_walk(c, two[0]->size, 0, check_change, two));
        volume_changes_close(c);
}

static void compare_all(struct rig *r)
{
        for (int i = 0; i < VOLUMES; i++) {
                if (r->f->v[i].there)
                        compare(r, i);
                for (int j = 0; j < VOLUMES; j++)
                        check_changes(r, i, j);
        }
}

static void no_findings(struct rig *r)
{
        assert_int_equal(local_check(r->state, false, stderr, NULL), 0);
}

static void all_work(struct rig *r)
{
        while (volume_pool_work(r->pool))
                ;
}

static void random_ops(void **state)
{
        struct rig *r = *state;

        for (int round = 0; round < ROUNDS(15); round++) {
                srandom(round);
                for (int i = 0; i < 300; i++)
                        one_op(r);
                compare_all(r);
                if (round % 3 == 0)
                        all_work(r);
                compare_all(r);
                pool_down(r);
                no_findings(r);
                pool_up(r);
                if (round % 2)
                        all_work(r);
                compare_all(r);
        }
}

/* Data files of a volume. */
static unsigned layers_of(struct rig *r, int i)
{
        _cleanup_free_ char *path = path_printf("%s/pool/%s", r->state, r->f->v[i].id);
        DIR *d = opendir(path);
        struct dirent *de;
        unsigned n = 0;

        assert_non_null(d);
        while ((de = readdir(d)))
                n += strncmp(de->d_name, "data.", 5) == 0;
        closedir(d);
        return n;
}

/* After its last snapshot a volume is as flat as a new one. */
static void nothing_stays(void **state)
{
        struct rig *r = *state;
        struct volume_info info;

        op_create(r, 0);
        r->f->v[0].size = BYTES;
        OK(volume_resize(r->pool, r->f->v[0].id, BYTES, &e));
        for (int round = 0; round < 6; round++) {
                for (int i = 1; i < VOLUMES; i++) {
                        op_write(r, 0);
                        op_grow_from(r, i, 0, true);
                }
                assert_true(layers_of(r, 0) >= VOLUMES);
                for (int i = 1; i < VOLUMES; i++)
                        op_remove(r, round % 2 ? VOLUMES - i : i);
                all_work(r);
                /* What is open has a top that is written, and one below it. */
                assert_int_equal(layers_of(r, 0), 2);
                compare_all(r);
        }
        close_all(r);
        all_work(r);
        assert_int_equal(layers_of(r, 0), 1);
        OK(volume_stat(r->pool, r->f->v[0].id, &info, &e));
        assert_true(info.used <= BYTES + BLOCK);
        compare_all(r);
        pool_down(r);
        no_findings(r);
        pool_up(r);
        compare_all(r);
}

static void revert_keeps_all_snapshots(void **state)
{
        static const char nobody[] = "00000000-0000-4000-8000-000000000000";
        struct rig *r = *state;
        struct model *v = r->f->v;

        op_create(r, 0);
        op_create(r, 1);
        for (int i = 2; i < 6; i++) {
                op_write(r, 0);
                op_grow_from(r, i, 0, true);
        }
        close_all(r);
        assert_int_equal(volume_revert(r->pool, v[1].id, v[2].id, NULL), -EINVAL);
        assert_int_equal(volume_revert(r->pool, v[0].id, v[1].id, NULL), -EINVAL);
        assert_int_equal(volume_revert(r->pool, v[0].id, v[0].id, NULL), -EINVAL);
        assert_int_equal(volume_revert(r->pool, v[0].id, nobody, NULL), -ENOENT);
        assert_int_equal(volume_revert(r->pool, v[2].id, v[3].id, NULL), -EROFS);
        for (int i = 0; i < 12; i++) {
                op_revert(r, 0, 2 + i % 4);
                op_revert(r, 0, 2 + i % 4);
                compare_all(r);
                op_write(r, 0);
                if (i % 2)
                        all_work(r);
                compare_all(r);
        }
        for (int i = 2; i < 6; i++) {
                op_revert(r, 0, i);
                op_remove(r, i);
                all_work(r);
                compare_all(r);
        }
        close_all(r);
        all_work(r);
        assert_int_equal(layers_of(r, 0), 1);
}

static void flatten_frees_the_parent(void **state)
{
        struct rig *r = *state;
        struct model *v = r->f->v;
        struct volume_info info;
        _cleanup_free_ char *folder = NULL;

        op_create(r, 0);
        op_write(r, 0);
        op_grow_from(r, 1, 0, false);
        op_write(r, 1);
        op_grow_from(r, 2, 1, true);
        op_write(r, 1);
        OK(volume_flatten(r->pool, v[1].id, false, &e));
        OK(volume_stat(r->pool, v[1].id, &info, &e));
        assert_true(info.flattening && streq(info.parent, v[0].id));
        OK(volume_flatten(r->pool, v[1].id, true, &e));
        all_work(r);
        OK(volume_stat(r->pool, v[1].id, &info, &e));
        assert_true(!info.flattening && streq(info.parent, v[0].id));
        folder = path_printf("%s/pool/%s", r->state, v[0].id);
        op_remove(r, 0);
        assert_int_equal(access(folder, F_OK), 0);
        OK(volume_flatten(r->pool, v[1].id, false, &e));
        pool_down(r); /* it goes on after a restart */
        pool_up(r);
        compare_all(r);
        all_work(r);
        OK(volume_stat(r->pool, v[1].id, &info, &e));
        assert_true(!info.flattening && !info.flatten_failed && !info.parent[0]);
        assert_int_equal(access(folder, F_OK), -1);
        OK(volume_flatten(r->pool, v[1].id, false, &e));
        assert_int_equal(volume_flatten(r->pool, v[2].id, false, NULL), -EROFS);
        compare_all(r);
}

/* Dies at the point, the nth time. */
static void child(struct rig *r, const char *point, int nth, int seed)
{
        char fault[64];

        the_rig->in_child = true;
        snprintf(fault, sizeof(fault), "%s=kill:%d", point, nth);
        setenv("STRATOFS_FAULT", fault, 1);
        fault_init();
        srandom(seed);
        pool_up(r);
        for (;;)
                one_op(r);
}

static void killed_anywhere(void **state)
{
        static const char *const points[] = {"volume.merge.copy", "volume.merge",  "volume.merged",
                                             "volume.revert",     "volume.shrink", "volume.prune",
                                             "volume.push",       "volume.create"};
        struct rig *r = *state;

        for (unsigned round = 0; round < ROUNDS(2 * ARRAY_SIZE(points)); round++) {
                int status, i;
                pid_t pid;

                pool_down(r);
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0)
                        child(r, points[round % ARRAY_SIZE(points)], 1 + round / 8, round);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                pool_up(r);
                i = r->f->calling;
                r->f->calling = -1;
                if (i >= 0) { /* before, or after */
                        struct volume_info info;
                        struct model *m = r->f->v[i].there ? &r->f->v[i] : &r->f->next;

                        if (volume_stat(r->pool, m->id, &info, NULL) < 0)
                                r->f->v[i].there = false;
                        else if (!r->f->v[i].there || is(r, i, &r->f->next))
                                r->f->v[i] = r->f->next;
                        r->f->v[i].there = volume_stat(r->pool, m->id, &info, NULL) == 0;
                }
                compare_all(r);
                if (round % 2)
                        all_work(r);
                compare_all(r);
                pool_down(r);
                no_findings(r);
                pool_up(r);
        }
}

/* ---- with guests ---- */

struct guest {
        struct volume *v;
        atomic_bool stop;
        uint32_t first, blocks; /* its part of the volume */
};

static bool lent_is_right(struct volume *v, uint64_t off, const uint8_t *want)
{
        uint8_t got[BLOCK] = {};
        struct volume_file f;
        bool right = true;

        if (volume_lend(v, BLOCK, off, &f) != 1)
                return true;
        sched_yield();
        if (pread(f.fd, got, f.len, f.off) != (ssize_t)f.len)
                right = false;
        right = right && memcmp(got, want, f.len) == 0;
        volume_return(v, &f);
        return right;
}

static void *be_a_guest(void *arg) /* NULL, or itself when something was wrong */
{
        struct guest *g = arg;
        uint8_t want[BLOCK], got[BLOCK];
        uint8_t is[BLOCKS] = {};

        for (unsigned n = 1; !g->stop; n++) {
                unsigned b = g->first + n * 7 % g->blocks, c = g->first + n * 5 % g->blocks;

                memset(want, n % 251 + 1, BLOCK);
                if (n % 3 == 0) {
                        is[b] = n % 251 + 1;
                        if (volume_pwrite(g->v, want, BLOCK, (uint64_t)b * BLOCK, 0) < 0)
                                return g;
                } else if (n % 31 == 0) {
                        is[b] = 0;
                        if (volume_zero(g->v, BLOCK, (uint64_t)b * BLOCK, 0) < 0)
                                return g;
                }
                memset(want, is[c], BLOCK);
                if (volume_pread(g->v, got, BLOCK, (uint64_t)c * BLOCK) < 0 ||
                    memcmp(got, want, BLOCK) != 0 ||
                    !lent_is_right(g->v, (uint64_t)c * BLOCK, want))
                        return g;
        }
        return NULL;
}

static void under_guests(void **state)
{
        struct rig *r = *state;
        struct guest g[3] = {};
        pthread_t t[3];
        void *failed;

        op_create(r, 0);
        OK(volume_resize(r->pool, r->f->v[0].id, BYTES, &e));
        OK(volume_clone(r->pool, strcpy(r->f->v[1].id, "00000000-0000-4000-8000-000000000001"),
                        r->f->v[0].id, BYTES, &e));
        volume_pool_background(r->pool, true);
        for (int i = 0; i < 3; i++) {
                g[i] = (struct guest){
                        .v = handle(r, i / 2), .first = i % 2 * BLOCKS / 2, .blocks = BLOCKS / 2};
                assert_int_equal(pthread_create(&t[i], NULL, be_a_guest, &g[i]), 0);
        }
        for (int round = 0; round < 16; round++) {
                for (int i = 2; i < VOLUMES; i++) {
                        fresh(&r->f->v[i]);
                        OK(volume_snapshot(r->pool, r->f->v[i].id, r->f->v[i % 2].id, &e));
                        if (i % 3 == 0) {
                                uint8_t b[BLOCK];

                                OK(volume_pread(handle(r, i), b, BLOCK, 0));
                        }
                }
                if (round == 10)
                        OK(volume_flatten(r->pool, r->f->v[1].id, false, &e));
                for (int i = 2; i < VOLUMES; i++)
                        op_remove(r, i);
                if (round % 8 == 7) {
                        volume_pool_background(r->pool, false);
                        volume_pool_background(r->pool, true);
                }
        }
        for (int i = 0; i < 3; i++) {
                g[i].stop = true;
                pthread_join(t[i], &failed);
                assert_null(failed);
        }
        close_all(r);
        volume_pool_background(r->pool, false);
        all_work(r);
        assert_int_equal(layers_of(r, 0), 1);
        assert_int_equal(layers_of(r, 1), 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                T(nothing_stays),
                T(revert_keeps_all_snapshots),
                T(flatten_frees_the_parent),
                T(random_ops),
                T(killed_anywhere),
                T(under_guests),
        };

        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
