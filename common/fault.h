/* Named fault points: where a test makes the program fail or die.
 *
 * FAULT("store.commit") is 0, or the negative errno that STRATOFS_FAULT asks for.  The variable
 * holds NAME=ACTION[:N][,...]: ACTION is an errno name (EIO ENOSPC ETIMEDOUT ENOMEM), or "kill"
 * (SIGKILL to the process itself); N says the Nth time only (1 is the first), none means always.
 * Free when the variable is not set: one load and a branch. */
#pragma once

#include <stdbool.h>

extern bool fault_armed; /* set once by fault_init(), before any thread exists */

/* Reads STRATOFS_FAULT.  A word in it that is not understood ends the process: a fault test that
 * injects nothing would pass for the wrong reason. */
void fault_init(void);
int fault_hit(const char *name);

#define FAULT(name) (__builtin_expect(fault_armed, 0) ? fault_hit(name) : 0)
