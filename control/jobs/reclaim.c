/* Deleted instances that can be had back: `delete` powers one off and keeps it, as long as its
 * tenant's `reclaim` says; then the reconciler deletes it for good.  It has its name, disks and
 * addresses all the while, and takes no processor and no memory of the quota. */
#include "control/jobs/jobs.h"

enum { AGAIN_S = 86400 }; /* for one that was to come back, and could not */

static int64_t seconds_now(void)
{
        return clock_now() / 1000000;
}

bool instance_leaves(const struct object *o)
{
        return o->nameless || o->state == INSTANCE_DELETING;
}

/* Its name is free at once; what is under way for it comes to its end first. */
void instance_begin_delete(struct txn *t, struct object *o)
{
        txn_release_name(t, o);
        txn_set_state(t, o, INSTANCE_DELETING);
        job_start(t, o, &job_instance_delete, NULL);
}

/* A draft has nothing that could be missed. */
int instance_delete(struct txn *t, struct object *o, const char *args, struct err **e)
{
        const bool kept = object_num(o->tenant, "reclaim") &&
                          !object_in(o, STATE(INSTANCE_DRAFT) | STATE(INSTANCE_DELETED));
        int r = check_referrers(o, e);

        if (r == 0)
                r = instance_not_adopted(o, "delete", e);
        if (r < 0)
                return r;
        jobs_hurry(t->c, o->no);
        if (kept) {
                job_start(t, o, &job_instance_keep, "now");
                txn_set_state(t, o, INSTANCE_DELETING);
        } else {
                instance_begin_delete(t, o);
        }
        return 0;
}

/* If it cannot start it is what it was, and is not gone in the next moment. */
int instance_restore(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_num(t, o, "claim", 0);
        txn_set_num(t, o, "reclaim_at",
                    seconds_now() + MAX((int64_t)object_num(o->tenant, "reclaim"), AGAIN_S));
        job_start(t, o, &job_instance_start, "deleted");
        txn_set_state(t, o, INSTANCE_STARTING);
        return 0;
}

static int done_keep(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->nameless)
                return 0;
        txn_set_state(t, o, INSTANCE_DELETED);
        txn_set_num(t, o, "reclaim_at", seconds_now() + (int64_t)object_num(o->tenant, "reclaim"));
        txn_set_str(t, o, "stalled", NULL);
        reconcile_deleted(t->c);
        return 0;
}

static void failed_keep(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && !o->nameless)
                txn_set_state(t, o, INSTANCE_ERROR);
}

static const struct job_step steps[] = {{"clear", instance_step_clear},
                                        {"off", instance_step_off},
                                        {"unexport", instance_step_unexport}};

const struct job_def job_instance_keep = {.op = "instance.keep",
                                          .deadline = 600,
                                          .insists = true,
                                          .steps = steps,
                                          .nsteps = ARRAY_SIZE(steps),
                                          .done = done_keep,
                                          .failed = failed_keep};

/* --- the reconciler's ----------------------------------------------------------------------------
 */

static bool is_due(const struct object *o)
{
        return o->state == INSTANCE_DELETED &&
               seconds_now() >= (int64_t)object_num(o, "reclaim_at");
}

/* One that is due, or 0; when the next one is. */
static uint64_t find_due(struct control *c, int64_t *next)
{
        uint64_t no = 0;

        control_rdlock(c);
        for (struct object *o = c->by_no; o && !no; o = o->hh_no.next) {
                int64_t left;

                if (o->kind != &kind_instance || o->state != INSTANCE_DELETED || !feed_ours(c, o))
                        continue;
                left = (int64_t)object_num(o, "reclaim_at") - seconds_now();
                if (left <= 0)
                        no = o->no;
                else
                        *next = MIN(*next, clock_mono() + left * 1000000);
        }
        control_unlock(c);
        return no;
}

/* -EBUSY: something links to it: it is kept until nothing does. */
static int reclaim(struct control *c, uint64_t no)
{
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (!o || !is_due(o)) {
                txn_abort(&t);
                return 0;
        }
        r = check_referrers(o, NULL);
        if (r < 0) {
                txn_set_num(&t, o, "reclaim_at", seconds_now() + AGAIN_S);
        } else {
                txn_event(&t, o, "reclaimed");
                instance_begin_delete(&t, o);
        }
        return txn_commit(&t, NULL);
}

int64_t instances_reclaim(struct control *c)
{
        int64_t next = INT64_MAX;
        uint64_t no;

        while ((no = find_due(c, &next)))
                if (reclaim(c, no) < 0)
                        return clock_mono() + 1000000;
        return next;
}
