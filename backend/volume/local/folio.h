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

struct folios {
        uint32_t *region; /* NULL: nothing to do on this kernel or file system */
        uint64_t n;
        uint32_t syncs; /* odd while the file is being synced */
};

void folios_init(struct folios *f, int fd, uint64_t size);
/* No writer may run. */
void folios_grow(struct folios *f, uint64_t size);
void folios_done(struct folios *f);
/* Around each sync of the file, one at a time. */
void folios_sync(struct folios *f);
/* Before a write. */
void folios_write(struct folios *f, int fd, uint64_t n, uint64_t off);
/* A read was not in the page cache: readahead will bring large folios. */
void folios_missed(struct folios *f, uint64_t n, uint64_t off);
