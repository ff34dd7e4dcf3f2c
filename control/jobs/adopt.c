/* A volume that nobody has written yet becomes a clone in place: what `cp images/x/disk
 * volumes/v/data` comes to.  Its bytes are removed and cloned anew under its id, so a crash or a
 * failure between leaves the job, which makes them again.  Where that cannot be (it was written,
 * somebody has it open) the job ends without having done anything, and the copy is made of bytes.
 */
#include "control/jobs/jobs.h"

enum { TRIES = 50, TRY_US = 20000 }; /* a connection that was closed is gone a moment later */
enum { ADOPTED = TRIES + 1 };

struct pair {
        char id[ID_TEXT_SIZE], parent[ID_TEXT_SIZE];
        uint64_t size;
};

static int pair_get(struct job *j, struct pair *ret, struct err **e)
{
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        if (o) {
                id_text(ret->id, o->id);
                ret->size = object_num(o, "actual");
        }
        control_unlock(j->c);
        snprintf(ret->parent, sizeof(ret->parent), "%s", j->args);
        return o ? 0 : err_set(e, -ENOENT, "it is gone");
}

/* 1: blank or not there (we removed it); 0: it is the clone already; -EEXIST: it has bytes. */
static int look(struct job *j, const struct pair *p, bool *there, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *err = NULL;
        struct volume_facts f;
        int r = s->ops->stat(s, p->id, &f, &err);

        *there = r == 0;
        if (r == -ENOENT)
                return 1;
        if (r < 0)
                return err_move(e, TAKE_PTR(err));
        if (streq(f.parent, p->parent))
                return 0;
        return *f.parent || f.used ? -EEXIST : 1;
}

static int step_adopt(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        _cleanup_err_ struct err *why = NULL;
        struct pair p;
        bool there;
        int r = pair_get(j, &p, e);

        if (r == 0)
                r = look(j, &p, &there, e);
        if (r == -EEXIST) {
                j->value = 0;
                return 0;
        }
        if (r < 0)
                return r;
        if (r == 1 && there) {
                r = s->ops->remove(s, p.id, &why);
                if (r == -EBUSY && ++j->value < TRIES)
                        return job_wait(j, 0, TRY_US, "it is open");
                if (r == -EBUSY) {
                        j->value = 0;
                        return 0;
                }
                if (r < 0)
                        return err_move(e, TAKE_PTR(why));
        }
        r = volume_place_new(j, p.id, e);
        if (r == 0)
                r = s->ops->clone(s, p.id, p.parent, p.size, e);
        j->value = ADOPTED;
        return r;
}

/* It must not end without bytes. */
static int undo(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct pair p;
        bool there;
        int r = pair_get(j, &p, NULL);

        if (r == 0)
                r = look(j, &p, &there, NULL);
        if (r == 1 && !there && (r = volume_place_new(j, p.id, NULL)) == 0)
                return s->ops->create(s, p.id, p.size, NULL);
        return r < 0 && r != -EEXIST ? r : 0;
}

static void to_rest(struct txn *t, struct object *o)
{
        if (o && o->state == VOLUME_CREATING)
                txn_set_state(t, o, volume_rest(o));
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        struct object *parent;
        sd_id128_t id;

        if (!o || o->state != VOLUME_CREATING)
                return 0;
        if (j->value == ADOPTED && id_parse(j->args, &id) == 0) {
                parent = model_by_id(t->c, id);
                txn_set_num(t, o, "adopted", parent ? parent->no : 0);
                if (parent && volume_source_boots(parent))
                        txn_set_num(t, o, "bootable", 1);
                if (parent && parent->tenant == o->tenant && !parent->nameless)
                        txn_link(t, o, kind_link(o->kind, "source"), "source", parent);
        }
        to_rest(t, o);
        if (object_num(o, "size") > object_num(o, "actual")) { /* told to grow meanwhile */
                txn_set_state(t, o, VOLUME_EXTENDING);
                job_start(t, o, &job_volume_extend, NULL);
        }
        volume_limits_due(t, o);
        return 0;
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        to_rest(t, o);
}

static const struct job_step steps[] = {{"adopt", step_adopt}};

const struct job_def job_volume_adopt = {.op = "volume.adopt",
                                         .deadline = 600,
                                         .patient = true,
                                         .steps = steps,
                                         .nsteps = ARRAY_SIZE(steps),
                                         .done = done,
                                         .failed = failed,
                                         .undo = undo};

/* --- what the mount asks --------------------------------------------------------------------- */

static uint64_t bytes_of(const struct object *o)
{
        return object_num(o, o->kind == &kind_image ? "virtual_size" : "size");
}

static bool near(const struct control *c, const struct object *a, const struct object *b)
{
        char x[POOL_SIZE], y[POOL_SIZE];

        pool_of(c, a, x);
        pool_of(c, b, y);
        return pool_same(c, x, y);
}

/* Nothing is known of it but that it is blank, perhaps, and that its one writer asks. */
static bool may_adopt(struct txn *t, const struct object *o, const struct object *parent)
{
        return o->kind == &kind_volume && o->state == VOLUME_AVAILABLE && !o->nameless &&
               !parent->nameless && o->writers == 1 && o->nrefs == 0 && o->nlinks == 0 &&
               volume_check_snapshots(t, o, NULL) == 0 && !volume_encrypted(o) &&
               !volume_encrypted(parent) && bytes_of(parent) <= object_num(o, "size") &&
               object_num(o, "size") == object_num(o, "actual") &&
               near(t->c, o, parent);
}

int control_adopt(struct control *c, uint64_t no, uint64_t from, struct err **e)
{
        struct object *o, *parent;
        char id[ID_TEXT_SIZE];
        struct txn t;
        int r;

        txn_begin(&t, c, NULL);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = find_object(c, from, &parent, e);
        if (r == 0 && !may_adopt(&t, o, parent))
                r = err_set(e, -ENOTSUP, "it cannot become a clone now");
        if (r == 0) {
                txn_set_num(&t, o, "adopted", 0);
                txn_set_state(&t, o, VOLUME_CREATING);
                job_start(&t, o, &job_volume_adopt, id_text(id, parent->id));
        }
        return txn_end(&t, r, e);
}

bool control_adopted(struct control *c, uint64_t no, uint64_t from)
{
        struct object *o;
        bool yes;

        control_rdlock(c);
        o = model_by_no(c, no);
        yes = o && object_num(o, "adopted") == from;
        control_unlock(c);
        return yes;
}
