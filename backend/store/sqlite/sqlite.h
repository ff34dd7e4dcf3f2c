/* The store of one machine: a SQLite database in WAL mode.
 *
 * One process at a time; the file is locked while it is open.  Not for network filesystems.
 * The tables and their versions are in sql.c. */
#pragma once

#include "control/driver/store.h"

/* Opens the database at path, makes it (mode 0600) when it is missing, checks it, upgrades it.
 * Starts the store's thread.  Give it back with (*ret)->ops->close().
 *
 * -EBUSY    another process has it open
 * -EUCLEAN  it is damaged or is no store; it was left as it is
 * -ENOTSUP  a newer release wrote it
 * -EREMOTE  what was in it is in another store now
 * -errno    otherwise (no such folder, no space, no permission...) */
int store_sqlite_open(const char *path, struct store **ret, struct err **e);

/* A database that was moved (struct store_ops, retire) makes room for a new one: it is renamed, its
 * mark removed.  One that was not, or none: nothing is done. */
int store_sqlite_put_aside(const char *path, struct err **e);

/* The `epoch` operation of a store that store_sqlite_open() made; see struct store_ops. */
int store_sqlite_epoch(struct store *s, uint64_t *ret, struct err **e);
