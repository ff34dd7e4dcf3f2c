/* What is done to a guest that migrates, and to its volumes, on either host. */
#include "control/jobs/move.h"

#include "common/fileio.h"
#include "control/network.h"

enum { PATHS_MAX = DISKS_MAX + 1, FERRY_MEMORY = 32 << 20 };

/* --- volumes of a local pool -------------------------------------------------------------------
 */

bool volume_goes_along(struct control *c, const struct object *v)
{
        struct collection *l = model_collection(c, v, &kind_snapshot);

        return !(l && l->n) && !volume_encrypted(v) && !volume_shared(c, v) &&
               !object_num(v, "readonly") && volume_holders(v) == 1;
}

struct copies {
        char id[DISKS_MAX][ID_TEXT_SIZE], target[DISKS_MAX][16];
        uint64_t size[DISKS_MAX];
        unsigned n;
};

/* Those of the target, in a pool of this host or (foreign) of another. */
static void find_copies(struct job *j, bool foreign, struct copies *ret)
{
        struct object *o;

        ret->n = 0;
        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        for (unsigned i = 0; o && i < o->nlinks && ret->n < DISKS_MAX; i++) {
                const struct object *v = o->links[i].target;

                if (v->kind != &kind_volume || !volume_local(v) ||
                    streq(object_str(v, "host"), j->c->cfg.host) == foreign)
                        continue;
                id_text(ret->id[ret->n], v->id);
                snprintf(ret->target[ret->n], sizeof(ret->target[0]), "%s", o->links[i].name);
                ret->size[ret->n++] = object_num(v, "actual");
        }
        control_unlock(j->c);
}

bool instance_has_local(const struct object *o)
{
        for (unsigned i = 0; i < o->nlinks; i++)
                if (o->links[i].target->kind == &kind_volume && volume_local(o->links[i].target))
                        return true;
        return false;
}

int copies_make(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct copies v;
        int r = 0;

        find_copies(j, true, &v);
        for (unsigned i = 0; i < v.n && r == 0; i++) {
                r = s->ops->create(s, v.id[i], v.size[i], e);
                if (r == -EEXIST) { /* left of an earlier try */
                        *e = err_free(*e);
                        r = s->ops->remove(s, v.id[i], e);
                        if (r == 0)
                                r = s->ops->create(s, v.id[i], v.size[i], e);
                }
        }
        return r;
}

int copies_drop(struct job *j, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct copies v;
        int r = 0;

        find_copies(j, true, &v);
        for (unsigned i = 0; i < v.n && r == 0; i++)
                r = s->ops->remove(s, v.id[i], e);
        return r;
}

void copies_came(struct txn *t, struct object *o, const char *from, const char *to)
{
        for (unsigned i = 0; i < o->nlinks; i++) {
                struct object *v = o->links[i].target;

                if (v->kind == &kind_volume && volume_local(v) &&
                    streq(object_str(v, "host"), from))
                        txn_set_str(t, v, "host", to);
        }
}

/* --- what the call needs -----------------------------------------------------------------------
 */

struct voyage {
        struct job *j;
        struct plan p; /* as it is here */
        struct guest_path paths[PATHS_MAX];
        struct guest_move m;
        struct copies copies;
        const char *copy[DISKS_MAX];
        char *text; /* the other host's paths */
        char *to, *data;
        const char *dest; /* the other host */
        bool stopping;    /* the daemon, not the migration */
        bool lost;        /* that host */
};

static void voyage_done(struct voyage *v)
{
        plan_done(&v->p);
        free(v->text);
        free(v->to);
        free(v->data);
}

static const char *disk_socket(const struct voyage *v, const char *target)
{
        for (unsigned i = 0; i < v->p.g.ndisks; i++)
                if (streq(v->p.disks[i].target, target))
                        return v->p.socket[i];
        return NULL;
}

/* The lines of migrate.c's describe_arrival(); the text is cut up. */
static void read_arrival(struct voyage *v)
{
        char *rest = v->text, *line;

        while ((line = strsep(&rest, "\n"))) {
                struct guest_path *x = &v->paths[v->m.npaths];
                char *target, *what = strsep(&line, " ");

                if (!line || v->m.npaths == PATHS_MAX)
                        continue;
                if (streq(what, "dir")) {
                        *x = (struct guest_path){v->p.dir, line};
                } else {
                        target = strsep(&line, " ");
                        *x = (struct guest_path){disk_socket(v, target), line};
                }
                if (x->from && x->to && !streq(x->from, x->to))
                        v->m.npaths++;
        }
        v->m.paths = v->paths;
}

static int say_progress(void *arg, uint64_t done, uint64_t total)
{
        struct voyage *v = arg;
        int r;

        job_progress(v->j, done, total);
        r = job_cancelled(v->j, NULL);
        v->stopping |= r == -EINTR;
        control_rdlock(v->j->c);
        v->lost |= !host_holds(v->j->c, v->dest);
        control_unlock(v->j->c);
        return r == 0 && v->lost ? -EHOSTDOWN : r;
}

static int activate(struct job *j, const struct plan *p, bool active, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        int r = 0;

        for (unsigned i = 0; i < p->g.ndisks; i++) {
                int one = p->disks[i].readonly || p->disks[i].shared
                                  ? 0
                                  : s->ops->activate(s, p->volume[i], active, r < 0 ? NULL : e);

                r = r < 0 ? r : one;
        }
        return r;
}

/* What does not let go now does so when the guest's QEMU ends. */
static void halted(void *arg)
{
        _cleanup_err_ struct err *err = NULL;
        struct voyage *v = arg;

        if (activate(v->j, &v->p, false, &err) < 0)
                log_warning("guest %s: %s", v->p.g.uuid, err_msg(err));
        if (v->p.g.nnics)
                networks_leave(v->j->c, v->j->target, true);
}

static enum guest_late late(const struct object *h)
{
        const char *s = object_str(h, "migration_late");

        return streq(s, "pause")       ? GUEST_LATE_PAUSE
               : streq(s, "post-copy") ? GUEST_LATE_POSTCOPY
                                       : GUEST_LATE_ABORT;
}

/* As the two hosts' records say.  -EHOSTDOWN. */
static int find_way(struct voyage *v, const struct trip *t, struct err **e)
{
        struct control *c = v->j->c;
        const struct object *here, *there;

        control_rdlock(c);
        here = host_find(c, t->from);
        there = host_find(c, t->to);
        if (here && there && host_holds(c, t->to)) {
                v->to = *object_str(there, "migration_uri")
                                ? xstrdup(object_str(there, "migration_uri"))
                                : path_printf("qemu+tls://%s/system", t->to);
                v->data = xstrdup(object_str(there, "migration_data"));
                v->m.tls = object_num(there, "migration_tls");
                v->m.seconds = object_num(here, "migration_seconds") ?: 600;
                v->m.late = late(here);
        }
        control_unlock(c);
        v->m.to = v->to;
        v->m.data = v->data;
        return v->to ? 0 : err_set(e, -EHOSTDOWN, "host '%s' died", t->to);
}

/* --- the guest ---------------------------------------------------------------------------------
 */

static int depart(struct job *j, const struct trip *t, struct compute *compute, struct voyage *v,
                  struct err **e)
{
        int r = find_way(v, t, e);

        networks_leave(j->c, j->target, false); /* as of a try that was cut off */
        if (r == 0)
                r = plan_guest(j, &v->p, e);
        if (r == 0)
                r = plan_exports(j, &v->p, e); /* they are there: it says where */
        if (r == 0) /* a try that was cut off may have shut them; the image's lock arbitrates */
                r = activate(j, &v->p, true, e);
        if (r == -ECONNREFUSED)
                return -EAGAIN;
        if (r < 0)
                return r;
        v->text = xstrdup(t->arrival);
        read_arrival(v);
        find_copies(j, false, &v->copies);
        for (unsigned i = 0; i < v->copies.n; i++)
                v->copy[i] = v->copies.target[i];
        v->m.copy = v->copy;
        v->m.ncopy = v->copies.n;
        v->dest = t->to;
        v->m.progress = say_progress;
        v->m.halted = halted;
        v->m.arg = v;
        r = compute->ops->migrate(compute, t->id, &v->m, e);
        if (r < 0 && v->lost && !v->stopping) {
                *e = err_free(*e);
                return err_set(e, -EHOSTDOWN, "host '%s' died", t->to);
        }
        return r < 0 && v->stopping ? -EINTR : r;
}

/* As little of a guest as there can be.  Processors of the host are none of its business. */
static void make_ferry(struct plan *p)
{
        const struct guest all = p->g;

        p->g = (struct guest){.name = all.name,
                              .title = all.title,
                              .vcpus = 1,
                              .memory = FERRY_MEMORY,
                              .uid = all.uid,
                              .gid = all.gid,
                              .disks = all.disks,
                              .ndisks = all.ndisks,
                              .console_sock = all.console_sock,
                              .hypervisor = all.hypervisor,
                              .scsi = all.scsi,
                              .held = true};
        snprintf(p->g.uuid, sizeof(p->g.uuid), "%s", all.uuid);
}

int load_ferry(struct job *j, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        struct compute *compute;
        int r = plan_guest(j, &p, e);

        if (r == 0)
                r = mkdir_parents(p.dir, 0711, e);
        if (r == 0)
                r = plan_exports(j, &p, e);
        if (r == 0)
                r = instance_compute(j, &compute, e);
        if (r < 0)
                return r;
        make_ferry(&p);
        return compute->ops->start(compute, &p.g, e);
}

int move_guest(struct job *j, const struct trip *t, const char **left, struct err **e)
{
        _cleanup_(voyage_done) struct voyage v = {.j = j};
        _cleanup_err_ struct err *err = NULL;
        struct compute *compute;
        enum guest_state s;
        struct facts f;
        int r = instance_look(j, &compute, &f, &s, e), looked;

        *left = "stayed";
        if (r < 0)
                return r;
        if (s != GUEST_GONE && s != GUEST_BETWEEN && s != GUEST_CRASHED)
                r = depart(j, t, compute, &v, &err);
        if (r == -EINTR || r == -EAGAIN) {
                err_move(e, TAKE_PTR(err));
                return r;
        }
        looked = instance_look(j, &compute, &f, &s, e);
        if (looked < 0) /* the engine went meanwhile: look again when it is back */
                return looked;
        *left = s == GUEST_GONE ? "gone" : s == GUEST_BETWEEN ? "between" : "stayed";
        if (r == -ENOENT || (s == GUEST_GONE && r < 0)) /* where it is the other host says */
                return 0;
        if (r == -ECONNREFUSED) /* ours answers: it is the other host's that does not */
                r = err_prepend(&err, -EHOSTUNREACH, "host '%s'", t->to);
        err_move(e, TAKE_PTR(err));
        return r;
}

void seat_it(struct job *j, struct compute *compute, const struct trip *t)
{
        enum guest_state s;

        if (compute->ops->state(compute, t->id, &s, NULL) == 0 && s == GUEST_RUNNING)
                compute->ops->resume(compute, t->id, NULL);
}

/* --- afterwards --------------------------------------------------------------------------------
 */

void drop_files(struct job *j)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *dir = NULL;
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        dir = o ? instance_dir(j->c, o) : NULL;
        control_unlock(j->c);
        if (dir && remove_tree(dir, &err) < 0)
                log_warning("%s", err_msg(err));
}

int leave(struct job *j, const struct trip *t, struct err **e)
{
        struct compute *compute;
        int r = 0;

        networks_leave(j->c, j->target, false);
        if (t->ferried) {
                r = instance_compute(j, &compute, e);
                if (r == 0)
                        r = compute->ops->destroy(compute, t->id, e);
                if (r == 0)
                        r = instance_unexport(j, e);
                if (r == 0)
                        r = networks_apply_for(j->c, j->target, e);
                if (r == 0)
                        r = copies_drop(j, e);
        }
        if (r == 0)
                drop_files(j);
        return r;
}

int stay(struct job *j, const struct trip *t, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {};
        struct compute *compute;
        enum guest_state s;
        struct facts f;
        int r;

        if (!t->ferried)
                return 0;
        networks_leave(j->c, j->target, false); /* the keeper sees to it when this job ends */
        r = instance_look(j, &compute, &f, &s, e);
        if (r == 0 && !t->live) {
                r = compute->ops->destroy(compute, t->id, e);
                return r < 0 ? r : instance_unexport(j, e);
        }
        if (r < 0)
                return r;
        j->value = s;
        if (s == GUEST_GONE)
                return 0;
        r = plan_guest(j, &p, e);
        if (r == 0)
                r = activate(j, &p, true, e);
        if (r == 0 && s == GUEST_BETWEEN)
                r = compute->ops->resume(compute, t->id, e);
        return r;
}
