/* The I/O of volumes for `strato top`, from the files of their stats folders. */
#pragma once

#include "cli/cli.h"
#include "common/buf.h"

struct io_seen;
/* What was seen of each volume before: rates are what happened since.  Zeroed is valid. */
struct io_table {
        struct io_seen *seen;
        unsigned volumes; /* at the last call */
};

/* Looks at all volumes and writes a line for each that a guest has or that moved; how many lines,
 * or -errno.  A volume seen for the first time has no rates yet. */
int io_table_fill(struct io_table *t, const struct cloud *c, struct buf *out, struct err **e);
void io_table_done(struct io_table *t);
