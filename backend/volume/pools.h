/* The pools behind one front door: which of them has a volume.
 *
 * Between volume.c, pools.c and move.c.  A volume is in the first pool that says it has it; those
 * whose answer costs nothing (files) are asked first, and the last is not asked.  Where a volume
 * that is not there yet is to be made was said by volume_place(), else it is the first pool; and
 * one that is on its way from one pool to another is where its mark says (move.c). */
#pragma once

#include <pthread.h>
#include <uthash.h>
#include "backend/volume/crypt/vault.h"
#include "backend/volume/volume.h"

struct side {
        const struct volume_driver *driver;
        void *state;
        struct vault *vault; /* which volumes are encrypted; NULL: none can be */
        char label[VOLUME_LABEL_SIZE];
};

/* What is known of a volume's place beforehand. */
struct placed {
        UT_hash_handle hh; /* by id */
        char id[VOLUME_ID_SIZE];
        struct side *side;
        bool moving;  /* it has a mark; else it is to be made there */
        bool copying; /* and the mark says that its copy is not whole yet */
};

struct volume_pool {
        struct side sides[VOLUME_POOLS];
        struct side *order[VOLUME_POOLS]; /* in which they are asked */
        unsigned n;
        char *marks; /* <state>/moving, made with the first mark */
        pthread_mutex_t lock;
        struct placed *placed;
};

/* Of a volume that is nowhere: `otherwise`, or if that is NULL one that will say so. */
struct side *pool_side(struct volume_pool *p, const char *id, struct side *otherwise);
/* By its label or its driver's name; "" is the first.  -ENODEV. */
int pool_side_find(struct volume_pool *p, const char *label, struct side **ret, struct err **e);
/* Remembers, or with side NULL forgets. */
int pool_note(struct volume_pool *p, const char *id, struct side *side, bool moving, bool copying,
              struct err **e);
/* It was made: what volume_place() said is in its pool now. */
void pool_made(struct volume_pool *p, const char *id);
/* -EBUSY while it is copied to another pool. */
int pool_check_still(struct volume_pool *p, const char *id, struct err **e);
/* Its copy is whole, and is what counts. */
bool pool_moved(struct volume_pool *p, const char *id);
/* Removes it from that pool; missing is success. */
int side_drop(struct side *s, const char *id, struct err **e);
/* Whether that pool has it, or is about to. */
bool side_has(struct side *s, const char *id);
/* As volume_open(), in that pool, whatever is known. */
int side_open(struct side *s, const char *id, bool readonly, struct volume **ret, struct err **e);
/* move.c: forgets that it was on its way. */
int moves_forget(struct volume_pool *p, const char *id, struct err **e);
/* Marks of volumes that were on their way when the process before us ended. */
int moves_load(struct volume_pool *p, const char *state, struct err **e);
