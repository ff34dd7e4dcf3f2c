#include "backend/store/memory/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include <uthash.h>

/* A record, or the trace of one (value NULL), or a transaction id (scope "", value NULL). */
struct entry {
        char *name; /* scope, newline, key */
        uint64_t version, change;
        char *value;
        UT_hash_handle hh;
};

struct memory_store;

/* What the handles of one store share. */
struct memory_core {
        pthread_mutex_t lock;
        struct entry *entries;
        uint64_t change, epoch, number;
        struct memory_store *handles;
};

typedef void changed_fn(void *arg, const char *scope, const struct store_record *v, size_t n,
                        bool whole, uint64_t now);

/* What another handle did to a scope, as its own records. */
struct news {
        char scope[40];
        struct store_record *v;
        size_t n;
        uint64_t now;
        struct news *next;
};

/* How far a handle that watches knows a scope. */
struct known {
        char scope[40];
        uint64_t foreign, applied; /* change numbers: of the last by others, and told to be in */
        struct known *next;
};

/* One handle: what a host has open.  Everything is guarded by the core's lock. */
struct memory_store {
        struct store store;
        struct memory_core *core;
        struct memory_store *next; /* of the core */
        pthread_cond_t wake, settled, heard;
        struct store_txn *head, **tail;
        uint64_t epoch, loaded, nqueued, nsettled;
        bool stop, fenced, watching;
        pthread_t thread, feed;
        changed_fn *changed;
        void *arg;
        struct news *news, **news_tail;
        struct known *known;
};

static struct entry *entry_get(struct memory_core *s, const char *scope, const char *key, bool make)
{
        _cleanup_free_ char *name = NULL;
        struct entry *n;

        if (asprintf(&name, "%s\n%s", scope, key) < 0)
                abort();
        HASH_FIND_STR(s->entries, name, n);
        if (n || !make)
                return n;
        n = calloc(1, sizeof(*n));
        if (!n)
                abort(); /* a test has no use for half a store */
        n->name = TAKE_PTR(name);
        HASH_ADD_KEYPTR(hh, s->entries, n->name, strlen(n->name), n);
        return n;
}

/* --- what handles tell each other ------------------------------------------------------------ */

static struct known *known_get(struct memory_store *s, const char *scope)
{
        struct known *k;

        for (k = s->known; k; k = k->next)
                if (streq(k->scope, scope))
                        return k;
        k = calloc(1, sizeof(*k));
        if (!k)
                abort();
        snprintf(k->scope, sizeof(k->scope), "%s", scope);
        k->next = s->known;
        s->known = k;
        return k;
}

static void news_free(struct news *n)
{
        for (size_t i = 0; i < n->n; i++) {
                free((char *)n->v[i].key);
                free((char *)n->v[i].value);
        }
        free(n->v);
        free(n);
}

/* Queues a record for s, behind the others of the same change if it is one of several. */
static void news_add(struct memory_store *s, const char *scope, const char *key, uint64_t version,
                     const char *value, uint64_t now, struct news **last)
{
        struct news *n = *last;

        if (!n || !streq(n->scope, scope)) {
                n = calloc(1, sizeof(*n));
                if (!n)
                        abort();
                snprintf(n->scope, sizeof(n->scope), "%s", scope);
                *s->news_tail = n;
                s->news_tail = &n->next;
                *last = n;
        }
        n->v = reallocarray(n->v, n->n + 1, sizeof(*n->v));
        if (!n->v)
                abort();
        n->v[n->n++] =
                (struct store_record){n->scope, strdup(key), version, value ? strdup(value) : NULL,
                                      value ? strlen(value) : 0};
        n->now = now;
        known_get(s, scope)->foreign = now;
        pthread_cond_signal(&s->heard);
}

static void *feed_main(void *arg)
{
        struct memory_store *s = arg;

        pthread_mutex_lock(&s->core->lock);
        while (s->watching) {
                struct news *n = s->news;

                if (!n) {
                        pthread_cond_wait(&s->heard, &s->core->lock);
                        continue;
                }
                s->news = n->next;
                if (!s->news)
                        s->news_tail = &s->news;
                pthread_mutex_unlock(&s->core->lock);
                s->changed(s->arg, n->scope, n->v, n->n, false, n->now);
                news_free(n);
                pthread_mutex_lock(&s->core->lock);
        }
        pthread_mutex_unlock(&s->core->lock);
        return NULL;
}

/* --- commits --------------------------------------------------------------------------------- */

static enum store_result txn_apply(struct memory_store *s, struct store_txn *t)
{
        struct memory_core *c = s->core;
        struct known *k = s->watching ? known_get(s, t->scope) : NULL;

        if (k && k->foreign > k->applied)
                return STORE_CONFLICT;
        for (size_t i = 0; i < t->n; i++) {
                const struct store_put *p = &t->puts[i];
                struct entry *n = entry_get(c, t->scope, p->key, false);

                if (p->expect != (n && n->value ? n->version : 0))
                        return STORE_CONFLICT;
        }
        for (size_t i = 0; i < t->n; i++) {
                const struct store_put *p = &t->puts[i];
                struct entry *n = entry_get(c, t->scope, p->key, true);

                free(n->value);
                n->value = p->version ? strdup(p->value) : NULL;
                n->version = p->version;
                n->change = ++c->change;
        }
        entry_get(c, "", t->id, true);
        for (struct memory_store *h = c->handles; h; h = h->next) {
                struct news *last = NULL;

                for (size_t i = 0; h != s && h->watching && i < t->n; i++)
                        news_add(h, t->scope, t->puts[i].key, t->puts[i].version,
                                 t->puts[i].version ? t->puts[i].value : NULL, c->change, &last);
        }
        return STORE_COMMITTED;
}

static void settle(struct memory_store *s, struct store_txn *t)
{
        enum store_result result = STORE_FAILED;
        struct err *err = NULL;

        pthread_mutex_lock(&s->core->lock);
        if (s->fenced)
                err_set(&err, -ESHUTDOWN, "fenced");
        else
                result = txn_apply(s, t);
        s->nsettled++;
        pthread_cond_broadcast(&s->settled);
        pthread_mutex_unlock(&s->core->lock);
        if (t->done)
                t->done(t->arg, result, err);
        err_free(err);
        store_txn_free(t);
}

static void *memory_main(void *arg)
{
        struct memory_store *s = arg;
        struct store_txn *t;

        pthread_mutex_lock(&s->core->lock);
        while (s->head || !s->stop) {
                t = s->head;
                if (!t) {
                        pthread_cond_wait(&s->wake, &s->core->lock);
                        continue;
                }
                s->head = t->next;
                if (!s->head)
                        s->tail = &s->head;
                pthread_mutex_unlock(&s->core->lock);
                settle(s, t);
                pthread_mutex_lock(&s->core->lock);
        }
        pthread_mutex_unlock(&s->core->lock);
        return NULL;
}

static void memory_commit(struct store *store, struct store_txn *t)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->core->lock);

        t->next = NULL;
        *s->tail = t;
        s->tail = &t->next;
        s->nqueued++;
        pthread_cond_signal(&s->wake);
}

static void barrier(struct memory_store *s) /* with the lock */
{
        for (uint64_t until = s->nqueued; s->nsettled < until;)
                pthread_cond_wait(&s->settled, &s->core->lock);
}

static int memory_committed(struct store *store, const char *txn_id, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->core->lock);

        barrier(s);
        return entry_get(s->core, "", txn_id, false) != NULL;
}

static int by_change(const struct entry *a, const struct entry *b)
{
        return (a->change > b->change) - (a->change < b->change);
}

/* scope NULL: all. */
static int memory_changes(struct store *store, const char *scope, uint64_t since,
                          int (*each)(void *arg, const struct store_record *r), void *arg,
                          uint64_t *ret_now, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        int r = 0;
        WITH_LOCK(&s->core->lock);

        barrier(s);
        HASH_SORT(s->core->entries, by_change);
        for (struct entry *n = s->core->entries; r >= 0 && n; n = n->hh.next) {
                char *key = strchr(n->name, '\n');

                if (n->change <= since || (!n->value && since == 0) || key == n->name)
                        continue;
                *key = '\0';
                if (scope && !streq(n->name, scope)) {
                        *key = '\n';
                        continue;
                }
                r = each(arg, &(struct store_record){n->name, key + 1, n->version, n->value,
                                                     n->value ? strlen(n->value) : 0});
                *key = '\n';
        }
        *ret_now = s->core->change;
        return r < 0 ? r : 0;
}

static int memory_load(struct store *store, int (*each)(void *arg, const struct store_record *r),
                       void *arg, struct err **e)
{
        struct memory_store *s = (struct memory_store *)store;

        return memory_changes(store, NULL, 0, each, arg, &s->loaded, e);
}

static int memory_epoch(struct store *store, uint64_t *ret, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->core->lock);

        *ret = s->epoch = ++s->core->epoch;
        s->fenced = false;
        return 0;
}

/* What was committed since the load, by others or by ourselves: versions tell.  Lock held. */
static void tell_missed(struct memory_store *s)
{
        struct news *last = NULL;

        HASH_SORT(s->core->entries, by_change);
        for (struct entry *n = s->core->entries; n; n = n->hh.next) {
                char *key = strchr(n->name, '\n');

                if (n->change <= s->loaded || key == n->name)
                        continue;
                *key = '\0';
                news_add(s, n->name, key + 1, n->version, n->value, n->change, &last);
                *key = '\n';
        }
}

static int memory_watch(struct store *store, changed_fn *changed, void *arg,
                        struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        bool stop;

        pthread_mutex_lock(&s->core->lock);
        stop = s->watching && !changed;
        s->watching = changed;
        if (changed) {
                s->changed = changed;
                s->arg = arg;
                tell_missed(s);
                if (pthread_create(&s->feed, NULL, feed_main, s) != 0)
                        abort();
        }
        pthread_cond_signal(&s->heard);
        pthread_mutex_unlock(&s->core->lock);
        if (stop)
                pthread_join(s->feed, NULL);
        return 0;
}

static void memory_applied(struct store *store, const char *scope, uint64_t now)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->core->lock);

        known_get(s, scope)->applied = now;
}

static int memory_numbers(struct store *store, uint64_t at_least, uint64_t n, uint64_t *ret,
                          struct err **e _unused_)
{
        struct memory_core *c = ((struct memory_store *)store)->core;
        WITH_LOCK(&c->lock);

        *ret = c->number > at_least ? c->number : at_least;
        c->number = *ret + n;
        return 0;
}

static int memory_fence(struct store *store, uint64_t epoch, struct err **e _unused_)
{
        struct memory_core *c = ((struct memory_store *)store)->core;
        WITH_LOCK(&c->lock);

        for (struct memory_store *h = c->handles; h; h = h->next)
                h->fenced = h->fenced || h->epoch == epoch;
        return 0;
}

static void core_free(struct memory_core *c)
{
        struct entry *n, *next;

        HASH_ITER (hh, c->entries, n, next) {
                HASH_DEL(c->entries, n);
                free(n->name);
                free(n->value);
                free(n);
        }
        pthread_mutex_destroy(&c->lock);
        free(c);
}

static void handle_free(struct memory_store *s)
{
        struct news *n;
        struct known *k;

        while ((n = s->news)) {
                s->news = n->next;
                news_free(n);
        }
        while ((k = s->known)) {
                s->known = k->next;
                free(k);
        }
        pthread_cond_destroy(&s->wake);
        pthread_cond_destroy(&s->settled);
        pthread_cond_destroy(&s->heard);
        free(s);
}

static void memory_close(struct store *store)
{
        struct memory_store *s = (struct memory_store *)store, **p;
        struct memory_core *c = s->core;
        bool last;

        memory_watch(store, NULL, NULL, NULL);
        pthread_mutex_lock(&c->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&c->lock);
        pthread_join(s->thread, NULL);
        pthread_mutex_lock(&c->lock);
        for (p = &c->handles; *p != s; p = &(*p)->next)
                ;
        *p = s->next;
        last = !c->handles;
        pthread_mutex_unlock(&c->lock);
        handle_free(s);
        if (last)
                core_free(c);
}

static struct store *open_handle(struct memory_core *c, bool shared)
{
        static const struct store_ops alone = {.name = "memory",
                                               .load = memory_load,
                                               .commit = memory_commit,
                                               .committed = memory_committed,
                                               .changes = memory_changes,
                                               .close = memory_close,
                                               .epoch = memory_epoch};
        static const struct store_ops ops = {.name = "memory",
                                             .load = memory_load,
                                             .commit = memory_commit,
                                             .committed = memory_committed,
                                             .changes = memory_changes,
                                             .close = memory_close,
                                             .epoch = memory_epoch,
                                             .watch = memory_watch,
                                             .applied = memory_applied,
                                             .numbers = memory_numbers,
                                             .fence = memory_fence};
        struct memory_store *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->store.ops = shared ? &ops : &alone;
        s->core = c;
        s->tail = &s->head;
        s->news_tail = &s->news;
        pthread_cond_init(&s->wake, NULL);
        pthread_cond_init(&s->settled, NULL);
        pthread_cond_init(&s->heard, NULL);
        pthread_mutex_lock(&c->lock);
        s->next = c->handles;
        c->handles = s;
        pthread_mutex_unlock(&c->lock);
        if (pthread_create(&s->thread, NULL, memory_main, s) != 0)
                abort(); /* a test */
        return &s->store;
}

struct store *store_memory_join(struct store *store)
{
        return open_handle(((struct memory_store *)store)->core, true);
}

static struct store *open_core(bool shared)
{
        struct memory_core *c = calloc(1, sizeof(*c));
        struct store *s;

        if (!c)
                return NULL;
        pthread_mutex_init(&c->lock, NULL);
        s = open_handle(c, shared);
        if (!s)
                core_free(c);
        return s;
}

struct store *store_memory_new(void)
{
        return open_core(false);
}

struct store *store_memory_new_shared(void)
{
        return open_core(true);
}
