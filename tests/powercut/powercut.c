/* powercut_SUBJECT [--states N] [--long N] [--seed S] [ARGUMENT]: opens so many states that a power
 * cut may leave.  --long is --states where STRATOFS_LONG is set; --seed is the first one. */
#include "powercut.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fileio.h"
#include "common/log.h"

enum {
        OPS_MAX = 64,
        GENERATIONS = 3,
        ONE_IN = 8,        /* events before which there is a state */
        LARGE_ONE_IN = 40, /* of a large seed */
        ENOUGH = 2000,     /* states from seed 1, in which everything must have been seen */
};

struct test {
        uint64_t seed, states, want;
        unsigned generation;
        uint32_t at; /* event */
        char *dir, *cut;
        struct rnd r;
        struct model_head *live; /* shared with the children */
        struct model_head *m;    /* as of `at` */
        struct model_head *next; /* as of where the next generation begins */
        struct disk *disk;
        uint64_t kills, things;
        uint64_t by_op[OPS_MAX], by_event[EV_FILES];
};
static struct test t;

static const char *op_name(uint32_t op)
{
        return op < subject.nops ? subject.op_name(op) : "(start)";
}

void broken(const char *fmt, ...)
{
        va_list ap;

        fprintf(stderr,
                "\npowercut_%s: seed %llu, generation %u, event %u, during '%s': ", subject.name,
                (unsigned long long)t.seed, t.generation, the_record.on ? the_log->n : t.at,
                op_name(the_record.on ? t.live->op : t.m->op));
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fprintf(stderr, "\nin %s\n", t.dir);
        abort();
}

static void *shared(size_t n)
{
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);

        CHECK(p != MAP_FAILED, "no memory");
        return p;
}

/* ---- numbers and notes ---- */

uint64_t rnd_next(struct rnd *r)
{
        uint64_t z = r->s += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

unsigned rnd_below(struct rnd *r, unsigned n)
{
        return (rnd_next(r) >> 32) * n >> 32;
}

void model_apply(void *m, const struct event *ev)
{
        if (ev->kind == EV_OP)
                ((struct model_head *)m)->op = ev->child;
        else if (ev->kind >= EV_SUBJECT)
                subject.apply(m, ev);
}

void note(void *m, const struct event *ev)
{
        *log_add(ev->kind) = *ev;
        model_apply(m, ev);
}

/* ---- a state ---- */

static struct cut any_cut(void)
{
        static const struct cut kinds[] = {{256, 0},   {0, 256},         {0, 0},
                                           {128, 128}, {224, 16},        {16, 224},
                                           {240, 16},  {128, 128, true}, {0, 0, true}};

        return kinds[rnd_below(&t.r, ARRAY_SIZE(kinds))];
}

static void one_state(void)
{
        _cleanup_free_ char *run = path_printf("%s/cutrun", t.dir);

        t.things += disk_write(t.disk, t.cut, t.at, any_cut(), &t.r);
        subject.check(t.m, t.cut, run, &t.r);
        CHECK(remove_tree(run, NULL) == 0, "remove '%s'", run);
        CHECK(remove_tree(t.cut, NULL) == 0, "remove '%s'", t.cut);
        t.states++;
        t.by_op[MIN(t.m->op, subject.nops)]++;
        t.by_event[the_log->ev[t.at].kind]++;
}

/* ---- a generation ---- */

static bool large(void)
{
        return subject.large && subject.large(t.seed);
}

static void live(bool prepare)
{
        struct life l = {.r = {rnd_next(&t.r)}, .m = t.live, .dir = t.dir, .seed = t.seed};
        pid_t pid;
        int status;

        l.ops = subject.ops;
        l.cut = t.generation > 0 && !t.live->settled;
        fflush(stdout);
        pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) {
                the_record.on = !prepare;
                (prepare ? subject.prepare : subject.life)(&l);
                _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid, "wait");
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
                t.kills++;
        else if (status != 0)
                broken("the child ended with status %#x", status);
}

/* The workload, and its log. */
static void record(const char *top)
{
        unsigned lives = 1 + rnd_below(&t.r, 3);
        uint64_t killed;

        if (t.generation == 0 && large())
                live(true);
        record_begin(top);
        t.disk = disk_new();
        disk_load(t.disk, top);
        memcpy(t.m, t.live, subject.model);
        do {
                killed = t.kills;
                live(false);
        } while (t.kills > killed || --lives > 0);
}

static void generation(void)
{
        _cleanup_free_ char *top = path_printf("%s/disk", t.dir);
        _cleanup_free_ char *run = path_printf("%s/run", t.dir);
        unsigned one_in = large() ? LARGE_ONE_IN : ONE_IN;
        bool chosen = false;
        uint32_t stop;

        t.at = 0;
        record(top);
        subject.names(t.m, t.live);
        stop = the_log->n / 2 + rnd_below(&t.r, the_log->n / 2 + 1);
        for (; t.at < the_log->n; t.at++) {
                const struct event *ev = &the_log->ev[t.at];

                if (ev->kind < EV_FILES && rnd_one_in(&t.r, one_in))
                        one_state();
                if (ev->kind < EV_FILES && t.at >= stop && !chosen) {
                        _cleanup_free_ char *left = path_printf("%s.next", t.cut);

                        disk_write(t.disk, left, t.at, any_cut(), &t.r);
                        memcpy(t.next, t.m, subject.model);
                        chosen = true;
                }
                disk_apply(t.disk, ev, t.at);
                model_apply(t.m, ev);
        }
        disk_compare(t.disk, top);
        disk_free(t.disk);
        t.disk = NULL;
        if (chosen) {
                _cleanup_free_ char *left = path_printf("%s.next", t.cut);

                CHECK(remove_tree(top, NULL) == 0 && rename(left, top) == 0, "adopt '%s'", left);
                remove_tree(run, NULL); /* what a boot does not keep */
                subject.adopt(t.next, t.live);
                t.next->op = NONE;
                t.next->settled = false;
                memcpy(t.live, t.next, subject.model);
        }
}

static void seed(void)
{
        _cleanup_free_ char *top = path_printf("%s/disk", t.dir);

        t.r = (struct rnd){t.seed};
        *t.live = (struct model_head){.op = NONE};
        subject.reset(t.live);
        the_log->next_id = 1;
        remove_tree(t.dir, NULL);
        CHECK(mkdir(t.dir, 0700) == 0 && mkdir(top, 0700) == 0, "mkdir '%s'", t.dir);
        for (t.generation = 0; t.generation < GENERATIONS; t.generation++)
                generation();
}

static void report(uint64_t first, int64_t took)
{
        printf("%llu states of seeds %llu..%llu in %.1f s, %llu kills, %.1f things open in each\n",
               (unsigned long long)t.states, (unsigned long long)first,
               (unsigned long long)t.seed - 1, took / 1e6, (unsigned long long)t.kills,
               (double)t.things / t.states);
        printf("cut before a write %llu, zero or punch %llu, size %llu, name %llu, sync %llu, "
               "synchronous write's end %llu\n",
               (unsigned long long)t.by_event[EV_WRITE], (unsigned long long)t.by_event[EV_ZERO],
               (unsigned long long)t.by_event[EV_SIZE], (unsigned long long)t.by_event[EV_ENTRY],
               (unsigned long long)t.by_event[EV_SYNC],
               (unsigned long long)t.by_event[EV_SYNC_RANGE]);
        printf("cut during");
        for (unsigned i = 0; i <= subject.nops; i++)
                if (t.by_op[i])
                        printf(" %s %llu,", op_name(i), (unsigned long long)t.by_op[i]);
        printf(" of all\n");
        for (unsigned i = 0; i < subject.ncounters; i++)
                printf("%s%s %llu", i ? ", " : "seen: ", subject.counters[i].name,
                       (unsigned long long)subject.counters[i].n);
        printf("\n");
}

/* A test that does not come by what it is for has failed. */
static void all_seen(void)
{
        for (unsigned i = 0; i < subject.nops; i++)
                CHECK(t.by_op[i] || !subject.op_counts(i), "no cut during '%s'", op_name(i));
        for (unsigned i = 0; i < subject.ncounters; i++)
                CHECK(subject.counters[i].n, "not seen: %s", subject.counters[i].name);
}

int main(int argc, char **argv)
{
        static const struct option longs[] = {{"states", required_argument, NULL, 'n'},
                                              {"long", required_argument, NULL, 'l'},
                                              {"seed", required_argument, NULL, 's'},
                                              {}};
        const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        int64_t began = clock_mono();
        uint64_t first = 1;
        char *own;
        int c;

        t.want = 3000;
        while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (c == 's')
                        first = strtoull(optarg, NULL, 0);
                else if (c == 'n' || (c == 'l' && getenv("STRATOFS_LONG")))
                        t.want = strtoull(optarg, NULL, 0);
                else if (c != 'l')
                        return 2;
        }
        log_set_level(LOG_CRIT);
        the_log = shared(sizeof(*the_log));
        t.live = shared(subject.model);
        t.m = calloc(1, subject.model);
        t.next = calloc(1, subject.model);
        t.dir = path_printf("%s/powercut.%d", tmp, getpid());
        t.cut = path_printf("%s/cut", t.dir);
        CHECK(t.m && t.next && t.dir && t.cut && subject.nops < OPS_MAX, "no memory");
        own = path_printf("%s.own", t.dir);
        CHECK(own && mkdir(own, 0700) == 0, "mkdir");
        subject.begin(own, argv[optind]);
        for (t.seed = first; t.states < t.want; t.seed++)
                seed();
        report(first, clock_mono() - began);
        subject.end();
        if (t.states >= ENOUGH && first == 1)
                all_seen();
        remove_tree(own, NULL);
        free(own);
        free(t.next);
        remove_tree(t.dir, NULL);
        free(t.dir);
        free(t.cut);
        free(t.m);
        return 0;
}
