/* The feed: tells others what changed here, and hears from them.
 *
 * A notify carries names of scopes, no contents: who hears one looks what is new behind his cursor.
 * So a notify that is lost costs time only; a timer looks at all scopes too. */
#include "backend/store/rados/internal.h"

#include <signal.h>

enum {
        WATCH_S = 10,       /* a host is pinging every 5 s */
        NOTIFY_MS = 1000,   /* a dead watcher holds a notify that long */
        LOOK_US = 5000000,  /* all scopes are looked at that often */
        RETRY_US = 1000000, /* after a look that failed */
        TELLING = 8,        /* notifies under way that need no pause */
        TELLING_MAX = 256,
        YIELD_US = 20000, /* so long another host goes first when it asks */
        PAUSE_US = 20000, /* between notifies when more are under way */
        NAMES_MAX = 4096, /* bytes of a notify; beyond them it says "all" */
};

/* --- telling -----------------------------------------------------------------------------------
 */

/* On librados' thread. */
static void told(rados_completion_t c _unused_, void *arg)
{
        struct rados_store *s = arg;
        WITH_LOCK(&s->lock);

        s->ntelling--;
        pthread_cond_broadcast(&s->settled);
        if (s->unsaid)
                pthread_cond_signal(&s->heard);
}

/* Lock held. */
static void notify(struct rados_store *s, const char *p, size_t n)
{
        rados_completion_t c;

        if (rados_aio_create_completion2(s, told, &c) < 0)
                return; /* the others' timers will find it */
        s->ntelling++;
        if (rados_aio_notify(s->io, STORE_OID, c, p, (int)n, NOTIFY_MS, NULL, NULL) < 0)
                s->ntelling--;
        rados_aio_release(c);
}

void feed_ask(struct rados_store *s, struct scope *sc)
{
        char text[64];
        int64_t now = clock_mono();

        if (now < sc->asked + 2 * YIELD_US || s->ntelling >= TELLING_MAX)
                return;
        sc->asked = now;
        notify(s, text, (size_t)snprintf(text, sizeof(text), "!%s", sc->name) + 1);
}

/* Sends the names of all unsaid scopes if there may be one more notify.  Lock held. */
static void tell_now(struct rados_store *s)
{
        _cleanup_buf_ struct buf names = {0};
        int64_t now = clock_mono();

        if (s->ntelling >= TELLING_MAX || (s->ntelling >= TELLING && now < s->told + PAUSE_US))
                return;
        for (struct scope *sc = s->scopes; sc; sc = sc->hh.next) {
                if (sc->unsaid)
                        buf_add(&names, sc->name, strlen(sc->name) + 1);
                sc->unsaid = false;
        }
        if (names.failed || names.len > NAMES_MAX)
                buf_clear(&names);
        s->unsaid = false;
        s->told = now;
        notify(s, buf_str(&names), names.len);
}

void feed_tell(struct rados_store *s, struct scope *sc)
{
        sc->unsaid = s->unsaid = true;
        tell_now(s);
        if (s->unsaid)
                pthread_cond_signal(&s->heard);
}

/* --- hearing -----------------------------------------------------------------------------------
 */

/* On librados' thread, like heard_error().  Answers first: who notified waits for all. */
static void heard(void *arg, uint64_t notify_id, uint64_t handle, uint64_t from, void *data,
                  size_t len)
{
        struct rados_store *s = arg;
        const char *names = data;

        rados_notify_ack(s->io, STORE_OID, notify_id, handle, NULL, 0);
        if (from == rados_get_instance_id(s->cluster))
                return;
        WITH_LOCK(&s->lock);
        if (!len)
                s->dirty = true;
        for (const char *at = names; at < names + len; at += strnlen(at, names + len - at) + 1) {
                bool asks = *at == '!';
                struct scope *sc;

                HASH_FIND(hh, s->scopes, at + asks, strnlen(at, names + len - at) - asks, sc);
                if (asks && sc && (!sc->yield || !sc->head)) /* once, then it is our turn */
                        sc->yield = clock_mono() + YIELD_US;
                else if (!asks && sc)
                        sc->dirty = true;
                else if (!sc)
                        s->dirty = true; /* a new one: the list has it */
        }
        pthread_cond_signal(&s->heard);
}

static void heard_error(void *arg, uint64_t handle _unused_, int code)
{
        struct rados_store *s = arg;
        WITH_LOCK(&s->lock);

        if (!s->lost)
                log_warning("store '%s': the watch is lost: %s", s->where, strerror(-code));
        s->lost = true;
        pthread_cond_signal(&s->heard);
}

static int watch_begin(struct rados_store *s)
{
        int r = rados_watch3(s->io, STORE_OID, &s->watch, heard, heard_error, WATCH_S, s);

        s->watching = r == 0;
        return r;
}

/* A lost watch does not come back by itself.  Whatever happened meanwhile is looked for after it
 * is there again. */
static int watch_mend(struct rados_store *s)
{
        bool lost;

        pthread_mutex_lock(&s->lock);
        lost = s->lost;
        pthread_mutex_unlock(&s->lock);
        if (!lost && s->watching && rados_watch_check(s->io, s->watch) >= 0)
                return 0;
        if (s->watching)
                rados_unwatch2(s->io, s->watch);
        s->watching = false;
        pthread_mutex_lock(&s->lock);
        s->lost = false;
        s->dirty = true;
        pthread_mutex_unlock(&s->lock);
        return watch_begin(s);
}

static void tell_changed(struct rados_store *s, struct scope *sc, const struct records *v,
                         bool whole, uint64_t now)
{
        store_changed_fn *changed;

        pthread_mutex_lock(&s->lock);
        changed = s->changed;
        s->calling = true;
        sc->given = now;
        pthread_mutex_unlock(&s->lock);
        if (changed)
                changed(s->arg, sc->name, v->v, v->n, whole, now);
        WITH_LOCK(&s->lock);
        s->calling = false;
        pthread_cond_broadcast(&s->settled);
}

/* Brings what changed in the scope to whoever watches. */
static int look_at(struct rados_store *s, struct scope *sc)
{
        struct records v = {0};
        uint64_t since, now;
        bool whole, owed;
        int r;

        pthread_mutex_lock(&s->lock);
        since = sc->cursor;
        owed = sc->applied < sc->given; /* something waits there, maybe for nothing but time */
        pthread_mutex_unlock(&s->lock);
        r = scope_changes(s, sc, since, &v, &whole, &now);
        if (r == 0 && (now != since || owed))
                tell_changed(s, sc, &v, whole, now);
        records_free(&v);
        if (r == -ESTALE) { /* forgotten under our eyes: all of it, at once */
                pthread_mutex_lock(&s->lock);
                sc->cursor = 0;
                pthread_mutex_unlock(&s->lock);
                return -ESTALE;
        }
        if (r < 0)
                return r;
        WITH_LOCK(&s->lock);
        sc->cursor = MAX(sc->cursor, now);
        return 0;
}

/* Looks at what is dirty, or at all scopes there are. */
static int look(struct rados_store *s, bool all)
{
        _cleanup_free_ struct scope **v = NULL;
        size_t n = 0;
        int r = all ? scopes_read(s, NULL) : 0, first = r;

        v = scopes_list(s, &n);
        for (size_t i = 0; v && i < n; i++) {
                bool dirty;

                pthread_mutex_lock(&s->lock);
                dirty = v[i]->dirty || all;
                v[i]->dirty = false;
                pthread_mutex_unlock(&s->lock);
                if (!dirty)
                        continue;
                r = look_at(s, v[i]);
                if (r == 0)
                        continue;
                first = first ?: r;
                pthread_mutex_lock(&s->lock);
                v[i]->dirty = true;
                pthread_mutex_unlock(&s->lock);
        }
        return v ? first : -ENOMEM;
}

static bool any_dirty(struct rados_store *s)
{
        for (struct scope *sc = s->scopes; sc; sc = sc->hh.next)
                if (sc->dirty)
                        return true;
        return s->dirty || s->lost;
}

static void feed_pass(struct rados_store *s, bool all, bool *bad)
{
        int r = all ? watch_mend(s) : 0, l;

        l = look(s, all);
        r = r ?: l;
        if (r < 0 && r != -ESTALE && !*bad)
                log_warning("store '%s': what other hosts change cannot be read: %s", s->where,
                            strerror(-r));
        else if (r == 0 && *bad)
                log_info("store '%s': what other hosts change is read again", s->where);
        *bad = r < 0 && r != -ESTALE;
}

static void *feed_main(void *arg)
{
        struct rados_store *s = arg;
        int64_t due = clock_mono() + LOOK_US;
        bool bad = false;

        pthread_setname_np(pthread_self(), "store-feed");
        pthread_mutex_lock(&s->lock);
        while (!s->stop) {
                int64_t now = clock_mono();
                bool all = s->dirty || s->lost || now >= due;
                struct timespec ts = clock_timespec(s->unsaid    ? now + PAUSE_US
                                                    : bad        ? now + RETRY_US
                                                    : s->changed ? due
                                                                 : now + LOOK_US);

                if (s->unsaid)
                        tell_now(s);
                if (!s->changed || (!all && !any_dirty(s)) || (bad && now < due)) {
                        pthread_cond_timedwait(&s->heard, &s->lock, &ts);
                        continue;
                }
                s->dirty = false;
                pthread_mutex_unlock(&s->lock);
                feed_pass(s, all, &bad);
                pthread_mutex_lock(&s->lock);
                if (bad)
                        due = clock_mono() + RETRY_US;
                else if (all)
                        due = clock_mono() + LOOK_US;
        }
        pthread_mutex_unlock(&s->lock);
        return NULL;
}

static int feed_start(struct rados_store *s)
{
        sigset_t set, old;
        int r;

        sigfillset(&set);
        pthread_sigmask(SIG_SETMASK, &set, &old);
        r = -pthread_create(&s->feed, NULL, feed_main, s);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        s->feeding = r == 0;
        return r;
}

void feed_applied(struct store *store, const char *scope, uint64_t now)
{
        struct rados_store *s = (struct rados_store *)store;
        struct scope *sc = scope_get(s, scope);
        WITH_LOCK(&s->lock);

        if (sc)
                sc->applied = MAX(sc->applied, now);
}

void feed_hurry(struct rados_store *s, struct scope *sc)
{
        sc->dirty = true;
        pthread_cond_signal(&s->heard);
}

static void unwatch(struct rados_store *s)
{
        WITH_LOCK(&s->lock);

        s->changed = NULL;
        while (s->calling)
                pthread_cond_wait(&s->settled, &s->lock);
}

/* Who watches has filled the store, if it was for him to do. */
static int filled(struct rados_store *s, struct err **e)
{
        struct wop w;
        int r;

        wop_init(&w);
        wop_set(&w, strdup("filled"), "1", 1);
        r = wop_run(s, &w, STORE_OID);
        wop_done(&w);
        if (r < 0)
                return store_err(s, e, r, "write");
        rados_unlock(s->io, STORE_OID, "first", s->where);
        s->first = false;
        return 0;
}

int feed_watch(struct store *store, store_changed_fn *changed, void *arg, struct err **e)
{
        struct rados_store *s = (struct rados_store *)store;
        int r;

        if (!changed) {
                unwatch(s);
                return 0;
        }
        r = watch_begin(s);
        if (r < 0)
                return store_err(s, e, r, "watch for changes");
        s->arg = arg;
        s->changed = changed;
        s->watched = true;
        s->dirty = true; /* what happened between load() and now */
        r = feed_start(s);
        if (r < 0)
                return store_err(s, e, r, "start a thread");
        return s->first ? filled(s, e) : 0;
}

void feed_stop(struct rados_store *s)
{
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_broadcast(&s->heard);
        pthread_mutex_unlock(&s->lock);
        if (s->feeding)
                pthread_join(s->feed, NULL);
        s->feeding = false;
        if (s->watching) {
                rados_unwatch2(s->io, s->watch);
                rados_watch_flush(s->cluster);
        }
        s->watching = false;
        if (s->first)
                rados_unlock(s->io, STORE_OID, "first", s->where);
        pthread_mutex_lock(&s->lock);
        if (s->unsaid)
                s->told = 0, tell_now(s);
        while (s->ntelling) /* each has its time-out */
                pthread_cond_wait(&s->settled, &s->lock);
        pthread_mutex_unlock(&s->lock);
}
