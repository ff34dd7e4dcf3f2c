/* An open volume: its stack of layers, seen from the top.
 *
 * Lock order: flush, then io, then a layer's alloc, then a map's lock. */
#pragma once

#include <stdatomic.h>
#include "backend/volume/local/layer.h"

struct stack {
        pthread_rwlock_t io;   /* shared: any I/O; exclusive: change of layers or size */
        pthread_mutex_t flush; /* one flush at a time; the others then find nothing to do */
        struct layer *top;
        /* The layer below the top, while not all of it is durable: it is flushed before the top
         * is.  With the flush lock; NULL: no such. */
        struct layer *under;
        _Atomic uint64_t size; /* bytes: the top layer's */
        bool readonly;
        char *failed_path;   /* the marker file that says so */
        atomic_bool written; /* since the last good flush */
        atomic_bool failed;  /* a sync failed: only reads until checked */
        atomic_bool hurry;   /* I/O is about to be stopped: no write is to wait for the disk */
};

/* dir: the volume's folder, for the marker.  Takes top. */
int stack_new(struct layer *top, bool readonly, const char *dir, struct stack **ret);
/* Does not free the layers, nor the top's index. */
void stack_free(struct stack *s);

int stack_read(struct stack *s, void *p, size_t n, uint64_t off);
int stack_write(struct stack *s, const void *p, size_t n, uint64_t off, unsigned flags);
/* run.c: those whose result is VOLUME_IO_WAITS. */
void stack_run(struct stack *s, struct volume_io *io, size_t n);
/* Holds no lock: a slow borrower must not stop a snapshot.  A layer that has lent something stays
 * open, and what it held when it was lent is a right answer for a read that began before. */
int stack_lend(struct stack *s, uint64_t n, uint64_t off, struct volume_file *ret);
int stack_flush(struct stack *s);
/* The top layer's map log anew from its map. */
int stack_relog(struct stack *s);
int stack_zero(struct stack *s, uint64_t n, uint64_t off, unsigned flags);
int stack_trim(struct stack *s, uint64_t n, uint64_t off, unsigned flags);
int stack_extents(struct stack *s, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
void stack_cache(struct stack *s, uint64_t n, uint64_t off);
/* Whether the range begins with a hole or zeros. */
bool stack_starts_sparse(struct stack *s, uint64_t n, uint64_t off);
uint64_t stack_size(struct stack *s);

/* After a write, with what it returned: that, or the errno it stands for. */
int stack_written(struct stack *s, int r);
/* After a sync that failed: the volume's users are told from now on. */
void stack_fail(struct stack *s);
/* The same for a volume, by its folder, that is not open. */
void stack_mark_failed(const char *dir);

/* A new, empty layer on the top becomes the top; the metadata on disk says so already.  I/O is
 * stopped for as long as what is under way takes.  What was the top stays to be flushed: see
 * stack_settle().  The stack must be settled before. */
void stack_switch(struct stack *s, struct layer *top);
/* Makes what was the top durable, as stack_flush() would. */
int stack_settle(struct stack *s);
/* Whether that has not been done, or not succeeded, with this layer. */
bool stack_freezing(struct stack *s, const struct layer *l);

/* Stops I/O, makes all durable, calls change() and lets I/O go on.  This is where the volume is
 * grown. */
int stack_change(struct stack *s, int (*change)(struct stack *s, void *arg), void *arg);
