/* The session outlives the process: what a successor needs to go on with the same mount.
 *
 * A holder (stratofs-hold(8), systemd) keeps two descriptors: the FUSE device, and a memory file
 * with all that the kernel will not say twice: the INIT that was negotiated, the open files, and
 * what each worker is at.  A successor maps the file, replays INIT to libfuse, makes the handles
 * anew under the same numbers, and has the kernel send again what was not answered
 * (FUSE_NOTIFY_RESEND, Linux 6.9) or, where it cannot, takes it from a record of its own
 * (fs/record.h).
 *
 * The file is of this host and this boot: its layout has a version, nothing more.  A layout or
 * tables (kinds, attributes) that are not ours are not adopted: the mount is made anew. */
#pragma once

#include <linux/fuse.h>
#include <stdatomic.h>
#include "fs/node.h"

#define UNIQUE_RESENT (UINT64_C(1) << 63) /* linux/fuse.h of 6.9 */
enum {
        HOLD_VERSION = 1,
        HOLD_HANDLES = 65536, /* open files; more are ENFILE */
        HOLD_WORKERS = 96,
        HOLD_SUSPECTS = 256,
        HOLD_STUCK = 1000, /* as tries: the watchdog ended it */
        HOLD_TRIES = 5,    /* a request that ended so many lives gets EIO */
        HOLD_TEXT = 128,   /* of a value, a request or an answer that is on its way */
};
#define HOLD_TABLES (16 << 10)

/* What `text` of an open file is. */
enum held_text { HELD_NONE, HELD_LINE, HELD_PENDING, HELD_ANSWER, HELD_TORN };

/* An open file as the successor finds it. */
struct held_handle {
        _Atomic uint64_t fh; /* 0: free */
        uint64_t unique;     /* the request that opened it */
        uint64_t applied;    /* the last write that it went through, to its end */
        uint64_t ino;
        uint64_t kh; /* who polls it is woken by this number; 0: nobody */
        int32_t flags;
        uint32_t uid, gid, pid;       /* who opened it to write */
        uint64_t next, cursor;        /* as in struct handle */
        uint64_t rendered_len, check; /* the text that reads saw; check 0: read to its end */
        int64_t deadline;             /* of a wait, wall clock; 0: none */
        uint64_t upload;           /* the image that comes in, 0: none; `text` is its file name */
        uint64_t parent, received; /* of an upload */
        int32_t failed;
        uint8_t wrote, read, text_type, out_of_order, cut;
        uint16_t text_len;
        char text[HOLD_TEXT];
};

/* What a worker is at. */
struct held_worker {
        _Atomic uint64_t unique; /* 0: it waits for a request */
        uint32_t opcode;
        uint64_t nodeid;
};

struct held_suspect {
        uint64_t unique;
        uint32_t tries;
};

struct held {
        char magic[8];
        uint32_t version;
        uint32_t layout;         /* sizeof(struct held) */
        uint32_t lives;          /* processes that served this mount */
        uint32_t resends;        /* the kernel sends again what was not answered */
        _Atomic uint32_t bulk;   /* bytes are written through this mount */
        uint64_t session;        /* names this mount's requests in the store */
        _Atomic uint64_t max_no; /* of the objects that the kernel was told of */
        _Atomic int64_t told; /* usec: the kernel was told of every change up to one of that time */
        uint32_t handles_used; /* places that ever were: the rest is not even memory */
        uint32_t init_len, reply_len;
        _Alignas(8) char init[512];
        _Alignas(8) char reply[128];
        char tables[HOLD_TABLES];
        struct held_suspect suspects[HOLD_SUSPECTS];
        struct held_worker workers[HOLD_WORKERS];
        struct held_handle handles[HOLD_HANDLES];
};

struct gate;
struct gate_user;
struct worker;
struct record;

struct hold {
        struct fs *fs;
        struct held *m;
        int memory; /* the memory file */
        int device; /* adopted; else -1 */
        bool adopted, swallow, refused;
        int64_t since;         /* adopted: until then the kernel was told of changes */
        struct record *record; /* NULL: the kernel sends again */
        struct gate *gate;
        pthread_key_t self;    /* struct worker of this thread */
        pthread_mutex_t lock;  /* what follows */
        struct handle **handles;
        uint32_t *generations;
        unsigned lowest; /* no slot below is free */
        struct worker *workers[HOLD_WORKERS];
        pthread_cond_t cond;
        pthread_t watchdog;
        bool watching, stopping;
};

/* One thread that answers requests, and what it answers now. */
struct worker {
        struct hold *hold;
        unsigned cell;
        pthread_t thread;
        uint64_t unique; /* without the mark of a resent one */
        bool again;      /* a life before ours may have begun it */
        unsigned step;   /* changes so far */
        char name[37];
        struct gate_user *gated; /* whose request it is at; NULL: nobody's that is counted */
        void *buffer; /* record.c's */
        void *ready;  /* worker_ready() */
        size_t ready_len;
};

/* cfg->held: adopts what it has, if that can be; else begins a new one.  fs->hold is set. */
int hold_new(struct fs *fs, const struct fs_config *cfg, struct err **e);
void hold_free(struct fs *fs);
/* After the session exists, and is mounted if it is a new one; else INIT is replayed to it.
 * -ESTALE: it is not the session that was; nothing has been said to the kernel. */
int hold_adopt(struct fs *fs);
/* Before the loop: what the kernel kept of the tree is dropped, and what was not answered comes
 * again. */
void hold_resume(struct fs *fs);
/* Somebody was told of object no. */
static inline void hold_told(struct hold *h, uint64_t no)
{
        uint64_t max = atomic_load_explicit(&h->m->max_no, memory_order_relaxed);

        while (no > max && !atomic_compare_exchange_weak(&h->m->max_no, &max, no)) {
        }
}
/* The session ends: nobody keeps it, and it is unmounted. */
void hold_end(struct fs *fs);

/* --- device.c --- */

extern const struct fuse_custom_io hold_io;
/* -errno as the answer, without libfuse. */
void device_refuse(struct hold *h, int fd, uint64_t unique, int error);

/* --- handle.c: see ops.h ---------------------------------------------------------------------- */

/* The open files of the life before, under the same numbers. */
void handles_restore(struct fs *fs);
/* NULL: it is not ours. */
struct handle *handle_get(struct hold *h, uint64_t fh);

/* --- worker.c ------------------------------------------------------------------------------- */

int workers_new(struct hold *h);
void workers_free(struct hold *h);
struct worker *worker_self(struct hold *h);
void worker_begin(struct worker *w, const struct fuse_in_header *in, bool again);
void worker_end(struct worker *w);
/* A thread that is killed may still be given a request, and if the kernel then finds no page to
 * copy it to, it ends it with EIO: so the pages are there before. */
void worker_ready(struct worker *w, void *buf, size_t len);
/* Whether this thread's request made a change that no life before ours began. */
bool worker_changed(struct hold *h);
/* Whether it ended too many lives. */
bool worker_refuses(struct worker *w);
/* The requests that lives before ours died of are counted. */
void workers_suspect(struct hold *h);
int watchdog_start(struct hold *h, unsigned seconds, void (*alive)(void *arg), void *arg);
void watchdog_stop(struct hold *h);
