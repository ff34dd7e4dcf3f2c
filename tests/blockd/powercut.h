/* Power cuts, simulated: what the parts of the test `powercut` share.
 *
 * A child runs random guest workloads on the local engine; each change that it makes below a folder
 * goes into a log in shared memory (record.c), between notes of what the guest was promised
 * (model.c).  The parent replays the log into a simulated disk (disk.c) that knows, of each sector,
 * size and name, every value since it was last synced, writes states out that a power cut may
 * leave, opens them with the engine and compares (powercut.c). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include "backend/volume/volume.h"

enum { SECTOR = VOLUME_SECTOR };

#define CHECK(cond, ...)                                                                           \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        broken(__VA_ARGS__);                                                       \
        } while (0)
/* Says where the seed stands, and aborts. */
_Noreturn void broken(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- numbers ---- */

struct rnd {
        uint64_t s;
};
uint64_t rnd_next(struct rnd *r);
unsigned rnd_below(struct rnd *r, unsigned n);
static inline bool rnd_one_in(struct rnd *r, unsigned n)
{
        return rnd_below(r, n) == 0;
}

/* ---- the log ---- */

enum event_kind {
        /* of the file system */
        EV_WRITE,      /* node, off, len, data */
        EV_ZERO,       /* node, off, len: inside the file */
        EV_SIZE,       /* node, off */
        EV_ENTRY,      /* node (a folder), data: name, child: node or NONE */
        EV_SYNC,       /* node */
        EV_SYNC_RANGE, /* node, off, len */
        /* of the model: vol; off and len in sectors */
        EV_OP,      /* child: row of the table of operations, NONE: between two */
        EV_STATE,   /* child: enum there */
        EV_FACTS,   /* child: immutable, off: size, len: or that size */
        EV_SECTORS, /* off, len; child: id written */
        EV_SETTLED, /* off, len; child: the id that it is */
        EV_FLUSHED, /* off, len */
        EV_COPY,    /* child: volume it has the bytes of */
};
#define NONE UINT32_MAX

struct event {
        uint32_t kind, node, child, vol;
        uint64_t off, len, data;
};

enum { NODES_MAX = 8192, EVENTS_MAX = 1 << 17 };
#define LOG_BYTES (UINT64_C(192) << 20)

struct log {
        uint32_t n, nodes;
        uint64_t used;
        uint32_t next_id;
        struct event ev[EVENTS_MAX];
        struct node {
                ino_t ino; /* 0: has no name any more */
                bool folder;
        } node[NODES_MAX];
        uint8_t bytes[LOG_BYTES];
};
extern struct log *the_log; /* shared with the children */

struct event *log_add(enum event_kind kind);

/* record.c: while it is on, what changes below top is logged. */
struct record {
        const char *top; /* node 0 */
        bool on;
        unsigned kill_in;    /* SIGKILL before the nth change from now, 0: not */
        unsigned nospace_in; /* ENOSPC from the nth on that may need room, 0: not */
        unsigned ticks;      /* changes so far */
};
extern struct record the_record;

/* A fresh log for a folder as it is, all of it durable. */
void record_begin(const char *top);

/* ---- the disk ---- */

struct disk;
struct disk *disk_new(void);
void disk_free(struct disk *d);
/* Takes a folder as it is, durable, as node 0, in the order of record_begin(). */
void disk_load(struct disk *d, const char *top);
void disk_apply(struct disk *d, const struct event *ev, uint32_t at);

/* How to choose among the values since the last sync. */
struct cut {
        unsigned newest, oldest; /* of 256: takes that one; else any */
        bool ordered;            /* sizes and names as of one moment, as a journal keeps them */
};
/* Makes top as a power cut before event `at` may leave it.  How many things could be otherwise. */
unsigned disk_write(const struct disk *d, const char *top, uint32_t at, struct cut cut,
                    struct rnd *r);
/* Whether all that was logged is what the folder has: that nothing was missed. */
void disk_compare(const struct disk *d, const char *top);

/* ---- the model ---- */

enum {
        VOLS = 96,      /* in one generation */
        SECTORS = 2304, /* of a volume at most */
        PENDING = 10,   /* values of a sector since a flush */
};

enum there { NEVER, MAKING, YES, REMOVING, GONE };

struct sector {
        uint32_t now;
        uint32_t n; /* of was: values it may still have */
        uint32_t was[PENDING];
};

enum how { CREATE, IMPORT, CLONE, SNAPSHOT };

struct vol {
        char id[VOLUME_ID_SIZE];
        char parent[VOLUME_ID_SIZE];
        enum how how;
        enum there there;
        bool immutable;
        uint64_t size, or_size; /* bytes */
        struct sector s[SECTORS];
};

struct model {
        uint32_t op;
        bool settled; /* the first life has asked what a power cut left */
        unsigned nvols;
        uint32_t busy; /* the volume whose sectors [busy_from, busy_end) are being written */
        uint64_t busy_from, busy_end;
        struct vol v[VOLS];
};

void model_apply(struct model *m, const struct event *ev);
/* Logs and applies. */
void note(struct model *m, const struct event *ev);
/* 512 bytes that say who they are. */
void sector_fill(uint8_t *p, uint32_t id, uint32_t sector);
/* The id; NONE for what nobody wrote there. */
uint32_t sector_id(const uint8_t *p, uint32_t sector);

/* work.c: the workload */

struct work {
        struct rnd r;
        struct model *m; /* shared with the parent */
        struct volume_pool *pool;
        struct volume *open[VOLS];
        const char *dir; /* holds disk/state, run, src */
        bool direct;
        bool nospace; /* calls may fail of it */
};

extern const struct operation {
        const char *name;
        unsigned weight; /* 0: never by itself */
        void (*run)(struct work *w);
} operations[];
extern const unsigned noperations;

/* One life of the engine: opens, asks what became of what was under way, does so many operations.
 * cut: what is found may also be older. */
void work_live(struct work *w, unsigned ops, bool cut);
/* Without a log: a volume whose map log is nearly long enough to be written anew. */
void work_long_log(struct work *w);
struct volume_pool *pool_up(const char *state, const char *run, bool direct);
/* The volume's sectors as ids; its size in sectors. */
size_t read_ids(struct volume *v, uint32_t *ids);
