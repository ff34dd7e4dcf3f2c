/* Taking over from a host that is lost, and standing down when one is lost oneself.
 *
 * Others: fence it, so that nothing it has under way can land; then move what it ran, one guarded
 * commit an object; then write `down` into its record.  Any host may do any of it at any time, also
 * two at once: every step is repeatable and guarded by versions.
 * The lost host, once it finds out: no step runs any more, its guests are destroyed and its exports
 * closed, and then, when nothing in the store is its own any more, it begins a new life. */
#include "control/jobs/jobs.h"

#include "control/hosts.h"

enum { TICK_US = 500000, ROUNDS = 8 };

struct takeover {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop, woken;
        bool renewed; /* standing down: the volume service is connected anew; the thread's own */
        char *said;   /* why standing down does not succeed: once is enough; the thread's own */
};

void takeover_wake(struct control *c)
{
        struct takeover *k = c->takeover;

        if (!k)
                return;
        WITH_LOCK(&k->lock);
        k->woken = true;
        pthread_cond_signal(&k->cond);
}

/* --- what it ran ----------------------------------------------------------------------------- */

/* A job that can only run beside a pool of that host waits for it to come back. */
static bool bound_to(struct control *c, const struct object *job, const char *host)
{
        const struct object *v = model_by_no(c, object_num(job, "target_no"));
        const char *to = strrchr(object_str(job, "args"), ' ');

        /* It copies into that host's files. */
        if (streq(object_str(job, "op"), job_volume_retype.op) && to && streq(to + 1, "local"))
                return true;
        if (v && v->kind == &kind_snapshot)
                v = v->holder;
        return v && v->kind == &kind_volume && volume_local(v) &&
               streq(object_str(v, "host"), host);
}

/* It died with that host, and its admin wants it back. */
static bool evacuated(struct control *c, const struct object *o, const char *host)
{
        const struct object *h = host_find(c, host);

        return o->state == INSTANCE_ERROR && h && object_num(h, "evacuate") &&
               streq(object_str(o, "died_with"), host);
}

/* Whether o is to be taken over from that host.  Model held. */
static bool left_by(struct control *c, const struct object *o, const char *host)
{
        if (o->kind == &kind_job)
                return o->kind->states[o->state].transient && streq(object_str(o, "host"), host) &&
                       !bound_to(c, o, host);
        if (o->kind == &kind_instance)
                return host_has(o, host) || evacuated(c, o, host);
        if (o->kind == &kind_image) /* bytes that came in there */
                return o->state == IMAGE_SAVING && !o->jobs && streq(object_str(o, "host"), host);
        return o->kind == &kind_tenant && streq(object_str(o, "keeper"), host);
}

static void move_job(struct txn *t, struct object *o)
{
        struct object *target = model_by_no(t->c, object_num(o, "target_no"));

        txn_set_str(t, o, "host", t->c->cfg.host);
        txn_set_num(t, o, "epoch", t->c->epoch);
        if (!streq(object_str(o, "op"), job_instance_start.op))
                return;
        txn_set_num(t, o, "step", 0); /* it is placed anew */
        txn_set_str(t, o, "placed", NULL);
        if (target && target->state == INSTANCE_STARTING) {
                txn_set_str(t, target, "host", t->c->cfg.host);
                txn_set_num(t, target, "claim", 0);
        }
}

/* Whether its job, which is here now, ends what it was at: the guest is off then, as it was to be.
 */
static bool goes_on(const struct object *o)
{
        return o->kind->states[o->state].transient &&
               !object_in(o, STATE(INSTANCE_REBOOTING) | STATE(INSTANCE_SUSPENDING) |
                                     STATE(INSTANCE_RESUMING) | STATE(INSTANCE_MIGRATING));
}

/* The step that its job of that op has reached; -1: it has none. */
static int step_of(struct control *c, const struct object *o, const struct job_def *def)
{
        for (const struct object *j = c->by_no; j; j = j->hh_no.next)
                if (j->kind == &kind_job && j->kind->states[j->state].transient &&
                    object_num(j, "target_no") == o->no && streq(object_str(j, "op"), def->op))
                        return object_num(j, "step");
        return -1;
}

/* Its memory is in a file there, and no guest was let go on from it: it stays suspended, there.
 * A job's step is written before the step begins. */
static bool saved_there(struct control *c, const struct object *o)
{
        return o->state == INSTANCE_SUSPENDING
                       ? step_of(c, o, &job_instance_suspend) > 0
                       : o->state == INSTANCE_RESUMING && step_of(c, o, &job_instance_restore) == 0;
}

/* It was on its way to another host, and may have come there: that host looks. */
static bool arrives(struct txn *t, struct object *o, const char *host)
{
        const char *to = object_str(o, "moving_to");

        if (o->state != INSTANCE_MIGRATING || streq(to, host) || !host_holds(t->c, to))
                return false;
        txn_set_str(t, o, "moving_left", "lost");
        txn_set_str(t, o, "host", to);
        return true;
}

/* It ended with its host, and says so. */
static void write_off(struct txn *t, struct object *o, const char *host, const char *hint)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *rec = NULL;
        struct buf path = {};

        render_path(t->c, o, &path);
        err_set(&err, -EHOSTDOWN, "its host '%s' died", host);
        err_hint(&err, -EHOSTDOWN, "%s", hint);
        rec = error_record(t->c, NULL, "takeover", buf_str(&path), -EHOSTDOWN, err);
        txn_set_error(t, o, rec);
        txn_set_state(t, o, kind_state(o->kind, "error"));
        buf_done(&path);
}

void instance_died(struct txn *t, struct object *o, const char *host)
{
        const struct object *h = host_find(t->c, host);

        if (*object_str(o, "rooted")) {
                write_off(t, o, host, "its root is there; once it is back: echo reboot hard > ctl");
                txn_set_str(t, o, "died_with", host);
                return;
        }
        if (streq(object_str(o, "restart"), "elsewhere") || (h && object_num(h, "evacuate"))) {
                txn_set_str(t, o, "host", t->c->cfg.host);
                job_start(t, o, &job_instance_start, "stopped");
                txn_set_state(t, o, INSTANCE_STARTING);
                return;
        }
        write_off(t, o, host,
                  "echo reboot hard > ctl boots it on another host; restart=elsewhere does so by "
                  "itself");
        txn_set_str(t, o, "died_with", host);
}

/* Its guest is no more. */
static void move_instance(struct txn *t, struct object *o, const char *host)
{
        txn_event(t, o, "its host %s died", host);
        txn_set_str(t, o, "stalled", NULL);
        txn_set_num(t, o, "claim", 0);
        if (saved_there(t->c, o)) {
                txn_set_state(t, o, INSTANCE_SUSPENDED);
                return;
        }
        if (arrives(t, o, host))
                return;
        if (o->state == INSTANCE_MIGRATING && streq(object_str(o, "moving"), "stopped")) {
                instance_stays_off(t, o);
                return;
        }
        if (goes_on(o)) {
                txn_set_str(t, o, "host", t->c->cfg.host);
                return;
        }
        instance_died(t, o, host);
}

/* One commit an object: they are of different tenants. */
static int move_one(struct control *c, uint64_t no, const char *host, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        t.unleased = streq(host, c->cfg.host);
        o = model_by_no(c, no);
        if (!o || !left_by(c, o, host)) {
                txn_abort(&t);
                return 0;
        }
        if (o->kind == &kind_job)
                move_job(&t, o);
        else if (o->kind == &kind_instance)
                move_instance(&t, o, host);
        else if (o->kind == &kind_image)
                write_off(&t, o, host, "upload it again");
        else
                txn_set_str(&t, o, "keeper", NULL);
        return txn_commit(&t, e);
}

/* Numbers of what is left, jobs first, as the others look at where they are; the caller frees. */
static uint64_t *find_left(struct control *c, const char *host, size_t *ret_n)
{
        uint64_t *v = NULL;
        size_t n = 0;

        control_rdlock(c);
        for (int jobs = 1; jobs >= 0; jobs--)
                for (struct object *o = c->by_no; o; o = o->hh_no.next) {
                        if ((o->kind == &kind_job) != jobs || !left_by(c, o, host))
                                continue;
                        v = xrealloc(v, n + 1, sizeof(*v));
                        v[n++] = o->no;
                }
        control_unlock(c);
        *ret_n = n;
        return v;
}

static int move_found(struct control *c, const char *host, size_t *ret_n, struct err **e)
{
        uint64_t *v = find_left(c, host, ret_n);
        int r = 0;

        for (size_t i = 0; i < *ret_n && r == 0; i++)
                r = AGAIN(c, e, move_one(c, v[i], host, e));
        free(v);
        return r;
}

/* Until nothing is left: others may give it a job before they see that it is down.  What is our own
 * becomes our own again. */
static int move_all(struct control *c, const char *host, struct err **e)
{
        size_t n = 1;
        int r = 0;

        for (unsigned i = 0; i < ROUNDS && n > 0 && r == 0; i++) {
                r = move_found(c, host, &n, e);
                if (streq(host, c->cfg.host))
                        break;
        }
        return r;
}

static int write_down(struct control *c, uint64_t no, uint64_t epoch, struct err **e)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (!o || o->state != HOST_LOST || object_num(o, "lost_epoch") != epoch) {
                txn_abort(&t);
                return 0;
        }
        t.unleased = streq(o->name, c->cfg.host);
        txn_set_num(&t, o, "evacuate", 0);
        txn_set_state(&t, o, HOST_DOWN);
        return txn_commit(&t, e);
}

struct lost_host {
        uint64_t no, epoch;
        char name[NAME_SIZE];
        char *clients;
};

/* From the return on nothing of that life of the host lands any more, in volumes or in the store.
 */
static int fence(struct control *c, const struct lost_host *h, struct err **e)
{
        struct host_fence *f = c->cfg.fence;
        struct store *s = c->cfg.store;
        int r = f ? f->ops->fence(f, h->name, h->epoch, h->clients, e) : 0;

        return r < 0 ? r : s->ops->fence(s, h->epoch, e);
}

/* Gives 0, or -errno: to be tried again. */
static int take_over(struct control *c, const struct lost_host *h)
{
        _cleanup_err_ struct err *err = NULL;
        bool self = streq(h->name, c->cfg.host); /* what it had is gone: nobody is to be fenced */
        int r = self ? 0 : fence(c, h, &err);

        if (r < 0)
                log_error("fence host '%s': %s", h->name, err_msg(err));
        if (r == 0)
                r = move_all(c, h->name, &err);
        if (r == 0)
                r = AGAIN(c, &err, write_down(c, h->no, h->epoch, &err));
        if (r == 0)
                log_info("took over from host '%s'", h->name);
        return r;
}

/* A lost host, the one with the lowest number above `after`; the caller frees clients. */
static bool find_lost(struct control *c, uint64_t after, struct lost_host *ret)
{
        struct collection *l;
        bool found = false;

        control_rdlock(c);
        l = model_collection(c, model_by_no(c, OBJECT_CLOUD), &kind_host);
        for (size_t i = collection_find(l, after + 1); i < l->n && !found; i++) {
                const struct object *o = l->v[i];

                if (o->state != HOST_LOST || streq(o->name, c->cfg.host))
                        continue;
                *ret = (struct lost_host){.no = o->no,
                                          .epoch = object_num(o, "lost_epoch"),
                                          .clients = xstrdup(object_str(o, "clients"))};
                snprintf(ret->name, sizeof(ret->name), "%s", o->name);
                found = true;
        }
        control_unlock(c);
        return found;
}

/* --- being lost ------------------------------------------------------------------------------ */

struct guests {
        char (*v)[ID_TEXT_SIZE];
        size_t n;
};

static int note_guest(void *arg, const char *uuid, enum guest_state s _unused_)
{
        struct guests *g = arg;

        g->v = xrealloc(g->v, g->n + 1, sizeof(*g->v));
        snprintf(g->v[g->n++], ID_TEXT_SIZE, "%s", uuid);
        return 0;
}

static int note_export(void *arg, const char *id, const char *volume _unused_)
{
        return note_guest(arg, id, GUEST_GONE);
}

static int destroy_all(struct compute *v, struct err **e)
{
        struct guests g = {};
        int r = v->ops->list(v, note_guest, &g, e);

        for (size_t i = 0; i < g.n && r == 0; i++)
                r = v->ops->destroy(v, g.v[i], e);
        free(g.v);
        return r;
}

/* The others even if one engine is down. */
static int destroy_guests(struct control *c, struct err **e)
{
        struct compute *engines[ENGINES];
        size_t n;
        int r = compute_engines(c, engines, &n, e);

        for (size_t i = 0; i < n; i++) {
                int one = destroy_all(engines[i], r < 0 ? NULL : e);

                r = r < 0 ? r : one;
        }
        return r;
}

static int close_exports(struct control *c, struct err **e)
{
        struct volume_service *s = c->cfg.volumes;
        struct guests g = {};
        int r = s->ops->list_exports(s, note_export, &g, e);

        for (size_t i = 0; i < g.n && r == 0; i++)
                r = s->ops->unexport(s, g.v[i], e);
        free(g.v);
        return r;
}

/* Others may have barred it from where volumes are, and for good. */
static int renew_volumes(struct control *c, struct err **e)
{
        struct volume_service *s = c->cfg.volumes;
        int r = c->cfg.fence && s->ops->renew && !c->takeover->renewed ? s->ops->renew(s, e) : 0;

        c->takeover->renewed = r == 0;
        return r;
}

static int clear_record(struct control *c)
{
        struct lost_host h = {};
        struct object *o;
        bool lost;

        control_rdlock(c);
        o = host_find(c, c->cfg.host);
        lost = o && o->state == HOST_LOST;
        if (lost) {
                h = (struct lost_host){.no = o->no, .epoch = object_num(o, "lost_epoch")};
                snprintf(h.name, sizeof(h.name), "%s", o->name);
        }
        control_unlock(c);
        return lost ? take_over(c, &h) : 0;
}

static void stand_down(struct control *c)
{
        _cleanup_err_ struct err *err = NULL;
        struct takeover *k = c->takeover;
        int r;

        if (!jobs_idle(c)) /* what runs still ends first; nothing new begins */
                return;
        r = destroy_guests(c, &err);
        if (r == 0)
                r = close_exports(c, &err);
        if (r == 0)
                r = renew_volumes(c, &err);
        if (r == 0)
                r = lease_new_life(c, &err);
        if (r == 0)
                r = clear_record(c);
        if (r == 0)
                r = lease_rejoin(c, &err);
        if (r == 0)
                k->renewed = false;
        if (r == 0)
                log_info("host '%s' is back: what it ran is gone, it serves", c->cfg.host);
        if (r < 0 && err && (!k->said || !streq(k->said, err_msg(err)))) {
                log_warning("standing down: %s", err_msg(err));
                free(k->said);
                k->said = xstrdup(err_msg(err));
        }
}

/* --- the thread ------------------------------------------------------------------------------ */

/* The name of the host that is down with the lowest number above *no. */
static bool find_down(struct control *c, uint64_t *no, char name[NAME_SIZE])
{
        struct collection *l;
        bool found = false;

        control_rdlock(c);
        l = model_collection(c, model_by_no(c, OBJECT_CLOUD), &kind_host);
        for (size_t i = collection_find(l, *no + 1); i < l->n && !found; i++) {
                const struct object *o = l->v[i];

                if (o->state != HOST_DOWN || streq(o->name, c->cfg.host))
                        continue;
                *no = o->no;
                snprintf(name, NAME_SIZE, "%s", o->name);
                found = true;
        }
        control_unlock(c);
        return found;
}

static void look(struct control *c)
{
        struct lost_host h = {};
        char name[NAME_SIZE];
        uint64_t no = 0;

        if (lease_lost(c)) {
                stand_down(c);
                return;
        }
        while (lease_holds(c) && find_lost(c, h.no, &h)) {
                take_over(c, &h); /* what failed is tried again in a moment */
                free(h.clients);
        }
        while (lease_holds(c) && find_down(c, &no, name)) /* what it was given since */
                move_all(c, name, NULL);
}

static void *takeover_main(void *arg)
{
        struct control *c = arg;
        struct takeover *k = c->takeover;

        pthread_mutex_lock(&k->lock);
        while (!k->stop) {
                struct timespec ts = clock_timespec(clock_mono() + TICK_US);
                int r = 0;

                while (!k->stop && !k->woken && r == 0)
                        r = lease_lost(c) ? pthread_cond_timedwait(&k->cond, &k->lock, &ts)
                                          : pthread_cond_wait(&k->cond, &k->lock);
                if (k->stop)
                        break;
                k->woken = false;
                pthread_mutex_unlock(&k->lock);
                look(c);
                pthread_mutex_lock(&k->lock);
        }
        pthread_mutex_unlock(&k->lock);
        return NULL;
}

int takeover_start(struct control *c, struct err **e)
{
        struct takeover *k;
        pthread_condattr_t a;

        if (!feed_shared(c))
                return 0;
        k = xcalloc(1, sizeof(*k));
        pthread_mutex_init(&k->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&k->cond, &a);
        pthread_condattr_destroy(&a);
        k->woken = true;
        c->takeover = k;
        k->running = pthread_create(&k->thread, NULL, takeover_main, c) == 0;
        return k->running ? 0 : err_set(e, -EAGAIN, "no thread for takeovers");
}

void takeover_stop(struct control *c)
{
        struct takeover *k = c->takeover;

        if (!k || !k->running)
                return;
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
        k->running = false;
}

void takeover_free(struct control *c)
{
        struct takeover *k = c->takeover;

        if (!k)
                return;
        pthread_cond_destroy(&k->cond);
        pthread_mutex_destroy(&k->lock);
        free(k->said);
        free(k);
        c->takeover = NULL;
}
