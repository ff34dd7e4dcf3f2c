/* Workers: what each is at, changes made once over all lives, and the watchdog. */
#include <execinfo.h>
#include <signal.h>
#include "common/log.h"
#include "fs/gate.h"
#include "fs/hold.h"
#include "fs/ops.h"
#include "fs/record.h"

enum { FRAMES = 64, TICKS = 4, PAGE = 4096, SMALL = 2 * PAGE };

static void worker_free(void *arg)
{
        struct worker *w = arg;
        struct hold *h = w->hold;

        worker_end(w);
        gate_leave(h->gate, w);
        if (h->record)
                record_release(h->record, w);
        pthread_mutex_lock(&h->lock);
        h->workers[w->cell] = NULL;
        pthread_mutex_unlock(&h->lock);
        free(w);
}

struct worker *worker_self(struct hold *h)
{
        struct worker *w = pthread_getspecific(h->self);

        if (w)
                return w;
        w = calloc(1, sizeof(*w));
        if (!w || pthread_setspecific(h->self, w) != 0)
                abort(); /* a few bytes at the start of a thread */
        w->hold = h;
        w->thread = pthread_self();
        WITH_LOCK(&h->lock);
        while (w->cell < HOLD_WORKERS - 1 && h->workers[w->cell])
                w->cell++;
        h->workers[w->cell] = w;
        return w;
}

int workers_new(struct hold *h)
{
        return pthread_key_create(&h->self, worker_free) == 0 ? 0 : -EAGAIN;
}

void workers_free(struct hold *h)
{
        struct worker *w = pthread_getspecific(h->self);

        if (w)
                worker_free(w);
        pthread_key_delete(h->self);
}

void worker_begin(struct worker *w, const struct fuse_in_header *in, bool again)
{
        struct held_worker *cell = &w->hold->m->workers[w->cell];

        w->unique = in->unique & ~UNIQUE_RESENT;
        w->again = again;
        w->step = 0;
        cell->opcode = in->opcode;
        cell->nodeid = in->nodeid;
        atomic_store(&cell->unique, w->unique);
}

void worker_end(struct worker *w)
{
        if (!w->unique)
                return;
        if (w->step)
                control_name_changes(w->hold->fs->control, NULL);
        w->unique = 0;
        atomic_store(&w->hold->m->workers[w->cell].unique, 0);
}

bool once_done(struct fs *fs)
{
        struct worker *w = worker_self(fs->hold);

        if (!w->unique)
                return false;
        snprintf(w->name, sizeof(w->name), "%012llx-%016llx-%x",
                 (unsigned long long)(fs->hold->m->session & 0xffffffffffff),
                 (unsigned long long)w->unique, ++w->step & 0xffff);
        control_name_changes(fs->control, w->name);
        if (!w->again || !control_named_done(fs->control, w->name))
                return false;
        control_name_changes(fs->control, NULL);
        return true;
}

void worker_ready(struct worker *w, void *buf, size_t len)
{
        volatile char *p = buf;

        if (!atomic_load(&w->hold->m->bulk)) /* the rest would be memory for nothing */
                len = MIN(len, (size_t)SMALL);
        if (w->ready == buf && w->ready_len >= len)
                return;
        for (size_t i = 0; i < len; i += PAGE)
                p[i] = 0;
        w->ready = buf;
        w->ready_len = len;
}

bool worker_changed(struct hold *h)
{
        const struct worker *w = pthread_getspecific(h->self);

        return w && w->step && !w->again;
}

/* --- what kills --------------------------------------------------------------------------------
 */

static struct held_suspect *suspect(struct held *m, uint64_t unique)
{
        for (struct held_suspect *s = m->suspects; s < m->suspects + HOLD_SUSPECTS; s++)
                if (s->unique == unique)
                        return s;
        return NULL;
}

bool worker_refuses(struct worker *w)
{
        const struct held_suspect *s = w->again ? suspect(w->hold->m, w->unique) : NULL;

        if (!s || s->tries < HOLD_TRIES)
                return false;
        if (s->tries >= HOLD_STUCK)
                log_error("request %llu is answered EIO", (unsigned long long)w->unique);
        else
                log_error("request %llu (operation %u) ended %u processes: it is answered EIO",
                          (unsigned long long)w->unique, w->hold->m->workers[w->cell].opcode,
                          s->tries);
        return true;
}

/* Those that were in nobody's hands at this end are no suspects any more. */
void workers_suspect(struct hold *h)
{
        struct held_suspect old[HOLD_SUSPECTS], *s = h->m->suspects;

        memcpy(old, h->m->suspects, sizeof(old));
        memset(h->m->suspects, 0, sizeof(h->m->suspects));
        for (unsigned i = 0; i < HOLD_WORKERS; i++) {
                uint64_t unique = atomic_exchange(&h->m->workers[i].unique, 0);

                if (!unique)
                        continue;
                *s = (struct held_suspect){.unique = unique, .tries = 1};
                for (unsigned j = 0; j < HOLD_SUSPECTS; j++)
                        if (old[j].unique == unique)
                                s->tries = old[j].tries + 1;
                s++;
        }
}

/* --- the watchdog ------------------------------------------------------------------------------
 */

struct watchdog {
        struct hold *hold;
        unsigned seconds;
        void (*alive)(void *arg);
        void *arg;
        uint64_t seen[HOLD_WORKERS];
        unsigned ticks[HOLD_WORKERS];
};

/* On the stuck thread: where it stands, for the log. */
static void show_frames(int sig)
{
        void *frames[FRAMES];

        backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
}

static void give_up(struct watchdog *d, unsigned i)
{
        struct held *m = d->hold->m;
        struct held_suspect *s = suspect(m, d->seen[i]) ?: suspect(m, 0);
        struct sigaction frames = {.sa_handler = show_frames};

        log_error("request %llu (operation %u on node %#llx) makes no progress for %u s: this "
                  "process ends, the request gets EIO",
                  (unsigned long long)d->seen[i], m->workers[i].opcode,
                  (unsigned long long)m->workers[i].nodeid, d->seconds);
        if (s)
                *s = (struct held_suspect){.unique = d->seen[i], .tries = HOLD_STUCK};
        sigaction(SIGUSR2, &frames, NULL);
        pthread_mutex_lock(&d->hold->lock);
        if (d->hold->workers[i])
                pthread_kill(d->hold->workers[i]->thread, SIGUSR2);
        pthread_mutex_unlock(&d->hold->lock);
        usleep(200000); /* for the frames */
        abort();
}

/* Counts its own ticks, not time: a process that was stopped for a while is not stuck. */
static void tick(struct watchdog *d)
{
        for (unsigned i = 0; i < HOLD_WORKERS; i++) {
                uint64_t now = atomic_load(&d->hold->m->workers[i].unique);

                d->ticks[i] = now && now == d->seen[i] ? d->ticks[i] + 1 : 0;
                d->seen[i] = now;
                /* the end of an upload brings all of it to the disk */
                if (d->ticks[i] > (d->hold->m->workers[i].opcode == FUSE_RELEASE ? 10 : 1) * TICKS)
                        give_up(d, i);
        }
        if (d->alive)
                d->alive(d->arg);
}

static void *watch(void *arg)
{
        struct watchdog *d = arg;
        struct hold *h = d->hold;

        pthread_mutex_lock(&h->lock);
        while (!h->stopping) {
                struct timespec until =
                        clock_timespec(clock_mono() + d->seconds * INT64_C(1000000) / TICKS);

                if (pthread_cond_timedwait(&h->cond, &h->lock, &until) != ETIMEDOUT)
                        continue;
                pthread_mutex_unlock(&h->lock);
                tick(d);
                pthread_mutex_lock(&h->lock);
        }
        pthread_mutex_unlock(&h->lock);
        free(d);
        return NULL;
}

int watchdog_start(struct hold *h, unsigned seconds, void (*alive)(void *arg), void *arg)
{
        struct watchdog *d = calloc(1, sizeof(*d));
        void *warm[1];

        if (!d)
                return -ENOMEM;
        (void)backtrace(warm, 1); /* loads what it needs now, not in a signal handler */
        *d = (struct watchdog){.hold = h, .seconds = seconds, .alive = alive, .arg = arg};
        if (pthread_create(&h->watchdog, NULL, watch, d) != 0) {
                free(d);
                return -EAGAIN;
        }
        h->watching = true;
        return 0;
}

void watchdog_stop(struct hold *h)
{
        if (!h->watching)
                return;
        pthread_mutex_lock(&h->lock);
        h->stopping = true;
        pthread_cond_signal(&h->cond);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->watchdog, NULL);
        h->watching = false;
}
