/* An instance that boots from another disk for a while: rescue and unrescue; and one that gets a
 * new one for good: rebuild.
 *
 * The rescue disk is a volume like others, made from the image, at the last device's name; the
 * attribute `rescue` says which it is, and while it is set every start boots from it.  What the
 * guest is to have next is put down when it is off, in the transaction that starts it again. */
#include "control/jobs/jobs.h"

enum { OFF_S = 30 }; /* a guest is asked that long before it is forced */

void instance_off_args(char out[48], unsigned seconds, const char *rest)
{
        if (seconds)
                snprintf(out, 48, "%" PRId64 " %s", clock_now() / 1000000 + seconds, rest);
        else
                snprintf(out, 48, "now");
}

void instance_start_again(struct txn *t, struct object *o)
{
        if (instance_leaves(o)) /* deleted meanwhile */
                return;
        txn_set_num(t, o, "claim", 0);
        txn_set_state(t, o, INSTANCE_STARTING);
        txn_set_str(t, o, "stalled", NULL);
        job_start(t, o, &job_instance_start, "stopped");
}

/* --- rescue ---------------------------------------------------------------------------------- */

static void end_rescue(struct txn *t, struct object *o)
{
        object_foreach_link (l, o)
                if (l->target->no == object_num(o, "rescue")) {
                        instance_drop_volume(t, o, l);
                        break;
                }
        txn_set_num(t, o, "rescue", 0);
}

int instance_rescue(struct txn *t, struct object *o, const char *args, struct err **e)
{
        const unsigned def = kind_link(o->kind, "volumes");
        char device[] = "vdz", until[48];
        struct object *image, *v;
        int r;

        if (instance_not_adopted(o, "rescue", e) < 0)
                return -ENOTSUP;
        if (object_num(o, "rescue"))
                return err_set(e, -EBUSY, "it has a rescue disk already: start, or unrescue");
        if (object_num(o, "memory") == 0)
                return err_set(e, -EINVAL, "it has no flavor");
        r = instance_image_named(t, o, "rescue", args, &image, e);
        while (r == 0 && object_link(o, def, device) && device[2] > 'a')
                device[2]--;
        if (r == 0)
                r = instance_make_root(t, o, image, "rescue", device, 0, &v, e);
        if (r < 0)
                return r;
        txn_set_num(t, o, "rescue", v->no);
        instance_off_args(until, OFF_S, "");
        job_start(t, o, &job_instance_rescue, until);
        txn_set_state(t, o, INSTANCE_RESCUING);
        return 0;
}

static int done_rescue(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o)
                instance_start_again(t, o);
        return 0;
}

static void failed_rescue(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o)
                return;
        end_rescue(t, o);
        instance_failed_running(j, t, o, err);
}

int instance_unrescue(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (!object_num(o, "rescue"))
                return err_set(e, -EBUSY, "it has no rescue disk");
        job_start(t, o, &job_instance_unrescue, "now");
        txn_set_state(t, o, INSTANCE_UNRESCUING);
        return 0;
}

static int done_unrescue(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o)
                return 0;
        end_rescue(t, o);
        instance_start_again(t, o);
        return 0;
}

static void failed_unrescue(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o || instance_leaves(o))
                return;
        instance_failed_running(j, t, o, err);
        txn_set_state(t, o, INSTANCE_RESCUED);
}

/* --- rebuild --------------------------------------------------------------------------------- */

int instance_rebuild(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char rest[32], until[48];
        struct object *image;
        int r;

        if (instance_not_adopted(o, "rebuild", e) < 0)
                return -ENOTSUP;
        if (object_num(o, "rescue"))
                return err_set(e, -EBUSY, "it has a rescue disk: unrescue first");
        if (object_num(o, "memory") == 0)
                return err_set(e, -EINVAL, "it has no flavor");
        r = instance_image_named(t, o, "rebuild", args, &image, e);
        if (r < 0)
                return r;
        snprintf(rest, sizeof(rest), "%" PRIu64 " %d", image->no, o->state == INSTANCE_ACTIVE);
        instance_off_args(until, OFF_S, rest);
        job_start(t, o, &job_instance_rebuild, until);
        txn_set_state(t, o, INSTANCE_REBUILDING);
        return 0;
}

/* args: "UNTIL IMAGE RAN" */
static bool rebuild_args(const struct job *j, uint64_t *ret_image)
{
        int ran = 0;

        *ret_image = 0;
        sscanf(j->args, "%*s %" SCNu64 " %d", ret_image, &ran);
        return ran;
}

static int done_rebuild(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        const unsigned def = kind_link(&kind_instance, "image");
        struct object *image, *v;
        struct link *old = o ? instance_boot_link(o) : NULL;
        char device[NAME_SIZE] = "vda";
        uint64_t no, size;
        bool ran = rebuild_args(j, &no);
        int r;

        if (!o)
                return 0;
        image = model_by_no(t->c, no);
        if (!image || image->kind != &kind_image || image->nameless)
                return err_set(e, -ENOENT, "the image is gone");
        size = object_num(o, "disk");
        if (old) {
                size = MAX(size, object_num(old->target, "size"));
                snprintf(device, sizeof(device), "%s", old->name);
                instance_drop_volume(t, o, old);
        }
        r = instance_make_root(t, o, image, "root", device, size, &v, e);
        if (r < 0)
                return r;
        if (object_link(o, def, NULL))
                txn_unlink(t, o, object_link(o, def, NULL));
        txn_link(t, o, def, "image", image);
        txn_event(t, o, "rebuilt from images/%s", image->name);
        if (ran)
                instance_start_again(t, o);
        else if (!instance_leaves(o))
                txn_set_state(t, o, INSTANCE_STOPPED);
        return 0;
}

static void failed_rebuild(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        uint64_t no;

        if (!o || instance_leaves(o))
                return;
        instance_failed_running(j, t, o, err);
        if (!rebuild_args(j, &no))
                txn_set_state(t, o, INSTANCE_STOPPED);
}

static const struct job_step steps[] = {{"off", instance_step_off},
                                        {"unexport", instance_step_unexport}};

const struct job_def job_instance_rescue = {.op = "instance.rescue",
                                            .deadline = 600,
                                            .steps = steps,
                                            .nsteps = ARRAY_SIZE(steps),
                                            .done = done_rescue,
                                            .failed = failed_rescue};
const struct job_def job_instance_unrescue = {.op = "instance.unrescue",
                                              .deadline = 600,
                                              .steps = steps,
                                              .nsteps = ARRAY_SIZE(steps),
                                              .done = done_unrescue,
                                              .failed = failed_unrescue};
const struct job_def job_instance_rebuild = {.op = "instance.rebuild",
                                             .deadline = 600,
                                             .steps = steps,
                                             .nsteps = ARRAY_SIZE(steps),
                                             .done = done_rebuild,
                                             .failed = failed_rebuild};
