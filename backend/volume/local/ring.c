#include "backend/volume/local/ring.h"

#include <liburing.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "common/fault.h"
#include "common/macro.h"

struct ring {
        struct io_uring uring;
        bool works;
        pid_t pid; /* a forked child shares the memory, and must not use it */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool keyed;

static void ring_free(void *arg)
{
        struct ring *r = arg;

        if (r->works)
                io_uring_queue_exit(&r->uring);
        free(r);
}

static void make_key(void)
{
        keyed = pthread_key_create(&key, ring_free) == 0;
}

/* A ring that reads and writes, and does nothing else, whoever has got hold of it: neither opens
 * nor connects, nor takes buffers or files. */
static bool ring_make(struct io_uring *u, unsigned flags)
{
        struct io_uring_restriction only[] = {
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
        };

        if (io_uring_queue_init(RING_DEPTH, u, flags | IORING_SETUP_R_DISABLED) < 0)
                return false;
        /* Not by liburing: Debian 12's does not export these two. */
        if (syscall(SYS_io_uring_register, u->ring_fd, IORING_REGISTER_RESTRICTIONS, only,
                    ARRAY_SIZE(only)) == 0 &&
            syscall(SYS_io_uring_register, u->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0)
                return true;
        io_uring_queue_exit(u);
        return false;
}

static bool ring_open(struct io_uring *u)
{
        if (FAULT("volume.ring") < 0)
                return false;
        return ring_make(u, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) ||
               ring_make(u, 0);
}

/* This thread's; NULL when it cannot have one. */
static struct ring *ring_get(void)
{
        struct ring *r;

        pthread_once(&once, make_key);
        if (!keyed)
                return NULL;
        r = pthread_getspecific(key);
        if (!r) {
                r = calloc(1, sizeof(*r));
                if (!r)
                        return NULL;
                r->works = ring_open(&r->uring);
                r->pid = getpid();
                if (pthread_setspecific(key, r) != 0) {
                        ring_free(r);
                        return NULL;
                }
        }
        return r->works && r->pid == getpid() ? r : NULL;
}

/* What r bytes more mean for the rest of it.  True when it is done. */
static bool progress(struct ring_io *io, ssize_t r)
{
        if (r < 0) {
                io->result = r;
                return true;
        }
        if (r == 0 && io->write) {
                io->result = -EIO;
                return true;
        }
        if (r == 0) {
                memset(io->p, 0, io->n);
                r = io->n;
        }
        io->p += r;
        io->off += r;
        io->n -= r;
        io->result = 0;
        return io->n == 0;
}

int ring_plain(struct ring_io *io)
{
        ssize_t r;

        do {
                struct iovec v = {.iov_base = io->p, .iov_len = io->n};

                if (!io->write)
                        r = pread(io->fd, io->p, io->n, io->off);
                else if (io->flags)
                        r = pwritev2(io->fd, &v, 1, io->off, io->flags);
                else
                        r = pwrite(io->fd, io->p, io->n, io->off);
        } while ((r < 0 && errno == EINTR) || !progress(io, r < 0 ? -errno : r));
        return io->result;
}

static void prepare(struct io_uring *u, struct ring_io *io)
{
        struct io_uring_sqe *sqe = io_uring_get_sqe(u); /* there is one: n <= RING_DEPTH */

        if (io->write)
                io_uring_prep_write(sqe, io->fd, io->p, io->n, io->off);
        else
                io_uring_prep_read(sqe, io->fd, io->p, io->n, io->off);
        sqe->rw_flags = io->flags;
        io_uring_sqe_set_data(sqe, io);
}

static bool refused(int r)
{
        return r == -EINTR || r == -EAGAIN || r == -EINVAL || r == -EOPNOTSUPP;
}

static size_t reap(struct io_uring *u)
{
        struct io_uring_cqe *cqe;
        size_t n = 0;

        while (io_uring_peek_cqe(u, &cqe) == 0) {
                struct ring_io *io = io_uring_cqe_get_data(cqe);

                /* Short, or not for the ring: the rest of it is done plainly. */
                if (refused(cqe->res) || !progress(io, cqe->res))
                        io->result = -ECANCELED;
                io_uring_cqe_seen(u, cqe);
                n++;
        }
        return n;
}

/* Returns with nothing in flight.  False when the ring is of no more use. */
static bool submit_and_wait(struct io_uring *u, size_t n)
{
        size_t sent = 0, done = 0;

        while (done < n) {
                int r = io_uring_submit_and_wait(u, n - done);

                if (r > 0)
                        sent += r;
                done += reap(u);
                if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY && done == sent)
                        return false; /* the kernel takes no more and holds none */
        }
        return true;
}

void ring_run(struct ring_io *io, size_t n)
{
        struct ring *r;
        size_t many = 0;

        for (size_t i = 0; i < n; i++) {
                io[i].result = -ECANCELED;
                many += !io[i].plain;
        }
        r = many > 1 ? ring_get() : NULL;
        for (size_t i = 0; i < n && r; i++)
                if (!io[i].plain)
                        prepare(&r->uring, &io[i]);
        if (r && !submit_and_wait(&r->uring, many)) {
                io_uring_queue_exit(&r->uring);
                r->works = false;
        }
        for (size_t i = 0; i < n; i++)
                if (io[i].result == -ECANCELED)
                        ring_plain(&io[i]);
}
