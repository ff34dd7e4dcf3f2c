/* One NBD session: the protocol as steps on a buffer, without a socket.
 *
 * The owner feeds what arrived to session_input() and is called back to send.  First the handshake
 * (option.c), then transmission (request.c).  Replies gather in one buffer and leave together,
 * when everything that arrived has been answered or the buffer is full.
 * Source: the NBD project's doc/proto.md.  One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "backend/volume/volume.h"
#include "common/err.h"

enum {
        SESSION_IN = 256 << 10,         /* the owner's receive buffer must be this large */
        SESSION_OUT = 256 << 10,        /* replies gathered */
        SESSION_OPTION_MAX = 64 << 10,  /* data of one option; longer is refused */
        SESSION_OPTION_DRAIN = 1 << 20, /* longer still: the door closes */
        SESSION_OPTIONS = 1024,         /* options in one handshake */
        SESSION_DRAIN = 64 << 20,       /* a longer write is not even read */
};

struct session_export {
        struct volume *volume;     /* the session closes it */
        char name[VOLUME_ID_SIZE]; /* canonical */
};
struct session_owner {
        /* Opens the export of that name.  -ENOENT (words for the client), -errno. */
        int (*open)(void *arg, const char *name, struct session_export *ret, struct err **e);
        int (*list)(void *arg, int (*each)(void *session, const char *name), void *session);
        /* All of it or -errno; then the session is over. */
        int (*send)(void *arg, const void *p, size_t n);
        void *arg;
};

enum session_phase { SESSION_FLAGS, SESSION_OPTION, SESSION_TRANSMISSION, SESSION_OVER };

struct session {
        struct session_owner owner;
        enum session_phase phase;
        bool no_zeroes, structured;
        bool allocation; /* base:allocation was selected, for allocation_name */
        char allocation_name[VOLUME_ID_SIZE];
        unsigned options;             /* seen so far */
        uint32_t drain_option, drain; /* an option too long: what is left of its data */
        struct volume *volume;        /* in transmission */
        struct {                      /* a write whose payload is arriving */
                uint64_t cookie, off;
                uint32_t left;
                unsigned flags;
                bool cut; /* some of it was written already */
                int error;
        } write;
        uint8_t *out; /* replies to be sent */
        size_t out_len, out_size;
};

/* Queues the greeting.  0 or -ENOMEM. */
int session_init(struct session *s, const struct session_owner *owner);
void session_done(struct session *s);
/* Takes what it can of n bytes and returns how many; the rest must come again, with more behind it.
 * What was to be answered has been sent.  Negative: close the connection. */
ssize_t session_input(struct session *s, const uint8_t *p, size_t n);

/* For the parts of the session: */
/* n bytes of room behind the replies, sending earlier ones if need be.  NULL: session over. */
uint8_t *session_room(struct session *s, size_t n);
int session_send(struct session *s);
/* One option, or less: bytes taken, 0 for "more is needed", negative: close. */
ssize_t option_step(struct session *s, const uint8_t *p, size_t n);
/* One request, or a piece of a payload. */
ssize_t request_step(struct session *s, const uint8_t *p, size_t n);
/* Transmission flags of the volume. */
uint16_t session_flags(const struct session *s, const struct volume *v);
