/* What a migration is made of: migrate.c is the way, move.c what is done to the guest and its
 * volumes, parcel.c its files. */
#pragma once

#include "control/hosts.h"
#include "control/jobs/plan.h"

/* Of an instance that migrates; give it to trip_done(). */
struct trip {
        char id[ID_TEXT_SIZE];
        char parcel[ID_TEXT_SIZE]; /* the volume that its files travel in */
        char from[NAME_SIZE], to[NAME_SIZE];
        char left[16]; /* how it left `from`: "" not yet, stayed, gone, between, lost (the host
                          died) */
        bool live;     /* it runs */
        bool ferried;  /* a guest goes over: itself, or one that never runs and has its disks */
        bool came;     /* its host is the other one now */
        int code;      /* -errno of what went wrong, with words */
        char *words, *arrival;
};
void trip_done(struct trip *t);
/* -EHOSTDOWN: it does not migrate any more. */
int trip_get(struct job *j, struct trip *t, struct err **e);

/* move.c.  Of one that is off, with volumes in a local pool: a guest is there that has its disks and
 * does not run, so that they go over as those of one that does.  Repeatable. */
int load_ferry(struct job *j, struct err **e);
/* Whether a volume of it is in a host's own pool.  Model held. */
bool instance_has_local(const struct object *o);
/* On the host that it leaves: takes the guest to the other one, and says how it left.
 * -ECONNREFUSED the engine is down, -EAGAIN the volume service, -EINTR the daemon stops; any other
 * failure: it goes the way back. */
int move_guest(struct job *j, const struct trip *t, const char **left, struct err **e);
/* There: its disks' waits for a server that is away, which libvirt does not know. */
void seat_it(struct job *j, struct compute *compute, const struct trip *t);
/* There: volumes for the bytes of those in a local pool.  Repeatable. */
int copies_make(struct job *j, struct err **e);
/* Here or there: what this host has of volumes that are now, or still, in another one's pool. */
int copies_drop(struct job *j, struct err **e);
/* Their pool is the other host's from now on. */
void copies_came(struct txn *t, struct object *o, const char *from, const char *to);
/* Here: nothing is left of it. */
int leave(struct job *j, const struct trip *t, struct err **e);
/* Here: it goes on. */
int stay(struct job *j, const struct trip *t, struct err **e);
/* Its folder on this host. */
void drop_files(struct job *j);

/* parcel.c: the instance's folder, as a volume of the pool that all hosts reach; without such a
 * pool nothing.  -ECONNREFUSED.  Repeatable. */
int parcel_send(struct job *j, const struct trip *t, bool logs, struct err **e);
int parcel_receive(struct job *j, const struct trip *t, const char *dir, struct err **e);
/* There, when it has come: what it said before, of a parcel of logs. */
int parcel_logs(struct job *j, const struct trip *t, struct err **e);
bool parcel_travels(const struct control *c); /* whether there is such a pool */
void parcel_drop(struct job *j, const struct trip *t);
