/* Snapshots of all volumes of an instance, of one moment; or images, which are snapshots that need
 * no volume, as blockd keeps what both have in common once; or what backups are then read from.
 *
 *     freeze  the guest's agent has its file systems written out and held; the snapshots note it
 *     take    the guest stands still while blockd takes them; then they are available
 *     thaw    what was frozen, or may have been, is let go
 *
 * Each step can be repeated, so a daemon that was killed goes on where it was; before that nobody
 * thaws the guest.  Without an agent that answers the snapshots are what a power cut would leave.
 */
#include "control/jobs/jobs.h"

#include "common/fault.h"

enum {
        THAW_US = 60 * 1000000, /* an agent that does not answer is asked that long */
        AGAIN_US = 1000000,
};

struct taken {
        char id[ID_TEXT_SIZE], volume[ID_TEXT_SIZE];
};

/* What is to be taken of the volume by this job, and is not taken yet; NULL: nothing.  Model held.
 */
static struct object *taking(struct job *j, struct object *v)
{
        const bool image = j->def == &job_instance_image;
        const unsigned state = image ? IMAGE_SAVING : BACKUP_CREATING;
        struct collection *l;
        struct object *s;

        if (v->kind != &kind_volume)
                return NULL;
        if (j->def == &job_instance_snapshot) {
                s = model_by_name(j->c, v, &kind_snapshot, j->args);
                return s && s->state == SNAPSHOT_CREATING ? s : NULL;
        }
        l = model_collection(j->c, v->tenant, image ? &kind_image : &kind_backup);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i]->state == state && object_num(l->v[i], "taken_by") == j->no &&
                    object_num(l->v[i], image ? "taken_of" : "volume_no") == v->no)
                        return l->v[i];
        return NULL;
}

/* What the job is for, as many as there are; the caller frees. */
static struct taken *taken_get(struct job *j, size_t *ret_n)
{
        struct taken *v = NULL;
        struct object *o, *s;
        size_t n = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        for (unsigned i = 0; o && i < o->nlinks; i++) {
                s = taking(j, o->links[i].target);
                if (!s)
                        continue;
                v = xrealloc(v, n + 1, sizeof(*v));
                id_text(v[n].id, s->id);
                id_text(v[n++].volume, o->links[i].target->id);
        }
        control_unlock(j->c);
        *ret_n = n;
        return v;
}

/* The guest, if it runs: 0 with *ret, or with NULL. */
static int running(struct job *j, struct compute **ret, char id[ID_TEXT_SIZE], struct err **e)
{
        struct facts f;
        int r = job_facts(j, &f, e);

        *ret = NULL;
        if (r < 0 || f.state != INSTANCE_ACTIVE)
                return r;
        snprintf(id, ID_TEXT_SIZE, "%s", f.id);
        return instance_compute(j, ret, e);
}

/* A guest that runs stands still meanwhile: QEMU has then written and flushed what it was asked to,
 * so the snapshots are of one moment.  One that its user paused stays so. */
static int stand_still(struct job *j, bool still, struct err **e)
{
        struct compute *compute;
        char id[ID_TEXT_SIZE];
        int r = running(j, &compute, id, e);

        if (r < 0 || !compute)
                return r;
        r = still ? compute->ops->pause(compute, id, e) : compute->ops->resume(compute, id, e);
        return r == -ENOENT ? 0 : r; /* it has powered itself off: it stands still */
}

/* --- freeze, thaw --- */

/* words: why it is not frozen ("": not to be told); NULL: it is. */
static int note_frozen(struct job *j, bool thaw, const char *words, struct err **e)
{
        struct object *o, *s;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (!o)
                return txn_end(&t, err_set(e, -ENOENT, "it is gone"), e);
        for (unsigned i = 0; i < o->nlinks; i++) {
                s = taking(j, o->links[i].target);
                if (s && s->kind != &kind_backup)
                        txn_set_num(&t, s, "frozen", !words);
        }
        txn_set_num(&t, o, "thaw", thaw);
        if (words && *words)
                txn_event(&t, o, "%s '%s' as after a power cut: %s",
                          j->def == &job_instance_snapshot ? "snapshots"
                          : j->def == &job_instance_image  ? "images"
                                                           : "backups",
                          j->args, words);
        return txn_commit(&t, e);
}

static int step_freeze(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *why = NULL;
        struct compute *compute;
        char id[ID_TEXT_SIZE];
        int r;

        if (s->ops->ping(s, NULL) == -ECONNREFUSED) /* the guest does not wait for it */
                return job_wait_blockd(j, e);
        r = running(j, &compute, id, e);
        if (r < 0 || !compute)
                return r;
        r = compute->ops->freeze(compute, id, &why);
        if (r == -ECONNREFUSED)
                return err_move(e, TAKE_PTR(why));
        if (r == -ENOENT)
                return 0;
        return note_frozen(j, r != -ENOTCONN, r < 0 ? err_msg(why) : NULL, e);
}

static bool to_thaw(struct job *j)
{
        struct object *o;
        bool yes;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        yes = o && object_num(o, "thaw");
        control_unlock(j->c);
        return yes;
}

/* A guest that is off or gone holds nothing frozen. */
static int thaw(struct job *j, struct err **e)
{
        struct compute *compute;
        char id[ID_TEXT_SIZE];
        int r = running(j, &compute, id, e);

        if (r < 0 || !compute)
                return r;
        compute->ops->resume(compute, id, NULL); /* one that has stalled hears nothing */
        r = compute->ops->thaw(compute, id, e);
        return r == -ENOENT ? 0 : r;
}

/* Whether the guest is to be asked once more. */
static bool thaw_again(struct job *j)
{
        if (!j->value)
                j->value = clock_mono();
        return clock_mono() < (int64_t)j->value + THAW_US;
}

static int step_thaw(struct job *j, struct err **e)
{
        int r = to_thaw(j) ? thaw(j, e) : 0;

        if (r == 0 || r == -ECONNREFUSED)
                return r;
        if (!thaw_again(j))
                return err_prepend(e, -EIO, "the snapshots are taken, but the guest may be frozen");
        if (e)
                *e = err_free(*e);
        return job_wait(j, 0, AGAIN_US, "the guest's agent does not thaw it");
}

/* --- take --- */

static void end_image(struct txn *t, struct object *image, struct object *v, bool taken)
{
        txn_set_num(t, image, "taken_by", 0);
        if (taken) {
                txn_set_num(t, image, "size", object_num(v, "actual"));
                txn_set_num(t, image, "virtual_size", object_num(v, "actual"));
        }
        txn_set_state(t, image, taken ? IMAGE_ACTIVE : IMAGE_ERROR);
}

/* The backup's own job takes the snapshot once more, which then is there. */
static void end_backup(struct txn *t, struct object *backup, bool taken)
{
        txn_set_num(t, backup, "taken_by", 0);
        if (!taken) {
                txn_set_state(t, backup, BACKUP_ERROR);
                return;
        }
        txn_set_num(t, backup, "snapshot", 1);
        txn_set_num(t, backup, "taken_at", clock_now());
        job_start(t, backup, &job_backup_create, NULL);
}

static void end_all(struct job *j, struct txn *t, struct object *o, bool taken)
{
        for (unsigned i = 0; o && i < o->nlinks; i++) {
                struct object *v = o->links[i].target;
                struct object *s = taking(j, v);

                if (s && s->kind == &kind_image) {
                        end_image(t, s, v, taken);
                } else if (s && s->kind == &kind_backup) {
                        end_backup(t, s, taken);
                } else if (s) {
                        txn_set_num(t, s, "size", object_num(v, "actual"));
                        txn_set_state(t, s, taken ? SNAPSHOT_AVAILABLE : SNAPSHOT_ERROR);
                }
        }
}

/* blockd is away.  A guest that runs, frozen, is let go meanwhile, and frozen anew; one that stands
 * still has some of the snapshots and stays, as they are to be of one moment. */
static int wait_blockd(struct job *j, struct err **e)
{
        enum guest_state state = GUEST_GONE;
        struct compute *compute;
        char id[ID_TEXT_SIZE];

        if (to_thaw(j) && running(j, &compute, id, NULL) == 0 && compute &&
            compute->ops->state(compute, id, &state, NULL) == 0 && state == GUEST_RUNNING &&
            thaw(j, NULL) == 0 && note_frozen(j, false, "", NULL) == 0)
                j->step = 0;
        return job_wait_blockd(j, e);
}

static int step_take(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_free_ struct taken *v = NULL;
        struct txn t;
        size_t n;
        int r;

        v = taken_get(j, &n);
        if (s->ops->ping(s, NULL) == -ECONNREFUSED)
                return wait_blockd(j, e);
        r = stand_still(j, true, e);
        for (size_t i = 0; i < n && r == 0; i++)
                r = s->ops->snapshot(s, v[i].id, v[i].volume, e);
        if (r == 0)
                r = FAULT("snapshot.taken");
        if (r == 0)
                r = stand_still(j, false, e);
        if (r < 0)
                return r;
        txn_begin(&t, j->c, NULL);
        end_all(j, &t, model_by_no(j->c, j->target), true);
        return txn_commit(&t, e);
}

/* --- ends --- */

/* The last step has asked long enough.  The first may have frozen what it could not note. */
static int undo(struct job *j)
{
        bool ask = j->step == 0 || (j->step == 1 && to_thaw(j));
        int r = stand_still(j, false, NULL);

        if (r < 0 || !ask)
                return r;
        r = thaw(j, NULL);
        return r < 0 && (j->step > 0 || r != -ENOTCONN) && thaw_again(j) ? -EAGAIN : 0;
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (o && object_num(o, "thaw"))
                txn_set_num(t, o, "thaw", 0);
        return 0;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        end_all(j, t, o, false);
        done(j, t, o, NULL);
}

static const struct job_step steps[] = {
        {"freeze", step_freeze}, {"take", step_take}, {"thaw", step_thaw}};

#define OF_ALL_DISKS(verb)                                                                         \
        {                                                                                          \
                .op = "instance." verb, .deadline = 600, .patient = true, .steps = steps,          \
                .nsteps = ARRAY_SIZE(steps), .done = done, .failed = failed, .undo = undo,         \
        }

const struct job_def job_instance_snapshot = OF_ALL_DISKS("snapshot");
const struct job_def job_instance_image = OF_ALL_DISKS("image");
const struct job_def job_instance_backup = OF_ALL_DISKS("backup");
