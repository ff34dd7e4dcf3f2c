/* The reconciler: desired and actual.
 *
 * Guests die, are paused by somebody's virsh, or outlive the daemon.  What the engine tells is
 * queued here and put down by a sync job of the instance; once a minute, while guests run, what the
 * engine holds is compared with the model, in case a word was lost.  It also carries the limits of
 * a volume type that changed to its volumes, which are of many tenants. */
#include "control/jobs/jobs.h"

enum { LOOK_US = 60 * 1000000LL, DRAIN_US = 1000000, QUEUE_MAX = 1024, LEFT_MAX = 64 };

/* A device that its guest let go of when nobody waited for that any more. */
struct left {
        uint64_t no;
        char device[20];
};

struct reconciler {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop, all, limits, groups, deleted;
        bool back;  /* the engine was away: what it has then is looked at even if nothing should run
                     */
        bool drain; /* look whether this host drains, and what is left there */
        uint64_t queue[QUEUE_MAX]; /* instances to look at */
        unsigned n;
        struct left left[LEFT_MAX];
        unsigned nleft;
};

/* Lock not held. */
static void queue_look(struct control *c, uint64_t no)
{
        struct reconciler *r = c->reconciler;

        WITH_LOCK(&r->lock);
        if (no && r->n < QUEUE_MAX)
                r->queue[r->n++] = no;
        else
                r->all = true;
        pthread_cond_signal(&r->cond);
}

void control_guest_changed(struct control *c, const char *uuid)
{
        struct object *o = NULL;
        sd_id128_t id;
        uint64_t no = 0;

        if (id_parse(uuid, &id) < 0)
                return;
        control_rdlock(c);
        o = model_by_id(c, id);
        if (o && o->kind == &kind_instance)
                no = o->no;
        control_unlock(c);
        if (!no)
                return;      /* a guest of somebody else */
        jobs_changed(c, no); /* a stop that waits for it */
        queue_look(c, no);
}

/* So many at once that there is no room: their links lead to nothing until the guest is off. */
void control_guest_left(struct control *c, const char *uuid, const char *device)
{
        struct reconciler *r = c->reconciler;
        struct object *o = NULL;
        sd_id128_t id;
        uint64_t no = 0;

        if (!r || id_parse(uuid, &id) < 0)
                return;
        control_rdlock(c);
        o = model_by_id(c, id);
        if (o && o->kind == &kind_instance)
                no = o->no;
        control_unlock(c);
        WITH_LOCK(&r->lock);
        if (!no || r->nleft == LEFT_MAX)
                return;
        r->left[r->nleft].no = no;
        snprintf(r->left[r->nleft++].device, sizeof(r->left->device), "%s", device);
        pthread_cond_signal(&r->cond);
}

static bool is_device(const struct link *l, const char *device)
{
        return l->target->kind == &kind_volume ? streq(l->name, device)
               : l->target->kind == &kind_port ? streq(object_str(l->target, "mac"), device)
                                               : false;
}

/* As if its link were removed now: the job finds the device gone.  The one that gives it back may
 * not have ended yet: then this one comes after it. */
static void take_left(struct control *c, const struct left *left)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, left->no);
        for (unsigned i = 0; o && feed_ours(c, o) && i < o->nlinks; i++) {
                struct link *l = &o->links[i];
                bool disk = l->target->kind == &kind_volume;
                char id[ID_TEXT_SIZE];

                if (!is_device(l, left->device))
                        continue;
                txn_edit(&t, o);
                l = &o->links[i];
                l->leaving = true;
                snprintf(id, sizeof(id), "%s", l->id);
                if (disk && object_in(l->target, STATE(VOLUME_IN_USE)))
                        txn_set_state(&t, l->target, VOLUME_DETACHING);
                txn_event(&t, o, "the guest let go of %s after all", l->name);
                job_start(&t, o, disk ? &job_instance_detach : &job_instance_unplug, id);
                break;
        }
        txn_commit(&t, NULL);
}

void reconcile_limits(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r) /* a cloud in the making; a start looks at all of them */
                return;
        WITH_LOCK(&r->lock);
        r->limits = true;
        pthread_cond_signal(&r->cond);
}

void reconcile_deleted(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r)
                return;
        WITH_LOCK(&r->lock);
        r->deleted = true;
        pthread_cond_signal(&r->cond);
}

void reconcile_hosts(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r)
                return;
        WITH_LOCK(&r->lock);
        r->drain = true;
        pthread_cond_signal(&r->cond);
}

void reconcile_groups(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r) /* a start looks after them */
                return;
        WITH_LOCK(&r->lock);
        r->groups = true;
        pthread_cond_signal(&r->cond);
}

void control_guests_resync(struct control *c)
{
        {
                WITH_LOCK(&c->reconciler->lock);
                c->reconciler->back = true;
        }
        queue_look(c, 0);
}

/* stray: the engine has a guest of it.  One that was adopted others may start, too. */
static bool wants_look(struct control *c, const struct object *o, bool stray)
{
        bool may;

        if (!o || o->kind != &kind_instance || !feed_ours(c, o))
                return false;
        may = !o->nameless && !o->jobs && (stray || object_num(o, "adopted"));
        if (!object_in(o, INSTANCE_RUNS) && !(object_in(o, INSTANCE_OFF) && may))
                return false;
        return !o->jobs || !job_live(c, o->no, &job_instance_sync);
}

static void look_at(struct control *c, uint64_t no, bool stray)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (!wants_look(c, o, stray)) {
                txn_abort(&t);
                return;
        }
        job_start(&t, o, &job_instance_sync, NULL);
        txn_commit(&t, NULL);
}

/* Numbers of the instances that should be running; the caller frees. */
static uint64_t *live_instances(struct control *c, size_t *ret_n)
{
        uint64_t *v = NULL;
        struct object *o, *tmp;
        size_t n = 0;

        control_rdlock(c);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (o->kind != &kind_instance || !object_in(o, INSTANCE_RUNS) ||
                    !wants_look(c, o, false))
                        continue;
                v = xrealloc(v, n + 1, sizeof(*v));
                v[n++] = o->no;
        }
        control_unlock(c);
        *ret_n = n;
        return v;
}

struct seen {
        struct control *c;
        uint64_t *agreed; /* instances whose state the engine confirms */
        size_t n;
        uint64_t *stray; /* those whose guest should not be there */
        size_t nstray;
};

static int see_guest(void *arg, const char *uuid, enum guest_state s)
{
        struct seen *w = arg;
        struct object *o;
        sd_id128_t id;

        if (id_parse(uuid, &id) < 0)
                return 0;
        control_rdlock(w->c);
        o = model_by_id(w->c, id);
        if (o && ((object_in(o, INSTANCE_RUNS & ~STATE(INSTANCE_PAUSED)) && s == GUEST_RUNNING) ||
                  (o->state == INSTANCE_PAUSED && s == GUEST_PAUSED))) {
                w->agreed = xrealloc(w->agreed, w->n + 1, sizeof(*w->agreed));
                w->agreed[w->n++] = o->no;
        }
        if (o && s != GUEST_GONE && object_in(o, INSTANCE_OFF) && wants_look(w->c, o, true)) {
                w->stray = xrealloc(w->stray, w->nstray + 1, sizeof(*w->stray));
                w->stray[w->nstray++] = o->no;
        }
        control_unlock(w->c);
        return 0;
}

/* Compares, and starts a sync where the engine says something else.  Jobs are not made for what
 * agrees: a quiet cloud writes nothing. */
static size_t look_at_all(struct control *c, bool anyway)
{
        struct seen w = {.c = c};
        struct compute *engines[ENGINES];
        size_t n, nengines = 0;
        uint64_t *v = live_instances(c, &n);

        if (n || anyway)
                compute_engines(c, engines, &nengines, NULL);
        for (size_t i = 0; i < nengines; i++)
                engines[i]->ops->list(engines[i], see_guest, &w, NULL);
        for (size_t i = 0; i < n; i++) {
                bool agreed = false;

                for (size_t k = 0; k < w.n && !agreed; k++)
                        agreed = w.agreed[k] == v[i];
                if (!agreed)
                        look_at(c, v[i], false);
        }
        for (size_t i = 0; i < w.nstray; i++)
                look_at(c, w.stray[i], true);
        free(w.stray);
        free(w.agreed);
        free(v);
        return n;
}

/* Those that could not go are asked again now and then. */
static bool drain_turn(struct control *c, int64_t *asked)
{
        bool again = clock_mono() > *asked + LOOK_US;

        if (again)
                *asked = clock_mono();
        return drain_look(c, again);
}

static void *reconcile_main(void *arg)
{
        struct control *c = arg;
        struct reconciler *r = c->reconciler;
        int64_t asked = 0, due = 0;
        bool draining = false;
        size_t live = 1;

        pthread_mutex_lock(&r->lock);
        while (!r->stop) {
                struct timespec ts =
                        clock_timespec(MIN(due, clock_mono() + (draining ? DRAIN_US : LOOK_US)));
                bool late = false, anyway;

                while (!r->stop && !r->all && !r->n && !r->nleft && !r->limits && !r->groups &&
                       !r->drain && !r->deleted && !late) {
                        if (live || draining || due != INT64_MAX)
                                late = pthread_cond_timedwait(&r->cond, &r->lock, &ts) != 0;
                        else
                                pthread_cond_wait(&r->cond, &r->lock);
                }
                if (r->stop)
                        break;
                if (r->n) {
                        uint64_t no = r->queue[--r->n];

                        pthread_mutex_unlock(&r->lock);
                        look_at(c, no, false);
                        pthread_mutex_lock(&r->lock);
                        live = 1;
                        continue;
                }
                if (r->nleft) {
                        struct left left = r->left[--r->nleft];

                        pthread_mutex_unlock(&r->lock);
                        take_left(c, &left);
                        pthread_mutex_lock(&r->lock);
                        continue;
                }
                if (r->drain || (draining && late)) {
                        int64_t before = asked;

                        r->drain = false;
                        pthread_mutex_unlock(&r->lock);
                        draining = drain_turn(c, &asked);
                        pthread_mutex_lock(&r->lock);
                        r->all |= draining && asked != before; /* the minute is over for both */
                        continue;
                }
                if (r->limits) {
                        r->limits = false;
                        pthread_mutex_unlock(&r->lock);
                        volume_limits_due_all(c);
                        pthread_mutex_lock(&r->lock);
                        continue;
                }
                if (r->groups) {
                        r->groups = false;
                        pthread_mutex_unlock(&r->lock);
                        tenant_groups(c);
                        pthread_mutex_lock(&r->lock);
                        continue;
                }
                if (r->deleted || clock_mono() >= due) {
                        r->deleted = false;
                        pthread_mutex_unlock(&r->lock);
                        due = instances_reclaim(c);
                        pthread_mutex_lock(&r->lock);
                        continue;
                }
                anyway = r->back;
                r->all = r->back = false;
                pthread_mutex_unlock(&r->lock);
                live = look_at_all(c, anyway);
                if (live)
                        consoles_trim(c);
                pthread_mutex_lock(&r->lock);
        }
        pthread_mutex_unlock(&r->lock);
        return NULL;
}

int reconcile_start(struct control *c, struct err **e)
{
        struct reconciler *r = xcalloc(1, sizeof(*r));
        pthread_condattr_t a;

        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&r->lock, NULL);
        pthread_cond_init(&r->cond, &a);
        pthread_condattr_destroy(&a);
        c->reconciler = r;
        r->all = true; /* guests may have run, or died, while we were away */
        r->groups = feed_shared(c);
        r->drain = true;
        r->limits = true; /* a type may have changed just before the end */
        r->running = pthread_create(&r->thread, NULL, reconcile_main, c) == 0;
        return r->running ? 0 : err_set(e, -EAGAIN, "no thread for the reconciler");
}

void reconcile_stop(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r)
                return;
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_signal(&r->cond);
        pthread_mutex_unlock(&r->lock);
        if (r->running)
                pthread_join(r->thread, NULL);
        r->running = false;
}

void reconcile_free(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r)
                return;
        pthread_cond_destroy(&r->cond);
        pthread_mutex_destroy(&r->lock);
        free(r);
        c->reconciler = NULL;
}
