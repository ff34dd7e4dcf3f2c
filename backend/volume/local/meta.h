/* A volume's metadata file: <pool>/<id>/meta, JSON, see doc/local-volume.md. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "backend/volume/volume.h"

enum { META_LAYERS_MAX = 4096, META_FILE_MAX = 1 << 20 };

enum { META_GROUND = -2, META_ORIGIN = -1 }; /* what else a layer may lie on */

struct meta_layer {
        unsigned n;       /* its number, by which others name it */
        unsigned data;    /* data.<data>, as a rule the same number */
        unsigned map;     /* map.<map>, the same, if it lies on anything */
        int below;        /* the number of the layer it lies on, or see above */
        uint64_t size;    /* of the volume when it was frozen; the top's is the volume's */
        uint64_t overlap; /* bytes of what is below that are seen; UINT64_MAX: all */
};

struct meta {
        char id[VOLUME_ID_SIZE];
        char parent[VOLUME_ID_SIZE]; /* what users cloned it from; "" */
        char origin[VOLUME_ID_SIZE]; /* the volume whose layer lies under our lowest; "" */
        unsigned origin_layer;       /* that layer's number */
        bool immutable;            /* imported, or (with an origin) a snapshot: one frozen layer */
        bool removed;              /* nameless: kept for its clones only */
        bool flatten;              /* it is to get rid of its origin */
        struct meta_layer *layers; /* each after the one it lies on; the last is the top */
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
/* Durable on return, together with the names in the folder.  When it fails the new one may be there
 * nevertheless. */
int meta_write(const char *dir, const struct meta *m, struct err **e);
/* Whether that one of the two (META_NAME, META_COPY) is there and damaged. */
bool meta_damaged(const char *dir, const char *name);
/* Which of the two files is not what meta_write() of m writes. */
unsigned meta_bad(const char *dir, const struct meta *m);
void meta_done(struct meta *m);
int meta_copy(const struct meta *from, struct meta *ret);
/* A layer on what is the top so far (or the origin, or the ground), the new top. */
int meta_push(struct meta *m, unsigned n, uint64_t size);
/* Takes layer i out of the list. */
void meta_take(struct meta *m, unsigned i);
/* A number that no layer and no file of a layer has. */
unsigned meta_next(const struct meta *m);
/* Whether a layer lies on the origin. */
bool meta_on_origin(const struct meta *m);
/* Index of layer number n, or -1. */
int meta_find(const struct meta *m, unsigned n);

static inline const struct meta_layer *meta_top(const struct meta *m)
{
        return &m->layers[m->nlayers - 1];
}
/* Whether layer i has something below it, and so a map. */
static inline bool meta_mapped(const struct meta *m, unsigned i)
{
        return m->layers[i].below != META_GROUND;
}
