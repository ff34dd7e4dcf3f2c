/* Keeping small writes cheap in the page cache.
 *
 * Since Linux 6.16 ext4 keeps files in large folios: sequential reading and large writes leave
 * folios of up to 2 MiB, and a buffered write of 4 KiB into one walks its 512 buffer heads, which
 * costs several times the write.  So a region of a data file is split into single pages before the
 * first small write to it: MADV_COLD on one page of a large folio that is mapped does that, without
 * I/O, as long as the folio is clean.  Reads keep the readahead's large folios, which suit them.
 *
 * All of it is advice: nothing here fails or changes a byte.  Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
void folios_prepare(struct folios *f, int fd, uint64_t n, uint64_t off);
/* Before a write, n > 0. */
static inline void folios_write(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        uint64_t i = off / FOLIO_REGION;

        if (!f->region || (n <= FOLIO_REGION - off % FOLIO_REGION && i < f->n &&
                           __atomic_load_n(&f->region[i], __ATOMIC_RELAXED) == FOLIO_SPLIT))
                return;
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
