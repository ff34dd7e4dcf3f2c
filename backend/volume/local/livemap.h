/* The live map: a layer's map in a file of the run folder, see layer.h. */
#pragma once

#include "backend/volume/local/layer.h"

/* Fills l->map from l->log_fd and the live map of this boot, if there is one; makes one if not.
 * What the live map has and the log has not is dirty.  Sets live_fd, log_end, log_next,
 * log_unsynced. */
int livemap_open(struct layer *l, struct err **e);
/* The same without a live map, read-only, packed: for frozen layers.  A torn tail is damage, unless
 * it may be there: then it is cut off. */
int livemap_load(struct layer *l, int log_fd, bool may_be_torn, struct err **e);
/* Room for more blocks in file and memory. */
int livemap_grow(struct layer *l, uint64_t blocks);
