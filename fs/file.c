/* Open files: one handle an open(2), its requests sent to whoever serves that sort of node. */
#include <fcntl.h>
#include "common/fileio.h"
#include "fs/ephemeral.h"
#include "fs/hold.h"
#include "fs/ops.h"

/* Answers an open; the handle goes back when the caller was interrupted meanwhile. */
void handle_opened(fuse_req_t req, struct handle *h, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);

        fi->fh = h->fh;
        fi->direct_io = 1;
        fi->noflush = (h->flags & O_ACCMODE) == O_RDONLY && h->type != NODE_UPLOAD;
        fi->nonseekable = h->type == NODE_FOLLOW; /* a shell then reads no more than its line */
        if (fuse_reply_open(req, fi) == -ENOENT && !worker_self(fs->hold)->again) {
                if (h->e)
                        ephemeral_closed(fs->ephemerals, h->e);
                handle_free(fs, h);
        }
}

/* The host's file may not be there yet: then it is empty, and looked for again at each read. */
static void log_try_open(struct fs *fs, struct handle *h, bool first)
{
        _cleanup_free_ char *path = NULL, *head = NULL;
        const struct file_def *f;
        struct node n;

        control_rdlock(fs->control);
        if (!node_get(fs, h->ino, &n)) {
                f = &n.kind->files[n.index];
                path = f->path ? f->path(fs->control, n.o) : NULL;
                head = f->head ? f->head(fs->control, n.o) : NULL;
        }
        control_unlock(fs->control);
        if (head && h->head < 0 && first)
                h->head = open(head, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (path)
                h->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* As one file.  What has begun to read it goes on with the head that it began with. */
static ssize_t log_pread(const struct handle *h, void *p, size_t size, off_t off)
{
        struct stat st = {};

        if (h->head >= 0 && fstat(h->head, &st) < 0)
                return -1;
        return off < st.st_size ? pread(h->head, p, size, off)
               : h->fd < 0      ? 0 /* it has said nothing here yet */
                                : pread(h->fd, p, size, off - st.st_size);
}

/* Whether another file has its name by now; then that is open. */
static bool log_replaced(struct fs *fs, struct handle *h)
{
        int old = h->fd;
        struct stat a, b;

        h->fd = -1;
        log_try_open(fs, h, false);
        if (h->fd >= 0 && fstat(old, &a) == 0 && fstat(h->fd, &b) == 0 &&
            (a.st_ino != b.st_ino || a.st_dev != b.st_dev)) {
                close(old);
                return true;
        }
        if (h->fd >= 0)
                close(h->fd);
        h->fd = old;
        return false;
}

static void log_read(fuse_req_t req, struct handle *h, size_t size, off_t off)
{
        _cleanup_free_ char *p = malloc(size);
        ssize_t n = 0;

        if (!p) {
                fuse_reply_err(req, ENOMEM);
                return;
        }
        pthread_mutex_lock(&h->lock);
        if (h->fd < 0)
                log_try_open(fs_of(req), h, true);
        if (h->fd >= 0 || h->head >= 0)
                n = log_pread(h, p, size, off);
        if (n == 0 && h->fd >= 0 && log_replaced(fs_of(req), h) && h->fd >= 0)
                n = log_pread(h, p, size, off);
        pthread_mutex_unlock(&h->lock);
        if (n < 0)
                fuse_reply_err(req, EIO);
        else
                fuse_reply_buf(req, p, (size_t)n);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        struct handle *h;
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        control_unlock(fs->control);
        if (r) {
                fuse_reply_err(req, fs_gone(r));
                return;
        }
        if (n.type == NODE_DATA) {
                data_open(req, &n, fi);
                return;
        }
        if (n.type == NODE_UPLOAD && upload_done(n.e)) {
                fs_refuse(req, "open", ino, NULL, -EEXIST,
                          "it was uploaded: its bytes are in the object's `data`");
                return;
        }
        if (n.type == NODE_UPLOAD && (fi->flags & O_ACCMODE) != O_RDONLY) {
                fs_refuse(req, "open", ino, NULL, -EBUSY, "another process is writing this file");
                return;
        }
        r = handle_new(fs, &who, &n, fi->flags, &h);
        if (r < 0)
                ;
        else if (node_is_text(n.type))
                r = text_open(fs, &who, &n, h, &e);
        else if (n.type == NODE_FOLLOW)
                r = follow_open(fs, h, &e);
        else if (n.type == NODE_SCRATCH && (fi->flags & O_TRUNC))
                r = ephemeral_truncate(fs->ephemerals, n.e, 0);
        else if (n.type == NODE_LOG && (fi->flags & O_ACCMODE) != O_RDONLY)
                r = err_set(&e, -EACCES, "this file is read-only");
        if (r < 0) {
                if (h)
                        handle_free(fs, h);
                fs_fail(req, "open", ino, NULL, r, e);
                return;
        }
        if (h->e)
                ephemeral_opened(fs->ephemerals, h->e);
        handle_opened(req, h, fi);
}

/* A new key is there, empty, when create returns. */
static void create_meta(fuse_req_t req, const struct node *dir, const char *name,
                        struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct fuse_entry_param entry;
        struct err *e = NULL;
        struct handle *h;
        struct node n;
        int r = once_done(fs) ? 0 : control_set_meta(fs->control, &who, dir->no, name, "", 0, &e);

        if (r < 0) {
                fs_fail(req, "create", dir->ino, name, r, e);
                return;
        }
        control_rdlock(fs->control);
        r = node_get(fs, dir->ino, &n);
        if (!r)
                r = node_get(fs, dir_find(fs, &n, name), &n);
        if (!r)
                node_entry(fs, &n, false, &entry);
        control_unlock(fs->control);
        h = handle_again(fs);
        if (!r && !h) {
                r = handle_new(fs, &who, &n, fi->flags, &h);
                if (!r)
                        h->key = strdup(name);
        }
        if (r || !h->key) {
                if (h)
                        handle_free(fs, h);
                fuse_reply_err(req, r ? fs_errno(r) : ENOMEM);
                return;
        }
        fi->fh = h->fh;
        fi->direct_io = 1;
        if (fuse_reply_create(req, &entry, fi) == -ENOENT)
                handle_free(fs, h);
}

static void create_scratch(fuse_req_t req, const struct node *dir, const char *name,
                           struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct ephemeral like = {.type = NODE_SCRATCH,
                                 .no = dir->no,
                                 .kind = dir->kind,
                                 .parent = dir->ino,
                                 .uid = who.uid,
                                 .gid = who.gid,
                                 .mode = 0600},
                         *x;
        struct fuse_entry_param entry;
        struct err *e = NULL;
        struct handle *h;
        struct node n;
        int r = ephemeral_add(fs->ephemerals, &like, name, &x, &e);

        if (r < 0) {
                fs_fail(req, "create", dir->ino, name, r, e);
                return;
        }
        control_rdlock(fs->control);
        r = node_get(fs, x->ino, &n);
        if (!r)
                node_entry(fs, &n, false, &entry);
        control_unlock(fs->control);
        if (!r)
                r = handle_new(fs, &who, &n, fi->flags, &h);
        if (r) {
                ephemeral_unname(fs->ephemerals, x);
                ephemeral_forget(fs->ephemerals, x->ino, 1);
                fuse_reply_err(req, fs_errno(r));
                return;
        }
        ephemeral_opened(fs->ephemerals, x);
        fi->fh = h->fh;
        fi->direct_io = 1;
        if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
                ephemeral_forget(fs->ephemerals, x->ino, 1);
                ephemeral_closed(fs->ephemerals, x);
                handle_free(fs, h);
        }
}

static void create_refused(fuse_req_t req, const struct node *dir, const char *name)
{
        const struct kind *k = dir->kind;
        int def;

        if (dir->type == NODE_OBJECT) {
                def = kind_link(k, name);
                if (def >= 0)
                        fs_refuse(req, "create", dir->ino, name, -EPERM,
                                  "'%s' is a link: ln -s TARGET %s", name, name);
                else
                        fs_refuse(req, "create", dir->ino, name, -ENOENT,
                                  "a %s has no file '%s': see the `help` beside it", k->name, name);
        } else if (dir->type == NODE_COLLECTION) {
                fs_refuse(req, "create", dir->ino, name, -EPERM,
                          "a %s is made with mkdir, or by a write to `new`", k->name);
        } else {
                fs_refuse(req, "create", dir->ino, name, -EPERM, "no file can be made here");
        }
}

/* A name made of a file's own and what a program adds to it, "spec.1234567": many write that one
 * first and rename it. */
static bool named_after_text(struct fs *fs, const struct node *dir, const char *name)
{
        _cleanup_free_ char *stem = strndup(name, strcspn(name, ".-~"));
        struct node n;
        bool is;

        if (!stem || streq(stem, name))
                return false;
        control_rdlock(fs->control);
        is = !node_get(fs, dir_find(fs, dir, stem), &n) && node_is_text(n.type);
        control_unlock(fs->control);
        return is;
}

static bool makes_scratch(struct fs *fs, const struct node *dir, const char *name)
{
        if (dir->type == NODE_METADATA)
                return (name[0] == '.' || !name_valid(name)) && scratch_name(name);
        return dir->type == NODE_OBJECT && (scratch_name(name) || named_after_text(fs, dir, name));
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct node dir;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, parent, &dir);
        control_unlock(fs->control);
        if (r)
                fuse_reply_err(req, fs_errno(r));
        else if (dir.type == NODE_COLLECTION && kind_takes_uploads(dir.kind))
                upload_create(req, &dir, name, fi);
        else if (makes_scratch(fs, &dir, name))
                create_scratch(req, &dir, name, fi);
        else if (dir.type == NODE_METADATA)
                create_meta(req, &dir, name, fi);
        else
                create_refused(req, &dir, name);
}

static void scratch_read(fuse_req_t req, struct handle *h, size_t size, off_t off)
{
        size_t len = 0;
        _cleanup_free_ char *text = ephemeral_text(fs_of(req)->ephemerals, h->e, &len);

        if (!text)
                fuse_reply_err(req, ENOMEM);
        else if ((size_t)off >= len)
                fuse_reply_buf(req, NULL, 0);
        else
                fuse_reply_buf(req, text + off, MIN(size, len - (size_t)off));
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);

        if (!h) {
                fuse_reply_err(req, ESTALE);
                return;
        }
        switch (h->type) {
        case NODE_LOG:
                log_read(req, h, size, off);
                return;
        case NODE_SCRATCH:
                scratch_read(req, h, size, off);
                return;
        case NODE_WAIT:
                wait_read(req, h, size, off);
                return;
        case NODE_FOLLOW:
                follow_read(req, h, size);
                return;
        case NODE_UPLOAD:
                upload_read(req, h, size, off);
                return;
        case NODE_DATA:
                data_read(req, h, size, off);
                return;
        default:
                text_read(req, h, size, off);
        }
}

/* A life before ours made this write, and its answers are in the text already. */
static bool handle_applied(struct fs *fs, const struct handle *h)
{
        const struct worker *w = worker_self(fs->hold);

        return w->again && h->held->applied == w->unique;
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *p, size_t size, off_t off,
              struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        int r;

        if (!h) {
                fs_stale(req, "write", ino);
                return;
        }
        switch (h->type) {
        case NODE_UPLOAD:
                upload_write(req, h, p, size, off);
                return;
        case NODE_DATA:
                data_write(req, h, p, size, off);
                return;
        case NODE_SCRATCH:
                r = ephemeral_write(fs->ephemerals, h->e, p, size, (uint64_t)off);
                break;
        default:
                pthread_mutex_lock(&h->lock);
                h->writer = who;
                r = handle_applied(fs, h) ? 0 : text_write(fs, &who, h, p, size, (uint64_t)off, &e);
                handle_keep(h);
                if (r == 0)
                        h->held->applied = worker_self(fs->hold)->unique;
                pthread_mutex_unlock(&h->lock);
        }
        if (r < 0)
                fs_fail(req, "write", ino, NULL, r, e);
        else
                fuse_reply_write(req, size);
}

/* A shell's redirection closes a copy of the descriptor before anything was written; that flush
 * finds nothing waiting and does nothing. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        int r = 0;

        if (!h) {
                fuse_reply_err(req, ESTALE);
                return;
        }
        if (h->type == NODE_UPLOAD) {
                upload_flush(req, h);
                return;
        }
        if (h->type == NODE_DATA) {
                data_closing(req, h);
                return;
        }
        pthread_mutex_lock(&h->lock);
        /* nor is a child that inherited the descriptor and ends the one who ends a line */
        if (h->frame.pending.len && h->writer.pid == who.pid)
                r = text_flush(fs, &who, h, &e);
        handle_keep(h);
        pthread_mutex_unlock(&h->lock);
        if (r < 0)
                fs_fail(req, "write", ino, NULL, r, e);
        else
                fuse_reply_err(req, 0);
}

/* The last close: what still waits for its newline is carried out for the one who wrote it.  A
 * release carries no caller of its own. */
static void flush_late(struct fs *fs, struct handle *h)
{
        _cleanup_err_ struct err *e = NULL;
        int r = h->frame.pending.len ? text_flush(fs, &h->writer, h, &e) : 0;

        if (r < 0)
                fs_record(fs, &h->writer, "write", h->ino, NULL, r, e);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);
        struct fs *fs = fs_of(req);

        if (!h) {
                fuse_reply_err(req, 0);
                return;
        }
        flush_late(fs, h);
        if (h->type == NODE_UPLOAD)
                upload_release(fs, h);
        if (h->type == NODE_DATA)
                data_release(fs, h);
        if (h->e)
                ephemeral_closed(fs->ephemerals, h->e);
        handle_free(fs, h);
        fuse_reply_err(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);

        if (!h)
                fuse_reply_err(req, ESTALE);
        else if (h->type == NODE_DATA)
                data_flush(req, h);
        else
                fuse_reply_err(req, 0); /* writes are durable when they return */
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);
        struct node n;
        struct stat st;
        int r;

        if (!h) {
                fuse_reply_err(req, ESTALE);
                return;
        }
        if (h->type == NODE_DATA) {
                data_seek_reply(req, h, off, whence);
                return;
        }
        control_rdlock(fs_of(req)->control);
        r = node_get(fs_of(req), ino, &n);
        if (!r)
                node_stat(fs_of(req), &n, &st);
        control_unlock(fs_of(req)->control);
        /* at and behind the end ENXIO, or cp asks for ever */
        if (r || off < 0 || off >= st.st_size)
                fuse_reply_err(req, r ? fs_errno(r) : ENXIO);
        else
                fuse_reply_lseek(req, whence == SEEK_DATA ? off : st.st_size);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                  struct fuse_file_info *fi)
{
        struct handle *h = handle_of(req, fi);

        if (!h)
                fuse_reply_err(req, ESTALE);
        else if (h->type == NODE_DATA)
                data_fallocate(req, h, mode, off, len);
        else
                fuse_reply_err(req, EOPNOTSUPP);
}
