/* The two daemons as processes.
 *
 * A POSIX record lock on <run>/NAME.pid is taken between fork and exec and held for life, by the
 * daemon's holder (stratofs-hold, unless systemd does that part), which outlives it.  A stratod
 * whose holder was killed takes it over.  The kernel tells who holds the lock; the number in the
 * file is the daemon's own, and is believed only of the lock's owner and its descendants, so that a
 * recycled pid is never taken for ours. */
#pragma once

#include <sys/types.h>
#include "cli/cli.h"

enum daemon { BLOCKD, STRATOD, NDAEMONS };

const char *daemon_name(enum daemon d);

/* 1 with *ret, who holds the lock, when it runs, 0 when not, -errno. */
int daemon_find(const struct cloud *c, enum daemon d, pid_t *ret);

/* The same, but *ret is the daemon itself, 0 while its holder is about to start it again. */
int daemon_find_main(const struct cloud *c, enum daemon d, pid_t *ret);

/* Starts it in the background and waits until it serves.  -ETIMEDOUT, or -ECHILD with its last
 * words when it ended; then it does not run.  Its output goes to <state>/log/NAME.log. */
int daemon_start(const struct cloud *c, enum daemon d, int timeout_ms, struct err **e);

/* Becomes the daemon, in the foreground; returns only on failure.  Tells systemd when it serves. */
int daemon_become(const struct cloud *c, enum daemon d, struct err **e);

/* SIGTERM, and SIGKILL after timeout_ms when hard.  0 when it is gone or never was, -ETIMEDOUT. */
int daemon_stop(const struct cloud *c, enum daemon d, int timeout_ms, bool hard, struct err **e);

/* Waits until it is gone by itself.  -ETIMEDOUT. */
int daemon_await_end(const struct cloud *c, enum daemon d, int timeout_ms);

/* Has it make room for a successor, started from the program file as it is now; waits for that one
 * to serve.  1 replaced, 0 it does not run, -ETIMEDOUT. */
int daemon_replace(const struct cloud *c, enum daemon d, int timeout_ms, struct err **e);

/* Its holder was killed: nobody starts it again. */
bool daemon_alone(const struct cloud *c, enum daemon d);

/* The version it was started as, into ret; "" when unknown. */
void daemon_version(const struct cloud *c, enum daemon d, char ret[32]);
