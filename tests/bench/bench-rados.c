/* bench-rados: the RADOS store on the pool STRATOFS_POOL of the cluster that CEPH_CONF names.
 * Durable creations of objects a second from four processes together, in scopes of their own and in
 * one that they share, and how long 100,000 objects take to read.  Beside it what the cluster
 * itself can do in the same run: unguarded writes of one key, one after the other.  With any
 * argument: the reading only. */
#include <rados/librados.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "backend/store/rados/rados.h"
#include "common/clock.h"

enum { SECONDS = 3, PROCESSES = 4, VALUE = 300, LOADED = 100000, TOGETHER = 500 };

static char space[64];

struct waiter {
        struct store *s;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t cond;
        int result; /* -1 while it runs */
        char scope[40], name[16];
        uint64_t commits, until;
};

static struct store *must_open(void)
{
        struct store_rados_config cfg = {
                .conf = getenv("CEPH_CONF"), .pool = getenv("STRATOFS_POOL"), .space = space};
        struct err *e = NULL;
        struct store *s;

        if (store_rados_open(&cfg, &s, &e) < 0) {
                fprintf(stderr, "%s\n", err_msg(e));
                exit(1);
        }
        return s;
}

static void done(void *arg, enum store_result result, const struct err *err)
{
        struct waiter *w = arg;
        WITH_LOCK(&w->lock);

        if (result != STORE_COMMITTED)
                fprintf(stderr, "commit: %d %s\n", (int)result, err_msg(err));
        w->result = (int)result;
        pthread_cond_signal(&w->cond);
}

static void commit(struct waiter *w, struct store_txn *t)
{
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
}

static void *waiter_main(void *arg)
{
        struct waiter *w = arg;
        char key[37], value[VALUE + 1];

        while ((uint64_t)clock_mono() < w->until) {
                struct store_txn *t = store_txn_new(w->scope);

                snprintf(key, sizeof(key), "%s-%llu", w->name, (unsigned long long)w->commits);
                snprintf(value, sizeof(value), "%0*llu", VALUE, (unsigned long long)w->commits);
                memcpy(t->id, key, sizeof(t->id));
                store_txn_add(t, key, 0, 1, value);
                commit(w, t);
                w->commits++;
        }
        return NULL;
}

/* One process: its waiters make objects until `until`. */
static uint64_t create_many(int process, int waiters, bool shared, uint64_t until)
{
        struct waiter *w = calloc((size_t)waiters, sizeof(*w));
        struct store *s = must_open();
        uint64_t n = 0;

        for (int i = 0; i < waiters; i++) {
                w[i] = (struct waiter){.s = s,
                                       .lock = PTHREAD_MUTEX_INITIALIZER,
                                       .cond = PTHREAD_COND_INITIALIZER,
                                       .until = until};
                snprintf(w[i].scope, sizeof(w[i].scope), "%s%d-%d", shared ? "shared" : "own",
                         shared ? 0 : process, waiters);
                snprintf(w[i].name, sizeof(w[i].name), "%d-%d", process, i);
                if (pthread_create(&w[i].thread, NULL, waiter_main, &w[i]) != 0)
                        exit(1);
        }
        for (int i = 0; i < waiters; i++) {
                pthread_join(w[i].thread, NULL);
                n += w[i].commits;
        }
        s->ops->close(s);
        free(w);
        return n;
}

static double create_rate(int waiters, bool shared)
{
        uint64_t *counts = mmap(NULL, PROCESSES * sizeof(*counts), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        int64_t start = clock_mono() + 500000; /* all have connected */
        uint64_t n = 0;

        for (int i = 0; i < PROCESSES; i++) {
                if (fork() != 0)
                        continue;
                counts[i] = create_many(i, waiters, shared, (uint64_t)start + SECONDS * 1000000);
                _exit(0);
        }
        for (int i = 0, status; i < PROCESSES; i++)
                if (wait(&status) < 0 || status != 0)
                        exit(1);
        for (int i = 0; i < PROCESSES; i++)
                n += counts[i];
        munmap(counts, PROCESSES * sizeof(*counts));
        return (double)n / ((double)(clock_mono() - start + 500000) / 1e6);
}

static int count_one(void *arg, const struct store_record *r _unused_)
{
        ++*(size_t *)arg;
        return 0;
}

static double cpu_seconds(void)
{
        struct rusage u;

        getrusage(RUSAGE_SELF, &u);
        return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* And how long of it this process was busy, which other load does not change. */
static double load_seconds(double *ret_busy)
{
        struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        char key[64], value[VALUE + 1];
        size_t n = 0;
        int64_t start;

        snprintf(space + strlen(space), sizeof(space) - strlen(space), "-load");
        w.s = must_open();
        for (int i = 0; i < LOADED; i += TOGETHER) {
                struct store_txn *t = store_txn_new("tenant");

                for (int k = i; k < i + TOGETHER; k++) {
                        snprintf(key, sizeof(key), "11111111-2222-3333-4444-%012d", k);
                        snprintf(value, sizeof(value), "%0*d", VALUE, k);
                        store_txn_add(t, key, 0, 1, value);
                }
                commit(&w, t);
        }
        w.s->ops->close(w.s);
        *ret_busy = cpu_seconds();
        start = clock_mono();
        w.s = must_open();
        if (w.s->ops->load(w.s, count_one, &n, NULL) < 0 || n != LOADED)
                exit(1);
        start = clock_mono() - start;
        *ret_busy = cpu_seconds() - *ret_busy;
        w.s->ops->close(w.s);
        return (double)start / 1e6;
}

static double plain_rate(void)
{
        rados_t cluster;
        rados_ioctx_t io;
        int64_t start;
        uint64_t n = 0;

        if (rados_create2(&cluster, "ceph", "client.admin", 0) < 0 ||
            rados_conf_read_file(cluster, getenv("CEPH_CONF")) < 0 || rados_connect(cluster) < 0 ||
            rados_ioctx_create(cluster, getenv("STRATOFS_POOL"), &io) < 0)
                exit(1);
        start = clock_mono();
        for (; clock_mono() < start + SECONDS * 1000000; n++) {
                char key[32], value[VALUE];
                const char *k = key, *v = value;
                size_t klen = (size_t)snprintf(key, sizeof(key), "%d", (int)(n % 1000)),
                       vlen = VALUE;
                rados_write_op_t op = rados_create_write_op();

                memset(value, (int)n, sizeof(value));
                rados_write_op_omap_set2(op, &k, &v, &klen, &vlen, 1);
                if (rados_write_op_operate2(op, io, "bench-plain", NULL, 0) < 0)
                        exit(1);
                rados_release_write_op(op);
        }
        rados_ioctx_destroy(io);
        rados_shutdown(cluster);
        return (double)n / SECONDS;
}

static void tell_rates(void)
{
        printf("creations a second, %d processes, %d bytes each:\n", PROCESSES, VALUE);
        for (int shared = 0; shared <= 1; shared++)
                for (int waiters = 1; waiters <= 32; waiters *= 32)
                        printf("  %-6s scope%s  %2d waiters a process  %8.0f/s\n",
                               shared ? "one" : "own", shared ? " " : "s", waiters,
                               create_rate(waiters, shared));
        /* no process may fork with a connection */
        printf("cluster: %8.0f unguarded writes/s, one after the other\n", plain_rate());
}

int main(int argc, char **argv _unused_)
{
        double load, busy;

        if (!getenv("CEPH_CONF") || !getenv("STRATOFS_POOL")) {
                fprintf(stderr,
                        "bench-rados: CEPH_CONF and STRATOFS_POOL name a cluster and a pool\n");
                return 1;
        }
        snprintf(space, sizeof(space), "bench-%lld", (long long)clock_now());
        if (argc == 1)
                tell_rates();
        load = load_seconds(&busy);
        printf("%d objects opened and read in %.2f s, busy for %.2f s\n", LOADED, load, busy);
        return 0;
}
