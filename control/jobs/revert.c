/* A volume goes back to one of its snapshots, and stops leaning on what it was cloned from. */
#include "control/jobs/jobs.h"

int volume_revert(struct txn *t, struct object *o, const char *args, struct err **e)
{
        struct object *s = model_by_name(t->c, o, &kind_snapshot, args);
        char id[ID_TEXT_SIZE];

        if (!s)
                return err_at(e, -ENOENT, args, strlen(args), 0, strlen(args),
                              "volume '%s' has no such snapshot", o->name);
        if (s->state != SNAPSHOT_AVAILABLE)
                return err_set(e, -EBUSY, "snapshot '%s' is %s", s->name, object_state(s));
        if (o->writers)
                return err_set(e, -EBUSY, "volume '%s' is being written through its data", o->name);
        txn_set_state(t, o, VOLUME_REVERTING);
        job_start(t, o, &job_volume_revert, id_text(id, s->id));
        return 0;
}

static int step_revert(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts v;
        struct facts f;
        int r = job_wait_snapshots(j, true);

        if (r == 0)
                r = job_facts(j, &f, e);
        if (r == 0)
                r = s->ops->revert(s, f.id, j->args, e);
        if (r == -EBUSY)
                return job_wait_busy(j, e);
        if (r == 0)
                r = s->ops->stat(s, f.id, &v, e);
        if (r == 0)
                j->value = v.size;
        return r;
}

static int done_revert(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != VOLUME_REVERTING)
                return 0;
        txn_set_num(t, o, "size", j->value);
        txn_set_num(t, o, "actual", j->value);
        txn_set_state(t, o, volume_rest(o));
        return 0;
}

static void failed_revert(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == VOLUME_REVERTING)
                txn_set_state(t, o, volume_rest(o));
}

/* --- flatten: in the background, while the volume is used ---------------------------------------
 */

enum { LOOK_US = 200000 };

int volume_flatten(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (!job_live(t->c, o->no, &job_volume_flatten))
                job_start(t, o, &job_volume_flatten, NULL);
        return 0;
}

static int step_flatten(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct facts f;
        int r = job_facts(j, &f, e);

        return r < 0 ? r : s->ops->flatten(s, f.id, false, e);
}

static int step_flat(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts v;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0 && (r = job_cancelled(j, e)) == -ECANCELED)
                s->ops->flatten(s, f.id, true, NULL);
        if (r == 0)
                r = s->ops->stat(s, f.id, &v, e);
        if (r < 0)
                return r;
        if (v.flatten_failed < 0)
                return err_errno(e, v.flatten_failed, "flatten");
        if (!v.flattening)
                return 0;
        job_progress(j, v.flatten_done, v.flatten_total);
        return job_wait(j, 0, LOOK_US, "blocks are copied");
}

static int done_flatten(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct link *l = o ? object_link(o, kind_link(o->kind, "source"), NULL) : NULL;

        if (l)
                txn_unlink(t, o, l);
        return 0;
}

static const struct job_step revert_steps[] = {{"revert", step_revert}};
static const struct job_step flatten_steps[] = {{"begin", step_flatten}, {"copy", step_flat}};

const struct job_def job_volume_revert = {.op = "volume.revert",
                                          .deadline = 600,
                                          .patient = true,
                                          .steps = revert_steps,
                                          .nsteps = ARRAY_SIZE(revert_steps),
                                          .done = done_revert,
                                          .failed = failed_revert};
const struct job_def job_volume_flatten = {.op = "volume.flatten",
                                           .deadline = 7 * 24 * 3600,
                                           .cancellable = true,
                                           .patient = true,
                                           .steps = flatten_steps,
                                           .nsteps = ARRAY_SIZE(flatten_steps),
                                           .done = done_flatten};
