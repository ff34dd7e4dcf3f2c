/* Reads and writes.
 *
 * What is started is answered by librbd's own thread, which is one for all images and must not
 * wait: a write that was refused because the lock was lost with the cluster is left to
 * volume_again(). */
#include "backend/volume/rbd/rbd.h"

enum { BLOCK = 4096 }; /* trimmed */
/* One call's length. */
static const uint64_t call_max = UINT64_C(1) << 40;

/* What a call for the image gave; bytes or -errno. */
static int result(ssize_t r)
{
        return r < 0 ? (int)r : 0;
}

static int thick(unsigned flags)
{
        return flags & VOLUME_NO_HOLE ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0;
}

static int start(struct entry *en, const struct volume_io *io, rbd_completion_t c)
{
        switch (io->op) {
        case VOLUME_READ:
                return rbd_aio_read(en->image, io->off, io->n, io->p, c);
        case VOLUME_WRITE:
                return rbd_aio_write(en->image, io->off, io->n, io->p, c);
        case VOLUME_FLUSH:
                return rbd_aio_flush(en->image, c);
        case VOLUME_ZEROES:
                return rbd_aio_write_zeroes(en->image, io->off, io->n, c, thick(io->flags), 0);
        case VOLUME_TRIM:
                return rbd_aio_discard(en->image, io->off, io->n, c);
        }
        return -EINVAL;
}

/* ---- one at a time ---- */

static int try_one(struct entry *en, const struct volume_io *io)
{
        rbd_completion_t c;
        int r = rbd_aio_create_completion(NULL, NULL, &c);

        if (r < 0)
                return r;
        r = start(en, io, c);
        if (r == 0)
                r = rbd_aio_wait_for_complete(c);
        if (r == 0)
                r = result(rbd_aio_get_return_value(c));
        rbd_aio_release(c);
        return r;
}

static bool writes(enum volume_op op)
{
        return op != VOLUME_READ && op != VOLUME_FLUSH;
}

static int do_one(struct entry *en, const struct volume_io *io)
{
        int r = writes(io->op) ? entry_lock(en) : 0;

        if (r == 0)
                r = try_one(en, io);
        if (r != -EROFS || en->immutable)
                return r;
        /* The lock was lost while the cluster was away: once more with it, if nobody else has it
         * now. */
        en->locked = false;
        r = entry_lock(en);
        return r == 0 ? try_one(en, io) : -EROFS;
}

/* In pieces of a length that one call takes. */
static int do_all(struct entry *en, struct volume_io io)
{
        uint64_t end = io.off + io.n;
        int r = 0;

        for (; io.off < end && r == 0; io.off += io.n) {
                io.n = MIN(end - io.off, call_max);
                r = do_one(en, &io);
        }
        return r;
}

int io_pread(void *v, void *p, size_t n, uint64_t off)
{
        return do_one(v, &(struct volume_io){.op = VOLUME_READ, .p = p, .n = n, .off = off});
}

/* Without a cache each write is durable when it is acknowledged: VOLUME_FUA adds nothing. */
int io_pwrite(void *v, const void *p, size_t n, uint64_t off, unsigned flags _unused_)
{
        return do_one(v,
                      &(struct volume_io){.op = VOLUME_WRITE, .p = (void *)p, .n = n, .off = off});
}

int io_flush(void *v)
{
        struct entry *en = v;

        return en->immutable ? 0 : do_one(en, &(struct volume_io){.op = VOLUME_FLUSH});
}

int io_zero(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        if (thick(flags) && flags & VOLUME_FAST)
                return -ENOTSUP;
        return do_all(v,
                      (struct volume_io){.op = VOLUME_ZEROES, .flags = flags, .n = n, .off = off});
}

/* Whole blocks only, as everywhere. */
static int trimmed(struct entry *en, uint64_t *n, uint64_t *off)
{
        uint64_t from = (*off + BLOCK - 1) / BLOCK * BLOCK, end = *off + *n, size;
        int r = rbd_get_size(en->image, &size);

        if (r == 0 && end < size)
                end = end / BLOCK * BLOCK;
        *n = end > from ? end - from : 0;
        *off = from;
        return r;
}

int io_trim(void *v, uint64_t n, uint64_t off, unsigned flags _unused_)
{
        int r = trimmed(v, &n, &off);

        return r < 0 ? r : do_all(v, (struct volume_io){.op = VOLUME_TRIM, .n = n, .off = off});
}

/* ---- many ---- */

static void on_done(rbd_completion_t c, void *arg)
{
        struct volume_io *io = arg;

        io->result = result(rbd_aio_get_return_value(c));
        rbd_aio_release(c);
        if (io->result == -EROFS)
                io->result = VOLUME_IO_WAITS;
        io->done(io);
}

enum { BEGUN = 2 }; /* on_done() has the result; else it is here */

static int try_start(struct entry *en, struct volume_io *io)
{
        uint64_t n = io->n, off = io->off;
        rbd_completion_t c;
        int r = 0;

        if (io->op == VOLUME_FLUSH && en->immutable)
                return 0;
        if (io->op == VOLUME_ZEROES && thick(io->flags) && io->flags & VOLUME_FAST)
                return -ENOTSUP;
        if (writes(io->op))
                r = entry_lock(en);
        if (r == 0 && io->op == VOLUME_TRIM)
                r = trimmed(en, &n, &off);
        if (r < 0 || (n == 0 && io->op != VOLUME_FLUSH))
                return r;
        if (n > call_max)
                return VOLUME_IO_WAITS;
        r = rbd_aio_create_completion(io, on_done, &c);
        if (r < 0)
                return r;
        r = start(en, &(struct volume_io){io->op, io->flags, io->p, n, off}, c);
        if (r < 0)
                rbd_aio_release(c);
        return r < 0 ? r : BEGUN;
}

void io_start(void *v, struct volume_io *io)
{
        int r = try_start(v, io);

        if (r == BEGUN)
                return;
        io->result = r;
        io->done(io);
}

static int begin(struct entry *en, const struct volume_io *io, rbd_completion_t *ret)
{
        int r = writes(io->op) ? entry_lock(en) : 0;

        if (r == 0)
                r = rbd_aio_create_completion(NULL, NULL, ret);
        if (r < 0)
                return r;
        r = start(en, io, *ret);
        if (r < 0)
                rbd_aio_release(*ret);
        return r;
}

void io_run(void *v, struct volume_io *io, size_t n)
{
        enum { AT_ONCE = 64 };
        rbd_completion_t c[AT_ONCE];

        for (size_t from = 0; from < n; from += AT_ONCE) {
                const size_t k = MIN(n - from, (size_t)AT_ONCE);

                for (size_t i = 0; i < k; i++) {
                        struct volume_io *one = &io[from + i];

                        c[i] = NULL;
                        if (one->result != VOLUME_IO_WAITS)
                                continue;
                        one->result = begin(v, one, &c[i]);
                        if (one->result < 0)
                                c[i] = NULL;
                }
                for (size_t i = 0; i < k; i++) {
                        if (!c[i])
                                continue;
                        rbd_aio_wait_for_complete(c[i]);
                        io[from + i].result = result(rbd_aio_get_return_value(c[i]));
                        rbd_aio_release(c[i]);
                        if (io[from + i].result == -EROFS)
                                io[from + i].result = do_one(v, &io[from + i]);
                }
        }
}
