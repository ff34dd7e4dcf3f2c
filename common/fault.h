/* Named fault points: where a test makes the program fail, wait or die.
 *
 * FAULT("store.commit") is 0, or the negative errno that STRATOFS_FAULT asks for.  The variable
 * holds NAME=ACTION[:N][,...]: ACTION is an errno name (EIO, ENOSPC...), "delay:MS" (sleeps so many
 * milliseconds, then goes on), or "kill" (SIGKILL to the process itself); N says the Nth time only
 * (1 is the first), none means always.  The first that fits decides. Free when the variable is not
 * set: one load and a branch.
 *
 * "@FILE" in place of points: they are in that file, which is read anew whenever it has changed, so
 * that they can be set for daemons that run; a missing file means none.  `kill` removes it first:
 * who is started again meets no points.  In a file, "trace" (a word by itself) has each point that
 * is reached written into FILE.trace, as "PROGRAM NAME" on a line: a sweep learns from it which
 * points there are.
 *
 * Threads: any function but fault_init() from any. */
#pragma once

#include <stdbool.h>

extern bool fault_armed; /* set once by fault_init(), before any thread exists */

/* Reads STRATOFS_FAULT; set but empty, it arms without a point, for fault_set() to add them.  A
 * word in it that is not understood ends the process: a fault test that injects nothing would pass
 * for the wrong reason. */
void fault_init(void);
/* Takes these points in place of those there are, "" for none; counting starts anew.  -EPERM when
 * the variable was not set at all, -EINVAL for what is not understood (then nothing has changed).
 */
int fault_set(const char *points);
int fault_hit(const char *name);
int fault_hit_of(const char *room, const char *what); /* the point "ROOM.WHAT" */

#define FAULT(name) (__builtin_expect(fault_armed, 0) ? fault_hit(name) : 0)
/* For points whose names are made, such as one for each request of a protocol. */
#define FAULT_OF(room, what) (__builtin_expect(fault_armed, 0) ? fault_hit_of(room, what) : 0)
