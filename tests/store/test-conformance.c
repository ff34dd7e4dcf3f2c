/* What every store driver must do.  With the word "rados": the driver of Ceph, on the pool
 * STRATOFS_POOL of the cluster that CEPH_CONF names; else all that need no server. */
#include "tests/store/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <cmocka.h>

#include "backend/store/memory/memory.h"
#include "backend/store/rados/rados.h"
#include "backend/store/sqlite/sqlite.h"
#include "common/clock.h"
#include "common/fileio.h"

struct fixture {
        struct store *s;
        char dir[64], path[128]; /* empty path: the driver forgets at close */
        char space[64];          /* rados: the namespace, one a test */
};

static bool keeps(const struct fixture *f)
{
        return f->path[0] || f->space[0];
}

static void fixture_open(struct fixture *f)
{
        struct err *e = NULL;

        if (f->space[0]) {
                struct store_rados_config cfg = {.conf = getenv("CEPH_CONF"),
                                                 .pool = getenv("STRATOFS_POOL"),
                                                 .space = f->space};

                if (store_rados_open(&cfg, &f->s, &e) < 0)
                        fail_msg("%s", err_msg(e));
                return;
        }
        if (!f->path[0]) {
                f->s = store_memory_new();
                assert_non_null(f->s);
                return;
        }
        if (store_sqlite_open(f->path, &f->s, &e) < 0)
                fail_msg("%s", err_msg(e));
}

static int setup_memory(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));

        fixture_open(f);
        *state = f;
        return 0;
}

static int setup_sqlite(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));

        strcpy(f->dir, "/tmp/store-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        snprintf(f->path, sizeof(f->path), "%s/store.db", f->dir);
        fixture_open(f);
        *state = f;
        return 0;
}

static int setup_rados(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));
        static int tests;

        snprintf(f->space, sizeof(f->space), "test-%d-%lld-%d", (int)getpid(),
                 (long long)clock_now(), ++tests);
        fixture_open(f);
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        f->s->ops->close(f->s);
        if (f->dir[0])
                assert_int_equal(remove_tree(f->dir, NULL), 0);
        free(f);
        return 0;
}

static void assert_value(struct store *s, const char *key, const char *want, uint64_t version)
{
        uint64_t v = 0;
        _cleanup_free_ char *value = value_of(s, "t1", key, &v);

        if (!want) {
                assert_null(value);
                return;
        }
        assert_non_null(value);
        assert_string_equal(value, want);
        assert_int_equal(v, version);
}

static void test_versions(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;

        assert_int_equal(put_wait(s, "t1", "a", 0, 1, "one"), STORE_COMMITTED);
        assert_int_equal(put_wait(s, "t1", "a", 0, 2, "again"), STORE_CONFLICT);
        assert_int_equal(put_wait(s, "t1", "a", 7, 8, "wrong"), STORE_CONFLICT);
        assert_int_equal(put_wait(s, "t1", "b", 1, 2, "absent"), STORE_CONFLICT);
        assert_value(s, "a", "one", 1);
        assert_value(s, "b", NULL, 0);
        assert_int_equal(put_wait(s, "t1", "a", 1, 5, "five"), STORE_COMMITTED);
        assert_value(s, "a", "five", 5);
        assert_int_equal(put_wait(s, "t1", "a", 5, 6, ""), STORE_COMMITTED);
        assert_value(s, "a", "", 6);
        assert_int_equal(put_wait(s, "t2", "a", 0, 1, "other scope"), STORE_COMMITTED);
        assert_value(s, "a", "", 6);
        assert_int_equal(count_records(s), 2);
}

static void test_delete(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;

        assert_int_equal(put_wait(s, "t1", "a", 0, 3, "x"), STORE_COMMITTED);
        assert_int_equal(put_wait(s, "t1", "a", 2, 0, NULL), STORE_CONFLICT);
        assert_int_equal(put_wait(s, "t1", "a", 0, 0, NULL), STORE_CONFLICT);
        assert_value(s, "a", "x", 3);
        assert_int_equal(put_wait(s, "t1", "a", 3, 0, NULL), STORE_COMMITTED);
        assert_value(s, "a", NULL, 0);
        assert_int_equal(put_wait(s, "t1", "a", 3, 0, NULL), STORE_CONFLICT);
        assert_int_equal(put_wait(s, "t1", "a", 0, 0, NULL), STORE_COMMITTED);
        assert_int_equal(put_wait(s, "t1", "a", 0, 1, "back"), STORE_COMMITTED);
        assert_value(s, "a", "back", 1);
}

static void test_atomic(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        struct store_txn *t;

        assert_int_equal(put_wait(s, "t1", "c", 0, 1, "old"), STORE_COMMITTED);
        t = txn_of("t1", "a", 0, 1, "new");
        assert_int_equal(store_txn_add(t, "c", 1, 2, "newer"), 0);
        assert_int_equal(store_txn_add(t, "b", 9, 10, "not there"), 0);
        assert_int_equal(commit_wait(s, t, NULL), STORE_CONFLICT);
        assert_value(s, "a", NULL, 0);
        assert_value(s, "c", "old", 1);

        t = txn_of("t1", "a", 0, 1, "new");
        assert_int_equal(store_txn_add(t, "c", 1, 2, "newer"), 0);
        assert_int_equal(store_txn_add(t, "d", 0, 4, "d"), 0);
        assert_int_equal(commit_wait(s, t, NULL), STORE_COMMITTED);
        assert_value(s, "a", "new", 1);
        assert_value(s, "c", "newer", 2);
        assert_value(s, "d", "d", 4);
}

enum { CHAIN = 300 };

/* Queued at once, each on the version before it; every tenth must conflict, and alone. */
static void test_order(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        static struct waiter w[CHAIN];
        uint64_t version = 0, wanted[CHAIN];
        int order = 0;
        char text[32];

        for (int i = 0; i < CHAIN; i++) {
                bool bad = i % 10 == 9;
                struct store_txn *t;

                snprintf(text, sizeof(text), "%d", i);
                t = txn_of("t1", "k", bad ? version + 5 : version, version + 6, text);
                if (!bad)
                        version += 6;
                wanted[i] = bad ? STORE_CONFLICT : STORE_COMMITTED;
                waiter_init(&w[i]);
                w[i].order = &order;
                t->done = waiter_done;
                t->arg = &w[i];
                s->ops->commit(s, t);
        }
        for (int i = 0; i < CHAIN; i++) {
                waiter_wait(&w[i]);
                assert_int_equal(w[i].result, wanted[i]);
                assert_int_equal(w[i].place, i + 1);
        }
        assert_value(s, "k", "298", version);
        for (int i = 0; i < CHAIN; i++)
                assert_int_equal(w[i].calls, 1);
}

static void test_committed(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        struct store_txn *t = txn_of("t1", "a", 0, 1, "x");

        strcpy(t->id, "11111111-2222-3333-4444-555555555555");
        assert_int_equal(s->ops->committed(s, t->id, NULL), 0);
        s->ops->commit(s, t); /* and without a callback: committed() waits for it */
        assert_int_equal(s->ops->committed(s, "11111111-2222-3333-4444-555555555555", NULL), 1);
        t = txn_of("t1", "a", 0, 1, "conflict");
        strcpy(t->id, "11111111-2222-3333-4444-666666666666");
        s->ops->commit(s, t);
        assert_int_equal(s->ops->committed(s, "11111111-2222-3333-4444-666666666666", NULL), 0);
}

struct seen {
        char text[512];
};

static int seen_each(void *arg, const struct store_record *r)
{
        struct seen *seen = arg;
        size_t n = strlen(seen->text);

        snprintf(seen->text + n, sizeof(seen->text) - n, "%s/%s=%.*s ", r->scope, r->key,
                 r->value ? (int)r->len : 1, r->value ? (const char *)r->value : "-");
        return 0;
}

static void assert_changes(struct store *s, const char *scope, uint64_t since, const char *want,
                           uint64_t *now)
{
        struct seen seen = {0};

        assert_int_equal(s->ops->changes(s, scope, since, seen_each, &seen, now, NULL), 0);
        assert_string_equal(seen.text, want);
}

static void test_changes(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        uint64_t first, now;

        assert_changes(s, "t1", 0, "", &now);
        assert_int_equal(now, 0);
        put_wait(s, "t1", "a", 0, 1, "1");
        put_wait(s, "t1", "b", 0, 1, "2");
        assert_changes(s, "t1", 0, "t1/a=1 t1/b=2 ", &first);
        assert_true(first > 0);
        assert_changes(s, "t1", first, "", &now);
        assert_int_equal(now, first);
        put_wait(s, "t1", "b", 1, 2, "3");
        put_wait(s, "t1", "b", 1, 3, "conflict");
        put_wait(s, "t2", "c", 0, 1, "4");
        put_wait(s, "t1", "a", 1, 0, NULL);
        put_wait(s, "t1", "d", 0, 1, "5");
        assert_changes(s, "t1", first, "t1/b=3 t1/a=- t1/d=5 ", &now);
        assert_true(now > first);
        assert_changes(s, "t1", 0, "t1/b=3 t1/d=5 ", &first);
        assert_changes(s, "t1", now, "", &now);
        assert_changes(s, "t2", 0, "t2/c=4 ", &now);
        assert_changes(s, "t2", now, "", &now);
}

static int stop_each(void *arg, const struct store_record *r _unused_)
{
        (*(int *)arg)++;
        return -ECANCELED;
}

static void test_stop(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        uint64_t now = 77;
        int calls = 0;

        put_wait(s, "t1", "a", 0, 1, "1");
        put_wait(s, "t1", "b", 0, 1, "2");
        assert_int_equal(s->ops->load(s, stop_each, &calls, NULL), -ECANCELED);
        assert_int_equal(calls, 1);
        assert_int_equal(s->ops->changes(s, "t1", 0, stop_each, &calls, &now, NULL), -ECANCELED);
        assert_int_equal(calls, 2);
        assert_int_equal(put_wait(s, "t1", "c", 0, 1, "still works"), STORE_COMMITTED);
}

static void test_epoch(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        uint64_t epoch = 0;

        for (uint64_t i = 1; i <= 3; i++) {
                assert_int_equal(s->ops->epoch(s, &epoch, NULL), 0);
                assert_int_equal(epoch, i);
        }
}

enum { THREADS = 32, EACH = 100 };

struct racer {
        struct store *s;
        int id, won, steps;
};

/* Adds 1 to a shared counter, EACH times, and writes keys of its own between. */
static void *racer_main(void *arg)
{
        struct racer *r = arg;

        for (int i = 0; i < EACH; i++) {
                char key[32];
                uint64_t v = 0;

                snprintf(key, sizeof(key), "own-%d-%d", r->id, i);
                if (put_wait(r->s, "t1", key, 0, 1, "x") == STORE_COMMITTED)
                        r->won++;
                /* everybody tries the same step from i to i + 1: one wins */
                v = (uint64_t)i;
                if (put_wait(r->s, "t1", "shared", v, v + 1, "x") == STORE_COMMITTED)
                        r->steps++;
        }
        return NULL;
}

static void test_threads(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        struct racer racers[THREADS];
        pthread_t threads[THREADS];
        int won = 0, steps = 0;
        uint64_t version = 0;

        for (int i = 0; i < THREADS; i++) {
                racers[i] = (struct racer){.s = s, .id = i};
                assert_int_equal(pthread_create(&threads[i], NULL, racer_main, &racers[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
                pthread_join(threads[i], NULL);
                won += racers[i].won;
                steps += racers[i].steps;
        }
        assert_int_equal(won, THREADS * EACH);
        free(value_of(s, "t1", "shared", &version));
        assert_int_equal(version, steps); /* no step was won twice */
        assert_in_range(steps, 1, EACH);
        assert_int_equal(count_records(s), THREADS * EACH + 1);
}

static void test_close_waits(void **state)
{
        struct fixture *f = *state;
        static struct waiter w[64];

        for (int i = 0; i < 64; i++) {
                char key[16];
                struct store_txn *t;

                snprintf(key, sizeof(key), "k%d", i);
                t = txn_of("t1", key, 0, 1, "x");
                waiter_init(&w[i]);
                t->done = waiter_done;
                t->arg = &w[i];
                f->s->ops->commit(f->s, t);
        }
        f->s->ops->close(f->s);
        for (int i = 0; i < 64; i++)
                assert_int_equal(w[i].calls, 1);
        fixture_open(f);
        if (keeps(f))
                assert_int_equal(count_records(f->s), 64);
}

static void test_reload(void **state)
{
        struct fixture *f = *state;
        struct store_txn *t = txn_of("t1", "a", 0, 41, "kept");
        uint64_t before, now, epoch;

        strcpy(t->id, "11111111-2222-3333-4444-555555555555");
        assert_int_equal(f->s->ops->epoch(f->s, &epoch, NULL), 0);
        assert_int_equal(commit_wait(f->s, t, NULL), STORE_COMMITTED);
        put_wait(f->s, "t1", "b", 0, 1, "gone");
        assert_changes(f->s, "t1", 0, "t1/a=kept t1/b=gone ", &before);
        put_wait(f->s, "t1", "b", 1, 0, NULL);
        f->s->ops->close(f->s);
        fixture_open(f);
        assert_value(f->s, "a", "kept", 41);
        assert_value(f->s, "b", NULL, 0);
        assert_int_equal(f->s->ops->committed(f->s, "11111111-2222-3333-4444-555555555555", NULL),
                         1);
        assert_changes(f->s, "t1", before, "t1/b=- ", &now);
        assert_true(now > before);
        assert_int_equal(f->s->ops->epoch(f->s, &epoch, NULL), 0);
        assert_int_equal(epoch, 2);
        assert_int_equal(put_wait(f->s, "t1", "a", 41, 42, "on"), STORE_COMMITTED);
}

#define BOTH(f)                                                                                    \
        {"memory " #f, f, setup_memory, teardown, NULL},                                           \
        {                                                                                          \
                "sqlite " #f, f, setup_sqlite, teardown, NULL                                      \
        }

/* Deletions older than what is remembered are an error, and the newest are there. */
static void test_forgotten(void **state)
{
        struct store *s = ((struct fixture *)*state)->s;
        enum { TXNS = 30, EACH_TXN = 500 };
        struct seen seen = {0};
        uint64_t before, late = 0, now;
        struct store_txn *t = txn_of("t1", "gone", 0, 1, "x");
        char key[16];

        assert_int_equal(commit_wait(s, t, NULL), STORE_COMMITTED);
        assert_changes(s, "t1", 0, "t1/gone=x ", &before);
        put_wait(s, "t1", "gone", 1, 0, NULL);
        for (uint64_t i = 0; i < TXNS; i++) {
                t = store_txn_new("t1");
                for (int k = 0; k < EACH_TXN; k++) {
                        snprintf(key, sizeof(key), "k%d", k);
                        assert_int_equal(store_txn_add(t, key, i, i + 1, "x"), 0);
                }
                assert_int_equal(commit_wait(s, t, NULL), STORE_COMMITTED);
        }
        assert_int_equal(s->ops->changes(s, "t1", before, seen_each, &seen, &now, NULL), -ESTALE);
        assert_int_equal(s->ops->changes(s, "t1", 0, seen_each, &seen, &late, NULL), 0);
        put_wait(s, "t1", "k7", TXNS, 0, NULL);
        put_wait(s, "t1", "k8", TXNS, TXNS + 1, "y");
        assert_changes(s, "t1", late, "t1/k7=- t1/k8=y ", &now);
        assert_int_equal(count_records(s), EACH_TXN - 1);
}

struct heard {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        char text[512];
};

static void heard_changed(void *arg, const char *scope, const struct store_record *v, size_t n,
                          bool whole, uint64_t now _unused_)
{
        struct heard *h = arg;
        WITH_LOCK(&h->lock);

        for (size_t i = 0; i < n; i++) {
                size_t len = strlen(h->text);

                snprintf(h->text + len, sizeof(h->text) - len, "%s%s/%s=%.*s ", whole ? "!" : "",
                         scope, v[i].key, v[i].value ? (int)v[i].len : 1,
                         v[i].value ? (const char *)v[i].value : "-");
        }
        pthread_cond_signal(&h->cond);
}

static void heard_wait(struct heard *h, const char *want)
{
        WITH_LOCK(&h->lock);

        while (strlen(h->text) < strlen(want))
                pthread_cond_wait(&h->cond, &h->lock);
        assert_string_equal(h->text, want);
        h->text[0] = '\0';
}

static int none_each(void *arg _unused_, const struct store_record *r _unused_)
{
        return 0;
}

/* Two hosts: what one commits the other hears of, and only that. */
static void test_watch(void **state)
{
        struct fixture *f = *state, other = *f;
        struct heard h = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        uint64_t now;

        fixture_open(&other);
        put_wait(other.s, "t1", "before", 0, 1, "x");
        assert_int_equal(f->s->ops->load(f->s, none_each, NULL, NULL), 0);
        put_wait(other.s, "t1", "a", 0, 1, "between");
        assert_int_equal(f->s->ops->watch(f->s, heard_changed, &h, NULL), 0);
        heard_wait(&h, "t1/a=between ");
        assert_int_equal(put_wait(f->s, "mine", "m", 0, 1, "x"), STORE_COMMITTED);
        put_wait(other.s, "t1", "a", 1, 2, "two");
        heard_wait(&h, "t1/a=two ");
        put_wait(other.s, "t2", "b", 0, 1, "new scope");
        heard_wait(&h, "!t2/b=new scope ");
        put_wait(other.s, "t2", "b", 1, 0, NULL);
        heard_wait(&h, "t2/b=- ");
        /* it has not said that it goes by what it heard */
        assert_int_equal(put_wait(f->s, "t1", "b", 0, 1, "y"), STORE_CONFLICT);
        assert_int_equal(f->s->ops->changes(f->s, "t1", 0, none_each, NULL, &now, NULL), 0);
        f->s->ops->applied(f->s, "t1", now);
        assert_int_equal(put_wait(f->s, "t1", "b", 0, 1, "y"), STORE_COMMITTED);
        assert_int_equal(put_wait(f->s, "t1", "b", 1, 2, "z"), STORE_COMMITTED);
        assert_int_equal(f->s->ops->watch(f->s, NULL, NULL, NULL), 0);
        other.s->ops->close(other.s);
}

static void test_numbers(void **state)
{
        struct fixture *f = *state, other = *f;
        uint64_t n;

        fixture_open(&other);
        assert_int_equal(f->s->ops->numbers(f->s, 1, 10, &n, NULL), 0);
        assert_int_equal(n, 1);
        assert_int_equal(other.s->ops->numbers(other.s, 0, 5, &n, NULL), 0);
        assert_int_equal(n, 11);
        assert_int_equal(f->s->ops->numbers(f->s, 100, 1, &n, NULL), 0);
        assert_int_equal(n, 100);
        assert_int_equal(other.s->ops->numbers(other.s, 1, 1, &n, NULL), 0);
        assert_int_equal(n, 101);
        other.s->ops->close(other.s);
}

/* The one that is shut out writes nothing more, anywhere; the others do. */
static void test_fence(void **state)
{
        struct fixture *f = *state, other = *f;
        uint64_t mine, theirs;
        struct waiter w;

        fixture_open(&other);
        assert_int_equal(f->s->ops->epoch(f->s, &mine, NULL), 0);
        assert_int_equal(other.s->ops->epoch(other.s, &theirs, NULL), 0);
        assert_int_not_equal(mine, theirs);
        assert_int_equal(put_wait(other.s, "t1", "a", 0, 1, "x"), STORE_COMMITTED);
        assert_int_equal(f->s->ops->fence(f->s, theirs, NULL), 0);
        assert_int_equal(commit_wait(other.s, txn_of("t1", "a", 1, 2, "y"), &w), STORE_FAILED);
        assert_int_equal(w.code, -ESHUTDOWN);
        assert_int_equal(commit_wait(other.s, txn_of("t9", "a", 0, 1, "y"), &w), STORE_FAILED);
        assert_int_equal(w.code, -ESHUTDOWN);
        assert_int_equal(put_wait(f->s, "t1", "a", 1, 2, "z"), STORE_COMMITTED);
        assert_value(f->s, "a", "z", 2);
        assert_int_equal(count_records(f->s), 1);
        other.s->ops->close(other.s);
}

#define RADOS(f) cmocka_unit_test_setup_teardown(f, setup_rados, teardown)

static int rados_tests(void)
{
        const struct CMUnitTest tests[] = {
                RADOS(test_versions),    RADOS(test_delete),    RADOS(test_atomic),
                RADOS(test_order),       RADOS(test_committed), RADOS(test_changes),
                RADOS(test_stop),        RADOS(test_epoch),     RADOS(test_threads),
                RADOS(test_close_waits), RADOS(test_reload),    RADOS(test_forgotten),
                RADOS(test_watch),       RADOS(test_numbers),   RADOS(test_fence),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                BOTH(test_versions),
                BOTH(test_delete),
                BOTH(test_atomic),
                BOTH(test_order),
                BOTH(test_committed),
                BOTH(test_changes),
                BOTH(test_stop),
                BOTH(test_epoch),
                BOTH(test_threads),
                BOTH(test_close_waits),
                cmocka_unit_test_setup_teardown(test_reload, setup_sqlite, teardown),
                cmocka_unit_test_setup_teardown(test_forgotten, setup_sqlite, teardown),
        };

        if (argc > 1 && streq(argv[1], "rados"))
                return rados_tests();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
