/* Keeping small writes cheap in the page cache.
 *
 * Since Linux 6.16 ext4 keeps files in large folios: sequential reading and large writes leave
 * folios of up to 2 MiB, and a buffered write of 4 KiB into one walks its 512 buffer heads, which
 * costs several times the write.  So a region of a data file is split into single pages when a
 * small write to it was slow: MADV_COLD on one page of a large folio that is mapped does that,
 * without I/O, as long as the folio is clean.  Reads keep the readahead's large folios, which suit
 * them.
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

struct folios {
        uint32_t *region; /* NULL: nothing to do on this kernel or file system */
        uint64_t n;
        uint64_t stream; /* where the last read that missed ended */
        uint32_t syncs;  /* odd while the file is being synced */
};

void folios_init(struct folios *f, int fd, uint64_t size);
/* No writer may run. */
void folios_grow(struct folios *f, uint64_t size);
void folios_done(struct folios *f);
/* Around each sync of the file, one at a time. */
void folios_sync(struct folios *f);
/* What is done to the regions of a large write, before it, or of a small one, after it. */
void folios_prepare(struct folios *f, int fd, uint64_t n, uint64_t off);
/* Around a write, n > 0.  The first gives the second its beginning, usec; 0: it is not timed. */
static inline int64_t folios_write(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        uint64_t i = off / FOLIO_REGION;

        if (!f->region || (n <= FOLIO_REGION - off % FOLIO_REGION && i < f->n &&
                           __atomic_load_n(&f->region[i], __ATOMIC_RELAXED) == FOLIO_SPLIT))
                return 0;
        if (n < FOLIO_LARGE)
                return clock_mono();
        folios_prepare(f, fd, n, off);
        return 0;
}
/* Writing single pages takes 2 usec for the first and under one for each of the others. */
static inline void folios_written(struct folios *f, int fd, uint64_t n, uint64_t off, int64_t begin)
{
        if (begin && clock_mono() - begin > 6 + (int64_t)(n >> 11))
                folios_prepare(f, fd, n, off);
}
void folios_follow(struct folios *f, int fd, uint64_t n, uint64_t off);
/* Before a read of so much at once: if it is not in the page cache, or goes on where such a one
 * ended, readahead will bring large folios. */
static inline void folios_read(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        if (n >= FOLIO_LARGE && f->region)
                folios_follow(f, fd, n, off);
}
