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
        bool busy;
        unsigned users;        /* open handles */
        unsigned refs;         /* volumes whose origin is this one */
        struct stack *stack;   /* while users > 0 */
        struct layer **loaded; /* by index in meta.layers, NULL where not open; under layers_lock */
};

struct pool {
        char *dir; /* <state>/pool */
        char *run;
        bool direct;           /* past the page cache */
        atomic_bool abandoned; /* see volume_pool_abandon() */
        pthread_mutex_t lock;  /* the table and the entries */
        pthread_cond_t idle;   /* an entry stopped being busy */
        struct entry *entries;
        pthread_mutex_t layers_lock;
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
/* Freezes the top layer and puts an empty one on it; durable on return. */
int pool_push_layer(struct pool *p, struct entry *en, struct err **e);
int pool_grow(struct pool *p, struct entry *en, uint64_t size, struct err **e);

/* Gives back a reference to a layer, and to those below when it was the last. */
void pool_layer_unref(struct pool *p, struct layer *l);

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
int pool_remove(struct pool *p, const char *id, struct err **e);
/* At start: files no metadata speaks of, volumes nobody needs, live maps of no top layer. */
int pool_collect(struct pool *p, struct err **e);

/* open.c */
int pool_volume_open(struct pool *p, const char *id, struct entry **ret, struct err **e);
void pool_volume_close(struct pool *p, struct entry *en);
int pool_resize(struct pool *p, const char *id, uint64_t size, struct err **e);
int pool_stat(struct pool *p, const char *id, struct volume_info *ret, struct err **e);
int pool_list(struct pool *p, const char *after, volume_info_fn each, void *arg, struct err **e);
