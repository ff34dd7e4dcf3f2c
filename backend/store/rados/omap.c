/* librados in the shape that is used here: guards, sets, pages. */
#include "backend/store/rados/internal.h"

#include <inttypes.h>

char *number_text(char out[NUMBER_SIZE], uint64_t n)
{
        snprintf(out, NUMBER_SIZE, "%016" PRIx64, n);
        return out;
}

uint64_t number_parse(const char *value, size_t len)
{
        char text[NUMBER_SIZE];

        if (len < sizeof(text) - 1)
                return 0;
        memcpy(text, value, sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        return strtoull(text, NULL, 16);
}

int store_err(struct rados_store *s, struct err **e, int r, const char *fmt, ...)
{
        va_list ap;
        char *text = NULL;

        va_start(ap, fmt);
        if (vasprintf(&text, fmt, ap) < 0)
                text = NULL;
        va_end(ap);
        err_errno(e, r, "store '%s': %s", s->where, text ? text : "out of memory");
        free(text);
        if (e && *e && r == -ETIMEDOUT)
                err_hint(e, r, "does the Ceph cluster answer? ceph -s");
        return r;
}

void wop_init(struct wop *w)
{
        *w = (struct wop){.op = rados_create_write_op()};
}

static void list_done(struct kv_list *l)
{
        for (size_t i = 0; i < l->n; i++) {
                free(l->keys[i]);
                free(l->values[i]);
        }
        free(l->keys);
        free(l->values);
        free(l->key_lens);
        free(l->lens);
}

void wop_done(struct wop *w)
{
        rados_release_write_op(w->op);
        list_done(&w->sets);
        list_done(&w->rms);
}

/* Takes key and value over; without memory the operation will fail. */
static void list_add(struct wop *w, struct kv_list *l, char *key, char *value, size_t len)
{
        if (l->n == l->size) {
                size_t size = MAX(l->size * 2, (size_t)16);
                char **keys = reallocarray(l->keys, size, sizeof(*keys));
                char **values;
                size_t *key_lens, *lens;

                l->keys = keys ?: l->keys;
                values = reallocarray(l->values, size, sizeof(*values));
                l->values = values ?: l->values;
                key_lens = reallocarray(l->key_lens, size, sizeof(*key_lens));
                l->key_lens = key_lens ?: l->key_lens;
                lens = reallocarray(l->lens, size, sizeof(*lens));
                l->lens = lens ?: l->lens;
                w->failed |= !keys || !values || !key_lens || !lens;
                l->size = w->failed ? l->size : size;
        }
        if (w->failed || !key) {
                w->failed = true;
                free(key);
                free(value);
                return;
        }
        l->keys[l->n] = key;
        l->values[l->n] = value;
        l->key_lens[l->n] = strlen(key);
        l->lens[l->n++] = len;
}

void wop_guard(struct wop *w, const char *key, const char *value, int *ret)
{
        rados_write_op_omap_cmp2(w->op, key, LIBRADOS_CMPXATTR_OP_EQ, value, strlen(key),
                                 strlen(value), ret);
}

/* Behind the number stands a ':', so what begins with it is greater than it, and smaller than the
 * next number. */
void wop_guard_number(struct wop *w, const char *key, uint64_t n)
{
        char low[NUMBER_SIZE], high[NUMBER_SIZE];

        number_text(low, n);
        number_text(high, n + 1);
        rados_write_op_omap_cmp2(w->op, key, LIBRADOS_CMPXATTR_OP_GT, low, strlen(key), strlen(low),
                                 NULL);
        rados_write_op_omap_cmp2(w->op, key, LIBRADOS_CMPXATTR_OP_LT, high, strlen(key),
                                 strlen(high), NULL);
}

void wop_guard_fence(struct rados_store *s, struct wop *w)
{
        if (s->fence[0])
                wop_guard(w, s->fence, "", &w->fenced);
}

void wop_set(struct wop *w, char *key, const void *value, size_t len)
{
        char *copy = malloc(len + 1);

        w->failed |= !copy;
        if (copy)
                memcpy(copy, value, len);
        list_add(w, &w->sets, key, copy, len);
}

void wop_set_number(struct wop *w, char *key, uint64_t n, const void *value, size_t len)
{
        char *copy = malloc(NUMBER_SIZE + len);

        w->failed |= !copy;
        if (copy) {
                number_text(copy, n);
                copy[NUMBER_SIZE - 1] = ':';
                memcpy(copy + NUMBER_SIZE, value, len);
        }
        list_add(w, &w->sets, key, copy, NUMBER_SIZE + len);
}

void wop_rm(struct wop *w, char *key)
{
        list_add(w, &w->rms, key, NULL, 0);
}

int wop_run(struct rados_store *s, struct wop *w, const char *oid)
{
        if (w->failed)
                return -ENOMEM;
        if (w->rms.n)
                rados_write_op_omap_rm_keys2(w->op, (char const *const *)w->rms.keys,
                                             w->rms.key_lens, w->rms.n);
        if (w->sets.n)
                rados_write_op_omap_set2(w->op, (char const *const *)w->sets.keys,
                                         (char const *const *)w->sets.values, w->sets.key_lens,
                                         w->sets.lens, w->sets.n);
        return rados_write_op_operate2(w->op, s->io, oid, NULL, 0);
}

/* Calls each for what iter has; the last key read goes to `last` (malloc'd). */
static int iter_each(rados_omap_iter_t iter, omap_fn *each, void *arg, char **last)
{
        char *key, *value;
        size_t klen, len;
        int r = 0;

        while (r >= 0 && rados_omap_get_next2(iter, &key, &value, &klen, &len) == 0 && key) {
                _cleanup_free_ char *k = strndup(key, klen);

                if (!k)
                        return -ENOMEM;
                r = each(arg, k, value, len);
                if (last) {
                        free(*last);
                        *last = TAKE_PTR(k);
                }
        }
        return r < 0 ? r : 0;
}

int omap_each(struct rados_store *s, const char *oid, const char *prefix, const char *after,
              omap_fn *each, void *arg)
{
        _cleanup_free_ char *last = strdup(after);
        unsigned char more = 1;

        while (last && more) {
                rados_read_op_t op = rados_create_read_op();
                rados_omap_iter_t iter = NULL;
                int r, rv = 0;

                rados_read_op_omap_get_vals2(op, last, prefix, PAGE, &iter, &more, &rv);
                r = rados_read_op_operate(op, s->io, oid, 0);
                if (r == 0)
                        r = rv;
                if (r == 0)
                        r = iter_each(iter, each, arg, &last);
                if (iter)
                        rados_omap_get_end(iter);
                rados_release_read_op(op);
                if (r < 0)
                        return r == -ENOENT ? 0 : r;
        }
        return last ? 0 : -ENOMEM;
}

static int get_some(struct rados_store *s, const char *oid, const char *const *keys, size_t n,
                    omap_fn *each, void *arg)
{
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t iter = NULL;
        size_t lens[GET];
        int r, rv = 0;

        for (size_t i = 0; i < n; i++)
                lens[i] = strlen(keys[i]);
        rados_read_op_omap_get_vals_by_keys2(op, keys, n, lens, &iter, &rv);
        r = rados_read_op_operate(op, s->io, oid, 0);
        if (r == 0)
                r = rv;
        if (r == 0)
                r = iter_each(iter, each, arg, NULL);
        if (iter)
                rados_omap_get_end(iter);
        rados_release_read_op(op);
        return r == -ENOENT ? 0 : r;
}

int omap_get(struct rados_store *s, const char *oid, const char *const *keys, size_t n,
             omap_fn *each, void *arg)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < n; i += GET)
                r = get_some(s, oid, keys + i, MIN(n - i, (size_t)GET), each, arg);
        return r;
}
