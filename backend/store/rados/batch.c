/* Group commit: many transactions of a scope, one write operation.
 *
 * The operation asserts the scope's change number and moves it on, so of all that was sent under
 * one number at most one ever lands; whoever comes second finds a guard failed, reads again, and
 * judges anew.  The first try is sent without reading: then the operation also asserts the version
 * of each record. */
#include "backend/store/rados/internal.h"

#include "common/fault.h"

enum { BACKOFF_US = 200, BACKOFF_MAX_US = 20000, TRIES_MAX = 200, LOSSES = 3 };

/* A record that the batch touches. */
struct entry {
        const char *key;           /* of a put */
        bool read;                 /* version is what is there, not what was expected */
        uint64_t before, version;  /* in the pool; after the transactions so far, 0: absent */
        const struct store_put *p; /* that made it so; NULL: unchanged */
        UT_hash_handle hh;
};

struct batch {
        struct rados_store *s;
        struct scope *sc;
        struct store_txn *list;
        size_t n;
        struct outcome *out;
        struct entry *entries;
        bool exact;       /* versions were read under the scope's seq */
        uint64_t ncommit; /* transactions that would commit */
};

static struct entry *entry_find(struct batch *b, const char *key)
{
        struct entry *n;

        HASH_FIND_STR(b->entries, key, n);
        return n;
}

static struct entry *entry_get(struct batch *b, const char *key, uint64_t version)
{
        struct entry *n = entry_find(b, key);

        if (n)
                return n;
        n = calloc(1, sizeof(*n));
        if (!n)
                return NULL;
        n->key = key;
        n->before = n->version = version;
        HASH_ADD_KEYPTR(hh, b->entries, n->key, strlen(n->key), n);
        return n;
}

static void entries_free(struct batch *b)
{
        struct entry *n, *tmp;

        HASH_ITER (hh, b->entries, n, tmp) {
                HASH_DEL(b->entries, n);
                free(n);
        }
}

static int version_one(void *arg, const char *key, const char *value, size_t len)
{
        struct entry *n = entry_find(arg, key + strlen("r:"));

        if (n)
                n->before = number_parse(value, len);
        return 0;
}

/* The scope's number and the versions of what the batch touches.  The number comes first: if it
 * moves meanwhile, the write is refused. */
static int batch_read(struct batch *b)
{
        _cleanup_free_ char **keys = NULL;
        struct entry *n;
        size_t nkeys = 0;
        uint64_t seq;
        int r = scope_numbers(b->s, b->sc, &seq, &b->sc->floor);

        if (r < 0)
                return r;
        if (seq != b->sc->seq)
                b->sc->other = seq;
        b->sc->seq = seq;
        entries_free(b);
        for (struct store_txn *t = b->list; t; t = t->next)
                for (size_t i = 0; i < t->n; i++)
                        if (!entry_get(b, t->puts[i].key, 0))
                                return -ENOMEM;
        keys = calloc(HASH_COUNT(b->entries) + 1, sizeof(*keys));
        for (n = b->entries; keys && n && r == 0; n = n->hh.next)
                if (asprintf(&keys[nkeys++], "r:%s", n->key) < 0)
                        r = -ENOMEM;
        if (!keys)
                return -ENOMEM;
        if (r == 0)
                r = omap_get(b->s, b->sc->oid, (const char *const *)keys, nkeys, version_one, b);
        for (size_t i = 0; i < nkeys; i++)
                free(keys[i]);
        b->exact = b->sc->known = r == 0;
        return r;
}

/* Whether all that t expects is there, after those before it.  Not read, what the first
 * transaction expects is taken for true: the operation asserts it. */
static bool txn_fits(struct batch *b, const struct store_txn *t)
{
        if (b->s->watched && t->seen < b->sc->other)
                return false;
        for (size_t i = 0; i < t->n; i++) {
                const struct store_put *p = &t->puts[i];
                struct entry *n = entry_find(b, p->key);

                if (n && n->version != p->expect)
                        return false;
        }
        return true;
}

static int txn_apply(struct batch *b, const struct store_txn *t)
{
        for (size_t i = 0; i < t->n; i++) {
                const struct store_put *p = &t->puts[i];
                struct entry *n = entry_get(b, p->key, p->expect);

                if (!n)
                        return -ENOMEM;
                if (!p->version && !p->expect)
                        continue; /* deletes what is not there */
                n->version = p->version;
                n->p = p;
        }
        return 0;
}

static int batch_judge(struct batch *b)
{
        struct outcome *o = b->out;
        struct entry *n;
        int r = 0;

        if (!b->exact)
                entries_free(b);
        for (n = b->entries; n; n = n->hh.next) {
                n->version = n->before;
                n->p = NULL;
        }
        b->ncommit = 0;
        for (struct store_txn *t = b->list; t && r == 0; t = t->next, o++) {
                if (o->err) /* refused for itself */
                        continue;
                o->result = txn_fits(b, t) ? STORE_COMMITTED : STORE_CONFLICT;
                if (o->result == STORE_COMMITTED) {
                        r = txn_apply(b, t);
                        b->ncommit++;
                }
        }
        return r;
}

static char *key_of(char prefix, const char *name)
{
        char *key;

        return asprintf(&key, "%c:%s", prefix, name) < 0 ? NULL : key;
}

/* --- what is forgotten -------------------------------------------------------------------------
 */

struct prune {
        struct wop *w;
        uint64_t until, last;
};

/* An entry of the log names the transactions that were committed with it. */
static int prune_one(void *arg, const char *key, const char *value, size_t len)
{
        struct prune *p = arg;
        uint64_t number = number_parse(key + strlen("l:"), strlen(key) - strlen("l:"));

        if (number > p->until)
                return -ECANCELED;
        for (const char *at = value; at < value + len; at += strlen(at) + 1)
                if (*at == 't')
                        wop_rm(p->w, key_of('t', at + 1));
        wop_rm(p->w, strdup(key));
        p->last = number;
        return 0;
}

/* Puts into w that what is old is removed, and that it is forgotten. */
static int batch_prune(struct batch *b, struct wop *w)
{
        struct prune p = {.w = w};
        char text[NUMBER_SIZE];
        int r;

        if (b->sc->seq < b->sc->floor + KEEP + KEEP_SLACK)
                return 0;
        p.until = b->sc->seq - KEEP;
        p.last = b->sc->floor;
        r = omap_each(b->s, b->sc->oid, "l:", "", prune_one, &p);
        if (r < 0 && r != -ECANCELED)
                return r;
        b->sc->floor = p.until; /* of no further interest until SLACK more are there */
        if (p.last)
                wop_set(w, strdup("f"), number_text(text, p.last), NUMBER_SIZE - 1);
        return 0;
}

/* --- the write ---------------------------------------------------------------------------------
 */

static uint64_t put_records(struct batch *b, struct wop *w, struct buf *log)
{
        uint64_t changed = 0;
        struct entry *n;

        for (n = b->entries; n; n = n->hh.next) {
                _cleanup_free_ char *key = key_of('r', n->key);

                if (!key) {
                        w->failed = true;
                        break;
                }
                if (!b->exact && n->before)
                        wop_guard_number(w, key, n->before);
                else if (!b->exact)
                        wop_guard(w, key, "", NULL);
                if (!n->p)
                        continue;
                if (n->p->version)
                        wop_set_number(w, TAKE_PTR(key), n->p->version, n->p->value, n->p->len);
                else
                        wop_rm(w, TAKE_PTR(key));
                buf_addc(log, 'k');
                buf_add(log, n->key, strlen(n->key) + 1);
                changed++;
        }
        return changed;
}

static uint64_t put_txns(struct batch *b, struct wop *w, struct buf *log)
{
        struct outcome *o = b->out;
        uint64_t ids = 0;

        for (struct store_txn *t = b->list; t; t = t->next, o++) {
                if (o->err || o->result != STORE_COMMITTED || !t->id[0])
                        continue;
                wop_set(w, key_of('t', t->id), "1", 1);
                buf_addc(log, 't');
                buf_add(log, t->id, strlen(t->id) + 1);
                ids++;
        }
        return ids;
}

/* The list of scopes first, so that nothing is in a scope that nobody would find. */
static int scope_make(struct rados_store *s, struct scope *sc)
{
        struct wop w;
        int r;

        wop_init(&w);
        wop_guard_fence(s, &w);
        wop_set(&w, key_of('s', sc->name), "1", 1);
        r = wop_run(s, &w, STORE_OID);
        wop_done(&w);
        if (r < 0)
                return r == -ECANCELED ? -ESHUTDOWN : r;
        wop_init(&w);
        rados_write_op_create(w.op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
        r = wop_run(s, &w, sc->oid);
        wop_done(&w);
        return r;
}

/* Own changes are no news for our own feed. */
static void batch_landed(struct batch *b, uint64_t seq)
{
        struct scope *sc = b->sc;
        WITH_LOCK(&b->s->lock);

        if (sc->cursor == sc->seq)
                sc->cursor = seq;
        sc->seq = seq;
        sc->losses = 0;
        feed_tell(b->s, sc);
}

static int batch_write(struct batch *b, bool *ret_fenced)
{
        char now[NUMBER_SIZE], next[NUMBER_SIZE];
        _cleanup_buf_ struct buf log = {0};
        uint64_t seq = b->sc->seq;
        struct wop w;
        int r;

        wop_init(&w);
        wop_guard_fence(b->s, &w);
        wop_guard(&w, "n", seq ? number_text(now, seq) : "", NULL);
        r = batch_prune(b, &w);
        seq += put_records(b, &w, &log);
        seq += put_txns(b, &w, &log);
        if (seq == b->sc->seq) { /* neither records nor an id: still a change of the number */
                seq++;
                buf_addc(&log, 'n');
                buf_addc(&log, '\0');
        }
        number_text(next, seq);
        wop_set(&w, strdup("n"), next, strlen(next));
        wop_set(&w, key_of('l', next), log.data, log.len);
        w.failed |= log.failed;
        if (r == 0)
                r = FAULT("store.commit");
        if (r == 0)
                r = wop_run(b->s, &w, b->sc->oid);
        *ret_fenced = r == -ECANCELED && w.fenced == -ECANCELED;
        wop_done(&w);
        if (r == 0)
                (void)FAULT("store.committed");
        if (r == 0)
                batch_landed(b, seq);
        return r;
}

/* 0 settled, -EAGAIN somebody was quicker, -errno; *ret_open: it may still land. */
static int batch_try(struct batch *b, bool *ret_open)
{
        bool fenced;
        int r = 0;

        *ret_open = false;
        if (!b->sc->known)
                r = batch_read(b);
        if (r == 0)
                r = batch_judge(b);
        if (r == 0 && b->ncommit < b->n && b->s->watched) {
                WITH_LOCK(&b->s->lock);
                feed_hurry(b->s, b->sc);
                if (++b->sc->losses >= LOSSES)
                        feed_ask(b->s, b->sc);
        }
        if (r < 0 || (b->n && !b->ncommit))
                return r;
        r = batch_write(b, &fenced);
        if (r == 0)
                return 0;
        b->sc->known = b->exact = false; /* whatever it is, the next look is a fresh one */
        *ret_open = r == -ETIMEDOUT;
        if (fenced)
                return -ESHUTDOWN;
        if (r == -ENOENT) {
                r = scope_make(b->s, b->sc);
                return r < 0 ? r : -EAGAIN;
        }
        return r == -ECANCELED ? -EAGAIN : r;
}

static void batch_fail(struct batch *b, int r, bool open)
{
        struct outcome *o = b->out;

        for (size_t i = 0; i < MAX(b->n, (size_t)1); i++, o++) {
                if (o->err)
                        continue;
                if (open && o->result == STORE_COMMITTED) {
                        o->result = STORE_UNKNOWN;
                        continue;
                }
                o->result = STORE_FAILED;
                if (r == -ESHUTDOWN)
                        err_set(&o->err, r, "store '%s': another host has shut this one out",
                                b->s->where);
                else
                        store_err(b->s, &o->err, r, "commit");
        }
}

/* The feed may have been there since our last write: then that is where we begin. */
static void heard_of(struct rados_store *s, struct scope *sc)
{
        WITH_LOCK(&s->lock);

        if (!sc->known || sc->applied <= sc->seq)
                return;
        sc->seq = sc->applied;
        sc->other = MAX(sc->other, sc->applied);
}

void batch_run(struct rados_store *s, struct scope *sc, struct store_txn *list, size_t n,
               struct outcome *out)
{
        struct batch b = {.s = s, .sc = sc, .list = list, .n = n, .out = out};
        int64_t pause = BACKOFF_US;
        unsigned seed = (unsigned)clock_mono();
        struct outcome *o = out;
        bool open = false;
        int r = -EAGAIN;

        for (struct store_txn *t = list; t; t = t->next, o++)
                if (store_txn_check(t, &o->err) < 0)
                        o->result = STORE_FAILED;
        heard_of(s, sc);
        for (int i = 0; r == -EAGAIN && i < TRIES_MAX; i++) {
                r = batch_try(&b, &open);
                if (r != -EAGAIN || i == 0)
                        continue;
                usleep((useconds_t)((int64_t)rand_r(&seed) % pause));
                pause = MIN(pause * 2, (int64_t)BACKOFF_MAX_US);
        }
        if (r < 0)
                batch_fail(&b, r, open);
        entries_free(&b);
}
