/* Backups and their snapshots going away. */
#include "control/jobs/jobs.h"

enum { WEEK = 7 * 86400, TARGET_SIZE = 1024 };

/* A backup of the volume whose snapshot is to go; 0: none (any more). */
static uint64_t find_snapshot(struct job *j, uint64_t volume, bool older, char id[ID_TEXT_SIZE])
{
        const struct object *self;
        struct collection *l;
        uint64_t no = 0;

        control_rdlock(j->c);
        self = model_by_no(j->c, j->target);
        l = self ? model_collection(j->c, self->tenant, &kind_backup) : NULL;
        for (size_t i = 0; l && i < l->n && !no; i++) {
                const struct object *b = l->v[i];

                if (b == self || !object_num(b, "snapshot") || b->state == BACKUP_CREATING ||
                    object_num(b, "volume_no") != volume)
                        continue;
                if (older && (!streq(object_str(b, "target"), object_str(self, "target")) ||
                              object_num(b, "taken_at") > object_num(self, "taken_at")))
                        continue;
                no = b->no;
                id_text(id, b->id);
        }
        control_unlock(j->c);
        return no;
}

static int forget_snapshot(struct job *j, uint64_t no, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, no);
        if (o)
                txn_set_num(&t, o, "snapshot", 0);
        return txn_commit(&t, e);
}

int backup_drop_snapshots(struct job *j, uint64_t volume, bool older, struct err **e)
{
        struct volume_service *volumes = j->c->cfg.volumes;
        char id[ID_TEXT_SIZE];
        uint64_t no;
        int r = 0;

        while (r == 0 && (no = find_snapshot(j, volume, older, id))) {
                r = volumes->ops->remove(volumes, id, e);
                if (r == 0)
                        r = forget_snapshot(j, no, e);
        }
        return r;
}

static int step_snapshot(struct job *j, struct err **e)
{
        struct volume_service *volumes = j->c->cfg.volumes;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = volumes->ops->remove(volumes, f.id, e);
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

struct place {
        char id[ID_TEXT_SIZE], target[TARGET_SIZE];
        bool whole; /* it has been, so its store is there */
};

/* 1; 0: the backup is forgotten only, and what it has in its store stays. */
static int place_get(struct job *j, struct backup_service **ret, struct place *p, struct err **e)
{
        struct object *o;
        int r = backup_service(j->c, ret, e);

        if (r < 0)
                return r;
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(p->id, o->id);
                snprintf(p->target, TARGET_SIZE, "%s", object_str(o, "target"));
                p->whole = object_num(o, "size") != 0;
        }
        control_unlock(j->c);
        return o ? !streq(j->args, "forget") : err_set(e, -ENOENT, "it is gone");
}

static int step_manifest(struct job *j, struct err **e)
{
        _cleanup_err_ struct err *err = NULL;
        struct backup_service *s;
        struct place p;
        int r = place_get(j, &s, &p, e);

        if (r <= 0)
                return r;
        r = s->ops->remove(s, p.target, p.id, &err);
        return r == 0 || (r == -ENOENT && !p.whole) ? 0 : err_move(e, TAKE_PTR(err));
}

static int step_sweep(struct job *j, struct err **e)
{
        _cleanup_err_ struct err *err = NULL;
        struct backup_service *s;
        struct place p;
        int r = place_get(j, &s, &p, e);

        if (r <= 0)
                return r;
        r = s->ops->sweep(s, p.target, &err);
        if (r == -EBUSY)
                return job_wait(j, 0, 1000000, "%s", err_msg(err));
        if (r == -EBADMSG || r == -ENOTSUP) { /* it is deleted; its bytes stay until that is mended */
                log_warning("backups: nothing is freed: %s", err_msg(err));
                return 0;
        }
        return r == 0 || (r == -ENOENT && !p.whole) ? 0 : err_move(e, TAKE_PTR(err));
}

static void failed_delete(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, BACKUP_ERROR);
}

static const struct job_step delete_steps[] = {{"unreferenced", job_step_unreferenced},
                                               {"snapshot", step_snapshot},
                                               {"manifest", step_manifest},
                                               {"sweep", step_sweep}};

const struct job_def job_backup_delete = {.op = "backup.delete",
                                          .deadline = WEEK,
                                          .insists = true,
                                          .steps = delete_steps,
                                          .nsteps = ARRAY_SIZE(delete_steps),
                                          .done = job_done_delete,
                                          .failed = failed_delete};
