/* Part of `strato doctor --fsck`. */
#pragma once

#include "cli/cli.h"

/* Calls orphan for each network device of this cloud's that no network or port of the tree accounts
 * for; all of them unless guests run.  -errno when the tree cannot be read. */
int fsck_network(const struct cloud *c, bool guests,
                 void (*orphan)(void *arg, const char *what, const char *name), void *arg,
                 struct err **e);
