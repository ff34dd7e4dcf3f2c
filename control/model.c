/* Objects and their indexes: by number, by id, by name, and in their collection. */
#include "control/internal.h"

/* A name lives behind its hash key, so that one allocation serves both. */
struct name_head {
        uint64_t owner, kind; /* owner: 0 for global kinds */
        char name[];
};

static char *name_new(const struct object *o, const char *name)
{
        size_t n = strlen(name) + 1;
        struct name_head *h = xcalloc(1, sizeof(*h) + n);

        h->owner = o->holder ? o->holder->no : o->tenant ? o->tenant->no : 0;
        h->kind = kind_index(o->kind);
        memcpy(h->name, name, n);
        return h->name;
}

static struct name_head *name_head(char *name)
{
        return (struct name_head *)(name - offsetof(struct name_head, name));
}

static void name_free(char *name)
{
        if (name)
                free(name_head(name));
}

void object_set_name(struct object *o, const char *name)
{
        char *n = name_new(o, name);

        name_free(o->name);
        o->name = n;
}

struct object *object_new(const struct kind *k)
{
        struct object *o = xcalloc(1, sizeof(*o));

        o->kind = k;
        o->vals = xcalloc(MAX(k->nattrs, 1u), sizeof(*o->vals));
        return o;
}

/* A copy of the contents: what a transaction may change. */
struct object *object_copy(const struct object *o)
{
        struct object *n = object_new(o->kind);
        union value *vals = n->vals;

        *n = *o;
        n->vals = vals;
        n->refs = NULL;
        n->shown = NULL;
        n->taken = NULL;
        n->nrefs = 0;
        n->name = name_new(o, o->name);
        n->error = xstrdup(o->error);
        for (unsigned i = 0; i < o->kind->nattrs; i++)
                vals[i] = attr_is_text(&o->kind->attrs[i])
                                  ? (union value){.s = xstrdup(o->vals[i].s)}
                                  : o->vals[i];
        n->links = o->nlinks ? xcalloc(o->nlinks, sizeof(*n->links)) : NULL;
        for (unsigned i = 0; i < o->nlinks; i++) {
                n->links[i] = o->links[i];
                n->links[i].name = xstrdup(o->links[i].name);
        }
        n->meta = o->nmeta ? xcalloc(o->nmeta, sizeof(*n->meta)) : NULL;
        for (unsigned i = 0; i < o->nmeta; i++) {
                n->meta[i] = o->meta[i];
                n->meta[i].key = xstrdup(o->meta[i].key);
                n->meta[i].value = xstrdup(o->meta[i].value);
        }
        return n;
}

#define SWAP(a, b)                                                                                 \
        do {                                                                                       \
                __typeof__(a) _t = (a);                                                            \
                (a) = (b);                                                                         \
                (b) = _t;                                                                          \
        } while (0)

void object_swap(struct control *c, struct object *o, struct object *copy)
{
        model_unindex_name(c, o);
        object_drop_refs(o);
        SWAP(o->name, copy->name);
        SWAP(o->nameless, copy->nameless);
        SWAP(o->rev, copy->rev);
        SWAP(o->state, copy->state);
        SWAP(o->updated, copy->updated);
        SWAP(o->state_since, copy->state_since);
        SWAP(o->vals, copy->vals);
        SWAP(o->links, copy->links);
        SWAP(o->nlinks, copy->nlinks);
        SWAP(o->meta, copy->meta);
        SWAP(o->nmeta, copy->nmeta);
        SWAP(o->next_slot, copy->next_slot);
        SWAP(o->error, copy->error);
        object_add_refs(o);
        model_index_name(c, o);
        taken_count(c, o);
}

void object_free(struct object *o)
{
        if (!o)
                return;
        for (unsigned i = 0; i < o->kind->nattrs; i++)
                value_free(&o->kind->attrs[i], &o->vals[i]);
        for (unsigned i = 0; i < o->nlinks; i++)
                free(o->links[i].name);
        for (unsigned i = 0; i < o->nmeta; i++) {
                free(o->meta[i].key);
                free(o->meta[i].value);
        }
        name_free(o->name);
        free(o->vals);
        free(o->links);
        free(o->meta);
        free(o->refs);
        free(o->error);
        free(o->shown);
        free(o);
}

void object_add_ref(struct object *target, struct object *from)
{
        target->refs = xrealloc(target->refs, target->nrefs + 1, sizeof(*target->refs));
        target->refs[target->nrefs++] = from;
}

void object_drop_ref(struct object *target, struct object *from)
{
        for (unsigned i = 0; i < target->nrefs; i++) {
                if (target->refs[i] != from)
                        continue;
                target->refs[i] = target->refs[--target->nrefs];
                return;
        }
}

void object_add_refs(struct object *o)
{
        object_foreach_link (l, o)
                object_add_ref(l->target, o);
}

void object_drop_refs(struct object *o)
{
        object_foreach_link (l, o)
                object_drop_ref(l->target, o);
}

/* --- collections --------------------------------------------------------------------------- */

struct object *object_owner(struct control *c, const struct object *o)
{
        if (o->kind->global)
                return model_by_no(c, OBJECT_CLOUD);
        return o->holder ? o->holder : o->tenant;
}

bool kind_holds(const struct kind *k, const struct kind *of)
{
        return of->inside && streq(of->inside, k->name);
}

struct room *model_room(struct control *c, const struct object *owner)
{
        struct room *r;

        HASH_FIND(hh, c->rooms, &owner->no, sizeof(owner->no), r);
        return r;
}

static struct room *room_new(struct control *c, struct object *owner)
{
        struct room *r = xcalloc(1, sizeof(*r));

        r->no = owner->no;
        for (unsigned i = 0; kinds[i]; i++)
                r->lists[i] = (struct collection){
                        .kind = kinds[i], .owner = owner, .changed = owner->created};
        HASH_ADD(hh, c->rooms, no, sizeof(r->no), r);
        return r;
}

static void room_free(struct control *c, struct room *r)
{
        HASH_DELETE(hh, c->rooms, r);
        for (unsigned i = 0; i < KINDS_MAX; i++)
                free(r->lists[i].v);
        free(r->events.text);
        free(r->errors.text);
        free(r);
}

struct collection *model_collection(struct control *c, const struct object *owner,
                                    const struct kind *k)
{
        struct room *r = owner ? model_room(c, owner) : NULL;
        int i = kind_index(k);

        return r && i >= 0 ? &r->lists[i] : NULL;
}

size_t collection_find(const struct collection *l, uint64_t no)
{
        size_t lo = 0, hi = l->n;

        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;

                if (l->v[mid]->no < no)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo;
}

/* A listing is known by its time, so two never have the same. */
void collection_touch(struct collection *l)
{
        l->changed = MAX(clock_now(), l->changed + 1);
}

static void collection_add(struct collection *l, struct object *o)
{
        size_t at = collection_find(l, o->no);

        if (l->n == l->size) {
                l->size = MAX(l->size * 2, (size_t)8);
                l->v = xrealloc(l->v, l->size, sizeof(struct object *));
        }
        memmove(l->v + at + 1, l->v + at, (l->n - at) * sizeof(struct object *));
        l->v[at] = o;
        l->n++;
        l->changed = MAX(l->changed + 1, o->updated);
}

static void collection_remove(struct collection *l, struct object *o)
{
        size_t at = collection_find(l, o->no);

        if (at == l->n || l->v[at] != o)
                return;
        memmove(l->v + at, l->v + at + 1, (l->n - at - 1) * sizeof(struct object *));
        l->n--;
        collection_touch(l);
}

/* --- indexes ------------------------------------------------------------------------------- */

void model_index_name(struct control *c, struct object *o)
{
        struct name_head *h = name_head(o->name);

        if (!o->nameless)
                HASH_ADD_KEYPTR(hh_name, c->by_name, h, sizeof(*h) + strlen(h->name), o);
}

void model_unindex_name(struct control *c, struct object *o)
{
        if (!o->nameless)
                HASH_DELETE(hh_name, c->by_name, o);
}

void model_add(struct control *c, struct object *o)
{
        struct object *owner = object_owner(c, o);

        HASH_ADD(hh_no, c->by_no, no, sizeof(o->no), o);
        HASH_ADD(hh_id, c->by_id, id, sizeof(o->id), o);
        model_index_name(c, o);
        if (o->kind == &kind_cloud || o->kind == &kind_tenant)
                room_new(c, o);
        if (o->holder && !model_room(c, owner))
                room_new(c, owner);
        if (owner)
                collection_add(model_collection(c, owner, o->kind), o);
        object_add_refs(o);
        taken_count(c, o);
        if (!c->numbers)
                c->next_no = MAX(c->next_no, o->no + 1);
}

void model_remove(struct control *c, struct object *o)
{
        struct object *owner = object_owner(c, o);

        object_drop_refs(o);
        taken_drop(c, o);
        if (owner)
                collection_remove(model_collection(c, owner, o->kind), o);
        if (model_room(c, o))
                room_free(c, model_room(c, o));
        model_unindex_name(c, o);
        HASH_DELETE(hh_id, c->by_id, o);
        HASH_DELETE(hh_no, c->by_no, o);
}

struct object *model_by_no(struct control *c, uint64_t no)
{
        struct object *o;

        HASH_FIND(hh_no, c->by_no, &no, sizeof(no), o);
        return o;
}

size_t model_numbers(struct control *c, uint64_t **ret)
{
        uint64_t *v = xcalloc(HASH_CNT(hh_no, c->by_no) + 1, sizeof(*v));
        size_t n = 0;

        for (struct object *o = c->by_no; o; o = o->hh_no.next)
                v[n++] = o->no;
        *ret = v;
        return n;
}

struct object *model_by_id(struct control *c, sd_id128_t id)
{
        struct object *o;

        HASH_FIND(hh_id, c->by_id, &id, sizeof(id), o);
        return o;
}

struct object *model_by_name(struct control *c, const struct object *owner, const struct kind *k,
                             const char *name)
{
        struct {
                uint64_t owner, kind;
                char name[NAME_SIZE];
        } key = {.owner = owner && !k->global ? owner->no : 0, .kind = kind_index(k)};
        size_t n = strlen(name);
        struct object *o;

        if (n >= NAME_SIZE)
                return NULL;
        memcpy(key.name, name, n);
        HASH_FIND(hh_name, c->by_name, &key, sizeof(struct name_head) + n, o);
        return o;
}

void model_init(struct control *c)
{
        pthread_rwlockattr_t a;

        pthread_rwlockattr_init(&a);
        pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&c->model, &a);
        pthread_rwlockattr_destroy(&a);
        c->next_no = OBJECT_CLOUD + 1;
        c->pending_tail = &c->pending;
}

void model_done(struct control *c)
{
        struct object *o, *tmp;

        HASH_CLEAR(hh_name, c->by_name);
        HASH_CLEAR(hh_id, c->by_id);
        while (c->rooms)
                room_free(c, c->rooms);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                HASH_DELETE(hh_no, c->by_no, o);
                taken_drop(c, o);
                object_free(o);
        }
        pthread_rwlock_destroy(&c->model);
}

void control_rdlock(struct control *c)
{
        pthread_rwlock_rdlock(&c->model);
}

void control_unlock(struct control *c)
{
        pthread_rwlock_unlock(&c->model);
}

/* --- views --------------------------------------------------------------------------------- */

const char *object_state(const struct object *o)
{
        return o->kind->states[o->state].name;
}

bool object_in(const struct object *o, unsigned states)
{
        return states == ANY_STATE || (STATE(o->state) & states);
}

uint64_t object_num(const struct object *o, const char *attr)
{
        return o->vals[kind_attr(o->kind, attr)].u;
}

const char *object_str(const struct object *o, const char *attr)
{
        const char *s = o->vals[kind_attr(o->kind, attr)].s;

        return s ? s : "";
}

struct link *object_link(const struct object *o, unsigned def, const char *name)
{
        object_foreach_link (l, o)
                if (l->def == def && (!name || streq(l->name, name)))
                        return l;
        return NULL;
}

struct object *object_target(const struct object *o, const char *link)
{
        struct link *l = object_link(o, kind_link(o->kind, link), NULL);

        return l ? l->target : NULL;
}

struct meta *object_meta(const struct object *o, const char *key)
{
        for (unsigned i = 0; i < o->nmeta; i++)
                if (streq(o->meta[i].key, key))
                        return &o->meta[i];
        return NULL;
}

char *object_label(const struct object *o, char out[NAME_SIZE + 32])
{
        snprintf(out, NAME_SIZE + 32, "%s '%s'", o->kind->name, o->name);
        return out;
}
