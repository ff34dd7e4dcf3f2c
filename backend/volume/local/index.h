/* Which layer below the top of an open stack has a block, in the same time whatever the depth.
 *
 * Only the frozen layers are in it, so no write changes it.  It is built for a region (1 MiB) when
 * that is first looked up: runs of blocks that come from the same layer.  Layers are known by
 * slots, which count up from the lowest.  A region says up to which slot it knows; when layers were
 * pushed since, only theirs are laid over it.  When a merge has replaced layers, their slots name
 * the new one, and the regions stay right.
 *
 * Locks: the stack's io, shared to look up, exclusive to change (free, push, replace). */
#pragma once

#include "backend/volume/local/layer.h"

enum {
        INDEX_SPAN = 64 << 20,      /* longer look-ups are cheaper by walking */
        INDEX_BYTES_MAX = 64 << 20, /* of a stack; what is past it is walked */
};

struct index;

/* What index_find() did not find: the walk must. */
enum { INDEX_FOUND = 1, INDEX_WALK = 0 };

/* Of the layers below top.  NULL where there are so few that it is not worth it, or no memory. */
struct index *index_new(struct layer *top);
void index_free(struct index *x); /* NULL is left alone */
/* What was the top is frozen now, and top lies on it.  Returns what takes x's place, which may be
 * NULL as above. */
struct index *index_push(struct index *x, struct layer *top);
/* x may be NULL.  A merge has made one layer of two; lower NULL: of upper and all below. */
void index_replace(struct index *x, const struct layer *upper, const struct layer *lower,
                   struct layer *merged);
/* The piece at off, n > 0 bytes at most, as it is seen below the top.  INDEX_WALK: *ret has only
 * the length that is to be walked. */
int index_find(struct index *x, uint64_t off, uint64_t n, struct piece *ret);
