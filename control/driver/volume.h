/* The volume service as control/ sees it: blockd, behind its control socket.
 *
 * Every call is idempotent by its ids: repeating one whose answer was lost is safe, and what is
 * already so is success.  Every call blocks (milliseconds, import and clone included) and may be
 * made on any worker thread, never on a FUSE thread.
 * Errors: -ENOENT no such volume, -EEXIST there with other facts, -EBUSY exported, -ENOSPC full,
 * -ECONNREFUSED blockd is down (the job waits and tries again), -ETIMEDOUT outcome unknown. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include "common/err.h"

struct volume_facts {
        char id[37];
        uint64_t size;     /* bytes the guest sees */
        uint64_t used;     /* bytes this volume itself occupies */
        char parent[37];   /* the image or volume it was cloned from, "" if none or flattened */
        unsigned exports;  /* how many exports it has now */
        bool flattening;   /* see flatten */
        uint64_t flatten_done, flatten_total; /* bytes */
        int flatten_failed;                   /* -errno: it has stopped until asked again */
        char family[37];   /* encrypted: the family whose key it has; else "" */
        bool locked;       /* encrypted, and blockd has not been given the key */
};

struct volume_export {
        const char *id;     /* the attachment's id: one export, one socket */
        const char *volume;
        uid_t uid;          /* who may enter the socket's folder */
        gid_t gid;
        bool readonly;
};

/* 0: no limit, no burst.  From rest a volume may run at the burst rate for that many seconds. */
struct volume_limits {
        uint64_t iops, bandwidth;             /* a second; bandwidth in bytes */
        uint64_t iops_burst, bandwidth_burst; /* a second */
        uint64_t burst_seconds;
};

enum volume_req {
        VOLUME_REQ_READ,
        VOLUME_REQ_WRITE,
        VOLUME_REQ_FLUSH,
        VOLUME_REQ_TRIM,
        VOLUME_REQ_ZERO,
        VOLUME_REQ_STATUS,
        VOLUME_REQ_CACHE,
        VOLUME_REQS
};
enum { VOLUME_LATENCIES = 28 };
/* What guests and tools did with a volume, over all its exports. */
struct volume_stats {
        char id[37];
        int64_t since; /* usec, wall clock: counted from here on */
        uint64_t in_flight;
        struct volume_req_stats {
                uint64_t ops, bytes, errors;
                uint64_t usec;                      /* that all of them took together */
                uint64_t latency[VOLUME_LATENCIES]; /* [i]: took less than 2^i usec, and not less
                                                     * than half of it; the last: the rest */
        } op[VOLUME_REQS];
};

enum volume_check_state {
        VOLUME_CHECK_NONE, /* none was begun, or the volume service has restarted */
        VOLUME_CHECK_RUNNING,
        VOLUME_CHECK_DONE,
        VOLUME_CHECK_CANCELLED,
        VOLUME_CHECK_FAILED,
};
struct volume_check_request {
        char id[37];
        char token[24]; /* one that was begun under it is not begun again */
        bool start, cancel;
        bool scrub; /* read all blocks */
        bool sums;  /* give checksums to those that will not change any more */
};
struct volume_report {
        enum volume_check_state state;
        uint64_t done, total;     /* bytes or steps */
        uint64_t found, repaired; /* repaired of found */
        char *findings;           /* a line each, perhaps not all of them */
        char *words;              /* of a failure */
};
static inline void volume_report_done(struct volume_report *r)
{
        free(r->findings);
        free(r->words);
        *r = (struct volume_report){};
}

/* A volume that goes to another pool, see move. */
struct volume_journey {
        const char *id, *from, *to; /* labels of pools */
        const char *space;          /* as for place */
        const char *passphrase;     /* of an encrypted one's key there; else "" */
        uint64_t off;
};

/* A snapshot, and what the pool's engine calls it. */
struct volume_named {
        char id[37], name[128];
        uint64_t size;
};

struct volume_service;
struct volume_service_ops {
        const char *name;
        int (*ping)(struct volume_service *s, struct err **e);
        /* Optional, with one pool: in which pool, and whose namespace of it ("": none), the volume is to
         * be made by the next call.  There already is success; in another pool -EEXIST. */
        int (*place)(struct volume_service *s, const char *id, const char *pool, const char *space,
                     struct err **e);
        /* Optional, both.  Copies a piece to another pool; off is 0 at first, then what *ret_next was,
         * until that is the size.  Nobody can open it meanwhile.  Then move_end makes the copy the
         * volume, or forgets it.  Repeatable; -EBUSY: it is open. */
        int (*move)(struct volume_service *s, const struct volume_journey *m, uint64_t *ret_next,
                    uint64_t *ret_size, struct err **e);
        int (*move_end)(struct volume_service *s, const struct volume_journey *m, bool moved,
                        struct err **e);
        /* Optional, both: what the pool's engine has under that name becomes a volume, and back. */
        /* *ret (the caller frees): the snapshots that came with it, the same when it is done again. */
        int (*adopt)(struct volume_service *s, const char *id, const char *pool, const char *name,
                     struct volume_named **ret, size_t *ret_n, struct err **e);
        /* v: what its snapshots are to be called there. */
        int (*release)(struct volume_service *s, const char *id, const char *name,
                       const struct volume_named *v, size_t n, struct err **e);
        /* Optional: a key for a tenant's namespace, *ret (the caller frees), or none any more. */
        int (*grant)(struct volume_service *s, const char *pool, const char *space, bool revoke,
                     char **ret, struct err **e);
        int (*create)(struct volume_service *s, const char *id, uint64_t size, struct err **e);
        /* Takes over the raw file at path as an immutable base that clones grow from.  Same file
         * system: a hard link; the caller may remove its name afterwards. */
        int (*import)(struct volume_service *s, const char *id, const char *path, struct err **e);
        /* O(1), whatever the size.  size >= the parent's; what is past the parent reads as zeros. */
        int (*clone)(struct volume_service *s, const char *id, const char *parent, uint64_t size,
                     struct err **e);
        /* id becomes what volume holds now, for ever: O(1), also while it is written. */
        int (*snapshot)(struct volume_service *s, const char *id, const char *volume,
                        struct err **e);
        int (*resize)(struct volume_service *s, const char *id, uint64_t size, struct err **e);
        /* Cuts off what is past size.  -EBUSY while exported. */
        int (*shrink)(struct volume_service *s, const char *id, uint64_t size, struct err **e);
        /* O(1): the volume's bytes and size become those of `to`, a snapshot of it; its snapshots all
         * stay.  -EBUSY while exported, -EINVAL of another volume. */
        int (*revert)(struct volume_service *s, const char *id, const char *to, struct err **e);
        /* Starts (or cancels) to make it independent of what it was cloned from, in the background;
         * stat tells how far it is, and has no parent when it is done. */
        int (*flatten)(struct volume_service *s, const char *id, bool cancel, struct err **e);
        /* The whole set, durable when answered, and live: it holds for I/O that waits already. */
        int (*set_limits)(struct volume_service *s, const char *id, const struct volume_limits *l,
                          struct err **e);
        /* Every volume that was used or limited since blockd's start. */
        int (*stats)(struct volume_service *s,
                     int (*each)(void *arg, const struct volume_stats *v), void *arg,
                     struct err **e);
        /* Encrypted, the first of a family that has its id; its clones and snapshots are members
         * by themselves.  -EEXIST, -EKEYREJECTED (it is there, with another passphrase). */
        int (*create_encrypted)(struct volume_service *s, const char *id, uint64_t size,
                                const char *passphrase, struct err **e);
        /* Gives the key of the volume's family, without which no member can be read.
         * -EKEYREJECTED. */
        int (*key)(struct volume_service *s, const char *id, const char *passphrase,
                   struct err **e);
        /* `next` opens the volume's family from now on, and the passphrase does not any more.
         * Repeatable.  -EBUSY: other volumes share the key; -EKEYREJECTED: neither opens it. */
        int (*rekey)(struct volume_service *s, const char *id, const char *passphrase,
                     const char *next, struct err **e);
        /* Optional: one member of every family whose key must be given, some of them if many. */
        int (*locked)(struct volume_service *s,
                      int (*each)(void *arg, const char *id, const char *family), void *arg,
                      struct err **e);
        /* Copies a piece of `from` to the same place in id and gives where the next one begins,
         * the size of `from` after the last.  Repeatable. */
        int (*copy)(struct volume_service *s, const char *id, const char *from, uint64_t off,
                    uint64_t *ret_next, struct err **e);
        /* Begins, shows or cancels a check of the volume; it runs by itself, also while the volume is
         * used.  -EBUSY: another one runs.  The caller gives *ret to volume_report_done(). */
        int (*check)(struct volume_service *s, const struct volume_check_request *q,
                     struct volume_report *ret, struct err **e);
        /* A parent's bytes live on, nameless, until its last clone is gone.  Missing is success. */
        int (*remove)(struct volume_service *s, const char *id, struct err **e);
        int (*stat)(struct volume_service *s, const char *id, struct volume_facts *ret,
                    struct err **e);
        int (*list)(struct volume_service *s,
                    int (*each)(void *arg, const struct volume_facts *f), void *arg,
                    struct err **e);
        /* Gives the socket's path (caller frees).  The export is durable: blockd brings it back by
         * itself.  NBD export name on that socket: the volume's id, and "" too. */
        int (*export)(struct volume_service *s, const struct volume_export *x, char **ret_socket,
                      struct err **e);
        /* Closes the export, its connections and its socket.  Missing is success. */
        int (*unexport)(struct volume_service *s, const char *id, struct err **e);
        /* A guest that has the volume open moves to another host: active false flushes it and gives
         * it up to that host's service, and what the guest still writes waits for a true, which takes
         * it back, or for the guest's end.  Of a pool that only one host has: nothing to do. */
        int (*activate)(struct volume_service *s, const char *id, bool active, struct err **e);
        int (*list_exports)(struct volume_service *s,
                            int (*each)(void *arg, const char *id, const char *volume), void *arg,
                            struct err **e);
        /* Optional: makes its connections to where volumes are anew, as other hosts have barred those
         * it has.  Nothing is exported. */
        int (*renew)(struct volume_service *s, struct err **e);
        void (*close)(struct volume_service *s);
};
struct volume_service {
        const struct volume_service_ops *ops;
        /* The socket where root and blockd's own uid may open any volume by its id. */
        const char *shared_socket;
};
