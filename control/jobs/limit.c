/* A volume's limits, put into force in the volume service.
 *
 * The attributes are what is wanted; `limits_set` is a mark of the figures that are in force. Where
 * they differ a job carries them over, also after one that failed: the next write starts another.
 */
#include "control/jobs/jobs.h"

static uint64_t figure(const struct object *o, const char *attr)
{
        uint64_t v = object_num(o, attr);

        return v == VALUE_MAX ? 0 : v;
}

static void limits_of(const struct object *o, struct volume_limits *ret)
{
        *ret = (struct volume_limits){.iops = figure(o, "iops"),
                                      .bandwidth = figure(o, "bandwidth")};
        if (ret->iops)
                ret->iops_burst = figure(o, "iops_burst");
        if (ret->bandwidth)
                ret->bandwidth_burst = figure(o, "bandwidth_burst");
        if (ret->iops_burst || ret->bandwidth_burst)
                ret->burst_seconds = figure(o, "burst_seconds");
}

/* 0 for no limits; FNV-1a of the figures, as a number that the store can keep. */
static uint64_t mark_of(const struct volume_limits *l)
{
        const uint64_t v[] = {l->iops, l->bandwidth, l->iops_burst, l->bandwidth_burst,
                              l->burst_seconds};
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        for (size_t i = 0; i < ARRAY_SIZE(v); i++)
                for (unsigned b = 0; b < 64; b += 8)
                        h = (h ^ (v[i] >> b & 0xff)) * UINT64_C(0x100000001b3);
        return l->iops || l->bandwidth ? (h & INT64_MAX) | 1 : 0;
}

static uint64_t mark(const struct object *o)
{
        struct volume_limits l;

        limits_of(o, &l);
        return mark_of(&l);
}

void volume_limits_due(struct txn *t, struct object *o)
{
        const unsigned there = STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE) |
                               STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING) |
                               STATE(VOLUME_EXTENDING);

        if (object_in(o, there) && !o->nameless && mark(o) != object_num(o, "limits_set") &&
            !job_live(t->c, o->no, &job_volume_limit))
                job_start(t, o, &job_volume_limit, NULL);
}

static int step_limit(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_limits l = {};
        char id[ID_TEXT_SIZE];
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(id, o->id);
                limits_of(o, &l);
        }
        control_unlock(j->c);
        if (!o)
                return err_set(e, -ENOENT, "it is gone");
        j->value = mark_of(&l);
        return s->ops->set_limits(s, id, &l, e);
}

static int done_limit(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o)
                return 0;
        txn_set_num(t, o, "limits_set", j->value);
        return mark(o) != j->value ? JOB_AGAIN : 0; /* written meanwhile */
}

static const struct job_step steps[] = {{"limit", step_limit}};

const struct job_def job_volume_limit = {.op = "volume.limit",
                                         .deadline = 3600,
                                         .patient = true,
                                         .steps = steps,
                                         .nsteps = ARRAY_SIZE(steps),
                                         .done = done_limit};
