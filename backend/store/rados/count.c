/* Counters of the store object, and fences. */
#include "backend/store/rados/internal.h"

enum { TRIES_MAX = 1000 };

static int number_one(void *arg, const char *key _unused_, const char *value, size_t len)
{
        *(uint64_t *)arg = number_parse(value, len);
        return 0;
}

/* The counter becomes max(what it is, at_least) + n; *ret is what it was before the n. */
static int count_add(struct rados_store *s, const char *key, uint64_t at_least, uint64_t n,
                     uint64_t *ret)
{
        char text[NUMBER_SIZE];

        for (int i = 0; i < TRIES_MAX; i++) {
                uint64_t was = 0, base;
                struct wop w;
                int r = omap_get(s, STORE_OID, &key, 1, number_one, &was);

                if (r < 0)
                        return r;
                base = MAX(was, at_least);
                wop_init(&w);
                wop_guard(&w, key, was ? number_text(text, was) : "", NULL);
                number_text(text, base + n);
                wop_set(&w, strdup(key), text, strlen(text));
                r = wop_run(s, &w, STORE_OID);
                wop_done(&w);
                *ret = base;
                if (r != -ECANCELED)
                        return r;
                usleep((useconds_t)(clock_mono() % 1000));
        }
        return -EAGAIN;
}

/* An answer that was lost only leaves a number that is nobody's. */
int count_epoch(struct store *store, uint64_t *ret, struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        uint64_t was = 0;
        int r = count_add(s, "epoch", 0, 1, &was);

        if (r < 0)
                return store_err(s, e, r, "take an epoch");
        *ret = was + 1;
        snprintf(s->fence, sizeof(s->fence), "x:%016llx", (unsigned long long)*ret);
        return 0;
}

int count_numbers(struct store *store, uint64_t at_least, uint64_t n, uint64_t *ret, struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        uint64_t was = 0;
        int r = count_add(s, "numbers", at_least ? at_least - 1 : 0, n, &was);

        if (r < 0)
                return store_err(s, e, r, "take numbers");
        *ret = was + 1;
        return 0;
}

static int fence_in(struct rados_store *s, const char *oid, uint64_t epoch)
{
        char *key = NULL;
        struct wop w;
        int r;

        if (asprintf(&key, "x:%016llx", (unsigned long long)epoch) < 0)
                return -ENOMEM;
        wop_init(&w);
        rados_write_op_create(w.op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
        wop_set(&w, key, s->cfg.host, strlen(s->cfg.host));
        r = wop_run(s, &w, oid);
        wop_done(&w);
        return r;
}

/* The store object first: from then on it makes no scope that we would not see. */
int count_fence(struct store *store, uint64_t epoch, struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        _cleanup_free_ struct scope **v = NULL;
        size_t n = 0;
        int r = fence_in(s, STORE_OID, epoch);

        if (r < 0)
                return store_err(s, e, r, "shut out epoch %llu", (unsigned long long)epoch);
        r = scopes_read(s, e);
        if (r < 0)
                return r;
        v = scopes_list(s, &n);
        if (!v)
                return store_err(s, e, -ENOMEM, "shut out an epoch");
        for (size_t i = 0; r == 0 && i < n; i++)
                r = fence_in(s, v[i]->oid, epoch);
        return r < 0 ? store_err(s, e, r, "shut out epoch %llu", (unsigned long long)epoch) : 0;
}

/* --- a store that was moved ----------------------------------------------------------------------
 */

/* Every host that has the store open answers a notify; a dead one is a watcher for 10 s still. */
static int count_others(struct rados_store *s, struct err **e)
{
        struct notify_timeout_t *late = NULL;
        struct notify_ack_t *acks = NULL;
        size_t nacks = 0, nlate = 0, len = 0;
        char *reply = NULL;
        int r = rados_notify2(s->io, STORE_OID, NULL, 0, 2000, &reply, &len);

        if (r < 0 && r != -ETIMEDOUT)
                return store_err(s, e, r, "look for other hosts");
        if (reply && rados_decode_notify_response(reply, len, &acks, &nacks, &late, &nlate) == 0)
                rados_free_notify_response(acks, nacks, late);
        rados_buffer_free(reply);
        if (nacks + nlate == 0)
                return 0;
        err_set(e, -EBUSY, "store '%s': %zu hosts have it open", s->where, nacks + nlate);
        return err_hint(e, -EBUSY, "strato down on each; one that has died is forgotten in 10 s");
}

int count_retire(struct store *store, const char *to, struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        struct wop w;
        int r = count_others(s, e);

        if (r < 0 || !to)
                return r;
        wop_init(&w);
        wop_set(&w, strdup("moved"), to, strlen(to));
        r = wop_run(s, &w, STORE_OID);
        wop_done(&w);
        return r < 0 ? store_err(s, e, r, "mark it as moved") : 0;
}

static int moved_one(void *arg, const char *key _unused_, const char *value, size_t len)
{
        *(char **)arg = strndup(value, len);
        return 0;
}

int count_moved(struct rados_store *s, struct err **e)
{
        _cleanup_free_ char *to = NULL;
        const char *key = "moved";
        int r = omap_get(s, STORE_OID, &key, 1, moved_one, &to);

        if (r < 0)
                return store_err(s, e, r, "read");
        return to ? err_set(e, -EREMOTE, "store '%s' was moved to '%s'", s->where, to) : 0;
}
