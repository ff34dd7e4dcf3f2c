/* The feed: what other hosts commit, into this host's model.
 *
 * The store's thread only copies and queues.  A thread of ours applies in the order of each scope;
 * what cannot be applied yet (a commit of ours is under way, or what it points at comes later) is
 * tried again, and holds up no other scope. */
#include "control/job.h"

enum { RETRY_US = 3000, GIVE_UP_US = 10 * 1000000 };

struct batch {
        char scope[40];
        struct store_record *v;
        uint64_t *nos; /* of the objects that changed */
        size_t n, done;
        int64_t since; /* monotonic usec */
        struct batch *next;
};

struct feed {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop;
        struct batch *head, **tail;     /* queued by the store; guarded by lock */
        struct batch *todo, **todo_end; /* the thread's */
};

static void batch_free(struct batch *b)
{
        for (size_t i = 0; i < b->n; i++) {
                free((char *)b->v[i].key);
                free((char *)b->v[i].value);
        }
        free(b->v);
        free(b->nos);
        free(b);
}

static void changed(void *arg, const char *scope, const struct store_record *v, size_t n,
                    bool whole _unused_)
{
        struct control *c = arg;
        struct feed *f = c->feed;
        struct batch *b = xcalloc(1, sizeof(*b));

        snprintf(b->scope, sizeof(b->scope), "%s", scope);
        b->v = xcalloc(MAX(n, (size_t)1), sizeof(*b->v));
        b->nos = xcalloc(MAX(n, (size_t)1), sizeof(*b->nos));
        b->n = n;
        b->since = clock_mono();
        for (size_t i = 0; i < n; i++)
                b->v[i] = (struct store_record){.scope = b->scope,
                                                .key = xstrdup(v[i].key),
                                                .version = v[i].version,
                                                .value = v[i].value ? xstrndup(v[i].value, v[i].len)
                                                                    : NULL,
                                                .len = v[i].len};
        WITH_LOCK(&f->lock);
        *f->tail = b;
        f->tail = &b->next;
        pthread_cond_signal(&f->cond);
}

/* --- applying -------------------------------------------------------------------------------- */

static int apply_gone(struct control *c, const struct store_record *r, uint64_t *ret_no)
{
        struct object *o;
        sd_id128_t id;

        o = id_parse(r->key, &id) == 0 ? model_by_id(c, id) : NULL;
        if (!o)
                return 0;
        if (txn_pending(c, o) || o->nrefs)
                return -EAGAIN;
        if (o->kind == &kind_job)
                jobs_gone(c, o);
        quota_count(c, o, -1);
        *ret_no = o->no;
        model_remove(c, o);
        object_free(o);
        return 0;
}

static void tell(struct control *c, uint64_t no, bool gone)
{
        if (gone)
                wait_gone(c, no);
        else
                wait_changed(c, no);
        pthread_mutex_lock(&c->changed_lock);
        if (c->changed)
                c->changed(c->changed_arg, no);
        pthread_mutex_unlock(&c->changed_lock);
        jobs_changed(c, no);
}

static void note_state(struct control *c, const struct object *o, unsigned before)
{
        char text[2 * NAME_SIZE];

        if (before == o->state)
                return;
        snprintf(text, sizeof(text), "state %s -> %s", o->kind->states[before].name,
                 object_state(o));
        events_add(c, o, text);
}

/* Gives the number of the object that changed, 0 if none did; -EAGAIN.  Model write-held. */
static int apply_one(struct control *c, const struct store_record *r, uint64_t *ret_no)
{
        _cleanup_err_ struct err *err = NULL;
        struct object *o = NULL, *old;
        unsigned before;
        sd_id128_t id;
        int code;

        if (!r->value)
                return apply_gone(c, r, ret_no);
        old = id_parse(r->key, &id) == 0 ? model_by_id(c, id) : NULL;
        before = old ? old->state : 0;
        code = record_apply(c, r, &o, &err);
        if (o) {
                *ret_no = o->no;
                note_state(c, o, before);
                if (o->kind == &kind_job)
                        jobs_seen(c, o);
        }
        if (code < 0 && code != -EAGAIN)
                log_error("feed: %s", err_msg(err));
        return code == -EAGAIN ? code : 0;
}

/* Whether an older one of its scope has to be applied first. */
static bool behind(const struct feed *f, const struct batch *b)
{
        for (const struct batch *a = f->todo; a != b; a = a->next)
                if (streq(a->scope, b->scope))
                        return true;
        return false;
}

/* What belongs together is seen together, unless a part has to wait. */
static bool batch_apply(struct control *c, struct batch *b)
{
        size_t from = b->done;

        pthread_rwlock_wrlock(&c->model);
        for (; b->done < b->n; b->done++) {
                if (apply_one(c, &b->v[b->done], &b->nos[b->done]) == 0)
                        continue;
                if (clock_mono() - b->since < GIVE_UP_US)
                        break;
                log_error("feed: record %s has no place here", b->v[b->done].key);
        }
        pthread_rwlock_unlock(&c->model);
        for (size_t i = from; i < b->done; i++)
                if (b->nos[i])
                        tell(c, b->nos[i], !b->v[i].value);
        return b->done == b->n;
}

/* One round over what is queued; whether something is left. */
static bool apply_round(struct control *c)
{
        struct feed *f = c->feed;
        struct batch *b, **p = &f->todo;

        while ((b = *p)) {
                if (behind(f, b) || !batch_apply(c, b)) {
                        p = &b->next;
                        continue;
                }
                *p = b->next;
                if (f->todo_end == &b->next)
                        f->todo_end = p;
                batch_free(b);
        }
        return f->todo != NULL;
}

/* Lock held. */
static void take_queued(struct feed *f)
{
        if (!f->head)
                return;
        *f->todo_end = f->head;
        f->todo_end = f->tail;
        f->head = NULL;
        f->tail = &f->head;
}

static void *feed_main(void *arg)
{
        struct control *c = arg;
        struct feed *f = c->feed;
        bool left = false;

        pthread_mutex_lock(&f->lock);
        while (!f->stop) {
                struct timespec ts = clock_timespec(clock_mono() + RETRY_US);

                if (left)
                        pthread_cond_timedwait(&f->cond, &f->lock, &ts);
                while (!f->stop && !f->head && !left)
                        pthread_cond_wait(&f->cond, &f->lock);
                if (f->stop)
                        break;
                take_queued(f);
                pthread_mutex_unlock(&f->lock);
                left = apply_round(c);
                pthread_mutex_lock(&f->lock);
        }
        pthread_mutex_unlock(&f->lock);
        return NULL;
}

/* --- start and stop -------------------------------------------------------------------------- */

int feed_start(struct control *c, struct err **e)
{
        struct store *s = c->cfg.store;
        struct feed *f;
        pthread_condattr_t a;

        if (!c->cfg.fence)
                return 0;
        if (!s->ops->watch)
                return err_set(e, -ENOTSUP, "store '%s' is not for several hosts", s->ops->name);
        f = xcalloc(1, sizeof(*f));
        pthread_mutex_init(&f->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&f->cond, &a);
        pthread_condattr_destroy(&a);
        f->tail = &f->head;
        f->todo_end = &f->todo;
        c->feed = f;
        return s->ops->watch(s, changed, c, e);
}

int feed_run(struct control *c, struct err **e)
{
        struct feed *f = c->feed;

        if (!f)
                return 0;
        f->running = pthread_create(&f->thread, NULL, feed_main, c) == 0;
        return f->running ? 0 : err_set(e, -EAGAIN, "no thread for the feed");
}

void feed_stop(struct control *c)
{
        struct feed *f = c->feed;

        if (!f)
                return;
        c->cfg.store->ops->watch(c->cfg.store, NULL, NULL, NULL);
        if (!f->running)
                return;
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_signal(&f->cond);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
        f->running = false;
}

void feed_free(struct control *c)
{
        struct feed *f = c->feed;
        struct batch *b;

        if (!f)
                return;
        take_queued(f);
        while ((b = f->todo)) {
                f->todo = b->next;
                batch_free(b);
        }
        pthread_cond_destroy(&f->cond);
        pthread_mutex_destroy(&f->lock);
        free(f);
        c->feed = NULL;
}
