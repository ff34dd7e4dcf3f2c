/* Taking and verifying backups. */
#include "control/jobs/jobs.h"

enum { WEEK = 7 * 86400, TARGET_SIZE = 1024 };

int backup_service(struct control *c, struct backup_service **ret, struct err **e)
{
        *ret = c->cfg.backups;
        return *ret ? 0 : err_set(e, -ENOTSUP, "this cloud has no place for backups");
}

static int report(void *arg, uint64_t done, uint64_t total)
{
        struct job *j = arg;

        job_progress(j, done, total);
        return job_cancelled(j, NULL);
}

static int poll_job(void *arg)
{
        return job_cancelled(arg, NULL);
}

struct backup_progress backup_progress(struct job *j)
{
        return (struct backup_progress){.report = report, .poll = poll_job, .arg = j};
}

/* What the steps need of the backup, its volume and the one before. */
struct plan {
        char id[ID_TEXT_SIZE], name[NAME_SIZE], tenant[NAME_SIZE], target[TARGET_SIZE];
        char volume_id[ID_TEXT_SIZE], volume[NAME_SIZE];
        char parent_id[ID_TEXT_SIZE], parent[NAME_SIZE];
        uint64_t volume_no;
        int volume_state; /* -1: gone */
        int64_t taken;
        bool known; /* its target holds others, so it is a store already */
};

/* Newest whole one with a snapshot to compare with. */
static void find_parent(struct control *c, const struct object *o, struct plan *p)
{
        struct collection *l = model_collection(c, o->tenant, &kind_backup);
        const struct object *best = NULL, *v = model_by_no(c, p->volume_no);
        uint64_t shrunk =
                v ? object_num(v, "shrunk") : 0; /* what was cut off is no change to blockd */

        for (size_t i = 0; i < l->n; i++) {
                const struct object *b = l->v[i];

                if (b == o || !streq(object_str(b, "target"), p->target) || !object_num(b, "size"))
                        continue;
                p->known = true;
                if (b->state == BACKUP_AVAILABLE && object_num(b, "snapshot") &&
                    object_num(b, "volume_no") == p->volume_no &&
                    object_num(b, "taken_at") > shrunk &&
                    (!best || object_num(b, "taken_at") > object_num(best, "taken_at")))
                        best = b;
        }
        if (!best)
                return;
        id_text(p->parent_id, best->id);
        snprintf(p->parent, NAME_SIZE, "%s", best->name);
}

static int plan_get(struct job *j, struct plan *p, struct err **e)
{
        struct object *o, *v;

        *p = (struct plan){.volume_state = -1};
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(p->id, o->id);
                snprintf(p->name, NAME_SIZE, "%s", o->name);
                snprintf(p->tenant, NAME_SIZE, "%s", o->tenant->name);
                snprintf(p->target, TARGET_SIZE, "%s", object_str(o, "target"));
                snprintf(p->volume, NAME_SIZE, "%s", object_str(o, "volume"));
                p->taken = object_num(o, "taken_at");
                p->volume_no = object_num(o, "volume_no");
                v = model_by_no(j->c, p->volume_no);
                if (v) {
                        p->volume_state = v->state;
                        id_text(p->volume_id, v->id);
                }
                find_parent(j->c, o, p);
        }
        control_unlock(j->c);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

/* Whether the volume can be looked at; one that is being made is waited for. */
static int volume_ready(struct job *j, const struct plan *p, struct err **e)
{
        if (p->volume_state == VOLUME_CREATING || p->volume_state == VOLUME_RESTORING)
                return job_wait(j, p->volume_no, 0, "volume '%s' is being made", p->volume);
        if (p->volume_state < 0 || p->volume_state == VOLUME_ERROR)
                return err_set(e, -EIO, "volume '%s' is %s", p->volume,
                               p->volume_state < 0 ? "gone" : "in error");
        return 0;
}

/* The moment whose bytes it has. */
static int step_snapshot(struct job *j, struct err **e)
{
        struct volume_service *volumes = j->c->cfg.volumes;
        struct backup_service *s;
        struct object *o;
        struct plan p;
        struct txn t;
        int r = backup_service(j->c, &s, e);

        if (r == 0)
                r = plan_get(j, &p, e);
        if (r == 0)
                r = volume_ready(j, &p, e);
        if (r == 0)
                r = s->ops->check(s, p.target, !p.known, e);
        if (r == 0)
                r = volumes->ops->snapshot(volumes, p.id, p.volume_id, e);
        if (r != 0)
                return r;
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (o) {
                txn_set_num(&t, o, "snapshot", 1);
                if (!object_num(o, "taken_at"))
                        txn_set_num(&t, o, "taken_at", clock_now());
        }
        return txn_commit(&t, e);
}

static void store_facts(struct txn *t, struct object *o, const struct backup_facts *f,
                        const struct plan *p, int64_t usec)
{
        txn_set_num(t, o, "size", f->size);
        txn_set_num(t, o, "read_bytes", f->read_bytes);
        txn_set_num(t, o, "new_bytes", f->new_bytes);
        txn_set_num(t, o, "incremental", f->incremental);
        txn_set_num(t, o, "rate", usec > 0 ? (uint64_t)(f->size * 1e6 / usec) : 0);
        if (f->incremental)
                txn_set_str(t, o, "parent", p->parent);
}

static int step_copy(struct job *j, struct err **e)
{
        struct backup_progress progress = backup_progress(j);
        struct backup_facts f = {};
        int64_t from = clock_mono();
        struct backup_service *s;
        struct object *o;
        struct plan p;
        struct txn t;
        int r = backup_service(j->c, &s, e);

        if (r == 0)
                r = plan_get(j, &p, e);
        if (r == 0)
                r = s->ops->create(
                        s, p.target,
                        &(struct backup_request){.id = p.id,
                                                 .name = p.name,
                                                 .tenant = p.tenant,
                                                 .volume = p.volume_id,
                                                 .volume_name = p.volume,
                                                 .parent = *p.parent_id ? p.parent_id : NULL,
                                                 .taken = p.taken,
                                                 .socket = j->c->cfg.volumes->shared_socket},
                        &progress, &f, e);
        if (r < 0)
                return r;
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        if (o)
                store_facts(&t, o, &f, &p, clock_mono() - from);
        return txn_commit(&t, e);
}

/* The one before is not compared with any more. */
static int step_trim(struct job *j, struct err **e)
{
        struct plan p;
        int r = plan_get(j, &p, e);

        if (r == 0)
                r = backup_drop_snapshots(j, p.volume_no, true, e);
        return r == -EBUSY ? job_wait_busy(j, e) : r;
}

static int done_create(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct object *volume;

        if (!o || o->nameless)
                return 0;
        if (o->state == BACKUP_CREATING)
                txn_set_state(t, o, BACKUP_AVAILABLE);
        volume = model_by_no(t->c, object_num(o, "volume_no"));
        return volume && *object_str(volume, "keep") ? backup_expire(t, volume, e) : 0;
}

static void failed_create(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (!o)
                return;
        txn_set_num(t, o, "snapshot", 0);
        txn_set_num(t, o, "size", 0);
        txn_set_num(t, o, "expected", 0);
        if (!o->nameless)
                txn_set_state(t, o, BACKUP_ERROR);
}

/* Nothing half-made stays: neither the snapshot nor, had it come so far, the manifest. */
static int undo_create(struct job *j)
{
        struct volume_service *volumes = j->c->cfg.volumes;
        _cleanup_err_ struct err *err = NULL;
        struct backup_service *s;
        struct plan p;

        if (backup_service(j->c, &s, NULL) < 0 || plan_get(j, &p, NULL) < 0)
                return 0;
        if (s->ops->remove(s, p.target, p.id, &err) < 0)
                log_info("backup %s: %s", p.id, err_msg(err));
        return volumes->ops->remove(volumes, p.id, NULL);
}

/* --- verify -------------------------------------------------------------------------------------
 */

static int step_verify(struct job *j, struct err **e)
{
        struct backup_progress progress = backup_progress(j);
        struct backup_service *s;
        struct plan p;
        int r = backup_service(j->c, &s, e);

        if (r == 0)
                r = plan_get(j, &p, e);
        return r < 0 ? r : s->ops->verify(s, p.target, p.id, &progress, e);
}

static int done_verify(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        char text[CLOCK_TEXT_MAX];

        if (o)
                txn_set_str(t, o, "verified", clock_format(text, clock_now()));
        return 0;
}

static void failed_verify(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && err && err->code == -EBADMSG)
                txn_set_str(t, o, "verified", err->msg);
}

static const struct job_step create_steps[] = {
        {"snapshot", step_snapshot}, {"copy", step_copy}, {"trim", step_trim}};
static const struct job_step verify_steps[] = {{"verify", step_verify}};

const struct job_def job_backup_create = {.op = "backup.create",
                                          .deadline = WEEK,
                                          .cancellable = true,
                                          .patient = true,
                                          .steps = create_steps,
                                          .nsteps = ARRAY_SIZE(create_steps),
                                          .done = done_create,
                                          .failed = failed_create,
                                          .undo = undo_create};
const struct job_def job_backup_verify = {.op = "backup.verify",
                                          .deadline = WEEK,
                                          .cancellable = true,
                                          .steps = verify_steps,
                                          .nsteps = ARRAY_SIZE(verify_steps),
                                          .done = done_verify,
                                          .failed = failed_verify};
