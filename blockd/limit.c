#include "blockd/limit.h"

#include <utlist.h>

#include "common/clock.h"
#include "common/macro.h"

enum { NS = 1000000000, SLICE = NS / 10, LOOK_US = 1000000 };
/* A request of any length is paid for in a time that can be added up. */
#define COST_MAX (INT64_C(1) << 60)

struct limit_waiter {
        pthread_cond_t cond;
        struct limit_waiter *prev, *next;
};

void limit_init(struct limit *l)
{
        *l = (struct limit){};
        pthread_mutex_init(&l->lock, NULL);
}

void limit_done(struct limit *l)
{
        pthread_mutex_destroy(&l->lock);
}

int limit_check(const struct limit_config *c)
{
        if (c->iops > LIMIT_IOPS_MAX || c->iops_burst > LIMIT_IOPS_MAX ||
            c->bandwidth > LIMIT_BANDWIDTH_MAX || c->bandwidth_burst > LIMIT_BANDWIDTH_MAX ||
            c->burst_seconds > LIMIT_SECONDS_MAX)
                return -EINVAL;
        return 0;
}

/* ns that n units take at the rate. */
static int64_t cost(uint64_t n, uint64_t rate)
{
        unsigned __int128 ns = (unsigned __int128)n * NS / rate;

        return ns > COST_MAX ? COST_MAX : (int64_t)ns;
}

/* Without a burst a tenth of a second may be saved up.  With one, as much as the burst rate is
 * above the rate for its seconds, and the peak bucket keeps it to the burst rate. */
static void set_buckets(struct bucket b[2], uint64_t rate, uint64_t burst, uint64_t seconds)
{
        b[0] = (struct bucket){.rate = rate, .depth = SLICE};
        b[1] = (struct bucket){};
        if (rate == 0 || burst <= rate)
                return;
        b[0].depth = MIN(cost((burst - rate) * MAX(seconds, UINT64_C(1)), rate), COST_MAX - SLICE) +
                     SLICE;
        b[1] = (struct bucket){.rate = burst, .depth = SLICE};
}

static void wake_all(struct limit *l)
{
        struct limit_waiter *w;

        DL_FOREACH (l->waiters, w)
                pthread_cond_signal(&w->cond);
}

void limit_set(struct limit *l, const struct limit_config *c)
{
        WITH_LOCK(&l->lock);
        l->config = *c;
        set_buckets(l->buckets + LIMIT_IOPS, c->iops, c->iops_burst, c->burst_seconds);
        set_buckets(l->buckets + LIMIT_BYTES, c->bandwidth, c->bandwidth_burst, c->burst_seconds);
        atomic_store_explicit(&l->on, c->iops || c->bandwidth, memory_order_relaxed);
        wake_all(l);
}

void limit_get(struct limit *l, struct limit_config *ret)
{
        WITH_LOCK(&l->lock);
        *ret = l->config;
}

void limit_kick(struct limit *l)
{
        WITH_LOCK(&l->lock);
        wake_all(l);
}

int64_t limit_step(struct limit *l, int64_t now, unsigned ops, uint64_t bytes)
{
        int64_t wait = 0;

        for (unsigned i = 0; i < LIMIT_BUCKETS; i++) {
                struct bucket *b = &l->buckets[i];

                if (b->rate && b->full - now > b->depth)
                        wait = MAX(wait, b->full - now - b->depth);
        }
        for (unsigned i = 0; i < LIMIT_BUCKETS && wait == 0; i++) {
                struct bucket *b = &l->buckets[i];

                if (b->rate)
                        b->full = MAX(b->full, now) + cost(i < LIMIT_BYTES ? ops : bytes, b->rate);
        }
        return wait;
}

static int64_t step_now(struct limit *l, unsigned ops, uint64_t bytes)
{
        return limit_step(l, clock_mono() * 1000, ops, bytes);
}

bool limit_try_slow(struct limit *l, unsigned ops, uint64_t bytes)
{
        WITH_LOCK(&l->lock);
        return !l->waiters && step_now(l, ops, bytes) == 0;
}

/* Sleeps for as long as w must, or until somebody wakes it; lock held. */
static void sleep_at_most(struct limit *l, struct limit_waiter *w, int64_t ns)
{
        int64_t us = MIN((ns + 999) / 1000, (int64_t)LOOK_US);
        struct timespec until = clock_timespec(clock_mono() + us);

        pthread_cond_timedwait(&w->cond, &l->lock, &until);
}

int limit_take(struct limit *l, unsigned ops, uint64_t bytes, bool (*gone)(void *arg), void *arg)
{
        struct limit_waiter w = {};
        pthread_condattr_t a;
        int64_t wait = 1;
        int r = 0;

        if (limit_try(l, ops, bytes))
                return 0;
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&w.cond, &a);
        pthread_condattr_destroy(&a);
        pthread_mutex_lock(&l->lock);
        DL_APPEND(l->waiters, &w);
        while (r == 0) {
                if (gone && gone(arg))
                        r = -ESHUTDOWN;
                else if (l->waiters != &w)
                        sleep_at_most(l, &w, INT64_MAX - 999);
                else if ((wait = step_now(l, ops, bytes)) > 0)
                        sleep_at_most(l, &w, wait);
                else
                        break;
        }
        DL_DELETE(l->waiters, &w);
        if (l->waiters)
                pthread_cond_signal(&l->waiters->cond);
        pthread_mutex_unlock(&l->lock);
        pthread_cond_destroy(&w.cond);
        return r;
}
