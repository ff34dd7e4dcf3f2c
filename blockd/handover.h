/* A running server hands itself to a successor: the words between the two.
 *
 * They speak over a UNIX stream socket pair: a message is an object of JSON, perhaps bytes, perhaps
 * a descriptor.  P is the predecessor, S the successor, in this order:
 *
 *   S hello     format
 *   P lock      what ("state", "run"); with the descriptor that holds it
 *   P listener  name (see held.h); with its descriptor
 *   P start     volumes: ids that S must not open before they have arrived
 *   S ok        it has the pool and the listeners, and accepts
 *   P conn      a connection (see handover_pack()); with what came of a request, and the socket
 *   P arrived   volume: P has closed it, its conns are before this
 *   S ok
 *   P done
 *   S ok        and P ends
 *
 * Until `done` is answered P takes everything back when S fails; when P dies S goes on with what it
 * has.  When it is P that cannot go on, a volume's requests not coming to an end, say:
 *
 *   P back
 *   S conn      each that it has, its volumes closed
 *   S back      and S ends
 *
 * What S read and answered meanwhile is S's to tell: a connection that S took with it when it died
 * is closed.  A later format may add members and messages that an earlier one need not know. */
#pragma once

#include <jansson.h>
#include "blockd/held.h"
#include "blockd/session.h"
#include "common/err.h"

enum { HANDOVER_FORMAT = 1 };

struct message {
        json_t *o;
        uint8_t *bytes; /* NULL: none */
        size_t n;
        int fd; /* -1: none */
};

/* Takes the reference of o (NULL is -ENOMEM); fd is still the caller's. */
int handover_send(int sock, json_t *o, const void *bytes, size_t n, int fd);
/* -ENODATA at the end. */
int handover_recv(int sock, struct message *ret);
void message_done(struct message *m);
const char *message_op(const struct message *m);
/* One message that must be that; -EPROTO. */
int handover_expect(int sock, const char *op, struct err **e);

/* A session between two inputs, without its volume and what hangs on it.  NULL without memory. */
json_t *handover_pack(const struct session *s);
/* Fills a zeroed session.  -EPROTO. */
int handover_unpack(json_t *o, struct session *s);

/* ---- park.c ---- */

struct server;
/* Parks what has that volume (NULL: any) open, and what has none: it negotiates, or ends and is
 * perhaps just closing the volume.  -ETIMEDOUT, with words; what is parked stays so. */
int park(struct server *s, const char *volume, struct err **e);
/* All go on, those that are parked and those that were to be. */
void park_end(struct server *s);

/* ---- the predecessor: replace.c ---- */

/* Starts the program named in s->successor and hands everything to it.  0: s->successor.pid has it
 * all, and we are to end without closing or flushing anything.  Else all is as it was, with words;
 * -EBUSY: one is under way.  Any thread, takes a while. */
int replace_run(struct server *s, struct err **e);
/* The same, in a thread of its own; words go to the log. */
void replace_start(struct server *s);
/* The successor's: sends all connections it has back, with every volume closed.  Negative: not. */
int replace_back(struct server *s, int sock);
/* Waits until none is under way; whether we were replaced. */
bool replace_over(struct server *s);

/* ---- the successor: takeover.c ---- */

struct takeover {
        int sock; /* -1: none */
        int state_lock, run_lock;
        struct held held;
        json_t *volumes; /* those that are to come */
};

/* Up to and including `start`. */
int takeover_begin(struct takeover *t, struct err **e);
/* The server has started: takes the main process's place. */
int takeover_started(struct takeover *t, struct err **e);
/* Waits while a predecessor still has that volume open.  -ESHUTDOWN: we end before. */
int takeover_await(struct server *s, const char *volume, struct err **e);
/* A `conn` from the other one: it goes on here. */
int takeover_conn(struct server *s, struct message *m);
/* One message is there.  0 more to come, 1 that was the last (P's death included). */
int takeover_step(struct takeover *t, struct server *s);
