/* The CD drive of a running guest is made to hold what the link `cdrom` says.
 *
 * The link changes at once; the job's args say what was there before: "NUMBER ID" of image and
 * link,
 * "" nothing.  If the guest keeps its drive shut, that link is back, with its export. */
#include "control/jobs/plan.h"
#include "control/kinds/instance.h"

static void before(char out[64], const struct link *l)
{
        *out = '\0';
        if (l)
                snprintf(out, 64, "%" PRIu64 " %s", l->target->no, l->id);
}

int instance_unbind_cdrom(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        char args[64];

        before(args, l);
        if (object_in(o, LIVE))
                job_start(t, o, &job_instance_cdrom, args);
        return 0;
}

/* After an unbind in the same breath there are two jobs, of which the second finds it done. */
int instance_bound_cdrom(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        if (object_in(o, LIVE))
                job_start(t, o, &job_instance_cdrom, NULL);
        return 0;
}

static struct link *cdrom(struct object *o)
{
        return o ? object_link(o, kind_link(o->kind, "cdrom"), NULL) : NULL;
}

static int wait_ready(struct job *j, struct err **e)
{
        char label[NAME_SIZE + 32];
        uint64_t watch = 0;
        struct object *o;
        struct link *l;
        int r;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        l = cdrom(o);
        r = l ? link_ready(o, l, &watch, label, e) : 0;
        control_unlock(j->c);
        return r == 1 ? job_wait(j, watch, 0, "%s is not ready", label) : r;
}

static int change(struct job *j, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        struct compute *compute;
        int r = plan_guest(j, &p, e);

        if (r == -EAGAIN) /* whose accelerator does not matter here */
                r = 0;
        if (r == 0)
                r = plan_cdrom(j, &p, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->media(compute, p.g.uuid, p.g.cdrom.socket ? &p.g.cdrom : NULL, e);
        if (r == -ENOENT) { /* it went off meanwhile; the next start has it */
                if (e)
                        *e = err_free(*e);
                return 0;
        }
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

/* What was in it is closed, unless it is what is in it. */
static int close_old(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        const char *id = strchr(j->args, ' ');
        struct link *l;
        bool same;

        control_rdlock(j->c);
        l = cdrom(model_by_no(j->c, j->target));
        same = l && id && streq(l->id, id + 1);
        control_unlock(j->c);
        return id && !same ? s->ops->unexport(s, id + 1, e) : 0;
}

static int step_change(struct job *j, struct err **e)
{
        int r = wait_ready(j, e);

        if (r == 0)
                r = change(j, e);
        if (r == 0)
                r = close_old(j, e);
        return r == -ECONNREFUSED ? job_wait_blockd(j, e) : r;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        const char *id = strchr(j->args, ' ');
        struct object *image = model_by_no(t->c, strtoull(j->args, NULL, 10));
        struct link *l = cdrom(o);

        if (l)
                txn_unlink(t, o, l);
        if (!o || !id || !image || image->nameless)
                return;
        l = txn_link(t, o, kind_link(o->kind, "cdrom"), "cdrom", image);
        snprintf(l->id, sizeof(l->id), "%s", id + 1);
}

/* The new one is not in the drive: it is closed, unless it is what was there before. */
static int undo(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;
        const char *was = strchr(j->args, ' ');
        char id[ID_TEXT_SIZE] = "";
        struct link *l;

        control_rdlock(j->c);
        l = cdrom(model_by_no(j->c, j->target));
        if (l && !(was && streq(l->id, was + 1)))
                snprintf(id, sizeof(id), "%s", l->id);
        control_unlock(j->c);
        return *id ? s->ops->unexport(s, id, NULL) : 0;
}

static const struct job_step steps[] = {{"change", step_change}};

const struct job_def job_instance_cdrom = {.op = "instance.cdrom",
                                           .deadline = 120,
                                           .steps = steps,
                                           .nsteps = ARRAY_SIZE(steps),
                                           .failed = failed,
                                           .undo = undo};
