/* The model: every object, in memory.
 *
 * Readers hold the read lock for as long as they touch an object (microseconds, no I/O).  Changes
 * are made by transactions only (control/txn.h), which hold the write lock while they compute and
 * let it go before the store's I/O.  Nobody keeps a pointer past the lock: keep `no` instead. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <systemd/sd-id128.h>
#include <uthash.h>
#include "common/clock.h"
#include "common/name.h"
#include "control/kind.h"

struct link {
        unsigned def;        /* index in kind->links */
        unsigned slot;       /* number of its own within the object: stable node id */
        char *name;
        struct object *target;
        int64_t created;     /* usec */
        bool leaving;        /* a detach job is taking it away */
        char id[ID_TEXT_SIZE]; /* of this binding: an attachment's id */
};

struct meta {
        unsigned slot;
        char *key;
        char *value; /* as read: ends in a newline if it was written with one */
        int64_t updated;
};

struct object {
        uint64_t no;             /* stable, never reused; 1 is the cloud itself */
        sd_id128_t id;
        const struct kind *kind;
        struct object *tenant;   /* NULL for global kinds */
        struct object *holder;   /* whose collection it is in, where that is no tenant's */
        char *name;
        bool nameless;           /* removed by rmdir, its job still runs: only under .id/ */
        uint64_t rev;            /* version in the store, +1 a change */
        unsigned state;          /* index in kind->states */
        int64_t created, updated, state_since; /* usec */
        union value *vals;       /* kind->nattrs */
        struct link *links;
        unsigned nlinks;
        struct meta *meta;
        unsigned nmeta;
        unsigned next_slot;      /* for links and metadata */
        char *error;             /* last failure's record, as shown; NULL if none */
        struct object **refs;    /* objects with a link to this one, one entry a link */
        unsigned nrefs;
        uint64_t job;            /* no of the job that runs on it, 0 if none; not stored */
        unsigned jobs;           /* live jobs that target it; not stored */
        bool failed;             /* its last job did; not stored */
        uint64_t done, total;    /* progress of a job or an upload; not stored */
        char *shown;             /* a key that is told while the daemon runs; not stored */
        unsigned writers;        /* open writers of its `data`; not stored */
        struct taken *taken;     /* of an instance: what it counts for in hosts' sums; not stored */
        atomic_ullong told;      /* TOLD_..., set by the mount under a read lock; not stored */
        UT_hash_handle hh_no, hh_id, hh_name;
};

/* The objects of one kind in one tenant (or in the cloud, or in an object), ordered by no: a
 * directory. */
struct collection {
        const struct kind *kind;
        struct object *owner;    /* tenant, the cloud object, or the holder */
        struct object **v;
        size_t n, size;
        int64_t changed;         /* usec of the last name added or removed; never the same twice */
        atomic_uchar told;       /* TOLD_SELF: of the directory itself */
};

/* What of an object somebody outside keeps a copy of: the name it is found by, its directory's
 * attributes, and, with a bit for each as the mount chooses, those of what is in it.  A change takes
 * the marks of what it makes void, and tells. */
#define TOLD_NAME 1ull
#define TOLD_SELF 2ull
#define TOLD_FILES (~(TOLD_NAME | TOLD_SELF))

enum { OBJECT_CLOUD = 1 };
enum { CLOUD_UP, CLOUD_NEW };

/* All of these: some model lock held, NULL when there is none. */
struct object *model_by_no(struct control *c, uint64_t no);
/* Every object's number, in no order (caller frees). */
size_t model_numbers(struct control *c, uint64_t **ret);
struct object *model_by_id(struct control *c, sd_id128_t id);
/* owner: a tenant or a holder; not looked at for global kinds. */
struct object *model_by_name(struct control *c, const struct object *owner, const struct kind *k,
                             const char *name);
/* Whose collection o is in: its holder, its tenant, or the cloud. */
struct object *object_owner(struct control *c, const struct object *o);
/* Whether objects of kind k hold collections of kind `of`. */
bool kind_holds(const struct kind *k, const struct kind *of);
/* owner: a tenant, model_by_no(OBJECT_CLOUD) for global kinds, or a holder, which has none before its
 * first object. */
struct collection *model_collection(struct control *c, const struct object *owner,
                                    const struct kind *k);
/* Index in v of the first object with no >= `no`: the resume point of a directory read. */
size_t collection_find(const struct collection *l, uint64_t no);

void control_rdlock(struct control *c);
void control_unlock(struct control *c);

/* Small views of an object. */
const char *object_state(const struct object *o);
bool object_in(const struct object *o, unsigned states);
uint64_t object_num(const struct object *o, const char *attr);    /* stored value */
const char *object_str(const struct object *o, const char *attr); /* never NULL */
struct link *object_link(const struct object *o, unsigned def, const char *name);
/* The target of a single link, NULL if not set. */
struct object *object_target(const struct object *o, const char *link);
struct meta *object_meta(const struct object *o, const char *key);
/* "volume 'root'" for words. */
char *object_label(const struct object *o, char out[NAME_SIZE + 32]);
#define object_foreach_link(l, o)                                                                  \
        for (struct link *l = (o)->links; l && l < (o)->links + (o)->nlinks; l++)
