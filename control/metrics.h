/* What guests use: the last figures, and a history of fixed size.
 *
 * While guests of this host run, a thread of the daemon's own asks the engine every ten seconds for
 * all of them in one call.  A guest's history is a file in the instance's folder, mapped, so that
 * it outlives the daemon and looking is free: two rings, of an hour at every ten seconds and of a
 * day at every five minutes. */
#pragma once

#include "control/internal.h"

enum metrics_text {
        METRICS_CPU,
        METRICS_MEMORY,
        METRICS_DISK,
        METRICS_NETWORK,
        METRICS_HOUR,
        METRICS_DAY
};

/* A file of metrics/.  Model held; memory only. */
void metrics_render(struct control *c, const struct object *o, size_t which, struct buf *out);
int metrics_start(struct control *c, struct err **e);
void metrics_stop(struct control *c);
void metrics_free(struct control *c);
