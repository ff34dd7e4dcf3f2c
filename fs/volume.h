/* What the two halves of fs/nbd.h share: nbd.c has the thread and what others call, volume.c the
 * connection and its operations.  A volume's lock is taken before the engine's. */
#pragma once

#include <libnbd.h>
#include <stdatomic.h>
#include "common/clock.h"
#include "fs/nbd.h"

enum { POOL = 16 };

enum volume_state { VOLUME_NEW, VOLUME_CONNECTING, VOLUME_READY, VOLUME_FAILED, VOLUME_PAUSED };

struct volume {
        struct nbd *engine;
        struct volume *next;
        char *socket, *export;
        struct volume_op *in, **in_tail; /* queued by others; engine->lock */
        bool closed;                     /* engine->lock; nothing is queued any more */
        _Atomic unsigned resumes;        /* how often it was told to go on */
        _Atomic uint64_t size;
        /* The thread changes what follows with the lock held; so does who sends at once, which is
         * the queue's and the flight's alone. */
        pthread_mutex_t lock;
        struct nbd_handle *h;
        enum volume_state state;
        unsigned pauses;
        bool was_ready, extents, closing;
        int64_t deadline, retry_at; /* monotonic usec */
        struct volume_op *queue, **queue_tail;
        struct volume_op *flight[NBD_INFLIGHT];
        unsigned inflight;
        int code; /* of the failure */
};

struct nbd {
        pthread_mutex_t lock;    /* all but volumes */
        struct volume *incoming; /* opened, not seen by the thread yet */
        struct volume *volumes;  /* the thread's own */
        pthread_t thread;
        bool started, running, stopping;
        int wake; /* eventfd */
        char *pool[POOL];
        unsigned npool;
};

/* A READ's buffer goes back. */
void nbd_give_back(struct nbd *n, char *p);
/* One step of a volume; false when it is closed: then volume_free(). Lock held. */
bool volume_advance(struct volume *v, int64_t now);
void volume_free(struct volume *v);
/* Sends a READ or WRITE from any thread; false when it has to be queued.  Lock held.  *more: what is
 * left of it is for the thread, which is to be woken. */
bool volume_send_now(struct volume *v, struct volume_op *op, bool *more);
/* What poll(2) said of its descriptor.  Lock held. */
void volume_serve_fd(struct volume *v, short revents);
