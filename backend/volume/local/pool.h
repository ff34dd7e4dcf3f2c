/* The local pool: the table of volumes, kept in memory and in <state>/pool/<id>/meta.
 *
 * One operation at a time works on a volume: it marks the entry busy, lets the lock go for the
 * disk's sake, and the others wait.  An operation on two volumes takes both at one moment.
 *
 * The layers of an entry (meta.layers, loaded) change with both locks and are read with either.
 * Lock order: a stack's locks, layers_lock, lock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>
#include "backend/volume/local/meta.h"
#include "backend/volume/local/stack.h"

struct entry {
        UT_hash_handle hh; /* by meta.id */
        struct meta meta;
        uint64_t serial; /* of all that were in the table: another of the same id is not this one */
        bool busy;
        unsigned users;        /* open handles */
        unsigned refs;         /* volumes whose origin is this one */
        struct stack *stack;   /* while users > 0 */
        struct layer **loaded; /* by index in meta.layers, NULL where not open; under layers_lock */
        bool rests;            /* it was closed with all on disk, and its top's log whole */
        unsigned opened;       /* counts: whether somebody may have written meanwhile */
        bool todo;             /* work.c is to look at it */
        bool stuck;            /* merging has failed: not again before the next start */
        /* What has become of flattening; bytes. */
        uint64_t flatten_done, flatten_total;
        int flatten_failed; /* -errno */
};

struct merge;

struct pool {
        char *dir; /* <state>/pool */
        char *run;
        bool direct;           /* past the page cache */
        atomic_bool abandoned; /* see volume_pool_abandon() */
        pthread_mutex_t lock;  /* the table and the entries */
        pthread_cond_t idle;   /* an entry stopped being busy */
        struct entry *entries;
        uint64_t serials; /* given to entries so far */
        pthread_mutex_t layers_lock;
        /* work.c */
        pthread_mutex_t work;      /* held by who does a step; before the other locks */
        pthread_cond_t wanted;     /* some entry's todo; with lock */
        struct merge *merge;       /* under way; with work */
        char turn[VOLUME_ID_SIZE]; /* whose layers were looked at last; with lock */
        bool running;              /* with lock, like the next */
        bool stop;
        unsigned checks; /* with lock: under way; nothing is merged meanwhile */
        pthread_t worker;
};

/* pool.c */
int pool_open(const struct volume_pool_config *c, struct pool **ret, struct err **e);
void pool_close(struct pool *p);
char *pool_path(const struct pool *p, const char *id);
struct entry *pool_find(struct pool *p, const char *id); /* with the lock; removed ones too */
/* With the lock: waits until the entry is idle and not busy; NULL if there is none (or removed). */
struct entry *pool_acquire(struct pool *p, const char *id);
void pool_release(struct pool *p, struct entry *en); /* with the lock */
struct entry *pool_add(struct pool *p,
                       struct meta *m);           /* with the lock; takes m; NULL: no memory */
void pool_drop(struct pool *p, struct entry *en); /* with the lock */

/* layers.c: en is busy or open, the lock not held. */
int pool_stack_open(struct pool *p, struct entry *en, struct err **e);
void pool_stack_close(struct pool *p, struct entry *en);
/* Whether layer i is there and has a live map.  Below the top that is one that was frozen, and a
 * blockd was killed before all of it was durable, or it could not be made so. */
bool pool_unsettled(const struct pool *p, const struct meta *m, unsigned i);
/* Freezes the top layer and puts an empty one on it; durable on return.  When making the frozen one
 * durable has failed (-ENOSPC, say), it is tried again with each flush. */
int pool_push_layer(struct pool *p, struct entry *en, struct err **e);
int pool_grow(struct pool *p, struct entry *en, uint64_t size, struct err **e);

/* One reference to layer i of the entry, opened if need be; with parents. */
int pool_layer_open(struct pool *p, struct entry *en, unsigned i, struct layer **ret,
                    struct err **e);
void pool_layer_close(struct pool *p, struct layer *l);
/* Empty files for a layer with that number (data and map). */
int pool_layer_files(struct pool *p, const char *id, unsigned n, struct err **e);

/* open.c: of a busy entry that nobody has open, all is on disk and the live map gone. */
int pool_settle(struct pool *p, struct entry *en, struct err **e);

/* tree.c: en is busy. */
/* With the lock: how many lie on each layer: layers, clones, and 1 for being the top; the caller
 * frees.  NULL when it cannot be told now. */
unsigned *pool_layer_users(struct pool *p, const struct entry *en);
/* Makes m the entry's metadata on disk and in memory, or leaves it as it is in both, and drops the
 * files of layers that are not in it any more.  Without the lock.  Takes what m holds on success.
 */
int pool_set_meta(struct pool *p, struct entry *en, struct meta *m, struct err **e);
/* After metadata that could not be written, which may be on disk nevertheless: the old one is
 * again. */
int pool_meta_restore(struct pool *p, const struct entry *en);
/* The same where the next start would take away what is written from here on: if even that fails
 * the volume is marked as failed. */
void pool_meta_undo(struct pool *p, const struct entry *en);
/* The second half of that, with both locks: on disk it is already. */
int pool_take_meta(struct entry *en, struct meta *m);
void pool_unlink_layer(struct pool *p, const char *id, const struct meta_layer *l);
/* m has one layer more, the new top, and is made the entry's with empty files for that.  It is not
 * open, and what is its top so far is all on disk or not needed any more. */
int pool_put_top(struct pool *p, struct entry *en, struct meta *m, const char *fault,
                 struct err **e);
/* Takes the layers that nobody needs out of m, which is to be en's. With the lock. */
bool pool_prune(struct pool *p, const struct entry *en, struct meta *m);
/* With the lock: one volume less grows from it. */
void pool_origin_put(struct pool *p, const char *origin);
int pool_revert(struct pool *p, const char *id, const char *to, struct err **e);
/* Not while it is open. */
int pool_shrink(struct pool *p, const char *id, uint64_t size, struct err **e);

/* merge.c: with p->work. */
/* Looks for a merge in the entry, not busy, and begins it.  1 begun, 0 nothing to do. */
int merge_begin(struct pool *p, const char *id);
/* A piece of the one under way, the last included. */
void merge_step(struct pool *p);
void merge_drop(struct pool *p);
/* The one under way is begun anew later. */
void merge_put_off(struct pool *p);

/* work.c */
/* With the lock: the entry may have layers to drop or merge. */
void pool_todo(struct pool *p, struct entry *en);
int pool_work(struct pool *p);
/* From the first to the second no layer is merged, so that what lies below a layer stays. */
void pool_work_suspend(struct pool *p);
void pool_work_resume(struct pool *p);
void pool_background(struct pool *p, bool on);
int pool_flatten(struct pool *p, const char *id, bool cancel, struct err **e);

/* make.c */
int pool_create(struct pool *p, const char *id, uint64_t size, struct err **e);
int pool_import(struct pool *p, const char *id, const char *path, struct err **e);
int pool_clone(struct pool *p, const char *id, const char *parent, uint64_t size, struct err **e);
int pool_snapshot(struct pool *p, const char *id, const char *of, struct err **e);

/* changes.c: see volume_changes_open() */
struct changes;
int pool_changes_open(struct pool *p, struct stack *s, const char *since, struct changes **ret,
                      struct err **e);
void pool_changes_close(struct changes *c);
int pool_changes_walk(struct changes *c, uint64_t n, uint64_t off, volume_extent_fn each,
                      void *arg);

/* remove.c */
/* With the lock; en is busy, unused and unreferenced: it goes, and with it origins that were kept
 * for it only. */
int pool_destroy(struct pool *p, struct entry *en, struct err **e);
int pool_remove(struct pool *p, const char *id, struct err **e);
/* With the lock: a volume less grows from origin, which goes if it was kept for that one only. */
void pool_unref(struct pool *p, struct entry *origin);
/* At start: files no metadata speaks of, volumes nobody needs, live maps of no top layer. */
int pool_collect(struct pool *p, struct err **e);

/* open.c */
int pool_volume_open(struct pool *p, const char *id, struct entry **ret, struct err **e);
void pool_volume_close(struct pool *p, struct entry *en);
int pool_resize(struct pool *p, const char *id, uint64_t size, struct err **e);
int pool_stat(struct pool *p, const char *id, struct volume_info *ret, struct err **e);
int pool_list(struct pool *p, const char *after, volume_info_fn each, void *arg, struct err **e);
