/* Opening: lock, check, upgrade. */
#include "backend/store/sqlite/internal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/fileio.h"
#include "common/log.h"

/* Makes the file ourselves, for its mode: SQLite would use 0644.  Only when it is missing: closing
 * any descriptor of an open database drops that process's locks on it. */
static int file_make(const char *path, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        int r;

        if (fd < 0)
                return errno == EEXIST ? 0 : err_errno(e, -errno, "create the file");
        r = fsync_parent(path);
        return r < 0 ? err_errno(e, r, "sync the folder") : 0;
}

int sqlite_log_sync(struct sqlite_store *s, struct err **e)
{
        _cleanup_free_ char *wal = path_printf("%s-wal", s->path);
        _cleanup_close_ int fd = wal ? open(wal, O_RDONLY | O_CLOEXEC) : -1;
        int r = 0;

        if (!wal)
                return err_errno(e, -ENOMEM, "sync the log");
        if (fd < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", wal);
        if (fdatasync(fd) < 0 || (r = fsync_parent(wal)) < 0)
                return err_errno(e, r < 0 ? r : -errno, "sync '%s'", wal);
        return 0;
}

static int run_text(sqlite3 *db, const char *sql, struct err **e, const char *what)
{
        int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

        if (rc == SQLITE_BUSY)
                return err_set(e, -EBUSY, "it is in use by another process");
        return rc == SQLITE_OK ? 0 : sql_error(db, rc, e, what);
}

/* A text whose only answer is one word: 0 when it is `want`, else code with what it was. */
static int expect_word(sqlite3 *db, const char *sql, const char *want, int code, struct err **e)
{
        sqlite3_stmt *st = NULL;
        const char *word = NULL;
        int rc, r = 0;

        rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
                word = (const char *)sqlite3_column_text(st, 0);
        if (rc == SQLITE_BUSY)
                r = err_set(e, -EBUSY, "it is in use by another process");
        else if (rc != SQLITE_ROW)
                r = sql_error(db, rc == SQLITE_DONE ? SQLITE_CORRUPT : rc, e, sql);
        else if (!word || !streq(word, want))
                r = err_set(e, code, "%s says: %.200s", sql, word ? word : "nothing");
        sqlite3_finalize(st);
        return r;
}

static int lock_and_tune(sqlite3 *db, struct err **e)
{
        int r = run_text(db, SQL_PRAGMA_LOCK, e, "lock");

        if (r == 0)
                r = expect_word(db, SQL_PRAGMA_WAL, "wal", -ENOTSUP, e);
        if (r == 0)
                r = run_text(db, SQL_PRAGMAS, e, "set up");
        if (r == 0)
                r = run_text(db, SQL_CLAIM, e, "lock");
        return r;
}

static int upgrade_step(sqlite3 *db, int version, struct err **e)
{
        char text[128];
        int r = run_text(db, "BEGIN IMMEDIATE", e, "begin an upgrade");

        if (r == 0)
                r = run_text(db, SQL_STEPS[version], e, "upgrade");
        snprintf(text, sizeof(text), "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 SQL_APPLICATION, version + 1);
        if (r == 0)
                r = run_text(db, text, e, "note the version");
        if (r == 0)
                r = run_text(db, "COMMIT", e, "commit an upgrade");
        if (r < 0 && !sqlite3_get_autocommit(db))
                sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        return r;
}

static int upgrade(sqlite3 *db, const char *path, struct err **e)
{
        int64_t version = 0, application = 0, tables = 0;
        int r;

        r = sql_number(db, SQL_USER_VERSION, &version, e);
        if (r == 0)
                r = sql_number(db, SQL_APPLICATION_ID, &application, e);
        if (r == 0)
                r = sql_number(db, SQL_TABLE_COUNT, &tables, e);
        if (r < 0)
                return r;
        if (application != SQL_APPLICATION && (tables > 0 || version != 0))
                return err_set(e, -EUCLEAN, "it is a SQLite database, but not a store of ours");
        if (version < 0 || (version == 0 && tables > 0))
                return err_set(e, -EUCLEAN, "its version is %lld, which cannot be",
                               (long long)version);
        if (version > SQL_SCHEMA_VERSION)
                return err_set(e, -ENOTSUP,
                               "it has version %lld, newer than version %d that this release "
                               "understands",
                               (long long)version, SQL_SCHEMA_VERSION);
        for (int v = (int)version; r == 0 && v < SQL_SCHEMA_VERSION; v++) {
                r = upgrade_step(db, v, e);
                if (r == 0 && version > 0)
                        log_info("store '%s': upgraded to version %d", path, v + 1);
        }
        return r;
}

static int ring_read(struct sqlite_store *s, enum sql_stmt which, struct ring *ret, struct err **e)
{
        sqlite3_stmt *st = s->stmts[which];
        int rc = sqlite3_step(st), r = 0;

        if (rc == SQLITE_ROW)
                *ret = (struct ring){.floor = sqlite3_column_int64(st, 0),
                                     .last = sqlite3_column_int64(st, 1)};
        else
                r = sql_error(s->db, rc, e, "read the newest change");
        sqlite3_reset(st);
        return r;
}

int sqlite_connect(struct sqlite_store *s, struct err **e)
{
        int r = file_make(s->path, e), rc;

        if (r == 0) /* a commit of a process that was killed may be there and not be durable */
                r = sqlite_log_sync(s, e);
        if (r < 0)
                return r;
        rc = sqlite3_open_v2(s->path, &s->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                             NULL);
        if (rc != SQLITE_OK)
                return sql_error(s->db, rc, e, "open");
        r = lock_and_tune(s->db, e);
        if (r == 0)
                r = expect_word(s->db, SQL_QUICK_CHECK, "ok", -EUCLEAN, e);
        if (r == 0)
                r = upgrade(s->db, s->path, e);
        if (r == 0)
                r = sql_prepare(s->db, s->stmts, e);
        if (r == 0)
                r = ring_read(s, SQL_CHANGE_RANGE, &s->changes, e);
        if (r == 0)
                r = ring_read(s, SQL_TXN_RANGE, &s->txns, e);
        if (r == -EUCLEAN)
                err_hint(e, r, "restore it from a backup; nothing in it was changed");
        return r;
}

void sqlite_disconnect(struct sqlite_store *s, bool keep)
{
        if (!s->db)
                return;
        sql_finalize(s->stmts);
        if (keep)
                sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_close(s->db);
        s->db = NULL;
}
