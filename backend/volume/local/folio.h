/* Keeping small writes cheap in the page cache.
 *
 * Since Linux 6.16 ext4 keeps files in large folios: sequential reading and large writes leave
 * folios of up to 2 MiB, and a buffered write of 4 KiB into one walks its 512 buffer heads, which
 * costs several times the write.  So once small writes to a data file turn out slow, a region of it
 * is split into single pages before the first small write to it: MADV_COLD on one page of a large
 * folio that is mapped does that, without I/O, as long as the folio is clean.  A region that was
 * written before that was known is dirty, and waits for the next sync.  Where writes are fast
 * nothing is looked at.  Reads keep the readahead's large folios, which suit them.
 *
 * All of it is advice: nothing here fails or changes a byte.  Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/clock.h"

enum { FOLIO_REGION = 2 << 20, FOLIO_LARGE = 64 << 10 };

/* State of a region: unknown, split, or, after large writes, the count of syncs from which on they
 * are clean (an even number > FOLIO_SPLIT). */
enum { FOLIO_UNKNOWN = 0, FOLIO_SPLIT = 1 };
/* Eight slow writes in a row, or more among fast ones: not one that was only interrupted. */
enum { FOLIO_SLOW = 4, FOLIO_EAGER = 32 };

struct folios {
        uint32_t *region; /* NULL: nothing to do on this kernel or file system */
        uint64_t n;
        uint64_t stream; /* where the last read that missed ended */
        uint32_t syncs;  /* odd while the file is being synced */
        uint32_t slow;   /* how slow small writes were of late; from FOLIO_EAGER on for good */
};

void folios_init(struct folios *f, int fd, uint64_t size);
/* No writer may run. */
void folios_grow(struct folios *f, uint64_t size);
void folios_done(struct folios *f);
/* Around each sync of the file, one at a time. */
void folios_sync(struct folios *f);
/* Before a write: the regions of a large one are marked, those of a small one split. */
void folios_prepare(struct folios *f, int fd, uint64_t n, uint64_t off);
/* A small write has been timed. */
void folios_timed(struct folios *f, uint64_t n, uint64_t off, bool slow);
/* Around a write, n > 0.  The first gives the second its beginning, usec; 0: it is not timed. */
static inline int64_t folios_write(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        uint64_t i = off / FOLIO_REGION;

        if (!f->region || (n <= FOLIO_REGION - off % FOLIO_REGION && i < f->n &&
                           __atomic_load_n(&f->region[i], __ATOMIC_RELAXED) == FOLIO_SPLIT))
                return 0;
        if (n < FOLIO_LARGE && __atomic_load_n(&f->slow, __ATOMIC_RELAXED) < FOLIO_EAGER)
                return clock_mono();
        folios_prepare(f, fd, n, off);
        return 0;
}
/* Writing single pages takes 2 usec for the first and under one for each of the others. */
static inline void folios_written(struct folios *f, uint64_t n, uint64_t off, int64_t begin)
{
        bool slow = begin && clock_mono() - begin > 6 + (int64_t)(n >> 11);

        if (slow || (begin && __atomic_load_n(&f->slow, __ATOMIC_RELAXED) > 0))
                folios_timed(f, n, off, slow);
}
void folios_follow(struct folios *f, int fd, uint64_t n, uint64_t off);
/* Before a read of so much at once: if it is not in the page cache, or goes on where such a one
 * ended, readahead will bring large folios. */
static inline void folios_read(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        if (n >= FOLIO_LARGE && f->region)
                folios_follow(f, fd, n, off);
}
