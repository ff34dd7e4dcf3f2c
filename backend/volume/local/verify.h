/* Checking an open volume: volume_check() of this driver. */
#pragma once

#include "backend/volume/local/pool.h"

/* What one check works on.  Its layers are held open, whatever is put on the stack meanwhile. */
struct verify {
        struct pool *pool;
        struct stack *stack;
        const struct volume_check *how;
        uint64_t done, total;
        int64_t began; /* monotonic usec */
};

/* Around every look at a layer's map, for moments only: a volume that grows must not move the map
 * of its top away.  Nothing that takes a stack's lock may be called between them. */
static inline void verify_hold(struct verify *v)
{
        pthread_rwlock_rdlock(&v->stack->io);
}
static inline void verify_release(struct verify *v)
{
        pthread_rwlock_unlock(&v->stack->io);
}

void verify_finding(struct verify *v, bool mended, const struct layer *l, const char *fmt, ...)
        _printf_(4, 5);
/* After so many bytes (or steps): tells, and waits for the rate's sake.  -ECANCELED. */
int verify_step(struct verify *v, uint64_t n);

/* verify.c */
int pool_verify(struct pool *p, struct stack *s, const struct volume_check *how, struct err **e);
/* verify-log.c: the map log on disk against the map in memory. */
int verify_log(struct verify *v, struct layer *l);
/* scrub.c: reads all blocks of the layer; checks those that have a sum, gives sums to the others if
 * it is frozen and they are wanted. */
int verify_data(struct verify *v, struct layer *l, bool frozen);
uint64_t verify_data_bytes(struct verify *v, struct layer *l);
/* The first line of the map from there on that is not all holes, or UINT64_MAX. */
uint64_t verify_next_line(struct verify *v, const struct layer *l, uint64_t line);
