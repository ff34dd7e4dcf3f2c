/* A layer: one sparse data file and, when it has a parent, the map of what it holds.
 *
 * A layer without parent has no map: all of it is its own.  The top layer of a volume is writable;
 * the others are frozen for ever and may be shared by many volumes.
 *
 * While it is writable a layer's map is a file in the run folder, mapped shared ("live map"), so
 * it survives the process: <run>/map/<volume>.<layer>, one header page with the boot id, then the
 * map's memory.  A live map of another boot is worth nothing and is made anew from the log. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "backend/volume/local/folio.h"
#include "backend/volume/local/map.h"
#include "backend/volume/local/maplog.h"
#include "backend/volume/volume.h"

struct index;

struct layer {
        struct layer *_Atomic parent; /* a reference; changes when a merge has replaced it */
        unsigned refs;                /* guarded by the pool's layers_lock */
        atomic_uint lent;             /* 1 for itself, 1 for each descriptor that is lent */
        uint64_t overlap;             /* bytes of the parent that are seen */
        struct index *index;          /* of an open stack's top: what is below it; may be NULL */
        void *owner;                  /* the pool's entry that lists it */
        int fd;                       /* data file */
        int direct_fd;                /* the same past the page cache; -1: buffered only */
        /* The data file once more, for writes that are durable each by itself: a writeback error
         * that one of them meets is told to a flush as well.  -1: not needed yet. */
        atomic_int durable_fd;
        _Atomic bool waits;       /* its file system has no RWF_NOWAIT */
        bool dense;               /* when it was opened, the data file had no holes */
        _Atomic unsigned flushes; /* odd while one goes on, and for good after one that failed */
        struct folios folios;     /* of a writable, buffered one */
        int log_fd;               /* map log; -1 unless mapped and writable */
        char *dir;                /* the volume's folder */
        char *live_path;          /* of the live map; NULL unless mapped and writable */
        int live_fd;
        bool left; /* the live map was found: the blockd that had it open did not close it */
        struct maplog_id id; /* its layer: the number of the map's file */
        unsigned data;       /* the number of its data file */
        uint64_t size;       /* bytes; what is past it reads as zeros */
        uint64_t bytes;      /* of the data file, which may be shorter (an import's tail) */
        bool mapped;
        struct map map;
        uint64_t log_end, log_next; /* where, and with which group, the log goes on */
        /* What the log said when it was opened may be in the page cache alone, its name too: who
         * wrote it may have been killed before they were synced. */
        atomic_bool log_unsynced;
        bool mark_unsynced; /* what append_mark() wrote last */
        /* First writes to a block: shared if whole, exclusive if copied up.  With direct_fd any
         * write: shared if direct, exclusive if through the page cache, because a page that was
         * read before a direct write must not be written back after it. */
        pthread_rwlock_t alloc;
        struct sums *_Atomic sums; /* checksums of a frozen one's blocks, see sums.h; or NULL */
};

/* Where a piece of a volume comes from. */
struct piece {
        struct layer *layer; /* the one whose data file has it; NULL: zeros */
        uint64_t len;
        bool hole; /* zeros because nobody ever wrote it */
};

struct layer_open {
        const char *dir, *run; /* the volume's folder; the run folder */
        const char *volume;
        unsigned data, map; /* numbers of its files */
        uint64_t size, overlap;
        bool mapped, writable, direct;
        bool may_be_torn;     /* frozen, but maybe cut off before its log was whole */
        struct layer *parent; /* its reference is taken over on success */
};

/* Opens (or, writable and missing, makes) the layer's files. */
int layer_open(const struct layer_open *o, struct layer **ret, struct err **e);
/* Closes without flushing, when nothing of it is lent any more; does not follow the parent.  NULL
 * is left alone. */
void layer_free(struct layer *l);
/* No more writes: the log is closed and the live map forgotten.  Everything must be flushed. */
void layer_freeze(struct layer *l);
/* Whether it was not frozen yet: maybe not all of it is durable.  NULL: no. */
bool layer_unsettled(const struct layer *l);
int layer_grow(struct layer *l, uint64_t size);

/* Data and then the map's changes to disk.  -ENOSPC (log did not fit; may be tried again) or
 * another -errno after which nothing may be called durable any more.  One caller at a time. */
int layer_flush(struct layer *l);
/* After a flush, before the layer is frozen: the log of a frozen one has no torn tail, or is
 * damaged.  -EIO as layer_flush(). */
int layer_settle(struct layer *l);
/* Whether the log is much longer than what it says. */
bool layer_wants_compact(const struct layer *l);
/* Writes the log anew.  No writer may run; everything must be flushed. */
int layer_compact(struct layer *l);

/* The log anew from the map, under its name and synced; the new file is the caller's to close.
 * Nothing may be dirty. */
int layer_relog(struct layer *l, uint64_t *ret_end, int *ret_fd);

/* I/O on the stack that ends in this layer, see io.c.  In range; whole or -errno. */
struct piece layer_resolve(struct layer *l, uint64_t off, uint64_t n);
/* The same layer by layer, without the index. */
struct piece layer_walk(struct layer *l, uint64_t off, uint64_t n);
int layer_read(struct layer *l, void *p, size_t n, uint64_t off);
int layer_write(struct layer *l, const void *p, size_t n, uint64_t off);
/* Whether a write there is durable once its bytes are: no change of the map is part of it or under
 * way. */
bool layer_settled(struct layer *l, uint64_t n, uint64_t off);
/* After whole blocks were written to the data file, with alloc: the map says so. */
int layer_wrote(struct layer *l, uint64_t n, uint64_t off);
/* Whether layer_write_durable() has its descriptor. */
bool layer_durable_ready(struct layer *l);
/* Only where layer_settled() and layer_durable_ready(), in a buffered layer: durable on return. */
int layer_write_durable(struct layer *l, const void *p, size_t n, uint64_t off);
int layer_zero(struct layer *l, uint64_t n, uint64_t off, unsigned flags);
int layer_trim(struct layer *l, uint64_t n, uint64_t off);
int layer_extents(struct layer *l, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
/* Whether the range begins with a hole or zeros: cheap, unlike an extent of data, whose end may be
 * far away. */
bool layer_starts_sparse(struct layer *l, uint64_t n, uint64_t off);
void layer_cache(struct layer *l, uint64_t n, uint64_t off);

/* The file of the range's first piece, to be given back with layer_free(ret->lender); 0: zeros. */
int layer_lend(struct layer *l, uint64_t n, uint64_t off, struct volume_file *ret);
/* A log that says what the map says, to a new file; synced. */
int layer_log_write(const struct map *m, const struct maplog_id *id, const char *path);

char *layer_data_path(const char *dir, unsigned n);
char *layer_log_path(const char *dir, unsigned n);
char *layer_live_path(const char *run, const char *volume, unsigned n);
/* maplog source over a descriptor. */
ssize_t layer_log_read(void *fd, void *p, size_t n, uint64_t off);
