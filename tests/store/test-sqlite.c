/* What can happen to the SQLite store: kill -9, a second opener, a full disk, a disk that fails,
 * a damaged file.  Wants root for the small tmpfs. */
#include "tests/store/wait.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>
#include <sqlite3.h>

#include "backend/store/sqlite/sqlite.h"
#include "common/fault.h"
#include "common/fileio.h"

static char dir[] = "/tmp/store-XXXXXX";
static char path[128];

/* libsqlite3 finds this one before libc's: a disk whose sync fails while it is set. */
static atomic_int sync_fails;

int fdatasync(int fd)
{
        if (atomic_load(&sync_fails)) {
                errno = EIO;
                return -1;
        }
        return fsync(fd);
}

static struct store *must_open(const char *p)
{
        struct err *e = NULL;
        struct store *s;

        if (store_sqlite_open(p, &s, &e) < 0)
                fail_msg("%s", err_msg(e));
        return s;
}

static void assert_refused(const char *p, int code, const char *words)
{
        _cleanup_err_ struct err *e = NULL;
        struct store *s;

        assert_int_equal(store_sqlite_open(p, &s, &e), code);
        assert_non_null(e);
        if (!strstr(err_msg(e), words) || !strstr(err_msg(e), p))
                fail_msg("'%s' lacks '%s'", err_msg(e), words);
}

static int setup(void **state _unused_)
{
        strcpy(strrchr(dir, '-'), "-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/store.db", dir);
        return 0;
}

static int teardown(void **state _unused_)
{
        return remove_tree(dir, NULL);
}

/* The child's acknowledgements: key numbers, written to a pipe by the callback. */
struct acker {
        int fd;
        uint32_t n;
};

static void ack(void *arg, enum store_result result, const struct err *err _unused_)
{
        struct acker *a = arg;

        if (result == STORE_COMMITTED && write(a->fd, &a->n, sizeof(a->n)) != sizeof(a->n))
                _exit(1);
        free(a);
}

static void child_commits(int fd, uint32_t from)
{
        struct store *s;

        if (store_sqlite_open(path, &s, NULL) < 0)
                _exit(2);
        for (uint32_t n = from;; n++) {
                struct acker *a = malloc(sizeof(*a));
                struct store_txn *t;
                char key[16], value[64];

                *a = (struct acker){fd, n};
                snprintf(key, sizeof(key), "%u", n);
                snprintf(value, sizeof(value), "value of %u", n);
                t = txn_of("t1", key, 0, 1, value);
                snprintf(t->id, sizeof(t->id), "id-%u", n);
                t->done = ack;
                t->arg = a;
                if (n % 16 == 0) /* now and then one is alone, and the queue stays short */
                        s->ops->committed(s, "none", NULL);
                s->ops->commit(s, t);
        }
}

static void test_kill(void **state _unused_)
{
        uint32_t next = 1, n;

        for (int round = 0; round < 12; round++) {
                uint32_t got = 0, most = 0, wanted = 20 + round * 37;
                int fds[2], status;
                struct store *s;
                pid_t pid;

                assert_int_equal(pipe(fds), 0);
                pid = fork();
                if (pid == 0)
                        child_commits(fds[1], next);
                close(fds[1]);
                while (got < wanted && read(fds[0], &n, sizeof(n)) == sizeof(n))
                        got++;
                assert_int_equal(kill(pid, SIGKILL), 0);
                waitpid(pid, &status, 0);
                assert_true(WIFSIGNALED(status));
                most = next + got - 1; /* acknowledged in order; and what came meanwhile: */
                while (read(fds[0], &n, sizeof(n)) == sizeof(n))
                        most = n;
                close(fds[0]);

                s = must_open(path);
                for (n = next; n <= most; n++) {
                        char text[64];

                        snprintf(text, sizeof(text), "id-%u", n);
                        assert_int_equal(s->ops->committed(s, text, NULL), 1);
                }
                next = (uint32_t)count_records(s) + 1; /* no holes: 1..count */
                assert_true(next > most);
                s->ops->close(s);
        }
}

static void test_second(void **state _unused_)
{
        struct store *s = must_open(path);
        int fds[2], status;
        char c;
        pid_t pid;

        assert_int_equal(put_wait(s, "t1", "a", 0, 1, "x"), STORE_COMMITTED);
        assert_refused(path, -EBUSY, "in use");
        assert_int_equal(put_wait(s, "t1", "b", 0, 1, "x"), STORE_COMMITTED);
        s->ops->close(s);

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        if (pid == 0) { /* holds it and does nothing */
                if (store_sqlite_open(path, &s, NULL) < 0 || write(fds[1], "x", 1) != 1)
                        _exit(1);
                pause();
        }
        assert_int_equal(read(fds[0], &c, 1), 1);
        assert_refused(path, -EBUSY, "in use");
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        close(fds[0]);
        close(fds[1]);
        s = must_open(path);
        assert_int_equal(count_records(s), 2);
        s->ops->close(s);
}

static void test_mode(void **state _unused_)
{
        struct store *s = must_open(path);
        char wal[160];
        struct stat st;

        put_wait(s, "t1", "a", 0, 1, "x");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        snprintf(wal, sizeof(wal), "%s-wal", path);
        assert_int_equal(stat(wal, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        snprintf(wal, sizeof(wal), "%s-shm", path);
        assert_int_equal(stat(wal, &st), -1);
        s->ops->close(s);
        assert_refused("/nowhere/store.db", -ENOENT, "No such file");
}

static void test_full(void **state _unused_)
{
        char file[160], ballast[160], *big = malloc(32 << 10);
        struct waiter w;
        struct store *s;
        size_t before;
        int fd, i;

        memset(big, 'x', (32 << 10) - 1);
        big[(32 << 10) - 1] = '\0';
        if (mount("tmpfs", dir, "tmpfs", 0, "size=4m") < 0)
                fail_msg("mount a tmpfs: %m (this test wants root)");
        snprintf(file, sizeof(file), "%s/store.db", dir);
        snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
        s = must_open(file);
        fd = open(ballast, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(posix_fallocate(fd, 0, 2 << 20), 0);
        close(fd);

        for (i = 0; i < 1000; i++) {
                char key[16];

                snprintf(key, sizeof(key), "k%d", i);
                if (commit_wait(s, txn_of("t1", key, 0, 1, big), &w) != STORE_COMMITTED)
                        break;
        }
        assert_in_range(i, 1, 999);
        assert_int_equal(w.result, STORE_FAILED);
        assert_int_equal(w.code, -ENOSPC);
        assert_non_null(strstr(w.words, "full"));
        before = count_records(s); /* reading goes on, and shows what was acknowledged only */
        assert_int_equal(before, i);
        assert_int_equal(commit_wait(s, txn_of("t1", "more", 0, 1, big), &w), STORE_FAILED);

        assert_int_equal(unlink(ballast), 0);
        assert_int_equal(commit_wait(s, txn_of("t1", "more", 0, 1, big), &w), STORE_COMMITTED);
        s->ops->close(s);
        s = must_open(file);
        assert_int_equal(count_records(s), before + 1);
        s->ops->close(s);
        free(big);
        assert_int_equal(umount(dir), 0);
}

/* A sync that fails: what was called failed must not come back after a crash. */
static void test_sync(void **state _unused_)
{
        struct waiter w;
        struct store *s;
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                struct store_txn *t = txn_of("t1", "doubt", 0, 1, "x");

                s = must_open(path);
                if (put_wait(s, "t1", "a", 0, 1, "x") != STORE_COMMITTED)
                        _exit(1);
                strcpy(t->id, "doubt");
                atomic_store(&sync_fails, 1);
                if (commit_wait(s, t, &w) != STORE_UNKNOWN) /* the WAL cannot be emptied either */
                        _exit(2);
                if (s->ops->committed(s, "doubt", NULL) != -EIO)
                        _exit(3);
                atomic_store(&sync_fails, 0);
                if (s->ops->committed(s, "doubt", NULL) != 0)
                        _exit(4);
                kill(getpid(), SIGKILL);
        }
        waitpid(pid, &status, 0);
        if (!WIFSIGNALED(status))
                fail_msg("child: step %d", WEXITSTATUS(status));
        s = must_open(path);
        assert_int_equal(s->ops->committed(s, "doubt", NULL), 0);
        assert_int_equal(count_records(s), 1);
        atomic_store(&sync_fails, 1);
        commit_wait(s, txn_of("t1", "b", 0, 1, "x"), &w);
        assert_int_not_equal(w.result, STORE_COMMITTED);
        atomic_store(&sync_fails, 0);
        assert_int_equal(put_wait(s, "t1", "b", 0, 1, "x"), STORE_COMMITTED);
        s->ops->close(s);
}

static void scribble(off_t off, const void *p, size_t n)
{
        int fd = open(path, O_WRONLY);

        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, p, n, off), n);
        close(fd);
}

static void fill(int n)
{
        struct store *s = must_open(path);

        for (int i = 0; i < n; i++) {
                char key[16];

                snprintf(key, sizeof(key), "k%d", i);
                assert_int_equal(put_wait(s, "t1", key, 0, 1, "some value of some length"),
                                 STORE_COMMITTED);
        }
        s->ops->close(s);
}

static void test_corrupt(void **state _unused_)
{
        _cleanup_free_ char *before = NULL, *after = NULL;
        char junk[4096];
        size_t n = 0, m = 0;

        fill(500);
        memset(junk, 0x5a, sizeof(junk));
        scribble(4096, junk, sizeof(junk)); /* the root page of a table */
        scribble(3 * 4096, junk, sizeof(junk));
        assert_int_equal(file_read(path, 1 << 20, &before, &n, NULL), 0);
        assert_refused(path, -EUCLEAN, ":");
        assert_int_equal(file_read(path, 1 << 20, &after, &m, NULL), 0);
        assert_int_equal(n, m);
        assert_memory_equal(before, after, n);
        scribble(0, junk, sizeof(junk));
        assert_refused(path, -EUCLEAN, "not a database");
}

static void test_foreign(void **state _unused_)
{
        sqlite3 *db;

        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "CREATE TABLE bookmarks (url TEXT)", 0, 0, 0), SQLITE_OK);
        sqlite3_close(db);
        assert_refused(path, -EUCLEAN, "not a store");
}

static void test_newer(void **state _unused_)
{
        sqlite3 *db;

        fill(1);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", 0, 0, 0), SQLITE_OK);
        sqlite3_close(db);
        assert_refused(path, -ENOTSUP, "newer");
}

/* Runs with STRATOFS_FAULT in a child, as the faults of a process are set once. */
static int with_fault(const char *fault, int (*f)(void))
{
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                setenv("STRATOFS_FAULT", fault, 1);
                fault_init();
                _exit(f());
        }
        waitpid(pid, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int second_fails(int code)
{
        struct store *s = must_open(path);
        struct waiter w;

        if (put_wait(s, "t1", "a", 0, 1, "x") != STORE_COMMITTED)
                return 1;
        if (commit_wait(s, txn_of("t1", "b", 0, 1, "x"), &w) != STORE_FAILED || w.code != code ||
            !strstr(w.words, "injected"))
                return 2;
        if (put_wait(s, "t1", "b", 0, 1, "x") != STORE_COMMITTED)
                return 3;
        if (count_records(s) != 2)
                return 4;
        s->ops->close(s);
        return 0;
}

static int second_fails_eio(void)
{
        return second_fails(-EIO);
}

static int second_fails_enospc(void)
{
        return second_fails(-ENOSPC);
}

static int second_dies(void)
{
        struct store *s = must_open(path);

        put_wait(s, "t1", "x", 0, 1, "x");
        put_wait(s, "t1", "y", 0, 1, "x");
        return 1;
}

static void test_injected(void **state _unused_)
{
        struct store *s;

        assert_int_equal(with_fault("store.commit=EIO:2", second_fails_eio), 0);
        unlink(path);
        assert_int_equal(with_fault("store.begin=ENOSPC:2", second_fails_enospc), 0);
        unlink(path);
        assert_int_equal(with_fault("store.commit=kill:2", second_dies), 1000 + SIGKILL);
        s = must_open(path);
        assert_int_equal(count_records(s), 1);
        s->ops->close(s);
}

/* A transaction that could never work fails alone, with words. */
static void test_refused(void **state _unused_)
{
        struct store *s = must_open(path);
        struct waiter w;

        assert_int_equal(commit_wait(s, txn_of("t1", "a", 5, 5, "x"), &w), STORE_FAILED);
        assert_int_equal(w.code, -EINVAL);
        assert_non_null(strstr(w.words, "version"));
        assert_int_equal(put_wait(s, "t1", "a", 0, 1, "x"), STORE_COMMITTED);
        s->ops->close(s);
}

static int none_each(void *arg _unused_, const struct store_record *r _unused_)
{
        return 0;
}

/* More changes than are remembered: tables stay small, numbers go on, old questions are ESTALE. */
static void test_prune(void **state _unused_)
{
        struct store *s = must_open(path);
        struct waiter w;
        uint64_t now = 0, after = 0;
        sqlite3 *db;
        sqlite3_stmt *st;

        for (int i = 0; i < 24000; i++) {
                struct store_txn *t = txn_of("t1", "k", (uint64_t)i, (uint64_t)i + 1, "x");

                snprintf(t->id, sizeof(t->id), "id-%d", i);
                if (i == 23999)
                        commit_wait(s, t, &w);
                else
                        s->ops->commit(s, t);
        }
        assert_int_equal(w.result, STORE_COMMITTED);
        assert_int_equal(s->ops->changes(s, "t1", 0, none_each, NULL, &now, NULL), 0);
        assert_int_equal(now, 24000);
        assert_int_equal(s->ops->changes(s, "t1", 1, none_each, NULL, &now, NULL), -ESTALE);
        assert_int_equal(s->ops->changes(s, "t1", now - 9000, none_each, NULL, &now, NULL), 0);
        assert_int_equal(s->ops->committed(s, "id-23000", NULL), 1);
        assert_int_equal(s->ops->committed(s, "id-3", NULL), 0);
        s->ops->close(s);
        s = must_open(path);
        assert_int_equal(s->ops->changes(s, "t1", 1, none_each, NULL, &after, NULL), -ESTALE);
        assert_int_equal(s->ops->changes(s, "t1", 0, none_each, NULL, &after, NULL), 0);
        assert_int_equal(after, now);
        s->ops->close(s);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_prepare_v2(db,
                                            "SELECT max((SELECT count(*) FROM changes),"
                                            "(SELECT count(*) FROM txns))",
                                            -1, &st, NULL),
                         SQLITE_OK);
        assert_int_equal(sqlite3_step(st), SQLITE_ROW);
        assert_in_range(sqlite3_column_int(st, 0), 10000, 12000);
        sqlite3_finalize(st);
        sqlite3_close(db);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_kill),     TEST(test_second),  TEST(test_mode),    TEST(test_full),
                TEST(test_sync),     TEST(test_corrupt), TEST(test_foreign), TEST(test_newer),
                TEST(test_injected), TEST(test_refused), TEST(test_prune),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
