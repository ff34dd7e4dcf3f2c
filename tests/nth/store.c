/* The SQLite store: what was said to be committed is there, what was said to have failed is not. */
#include "nth.h"

#include <pthread.h>
#include <stdlib.h>

#include "backend/store/sqlite/sqlite.h"

enum { KEYS = 6, NEVER = -1, ASKED = -2 };

struct acks {
        int key[KEYS]; /* NEVER, ASKED or an enum store_result */
        bool opened;
};
const size_t nth_shared = sizeof(struct acks);

struct answer {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        int result;
};

static void answered(void *arg, enum store_result result, const struct err *err)
{
        struct answer *a = arg;

        pthread_mutex_lock(&a->lock);
        a->result = (int)result;
        pthread_cond_signal(&a->cond);
        pthread_mutex_unlock(&a->lock);
}

static int put(struct store *s, unsigned i)
{
        struct answer a = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, ASKED};
        struct store_txn *t = store_txn_new("t1");
        char key[8], value[32];

        snprintf(key, sizeof(key), "k%u", i);
        snprintf(value, sizeof(value), "value of %u", i);
        if (!t || store_txn_add(t, key, 0, 1, value) < 0) {
                if (t)
                        store_txn_free(t);
                return NEVER;
        }
        t->done = answered;
        t->arg = &a;
        s->ops->commit(s, t);
        pthread_mutex_lock(&a.lock);
        while (a.result == ASKED)
                pthread_cond_wait(&a.cond, &a.lock);
        pthread_mutex_unlock(&a.lock);
        return a.result;
}

static int ignore(void *arg, const struct store_record *r)
{
        return 0;
}

void nth_work(void *shared, const char *dir)
{
        struct acks *acks = shared;
        char path[64];

        snprintf(path, sizeof(path), "%s/store.db", dir);
        for (unsigned i = 0; i < KEYS; i++)
                acks->key[i] = NEVER;
        for (unsigned i = 0; i < KEYS;) {
                _cleanup_err_ struct err *e = NULL;
                struct store *s;
                uint64_t now;

                if (store_sqlite_open(path, &s, &e) < 0) {
                        CHECK(e && *err_msg(e));
                        return;
                }
                if (s->ops->load(s, ignore, NULL, NULL) == 0) {
                        for (unsigned k = 0; k < KEYS / 2; k++, i++)
                                acks->key[i] = put(s, i);
                        s->ops->changes(s, "t1", 0, ignore, NULL, &now, NULL);
                        s->ops->epoch(s, &now, NULL);
                } else {
                        i = KEYS;
                }
                s->ops->close(s);
        }
}

struct found {
        bool key[KEYS];
};

static int note(void *arg, const struct store_record *r)
{
        struct found *f = arg;
        char want[32];
        unsigned i;

        CHECK(sscanf(r->key, "k%u", &i) == 1 && i < KEYS);
        CHECK(snprintf(want, sizeof(want), "value of %u", i) == (int)r->len &&
              memcmp(want, r->value, r->len) == 0);
        f->key[i] = true;
        return 0;
}

void nth_check(const void *shared, const char *dir)
{
        const struct acks *acks = shared;
        struct found f = {};
        struct store *s;
        char path[64];

        snprintf(path, sizeof(path), "%s/store.db", dir);
        CHECK(store_sqlite_open(path, &s, NULL) == 0);
        CHECK(s->ops->load(s, note, &f, NULL) == 0);
        for (unsigned i = 0; i < KEYS; i++) {
                CHECK(acks->key[i] != STORE_COMMITTED || f.key[i]);
                CHECK(acks->key[i] == STORE_COMMITTED || acks->key[i] == STORE_UNKNOWN ||
                      acks->key[i] == ASKED || !f.key[i]);
                CHECK(f.key[i] || put(s, i) == STORE_COMMITTED);
        }
        s->ops->close(s);
}
