/* Volumes' bytes through libnbd, asynchronously.
 *
 * One thread owns every libnbd handle; it starts with the first open volume and ends with the
 * last.  Everybody else queues operations; a READ or WRITE on an idle way is sent at once by who has
 * it.  Each operation is answered once by its `done`, on that thread.  Connecting has CONNECT_S
 * seconds; a connection that breaks later is made again within the same time (blockd was restarted)
 * and what was in flight is sent once more. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

enum { NBD_IO_MAX = 1 << 20, NBD_INFLIGHT = 16, CONNECT_S = 10 };

struct nbd;
struct volume;

enum volume_op_type { VOLUME_OPEN, VOLUME_READ, VOLUME_WRITE, VOLUME_FLUSH, VOLUME_ZERO, VOLUME_PUNCH,
                      VOLUME_SEEK_DATA, VOLUME_SEEK_HOLE, VOLUME_PAUSE };

struct volume_op {
        enum volume_op_type type;
        uint64_t off, count;     /* bytes; SEEK: off only */
        char *buf;               /* READ: filled; WRITE: from nbd_buffer().  Freed by the engine */
        uint64_t found;          /* SEEK: the answer; UINT64_MAX: none */
        void (*done)(struct volume_op *op, int r); /* r: 0 or -errno; frees op */
        void *arg, *arg2;
        struct volume *volume;
        /* the engine's */
        struct volume_op *next;
        uint64_t part;           /* bytes of the chunk in flight */
        unsigned slot;           /* in flight */
        bool retried;
};

int nbd_new(struct nbd **ret);
/* Ends the thread; operations that wait are answered -EIO.  No volume may be used afterwards. */
void nbd_free(struct nbd *n);
/* An aligned buffer of NBD_IO_MAX bytes for a WRITE, NULL without memory. */
char *nbd_buffer(struct nbd *n);
/* Opens an export: socket and export are copied.  The answer is op (VOLUME_OPEN)'s; a failed one
 * still wants volume_close(). */
int volume_open(struct nbd *n, const char *socket, const char *export, struct volume_op *op,
                struct volume **ret);
/* An export that a process before ours had open, of this size: as if its connection had broken. */
int volume_again(struct nbd *n, const char *socket, const char *export, uint64_t size,
                 struct volume **ret);
/* Sends or queues; any thread, never waits for the server. */
void volume_submit(struct volume *v, struct volume_op *op);
/* Bytes, once opened. */
uint64_t volume_size(struct volume *v);
/* After VOLUME_PAUSE was submitted, which lets the connection go: it may be made again. */
void volume_resume(struct volume *v);
/* The last use; operations under way are finished first. */
void volume_close(struct volume *v);
