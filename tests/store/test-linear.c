/* Four processes write one scope of the RADOS store, are killed at random and started anew, while
 * the OSD stands still now and then; their history must be one of a single store.
 *
 *     test-linear [SECONDS [PID OF AN OSD]]
 *
 * What is chosen by chance follows from STRATOFS_SEED, which it prints; what the machine does
 * meanwhile does not.
 *
 * A register is a pair of records, a and b, that each transaction changes together. */
#include "tests/store/linear.h"
#include "tests/store/wait.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "backend/store/rados/rados.h"
#include "common/clock.h"
#include "common/name.h"

enum { PROCESSES = 4, THREADS = 3, REGS = 6, OPS_MAX = 400000, KILL_MS = 400, STOP_MS = 3000 };

struct history {
        atomic_ulong n;
        struct linear_op v[OPS_MAX];
};

static struct history *history;
static char space[64];
static unsigned first_seed;
static atomic_uint lives; /* of processes, before a fork; of threads in each */

static struct store *must_open(unsigned timeout)
{
        struct store_rados_config cfg = {.conf = getenv("CEPH_CONF"),
                                         .pool = getenv("STRATOFS_POOL"),
                                         .space = space,
                                         .timeout = timeout};
        struct err *e = NULL;
        struct store *s;

        for (int i = 0; store_rados_open(&cfg, &s, &e) < 0; i++) {
                if (i == 20) {
                        fprintf(stderr, "%s\n", err_msg(e));
                        _exit(1);
                }
                e = err_free(e); /* the OSD stands still */
        }
        return s;
}

static struct linear_op *op_begin(enum linear_type type, unsigned reg, uint64_t version)
{
        unsigned long i = atomic_fetch_add(&history->n, 1);
        struct linear_op *op = &history->v[i];

        if (i >= OPS_MAX)
                _exit(0);
        op->reg = reg;
        op->version = version;
        op->value = i + 1;
        op->begin = clock_mono();
        op->type = type;
        return op;
}

static void op_end(struct linear_op *op, enum linear_result result)
{
        op->end = clock_mono();
        atomic_store(&op->result, result);
}

struct seen {
        uint64_t version[REGS][2], value[REGS][2];
};

static int see(void *arg, const struct store_record *r)
{
        struct seen *s = arg;
        unsigned reg = (unsigned)(r->key[1] - '0'), half = (unsigned)(r->key[0] - 'a');

        s->version[reg][half] = r->version;
        s->value[reg][half] = strtoull(r->value, NULL, 10);
        return 0;
}

/* Reads all registers: one operation each, at the same time. */
static bool read_all(struct store *s, uint64_t version[REGS])
{
        struct linear_op *ops[REGS];
        struct seen seen = {0};
        uint64_t now;
        int r;

        for (unsigned i = 0; i < REGS; i++)
                ops[i] = op_begin(LINEAR_READ, i, 0);
        r = s->ops->changes(s, "scope", 0, see, &seen, &now, NULL);
        for (unsigned i = 0; i < REGS; i++) {
                if (r == 0 && (seen.version[i][0] != seen.version[i][1] ||
                               seen.value[i][0] != seen.value[i][1])) {
                        fprintf(stderr, "half a transaction was seen\n");
                        abort();
                }
                version[i] = ops[i]->version = seen.version[i][0];
                ops[i]->value = seen.value[i][0];
                op_end(ops[i], r < 0 ? LINEAR_FAILED : LINEAR_DONE);
        }
        return r == 0;
}

/* An answer that was lost is asked for until it is known. */
static enum linear_result settle(struct store *s, const char *id)
{
        int r;

        do
                r = s->ops->committed(s, id, NULL);
        while (r < 0);
        return r ? LINEAR_DONE : LINEAR_FAILED;
}

static bool write_one(struct store *s, unsigned reg, uint64_t expect)
{
        struct linear_op *op = op_begin(LINEAR_WRITE, reg, expect + 1);
        char a[] = {'a', (char)('0' + reg), 0}, b[] = {'b', (char)('0' + reg), 0};
        char value[32], id[ID_TEXT_SIZE];
        enum linear_result result;
        struct store_txn *t;
        struct waiter w;

        snprintf(value, sizeof(value), "%llu", (unsigned long long)op->value);
        t = txn_of("scope", a, expect, expect + 1, value);
        store_txn_add(t, b, expect, expect + 1, value);
        strcpy(t->id, id_text(id, id_new()));
        switch (commit_wait(s, t, &w)) {
        case STORE_COMMITTED:
                result = LINEAR_DONE;
                break;
        case STORE_CONFLICT:
                result = LINEAR_CONFLICT;
                break;
        case STORE_UNKNOWN:
                result = settle(s, id);
                break;
        default:
                result = LINEAR_FAILED;
        }
        op_end(op, result);
        return result == LINEAR_DONE;
}

static void *worker_thread(void *arg)
{
        struct store *s = arg;
        unsigned seed = first_seed + 1000003 * atomic_fetch_add(&lives, THREADS);
        uint64_t version[REGS] = {0};

        for (;;) {
                unsigned reg = (unsigned)rand_r(&seed) % REGS;

                if (rand_r(&seed) % 4 == 0 || !version[reg])
                        read_all(s, version);
                if (write_one(s, reg, version[reg]))
                        version[reg]++;
                else
                        version[reg] = 0; /* look again */
        }
        return NULL;
}

static pid_t worker_start(void)
{
        pid_t pid;
        struct store *s;

        lives++;
        pid = fork();
        if (pid != 0)
                return pid;
        lives *= PROCESSES * THREADS;
        s = must_open(1);
        for (int i = 1; i < THREADS; i++) {
                pthread_t t;

                if (pthread_create(&t, NULL, worker_thread, s) != 0)
                        _exit(1);
        }
        worker_thread(s);
        _exit(0);
}

/* The last reads, by a process like the others. */
static int last_reads(void)
{
        uint64_t version[REGS];
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                struct store *s = must_open(10);

                _exit(read_all(s, version) ? 0 : 1);
        }
        return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -EIO;
}

static int torment(int seconds, pid_t osd)
{
        pid_t pids[PROCESSES];
        int64_t until = clock_mono() + seconds * 1000000LL;
        unsigned seed = first_seed;
        int kills = 0;

        for (int i = 0; i < PROCESSES; i++)
                pids[i] = worker_start();
        while (clock_mono() < until) {
                int victim = (int)((unsigned)rand_r(&seed) % PROCESSES);

                usleep(((unsigned)rand_r(&seed) % KILL_MS + KILL_MS / 2) * 1000);
                kill(pids[victim], SIGKILL);
                waitpid(pids[victim], NULL, 0);
                pids[victim] = worker_start();
                kills++;
                if (osd && kills % 5 == 3) {
                        kill(osd, SIGSTOP);
                        usleep(STOP_MS * 1000);
                        kill(osd, SIGCONT);
                }
        }
        for (int i = 0; i < PROCESSES; i++) {
                kill(pids[i], SIGKILL);
                waitpid(pids[i], NULL, 0);
        }
        return kills;
}

/* The checker finds what it is for. */
static int check_checker(void)
{
        struct linear_op good[] = {
                {LINEAR_DONE, LINEAR_WRITE, 0, 1, 10, 10, 20},
                {LINEAR_DONE, LINEAR_WRITE, 0, 2, 20, 15, 40},
                {LINEAR_CONFLICT, LINEAR_WRITE, 0, 2, 30, 16, 40},
                {LINEAR_OPEN, LINEAR_WRITE, 0, 3, 40, 50, 0},
                {LINEAR_DONE, LINEAR_READ, 0, 2, 20, 41, 55},
                {LINEAR_DONE, LINEAR_READ, 0, 3, 40, 90, 91},
        };
        struct linear_op bad[][3] = {
                /* a lost update */
                {{LINEAR_DONE, LINEAR_WRITE, 0, 1, 10, 10, 20},
                 {LINEAR_DONE, LINEAR_WRITE, 0, 1, 11, 15, 20},
                 {LINEAR_DONE, LINEAR_READ, 0, 1, 10, 90, 91}},
                /* an acknowledged write that is gone */
                {{LINEAR_DONE, LINEAR_WRITE, 0, 1, 10, 10, 20},
                 {LINEAR_DONE, LINEAR_WRITE, 0, 2, 11, 25, 30},
                 {LINEAR_DONE, LINEAR_READ, 0, 1, 10, 90, 91}},
                /* a stale read */
                {{LINEAR_DONE, LINEAR_WRITE, 0, 1, 10, 10, 20},
                 {LINEAR_DONE, LINEAR_READ, 0, 0, 0, 30, 40},
                 {LINEAR_DONE, LINEAR_READ, 0, 1, 10, 90, 91}},
                /* what was refused is there */
                {{LINEAR_DONE, LINEAR_WRITE, 0, 1, 10, 10, 20},
                 {LINEAR_FAILED, LINEAR_WRITE, 0, 2, 11, 25, 30},
                 {LINEAR_DONE, LINEAR_READ, 0, 2, 11, 90, 91}},
                /* a conflict with nobody */
                {{LINEAR_DONE, LINEAR_WRITE, 0, 1, 10, 10, 20},
                 {LINEAR_CONFLICT, LINEAR_WRITE, 0, 2, 11, 25, 30},
                 {LINEAR_DONE, LINEAR_READ, 0, 1, 10, 90, 91}},
        };
        int missed = linear_check(good, ARRAY_SIZE(good), 1) != 0;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                missed += linear_check(bad[i], ARRAY_SIZE(bad[i]), 1) == 0;
        return missed;
}

int main(int argc, char **argv)
{
        unsigned long count[4] = {0}, reads = 0;
        int kills, bad;

        fprintf(stderr, "what the checker says of histories that are wrong:\n");
        if (check_checker()) {
                fprintf(stderr, "the checker is wrong\n");
                return 1;
        }
        first_seed = getenv("STRATOFS_SEED") ? (unsigned)strtoul(getenv("STRATOFS_SEED"), NULL, 0)
                                             : (unsigned)clock_mono();
        fprintf(stderr, "-- and of the real one, STRATOFS_SEED=%u:\n", first_seed);
        history = mmap(NULL, sizeof(*history), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (history == MAP_FAILED)
                return 1;
        snprintf(space, sizeof(space), "linear-%d-%lld", (int)getpid(), (long long)clock_now());
        kills = torment(argc > 1 ? atoi(argv[1]) : 10, argc > 2 ? atoi(argv[2]) : 0);
        if (last_reads() < 0) {
                fprintf(stderr, "the last reads failed\n");
                return 1;
        }
        bad = linear_check(history->v, MIN(history->n, (unsigned long)OPS_MAX), REGS);
        for (unsigned long i = 0; i < history->n; i++) {
                if (history->v[i].type == LINEAR_WRITE)
                        count[history->v[i].result]++;
                reads += history->v[i].type == LINEAR_READ;
        }
        printf("%d kills; writes: %lu committed, %lu conflicts, %lu failed, %lu open; %lu reads; "
               "%d "
               "wrong\n",
               kills, count[LINEAR_DONE], count[LINEAR_CONFLICT], count[LINEAR_FAILED],
               count[LINEAR_OPEN], reads, bad);
        return bad || kills < 5 || count[LINEAR_DONE] < 500 || !count[LINEAR_CONFLICT];
}
