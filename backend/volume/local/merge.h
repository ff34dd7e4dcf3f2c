/* A merge: two layers that nobody needs apart become one, or a layer takes over all that lies below
 * it (flattening).
 *
 * Both are frozen, or the upper is the top of a volume that is not open.  What is copied is seen by
 * nobody: into the lower one go blocks that the upper one covers, into the upper one blocks that
 * its map calls holes.  So until the metadata says so nothing has happened, and a merge that was
 * cut off is begun anew. */
#pragma once

#include "backend/volume/local/pool.h"

enum { MERGE_SLICE = 4 << 20 }; /* bytes copied in one step */

struct merge {
        char id[VOLUME_ID_SIZE];
        uint64_t serial; /* struct entry's */
        struct meta_layer upper, lower;
        bool flatten;                /* lower is the origin, with all below */
        char origin[VOLUME_ID_SIZE]; /* flatten: whose layer */
        unsigned origin_layer;
        bool counted;            /* flatten: it is counted in the origin's refs */
        bool top;                /* the upper is the top: only while nobody opens the volume */
        unsigned opened;         /* top: struct entry's */
        bool up;                 /* the lower's blocks go to the upper's file, else the other way */
        bool ground;             /* what comes out has nothing below it, and so no map */
        struct layer *u, *below; /* ours alone; flatten: below is the pool's */
        int fd;                  /* the file that is written */
        struct map map;          /* what comes out */
        uint64_t off, end, vis;  /* bytes; vis: what of below is seen */
        bool writing;            /* the file is changed from now on; checked first, so far: */
        uint64_t checked;        /* bytes of what it has and keeps */
        uint64_t copied;         /* in this step */
        uint64_t marked;         /* flatten: where the mark on disk is */
};

/* merge.c */
/* The file that keeps how far a flattening is; the caller frees. */
char *merge_mark_path(struct pool *p, const struct merge *m);
/* What was copied is on disk.  The kernel tells a descriptor once that it has lost something: every
 * sync counts. */
int merge_sync(const struct merge *m);
/* A frozen layer with nothing below it, ours alone. */
int merge_open_layer(struct pool *p, const struct meta *meta, const struct meta_layer *l,
                     struct layer **ret, struct err **e);
/* With the lock: what has failed is not tried again and again. */
void merge_gave_up(struct entry *en, const struct merge *m, int r, struct err *e);

/* merge-commit.c */
/* With the lock: whether all is as it was when the merge began. */
bool merge_still_so(struct pool *p, struct entry *en, const struct merge *m);
/* All is copied; en is busy, and released. */
void merge_finish(struct pool *p, struct entry *en, struct merge *m);

/* merge-copy.c */
/* Checks by about MERGE_SLICE what the file that is to be written has and keeps, where there are
 * checksums: they do not survive.  1: that was all. */
int merge_check(struct merge *m);
/* Goes on by about MERGE_SLICE; m->off == m->end when it was the last. */
int merge_copy(struct merge *m);
/* What was copied into the upper's file, which is frozen, goes: its map says that nothing is there.
 */
void merge_uncopy(struct merge *m);
/* Blocks of the two files, to choose the way. */
void merge_choose(struct merge *m);
