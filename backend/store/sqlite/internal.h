/* What the files of this driver share. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include "backend/store/sqlite/sql.h"
#include "backend/store/sqlite/sqlite.h"

enum {
        BATCH_MAX = 512,      /* transactions in one commit of SQLite */
        KEEP = 10000,         /* changes and transaction ids remembered */
        KEEP_SLACK = 1000,    /* pruned only when that many are over: pruning dirties pages */
};

/* A counted table that only grows at its end and is pruned at its beginning. */
struct ring {
        int64_t floor; /* everything up to here is pruned */
        int64_t last;  /* the newest number, 0 before the first */
};

struct outcome {
        enum store_result result;
        struct err *err;
};

/* db_lock, then queue_lock; done() is called with neither. */
struct sqlite_store {
        struct store store;
        char *path;

        pthread_mutex_t db_lock; /* the connection and all down to doubtful; held for I/O */
        sqlite3 *db;             /* opened NOMUTEX: db_lock is its mutex */
        sqlite3_stmt *stmts[SQL_STMTS];
        struct ring changes;
        struct ring txns;
        /* A sync failed: frames of a transaction called failed may be in the WAL file, and a crash
         * now would bring them back.  Ends with the next commit or a truncated WAL. */
        bool doubtful;

        pthread_mutex_t queue_lock; /* the rest; never held for I/O */
        pthread_cond_t wake;        /* the writer: something is queued, or stop */
        pthread_cond_t settled;     /* who waits for nsettled */
        struct store_txn *head, **tail;
        uint64_t nqueued;  /* transactions ever queued */
        uint64_t nsettled; /* transactions whose outcome is on disk */
        bool stop;
        pthread_t writer;
        struct outcome outcomes[BATCH_MAX]; /* the writer alone: of the batch in hand */
};

/* batch.c: applies the n transactions of the list in one SQLite transaction and fills out[0..n-1].
 * Takes db_lock. */
void sqlite_batch(struct sqlite_store *s, struct store_txn *list, struct outcome *out);
/* Ends a doubt (see doubtful) or returns -errno.  The caller holds db_lock. */
int sqlite_settle(struct sqlite_store *s, struct err **e);

/* store.c: waits until what is queued now has its outcome on disk. */
void sqlite_barrier(struct sqlite_store *s);

/* query.c */
int sqlite_load(struct store *store, int (*each)(void *arg, const struct store_record *r),
                void *arg, struct err **e);
int sqlite_committed(struct store *store, const char *txn_id, struct err **e);
int sqlite_changes(struct store *store, const char *scope, uint64_t since,
                   int (*each)(void *arg, const struct store_record *r), void *arg,
                   uint64_t *ret_now, struct err **e);

/* moved.c: a database that was moved; sqlite_moved() gives -EREMOTE with where. */
int sqlite_retire(struct store *store, const char *to, struct err **e);
int sqlite_moved(const char *path, struct err **e);

/* open.c: what is in the log file now, or no longer, stays so. */
int sqlite_log_sync(struct sqlite_store *s, struct err **e);
/* The connection of a store that has path and nothing else; sqlite_disconnect() copes with what is
 * half there.  keep leaves the files as they are. */
int sqlite_connect(struct sqlite_store *s, struct err **e);
void sqlite_disconnect(struct sqlite_store *s, bool keep);
