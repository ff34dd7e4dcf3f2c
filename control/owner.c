/* Which host runs a job.
 *
 * What touches a guest, or a volume that a guest has open, runs where the guest is; what touches a
 * local pool, or an upload, runs beside it.  All else of a tenant is run by its keeper: one host,
 * written into the tenant's record by the first that has something to run, until that host is taken
 * over.  So jobs of one target do not run side by side on two hosts, and blockds do not meet in one
 * volume. Every one of these choices is a guarded write: who comes second finds the record changed.
 */
#include "control/jobs/jobs.h"

#include "control/hosts.h"

/* The host that has the volume open or in a local pool; "": any may have it. */
static const char *volume_seat(struct control *c, const struct object *v)
{
        if (volume_local(v)) /* also while that host is down: then it waits */
                return object_str(v, "host");
        for (unsigned i = 0; i < v->nrefs; i++) {
                const struct object *o = v->refs[i];

                if (o->kind == &kind_instance && host_has(o, object_str(o, "host")))
                        return object_str(o, "host");
        }
        return "";
}

static const char *seat(struct control *c, const struct object *o)
{
        const struct object *source;

        if (o->kind == &kind_instance || o->kind == &kind_image)
                return object_str(o, "host");
        if (o->kind == &kind_snapshot)
                o = o->holder;
        if (o->kind == &kind_backup && (source = object_target(o, "source")))
                o = source;
        return o->kind == &kind_volume ? volume_seat(c, o) : "";
}

static const char *keeper(struct txn *t, struct object *tenant)
{
        if (!host_holds(t->c, object_str(tenant, "keeper")))
                txn_set_str(t, tenant, "keeper", t->c->cfg.host);
        return object_str(tenant, "keeper");
}

bool volume_local(const struct object *v)
{
        return streq(object_str(v, "pool"), "local");
}

bool pool_shared(struct control *c)
{
        return c->cfg.pool && !streq(c->cfg.pool, "local");
}

const char *owner_choose(struct txn *t, struct object *target, const struct job_def *def)
{
        struct object *tenant = target->kind == &kind_tenant ? target : target->tenant;
        const char *host;
        bool moves = target->kind == &kind_instance || target->kind == &kind_image;

        if (!feed_shared(t->c) || def->here || !tenant)
                return t->c->cfg.host;
        host = seat(t->c, target);
        return host_find(t->c, host) && (!moves || host_holds(t->c, host)) ? host
                                                                           : keeper(t, tenant);
}
