/* Pools behind one front door: opened, closed, asked, listed; see pools.h. */
#include "backend/volume/pools.h"

#include "common/fileio.h"

/* Those that have their bytes here answer from memory. */
static void set_order(struct volume_pool *p)
{
        unsigned n = 0;

        for (int far = 0; far < 2; far++)
                for (unsigned i = 0; i < p->n; i++)
                        if ((p->sides[i].driver->has != NULL) == far)
                                p->order[n++] = &p->sides[i];
}

int volume_pool_add(struct volume_pool *p, const struct volume_driver *d,
                    const struct volume_pool_config *c, struct err **e)
{
        const char *label = c && c->label ? c->label : d->name;
        struct side *s = &p->sides[p->n], *other;
        int r;

        if (p->n == VOLUME_POOLS)
                return err_set(e, -E2BIG, "more than %d pools", VOLUME_POOLS);
        if (strlen(label) >= VOLUME_LABEL_SIZE)
                return err_set(e, -EINVAL, "the name of pool '%.64s...' is too long", label);
        if (p->n > 0 && pool_side_find(p, label, &other, NULL) == 0 && streq(other->label, label))
                return err_set(e, -EEXIST, "pool '%s' is named twice", label);
        s->driver = d;
        strcpy(s->label, label);
        r = d->pool_open(c, &s->state, e);
        if (r < 0)
                return err_prepend(e, r, "open %s pool in '%s'", d->name, c->state);
        p->n++;
        set_order(p);
        if (!c || !c->state)
                return 0;
        r = vault_open(c, d, s->state, &s->vault, e);
        if (r < 0)
                return err_prepend(e, r, "open the keys in '%s'", c->state);
        return moves_load(p, c->state, e);
}

int volume_pool_open(const struct volume_driver *d, const struct volume_pool_config *c,
                     struct volume_pool **ret, struct err **e)
{
        struct volume_pool *p = calloc(1, sizeof(*p));
        int r;

        if (!p)
                return err_errno(e, -ENOMEM, "open pool");
        pthread_mutex_init(&p->lock, NULL);
        r = volume_pool_add(p, d, c, e);
        if (r < 0)
                volume_pool_close(p);
        else
                *ret = p;
        return r;
}

void volume_pool_abandon(struct volume_pool *p, bool abandoned)
{
        for (unsigned i = 0; i < p->n; i++)
                p->sides[i].driver->pool_abandon(p->sides[i].state, abandoned);
}

void volume_pool_background(struct volume_pool *p, bool on)
{
        for (unsigned i = 0; i < p->n; i++)
                if (p->sides[i].driver->background)
                        p->sides[i].driver->background(p->sides[i].state, on);
}

int volume_pool_work(struct volume_pool *p)
{
        int r = 0;

        for (unsigned i = 0; i < p->n && r == 0; i++)
                if (p->sides[i].driver->work)
                        r = p->sides[i].driver->work(p->sides[i].state);
        return r;
}

struct volume_pool *volume_pool_close(struct volume_pool *p)
{
        struct placed *k, *tmp;

        if (!p)
                return NULL;
        for (unsigned i = 0; i < p->n; i++) {
                vault_close(p->sides[i].vault);
                p->sides[i].driver->pool_close(p->sides[i].state);
        }
        HASH_ITER (hh, p->placed, k, tmp) {
                HASH_DEL(p->placed, k);
                free(k);
        }
        pthread_mutex_destroy(&p->lock);
        free(p->marks);
        free(p);
        return NULL;
}

/* ---- which ---- */

int pool_side_find(struct volume_pool *p, const char *label, struct side **ret, struct err **e)
{
        for (int exact = 1; exact >= 0; exact--)
                for (unsigned i = 0; i < p->n; i++)
                        if (!label[0] ||
                            streq(exact ? p->sides[i].label : p->sides[i].driver->name, label)) {
                                *ret = &p->sides[i];
                                return 0;
                        }
        return err_set(e, -ENODEV, "there is no pool '%.64s' here", label);
}

bool side_has(struct side *s, const char *id)
{
        struct volume_info info;

        if (s->driver->has)
                return s->driver->has(s->state, id, NULL) > 0;
        return s->driver->stat(s->state, id, &info, NULL) == 0;
}

struct side *pool_side(struct volume_pool *p, const char *id, struct side *otherwise)
{
        struct side *side;
        struct placed *k;

        if (p->n == 1)
                return &p->sides[0];
        pthread_mutex_lock(&p->lock);
        HASH_FIND_STR(p->placed, id, k);
        side = k ? k->side : NULL;
        pthread_mutex_unlock(&p->lock);
        if (side)
                return side;
        for (unsigned i = 0; i + (otherwise ? 0 : 1) < p->n; i++)
                if (side_has(p->order[i], id))
                        return p->order[i];
        return otherwise ?: p->order[p->n - 1];
}

int pool_note(struct volume_pool *p, const char *id, struct side *side, bool moving, bool copying,
              struct err **e)
{
        struct placed *k;

        WITH_LOCK(&p->lock);
        HASH_FIND_STR(p->placed, id, k);
        if (!side) {
                if (k)
                        HASH_DEL(p->placed, k);
                free(k);
                return 0;
        }
        if (!k) {
                k = calloc(1, sizeof(*k));
                if (!k)
                        return err_errno(e, -ENOMEM, "place");
                strcpy(k->id, id);
                HASH_ADD_STR(p->placed, id, k);
        }
        k->side = side;
        k->moving = moving;
        k->copying = copying;
        return 0;
}

void pool_made(struct volume_pool *p, const char *id)
{
        struct placed *k;

        WITH_LOCK(&p->lock);
        HASH_FIND_STR(p->placed, id, k);
        if (!k || k->moving)
                return;
        HASH_DEL(p->placed, k);
        free(k);
}

int pool_check_still(struct volume_pool *p, const char *id, struct err **e)
{
        struct placed *k;

        WITH_LOCK(&p->lock);
        HASH_FIND_STR(p->placed, id, k);
        return k && k->copying ? err_set(e, -EBUSY, "volume '%s' is moving to another pool", id)
                               : 0;
}

bool pool_moved(struct volume_pool *p, const char *id)
{
        struct placed *k;

        WITH_LOCK(&p->lock);
        HASH_FIND_STR(p->placed, id, k);
        return k && k->moving && !k->copying;
}

int side_drop(struct side *s, const char *id, struct err **e)
{
        int r = s->vault ? vault_meet(s->vault, id, e) : 0;

        if (r < 0)
                return r;
        if (s->vault && vault_has(s->vault, id))
                return vault_remove(s->vault, id, e);
        return s->driver->remove(s->state, id, e);
}

/* What is to be made, and where. */
int volume_place(struct volume_pool *p, const char *id, const char *label, const char *space,
                 struct err **e)
{
        struct side *s;
        int r = volume_check_id(id, e);

        if (r == 0)
                r = pool_side_find(p, label, &s, e);
        if (r == 0)
                r = pool_check_still(p, id, e);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < p->n; i++)
                if (&p->sides[i] != s && side_has(&p->sides[i], id))
                        return err_set(e, -EEXIST, "volume '%s' is there, in pool '%s'", id,
                                       p->sides[i].label);
        if (*space && s->driver->place)
                r = s->driver->place(s->state, id, space, e);
        return r < 0 || p->n == 1 || side_has(s, id) ? r : pool_note(p, id, s, false, false, e);
}

/* ---- lists: those of all pools as one, in order of id ---- */

enum { CHUNK = 128 };

/* What is next of one pool. */
struct chunk {
        struct side *side;
        struct volume_info *v;
        unsigned n, at;
        bool last; /* there is nothing behind it */
};

static int gather(void *arg, const struct volume_info *info)
{
        struct chunk *c = arg;

        c->v[c->n++] = *info;
        return c->n == CHUNK;
}

static int refill(struct chunk *c, const char *after, struct err **e)
{
        int r;

        c->n = c->at = 0;
        r = c->side->driver->list(c->side->state, after, gather, c, e);
        c->last = c->n < CHUNK;
        return r;
}

static int list_one(struct chunk *c, volume_info_fn each, void *arg)
{
        struct volume_info info = c->v[c->at++];

        if (c->side->vault)
                vault_facts(c->side->vault, &info);
        return each(arg, &info);
}

/* Chunks that are used up are filled; the one whose next id is the least, NULL: the end. */
static int least(struct chunk *c, unsigned n, const char *after, struct chunk **ret, struct err **e)
{
        int r = 0;

        *ret = NULL;
        for (unsigned i = 0; i < n && r == 0; i++) {
                while (c[i].at < c[i].n && strcmp(c[i].v[c[i].at].id, after) <= 0)
                        c[i].at++;
                if (c[i].at == c[i].n && !c[i].last)
                        r = refill(&c[i], after, e);
                if (c[i].at < c[i].n &&
                    (!*ret || strcmp(c[i].v[c[i].at].id, (*ret)->v[(*ret)->at].id) < 0))
                        *ret = &c[i];
        }
        return r;
}

int volume_list(struct volume_pool *p, const char *after, volume_info_fn each, void *arg,
                struct err **e)
{
        char at[VOLUME_ID_SIZE] = "";
        struct chunk c[VOLUME_POOLS] = {}, *next;
        int r = 0;

        snprintf(at, sizeof(at), "%s", after);
        for (unsigned i = 0; i < p->n && r == 0; i++) {
                c[i].side = &p->sides[i];
                c[i].v = calloc(CHUNK, sizeof(*c[i].v));
                r = c[i].v ? 0 : err_errno(e, -ENOMEM, "list");
        }
        while (r == 0 && (r = least(c, p->n, at, &next, e)) == 0 && next) {
                strcpy(at, next->v[next->at].id);
                r = list_one(next, each, arg);
        }
        for (unsigned i = 0; i < p->n; i++)
                free(c[i].v);
        return MIN(r, 0);
}
