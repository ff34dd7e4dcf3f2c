/* The limits of one volume: I/Os and bytes a second, with bursts, for all its connections together.
 *
 * Each rate is a bucket that fills at the rate; a request passes while there is anything in it and
 * may leave a debt, so that one larger than the bucket passes, too, and what follows pays for it.
 * A burst is a second, deeper bucket: from rest a volume may run at the burst rate for
 * burst_seconds before it is held to its rate.  Who must wait waits in the order of coming,
 * whatever the sizes.  Without limits the cost is one load.
 *
 * Any thread. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* 0: no limit, no burst.  Cinder's QoS specs: total_iops_sec, total_bytes_sec, total_iops_sec_max,
 * total_bytes_sec_max, and total_iops_sec_max_length = total_bytes_sec_max_length. */
struct limit_config {
        uint64_t iops, bandwidth;             /* a second; bandwidth in bytes */
        uint64_t iops_burst, bandwidth_burst; /* a second; counts when above the rate */
        uint64_t burst_seconds;               /* 0: as 1 */
};
enum { LIMIT_IOPS_MAX = 1000000000, LIMIT_SECONDS_MAX = 86400 };
#define LIMIT_BANDWIDTH_MAX (UINT64_C(1) << 40)

/* A bucket as the time at which it is full again. */
struct bucket {
        uint64_t rate; /* units a second, 0: no bucket */
        int64_t depth; /* ns that it takes to fill when empty */
        int64_t full;  /* ns, monotonic */
};

enum { LIMIT_IOPS, LIMIT_IOPS_PEAK, LIMIT_BYTES, LIMIT_BYTES_PEAK, LIMIT_BUCKETS };

struct limit_waiter;
struct limit {
        atomic_bool on;       /* there is any limit */
        pthread_mutex_t lock; /* what follows */
        struct limit_config config;
        struct bucket buckets[LIMIT_BUCKETS];
        struct limit_waiter *waiters; /* in the order of coming */
};

/* Unlimited. */
void limit_init(struct limit *l);
/* Nobody waits. */
void limit_done(struct limit *l);
/* -EINVAL when a figure is out of range. */
int limit_check(const struct limit_config *c);
/* Holds from now on, also for who waits already.  The buckets begin full. */
void limit_set(struct limit *l, const struct limit_config *c);
void limit_get(struct limit *l, struct limit_config *ret);

bool limit_try_slow(struct limit *l, unsigned ops, uint64_t bytes);
/* Takes if it need not wait. */
static inline bool limit_try(struct limit *l, unsigned ops, uint64_t bytes)
{
        return !atomic_load_explicit(&l->on, memory_order_relaxed) || limit_try_slow(l, ops, bytes);
}
/* Takes, sleeping until it is allowed and its turn.  -ESHUTDOWN: gone(arg) said that nobody wants
 * it any more; it is asked, under the lock, before sleeping, once a second, and when kicked. */
int limit_take(struct limit *l, unsigned ops, uint64_t bytes, bool (*gone)(void *arg), void *arg);
/* Who waits looks at once whether it is gone. */
void limit_kick(struct limit *l);

/* For limit.c and its test: at the time now (ns, monotonic), 0 and taken, or the ns to wait.  Not
 * in turn; lock held. */
int64_t limit_step(struct limit *l, int64_t now, unsigned ops, uint64_t bytes);
