/* Drivers that need an engine's library are modules, loaded on use. */
#pragma once

#include "common/err.h"

/* What the symbol of the module stands for.  The module is looked for where STRATOFS_MODULES says,
 * in the build tree this program lies in (room: its folder there, "backend/compute"), or where it
 * was installed; it stays loaded.  -ENOTSUP with a hint. */
int module_symbol(const char *room, const char *file, const char *symbol, void **ret,
                  struct err **e);
