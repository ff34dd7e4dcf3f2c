/* What the configuration file says to who starts blockd. */
#pragma once

#include "cli/cli.h"

/* blockd's --pool options, by the file given or the one that stratod kept: texts, one behind the
 * other, the last is empty; *ret is NULL if it says nothing of volumes.  The caller frees. */
int conf_pools(const struct cloud *c, char **ret, struct err **e);
