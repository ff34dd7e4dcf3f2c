/* The reconciler: desired and actual.
 *
 * Guests die, are paused by somebody's virsh, or outlive the daemon.  What the engine tells is
 * queued here and put down by a sync job of the instance; once a minute, while guests run, what the
 * engine holds is compared with the model, in case a word was lost.  It also carries the limits of
 * a volume type that changed to its volumes, which are of many tenants. */
#include "control/jobs/jobs.h"

enum { LOOK_US = 60 * 1000000LL, QUEUE_MAX = 1024 };

struct reconciler {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop, all, limits;
        bool back; /* the engine was away: what it has then is looked at even if nothing should run
                    */
        uint64_t queue[QUEUE_MAX]; /* instances to look at */
        unsigned n;
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

void reconcile_limits(struct control *c)
{
        struct reconciler *r = c->reconciler;

        if (!r) /* a cloud in the making; a start looks at all of them */
                return;
        WITH_LOCK(&r->lock);
        r->limits = true;
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
        struct compute *compute;
        size_t n;
        uint64_t *v = live_instances(c, &n);

        if ((n || anyway) && c->cfg.compute(c->cfg.arg, &compute, NULL) == 0)
                compute->ops->list(compute, see_guest, &w, NULL);
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

static void *reconcile_main(void *arg)
{
        struct control *c = arg;
        struct reconciler *r = c->reconciler;
        size_t live = 1;

        pthread_mutex_lock(&r->lock);
        while (!r->stop) {
                struct timespec ts = clock_timespec(clock_mono() + LOOK_US);
                bool late = false, anyway;

                while (!r->stop && !r->all && !r->n && !r->limits && !late) {
                        if (live)
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
                if (r->limits) {
                        r->limits = false;
                        pthread_mutex_unlock(&r->lock);
                        volume_limits_due_all(c);
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
        r->all = true;    /* guests may have run, or died, while we were away */
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
