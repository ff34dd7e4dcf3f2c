#include "backend/store/memory/memory.h"

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

struct memory_store {
        struct store store;
        pthread_mutex_t lock;
        pthread_cond_t wake, settled;
        struct entry *entries;
        struct store_txn *head, **tail;
        uint64_t change, epoch, nqueued, nsettled;
        bool stop;
        pthread_t thread;
};

static struct entry *entry_get(struct memory_store *s, const char *scope, const char *key,
                               bool make)
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

static enum store_result txn_apply(struct memory_store *s, struct store_txn *t)
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
                n->value = t->puts[i].version ? TAKE_PTR(t->puts[i].value) : NULL;
                n->version = t->puts[i].version;
                n->change = ++s->change;
        }
        entry_get(s, "", t->id, true);
        return STORE_COMMITTED;
}

static void *memory_main(void *arg)
{
        struct memory_store *s = arg;
        struct store_txn *t;
        enum store_result result;

        pthread_mutex_lock(&s->lock);
        while (s->head || !s->stop) {
                t = s->head;
                if (!t) {
                        pthread_cond_wait(&s->wake, &s->lock);
                        continue;
                }
                s->head = t->next;
                if (!s->head)
                        s->tail = &s->head;
                result = txn_apply(s, t);
                s->nsettled++;
                pthread_cond_broadcast(&s->settled);
                pthread_mutex_unlock(&s->lock);
                if (t->done)
                        t->done(t->arg, result, NULL);
                store_txn_free(t);
                pthread_mutex_lock(&s->lock);
        }
        pthread_mutex_unlock(&s->lock);
        return NULL;
}

static void memory_commit(struct store *store, struct store_txn *t)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->lock);

        t->next = NULL;
        *s->tail = t;
        s->tail = &t->next;
        s->nqueued++;
        pthread_cond_signal(&s->wake);
}

static void barrier(struct memory_store *s) /* with the lock */
{
        for (uint64_t until = s->nqueued; s->nsettled < until;)
                pthread_cond_wait(&s->settled, &s->lock);
}

static int memory_committed(struct store *store, const char *txn_id, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->lock);

        barrier(s);
        return entry_get(s, "", txn_id, false) != NULL;
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
        WITH_LOCK(&s->lock);

        barrier(s);
        HASH_SORT(s->entries, by_change);
        for (struct entry *n = s->entries; r >= 0 && n; n = n->hh.next) {
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
        *ret_now = s->change;
        return r < 0 ? r : 0;
}

static int memory_load(struct store *s, int (*each)(void *arg, const struct store_record *r),
                       void *arg, struct err **e)
{
        uint64_t now;

        return memory_changes(s, NULL, 0, each, arg, &now, e);
}

static int memory_epoch(struct store *store, uint64_t *ret, struct err **e _unused_)
{
        struct memory_store *s = (struct memory_store *)store;
        WITH_LOCK(&s->lock);

        *ret = ++s->epoch;
        return 0;
}

static void memory_close(struct store *store)
{
        struct memory_store *s = (struct memory_store *)store;
        struct entry *n, *next;

        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
        HASH_ITER (hh, s->entries, n, next) {
                HASH_DEL(s->entries, n);
                free(n->name);
                free(n->value);
                free(n);
        }
        free(s);
}

struct store *store_memory_new(void)
{
        static const struct store_ops ops = {
                "memory",       memory_load,  memory_commit, memory_committed,
                memory_changes, memory_close, memory_epoch,  NULL,
                NULL,           NULL};
        struct memory_store *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->store.ops = &ops;
        s->tail = &s->head;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->wake, NULL);
        pthread_cond_init(&s->settled, NULL);
        if (pthread_create(&s->thread, NULL, memory_main, s) != 0) {
                free(s);
                return NULL;
        }
        return &s->store;
}
