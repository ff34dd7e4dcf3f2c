/* Nodes: what a FUSE node id stands for.
 *
 * Ids are computed, not handed out, so they are the same after a restart and FORGET means nothing:
 *
 *     object's node     no << 24 | slot       slots below; no is the object's number
 *     user's file       1 << 62 | uid << 8 | which
 *     wait              1 << 61 | no << 28 | state << 20 | seconds
 *     ephemeral         1 << 63 | counter     scratch files, uploads (fs/ephemeral.h)
 *     1                 the root, FUSE's own number
 *
 * The cloud's own object (no 1) carries the fixed files of the root. */
#pragma once

#include <sys/stat.h>
#include "control/control.h"
#include "fs/fs.h"

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

struct ephemeral;
struct handle;
struct ephemerals;
struct waits;
struct polls;
struct refusals;
struct nbd;
struct upload;
struct cache;
struct hold;
struct notices;

struct fs {
        struct control *control;
        struct fuse_session *se;
        char *mountpoint, *state;
        void (*ready)(void *arg);
        void *arg;
        int64_t born; /* usec: times of what is not an object */

        struct ephemerals *ephemerals;
        struct waits *waits;
        struct polls *polls;
        struct cache *cache;
        struct hold *hold;
        struct fs_holder holder;
        unsigned watchdog;
        void (*alive)(void *arg);
        struct notices *notices; /* NULL: inotify tells what users do, no more */
        struct refusals *refusals;
        struct nbd *nbd;

        pthread_mutex_t lock; /* what follows */
        struct handle *handles; /* open files */
        unsigned copies;        /* that wait for their job (copy.c) */
        pthread_cond_t changed;
        pthread_t server;
        bool serving, stopping;
};

enum node_type {
        NODE_NONE,
        /* directories */
        NODE_ROOT,
        NODE_ADMIN,      /* admin */
        NODE_USERS,      /* .users */
        NODE_USER,       /* .users/<uid> */
        NODE_BYTES,      /* .data */
        NODE_COLLECTION, /* index: of the kind in kinds[]; no: the owner */
        NODE_IDS,        /* <collection>/.id */
        NODE_OBJECT,
        NODE_METADATA,
        NODE_LINKS,      /* index: link_def */
        NODE_FOLDER,     /* index: of the first file_def in it */
        NODE_WAITS,      /* <object>/.wait */
        /* text of the root, of users, of collections */
        NODE_HELP,
        NODE_VERSION,
        NODE_LOGLEVEL,
        NODE_ADMIN_HELP,
        NODE_USER_ERROR,
        NODE_USER_ERRORS,
        NODE_USER_TENANT,
        NODE_NEW,
        NODE_KIND_HELP,
        NODE_INDEX,
        /* text of objects */
        NODE_ID,
        NODE_STATE,
        NODE_CREATED,
        NODE_UPDATED,
        NODE_CTL,
        NODE_SPEC,
        NODE_ERROR,
        NODE_EVENTS,
        NODE_JSON,
        NODE_ERRORS,       /* of a tenant */
        NODE_TENANT_INDEX, /* of all its collections */
        NODE_TENANT_HELP,
        NODE_ATTR,         /* index: attr_def */
        NODE_FILE,         /* index: file_def, FILE_TEXT or FILE_LINES */
        NODE_META,
        /* symbolic links */
        NODE_SELF,
        NODE_JOB,
        NODE_LINK1,    /* a link_def that is one link; index */
        NODE_LINK,     /* one of many */
        NODE_DATALINK, /* a FILE_DATA file as listed; index */
        NODE_IDLINK,   /* .id/<uuid> */
        NODE_TEMPLINK, /* ephemeral: of ln -f, until it is renamed */
        /* bytes */
        NODE_DATA, /* .data/<uuid><suffix>; index: file_def */
        NODE_LOG,  /* FILE_LOG; index: file_def */
        NODE_WAIT,
        NODE_FOLLOW, /* <object>/.follow */
        NODE_SCRATCH, /* ephemeral, as is */
        NODE_UPLOAD,
};

/* A node, decoded.  o, link and meta are valid while the read lock is held. */
struct node {
        enum node_type type;
        fuse_ino_t ino;
        uint64_t no;    /* the object, or the owner of a collection; 0: none */
        unsigned index; /* see enum node_type */
        uid_t uid;      /* of a NODE_USER... */
        unsigned seconds; /* NODE_WAIT: its time-out, 0: none; index: state or WAIT_... */
        const struct kind *kind; /* of the object, or of the collection */
        struct object *o;
        struct link *link;
        struct meta *meta;
        struct ephemeral *e; /* borrowed from the kernel's lookup count */
};

enum {
        SLOT_OBJECT = 0, /* of the cloud object: unused, the root is id 1 */
        SLOT_ID,
        SLOT_STATE,
        SLOT_CREATED,
        SLOT_UPDATED,
        SLOT_CTL,
        SLOT_SPEC,
        SLOT_ERROR,
        SLOT_EVENTS,
        SLOT_JSON,
        SLOT_ERRORS,
        SLOT_TENANT_INDEX,
        SLOT_METADATA,
        SLOT_WAITS,
        SLOT_JOB,
        SLOT_IDLINK,
        SLOT_FOLLOW,
        SLOT_TENANT_HELP,
        SLOT_ROOT_FIRST = 0x20, /* of the cloud object only */
        SLOT_HELP = SLOT_ROOT_FIRST,
        SLOT_VERSION,
        SLOT_LOGLEVEL,
        SLOT_SELF,
        SLOT_ADMIN,
        SLOT_USERS,
        SLOT_BYTES,
        SLOT_ADMIN_HELP,
        SLOT_ATTRS = 0x100, /* + attribute, 256 */
        SLOT_LINKS = 0x200, /* + link_def, 64 */
        SLOT_FILES = 0x240, /* + file_def, 64: as listed */
        SLOT_DATA = 0x280,  /* + file_def, 64: its bytes in .data/ */
        SLOT_FOLDERS = 0x2c0, /* + first file_def in it, 64 */
        SLOT_COLLECTIONS = 0x400, /* + kind index * 8 + part, 128 kinds */
        SLOT_DYNAMIC = 0x1000,    /* + link or metadata slot */
        SLOT_BITS = 24,
};
enum { PART_DIR, PART_NEW, PART_HELP, PART_INDEX, PART_IDS };
enum { USER_DIR, USER_ERROR, USER_ERRORS, USER_TENANT };

#define INO_EPHEMERAL (1ull << 63)
#define INO_USER (1ull << 62)
#define INO_WAIT (1ull << 61)
enum { WAIT_GONE = 254, WAIT_CHANGE = 255, WAIT_SECONDS_MAX = 7 * 24 * 3600 };
#define INO_OF(no, slot) ((fuse_ino_t)((no) << SLOT_BITS | (slot)))

/* Decodes an id; read lock held.  -ENOENT when what it stood for is gone. */
int node_get(struct fs *fs, fuse_ino_t ino, struct node *ret);
/* The ids of things; kind's index is looked up. */
fuse_ino_t ino_object(uint64_t no);
fuse_ino_t ino_collection(uint64_t owner, const struct kind *k, unsigned part);
fuse_ino_t ino_user(uid_t uid, unsigned which);
/* .wait/<name>: STATE or STATE@SECONDS; 0 when there is no such state. */
fuse_ino_t ino_wait(const struct object *o, const char *name);
/* The state a wait is for, as control_wait() takes it. */
const char *wait_state(const struct node *n);

bool node_is_dir(enum node_type t);
bool node_is_link(enum node_type t);
/* Whether it is text that is rendered when opened. */
bool node_is_text(enum node_type t);
/* What the kernel calls dirent type: DT_DIR, DT_LNK, DT_REG >> 12 << 12 as mode bits. */
mode_t node_ifmt(enum node_type t);
/* The tenant that a failure at n belongs to, 0 if none; and the object.  Read lock held. */
uint64_t node_tenant(const struct node *n);
uint64_t node_object(const struct node *n);
/* Path from the mount point, "" for the root.  Read lock held. */
void node_path(struct fs *fs, const struct node *n, struct buf *out);
/* Name of a standard file of an object ("state"), NULL for the rest. */
const char *node_standard_name(enum node_type t);
/* Kinds of a cloud that have a place under `parent` ("" or "admin"), or inside tenants (NULL). */
bool kind_lives_in(const struct kind *k, const char *parent);
/* The object holds collections (a tenant). */
bool node_has_collections(const struct object *o);
/* The link `name` of a def, or a single def's one link.  Read lock held. */
struct link *node_link(const struct object *o, unsigned def, const char *name);
/* Relative path to `to` from a directory `from`, both from the mount point. */
void path_relative(const char *from, const char *to, struct buf *out);
