/* The map of a layer: what each 4 KiB block of it holds.
 *
 * Two bits a block, packed in 64-bit words, in memory that is mapped but only touched where a
 * block was set, so that the cost follows what was written, not the volume's size.  The memory is
 * either private or a file (see shm.h) that outlives the process.  A line is 64 bytes of it
 * (256 blocks, 1 MiB of volume): the unit in which changes are logged.
 *
 * A map that is only read, a frozen layer's, is packed (pack.h): its cost follows its extents.
 *
 * Threads: get and run need no lock against set; map_grow excludes everything else. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "backend/volume/local/pack.h"
#include "common/err.h"

enum map_state {
        MAP_HOLE = 0,  /* not here: look in the parent */
        MAP_DATA = 1,  /* here, at the same offset of the data file */
        MAP_ZERO = 2,  /* zeros, whatever the data file has */
        MAP_MIXED = 3, /* of no block */
};

enum {
        MAP_BLOCK = 4096,
        MAP_LINE_BYTES = 64,
        MAP_LINE_BLOCKS = MAP_LINE_BYTES * 4,
        MAP_WORD_BLOCKS = 32,
        MAP_PAGE_BLOCKS = 4096 * 4, /* of MAP_PAGE */
        MAP_PAGE = 4096,            /* of the map's memory: 64 lines, 64 MiB of volume */
};

struct map {
        pthread_mutex_t lock; /* held to change anything below */
        uint64_t *words;
        size_t bytes; /* mapped, whole pages */
        uint64_t blocks;
        int fd; /* file behind words (borrowed), from offset base; -1: private memory */
        uint64_t base;
        uint64_t *used;  /* a bit a page: it has been touched */
        uint64_t *dirty; /* a bit a line: set since map_take_dirty() last gave it */
        uint64_t *list;  /* the dirty lines */
        size_t nlist, alist;
        _Atomic uint64_t live; /* lines that are not all holes */
        /* Instead of all that, in a map that is only read: */
        bool packed;
        struct pack pack;
        struct pack_line *gathered; /* until it is packed */
        size_t ngathered, agathered;
};

/* blocks may be 0.  fd: see struct map; the file must have base + map_bytes() bytes. */
int map_init(struct map *m, uint64_t blocks, int fd, uint64_t base);
void map_done(struct map *m);
/* A map that map_set_line() fills, and that can be read, and only that, after map_pack(); dir as in
 * pack_build(). */
int map_gather(struct map *m, uint64_t blocks);
int map_pack(struct map *m, const char *dir);
/* Bytes of memory (and of file) for so many blocks. */
uint64_t map_bytes(uint64_t blocks);
/* More blocks, all holes.  The file must have been grown before. */
int map_grow(struct map *m, uint64_t blocks);
/* After mapping a file with content: finds out which pages are in use. */
int map_adopt(struct map *m);

enum map_state map_get(const struct map *m, uint64_t block);
/* Number of blocks from block on, at most max, that have the same state; gives the state.  What is
 * past the map's end is a hole. */
uint64_t map_run(const struct map *m, uint64_t block, uint64_t max, enum map_state *ret);
/* Blocks that lie in one word of a map, whichever. */
struct map_span {
        uint64_t word, mask; /* mask 0: they do not */
};
static inline struct map_span map_span(uint64_t block, uint64_t n)
{
        unsigned first = block % MAP_WORD_BLOCKS;

        if (n == 0 || n > MAP_WORD_BLOCKS - first)
                return (struct map_span){};
        return (struct map_span){block / MAP_WORD_BLOCKS, UINT64_MAX >> (64 - 2 * n) << 2 * first};
}
enum map_state map_span_packed(const struct map *m, struct map_span s);
/* The state that all of them have, n > 0 and inside the map; MAP_MIXED when they differ. */
static inline enum map_state map_span_state(const struct map *m, struct map_span s)
{
        const uint64_t page = s.word * MAP_WORD_BLOCKS / MAP_PAGE_BLOCKS;
        const uint64_t data = UINT64_C(0x5555555555555555);
        uint64_t is;

        if (m->packed)
                return pack_used(&m->pack, page) ? map_span_packed(m, s) : MAP_HOLE;
        if (!(__atomic_load_n(&m->used[page / 64], __ATOMIC_ACQUIRE) >> page % 64 & 1))
                return MAP_HOLE;
        is = __atomic_load_n(&m->words[s.word], __ATOMIC_ACQUIRE) & s.mask;
        if (is == 0)
                return MAP_HOLE;
        if (is == (s.mask & data))
                return MAP_DATA;
        return is == (s.mask & ~data) ? MAP_ZERO : MAP_MIXED;
}
/* Whether all of them are MAP_DATA, and none is dirty. */
bool map_settled(const struct map *m, uint64_t block, uint64_t n);
/* 0, -ENOMEM, or -ENOSPC when the file system behind fd is full; then nothing has changed that
 * matters (some blocks may be set).  Lines that changed are dirty. */
int map_set(struct map *m, uint64_t block, uint64_t n, enum map_state state);

/* One line by its number.  Setting is for replay: it does not make the line dirty. */
void map_get_line(const struct map *m, uint64_t line, uint8_t out[MAP_LINE_BYTES]);
/* -EINVAL past the end or with a state that does not exist. */
int map_set_line(struct map *m, uint64_t line, const uint8_t in[MAP_LINE_BYTES]);
/* The first line >= line that is not all holes, or UINT64_MAX. */
uint64_t map_next_line(const struct map *m, uint64_t line);
/* Hands over the dirty lines with their content (caller frees both) and calls them clean. */
int map_take_dirty(struct map *m, uint64_t **ret_lines, uint8_t **ret_bytes, size_t *ret_n);
/* Takes lines back as dirty. */
int map_put_dirty(struct map *m, const uint64_t *lines, size_t n);
