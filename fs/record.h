/* The record of requests that are being worked on, for kernels that do not send them again (before
 * Linux 6.9).
 *
 * It lies behind struct held in the memory file.  Each worker has the kernel write the request
 * straight into a buffer of it, so there is no moment at which a request is ours and not there; an
 * answer takes it out after it was given.  What is parked (.wait, a volume's bytes) moves into a
 * small slot, or keeps its buffer and the worker takes another.  A successor works on what it finds
 * as if it had just been read. */
#pragma once

#include "fs/hold.h"

enum { RECORD_SMALL = 16384, RECORD_BIG = 160, RECORD_SMALL_BYTES = 240 };
#define RECORD_BIG_BYTES ((UINT64_C(1) << 20) + 8192)

struct record_small {
        _Atomic uint64_t unique; /* 0: free; written last */
        uint32_t len;
        uint32_t interrupted;
        char bytes[RECORD_SMALL_BYTES];
};
struct record_area {
        uint32_t small_used, big_used;    /* places that ever were: the rest is not even memory */
        uint32_t interrupted[RECORD_BIG]; /* of the big ones */
        struct record_small small[RECORD_SMALL];
        char big[RECORD_BIG][RECORD_BIG_BYTES]; /* struct fuse_in_header first; len 0: free */
};
#define RECORD_SIZE sizeof(struct record_area)

/* On what a life before ours left there.  NULL without memory. */
struct record *record_new(struct record_area *area);
void record_free(struct record *r);
/* read(2) of the device into the record and into buf; the last request of this worker is parked if
 * it was not answered.  -1 with errno. */
ssize_t request_record_read(struct record *r, struct worker *w, int fd, void *buf, size_t len);
/* After the answer to it was given, on any thread. */
void record_answered(struct record *r, uint64_t unique);
/* The worker ends. */
void record_release(struct record *r, struct worker *w);
/* Each request that was found, oldest first, then interrupts of it.  p is writable and len bytes.
 */
void record_replay(struct record *r, void (*each)(void *arg, void *p, size_t len), void *arg);
