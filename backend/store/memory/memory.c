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
        pthread_mutex_t telling; /* taken first: what is applied is told in that order */
        struct entry *entries;
        uint64_t change, epoch, number;
        struct memory_store *handles;
};

/* One handle: what a host has open. */
struct memory_store {
        struct store store;
        struct memory_core *core;
        struct memory_store *next; /* of the core; guarded by telling and lock */
        pthread_cond_t wake, settled;
        struct store_txn *head, **tail;
        uint64_t epoch, nqueued, nsettled;
        bool stop, fenced;
        void (*changed)(void *arg, const char *scope, const struct store_record *v, size_t n,
                        bool whole);
        void *arg;
        pthread_t thread;
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

static enum store_result txn_apply(struct memory_core *s, struct store_txn *t)
{
        for (size_t i = 0; i < t->n; i++) {
                const struct store_put *p = &t->puts[i];
                struct entry *n = entry_get(s, t->scope, p->key, false);

                if (p->expect != (n && n->value ? n->version : 0))
                        return STORE_CONFLICT;
        }
        for (size_t i = 0; i < t->n; i++) {
                struct entry *n = entry_get(s, t->scope, t->puts[i].key, true);

                free(n->value);
                n->value = t->puts[i].version ? strdup(t->puts[i].value) : NULL;
                n->version = t->puts[i].version;
                n->change = ++s->change;
        }
        entry_get(s, "", t->id, true);
        return STORE_COMMITTED;
}

/* To the other handles.  telling held. */
static void tell(struct memory_store *s, const struct store_txn *t)
{
        struct store_record *v = calloc(t->n, sizeof(*v));

        for (size_t i = 0; v && i < t->n; i++) {
                const struct store_put *p = &t->puts[i];

                v[i] = (struct store_record){t->scope, p->key, p->version,
                                             p->version ? p->value : NULL, p->version ? p->len : 0};
        }
        for (struct memory_store *h = s->core->handles; v && h; h = h->next)
                if (h != s && h->changed)
                        h->changed(h->arg, t->scope, v, t->n, false);
        free(v);
}

static void settle(struct memory_store *s, struct store_txn *t)
{
        struct memory_core *c = s->core;
        enum store_result result = STORE_FAILED;
        struct err *err = NULL;

        pthread_mutex_lock(&c->telling);
        pthread_mutex_lock(&c->lock);
        if (s->fenced)
                err_set(&err, -ESHUTDOWN, "fenced");
        else
                result = txn_apply(c, t);
        s->nsettled++;
        pthread_cond_broadcast(&s->settled);
        pthread_mutex_unlock(&c->lock);
        if (result == STORE_COMMITTED)
                tell(s, t);
        pthread_mutex_unlock(&c->telling);
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

static int memory_changes(struct store *store, uint64_t since,
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
                r = each(arg, &(struct store_record){n->name, key + 1, n->version, n->value,
                                                     n->value ? strlen(n->value) : 0});
                *key = '\n';
        }
        *ret_now = s->core->change;
        return r < 0 ? r : 0;
}

static int memory_load(struct store *s, int (*each)(void *arg, const struct store_record *r),
                       void *arg, struct err **e)
{
        uint64_t now;

        return memory_changes(s, 0, each, arg, &now, e);
}

static int memory_epoch(struct store *store, uint64_t *ret, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->core->lock);

        *ret = s->epoch = ++s->core->epoch;
        return 0;
}

static int memory_watch(struct store *store,
                        void (*changed)(void *arg, const char *scope, const struct store_record *v,
                                        size_t n, bool whole),
                        void *arg, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->core->telling);

        s->changed = changed;
        s->arg = arg;
        return 0;
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
        pthread_mutex_destroy(&c->telling);
        free(c);
}

static void memory_close(struct store *store)
{
        struct memory_store *s = (struct memory_store *)store, **p;
        struct memory_core *c = s->core;
        bool last;

        pthread_mutex_lock(&c->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&c->lock);
        pthread_join(s->thread, NULL);
        pthread_mutex_lock(&c->telling);
        pthread_mutex_lock(&c->lock);
        for (p = &c->handles; *p != s; p = &(*p)->next)
                ;
        *p = s->next;
        last = !c->handles;
        pthread_mutex_unlock(&c->lock);
        pthread_mutex_unlock(&c->telling);
        pthread_cond_destroy(&s->wake);
        pthread_cond_destroy(&s->settled);
        free(s);
        if (last)
                core_free(c);
}

static struct store *open_handle(struct memory_core *c)
{
        static const struct store_ops ops = {
                "memory",     memory_load,  memory_commit, memory_committed, memory_changes,
                memory_close, memory_epoch, memory_watch,  memory_numbers,   memory_fence};
        struct memory_store *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->store.ops = &ops;
        s->core = c;
        s->tail = &s->head;
        pthread_cond_init(&s->wake, NULL);
        pthread_cond_init(&s->settled, NULL);
        if (pthread_create(&s->thread, NULL, memory_main, s) != 0) {
                free(s);
                return NULL;
        }
        pthread_mutex_lock(&c->telling);
        pthread_mutex_lock(&c->lock);
        s->next = c->handles;
        c->handles = s;
        pthread_mutex_unlock(&c->lock);
        pthread_mutex_unlock(&c->telling);
        return &s->store;
}

struct store *store_memory_join(struct store *store)
{
        return open_handle(((struct memory_store *)store)->core);
}

struct store *store_memory_new(void)
{
        struct memory_core *c = calloc(1, sizeof(*c));
        struct store *s;

        if (!c)
                return NULL;
        pthread_mutex_init(&c->lock, NULL);
        pthread_mutex_init(&c->telling, NULL);
        s = open_handle(c);
        if (!s)
                core_free(c);
        return s;
}
