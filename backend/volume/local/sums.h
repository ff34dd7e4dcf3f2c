/* Checksums of a frozen layer's blocks: a file sum.<n>, by the number of its map, see
 * doc/local-volume.md.
 *
 * They are made by a scrub, when nothing writes to the layer any more, so no write, flush or power
 * cut can set a block and its sum at odds.  From then on every read is checked: a block that does
 * not match is -EIO, never bytes.  Where there was nothing, there is no sum.  Before a merge
 * changes a layer's file it has checked what it keeps and takes the sums away; the next scrub makes
 * new ones. */
#pragma once

#include "backend/volume/local/layer.h"

enum {
        SUMS_PAGE = 4096,
        SUMS_PER_PAGE = SUMS_PAGE / 4 - 1, /* the last word is the page's own */
        SUMS_NAMED = 16,
};

struct sums {
        int fd;
        uint64_t bytes;     /* that the data file had */
        atomic_bool off;    /* the data file is being changed: nothing is checked any more */
        struct sums *older; /* ones that are off, kept because a read may be looking at them */
        /* What reads have met since the layer was opened. */
        pthread_mutex_t lock;
        uint64_t bad;               /* reads refused */
        uint64_t named[SUMS_NAMED]; /* blocks of these */
        unsigned nnamed;
        bool damaged; /* a page of sums was not readable, and what it covers was not checked */
};

/* One page of sums, of blocks first.. */
struct sums_page {
        uint32_t sum[SUMS_PER_PAGE]; /* 0: none */
        bool there, damaged;
};

char *sums_path(const struct layer *l);
/* Sets l->sums if there is a file.  One that makes no sense is logged and left for a scrub. */
int sums_open(struct layer *l, struct err **e);
void sums_free(struct sums *s);
/* Removes the file, durably.  Missing is success. */
int sums_drop(const char *dir, unsigned n);
/* Like reading the data file, past whose end are zeros; -EIO when a block does not match. */
int sums_read(struct layer *l, void *p, size_t n, uint64_t off);

/* For who makes and checks them. */
/* What a block that has no sum must have: 0, anything; of a layer without map it was a hole when
 * the sums were made, and must be zeros. */
uint32_t sums_unset(const struct layer *l);
uint32_t sums_of(const void *block); /* of MAP_BLOCK bytes; never 0 */
int sums_page_read(const struct sums *s, uint64_t page, struct sums_page *ret);
int sums_page_write(const struct sums *s, uint64_t page, const struct sums_page *p);
/* An empty one in a file that has no name yet, for a data file of so many bytes. */
int sums_make(const struct layer *l, uint64_t bytes, struct sums **ret);
/* Durable, and under its name if it has none (fresh); then the layer's.  Takes s if it succeeds. */
int sums_commit(struct layer *l, struct sums *s, bool fresh);
