/* A batch of reads and writes on a stack.
 *
 * One lock for all of them.  What goes past the page cache is gathered and given to the disk at
 * once.  Small reads that the cache does not have are tried with RWF_NOWAIT, which starts them, and
 * are waited for when all were started: as fast as io_uring, measured, with less work.  Large ones
 * are left to the kernel's readahead. */
#include <sys/uio.h>

#include "backend/volume/local/ring.h"
#include "backend/volume/local/stack.h"
#include "common/fault.h"

enum {
        BOUNCE = 1 << 20,
        DURABLE = 4, /* writes in a batch made durable each by itself; more: by one flush */
};

struct batch {
        struct stack *s;
        bool one;         /* it is the whole batch: it may wait by itself */
        bool alloc;       /* the top layer's alloc lock is held, shared */
        bool flush;       /* some wait for one */
        unsigned durable; /* see DURABLE */
        size_t n;
        struct volume_io *of[RING_DEPTH];
        struct ring_io ring[RING_DEPTH];
};

/* Whether a durable write may have failed at the sync: of what was acknowledged before, too. */
static bool may_be_lost(int r)
{
        return r < 0 && r != -ENOSPC && r != -EDQUOT && r != -EFBIG && r != -ENOMEM;
}

/* What became of a write. */
static int wrote(struct batch *b, const struct volume_io *io, int r, bool durable)
{
        if (durable && may_be_lost(r))
                stack_fail(b->s);
        r = stack_written(b->s, r);
        if (r < 0 || durable || !(io->flags & VOLUME_FUA))
                return r;
        b->flush = true;
        return VOLUME_IO_WAITS;
}

static int wrote_direct(struct batch *b, const struct volume_io *io, int r, bool durable)
{
        return wrote(b, io, r < 0 ? r : layer_wrote(b->s->top, io->n, io->off), durable);
}

static void drain(struct batch *b)
{
        ring_run(b->ring, b->n);
        for (size_t i = 0; i < b->n; i++) {
                const struct ring_io *r = &b->ring[i];
                struct volume_io *io = b->of[i];

                io->result = r->write ? wrote_direct(b, io, r->result, r->flags) : r->result;
        }
        b->n = 0;
        if (b->alloc)
                pthread_rwlock_unlock(&b->s->top->alloc);
        b->alloc = false;
}

/* Its result comes when the batch is drained. */
static int queue(struct batch *b, struct volume_io *io, const struct ring_io *r)
{
        b->of[b->n] = io;
        b->ring[b->n++] = *r;
        return VOLUME_IO_WAITS;
}

/* Direct I/O from and to memory that is not aligned. */
static int bounce(const struct ring_io *io)
{
        size_t size = MIN(io->n, (size_t)BOUNCE);
        _cleanup_free_ char *buf = aligned_alloc(MAP_BLOCK, size);
        int r = buf ? 0 : -ENOMEM;

        for (size_t at = 0; at < io->n && r == 0; at += size) {
                struct ring_io part = *io;

                part.p = buf;
                part.n = MIN(size, io->n - at);
                part.off += at;
                if (io->write)
                        memcpy(buf, io->p + at, part.n);
                r = ring_plain(&part);
                if (r == 0 && !io->write)
                        memcpy(io->p + at, buf, MIN(size, io->n - at));
        }
        return r;
}

static bool blocks_only(const struct volume_io *io)
{
        return io->off % MAP_BLOCK == 0 && io->n % MAP_BLOCK == 0;
}

static bool in_memory_blocks(const struct volume_io *io)
{
        return (uintptr_t)io->p % MAP_BLOCK == 0;
}

static int read_cached(struct batch *b, struct volume_io *io, struct layer *l)
{
        struct ring_io rest = {.fd = l->fd, .plain = true, .p = io->p, .n = io->n, .off = io->off};
        struct iovec v = {.iov_base = io->p, .iov_len = io->n};
        ssize_t r;

        folios_read(&l->folios, l->fd, io->n, io->off);
        if (b->one || io->n >= FOLIO_LARGE || l->waits)
                return ring_plain(&rest);
        r = preadv2(l->fd, &v, 1, io->off, RWF_NOWAIT);
        if (r == (ssize_t)io->n)
                return 0;
        if (r < 0 && errno == EOPNOTSUPP) {
                l->waits = true;
                return ring_plain(&rest);
        }
        if (r < 0 && errno != EAGAIN && errno != EINTR)
                return -errno;
        r = MAX(r, 0);
        rest.p += r;
        rest.n -= r;
        rest.off += r;
        return queue(b, io, &rest);
}

static int read_one(struct batch *b, struct volume_io *io)
{
        struct layer *top = b->s->top;
        struct piece k = layer_resolve(top, io->off, io->n);
        struct ring_io r;

        if (k.len < io->n || (k.layer && (k.layer->sums || k.layer->bytes < io->off + io->n)))
                return layer_read(top, io->p, io->n, io->off);
        if (!k.layer) {
                memset(io->p, 0, io->n);
                return 0;
        }
        if (k.layer->direct_fd < 0 || !blocks_only(io))
                return read_cached(b, io, k.layer);
        r = (struct ring_io){.fd = k.layer->direct_fd, .p = io->p, .n = io->n, .off = io->off};
        return in_memory_blocks(io) ? queue(b, io, &r) : bounce(&r);
}

static int write_direct(struct batch *b, struct volume_io *io)
{
        struct layer *top = b->s->top;
        bool durable = io->flags & VOLUME_FUA && layer_settled(top, io->n, io->off);
        struct ring_io r = {.fd = top->direct_fd,
                            .write = true,
                            .flags = durable ? RWF_DSYNC : 0,
                            .p = io->p,
                            .n = io->n,
                            .off = io->off};
        int fault;

        if (durable && (fault = FAULT("volume.sync")) < 0)
                return wrote(b, io, fault, true);
        if (!b->alloc)
                pthread_rwlock_rdlock(&top->alloc);
        b->alloc = true;
        return in_memory_blocks(io) ? queue(b, io, &r) : wrote_direct(b, io, bounce(&r), durable);
}

static int write_one(struct batch *b, struct volume_io *io)
{
        struct layer *top = b->s->top;

        if (b->s->failed)
                return -EIO;
        if (top->direct_fd >= 0 && blocks_only(io))
                return write_direct(b, io);
        if (b->alloc)
                drain(b); /* what follows may want the lock for itself */
        if (io->flags & VOLUME_FUA && top->direct_fd < 0 && b->durable < DURABLE &&
            layer_settled(top, io->n, io->off) && layer_durable_ready(top)) {
                b->durable++;
                return wrote(b, io, layer_write_durable(top, io->p, io->n, io->off), true);
        }
        return wrote(b, io, layer_write(top, io->p, io->n, io->off), false);
}

void stack_run(struct stack *s, struct volume_io *io, size_t n)
{
        struct batch b;
        int r;

        /* Its arrays are filled as far as used. */
        b.s = s;
        b.one = n == 1;
        b.alloc = b.flush = false;
        b.durable = b.n = 0;
        pthread_rwlock_rdlock(&s->io);
        for (size_t i = 0; i < n; i++) {
                if (io[i].result != VOLUME_IO_WAITS)
                        continue;
                if (b.n == RING_DEPTH)
                        drain(&b);
                io[i].result =
                        io[i].op == VOLUME_WRITE ? write_one(&b, &io[i]) : read_one(&b, &io[i]);
        }
        if (b.n > 0 || b.alloc)
                drain(&b);
        pthread_rwlock_unlock(&s->io);
        if (!b.flush)
                return;
        r = stack_flush(s);
        for (size_t i = 0; i < n; i++)
                if (io[i].result == VOLUME_IO_WAITS)
                        io[i].result = r;
}
