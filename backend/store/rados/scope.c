/* The scopes: who writes to one, and the list of them in the pool. */
#include "backend/store/rados/internal.h"

/* Lock held. */
static struct scope *find(struct rados_store *s, const char *name, bool make)
{
        struct scope *sc;

        HASH_FIND_STR(s->scopes, name, sc);
        if (sc || !make)
                return sc;
        sc = calloc(1, sizeof(*sc));
        if (!sc)
                return NULL;
        snprintf(sc->name, sizeof(sc->name), "%s", name);
        snprintf(sc->oid, sizeof(sc->oid), "scope.%s", name);
        sc->tail = &sc->head;
        HASH_ADD_STR(s->scopes, name, sc);
        return sc;
}

struct scope *scope_get(struct rados_store *s, const char *name)
{
        WITH_LOCK(&s->lock);

        return find(s, name, true);
}

void scope_barrier(struct rados_store *s, struct scope *sc)
{
        uint64_t until;
        WITH_LOCK(&s->lock);

        until = sc->nqueued;
        while (sc->nsettled < until)
                pthread_cond_wait(&s->settled, &s->lock);
}

void scope_take(struct rados_store *s, struct scope *sc)
{
        WITH_LOCK(&s->lock);

        while (sc->busy)
                pthread_cond_wait(&s->settled, &s->lock);
        sc->busy = true;
}

void scope_give(struct rados_store *s, struct scope *sc)
{
        WITH_LOCK(&s->lock);

        sc->busy = false;
        pthread_cond_broadcast(&s->settled);
        if (sc->head)
                pthread_cond_signal(&s->wake);
}

static int list_one(void *arg, const char *key, const char *value _unused_, size_t len _unused_)
{
        struct rados_store *s = arg;
        struct scope *sc;
        WITH_LOCK(&s->lock);

        sc = find(s, key + strlen("s:"), true);
        return sc ? 0 : -ENOMEM;
}

int scopes_read(struct rados_store *s, struct err **e)
{
        int r = omap_each(s, STORE_OID, "s:", "", list_one, s);

        return r < 0 ? store_err(s, e, r, "read the list of scopes") : 0;
}

struct scope **scopes_list(struct rados_store *s, size_t *ret_n)
{
        struct scope **v, *sc, *cloud = NULL;
        size_t n = 0;
        WITH_LOCK(&s->lock);

        v = calloc(HASH_COUNT(s->scopes) + 1, sizeof(struct scope *));
        for (sc = s->scopes; v && sc; sc = sc->hh.next) {
                if (streq(sc->name, "cloud"))
                        cloud = sc;
                else
                        v[n++] = sc;
        }
        if (v && cloud)
                v[n++] = cloud;
        *ret_n = n;
        return v;
}

struct numbers {
        uint64_t seq, floor;
};

static int numbers_one(void *arg, const char *key, const char *value, size_t len)
{
        struct numbers *n = arg;

        *(key[0] == 'n' ? &n->seq : &n->floor) = number_parse(value, len);
        return 0;
}

int scope_numbers(struct rados_store *s, struct scope *sc, uint64_t *ret_seq, uint64_t *ret_floor)
{
        static const char *const keys[] = {"n", "f"};
        struct numbers n = {0};
        int r = omap_get(s, sc->oid, keys, ARRAY_SIZE(keys), numbers_one, &n);

        *ret_seq = n.seq;
        *ret_floor = n.floor;
        return r;
}
