/* Group commit: many transactions, one fdatasync.
 *
 * Each transaction is a savepoint of its own, so that one whose expected version is not there is
 * undone alone.  Any other failure is one of the disk or the file, and ends the whole batch. */
#include "backend/store/sqlite/internal.h"

#include "common/fault.h"

/* Binds parameters 1 to 5 of a statement on records; those it lacks are out of range and ignored.
 * The text is borrowed: the transaction outlives the step. */
static void put_bind(sqlite3_stmt *st, const char *scope, const struct store_put *p)
{
        int n = sqlite3_bind_parameter_count(st);

        sqlite3_bind_text(st, 1, scope, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, p->key, -1, SQLITE_STATIC);
        if (n >= 4) {
                sqlite3_bind_int64(st, 3, (int64_t)p->version);
                sqlite3_bind_blob64(st, 4, p->value ? p->value : "", p->len, SQLITE_STATIC);
        }
        if (n >= 5)
                sqlite3_bind_int64(st, 5, (int64_t)p->expect);
}

/* A delete of what must be absent: nothing to do, or a conflict. */
static int put_absent(struct sqlite_store *s, const char *scope, const struct store_put *p,
                      struct err **e)
{
        sqlite3_stmt *st = s->stmts[SQL_VERSION];
        int rc;

        put_bind(st, scope, p);
        rc = sqlite3_step(st);
        sqlite3_reset(st);
        if (rc == SQLITE_ROW)
                return 1;
        return rc == SQLITE_DONE ? 0 : sql_error(s->db, rc, e, "read a record");
}

/* 0, 1 when the expected version is not there, -errno. */
static int put_apply(struct sqlite_store *s, const char *scope, const struct store_put *p,
                     struct err **e)
{
        enum sql_stmt which = p->version == 0 ? SQL_DELETE : p->expect ? SQL_UPDATE : SQL_INSERT;
        sqlite3_stmt *st = s->stmts[which];
        int r;

        if (p->version == 0 && p->expect == 0)
                return put_absent(s, scope, p, e);
        put_bind(st, scope, p);
        r = sql_run(s->db, st, e, "write a record");
        if (r < 0)
                return r;
        if (sqlite3_changes(s->db) != 1)
                return 1;
        st = s->stmts[SQL_CHANGE];
        sqlite3_bind_int64(st, 1, ++s->changes.last);
        sqlite3_bind_text(st, 2, scope, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 3, p->key, -1, SQLITE_STATIC);
        return sql_run(s->db, st, e, "record a change");
}

static int txn_record(struct sqlite_store *s, const struct store_txn *t, struct err **e)
{
        sqlite3_stmt *st = s->stmts[SQL_TXN];

        sqlite3_bind_int64(st, 1, ++s->txns.last);
        sqlite3_bind_text(st, 2, t->id, -1, SQLITE_STATIC);
        return sql_run(s->db, st, e, "record a transaction");
}

/* One transaction in its savepoint.  0 with its outcome, or -errno when the batch is lost. */
static int txn_apply(struct sqlite_store *s, const struct store_txn *t, struct outcome *o,
                     struct err **e)
{
        struct ring changes = s->changes;
        int r;

        r = store_txn_check(t, &o->err);
        if (r < 0) {
                o->result = STORE_FAILED;
                return 0;
        }
        r = sql_run(s->db, s->stmts[SQL_SAVE], e, "begin a savepoint");
        for (size_t i = 0; r == 0 && i < t->n; i++)
                r = put_apply(s, t->scope, &t->puts[i], e);
        if (r == 0 && t->id[0])
                r = txn_record(s, t, e);
        if (r < 0)
                return r;
        o->result = r ? STORE_CONFLICT : STORE_COMMITTED;
        if (r) {
                s->changes = changes;
                r = sql_run(s->db, s->stmts[SQL_SAVE_ROLLBACK], e, "undo a savepoint");
                if (r < 0)
                        return r;
        }
        return sql_run(s->db, s->stmts[SQL_SAVE_RELEASE], e, "end a savepoint");
}

static int ring_prune(struct sqlite_store *s, struct ring *ring, enum sql_stmt which,
                      struct err **e)
{
        sqlite3_stmt *st = s->stmts[which];
        int r;

        if (ring->last - ring->floor <= KEEP + KEEP_SLACK)
                return 0;
        sqlite3_bind_int64(st, 1, ring->last - KEEP);
        r = sql_run(s->db, st, e, "forget old changes");
        if (r == 0)
                ring->floor = ring->last - KEEP;
        return r;
}

int sqlite_settle(struct sqlite_store *s, struct err **e)
{
        int rc;

        if (!s->doubtful)
                return 0;
        rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        if (rc != SQLITE_OK)
                return sql_error(s->db, rc, e, "settle a commit that the disk refused");
        /* SQLite would have the disk bring the log back. */
        rc = sqlite_log_sync(s, e);
        if (rc < 0)
                return rc;
        s->doubtful = false;
        return 0;
}

/* COMMIT.  When the sync in it fails, SQLite takes the transaction back, but its frames stay in
 * the WAL file, where a restart would find them; so the WAL is emptied before we say "failed". */
static int batch_commit(struct sqlite_store *s, struct err **e)
{
        int r = FAULT("store.commit"), rc;

        if (r < 0)
                return err_errno(e, r, "commit (injected)");
        rc = sqlite3_step(s->stmts[SQL_COMMIT]);
        r = rc == SQLITE_DONE ? 0 : sql_error(s->db, rc, e, "commit");
        s->doubtful = r < 0 && (rc & 0xff) == SQLITE_IOERR;
        sqlite3_reset(s->stmts[SQL_COMMIT]);
        if (r == 0)
                (void)FAULT("store.committed");
        return r;
}

static int batch_apply(struct sqlite_store *s, const struct store_txn *list, struct outcome *out,
                       struct err **e)
{
        int r = FAULT("store.begin");

        if (r < 0)
                return err_errno(e, r, "begin (injected)");
        r = sql_run(s->db, s->stmts[SQL_BEGIN], e, "begin");
        for (; r == 0 && list; list = list->next)
                r = txn_apply(s, list, out++, e);
        if (r == 0)
                r = ring_prune(s, &s->changes, SQL_PRUNE_CHANGES, e);
        if (r == 0)
                r = ring_prune(s, &s->txns, SQL_PRUNE_TXNS, e);
        if (r == 0)
                r = batch_commit(s, e);
        return r;
}

void sqlite_batch(struct sqlite_store *s, struct store_txn *list, struct outcome *out)
{
        _cleanup_err_ struct err *e = NULL;
        struct ring changes, txns;
        enum store_result lost;
        int r;
        WITH_LOCK(&s->db_lock);

        changes = s->changes;
        txns = s->txns;
        r = batch_apply(s, list, out, &e);
        if (r == 0)
                return;
        /* Some errors have made SQLite roll back by itself. */
        if (!sqlite3_get_autocommit(s->db))
                sql_run(s->db, s->stmts[SQL_ROLLBACK], NULL, "roll back");
        s->changes = changes;
        s->txns = txns;
        lost = sqlite_settle(s, NULL) < 0 ? STORE_UNKNOWN : STORE_FAILED;
        for (; list; list = list->next, out++) {
                if (out->err) /* refused for itself, before */
                        continue;
                out->result = lost;
                if (lost == STORE_FAILED)
                        err_set(&out->err, r, "store '%s': %s", s->path, err_msg(e));
        }
}
