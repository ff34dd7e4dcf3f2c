/* A volume gets smaller, because somebody said so: what is past the new end is lost. */
#include "control/jobs/jobs.h"

int volume_shrink(struct txn *t, struct object *o, const char *args, struct err **e)
{
        static const struct attr_def size = {"SIZE", ATTR_SIZE, .min = 512, .max = 1ULL << 46};
        uint64_t now = object_num(o, "size");
        union value v = {};
        char text[32];
        int r = value_parse(t->c, &size, args, strlen(args), &v, e);

        if (r == 0)
                r = volume_check_size(o, v.u, e);
        if (r < 0)
                return err_prepend(e, r, "shrink");
        if (v.u >= now)
                return err_set(e, -EINVAL,
                               "volume '%s' has %" PRIu64 " bytes: `size` makes it larger", o->name,
                               now);
        if (o->writers)
                return err_set(e, -EBUSY, "volume '%s' is being written through its data", o->name);
        snprintf(text, sizeof(text), "%" PRIu64, v.u);
        txn_set_state(t, o, VOLUME_SHRINKING);
        job_start(t, o, &job_volume_shrink, text);
        return 0;
}

static int step_shrink(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct facts f;
        int r = job_wait_snapshots(j, true);

        if (r == 0)
                r = job_facts(j, &f, e);
        j->value = strtoull(j->args, NULL, 10);
        return r != 0 ? r : s->ops->shrink(s, f.id, j->value, e);
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != VOLUME_SHRINKING)
                return 0;
        txn_set_num(t, o, "size", j->value);
        txn_set_num(t, o, "actual", j->value);
        txn_set_num(t, o, "shrunk", clock_now());
        txn_set_state(t, o, volume_rest(o));
        return 0;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == VOLUME_SHRINKING)
                txn_set_state(t, o, volume_rest(o));
}

static const struct job_step steps[] = {{"shrink", step_shrink}};

const struct job_def job_volume_shrink = {.op = "volume.shrink",
                                          .deadline = 600,
                                          .patient = true,
                                          .steps = steps,
                                          .nsteps = ARRAY_SIZE(steps),
                                          .done = done,
                                          .failed = failed};
