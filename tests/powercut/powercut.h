/* Power cuts, simulated: what the tests `powercut_*` share.
 *
 * A child runs a random workload on what is tested, the subject; each change that it makes below a
 * folder goes into a log in shared memory (record.c), between notes of what it was promised.  The
 * parent replays the log into a simulated disk (disk.c) that knows, of each sector, size and name,
 * every value since it was last synced, writes states out that a power cut may leave, and has the
 * subject open and compare them (powercut.c).
 *
 * Subjects: volumes (volume*.c), backups (backup.c), the store (store.c). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include "common/err.h"

enum { SECTOR = 512 };

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
        EV_FILES,      /* how many there are */
        /* of the model */
        EV_OP = EV_FILES, /* child: row of the table of operations, NONE: between two */
        EV_SUBJECT,       /* the subject's own begin here */
};
#define NONE UINT32_MAX

struct event {
        uint32_t kind, node, child, vol;
        uint64_t off, len, data;
};

enum { NODES_MAX = 8192, EVENTS_MAX = 1 << 17 };
#define LOG_BYTES (UINT64_C(256) << 20)

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

struct event *log_add(uint32_t kind);

/* record.c: while it is on, what changes below top is logged. */
struct record {
        dev_t dev;
        bool on;
        unsigned kill_in;    /* SIGKILL before the nth change from now, 0: not */
        unsigned nospace_in; /* ENOSPC from the nth on that may need room, 0: not */
        unsigned nosync_in;  /* EIO from the nth sync of a file on, 0: not */
        unsigned ticks;      /* changes so far */
};
extern struct record the_record;

/* A fresh log for the folder top as it is, node 0, all of it durable. */
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

/* ---- the subject ---- */

/* Begins every subject's model. */
struct model_head {
        uint32_t op;
        bool settled; /* the first life has asked what a power cut left */
};

struct life {
        struct rnd r;
        void *m;         /* the model, shared with the parent */
        const char *dir; /* holds disk, which is recorded; the rest is no part of it */
        uint64_t seed;
        unsigned ops; /* to do */
        bool cut;     /* what is found may also be older: a power cut was before */
};

/* Each must have been seen when the test ends. */
struct counter {
        const char *name;
        uint64_t n;
};

extern const struct subject {
        const char *name;
        size_t model; /* bytes */
        unsigned ops; /* in a life */
        unsigned nops;
        const char *(*op_name)(uint32_t op);
        /* Whether there must be a cut during it. */
        bool (*op_counts)(uint32_t op);
        struct counter *counters;
        unsigned ncounters;
        /* Once; argument: what follows the options, or NULL. */
        void (*begin)(const char *dir, const char *argument);
        void (*end)(void);
        /* Of a seed. */
        void (*reset)(void *m);
        /* A seed that begins with `prepare`, a life that is not recorded; its states are large. */
        bool (*large)(uint64_t seed);
        void (*prepare)(struct life *l);
        /* One life: opens, asks what became of what was under way, works.  In a child. */
        void (*life)(struct life *l);
        /* Of the subject's events. */
        void (*apply)(void *m, const struct event *ev);
        /* Before the replay: m takes the names of what live came to know. */
        void (*names)(void *m, const void *live);
        /* Opens what a cut left in `top` and compares with m; run: for what need not survive. */
        void (*check)(const void *m, const char *top, const char *run, struct rnd *r);
        /* m is what the next generation begins with. */
        void (*adopt)(void *m, const void *live);
} subject;

void model_apply(void *m, const struct event *ev);
/* Logs and applies. */
void note(void *m, const struct event *ev);
