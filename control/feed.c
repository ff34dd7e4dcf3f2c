/* The feed: what other hosts commit to the store, brought into the model.
 *
 * Changes of a scope are applied with no commit of ours under way: new ones wait, those that are
 * with the store are answered first.  So the model is, at each moment, the store as of some change
 * number, with our own changes on top; and the store refuses a commit that was decided at an older
 * one. */
#include "control/internal.h"

#include <utlist.h>

#include "control/job.h"

enum {
        GONE = 4096,            /* ids of deleted objects that are remembered */
        PATIENCE_US = 10000000, /* so long may a record wait for what it refers to */
        AWAIT_US = 500000,
        TRIES = 16, /* at a change, before whoever asks hears that others are quicker */
};

/* A record that is to be applied. */
struct item {
        char scope[40];
        sd_id128_t id;
        bool deleted;
        struct record rec; /* unless deleted */
        uint64_t version;
        int64_t since; /* monotonic usec */
        struct item *prev, *next;
        UT_hash_handle hh;
};

/* A scope and the number that is reached once none of its records waits. */
struct mark {
        char scope[40];
        uint64_t now;
        bool unread; /* all of the scope is to be read, and could not be */
        struct mark *prev, *next;
};

struct feed {
        pthread_mutex_t lock; /* taken with the model or without, never the other way */
        pthread_cond_t cond;
        bool hold;           /* transactions may not begin; written with model and lock held */
        unsigned long turns; /* changes applied so far */

        bool stop;

        struct item *items, *by_id; /* the store's thread alone, as are marks and changes */
        struct mark *marks;
        struct change *changes; /* told once the model's lock is let go */
        size_t nchanges;

        sd_id128_t gone[GONE]; /* model write-held */
        size_t ngone;
};

bool feed_shared(const struct control *c)
{
        return c->cfg.store->ops->watch;
}

bool control_shared(const struct control *c)
{
        return feed_shared(c);
}

bool feed_ours(const struct control *c, const struct object *o)
{
        return !feed_shared(c) || streq(object_str(o, "host"), c->cfg.host);
}

/* --- who may change the model --------------------------------------------------------------------
 */

void feed_begin(struct control *c)
{
        struct feed *f = c->feed;

        while (f && f->hold) {
                pthread_mutex_lock(&f->lock);
                pthread_rwlock_unlock(&c->model);
                pthread_cond_wait(&f->cond, &f->lock);
                pthread_mutex_unlock(&f->lock);
                pthread_rwlock_wrlock(&c->model);
        }
}

void feed_answered(struct control *c)
{
        struct feed *f = c->feed;

        if (!f)
                return;
        WITH_LOCK(&f->lock);
        pthread_cond_broadcast(&f->cond);
}

/* From the return on no commit of ours is under way, and none begins.  Model not held. */
static void hold(struct control *c)
{
        struct feed *f = c->feed;

        pthread_rwlock_wrlock(&c->model);
        f->hold = true;
        while (c->pending) {
                pthread_mutex_lock(&f->lock);
                pthread_rwlock_unlock(&c->model);
                pthread_cond_wait(&f->cond, &f->lock);
                pthread_mutex_unlock(&f->lock);
                pthread_rwlock_wrlock(&c->model);
        }
        pthread_rwlock_unlock(&c->model);
}

static void release(struct control *c)
{
        struct feed *f = c->feed;

        pthread_rwlock_wrlock(&c->model);
        pthread_mutex_lock(&f->lock);
        f->hold = false;
        f->turns++;
        pthread_cond_broadcast(&f->cond);
        pthread_mutex_unlock(&f->lock);
        pthread_rwlock_unlock(&c->model);
}

unsigned long feed_turn(const struct control *c)
{
        return c->feed ? c->feed->turns : 0;
}

bool feed_again(const struct control *c, int r, unsigned *tries, struct err **e)
{
        if (r != -ESTALE || !c->feed || ++*tries >= TRIES)
                return false;
        if (e)
                *e = err_free(*e);
        return true;
}

void feed_await(struct control *c, unsigned long turn)
{
        struct feed *f = c->feed;
        struct timespec ts = clock_timespec(clock_mono() + AWAIT_US);
        if (!f)
                return;
        WITH_LOCK(&f->lock);
        while (turn == f->turns && !f->stop)
                if (pthread_cond_timedwait(&f->cond, &f->lock, &ts) != 0)
                        return;
}

void feed_deleted(struct control *c, const struct object *o)
{
        if (c->feed)
                c->feed->gone[c->feed->ngone++ % GONE] = o->id;
}

/* An id is never given again: what is gone, an old record must not bring back. */
static bool is_gone(const struct feed *f, sd_id128_t id)
{
        for (size_t i = 0; i < MIN(f->ngone, (size_t)GONE); i++)
                if (sd_id128_equal(f->gone[i], id))
                        return true;
        return false;
}

/* --- applying ------------------------------------------------------------------------------------
 */

static void tell_later(struct control *c, struct object *o, bool gone, bool listed)
{
        struct feed *f = c->feed;

        f->changes = xrealloc(f->changes, f->nchanges + 1, sizeof(*f->changes));
        f->changes[f->nchanges++] = change_of(c, o, gone, listed);
}

/* Whoever still refers to o was made so in another scope while o was deleted in its own: such a
 * link is ignored, as at a start. */
static void drop_links_to(struct object *o)
{
        while (o->nrefs) {
                struct object *from = o->refs[0];
                struct link *l = from->links;

                while (l->target != o)
                        l++;
                log_error("%s '%s': link '%s' points nowhere, ignoring", from->kind->name,
                          from->name, l->name);
                object_drop_ref(o, from);
                free(l->name);
                memmove(l, l + 1, (size_t)(from->links + from->nlinks - l - 1) * sizeof(*l));
                from->nlinks--;
        }
}

/* 0 done, 1 it has to wait. */
static int apply_delete(struct control *c, struct item *it, bool late)
{
        struct object *o = model_by_id(c, it->id);
        struct room *room = o ? model_room(c, o) : NULL;

        if (!o)
                return 0;
        if (o->nrefs && !late)
                return 1;
        for (unsigned i = 0; room && i < KINDS_MAX; i++)
                if (room->lists[i].n)
                        return 1;
        drop_links_to(o);
        tell_later(c, o, !o->nameless, true);
        c->feed->changes[c->feed->nchanges - 1].deleted = true;
        if (o->kind == &kind_job)
                jobs_gone(c, o);
        quota_count(c, o, -1);
        feed_deleted(c, o);
        model_remove(c, o);
        object_free(o);
        return 0;
}

static int apply_update(struct control *c, struct item *it, struct object *o, bool late)
{
        struct object *n = it->rec.o;
        bool named;

        n->tenant = o->tenant;
        n->holder = o->holder;
        if (!record_links(c, n, it->rec.links, late))
                return 1;
        record_name(&it->rec);
        named = !streq(o->name, n->name) || o->nameless != n->nameless;
        tell_later(c, o, named, named);
        quota_count(c, o, -1);
        if (o->state != n->state) {
                _cleanup_free_ char *text = NULL;

                if (asprintf(&text, "state %s -> %s", object_state(o), object_state(n)) > 0)
                        events_add(c, o, text);
        }
        object_swap(c, o, n);
        quota_count(c, o, 1);
        if (o->kind == &kind_job)
                jobs_seen(c, o);
        if (named && object_owner(c, o))
                collection_touch(model_collection(c, object_owner(c, o), o->kind));
        return 0;
}

static int apply_new(struct control *c, struct item *it, bool late)
{
        struct object *n = it->rec.o;
        sd_id128_t tenant;

        if (is_gone(c->feed, it->id))
                return 0;
        if (!n->kind->global) {
                n->tenant = id_parse(it->scope, &tenant) == 0 ? model_by_id(c, tenant) : NULL;
                n->holder = n->kind->inside ? model_by_no(c, it->rec.in) : NULL;
                if (!n->tenant ||
                    (n->kind->inside && (!n->holder || !kind_holds(n->holder->kind, n->kind))))
                        return 1;
        }
        if (!record_links(c, n, it->rec.links, late))
                return 1;
        record_name(&it->rec);
        it->rec.o = NULL; /* the model's now */
        model_add(c, n);
        if (object_owner(c, n)) /* news here, however old it is: a listing under way may lack it */
                collection_touch(model_collection(c, object_owner(c, n), n->kind));
        quota_count(c, n, 1);
        if (n->kind == &kind_job)
                jobs_seen(c, n);
        tell_later(c, n, false, true);
        return 0;
}

static int apply(struct control *c, struct item *it)
{
        bool late = clock_mono() - it->since > PATIENCE_US;
        struct object *o;

        if (it->deleted)
                return apply_delete(c, it, late);
        o = model_by_id(c, it->id);
        if (!o)
                return apply_new(c, it, late);
        if (it->version <= o->rev || o->kind != it->rec.o->kind)
                return 0;
        return apply_update(c, it, o, late);
}

static void item_free(struct feed *f, struct item *it)
{
        DL_DELETE(f->items, it);
        HASH_DELETE(hh, f->by_id, it);
        record_done(&it->rec);
        free(it);
}

/* What refers to what is not there yet waits for it: targets and tenants may come later, and what
 * is deleted after what refers to it.  Model write-held. */
static void apply_all(struct control *c)
{
        struct feed *f = c->feed;
        struct item *it, *tmp;
        struct mark *m, *next;
        bool more = true;

        while (more) {
                more = false;
                DL_FOREACH_SAFE(f->items, it, tmp)
                {
                        if (apply(c, it) != 0)
                                continue;
                        item_free(f, it);
                        more = f->items != NULL;
                }
        }
        DL_FOREACH_SAFE(f->marks, m, next)
        {
                DL_FOREACH (f->items, it)
                        if (streq(it->scope, m->scope))
                                break;
                if (it || m->unread)
                        continue;
                c->cfg.store->ops->applied(c->cfg.store, m->scope, m->now);
                DL_DELETE(f->marks, m);
                free(m);
        }
}

/* --- what comes ----------------------------------------------------------------------------------
 */

static int item_add(void *arg, const struct store_record *r)
{
        struct control *c = arg;
        struct feed *f = c->feed;
        struct item *it = xcalloc(1, sizeof(*it)), *old;

        if (id_parse(r->key, &it->id) < 0 || (r->value && record_read(r, &it->rec) < 0)) {
                free(it); /* a newer release's: said in the log, and not shown here */
                return 0;
        }
        snprintf(it->scope, sizeof(it->scope), "%s", r->scope);
        it->deleted = !r->value;
        it->version = r->version;
        it->since = clock_mono();
        HASH_FIND(hh, f->by_id, &it->id, sizeof(it->id), old);
        if (old)
                item_free(f, old);
        HASH_ADD(hh, f->by_id, id, sizeof(it->id), it);
        DL_APPEND(f->items, it);
        return 0;
}

static struct mark *mark_of(struct feed *f, const char *scope)
{
        struct mark *m;

        DL_FOREACH (f->marks, m)
                if (streq(m->scope, scope))
                        break;
        if (!m) {
                m = xcalloc(1, sizeof(*m));
                snprintf(m->scope, sizeof(m->scope), "%s", scope);
                DL_APPEND(f->marks, m);
        }
        return m;
}

/* The whole scope anew, with no commit of ours under way: what is in the model and not in it is
 * deleted.  Model not held. */
static int read_whole(struct control *c, const char *scope, uint64_t *ret_now)
{
        struct store *s = c->cfg.store;
        _cleanup_err_ struct err *err = NULL;
        struct object *o, *tmp;
        int r = s->ops->changes(s, scope, 0, item_add, c, ret_now, &err);

        if (r < 0) {
                log_warning("%s", err_msg(err));
                return r;
        }
        control_rdlock(c);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                char of[40], key[ID_TEXT_SIZE];
                struct item *it;

                record_scope(o, of);
                if (!streq(of, scope))
                        continue;
                HASH_FIND(hh, c->feed->by_id, &o->id, sizeof(o->id), it);
                if (!it)
                        item_add(c, &(struct store_record){.scope = scope,
                                                           .key = id_text(key, o->id)});
        }
        control_unlock(c);
        return 0;
}

/* As after a commit of ours: caches first, then who waits. */
static void tell_all(struct control *c)
{
        struct feed *f = c->feed;

        pthread_mutex_lock(&c->changed_lock);
        for (size_t i = 0; i < f->nchanges && c->changed; i++)
                c->changed(c->changed_arg, &f->changes[i]);
        pthread_mutex_unlock(&c->changed_lock);
        for (size_t i = 0; i < f->nchanges; i++) {
                const struct change *ch = &f->changes[i];

                if (ch->deleted)
                        wait_gone(c, ch->no);
                else
                        wait_changed(c, ch->no);
                if (ch->kind == &kind_volume_type)
                        reconcile_limits(c);
                networks_changed(c, ch->kind);
                metrics_changed(c, ch->kind);
                if (ch->kind == &kind_host)
                        reconcile_hosts(c);
                jobs_changed(c, ch->no);
        }
        f->nchanges = 0;
}

/* On the store's thread. */
static void changed(void *arg, const char *scope, const struct store_record *v, size_t n,
                    bool whole, uint64_t now)
{
        struct control *c = arg;
        struct mark *m = mark_of(c->feed, scope);

        hold(c);
        m->unread = m->unread || whole;
        if (m->unread) /* else it is tried again at the store's next call */
                m->unread = read_whole(c, scope, &now) < 0;
        else
                for (size_t i = 0; i < n; i++)
                        item_add(c, &v[i]);
        m->now = MAX(m->now, now);
        pthread_rwlock_wrlock(&c->model);
        apply_all(c);
        pthread_rwlock_unlock(&c->model);
        release(c);
        tell_all(c);
}

/* --- start and stop ------------------------------------------------------------------------------
 */

void feed_start(struct control *c)
{
        pthread_condattr_t a;
        struct feed *f;

        if (!feed_shared(c))
                return;
        f = xcalloc(1, sizeof(*f));
        pthread_mutex_init(&f->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&f->cond, &a);
        pthread_condattr_destroy(&a);
        c->feed = f;
}

int feed_watch(struct control *c, struct err **e)
{
        struct store *s = c->cfg.store;

        return c->feed ? s->ops->watch(s, changed, c, e) : 0;
}

void feed_stop(struct control *c)
{
        struct feed *f = c->feed;

        if (!f || f->stop)
                return;
        c->cfg.store->ops->watch(c->cfg.store, NULL, NULL, NULL);
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_broadcast(&f->cond);
        pthread_mutex_unlock(&f->lock);
}

void feed_free(struct control *c)
{
        struct feed *f = c->feed;
        struct item *it, *tmp;
        struct mark *m, *next;

        if (!f)
                return;
        DL_FOREACH_SAFE(f->items, it, tmp)
        {
                item_free(f, it);
        }
        DL_FOREACH_SAFE(f->marks, m, next)
        {
                free(m);
        }
        pthread_cond_destroy(&f->cond);
        pthread_mutex_destroy(&f->lock);
        free(f->changes);
        free(f);
        c->feed = NULL;
}
