/* The log of a map on disk: its format, as functions on bytes.
 *
 * All integers are little-endian.
 *   file   = header, batch...                 (an empty file is an empty log)
 *   header = magic "STRAMAP1" 8, version u32 (1), block size u32 (4096), volume UUID 16,
 *            layer u32, zero 24, crc32c u32 of the 60 bytes before
 *   batch  = magic "SMLB" 4, crc32c u32 of the rest of the batch, group u64, count u32,
 *            flags u32 (1: last of its group), zero 8, record[count]
 *   record = line u64, 64 bytes: 2 bits a block, lowest block in the lowest bits
 * A group is what one flush appended; groups count up from 1, and each is synced before the next
 * is begun.  So a bad batch is a torn tail that nobody was told is durable, unless a batch of a
 * later group follows: then the file was damaged. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-id128.h>
#include "backend/volume/local/map.h"

enum {
        MAPLOG_HEADER = 64,
        MAPLOG_BATCH = 32,
        MAPLOG_RECORD = 8 + MAP_LINE_BYTES,
        MAPLOG_COUNT_MAX = 4096, /* records in a batch */
        MAPLOG_BATCH_MAX = MAPLOG_BATCH + MAPLOG_COUNT_MAX * MAPLOG_RECORD,
};

struct maplog_id {
        sd_id128_t volume;
        uint32_t layer;
};

uint32_t crc32c(uint32_t crc, const void *p, size_t n);

void maplog_header(uint8_t out[MAPLOG_HEADER], const struct maplog_id *id);
/* Encodes at most MAPLOG_COUNT_MAX records; returns the batch's length. */
size_t maplog_batch(uint8_t *out, uint64_t group, bool last, const uint64_t *lines,
                    const uint8_t *bytes, size_t n);

struct maplog_source {
        /* Bytes read at off, less than n only at the end; or -errno. */
        ssize_t (*read)(void *arg, void *p, size_t n, uint64_t off);
        void *arg;
};
struct maplog_end {
        uint64_t end;  /* length of what is good: append here */
        uint64_t next; /* the group to append next */
        bool torn;     /* something after `end` was dropped */
        bool header;   /* the header was damaged: the caller knows what it must be */
};
/* Replays into m.  A header with a few bad bytes before good batches is no obstacle.  -EUCLEAN with
 * words when the log is damaged, -ENOTSUP of a newer version. */
int maplog_replay(const struct maplog_source *src, const struct maplog_id *id, struct map *m,
                  struct maplog_end *ret, struct err **e);
