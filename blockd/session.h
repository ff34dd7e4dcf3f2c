/* One NBD session: the protocol as steps on a buffer, without a socket.
 *
 * The owner feeds what arrived to session_input() and is called back to send.  First the handshake
 * (option.c), then transmission (request.c).
 *
 * The least work an I/O: small reads and writes of all that one receive brought are gathered
 * (batch.c) and given to the volume at once; reads land behind the room for their headers, so that
 * all replies leave in one send.  Large reads go from the file to the socket (read.c).  Where the
 * volume can start I/O, all of it is in flight instead (flight.h).
 * Source: the NBD project's doc/proto.md.  One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "backend/volume/volume.h"
#include "blockd/limit.h"
#include "blockd/stats.h"
#include "common/err.h"

enum {
        SESSION_IN = 256 << 10,         /* the owner's receive buffer must be this large */
        SESSION_OUT = 256 << 10,        /* replies gathered */
        SESSION_OPTION_MAX = 64 << 10,  /* data of one option; longer is refused */
        SESSION_OPTION_DRAIN = 1 << 20, /* longer still: the door closes */
        SESSION_OPTIONS = 1024,         /* options in one handshake */
        SESSION_DRAIN = 64 << 20,       /* a longer write is not even read */
        SESSION_BATCH = 64,             /* reads and writes done at once */
        SESSION_CONTEXTS = 8,           /* metadata contexts selected */
        SESSION_LARGE = 64 << 10,       /* from here on a read looks for holes and files */
        SESSION_KEPT = 8 << 20,         /* bytes of large writes gathered for direct I/O */
        SESSION_SPARE = 8,              /* payload buffers kept for the next ones */
};

struct session_export {
        struct volume *volume;     /* the session closes it */
        char name[VOLUME_ID_SIZE]; /* canonical */
};
struct session_owner {
        /* Opens the export of that name.  -ENOENT (words for the client), -errno. */
        int (*open)(void *arg, const char *name, struct session_export *ret, struct err **e);
        int (*list)(void *arg, int (*each)(void *session, const char *name), void *session);
        /* Optional: what has changed since another volume that this client may compare with. */
        int (*changes)(void *arg, struct volume *v, const char *since, struct volume_changes **ret);
        /* Optional: the volumes that changes() takes. */
        int (*snapshots)(void *arg, struct volume *v, int (*each)(void *query, const char *since),
                         void *query);
        /* Optional: transmission of that volume begins.  What is given holds it to its limits and
         * counts, and outlives the session's volume. */
        int (*begin)(void *arg, const char *volume, struct limit **ret, struct stats **ret_stats);
        /* Optional: nobody waits for replies any more, or the handshake takes too long. */
        bool (*gone)(void *arg);
        /* Optional: the session is to take no more input for now, see `paused`. */
        bool (*pause)(void *arg);
        /* All of it or -errno; then the session is over.  iov may be changed. */
        int (*send)(void *arg, struct iovec *iov, int n);
        /* Optional: what goes of it without waiting, of small replies; by any thread, but one at a
         * time.  Bytes, -EAGAIN or -errno. */
        ssize_t (*send_some)(void *arg, struct iovec *iov, int n);
        /* Optional: more has come already, so that the next receive does not block. */
        bool (*more)(void *arg);
        /* NULL: files cannot be sent. */
        int (*send_file)(void *arg, int fd, uint64_t off, uint64_t n);
        /* What comes and goes after this call is TLS.  -errno: close.  NULL: there is no TLS. */
        int (*starttls)(void *arg);
        bool tls_only; /* before that, STARTTLS or nothing */
        void *arg;
};

enum session_phase { SESSION_FLAGS, SESSION_OPTION, SESSION_TRANSMISSION, SESSION_OVER };
/* How replies look; each is negotiated. */
enum session_form { FORM_SIMPLE, FORM_STRUCTURED, FORM_EXTENDED };

/* Where replies and the batch are; given back to the system while the client is silent. */
struct session_work {
        uint8_t *out;
        size_t size, used;
        unsigned niov, n;
        unsigned nkept; /* of the batch: large writes, whose payload is their own */
        size_t kept;    /* bytes of these */
        unsigned nspare;
        struct iovec
                spare[SESSION_SPARE]; /* memory for payloads: new pages cost more than the copy */
        struct iovec iov[SESSION_BATCH + 2]; /* what of out is to be sent */
        struct volume_io io[SESSION_BATCH];  /* the batch */
        struct {
                uint64_t cookie, off;
                uint8_t *reply; /* room in out */
                uint8_t *kept;  /* freed when it is done */
        } of[SESSION_BATCH];
};

/* Between two inputs it is plain data, but for what hangs on the volume: handover_pack() writes
 * down every field. */
struct session {
        struct session_owner owner;
        enum session_phase phase;
        enum session_form form;
        bool no_zeroes, tls;
        bool paused; /* it took less input than it could have: the rest is to come again */
        struct session_context {
                char since[VOLUME_ID_SIZE];     /* "": base:allocation */
                struct volume_changes *changes; /* in transmission */
        } contexts[SESSION_CONTEXTS];           /* context i has the id i + 1 on the wire */
        unsigned ncontexts;
        char contexts_of[VOLUME_ID_SIZE]; /* the export they were selected for */
        unsigned options;                 /* seen so far */
        uint32_t drain_option, drain;     /* an option too long: what is left of its data */
        struct volume *volume;            /* in transmission */
        struct limit *limit;              /* NULL: none */
        struct stats *stats;              /* NULL: nobody counts */
        struct {                          /* a payload that is arriving */
                unsigned type;            /* NBD_CMD_* */
                uint64_t cookie, off, start;
                uint64_t left;
                unsigned flags;
                uint8_t *kept; /* where it gathers for direct I/O; NULL: it is written in pieces */
                int error;
                struct flight *flight; /* whose memory `kept` is; NULL: the batch's */
        } write;
        struct session_work *work;
        struct flights *flights; /* in transmission; NULL: nothing is started */
};

/* Queues the greeting.  0 or -ENOMEM. */
int session_init(struct session *s, const struct session_owner *owner);
void session_done(struct session *s);
/* Takes what it can of n bytes and returns how many; the rest must come again, with more behind it.
 * What was to be answered has been sent.  Negative: close the connection. */
ssize_t session_input(struct session *s, const uint8_t *p, size_t n);
/* Where the next bytes are best received, with how many of them, once all input has been taken;
 * NULL: in the owner's buffer.  session_sunk() then takes them as session_input() would. */
uint8_t *session_sink(struct session *s, size_t *ret);
int session_sunk(struct session *s, size_t n);
/* While something is under way: what to poll for beside the input, -1 without; and for how long at
 * most, in usec, or -1.  Then session_landed(), which is 0 or negative: the session is over. */
int session_flying(struct session *s, int64_t *ret_usec);
int session_landed(struct session *s);
/* Does and answers what is gathered: before the owner waits for anything but input. */
int session_settle(struct session *s);
/* Sends what is queued; in between inputs that is only the greeting. */
int session_send(struct session *s);
/* Waits for what is under way, and drops its replies: before what the owner gave is gone. */
void session_land(struct session *s);
/* Lets go of the volume and what hangs on it; session_resume() takes it up again, in this process
 * or in another, by any of its names.  Negative: the session is over. */
void session_detach(struct session *s);
int session_resume(struct session *s, const char *name);
/* Frees the work's memory until the next input. */
void session_rest(struct session *s);

/* ---- for the parts of the session ---- */
/* n bytes behind the replies; runs the batch and sends if there is no room.  NULL: the session is
 * over.  What is put there is sent by session_put(). */
uint8_t *session_room(struct session *s, size_t n);
void session_put(struct session *s, const uint8_t *p, size_t n);
/* Whether nobody waits for what is being answered. */
static inline bool session_gone(const struct session *s)
{
        return s->owner.gone && s->owner.gone(s->owner.arg);
}
static inline bool session_to_pause(const struct session *s)
{
        return s->owner.pause && s->owner.pause(s->owner.arg);
}
/* One option, or less: bytes taken, 0 for "more is needed", negative: close. */
ssize_t option_step(struct session *s, const uint8_t *p, size_t n);
/* One request, or a piece of a payload. */
ssize_t request_step(struct session *s, const uint8_t *p, size_t n);
/* A payload that gathers has n bytes more.  0 or -EPIPE. */
int payload_gathered(struct session *s, size_t n);
/* What has gathered of it is written; the rest will be as it comes. */
void payload_settle(struct session *s);
/* Transmission flags of the volume. */
uint16_t session_flags(const struct session *s, const struct volume *v);
