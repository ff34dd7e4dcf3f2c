/* What asks the pool on the caller's thread. */
#include "backend/store/rados/internal.h"

enum { FIRST_S = 30 }; /* who fills an empty store has that long, and others wait */

static int record_add(struct records *r, const char *scope, const char *key)
{
        if (r->n == r->size) {
                size_t size = MAX(r->size * 2, (size_t)64);
                struct store_record *v = reallocarray(r->v, size, sizeof(*v));

                if (!v)
                        return -ENOMEM;
                r->v = v;
                r->size = size;
        }
        r->v[r->n] = (struct store_record){.scope = scope, .key = strdup(key)};
        return r->v[r->n].key ? (int)r->n++ : -ENOMEM;
}

void records_free(struct records *r)
{
        for (size_t i = 0; i < r->n; i++) {
                free((char *)r->v[i].key);
                free((void *)r->v[i].value);
        }
        free(r->v);
        *r = (struct records){0};
}

static int record_fill(struct store_record *r, const char *value, size_t len)
{
        char *copy;

        if (len < NUMBER_SIZE || value[NUMBER_SIZE - 1] != ':')
                return -EUCLEAN;
        copy = malloc(len - NUMBER_SIZE + 1);
        if (!copy)
                return -ENOMEM;
        memcpy(copy, value + NUMBER_SIZE, len - NUMBER_SIZE);
        copy[len - NUMBER_SIZE] = '\0';
        free((void *)r->value);
        r->version = number_parse(value, len);
        r->value = copy;
        r->len = len - NUMBER_SIZE;
        return 0;
}

/* --- records of a scope ------------------------------------------------------------------------
 */

/* A key's place among the records, while they are being gathered. */
struct place {
        size_t i;
        UT_hash_handle hh;
        char key[];
};

struct gather {
        struct rados_store *s;
        struct scope *sc;
        struct records *r;
        struct place *places;
        uint64_t last; /* the newest log entry seen */
        size_t *stale; /* records to be read again, in the order of the log */
        size_t nstale, size;
};

static void gather_done(struct gather *g)
{
        struct place *p, *tmp;

        HASH_ITER (hh, g->places, p, tmp) {
                HASH_DEL(g->places, p);
                free(p);
        }
        free(g->stale);
}

static int place_add(struct gather *g, const char *key, size_t i)
{
        size_t n = strlen(key) + 1;
        struct place *p = calloc(1, sizeof(*p) + n);

        if (!p)
                return -ENOMEM;
        p->i = i;
        memcpy(p->key, key, n);
        HASH_ADD_KEYPTR(hh, g->places, p->key, n - 1, p);
        return 0;
}

static int gather_places(struct gather *g)
{
        int r = 0;

        if (g->places)
                return 0;
        for (size_t i = 0; r == 0 && i < g->r->n; i++)
                r = place_add(g, g->r->v[i].key, i);
        return r;
}

static int gather_key(struct gather *g, const char *key, size_t *ret)
{
        struct place *p;
        int r;

        r = gather_places(g);
        if (r < 0)
                return r;
        HASH_FIND_STR(g->places, key, p);
        if (p) {
                *ret = p->i;
                return 0;
        }
        r = record_add(g->r, g->sc->name, key);
        if (r < 0)
                return r;
        *ret = (size_t)r;
        return place_add(g, key, *ret);
}

/* The records of a whole scope have no places until one of them has to be found. */
static int gather_first(void *arg, const char *key, const char *value, size_t len)
{
        struct gather *g = arg;
        int r = record_add(g->r, g->sc->name, key + strlen("r:"));

        return r < 0 ? r : record_fill(&g->r->v[r], value, len);
}

static int gather_record(void *arg, const char *key, const char *value, size_t len)
{
        struct gather *g = arg;
        size_t i = 0;
        int r = gather_key(g, key + strlen("r:"), &i);

        return r < 0 ? r : record_fill(&g->r->v[i], value, len);
}

static int gather_stale(struct gather *g, size_t i)
{
        if (g->nstale == g->size) {
                size_t size = MAX(g->size * 2, (size_t)64);
                size_t *v = reallocarray(g->stale, size, sizeof(*v));

                if (!v)
                        return -ENOMEM;
                g->stale = v;
                g->size = size;
        }
        g->stale[g->nstale++] = i;
        return 0;
}

static int gather_log(void *arg, const char *key, const char *value, size_t len)
{
        struct gather *g = arg;
        size_t i = 0;
        int r = 0;

        for (const char *at = value, *nul; r == 0 && len > 0; len -= nul + 1 - at, at = nul + 1) {
                nul = memchr(at, '\0', len);
                if (!nul)
                        return -EUCLEAN;
                if (*at != 'k')
                        continue;
                r = gather_key(g, at + 1, &i);
                if (r == 0)
                        r = gather_stale(g, i);
        }
        g->last = number_parse(key + strlen("l:"), strlen(key) - strlen("l:"));
        return r;
}

/* Reads the stale records anew; what is not there is deleted. */
static int gather_refresh(struct gather *g)
{
        _cleanup_free_ char **keys = calloc(g->nstale + 1, sizeof(*keys));
        size_t n = 0;
        int r = keys ? 0 : -ENOMEM;

        for (size_t i = 0; r == 0 && i < g->nstale; i++) {
                struct store_record *v = &g->r->v[g->stale[i]];

                free((void *)v->value);
                v->value = NULL;
                v->len = v->version = 0;
                if (asprintf(&keys[n++], "r:%s", v->key) < 0)
                        r = -ENOMEM;
        }
        if (r == 0)
                r = omap_get(g->s, g->sc->oid, (const char *const *)keys, n, gather_record, g);
        for (size_t i = 0; keys && i < n; i++)
                free(keys[i]);
        g->nstale = 0;
        return r;
}

/* From `since` until nothing changed while it was read. */
static int gather_since(struct gather *g, uint64_t since, uint64_t *ret_now)
{
        char after[32], text[NUMBER_SIZE];
        int r = 0;

        for (g->last = since;; since = g->last) {
                snprintf(after, sizeof(after), "l:%s", number_text(text, since));
                r = omap_each(g->s, g->sc->oid, "l:", after, gather_log, g);
                if (r < 0 || g->last == since)
                        break;
                r = gather_refresh(g);
                if (r < 0)
                        break;
        }
        *ret_now = since;
        return r;
}

int scope_changes(struct rados_store *s, struct scope *sc, uint64_t since, struct records *ret,
                  bool *ret_whole, uint64_t *ret_now)
{
        struct gather g = {.s = s, .sc = sc, .r = ret};
        uint64_t seq, floor;
        int r = scope_numbers(s, sc, &seq, &floor);

        *ret_whole = r == 0 && (since == 0 || since < floor);
        *ret_now = seq;
        if (r == 0 && *ret_whole)
                r = omap_each(s, sc->oid, "r:", "", gather_first, &g);
        if (r == 0 && (*ret_whole || since != seq))
                r = gather_since(&g, *ret_whole ? seq : since, ret_now);
        if (r == 0 && !*ret_whole) { /* what we were about to read may have been forgotten */
                r = scope_numbers(s, sc, &seq, &floor);
                if (r == 0 && since < floor)
                        r = -ESTALE;
        }
        gather_done(&g);
        return r;
}

/* --- operations --------------------------------------------------------------------------------
 */

static int each_record(const struct records *v, bool deleted,
                       int (*each)(void *arg, const struct store_record *r), void *arg)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < v->n; i++)
                if (deleted || v->v[i].value)
                        r = each(arg, &v->v[i]);
        return r < 0 ? r : 0;
}

static int load_scope(struct rados_store *s, struct scope *sc,
                      int (*each)(void *arg, const struct store_record *r), void *arg,
                      struct err **e)
{
        struct records v = {0};
        uint64_t now;
        bool whole;
        int r;

        scope_barrier(s, sc);
        scope_take(s, sc);
        r = scope_changes(s, sc, 0, &v, &whole, &now);
        if (r == 0) {
                sc->seq = now;
                sc->known = true;
        }
        scope_give(s, sc);
        if (r < 0)
                store_err(s, e, r, "read scope '%s'", sc->name);
        else
                r = each_record(&v, false, each, arg);
        records_free(&v);
        if (r < 0)
                return r;
        WITH_LOCK(&s->lock);
        sc->cursor = sc->applied = now;
        return 0;
}

static int found_one(void *arg, const char *key _unused_, const char *value _unused_,
                     size_t len _unused_)
{
        *(bool *)arg = true;
        return 0;
}

/* Two hosts that start at once on an empty store must not both fill it: the first one locks it, the
 * other waits here until there is something. */
static int load_first(struct rados_store *s, struct err **e)
{
        struct timeval lease = {.tv_sec = FIRST_S};
        int64_t until = clock_mono() + (FIRST_S + 5) * 1000000LL;
        int r;

        for (;;) {
                r = rados_lock_exclusive(s->io, STORE_OID, "first", s->where, s->cfg.host, &lease,
                                         LIBRADOS_LOCK_FLAG_MAY_RENEW);
                if (r != -EBUSY)
                        break;
                if (clock_mono() > until)
                        return store_err(s, e, -EBUSY, "another host is filling the empty store");
                usleep(50000);
        }
        s->first = r == 0;
        return r < 0 ? store_err(s, e, r, "lock the empty store") : 0;
}

static int is_filled(struct rados_store *s, bool *ret, struct err **e)
{
        const char *key = "filled";
        int r;

        *ret = false;
        r = omap_get(s, STORE_OID, &key, 1, found_one, ret);
        return r < 0 ? store_err(s, e, r, "read") : 0;
}

int read_load(struct store *store, int (*each)(void *arg, const struct store_record *r), void *arg,
              struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        _cleanup_free_ struct scope **v = NULL;
        size_t n = 0;
        bool filled;
        int r = is_filled(s, &filled, e);

        if (r == 0 && !filled)
                r = load_first(s, e);
        if (r == 0)
                r = scopes_read(s, e);
        if (r < 0)
                return r;
        v = scopes_list(s, &n);
        if (!v)
                return store_err(s, e, -ENOMEM, "load");
        for (size_t i = 0; i < n && r >= 0; i++)
                r = load_scope(s, v[i], each, arg, e);
        return r;
}

int read_changes(struct store *store, const char *scope, uint64_t since,
                 int (*each)(void *arg, const struct store_record *r), void *arg, uint64_t *ret_now,
                 struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        struct scope *sc = scope_get(s, scope);
        struct records v = {0};
        uint64_t now = 0;
        bool whole = false;
        int r;

        if (!sc)
                return store_err(s, e, -ENOMEM, "changes");
        scope_barrier(s, sc);
        r = scope_changes(s, sc, since, &v, &whole, &now);
        if (r == 0 && since && whole)
                r = -ESTALE;
        if (r == -ESTALE)
                err_set(e, r, "changes of '%s' since %llu are asked for, but they are forgotten",
                        scope, (unsigned long long)since);
        else if (r < 0)
                store_err(s, e, r, "read the changes of '%s'", scope);
        else
                r = each_record(&v, since != 0, each, arg);
        records_free(&v);
        if (r == 0)
                *ret_now = now;
        return r;
}

/* 1, 0 or -errno. */
static int committed_in(struct rados_store *s, struct scope *sc, const char *txn_id)
{
        _cleanup_free_ char *key = NULL;
        bool found = false;
        int r;

        if (asprintf(&key, "t:%s", txn_id) < 0)
                return -ENOMEM;
        r = omap_get(s, sc->oid, (const char *const *)&key, 1, found_one, &found);
        return r < 0 ? r : found;
}

/* What was sent before its answer was lost may still be on its way.  It asserts the scope's number:
 * once that has moved on, it can land no more. */
static int committed_never(struct rados_store *s, struct scope *sc, const char *txn_id)
{
        struct outcome out = {0};
        int r;

        scope_take(s, sc);
        sc->known = false;
        batch_run(s, sc, NULL, 0, &out);
        scope_give(s, sc);
        r = out.err ? out.err->code : 0;
        err_free(out.err);
        return r < 0 ? r : committed_in(s, sc, txn_id);
}

int read_committed(struct store *store, const char *txn_id, struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        _cleanup_free_ struct scope **v = NULL;
        size_t n = 0;
        int r = scopes_read(s, e);

        if (r < 0)
                return r;
        v = scopes_list(s, &n);
        if (!v)
                return store_err(s, e, -ENOMEM, "look up a transaction");
        for (size_t i = 0; r == 0 && i < n; i++) {
                scope_barrier(s, v[i]);
                r = committed_in(s, v[i], txn_id);
        }
        for (size_t i = 0; r == 0 && i < n; i++)
                r = committed_never(s, v[i], txn_id);
        return r < 0 ? store_err(s, e, r, "look up a transaction") : r;
}
