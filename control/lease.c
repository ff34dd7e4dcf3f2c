/* The lease: whether this host is alive, for itself and for the others.
 *
 * Each host counts up `beat` in its own record, with the record's version as guard.  No clock of
 * one host is ever compared with another's: an observer counts from when it saw the beat change, on
 * its own monotonic clock; the holder from before it asked the store for the renewal.  So the
 * holder stops serving (HOLD of the time) before anybody else may find it overdue (all of it). An
 * observer that finds it overdue writes `lost` into the record, guarded by the beat: a renewal that
 * came first refuses that, and a renewal that comes after is refused by it. */
#include "control/hosts.h"
#include "control/jobs/jobs.h"

enum {
        LEASE_MS = 10000,
        RENEWALS = 6, /* tries within the time */
        AT_ONCE = 8,
        HOLD_PERCENT = 60,
};

struct sight {
        uint64_t no, beat, epoch;
        int64_t since; /* monotonic usec: seen so since then */
};

struct lease {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop;
        int64_t length;        /* usec */
        _Atomic int64_t until; /* monotonic usec; past: it does not hold */
        atomic_bool lost;      /* others took it: stands down */
        struct sight *sights;  /* guarded by lock */
        size_t n;
        uint64_t tenants; /* sum of their numbers, when this host last looked after their groups */
        int64_t renewed;  /* monotonic usec of the last renewal; the thread's own */
};

bool lease_holds(struct control *c)
{
        return !c->lease || clock_mono() < atomic_load(&c->lease->until);
}

bool lease_lost(struct control *c)
{
        return atomic_load(&c->lease->lost);
}

static bool serving(const struct object *o)
{
        return object_in(o, STATE(HOST_UP) | STATE(HOST_DRAINING));
}

/* --- of this host ---------------------------------------------------------------------------- */

static void lose(struct control *c)
{
        struct lease *l = c->lease;

        atomic_store(&l->until, 0);
        if (!atomic_exchange(&l->lost, true))
                log_error("host '%s' was declared lost by another: it stands down", c->cfg.host);
        takeover_wake(c);
}

/* Model held, in a transaction of this host's own record. */
static void beat(struct txn *t, struct object *o)
{
        host_refresh(t, o);
        txn_set_num(t, o, "beat", object_num(o, "beat") + 1);
}

static void set_clients(struct txn *t, struct object *o, const char *clients)
{
        if (clients && !streq(object_str(o, "clients"), clients))
                txn_set_str(t, o, "clients", clients);
}

static char *ask_clients(struct control *c)
{
        _cleanup_err_ struct err *err = NULL;
        char *clients = NULL;

        if (!c->cfg.fence)
                return NULL;
        if (c->cfg.fence->ops->clients(c->cfg.fence, &clients, &err) < 0)
                log_warning("clients of this host: %s", err_msg(err));
        return clients;
}

static int renew_once(struct control *c, const char *clients)
{
        int64_t asked = clock_mono();
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, NULL);
        t.unleased = true;
        o = host_find(c, c->cfg.host);
        if (!o || !serving(o) || object_num(o, "epoch") != c->epoch) {
                txn_abort(&t);
                return -ESHUTDOWN;
        }
        beat(&t, o);
        set_clients(&t, o, clients);
        r = txn_commit(&t, NULL);
        if (r == 0)
                atomic_store(&c->lease->until, asked + c->lease->length * HOLD_PERCENT / 100);
        return r;
}

/* While the store did not answer us, it may have answered nobody: that time is not held against the
 * others. */
static void forgive_silence(struct lease *l)
{
        int64_t now = clock_mono(), gap = now - l->renewed;
        WITH_LOCK(&l->lock);

        for (size_t i = 0; i < l->n && gap > 2 * l->length / RENEWALS; i++)
                l->sights[i].since = MIN(l->sights[i].since + gap, now);
        l->renewed = now;
}

/* The others renew in the same scope of the store: being late by one of them is no failure. */
static void renew(struct control *c)
{
        _cleanup_free_ char *clients = ask_clients(c);
        int r = -ESTALE;

        for (int i = 0; i < AT_ONCE && r == -ESTALE; i++)
                r = renew_once(c, clients);
        if (r == 0)
                forgive_silence(c->lease);
        if (r == -ESHUTDOWN)
                lose(c);
}

int lease_clients(struct control *c, struct err **e)
{
        _cleanup_free_ char *clients = NULL, *known = NULL;
        const struct object *o;
        int r;

        if (!c->lease || !c->cfg.fence)
                return 0;
        r = c->cfg.fence->ops->clients(c->cfg.fence, &clients, e);
        if (r < 0)
                return r;
        control_rdlock(c);
        o = host_find(c, c->cfg.host);
        known = xstrdup(o ? object_str(o, "clients") : "");
        control_unlock(c);
        if (streq(known, clients))
                return 0;
        r = -ESTALE;
        for (int i = 0; i < AT_ONCE && r == -ESTALE; i++)
                r = renew_once(c, clients);
        return r < 0 ? err_errno(e, r, "note what this host writes with") : 0;
}

static void machine_id(char out[ID_TEXT_SIZE])
{
        sd_id128_t id;

        out[0] = '\0';
        if (sd_id128_get_machine(&id) == 0)
                id_text(out, id);
}

/* Takes the record for this life of the daemon, whatever was in it. */
static int take_once(struct control *c, struct err **e)
{
        _cleanup_free_ char *clients = ask_clients(c);
        int64_t asked = clock_mono();
        char machine[ID_TEXT_SIZE];
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, NULL);
        t.unleased = true;
        o = host_find(c, c->cfg.host);
        if (!o) {
                txn_abort(&t);
                return err_set(e, -ENOENT, "host '%s' has no record", c->cfg.host);
        }
        txn_set_state(&t, o, object_num(o, "drained") ? HOST_DRAINING : HOST_UP);
        txn_set_num(&t, o, "drained", 0);
        txn_set_num(&t, o, "epoch", c->epoch);
        set_clients(&t, o, clients);
        machine_id(machine);
        txn_set_str(&t, o, "machine", machine);
        beat(&t, o);
        r = txn_commit(&t, e);
        if (r < 0)
                return r;
        atomic_store(&c->lease->until, asked + c->lease->length * HOLD_PERCENT / 100);
        atomic_store(&c->lease->lost, false);
        return 0;
}

static int take(struct control *c, struct err **e)
{
        return AGAIN(c, e, take_once(c, e));
}

int lease_new_life(struct control *c, struct err **e)
{
        uint64_t epoch = 0;
        int r = c->cfg.store->ops->epoch(c->cfg.store, &epoch, e);

        if (r < 0)
                return r;
        pthread_rwlock_wrlock(&c->model);
        c->epoch = epoch;
        pthread_rwlock_unlock(&c->model);
        return 0;
}

int lease_rejoin(struct control *c, struct err **e)
{
        int r = seed_host(c, e); /* an admin may have removed it */

        return r < 0 ? r : take(c, e);
}

/* --- of the others --------------------------------------------------------------------------- */

static struct sight *sight_of(struct lease *l, const struct object *o)
{
        for (size_t i = 0; i < l->n; i++)
                if (l->sights[i].no == o->no)
                        return &l->sights[i];
        l->sights = xrealloc(l->sights, l->n + 1, sizeof(*l->sights));
        l->sights[l->n] = (struct sight){.no = o->no, .since = clock_mono()};
        return &l->sights[l->n++];
}

/* Whether it has not moved for all of its time.  Model and lock held. */
static bool overdue(struct lease *l, const struct object *o, struct sight *ret)
{
        struct sight *s = sight_of(l, o);

        if (s->beat != object_num(o, "beat") || s->epoch != object_num(o, "epoch")) {
                s->beat = object_num(o, "beat");
                s->epoch = object_num(o, "epoch");
                s->since = clock_mono();
        }
        *ret = *s;
        return serving(o) && clock_mono() - s->since > l->length;
}

static int declare_lost(struct control *c, const struct sight *s)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, s->no);
        if (!o || !serving(o) || object_num(o, "beat") != s->beat ||
            object_num(o, "epoch") != s->epoch) {
                txn_abort(&t);
                return 0;
        }
        log_warning("host '%s' did not renew its lease: declaring it lost", o->name);
        txn_set_num(&t, o, "drained", o->state == HOST_DRAINING);
        txn_set_num(&t, o, "lost_epoch", s->epoch);
        txn_set_state(&t, o, HOST_LOST);
        return txn_commit(&t, NULL);
}

static void observe(struct control *c)
{
        struct lease *l = c->lease;
        struct sight *late = NULL;
        bool wake = false;
        size_t n = 0;

        control_rdlock(c);
        pthread_mutex_lock(&l->lock);
        for (struct object *o = c->by_no; o; o = o->hh_no.next) {
                struct sight s;

                if (o->kind != &kind_host || streq(o->name, c->cfg.host))
                        continue;
                wake = wake || object_in(o, STATE(HOST_LOST) | STATE(HOST_DOWN));
                if (!overdue(l, o, &s))
                        continue;
                late = xrealloc(late, n + 1, sizeof(*late));
                late[n++] = s;
        }
        pthread_mutex_unlock(&l->lock);
        control_unlock(c);
        for (size_t i = 0; i < n && lease_holds(c); i++)
                AGAIN(c, NULL, declare_lost(c, &late[i]));
        if (n || wake)
                takeover_wake(c);
        free(late);
}

/* Each host has the Unix groups of all tenants: there is another one, or one less. */
static void look_after_groups(struct control *c)
{
        struct collection *l;
        uint64_t sum = 1;

        control_rdlock(c);
        l = model_collection(c, model_by_no(c, OBJECT_CLOUD), &kind_tenant);
        for (size_t i = 0; l && i < l->n; i++)
                if (l->v[i]->state == TENANT_ACTIVE)
                        sum += l->v[i]->no;
        control_unlock(c);
        if (sum != c->lease->tenants)
                reconcile_groups(c);
        c->lease->tenants = sum;
}

void host_render_seen(struct control *c, const struct object *o, struct buf *out)
{
        struct lease *l = c->lease;
        struct sight s = {};

        if (!l || streq(o->name, c->cfg.host)) {
                buf_addc(out, '0');
                return;
        }
        WITH_LOCK(&l->lock);
        overdue(l, o, &s);
        buf_printf(out, "%" PRId64, (clock_mono() - s.since) / 1000000);
}

/* --- start and stop -------------------------------------------------------------------------- */

static void *lease_main(void *arg)
{
        struct control *c = arg;
        struct lease *l = c->lease;

        pthread_mutex_lock(&l->lock);
        while (!l->stop) {
                struct timespec ts = clock_timespec(clock_mono() + l->length / RENEWALS);

                pthread_mutex_unlock(&l->lock);
                if (!lease_lost(c))
                        renew(c);
                observe(c);
                look_after_groups(c);
                pthread_mutex_lock(&l->lock);
                if (!l->stop)
                        pthread_cond_timedwait(&l->cond, &l->lock, &ts);
        }
        pthread_mutex_unlock(&l->lock);
        return NULL;
}

static int note_any(void *arg, const char *id _unused_, const char *volume _unused_)
{
        *(bool *)arg = true;
        return 0;
}

/* What this host had before its record was removed. */
static bool has_exports(struct control *c)
{
        struct volume_service *s = c->cfg.volumes;
        bool any = false;

        return s && s->ops->list_exports && s->ops->list_exports(s, note_any, &any, NULL) == 0 &&
               any;
}

/* A record that others have declared lost is not taken: first what it ran must be gone. */
static int begin(struct control *c, struct err **e)
{
        char machine[ID_TEXT_SIZE];
        const struct object *o;
        bool dead, other, new;

        machine_id(machine);
        control_rdlock(c);
        o = host_find(c, c->cfg.host);
        dead = o && object_in(o, STATE(HOST_LOST) | STATE(HOST_DOWN));
        new = o && !object_num(o, "epoch");
        other = o && serving(o) && *object_str(o, "machine") &&
                !streq(object_str(o, "machine"), machine);
        control_unlock(c);
        if (other) { /* its guests would be ended as those of a dead host */
                err_set(e, -EEXIST, "a host '%s' serves already, on another machine", c->cfg.host);
                return err_hint(e, -EEXIST,
                                "`host = NAME` in the configuration; if that one was replaced, "
                                "wait until it is down");
        }
        if (!dead && !(new &&has_exports(c)))
                return take(c, e);
        atomic_store(&c->lease->lost, true);
        return 0;
}

int lease_start(struct control *c, struct err **e)
{
        struct lease *l;
        pthread_condattr_t a;
        int r;

        if (!feed_shared(c))
                return 0;
        l = xcalloc(1, sizeof(*l));
        pthread_mutex_init(&l->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&l->cond, &a);
        pthread_condattr_destroy(&a);
        l->length = (int64_t)(c->cfg.lease_ms ?: LEASE_MS) * 1000;
        c->lease = l;
        l->renewed = clock_mono();
        r = begin(c, e);
        if (r < 0)
                return r;
        l->running = pthread_create(&l->thread, NULL, lease_main, c) == 0;
        return l->running ? 0 : err_set(e, -EAGAIN, "no thread for the lease");
}

static int leave(struct control *c)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = host_find(c, c->cfg.host);
        if (!o || !serving(o) || object_num(o, "epoch") != c->epoch) {
                txn_abort(&t);
                return 0;
        }
        txn_set_num(&t, o, "drained", o->state == HOST_DRAINING);
        txn_set_state(&t, o, HOST_AWAY);
        return txn_commit(&t, NULL);
}

void lease_stop(struct control *c)
{
        struct lease *l = c->lease;

        if (!l || !l->running)
                return;
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->cond);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
        l->running = false;
        AGAIN(c, NULL, leave(c));
}

void lease_free(struct control *c)
{
        struct lease *l = c->lease;

        if (!l)
                return;
        pthread_cond_destroy(&l->cond);
        pthread_mutex_destroy(&l->lock);
        free(l->sights);
        free(l);
        c->lease = NULL;
}
