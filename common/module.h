/* Modules: drivers whose engine's library is mapped on first use only. */
#pragma once

#include "common/err.h"

/* Loads the module `file` of the room (its folder in the build tree, "backend/compute") and gives
 * its function `entry`: from where STRATOFS_MODULES says, from the build tree that this program
 * lies in (its own folder and three above), or from where it was installed.  A module is never
 * unloaded. -ENOTSUP: it, or a library that it needs, is not there; `what` ("libvirt") names it. */
int module_load(const char *room, const char *file, const char *entry, const char *what,
                void *ret_function, struct err **e);
