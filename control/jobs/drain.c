/* A host that drains: its guests go to others, some at a time, each by a migration of its own.
 *
 * The host that drains asks for them itself.  What cannot go (a volume in its local pool, no room
 * elsewhere) stays, its `error` says why, and it is asked again a minute later; `instances` of the
 * host shows what is left. */
#include "control/jobs/jobs.h"

#include "control/hosts.h"

enum { AT_ONCE = 2 };

static bool may_go(const struct object *o, bool again)
{
        return object_in(o, STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_PAUSED)) && !o->jobs &&
               !instance_container(o) && (again || !o->failed);
}

/* The next guest to go; 0: none can, or enough do.  *draining: whether any could.  Model held. */
static uint64_t next(struct control *c, bool again, bool *draining)
{
        const struct object *host = host_find(c, c->cfg.host);
        uint64_t no = 0;
        unsigned going = 0;

        *draining = host && host->state == HOST_DRAINING &&
                    streq(object_str(host, "compute"), "system");
        for (const struct object *o = c->by_no; o && *draining; o = o->hh_no.next) {
                if (o->kind != &kind_instance || !host_has(o, c->cfg.host))
                        continue;
                going += o->state == INSTANCE_MIGRATING;
                if (!no && may_go(o, again))
                        no = o->no;
        }
        return going < AT_ONCE ? no : 0;
}

static int ask(struct control *c, uint64_t no, struct err **e)
{
        struct object *o;
        struct txn t;
        int r = 0;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (o && host_has(o, c->cfg.host) && may_go(o, true))
                r = instance_migrate(&t, o, "", e);
        return txn_end(&t, r, e);
}

bool drain_look(struct control *c, bool again)
{
        bool draining = true;
        uint64_t no, last = 0;

        while (draining) {
                _cleanup_err_ struct err *err = NULL;

                control_rdlock(c);
                no = next(c, again, &draining);
                control_unlock(c);
                if (!no || no == last)
                        break;
                last = no;
                if (AGAIN(c, &err, ask(c, no, &err)) < 0)
                        log_warning("drain: %s", err_msg(err));
        }
        return draining;
}
