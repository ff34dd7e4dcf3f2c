#include "backend/store/sqlite/sql.h"

/* locking_mode comes before the journal mode: a WAL opened in exclusive mode needs no shared
 * memory file, and the lock is kept until the file is closed. */
const char SQL_PRAGMA_LOCK[] = "PRAGMA locking_mode = EXCLUSIVE";
const char SQL_PRAGMA_WAL[] = "PRAGMA journal_mode = WAL";
/* FULL in WAL mode is one fdatasync a commit.  The cache is KiB; savepoints stay in memory. */
const char SQL_PRAGMAS[] = "PRAGMA synchronous = FULL;"
                           "PRAGMA wal_autocheckpoint = 4000;"
                           "PRAGMA journal_size_limit = 33554432;"
                           "PRAGMA foreign_keys = ON;"
                           "PRAGMA cell_size_check = ON;"
                           "PRAGMA trusted_schema = OFF;"
                           "PRAGMA temp_store = MEMORY;"
                           "PRAGMA mmap_size = 0;"
                           "PRAGMA cache_size = -2048;";
const char SQL_CLAIM[] = "BEGIN EXCLUSIVE; COMMIT";
const char SQL_QUICK_CHECK[] = "PRAGMA quick_check(1)";
const char SQL_USER_VERSION[] = "PRAGMA user_version";
const char SQL_APPLICATION_ID[] = "PRAGMA application_id";
const char SQL_TABLE_COUNT[] = "SELECT count(*) FROM sqlite_schema";

/* Version 1.
 * records: what is.
 * changes: which key changed, in order; a key with no record was deleted.  The oldest are pruned.
 * txns: the transactions that committed, in order.  The oldest are pruned.
 * meta: numbers by name; "epoch" is the only one. */
static const char SQL_STEP_1[] = "CREATE TABLE records ("
                                 "  scope TEXT NOT NULL,"
                                 "  key TEXT NOT NULL,"
                                 "  version INTEGER NOT NULL,"
                                 "  value BLOB NOT NULL,"
                                 "  PRIMARY KEY (scope, key)"
                                 ") STRICT, WITHOUT ROWID;"
                                 "CREATE TABLE changes ("
                                 "  number INTEGER PRIMARY KEY,"
                                 "  scope TEXT NOT NULL,"
                                 "  key TEXT NOT NULL"
                                 ") STRICT;"
                                 "CREATE TABLE txns ("
                                 "  number INTEGER PRIMARY KEY,"
                                 "  id TEXT NOT NULL"
                                 ") STRICT;"
                                 "CREATE TABLE meta ("
                                 "  name TEXT PRIMARY KEY,"
                                 "  value INTEGER NOT NULL"
                                 ") STRICT, WITHOUT ROWID;";

const char *const SQL_STEPS[SQL_SCHEMA_VERSION] = {SQL_STEP_1};

static const char *const SQL_TEXTS[SQL_STMTS] = {
        [SQL_BEGIN] = "BEGIN IMMEDIATE",
        [SQL_COMMIT] = "COMMIT",
        [SQL_ROLLBACK] = "ROLLBACK",
        [SQL_SAVE] = "SAVEPOINT txn",
        [SQL_SAVE_ROLLBACK] = "ROLLBACK TO txn",
        [SQL_SAVE_RELEASE] = "RELEASE txn",
        [SQL_VERSION] = "SELECT version FROM records WHERE scope = ?1 AND key = ?2",
        [SQL_INSERT] = "INSERT INTO records (scope, key, version, value) VALUES (?1, ?2, ?3, ?4)"
                       " ON CONFLICT DO NOTHING",
        [SQL_UPDATE] = "UPDATE records SET version = ?3, value = ?4"
                       " WHERE scope = ?1 AND key = ?2 AND version = ?5",
        [SQL_DELETE] = "DELETE FROM records WHERE scope = ?1 AND key = ?2 AND version = ?5",
        [SQL_CHANGE] = "INSERT INTO changes (number, scope, key) VALUES (?1, ?2, ?3)",
        [SQL_TXN] = "INSERT INTO txns (number, id) VALUES (?1, ?2)",
        [SQL_PRUNE_CHANGES] = "DELETE FROM changes WHERE number <= ?1",
        [SQL_PRUNE_TXNS] = "DELETE FROM txns WHERE number <= ?1",
        [SQL_CHANGE_RANGE] = "SELECT coalesce((SELECT min(number) FROM changes), 1) - 1,"
                             " coalesce((SELECT max(number) FROM changes), 0)",
        [SQL_TXN_RANGE] = "SELECT coalesce((SELECT min(number) FROM txns), 1) - 1,"
                          " coalesce((SELECT max(number) FROM txns), 0)",
        [SQL_COMMITTED] = "SELECT 1 FROM txns WHERE id = ?1",
        [SQL_LOAD] = "SELECT scope, key, version, value FROM records",
        [SQL_LOAD_SCOPE] = "SELECT scope, key, version, value FROM records WHERE scope = ?1",
        [SQL_CHANGES] = "SELECT c.scope, c.key, r.version, r.value"
                        " FROM (SELECT scope, key, max(number) AS last FROM changes"
                        "       WHERE number > ?2 AND scope = ?1 GROUP BY scope, key) AS c"
                        " LEFT JOIN records AS r ON r.scope = c.scope AND r.key = c.key"
                        " ORDER BY c.last",
        [SQL_EPOCH] = "INSERT INTO meta (name, value) VALUES ('epoch', 1)"
                      " ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
};

int sql_errno(sqlite3 *db, int rc)
{
        int sys = db ? sqlite3_system_errno(db) : 0;

        switch (rc & 0xff) {
        case SQLITE_OK:
        case SQLITE_ROW:
        case SQLITE_DONE:
                return 0;
        case SQLITE_FULL:
                return -ENOSPC;
        case SQLITE_IOERR:
                return sys == ENOSPC || sys == EDQUOT ? -ENOSPC : -EIO;
        case SQLITE_CANTOPEN:
                return sys > 0 ? -sys : -ENOENT;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return -EBUSY;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return -EUCLEAN;
        case SQLITE_NOMEM:
                return -ENOMEM;
        case SQLITE_READONLY:
                return -EROFS;
        case SQLITE_PERM:
        case SQLITE_AUTH:
                return -EACCES;
        case SQLITE_TOOBIG:
                return -EFBIG;
        default:
                return -EIO;
        }
}

int sql_error(sqlite3 *db, int rc, struct err **e, const char *what)
{
        return err_set(e, sql_errno(db, rc), "%s: %s", what,
                       db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
}

int sql_prepare(sqlite3 *db, sqlite3_stmt *stmts[SQL_STMTS], struct err **e)
{
        for (int i = 0; i < SQL_STMTS; i++) {
                int rc = sqlite3_prepare_v3(db, SQL_TEXTS[i], -1, SQLITE_PREPARE_PERSISTENT,
                                            &stmts[i], NULL);

                if (rc != SQLITE_OK)
                        return sql_error(db, rc, e, "prepare the store's statements");
        }
        return 0;
}

void sql_finalize(sqlite3_stmt *stmts[SQL_STMTS])
{
        for (int i = 0; i < SQL_STMTS; i++) {
                sqlite3_finalize(stmts[i]);
                stmts[i] = NULL;
        }
}

int sql_run(sqlite3 *db, sqlite3_stmt *st, struct err **e, const char *what)
{
        int rc, r = 0;

        do
                rc = sqlite3_step(st);
        while (rc == SQLITE_ROW);
        if (rc != SQLITE_DONE)
                r = sql_error(db, rc, e, what);
        sqlite3_reset(st);
        return r;
}

int sql_number(sqlite3 *db, const char *sql, int64_t *ret, struct err **e)
{
        sqlite3_stmt *st = NULL;
        int rc, r = 0;

        rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
                *ret = sqlite3_column_int64(st, 0);
        else
                r = sql_error(db, rc == SQLITE_DONE ? SQLITE_CORRUPT : rc, e, sql);
        sqlite3_finalize(st);
        return r;
}
