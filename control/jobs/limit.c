/* A volume's limits, put into force in the volume service.
 *
 * The attributes, and those of the volume's type where it has none, are what is wanted;
 * `limits_set` is a mark of the figures that are in force. Where they differ a job carries them
 * over, also after one that failed: the next write starts another.
 */
#include "control/jobs/jobs.h"

static uint64_t figure(const struct object *o, const char *attr)
{
        uint64_t v = object_num(o, attr);

        return v == VALUE_MAX ? 0 : v;
}

static uint64_t either(const struct object *own, const struct object *type, const char *attr)
{
        uint64_t v = figure(own, attr);

        return v == 0 && type ? figure(type, attr) : v;
}

/* A burst goes with the rate it is above: a volume with a rate of its own has its own burst. */
static void limits_of(struct control *c, const struct object *o, struct volume_limits *ret)
{
        const struct object *type = volume_type(c, o);

        *ret = (struct volume_limits){.iops = either(o, type, "iops"),
                                      .bandwidth = either(o, type, "bandwidth")};
        if (ret->iops)
                ret->iops_burst = figure(figure(o, "iops") ? o : type, "iops_burst");
        if (ret->bandwidth)
                ret->bandwidth_burst = figure(figure(o, "bandwidth") ? o : type, "bandwidth_burst");
        if (ret->iops_burst || ret->bandwidth_burst)
                ret->burst_seconds = either(o, type, "burst_seconds");
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

static uint64_t mark(struct control *c, const struct object *o)
{
        struct volume_limits l;

        limits_of(c, o, &l);
        return mark_of(&l);
}

static bool due(struct control *c, const struct object *o)
{
        const unsigned there = STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE) |
                               STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING) |
                               STATE(VOLUME_EXTENDING);

        return object_in(o, there) && !o->nameless && mark(c, o) != object_num(o, "limits_set") &&
               !job_live(c, o->no, &job_volume_limit);
}

void volume_limits_due(struct txn *t, struct object *o)
{
        if (due(t->c, o))
                job_start(t, o, &job_volume_limit, NULL);
}

void volume_limits_due_all(struct control *c)
{
        uint64_t *v = NULL;
        struct object *o, *tmp;
        size_t n = 0;

        control_rdlock(c);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (o->kind != &kind_volume || !due(c, o))
                        continue;
                v = xrealloc(v, n + 1, sizeof(*v));
                v[n++] = o->no;
        }
        control_unlock(c);
        for (size_t i = 0; i < n; i++) {
                _cleanup_err_ struct err *err = NULL;
                struct txn t;

                txn_begin(&t, c, NULL);
                o = model_by_no(c, v[i]);
                if (o)
                        volume_limits_due(&t, o);
                if (txn_commit(&t, &err) < 0)
                        log_error("limits of a volume type: %s", err_msg(err));
        }
        free(v);
}

int volume_limits_here(struct control *c, const char *id, struct err **e)
{
        struct volume_service *s = c->cfg.volumes;
        struct volume_limits l = {};
        struct object *o = NULL;
        sd_id128_t uuid;

        control_rdlock(c);
        if (id_parse(id, &uuid) == 0)
                o = model_by_id(c, uuid);
        if (o && o->kind == &kind_volume) /* no CD */
                limits_of(c, o, &l);
        control_unlock(c);
        return feed_shared(c) ? s->ops->set_limits(s, id, &l, e) : 0;
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
                limits_of(j->c, o, &l);
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
        return mark(t->c, o) != j->value ? JOB_AGAIN : 0; /* written meanwhile */
}

static const struct job_step steps[] = {{"limit", step_limit}};

const struct job_def job_volume_limit = {.op = "volume.limit",
                                         .deadline = 3600,
                                         .patient = true,
                                         .steps = steps,
                                         .nsteps = ARRAY_SIZE(steps),
                                         .done = done_limit};
