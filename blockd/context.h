/* Metadata contexts: base:allocation, and the blocks changed since a snapshot.
 *
 * "stratofs:dirty/ID", or under QEMU's name for the same, "qemu:dirty-bitmap:ID", is what the
 * volume may have different from volume ID: NBD_STATE_DIRTY in its flags.  Which IDs there are is
 * for session_owner.changes to say. */
#pragma once

#include "blockd/session.h"

enum { CONTEXT_ALLOCATION_ID = 1, CONTEXT_DIRTY_ID }; /* and those after it */

/* Adds what one query of a SET (listing: LIST) asks for of the export, if there is such a thing.
 * Nothing in it stays open. */
void context_query(const struct session *s, const struct session_export *x, const char *query,
                   bool listing, struct session_contexts *c);
/* Calls back with the id and name of each.  A negative return ends it and is returned. */
int context_each(const struct session_contexts *c,
                 int (*each)(struct session *s, uint32_t option, uint32_t id, const char *name),
                 struct session *s, uint32_t option);
/* Opens what was selected for x, which transmission begins with; what was selected for another is
 * forgotten.  -errno with words: nothing is open. */
int contexts_open(struct session *s, const struct session_export *x, struct err **e);
/* Before the volume is closed. */
void contexts_close(struct session *s);
/* Whether the id is one that was selected. */
bool context_has(const struct session *s, uint32_t id);
