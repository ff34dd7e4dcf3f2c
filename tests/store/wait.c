#include "tests/store/wait.h"

void waiter_init(struct waiter *w)
{
        memset(w, 0, sizeof(*w));
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->cond, NULL);
}

void waiter_done(void *arg, enum store_result result, const struct err *err)
{
        struct waiter *w = arg;
        WITH_LOCK(&w->lock);

        w->calls++;
        w->result = result;
        w->code = err ? err->code : 0;
        snprintf(w->words, sizeof(w->words), "%s", err ? err_msg(err) : "");
        if (w->order)
                w->place = ++*w->order; /* only the store's thread touches it */
        pthread_cond_broadcast(&w->cond);
}

void waiter_wait(struct waiter *w)
{
        WITH_LOCK(&w->lock);

        while (w->calls == 0)
                pthread_cond_wait(&w->cond, &w->lock);
}

struct store_txn *txn_of(const char *scope, const char *key, uint64_t expect, uint64_t version,
                         const char *value)
{
        struct store_txn *t = store_txn_new(scope);

        if (!t || store_txn_add(t, key, expect, version, value) < 0)
                abort();
        return t;
}

enum store_result commit_wait(struct store *s, struct store_txn *t, struct waiter *w)
{
        struct waiter own;

        if (!w)
                w = &own;
        waiter_init(w);
        t->done = waiter_done;
        t->arg = w;
        s->ops->commit(s, t);
        waiter_wait(w);
        return w->result;
}

enum store_result put_wait(struct store *s, const char *scope, const char *key, uint64_t expect,
                           uint64_t version, const char *value)
{
        return commit_wait(s, txn_of(scope, key, expect, version, value), NULL);
}

struct search {
        const char *scope, *key;
        char *value;
        uint64_t version;
        size_t n;
};

static int search_each(void *arg, const struct store_record *r)
{
        struct search *f = arg;

        f->n++;
        if (f->key && streq(r->scope, f->scope) && streq(r->key, f->key)) {
                f->value = strndup(r->value, r->len);
                f->version = r->version;
        }
        return 0;
}

char *value_of(struct store *s, const char *scope, const char *key, uint64_t *ret_version)
{
        struct search f = {.scope = scope, .key = key};

        if (s->ops->load(s, search_each, &f, NULL) < 0)
                abort();
        if (ret_version)
                *ret_version = f.version;
        return f.value;
}

size_t count_records(struct store *s)
{
        struct search f = {0};

        if (s->ops->load(s, search_each, &f, NULL) < 0)
                abort();
        return f.n;
}
