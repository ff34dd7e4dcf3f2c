/* The store: where objects survive.  Drivers: backend/store/sqlite (one machine), rados (many).
 *
 * The store holds records: scope (a tenant's id, or "cloud"), key (the object's id), version and
 * a value of bytes.  A transaction touches one scope, is atomic, and is durable when its callback
 * says committed.  Transactions of one scope become visible and durable in the order of their
 * store_commit() calls. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

/* How a commit ended.  UNKNOWN: it may still land; re-read the txn id to settle it. */
enum store_result { STORE_COMMITTED, STORE_CONFLICT, STORE_UNKNOWN, STORE_FAILED };

/* Bytes of one record: SQLite itself stops at 1 GB, an OSD takes operations of up to 90 MB. */
enum { STORE_VALUE_MAX = 64 << 20 };

struct store_record {
        const char *scope;
        const char *key;
        uint64_t version;
        const void *value;
        size_t len;
};

struct store_put {
        char *key;
        uint64_t expect;  /* version that must be there now; 0: the key must be absent */
        uint64_t version; /* the new version, > expect; 0: delete the key */
        char *value;      /* text; NULL for a delete */
        size_t len;
};

/* Built by the caller, owned by the store from store_commit() until the callback has returned;
 * the store frees it (store_txn_free). */
struct store_txn {
        char id[37]; /* transaction id: a UUID, recorded with the commit */
        char scope[40];
        struct store_put *puts;
        size_t n;
        /* Called exactly once, on the store's thread; must not block and must not call back into
         * the store except store_commit().  err is borrowed and NULL unless FAILED. */
        void (*done)(void *arg, enum store_result result, const struct err *err);
        void *arg;
        struct store_txn *next; /* the driver's, while it owns the transaction */
        uint64_t seen;          /* the driver's, too */
};

struct store;
struct store_ops {
        const char *name;
        /* Calls each for every record, any order, on the caller's thread, before the first commit.
         * A negative return stops and is returned. */
        int (*load)(struct store *s, int (*each)(void *arg, const struct store_record *r),
                    void *arg, struct err **e);
        /* Queues; never blocks on I/O.  Any thread. */
        void (*commit)(struct store *s, struct store_txn *t);
        /* 1 when the transaction id is committed, 0 when it is not, -errno when that cannot be
         * known now.  Waits for what was queued before the call.  Ids are remembered for at least
         * 10,000 changes of their scope.  Blocks; any thread but the store's. */
        int (*committed)(struct store *s, const char *txn_id, struct err **e);
        /* Records of the scope whose change number is above `since`, in the order of their last
         * change, with the newest number in *ret_now.  A deleted key comes with value NULL.
         * since 0 gives every record there is, and no deleted keys.  -ESTALE when deletions after
         * `since` are forgotten (10,000 changes of a scope are remembered): start again at 0.  each
         * must not call the store.  Blocks; any thread but the store's. */
        int (*changes)(struct store *s, const char *scope, uint64_t since,
                       int (*each)(void *arg, const struct store_record *r), void *arg,
                       uint64_t *ret_now, struct err **e);
        /* Waits for what is queued, then closes. */
        void (*close)(struct store *s);
        /* A number that survives: +1 at each call, durable on return, 1 at the first.  Who starts
         * takes one, so that what an earlier life owned can be told from its own.  Blocks; any
         * thread but the store's. */
        int (*epoch)(struct store *s, uint64_t *ret, struct err **e);

        /* Marks the store as moved to `to`: nothing is changed or removed, and whoever opens it
         * hears -EREMOTE and where it went.  to NULL: only looks whether that may be done.
         * -EBUSY: another host has it open.  NULL: cannot be moved.  Blocks. */
        int (*retire)(struct store *s, const char *to, struct err **e);

        /* --- of stores that several hosts have open at once; NULL where only one can ------------
         */

        /* From load() on, calls changed for what other hosts committed, on a thread of the store's;
         * changed must not call the store except commit(), changes() and applied().  The n records
         * are of one scope, in the order of their last change; value NULL: deleted.  whole: they
         * are all that the scope has, what else was there is gone.  One's own commits may be among
         * them, and one record may come more than once: versions tell.  They come soon, not with
         * the commit; at the latest when the store next looks by itself.  They bring one to the
         * scope's change number `now`; until applied() says that one is there, each look calls
         * again, with n 0 if nothing is new.
         *
         * Who watches decides by what he was told: a commit to a scope that others have changed
         * since the number last given to applied() (or since load()) is a conflict, whatever it
         * touches.
         *
         * changed NULL: no more; no call is under way after the return.  Blocks. */
        int (*watch)(struct store *s,
                     void (*changed)(void *arg, const char *scope, const struct store_record *v,
                                     size_t n, bool whole, uint64_t now),
                     void *arg, struct err **e);
        /* What commit() is called with from now on was decided with the scope as of that number.
         * Takes no time. */
        void (*applied)(struct store *s, const char *scope, uint64_t now);
        /* Takes n numbers from *ret on that nobody else gets, none below at_least.  Blocks. */
        int (*numbers)(struct store *s, uint64_t at_least, uint64_t n, uint64_t *ret,
                       struct err **e);
        /* From the return on, no commit of whoever took that epoch succeeds (it fails with
         * -ESHUTDOWN), also if it is on its way.  Blocks. */
        int (*fence)(struct store *s, uint64_t epoch, struct err **e);
};
struct store {
        const struct store_ops *ops;
};

/* An empty transaction; NULL only without memory. */
struct store_txn *store_txn_new(const char *scope);
/* value may be NULL (delete); both are copied.  0 or -ENOMEM. */
int store_txn_add(struct store_txn *t, const char *key, uint64_t expect, uint64_t version,
                  const char *value);
/* Whether it could be applied to anything: -EFBIG a record above STORE_VALUE_MAX, -EINVAL a version
 * that cannot follow the expected one.  Drivers ask before they begin. */
int store_txn_check(const struct store_txn *t, struct err **e);
void store_txn_free(struct store_txn *t);
