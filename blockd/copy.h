/* Copying from one volume to another, a piece at a time: what an encrypted volume with a plain
 * one's bytes is made with. */
#pragma once

#include "backend/volume/volume.h"

enum { COPY_PIECE = 64 << 20 };

/* Copies what `from` has stored of the piece at off, COPY_PIECE bytes or less at its end, to the
 * same place in `to`, flushed on return; holes are left alone.  Gives where the next piece begins:
 * the size of `from` after the last.  May be repeated.  Blocks; any thread. */
int copy_piece(struct volume_pool *p, const char *to, const char *from, uint64_t off,
               uint64_t *ret_next, struct err **e);
