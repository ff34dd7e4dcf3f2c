/* One NBD connection to a volume, used by one thread; several requests in flight. */
#pragma once

#include <inttypes.h>
#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"
#include "control/driver/backup.h"

enum { BLOCK = 4096, SLOTS = 8 };

/* A chunk's buffer, and what is on its way to or from it. */
struct slot {
        char *buf;
        size_t chunk;
        unsigned pending;
        int error; /* of any of its requests: a negative errno */
};
struct slots {
        struct slot v[SLOTS];
        unsigned first, used; /* in the order of chunks */
};

struct peer {
        struct nbd_handle *h;
        const struct backup_progress *progress;
        struct slots slots;
};
#define _cleanup_peer_ _cleanup_(peer_done)

/* context: a metadata context asked for beside base:allocation, or NULL.
 * -ECONNREFUSED when blockd is down, -ENOENT no such volume. */
int peer_open(struct peer *p, const char *socket, const char *volume, const char *context,
              const struct backup_progress *progress, struct err **e);
int peer_buffers(struct peer *p, size_t size, struct err **e);
/* Ends the connection first: nothing writes to the buffers any more. */
void peer_done(struct peer *p);
/* From what libnbd said last. */
int peer_error(struct peer *p, const char *what, struct err **e);
int peer_report(struct peer *p, uint64_t done, uint64_t total, struct err **e);
/* A free slot; NULL: finish the oldest first. */
struct slot *peer_slot(struct peer *p);
/* The oldest slot, NULL when none is used.  peer_wait() waits for its requests, peer_free() gives
 * it back. */
struct slot *peer_oldest(struct peer *p);
int peer_wait(struct peer *p, struct slot *s, struct err **e);
void peer_free(struct peer *p);
/* For requests of a slot: count one more with it. */
nbd_completion_callback slot_callback(struct slot *s);
