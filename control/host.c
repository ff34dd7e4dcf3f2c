/* Hosts' records: what this one has and how it runs guests, and what guests take of each. */
#include "control/jobs/jobs.h"

#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "control/hosts.h"
#include "control/network.h"

bool host_here(const struct control *c, const char *name)
{
        return streq(name, c->cfg.host) || (c->cfg.simulated && strncmp(name, "sim-", 4) == 0);
}

void control_host(struct control *c, char compute[16], char accel[16])
{
        struct object *o;

        control_rdlock(c);
        o = model_by_name(c, NULL, &kind_host, c->cfg.host);
        snprintf(compute, 16, "%s", o ? object_str(o, "compute") : "");
        snprintf(accel, 16, "%s", o ? object_str(o, "accel") : "unknown");
        control_unlock(c);
}

char *control_id(struct control *c, char *out)
{
        control_rdlock(c);
        id_text(out, model_by_no(c, OBJECT_CLOUD)->id);
        control_unlock(c);
        return out;
}

static int set_once(struct control *c, const char *compute, const char *accel, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        t.unleased = true; /* also who stands down looks for guests */
        o = model_by_name(c, NULL, &kind_host, c->cfg.host);
        if (o && compute)
                txn_set_str(&t, o, "compute", compute);
        if (o && accel)
                txn_set_str(&t, o, "accel", accel);
        return txn_commit(&t, e);
}

int control_host_set(struct control *c, const char *compute, const char *accel, struct err **e)
{
        return AGAIN(c, e, set_once(c, compute, accel, e));
}

/* --- what it has ----------------------------------------------------------------------------- */

uint64_t host_free(struct control *c, const struct object *o)
{
        struct statvfs v = {};

        /* The kernel's memory, no I/O. */
        if (streq(o->name, c->cfg.host) && statvfs(c->cfg.state, &v) == 0)
                return (uint64_t)v.f_bavail * v.f_frsize;
        return object_num(o, "free");
}

static void note(struct txn *t, struct object *o, const char *attr, uint64_t v)
{
        if (object_num(o, attr) != v)
                txn_set_num(t, o, attr, v);
}

static void note_text(struct txn *t, struct object *o, const char *attr, const char *text)
{
        if (!streq(object_str(o, attr), text))
                txn_set_str(t, o, attr, text);
}

/* A record of an older release has none. */
static void note_default(struct txn *t, struct object *o, const char *attr)
{
        if (!object_num(o, attr))
                txn_set_num(t, o, attr,
                            strtoull(o->kind->attrs[kind_attr(o->kind, attr)].def, NULL, 10));
}

void host_refresh(struct txn *t, struct object *o)
{
        struct statvfs v = {};
        struct sysinfo i = {};
        struct utsname u = {};

        uname(&u);
        sysinfo(&i);
        note_default(t, o, "vcpus_percent");
        note_default(t, o, "memory_percent");
        note_default(t, o, "migration_seconds");
        note(t, o, "cpus", get_nprocs());
        note(t, o, "memory", (uint64_t)i.totalram * i.mem_unit);
        note_text(t, o, "arch", u.machine);
        note_text(t, o, "version", STRATOFS_VERSION);
        if (!*object_str(o, "blocks"))
                network_numbers_take(t, o);
        if (statvfs(t->c->cfg.state, &v) < 0)
                return;
        note(t, o, "disk", (uint64_t)v.f_blocks * v.f_frsize);
        if (feed_shared(t->c)) /* for the others; by itself it looks */
                note(t, o, "free", (uint64_t)v.f_bavail * v.f_frsize);
}

/* --- what guests take ------------------------------------------------------------------------ */

struct object *host_find(struct control *c, const char *name)
{
        return *name ? model_by_name(c, NULL, &kind_host, name) : NULL;
}

bool host_holds(struct control *c, const char *name)
{
        const struct object *o = host_find(c, name);

        return o && o->state != HOST_DOWN;
}

bool host_has(const struct object *o, const char *host)
{
        const unsigned there =
                INSTANCE_RUNS | STATE(INSTANCE_STARTING) | STATE(INSTANCE_STOPPING) |
                STATE(INSTANCE_REBOOTING) | STATE(INSTANCE_SUSPENDING) | STATE(INSTANCE_RESUMING) |
                STATE(INSTANCE_RESCUING) | STATE(INSTANCE_UNRESCUING) | STATE(INSTANCE_REBUILDING) |
                STATE(INSTANCE_SHELVING) | STATE(INSTANCE_RESIZING) | STATE(INSTANCE_REVERTING) |
                STATE(INSTANCE_MIGRATING);

        return object_in(o, there) && streq(object_str(o, "host"), host);
}

bool host_expects(const struct object *o, const char *host)
{
        return o->state == INSTANCE_MIGRATING && streq(object_str(o, "moving_to"), host);
}

bool host_keeps(const struct object *o, const char *host)
{
        return host_has(o, host) || host_expects(o, host) ||
               (o->state == INSTANCE_SUSPENDED && streq(object_str(o, "host"), host));
}

static bool counts(const struct object *o, const char *host, bool claimed)
{
        return o->kind == &kind_instance && host_keeps(o, host) &&
               (!claimed || o->state != INSTANCE_STARTING || object_num(o, "claim"));
}

void host_use(struct control *c, const char *host, bool claimed, struct host_use *ret)
{
        struct object *o, *tmp;

        *ret = (struct host_use){};
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (!counts(o, host, claimed))
                        continue;
                ret->guests++;
                ret->vcpus += object_num(o, "vcpus");
                ret->memory += object_num(o, "memory");
        }
}

/* Its own words, and those that follow from what it is; the caller frees. */
static char *feature_words(const struct object *o)
{
        char *text;

        if (asprintf(&text, "%s %s %s", object_str(o, "arch"), object_str(o, "accel"),
                     object_str(o, "features")) < 0)
                abort();
        return text;
}

static void add_guest(struct sched_host *v, size_t n, const struct object *o, bool claimed,
                      const struct object *group, bool self)
{
        const char *host = object_str(o, "host");

        if (self || !*host || !counts(o, host, claimed))
                return;
        for (size_t i = 0; i < n; i++) {
                if (!streq(v[i].name, host))
                        continue;
                v[i].guests++;
                v[i].vcpus_used += object_num(o, "vcpus");
                v[i].memory_used += object_num(o, "memory");
                v[i].members += group && object_target(o, "group") == group;
                return;
        }
}

struct sched_host *host_views(struct control *c, const struct object *instance, bool claimed,
                              size_t *ret_n)
{
        struct collection *l = model_collection(c, model_by_no(c, OBJECT_CLOUD), &kind_host);
        const struct object *group = object_target(instance, "group");
        struct sched_host *v = xcalloc(MAX(l->n, (size_t)1), sizeof(*v));
        struct object *o, *tmp;

        for (size_t i = 0; i < l->n; i++) {
                const struct object *h = l->v[i];

                v[i] = (struct sched_host){.name = h->name,
                                           .zone = object_str(h, "zone"),
                                           .features = feature_words(h),
                                           .state = object_state(h),
                                           .up = h->state == HOST_UP,
                                           .vcpus = object_num(h, "cpus"),
                                           .memory = object_num(h, "memory"),
                                           .vcpus_percent = object_num(h, "vcpus_percent"),
                                           .memory_percent = object_num(h, "memory_percent")};
        }
        HASH_ITER (hh_no, c->by_no, o, tmp)
                if (o->kind == &kind_instance)
                        add_guest(v, l->n, o, claimed, group, o == instance);
        *ret_n = l->n;
        return v;
}

void host_views_free(struct sched_host *v, size_t n)
{
        for (size_t i = 0; i < n; i++)
                free((char *)v[i].features);
        free(v);
}
