/* The queues and the writers: a scope is one writer's at a time, so its transactions keep their
 * order; different scopes go side by side. */
#include "backend/store/rados/internal.h"

#include <signal.h>

enum { LATER_US = 2000 };

/* The scope with work that waited longest: one that was served goes to the end of the list.  Lock
 * held. */
static struct scope *pick(struct rados_store *s, bool *ret_later)
{
        *ret_later = false;
        for (struct scope *sc = s->scopes; sc; sc = sc->hh.next) {
                if (!sc->head || sc->busy)
                        continue;
                if (sc->yield && clock_mono() < sc->yield) {
                        *ret_later = true;
                        continue;
                }
                sc->yield = 0;
                HASH_DEL(s->scopes, sc);
                HASH_ADD_STR(s->scopes, name, sc);
                return sc;
        }
        return NULL;
}

static size_t txn_bytes(const struct store_txn *t)
{
        size_t n = 0;

        for (size_t i = 0; i < t->n; i++)
                n += t->puts[i].len;
        return n;
}

/* Takes at most BATCH_TXNS off the scope's queue, or one that is large.  Lock held. */
static struct store_txn *take(struct scope *sc, size_t *ret_n)
{
        struct store_txn *list = sc->head, *last = list;
        size_t bytes = txn_bytes(last), n = 1;

        while (last->next && n < BATCH_TXNS) {
                bytes += txn_bytes(last->next);
                if (bytes > BATCH_BYTES)
                        break;
                last = last->next;
                n++;
        }
        sc->head = last->next;
        if (!sc->head)
                sc->tail = &sc->head;
        last->next = NULL;
        *ret_n = n;
        return list;
}

static void serve(struct rados_store *s, struct scope *sc, struct store_txn *list, size_t n,
                  struct outcome *out)
{
        struct store_txn *next;

        memset(out, 0, n * sizeof(*out));
        batch_run(s, sc, list, n, out);
        pthread_mutex_lock(&s->lock);
        sc->nsettled += n;
        pthread_cond_broadcast(&s->settled);
        pthread_mutex_unlock(&s->lock);
        for (size_t i = 0; i < n; i++, list = next) {
                next = list->next;
                if (list->done)
                        list->done(list->arg, out[i].result, out[i].err);
                err_free(out[i].err);
                store_txn_free(list);
        }
}

static void *writer_main(void *arg)
{
        struct rados_store *s = arg;
        struct outcome *out = calloc(BATCH_TXNS, sizeof(*out));

        pthread_setname_np(pthread_self(), "store");
        pthread_mutex_lock(&s->lock);
        for (;;) {
                bool later = false;
                struct scope *sc = out ? pick(s, &later) : NULL;
                struct store_txn *list;
                size_t n;

                if (!sc && s->stop && !later)
                        break;
                if (later && !sc) {
                        struct timespec ts = clock_timespec(clock_mono() + LATER_US);

                        pthread_cond_timedwait(&s->wake, &s->lock, &ts);
                        continue;
                }
                if (!sc) {
                        pthread_cond_wait(&s->wake, &s->lock);
                        continue;
                }
                list = take(sc, &n);
                sc->busy = true;
                pthread_mutex_unlock(&s->lock);
                serve(s, sc, list, n, out);
                scope_give(s, sc);
                pthread_mutex_lock(&s->lock);
        }
        pthread_mutex_unlock(&s->lock);
        free(out);
        return NULL;
}

void queue_commit(struct store *store, struct store_txn *t)
{
        struct rados_store *s = (struct rados_store *)store;
        struct scope *sc = scope_get(s, t->scope);

        if (!sc)
                abort(); /* as whoever made the transaction would have */
        WITH_LOCK(&s->lock);
        t->next = NULL;
        t->seen = sc->applied;
        *sc->tail = t;
        sc->tail = &t->next;
        sc->nqueued++;
        pthread_cond_signal(&s->wake);
}

/* Signals are the process's business, not these threads'. */
int queue_start(struct rados_store *s, struct err **e)
{
        sigset_t all, old;
        int r = 0;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        while (r == 0 && s->nwriters < WRITERS) {
                r = -pthread_create(&s->writers[s->nwriters], NULL, writer_main, s);
                s->nwriters += r == 0;
        }
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return r < 0 ? store_err(s, e, r, "start a thread") : 0;
}

void queue_stop(struct rados_store *s)
{
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_broadcast(&s->wake);
        pthread_mutex_unlock(&s->lock);
        for (unsigned i = 0; i < s->nwriters; i++)
                pthread_join(s->writers[i], NULL);
        s->nwriters = 0;
}
