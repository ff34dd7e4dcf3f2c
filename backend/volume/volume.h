/* Volumes: the interface that drivers implement, and the checked front door to it.
 *
 * A pool is one driver on one target (a folder, a Ceph pool).  A volume is a numbered space of
 * bytes in a pool, named by a UUID.  Nobody calls a driver's pointers but volume.c: it checks
 * range, flags and state, and sees to it that every failure has words.
 *
 * Threads: any function may be called from any thread; an open volume is used by many at once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

enum {
        VOLUME_ID_SIZE = 37,
        VOLUME_SNAP_NAME = 128,
        VOLUME_SECTOR = 512,        /* sizes are multiples of it */
        VOLUME_IO_MAX = 32 << 20,   /* bytes in one pread or pwrite */
        VOLUME_CRYPT_SECTOR = 4096, /* sizes of encrypted volumes are multiples of it */
        VOLUME_POOLS = 8,           /* behind one front door */
        VOLUME_LABEL_SIZE = 256,
};
#define VOLUME_SIZE_MAX (UINT64_C(1) << 48) /* 256 TiB */

enum volume_flags {
        VOLUME_FUA = 1,     /* durable before the call returns */
        VOLUME_NO_HOLE = 2, /* zero: keep or make the room allocated */
        VOLUME_FAST = 4,    /* zero: -ENOTSUP rather than writing zeros */
};

enum volume_caps {
        VOLUME_CAP_CLONE = 1,
        VOLUME_CAP_IMPORT = 2,
        VOLUME_CAP_GROW_OPEN = 4, /* resize while open */
        VOLUME_CAP_SNAPSHOT = 8,  /* snapshot, and changes since one */
        VOLUME_CAP_REVERT = 16,   /* revert, flatten, shrink */
};

enum volume_kind {
        VOLUME_DATA, /* bytes are stored here */
        VOLUME_HOLE, /* nothing stored anywhere: reads as zeros */
        VOLUME_ZERO, /* known to be zeros, in this volume */
};

struct volume_info {
        char id[VOLUME_ID_SIZE];
        uint64_t size;               /* bytes */
        uint64_t used;               /* bytes this volume itself occupies */
        char parent[VOLUME_ID_SIZE]; /* what it is a clone or snapshot of, or "" */
        bool immutable;              /* an imported base (no parent) or a snapshot */
        bool failed;                 /* in error: a sync failed, no flush succeeds until checked */
        unsigned users;              /* open handles */
        /* Whether it is to become independent of what it grew from, and how far that is. */
        bool flattening;
        uint64_t flatten_done, flatten_total; /* bytes of the volume */
        int flatten_failed;                   /* -errno: it has stopped, until asked again */
        char family[VOLUME_ID_SIZE];          /* encrypted: the family whose key it has; else "" */
        bool locked;                          /* encrypted, and the key has not been given */
};

enum volume_op {
        VOLUME_READ,
        VOLUME_WRITE,
        VOLUME_FLUSH, /* this and what follows: volume_start() only */
        VOLUME_ZEROES,
        VOLUME_TRIM,
};

/* One of a batch, or one that is started: as volume_pread(), volume_pwrite() and so on would be
 * called. */
struct volume_io {
        enum volume_op op;
        unsigned flags; /* enum volume_flags */
        void *p;        /* n bytes; read from only, by a write */
        size_t n;
        uint64_t off;
        int result;                         /* 0 or -errno */
        void (*done)(struct volume_io *io); /* see volume_start() */
};

/* Bytes of a volume as bytes of a file. */
struct volume_file {
        int fd; /* borrowed: read only, at offsets of its own */
        uint64_t off, len;
        void *lender;
};

enum { VOLUME_FINDINGS = 200 }; /* lines of a check that are worth keeping */

/* How to check an open volume. */
struct volume_check {
        bool scrub; /* read all blocks, not only what describes them */
        bool sums;  /* with scrub: give checksums to what has none and will not change any more */
        uint64_t rate; /* bytes read a second, about; 0: no bound */
        /* Often; not 0: stop. */
        int (*progress)(void *arg, uint64_t done, uint64_t total);
        /* One line without newline: what, where, what it means, repaired or not. */
        void (*finding)(void *arg, bool repaired, const char *line);
        void *arg;
};

struct volume_pool_config {
        const char *state;  /* durable folder; the pool is its subfolder "pool" */
        const char *run;    /* folder that lives as long as the boot, best on tmpfs */
        bool shared;        /* another process still has the pool: what looks left over is its */
        bool direct;        /* past the page cache where memory and offsets allow */
        const char *target; /* of a driver that has its bytes elsewhere: where, in its own words */
        const char *label;  /* what the pool is called; NULL: as its driver */
};

/* One extent, in order.  A positive return stops the walk (success), a negative one is returned. */
typedef int (*volume_extent_fn)(void *arg, uint64_t off, uint64_t len, enum volume_kind kind);
typedef int (*volume_info_fn)(void *arg, const struct volume_info *info);

/* A snapshot of a volume that is adopted or released, and the engine's name of it. */
struct volume_snap {
        char id[VOLUME_ID_SIZE], name[VOLUME_SNAP_NAME];
        uint64_t size;
};

/* A driver: const, only appended to, filled with designated initialisers.  All return 0 or -errno
 * (with words in *e where there is an e).  The front door has checked arguments already. */
struct volume_driver {
        const char *name; /* Required */
        unsigned caps;    /* enum volume_caps */

        /* Required.  The pool's state, as *ret; refuses a pool of a newer format. */
        int (*pool_open)(const struct volume_pool_config *c, void **ret, struct err **e);
        void (*pool_close)(void *pool);
        /* Required.  See volume_pool_abandon(). */
        void (*pool_abandon)(void *pool, bool abandoned);

        /* Optional: in which namespace of the pool a volume is to be made that is not there yet. */
        int (*place)(void *pool, const char *id, const char *space, struct err **e);
        /* Optional, where stat() is dear: 1 if it has it or was told that it is to, 0, -errno. */
        int (*has)(void *pool, const char *id, struct err **e);
        /* Optional, both: see volume_adopt(), volume_release(). */
        int (*adopt)(void *pool, const char *id, const char *name, struct volume_snap **ret,
                     size_t *ret_n, struct err **e);
        int (*release)(void *pool, const char *id, const char *name, const struct volume_snap *v,
                       size_t n, struct err **e);
        /* Optional, all or none, where several hosts have the pool: what encryption must find on each of
         * them.  The header of a family (NULL: none any more; -ENOENT), and its members; get: 1 and the
         * volume's family, 0: it is not encrypted. */
        int (*header_put)(void *pool, const char *family, const void *p, size_t n, struct err **e);
        int (*header_get)(void *pool, const char *family, void **ret, size_t *ret_n, struct err **e);
        int (*member_put)(void *pool, const char *id, const char *family, bool in, struct err **e);
        int (*member_get)(void *pool, const char *id, char ret[VOLUME_ID_SIZE], struct err **e);
        int (*member_count)(void *pool, const char *family, struct err **e);
        /* Optional: see volume_grant(). */
        int (*grant)(void *pool, const char *space, bool revoke, char **ret, struct err **e);
        /* Required.  Idempotent: there with the same facts is success, with others -EEXIST. */
        int (*create)(void *pool, const char *id, uint64_t size, struct err **e);
        /* Optional (VOLUME_CAP_IMPORT). */
        int (*import)(void *pool, const char *id, const char *path, struct err **e);
        /* Optional (VOLUME_CAP_CLONE). */
        int (*clone)(void *pool, const char *id, const char *parent, uint64_t size, struct err **e);
        /* Optional (VOLUME_CAP_SNAPSHOT). */
        int (*snapshot)(void *pool, const char *id, const char *of, struct err **e);
        /* Required.  Grows; the same size is success, a smaller one -EINVAL. */
        int (*resize)(void *pool, const char *id, uint64_t size, struct err **e);
        /* Optional (VOLUME_CAP_REVERT). */
        int (*revert)(void *pool, const char *id, const char *to, struct err **e);
        int (*flatten)(void *pool, const char *id, bool cancel, struct err **e);
        int (*shrink)(void *pool, const char *id, uint64_t size, struct err **e);
        /* Optional, both: see volume_pool_background(). */
        void (*background)(void *pool, bool on);
        int (*work)(void *pool);
        /* Required.  Missing is success, open is -EBUSY. */
        int (*remove)(void *pool, const char *id, struct err **e);
        /* Required.  -ENOENT. */
        int (*stat)(void *pool, const char *id, struct volume_info *ret, struct err **e);
        /* Optional: as stat, where that costs more. */
        int (*exists)(void *pool, const char *id, struct err **e);
        /* Required.  In order of id, those after `after` ("" is all). */
        int (*list)(void *pool, const char *after, volume_info_fn each, void *arg, struct err **e);

        /* Required.  Handles to one volume share its state; writes through one are read through
         * all, and a flush through one covers all. */
        int (*open)(void *pool, const char *id, void **ret, struct err **e);
        void (*close)(void *v);
        /* Optional: see volume_activate().  NULL: always active. */
        int (*activate)(void *v, struct err **e);
        int (*deactivate)(void *v, struct err **e);

        uint64_t (*size)(void *v);  /* Required: bytes, now */
        bool (*immutable)(void *v); /* Optional: NULL is writable */

        /* Required: whole or -errno. */
        int (*pread)(void *v, void *p, size_t n, uint64_t off);
        int (*pwrite)(void *v, const void *p, size_t n, uint64_t off, unsigned flags);
        int (*flush)(void *v);
        int (*zero)(void *v, uint64_t n, uint64_t off, unsigned flags);
        /* Required: the range may read as zeros afterwards; a hint, never -ENOTSUP. */
        int (*trim)(void *v, uint64_t n, uint64_t off, unsigned flags);
        /* Required. */
        int (*extents)(void *v, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
        /* Optional (VOLUME_CAP_SNAPSHOT), see volume_changes_open(). */
        int (*changes_open)(void *v, const char *since, void **ret, struct err **e);
        int (*changes_walk)(void *c, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
        void (*changes_close)(void *c);
        /* Optional: see volume_check(). */
        int (*check)(void *v, const struct volume_check *how, struct err **e);
        /* Optional: read ahead. */
        int (*cache)(void *v, uint64_t n, uint64_t off);
        /* Optional: whether a read of the range is worth cutting into data and holes first, because
         * it begins with zeros that need not be copied. */
        bool (*sparse_hint)(void *v, uint64_t n, uint64_t off);
        /* Optional: does those whose result is VOLUME_IO_WAITS, at once where it can, and gives
         * them their result.  n > 0 of each of them. */
        void (*run)(void *v, struct volume_io *io, size_t n);
        /* Optional: see volume_start().  n > 0, but for a flush. */
        void (*start)(void *v, struct volume_io *io);
        /* Optional, give_back too: 1 lent, 0 not possible here, -errno. */
        int (*lend)(void *v, uint64_t n, uint64_t off, struct volume_file *ret);
        void (*give_back)(void *v, struct volume_file *f);
        /* Optional: see volume_alignment(). */
        size_t (*alignment)(void *v);
};

enum { VOLUME_IO_WAITS = 1 };

extern const struct volume_driver volume_driver_local;
extern const struct volume_driver volume_driver_null;

/* The driver of that name: one of these, or a module that is loaded from now on
 * ("stratofs-volume-NAME.so", which exports stratofs_volume_driver).  -ENOTSUP. */
int volume_driver_find(const char *name, const struct volume_driver **ret, struct err **e);

/* ---- the front door ---- */

struct volume_pool;
struct volume;

int volume_pool_open(const struct volume_driver *d, const struct volume_pool_config *c,
                     struct volume_pool **ret, struct err **e);
/* One more pool behind the same door; the first one opened is where volumes are made unless
 * volume_place() says otherwise.  c->state is a folder of its own.  -EEXIST: two with one label. */
int volume_pool_add(struct volume_pool *p, const struct volume_driver *d,
                    const struct volume_pool_config *c, struct err **e);
/* While abandoned, closing a volume's last handle does not flush: what was not flushed is left to
 * who opens it next, in this process or, from then on, in another one of the same boot. */
void volume_pool_abandon(struct volume_pool *p, bool abandoned);
/* Whether a thread of the pool does what can wait: layers that nobody needs apart are merged,
 * volumes flattened.  Off at first.  Waits until what is under way comes to a rest. */
void volume_pool_background(struct volume_pool *p, bool on);
/* A piece of it in this thread; 1 done, 0 nothing to do.  For tests and tools. */
int volume_pool_work(struct volume_pool *p);
/* No volume may be open. */
struct volume_pool *volume_pool_close(struct volume_pool *p);

/* In which pool, by its label or its driver's name ("": the first), and in which namespace of it
 * ("": the pool's own; local pools have none) a volume that is not there yet is to be made by the
 * next call.  Success if it is there, in that pool.  -ENODEV no such pool, -EEXIST in another one.
 */
int volume_place(struct volume_pool *p, const char *id, const char *label, const char *space,
                 struct err **e);

/* A volume goes from one pool to another: called with off 0, then with what it gave as the next,
 * until that is the size; then volume_move_end() makes the copy the volume (or forgets it).  Nobody
 * can open it meanwhile.  What it had in common with others (its source, its clones) it has not any
 * more; its snapshots stay behind.  All may be repeated.  -EBUSY it is open, -EROFS it is a snapshot
 * or a base, -ENOKEY it is encrypted and there is no passphrase, -EALREADY (of an end without
 * `moved`) it has been moved. */
struct volume_move {
        const char *id, *from, *to; /* pools, as volume_place() takes them */
        const char *space;          /* there */
        const char *passphrase;     /* of an encrypted one's family-to-be; else "" */
        uint64_t off;
};
int volume_move(struct volume_pool *p, const struct volume_move *m, uint64_t *ret_next,
                uint64_t *ret_size, struct err **e);
int volume_move_end(struct volume_pool *p, const struct volume_move *m, bool moved, struct err **e);

/* What the pool's engine has already becomes a volume: name is the engine's, [NAMESPACE/]IMAGE for
 * Ceph.  Its snapshots become snapshots and keep their names there; *ret (the caller frees) says
 * what ids they have, the same ones when it is asked again.  -EBUSY somebody uses it, -ENOTSUP the
 * engine or this sort of image cannot, -ENOENT. */
int volume_adopt(struct volume_pool *p, const char *id, const char *label, const char *name,
                 struct volume_snap **ret, size_t *ret_n, struct err **e);
/* And back: it is no volume any more, and the engine has it under that name, its snapshots under
 * those in v; one that is not in v keeps its name.  -EEXIST a name is taken, -ENOTSUP encrypted,
 * -EBUSY open, or a snapshot is of an image from before a revert. */
int volume_release(struct volume_pool *p, const char *id, const char *name,
                   const struct volume_snap *v, size_t n, struct err **e);
/* A key with which a tenant may use its namespace itself, as the engine's tools take it: the same
 * each time, until (revoke, *ret is not set) there is none any more.  The caller frees *ret. */
int volume_grant(struct volume_pool *p, const char *label, const char *space, bool revoke,
                 char **ret, struct err **e);

/* -EINVAL: it is no volume's id. */
int volume_check_id(const char *id, struct err **e);
/* size: bytes, > 0, a multiple of VOLUME_SECTOR, at most VOLUME_SIZE_MAX, else -EINVAL. */
int volume_create(struct volume_pool *p, const char *id, uint64_t size, struct err **e);
/* An encrypted volume, the first of its family: every clone and snapshot of a member is another,
 * and has the family's key.  size: a multiple of VOLUME_CRYPT_SECTOR.  passphrase: random, as
 * strong as a key; it opens the family's LUKS2 header.  -EEXIST, also if a plain one is there;
 * -EKEYREJECTED: it is there, with another passphrase. */
int volume_create_encrypted(struct volume_pool *p, const char *id, uint64_t size,
                            const char *passphrase, struct err **e);
/* Gives the key of the volume's family, so that its members can be opened: until the last of them
 * is removed, or this process ends, or where there is a kernel keyring the boot.  -EKEYREJECTED,
 * -EINVAL: it is not encrypted, -ENOENT. */
int volume_key(struct volume_pool *p, const char *id, const char *passphrase, struct err **e);
/* Another passphrase takes the place of the one that opens the family's header, durably; the key
 * stays, so open members do, too.  Repeatable.  -EBUSY: the family has other members;
 * -EKEYREJECTED: neither passphrase opens it; -EINVAL: it is not encrypted. */
int volume_rekey(struct volume_pool *p, const char *id, const char *passphrase, const char *next,
                 struct err **e);
/* Calls each for every family whose key has not been given, with the id of one of its members.  It
 * must not call back. */
void volume_locked(struct volume_pool *p,
                   void (*each)(void *arg, const char *family, const char *id), void *arg);
/* path: absolute, of a regular file that nobody changes any more. */
int volume_import(struct volume_pool *p, const char *id, const char *path, struct err **e);
int volume_clone(struct volume_pool *p, const char *id, const char *parent, uint64_t size,
                 struct err **e);
/* id becomes an immutable volume with the bytes and the size that `of` has now.  O(1); `of` may be
 * open and busy, its I/O waits for milliseconds.  Either may be removed before the other. */
int volume_snapshot(struct volume_pool *p, const char *id, const char *of, struct err **e);
int volume_resize(struct volume_pool *p, const char *id, uint64_t size, struct err **e);
/* Cuts off what is past size, which is given back in the background; snapshots keep theirs.  -EBUSY
 * while it is open.  Not less than now is success. */
int volume_shrink(struct volume_pool *p, const char *id, uint64_t size, struct err **e);
/* The volume's bytes and size become those of `to`, a snapshot of it; what it had is lost.  O(1).
 * All its snapshots stay, those made after `to` too.  -EBUSY while it is open. */
int volume_revert(struct volume_pool *p, const char *id, const char *to, struct err **e);
/* Starts, or cancels, making the volume independent of what it was cloned from: in the background,
 * also while it is open.  volume_stat() tells how far it is.  It goes on after a restart; when it
 * is done there is no parent any more.  Already independent is success. */
int volume_flatten(struct volume_pool *p, const char *id, bool cancel, struct err **e);
int volume_remove(struct volume_pool *p, const char *id, struct err **e);
int volume_stat(struct volume_pool *p, const char *id, struct volume_info *ret, struct err **e);
/* 0 or -ENOENT, -errno: what volume_stat() returns, for less. */
int volume_exists(struct volume_pool *p, const char *id, struct err **e);
int volume_list(struct volume_pool *p, const char *after, volume_info_fn each, void *arg,
                struct err **e);

/* A handle of its own; readonly refuses writes with -EROFS.  -ENOKEY: it is encrypted and its key
 * has not been given. */
int volume_open(struct volume_pool *p, const char *id, bool readonly, struct volume **ret,
                struct err **e);
/* Flushes when it was the last handle.  NULL is left alone.  Returns NULL. */
struct volume *volume_close(struct volume *v);
DEFINE_CLEANUP(struct volume *, volume_close)

/* A guest moves to another host, whose blockd has the volume open, too: deactivate flushes and
 * gives the volume up, for all its handles, so that the other may write; writes that come here wait
 * a minute for activate, which takes it back and drops what was cached.  Until then, or until
 * the last handle is closed, it stays so.  A driver without: 0, nothing is to be done. */
int volume_activate(struct volume *v, struct err **e);
int volume_deactivate(struct volume *v, struct err **e);

const char *volume_id(const struct volume *v);
uint64_t volume_size(const struct volume *v);
bool volume_readonly(const struct volume *v);

/* Whole or -errno: -EINVAL out of range or bad flags (-ENOSPC for pwrite and zero past the end),
 * -EROFS, -EIO, -ENOSPC.  Blocks. */
int volume_pread(struct volume *v, void *p, size_t n, uint64_t off);
int volume_pwrite(struct volume *v, const void *p, size_t n, uint64_t off, unsigned flags);
int volume_flush(struct volume *v);
int volume_zero(struct volume *v, uint64_t n, uint64_t off, unsigned flags);
int volume_trim(struct volume *v, uint64_t n, uint64_t off, unsigned flags);
int volume_extents(struct volume *v, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
int volume_cache(struct volume *v, uint64_t n, uint64_t off);
bool volume_sparse_hint(struct volume *v, uint64_t n, uint64_t off);
/* Looks through what is stored of the volume and mends what can be mended without losing anything,
 * while it is in use.  0 whatever was found, -ECANCELED, -ENOTSUP, or why it could not go on. */
int volume_check(struct volume *v, const struct volume_check *how, struct err **e);

/* Does all of them, in no particular order and at once where the driver can; each gets its result,
 * 0 or -errno, checked like volume_pread and volume_pwrite.  Blocks until the last is done. */
void volume_run(struct volume *v, struct volume_io *io, size_t n);
/* Whether volume_start() can be called. */
bool volume_starts(const struct volume *v);
/* Begins one, checked like its call; it may wait for what the first write of all needs.  When it
 * has its result, io->done(io) is called, by any thread: one of the driver's, which must not wait,
 * or this one before the call returns.  The result VOLUME_IO_WAITS says that only volume_again()
 * can tell, which blocks until it does. */
void volume_start(struct volume *v, struct volume_io *io);
void volume_again(struct volume *v, struct volume_io *io);
/* Memory, offset and length that are multiples of it spare volume_run() a copy: a power of two, 1
 * when it makes no difference. */
size_t volume_alignment(const struct volume *v);
/* A stretch at the start of the range that is bytes of a file, for sendfile(2).  1: lent, and must
 * be given back before the volume is closed; what is written meanwhile may be seen or not.  0: not
 * possible here (zeros, past the file's end, no file behind it, direct mode).  -errno: as
 * volume_pread. */
int volume_lend(struct volume *v, uint64_t n, uint64_t off, struct volume_file *ret);
void volume_return(struct volume *v, struct volume_file *f);

/* What v has changed since it and the volume `since` were the same: `since` is a snapshot of v, or
 * anything that grew from a layer they share.  -ENOENT no such volume, -EINVAL they share nothing
 * or are the same, -ENOTSUP.  Until it is closed, which must be before v is, `since` is in use. */
struct volume_changes;
int volume_changes_open(struct volume *v, const char *since, struct volume_changes **ret,
                        struct err **e);
/* VOLUME_DATA where v may differ from `since` (in units of the driver's, and past the end of
 * `since`), VOLUME_HOLE where it cannot; neighbours differ in kind.  Between v's state now and that
 * of `since` now: both may be written meanwhile, and snapshots be made.  `each` is called as by
 * volume_extents(), and must not do I/O. */
int volume_changes_walk(struct volume_changes *c, uint64_t n, uint64_t off, volume_extent_fn each,
                        void *arg);
/* NULL is left alone.  Returns NULL. */
struct volume_changes *volume_changes_close(struct volume_changes *c);
DEFINE_CLEANUP(struct volume_changes *, volume_changes_close)
