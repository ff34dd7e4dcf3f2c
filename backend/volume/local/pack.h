/* The form of a map that is only read: a few bytes an extent, however far apart they lie.
 *
 * A page is 16384 blocks, as in struct map.  A page that has anything is either a sorted list of
 * its extents, 4 bytes each, or, when they are many, two bits a block.  Nothing changes after it
 * was built: any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACK_LINE_WORDS = 8 };

/* A line as a log says it; the one that comes later counts. */
struct pack_line {
        uint64_t line;
        uint64_t word[PACK_LINE_WORDS];
};

struct pack {
        uint64_t *used;  /* a bit a page that has anything */
        uint32_t *rank;  /* by 64 pages: how many used ones are before */
        uint32_t *start; /* by used page: its first cell; and the end of the last */
        uint32_t *cell;
        uint64_t live; /* lines that have anything */
        void *file;    /* start and cell are in it; NULL: allocated */
        size_t file_bytes;
};

/* Of a map with so many pages; -ENOMEM.  Lines lie inside.  A large one is kept in a nameless file
 * in the folder dir, where that can be had, so that the kernel can evict it and read it again. */
int pack_build(struct pack *k, uint64_t pages, const struct pack_line *line, size_t n,
               const char *dir);
void pack_done(struct pack *k);

static inline bool pack_used(const struct pack *k, uint64_t page)
{
        return k->used[page / 64] >> page % 64 & 1;
}
/* Blocks from block on, to the end of its page at most, that have the same state, which is given as
 * in enum map_state. */
uint64_t pack_run(const struct pack *k, uint64_t block, unsigned *ret);
