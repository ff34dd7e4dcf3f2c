/* Making, growing and deleting volumes in the volume service. */
#include "control/jobs/jobs.h"

struct want {
        char id[ID_TEXT_SIZE], parent[ID_TEXT_SIZE];
        uint64_t size;
        uint64_t image; /* no of the source, 0: blank */
        unsigned image_state;
        char image_name[NAME_SIZE];
        uint64_t need; /* bytes the image has */
        bool bootable, encrypted;
};

static int want_get(struct job *j, struct want *w, struct err **e)
{
        struct object *o, *image;

        *w = (struct want){};
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(w->id, o->id);
                w->size = object_num(o, "size");
                w->encrypted = object_num(o, "encrypted");
                image = object_target(o, "source");
                if (image) {
                        w->image = image->no;
                        w->image_state = image->state;
                        w->need = object_num(image, "virtual_size");
                        w->bootable = image_format_bootable(
                                image_format_parse(object_str(image, "format")));
                        id_text(w->parent, image->id);
                        snprintf(w->image_name, NAME_SIZE, "%s", image->name);
                }
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

/* The image may still be on its way: its copy was started just before. */
static int check_source(struct job *j, struct err **e)
{
        struct want w;
        int r = want_get(j, &w, e);

        if (r < 0 || !w.image)
                return r;
        if (w.image_state == IMAGE_SAVING)
                return job_wait(j, w.image, 0, "image '%s' is being saved", w.image_name);
        if (w.image_state == IMAGE_ERROR)
                return err_set(e, -EIO, "image '%s' is in error", w.image_name);
        if (!w.bootable)
                return err_set(e, -EINVAL, "image '%s' is no disk", w.image_name);
        if (w.size && w.size < w.need)
                return err_set(e, -EINVAL,
                               "image '%s' needs %" PRIu64 " bytes, the volume has %" PRIu64,
                               w.image_name, w.need, w.size);
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

static int step_realise(struct job *j, struct err **e)
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
        if (w.encrypted)
                return volume_make_encrypted(j, w.id, w.image ? w.parent : "", size, e);
        r = w.image ? s->ops->clone(s, w.id, w.parent, size, &there)
                    : s->ops->create(s, w.id, size, &there);
        if (r == -EEXIST)
                r = grow_existing(j, &w, size, e);
        else if (r < 0)
                err_move(e, TAKE_PTR(there));
        j->value = size;
        return r;
}

static int done_create(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct object *image;

        if (!o)
                return 0;
        if (object_num(o, "size") > j->value)
                return JOB_AGAIN; /* it was told to grow meanwhile */
        image = object_target(o, "source");
        txn_set_num(t, o, "size", j->value);
        txn_set_num(t, o, "actual", j->value);
        if (image && image->nameless)
                txn_unlink(t, o, object_link(o, kind_link(o->kind, "source"), NULL));
        if (o->state == VOLUME_CREATING)
                txn_set_state(t, o, volume_rest(o));
        volume_limits_due(t, o);
        return 0;
}

static void failed_create(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        struct object *image = o ? object_target(o, "source") : NULL;

        if (image && image->nameless) /* its deletion waits for us */
                txn_unlink(t, o, object_link(o, kind_link(o->kind, "source"), NULL));
        if (o && !o->nameless)
                txn_set_state(t, o, VOLUME_ERROR);
}

/* Where a guest may have it open: the instance's id and name, and the disk's device there. */
struct holder {
        char id[ID_TEXT_SIZE], label[NAME_SIZE + 32], device[NAME_SIZE];
};

static bool holder_get(struct job *j, struct holder *h)
{
        struct object *o;
        bool found = false;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        for (unsigned i = 0; o && i < o->nrefs; i++) {
                const struct object *by = o->refs[i];

                if (by->kind != &kind_instance ||
                    object_in(by, STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED)))
                        continue;
                object_foreach_link (l, by)
                        if (l->target == o && !l->leaving) {
                                id_text(h->id, by->id);
                                object_label(by, h->label);
                                snprintf(h->device, NAME_SIZE, "%s", l->name);
                                found = true;
                        }
        }
        control_unlock(j->c);
        return found;
}

/* Lets the guest see it.  A guest that is not there yet, or has not got the disk yet, opens it
 * later, when it has the size already; that is why the instance's state need not be waited for
 * (a start waits for us). */
static int show_growth(struct job *j, uint64_t size, struct err **e)
{
        struct compute *compute;
        struct holder h;
        int r;

        if (!holder_get(j, &h))
                return 0;
        r = instance_compute(j, &compute, e);
        if (r == 0)
                r = compute->ops->grow(compute, h.id, h.device, size, e);
        if (r == -ENOENT) {
                if (e)
                        *e = err_free(*e);
                return 0;
        }
        return r < 0 ? err_prepend(e, r, "it has %" PRIu64 " bytes, %s sees them at its next start",
                                   size, h.label)
                     : 0;
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

static int step_remove(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct facts f;
        int r = job_facts(j, &f, e);

        if (r == 0)
                r = s->ops->remove(s, f.id, e);
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

static int done_delete(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        job_done_delete(t, o);
        return 0;
}

static void failed_delete(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o)
                txn_set_state(t, o, VOLUME_ERROR);
}

static const struct job_step create_steps[] = {{"realise", step_realise}};
static const struct job_step extend_steps[] = {{"extend", step_extend}};
static const struct job_step delete_steps[] = {{"unreferenced", job_step_unreferenced},
                                               {"remove", step_remove}};

const struct job_def job_volume_create = {.op = "volume.create",
                                          .deadline = 3600,
                                          .patient = true,
                                          .steps = create_steps,
                                          .nsteps = ARRAY_SIZE(create_steps),
                                          .done = done_create,
                                          .failed = failed_create};
const struct job_def job_volume_extend = {.op = "volume.extend",
                                          .deadline = 600,
                                          .patient = true,
                                          .steps = extend_steps,
                                          .nsteps = ARRAY_SIZE(extend_steps),
                                          .done = done_extend,
                                          .failed = failed_extend};
const struct job_def job_volume_delete = {.op = "volume.delete",
                                          .deadline = 3600,
                                          .patient = true,
                                          .steps = delete_steps,
                                          .nsteps = ARRAY_SIZE(delete_steps),
                                          .done = done_delete,
                                          .failed = failed_delete};
