/* Volumes as RBD images of one Ceph pool, through librbd.
 *
 * A volume is an ordinary image, "volume-ID"; an imported base is "image-ID" with a snapshot; a
 * snapshot is a snapshot of its volume's image, named by its id, or as it was when it was adopted;
 * a clone is a clone (format 2: its parent's snapshot needs no protection and may be removed, Ceph
 * keeps it in its trash until the last clone is gone).  Which id is what is in the index, one
 * object's omap (index.c).  An image of a removed volume that others still grow from is
 * "deleted-..." until the last of them is gone (sweep.c).
 *
 * librbd's cache is off: what was acknowledged survives a kill -9 of this process, and a flush
 * waits only for what is in flight.
 *
 * Threads: any.  `lock` is held for moments, never over a call of Ceph's. */
#pragma once

#include <pthread.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdatomic.h>
#include <uthash.h>
#include "backend/volume/volume.h"

enum {
        RBD_ANSWER_MS = 15000,  /* the index answers, or the cluster is called lost */
        RBD_CONNECT_S = 10,     /* the monitors do */
        RBD_IMAGE_ID_SIZE = 64, /* Ceph's own id of an image */
        RBD_NAME_SIZE = 128,
        RBD_SPACE_SIZE = 200, /* of a namespace: the pool's, a dot, a tenant's name */
};

/* What the index says of a volume. */
struct record {
        rados_ioctx_t io,
                data; /* the namespace of its image; to change things, and for its bytes */
        char space[RBD_SPACE_SIZE]; /* that namespace's name; "": the pool's own, "/": none */
        bool made;    /* else what it is to become; nobody was told that it is there */
        bool import;  /* a base, from a file */
        bool own;     /* the image is this volume's, not that of its parent */
        bool flatten; /* is to become independent */
        char image[RBD_IMAGE_ID_SIZE]; /* once made */
        char snap[VOLUME_SNAP_NAME];   /* immutable: that snapshot of the image; else "" */
        char parent[VOLUME_ID_SIZE];   /* of which volume it is a clone or snapshot, or "" */
        char was[RBD_NAME_SIZE];       /* not made, to be adopted: the image's own name; else "" */
        uint64_t size;                 /* when it was made */
};

/* A volume that is open, or that somebody is changing. */
struct entry {
        UT_hash_handle hh; /* by id */
        char id[VOLUME_ID_SIZE];
        struct pool *pool;
        bool busy;        /* one call has it for itself */
        bool closing;     /* its image is being closed */
        unsigned users;   /* handles */
        unsigned waiting; /* calls that want it */
        rbd_image_t image;
        bool immutable;
        pthread_mutex_t locking;
        atomic_bool locked; /* the image's exclusive lock is ours */
        atomic_bool shut;   /* deactivated: writes wait */
        bool flattening;
        atomic_uint_fast64_t flatten_done, flatten_total;
        atomic_int flatten_failed;
};

struct space;
struct pool {
        rados_t cluster;
        /* The pool's own namespace: the index, images of the cloud.  What is changed through io
         * fails in a full cluster (-ENOSPC), and may be removed there; bytes of volumes go through
         * data, where it waits. */
        rados_ioctx_t io, data;
        char name[RBD_NAME_SIZE], base[RBD_NAME_SIZE]; /* the pool's, that namespace's or "" */
        struct space *spaces;                          /* other namespaces, with the lock */
        bool connected;
        char *fence; /* the file that says who we are, see fence.c */
        pthread_mutex_t lock;
        pthread_cond_t idle; /* an entry is not busy any more */
        struct entry *entries;
        /* work.c */
        pthread_mutex_t work_lock;
        pthread_cond_t work_wake;
        pthread_t worker;
        bool working, stop;
        atomic_bool wanted;
};

/* cluster.c: connects, with time limits.  target: POOL[/NAMESPACE][,conf=FILE][,id=USER]. */
int cluster_open(struct pool *p, const char *target, struct err **e);
void cluster_close(struct pool *p);

/* fence.c.  What a killed predecessor of this host still holds, locks of images above all, would be
 * its own for half a minute: who follows bars its connection for good.  So each writes down its
 * address, durably, before it opens anything. */
int fence_predecessors(struct pool *p, const char *state, struct err **e);
/* Whether our own address is written down there, as one of a predecessor. */
bool fence_is_ours(struct pool *p, const char *state);
int fence_enter(struct pool *p, const char *state, struct err **e);
/* All is closed: there is nothing to bar. */
void fence_leave(struct pool *p);

/* index.c.  -ENOENT, -ETIMEDOUT: the cluster does not answer. */
int index_open(struct pool *p, struct err **e);
int index_get(struct pool *p, const char *id, struct record *ret, struct err **e);
/* 1: there is one, made or not; 0: none. */
int index_find(struct pool *p, const char *id, struct record *ret, struct err **e);
/* fresh: -EEXIST if there is one. */
int index_put(struct pool *p, const char *id, const struct record *r, bool fresh, struct err **e);
int index_drop(struct pool *p, const char *id, struct err **e);
/* One operation on an object of the pool's own namespace; takes the one that is not NULL.
 * -ETIMEDOUT. */
int index_operate(struct pool *p, const char *object, rados_write_op_t write, rados_read_op_t read);
/* In order of id, those after `after`; also those not made.  As volume_extent_fn(), each's results.
 */
int index_walk(struct pool *p, const char *after,
               int (*each)(void *arg, const char *id, const struct record *r), void *arg,
               struct err **e);

/* space.c.  Tenants' volumes are in namespaces of their own, which the object "stratofs.spaces"
 * lists.  name: as in a record.  The handle lives as long as the pool. */
int space_io(struct pool *p, const char *name, rados_ioctx_t *ret, rados_ioctx_t *ret_data,
             struct err **e);
/* The name of a tenant's namespace; it is made, and listed, if there is none.  -EINVAL. */
int space_make(struct pool *p, const char *tenant, char ret[RBD_SPACE_SIZE], struct err **e);
/* Others' namespaces, too, may have images of ours. */
int space_list(struct pool *p, const char *name, struct err **e);
/* Once for a namespace: so that images can be removed when the cluster is full. */
void space_ready(rados_ioctx_t io);
/* Each namespace that may have images of ours, the pool's own first.  Whether any said yes. */
bool space_each(struct pool *p, bool (*each)(struct pool *p, rados_ioctx_t io));
void space_close(struct pool *p);

/* entry.c.  The volume's entry, for this call alone; waits for it.  NULL without memory. */
struct entry *entry_take(struct pool *p, const char *id);
void entry_release(struct entry *en);
int volume_handle_open(struct pool *p, const char *id, struct entry **ret, struct err **e);
void volume_handle_close(struct entry *en);
/* The exclusive lock, before the first write. */
int entry_lock(struct entry *en);
int entry_activate(struct entry *en, struct err **e);
int entry_deactivate(struct entry *en, struct err **e);
/* image.c: by Ceph's id, at a snapshot if snap is not "", or by name. */
int image_open_id(rados_ioctx_t io, const char *id, const char *snap, bool readonly,
                  rbd_image_t *ret);
int image_open_name(rados_ioctx_t io, const char *name, bool readonly, rbd_image_t *ret);
int image_close(rbd_image_t image);
/* Nothing has that name any more: sweep() removes what had it. */
int image_rename_away(rados_ioctx_t io, const char *name, struct err **e);
/* Likewise, and it may be half an image, of one who died making it. */
int image_clear(rados_ioctx_t io, const char *name, struct err **e);
/* entry.c.  An image for one call: the open one, or one that is opened for it (*ret_own, to be
 * closed). */
int image_borrow(struct pool *p, const char *id, const struct record *r, rbd_image_t *ret,
                 struct entry **ret_en, struct err **e);
void image_return(rbd_image_t image, struct entry *en);
/* The image by Ceph's id; read only, at a snapshot if snap is not "". */
int image_open_readonly(rados_ioctx_t io, const char *image, const char *snap, rbd_image_t *ret,
                        struct err **e);
/* The name it has now: a handle knows the one that it had when it was opened. */
int image_name(rados_ioctx_t io, const char *image, char ret[RBD_NAME_SIZE], struct err **e);

/* make.c, change.c: as volume.h says, arguments checked. */
int make_place(struct pool *p, const char *id, const char *space, struct err **e);
int make_create(struct pool *p, const char *id, uint64_t size, struct err **e);
int make_clone(struct pool *p, const char *id, const char *parent, uint64_t size, struct err **e);
int make_snapshot(struct pool *p, const char *id, const char *of, struct err **e);
int make_import(struct pool *p, const char *id, const char *path, struct err **e);
/* A clone of what the record says, in that namespace under that name of an image; gives its id. */
int make_child(struct pool *p, const struct record *from, const char *from_id, rados_ioctx_t io,
               const char *name, uint64_t size, char ret[RBD_IMAGE_ID_SIZE], struct err **e);
int change_size(struct pool *p, const char *id, uint64_t size, bool shrink, struct err **e);
int change_revert(struct pool *p, const char *id, const char *to, struct err **e);
int change_flatten(struct pool *p, const char *id, bool cancel, struct err **e);
int change_remove(struct pool *p, const char *id, struct err **e);
/* Copies a file of that length; ret_len: the bytes of it. */
int import_bytes(rbd_image_t image, int fd, uint64_t len, struct err **e);

/* adopt.c: see volume_adopt() and volume_release(). */
int adopt_image(struct pool *p, const char *id, const char *name, struct volume_snap **ret,
                size_t *ret_n, struct err **e);
int adopt_release(struct pool *p, const char *id, const char *name, const struct volume_snap *v,
                  size_t n, struct err **e);
/* adopt-snaps.c: the image's snapshots get ids, or give them back. */
int snaps_adopt(struct pool *p, const char *id, const struct record *rec, struct volume_snap **ret,
                size_t *ret_n, struct err **e);
int snaps_release(struct pool *p, const char *id, const struct record *rec,
                  const struct volume_snap *v, size_t n, struct err **e);
/* -EBUSY: one is of another image, or a name cannot be had. */
int snaps_refuse(struct pool *p, const char *id, const struct record *rec,
                 const struct volume_snap *v, size_t n, struct err **e);
/* Of an adoption that was cut off: the image has its own name again.  With the entry. */
int adopt_undo(struct pool *p, const char *id, const struct record *rec, struct err **e);

/* secrets.c: as the driver has them. */
int secrets_header_put(void *pool, const char *family, const void *p, size_t n, struct err **e);
int secrets_header_get(void *pool, const char *family, void **ret, size_t *ret_n, struct err **e);
int secrets_member_put(void *pool, const char *id, const char *family, bool in, struct err **e);
int secrets_member_get(void *pool, const char *id, char ret[VOLUME_ID_SIZE], struct err **e);
int secrets_member_count(void *pool, const char *family, struct err **e);
/* grant.c: see volume_grant(). */
int grant(struct pool *p, const char *tenant, bool revoke, char **ret, struct err **e);

/* extents.c */
int extents_walk(rbd_image_t image, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
/* Bytes that the image has of its own since its last snapshot, or the snapshot that it is open at
 * (else "") since the one before it: in whole objects. */
int extents_used(rbd_image_t image, const char *snap, uint64_t *ret);

/* changes.c */
int changes_open(struct entry *en, const char *since, void **ret, struct err **e);
int changes_walk(void *c, uint64_t n, uint64_t off, volume_extent_fn each, void *arg);
void changes_close(void *c);

/* io.c: as the driver has them. */
int io_pread(void *v, void *p, size_t n, uint64_t off);
int io_pwrite(void *v, const void *p, size_t n, uint64_t off, unsigned flags);
int io_flush(void *v);
int io_zero(void *v, uint64_t n, uint64_t off, unsigned flags);
int io_trim(void *v, uint64_t n, uint64_t off, unsigned flags);
void io_run(void *v, struct volume_io *io, size_t n);
void io_start(void *v, struct volume_io *io);

/* work.c, sweep.c */
void work_background(struct pool *p, bool on);
int work_piece(struct pool *p);
/* There may be something to do. */
void work_kick(struct pool *p);
/* Images of removed volumes that nobody needs, and what a crash left half made.  Whether there were
 * any. */
bool sweep(struct pool *p);
