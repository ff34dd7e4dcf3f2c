/* Volumes under power cuts: their model (volume_model.c), the guests (volume_work.c) and what is
 * compared (volume.c). */
#pragma once

#include "backend/volume/volume.h"
#include "powercut.h"

enum volume_event {
        /* vol; off and len in sectors */
        EV_STATE = EV_SUBJECT, /* child: enum there */
        EV_FACTS,              /* child: immutable, off: size, len: or that size */
        EV_SECTORS,            /* off, len; child: id written */
        EV_SETTLED,            /* off, len; child: the id that it is */
        EV_FLUSHED,            /* off, len */
        EV_COPY,               /* child: volume it has the bytes of */
};

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
        char family[VOLUME_ID_SIZE]; /* encrypted; else "" */
        enum how how;
        enum there there;
        bool immutable;
        uint64_t size, or_size; /* bytes */
        struct sector s[SECTORS];
};

struct model {
        struct model_head head;
        unsigned nvols;
        uint32_t busy; /* the volume whose sectors [busy_from, busy_end) are being written */
        uint64_t busy_from, busy_end;
        struct vol v[VOLS];
};

void volume_apply(void *m, const struct event *ev);
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

/* Rows that are more than a kind of operation. */
enum { OP_LONG = 20, OP_MIDDLE, OPERATIONS };
extern const struct operation {
        const char *name;
        unsigned weight; /* 0: never by itself */
        void (*run)(struct work *w);
        bool quiet; /* changes nothing on disk */
} operations[OPERATIONS];

/* See struct subject. */
void work_live(struct life *l);
/* A volume whose map log is nearly long enough to be written anew. */
void work_long_log(struct life *l);
/* With the keys of all that is encrypted. */
struct volume_pool *pool_up(const char *state, const char *run, bool direct);
/* The volume's sectors as ids; its size in sectors. */
size_t read_ids(struct volume *v, uint32_t *ids);

/* ---- encrypted volumes: volume_crypt.c ---- */

extern const char passphrase[];
enum { SEEN_MAKING, SEEN_REMOVING, SEEN_ERASING, CRYPT_SEEN };
/* What a cut left, not opened yet: no bytes of the guest are on disk as they are.  Counts. */
void crypt_before(const struct model *m, const char *state, struct counter *seen);
/* Opened: every encrypted volume is a member and has its header, and there is no other member,
 * family or header. */
void crypt_after(const struct model *m, const char *state, const bool *there);
