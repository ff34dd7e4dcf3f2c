/* Suspended guests: their memory is a file in the instance's folder, and no QEMU runs.
 *
 *     suspend   save      the guest goes into the file
 *               unexport  its disks are closed
 *     resume    restore   its disks are exported, and it is back, paused
 *               forget    the file goes, for good
 *               go        it runs
 *
 * The file goes before the guest does anything, so that no memory is ever brought back to disks
 * that have moved on.  Which side of that a failed resume is on, the file tells.
 *
 * The file is on the disks of the host that wrote it, and stays there when the host dies; a host
 * that takes such a job over finds the instance in another state, see takeover.c, and leaves it. */
#include "control/jobs/plan.h"

#include "common/fileio.h"

/* -EHOSTDOWN: the memory that the job is about is another host's. */
static int check_here(struct job *j, unsigned state, struct err **e)
{
        struct object *o;
        bool here;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        here = o && o->state == state && host_here(j->c, object_str(o, "host"));
        control_unlock(j->c);
        return here ? 0 : err_set(e, -EHOSTDOWN, "its host died");
}

static char *memory_path(struct job *j)
{
        struct object *o;
        char *p;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        p = o ? instance_memory(j->c, o) : xstrdup("");
        control_unlock(j->c);
        return p;
}

/* --- suspend --------------------------------------------------------------------------------- */

static void tell(void *arg, uint64_t done, uint64_t total)
{
        job_progress(arg, done, total);
}

static bool cancelled(void *arg)
{
        struct job *j = arg;

        return atomic_load(&j->cancel); /* not the daemon's end: that waits for it */
}

static int save(struct job *j, const char *path, struct err **e)
{
        const struct compute_watch watch = {.progress = tell, .cancelled = cancelled, .arg = j};
        struct volume_service *s = j->c->cfg.volumes;
        struct compute *compute;
        enum guest_state state;
        struct facts f;
        int r = instance_look(j, &compute, &f, &state, e);

        if (r < 0)
                return r;
        if (state == GUEST_GONE) {
                r = compute->ops->saved(compute, path, e);
                return r == 0 || r == -ECONNREFUSED
                               ? r
                               : err_prepend(e, r, "the guest is off, and was not saved");
        }
        if (s->ops->ping(s, NULL) ==
            -ECONNREFUSED) /* QEMU would wait for its disks, and we for it */
                return job_wait_blockd(j, e);
        unlink(path);
        r = compute->ops->save(compute, f.id, path, &watch, e);
        if (r == -ECANCELED)
                unlink(path); /* it may be as large as its memory */
        return r;
}

static int step_save(struct job *j, struct err **e)
{
        _cleanup_free_ char *path = memory_path(j);
        int r = check_here(j, INSTANCE_SUSPENDING, e);

        if (r == 0)
                r = save(j, path, e);
        if (r == 0)
                r = fsync_parent(path);
        return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
}

static int done_suspend(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != INSTANCE_SUSPENDING)
                return 0;
        txn_set_state(t, o, INSTANCE_SUSPENDED);
        txn_set_str(t, o, "stalled", NULL);
        return 0;
}

/* Cancelled, or out of time, when its memory was written already: it stays suspended. */
static int undo_suspend(struct job *j)
{
        return j->step > 0 ? instance_unexport(j, NULL) : 0;
}

static void failed_suspend(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (j->step > 0)
                done_suspend(j, t, o, NULL);
        else
                instance_failed_running(j, t, o, err);
}

/* --- resume ---------------------------------------------------------------------------------- */

/* One that is back already has its TPM. */
static int restore(struct compute *compute, struct plan *p, const char *path, struct err **e)
{
        enum guest_state s = GUEST_GONE;
        int r = p->tpm ? compute->ops->state(compute, p->g.uuid, &s, e) : 0;

        if (r == 0 && s == GUEST_GONE)
                r = plan_tpm(p, e);
        if (r == 0)
                r = compute->ops->restore(compute, p->g.uuid, path, e);
        if (r < 0 && r != -ECONNREFUSED)
                plan_tpm_dismiss(p);
        return r;
}

static int step_restore(struct job *j, struct err **e)
{
        _cleanup_free_ char *path = memory_path(j);
        _cleanup_(plan_done) struct plan p = {};
        struct compute *compute;
        int r = check_here(j, INSTANCE_RESUMING, e);

        if (r == 0)
                r = plan_guest(j, &p, e);
        if (r == -EAGAIN)
                return job_wait(j, 0, 200000, "the host's accelerator is being probed");
        if (r == 0)
                r = plan_screen(&p, e);
        if (r == 0)
                r = plan_exports(j, &p, e);
        if (r == 0)
                r = plan_cdrom(j, &p, e);
        if (r == -ECONNREFUSED)
                return job_wait_blockd(j, e);
        if (r == 0 && p.g.nnics)
                r = networks_apply_for(j->c, j->target, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = restore(compute, &p, path, e);
        if (r == -ECONNREFUSED) /* it may be back, paused: the engine knows */
                return instance_wait_engine(j, e);
        if (r == 0)
                instance_describe(j, compute);
        return r;
}

static int step_forget(struct job *j, struct err **e)
{
        _cleanup_free_ char *path = memory_path(j);
        int r = unlink(path) < 0 && errno != ENOENT ? -errno : fsync_parent(path);

        return r < 0 ? err_errno(e, r, "remove '%s'", path) : 0;
}

static int step_go(struct job *j, struct err **e)
{
        struct compute *compute;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->resume(compute, f.id, e);
        return r == -ECONNREFUSED ? instance_wait_engine(j, e) : r;
}

static int done_restore(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && o->state == INSTANCE_RESUMING)
                txn_set_state(t, o, INSTANCE_ACTIVE);
        return 0;
}

/* Model held. */
static bool still_saved(struct control *c, const struct object *o)
{
        _cleanup_free_ char *path = o ? instance_memory(c, o) : NULL;

        return path && access(path, F_OK) == 0;
}

/* An engine that is down may have it back, paused: the reconciler ends it. */
static int undo_restore(struct job *j)
{
        _cleanup_free_ char *path = memory_path(j);
        struct compute *compute;
        struct facts f;
        int r = 0;

        if (access(path, F_OK) < 0 || job_facts(j, &f, NULL) < 0)
                return 0;
        if (instance_compute(j, &compute, NULL) == 0)
                r = compute->ops->destroy(compute, f.id, NULL);
        if (r == -ECONNREFUSED)
                return 0;
        return r < 0 ? r : instance_unexport(j, NULL);
}

static void failed_restore(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o || o->state != INSTANCE_RESUMING)
                return;
        if (still_saved(t->c, o))
                txn_set_state(t, o, INSTANCE_SUSPENDED);
        else
                instance_failed_running(j, t, o, err);
}

/* --- reboot of one that is suspended --------------------------------------------------------- */

static int step_discard(struct job *j, struct err **e)
{
        struct compute *compute;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r == 0) /* a resume that went wrong may have left it */
                r = compute->ops->destroy(compute, f.id, e);
        return r < 0 ? r : step_forget(j, e);
}

static int done_discard(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != INSTANCE_REBOOTING)
                return 0;
        txn_set_num(t, o, "claim", 0);
        txn_set_state(t, o, INSTANCE_STARTING);
        job_start(t, o, &job_instance_start, "stopped");
        return 0;
}

static void failed_discard(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == INSTANCE_REBOOTING)
                txn_set_state(t, o, still_saved(t->c, o) ? INSTANCE_SUSPENDED : INSTANCE_STOPPED);
}

static const struct job_step suspend_steps[] = {{"save", step_save},
                                                {"unexport", instance_step_unexport}};
static const struct job_step restore_steps[] = {
        {"restore", step_restore}, {"forget", step_forget}, {"go", step_go}};
static const struct job_step discard_steps[] = {{"discard", step_discard}};

const struct job_def job_instance_suspend = {.op = "instance.suspend",
                                             .deadline = 3600,
                                             .cancellable = true,
                                             .steps = suspend_steps,
                                             .nsteps = ARRAY_SIZE(suspend_steps),
                                             .done = done_suspend,
                                             .failed = failed_suspend,
                                             .undo = undo_suspend};
const struct job_def job_instance_restore = {.op = "instance.resume-saved",
                                             .deadline = 3600,
                                             .steps = restore_steps,
                                             .nsteps = ARRAY_SIZE(restore_steps),
                                             .done = done_restore,
                                             .failed = failed_restore,
                                             .undo = undo_restore};
const struct job_def job_instance_discard = {.op = "instance.discard",
                                             .deadline = 600,
                                             .patient = true,
                                             .steps = discard_steps,
                                             .nsteps = ARRAY_SIZE(discard_steps),
                                             .done = done_discard,
                                             .failed = failed_discard};
