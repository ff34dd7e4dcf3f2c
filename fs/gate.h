/* Fair shares of the daemon among users.
 *
 * While another user asks, too, no more than GATE_SHARE requests of one user are with workers at
 * once.  The rest of its requests are held: copied, and done by a few threads of the gate's own,
 * the users in turn.  A user that is alone with the daemon is not held back, nor is root.  Requests
 * that are held are in the record like any other, so they outlive the process as others do. */
#pragma once

#include <linux/fuse.h>
#include <stddef.h>

struct fs;
struct gate;
struct worker;

enum {
        GATE_SHARE = 2,
        GATE_LANES = 2,          /* threads for what is held */
        GATE_HELD = 8192,        /* requests, all users' */
        GATE_HELD_A_USER = 1024, /* more are answered EAGAIN */
};

/* The fs is not used before the first gate_enter(). */
int gate_new(struct fs *fs, struct gate **ret);
/* After the loop and before the session is destroyed: what is held is done first. */
void gate_free(struct gate *g);
/* On the thread that read it, before worker_begin().  0: go on, and gate_leave() after it.  1: it
 * is held, and done elsewhere; in is the caller's again.  -EAGAIN: the user has too many held. */
int gate_enter(struct gate *g, struct worker *w, const struct fuse_in_header *in, size_t n);
/* What gate_enter() let pass on this worker is over; may be called without that. */
void gate_leave(struct gate *g, struct worker *w);
