/* What the configuration file says to who starts blockd. */
#pragma once

#include "cli/cli.h"

/* blockd's --pool, by the file given or the one that stratod kept; *ret is NULL if it says nothing
 * of volumes.  The caller frees. */
int conf_pool(const struct cloud *c, char **ret, struct err **e);
