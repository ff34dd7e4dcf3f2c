/* The job engine: a list of live jobs and a few workers that come when there is work and leave
 * when there is none. */
#include "control/job.h"

#include <utlist.h>

#include "common/fault.h"

enum {
        WORKERS_MAX = 16,
        IDLE_US = 20 * 1000000, /* an idle worker leaves */
        PATIENCE_US = 1000000,  /* between tries at a driver that is down */
        INSIST_US = 250000,     /* at first, twice as long each time */
        INSIST_MAX = 8,         /* so often: a minute */
        LEASELESS_US = 100000,
        ENDED_KEPT = 64, /* ended jobs a tenant keeps for people to read */
};

struct job_engine {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        struct job *v; /* live jobs by number; guarded by lock */
        struct job *running[WORKERS_MAX];
        unsigned workers, idle;
        unsigned live, parked, busy; /* this host's jobs in v; of them parked, running */
        bool open;                   /* workers may run */
        atomic_bool stop;
};

/* Lock held. */
static void set_parked(struct job_engine *g, struct job *j, bool parked)
{
        g->parked += parked - j->parked;
        j->parked = parked;
}

static void set_running(struct job_engine *g, struct job *j, bool running)
{
        struct job *from = running ? NULL : j;

        g->busy += running - j->running;
        j->running = running;
        for (unsigned i = 0; i < ARRAY_SIZE(g->running); i++) {
                if (g->running[i] != from)
                        continue;
                g->running[i] = running ? j : NULL;
                return;
        }
}

static void workers_call(struct control *c);

static const struct job_def *def_find(const char *op)
{
        for (unsigned i = 0; job_defs[i]; i++)
                if (streq(job_defs[i]->op, op))
                        return job_defs[i];
        return NULL;
}

enum { JOB_QUEUED, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED }; /* states of kind job */

/* --- recording ------------------------------------------------------------------------------- */

struct object *job_start(struct txn *t, struct object *target, const struct job_def *def,
                         const char *args)
{
        struct object *tenant = target->kind == &kind_tenant ? target : target->tenant, *o;
        struct buf path = {};

        if (txn_create(t, &kind_job, tenant, NULL, &o, NULL) < 0)
                abort(); /* its name is a fresh number */
        render_path(t->c, target, &path);
        txn_set_str(t, o, "op", def->op);
        txn_set_str(t, o, "target", buf_str(&path));
        txn_set_num(t, o, "target_no", target->no);
        txn_set_str(t, o, "args", args);
        if (feed_shared(t->c)) { /* of two that two hosts start at once, one finds it changed */
                txn_edit(t, target);
                txn_set_num(t, o, "turn", target->rev + 1);
        }
        txn_set_str(t, o, "host", owner_choose(t, target, def));
        txn_set_num(t, o, "epoch", t->c->epoch);
        txn_set_num(t, o, "deadline", clock_now() / 1000000 + def->deadline);
        buf_done(&path);
        return o; /* txn_answered() adopts it once it is durable */
}

static int by_number(const struct job *a, const struct job *b)
{
        return a->no < b->no ? -1 : a->no > b->no;
}

static bool is_here(struct control *c, const struct object *o)
{
        return host_here(c, object_str(o, "host"));
}

bool job_mine(const struct job *j, const struct object *o)
{
        return o && is_here(j->c, o);
}

void jobs_adopt(struct control *c, struct object *o)
{
        struct job_engine *g = c->jobs;
        struct job *j = xcalloc(1, sizeof(*j));
        struct object *target;

        *j = (struct job){.c = c,
                          .no = o->no,
                          .target = object_num(o, "target_no"),
                          .tenant = o->tenant ? o->tenant->no : 0,
                          .def = def_find(object_str(o, "op")),
                          .args = xstrdup(object_str(o, "args")),
                          .step = object_num(o, "step"),
                          .turn = object_num(o, "turn"),
                          .foreign = !is_here(c, o),
                          .deadline = (int64_t)object_num(o, "deadline") * 1000000};
        pthread_mutex_lock(&g->lock);
        if (g->v && g->v->prev->no > j->no)
                DL_INSERT_INORDER(g->v, j, by_number);
        else
                DL_APPEND(g->v, j); /* the usual case: the newest */
        g->live += !j->foreign;
        pthread_mutex_unlock(&g->lock);
        target = model_by_no(c, j->target);
        if (!target)
                return;
        target->jobs++;
        j->counted = true;
        if (!target->job)
                target->job = o->no;
}

static struct job *job_find(struct control *c, uint64_t no)
{
        struct job *j;

        DL_FOREACH (c->jobs->v, j)
                if (j->no == no)
                        return j;
        return NULL;
}

bool job_live_for(struct control *c, uint64_t target, const struct job_def *def, const char *args)
{
        struct job *j;

        WITH_LOCK(&c->jobs->lock);
        DL_FOREACH (c->jobs->v, j)
                if (j->target == target && j->def == def && !j->ending &&
                    (!args || streq(j->args, args)))
                        return true;
        return false;
}

bool job_live(struct control *c, uint64_t target, const struct job_def *def)
{
        return job_live_for(c, target, def, NULL);
}

/* --- for steps -------------------------------------------------------------------------------- */

void job_progress(struct job *j, uint64_t done, uint64_t total)
{
        uint64_t nos[] = {j->no, j->target};

        control_rdlock(j->c);
        for (unsigned i = 0; i < ARRAY_SIZE(nos); i++) {
                struct object *o = model_by_no(j->c, nos[i]);

                if (!o)
                        continue;
                __atomic_store_n(&o->done, done, __ATOMIC_RELAXED);
                __atomic_store_n(&o->total, total, __ATOMIC_RELAXED);
        }
        control_unlock(j->c);
}

int job_wait(struct job *j, uint64_t watch, int64_t usec, const char *fmt, ...)
{
        int64_t left = j->deadline - clock_now();
        char *text = NULL;
        va_list ap;

        if (left <= 0)
                left = PATIENCE_US; /* overdue, and its end cannot be recorded yet */
        va_start(ap, fmt);
        if (vasprintf(&text, fmt, ap) < 0)
                text = NULL;
        va_end(ap);
        WITH_LOCK(&j->c->jobs->lock);
        free(j->waiting);
        j->waiting = text;
        j->watch = watch;
        j->wake = clock_mono() + (usec ? MIN(usec, left) : left);
        return JOB_AGAIN;
}

int job_cancelled(struct job *j, struct err **e)
{
        if (atomic_load(&j->c->jobs->stop))
                return err_set(e, -EINTR, "the daemon stops");
        if (atomic_load(&j->cancel))
                return err_set(e, -ECANCELED, "cancelled");
        return 0;
}

int job_cancel(struct txn *t, struct object *o, const char *args _unused_, struct err **e)
{
        struct job_engine *g = t->c->jobs;
        struct job *j;

        WITH_LOCK(&g->lock);
        j = job_find(t->c, o->no);
        if (!j || !j->def || !j->def->cancellable)
                return err_set(e, -ENOTSUP, "a %s job cannot be cancelled", object_str(o, "op"));
        if (j->foreign) { /* its host reads it there */
                txn_set_num(t, o, "cancel", 1);
                return 0;
        }
        atomic_store(&j->cancel, true);
        set_parked(g, j, false);
        workers_call(t->c);
        return 0;
}

unsigned jobs_hurry(struct control *c, uint64_t target)
{
        struct job_engine *g = c->jobs;
        struct job *j;
        unsigned n = 0;

        WITH_LOCK(&g->lock);
        DL_FOREACH (g->v, j) {
                if (j->target != target || j->foreign || j->ending)
                        continue;
                if (j->def && j->def->settles) /* it has an end of its own, in either of two ways */
                        atomic_store(&j->cancel, true);
                else
                        j->hurried = true;
                set_parked(g, j, false);
                n++;
        }
        workers_call(c);
        return n;
}

/* --- running -----------------------------------------------------------------------------------
 */

/* Drops the oldest ended jobs of the collection above the number kept. */
static void prune(struct txn *t, const struct object *o)
{
        struct object *owner = o->tenant ? o->tenant : model_by_no(t->c, OBJECT_CLOUD);
        struct collection *l = model_collection(t->c, owner, &kind_job);
        size_t ended = 0;

        if (l->n <= ENDED_KEPT)
                return;
        for (size_t i = 0; i < l->n; i++)
                ended += l->v[i]->state >= JOB_DONE;
        for (size_t i = 0; i < l->n && ended > ENDED_KEPT;) {
                if (l->v[i]->state < JOB_DONE) {
                        i++;
                        continue;
                }
                txn_delete(t, l->v[i]);
                ended--;
        }
}

static void job_free(struct job *j)
{
        free(j->args);
        free(j->waiting);
        free(j->result);
        free(j);
}

/* Out of the list; others of its target may run now.  Model write-held. */
static void job_unlist(struct job *j)
{
        struct job_engine *g = j->c->jobs;
        struct object *o = model_by_no(j->c, j->target);

        if (o && j->counted) {
                o->jobs--;
                o->job = o->done = o->total = 0;
        }
        pthread_mutex_lock(&g->lock);
        if (!j->foreign) {
                set_running(g, j, false);
                set_parked(g, j, false);
                g->live--;
        }
        DL_DELETE(g->v, j);
        if (o && o->jobs) { /* the next of the same target is what its `job` shows */
                struct job *n;

                DL_SEARCH_SCALAR(g->v, n, target, j->target);
                o->job = n ? n->no : 0;
        }
        pthread_mutex_unlock(&g->lock);
}

/* Frees the job once its end is recorded. */
static void job_forget(struct job *j)
{
        struct control *c = j->c;

        pthread_rwlock_wrlock(&c->model);
        job_unlist(j);
        pthread_rwlock_unlock(&c->model);
        wait_changed(c, j->target);
        job_free(j);
        jobs_changed(c, 0);
}

/* --- other hosts -------------------------------------------------------------------------------
 */

/* From another host to this one or away.  Lock held. */
static void set_foreign(struct job_engine *g, struct job *j, bool foreign)
{
        if (j->foreign == foreign)
                return;
        set_parked(g, j, false);
        g->live += foreign ? -1 : 1;
        j->foreign = foreign;
        j->wake = 0;
        j->begun = false;
}

/* Whether a worker has it: then job_run() sees by itself what became of the record. */
static bool at_work(struct control *c, const struct job *j)
{
        WITH_LOCK(&c->jobs->lock);
        return j->running;
}

void jobs_gone(struct control *c, struct object *o)
{
        struct job *j;

        pthread_mutex_lock(&c->jobs->lock);
        j = job_find(c, o->no);
        if (j && j->running)
                j = NULL;
        if (j)
                set_foreign(c->jobs, j, true); /* no worker takes it any more */
        pthread_mutex_unlock(&c->jobs->lock);
        if (!j)
                return;
        job_unlist(j);
        job_free(j);
}

void jobs_seen(struct control *c, struct object *o)
{
        struct job_engine *g = c->jobs;
        bool live = o->kind->states[o->state].transient;
        struct job *j;

        pthread_mutex_lock(&g->lock);
        j = job_find(c, o->no);
        pthread_mutex_unlock(&g->lock);
        if (!j && live) {
                jobs_adopt(c, o);
                return;
        }
        if (j && live && is_here(c, o) && object_num(o, "cancel"))
                atomic_store(&j->cancel, true);
        if (!j || at_work(c, j))
                return;
        if (!live) {
                jobs_gone(c, o);
                return;
        }
        WITH_LOCK(&g->lock);
        if (j->foreign || !is_here(c, o))
                j->step = object_num(o, "step");
        set_foreign(g, j, !is_here(c, o));
        if (atomic_load(&j->cancel))
                set_parked(g, j, false);
        workers_call(c);
}

static int write_cancel(struct control *c, uint64_t no)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (o && o->kind->states[o->state].transient)
                txn_set_num(&t, o, "cancel", 1);
        return txn_commit(&t, NULL);
}

/* What a worker had, and is another host's now or nobody's. */
static void job_leave(struct job *j)
{
        struct control *c = j->c;
        uint64_t no = j->no;
        struct object *o;
        bool cancelled;

        pthread_rwlock_wrlock(&c->model);
        pthread_mutex_lock(&c->jobs->lock);
        set_running(c->jobs, j, false);
        set_foreign(c->jobs, j, true);
        cancelled =
                atomic_exchange(&j->cancel, false); /* from here on cancels go into the record */
        pthread_mutex_unlock(&c->jobs->lock);
        o = model_by_no(c, j->no);
        if (o) {
                jobs_seen(c, o);
        } else {
                job_unlist(j);
                job_free(j);
        }
        pthread_rwlock_unlock(&c->model);
        jobs_changed(c, 0);
        if (cancelled) /* while it was on its way */
                AGAIN(c, NULL, write_cancel(c, no));
}

/* Model write-held when it begins: from there on job_live() does not count on j. */
static void set_ending(struct job *j, bool ending)
{
        WITH_LOCK(&j->c->jobs->lock);
        j->ending = ending;
}

/* Records the end.  0: it is over.  JOB_AGAIN: start over.  -errno: the store refused, try later.
 */
static int job_end(struct job *j, int r, struct err *why)
{
        struct control *c = j->c;
        struct object *o, *target;
        _cleanup_err_ struct err *err = NULL;
        struct txn t;
        int end = r;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, j->no);
        target = model_by_no(c, j->target);
        if (o && !job_mine(j, o)) {
                txn_abort(&t);
                return JOB_AWAY;
        }
        if (r == 0 && j->def && j->def->done) {
                end = j->def->done(j, &t, target, &err);
                if (end == JOB_AGAIN) {
                        txn_abort(&t);
                        return JOB_AGAIN;
                }
                why = err;
                if (end < 0) { /* nothing of what it did half stays */
                        txn_abort(&t);
                        txn_begin(&t, c, NULL);
                }
                o = model_by_no(c, j->no);
                target = model_by_no(c, j->target);
        }
        if (!o) /* went with its tenant */
                return txn_commit(&t, NULL);
        if (target)
                target->failed = end < 0;
        if (end == 0 && target && target->error) /* what failed before is over */
                txn_set_error(&t, target, NULL);
        if (end < 0) {
                _cleanup_free_ char *rec = error_record(c, NULL, j->def ? j->def->op : "job",
                                                        object_str(o, "target"), end, why);
                struct object *tenant = o->tenant;

                txn_set_error(&t, o, rec);
                if (target && target != o) {
                        txn_set_error(&t, target, rec);
                        txn_event(&t, target, "job %s %s failed: %s", o->name, object_str(o, "op"),
                                  err_msg(why));
                }
                if (tenant) {
                        pthread_mutex_lock(&c->texts);
                        ring_add(&model_room(c, tenant)->errors, rec, 64 << 10);
                        pthread_mutex_unlock(&c->texts);
                }
                if (j->def && j->def->failed)
                        j->def->failed(j, &t, target, why);
        }
        txn_set_state(&t, o, end == 0 ? JOB_DONE : end == -ECANCELED ? JOB_CANCELLED : JOB_FAILED);
        txn_set_num(&t, o, "ended", clock_now() / 1000000);
        prune(&t, o);
        set_ending(j, true);
        end = txn_commit(&t, NULL);
        if (end < 0)
                set_ending(j, false);
        return end;
}

/* Stores that step is reached (and that the job runs). */
static int job_mark(struct job *j)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->no);
        if (!job_mine(j, o)) {
                txn_abort(&t);
                return JOB_AWAY;
        }
        txn_set_num(&t, o, "step", j->step);
        txn_set_num(&t, o, "epoch", j->c->epoch);
        txn_set_state(&t, o, JOB_RUNNING);
        return txn_commit(&t, NULL);
}

/* Whether this host may do the next step. */
static bool still_mine(struct job *j)
{
        bool mine;

        if (!feed_shared(j->c))
                return true;
        control_rdlock(j->c);
        mine = job_mine(j, model_by_no(j->c, j->no));
        control_unlock(j->c);
        return mine;
}

/* A driver's other side that went in the middle of a request is started again, and every step can
 * be run twice. */
static bool come_again(const struct job *j, int r)
{
        return r == -ECONNRESET || r == -EPIPE ||
               (j->def->patient && (r == -ECONNREFUSED || r == -ETIMEDOUT));
}

static int insist(struct job *j, struct err **e)
{
        int64_t pause = (int64_t)INSIST_US << MIN(j->tries, (unsigned)INSIST_MAX);

        if (j->tries++ == 0)
                log_warning("job %" PRIu64 " %s goes on trying: %s", j->no, j->def->op,
                            e && *e ? err_msg(*e) : "it failed");
        job_wait(j, 0, pause, "%s; tried %u times", e && *e ? err_msg(*e) : "it failed", j->tries);
        if (e)
                *e = err_free(*e);
        return JOB_AGAIN;
}

/* Runs steps until the job ends (0, -errno) or has to wait (JOB_AGAIN). */
static int job_steps(struct job *j, struct err **e)
{
        if (!j->def)
                return err_set(e, -ENOSYS, "this release does not know the operation");
        while (j->step < j->def->nsteps) {
                int r;

                if (j->cancel && j->def->cancellable && !j->def->settles)
                        return job_cancelled(j, e);
                if (j->hurried)
                        return err_set(e, -ETIMEDOUT, "cut short%s%s", j->waiting ? ": " : "",
                                       j->waiting ?: "");
                if (clock_now() > j->deadline && !j->def->settles)
                        return err_set(e, -ETIMEDOUT, "not done within %u s%s%s", j->def->deadline,
                                       j->waiting ? ": " : "", j->waiting ? j->waiting : "");
                if (!still_mine(j))
                        return JOB_AWAY;
                if (!lease_holds(j->c))
                        return job_wait(j, 0, LEASELESS_US, "this host has no lease");
                r = FAULT("job.step");
                if (r == 0)
                        r = j->def->steps[j->step].run(j, e);
                if (r == 0)
                        r = FAULT("job.stepped");
                if (r < 0 && j->def->insists && r != -EINTR && !j->cancel)
                        return insist(j, e);
                if (come_again(j, r)) {
                        r = job_wait(j, 0, PATIENCE_US, "%s", e && *e ? err_msg(*e) : "driver");
                        if (e)
                                *e = err_free(*e);
                        return r;
                }
                if (r != 0)
                        return r;
                j->tries = 0;
                j->step++;
                if (j->step == j->def->nsteps || j->def->steps[j->step - 1].light ||
                    (r = job_mark(j)) == 0)
                        continue;
                if (r == JOB_AWAY)
                        return r;
                return job_wait(j, 0, PATIENCE_US, "the store refuses: %s", strerror(-r));
        }
        return 0;
}

/* Whether what it is to wait for changed while it ran.  Lock held. */
static bool saw_watched(const struct job *j)
{
        if (j->nseen > ARRAY_SIZE(j->seen))
                return j->watch != 0;
        for (unsigned i = 0; i < j->nseen; i++)
                if (j->seen[i] == j->watch)
                        return true;
        return false;
}

static int job_undo(struct job *j)
{
        return j->def && j->def->undo ? j->def->undo(j) : 0;
}

static void job_run(struct job *j)
{
        _cleanup_err_ struct err *err = NULL;
        bool cancelled = atomic_load(&j->cancel), hurried = j->hurried;
        int r = job_steps(j, &err);

        if (r < 0 && j->c->jobs->stop)
                r = JOB_AGAIN; /* it goes on at the next start */
        if (r < 0 && !lease_holds(j->c))
                r = job_wait(j, 0, LEASELESS_US, "this host has no lease");
        if (r < 0 && job_undo(j) < 0)
                r = job_wait(j, 0, PATIENCE_US, "taking it back did not succeed yet");
        if (r == JOB_AWAY) {
                job_leave(j);
                return;
        }
        if (r <= 0) {
                int end = job_end(j, r, err);

                if (end == -EDQUOT && r == 0) { /* its result is more than its tenant may have */
                        err_set(&err, end, "its result would pass the tenant's quota");
                        r = end;
                        end = job_undo(j) < 0 ? -EAGAIN : job_end(j, r, err);
                }

                if (end == 0) {
                        if (r < 0)
                                log_info("job %" PRIu64 " %s: %s", j->no, j->def ? j->def->op : "?",
                                         err_msg(err));
                        else if (j->def->after && lease_holds(j->c))
                                j->def->after(j);
                        job_forget(j);
                        return;
                }
                if (end == JOB_AWAY) {
                        job_leave(j);
                        return;
                }
                if (end == JOB_AGAIN)
                        j->step = 0;
                else
                        job_wait(j, 0, PATIENCE_US, "the store refuses: %s", strerror(-end));
                r = end == JOB_AGAIN ? 0 : JOB_AGAIN;
        }
        pthread_mutex_lock(&j->c->jobs->lock);
        set_running(j->c->jobs, j, false);
        set_parked(j->c->jobs, j,
                   r == JOB_AGAIN && !saw_watched(j) && cancelled == atomic_load(&j->cancel) &&
                           !(j->hurried && !hurried));
        pthread_mutex_unlock(&j->c->jobs->lock);
}

/* Whether j has to wait for k.  Numbers are in order on one host; over several the target's version
 * is, which each new job moves on.  Lock held. */
static bool job_before(const struct job *k, const struct job *j)
{
        return k->target == j->target && !(k->def && k->def->aside) &&
               (k->turn != j->turn ? k->turn < j->turn : k->no < j->no);
}

/* Whether j's tenant has as many workers as are left: one tenant gets half of them, two a third
 * each, and there is always one for who comes.  What is nobody's needs none.  Lock held. */
static bool has_its_share(const struct job_engine *g, const struct job *j)
{
        unsigned n = 0;

        for (unsigned i = 0; i < ARRAY_SIZE(g->running); i++)
                n += g->running[i] && g->running[i]->tenant == j->tenant;
        return j->tenant && n >= WORKERS_MAX - g->busy;
}

/* The first job that may run: not parked, no older job of its target, its tenant below its share.
 * Lock held. */
static struct job *job_pick(struct job_engine *g, int64_t *ret_wake)
{
        int64_t now = clock_mono();
        struct job *j, *k;

        *ret_wake = 0;
        DL_FOREACH (g->v, j) {
                if (j->parked && j->wake && j->wake <= now) {
                        set_parked(g, j, false);
                        j->wake = 0;
                }
                if (j->parked && j->wake && (!*ret_wake || j->wake < *ret_wake))
                        *ret_wake = j->wake;
                if (j->parked || j->running || j->foreign || has_its_share(g, j))
                        continue;
                for (k = g->v; k && !job_before(k, j); k = k->next)
                        if (k == j && !j->turn) /* the rest is younger */
                                return j;
                if (!k)
                        return j;
        }
        return NULL;
}

static void *worker_main(void *arg);

/* One more worker if there is work for it: woken if one is idle, made if there may be more.  An
 * idle one is also woken to watch the clock for parked jobs.  Lock held. */
static void workers_call(struct control *c)
{
        struct job_engine *g = c->jobs;
        bool ready = g->live > g->parked + g->busy;
        pthread_attr_t a;
        pthread_t thread;

        if (!g->open || g->stop || (!ready && !g->parked))
                return;
        if (g->idle > 0) {
                pthread_cond_signal(&g->cond);
                return;
        }
        /* Somebody must be free for the clock, too, while the others are in long steps. */
        if ((!ready && g->workers > g->busy) || g->workers >= WORKERS_MAX)
                return;
        pthread_attr_init(&a);
        pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&a, 1 << 20);
        if (pthread_create(&thread, &a, worker_main, c) == 0)
                g->workers++;
        pthread_attr_destroy(&a);
}

static void *worker_main(void *arg)
{
        struct control *c = arg;
        struct job_engine *g = c->jobs;
        int64_t idle_until = 0;

        pthread_mutex_lock(&g->lock);
        while (!g->stop) {
                int64_t wake, until;
                struct job *j = job_pick(g, &wake);
                struct timespec ts;

                if (j) {
                        set_running(g, j, true);
                        j->nseen = 0;
                        if (!j->begun && j->def) /* neither down-time nor its queue counts */
                                j->deadline = clock_now() + (int64_t)j->def->deadline * 1000000;
                        j->begun = true;
                        workers_call(c); /* for the next one, or to watch the clock */
                        pthread_mutex_unlock(&g->lock);
                        job_run(j);
                        pthread_mutex_lock(&g->lock);
                        idle_until = 0;
                        continue;
                }
                if (!idle_until)
                        idle_until = clock_mono() + IDLE_US;
                /* The last that is free stays while a job is parked. */
                if (clock_mono() >= idle_until && (g->workers - g->busy > 1 || !g->parked))
                        break;
                until = idle_until > clock_mono() ? idle_until : clock_mono() + IDLE_US;
                if (wake)
                        until = MIN(until, wake); /* past: it returns at once */
                ts = clock_timespec(until);
                g->idle++;
                pthread_cond_timedwait(&g->cond, &g->lock, &ts);
                g->idle--;
        }
        g->workers--;
        pthread_cond_broadcast(&g->cond);
        pthread_mutex_unlock(&g->lock);
        return NULL;
}

void jobs_changed(struct control *c, uint64_t no)
{
        struct job_engine *g = c->jobs;
        struct job *j;

        pthread_mutex_lock(&g->lock);
        for (unsigned i = 0; no && i < ARRAY_SIZE(g->running); i++)
                if ((j = g->running[i]))
                        j->seen[j->nseen++ % ARRAY_SIZE(j->seen)] = no;
        if (no && g->parked)
                DL_FOREACH (g->v, j)
                        if (j->parked && j->watch == no)
                                set_parked(g, j, false);
        if (g->live > g->parked + g->busy)
                workers_call(c);
        pthread_mutex_unlock(&g->lock);
}

void jobs_init(struct control *c)
{
        struct job_engine *g = xcalloc(1, sizeof(*g));
        pthread_condattr_t a;

        pthread_mutex_init(&g->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&g->cond, &a);
        pthread_condattr_destroy(&a);
        c->jobs = g;
}

bool jobs_idle(struct control *c)
{
        WITH_LOCK(&c->jobs->lock);
        return c->jobs->busy == 0;
}

void jobs_run(struct control *c)
{
        pthread_mutex_lock(&c->jobs->lock);
        c->jobs->open = true;
        pthread_mutex_unlock(&c->jobs->lock);
        jobs_changed(c, 0);
}

void jobs_stop(struct control *c)
{
        struct job_engine *g = c->jobs;

        pthread_mutex_lock(&g->lock);
        g->stop = true;
        pthread_cond_broadcast(&g->cond);
        while (g->workers > 0)
                pthread_cond_wait(&g->cond, &g->lock);
        pthread_mutex_unlock(&g->lock);
}

void jobs_free(struct control *c)
{
        struct job_engine *g = c->jobs;
        struct job *j, *tmp;

        DL_FOREACH_SAFE(g->v, j, tmp)
        job_free(j);
        pthread_cond_destroy(&g->cond);
        pthread_mutex_destroy(&g->lock);
        free(g);
        c->jobs = NULL;
}
