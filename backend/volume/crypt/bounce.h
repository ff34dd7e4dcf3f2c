/* Buffers that writes are encrypted into: a few are kept, because fresh memory of that size costs
 * as much as the encryption. */
#pragma once

#include <pthread.h>
#include <stdlib.h>

enum { BOUNCE_SIZE = 1 << 20, BOUNCE_SMALL = 64 << 10, BOUNCE_KEPT = 8 };

struct bounces {
        pthread_mutex_t lock;
        void *idle[BOUNCE_KEPT];
        unsigned n;
};

/* At least n bytes, at most BOUNCE_SIZE, aligned to a page; NULL without memory. */
static inline void *bounce_take(struct bounces *b, size_t n)
{
        void *p = NULL;

        if (n <= BOUNCE_SMALL)
                return aligned_alloc(4096, n);
        pthread_mutex_lock(&b->lock);
        if (b->n > 0)
                p = b->idle[--b->n];
        pthread_mutex_unlock(&b->lock);
        return p ? p : aligned_alloc(4096, BOUNCE_SIZE);
}

/* n: as it was taken. */
static inline void bounce_return(struct bounces *b, void *p, size_t n)
{
        if (n > BOUNCE_SMALL && p) {
                pthread_mutex_lock(&b->lock);
                if (b->n < BOUNCE_KEPT) {
                        b->idle[b->n++] = p;
                        p = NULL;
                }
                pthread_mutex_unlock(&b->lock);
        }
        free(p);
}
