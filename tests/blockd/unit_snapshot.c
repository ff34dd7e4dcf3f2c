/* Snapshots and what changed since them, against a model in memory: a family of volumes, snapshots
 * and clones, with removal in any order, reopening, kill -9 within the call, and writers. */
enum { VOLUMES = 8, BLOCK = 4096, BLOCKS = 60, BYTES = BLOCKS * BLOCK };

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "common/fault.h"
#include "unit_rig.h"

/* Shared with the child that will be killed. */
struct family {
        struct model v[VOLUMES];
        bool kin[VOLUMES][VOLUMES];             /* one grew from the other, or both from a third */
        bool touched[VOLUMES][VOLUMES][BLOCKS]; /* by one of them since they were the same */
        int done;
};

static int rig_up(void **state)
{
        *state = rig_new(sizeof(struct family));
        return 0;
}

struct walk {
        struct rig *r;
        int v, since;
        uint64_t at;
        int last, calls;
};

static int check_change(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        struct walk *w = arg;
        const struct model *v = &w->r->f->v[w->v], *s = &w->r->f->v[w->since];

        assert_int_equal(off, w->at);
        assert_true(len > 0 && (int)kind != w->last);
        w->at += len;
        w->last = kind;
        w->calls++;
        for (uint64_t b = off; b < off + len; b++) {
                if (kind == VOLUME_HOLE && (b >= s->size || v->bytes[b] != s->bytes[b]))
                        fail_msg("%d changed byte %llu since %d", w->v, (unsigned long long)b,
                                 w->since);
                if (is_local() && kind == VOLUME_DATA && b < s->size &&
                    !w->r->f->touched[w->v][w->since][b / BLOCK])
                        fail_msg("%d has not touched byte %llu since %d", w->v,
                                 (unsigned long long)b, w->since);
        }
        return 0;
}

static void check_changes(struct rig *r, int i, int j)
{
        struct model *v = &r->f->v[i], *s = &r->f->v[j];
        uint64_t off = random() % 2 ? 0 : random() % v->size;
        struct walk w = {.r = r, .v = i, .since = j, .at = off, .last = -1};
        struct volume_changes *c;

        if (i == j || !r->f->kin[i][j]) {
                assert_int_equal(volume_changes_open(handle(r, i), s->id, &c, NULL), -EINVAL);
                return;
        }
        OK(volume_changes_open(handle(r, i), s->id, &c, &e));
        OK(volume_changes_walk(c, v->size - off, off, check_change, &w));
        assert_int_equal(w.at, v->size);
        assert_int_equal(volume_changes_walk(c, 1, v->size, check_change, &w), -EINVAL);
        if (!r->open[j])
                assert_int_equal(volume_remove(r->pool, s->id, NULL), -EBUSY);
        assert_null(volume_changes_close(c));
}

static void touch(struct rig *r, int i, uint64_t off, uint64_t n)
{
        for (int k = 0; k < VOLUMES; k++)
                for (uint64_t b = off / BLOCK; b <= (off + n - 1) / BLOCK; b++)
                        r->f->touched[i][k][b] = r->f->touched[k][i][b] = true;
}

static void op_write(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        static uint8_t buf[BYTES];
        uint64_t off, n;

        range(m, 50000, &off, &n);
        for (uint64_t b = 0; b < n; b++)
                buf[b] = 1 + random() % 255;
        OK(volume_pwrite(handle(r, i), buf, n, off, 0));
        memcpy(m->bytes + off, buf, n);
        touch(r, i, off, n);
}

static void op_zero(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t off, n;

        range(m, 50000, &off, &n);
        OK(volume_zero(handle(r, i), n, off, random() % 3 ? 0 : VOLUME_NO_HOLE));
        memset(m->bytes + off, 0, n);
        touch(r, i, off, n);
}

static void op_trim(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t off, n, from, to;

        range(m, 50000, &off, &n);
        OK(volume_trim(handle(r, i), n, off, 0));
        from = (off + BLOCK - 1) / BLOCK * BLOCK;
        to = off + n == m->size ? m->size : (off + n) / BLOCK * BLOCK;
        if (from >= to)
                return;
        memset(m->bytes + from, 0, to - from);
        touch(r, i, from, to - from);
}

static void op_resize(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        uint64_t more = 512 * (random() % 20), size = MIN(m->size + more, (uint64_t)BYTES);

        OK(volume_resize(r->pool, m->id, size, &e));
        m->size = size;
}

static void fresh(struct rig *r, int i)
{
        struct model *m = &r->f->v[i];
        char text[ID_TEXT_SIZE];

        memset(m, 0, sizeof(*m));
        strcpy(m->id, id_text(text, id_new()));
        for (int k = 0; k < VOLUMES; k++)
                r->f->kin[i][k] = r->f->kin[k][i] = false;
        m->there = true;
}

static void op_create(struct rig *r, int i)
{
        fresh(r, i);
        r->f->v[i].size = 512 * (1 + random() % (BYTES / 512));
        OK(volume_create(r->pool, r->f->v[i].id, r->f->v[i].size, &e));
}

/* i has what `from` has, and the same history. */
static void model_grows(struct rig *r, int i, int from)
{
        struct family *f = r->f;

        fresh(r, i);
        memcpy(f->v[i].bytes, f->v[from].bytes, BYTES);
        f->v[i].size = f->v[from].size;
        for (int k = 0; k < VOLUMES; k++) {
                f->kin[i][k] = f->kin[k][i] = f->kin[from][k];
                memcpy(f->touched[i][k], f->touched[from][k], BLOCKS);
                memcpy(f->touched[k][i], f->touched[k][from], BLOCKS);
        }
        f->kin[i][from] = f->kin[from][i] = true;
        memset(f->touched[i][from], 0, BLOCKS);
        memset(f->touched[from][i], 0, BLOCKS);
}

static void op_snapshot(struct rig *r, int i, int of)
{
        struct model *m = &r->f->v[i], *v = &r->f->v[of];

        model_grows(r, i, of);
        m->immutable = true;
        for (int again = 0; again < 2; again++)
                OK(volume_snapshot(r->pool, m->id, v->id, &e));
}

static void op_clone(struct rig *r, int i, int from)
{
        struct model *m = &r->f->v[i];
        uint64_t more = 512 * (random() % 20);

        model_grows(r, i, from);
        m->size = MIN(m->size + more, (uint64_t)BYTES);
        OK(volume_clone(r->pool, m->id, r->f->v[from].id, m->size, &e));
}

static void op_remove(struct rig *r, int i)
{
        r->open[i] = volume_close(r->open[i]);
        OK(volume_remove(r->pool, r->f->v[i].id, &e));
        r->f->v[i].there = false;
}

static void make_one(struct rig *r, int i, int from)
{
        if (!r->f->v[from].there)
                op_create(r, i);
        else if (random() % 3)
                op_snapshot(r, i, from);
        else
                op_clone(r, i, from);
}

static void one_op(struct rig *r)
{
        int i = random() % VOLUMES, j = random() % VOLUMES;
        int what = random() % 20;

        if (!r->f->v[i].there)
                make_one(r, i, j);
        else if (what < 8 && !r->f->v[i].immutable)
                what < 4 ? op_write(r, i) : what < 6 ? op_zero(r, i) : op_trim(r, i);
        else if (what == 8 && !r->f->v[i].immutable)
                op_resize(r, i);
        else if (what == 9)
                op_remove(r, i);
        else if (what == 10)
                r->open[i] = volume_close(r->open[i]);
        else if (what > 15)
                compare(r, i);
        else if (r->f->v[j].there)
                check_changes(r, i, j);
}

static void compare_all(struct rig *r)
{
        for (int i = 0; i < VOLUMES; i++)
                for (int j = 0; j < VOLUMES; j++) {
                        if (r->f->v[i].there && j == 0)
                                compare(r, i);
                        if (r->f->v[i].there && r->f->v[j].there)
                                check_changes(r, i, j);
                }
}

static void no_findings(struct rig *r)
{
        if (is_local())
                assert_int_equal(local_check(r->state, false, stderr, NULL), 0);
}

static void random_ops(void **state)
{
        struct rig *r = *state;

        for (int round = 0; round < times(30, 2); round++) {
                srandom(round);
                for (int i = 0; i < times(300, 80); i++)
                        one_op(r);
                compare_all(r);
                pool_down(r);
                no_findings(r);
                pool_up(r);
                compare_all(r);
        }
}

/* Killed within the call: the snapshot is there and whole, or not at all; all else as it was. */
static void killed_in_the_call(void **state)
{
        static const char *const points[] = {"volume.push", "volume.create"};
        struct rig *r = *state;
        struct volume_info info;

        op_create(r, 0);
        for (int round = 0; round < 8; round++) {
                char fault[64];
                int status;
                pid_t pid;

                pool_down(r);
                r->f->done = 0;
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0) {
                        snprintf(fault, sizeof(fault), "%s=kill:%d", points[round % 2],
                                 1 + round / 2);
                        setenv("STRATOFS_FAULT", fault, 1);
                        fault_init();
                        srandom(round);
                        pool_up(r);
                        for (int i = 1; i < VOLUMES; i++) {
                                op_write(r, 0);
                                op_snapshot(r, i, 0);
                                r->f->done = i;
                        }
                        _exit(1);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                assert_int_equal(r->f->done, round / 2);
                pool_up(r);
                if (volume_stat(r->pool, r->f->v[r->f->done + 1].id, &info, NULL) < 0)
                        r->f->v[r->f->done + 1].there = false;
                compare_all(r);
                for (int i = 1; i < VOLUMES; i++)
                        if (r->f->v[i].there)
                                op_remove(r, i);
                compare_all(r);
                pool_down(r);
                no_findings(r);
                pool_up(r);
        }
}

static void facts_must_agree(void **state)
{
        static const char nobody[] = "00000000-0000-4000-8000-000000000000";
        struct rig *r = *state;
        struct model *v = r->f->v;
        struct volume_info info;
        struct volume_changes *c;

        op_create(r, 0);
        op_create(r, 1);
        op_snapshot(r, 2, 0);
        assert_int_equal(volume_snapshot(r->pool, v[2].id, v[1].id, NULL), -EEXIST);
        assert_int_equal(volume_snapshot(r->pool, v[1].id, v[0].id, NULL), -EEXIST);
        assert_int_equal(volume_snapshot(r->pool, v[0].id, v[0].id, NULL), -EINVAL);
        assert_int_equal(volume_snapshot(r->pool, nobody, "x", NULL), -EINVAL);
        assert_int_equal(volume_snapshot(r->pool, "x", v[0].id, NULL), -EINVAL);
        assert_int_equal(volume_clone(r->pool, v[2].id, v[0].id, v[0].size, NULL), -EEXIST);
        assert_int_equal(volume_create(r->pool, v[2].id, v[2].size, NULL), -EEXIST);
        assert_int_equal(volume_resize(r->pool, v[2].id, v[2].size + 512, NULL), -EROFS);
        assert_int_equal(volume_pwrite(handle(r, 2), "x", 1, 0, 0), -EROFS);
        assert_int_equal(volume_changes_open(handle(r, 0), nobody, &c, NULL), -ENOENT);
        OK(volume_stat(r->pool, v[2].id, &info, &e));
        assert_true(info.immutable && info.size == v[0].size && streq(info.parent, v[0].id));
        op_remove(r, 0);
        OK(volume_snapshot(r->pool, v[2].id, v[0].id, &e)); /* it is there already */
        assert_int_equal(volume_snapshot(r->pool, nobody, v[0].id, NULL), -ENOENT);
}

/* Its metadata is spoilt, twice: the next start leaves it out. */
static void spoil(struct rig *r, int i)
{
        _cleanup_free_ char *meta = path_printf("%s/pool/%s/meta", r->state, r->f->v[i].id);
        _cleanup_free_ char *copy = path_printf("%s.bak", meta);

        OK(file_replace(meta, "x", 1, 0600, &e));
        OK(file_replace(copy, "x", 1, 0600, &e));
}

/* What grows from a snapshot whose origin was left out at start is refused. */
static void without_its_origin(void **state)
{
        static const char child[] = "00000000-0000-4000-8000-000000000001";
        struct rig *r = *state;
        _cleanup_free_ char *dir = path_printf("%s/pool/%s", r->state, child);

        op_create(r, 0);
        op_write(r, 0);
        op_snapshot(r, 1, 0);
        pool_down(r);
        spoil(r, 0);
        pool_up(r);
        assert_int_equal(volume_clone(r->pool, child, r->f->v[1].id, r->f->v[1].size, NULL),
                         -EUCLEAN);
        assert_int_equal(volume_snapshot(r->pool, child, r->f->v[1].id, NULL), -EUCLEAN);
        assert_int_equal(access(dir, F_OK), -1);
        op_remove(r, 1);
}

struct cloning {
        struct rig *r;
        const char *id;
        atomic_int result; /* 1: not yet */
};

static void *clone_it(void *arg)
{
        struct cloning *c = arg;
        const struct model *from = &c->r->f->v[1];

        c->result = volume_clone(c->r->pool, c->id, from->id, from->size, NULL);
        return NULL;
}

/* The origin is removed while a clone is being made, which then fails: nothing is left. */
static void an_origin_goes_with_a_failed_clone(void **state)
{
        static const char child[] = "00000000-0000-4000-8000-000000000001";
        struct rig *r = *state;
        _cleanup_free_ char *dir = path_printf("%s/pool/%s", r->state, child);
        _cleanup_free_ char *log = path_printf("%s/map.0", dir);
        struct cloning c = {.r = r, .id = child};

        pool_down(r);
        setenv("STRATOFS_FAULT", "", 1);
        fault_init();
        pool_up(r);
        do { /* until the clone is still waiting when its folder goes */
                _cleanup_free_ char *origin = NULL;
                pthread_t t;

                op_create(r, 0);
                op_write(r, 0);
                op_snapshot(r, 1, 0);
                origin = path_printf("%s/pool/%s", r->state, r->f->v[0].id);
                OK(fault_set("volume.create=delay:1000"));
                c.result = 1;
                assert_int_equal(pthread_create(&t, NULL, clone_it, &c), 0);
                while (c.result == 1 && access(log, F_OK) < 0)
                        sched_yield();
                op_remove(r, 0);
                op_remove(r, 1);
                assert_int_equal(access(origin, F_OK), 0);
                remove_tree(dir, NULL);
                pthread_join(t, NULL);
                assert_int_equal(access(origin, F_OK), c.result < 0 ? -1 : 0);
                OK(volume_remove(r->pool, child, &e));
                assert_int_equal(access(origin, F_OK), -1);
        } while (c.result == 0);
        OK(fault_set(""));
}

static int first(void *arg, uint64_t off _unused_, uint64_t len _unused_, enum volume_kind kind)
{
        *(enum volume_kind *)arg = kind;
        return 1;
}

/* Snapshot upon snapshot and clone upon clone of something that nobody writes stay flat. */
static void nothing_new_makes_no_layer(void **state)
{
        struct rig *r = *state;
        enum volume_kind kind = VOLUME_DATA;
        struct volume_changes *c;
        const int many = times(40, 10);
        char ids[40][ID_TEXT_SIZE];
        _cleanup_free_ char *second = NULL;

        op_create(r, 0);
        op_write(r, 0);
        for (int i = 0; i < many; i++) {
                id_text(ids[i], id_new());
                if (i < many / 2)
                        OK(volume_snapshot(r->pool, ids[i], i % 2 ? ids[i - 1] : r->f->v[0].id,
                                           &e));
                else
                        OK(volume_clone(r->pool, ids[i], ids[i - 1], r->f->v[0].size, &e));
        }
        second = path_printf("%s/pool/%s/data.2", r->state, r->f->v[0].id);
        assert_int_equal(access(second, F_OK), -1);
        OK(volume_changes_open(handle(r, 0), ids[many - 1], &c, &e));
        OK(volume_changes_walk(c, r->f->v[0].size, 0, first, &kind));
        assert_int_equal(kind, VOLUME_HOLE);
        volume_changes_close(c);
}

struct writer {
        struct volume *v;
        atomic_bool stop;
        atomic_int written; /* the last acknowledged */
};

enum { WORDS = BLOCK / sizeof(uint32_t) };

static void *write_in_order(void *arg) /* NULL, or itself when something failed */
{
        struct writer *w = arg;
        uint32_t block[WORDS];

        for (int n = 1; !w->stop; n++) {
                for (int i = 0; i < WORDS; i++)
                        block[i] = n;
                if (volume_pwrite(w->v, block, BLOCK, (uint64_t)(n % BLOCKS) * BLOCK, 0) < 0)
                        return w;
                w->written = n;
        }
        return NULL;
}

/* The last write that a snapshot holds: all before it must be there and none after. */
static int last_write(struct rig *r, int i)
{
        static uint32_t got[BLOCKS][WORDS];
        int last = 0;

        OK(volume_pread(handle(r, i), got, BYTES, 0));
        for (int b = 0; b < BLOCKS; b++)
                last = MAX(last, (int)got[b][0]);
        for (int n = MAX(last - BLOCKS + 1, 1); n <= last; n++)
                for (int k = 0; k < WORDS; k++)
                        assert_int_equal(got[n % BLOCKS][k], n);
        return last;
}

static void under_a_writer(void **state)
{
        struct rig *r = *state;
        struct volume_changes *c[VOLUMES] = {};
        struct writer w = {};
        pthread_t t;
        void *failed;

        op_create(r, 0);
        r->f->v[0].size = BYTES;
        OK(volume_resize(r->pool, r->f->v[0].id, BYTES, &e));
        w.v = handle(r, 0);
        assert_int_equal(pthread_create(&t, NULL, write_in_order, &w), 0);
        for (int round = 0; round < times(20, 1); round++) {
                for (int i = 1; i < VOLUMES; i++) {
                        int before, many = w.written + 1 + random() % 40;
                        enum volume_kind kind;

                        while (w.written < many)
                                sched_yield();
                        before = w.written;
                        fresh(r, i);
                        OK(volume_snapshot(r->pool, r->f->v[i].id, r->f->v[0].id, &e));
                        assert_true(last_write(r, i) >= before);
                        OK(volume_changes_open(w.v, r->f->v[i].id, &c[i], &e));
                        for (int k = 1; k <= i; k++)
                                OK(volume_changes_walk(c[k], BYTES, 0, first, &kind));
                }
                for (int i = 1; i < VOLUMES; i++) {
                        c[i] = volume_changes_close(c[i]);
                        op_remove(r, i);
                }
        }
        w.stop = true;
        pthread_join(t, &failed);
        assert_null(failed);
}

/* Snapshots of both while both are compared with the other: nobody waits for ever. */
static void *compare_them(void *arg)
{
        struct volume_changes **c = arg;
        enum volume_kind kind;

        for (int i = 0; i < times(3000, 100); i++)
                if (volume_changes_walk(*c, BYTES, 0, first, &kind) < 0)
                        return c;
        return NULL;
}

static void both_ways(void **state)
{
        struct rig *r = *state;
        struct volume_changes *c[2];
        pthread_t t[2];
        void *failed;

        op_create(r, 0);
        r->f->v[0].size = BYTES;
        OK(volume_resize(r->pool, r->f->v[0].id, BYTES, &e));
        op_write(r, 0);
        model_grows(r, 1, 0);
        OK(volume_clone(r->pool, r->f->v[1].id, r->f->v[0].id, BYTES, &e));
        for (int i = 0; i < 2; i++)
                OK(volume_changes_open(handle(r, i), r->f->v[1 - i].id, &c[i], &e));
        for (int i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&t[i], NULL, compare_them, &c[i]), 0);
        for (int i = 0; i < times(100, 10); i++) {
                op_write(r, i % 2);
                op_snapshot(r, 2 + i % 2, i % 2);
                op_remove(r, 2 + i % 2);
        }
        for (int i = 0; i < 2; i++) {
                pthread_join(t[i], &failed);
                assert_null(failed);
                volume_changes_close(c[i]);
        }
        compare_all(r);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(random_ops),         T(killed_in_the_call),
                T(facts_must_agree),   T(nothing_new_makes_no_layer),
                T(without_its_origin), T(an_origin_goes_with_a_failed_clone),
                T(under_a_writer),     T(both_ways),
        };
        /* What every driver is to do. */
        const struct CMUnitTest any[] = {
                T(random_ops),     T(facts_must_agree), T(nothing_new_makes_no_layer),
                T(under_a_writer), T(both_ways),
        };

        if (!is_local())
                return cmocka_run_group_tests(any, NULL, NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
