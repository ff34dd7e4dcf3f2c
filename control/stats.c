/* The figures of volumes, held here so that looking is free.
 *
 * Who reads a figure leaves a note of the time and is answered from memory, whatever blockd does.
 * While the last note is young, a thread of the daemon's own asks blockd once a second for all
 * volumes in one go: a thousand readers cost as much as one, and where nobody looks nothing runs.
 * The price: the first look shows figures of the last one, and `as_of` says of when they are. */
#include "control/internal.h"

enum { EVERY_US = 1000000, KEEP_US = 10000000 };

struct figures {
        UT_hash_handle hh; /* by stats.id */
        struct volume_stats stats;
        uint64_t used; /* bytes of disk */
};

struct stats_keeper {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop, idle;
        int64_t looked; /* monotonic usec; 0: never */
        int64_t as_of;  /* wall clock usec; 0: never fetched */
        struct figures *table;
};

static void free_table(struct figures *table)
{
        struct figures *f, *tmp;

        HASH_ITER (hh, table, f, tmp) {
                HASH_DEL(table, f);
                free(f);
        }
}

static int keep(void *arg, const struct volume_stats *v)
{
        struct figures **table = arg, *f = xcalloc(1, sizeof(*f));

        f->stats = *v;
        HASH_ADD_STR(*table, stats.id, f);
        return 0;
}

static int keep_used(void *arg, const struct volume_facts *v)
{
        struct figures **table = arg, *f;

        HASH_FIND_STR(*table, v->id, f);
        if (!f) { /* nobody used it since blockd's start */
                f = xcalloc(1, sizeof(*f));
                strcpy(f->stats.id, v->id);
                HASH_ADD_STR(*table, stats.id, f);
        }
        f->used = v->used;
        return 0;
}

/* When blockd does not answer, what was known stays. */
static void fetch(struct control *c)
{
        struct volume_service *s = c->cfg.volumes;
        struct stats_keeper *k = c->stats;
        struct figures *table = NULL, *old = NULL;
        int64_t now = clock_now();

        if (s->ops->stats(s, keep, &table, NULL) < 0 ||
            s->ops->list(s, keep_used, &table, NULL) < 0) {
                free_table(table);
                return;
        }
        pthread_mutex_lock(&k->lock);
        old = k->table;
        k->table = table;
        k->as_of = now;
        pthread_mutex_unlock(&k->lock);
        free_table(old);
}

static bool wanted(const struct stats_keeper *k)
{
        return k->looked && clock_mono() - k->looked < KEEP_US;
}

static void *stats_main(void *arg)
{
        struct control *c = arg;
        struct stats_keeper *k = c->stats;

        pthread_mutex_lock(&k->lock);
        while (!k->stop) {
                struct timespec next;

                k->idle = !wanted(k);
                if (k->idle) {
                        pthread_cond_wait(&k->cond, &k->lock);
                        continue;
                }
                pthread_mutex_unlock(&k->lock);
                fetch(c);
                next = clock_timespec(clock_mono() + EVERY_US);
                pthread_mutex_lock(&k->lock);
                while (!k->stop && pthread_cond_timedwait(&k->cond, &k->lock, &next) == 0)
                        ;
        }
        pthread_mutex_unlock(&k->lock);
        return NULL;
}

/* Lock held. */
static struct figures *look(struct stats_keeper *k, const struct object *o)
{
        char id[ID_TEXT_SIZE];
        struct figures *f;

        id_text(id, o->id);
        k->looked = clock_mono();
        if (k->idle)
                pthread_cond_signal(&k->cond);
        HASH_FIND_STR(k->table, id, f);
        return f;
}

uint64_t stats_used(struct control *c, const struct object *o)
{
        struct figures *f;

        WITH_LOCK(&c->stats->lock);
        f = look(c->stats, o);
        return f ? f->used : 0;
}

int64_t stats_look(struct control *c, const struct object *o, struct volume_stats *ret)
{
        struct stats_keeper *k = c->stats;
        struct figures *f;

        WITH_LOCK(&k->lock);
        f = look(k, o);
        *ret = f ? f->stats : (struct volume_stats){};
        return k->as_of;
}

int stats_start(struct control *c, struct err **e)
{
        struct stats_keeper *k = xcalloc(1, sizeof(*k));
        pthread_condattr_t a;

        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&k->lock, NULL);
        pthread_cond_init(&k->cond, &a);
        pthread_condattr_destroy(&a);
        c->stats = k;
        k->running = pthread_create(&k->thread, NULL, stats_main, c) == 0;
        return k->running ? 0 : err_set(e, -EAGAIN, "no thread for the volumes' figures");
}

void stats_stop(struct control *c)
{
        struct stats_keeper *k = c->stats;

        if (!k || !k->running)
                return;
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
        k->running = false;
}

void stats_free(struct control *c)
{
        struct stats_keeper *k = c->stats;

        if (!k)
                return;
        free_table(k->table);
        pthread_cond_destroy(&k->cond);
        pthread_mutex_destroy(&k->lock);
        free(k);
        c->stats = NULL;
}
