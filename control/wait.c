/* Parked waits: `.wait/STATE`.  A wait holds no thread; a transition, its time-out or a cancel
 * ends it.  One timer thread exists while any wait has a time-out. */
#include "control/internal.h"

#include <utlist.h>

enum { WAITS_A_USER = 256, WAITS_MAX = 20000 };

enum want { WANT_STATE, WANT_GONE, WANT_CHANGE, WANT_EVENT };

struct waiter {
        uint64_t no;
        enum want want;
        unsigned state;
        int64_t since;    /* WANT_CHANGE: state_since when the wait began */
        uint64_t cursor;  /* WANT_EVENT: of render_events_from() */
        bool all;         /* WANT_EVENT: of every object that it holds, too */
        int64_t deadline; /* monotonic usec, 0: none */
        uid_t uid;
        void (*done)(void *arg, int r);
        void *arg;
        struct waiter *next, *prev;
};

struct wait_list {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        struct waiter *v;
        atomic_uint n; /* read without the lock: who parks holds the model meanwhile */
        bool timer, stop;
        pthread_t thread;
};

void wait_init(struct control *c)
{
        pthread_condattr_t a;
        struct wait_list *w = xcalloc(1, sizeof(*w));

        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->cond, &a);
        pthread_condattr_destroy(&a);
        c->waits = w;
}

/* Takes w off the list (lock held); the caller calls its done() without the lock, then frees. */
static void unlist(struct control *c, struct waiter *w)
{
        DL_DELETE(c->waits->v, w);
        c->waits->n--;
        pthread_mutex_lock(&c->texts);
        user_get(c, w->uid)->waits--;
        pthread_mutex_unlock(&c->texts);
}

static void finish_all(struct waiter *ended, int r)
{
        struct waiter *w, *tmp;

        DL_FOREACH_SAFE(ended, w, tmp)
        {
                w->done(w->arg, r);
                free(w);
        }
}

static bool has_events(struct control *c, const struct waiter *w, const struct object *o)
{
        WITH_LOCK(&c->texts);
        return events_ring(c, o)->added > w->cursor;
}

/* What the object's state means for a wait: 1 not yet, 0 reached, -errno ended otherwise. */
static int verdict(struct control *c, const struct waiter *w, const struct object *o)
{
        if (!o)
                return w->want == WANT_GONE ? 0 : -ENOENT;
        if (w->want == WANT_EVENT)
                return has_events(c, w, o) ? 0 : 1;
        if (w->want == WANT_CHANGE)
                return o->state_since != w->since ? 0 : 1;
        if (w->want == WANT_STATE && o->state == w->state)
                return 0;
        if (o->jobs || o->kind->states[o->state].transient)
                return 1;
        /* At rest somewhere else: for good, or because what should have led on failed. */
        if (o->kind->states[o->state].terminal || (w->want == WANT_STATE && o->failed))
                return -EIO;
        return 1;
}

static void recheck(struct control *c, uint64_t no, bool gone)
{
        struct waiter *w, *tmp, *ok = NULL, *bad = NULL, *lost = NULL;

        if (!atomic_load(&c->waits->n))
                return;
        control_rdlock(c);
        pthread_mutex_lock(&c->waits->lock);
        DL_FOREACH_SAFE(c->waits->v, w, tmp)
        {
                int r;

                if (w->no != no && !w->all)
                        continue;
                r = verdict(c, w, gone && w->no == no ? NULL : model_by_no(c, w->no));
                if (r > 0)
                        continue;
                unlist(c, w);
                if (r == 0)
                        DL_APPEND(ok, w);
                else if (r == -EIO)
                        DL_APPEND(bad, w);
                else
                        DL_APPEND(lost, w);
        }
        pthread_mutex_unlock(&c->waits->lock);
        control_unlock(c);
        finish_all(ok, 0);
        finish_all(bad, -EIO);
        finish_all(lost, -ENOENT);
}

void wait_changed(struct control *c, uint64_t no)
{
        recheck(c, no, false);
}

void wait_gone(struct control *c, uint64_t no)
{
        recheck(c, no, true);
}

/* Ends what is overdue; gives the next deadline, 0 when there is none.  Lock held; it is let go
 * for the callbacks. */
static int64_t expire(struct control *c)
{
        struct waiter *w, *tmp, *late = NULL;
        int64_t now = clock_mono(), next = 0;

        DL_FOREACH_SAFE(c->waits->v, w, tmp)
        {
                if (!w->deadline)
                        continue;
                if (w->deadline <= now) {
                        unlist(c, w);
                        DL_APPEND(late, w);
                } else if (!next || w->deadline < next) {
                        next = w->deadline;
                }
        }
        if (late) {
                pthread_mutex_unlock(&c->waits->lock);
                finish_all(late, -ETIMEDOUT);
                pthread_mutex_lock(&c->waits->lock);
        }
        return next;
}

static void *timer_main(void *arg)
{
        struct control *c = arg;
        struct wait_list *l = c->waits;

        pthread_mutex_lock(&l->lock);
        while (!l->stop) {
                int64_t next = expire(c);
                struct timespec ts = clock_timespec(next);

                if (l->stop)
                        break;
                if (next)
                        pthread_cond_timedwait(&l->cond, &l->lock, &ts);
                else
                        pthread_cond_wait(&l->cond, &l->lock);
        }
        pthread_mutex_unlock(&l->lock);
        return NULL;
}

static int parse_want(struct waiter *w, const struct object *o, const char *state)
{
        int s = kind_state(o->kind, state);

        w->since = o->state_since;
        if (streq(state, "gone"))
                w->want = WANT_GONE;
        else if (streq(state, "change"))
                w->want = WANT_CHANGE;
        else if (s >= 0)
                w->state = s;
        else
                return -ENOENT;
        return 0;
}

/* Lists w unless its verdict is there already; model read-held. */
static int park(struct control *c, struct waiter *w, const struct object *o, struct err **e)
{
        struct wait_list *l = c->waits;
        struct user *u;
        int r = verdict(c, w, o);

        if (r <= 0)
                return r;
        WITH_LOCK(&l->lock);
        WITH_LOCK(&c->texts);
        u = user_get(c, w->uid);
        if (l->n >= WAITS_MAX || (u->waits >= WAITS_A_USER && u->uid != 0))
                return err_set(e, -EBUSY, "too many waits of uid %u", u->uid);
        u->waits++;
        l->n++;
        DL_APPEND(l->v, w);
        if (w->deadline && !l->timer)
                l->timer = pthread_create(&l->thread, NULL, timer_main, c) == 0;
        pthread_cond_signal(&l->cond);
        return 1;
}

/* state: NULL for events. */
static int begin(struct control *c, struct waiter *w, const char *state, struct waiter **ret,
                 struct err **e)
{
        struct object *o;
        int r;

        *ret = NULL;
        control_rdlock(c);
        o = model_by_no(c, w->no);
        r = !o ? -ENOENT : state ? parse_want(w, o, state) : 0;
        if (o)
                w->all = !state && model_room(c, o);
        if (!o) {
                err_set(e, r, "it is gone");
        } else if (r < 0) {
                err_set(e, r, "a %s has no state '%s'", o->kind->name, state);
        } else {
                *ret = w;
                r = park(c, w, o, e);
        }
        control_unlock(c);
        if (r == 1)
                return 0;
        *ret = NULL;
        if (r != -ENOENT && r != -EBUSY) {
                w->done(w->arg, r);
                r = 0;
        }
        free(w);
        return r;
}

int control_wait(struct control *c, const struct caller *who, uint64_t no, const char *state,
                 int64_t timeout_us, void (*done)(void *arg, int r), void *arg, struct waiter **ret,
                 struct err **e)
{
        struct waiter *w = xcalloc(1, sizeof(*w));

        *w = (struct waiter){.no = no, .uid = who->uid, .done = done, .arg = arg};
        if (timeout_us > 0)
                w->deadline = clock_mono() + timeout_us;
        return begin(c, w, state, ret, e);
}

int control_wait_event(struct control *c, const struct caller *who, uint64_t no, uint64_t cursor,
                       void (*done)(void *arg, int r), void *arg, struct waiter **ret,
                       struct err **e)
{
        struct waiter *w = xcalloc(1, sizeof(*w));

        *w = (struct waiter){.no = no,
                             .want = WANT_EVENT,
                             .cursor = cursor,
                             .uid = who->uid,
                             .done = done,
                             .arg = arg};
        return begin(c, w, NULL, ret, e);
}

bool control_wait_cancel(struct control *c, struct waiter *w)
{
        struct waiter *i;

        WITH_LOCK(&c->waits->lock);
        DL_FOREACH (c->waits->v, i) {
                if (i != w)
                        continue;
                unlist(c, w);
                free(w);
                return true;
        }
        return false;
}

void wait_done(struct control *c)
{
        struct wait_list *l = c->waits;
        struct waiter *all;

        pthread_mutex_lock(&l->lock);
        l->stop = true;
        all = l->v;
        l->v = NULL;
        l->n = 0;
        pthread_cond_signal(&l->cond);
        pthread_mutex_unlock(&l->lock);
        if (l->timer)
                pthread_join(l->thread, NULL);
        finish_all(all, -EINTR);
        pthread_cond_destroy(&l->cond);
        pthread_mutex_destroy(&l->lock);
        free(l);
        c->waits = NULL;
}
