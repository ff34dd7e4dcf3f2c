/* Moving all that a store has into another. */
#pragma once

#include "control/driver/store.h"

/* Copies every record of every scope into `to`, which must be empty, reads it all again and compares,
 * and marks `from` as moved: it keeps all it had, and will not be opened again.  Epochs go on behind
 * those of `from`.  Nobody else may have either open.  name: of `to`, for the mark.  *ret_n: records.
 * -EEXIST `to` is not empty, -EBUSY another host has `from` open.  On failure `from` is as before. */
int store_migrate(struct store *from, struct store *to, const char *name, size_t *ret_n,
                  struct err **e);
