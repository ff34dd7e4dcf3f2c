/* Starting an instance: root volume, exports, guest. */
#include "control/jobs/plan.h"

#include "common/fileio.h"
#include "control/hosts.h"

/* --- step: root ------------------------------------------------------------------------------ */

/* `image` and no volume: a volume of its own, which goes when the instance goes. */
static int step_root(struct job *j, struct err **e)
{
        struct object *o, *image, *v;
        struct txn t;
        int r = 0;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        image = o ? object_target(o, "image") : NULL;
        if (!o || !image || instance_container(o) ||
            object_link(o, kind_link(o->kind, "volumes"), NULL)) {
                txn_abort(&t);
                return 0;
        }
        if (image->state == IMAGE_SAVING) {
                uint64_t no = image->no;
                txn_abort(&t);
                return job_wait(j, no, 0, "its image is being saved");
        }
        r = instance_make_root(&t, o, image, "root", "vda", object_num(o, "disk"), &v, e);
        return txn_end(&t, r, e);
}

/* --- step: ready ----------------------------------------------------------------------------- */

static int step_ready(struct job *j, struct err **e)
{
        char label[NAME_SIZE + 32];
        uint64_t watch = 0;
        struct object *o;
        int r = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        for (unsigned i = 0; o && r == 0 && i < o->nlinks; i++)
                r = link_ready(o, &o->links[i], &watch, label, e);
        control_unlock(j->c);
        return r == 1 ? job_wait(j, watch, 0, "%s is not ready", label) : r;
}

/* --- step: boot ------------------------------------------------------------------------------ */

/* One that runs already has its TPM. */
static int start(struct compute *compute, struct plan *p, struct err **e)
{
        enum guest_state s = GUEST_GONE;
        int r = p->tpm ? compute->ops->state(compute, p->g.uuid, &s, e) : 0;

        if (r == 0 && s == GUEST_GONE)
                r = plan_tpm(p, e);
        if (r == 0)
                r = compute->ops->start(compute, &p->g, e);
        if (r < 0 && r != -ECONNREFUSED)
                plan_tpm_dismiss(p);
        return r;
}

static int boot_adopted(struct job *j, struct plan *p, struct err **e)
{
        struct compute *compute;
        int r = instance_compute(j, &compute, e);

        if (r == 0)
                r = compute->ops->start(compute, &p->g, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

static int step_boot(struct job *j, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        enum guest_state before;
        struct compute *compute;
        int r = plan_guest(j, &p, e);

        if (p.g.adopted)
                return boot_adopted(j, &p, e);
        if (r == -EAGAIN)
                return job_wait(j, 0, 200000, "the host's accelerator is being probed");
        if (r == 0 && p.container)
                return container_boot(j, &p, e);
        if (r == 0)
                r = plan_kernel(j, &p, e);
        if (r == 0)
                r = plan_config(j, &p, e);
        if (r == 0)
                r = plan_screen(&p, e);
        if (r == 0)
                r = plan_firmware(&p, e);
        if (r == 0)
                r = plan_exports(j, &p, e);
        if (r == 0)
                r = plan_cdrom(j, &p, e);
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r == 0)
                r = lease_clients(j->c, e);
        if (r == 0 && p.g.nnics)
                r = networks_apply_for(j->c, j->target, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->state(compute, p.g.uuid, &before, e);
        if (r == 0 && before == GUEST_GONE)
                console_new_boot(p.dir);
        if (r == 0)
                r = start(compute, &p, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->nameless)
                return 0;
        if (!instance_leaves(o)) /* else it is powered off next */
                txn_set_state(t, o, instance_up(o));
        if (!host_here(t->c, object_str(o, "host")))
                txn_set_str(t, o, "host", t->c->cfg.host);
        if (instance_container(o))
                txn_set_str(t, o, "rooted", t->c->cfg.host);
        txn_set_str(t, o, "stalled", NULL);
        txn_set_num(t, o, "reclaim_at", 0);
        txn_set_str(t, o, "vnc_password", NULL); /* its QEMU is another one */
        txn_set_num(t, o, "vnc_open", 0);
        return 0;
}

/* An engine that is down may have started it and died before it said so: the reconciler finds that
 * guest when the engine is back. */
static int undo(struct job *j)
{
        struct compute *compute;
        struct facts f;
        int r = 0;

        if (job_facts(j, &f, NULL) < 0)
                return 0;
        if (j->step == 3 && instance_compute(j, &compute, NULL) == 0)
                r = compute->ops->destroy(compute, f.id, NULL);
        if (r == -ECONNREFUSED)
                r = 0;
        return r < 0 ? r : instance_unexport(j, NULL);
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        int before = kind_state(&kind_instance, j->args);

        if (o && o->state == INSTANCE_STARTING)
                txn_set_state(t, o, before >= 0 ? before : INSTANCE_STOPPED);
        if (before == INSTANCE_DELETED)
                reconcile_deleted(t->c);
}

static void settle(struct job *j)
{
        instance_settle(j, NULL);
}

/* Stored is what was reached before the boot: from there on it is not placed anew. */
static const struct job_step steps[] = {{"place", instance_step_place, .light = true},
                                        {"root", step_root, .light = true},
                                        {"ready", step_ready},
                                        {"boot", step_boot}};

const struct job_def job_instance_start = {.op = "instance.start",
                                           .deadline = 3600,
                                           .cancellable = true,
                                           .here = true,
                                           .steps = steps,
                                           .nsteps = ARRAY_SIZE(steps),
                                           .done = done,
                                           .failed = failed,
                                           .undo = undo,
                                           .after = settle};
