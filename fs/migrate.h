/* stratod --migrate-store: the store of a cloud that is down, moved to where a new configuration
 * says. */
#pragma once

#include "common/err.h"

/* From the store that the state folder's configuration names to that of the file conf, which is
 * kept in its place afterwards.  Says on stdout what it did. */
int migrate_store(const char *state, const char *conf, const char *host, struct err **e);
