/* Counters of one connection, and their sums.
 *
 * One thread at a time writes them, others read: relaxed stores, no lock, and two looks at the
 * clock for a whole batch of requests.  A batch is what is taken up between two sendings of
 * replies: each of its requests is counted with the time of the batch, which is what its client
 * waited for at most, waiting for limits included.  A request that is in flight, and answered by
 * itself, is counted with its own time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum stats_op {
        STATS_READ,
        STATS_WRITE,
        STATS_FLUSH,
        STATS_TRIM,
        STATS_ZERO,
        STATS_STATUS,
        STATS_CACHE,
        STATS_OPS
};
/* Latencies: bucket i counts those of less than 2^i usec that are in no bucket before; the last
 * counts the rest. */
enum { STATS_BUCKETS = 28 };

extern const char *const stats_names[STATS_OPS];

struct stats_count {
        uint64_t ops;    /* answered, failed ones included */
        uint64_t bytes;  /* asked for by those that succeeded */
        uint64_t errors; /* answered with one */
        uint64_t usec;   /* of all */
        uint64_t latency[STATS_BUCKETS];
};
struct stats_sum {
        struct stats_count op[STATS_OPS];
        uint64_t in_flight; /* taken up, not answered yet */
};

struct stats {
        struct stats_sum sum;
        struct {
                uint64_t ops, bytes;
        } batch[STATS_OPS];
        uint64_t batched; /* requests in it */
        int64_t begin;    /* usec, monotonic; 0: no batch */
        struct stats *prev, *next;
};

/* A request is taken up; the first begins a batch. */
void stats_start(struct stats *s, enum stats_op op, uint64_t bytes);
/* The one that was started last is not done after all, and was the only one. */
void stats_cancel(struct stats *s, enum stats_op op, uint64_t bytes);
/* One of those started leaves the batch: it flies, until it lands.  When the batch began. */
int64_t stats_fly(struct stats *s, enum stats_op op, uint64_t bytes);
void stats_land(struct stats *s, enum stats_op op, uint64_t bytes, int64_t usec, bool failed);
/* The request that was started with these failed. */
void stats_failed(struct stats *s, enum stats_op op, uint64_t bytes);
/* Every request that was started and does not fly has been answered. */
void stats_end(struct stats *s);
/* Adds what s shows now; any thread. */
void stats_add(struct stats_sum *to, const struct stats_sum *s);
