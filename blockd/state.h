/* The state folder: one blockd at a time, and where its live maps are. */
#pragma once

#include "backend/volume/volume.h"
#include "common/err.h"

/* Makes the folder if need be and locks it; the descriptor holds the lock.  -EBUSY with words when
 * another holds it. */
int state_lock(const char *state, struct err **e);
/* The same for the run folder, whose sockets and live maps are one blockd's. */
int state_lock_run(const char *run, struct err **e);
/* Writes down that a blockd serves the state with that run folder.  What a killed blockd had
 * acknowledged but not flushed is in its run folder's live maps: in the same boot no other run
 * folder will do, -EBUSY. */
int state_claim(const char *state, const char *run, struct err **e);
/* At a clean stop: what is left in live maps, of volumes that nobody opened since they were closed
 * without a flush, gets to disk. */
void state_settle(const char *run, struct volume_pool *pool);
/* After a clean stop: any run folder will do, unless live maps are left in this one. */
void state_release(const char *state, const char *run);
