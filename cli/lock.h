/* One `up` or `down` of a cloud at a time. */
#pragma once

#include "cli/cli.h"

/* Waits for its turn; closing the descriptor ends it.  -errno. */
int cloud_lock(const struct cloud *c, struct err **e);
