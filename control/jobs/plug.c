/* Devices going into and out of a running guest's networks. */
#include "control/network.h"
#include "control/jobs/plan.h"

static struct link *find(struct object *o, const char *id)
{
        for (unsigned i = 0; o && i < o->nlinks; i++)
                if (streq(o->links[i].id, id))
                        return &o->links[i];
        return NULL;
}

/* The device of the link; false when the link is gone. */
static bool facts(struct job *j, char uuid[ID_TEXT_SIZE], struct guest_nic *ret)
{
        struct object *o;
        struct link *l;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        l = find(o, j->args);
        if (l) {
                id_text(uuid, o->id);
                plan_nic(l->target, ret);
        }
        control_unlock(j->c);
        return l != NULL;
}

static int step_plug(struct job *j, struct err **e)
{
        char uuid[ID_TEXT_SIZE];
        struct compute *compute;
        struct guest_nic nic;
        int r;

        if (!facts(j, uuid, &nic))
                return 0;
        r = networks_apply_for(j->c, j->target, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->plug(compute, uuid, &nic, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

static int done_plug(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        return 0;
}

static void failed_plug(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        struct link *l = find(o, j->args);

        if (l)
                instance_unlink_port(t, o, l);
}

static int step_unplug(struct job *j, struct err **e)
{
        char uuid[ID_TEXT_SIZE];
        struct compute *compute;
        struct guest_nic nic;
        int r;

        if (!facts(j, uuid, &nic))
                return 0;
        r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->unplug(compute, uuid, nic.mac, 20000, e);
        if (r == -ENOENT) { /* no such guest, or no such device in it: it is out */
                if (e)
                        *e = err_free(*e);
                r = 0;
        }
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

static int done_unplug(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        failed_plug(j, t, o, NULL);
        return 0;
}

/* The guest did not let go: the link is back. */
static void failed_unplug(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        struct link *l = find(o, j->args);

        if (!l)
                return;
        txn_edit(t, o);
        l->leaving = false;
}

static const struct job_step plug_steps[] = {{"plug", step_plug}};
static const struct job_step unplug_steps[] = {{"unplug", step_unplug}};

const struct job_def job_instance_plug = {.op = "instance.plug",
                                          .deadline = 60,
                                          .steps = plug_steps,
                                          .nsteps = ARRAY_SIZE(plug_steps),
                                          .done = done_plug,
                                          .failed = failed_plug};
const struct job_def job_instance_unplug = {.op = "instance.unplug",
                                            .deadline = 60,
                                            .steps = unplug_steps,
                                            .nsteps = ARRAY_SIZE(unplug_steps),
                                            .done = done_unplug,
                                            .failed = failed_unplug};
