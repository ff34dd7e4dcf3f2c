/* cp FILE images/: a file name that lives while its bytes come in.
 *
 * The object is there from create(2) on, under its own name; the file name is an ephemeral node
 * whose last close ends the upload.  FUSE does not say how a writer ended, so each close(2) looks
 * whether its process is being killed: what a killed `cp` left is not passed off as an image. */
#include <fcntl.h>
#include "common/fileio.h"
#include "fs/ephemeral.h"
#include "fs/hold.h"
#include "fs/ops.h"

struct upload {
        pthread_mutex_t lock;
        struct data *data; /* NULL once it has ended */
        uint64_t no;
        _Atomic uint64_t size; /* read under the model's lock, so never behind this one */
        char *cut;             /* why it is not whole; NULL while it is */
};

bool kind_takes_uploads(const struct kind *k)
{
        return k == &kind_image;
}

void upload_free(struct upload *u)
{
        if (!u)
                return;
        pthread_mutex_destroy(&u->lock);
        free(u->cut);
        free(u);
}

/* What a successor needs to go on. */
static void keep(struct handle *h, const struct data *d)
{
        h->held->received = d->received;
        h->held->next = d->next;
        h->held->out_of_order = !d->in_order;
        h->held->failed = d->failed;
}

void upload_keep(struct handle *h, const struct data *d)
{
        keep(h, d);
        h->held->upload = d->no;
}

bool upload_has(struct fs *fs, const struct data *d, size_t size, off_t off)
{
        return worker_self(fs->hold)->again && d->received >= size &&
               d->next == (uint64_t)off + size;
}

static void cut(struct upload *u, const char *why)
{
        WITH_LOCK(&u->lock);
        if (!u->cut)
                u->cut = strdup(why);
}

/* Begins the upload and makes its node. */
static int begin(struct fs *fs, const struct caller *who, const struct node *dir, const char *name,
                 struct ephemeral **ret, struct err **e)
{
        _cleanup_free_ char *target = rsync_target(name);
        struct ephemeral like = {.type = NODE_UPLOAD,
                                 .kind = dir->kind,
                                 .parent = dir->ino,
                                 .uid = who->uid,
                                 .gid = who->gid,
                                 .mode = 0660};
        struct upload *u = calloc(1, sizeof(*u));
        int r;

        if (!u)
                return -ENOMEM;
        pthread_mutex_init(&u->lock, NULL);
        while (once_done(fs)) /* that life died before the bytes could come in */
                if (!once_done(fs))
                        control_upload_forget(fs->control, who, dir->no, target ?: name);
        r = control_upload(fs->control, who, dir->no, target ?: name, &u->no, &u->data, e);
        if (r < 0) {
                upload_free(u);
                return r;
        }
        like.no = u->no;
        like.upload = u;
        r = ephemeral_add(fs->ephemerals, &like, name, ret, e);
        if (r < 0) {
                control_close_data(fs->control, u->data, "the mount had no room for it");
                upload_free(u);
        }
        return r;
}

static void created_again(fuse_req_t req, struct handle *h, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct fuse_entry_param entry;
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, h->ino, &n);
        if (!r)
                node_entry(fs, &n, false, &entry);
        control_unlock(fs->control);
        fi->fh = h->fh;
        fi->direct_io = 1;
        if (r)
                fuse_reply_err(req, fs_errno(r));
        else
                fuse_reply_create(req, &entry, fi);
}

int upload_again(struct fs *fs, const struct held_handle *s)
{
        struct ephemeral like = {.type = NODE_UPLOAD,
                                 .kind = &kind_image,
                                 .parent = s->parent,
                                 .no = s->upload,
                                 .uid = s->uid,
                                 .gid = s->gid,
                                 .mode = 0660};
        struct upload *u = calloc(1, sizeof(*u));
        int r;

        if (!u)
                return -ENOMEM;
        pthread_mutex_init(&u->lock, NULL);
        u->no = s->upload;
        r = control_upload_again(fs->control, u->no, s->received, s->next, !s->out_of_order,
                                 &u->data, NULL);
        if (r < 0) {
                upload_free(u);
                return r;
        }
        u->data->failed = s->failed;
        u->size = (uint64_t)data_size(u->data);
        if (s->cut)
                cut(u, "its writer was killed by a signal");
        like.upload = u;
        r = ephemeral_again(fs->ephemerals, &like, s->ino, s->text);
        if (r < 0) {
                control_close_data(fs->control, u->data, "the mount had no memory");
                upload_free(u);
        }
        return r;
}

void upload_create(fuse_req_t req, const struct node *dir, const char *name,
                   struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct fuse_entry_param entry;
        struct err *e = NULL;
        struct ephemeral *x;
        struct handle *h = handle_again(fs);
        struct node n;
        int r;

        if (h) {
                created_again(req, h, fi);
                return;
        }
        r = begin(fs, &who, dir, name, &x, &e);
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
                control_close_data(fs->control, x->upload->data, "the mount had no memory");
                x->upload->data = NULL;
                ephemeral_unname(fs->ephemerals, x);
                ephemeral_forget(fs->ephemerals, x->ino, 1);
                fuse_reply_err(req, fs_errno(r));
                return;
        }
        h->held->parent = dir->ino;
        snprintf(h->held->text, HOLD_TEXT, "%s", name);
        if (strlen(name) < HOLD_TEXT)
                upload_keep(h, x->upload->data);
        ephemeral_opened(fs->ephemerals, x);
        fi->fh = h->fh;
        fi->direct_io = 1;
        if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
                cut(x->upload, "its writer was interrupted");
                upload_release(fs, h);
                ephemeral_forget(fs->ephemerals, x->ino, 1);
                ephemeral_closed(fs->ephemerals, x);
                handle_free(fs, h);
        }
}

void upload_read(fuse_req_t req, struct handle *h, size_t size, off_t off)
{
        struct upload *u = h->e->upload;
        _cleanup_free_ char *p = malloc(size);
        int64_t n = -ENOMEM;

        if (p) {
                WITH_LOCK(&u->lock);
                n = u->data ? data_pread(u->data, p, size, (uint64_t)off) : -EBUSY;
        }
        if (n < 0)
                fuse_reply_err(req, fs_errno((int)n));
        else
                fuse_reply_buf(req, p, (size_t)n);
}

void upload_write(fuse_req_t req, struct handle *h, const char *p, size_t size, off_t off)
{
        struct upload *u = h->e->upload;
        struct fs *fs = fs_of(req);
        struct err *e = NULL;
        int r;

        pthread_mutex_lock(&u->lock);
        r = !u->data ? err_set(&e, -EBUSY, "the upload has ended")
            : upload_has(fs, u->data, size, off)
                    ? 0
                    : data_pwrite(fs->control, u->data, p, size, (uint64_t)off, &e);
        h->closed = false;
        if (u->data)
                keep(h, u->data);
        if (!r)
                u->size = (uint64_t)data_size(u->data);
        pthread_mutex_unlock(&u->lock);
        if (r < 0) {
                cut(u, err_msg(e));
                fs_fail(req, "write", h->ino, NULL, r, e);
        } else {
                fuse_reply_write(req, size);
        }
}

void upload_stopped(struct handle *h)
{
        if (h->type == NODE_UPLOAD)
                cut(h->e->upload, "the cloud was stopped while it came in");
        else if (h->type == NODE_DATA && h->data && h->data->upload && !h->cut)
                h->cut = strdup("the cloud was stopped while it came in");
}

/* Whether the process is ending by a signal: PF_EXITING with PF_SIGNALED in its flags. */
bool dying_by_signal(pid_t pid)
{
        enum { EXITING = 0x4, SIGNALED = 0x400 };
        _cleanup_free_ char *path = path_printf("/proc/%d/stat", (int)pid);
        _cleanup_free_ char *text = NULL;
        unsigned long flags;
        const char *p;

        if (!pid || !path || file_read(path, 4096, &text, NULL, NULL) < 0)
                return false;
        p = strrchr(text, ')'); /* the name may hold anything */
        if (!p || sscanf(p, ") %*c %*d %*d %*d %*d %*d %lu", &flags) != 1)
                return false;
        return (flags & (EXITING | SIGNALED)) == (EXITING | SIGNALED);
}

void upload_flush(fuse_req_t req, struct handle *h)
{
        if (dying_by_signal(fuse_req_ctx(req)->pid)) {
                h->held->cut = true;
                cut(h->e->upload, "its writer was killed by a signal");
        }
        h->closed = true;
        fuse_reply_err(req, 0);
}

void upload_release(struct fs *fs, struct handle *h)
{
        struct upload *u = h->e->upload;
        struct data *d;

        if ((h->flags & O_ACCMODE) == O_RDONLY)
                return;
        pthread_mutex_lock(&u->lock);
        d = TAKE_PTR(u->data);
        pthread_mutex_unlock(&u->lock);
        if (d)
                control_close_data(fs->control, d, u->cut);
        /* The name stays for a minute: rsync and install come back by it to set times and modes,
         * or to rename it. */
}

int upload_truncate(struct fs *fs, struct ephemeral *e, uint64_t size)
{
        struct upload *u = e->upload;
        int r;

        WITH_LOCK(&u->lock);
        if (!u->data)
                return size == u->size ? 0 : -EBUSY;
        r = data_truncate(fs->control, u->data, size);
        if (!r)
                u->size = size;
        return r;
}

uint64_t upload_size(struct ephemeral *e)
{
        return e->upload->size;
}

bool upload_done(struct ephemeral *e)
{
        WITH_LOCK(&e->upload->lock);
        return !e->upload->data;
}

int upload_removed(struct fs *fs, struct ephemeral *x, const struct caller *who, struct err **e)
{
        _cleanup_free_ char *rsync = rsync_target(x->name);

        if (!upload_done(x)) {
                cut(x->upload, "its writer removed it");
                return 0;
        }
        if (rsync) /* it gave up */
                return once_done(fs) ? 0 : control_delete(fs->control, who, x->upload->no, e);
        err_set(e, -EPERM, "the upload has ended");
        return err_hint(e, -EPERM, "rmdir of the object deletes it");
}
