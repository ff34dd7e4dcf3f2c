/* Shelved instances: nothing of them is on any host but their volumes, which need none; they keep
 * their name, disks and metadata, and take no processor and no memory of the quota. */
#include "control/jobs/jobs.h"

#include "common/fileio.h"

enum { OFF_S = 30 };

int instance_shelve(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char until[48];

        if (instance_not_adopted(o, "shelve", e) < 0)
                return -ENOTSUP;
        if (object_num(o, "rescue"))
                return err_set(e, -EBUSY, "it has a rescue disk: unrescue first");
        instance_off_args(until, OFF_S, object_state(o));
        job_start(t, o, &job_instance_shelve, until);
        txn_set_state(t, o, INSTANCE_SHELVING);
        return 0;
}

int instance_unshelve(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_num(t, o, "claim", 0);
        txn_set_state(t, o, INSTANCE_STARTING);
        job_start(t, o, &job_instance_start, "shelved");
        return 0;
}

/* The guest's memory, if it is suspended, the copies of kernel and ramdisk, and the config drive;
 * not its log.  First, as a resume that went wrong may have left a guest, which `off` lets go on.
 */
int instance_step_clear(struct job *j, struct err **e)
{
        static const char *const names[] = {"memory", "kernel", "ramdisk", "config.iso"};
        _cleanup_free_ char *dir = NULL;
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        dir = o ? instance_dir(j->c, o) : NULL;
        control_unlock(j->c);
        for (size_t i = 0; dir && i < ARRAY_SIZE(names); i++) {
                _cleanup_free_ char *path = xcheck(path_printf("%s/%s", dir, names[i]));

                if (unlink(path) < 0 && errno != ENOENT)
                        return err_errno(e, -errno, "remove '%s'", path);
        }
        return 0;
}

static int done_shelve(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || instance_leaves(o))
                return 0;
        txn_set_state(t, o, INSTANCE_SHELVED);
        txn_set_str(t, o, "host", NULL);
        txn_set_str(t, o, "stalled", NULL);
        return 0;
}

static void failed_shelve(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        const char *before = strchr(j->args, ' ');
        int state = before ? kind_state(&kind_instance, before + 1) : -1;

        if (!o || instance_leaves(o))
                return;
        if (state == INSTANCE_ACTIVE || state == INSTANCE_PAUSED)
                instance_failed_running(j, t, o, err);
        else
                txn_set_state(t, o, INSTANCE_STOPPED);
}

static const struct job_step steps[] = {{"clear", instance_step_clear},
                                        {"off", instance_step_off},
                                        {"unexport", instance_step_unexport}};

const struct job_def job_instance_shelve = {.op = "instance.shelve",
                                            .deadline = 600,
                                            .steps = steps,
                                            .nsteps = ARRAY_SIZE(steps),
                                            .done = done_shelve,
                                            .failed = failed_shelve};
