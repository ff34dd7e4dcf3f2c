/* What a new cloud begins with, and putting right what a crash left. */
#include "control/hosts.h"
#include "control/network.h"

/* A tenant is a scope of the store by itself, which has its id: for several hosts that fill one
 * cloud at once to meet in it, the first tenant's is made of the cloud's. */
static void common_id(struct txn *t, struct object *o)
{
        sd_id128_t id = model_by_no(t->c, OBJECT_CLOUD)->id;

        id.bytes[15] ^= 1;
        if (!model_by_id(t->c, id))
                txn_set_id(t, o, id);
}

static int seed_object_once(struct control *c, const struct kind *k, const char *name,
                            const char *const *attrs, struct err **e)
{
        struct object *o;
        struct txn t;
        int r = 0;

        txn_begin(&t, c, NULL);
        t.unleased = true;
        if (model_by_name(c, NULL, k, name)) {
                txn_abort(&t);
                return 0;
        }
        r = txn_create(&t, k, NULL, name, &o, e);
        if (r == 0 && k == &kind_tenant)
                common_id(&t, o);
        for (; r == 0 && attrs && attrs[0]; attrs += 2)
                r = action_set(&t, o, kind_attr(k, attrs[0]), attrs[1], strlen(attrs[1]), e);
        if (r == 0 && k->create)
                r = k->create(&t, o, e);
        return txn_end(&t, r, e);
}

static int seed_object(struct control *c, const struct kind *k, const char *name,
                       const char *const *attrs, struct err **e)
{
        return AGAIN(c, e, seed_object_once(c, k, name, attrs, e));
}

static int seed_flavors(struct control *c, struct err **e)
{
        static const struct {
                const char *name, *vcpus, *memory, *disk;
        } flavors[] = {
                {"tiny", "1", "256M", "0"},    {"small", "1", "512M", "0"},
                {"medium", "2", "2G", "20G"},  {"large", "4", "8G", "40G"},
                {"xlarge", "8", "16G", "80G"},
        };
        int r = 0;

        for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(flavors); i++)
                r = seed_object(c, &kind_flavor, flavors[i].name,
                                (const char *const[]){"vcpus", flavors[i].vcpus, "memory",
                                                      flavors[i].memory, "disk", flavors[i].disk,
                                                      NULL},
                                e);
        return r;
}

static int seed_done(struct control *c, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        t.unleased = true;
        o = model_by_no(c, OBJECT_CLOUD);
        if (o->state == CLOUD_NEW)
                txn_set_state(&t, o, CLOUD_UP);
        return txn_commit(&t, e);
}

/* This host's record: what it has and what runs there now. */
static int refresh(struct control *c, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        t.unleased = true;
        o = model_by_name(c, NULL, &kind_host, c->cfg.host);
        if (o)
                host_refresh(&t, o);
        return txn_commit(&t, e);
}

/* What a host of a rack has. */
static int seed_simulated(struct control *c, unsigned i, struct err **e)
{
        char name[NAME_SIZE];
        struct object *o;
        struct txn t;
        int r;

        snprintf(name, sizeof(name), "sim-%u", i);
        r = seed_object(c, &kind_host, name, NULL, e);
        if (r < 0)
                return r;
        txn_begin(&t, c, NULL);
        o = model_by_name(c, NULL, &kind_host, name);
        host_refresh(&t, o);
        txn_set_str(&t, o, "compute", "test");
        txn_set_str(&t, o, "accel", "tcg");
        txn_set_num(&t, o, "cpus", 16);
        txn_set_num(&t, o, "memory", 64ULL << 30);
        return txn_commit(&t, e);
}

int seed_host(struct control *c, struct err **e)
{
        int r = seed_object(c, &kind_host, c->cfg.host, NULL, e);

        if (r == 0)
                r = AGAIN(c, e, refresh(c, e));
        for (unsigned i = 1; r == 0 && i <= c->cfg.simulated; i++)
                r = seed_simulated(c, i, e);
        return r;
}

/* An object in a passing state that no job will lead out of it: an upload that was cut off with the
 * daemon, or a job whose record was lost. */
static void settle_object(struct txn *t, struct object *o)
{
        int error = kind_state(o->kind, "error");
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *rec = NULL;
        struct buf path = {};

        if (error < 0)
                return;
        render_path(t->c, o, &path);
        err_set(&err, -EIO, "the daemon ended while it was %s", object_state(o));
        rec = error_record(t->c, NULL, "restart", buf_str(&path), -EIO, err);
        txn_set_error(t, o, rec);
        txn_set_state(t, o, error);
        buf_done(&path);
}

/* A volume on its way into or out of a guest is led by a job of the instance. */
static bool has_job(struct control *c, const struct object *o)
{
        if (o->jobs)
                return true;
        if (o->kind == &kind_snapshot) /* taken with the others of an instance */
                o = o->holder;
        else if (o->kind != &kind_volume ||
                 !object_in(o, STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING)))
                return false;
        for (unsigned i = 0; i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_instance && o->refs[i]->jobs)
                        return true;
        return false;
}

static bool comes_in(struct control *c, const struct object *o)
{
        for (size_t i = 0; i < c->cfg.nuploads; i++)
                if (c->cfg.uploads[i] == o->no)
                        return o->kind == &kind_image && o->state == IMAGE_SAVING;
        return false;
}

/* Others may be at work on what no job leads: uploads, of which each host has its own. */
static bool ours(struct control *c, const struct object *o)
{
        return !feed_shared(c) ||
               (o->kind == &kind_image && streq(object_str(o, "host"), c->cfg.host));
}

static int settle_one(struct control *c, uint64_t no, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (o && o->kind->states[o->state].transient)
                settle_object(&t, o);
        return txn_commit(&t, e);
}

/* One transaction an object: they are few, and of different tenants. */
static int settle(struct control *c, struct err **e)
{
        uint64_t *v = NULL;
        struct object *o, *tmp;
        size_t n = 0;
        int r = 0;

        pthread_rwlock_wrlock(&c->model); /* others may be heard already */
        HASH_ITER (hh_no, c->by_no, o, tmp)
                if (o->kind == &kind_job && o->kind->states[o->state].transient)
                        jobs_seen(c, o);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (!ours(c, o) || o->kind == &kind_job || !o->kind->states[o->state].transient ||
                    has_job(c, o) || comes_in(c, o))
                        continue;
                v = xrealloc(v, n + 1, sizeof(*v));
                v[n++] = o->no;
        }
        pthread_rwlock_unlock(&c->model);
        for (size_t i = 0; i < n && r == 0; i++)
                r = AGAIN(c, e, settle_one(c, v[i], e));
        free(v);
        return r;
}

static int seed_tenant(struct control *c, uint64_t no, struct err **e)
{
        struct object *o;
        struct txn t;
        int r = 0;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (o && !o->nameless)
                r = network_seed(&t, o, e);
        return txn_end(&t, r, e);
}

/* Tenants from before there were networks get what new ones begin with. */
static int seed_networks(struct control *c, struct err **e)
{
        struct collection *l;
        uint64_t *v;
        size_t n;
        int r = 0;

        control_rdlock(c);
        l = model_collection(c, model_by_no(c, OBJECT_CLOUD), &kind_tenant);
        n = l ? l->n : 0;
        v = xcalloc(n + 1, sizeof(*v));
        for (size_t i = 0; i < n; i++)
                v[i] = l->v[i]->no;
        control_unlock(c);
        for (size_t i = 0; i < n && r == 0; i++)
                r = AGAIN(c, e, seed_tenant(c, v[i], e));
        free(v);
        return r;
}

int seed_cloud(struct control *c, struct err **e)
{
        bool new;
        int r = 0;

        control_rdlock(c);
        new = !model_by_no(c, OBJECT_CLOUD);
        control_unlock(c);
        if (new)
                r = seed_object(c, &kind_cloud, "cloud", NULL, e);
        control_rdlock(c); /* somebody else may be at it, or have died at it */
        new = r == 0 && model_by_no(c, OBJECT_CLOUD)->state == CLOUD_NEW;
        control_unlock(c);
        if (new)
                r = seed_flavors(c, e);
        if (r == 0) /* it has the numbers of networks, which tenants begin with */
                r = seed_host(c, e);
        if (r == 0 && new)
                r = seed_object(c, &kind_tenant, "default", NULL, e);
        if (r == 0 && new)
                r = AGAIN(c, e, seed_done(c, e));
        if (r == 0)
                r = seed_networks(c, e);
        return r < 0 ? r : settle(c, e);
}
