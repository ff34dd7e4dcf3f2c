/* Bulk bytes: .data/<uuid>, a volume through blockd or an image's file. */
#include <fcntl.h>
#include <linux/falloc.h>
#include "fs/hold.h"
#include "fs/nbd.h"
#include "fs/ops.h"

/* A request that waits for the volume's thread. */
struct parked {
        struct volume_op op;
        fuse_req_t req;
        struct handle *h;
        struct fuse_file_info fi; /* of an open */
        size_t written;           /* of an O_DSYNC write whose flush is under way */
};

uint64_t data_known_size(struct fs *fs, const struct object *o, unsigned file)
{
        /* `data` is as large as `size` says; another view has the size that a guest would see */
        const char *attr = streq(o->kind->files[file].name, "data") ? "size" : "virtual_size";
        _cleanup_buf_ struct buf b = {0};
        int i = kind_attr(o->kind, attr);

        if (i >= 0)
                render_attr(fs->control, o, (unsigned)i, &b);
        return strtoull(buf_str(&b), NULL, 10);
}

static const char *op_name(enum volume_op_type t)
{
        return t == VOLUME_OPEN                                 ? "open"
               : t == VOLUME_READ                               ? "read"
               : t == VOLUME_SEEK_DATA || t == VOLUME_SEEK_HOLE ? "lseek"
                                                                : "write";
}

static void fail(struct parked *p, int r)
{
        struct err *e = NULL;

        switch (r) {
        case -ETIMEDOUT:
                err_set(&e, r, "the block service did not answer in %d s", CONNECT_S);
                break;
        case -ECONNREFUSED:
        case -ENOENT:
        case -ENOTCONN:
                r = -EIO;
                err_set(&e, r, "the block service (blockd) is not running");
                break;
        default:
                err_errno(&e, r, "the block service");
        }
        fs_fail(p->req, op_name(p->op.type), p->h->ino, NULL, r, e);
}

static void close_handle(struct fs *fs, struct handle *h)
{
        data_release(fs, h);
        handle_free(fs, h);
}

/* --- on the volume's thread ----------------------------------------------------------------- */

/* The kernel leaves it to us that a write with O_DSYNC is on the disk when it returns. */
static void flush_write(struct parked *p)
{
        p->written = p->op.count;
        p->op = (struct volume_op){
                .type = VOLUME_FLUSH, .done = p->op.done, .volume = p->op.volume};
        volume_submit(p->op.volume, &p->op);
}

static void answered(struct volume_op *op, int r)
{
        struct parked *p = (struct parked *)op;
        struct fs *fs = fs_of(p->req);

        if (r < 0) {
                fail(p, r);
                if (op->type == VOLUME_OPEN)
                        close_handle(fs, p->h);
                free(p);
                return;
        }
        switch (op->type) {
        case VOLUME_OPEN:
                if (fuse_reply_open(p->req, &p->fi) == -ENOENT)
                        close_handle(fs, p->h);
                break;
        case VOLUME_READ:
                fuse_reply_buf(p->req, op->buf, op->count);
                break;
        case VOLUME_WRITE:
                if (p->h->flags & O_DSYNC) {
                        flush_write(p);
                        return;
                }
                fuse_reply_write(p->req, op->count);
                break;
        case VOLUME_FLUSH:
                if (p->written)
                        fuse_reply_write(p->req, p->written);
                else
                        fuse_reply_err(p->req, 0);
                break;
        case VOLUME_SEEK_DATA:
        case VOLUME_SEEK_HOLE:
                if (op->found != UINT64_MAX)
                        fuse_reply_lseek(p->req, (off_t)MAX(op->found, op->off));
                else if (op->type == VOLUME_SEEK_HOLE && p->fi.fh < volume_size(op->volume))
                        fuse_reply_lseek(p->req, (off_t)volume_size(op->volume));
                else
                        fuse_reply_err(p->req, ENXIO);
                break;
        default:
                fuse_reply_err(p->req, 0);
        }
        free(p);
}

static void submit(fuse_req_t req, struct handle *h, enum volume_op_type type, uint64_t off,
                   uint64_t count, char *buf)
{
        struct parked *p = calloc(1, sizeof(*p));

        if (!p) {
                free(buf);
                fuse_reply_err(req, ENOMEM);
                return;
        }
        p->op = (struct volume_op){
                .type = type, .off = off, .count = count, .buf = buf, .done = answered};
        p->req = req;
        p->h = h;
        p->fi.fh = off; /* where a seek began: op.off moves on */
        volume_submit(h->volume, &p->op);
}

/* --- requests -----------------------------------------------------------------------------------
 */

static void open_volume(fuse_req_t req, struct handle *h, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct parked *p = calloc(1, sizeof(*p));
        int r = -ENOMEM;

        if (p) {
                p->op = (struct volume_op){.type = VOLUME_OPEN, .done = answered};
                p->req = req;
                p->h = h;
                p->fi = *fi;
                r = volume_open(fs->nbd, h->data->socket, h->data->export, &p->op, &h->volume);
        }
        if (r < 0) {
                free(p);
                close_handle(fs, h);
                fuse_reply_err(req, fs_errno(r));
        }
}

void data_open(fuse_req_t req, const struct node *n, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        struct handle *h = NULL;
        int r = handle_new(fs, &who, n, fi->flags, &h);

        if (!r && (fi->flags & O_APPEND))
                r = err_set(&e, -EINVAL, "a disk has no end to append to");
        if (!r)
                r = control_open_data(fs->control, &who, n->no, n->index, fi->flags, &h->data, &e);
        if (!r && h->data->type == DATA_IMAGE && h->data->upload && (fi->flags & O_TRUNC))
                r = data_truncate(fs->control, h->data, 0);
        if (r < 0) {
                if (h)
                        close_handle(fs, h);
                fs_fail(req, "open", n->ino, NULL, r, e);
                return;
        }
        if (h->data->upload)
                upload_keep(h, h->data);
        fi->fh = h->fh;
        fi->direct_io = 1;
        fi->noflush = !h->data->upload;
        if (h->data->type == DATA_NBD)
                open_volume(req, h, fi);
        else if (fuse_reply_open(req, fi) == -ENOENT)
                close_handle(fs, h);
}

int data_again(struct fs *fs, struct handle *h)
{
        bool writes = (h->flags & O_ACCMODE) != O_RDONLY;
        int r;

        if (writes && h->kind == &kind_image) {
                r = control_upload_again(fs->control, h->no, h->held->received, h->held->next,
                                         !h->held->out_of_order, &h->data, NULL);
                if (r == 0)
                        h->data->failed = h->held->failed;
                if (r == 0 && h->held->cut)
                        h->cut = strdup("its writer was killed by a signal");
                return r;
        }
        r = control_open_data(fs->control, &h->writer, h->no, h->index, h->flags, &h->data, NULL);
        if (r == 0 && h->data->type == DATA_NBD)
                r = volume_again(fs->nbd, h->data->socket, h->data->export, h->data->size,
                                 &h->volume);
        if (r < 0)
                data_release(fs, h);
        h->wrote = writes; /* no clone may replace what may have been written */
        return r;
}

void data_read(fuse_req_t req, struct handle *h, size_t size, off_t off)
{
        _cleanup_free_ char *p = NULL;
        uint64_t end;
        int64_t n;

        if (h->data->type == DATA_NBD) {
                end = volume_size(h->volume);
                if ((uint64_t)off >= end)
                        fuse_reply_buf(req, NULL, 0);
                else
                        submit(req, h, VOLUME_READ, (uint64_t)off,
                               MIN(MIN(size, end - (uint64_t)off), (uint64_t)NBD_IO_MAX), NULL);
                return;
        }
        p = malloc(size);
        n = p ? data_pread(h->data, p, size, (uint64_t)off) : -ENOMEM;
        if (n < 0)
                fs_fail(req, "read", h->ino, NULL, (int)n, NULL);
        else
                fuse_reply_buf(req, p, (size_t)n);
}

static void write_image(fuse_req_t req, struct handle *h, const char *p, size_t size, off_t off)
{
        struct err *e = NULL;
        int r;

        pthread_mutex_lock(&h->lock);
        h->closed = false;
        r = upload_has(fs_of(req), h->data, size, off)
                    ? 0
                    : data_pwrite(fs_of(req)->control, h->data, p, size, (uint64_t)off, &e);
        upload_keep(h, h->data);
        if (r < 0 && !h->cut)
                h->cut = strdup(err_msg(e));
        pthread_mutex_unlock(&h->lock);
        if (r < 0)
                fs_fail(req, "write", h->ino, NULL, r, e);
        else
                fuse_reply_write(req, size);
}

void data_write(fuse_req_t req, struct handle *h, const char *p, size_t size, off_t off)
{
        uint64_t end;
        char *buf;

        if (h->data->type != DATA_NBD) {
                write_image(req, h, p, size, off);
                return;
        }
        end = volume_size(h->volume);
        if ((uint64_t)off >= end) {
                fs_refuse(req, "write", h->ino, NULL, -EFBIG,
                          "the disk ends at byte %llu: write its `size` to grow it",
                          (unsigned long long)end);
                return;
        }
        size = MIN(MIN(size, end - (uint64_t)off), (uint64_t)NBD_IO_MAX);
        pthread_mutex_lock(&h->lock);
        h->wrote = true;
        h->copy_next = UINT64_MAX; /* a copy goes on by bytes, over what is written now */
        pthread_mutex_unlock(&h->lock);
        buf = nbd_buffer(fs_of(req)->nbd);
        if (!buf) {
                fuse_reply_err(req, ENOMEM);
                return;
        }
        memcpy(buf, p, size); /* the request's own memory goes with this call */
        submit(req, h, VOLUME_WRITE, (uint64_t)off, size, buf);
}

void data_flush(fuse_req_t req, struct handle *h)
{
        if (h->data->type == DATA_NBD)
                submit(req, h, VOLUME_FLUSH, 0, 0, NULL);
        else
                fuse_reply_err(req, 0);
}

void data_seek_reply(fuse_req_t req, struct handle *h, off_t off, int whence)
{
        int64_t r;

        if (h->data->type == DATA_NBD) {
                submit(req, h, whence == SEEK_DATA ? VOLUME_SEEK_DATA : VOLUME_SEEK_HOLE,
                       (uint64_t)off, 0, NULL);
                return;
        }
        r = data_seek(h->data, (uint64_t)off, whence);
        if (r < 0)
                fuse_reply_err(req, fs_errno((int)r));
        else
                fuse_reply_lseek(req, (off_t)r);
}

void data_fallocate(fuse_req_t req, struct handle *h, int mode, off_t off, off_t len)
{
        bool punch = mode & FALLOC_FL_PUNCH_HOLE, zero = mode & FALLOC_FL_ZERO_RANGE;
        uint64_t end = h->data->type == DATA_NBD ? volume_size(h->volume) : 0;

        if (h->data->type != DATA_NBD ||
            (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
                fuse_reply_err(req, EOPNOTSUPP);
        else if (!punch && (uint64_t)off + (uint64_t)len > end)
                fs_refuse(req, "fallocate", h->ino, NULL, -EFBIG, "the disk ends at byte %llu",
                          (unsigned long long)end);
        else if ((!punch && !zero) || (uint64_t)off >= end)
                fuse_reply_err(req, 0);
        else
                submit(req, h, punch ? VOLUME_PUNCH : VOLUME_ZERO, (uint64_t)off,
                       MIN((uint64_t)len, end - (uint64_t)off), NULL);
}

int data_cut(struct fs *fs, struct handle *h, uint64_t size, struct err **e)
{
        WITH_LOCK(&h->lock);
        return data_truncate(fs->control, h->data, size);
}

void data_closing(fuse_req_t req, struct handle *h)
{
        if (h->data->upload && dying_by_signal(fuse_req_ctx(req)->pid)) {
                WITH_LOCK(&h->lock);
                if (!h->cut)
                        h->cut = strdup("its writer was killed by a signal");
                h->held->cut = true;
        }
        h->closed = true;
        fuse_reply_err(req, 0);
}

void data_release(struct fs *fs, struct handle *h)
{
        if (h->volume)
                volume_close(TAKE_PTR(h->volume));
        if (h->data)
                control_close_data(fs->control, TAKE_PTR(h->data), h->cut);
}
