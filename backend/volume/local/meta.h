/* A volume's metadata file: <pool>/<id>/meta, JSON, see doc/format-local.md. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "backend/volume/volume.h"

enum { META_LAYERS_MAX = 4096, META_FILE_MAX = 1 << 20 };

struct meta_layer {
        unsigned n;    /* its number: files data.<n>, map.<n> */
        uint64_t size; /* of the volume when it was frozen; the top's is the volume's */
};

struct meta {
        char id[VOLUME_ID_SIZE];
        char parent[VOLUME_ID_SIZE]; /* what users cloned it from; "" */
        char origin[VOLUME_ID_SIZE]; /* the volume whose layer lies under our lowest; "" */
        unsigned origin_layer;       /* that layer's number */
        bool immutable;            /* imported, or (with an origin) a snapshot: one frozen layer */
        bool removed;              /* nameless: kept for its clones only */
        struct meta_layer *layers; /* lowest first */
        unsigned nlayers;          /* >= 1 */
};

/* Kept twice, each with a checksum. */
#define META_NAME "meta"
#define META_COPY "meta.bak"
enum { META_BAD_FIRST = 1, META_BAD_COPY = 2 };

/* Text to struct.  -ENOTSUP of a newer format, -EUCLEAN with words for anything odd. */
int meta_parse(const char *text, size_t n, struct meta *ret, struct err **e);
/* From the copy when the first is damaged, which is logged; never when it is missing, because a
 * volume is removed by removing the first. */
int meta_read(const char *dir, struct meta *ret, struct err **e);
/* Durable on return, together with the names in the folder. */
int meta_write(const char *dir, const struct meta *m, struct err **e);
/* Whether that one of the two (META_NAME, META_COPY) is there and damaged. */
bool meta_damaged(const char *dir, const char *name);
/* Which of the two files is not what meta_write() of m writes. */
unsigned meta_bad(const char *dir, const struct meta *m);
void meta_done(struct meta *m);
int meta_copy(const struct meta *from, struct meta *ret);
int meta_push(struct meta *m, unsigned n, uint64_t size);
/* Index of layer number n, or -1. */
int meta_find(const struct meta *m, unsigned n);

static inline const struct meta_layer *meta_top(const struct meta *m)
{
        return &m->layers[m->nlayers - 1];
}
/* Whether layer i has something below it, and so a map. */
static inline bool meta_mapped(const struct meta *m, unsigned i)
{
        return i > 0 || m->origin[0];
}
