/* Volumes from backups: new ones, and old ones overwritten. */
#include "control/jobs/jobs.h"

enum { WEEK = 7 * 86400, TARGET_SIZE = 1024 };

struct from {
        char id[ID_TEXT_SIZE], backup[ID_TEXT_SIZE], target[TARGET_SIZE];
        uint64_t size;
        bool old; /* the volume was there before */
};

static int from_get(struct job *j, struct from *f, struct err **e)
{
        struct object *o, *b = NULL;

        *f = (struct from){};
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(f->id, o->id);
                f->old = object_num(o, "restoring") != 0;
                b = f->old ? model_by_no(j->c, object_num(o, "restoring"))
                           : object_target(o, "source");
        }
        if (b) {
                id_text(f->backup, b->id);
                snprintf(f->target, TARGET_SIZE, "%s", object_str(b, "target"));
                f->size = object_num(o, "actual");
        }
        control_unlock(j->c);
        return b ? 0 : err_set(e, -ENOENT, "the backup is gone");
}

static int step_volume(struct job *j, struct err **e)
{
        struct from f;
        int r = from_get(j, &f, e);

        return r < 0 || f.old ? r : volume_step_realise(j, e);
}

static int step_write(struct job *j, struct err **e)
{
        struct backup_progress progress = backup_progress(j);
        struct volume_service *volumes = j->c->cfg.volumes;
        struct volume_facts facts;
        struct backup_service *s;
        struct from f;
        int r = backup_service(j->c, &s, e);

        if (r == 0)
                r = from_get(j, &f, e);
        if (r == 0 && f.old)
                r = job_wait_snapshots(j, false); /* a backup waits for us */
        if (r == 0)
                r = s->ops->restore(s, f.target, f.backup, volumes->shared_socket, f.id, !f.old,
                                    &progress, e);
        if (r == 0)
                r = volumes->ops->stat(volumes, f.id, &facts, e);
        if (r == 0)
                j->value = facts.size;
        return r;
}

static int done_restore(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        const struct object *b;

        if (!o || !object_num(o, "restoring"))
                return volume_done_create(j, t, o, e);
        b = model_by_no(t->c, object_num(o, "restoring"));
        if (b)
                txn_set_num(t, o, "bootable", object_num(b, "bootable"));
        txn_set_num(t, o, "restoring", 0);
        if (o->state == VOLUME_RESTORING)
                txn_set_state(t, o, volume_rest(o));
        return 0;
}

/* An old one is neither what it was nor what it was to be: its state says so. */
static void failed_restore(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_num(t, o, "restoring", 0);
        volume_failed_create(j, t, o, err);
}

static const struct job_step restore_steps[] = {{"volume", step_volume}, {"write", step_write}};

const struct job_def job_volume_restore = {.op = "volume.restore",
                                           .deadline = WEEK,
                                           .cancellable = true,
                                           .patient = true,
                                           .steps = restore_steps,
                                           .nsteps = ARRAY_SIZE(restore_steps),
                                           .done = done_restore,
                                           .failed = failed_restore};
