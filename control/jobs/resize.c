/* Resizing: another flavor on probation.  The figures of the old one are kept beside the new until
 * `confirm` forgets them, or `revert` takes them back; the quota counts the larger of each.  The
 * boot disk grows at `confirm`, so that going back loses nothing that was written. */
#include "control/jobs/jobs.h"

enum { OFF_S = 60 };

static int pending(const struct object *o, struct err **e)
{
        return *object_str(o, "resized_from") ? 0 : err_set(e, -EBUSY, "it was not resized");
}

int instance_resize(struct txn *t, struct object *o, const char *args, struct err **e)
{
        struct object *f = model_by_name(t->c, NULL, &kind_flavor, args);
        char until[48];
        int r;

        if (instance_not_adopted(o, "resize", e) < 0)
                return -ENOTSUP;
        if (!f)
                return err_at(e, *args ? -ENOENT : -EINVAL, args, strlen(args), 0, strlen(args),
                              "resize takes the name of a flavor");
        if (*object_str(o, "resized_from"))
                return err_set(e, -EBUSY, "it was resized already: confirm or revert that");
        if (object_num(o, "rescue"))
                return err_set(e, -EBUSY, "it has a rescue disk: unrescue first");
        if (streq(object_str(o, "flavor"), args))
                return err_set(e, -EINVAL, "that is its flavor");
        r = instance_same_engine(o, f, e);
        if (r == 0)
                r = instance_flavor_fits(f, e);
        if (r < 0)
                return r;
        instance_keep_flavor(t, o);
        instance_take_flavor(t, o, f);
        if (o->state != INSTANCE_ACTIVE) /* its next start has it */
                return 0;
        r = instance_fits_somewhere(t->c, o, e); /* before it is ended for nothing */
        if (r < 0)
                return r;
        instance_off_args(until, OFF_S, "");
        job_start(t, o, &job_instance_resize, until);
        txn_set_state(t, o, INSTANCE_RESIZING);
        return 0;
}

static int done_resize(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o)
                instance_start_again(t, o);
        return 0;
}

static void failed_resize(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o)
                return;
        instance_restore_flavor(t, o);
        instance_failed_running(j, t, o, err);
}

/* The boot disk that was made for it grows to the new flavor's, also under the running guest. */
static int grow_root(struct txn *t, struct object *o, struct err **e)
{
        struct link *l = instance_boot_link(o);
        char size[24];

        if (!l || object_num(l->target, "made_for") != o->no ||
            object_num(l->target, "size") >= object_num(o, "disk"))
                return 0;
        snprintf(size, sizeof(size), "%" PRIu64, object_num(o, "disk"));
        return action_set(t, l->target, kind_attr(&kind_volume, "size"), size, strlen(size), e);
}

int instance_confirm(struct txn *t, struct object *o, const char *args, struct err **e)
{
        int r = pending(o, e);

        if (r == 0)
                r = grow_root(t, o, e);
        if (r < 0)
                return r;
        instance_forget_flavor(t, o);
        if (o->state == INSTANCE_RESIZED)
                txn_set_state(t, o, INSTANCE_ACTIVE);
        return 0;
}

int instance_revert(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char until[48];
        int r = pending(o, e);

        if (r < 0)
                return r;
        if (o->state != INSTANCE_RESIZED) {
                instance_restore_flavor(t, o);
                return 0;
        }
        instance_off_args(until, OFF_S, "");
        job_start(t, o, &job_instance_revert, until);
        txn_set_state(t, o, INSTANCE_REVERTING);
        return 0;
}

static int done_revert(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o)
                return 0;
        instance_restore_flavor(t, o);
        instance_start_again(t, o);
        return 0;
}

static void failed_revert(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o || instance_leaves(o))
                return;
        instance_failed_running(j, t, o, err);
        txn_set_state(t, o, INSTANCE_RESIZED);
}

static const struct job_step steps[] = {{"off", instance_step_off},
                                        {"unexport", instance_step_unexport}};

const struct job_def job_instance_resize = {.op = "instance.resize",
                                            .deadline = 600,
                                            .steps = steps,
                                            .nsteps = ARRAY_SIZE(steps),
                                            .done = done_resize,
                                            .failed = failed_resize};
const struct job_def job_instance_revert = {.op = "instance.revert",
                                            .deadline = 600,
                                            .steps = steps,
                                            .nsteps = ARRAY_SIZE(steps),
                                            .done = done_revert,
                                            .failed = failed_revert};
