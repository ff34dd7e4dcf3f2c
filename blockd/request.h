/* What the parts of transmission share: a request, its replies, the batch. */
#pragma once

#include "blockd/nbd.h"
#include "blockd/session.h"

struct request {
        unsigned flags, type; /* NBD_CMD_* */
        uint64_t cookie, off, len;
};

/* ---- reply.c ---- */

enum {
        REPLY_ERROR_SIZE = 6,                                       /* error 4, length 2 */
        REPLY_MAX = NBD_EXTENDED_CHUNK_SIZE + 8 + REPLY_ERROR_SIZE, /* of one without data */
};

/* Bytes of a chunk's header. */
static inline size_t chunk_size(const struct session *s)
{
        return s->form == FORM_EXTENDED ? NBD_EXTENDED_CHUNK_SIZE : NBD_CHUNK_SIZE;
}
/* Puts a chunk's header (form structured or extended) and returns what follows it. */
uint8_t *chunk_put(const struct session *s, uint8_t *p, unsigned flags, unsigned type,
                   uint64_t cookie, uint64_t off, uint64_t len);
/* Puts the whole reply to a command that carries no data, at p, and returns what follows. */
uint8_t *done_put(const struct session *s, uint8_t *p, uint64_t cookie, uint64_t off, int error);
/* The same for READ and BLOCK_STATUS, which failed. */
uint8_t *failure_put(const struct session *s, uint8_t *p, uint64_t cookie, uint64_t off, int error);
/* The two at the end of what is to be sent.  0 or -EPIPE. */
int reply_done(struct session *s, const struct request *q, int error);
int reply_failure(struct session *s, const struct request *q, int error);

/* ---- admit.c: limits and counters ---- */

/* Before a request is done: sleeps for as long as the volume's limits say, everything before it
 * answered, and counts it.  alone: its payload is still to come, and so it is not timed with those
 * before it.  0, -EAGAIN (the session is to pause: nothing was taken or counted, the request is to
 * come again), or negative: the session is over. */
int request_admit(struct session *s, const struct request *q, bool alone);
/* A write whose payload was arriving when it was handed over goes on, with new counters. */
void request_resume(struct session *s);
/* It was admitted, and is counted by itself from here on, by request_landed().  When it was
 * admitted: clock_mono(). */
int64_t request_flies(struct session *s, const struct request *q);
void request_landed(struct session *s, const struct request *q, int64_t usec, bool failed);
/* It was admitted, and is answered with an error. */
void request_failed(struct session *s, unsigned type, uint64_t len);

/* ---- batch.c: small reads and writes, done together ---- */

/* 0 or -EPIPE. */
int batch_read(struct session *s, const struct request *q);
/* The payload stays where it is until the batch has run, which is before session_input() returns.
 */
int batch_write(struct session *s, const struct request *q, const uint8_t *payload, unsigned flags);
/* A write whose payload is in memory of its own, allocated and given away. */
int batch_write_kept(struct session *s, const struct request *q, uint8_t *payload, unsigned flags);
void batch_run(struct session *s);
/* Memory for the payload of a write that is kept, and back when it is written.  NULL: none. */
uint8_t *payload_alloc(struct session *s, size_t n);
void payload_free(struct session *s, uint8_t *p, size_t n);
/* Forgets it: the session is over. */
void batch_drop(struct session *s);

/* ---- read.c, status.c: one command, with the batch empty ---- */

int read_large(struct session *s, const struct request *q);
/* ids: of the contexts asked for (big-endian), n of them; NULL: all that were selected. */
int block_status(struct session *s, const struct request *q, const uint8_t *ids, size_t n);
/* Extents gathered from a walk, neighbours of one kind joined. */
struct extents {
        struct extent {
                uint64_t len;
                uint32_t state; /* NBD_STATE_* */
        } * list;
        size_t n, max;
        uint64_t total;   /* bytes described */
        uint64_t len_max; /* of one; longer ones are cut short, and the walk ends */
};
/* A volume_extent_fn. */
int extent_add(void *extents, uint64_t off, uint64_t len, enum volume_kind kind);
