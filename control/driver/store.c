#include "control/driver/store.h"

struct store_txn *store_txn_new(const char *scope)
{
        struct store_txn *t = calloc(1, sizeof(*t));

        if (t)
                snprintf(t->scope, sizeof(t->scope), "%s", scope);
        return t;
}

int store_txn_add(struct store_txn *t, const char *key, uint64_t expect, uint64_t version,
                  const char *value)
{
        struct store_put *p = realloc(t->puts, (t->n + 1) * sizeof(*p));

        if (!p)
                return -ENOMEM;
        t->puts = p;
        p = &t->puts[t->n];
        *p = (struct store_put){
                .key = strdup(key),
                .expect = expect,
                .version = value ? version : 0,
                .value = value ? strdup(value) : NULL,
                .len = value ? strlen(value) : 0,
        };
        if (!p->key || (value && !p->value)) {
                free(p->key);
                free(p->value);
                return -ENOMEM;
        }
        t->n++;
        return 0;
}

int store_txn_check(const struct store_txn *t, struct err **e)
{
        for (size_t i = 0; i < t->n; i++) {
                const struct store_put *p = &t->puts[i];

                if (p->len > STORE_VALUE_MAX)
                        return err_set(e, -EFBIG, "record '%s' has %zu bytes, more than %d", p->key,
                                       p->len, STORE_VALUE_MAX);
                if (p->expect >= INT64_MAX || p->version >= INT64_MAX ||
                    (p->version && (p->version <= p->expect || !p->value)))
                        return err_set(e, -EINVAL, "record '%s': version %llu cannot follow %llu",
                                       p->key, (unsigned long long)p->version,
                                       (unsigned long long)p->expect);
        }
        return 0;
}

void store_txn_free(struct store_txn *t)
{
        if (!t)
                return;
        for (size_t i = 0; i < t->n; i++) {
                free(t->puts[i].key);
                free(t->puts[i].value);
        }
        free(t->puts);
        free(t);
}
