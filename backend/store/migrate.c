#include "backend/store/migrate.h"

enum { TOGETHER = 256, BYTES = 4 << 20 };

struct copy {
        struct store_record *v; /* keys and values are ours; scopes too */
        size_t n, size;
};

static int copy_one(void *arg, const struct store_record *r)
{
        struct copy *c = arg;
        struct store_record *to;

        if (c->n == c->size) {
                size_t size = MAX(c->size * 2, (size_t)1024);
                struct store_record *v = reallocarray(c->v, size, sizeof(*v));

                if (!v)
                        return -ENOMEM;
                c->v = v;
                c->size = size;
        }
        to = &c->v[c->n++];
        *to = (struct store_record){.scope = strdup(r->scope),
                                    .key = strdup(r->key),
                                    .version = r->version,
                                    .value = strndup(r->value, r->len),
                                    .len = r->len};
        return to->scope && to->key && to->value ? 0 : -ENOMEM;
}

static void copy_done(struct copy *c)
{
        for (size_t i = 0; i < c->n; i++) {
                free((void *)c->v[i].scope);
                free((void *)c->v[i].key);
                free((void *)c->v[i].value);
        }
        free(c->v);
}

static int by_name(const void *a, const void *b)
{
        const struct store_record *x = a, *y = b;
        int scope = strcmp(x->scope, y->scope);

        return scope ? scope : strcmp(x->key, y->key);
}

static int copy_read(struct store *s, struct copy *ret, struct err **e)
{
        int r = s->ops->load(s, copy_one, ret, e);

        if (r < 0)
                return err_prepend(e, r, "read %s", s->ops->name);
        qsort(ret->v, ret->n, sizeof(*ret->v), by_name);
        return 0;
}

static bool record_same(const struct store_record *a, const struct store_record *b)
{
        return by_name(a, b) == 0 && a->version == b->version && a->len == b->len &&
               memcmp(a->value, b->value, a->len) == 0;
}

/* --- writing -------------------------------------------------------------------------------------
 */

struct answer {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool here;
        enum store_result result;
        struct err *err;
};

static void answered(void *arg, enum store_result result, const struct err *err)
{
        struct answer *a = arg;
        WITH_LOCK(&a->lock);

        a->result = result;
        if (err)
                err_set(&a->err, err->code, "%s", err_msg(err));
        a->here = true;
        pthread_cond_signal(&a->cond);
}

static int commit_wait(struct store *s, struct store_txn *t, struct err **e)
{
        struct answer a = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

        t->done = answered;
        t->arg = &a;
        s->ops->commit(s, t);
        pthread_mutex_lock(&a.lock);
        while (!a.here)
                pthread_cond_wait(&a.cond, &a.lock);
        pthread_mutex_unlock(&a.lock);
        if (a.err)
                return err_move(e, a.err);
        if (a.result == STORE_COMMITTED)
                return 0;
        return a.result == STORE_CONFLICT
                       ? err_set(e, -EEXIST, "somebody else writes to %s", s->ops->name)
                       : err_set(e, -ETIMEDOUT, "%s does not answer", s->ops->name);
}

/* The records of one scope that go together. */
static size_t together(const struct copy *c, size_t from)
{
        size_t n = 0, bytes = 0;

        while (from + n < c->n && n < TOGETHER && (n == 0 || bytes < BYTES) &&
               streq(c->v[from + n].scope, c->v[from].scope))
                bytes += c->v[from + n++].len;
        return n;
}

static int copy_write(struct store *to, const struct copy *c, struct err **e)
{
        int r = 0;

        for (size_t i = 0, n; i < c->n && r == 0; i += n) {
                struct store_txn *t = store_txn_new(c->v[i].scope);

                n = together(c, i);
                for (size_t k = i; t && r == 0 && k < i + n; k++)
                        r = store_txn_add(t, c->v[k].key, 0, c->v[k].version, c->v[k].value);
                if (!t || r < 0) {
                        if (t)
                                store_txn_free(t);
                        return err_errno(e, -ENOMEM, "copy");
                }
                r = commit_wait(to, t, e);
        }
        return r;
}

static int copy_verify(struct store *to, const struct copy *c, struct err **e)
{
        struct copy there = {0};
        int r = copy_read(to, &there, e);

        if (r == 0 && there.n != c->n)
                r = err_set(e, -EIO, "%zu records were written, and %zu are there", c->n, there.n);
        for (size_t i = 0; r == 0 && i < c->n; i++)
                if (!record_same(&there.v[i], &c->v[i]))
                        r = err_set(e, -EIO, "record '%s' of '%s' is not as it was written",
                                    c->v[i].key, c->v[i].scope);
        copy_done(&there);
        return r;
}

static int epochs_pass(struct store *from, struct store *to, struct err **e)
{
        uint64_t was = 0, now = 0;
        int r = from->ops->epoch(from, &was, e);

        while (r == 0 && now < was)
                r = to->ops->epoch(to, &now, e);
        return r;
}

static int must_be_empty(struct store *to, struct err **e)
{
        struct copy there = {0};
        int r = copy_read(to, &there, e);

        if (r == 0 && there.n) {
                r = err_set(e, -EEXIST, "there are %zu records in it already", there.n);
                err_hint(e, -EEXIST, "another namespace: store = rados:POOL/NAMESPACE");
        }
        copy_done(&there);
        return r;
}

int store_migrate(struct store *from, struct store *to, const char *name, size_t *ret_n,
                  struct err **e)
{
        struct copy c = {0};
        int r = from->ops->retire(from, NULL, e);

        if (r == 0)
                r = must_be_empty(to, e);
        if (r == 0)
                r = copy_read(from, &c, e);
        if (r == 0)
                r = copy_write(to, &c, e);
        if (r == 0)
                r = copy_verify(to, &c, e);
        if (r == 0)
                r = epochs_pass(from, to, e);
        if (r == 0)
                r = copy_verify(from, &c, e); /* nobody wrote to it meanwhile */
        if (r == 0)
                r = from->ops->retire(from, name, e);
        *ret_n = c.n;
        copy_done(&c);

        return r;
}
