/* Transactions: change in memory, commit to the store, undo if the store refuses. */
#include "control/internal.h"
#include "control/job.h"

void txn_begin(struct txn *t, struct control *c, const struct caller *who)
{
        *t = (struct txn){.c = c, .who = who};
        pthread_rwlock_wrlock(&c->model);
        feed_begin(c);
        t->turn = feed_turn(c);
}

static struct touch *touch_find(struct txn *t, const struct object *o)
{
        for (size_t i = 0; i < t->n; i++)
                if (t->v[i].o == o)
                        return &t->v[i];
        return NULL;
}

static struct touch *touch_add(struct txn *t, struct object *o, struct object *before)
{
        t->v = xrealloc(t->v, t->n + 1, sizeof(*t->v));
        t->v[t->n] = (struct touch){.o = o, .before = before};
        return &t->v[t->n++];
}

void txn_edit(struct txn *t, struct object *o)
{
        if (!touch_find(t, o))
                touch_add(t, o, object_copy(o));
}

bool txn_unborn(struct control *c, const struct object *o)
{
        for (struct txn *n = c->pending; n; n = n->next) {
                struct touch *w = touch_find(n, o);

                if (w && !w->before)
                        return true;
        }
        return false;
}

int txn_create(struct txn *t, const struct kind *k, struct object *owner, const char *name,
               struct object **ret, struct err **e)
{
        struct control *c = t->c;
        char number[24];
        struct object *o;

        if (name && model_by_name(c, owner, k, name))
                return err_set(e, -EEXIST, "%s '%s' exists already", k->name, name);
        o = object_new(k);
        /* Whoever of several hosts makes the cloud, it has its number. */
        o->no = k == &kind_cloud ? OBJECT_CLOUD : number_next(c);
        o->id = id_new();
        if (k->inside)
                o->holder = owner;
        if (!k->global)
                o->tenant = k->inside ? owner->tenant : owner;
        o->created = o->updated = o->state_since = clock_now();
        o->next_slot = 1;
        snprintf(number, sizeof(number), "%" PRIu64, o->no);
        object_set_name(o, name ? name : number);
        for (unsigned i = 0; i < k->nattrs; i++) {
                const struct attr_def *a = &k->attrs[i];

                if (a->def && value_parse(c, a, a->def, strlen(a->def), &o->vals[i], NULL) < 0)
                        log_error("kind %s: default of '%s' is not legal", k->name, a->name);
        }
        model_add(c, o);
        touch_add(t, o, NULL);
        *ret = o;
        return 0;
}

void txn_set_id(struct txn *t, struct object *o, sd_id128_t id)
{
        HASH_DELETE(hh_id, t->c->by_id, o);
        o->id = id;
        HASH_ADD(hh_id, t->c->by_id, id, sizeof(o->id), o);
}

void txn_delete(struct txn *t, struct object *o)
{
        txn_edit(t, o);
        touch_find(t, o)->deleted = true;
        model_remove(t->c, o);
}

void txn_release_name(struct txn *t, struct object *o)
{
        struct object *owner = object_owner(t->c, o);

        txn_edit(t, o);
        if (o->nameless) /* a deletion that failed is tried again */
                return;
        model_unindex_name(t->c, o);
        o->nameless = true;
        if (owner)
                collection_touch(model_collection(t->c, owner, o->kind));
}

int txn_rename(struct txn *t, struct object *o, const char *name, struct err **e)
{
        struct object *owner = object_owner(t->c, o);

        if (model_by_name(t->c, owner, o->kind, name))
                return err_set(e, -EEXIST, "%s '%s' exists already", o->kind->name, name);
        txn_edit(t, o);
        model_unindex_name(t->c, o);
        object_set_name(o, name);
        model_index_name(t->c, o);
        if (owner)
                collection_touch(model_collection(t->c, owner, o->kind));
        return 0;
}

void txn_set_state(struct txn *t, struct object *o, unsigned state)
{
        if (o->state == state)
                return;
        txn_edit(t, o);
        txn_event(t, o, "state %s -> %s", object_state(o), o->kind->states[state].name);
        o->state = state;
        o->state_since = clock_now();
        taken_count(t->c, o);
}

void txn_set_value(struct txn *t, struct object *o, unsigned attr, union value v)
{
        txn_edit(t, o);
        value_free(&o->kind->attrs[attr], &o->vals[attr]);
        o->vals[attr] = v;
        if (o->kind == &kind_instance && taken_by(&o->kind->attrs[attr]))
                taken_count(t->c, o);
}

void txn_set_num(struct txn *t, struct object *o, const char *attr, uint64_t v)
{
        txn_set_value(t, o, kind_attr(o->kind, attr), (union value){.u = v});
}

void txn_set_str(struct txn *t, struct object *o, const char *attr, const char *s)
{
        txn_set_value(t, o, kind_attr(o->kind, attr),
                      (union value){.s = s && *s ? xstrdup(s) : NULL});
}

void txn_set_error(struct txn *t, struct object *o, const char *record)
{
        txn_edit(t, o);
        free(o->error);
        o->error = xstrdup(record);
}

struct link *txn_link(struct txn *t, struct object *o, unsigned def, const char *name,
                      struct object *target)
{
        struct link *l;

        txn_edit(t, o);
        o->links = xrealloc(o->links, o->nlinks + 1, sizeof(*o->links));
        l = &o->links[o->nlinks++];
        *l = (struct link){.def = def,
                           .slot = o->next_slot++,
                           .name = xstrdup(name),
                           .target = target,
                           .created = clock_now()};
        id_text(l->id, id_new());
        object_add_ref(target, o);
        return l;
}

void txn_unlink(struct txn *t, struct object *o, struct link *l)
{
        size_t at = l - o->links;

        txn_edit(t, o);
        object_drop_ref(l->target, o);
        free(l->name);
        memmove(o->links + at, o->links + at + 1, (o->nlinks - at - 1) * sizeof(*l));
        o->nlinks--;
}

void txn_set_meta(struct txn *t, struct object *o, const char *key, const char *value, size_t n)
{
        struct meta *m;

        txn_edit(t, o);
        m = object_meta(o, key);
        if (!m) {
                o->meta = xrealloc(o->meta, o->nmeta + 1, sizeof(*o->meta));
                m = &o->meta[o->nmeta++];
                *m = (struct meta){.slot = o->next_slot++, .key = xstrdup(key)};
        }
        free(m->value);
        m->value = xstrndup(value, n);
        m->updated = clock_now();
}

void txn_del_meta(struct txn *t, struct object *o, const char *key)
{
        struct meta *m;
        size_t at;

        txn_edit(t, o);
        m = object_meta(o, key);
        if (!m)
                return;
        at = m - o->meta;
        free(m->key);
        free(m->value);
        memmove(o->meta + at, o->meta + at + 1, (o->nmeta - at - 1) * sizeof(*m));
        o->nmeta--;
}

void txn_event(struct txn *t, const struct object *o, const char *fmt, ...)
{
        va_list ap;
        char *text = NULL;

        va_start(ap, fmt);
        if (vasprintf(&text, fmt, ap) < 0)
                text = NULL;
        va_end(ap);
        t->events = xrealloc(t->events, t->nevents + 1, sizeof(*t->events));
        t->events[t->nevents].no = o->no;
        t->events[t->nevents++].text = xcheck(text);
}

/* --- the end of a transaction ---------------------------------------------------------------- */

/* Frees what the transaction kept; objects it deleted for good go with it. */
static void txn_free(struct txn *t, bool committed)
{
        for (size_t i = 0; i < t->n; i++) {
                object_free(t->v[i].before);
                if (committed && t->v[i].deleted)
                        object_free(t->v[i].o);
        }
        for (size_t i = 0; i < t->nevents; i++)
                free(t->events[i].text);
        free(t->v);
        free(t->events);
        t->v = NULL;
        t->events = NULL;
        t->n = t->nevents = 0;
}

/* The next pending transaction after t that touched the same object, NULL if none. */
static struct touch *touch_later(struct txn *t, const struct object *o)
{
        for (struct txn *n = t->next; n; n = n->next) {
                struct touch *w = touch_find(n, o);

                if (w)
                        return w;
        }
        return NULL;
}

static void touch_undo(struct txn *t, struct touch *w)
{
        struct touch *later = touch_later(t, w->o);

        if (later) {
                /* Its own commit will be refused by the version guard; then it must find what was
                 * there before us, not what we made. */
                object_free(later->before);
                later->before = TAKE_PTR(w->before);
                return;
        }
        if (w->before) {
                if (w->deleted)
                        model_add(t->c, w->o);
                object_swap(t->c, w->o, w->before);
                return;
        }
        if (!w->deleted)
                model_remove(t->c, w->o);
        object_free(w->o);
}

/* Newest first, so that a referrer goes before what it refers to. */
static void txn_undo(struct txn *t)
{
        quota_undo(t);
        for (size_t i = t->n; i-- > 0;)
                touch_undo(t, &t->v[i]);
}

void txn_abort(struct txn *t)
{
        struct control *c = t->c;

        for (size_t i = t->n; i-- > 0;)
                if (!t->v[i].before)
                        number_back(c, t->v[i].o->no);
        txn_undo(t);
        txn_free(t, false);
        pthread_rwlock_unlock(&c->model);
}

static void pending_remove(struct control *c, struct txn *t)
{
        for (struct txn **p = &c->pending; *p; p = &(*p)->next) {
                if (*p != t)
                        continue;
                *p = t->next;
                if (c->pending_tail == &t->next)
                        c->pending_tail = p;
                return;
        }
}

/* Whether o had a name that it has no more; undone: had one for a moment. */
static bool name_gone(const struct touch *w, bool undone)
{
        const struct object *o = w->o, *was = w->before;

        if (!was)
                return undone;
        if (!streq(was->name, o->name))
                return true;
        return !undone && !was->nameless && (w->deleted || o->nameless);
}

struct change change_of(struct control *c, struct object *o, bool gone, bool listed)
{
        struct object *owner = object_owner(c, o);
        /* TOLD_NAME stays: the name it has now may have been told already */
        uint64_t told = atomic_fetch_and(&o->told, TOLD_NAME);
        struct collection *l = owner && listed ? model_collection(c, owner, o->kind) : NULL;

        return (struct change){
                .no = o->no,
                .owner = owner ? owner->no : 0,
                .kind = o->kind,
                .gone = gone,
                .told = gone ? told : told & ~TOLD_NAME,
                .list_told = l && (atomic_exchange(&l->told, 0) & TOLD_SELF),
        };
}

/* What each touched object's change is to those who keep copies.  Model held for writing; before an
 * undo. */
static void txn_changes(struct txn *t, bool undone)
{
        for (size_t i = 0; i < t->n; i++) {
                struct touch *w = &t->v[i];
                struct object *o = w->o;
                bool gone = name_gone(w, undone);
                w->change = change_of(t->c, o, gone, gone || !w->before || undone);
                w->change.deleted = undone ? !w->before : w->deleted;
                w->change.undone = undone;
                w->change.at = t->at;
        }
}

static void tell_changes(struct txn *t)
{
        struct control *c = t->c;

        WITH_LOCK(&c->changed_lock);
        for (size_t i = 0; i < t->n && c->changed; i++)
                c->changed(c->changed_arg, &t->v[i].change);
}

/* A change became durable: caches first, then who waits; and jobs look again. */
static void txn_tell(struct txn *t)
{
        struct control *c = t->c;

        tell_changes(t);
        for (size_t i = 0; i < t->n; i++) {
                uint64_t no = t->v[i].change.no;

                if (t->v[i].deleted)
                        wait_gone(c, no);
                else
                        wait_changed(c, no);
                if (t->v[i].change.kind == &kind_volume_type)
                        reconcile_limits(c);
                networks_changed(c, t->v[i].change.kind);
                metrics_changed(c, t->v[i].change.kind);
                if (t->v[i].change.kind == &kind_host)
                        reconcile_hosts(c);
                jobs_changed(c, no);
        }
        for (size_t i = 0; i < t->nevents; i++)
                wait_changed(c, t->events[i].no);
}

struct commit {
        struct txn *t;
        pthread_mutex_t lock;
        pthread_cond_t cond;
};

/* It is durable: its events may be read, its jobs may run.  Model held. */
static void txn_settle(struct txn *t)
{
        struct control *c = t->c;

        for (size_t i = 0; i < t->nevents; i++) {
                struct object *o = model_by_no(c, t->events[i].no);

                if (o)
                        events_add(c, o, t->events[i].text);
        }
        for (size_t i = 0; i < t->n; i++)
                if (t->v[i].deleted)
                        feed_deleted(c, t->v[i].o);
        for (size_t i = 0; i < t->n; i++) {
                struct touch *w = &t->v[i];

                if (w->o->kind != &kind_job || w->deleted)
                        continue;
                if (!w->before)
                        jobs_adopt(c, w->o);
                else if (feed_shared(c)) /* it may have changed hands */
                        jobs_seen(c, w->o);
        }
}

/* On the store's thread. */
static void txn_answered(void *arg, enum store_result result, const struct err *err)
{
        struct commit *m = arg;
        struct txn *t = m->t;
        struct control *c = t->c;
        bool committed = result == STORE_COMMITTED;

        pthread_rwlock_wrlock(&c->model);
        txn_changes(t, !committed);
        if (committed)
                txn_settle(t);
        else
                txn_undo(t);
        pending_remove(c, t);
        pthread_rwlock_unlock(&c->model);
        feed_answered(c);

        if (committed)
                txn_tell(t);
        else
                tell_changes(t);
        if (result == STORE_CONFLICT)
                t->result = err_set(&t->err, -ESTALE, "changed by somebody else meanwhile");
        else if (result == STORE_UNKNOWN)
                t->result = err_set(&t->err, -ETIMEDOUT,
                                    "the store does not answer: it may or may not be done");
        else if (!committed)
                t->result = err_set(&t->err, err ? err->code : -EIO, "store: %s", err_msg(err));

        pthread_mutex_lock(&m->lock);
        t->finished = true;
        pthread_cond_signal(&m->cond);
        pthread_mutex_unlock(&m->lock);
}

char *txn_name(char out[TXN_NAME_SIZE], const char *name)
{
        snprintf(out, TXN_NAME_SIZE, "%.34s.0", name);
        return out;
}

/* The first transaction under a name has it for its id; more of one change need none. */
static void txn_id(struct txn *t, char out[TXN_NAME_SIZE])
{
        struct control *c = t->c;
        const char *name = t->name = pthread_getspecific(c->name);

        if (!name) {
                id_text(out, id_new());
                return;
        }
        txn_name(out, name);
        pthread_setspecific(c->name, NULL);
}

static struct store_txn *txn_records(struct txn *t)
{
        char scope[40] = "", key[ID_TEXT_SIZE];
        struct store_txn *s;
        int64_t now = clock_now();

        t->at = now;
        record_scope(t->v[0].o, scope);
        s = xcheck(store_txn_new(scope));
        txn_id(t, s->id);
        for (size_t i = 0; i < t->n; i++) {
                struct touch *w = &t->v[i];
                struct object *o = w->o;
                uint64_t expect = w->before ? w->before->rev : 0;
                _cleanup_free_ char *text = NULL;

                o->rev = expect + 1;
                o->updated = now;
                text = w->deleted ? NULL : record_write(o);
                if (w->deleted && !w->before)
                        continue;
                if (store_txn_add(s, id_text(key, o->id), expect, o->rev, text) < 0)
                        abort();
        }
        return s;
}

int txn_commit(struct txn *t, struct err **e)
{
        struct commit m = {
                .t = t, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        struct control *c = t->c;
        struct store_txn *s;
        int r;

        if (t->n == 0) {
                txn_abort(t);
                return 0;
        }
        if (!t->unleased && !lease_holds(c)) {
                txn_abort(t);
                err_set(e, -EROFS, "host '%s' has no lease: nothing is changed here", c->cfg.host);
                err_hint(e, -EROFS,
                         "the store does not answer it, or other hosts took over from it; it comes "
                         "back by itself");
                return -EROFS;
        }
        r = quota_check(t, e);
        if (r < 0) {
                txn_abort(t);
                return r;
        }
        s = txn_records(t);
        s->done = txn_answered;
        s->arg = &m;
        *c->pending_tail = t;
        c->pending_tail = &t->next;
        c->cfg.store->ops->commit(c->cfg.store, s);
        pthread_rwlock_unlock(&c->model);

        pthread_mutex_lock(&m.lock);
        while (!t->finished)
                pthread_cond_wait(&m.cond, &m.lock);
        pthread_mutex_unlock(&m.lock);
        txn_free(t, t->result == 0);
        if (t->result < 0)
                pthread_setspecific(c->name, t->name); /* it may be tried again */
        if (t->result == -ESTALE)
                feed_await(c, t->turn);
        if (t->result < 0)
                return err_move(e, TAKE_PTR(t->err));
        return 0;
}

int txn_end(struct txn *t, int r, struct err **e)
{
        if (r < 0) {
                txn_abort(t);
                return r;
        }
        return txn_commit(t, e);
}
