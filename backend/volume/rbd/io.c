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

/* The lock was lost while the cluster was away, and so the write refused: once more with it, if
 * nobody else has it now. */
static bool regained(struct entry *en, int r)
{
        if (r != -EROFS || en->immutable)
                return false;
        en->locked = false;
        return entry_lock(en) == 0;
}

int io_pread(void *v, void *p, size_t n, uint64_t off)
{
        struct entry *en = v;

        return result(rbd_read(en->image, off, n, p));
}

/* Without a cache each write is durable when it is acknowledged: VOLUME_FUA adds nothing. */
int io_pwrite(void *v, const void *p, size_t n, uint64_t off, unsigned flags _unused_)
{
        struct entry *en = v;
        int r = entry_lock(en);

        if (r == 0)
                r = result(rbd_write(en->image, off, n, p));
        return regained(en, r) ? result(rbd_write(en->image, off, n, p)) : r;
}

int io_flush(void *v)
{
        struct entry *en = v;

        return en->immutable ? 0 : rbd_flush(en->image);
}

static int thick(unsigned flags)
{
        return flags & VOLUME_NO_HOLE ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0;
}

int io_zero(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        const int how = thick(flags);
        struct entry *en = v;
        int r = 0;

        if (how && flags & VOLUME_FAST)
                return -ENOTSUP;
        r = entry_lock(en);
        while (n > 0 && r == 0) {
                uint64_t k = MIN(n, call_max);

                r = result(rbd_write_zeroes(en->image, off, k, how, 0));
                if (regained(en, r))
                        r = result(rbd_write_zeroes(en->image, off, k, how, 0));
                off += k;
                n -= k;
        }
        return r;
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
        struct entry *en = v;
        int r = entry_lock(en);

        if (r == 0)
                r = trimmed(en, &n, &off);
        while (n > 0 && r == 0) {
                uint64_t k = MIN(n, call_max);

                r = result(rbd_discard(en->image, off, k));
                if (regained(en, r))
                        r = result(rbd_discard(en->image, off, k));
                off += k;
                n -= k;
        }
        return r;
}

static int start(struct entry *en, struct volume_io *io, rbd_completion_t c)
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
        if (io->op != VOLUME_READ && io->op != VOLUME_FLUSH)
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

static int begin(struct entry *en, struct volume_io *io, rbd_completion_t *ret)
{
        int r = io->op == VOLUME_WRITE ? entry_lock(en) : 0;

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
                        if (io[from + i].op == VOLUME_WRITE && io[from + i].result == -EROFS)
                                io[from + i].result =
                                        io_pwrite(v, io[from + i].p, io[from + i].n,
                                                  io[from + i].off, io[from + i].flags);
                }
        }
}
