/* What asks the database on the caller's thread. */
#include "backend/store/sqlite/internal.h"

#include "common/fault.h"

/* Calls each for every row of (scope, key, version, value). */
static int rows_each(struct sqlite_store *s, sqlite3_stmt *st,
                     int (*each)(void *arg, const struct store_record *r), void *arg,
                     struct err **e)
{
        int rc, r = 0;

        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                struct store_record rec = {
                        .scope = (const char *)sqlite3_column_text(st, 0),
                        .key = (const char *)sqlite3_column_text(st, 1),
                        .version = (uint64_t)sqlite3_column_int64(st, 2),
                };

                if (sqlite3_column_type(st, 3) != SQLITE_NULL) {
                        rec.value = sqlite3_column_blob(st, 3);
                        rec.len = sqlite3_column_bytes(st, 3);
                        if (!rec.value) /* SQLite's way to say "no bytes" */
                                rec.value = "";
                }
                r = each(arg, &rec);
        }
        if (r >= 0)
                r = rc == SQLITE_DONE ? 0 : sql_error(s->db, rc, e, "read the records");
        sqlite3_reset(st);
        return r;
}

int sqlite_load(struct store *store, int (*each)(void *arg, const struct store_record *r),
                void *arg, struct err **e)
{
        struct sqlite_store *s = (struct sqlite_store *)store;
        WITH_LOCK(&s->db_lock);

        return rows_each(s, s->stmts[SQL_LOAD], each, arg, e);
}

int sqlite_committed(struct store *store, const char *txn_id, struct err **e)
{
        struct sqlite_store *s = (struct sqlite_store *)store;
        sqlite3_stmt *st = s->stmts[SQL_COMMITTED];
        int r, rc;

        sqlite_barrier(s);
        WITH_LOCK(&s->db_lock);
        r = sqlite_settle(s, e);
        if (r < 0)
                return r;
        sqlite3_bind_text(st, 1, txn_id, -1, SQLITE_STATIC);
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
                r = 1;
        else if (rc != SQLITE_DONE)
                r = sql_error(s->db, rc, e, "look up a transaction");
        sqlite3_reset(st);
        return r;
}

int sqlite_changes(struct store *store, const char *scope, uint64_t since,
                   int (*each)(void *arg, const struct store_record *r), void *arg,
                   uint64_t *ret_now, struct err **e)
{
        struct sqlite_store *s = (struct sqlite_store *)store;
        sqlite3_stmt *st = s->stmts[since ? SQL_CHANGES : SQL_LOAD_SCOPE];
        int r;

        sqlite_barrier(s);
        WITH_LOCK(&s->db_lock);
        if (since && since < (uint64_t)s->changes.floor)
                return err_set(e, -ESTALE,
                               "changes since %llu are asked for, but those up to %lld are "
                               "forgotten",
                               (unsigned long long)since, (long long)s->changes.floor);
        sqlite3_bind_text(st, 1, scope, -1, SQLITE_STATIC);
        if (since)
                sqlite3_bind_int64(st, 2, (int64_t)since);
        r = rows_each(s, st, each, arg, e);
        if (r == 0)
                *ret_now = (uint64_t)s->changes.last;
        return r;
}

int store_sqlite_epoch(struct store *store, uint64_t *ret, struct err **e)
{
        struct sqlite_store *s = (struct sqlite_store *)store;
        sqlite3_stmt *st = s->stmts[SQL_EPOCH];
        int r = FAULT("store.epoch"), rc;
        uint64_t epoch = 0;
        WITH_LOCK(&s->db_lock);

        if (r < 0)
                return err_errno(e, r, "take an epoch (injected)");
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW) {
                epoch = (uint64_t)sqlite3_column_int64(st, 0);
                rc = sqlite3_step(st); /* commits; the row comes before that */
        }
        if (rc != SQLITE_DONE)
                r = sql_error(s->db, rc, e, "take an epoch");
        sqlite3_reset(st);
        if (r < 0) {
                /* A number that came back after a crash would only be skipped: no harm. */
                return r;
        }
        *ret = epoch;
        return 0;
}
