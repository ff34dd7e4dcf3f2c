/* Nodes that exist only while somebody uses them: editors' scratch files, the temporary links of
 * `ln -f`, uploads under their file names.
 *
 * They have ids of their own and real lookup counts.  Everything is bounded: SCRATCH_MAX files a
 * uid of SCRATCH_SIZE bytes, EPHEMERAL_MAX nodes in all.  A name nobody has had open for a minute
 * is swept when the table is next looked at, so that an idle mount wakes up for nothing. */
#pragma once

#include <uthash.h>
#include "fs/node.h"

enum { SCRATCH_MAX = 32, SCRATCH_SIZE = 1 << 20, EPHEMERAL_MAX = 4096, EPHEMERAL_LIFE = 60 };

struct upload;

struct ephemeral {
        fuse_ino_t ino, parent;
        enum node_type type;    /* NODE_SCRATCH, _TEMPLINK, _UPLOAD */
        uint64_t no;            /* the object it is in or about */
        const struct kind *kind; /* of that object, or of the collection */
        unsigned index;
        uid_t uid;              /* who made it; scratch files and links are his alone */
        gid_t gid;
        char *name;
        bool named;             /* found by lookup */
        uint64_t lookups;       /* the kernel's count */
        unsigned opens;
        int64_t expires;        /* monotonic usec; while opens is 0 */
        mode_t mode;
        int64_t changed;        /* usec */
        char *text;             /* scratch: its bytes; link: its target */
        size_t len;
        struct upload *upload;
        UT_hash_handle hh;
};

/* life: the number of this process among those of a mount; its ids are new. */
int ephemerals_new(unsigned life, struct ephemerals **ret);
void ephemerals_free(struct ephemerals *t);
/* One of a life before ours, under its id; the kernel knows it. */
int ephemeral_again(struct ephemerals *t, const struct ephemeral *like, fuse_ino_t ino,
                    const char *name);
/* By id; NULL when unknown.  Valid while the kernel knows the node (it asks about it now). */
struct ephemeral *ephemeral_get(struct ephemerals *t, fuse_ino_t ino);
/* By name, as seen by uid.  The caller answers the kernel with it: one more lookup. */
struct ephemeral *ephemeral_find(struct ephemerals *t, fuse_ino_t parent, const char *name,
                                 uid_t uid);
/* A copy of `like` under `parent`/`name` with one lookup; its text and upload go over to it.
 * -EDQUOT when uid has too many, -ENOSPC when there are too many in all. */
int ephemeral_add(struct ephemerals *t, const struct ephemeral *like, const char *name,
                  struct ephemeral **ret, struct err **e);
void ephemeral_forget(struct ephemerals *t, fuse_ino_t ino, uint64_t n);
void ephemeral_lookup(struct ephemerals *t, struct ephemeral *e); /* one lookup more */
void ephemeral_opened(struct ephemerals *t, struct ephemeral *e);
void ephemeral_closed(struct ephemerals *t, struct ephemeral *e);
/* Takes the name away; the rest goes with the last lookup. */
void ephemeral_unname(struct ephemerals *t, struct ephemeral *e);
int ephemeral_rename(struct ephemerals *t, struct ephemeral *e, fuse_ino_t parent,
                     const char *name);
/* The text, copied under the lock (caller frees), with a NUL behind it. */
char *ephemeral_text(struct ephemerals *t, struct ephemeral *e, size_t *ret_len);
/* Writes, or cuts and pads, a scratch file's bytes. -EFBIG over SCRATCH_SIZE. */
int ephemeral_write(struct ephemerals *t, struct ephemeral *e, const void *p, size_t n,
                    uint64_t off);
int ephemeral_truncate(struct ephemerals *t, struct ephemeral *e, uint64_t size);

/* Names that tools use for a moment: editors' swap and backup files, sed's, rsync's. */
bool scratch_name(const char *name);
/* coreutils' name for a link that is about to be renamed over another. */
bool templink_name(const char *name);
/* emacs' lock on a file, a link that leads nowhere. */
bool locklink_name(const char *name);
/* rsync's temporary ".NAME.XXXXXX": gives NAME (caller frees), else NULL. */
char *rsync_target(const char *name);
