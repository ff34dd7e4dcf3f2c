/* Objects as the store keeps them: one JSON object a record.
 *
 * {"v": 1, "no": 12, "kind": "volume", "name": "root", "state": "available", "created": usec, ...,
 *  "attrs": {...}, "links": [...], "meta": [...], "in": no of the holder, "d": 1}.  States,
 * attributes and links are stored by name, so a table may be reordered; what this release does not
 * know is refused at load.
 *
 * Attributes that are 0 or empty are not stored, but as null where the kind's default is something
 * else: what is missing is younger than the record, and has its default.  Records without "d" are
 * of before that was so: a number that is missing is 0 there if it may be. */
#include "control/internal.h"

#include <jansson.h>

#include "common/jsonl.h"

void record_scope(const struct object *o, char out[40])
{
        /* A tenant and all that is in it are one scope, so that one commit can change both. */
        if (o->tenant || o->kind == &kind_tenant)
                id_text(out, o->tenant ? o->tenant->id : o->id);
        else
                snprintf(out, 40, "cloud");
}

/* A record that lacks something would be taken for one that never had it. */
static void put(json_t *to, const char *key, json_t *v)
{
        if (json_object_set_new(to, key, v) < 0)
                abort();
}

static void put_last(json_t *to, json_t *v)
{
        if (json_array_append_new(to, v) < 0)
                abort();
}

static void pack_attrs(const struct object *o, json_t *rec)
{
        json_t *attrs = xcheck(json_object());

        for (unsigned i = 0; i < o->kind->nattrs; i++) {
                const struct attr_def *a = &o->kind->attrs[i];

                if (attr_is_text(a) && o->vals[i].s)
                        put(attrs, a->name, json_string(o->vals[i].s));
                else if (!attr_is_text(a) && o->vals[i].u == VALUE_MAX)
                        put(attrs, a->name, json_string("max"));
                else if (!attr_is_text(a) && o->vals[i].u)
                        put(attrs, a->name, json_integer(o->vals[i].u));
                else if (a->def)
                        put(attrs, a->name, json_null());
        }
        put(rec, "attrs", attrs);
}

static void pack_links(const struct object *o, json_t *rec)
{
        json_t *links = xcheck(json_array()), *meta = xcheck(json_array());
        char target[ID_TEXT_SIZE];

        object_foreach_link (l, o)
                put_last(links, json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:b}", "link",
                                          o->kind->links[l->def].name, "name", l->name, "to",
                                          id_text(target, l->target->id), "id", l->id, "slot",
                                          (int)l->slot, "created", (json_int_t)l->created,
                                          "leaving", l->leaving));
        for (unsigned i = 0; i < o->nmeta; i++)
                put_last(meta, json_pack("{s:s, s:s, s:i, s:I}", "key", o->meta[i].key, "value",
                                         o->meta[i].value, "slot", (int)o->meta[i].slot, "updated",
                                         (json_int_t)o->meta[i].updated));
        if (json_array_size(links))
                put(rec, "links", json_incref(links));
        if (json_array_size(meta))
                put(rec, "meta", json_incref(meta));
        json_decref(links);
        json_decref(meta);
}

char *record_write(const struct object *o)
{
        json_auto_t *rec =
                json_pack("{s:i, s:i, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:i}", "v",
                          (int)o->kind->schema, "d", 1, "no", (json_int_t)o->no, "kind",
                          o->kind->name, "name", o->name, "state", object_state(o), "created",
                          (json_int_t)o->created, "updated", (json_int_t)o->updated, "since",
                          (json_int_t)o->state_since, "next", (int)o->next_slot);

        xcheck(rec);
        if (o->nameless)
                put(rec, "nameless", json_true());
        if (o->holder)
                put(rec, "in", json_integer(o->holder->no));
        if (o->error)
                put(rec, "error", json_string(o->error));
        pack_attrs(o, rec);
        pack_links(o, rec);
        return xcheck(json_text(rec, JSON_COMPACT));
}

/* --- loading: objects first, then what ties them together ---------------------------------------
 */

struct loading {
        struct control *c;
        struct record *v;
        size_t n;
};

/* Attributes that the record does not have.  old: it is of before all defaults were meant so. */
static void set_defaults(struct object *o, const json_t *attrs, bool old)
{
        for (unsigned i = 0; i < o->kind->nattrs; i++) {
                const struct attr_def *a = &o->kind->attrs[i];
                union value zero;

                if (!a->def || json_object_get(attrs, a->name))
                        continue;
                if (old && !attr_is_text(a) && value_parse(NULL, a, "0", 1, &zero, NULL) == 0)
                        continue;
                if (value_parse(NULL, a, a->def, strlen(a->def), &o->vals[i], NULL) < 0)
                        log_error("kind %s: default of '%s' is not legal", o->kind->name, a->name);
        }
}

static int read_attrs(struct object *o, json_t *attrs, struct err **e)
{
        const char *name;
        json_t *v;

        json_object_foreach (attrs, name, v) {
                int i = kind_attr(o->kind, name);

                if (i < 0)
                        return err_set(e, -EPROTO, "unknown attribute '%s'", name);
                if (attr_is_text(&o->kind->attrs[i]))
                        o->vals[i].s = xstrdup(json_string_value(v));
                else
                        o->vals[i].u =
                                json_is_string(v) ? VALUE_MAX : (uint64_t)json_integer_value(v);
        }
        return 0;
}

static void read_meta(struct object *o, json_t *meta)
{
        size_t i;
        json_t *m;

        o->meta = json_array_size(meta) ? xcalloc(json_array_size(meta), sizeof(*o->meta)) : NULL;
        json_array_foreach (meta, i, m) {
                const char *key = "", *value = "";
                json_int_t updated = 0;
                int slot = 0;

                json_unpack(m, "{s:s, s:s, s:i, s:I}", "key", &key, "value", &value, "slot", &slot,
                            "updated", &updated);
                o->meta[o->nmeta++] = (struct meta){.slot = slot,
                                                    .key = xstrdup(key),
                                                    .value = xstrdup(value),
                                                    .updated = updated};
        }
}

static int read_object(json_t *rec, const struct store_record *r, struct object **ret,
                       struct err **e)
{
        const char *kind = "", *name = "", *state = "", *error = NULL;
        json_int_t no = 0, created = 0, updated = 0, since = 0;
        int v = 0, next = 1, nameless = 0, s;
        const struct kind *k;
        struct object *o;

        if (json_unpack(rec, "{s:i, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s?b, s?s}", "v", &v,
                        "no", &no, "kind", &kind, "name", &name, "state", &state, "created",
                        &created, "updated", &updated, "since", &since, "next", &next, "nameless",
                        &nameless, "error", &error) < 0)
                return err_set(e, -EPROTO, "not an object's record");
        k = kind_by_name(kind);
        if (!k || v > (int)k->schema)
                return err_set(e, -EPROTO, "%s of version %d: made by a newer release", kind, v);
        if (v < (int)k->schema && (!k->upgrade || k->upgrade(rec, v, e) < 0))
                return err_set(e, -EPROTO, "%s of version %d cannot be upgraded", kind, v);
        s = kind_state(k, state);
        if (s < 0)
                return err_set(e, -EPROTO, "%s in unknown state '%s'", kind, state);
        o = object_new(k);
        o->no = no;
        o->created = created;
        o->updated = updated;
        o->state_since = since;
        o->next_slot = next;
        o->nameless = nameless;
        o->state = s;
        o->rev = r->version;
        o->error = xstrdup(error);
        o->name = xstrdup(name); /* keyed once its tenant is known */
        if (no <= 0 || id_parse(r->key, &o->id) < 0 ||
            read_attrs(o, json_object_get(rec, "attrs"), e) < 0) {
                free(TAKE_PTR(o->name));
                object_free(o);
                return err_prepend(e, -EPROTO, "%s '%s'", kind, name);
        }
        set_defaults(o, json_object_get(rec, "attrs"), !json_object_get(rec, "d"));
        read_meta(o, json_object_get(rec, "meta"));
        *ret = o;
        return 0;
}

int record_read(const struct store_record *r, struct record *ret)
{
        json_auto_t *rec = json_loadb(r->value, r->len, 0, NULL);
        _cleanup_err_ struct err *err = NULL;
        struct object *o = NULL;
        int code;

        code = rec ? read_object(rec, r, &o, &err) : err_set(&err, -EPROTO, "not JSON");
        if (code < 0) {
                log_error("store: record %s: %s", r->key, err_msg(err));
                return code;
        }
        /* The rest of the record goes now: a whole store of parsed text between the objects would
         * leave the heap full of holes. */
        *ret = (struct record){.o = o,
                               .links = json_incref(json_object_get(rec, "links")),
                               .in = json_integer_value(json_object_get(rec, "in"))};
        snprintf(ret->scope, sizeof(ret->scope), "%s", r->scope);
        return 0;
}

void record_done(struct record *r)
{
        json_decref(r->links);
        r->links = NULL;
        if (!r->o)
                return;
        if (!r->named)
                free(TAKE_PTR(r->o->name));
        object_free(TAKE_PTR(r->o));
}

static int load_one(void *arg, const struct store_record *r)
{
        struct loading *l = arg;
        int code;

        if ((l->n & (l->n - 1)) == 0)
                l->v = xrealloc(l->v, MAX(l->n * 2, (size_t)1), sizeof(*l->v));
        code = record_read(r, &l->v[l->n]);
        if (code < 0)
                return code; /* better not to start than to forget an object */
        l->n++;
        return 0;
}

void record_name(struct record *r)
{
        char *name = TAKE_PTR(r->o->name);

        object_set_name(r->o, name);
        r->named = true;
        free(name);
}

static void load_add(struct control *c, struct record *p)
{
        record_name(p);
        model_add(c, p->o);
}

bool record_links(struct control *c, struct object *o, json_t *links, bool ignore)
{
        size_t i;
        json_t *j;

        while (o->nlinks) /* of a try that ended at a target that was not there yet */
                free(o->links[--o->nlinks].name);
        free(o->links);
        o->links =
                json_array_size(links) ? xcalloc(json_array_size(links), sizeof(*o->links)) : NULL;
        json_array_foreach (links, i, j) {
                const char *def = "", *name = "", *to = "", *id = "";
                struct object *target = NULL;
                json_int_t created = 0;
                int slot = 0, leaving = 0, d;
                sd_id128_t tid;

                json_unpack(j, "{s:s, s:s, s:s, s:s, s:i, s:I, s:b}", "link", &def, "name", &name,
                            "to", &to, "id", &id, "slot", &slot, "created", &created, "leaving",
                            &leaving);
                d = kind_link(o->kind, def);
                if (id_parse(to, &tid) == 0)
                        target = model_by_id(c, tid);
                if (!target && !ignore)
                        return false;
                if (d < 0 || !target) {
                        log_error("%s '%s': link '%s' points nowhere, ignoring", o->kind->name,
                                  o->name, name);
                        continue;
                }
                o->links[o->nlinks] = (struct link){.def = d,
                                                    .slot = slot,
                                                    .name = xstrdup(name),
                                                    .target = target,
                                                    .created = created,
                                                    .leaving = leaving};
                snprintf(o->links[o->nlinks++].id, ID_TEXT_SIZE, "%s", id);
        }
        return true;
}

/* An object of a tenant, if it is the turn of those in (or not in) a holder. */
static int load_in_tenant(struct control *c, struct record *p, bool held, struct err **e)
{
        struct object *o = p->o;
        sd_id128_t tenant;

        if (o->kind->global || !!o->kind->inside != held)
                return 0;
        o->tenant = id_parse(p->scope, &tenant) == 0 ? model_by_id(c, tenant) : NULL;
        o->holder = held ? model_by_no(c, p->in) : NULL;
        if (!o->tenant || (held && (!o->holder || !kind_holds(o->holder->kind, o->kind))))
                return err_set(e, -EPROTO, "store: %s '%s' is in a %s that is not there",
                               o->kind->name, o->name, o->tenant ? o->kind->inside : "tenant");
        load_add(c, p);
        return 0;
}

static int by_number(const void *a, const void *b)
{
        const struct record *x = a, *y = b;

        return x->o->no < y->o->no ? -1 : x->o->no > y->o->no;
}

/* The cloud, global objects (tenants among them), tenants' objects, what these hold, links.  By
 * number, as collections are: each is added at its end. */
static int load_tie(struct loading *l, struct err **e)
{
        struct control *c = l->c;
        unsigned clouds = 0;
        int r = 0;

        if (l->n)
                qsort(l->v, l->n, sizeof(*l->v), by_number);
        for (size_t i = 0; i < l->n; i++)
                clouds += l->v[i].o->kind == &kind_cloud;
        if (l->n && clouds != 1)
                return err_set(e, -EPROTO, "store: %u clouds in it, not one", clouds);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i].o->kind == &kind_cloud)
                        load_add(c, &l->v[i]);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i].o->kind->global && l->v[i].o->kind != &kind_cloud)
                        load_add(c, &l->v[i]);
        for (int held = 0; held <= 1; held++)
                for (size_t i = 0; i < l->n && r == 0; i++)
                        r = load_in_tenant(c, &l->v[i], held, e);
        if (r < 0)
                return r;
        for (size_t i = 0; i < l->n; i++)
                if (record_links(c, l->v[i].o, l->v[i].links, true))
                        object_add_refs(l->v[i].o);
        for (size_t i = 0; i < l->n; i++)
                quota_count(c, l->v[i].o, 1);
        return 0;
}

int record_load(struct control *c, struct err **e)
{
        struct loading l = {.c = c};
        struct store *s = c->cfg.store;
        int r;

        r = s->ops->load(s, load_one, &l, e);
        if (r == 0)
                r = load_tie(&l, e);
        for (size_t i = 0; i < l.n; i++) {
                if (l.v[i].named)
                        l.v[i].o = NULL; /* the model's */
                record_done(&l.v[i]);
        }
        free(l.v);
        return r < 0 ? err_prepend(e, r, "load the store") : 0;
}
