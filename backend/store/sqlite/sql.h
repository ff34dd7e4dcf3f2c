/* Every SQL text of this driver, and the one way to run it. */
#pragma once

#include <sqlite3.h>
#include <stdint.h>
#include "common/err.h"

enum {
        SQL_SCHEMA_VERSION = 1,       /* what this release writes */
        SQL_APPLICATION = 0x53747261, /* "Stra", in the header of our files */
};

/* Statements prepared once.  The numbers of their parameters are those in the text. */
enum sql_stmt {
        SQL_BEGIN,
        SQL_COMMIT,
        SQL_ROLLBACK,
        SQL_SAVE,
        SQL_SAVE_ROLLBACK,
        SQL_SAVE_RELEASE,
        SQL_VERSION,
        SQL_INSERT,
        SQL_UPDATE,
        SQL_DELETE,
        SQL_CHANGE,
        SQL_TXN,
        SQL_PRUNE_CHANGES,
        SQL_PRUNE_TXNS,
        SQL_CHANGE_RANGE,
        SQL_TXN_RANGE,
        SQL_COMMITTED,
        SQL_LOAD,
        SQL_LOAD_SCOPE,
        SQL_CHANGES,
        SQL_EPOCH,
        SQL_STMTS
};

extern const char SQL_PRAGMA_LOCK[]; /* to be run first: it makes the second opener fail */
extern const char SQL_PRAGMA_WAL[];  /* one row: the journal mode that came of it */
extern const char SQL_PRAGMAS[];
extern const char SQL_CLAIM[]; /* takes the file's lock, for as long as it is open */
extern const char SQL_QUICK_CHECK[];
extern const char SQL_USER_VERSION[];
extern const char SQL_APPLICATION_ID[];
extern const char SQL_TABLE_COUNT[];
/* Step i takes a file of version i to version i + 1, within one transaction. */
extern const char *const SQL_STEPS[SQL_SCHEMA_VERSION];

/* The errno of a SQLite result code, never 0 for a failure. */
int sql_errno(sqlite3 *db, int rc);
/* Fills *e with words from the connection's last error.  Returns sql_errno(). */
int sql_error(sqlite3 *db, int rc, struct err **e, const char *what);

int sql_prepare(sqlite3 *db, sqlite3_stmt *stmts[SQL_STMTS], struct err **e);
void sql_finalize(sqlite3_stmt *stmts[SQL_STMTS]);

/* Steps a statement that gives no rows and resets it.  0 or -errno with words. */
int sql_run(sqlite3 *db, sqlite3_stmt *st, struct err **e, const char *what);
/* The first column of the only row of a text. */
int sql_number(sqlite3 *db, const char *sql, int64_t *ret, struct err **e);
