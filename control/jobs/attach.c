/* Disks going into and out of a running guest. */
#include "control/jobs/plan.h"

/* The plan's disk with that attachment id, -1 if the link is gone. */
static int plan_find(const struct plan *p, const char *id)
{
        for (unsigned i = 0; i < p->g.ndisks; i++)
                if (streq(p->export[i], id))
                        return i;
        return -1;
}

static struct link *link_by_id(struct object *o, const char *id)
{
        for (unsigned i = 0; o && i < o->nlinks; i++)
                if (streq(o->links[i].id, id))
                        return &o->links[i];
        return NULL;
}

static int step_attach(struct job *j, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        struct compute *compute;
        struct link *l;
        char label[NAME_SIZE + 32];
        uint64_t watch = 0;
        int r = 0, i;

        control_rdlock(j->c);
        l = link_by_id(model_by_no(j->c, j->target), j->args);
        if (l)
                r = link_ready(model_by_no(j->c, j->target), l, &watch, label, e);
        control_unlock(j->c);
        if (!l || r < 0) /* detached meanwhile */
                return r;
        if (r == 1)
                return job_wait(j, watch, 0, "%s is not ready", label);
        r = plan_guest(j, &p, e);
        if (r < 0 && r != -EAGAIN)
                return r;
        i = plan_find(&p, j->args);
        if (i < 0)
                return 0;
        p.disks[0] = p.disks[i];
        memcpy(p.volume[0], p.volume[i], ID_TEXT_SIZE);
        memcpy(p.export[0], p.export[i], ID_TEXT_SIZE);
        memcpy(p.serial[0], p.serial[i], sizeof(p.serial[0]));
        p.disks[0].export = p.volume[0];
        p.disks[0].serial = p.serial[0];
        p.g.ndisks = 1;
        r = plan_exports(j, &p, e);
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->attach(compute, p.g.uuid, &p.disks[0], e);
        if (r == -ECONNREFUSED) /* it may have it, or not: asked again, the engine says */
                return instance_wait_engine(j, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

static int done_attach(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct link *l = link_by_id(o, j->args);

        if (l && l->target->state == VOLUME_ATTACHING)
                txn_set_state(t, l->target, volume_held_state(t->c, l->target, l->id));
        return 0;
}

static void failed_attach(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        struct link *l = link_by_id(o, j->args);

        if (!l)
                return;
        instance_release_volume(t, o, l->target);
        txn_unlink(t, o, l);
}

static void after_attach(struct job *j)
{
        char target[NAME_SIZE] = "";
        struct link *l;

        control_rdlock(j->c);
        l = link_by_id(model_by_no(j->c, j->target), j->args);
        if (l)
                snprintf(target, sizeof(target), "%s", l->name);
        control_unlock(j->c);
        if (*target)
                instance_settle(j, target);
}

static int undo_attach(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;

        return s->ops->unexport(s, j->args, NULL);
}

static int step_detach(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        char target[NAME_SIZE] = "";
        struct compute *compute;
        struct facts f;
        struct link *l;
        int r = job_facts(j, &f, e);

        if (r < 0)
                return r;
        control_rdlock(j->c);
        l = link_by_id(model_by_no(j->c, j->target), j->args);
        if (l)
                snprintf(target, sizeof(target), "%s", l->name);
        control_unlock(j->c);
        if (!l)
                return 0;
        r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->detach(compute, f.id, target, 20000, e);
        if (r == -ECONNREFUSED)
                return instance_wait_engine(j, e);
        if (r == -ENOENT) { /* no such guest, or no such disk in it: it is out */
                if (e)
                        *e = err_free(*e);
                r = 0;
        }
        if (r < 0)
                return r;
        instance_describe(j, compute);
        r = s->ops->unexport(s, j->args, e); /* the disk is out: no way back from here */
        return r == -ECONNREFUSED ? job_wait_blockd(j, e) : r;
}

static int done_detach(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        failed_attach(j, t, o, NULL);
        return 0;
}

/* The guest did not let go: the link is back. */
static void failed_detach(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        struct link *l = link_by_id(o, j->args);

        if (!l)
                return;
        txn_edit(t, o);
        l->leaving = false;
        if (l->target->state == VOLUME_DETACHING)
                txn_set_state(t, l->target, volume_held_state(t->c, l->target, l->id));
}

static const struct job_step attach_steps[] = {{"attach", step_attach}};
static const struct job_step detach_steps[] = {{"detach", step_detach}};

const struct job_def job_instance_attach = {.op = "instance.attach",
                                            .deadline = 60,
                                            .steps = attach_steps,
                                            .nsteps = ARRAY_SIZE(attach_steps),
                                            .done = done_attach,
                                            .failed = failed_attach,
                                            .undo = undo_attach,
                                            .after = after_attach};
const struct job_def job_instance_detach = {.op = "instance.detach",
                                            .deadline = 60,
                                            .steps = detach_steps,
                                            .nsteps = ARRAY_SIZE(detach_steps),
                                            .done = done_detach,
                                            .failed = failed_detach};
