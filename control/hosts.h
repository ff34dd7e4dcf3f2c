/* What is known of the hosts: their room, and who is alive.  See host.c, lease.c, takeover.c. */
#pragma once

#include "control/internal.h"
#include "control/scheduler.h"

/* States of kind host, in its table's order. */
enum { HOST_UP, HOST_DRAINING, HOST_AWAY, HOST_LOST, HOST_DOWN };

struct host_use {
        unsigned guests;
        uint64_t vcpus, memory;
};

/* All of these: model held. */

/* Whether an instance has a guest on that host, or is on its way up or down there. */
bool host_has(const struct object *instance, const char *host);
/* Whether it migrates to that host, and is not there yet. */
bool host_expects(const struct object *instance, const char *host);
/* Whether it takes room there: also one that is suspended, which comes back there. */
bool host_keeps(const struct object *instance, const char *host);
/* What guests take there; claimed: only those that the host itself has accepted; but: without that
 * one (NULL: all). */
void host_use(struct control *c, const char *host, bool claimed, const struct object *but,
              struct host_use *ret);
/* Whether host_use() counts that instance there. */
bool taken_at(const struct object *instance, const char *host, bool claimed);
/* For tests: whether the sums are what a walk over all instances comes to.  Takes the model. */
bool host_sums_right(struct control *c);
struct object *host_find(struct control *c, const char *name);
/* Whether its record says that it serves, or that nobody has taken over from it yet: what belongs
 * to it is left to it. */
bool host_holds(struct control *c, const char *name);
/* The scheduler's view of every host, *ret_n of them, with members of the instance's group counted;
 * claimed: see host_use().  Names are borrowed from the model; the caller gives it to
 * host_views_free(). */
struct sched_host *host_views(struct control *c, const struct object *instance, bool claimed,
                              size_t *ret_n);
void host_views_free(struct sched_host *v, size_t n);
/* Free bytes of its local pool: of this host now, of another what it wrote last. */
uint64_t host_free(struct control *c, const struct object *o);
void host_render_seen(struct control *c, const struct object *o, struct buf *out);
/* seed.c: makes this host's record if there is none. */
int seed_host(struct control *c, struct err **e);
/* Puts what this host has into its record, if it is something else than before. */
void host_refresh(struct txn *t, struct object *o);

/* --- lease.c -----------------------------------------------------------------------------------
 * This host's right to serve, where there are several: its record, written anew all the time. */

/* Begins with this host's record as it is; before the first job runs.  -EEXIST: another machine has
 * this name. */
int lease_start(struct control *c, struct err **e);
/* Gives the lease up: nobody takes over from a daemon that was stopped. */
void lease_stop(struct control *c);
void lease_free(struct control *c);
/* The daemon's own record was found to be no longer its own, and what it ran is gone now: a new life
 * begins, which may write to the store; and then it takes the record, to serve.  Repeatable. */
int lease_new_life(struct control *c, struct err **e);
int lease_rejoin(struct control *c, struct err **e);
/* Sees to it that the others know what to fence, should this host die: before what writes begins. */
int lease_clients(struct control *c, struct err **e);
/* Whether it has lost its lease to others and stands down. */
bool lease_lost(struct control *c);

/* --- takeover.c ------------------------------------------------------------------------------ */

int takeover_start(struct control *c, struct err **e);
void takeover_stop(struct control *c);
void takeover_free(struct control *c);
/* There is something to do: a host was declared lost, or this one was. */
void takeover_wake(struct control *c);
