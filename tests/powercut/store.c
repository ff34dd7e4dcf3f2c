/* The store: what a commit said is durable is there, whatever was cut off landed whole or not at
 * all, in the order of commit(), and what failed stays away. */
#include "powercut.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/store/sqlite/sqlite.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

enum {
        KEYS = 24,
        PUTS = 4,
        PENDING = 8,
        VALUE = 400 << 10,
        OPS = 25,
        LARGE_SEED = 16,        /* seeds of which one begins with a long log */
        WAL_LONG = 15500 << 10, /* SQLite empties it at 4000 pages */
};
static const char scope[] = "0b9c2a1e-1d54-4a92-9f6b-7f0f2f0c5a11";

enum store_event {
        EV_TXN = EV_SUBJECT, /* off, len: its id; child: it can never land */
        EV_PUT,              /* of the newest: vol: key, off: version, child: id, len */
        EV_DONE,             /* of the oldest; child: it landed */
        EV_EPOCH,            /* off: the newest that was given, len: or that one */
};

struct record_model {
        uint64_t version; /* 0: absent */
        uint32_t id, len;
};

struct txn {
        char id[ID_TEXT_SIZE];
        bool never;
        unsigned n;
        struct put {
                unsigned key;
                struct record_model to;
        } puts[PUTS];
};

struct model {
        struct model_head head;
        uint64_t epoch, or_epoch;
        struct record_model rec[KEYS];
        unsigned npending; /* not answered, in order */
        struct txn txn[PENDING];
};

enum { LANDED, LOST, LONG, NO_LOG, HOT };
static struct counter counters[] = {
        [LANDED] = {"commits cut off and there"},
        [LOST] = {"commits cut off and not there"},
        [LONG] = {"long write-ahead logs"},
        [NO_LOG] = {"databases without a log"},
        [HOT] = {"rollback journals"},
};

/* ---- the model ---- */

static void land(struct record_model *rec, const struct txn *t)
{
        for (unsigned i = 0; i < t->n && !t->never; i++)
                rec[t->puts[i].key] = t->puts[i].to;
}

static void apply(void *arg, const struct event *ev)
{
        struct model *m = arg;
        struct txn *t = m->npending ? &m->txn[m->npending - 1] : NULL;

        switch (ev->kind) {
        case EV_TXN:
                CHECK(m->npending < PENDING, "too many transactions");
                t = &m->txn[m->npending++];
                *t = (struct txn){.never = ev->child};
                snprintf(t->id, sizeof(t->id), "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)ev->off,
                         (unsigned)(ev->off >> 32) & 0xffff, (unsigned)(ev->off >> 48) & 0xfff,
                         (unsigned)ev->len & 0xfff, (unsigned long long)(ev->len >> 16));
                break;
        case EV_PUT:
                t->puts[t->n++] = (struct put){ev->vol, {ev->off, ev->child, ev->len}};
                break;
        case EV_DONE:
                if (ev->child)
                        land(m->rec, &m->txn[0]);
                memmove(m->txn, m->txn + 1, --m->npending * sizeof(*m->txn));
                break;
        case EV_EPOCH:
                m->epoch = ev->off;
                m->or_epoch = ev->len;
                break;
        default:
                break;
        }
}

/* As all that is pending would leave it. */
static void newest(const struct model *m, struct record_model rec[KEYS])
{
        memcpy(rec, m->rec, sizeof(m->rec));
        for (unsigned i = 0; i < m->npending; i++)
                land(rec, &m->txn[i]);
}

/* A record's text says which it is, to its end. */
static void fill(char *p, uint32_t id, uint32_t len)
{
        for (uint32_t i = 0; i < len; i++)
                p[i] = 'a' + (id + i / 7 * (i % 5 + 1)) % 26;
        p[len] = '\0';
}

/* ---- a database ---- */

struct seen {
        struct record_model rec[KEYS];
};

static int each(void *arg, const struct store_record *r)
{
        static char text[VALUE + 1];
        struct seen *s = arg;
        unsigned key, id;
        int head = 0;

        CHECK(streq(r->scope, scope) && sscanf(r->key, "k%u", &key) == 1 && key < KEYS,
              "a record '%s' of '%s'", r->key, r->scope);
        CHECK(r->value && r->len <= VALUE && sscanf(r->value, "%u:%n", &id, &head) == 1 && head > 0,
              "record %u has other bytes", key);
        fill(text, id, r->len - head);
        CHECK(memcmp((const char *)r->value + head, text, r->len - head) == 0,
              "record %u, of %u, has other bytes", key, id);
        s->rec[key] = (struct record_model){r->version, id, r->len - head};
        return 0;
}

static struct store *opened(const char *folder, struct seen *ret)
{
        _cleanup_free_ char *path = path_printf("%s/store.db", folder);
        _cleanup_err_ struct err *e = NULL;
        struct seen again = {};
        struct store *s = NULL;
        uint64_t now;

        CHECK(store_sqlite_open(path, &s, &e) == 0, "%s", err_msg(e));
        *ret = (struct seen){};
        CHECK(s->ops->load(s, each, ret, &e) == 0, "load: %s", err_msg(e));
        CHECK(s->ops->changes(s, scope, 0, each, &again, &now, &e) == 0, "changes: %s", err_msg(e));
        CHECK(memcmp(ret, &again, sizeof(again)) == 0, "changes gives other records than load");
        return s;
}

/* The first key whose record is another one, or KEYS. */
static unsigned differ(const struct record_model *a, const struct record_model *b)
{
        for (unsigned i = 0; i < KEYS; i++)
                if (a[i].version != b[i].version ||
                    (a[i].version && (a[i].id != b[i].id || a[i].len != b[i].len)))
                        return i;
        return KEYS;
}

/* How many of what is pending landed: the store says so of each, and has their records and no
 * others. */
static unsigned landed(const struct model *m, struct store *s, const struct seen *seen)
{
        struct record_model rec[KEYS];
        unsigned n = 0, k;
        bool over = false;

        memcpy(rec, m->rec, sizeof(rec));
        for (unsigned i = 0; i < m->npending; i++) {
                _cleanup_err_ struct err *e = NULL;
                int there = s->ops->committed(s, m->txn[i].id, &e);

                CHECK(there >= 0, "committed: %s", err_msg(e));
                CHECK(!there || !m->txn[i].never, "transaction %u landed", i);
                CHECK(!there || !over, "transaction %u landed, one before it did not", i);
                over |= !there && !m->txn[i].never;
                if (there)
                        land(rec, &m->txn[i]);
                n += there;
        }
        k = differ(rec, seen->rec);
        CHECK(k == KEYS, "after %u of %u transactions k%u has version %llu of %u, not %llu of %u",
              n, m->npending, k, (unsigned long long)seen->rec[k].version, seen->rec[k].id,
              (unsigned long long)rec[k].version, rec[k].id);
        return n;
}

static void put_in(struct store_txn *t, unsigned key, uint64_t expect,
                   const struct record_model *to)
{
        static char value[VALUE + 16];
        char name[16];
        int head = snprintf(value, sizeof(value), "%u:", to->id);

        snprintf(name, sizeof(name), "k%u", key);
        fill(value + head, to->id, to->len);
        CHECK(store_txn_add(t, name, expect, to->version, to->version ? value : NULL) == 0,
              "no memory");
}

/* ---- committing ---- */

struct work {
        struct rnd r;
        struct model *m;
        struct store *s;
        const char *dir;
        bool faults; /* commits may fail */
        pthread_mutex_t lock;
        pthread_cond_t cond;
        unsigned waiting;
        enum store_result result; /* of the last */
};

/* On the store's thread, while the other one waits. */
static void done(void *arg, enum store_result result, const struct err *err)
{
        struct work *w = arg;

        CHECK(result == (w->m->txn[0].never ? STORE_CONFLICT : STORE_COMMITTED) || w->faults,
              "a commit ended with %d: %s", result, err ? err_msg(err) : "");
        if (result != STORE_UNKNOWN)
                note(w->m, &(struct event){.kind = EV_DONE, .child = result == STORE_COMMITTED});
        WITH_LOCK(&w->lock);
        w->result = result;
        w->waiting--;
        pthread_cond_signal(&w->cond);
}

/* Of the newest records, and noted as pending. */
static struct store_txn *build(struct work *w, unsigned puts, uint32_t len, bool never)
{
        struct store_txn *t = store_txn_new(scope);
        struct record_model rec[KEYS];
        unsigned from = rnd_below(&w->r, KEYS);

        CHECK(t, "no memory");
        newest(w->m, rec);
        note(w->m, &(struct event){.kind = EV_TXN,
                                   .child = never,
                                   .off = rnd_next(&w->r),
                                   .len = rnd_next(&w->r)});
        strcpy(t->id, w->m->txn[w->m->npending - 1].id);
        for (unsigned i = 0; i < puts; i++) {
                unsigned key = (from + 5 * i) % KEYS;
                struct record_model to = {rec[key].version + 1 + rnd_below(&w->r, 3),
                                          the_log->next_id++, rnd_below(&w->r, len)};

                if (rec[key].version && rnd_one_in(&w->r, 4))
                        to = (struct record_model){};
                note(w->m, &(struct event){.kind = EV_PUT,
                                           .vol = key,
                                           .off = to.version,
                                           .child = to.id,
                                           .len = to.len});
                put_in(t, key, rec[key].version + (never && i == puts - 1 ? 1000 : 0),
                       never && i == puts - 1 ? &(struct record_model){} : &to);
        }
        t->done = done;
        t->arg = w;
        return t;
}

/* All are queued before the first is answered, if it comes to that. */
static void commit(struct work *w, unsigned n, uint32_t len)
{
        struct store_txn *t[PENDING];

        for (unsigned i = 0; i < n; i++)
                t[i] = build(w, 1 + rnd_below(&w->r, PUTS), len, rnd_one_in(&w->r, 10));
        w->waiting = n;
        for (unsigned i = 0; i < n; i++)
                w->s->ops->commit(w->s, t[i]);
        WITH_LOCK(&w->lock);
        while (w->waiting > 0)
                pthread_cond_wait(&w->cond, &w->lock);
}

/* ---- operations ---- */

static void op_commit(struct work *w)
{
        commit(w, 1, 400);
}

static void op_several(struct work *w)
{
        commit(w, w->faults ? 1 : 2 + rnd_below(&w->r, PENDING - 1), 600);
}

static void op_long(struct work *w)
{
        commit(w, 1, 40 << 10);
}

static void op_epoch(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;
        struct model *m = w->m;
        uint64_t got;

        note(m, &(struct event){.kind = EV_EPOCH, .off = m->epoch, .len = m->or_epoch + 1});
        CHECK(store_sqlite_epoch(w->s, &got, &e) == 0 || w->faults, "epoch: %s", err_msg(e));
        if (e)
                return;
        CHECK(got > m->epoch && got <= m->or_epoch, "epoch %llu follows %llu",
              (unsigned long long)got, (unsigned long long)m->epoch);
        note(m, &(struct event){.kind = EV_EPOCH, .off = got, .len = got});
}

static void op_close(struct work *w)
{
        _cleanup_free_ char *disk = path_printf("%s/disk", w->dir);
        struct seen seen;

        w->s->ops->close(w->s);
        w->s = opened(disk, &seen);
        CHECK(landed(w->m, w->s, &seen) == 0, "a transaction came back");
}

static void op_kill(struct work *w)
{
        the_record.kill_in = 1 + rnd_below(&w->r, 12);
}

/* What the disk refused has failed or is unknown; then the store finds out, once it can. */
static void while_refused(struct work *w)
{
        unsigned n = 1 + rnd_below(&w->r, 3);

        w->faults = true;
        for (bool over = false; n > 0 && !over; n--) {
                _cleanup_err_ struct err *e = NULL;
                int there;

                commit(w, 1, 3000);
                over = w->result == STORE_UNKNOWN;
                if (!over)
                        continue;
                the_record.nospace_in = the_record.nosync_in = 0;
                there = w->s->ops->committed(w->s, w->m->txn[0].id, &e);
                CHECK(there >= 0, "committed: %s", err_msg(e));
                note(w->m, &(struct event){.kind = EV_DONE, .child = there});
        }
        the_record.nospace_in = the_record.nosync_in = 0;
        w->faults = false;
}

static void op_nospace(struct work *w)
{
        the_record.nospace_in = 1 + rnd_below(&w->r, 6);
        while_refused(w);
}

static void op_nosync(struct work *w)
{
        the_record.nosync_in = 1 + rnd_below(&w->r, 2);
        while_refused(w);
}

static const struct operation {
        const char *name;
        unsigned weight;
        void (*run)(struct work *w);
        bool quiet;
} operations[] = {
        {"commit", 20, op_commit},       {"several commits", 12, op_several},
        {"long values", 6, op_long},     {"epoch", 3, op_epoch},
        {"close and open", 2, op_close}, {"kill", 2, op_kill, .quiet = true},
        {"no space", 4, op_nospace},     {"sync fails", 4, op_nosync},
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

/* ---- lives ---- */

static struct work begin_life(struct life *l)
{
        return (struct work){.r = l->r,
                             .m = l->m,
                             .dir = l->dir,
                             .lock = PTHREAD_MUTEX_INITIALIZER,
                             .cond = PTHREAD_COND_INITIALIZER};
}

static void life(struct life *l)
{
        _cleanup_free_ char *disk = path_printf("%s/disk", l->dir);
        struct work work = begin_life(l), *w = &work;
        struct seen seen;
        unsigned n;

        note(w->m, &(struct event){.kind = EV_OP, .child = NONE});
        if (rnd_one_in(&w->r, 4))
                op_kill(w);
        w->s = opened(disk, &seen);
        n = landed(w->m, w->s, &seen);
        while (w->m->npending > 0) {
                bool there = n > 0 && !w->m->txn[0].never;

                n -= there;
                note(w->m, &(struct event){.kind = EV_DONE, .child = there});
        }
        op_epoch(w);
        the_record.kill_in = 0;
        w->m->head.settled = true;
        while (l->ops-- > 0)
                op_any(w);
        the_record.kill_in = 0;
        if (rnd_below(&w->r, 2))
                w->s->ops->close(w->s);
}

/* A log nearly as long as it becomes. */
static void prepare(struct life *l)
{
        _cleanup_free_ char *disk = path_printf("%s/disk", l->dir);
        _cleanup_free_ char *wal = path_printf("%s/store.db-wal", disk);
        struct work work = begin_life(l), *w = &work;
        struct stat st = {};
        struct seen seen;

        w->s = opened(disk, &seen);
        while (st.st_size < WAL_LONG) {
                the_log->n = 0;
                commit(w, 1, VALUE / 8);
                CHECK(stat(wal, &st) == 0, "no '%s'", wal);
        }
}

static bool large(uint64_t seed)
{
        return seed % LARGE_SEED == 5;
}

/* ---- a cut ---- */

static bool there(const char *top, const char *name, off_t more_than)
{
        _cleanup_free_ char *path = path_printf("%s/%s", top, name);
        struct stat st;

        return stat(path, &st) == 0 && st.st_size > more_than;
}

static void check(const void *arg, const char *top, const char *run, struct rnd *r)
{
        const struct model *m = arg;
        _cleanup_err_ struct err *e = NULL;
        struct seen seen, again;
        struct store *s;
        uint64_t epoch;
        unsigned n;

        counters[LONG].n += there(top, "store.db-wal", 12 << 20);
        counters[HOT].n += there(top, "store.db-journal", 0);
        counters[NO_LOG].n += there(top, "store.db", 0) && !there(top, "store.db-wal", 0);
        s = opened(top, &seen);
        n = landed(m, s, &seen);
        counters[LANDED].n += n > 0;
        counters[LOST].n += n < m->npending;
        CHECK(store_sqlite_epoch(s, &epoch, &e) == 0, "epoch: %s", err_msg(e));
        CHECK(epoch > m->epoch && epoch <= m->or_epoch + 1, "epoch %llu follows %llu",
              (unsigned long long)epoch, (unsigned long long)m->epoch);
        s->ops->close(s);
        if (!rnd_one_in(r, 4))
                return;
        s = opened(top, &again);
        CHECK(differ(seen.rec, again.rec) == KEYS, "a second start finds something else");
        s->ops->close(s);
}

/* ---- the subject ---- */

static void reset(void *arg)
{
        struct model *m = arg;

        memset((char *)m + sizeof(m->head), 0, sizeof(*m) - sizeof(m->head));
}

static void nothing(void *m, const void *live)
{
}

static void begin(const char *dir, const char *argument)
{
}

static void end(void)
{
}

const struct subject subject = {
        .name = "store",
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
        .large = large,
        .prepare = prepare,
        .life = life,
        .apply = apply,
        .names = nothing,
        .check = check,
        .adopt = nothing,
};
