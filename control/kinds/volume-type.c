/* Volume types: what a provider sells as one sort of volume.  Unlike a flavor's figures those of a
 * type are not copied: its limits hold for every volume of the type that has none of its own, at
 * once when they change. */
#include "control/jobs/jobs.h"

struct object *volume_type(struct control *c, const struct object *v)
{
        const char *name = object_str(v, "type");

        return *name ? model_by_name(c, NULL, &kind_volume_type, name) : NULL;
}

bool volume_shared(struct control *c, const struct object *v)
{
        const struct object *type = volume_type(c, v);

        return type && object_num(type, "multi_attach");
}

unsigned volume_holders(const struct object *v)
{
        unsigned n = 0;

        for (unsigned i = 0; i < v->nrefs; i++)
                n += v->refs[i]->kind == &kind_instance;
        return n;
}

bool volume_source_boots(const struct object *source)
{
        if (source->kind == &kind_image)
                return true;
        return object_num(source->kind == &kind_snapshot ? source->holder : source, "bootable");
}

bool volume_encrypted(const struct object *o)
{
        const struct object *v = o->kind == &kind_snapshot ? o->holder : o;

        return v->kind == &kind_volume && object_num(v, "encrypted");
}

/* A volume of this type that says yes to `is`, NULL if there is none. */
static struct object *find_volume(struct control *c, const struct object *type,
                                  bool (*is)(const struct object *v))
{
        struct object *o, *tmp;

        HASH_ITER (hh_no, c->by_no, o, tmp)
                if (o->kind == &kind_volume && streq(object_str(o, "type"), type->name) && is(o))
                        return o;
        return NULL;
}

static bool any(const struct object *v)
{
        return true;
}

static bool held_twice(const struct object *v)
{
        return volume_holders(v) > 1;
}

/* Words that name a volume, of whatever tenant: only admins get here. */
static int in_use(const struct object *type, const struct object *v, const char *what,
                  struct err **e)
{
        return err_set(e, -EBUSY, "type '%s' %s: tenants/%s/volumes/%s", type->name, what,
                       v->tenant->name, v->name);
}

static int set_multi_attach(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *other = v.u ? NULL : find_volume(t->c, o, held_twice);

        if (other)
                return in_use(o, other, "has a volume that several instances use", e);
        txn_set_num(t, o, "multi_attach", v.u);
        return 0;
}

static int set_encrypted(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *other = find_volume(t->c, o, any);

        if (other)
                return in_use(o, other, "has volumes already", e);
        txn_set_num(t, o, "encrypted", v.u);
        return 0;
}

/* A volume knows its pool itself: this is about those to come. */
static int set_pool(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *other = find_volume(t->c, o, any);
        int r = v.s && *v.s ? pool_check(t->c, v.s, e) : 0;

        if (r == 0 && other)
                r = in_use(o, other, "has volumes already", e);
        if (r == 0)
                txn_set_str(t, o, "pool", v.s);
        return r;
}

static int remove_type(struct txn *t, struct object *o, struct err **e)
{
        struct object *v = find_volume(t->c, o, any);

        if (v)
                return in_use(o, v, "has volumes", e);
        txn_delete(t, o);
        return 0;
}

static int rename_type(struct txn *t, struct object *o, const char *name, struct err **e)
{
        struct object *v = find_volume(t->c, o, any);

        return v ? in_use(o, v, "has volumes, which know it by its name", e) : 0;
}

static const struct attr_def attrs[] = {
        {"iops", ATTR_NUMBER, ROLE_ADMIN, .min = 1, .max = 1000000000, .max_word = true,
         .def = "max", .index = true,
         .help = "reads, writes, trims and zeroings a second, for a volume without its own"},
        {"bandwidth", ATTR_SIZE, ROLE_ADMIN, .min = 64 << 10, .max = 1ULL << 40, .max_word = true,
         .def = "max", .index = true,
         .help = "bytes read and written a second, for a volume without its own"},
        {"iops_burst", ATTR_NUMBER, ROLE_ADMIN, .max = 1000000000,
         .help = "goes with iops: a second, for burst_seconds after a rest"},
        {"bandwidth_burst", ATTR_SIZE, ROLE_ADMIN, .max = 1ULL << 40,
         .help = "goes with bandwidth: a second, for burst_seconds after a rest"},
        {"burst_seconds", ATTR_NUMBER, ROLE_ADMIN, .max = 86400,
         .help = "how long a burst lasts; 0 is 1"},
        {"multi_attach", ATTR_BOOL, ROLE_ADMIN, .index = true, .set = set_multi_attach,
         .help = "several instances may have a volume at once"},
        {"encrypted", ATTR_BOOL, ROLE_ADMIN, .index = true, .set = set_encrypted,
         .help = "its volumes are encrypted; changes only while it has none"},
        {"pool", ATTR_TEXT, ROLE_ADMIN, .max = 200, .index = true, .set = set_pool,
         .help = "where its volumes are: local or rbd:POOL, as the configuration has them; empty: "
                 "its first; changes only while it has none"},
        {"description", ATTR_TEXT, ROLE_ADMIN, .max = 255, .help = "words for people"},
};
static const struct state_def states[] = {{"active", .help = "may be used"}};

const struct kind kind_volume_type = {
        .name = "volume_type",
        .plural = "volume_types",
        .help = "Sorts of volumes: limits and properties; readable by all, written by admins.",
        .schema = 1,
        .global = true,
        .parent = "",
        .creator = ROLE_ADMIN,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .remove = remove_type,
        .rename = rename_type,
};
