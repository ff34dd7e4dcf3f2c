/* The queue, the writer thread and the operations. */
#include "backend/store/sqlite/internal.h"

#include <signal.h>

/* Takes at most BATCH_MAX transactions off the queue; waits for the first.  NULL: stop. */
static struct store_txn *queue_take(struct sqlite_store *s, size_t *ret_n)
{
        struct store_txn *list, *last;
        size_t n = 1;
        WITH_LOCK(&s->queue_lock);

        while (!s->head && !s->stop)
                pthread_cond_wait(&s->wake, &s->queue_lock);
        list = last = s->head;
        if (!list)
                return NULL;
        while (last->next && n < BATCH_MAX) {
                last = last->next;
                n++;
        }
        s->head = last->next;
        if (!s->head)
                s->tail = &s->head;
        last->next = NULL;
        *ret_n = n;
        return list;
}

static void queue_settled(struct sqlite_store *s, size_t n)
{
        WITH_LOCK(&s->queue_lock);

        s->nsettled += n;
        pthread_cond_broadcast(&s->settled);
}

static void *writer_main(void *arg)
{
        struct sqlite_store *s = arg;
        struct outcome *out = s->outcomes;
        struct store_txn *list, *next;
        size_t n;

        pthread_setname_np(pthread_self(), "store");
        while ((list = queue_take(s, &n))) {
                memset(out, 0, n * sizeof(*out));
                sqlite_batch(s, list, out);
                queue_settled(s, n);
                for (size_t i = 0; i < n; i++, list = next) {
                        next = list->next;
                        if (list->done)
                                list->done(list->arg, out[i].result, out[i].err);
                        err_free(out[i].err);
                        store_txn_free(list);
                }
        }
        return NULL;
}

static void store_commit(struct store *store, struct store_txn *t)
{
        struct sqlite_store *s = (struct sqlite_store *)store;
        WITH_LOCK(&s->queue_lock);

        t->next = NULL;
        *s->tail = t;
        s->tail = &t->next;
        s->nqueued++;
        pthread_cond_signal(&s->wake);
}

void sqlite_barrier(struct sqlite_store *s)
{
        uint64_t until;
        WITH_LOCK(&s->queue_lock);

        until = s->nqueued;
        while (s->nsettled < until)
                pthread_cond_wait(&s->settled, &s->queue_lock);
}

static void store_free(struct sqlite_store *s)
{
        pthread_cond_destroy(&s->wake);
        pthread_cond_destroy(&s->settled);
        pthread_mutex_destroy(&s->db_lock);
        pthread_mutex_destroy(&s->queue_lock);
        free(s->path);
        free(s);
}

static void store_close(struct store *store)
{
        struct sqlite_store *s = (struct sqlite_store *)store;

        pthread_mutex_lock(&s->queue_lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->queue_lock);
        pthread_join(s->writer, NULL);
        sqlite_disconnect(s, false);
        store_free(s);
}

static const struct store_ops sqlite_ops = {
        .name = "sqlite",
        .load = sqlite_load,
        .commit = store_commit,
        .committed = sqlite_committed,
        .changes = sqlite_changes,
        .close = store_close,
        .epoch = store_sqlite_epoch,
        .retire = sqlite_retire,
};

/* Signals are the process's business, not this thread's. */
static int writer_start(struct sqlite_store *s)
{
        sigset_t all, old;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(&s->writer, NULL, writer_main, s);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return -r;
}

int store_sqlite_open(const char *path, struct store **ret, struct err **e)
{
        struct sqlite_store *s = calloc(1, sizeof(*s));
        int r;

        if (!s || !(s->path = strdup(path))) {
                free(s);
                return err_errno(e, -ENOMEM, "open store '%s'", path);
        }
        s->store.ops = &sqlite_ops;
        s->tail = &s->head;
        pthread_mutex_init(&s->db_lock, NULL);
        pthread_mutex_init(&s->queue_lock, NULL);
        pthread_cond_init(&s->wake, NULL);
        pthread_cond_init(&s->settled, NULL);
        r = sqlite_moved(path, e);
        if (r == 0)
                r = sqlite_connect(s, e);
        if (r == 0) {
                r = writer_start(s);
                if (r < 0)
                        err_errno(e, r, "start a thread");
        }
        if (r < 0) {
                err_prepend(e, r, "open store '%s'", path);
                sqlite_disconnect(s, true);
                store_free(s);
                return r;
        }
        *ret = &s->store;
        return 0;
}
