/* Backups: one that was said to be done is whole, one that was cut off is not there or whole, and
 * what happens to one harms no other.  blockd, which is not cut off, has the volumes. */
#include "powercut.h"

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <libnbd.h>

#include "backend/backup/backup.h"
#include "backend/backup/manifest.h"
#include "backend/blockd/client.h"
#include "common/fileio.h"
#include "common/name.h"

enum {
        VOLUMES = 3,
        SNAPSHOTS = 4, /* of each; a backup is of one, and has its id */
        BACKUPS = VOLUMES * SNAPSHOTS,
        BLOCK_BYTES = 4096,
        OPS = 14,
};
static const uint64_t sizes[VOLUMES] = {40 << 10, CHUNK_MIN + (20 << 10), 200 << 10};

enum { EV_STATE = EV_SUBJECT }; /* vol: backup, child: enum there */
enum there { NEVER, MAKING, YES, REMOVING, GONE };

struct model {
        struct model_head head;
        uint32_t there[BACKUPS];
};

enum { HALF, WHOLE, LEFT, UNNEEDED, INCREMENTAL, FULL };
static struct counter counters[] = {
        [HALF] = {"cut-off backups not there"}, [WHOLE] = {"cut-off backups whole"},
        [LEFT] = {"temporary files"},           [UNNEEDED] = {"chunks of no backup"},
        [INCREMENTAL] = {"incremental"},        [FULL] = {"full"},
};

/* The volumes, made once. */
static struct {
        struct volume_service *volumes;
        pid_t blockd;
        char id[VOLUMES][ID_TEXT_SIZE], backup[BACKUPS][ID_TEXT_SIZE];
        uint8_t *bytes[BACKUPS];
} the;

/* ---- volumes ---- */

static void start_blockd(const char *dir, const char *program)
{
        _cleanup_free_ char *state = path_printf("%s/state", dir);
        _cleanup_free_ char *run = path_printf("%s/run", dir);
        char fd[16], byte;
        int p[2];

        CHECK(pipe(p) == 0, "pipe");
        the.blockd = fork();
        CHECK(the.blockd >= 0, "fork");
        if (the.blockd == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(p[0]);
                snprintf(fd, sizeof(fd), "%d", p[1]);
                execl(program, "blockd", "--state", state, "--run", run, "--ready-fd", fd,
                      "--loglevel", "4", NULL);
                _exit(127);
        }
        close(p[1]);
        CHECK(read(p[0], &byte, 1) == 1, "%s did not start", program);
        close(p[0]);
        the.volumes = blockd_client_new(run);
        CHECK(the.volumes, "no memory");
}

/* Some blocks of the volume: written, or zeros. */
static void change(struct rnd *r, struct nbd_handle *h, uint8_t *bytes, uint64_t size, unsigned n)
{
        while (n-- > 0) {
                uint64_t off = rnd_below(r, size / BLOCK_BYTES) * (uint64_t)BLOCK_BYTES;
                uint64_t word = rnd_one_in(r, 4) ? 0 : rnd_next(r);

                for (size_t i = 0; i < BLOCK_BYTES; i += 8)
                        memcpy(bytes + off + i, &word, 8);
                CHECK((word ? nbd_pwrite(h, bytes + off, BLOCK_BYTES, off, 0)
                            : nbd_zero(h, BLOCK_BYTES, off, 0)) == 0,
                      "change: %s", nbd_get_error());
        }
}

/* Each volume's snapshots in turn: of much, of a little less, of nothing, of a little. */
static void make_volume(struct rnd *r, unsigned v)
{
        static const unsigned changes[SNAPSHOTS] = {60, 3, 0, 5};
        struct nbd_handle *h = nbd_create();
        _cleanup_free_ uint8_t *bytes = calloc(1, sizes[v]);
        _cleanup_err_ struct err *e = NULL;

        CHECK(the.volumes->ops->create(the.volumes, id_text(the.id[v], id_new()), sizes[v], &e) ==
                      0,
              "create: %s", err_msg(e));
        CHECK(h && bytes && nbd_set_export_name(h, the.id[v]) == 0 &&
                      nbd_connect_unix(h, the.volumes->shared_socket) == 0,
              "connect: %s", nbd_get_error());
        for (unsigned s = 0; s < SNAPSHOTS; s++) {
                unsigned b = v * SNAPSHOTS + s;

                change(r, h, bytes, sizes[v], changes[s]);
                CHECK(nbd_flush(h, 0) == 0, "flush: %s", nbd_get_error());
                CHECK(the.volumes->ops->snapshot(the.volumes, id_text(the.backup[b], id_new()),
                                                 the.id[v], &e) == 0,
                      "snapshot: %s", err_msg(e));
                the.bytes[b] = malloc(sizes[v]);
                CHECK(the.bytes[b], "no memory");
                memcpy(the.bytes[b], bytes, sizes[v]);
        }
        nbd_shutdown(h, 0);
        nbd_close(h);
}

static void begin(const char *dir, const char *argument)
{
        struct rnd r = {1};

        CHECK(argument, "whose blockd?");
        start_blockd(dir, argument);
        for (unsigned v = 0; v < VOLUMES; v++)
                make_volume(&r, v);
}

static void end(void)
{
        kill(the.blockd, SIGTERM);
        waitpid(the.blockd, NULL, 0);
        the.volumes->ops->close(the.volumes);
        for (unsigned b = 0; b < BACKUPS; b++)
                free(the.bytes[b]);
}

/* ---- a target ---- */

static struct backup_service *service_of(const char *folder)
{
        _cleanup_free_ char *target = path_printf("%s/target", folder);
        struct backup_service *s = target ? backup_files_new(target) : NULL;

        CHECK(s, "no memory");
        return s;
}

/* Byte for byte what the volume was; there: its manifest is. */
static void check_bytes(const char *folder, unsigned b)
{
        _cleanup_free_ char *target = path_printf("%s/target", folder);
        _cleanup_store_ struct store s = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        _cleanup_free_ uint8_t *buf = malloc(CHUNK_MIN);
        _cleanup_err_ struct err *e = NULL;

        CHECK(store_open(target, false, &s, &e) == 0 &&
                      manifest_read(&s, the.backup[b], &m, &e) == 0,
              "backup %u: %s", b, err_msg(e));
        CHECK(m.size == sizes[b / SNAPSHOTS], "backup %u has %llu bytes", b,
              (unsigned long long)m.size);
        for (size_t i = 0; i < m.nchunks; i++) {
                size_t n = manifest_chunk_len(&m, i);

                CHECK(store_get(&s, &m.chunks[i], buf, n, &e) == 0, "backup %u: %s", b, err_msg(e));
                CHECK(memcmp(buf, the.bytes[b] + i * m.chunk_size, n) == 0,
                      "backup %u, chunk %zu has other bytes", b, i);
        }
}

/* ---- operations ---- */

struct work {
        struct rnd r;
        struct model *m;
        struct backup_service *s;
        bool faults; /* calls may fail */
};

static void note_state(struct work *w, unsigned b, enum there there)
{
        note(w->m, &(struct event){.kind = EV_STATE, .vol = b, .child = there});
}

static bool good(struct work *w, const char *what, int r, const struct err *e)
{
        CHECK(r == 0 || w->faults, "%s: %s", what, err_msg(e));
        return r == 0;
}

static bool create(struct work *w, unsigned b)
{
        struct backup_request q = {.id = the.backup[b],
                                   .name = "b",
                                   .tenant = "t",
                                   .volume = the.id[b / SNAPSHOTS],
                                   .volume_name = "v",
                                   .taken = 1700000000000000 + b,
                                   .socket = the.volumes->shared_socket};
        _cleanup_err_ struct err *e = NULL;
        struct backup_facts facts;

        if (b % SNAPSHOTS > 0 && w->m->there[b - 1] == YES && !rnd_one_in(&w->r, 5))
                q.parent = the.backup[b - 1];
        note_state(w, b, MAKING);
        if (!good(w, "make the target", w->s->ops->check(w->s, "", true, &e), e) ||
            !good(w, "back up", w->s->ops->create(w->s, "", &q, NULL, &facts, &e), e))
                return false;
        note_state(w, b, YES);
        return true;
}

static bool drop(struct work *w, unsigned b)
{
        _cleanup_err_ struct err *e = NULL;

        note_state(w, b, REMOVING);
        if (!good(w, "remove", w->s->ops->remove(w->s, "", the.backup[b], &e), e))
                return false;
        note_state(w, b, GONE);
        return true;
}

static unsigned pick(struct work *w, bool there)
{
        unsigned from = rnd_below(&w->r, BACKUPS);

        for (unsigned i = 0; i < BACKUPS; i++)
                if ((w->m->there[(from + i) % BACKUPS] == YES) == there)
                        return (from + i) % BACKUPS;
        return NONE;
}

/* What follows from the one before, if that is there. */
static void op_create(struct work *w)
{
        unsigned b = pick(w, false), have = pick(w, true);

        if (have != NONE && (have + 1) % SNAPSHOTS && w->m->there[have + 1] != YES)
                b = have + 1;
        if (b != NONE)
                create(w, b);
}

static void op_remove(struct work *w)
{
        unsigned b = pick(w, true);

        if (b != NONE)
                drop(w, b);
}

static void op_sweep(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;

        if (pick(w, true) != NONE)
                good(w, "sweep", w->s->ops->sweep(w->s, "", &e), e);
}

static void op_kill(struct work *w)
{
        the_record.kill_in = 1 + rnd_below(&w->r, 25);
}

/* What became of it is asked as after a restart. */
static void settle(struct work *w)
{
        for (unsigned b = 0; b < BACKUPS; b++) {
                if (w->m->there[b] == MAKING && !rnd_one_in(&w->r, 4))
                        create(w, b);
                else if (w->m->there[b] == MAKING || w->m->there[b] == REMOVING)
                        if (w->s->ops->check(w->s, "", true, NULL) == 0)
                                drop(w, b);
        }
}

static void while_refused(struct work *w)
{
        static void (*const ops[])(struct work * w) = {op_create, op_remove, op_sweep};

        w->faults = true;
        for (unsigned n = 1 + rnd_below(&w->r, 3); n > 0; n--)
                ops[rnd_below(&w->r, ARRAY_SIZE(ops))](w);
        the_record.nospace_in = the_record.nosync_in = 0;
        w->faults = false;
        if (rnd_one_in(&w->r, 3))
                op_sweep(w);
        settle(w);
}

static void op_nospace(struct work *w)
{
        the_record.nospace_in = 1 + rnd_below(&w->r, 8);
        while_refused(w);
}

static void op_nosync(struct work *w)
{
        the_record.nosync_in = rnd_one_in(&w->r, 3) ? 1 : 1 + rnd_below(&w->r, 12);
        while_refused(w);
}

static const struct operation {
        const char *name;
        unsigned weight;
        void (*run)(struct work *w);
        bool quiet;
} operations[] = {
        {"create", 20, op_create},   {"remove", 10, op_remove},
        {"sweep", 6, op_sweep},      {"kill", 6, op_kill, .quiet = true},
        {"no space", 3, op_nospace}, {"sync fails", 6, op_nosync},
};

static const char *op_name(uint32_t op)
{
        return operations[op].name;
}

static bool op_counts(uint32_t op)
{
        return !operations[op].quiet;
}

static void op_any(struct work *w)
{
        unsigned sum = 0, roll, k = 0;

        for (unsigned i = 0; i < ARRAY_SIZE(operations); i++)
                sum += operations[i].weight;
        roll = rnd_below(&w->r, sum);
        while (roll >= operations[k].weight)
                roll -= operations[k++].weight;
        note(w->m, &(struct event){.kind = EV_OP, .child = k});
        operations[k].run(w);
        note(w->m, &(struct event){.kind = EV_OP, .child = NONE});
}

static void life(struct life *l)
{
        _cleanup_free_ char *disk = path_printf("%s/disk", l->dir);
        struct work w = {.r = l->r, .m = l->m, .s = service_of(disk)};

        note(w.m, &(struct event){.kind = EV_OP, .child = NONE});
        if (rnd_one_in(&w.r, 4))
                op_kill(&w);
        if (rnd_one_in(&w.r, 3))
                op_sweep(&w);
        settle(&w);
        the_record.kill_in = 0;
        w.m->head.settled = true;
        while (l->ops-- > 0)
                op_any(&w);
        the_record.kill_in = 0;
        w.s->ops->close(w.s);
}

/* ---- a cut ---- */

static unsigned files(const char *path)
{
        DIR *d = opendir(path);
        unsigned n = 0;

        for (struct dirent *x; d && (x = readdir(d));) {
                _cleanup_free_ char *p = path_printf("%s/%s", path, x->d_name);

                if (x->d_name[0] != '.')
                        n += x->d_type == DT_DIR ? files(p) : 1;
        }
        if (d)
                closedir(d);
        return n;
}

/* Whether it is there. */
static bool check_backup(const struct model *m, const char *top, struct backup_service *s,
                         unsigned b)
{
        _cleanup_err_ struct err *e = NULL;
        struct backup_facts facts;
        enum there there = m->there[b];
        int r = s->ops->stat(s, "", the.backup[b], &facts, &e);

        CHECK(r == 0 || r == -ENOENT, "backup %u: %s", b, err_msg(e));
        CHECK(r == 0 || there != YES, "backup %u is not there: %s", b, err_msg(e));
        CHECK(r < 0 || (there != NEVER && there != GONE), "backup %u is back", b);
        if (there == MAKING)
                counters[r == 0 ? WHOLE : HALF].n++;
        if (r < 0)
                return false;
        counters[facts.incremental ? INCREMENTAL : FULL].n++;
        check_bytes(top, b);
        return true;
}

static void check(const void *arg, const char *top, const char *run, struct rnd *r)
{
        const struct model *m = arg;
        _cleanup_free_ char *tmp = path_printf("%s/target/tmp", top);
        _cleanup_free_ char *chunks = path_printf("%s/target/chunks", top);
        struct backup_service *s = service_of(top);
        _cleanup_err_ struct err *e = NULL;
        bool there[BACKUPS], any = false;
        unsigned before;

        counters[LEFT].n += files(tmp) > 0;
        for (unsigned b = 0; b < BACKUPS; b++)
                any |= there[b] = check_backup(m, top, s, b);
        before = files(chunks);
        /* What is not needed can be freed, and nothing else is. */
        if (rnd_one_in(r, 3)) {
                CHECK(s->ops->check(s, "", true, &e) == 0, "%s", err_msg(e));
                CHECK(s->ops->sweep(s, "", &e) == 0, "sweep: %s", err_msg(e));
                for (unsigned b = 0; b < BACKUPS; b++)
                        if (there[b])
                                CHECK(s->ops->verify(s, "", the.backup[b], NULL, &e) == 0,
                                      "backup %u after a sweep: %s", b, err_msg(e));
                CHECK(files(tmp) == 0 && (any || files(chunks) == 0), "the sweep left something");
                counters[UNNEEDED].n += files(chunks) < before;
        }
        s->ops->close(s);
}

/* ---- the subject ---- */

static void reset(void *arg)
{
        struct model *m = arg;

        memset(m->there, 0, sizeof(m->there));
}

static void apply(void *arg, const struct event *ev)
{
        struct model *m = arg;

        m->there[ev->vol] = ev->child;
}

static void nothing(void *m, const void *live)
{
}

const struct subject subject = {
        .name = "backup",
        .model = sizeof(struct model),
        .ops = OPS,
        .nops = ARRAY_SIZE(operations),
        .op_name = op_name,
        .op_counts = op_counts,
        .counters = counters,
        .ncounters = ARRAY_SIZE(counters),
        .begin = begin,
        .end = end,
        .reset = reset,
        .life = life,
        .apply = apply,
        .names = nothing,
        .check = check,
        .adopt = nothing,
};
