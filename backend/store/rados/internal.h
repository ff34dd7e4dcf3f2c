/* What the files of this driver share.  doc/rados-store.md says what is in the pool. */
#pragma once

#include <pthread.h>
#include <rados/librados.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uthash.h>

#include "backend/store/rados/rados.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"

enum {
        FORMAT = 1,       /* of what is in the pool */
        WRITERS = 4,      /* threads; a scope is one's at a time */
        BATCH_TXNS = 512, /* transactions in one write operation */
        BATCH_BYTES = 8 << 20,
        KEEP = 10000,         /* changes and transaction ids remembered, a scope */
        KEEP_SLACK = 1000,    /* pruned only when that many are over */
        PAGE = 1000,          /* entries asked for at once; the OSD gives 1024 at most */
        GET = 256,            /* keys asked for at once */
        NUMBER_SIZE = 17,     /* 16 hexadecimal digits: order of text is order of numbers */
};

/* The object beside the scopes': format, counters, list of scopes; watched for changes. */
#define STORE_OID "store"

struct outcome {
        enum store_result result;
        struct err *err;
};

struct scope {
        char name[40], oid[48];
        UT_hash_handle hh;

        /* Guarded by the store's lock. */
        struct store_txn *head, **tail;
        uint64_t nqueued, nsettled; /* transactions ever */
        bool busy;                  /* a thread writes to it: the fields at the end are its own */
        bool dirty;                 /* somebody may have changed it */
        bool unsaid;                /* changed here, and the others are not told yet */
        int64_t yield;              /* monotonic usec: another host goes first; 0: none asked */
        int64_t asked;              /* when we asked for the same */
        uint64_t cursor;            /* changes up to here were given to whoever watches */
        uint64_t given;             /* the number that he was last told */
        uint64_t applied;           /* and up to here he goes by them */

        /* Of the thread that set busy. */

        bool known;      /* seq is what was there when last heard of */
        uint64_t seq;    /* its newest change number */
        uint64_t floor;  /* changes up to here are forgotten, or more */
        uint64_t other;  /* the newest change that is not ours, or more */
        unsigned losses; /* commits that others were quicker than, since the last that was not */
};

typedef void store_changed_fn(void *arg, const char *scope, const struct store_record *v, size_t n,
                              bool whole, uint64_t now);

/* lock is held for no I/O. */
struct rados_store {
        struct store store;
        struct store_rados_config cfg; /* its strings are ours */
        char *where;                   /* "rados:pool/namespace", for words */
        rados_t cluster;
        rados_ioctx_t io;
        char fence[32]; /* the key that would forbid our writes; "": no epoch was taken */

        pthread_mutex_t lock;
        pthread_cond_t wake;    /* writers: something is queued, or stop */
        pthread_cond_t settled; /* who waits for a scope */
        pthread_cond_t heard;   /* the feed: something is dirty or unsaid, or stop */
        struct scope *scopes;
        bool stop;
        pthread_t writers[WRITERS];
        unsigned nwriters;

        bool first; /* we hold the lock of who fills an empty store */

        /* The feed. */
        store_changed_fn *changed;
        void *arg;
        bool watching, lost, dirty, unsaid, feeding;
        bool calling;        /* changed is being called */
        atomic_bool watched; /* somebody decides by what he is told of changes */
        uint64_t watch;
        int64_t told;      /* monotonic usec of the last notify */
        unsigned ntelling; /* notifies under way */
        pthread_t feed;
};

/* --- omap.c: librados in the shape that is used here ------------------------------------------ */

struct kv_list {
        char **keys, **values;
        size_t *key_lens, *lens;
        size_t n, size;
};

/* A guarded write being built. */
struct wop {
        rados_write_op_t op;
        struct kv_list sets, rms; /* removed first */
        int fenced;               /* what the guard against our fence said */
        bool failed;              /* no memory */
};
void wop_init(struct wop *w);
void wop_done(struct wop *w);
/* The key must have that value ("": must be absent, as no value is empty).  *ret (or NULL) is
 * written by wop_run(). */
void wop_guard(struct wop *w, const char *key, const char *value, int *ret);
/* The value must begin with that number, 16 digits and ':'. */
void wop_guard_number(struct wop *w, const char *key, uint64_t n);
/* This process must not be fenced. */
void wop_guard_fence(struct rados_store *s, struct wop *w);
/* These take the key over (malloc'd; NULL fails the whole) and copy the value. */
void wop_set(struct wop *w, char *key, const void *value, size_t len);
void wop_set_number(struct wop *w, char *key, uint64_t n, const void *value, size_t len);
void wop_rm(struct wop *w, char *key);
/* -ECANCELED: a guard failed, nothing was written.  -ENOENT: a guard on an object that is not
 * there. -ETIMEDOUT: it may still land. */
int wop_run(struct rados_store *s, struct wop *w, const char *oid);

typedef int omap_fn(void *arg, const char *key, const char *value, size_t len);
/* Each entry whose key begins with prefix and stands behind `after` ("": all), in order.  A
 * negative answer of each stops and is returned.  No object: no entries. */
int omap_each(struct rados_store *s, const char *oid, const char *prefix, const char *after,
              omap_fn *each, void *arg);
/* Those of the n keys that are there. */
int omap_get(struct rados_store *s, const char *oid, const char *const *keys, size_t n,
             omap_fn *each, void *arg);

char *number_text(char out[NUMBER_SIZE], uint64_t n);
/* The number that a value begins with, 0 if it does not. */
uint64_t number_parse(const char *value, size_t len);
/* "store 'rados:pool': words: ..." */
int store_err(struct rados_store *s, struct err **e, int r, const char *fmt, ...) _printf_(4, 5);

/* --- scope.c ---------------------------------------------------------------------------------- */

/* The scope of that name; made in memory when it is new.  Takes the lock.  NULL: no memory. */
struct scope *scope_get(struct rados_store *s, const char *name);
/* Waits until what is queued for the scope now has its outcome. */
void scope_barrier(struct rados_store *s, struct scope *sc);
/* Makes the scope the caller's to write, and gives it back. */
void scope_take(struct rados_store *s, struct scope *sc);
void scope_give(struct rados_store *s, struct scope *sc);
/* Reads the list of scopes. */
int scopes_read(struct rados_store *s, struct err **e);
/* The scopes known now; the caller frees the array.  The cloud's own comes last. */
struct scope **scopes_list(struct rados_store *s, size_t *ret_n);
/* Its newest change number and how far changes are forgotten. */
int scope_numbers(struct rados_store *s, struct scope *sc, uint64_t *ret_seq, uint64_t *ret_floor);

/* --- batch.c ---------------------------------------------------------------------------------- */

/* Applies the n transactions in one write operation and fills out[0..n-1].  The scope is the
 * caller's.  n 0: only moves the scope's number on, so that nothing under way can still land; its
 * result is that of out[0]. */
void batch_run(struct rados_store *s, struct scope *sc, struct store_txn *list, size_t n,
               struct outcome *out);

/* --- queue.c ---------------------------------------------------------------------------------- */

void queue_commit(struct store *store, struct store_txn *t);
int queue_start(struct rados_store *s, struct err **e);
void queue_stop(struct rados_store *s);

/* --- read.c ----------------------------------------------------------------------------------- */

int read_load(struct store *store, int (*each)(void *arg, const struct store_record *r), void *arg,
              struct err **e);
int read_committed(struct store *store, const char *txn_id, struct err **e);
int read_changes(struct store *store, const char *scope, uint64_t since,
                 int (*each)(void *arg, const struct store_record *r), void *arg, uint64_t *ret_now,
                 struct err **e);
/* Changes of the scope behind `since`; *ret_whole: it is all records, as what was deleted since is
 * forgotten.  *ret_now covers them.  Give the records back with records_free(). */
struct records {
        struct store_record *v;
        size_t n, size;
};
int scope_changes(struct rados_store *s, struct scope *sc, uint64_t since, struct records *ret,
                  bool *ret_whole, uint64_t *ret_now);
void records_free(struct records *r);

/* --- count.c: counters and fences of the store object ------------------------------------------
 */

int count_epoch(struct store *store, uint64_t *ret, struct err **e);
int count_numbers(struct store *store, uint64_t at_least, uint64_t n, uint64_t *ret,
                  struct err **e);
int count_fence(struct store *store, uint64_t epoch, struct err **e);
int count_retire(struct store *store, const char *to, struct err **e);
/* 0; -EREMOTE: the store is elsewhere now; -errno. */
int count_moved(struct rados_store *s, struct err **e);

/* --- feed.c ----------------------------------------------------------------------------------- */

int feed_watch(struct store *store, store_changed_fn *changed, void *arg, struct err **e);
void feed_applied(struct store *store, const char *scope, uint64_t now);
/* Somebody else was quicker: what he did is wanted now.  Lock held. */
void feed_hurry(struct rados_store *s, struct scope *sc);
/* Asks the others to leave the scope alone for a moment.  Lock held. */
void feed_ask(struct rados_store *s, struct scope *sc);
/* The scope was changed here: tells the others, without waiting.  Lock held. */
void feed_tell(struct rados_store *s, struct scope *sc);
void feed_stop(struct rados_store *s);
