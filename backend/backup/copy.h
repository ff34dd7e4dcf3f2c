/* The two directions between a volume and a target. */
#pragma once

#include "backend/backup/manifest.h"

/* Copies the volume (a snapshot) q->id into the store, reading no more than changed since
 * base; base NULL: all of it.  Fills m's size, chunks and counters; names of chunks are not yet
 * durable.  *ret_based: base was of use. */
int volume_copy(struct store *s, const struct backup_request *q, const struct manifest *base,
                const struct backup_progress *p, struct manifest *m, bool *ret_based,
                struct err **e);
/* Writes m's bytes to the volume, zeros behind them, and flushes.  blank: it reads as zeros where
 * nothing was written. */
int volume_restore(struct store *s, const struct manifest *m, const char *socket,
                   const char *volume, bool blank, const struct backup_progress *p, struct err **e);
