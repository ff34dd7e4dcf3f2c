/* What a pool holds, read by the RADOS store: loaded, and asked for its changes.
 *
 * The pool is ours: the few calls of librados that reading makes are answered here.  An input is
 * lines "OBJECT KEY VALUE"; bytes 1 and 2 stand for a newline and for a NUL.  Values have no NUL
 * behind them, as librados promises none. */
#include "backend/store/rados/internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { ENTRIES_MAX = 256, PAGE_OURS = 3 };

struct entry {
        char *oid, *key, *value;
        size_t len;
};
static struct entry pool[ENTRIES_MAX]; /* by key */
static unsigned npool;

/* A read operation, and what it gives. */
struct query {
        char *after, *prefix;
        const char *const *keys;
        size_t nkeys;
        unsigned char *more;
        rados_omap_iter_t *iter;
        unsigned found[ENTRIES_MAX], n, at;
};

rados_read_op_t rados_create_read_op(void)
{
        return calloc(1, sizeof(struct query));
}

void rados_release_read_op(rados_read_op_t op)
{
        struct query *q = op;

        free(q->after);
        free(q->prefix);
        free(q);
}

void rados_read_op_omap_get_vals2(rados_read_op_t op, const char *after, const char *prefix,
                                  uint64_t max, rados_omap_iter_t *iter, unsigned char *more,
                                  int *rv)
{
        struct query *q = op;

        q->after = strdup(after);
        q->prefix = strdup(prefix);
        q->more = more;
        q->iter = iter;
        *rv = 0;
}

void rados_read_op_omap_get_vals_by_keys2(rados_read_op_t op, char const *const *keys, size_t n,
                                          const size_t *lens, rados_omap_iter_t *iter, int *rv)
{
        struct query *q = op;

        q->keys = keys;
        q->nkeys = n;
        q->iter = iter;
        *rv = 0;
}

static bool asked(const struct query *q, const char *key)
{
        if (!q->keys)
                return strcmp(key, q->after) > 0 && strncmp(key, q->prefix, strlen(q->prefix)) == 0;
        for (size_t i = 0; i < q->nkeys; i++)
                if (streq(key, q->keys[i]))
                        return true;
        return false;
}

int rados_read_op_operate(rados_read_op_t op, rados_ioctx_t io, const char *oid, int flags)
{
        struct query *q = op;

        for (unsigned i = 0; i < npool; i++) {
                if (!streq(pool[i].oid, oid) || !asked(q, pool[i].key))
                        continue;
                if (q->more && q->n == PAGE_OURS) {
                        *q->more = 1;
                        *q->iter = q;
                        return 0;
                }
                q->found[q->n++] = i;
        }
        if (q->more)
                *q->more = 0;
        *q->iter = q;
        return 0;
}

int rados_omap_get_next2(rados_omap_iter_t iter, char **key, char **value, size_t *klen,
                         size_t *len)
{
        struct query *q = iter;

        *key = NULL;
        if (q->at == q->n)
                return 0;
        *key = pool[q->found[q->at]].key;
        *klen = strlen(*key);
        *value = pool[q->found[q->at]].value;
        *len = pool[q->found[q->at++]].len;
        return 0;
}

void rados_omap_get_end(rados_omap_iter_t iter)
{
}

int rados_lock_exclusive(rados_ioctx_t io, const char *oid, const char *name, const char *cookie,
                         const char *desc, struct timeval *duration, uint8_t flags)
{
        return 0;
}

/* Nothing is written. */

rados_write_op_t rados_create_write_op(void)
{
        abort();
}

void rados_release_write_op(rados_write_op_t op)
{
}

void rados_write_op_omap_cmp2(rados_write_op_t op, const char *key, uint8_t how, const char *val,
                              size_t klen, size_t len, int *rv)
{
}

void rados_write_op_omap_rm_keys2(rados_write_op_t op, char const *const *keys, const size_t *lens,
                                  size_t n)
{
}

void rados_write_op_omap_set2(rados_write_op_t op, char const *const *keys,
                              char const *const *values, const size_t *klens, const size_t *lens,
                              size_t n)
{
}

int rados_write_op_operate2(rados_write_op_t op, rados_ioctx_t io, const char *oid,
                            struct timespec *mtime, int flags)
{
        abort();
}

void batch_run(struct rados_store *s, struct scope *sc, struct store_txn *list, size_t n,
               struct outcome *out)
{
        abort();
}

static int by_key(const void *a, const void *b)
{
        return strcmp(((const struct entry *)a)->key, ((const struct entry *)b)->key);
}

static void add(char *line, size_t n)
{
        char *key = memchr(line, ' ', n),
             *value = key ? memchr(key + 1, ' ', line + n - key - 1) : 0;
        struct entry *x = &pool[npool];

        if (!value)
                return;
        *key++ = *value++ = '\0';
        for (unsigned i = 0; i < npool; i++)
                if (streq(pool[i].oid, line) && streq(pool[i].key, key))
                        return;
        *x = (struct entry){strdup(line), strdup(key), malloc(line + n - value), line + n - value};
        for (size_t i = 0; i < x->len; i++)
                x->value[i] = value[i] == 1 ? '\n' : value[i] == 2 ? '\0' : value[i];
        npool++;
}

static void fill(const uint8_t *p, size_t n)
{
        while (n > 0 && npool < ENTRIES_MAX) {
                const uint8_t *nl = memchr(p, '\n', n);
                size_t k = nl ? (size_t)(nl - p) : n;
                _cleanup_free_ char *line = memcpy(malloc(k + 1), p, k);

                add(line, k);
                k += nl != NULL;
                p += k;
                n -= k;
        }
        qsort(pool, npool, sizeof(*pool), by_key);
}

static int each(void *arg, const struct store_record *r)
{
        *(size_t *)arg += strlen(r->scope) + strlen(r->key);
        if (r->value && strlen(r->value) > r->len)
                abort();
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct rados_store s = {.where = (char *)"rados:fuzz/fuzz",
                                .lock = PTHREAD_MUTEX_INITIALIZER,
                                .settled = PTHREAD_COND_INITIALIZER,
                                .wake = PTHREAD_COND_INITIALIZER};
        struct scope *sc, *tmp;
        size_t sum = 0;
        uint64_t now;

        npool = 0;
        fill(p, n);
        for (uint64_t since = 0; since < 4; since++) {
                struct err *e = NULL;
                int r = since ? read_changes(&s.store, "cloud", since, each, &sum, &now, &e)
                              : read_load(&s.store, each, &sum, &e);

                if (r < 0 && (!e || !*err_msg(e)))
                        abort();
                err_free(e);
        }
        HASH_ITER (hh, s.scopes, sc, tmp) {
                HASH_DEL(s.scopes, sc);
                free(sc);
        }
        while (npool > 0) {
                struct entry *x = &pool[--npool];

                free(x->oid);
                free(x->key);
                free(x->value);
        }
        return 0;
}
