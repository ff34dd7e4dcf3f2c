/* copy_file_range(2): a whole disk copied onto a volume that nobody has written becomes a clone.
 *
 * Anything else is EOPNOTSUPP, and the kernel copies by reading and writing.  GNU cp and the kernel
 * ask in pieces (4 GiB less a page, in FUSE's protocol); the first one clones it all, those that go
 * on where the last one ended are done already. */
#include "fs/nbd.h"
#include "fs/ops.h"

enum { WAIT_S = 60 };
#define PIECE_MAX ((uint64_t)UINT32_MAX & ~UINT64_C(4095)) /* what one request can ask and say */

struct copy {
        struct fs *fs;
        fuse_req_t req;
        struct handle *to;
        uint64_t from, size;
};

static void paused(struct volume_op *op, int r)
{
        free(op);
}

static void copying(struct fs *fs, int more)
{
        WITH_LOCK(&fs->lock);
        fs->copies += more;
        pthread_cond_broadcast(&fs->changed);
}

void copies_wait(struct fs *fs)
{
        WITH_LOCK(&fs->lock);
        while (fs->copies > 0)
                pthread_cond_wait(&fs->changed, &fs->lock);
}

/* The job has ended, on any thread. */
static void settled(void *arg, int r)
{
        struct copy *c = arg;
        uint64_t n = MIN(c->size, PIECE_MAX);

        volume_resume(c->to->volume);
        if (r == 0 && control_adopted(c->fs->control, c->to->no, c->from)) {
                pthread_mutex_lock(&c->to->lock);
                c->to->copy_of = c->from;
                c->to->copy_next = n;
                pthread_mutex_unlock(&c->to->lock);
                fuse_reply_write(c->req, n);
        } else {
                fuse_reply_err(c->req, r == 0 ? EOPNOTSUPP : EIO);
        }
        copying(c->fs, -1);
        free(c);
}

static void clone_into(fuse_req_t req, struct handle *from, struct handle *to)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct copy *c = calloc(1, sizeof(*c));
        struct volume_op *op = calloc(1, sizeof(*op));
        struct waiter *waiter;
        int r;

        if (!c || !op) {
                free(c);
                free(op);
                fuse_reply_err(req, ENOMEM);
                return;
        }
        *c = (struct copy){fs, req, to, from->no, volume_size(from->volume)};
        *op = (struct volume_op){.type = VOLUME_PAUSE, .done = paused};
        copying(fs, 1);
        volume_submit(to->volume, op);
        r = control_adopt(fs->control, to->no, from->no, NULL);
        if (r == 0)
                r = control_wait(fs->control, &who, to->no, "available", WAIT_S * INT64_C(1000000),
                                 settled, c, &waiter, NULL);
        if (r == 0)
                return;
        volume_resume(to->volume);
        fuse_reply_err(req, r == -ENOTSUP ? EOPNOTSUPP : fs_errno(r));
        copying(fs, -1);
        free(c);
}

/* Bytes that the clone has brought already, from where the last piece ended. */
static uint64_t brought(struct handle *from, struct handle *to, uint64_t off, uint64_t len)
{
        uint64_t end = volume_size(from->volume), n;

        WITH_LOCK(&to->lock);
        if (to->copy_of != from->no || to->copy_next != off || off >= end)
                return 0;
        n = MIN(MIN(len, end - off), PIECE_MAX);
        to->copy_next += n;
        return n;
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                        struct fuse_file_info *fi_out, size_t len, int flags)
{
        struct handle *from = handle_of(req, fi_in), *to = handle_of(req, fi_out);
        uint64_t n;

        if (!from || !to) {
                fuse_reply_err(req, ESTALE);
                return;
        }
        if (flags || off_in != off_out || from->type != NODE_DATA || to->type != NODE_DATA ||
            !from->volume || !to->volume || !to->data->writable || from->no == to->no) {
                fuse_reply_err(req, EOPNOTSUPP);
                return;
        }
        n = brought(from, to, (uint64_t)off_in, len);
        if (n > 0)
                fuse_reply_write(req, n);
        else if (off_in == 0 && !to->copy_of && !to->wrote &&
                 (len >= volume_size(from->volume) || len == PIECE_MAX) &&
                 volume_size(from->volume) <= volume_size(to->volume))
                clone_into(req, from, to);
        else
                fuse_reply_err(req, EOPNOTSUPP);
}
