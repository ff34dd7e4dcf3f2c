/* Taking and deleting snapshots. */
#include "control/jobs/jobs.h"

struct want {
        char id[ID_TEXT_SIZE], volume[ID_TEXT_SIZE], name[NAME_SIZE];
        uint64_t holder;
        unsigned state; /* the volume's */
};

static int want_get(struct job *j, struct want *w, struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(w->id, o->id);
                id_text(w->volume, o->holder->id);
                snprintf(w->name, sizeof(w->name), "%s", o->holder->name);
                w->holder = o->holder->no;
                w->state = o->holder->state;
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

static int step_take(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        struct want w;
        int r = want_get(j, &w, e);

        if (r == 0 && w.state == VOLUME_CREATING)
                return job_wait(j, w.holder, 0, "volume '%s' is being made", w.name);
        if (r == 0)
                r = s->ops->snapshot(s, w.id, w.volume, e);
        if (r == 0)
                r = s->ops->stat(s, w.id, &f, e);
        if (r == 0)
                j->value = f.size;
        return r;
}

/* Model held: one that is not taken yet; NULL: none. */
static const struct object *untaken(struct control *c, struct object *volume, bool backups)
{
        struct collection *l = model_collection(c, volume, &kind_snapshot);

        for (size_t i = 0; l && i < l->n; i++)
                if (l->v[i]->state == SNAPSHOT_CREATING)
                        return l->v[i];
        for (unsigned i = 0; backups && i < volume->nrefs; i++) {
                const struct object *b = volume->refs[i];

                if (b->kind == &kind_backup && b->state == BACKUP_CREATING &&
                    !object_num(b, "snapshot"))
                        return b;
        }
        return NULL;
}

int job_wait_snapshots(struct job *j, bool backups)
{
        char label[NAME_SIZE + 32] = "";
        const struct object *first;
        struct object *o;
        uint64_t no = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        first = o ? untaken(j->c, o, backups) : NULL;
        if (first) {
                no = first->no;
                object_label(first, label);
        }
        control_unlock(j->c);
        /* A backup's state does not change when its snapshot is there: it is looked at again. */
        return no ? job_wait(j, no, 500000, "%s is being taken", label) : 0;
}

static int done_create(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o)
                return 0;
        txn_set_num(t, o, "size", j->value);
        if (o->state == SNAPSHOT_CREATING)
                txn_set_state(t, o, SNAPSHOT_AVAILABLE);
        return 0;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && !o->nameless)
                txn_set_state(t, o, SNAPSHOT_ERROR);
}

static int step_remove(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = s->ops->remove(s, f.id, e);
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

static void failed_delete(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, SNAPSHOT_ERROR);
}

static const struct job_step create_steps[] = {{"take", step_take}};
static const struct job_step delete_steps[] = {{"unreferenced", job_step_unreferenced},
                                               {"remove", step_remove}};

const struct job_def job_snapshot_create = {.op = "snapshot.create",
                                            .deadline = 600,
                                            .patient = true,
                                            .steps = create_steps,
                                            .nsteps = ARRAY_SIZE(create_steps),
                                            .done = done_create,
                                            .failed = failed};
const struct job_def job_snapshot_delete = {.op = "snapshot.delete",
                                            .deadline = 3600,
                                            .insists = true,
                                            .steps = delete_steps,
                                            .nsteps = ARRAY_SIZE(delete_steps),
                                            .done = job_done_delete,
                                            .failed = failed_delete};
