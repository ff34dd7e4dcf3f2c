/* Requests in flight: where the volume can start I/O and tell when it is done, nobody waits for the
 * slowest of a batch.
 *
 * Each request is started as it comes, in memory of its own, and answered when it lands, in
 * whatever order.  What has landed is answered by who has the lock: the connection's thread while
 * it is awake, all at once before it waits for input; else, as it would have to be woken up, the
 * thread that brings the result, if the reply is small and the socket takes it.  Who does not get
 * the lock leaves it to its holder, who looks again after he let it go.
 *
 * With much in flight, sending each reply by itself costs more than the I/O: the connection's
 * thread then waits for input for a moment only, and in that moment replies gather until they are
 * half of what is in flight. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include "blockd/request.h"

enum {
        FLIGHTS = 256,             /* at once */
        FLIGHT_BYTES = 16 << 20,   /* and bytes, but one is always allowed */
        FLIGHT_KEPT = 16 << 20,    /* memory that is kept for the next ones */
        FLIGHT_READ_MAX = 8 << 20, /* longer ones are read in pieces */
        FLIGHT_INLINE = 64 << 10,  /* what a thread of the driver sends */
        FLIGHT_IOV = 128,
        FLIGHT_FEW = 4,         /* up to so many each reply goes by itself */
        FLIGHT_MOMENT_US = 200, /* and with more no reply waits longer */
};

struct flight {
        struct volume_io io;
        struct flights *of;
        struct flight *next;
        struct request q;
        int64_t begin;     /* when it was admitted */
        uint8_t *buf;      /* kept for the next one */
        size_t size, room; /* of buf; of that for data, as it was asked for */
        uint8_t *reply;
        size_t len;
};

struct flight_list {
        struct flight *first, **end;
};

struct flights {
        struct session *session;
        pthread_mutex_t lock; /* what is not atomic; and the session's sending and counting */
        _Atomic(struct flight *) landed; /* newest first */
        atomic_uint inside;              /* threads of the driver that look at this */
        atomic_uint n;                   /* begun, and not answered in full */
        atomic_bool moment;              /* the connection's thread will look in a moment */
        bool quiet; /* the last moment brought nothing, and none was begun since */
        size_t bytes;
        struct flight_list replies, again; /* to be sent; to be done by who may wait */
        unsigned nreplies;
        size_t sent; /* of the first reply */
        struct flight *idle;
        size_t kept;
        bool awaited; /* fd tells of everything that lands */
        int error;    /* of sending */
        int fd;       /* eventfd: the connection's thread is needed */
};

/* With the volume.  NULL: it cannot start I/O, or there is no memory; then all goes without.  Comes
 * locked. */
struct flights *flights_open(struct session *s);
/* Waits for those that are under way, whose replies are dropped.  Not locked.  NULL is fine and
 * returned. */
struct flights *flights_close(struct flights *f);
/* By the connection's thread, around whatever it does with the session.  NULL is fine. */
void flights_lock(struct flights *f);
void flights_unlock(struct flights *f);

/* ---- with the lock ---- */

/* One with room for n bytes of payload or data, at io.p; waits while there are too many.  NULL: the
 * session is over. */
struct flight *flight_new(struct flights *f, const struct request *q, size_t n);
/* Begins it.  Its request was admitted. */
void flight_start(struct flight *fl, enum volume_op op, unsigned flags);
/* It is not begun after all. */
void flight_drop(struct flight *fl);
/* Both, with a payload's copy.  0 or -EPIPE. */
int flight_begin(struct flights *f, const struct request *q, enum volume_op op, unsigned flags,
                 const uint8_t *payload);
/* Answers what has landed.  0 or -errno. */
int flights_send(struct flights *f);
/* Waits until all have been answered.  0 or -errno. */
int flights_settle(struct flights *f);
/* Memory back to the system. */
void flights_rest(struct flights *f);
