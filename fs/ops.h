/* The requests of libfuse, by the file that answers them, and what those files share. */
#pragma once

#include "fs/node.h"
#include "fs/frame.h"

/* --- errors.c ------------------------------------------------------------------------------ */

/* The errno a program gets for a code of ours: those of the contract (stratofs(5)) pass, anything
 * else is EIO.  The one place where codes change. */
int fs_errno(int code);
/* The same for a request on a node that is gone: the kernel had it from a name it remembers.  To
 * ESTALE it looks the path up again, and either finds what has the name now or says ENOENT. */
int fs_gone(int code);
struct caller fs_caller(fuse_req_t req);
/* Ends a request that changes something with its failure: written into the tree's `error` files,
 * then answered.  dir/name is the path (name may be NULL); frees e.  No lock held. */
void fs_fail(fuse_req_t req, const char *op, fuse_ino_t dir, const char *name, int code,
             struct err *e);
/* The record alone, for failures that are answered elsewhere. */
void fs_record(struct fs *fs, const struct caller *who, const char *op, fuse_ino_t dir,
               const char *name, int code, struct err *e);
/* fs_fail() with words made here. */
void fs_refuse(fuse_req_t req, const char *op, fuse_ino_t dir, const char *name, int code,
               const char *fmt, ...) _printf_(6, 7);

/* ESTALE: the file was open in a life before ours, and what it was about is lost. */
void fs_stale(fuse_req_t req, const char *op, fuse_ino_t ino);

/* rm -r: who was refused an attribute's unlink is refused every later one below that object. */
int refusals_new(struct refusals **ret);
void refusals_free(struct refusals *t);
void refusals_add(struct fs *fs, pid_t pid, uint64_t no);
/* no, or its tenant. */
bool refusals_hit(struct fs *fs, pid_t pid, uint64_t no, uint64_t tenant);

/* --- attr.c -------------------------------------------------------------------------------- */

/* Read lock held. */
void node_stat(struct fs *fs, const struct node *n, struct stat *st);
/* listed: for a directory listing, which may leave out what has no time-out. */
void node_entry(struct fs *fs, const struct node *n, bool listed, struct fuse_entry_param *ret);
/* Answers with the entry of an id, taking the lock; gone meanwhile is ENOENT.  */
void reply_node(fuse_req_t req, fuse_ino_t ino);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int set,
                struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);

/* --- cache.c: what the kernel keeps ----------------------------------------------------------- */

/* What the answer is to. */
enum cache_for { CACHE_LOOKUP, CACHE_LISTING, CACHE_GETATTR };
/* For how long the kernel may keep n's attributes and the name it was found by, in seconds; marks
 * that it was told, so that a change takes it back.  Called before the attributes are read, under
 * the same read lock. */
double cache_attr(struct fs *fs, const struct node *n, enum cache_for why);
double cache_entry(struct fs *fs, const struct node *n, enum cache_for why);
/* Whether a listing of n may be kept: it is another one only at another time of n. */
bool cache_listing(struct fs *fs, const struct node *n);
/* The request under way takes object no's name away: the kernel will know by its answer. */
void cache_rename_begins(struct fs *fs, uint64_t no);
void cache_rename_ended(struct fs *fs, uint64_t no);
int cache_new(struct fs *fs);
void cache_init(struct fs *fs, const struct fuse_conn_info *conn); /* INIT was agreed on */
/* After lives before ours: the kernel drops what became void while nobody could say so, and all
 * that it may have been told is marked. */
void cache_forget(struct fs *fs);
void cache_free(struct fs *fs);

/* --- dir.c, tree.c ------------------------------------------------------------------------- */

/* Each listed entry with a cookie above `from`, in order, until emit says true.  Lock held. */
typedef bool (*dir_emit)(void *arg, uint64_t cookie, const char *name, fuse_ino_t ino,
                         enum node_type type);
void dir_list(struct fs *fs, const struct node *dir, uint64_t from, dir_emit emit, void *arg);
/* The id of a name, hidden ones too; 0 when there is none.  Lock held.  A wait or another
 * ephemeral node is not found here. */
fuse_ino_t dir_find(struct fs *fs, const struct node *dir, const char *name);
/* What exists for its user only: scratch files, links in the making, uploads under their file
 * names.  One lookup more on it; NULL when there is none.  Lock held. */
struct ephemeral *dir_find_ephemeral(struct fs *fs, const struct node *dir, const char *name,
                                     uid_t uid);
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *v);
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi);

/* --- change.c: names made, removed, moved ---------------------------------------------------- */

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
               const char *newname, unsigned flags);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev);

/* --- link.c -------------------------------------------------------------------------------- */

/* Text of any symbolic link for this caller.  Read lock held. */
void link_render(struct fs *fs, const struct node *n, uid_t uid, struct buf *out);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
/* rename() of the temporary link of `ln -f`; answers. */
void link_replace(fuse_req_t req, struct ephemeral *temp, fuse_ino_t parent, const char *name);

/* --- file.c: open and I/O, by type ------------------------------------------------------------ */

struct handle {
        enum node_type type;
        fuse_ino_t ino;
        uint64_t no;
        unsigned index;
        const struct kind *kind;
        uid_t uid;
        int flags;
        struct handle *before, *after; /* in fs->handles */
        bool closed;                /* upload: a close(2) after the last write */
        char *key;                  /* NODE_META */
        struct ephemeral *e;        /* scratch, upload: open count held */

        pthread_mutex_t lock;       /* what follows */
        struct buf text;            /* what reads see; NODE_NEW, a written NODE_SPEC: answers;
                                       NODE_META: the value */
        bool rendered, read, wrote;
        size_t cursor;              /* NODE_NEW, NODE_FOLLOW: how much of text was read */
        uint64_t next;              /* offset behind the last write; NODE_FOLLOW: its cursor */
        struct frame frame;         /* what was written and is not complete yet */
        struct buf line;            /* NODE_ATTR: the value written, while no newline ends it */
        struct caller writer;       /* who opened to write, then who wrote last */
        struct poll *poll;          /* text that poll(2) works on */
        int fd;                     /* NODE_LOG */
        int head;                   /* NODE_LOG: what stands before it; -1: nothing */
        struct volume *volume;      /* NODE_DATA on NBD (fs/nbd.h) */
        struct data *data;          /* NODE_DATA, both sorts */
        uint64_t copy_of, copy_next; /* the object whose clone it became; bytes told of */
        char *cut;                  /* why an upload is not whole */

        uint64_t fh;                /* its number, the kernel's */
        struct held_handle *held;   /* what a successor will know (fs/hold.h) */
        bool restored;              /* by a successor: its text was not rendered yet */
        bool torn;                  /* what its writer began is lost */
};

/* -ENOMEM, -ENFILE: HOLD_HANDLES are open.  Held for a successor from here on. */
int handle_new(struct fs *fs, const struct caller *who, const struct node *n, int flags,
               struct handle **ret);
void handle_free(struct fs *fs, struct handle *h);
/* Whether this process has it open for writing. */
bool handle_writes(struct fs *fs, fuse_ino_t ino, pid_t pid);
/* All that are open when the session ends: an upload that was not closed is cut off. */
void handles_free(struct fs *fs);
/* NULL: opened in a life before ours and lost with it, which is ESTALE; or fi is NULL. */
struct handle *handle_of(fuse_req_t req, const struct fuse_file_info *fi);
/* The one that this open made already, in a life before ours; NULL: none. */
struct handle *handle_again(struct fs *fs);
/* What a successor needs is written down, after each change of text; h->lock held. */
void handle_keep(struct handle *h);
/* Its text was read up to `end`; and whether the text as it is now is that of the reads before a
 * death: 0, 1 all of it was read and `off` is behind it, -ESTALE.  h->lock held. */
void handle_shown(struct handle *h, size_t end);
int handle_shows_same(struct handle *h, size_t off);
/* Answers an open; the handle goes back when the caller was interrupted meanwhile. */
void handle_opened(fuse_req_t req, struct handle *h, struct fuse_file_info *fi);
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *p, size_t size, off_t off,
              struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                  struct fuse_file_info *fi);

/* --- text.c -------------------------------------------------------------------------------- */

enum { TEXT_MAX = 64 << 10, SPEC_MAX = 256 << 10 }; /* a spec has all of an object */
/* Renders a text node.  Read lock held. */
void text_render(struct fs *fs, const struct node *n, struct buf *out);
/* Who may write it: ROLE_NOBODY for read-only text. */
enum role text_writer(const struct node *n);
int text_open(struct fs *fs, const struct caller *who, const struct node *n, struct handle *h,
              struct err **e);
void text_read(fuse_req_t req, struct handle *h, size_t size, off_t off);

/* --- write.c ------------------------------------------------------------------------------- */

/* One write(2); the handle is locked.  0 or -errno. */
int text_write(struct fs *fs, const struct caller *who, struct handle *h, const char *p, size_t n,
               uint64_t off, struct err **e);
/* Executes what waits for its newline; incomplete JSON is -EINVAL. */
int text_flush(struct fs *fs, const struct caller *who, struct handle *h, struct err **e);
/* A whole new text at once: rename of a scratch file onto it. */
int text_replace(struct fs *fs, const struct caller *who, const struct node *n, const char *p,
                 size_t len, struct err **e);
/* ftruncate() of an open file. */
int text_cut(struct fs *fs, const struct caller *who, const struct node *n, struct handle *h,
             uint64_t size, struct err **e);
/* `: > errors` and the other truncations: all but the failure logs stay as they are. */
int text_truncate(struct fs *fs, const struct caller *who, const struct node *n, struct err **e);

/* --- data.c -------------------------------------------------------------------------------- */

/* An open disk of the life before.  -errno: it cannot be opened now. */
int data_again(struct fs *fs, struct handle *h);
void data_open(fuse_req_t req, const struct node *n, struct fuse_file_info *fi);
void data_read(fuse_req_t req, struct handle *h, size_t size, off_t off);
void data_write(fuse_req_t req, struct handle *h, const char *p, size_t size, off_t off);
void data_flush(fuse_req_t req, struct handle *h);
void data_seek_reply(fuse_req_t req, struct handle *h, off_t off, int whence);
void data_fallocate(fuse_req_t req, struct handle *h, int mode, off_t off, off_t len);
int data_cut(struct fs *fs, struct handle *h, uint64_t size, struct err **e); /* ftruncate */
void data_closing(fuse_req_t req, struct handle *h); /* close(2) of one descriptor */
void data_release(struct fs *fs, struct handle *h);
/* Size of a FILE_DATA file, from the model.  Read lock held. */
uint64_t data_known_size(struct fs *fs, const struct object *o, unsigned file);

/* --- copy.c -------------------------------------------------------------------------------- */

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                        struct fuse_file_info *fi_out, size_t len, int flags);
/* Until none is under way any more. */
void copies_wait(struct fs *fs);

/* --- upload.c ------------------------------------------------------------------------------ */

/* An upload is known to a successor from here on. */
void upload_keep(struct handle *h, const struct data *d);
/* Whether this write came in in a life before ours. */
bool upload_has(struct fs *fs, const struct data *d, size_t size, off_t off);
/* Its node goes on.  -ESTALE: its image does not wait for bytes any more. */
int upload_again(struct fs *fs, const struct held_handle *s);
/* Whether a file may be copied into the collection of this kind. */
bool kind_takes_uploads(const struct kind *k);
void upload_create(fuse_req_t req, const struct node *dir, const char *name,
                   struct fuse_file_info *fi);
void upload_read(fuse_req_t req, struct handle *h, size_t size, off_t off);
void upload_write(fuse_req_t req, struct handle *h, const char *p, size_t size, off_t off);
/* close(2) of one descriptor: was its owner killed? */
void upload_flush(fuse_req_t req, struct handle *h);
void upload_release(struct fs *fs, struct handle *h);
/* The daemon ends while it is written. */
void upload_stopped(struct handle *h);
/* Whether the process is ending by a signal. */
bool dying_by_signal(pid_t pid);
int upload_truncate(struct fs *fs, struct ephemeral *e, uint64_t size);
uint64_t upload_size(struct ephemeral *e);
/* rm of its file name. */
int upload_removed(struct fs *fs, struct ephemeral *x, const struct caller *who, struct err **e);
bool upload_done(struct ephemeral *e);
void upload_free(struct upload *u);

/* --- wait.c -------------------------------------------------------------------------------- */

int waits_new(struct waits **ret);
void waits_free(struct fs *fs);
void wait_read(fuse_req_t req, struct handle *h, size_t size, off_t off);
/* .follow: events from the open on, each once; a read waits for one. */
int follow_open(struct fs *fs, struct handle *h, struct err **e);
int follow_again(struct fs *fs, struct handle *h);
void follow_read(fuse_req_t req, struct handle *h, size_t size);
bool follow_ready(struct fs *fs, struct handle *h);

/* --- poll.c -------------------------------------------------------------------------------- */

int polls_new(struct fs *fs);
void polls_free(struct fs *fs);
void polls_changed(struct fs *fs, uint64_t no); /* object no */
void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph);
/* Begins to note changes, before the text is rendered; for sorts of text that change. */
int poll_watch(struct fs *fs, struct handle *h);
/* The handle is closed. */
void poll_drop(struct fs *fs, struct handle *h);
/* What happened in the life before is not known: it may have changed. */
void poll_unseen(struct fs *fs, struct handle *h);
/* About to be rendered anew: what happened until now is known. */
void poll_seen(struct fs *fs, struct handle *h);

/* --- hold.c, worker.c: see fs/hold.h ------------------------------------------------------- */

/* Names the next change that this request makes; true when it is durable already: a life before
 * ours made it and died before it could say so.  Called before each change, in the same order in
 * every life, also before one that turns out not to be needed. */
bool once_done(struct fs *fs);

/* --- notice.c ------------------------------------------------------------------------------ */

/* For inotify, by the helper `program`; NULL: none. */
int notices_new(struct fs *fs, const char *program);
/* On any thread; waits for nothing. */
void notices_changed(struct fs *fs, const struct change *ch);
/* When no change comes any more and the mount's requests are answered or aborted. */
void notices_free(struct fs *fs);

/* --- fs.c ---------------------------------------------------------------------------------- */

static inline struct fs *fs_of(fuse_req_t req)
{
        return fuse_req_userdata(req);
}
