/* bench-store [FOLDER]: commits a second of the SQLite store with 1 and 32 waiters, beside what
 * the disk itself can do in the same run: appends of 8 KiB, each followed by fdatasync, which is
 * about what one commit writes. */
#include <fcntl.h>
#include <sys/resource.h>

#include "backend/store/sqlite/sqlite.h"
#include "common/clock.h"
#include "common/fileio.h"

enum { SECONDS = 2, WAITERS_MAX = 32, VALUE = 300 };

struct waiter {
        struct store *s;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t cond;
        int result; /* -1 while it runs */
        int id;
        uint64_t commits;
        int64_t until;
};

static void done(void *arg, enum store_result result, const struct err *err)
{
        struct waiter *w = arg;
        WITH_LOCK(&w->lock);

        if (result != STORE_COMMITTED)
                fprintf(stderr, "commit: %s\n", err_msg(err));
        w->result = (int)result;
        pthread_cond_signal(&w->cond);
}

/* Rewrites a key of its own with changing bytes: equal bytes would dirty no page. */
static void *waiter_main(void *arg)
{
        struct waiter *w = arg;
        char key[64], value[VALUE + 1];
        uint64_t base = (uint64_t)clock_now();

        for (uint64_t v = 0; clock_mono() < w->until; v++) {
                struct store_txn *t = store_txn_new("bench");

                snprintf(key, sizeof(key), "%d-%d", w->id, (int)(v % 100));
                snprintf(value, sizeof(value), "%0*llu", VALUE, (unsigned long long)(base + v));
                snprintf(t->id, sizeof(t->id), "%d-%llu", w->id, (unsigned long long)(base + v));
                store_txn_add(t, key, v < 100 ? 0 : base + v - 100, base + v, value);
                t->done = done;
                t->arg = w;
                w->result = -1;
                w->s->ops->commit(w->s, t);
                pthread_mutex_lock(&w->lock);
                while (w->result < 0)
                        pthread_cond_wait(&w->cond, &w->lock);
                pthread_mutex_unlock(&w->lock);
                if (w->result != STORE_COMMITTED)
                        exit(1);
                w->commits++;
        }
        return NULL;
}

static double cpu_seconds(void)
{
        struct rusage u;

        getrusage(RUSAGE_SELF, &u);
        return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double bench_waiters(const char *dir, int n, double *ret_cpu)
{
        _cleanup_free_ char *path = path_printf("%s/bench-%d.db", dir, n);
        static struct waiter waiters[WAITERS_MAX];
        struct err *e = NULL;
        struct store *s;
        uint64_t commits = 0;
        int64_t start;
        double cpu = cpu_seconds(), seconds;

        if (store_sqlite_open(path, &s, &e) < 0) {
                fprintf(stderr, "%s\n", err_msg(e));
                exit(1);
        }
        start = clock_mono();
        for (int i = 0; i < n; i++) {
                waiters[i] = (struct waiter){.s = s, .id = i, .until = start + SECONDS * 1000000};
                pthread_mutex_init(&waiters[i].lock, NULL);
                pthread_cond_init(&waiters[i].cond, NULL);
                if (pthread_create(&waiters[i].thread, NULL, waiter_main, &waiters[i]) != 0)
                        exit(1);
        }
        for (int i = 0; i < n; i++) {
                pthread_join(waiters[i].thread, NULL);
                commits += waiters[i].commits;
        }
        seconds = (double)(clock_mono() - start) / 1e6;
        *ret_cpu = (cpu_seconds() - cpu) / (double)commits * 1e6;
        s->ops->close(s);
        return (double)commits / seconds;
}

static double bench_disk(const char *dir)
{
        _cleanup_free_ char *path = path_printf("%s/bench-disk", dir);
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int64_t start, until;
        char block[8192];
        uint64_t n = 0;

        memset(block, 1, sizeof(block));
        for (int i = 0; i < 2000; i++) /* like a WAL file, it is written over, not grown */
                if (pwrite_full(fd, block, sizeof(block), (uint64_t)i * sizeof(block)) < 0)
                        exit(1);
        fsync(fd);
        start = clock_mono();
        for (until = start + SECONDS * 1000000; clock_mono() < until; n++) {
                memset(block, (int)n, sizeof(block));
                if (pwrite_full(fd, block, sizeof(block), n % 2000 * sizeof(block)) < 0 ||
                    fdatasync(fd) < 0)
                        exit(1);
        }
        return (double)n / ((double)(clock_mono() - start) / 1e6);
}

int main(int argc, char **argv)
{
        _cleanup_free_ char *dir =
                path_printf("%s/bench-store-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
        double disk, one, many, cpu_one, cpu_many;

        if (!dir || !mkdtemp(dir)) {
                perror("mkdtemp");
                return 1;
        }
        disk = bench_disk(dir);
        one = bench_waiters(dir, 1, &cpu_one);
        many = bench_waiters(dir, WAITERS_MAX, &cpu_many);
        printf("disk        %8.0f fdatasync/s\n", disk);
        printf("1 waiter    %8.0f commits/s  %5.2f x disk  %5.1f us CPU a commit\n", one,
               one / disk, cpu_one);
        printf("%d waiters  %8.0f commits/s  %5.2f x disk  %5.1f us CPU a commit\n", WAITERS_MAX,
               many, many / disk, cpu_many);
        remove_tree(dir, NULL);
        return 0;
}
