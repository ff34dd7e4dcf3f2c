/* What is done in the background: layers that nobody needs apart are merged, volumes flattened. */
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "backend/volume/local/merge.h"
#include "common/clock.h"

enum {
        RATE = 128, /* MiB a second, at most */
        IOPRIO_IDLE = 3 << 13,
};

void pool_todo(struct pool *p, struct entry *en)
{
        en->todo = true;
        pthread_cond_signal(&p->wanted);
}

/* With the lock.  In turn: a volume that is opened and closed again and again, and its merge begun
 * anew each time, holds up no other. */
static bool next_todo(struct pool *p, char ret[VOLUME_ID_SIZE])
{
        struct entry *en, *tmp, *first = NULL, *next = NULL;
        bool past = false;

        if (p->checks > 0)
                return false;
        HASH_ITER (hh, p->entries, en, tmp) {
                if (en->todo && !en->busy) {
                        first = first ?: en;
                        next = next ?: past ? en : NULL;
                }
                past |= streq(en->meta.id, p->turn);
        }
        next = next ?: first;
        if (next)
                strcpy(ret, next->meta.id);
        return next;
}

int pool_work(struct pool *p)
{
        char id[VOLUME_ID_SIZE];
        bool any;

        WITH_LOCK(&p->work);
        if (p->merge) {
                merge_step(p);
                return 1;
        }
        pthread_mutex_lock(&p->lock);
        any = next_todo(p, id);
        if (any)
                strcpy(p->turn, id);
        pthread_mutex_unlock(&p->lock);
        if (any)
                merge_begin(p, id);
        return any;
}

/* Waits until there is something to do, or for a moment's rest; false: stop. */
static bool rest(struct pool *p, bool idle, uint64_t copied)
{
        char id[VOLUME_ID_SIZE];
        const struct timespec until =
                clock_timespec(clock_mono() + (int64_t)copied / RATE * 1000000 / (1 << 20));

        WITH_LOCK(&p->lock);
        while (idle && !p->stop && !next_todo(p, id))
                pthread_cond_wait(&p->wanted, &p->lock);
        while (copied && !p->stop &&
               pthread_cond_timedwait(&p->wanted, &p->lock, &until) != ETIMEDOUT)
                ;
        return !p->stop;
}

static void *worker(void *arg)
{
        struct pool *p = arg;
        uint64_t copied = 0;
        bool idle = false;

        setpriority(PRIO_PROCESS, gettid(), 19);
        syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE);
        while (rest(p, idle, copied)) {
                idle = pool_work(p) == 0;
                pthread_mutex_lock(&p->work);
                copied = p->merge ? p->merge->copied : 0;
                pthread_mutex_unlock(&p->work);
        }
        return NULL;
}

void pool_work_suspend(struct pool *p)
{
        WITH_LOCK(&p->work);
        pthread_mutex_lock(&p->lock);
        p->checks++;
        pthread_mutex_unlock(&p->lock);
        merge_put_off(p);
}

void pool_work_resume(struct pool *p)
{
        WITH_LOCK(&p->lock);
        p->checks--;
        pthread_cond_signal(&p->wanted);
}

void pool_background(struct pool *p, bool on)
{
        bool was;

        pthread_mutex_lock(&p->lock);
        was = p->running;
        p->stop = !on;
        pthread_cond_signal(&p->wanted);
        pthread_mutex_unlock(&p->lock);
        if (was && !on)
                pthread_join(p->worker, NULL);
        else if (!was && on)
                on = pthread_create(&p->worker, NULL, worker, p) == 0;
        pthread_mutex_lock(&p->lock);
        p->running = on;
        pthread_mutex_unlock(&p->lock);
}

int pool_flatten(struct pool *p, const char *id, bool cancel, struct err **e)
{
        struct entry *en;
        struct meta m;
        int r;

        WITH_LOCK(&p->lock);
        en = pool_acquire(p, id);
        if (!en)
                return err_set(e, -ENOENT, "there is no such volume");
        if (en->meta.immutable) {
                pool_release(p, en);
                return err_set(e, -EROFS, "it is immutable");
        }
        r = meta_copy(&en->meta, &m);
        if (r < 0) {
                pool_release(p, en);
                return err_errno(e, r, "flatten");
        }
        m.flatten = !cancel && (m.origin[0] || m.parent[0]);
        pthread_mutex_unlock(&p->lock);
        if (m.flatten != en->meta.flatten)
                r = pool_set_meta(p, en, &m, e);
        meta_done(&m);
        pthread_mutex_lock(&p->lock);
        if (r == 0) {
                en->flatten_failed = 0;
                en->flatten_done = en->flatten_total = 0;
                pool_todo(p, en);
        }
        pool_release(p, en);
        return r;
}
