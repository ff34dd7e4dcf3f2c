/* Jobs: long work that survives a crash.
 *
 * A job is an object of kind job, stored in the transaction that asked for it, before anything
 * runs.  It runs as steps, each of which can be run twice; the step reached is stored between
 * them.  Jobs of one target run one after the other in the order of their numbers; jobs of
 * different targets run side by side on a few worker threads, which tenants share evenly.
 * After a crash every job that had not ended goes on from its step. */
#pragma once

#include "control/internal.h"

/* What a step may return besides 0 (next step) and -errno (the job fails). */
enum {
        JOB_AGAIN = 1, /* not yet: give job_wait()'s answer */
        JOB_AWAY = 2,  /* its record says that another host goes on with it */
};

struct job {
        struct control *c;
        uint64_t no, target, tenant; /* tenant 0: the cloud's own */
        uint64_t turn;       /* of several hosts: its place among the target's jobs; else 0 */
        const struct job_def *def;
        char *args;          /* as given to job_start(); "" if none */
        unsigned step;
        unsigned tries;      /* of this step, in vain; of a job that insists */
        uint64_t value;      /* what a step tells done(): the last step is always run again */
        char *result;        /* what the last step tells done(), beside value; freed with the job */
        int64_t deadline;    /* usec, wall clock */
        uint64_t watch;      /* parked: a change of this object wakes it; 0: only `wake` */
        int64_t wake;        /* monotonic usec */
        atomic_bool cancel;  /* somebody wrote cancel, or the daemon stops */
        bool running, parked;
        bool counted;        /* among its target's jobs */
        bool foreign;        /* another host runs it; here it only keeps its place in the order */
        bool ending;         /* its end is on the way to the store: it will not look again */
        bool hurried;        /* its time is over, by request */
        bool begun;          /* a step has run since the daemon's start */
        uint64_t seen[16];   /* objects that changed while it ran: it may be about to wait for one */
        unsigned nseen;
        char *waiting;       /* why it is parked, for people */
        struct job *next, *prev;
};

struct job_step {
        const char *name;
        int (*run)(struct job *j, struct err **e);
        bool light; /* not stored when it is done: after a crash it is run again, which costs less */
};

struct job_def {
        const char *op;
        unsigned deadline; /* seconds */
        bool cancellable;
        bool settles;      /* its steps look themselves whether it is cancelled or overdue, and bring
                            * what they began to an end */
        bool aside;        /* younger jobs of its target need not wait for it */
        bool here;         /* of several hosts, the one that was asked begins it */
        bool patient;      /* ECONNREFUSED and ETIMEDOUT of a driver mean "again", not failure,
                            * as ECONNRESET does for all */
        bool insists;      /* nothing that a driver says ends it before its deadline: a deletion,
                            * whose name is gone already */
        const struct job_step *steps;
        unsigned nsteps;
        /* In the transaction that ends the job.  target may be NULL (gone).  JOB_AGAIN: start over
         * from step 0 (something changed meanwhile). */
        int (*done)(struct job *j, struct txn *t, struct object *target, struct err **e);
        void (*failed)(struct job *j, struct txn *t, struct object *target, const struct err *err);
        /* Optional: before failed(), without a lock: take back what steps did.  Repeated until 0. */
        int (*undo)(struct job *j);
        /* Optional: once its success is durable and told, without a lock: what nobody waits for, and
         * what is made up for elsewhere if the daemon dies first.  Later jobs of its target begin
         * after it.  The target may be gone. */
        void (*after)(struct job *j);
};

extern const struct job_def *const job_defs[]; /* NULL-terminated */

/* Records the job in t; it runs once t is durable. */
struct object *job_start(struct txn *t, struct object *target, const struct job_def *def,
                         const char *args);
/* Whether a live job of that target and op is there that will see what is changed now.  Model held.
 */
bool job_live(struct control *c, uint64_t target, const struct job_def *def);
/* The same, with these args. */
bool job_live_for(struct control *c, uint64_t target, const struct job_def *def, const char *args);

/* For steps. */
void job_progress(struct job *j, uint64_t done, uint64_t total);
/* Gives JOB_AGAIN: run the step again after usec (0: only at the deadline), or when object watch
 * (0: none) has changed.  The words say what it waits for. */
int job_wait(struct job *j, uint64_t watch, int64_t usec, const char *fmt, ...) _printf_(4, 5);
/* Whether the record still says that this host runs it.  Model held. */
bool job_mine(const struct job *j, const struct object *o);
int job_cancelled(struct job *j, struct err **e); /* 0, -ECANCELED, or -EINTR: the daemon stops */

/* Engine. */
void jobs_init(struct control *c);
void jobs_adopt(struct control *c, struct object *job); /* model write-held: a durable, live job */
/* The record of a job was changed, durably, by this host or another: what it means for who runs it.
 * Model write-held. */
void jobs_seen(struct control *c, struct object *job);
/* It was deleted.  Model write-held, o still there. */
void jobs_gone(struct control *c, struct object *job);
void jobs_run(struct control *c);                       /* start workers for what is there */
bool jobs_idle(struct control *c);                      /* no step is running */
void jobs_stop(struct control *c); /* waits for running steps; nothing runs afterwards */
void jobs_free(struct control *c);
void jobs_changed(struct control *c, uint64_t no);      /* object no changed, durably; 0: jobs came or went */
/* owner.c: the host that is to run such a job; may edit the tenant. */
/* Sees to it that the tenant has a keeper. */
void owner_keep(struct txn *t, struct object *tenant);
const char *owner_choose(struct txn *t, struct object *target, const struct job_def *def);
/* Ends what is under way for that target, where it waits or at its next step, as if it had taken too
 * long.  Gives how many jobs of this host that concerns.  Model held. */
unsigned jobs_hurry(struct control *c, uint64_t target);
int job_cancel(struct txn *t, struct object *o, const char *args, struct err **e);
