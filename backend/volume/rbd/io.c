/* Reads and writes. */
#include "backend/volume/rbd/rbd.h"

enum { BLOCK = 4096 }; /* trimmed */

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

int io_zero(void *v, uint64_t n, uint64_t off, unsigned flags)
{
        const int thick = flags & VOLUME_NO_HOLE ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0;
        struct entry *en = v;
        int r = 0;

        if (thick && flags & VOLUME_FAST)
                return -ENOTSUP;
        r = entry_lock(en);
        while (n > 0 && r == 0) {
                uint64_t k = MIN(n, UINT64_C(1) << 40);

                r = result(rbd_write_zeroes(en->image, off, k, thick, 0));
                if (regained(en, r))
                        r = result(rbd_write_zeroes(en->image, off, k, thick, 0));
                off += k;
                n -= k;
        }
        return r;
}

/* Whole blocks only, as everywhere. */
int io_trim(void *v, uint64_t n, uint64_t off, unsigned flags _unused_)
{
        uint64_t from = (off + BLOCK - 1) / BLOCK * BLOCK, end = off + n, size;
        struct entry *en = v;
        int r = entry_lock(en);

        if (r == 0)
                r = rbd_get_size(en->image, &size);
        if (r == 0 && end < size)
                end = end / BLOCK * BLOCK;
        n = end > from ? end - from : 0;
        off = from;
        while (n > 0 && r == 0) {
                uint64_t k = MIN(n, UINT64_C(1) << 40);

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
        if (io->op == VOLUME_WRITE)
                return rbd_aio_write(en->image, io->off, io->n, io->p, c);
        return rbd_aio_read(en->image, io->off, io->n, io->p, c);
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
