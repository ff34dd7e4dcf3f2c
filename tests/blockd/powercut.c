/* powercut [--states N] [--long N] [--seed S] [--seeds N]: opens so many states that a power cut
 * may leave.  --long is --states where STRATOFS_LONG is set; --seed is the first one. */
#include "powercut.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/volume/local/local.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"

enum {
        GENERATIONS = 3,
        OPS = 70,         /* in a life */
        ONE_IN = 8,       /* events before which there is a state */
        LONG_LOG = 16,    /* seeds of which one has a long map log */
        LONG_ONE_IN = 40, /* there, because each state is large */
};

struct test {
        uint64_t seed, states, want;
        unsigned generation;
        uint32_t at; /* event */
        char *dir, *cut;
        struct rnd r;
        struct model *live; /* shared with the children */
        struct model *m;    /* as of `at` */
        struct disk *disk;
        uint64_t kills, things;
        uint64_t by_op[32], by_event[8], torn, half, copies;
};
static struct test t;

static const char *op_name(uint32_t op)
{
        return op < noperations ? operations[op].name : "(start)";
}

void broken(const char *fmt, ...)
{
        va_list ap;

        fprintf(stderr, "\npowercut: seed %llu, generation %u, event %u, during '%s': ",
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

/* ---- a state ---- */

/* Findings that a power cut explains are counted, others are failures. */
static void check_before(const char *state)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r = local_check(state, false, f, NULL);

        fclose(f);
        CHECK(r >= 0, "check: %d", r);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                if (strstr(line, "torn tail"))
                        t.torn++;
                else if (strstr(line, "half made or removed"))
                        t.half++;
                else if (strstr(line, "meta.bak is damaged; meta is good"))
                        t.copies++; /* it is not synced before meta has its name */
                else
                        broken("check says: %s", line);
        }
}

static void check_after(const char *state)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r = local_check(state, false, f, NULL);

        fclose(f);
        CHECK(r == 0, "check says after the start: %s", text);
}

static void check_volume(struct volume_pool *p, unsigned i)
{
        static uint32_t ids[SECTORS];
        const struct vol *v = &t.m->v[i];
        _cleanup_err_ struct err *e = NULL;
        struct volume *h;
        size_t n;

        CHECK(volume_open(p, v->id, false, &h, &e) == 0, "open volume %u: %s", i, err_msg(e));
        CHECK(volume_size(h) == v->size || volume_size(h) == v->or_size,
              "volume %u has %llu bytes, not %llu or %llu", i, (unsigned long long)volume_size(h),
              (unsigned long long)v->size, (unsigned long long)v->or_size);
        CHECK(volume_readonly(h) == v->immutable, "volume %u is %simmutable", i,
              v->immutable ? "not " : "");
        n = read_ids(h, ids);
        for (size_t k = 0; k < n; k++) {
                const struct sector *s = &v->s[k];
                bool found = ids[k] == s->now;

                for (uint32_t j = 0; j < s->n && !found; j++)
                        found = ids[k] == s->was[j];
                CHECK(found, "volume %u (%s) sector %zu is %u, not %u or one of %u since a flush",
                      i, v->id, k, ids[k], s->now, s->n);
        }
        volume_close(h);
}

static int each(void *arg, const struct volume_info *info)
{
        bool *seen = arg;

        for (unsigned i = 0; i < t.m->nvols; i++)
                if (streq(t.m->v[i].id, info->id)) {
                        CHECK(!info->failed, "volume %u is in error", i);
                        seen[i] = true;
                        return 0;
                }
        broken("there is a volume %s", info->id);
}

static void check_cut(void)
{
        _cleanup_free_ char *state = path_printf("%s/state", t.cut);
        _cleanup_free_ char *run = path_printf("%s/run", t.cut);
        bool seen[VOLS] = {};
        struct volume_pool *p;

        check_before(state);
        p = pool_up(state, run, false);
        CHECK(volume_list(p, "", each, seen, NULL) == 0, "list");
        for (unsigned i = 0; i < t.m->nvols; i++) {
                enum there there = t.m->v[i].there;

                CHECK(!seen[i] || (there != GONE && there != NEVER), "volume %u (%s) is back", i,
                      t.m->v[i].id);
                CHECK(seen[i] || there != YES, "volume %u (%s) is missing", i, t.m->v[i].id);
                if (seen[i])
                        check_volume(p, i);
        }
        /* Merging and flattening, begun before the cut or due after it, change nothing. */
        if (rnd_one_in(&t.r, 4)) {
                while (volume_pool_work(p) > 0)
                        ;
                for (unsigned i = 0; i < t.m->nvols; i++)
                        if (seen[i])
                                check_volume(p, i);
        }
        volume_pool_close(p);
        check_after(state);
}

static struct cut any_cut(void)
{
        static const struct cut kinds[] = {{256, 0},   {0, 256},         {0, 0},
                                           {128, 128}, {224, 16},        {16, 224},
                                           {240, 16},  {128, 128, true}, {0, 0, true}};

        return kinds[rnd_below(&t.r, ARRAY_SIZE(kinds))];
}

static void one_state(void)
{
        t.things += disk_write(t.disk, t.cut, t.at, any_cut(), &t.r);
        check_cut();
        CHECK(remove_tree(t.cut, NULL) == 0, "remove '%s'", t.cut);
        t.states++;
        t.by_op[MIN(t.m->op, noperations)]++;
        t.by_event[the_log->ev[t.at].kind]++;
}

/* ---- a generation ---- */

static bool has_long_log(void)
{
        return t.seed % LONG_LOG == 5;
}

static void live(bool first)
{
        struct work w = {.r = {rnd_next(&t.r)}, .m = t.live, .dir = t.dir};
        pid_t pid;
        int status;

        w.direct = t.seed % 4 == 3;
        fflush(stdout);
        pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) {
                if (first) {
                        work_long_log(&w);
                        _exit(0);
                }
                the_record.on = true;
                work_live(&w, OPS, t.generation > 0 && !t.live->settled);
                _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid, "wait");
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
                t.kills++;
        else if (status != 0)
                broken("the engine ended with status %#x", status);
}

/* The workload, and its log. */
static void record(const char *top)
{
        unsigned lives = 1 + rnd_below(&t.r, 3);
        uint64_t killed;

        if (t.generation == 0 && has_long_log())
                live(true);
        record_begin(top);
        t.disk = disk_new();
        disk_load(t.disk, top);
        memcpy(t.m, t.live, sizeof(*t.m));
        do {
                killed = t.kills;
                live(false);
        } while (t.kills > killed || --lives > 0);
}

/* What is left is where the next generation begins. */
static void adopt(struct model *m, const char *top)
{
        unsigned n = 0;

        CHECK(remove_tree(top, NULL) == 0 && rename(t.cut, top) == 0, "adopt '%s'", t.cut);
        for (unsigned i = 0; i < m->nvols; i++) {
                if (m->v[i].there == NEVER || m->v[i].there == GONE)
                        continue;
                m->v[n] = m->v[i];
                m->v[n].how = t.live->v[i].how;
                strcpy(m->v[n].parent, t.live->v[i].parent);
                n++;
        }
        m->nvols = n;
        m->op = m->busy = NONE;
        m->settled = false;
        memcpy(t.live, m, sizeof(*m));
}

static void generation(void)
{
        _cleanup_free_ char *top = path_printf("%s/disk", t.dir);
        _cleanup_free_ char *run = path_printf("%s/run", t.dir);
        static struct model next;
        unsigned one_in = has_long_log() ? LONG_ONE_IN : ONE_IN;
        bool chosen = false;
        uint32_t stop;

        t.at = 0;
        record(top);
        /* The volumes of the whole generation are known by name from its begin. */
        for (unsigned i = t.m->nvols; i < t.live->nvols; i++) {
                t.m->v[i] = (struct vol){};
                strcpy(t.m->v[i].id, t.live->v[i].id);
        }
        t.m->nvols = t.live->nvols;
        stop = the_log->n / 2 + rnd_below(&t.r, the_log->n / 2 + 1);
        for (; t.at < the_log->n; t.at++) {
                const struct event *ev = &the_log->ev[t.at];

                if (ev->kind <= EV_SYNC_RANGE && rnd_one_in(&t.r, one_in))
                        one_state();
                if (ev->kind <= EV_SYNC_RANGE && t.at >= stop && !chosen) {
                        _cleanup_free_ char *left = path_printf("%s.next", t.cut);

                        disk_write(t.disk, left, t.at, any_cut(), &t.r);
                        next = *t.m;
                        chosen = true;
                }
                disk_apply(t.disk, ev, t.at);
                model_apply(t.m, ev);
        }
        disk_compare(t.disk, top);
        disk_free(t.disk);
        t.disk = NULL;
        remove_tree(run, NULL);
        if (chosen) {
                _cleanup_free_ char *left = path_printf("%s.next", t.cut);

                CHECK(rename(left, t.cut) == 0, "rename '%s'", left);
                adopt(&next, top);
        }
}

static void seed(void)
{
        _cleanup_free_ char *top = path_printf("%s/disk", t.dir);

        t.r = (struct rnd){t.seed};
        memset(t.live, 0, offsetof(struct model, v));
        t.live->busy = t.live->op = NONE;
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
        printf("torn map logs %llu, half made or removed volumes %llu, torn copies of metadata "
               "%llu\n",
               (unsigned long long)t.torn, (unsigned long long)t.half,
               (unsigned long long)t.copies);
        printf("cut before a write %llu, zero or punch %llu, size %llu, name %llu, sync %llu, "
               "synchronous write's end %llu\n",
               (unsigned long long)t.by_event[EV_WRITE], (unsigned long long)t.by_event[EV_ZERO],
               (unsigned long long)t.by_event[EV_SIZE], (unsigned long long)t.by_event[EV_ENTRY],
               (unsigned long long)t.by_event[EV_SYNC],
               (unsigned long long)t.by_event[EV_SYNC_RANGE]);
        printf("cut during");
        for (unsigned i = 0; i <= noperations; i++)
                if (t.by_op[i])
                        printf(" %s %llu,", op_name(i), (unsigned long long)t.by_op[i]);
        printf(" of all\n");
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
        setenv("STRATOFS_FAULT", "volume.ring=EIO", 1);
        fault_init();
        log_set_level(LOG_CRIT);
        the_log = shared(sizeof(*the_log));
        t.live = shared(sizeof(*t.live));
        t.m = calloc(1, sizeof(*t.m));
        t.dir = path_printf("%s/powercut.%d", tmp, getpid());
        t.cut = path_printf("%s/cut", t.dir);
        CHECK(t.m && t.dir && t.cut, "no memory");
        for (t.seed = first; t.states < t.want; t.seed++)
                seed();
        report(first, clock_mono() - began);
        remove_tree(t.dir, NULL);
        free(t.dir);
        free(t.cut);
        free(t.m);
        return 0;
}
