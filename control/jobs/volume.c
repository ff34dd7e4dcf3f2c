/* Making, growing and deleting volumes in the volume service. */
#include "control/jobs/jobs.h"

struct want {
        char id[ID_TEXT_SIZE], parent[ID_TEXT_SIZE];
        uint64_t size;
        uint64_t source; /* its no, 0: blank */
        char source_label[NAME_SIZE + 32];
        bool making, broken; /* the source: not there yet, and never */
        uint64_t need;       /* bytes the source has */
        bool bootable;
        bool backup;    /* the source is one */
        bool frozen;    /* nobody writes the source */
        bool encrypted; /* it is to be */
        bool family;    /* and the source is: they share a key */
        bool far;       /* the source is in another pool */
};

static void want_source(struct want *w, const struct object *source)
{
        w->source = source->no;
        w->need = volume_source_size(source);
        id_text(w->parent, source->id);
        object_label(source, w->source_label);
        w->bootable = true;
        w->frozen = source->kind != &kind_volume;
        w->family = volume_encrypted(source);
        if (source->kind == &kind_image) {
                w->making = source->state == IMAGE_SAVING;
                w->broken = source->state == IMAGE_ERROR;
                w->bootable =
                        image_format_bootable(image_format_parse(object_str(source, "format")));
        } else if (source->kind == &kind_volume) {
                w->making = object_in(source, STATE(VOLUME_CREATING) | STATE(VOLUME_EXTENDING));
                w->broken = source->state == VOLUME_ERROR;
        } else if (source->kind == &kind_backup) {
                w->backup = true;
                w->making = source->state == BACKUP_CREATING;
                w->broken = source->state == BACKUP_ERROR;
        } else {
                w->making = source->state == SNAPSHOT_CREATING;
                w->broken = source->state == SNAPSHOT_ERROR;
        }
}

static int want_get(struct job *j, struct want *w, struct err **e)
{
        struct object *o, *source;

        *w = (struct want){};
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(w->id, o->id);
                w->size = object_num(o, "size");
                w->encrypted = object_num(o, "encrypted");
                source = object_target(o, "source");
                if (source) {
                        char here[POOL_SIZE], there[POOL_SIZE];

                        want_source(w, source);
                        pool_of(j->c, o, here);
                        pool_of(j->c, source, there);
                        w->far = !w->backup && !pool_same(j->c, here, there);
                }
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

/* The source may still be on its way: its making was started just before. */
static int check_source(struct job *j, struct err **e)
{
        struct want w;
        int r = want_get(j, &w, e);

        if (r < 0 || !w.source)
                return r;
        if (w.making)
                return job_wait(j, w.source, 0, "%s is being made", w.source_label);
        if (w.broken)
                return err_set(e, -EIO, "%s is in error", w.source_label);
        if (!w.bootable)
                return err_set(e, -EINVAL, "%s is no disk", w.source_label);
        if (w.size && w.size < w.need)
                return err_set(e, -EINVAL, "%s needs %" PRIu64 " bytes, the volume has %" PRIu64,
                               w.source_label, w.need, w.size);
        return 0;
}

/* There already, perhaps smaller: from before a crash, or from before the size was raised. */
static int grow_existing(struct job *j, const struct want *w, uint64_t size, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        int r = s->ops->stat(s, w->id, &f, e);

        if (r == 0 && f.size < size)
                r = s->ops->resize(s, w->id, size, e);
        return r;
}

int volume_step_realise(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *there = NULL;
        struct want w;
        uint64_t size;
        int r = check_source(j, e);

        if (r != 0)
                return r;
        r = want_get(j, &w, e);
        if (r < 0)
                return r;
        size = MAX(w.size, w.need);
        r = volume_place_new(j, w.id, e);
        if (r < 0)
                return r;
        if ((w.encrypted && !w.family) || w.far)
                return volume_make_copy(j, w.id, w.source && !w.backup ? w.parent : "", w.frozen,
                                        w.encrypted, size, e);
        r = w.source && !w.backup ? s->ops->clone(s, w.id, w.parent, size, &there)
                                  : s->ops->create(s, w.id, size, &there);
        if (r == -EEXIST)
                r = grow_existing(j, &w, size, e);
        else if (r < 0)
                err_move(e, TAKE_PTR(there));
        j->value = size;
        return r;
}

int volume_done_create(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct object *source;

        if (!o)
                return 0;
        if (object_num(o, "size") > j->value)
                return JOB_AGAIN; /* it was told to grow meanwhile */
        source = object_target(o, "source");
        txn_set_num(t, o, "size", j->value);
        txn_set_num(t, o, "actual", j->value);
        if (source)
                txn_set_num(t, o, "bootable", volume_source_boots(source));
        if (source && source->nameless)
                txn_unlink(t, o, object_link(o, kind_link(o->kind, "source"), NULL));
        if (o->state == VOLUME_CREATING)
                txn_set_state(t, o, volume_rest(o));
        volume_limits_due(t, o);
        return 0;
}

void volume_failed_create(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        struct object *source = o ? object_target(o, "source") : NULL;

        if (source && source->nameless) /* its deletion waits for us */
                txn_unlink(t, o, object_link(o, kind_link(o->kind, "source"), NULL));
        if (o && !o->nameless)
                txn_set_state(t, o, VOLUME_ERROR);
}

/* Where a guest may have it open: the instance's id and name, and the disk's device there. */
struct holder {
        char id[ID_TEXT_SIZE], label[NAME_SIZE + 32], device[NAME_SIZE];
};

enum { HOLDERS_MAX = 64 };

/* The instances that run, perhaps; the caller frees. */
static struct holder *holders_get(struct job *j, unsigned *ret_n)
{
        struct holder *v = xcalloc(HOLDERS_MAX, sizeof(*v));
        struct object *o;
        unsigned n = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        for (unsigned i = 0; o && i < o->nrefs; i++) {
                const struct object *by = o->refs[i];

                if (by->kind != &kind_instance ||
                    object_in(by, STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED)))
                        continue;
                object_foreach_link (l, by)
                        if (l->target == o && !l->leaving && n < HOLDERS_MAX) {
                                struct holder *h = &v[n++];

                                id_text(h->id, by->id);
                                object_label(by, h->label);
                                snprintf(h->device, NAME_SIZE, "%s", l->name);
                        }
        }
        control_unlock(j->c);
        *ret_n = n;
        return v;
}

/* Lets the guests see it.  A guest that is not there yet, or has not got the disk yet, opens it
 * later, when it has the size already; that is why the instance's state need not be waited for
 * (a start waits for us). */
static int show_growth(struct job *j, uint64_t size, struct err **e)
{
        _cleanup_free_ struct holder *v = NULL;
        struct compute *compute;
        unsigned n;
        int r = 0;

        v = holders_get(j, &n);
        if (n > 0)
                r = instance_compute(j, &compute, e);
        for (unsigned i = 0; r == 0 && i < n; i++) {
                r = compute->ops->grow(compute, v[i].id, v[i].device, size, e);
                if (r == -ENOENT) {
                        if (e)
                                *e = err_free(*e);
                        r = 0;
                }
                if (r < 0)
                        err_prepend(e, r,
                                    "it has %" PRIu64 " bytes, %s sees them at its next start",
                                    size, v[i].label);
        }
        return r;
}

static int step_extend(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct want w;
        int r = want_get(j, &w, e);

        if (r == 0)
                r = s->ops->resize(s, w.id, w.size, e);
        if (r < 0)
                return r;
        j->value = w.size; /* from here on it has grown, whatever the guest sees */
        return show_growth(j, w.size, e);
}

static int done_extend(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o)
                return 0;
        if (object_num(o, "size") > j->value)
                return JOB_AGAIN;
        txn_set_num(t, o, "actual", j->value);
        if (o->state == VOLUME_EXTENDING)
                txn_set_state(t, o, volume_rest(o));
        return 0;
}

static void failed_extend(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o || o->nameless)
                return;
        if (j->value)
                txn_set_num(t, o, "actual", j->value);
        txn_set_num(t, o, "size", object_num(o, "actual"));
        txn_set_state(t, o, volume_rest(o));
}

/* Its snapshots go first; their own jobs see to that. */
static int step_unheld(struct job *j, struct err **e)
{
        struct collection *l;
        struct object *o;
        uint64_t watch = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        l = o ? model_collection(j->c, o, &kind_snapshot) : NULL;
        if (l && l->n > 0)
                watch = l->v[0]->no;
        control_unlock(j->c);
        return watch ? job_wait(j, watch, 0, "its snapshots are going") : 0;
}

static int step_remove(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = backup_drop_snapshots(j, j->target, false, e);
        if (r == 0)
                r = s->ops->remove(s, f.id, e);
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

static void failed_delete(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, VOLUME_ERROR);
}

static const struct job_step create_steps[] = {{"realise", volume_step_realise},
                                               {"thaw", volume_step_thaw}};
static const struct job_step extend_steps[] = {{"extend", step_extend}};
static const struct job_step delete_steps[] = {{"unreferenced", job_step_unreferenced},
                                               {"snapshots", step_unheld},
                                               {"remove", step_remove}};

const struct job_def job_volume_create = {.op = "volume.create",
                                          .deadline = 3600,
                                          .patient = true,
                                          .steps = create_steps,
                                          .nsteps = ARRAY_SIZE(create_steps),
                                          .done = volume_done_create,
                                          .failed = volume_failed_create,
                                          .undo = volume_undo_freeze};
const struct job_def job_volume_extend = {.op = "volume.extend",
                                          .deadline = 600,
                                          .patient = true,
                                          .steps = extend_steps,
                                          .nsteps = ARRAY_SIZE(extend_steps),
                                          .done = done_extend,
                                          .failed = failed_extend};
const struct job_def job_volume_delete = {.op = "volume.delete",
                                          .deadline = 3600,
                                          .insists = true,
                                          .steps = delete_steps,
                                          .nsteps = ARRAY_SIZE(delete_steps),
                                          .done = job_done_delete,
                                          .failed = failed_delete};
