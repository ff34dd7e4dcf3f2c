/* One volume's connection and the operations on it.  See fs/nbd.h. */
#include <poll.h>
#include <sys/socket.h>
#include "fs/volume.h"

enum { RETRY_US = 100000, FIRST_S = 2, CHUNK = 1 << 30 };

static void finish(struct volume_op *op, int r)
{
        struct nbd *n = op->volume->engine;
        char *buf = op->buf;

        op->done(op, r);
        if (buf)
                nbd_give_back(n, buf);
}

static void enqueue(struct volume *v, struct volume_op *op)
{
        op->next = NULL;
        *v->queue_tail = op;
        v->queue_tail = &op->next;
}

static void fail_queue(struct volume *v)
{
        struct volume_op *op;

        while ((op = v->queue)) {
                v->queue = op->next;
                if (!v->queue)
                        v->queue_tail = &v->queue;
                finish(op, v->code ?: -EIO);
        }
}

/* --- libnbd's callbacks, on the thread ------------------------------------------------------- */

static int completed(void *arg, int *error)
{
        struct volume_op *op = arg;
        struct volume *v = op->volume;
        int r = -*error;

        v->flight[op->slot] = NULL;
        v->inflight--;
        if ((r == -ENOTCONN || r == -ESHUTDOWN) && !op->retried) {
                op->retried = true;
                enqueue(v, op);
                return 1;
        }
        if (!r && (op->type == VOLUME_ZERO || op->type == VOLUME_PUNCH) && op->part < op->count) {
                op->off += op->part;
                op->count -= op->part;
                enqueue(v, op);
                return 1;
        }
        if (!r && (op->type == VOLUME_SEEK_DATA || op->type == VOLUME_SEEK_HOLE) &&
            op->found == UINT64_MAX && op->part && op->off + op->part < v->size) {
                op->off += op->part;
                enqueue(v, op);
                return 1;
        }
        finish(op, r);
        return 1;
}

/* Pairs of length and flags, from offset on: the first extent of the wanted sort, or how far we
 * know that there is none. */
static int extents(void *arg, const char *context, uint64_t offset, uint32_t *v, size_t n,
                   int *error)
{
        struct volume_op *op = arg;

        op->part = 0;
        for (size_t i = 0; i + 1 < n && op->found == UINT64_MAX; i += 2) {
                bool hole = v[i + 1] & LIBNBD_STATE_ZERO;

                if (hole == (op->type == VOLUME_SEEK_HOLE))
                        op->found = offset + op->part;
                op->part += v[i];
        }
        return 0;
}

/* --- operations ------------------------------------------------------------------------------ */

static int64_t send_op(struct volume *v, struct volume_op *op)
{
        nbd_completion_callback cb = {.callback = completed, .user_data = op};

        op->part = MIN(op->count, (uint64_t)CHUNK);
        switch (op->type) {
        case VOLUME_READ:
                return nbd_aio_pread(v->h, op->buf, op->count, op->off, cb, 0);
        case VOLUME_WRITE:
                return nbd_aio_pwrite(v->h, op->buf, op->count, op->off, cb, 0);
        case VOLUME_FLUSH:
                return nbd_aio_flush(v->h, cb, 0);
        case VOLUME_ZERO:
                return nbd_aio_zero(v->h, op->part, op->off, cb, LIBNBD_CMD_FLAG_NO_HOLE);
        case VOLUME_PUNCH:
                return nbd_aio_zero(v->h, op->part, op->off, cb, 0);
        default:
                op->found = UINT64_MAX;
                return nbd_aio_block_status(
                        v->h, MIN(v->size - op->off, (uint64_t)CHUNK), op->off,
                        (nbd_extent_callback){.callback = extents, .user_data = op}, cb, 0);
        }
}

/* What needs no server: answers behind the end, a server without extents.  True when answered. */
static bool local_answer(struct volume *v, struct volume_op *op)
{
        bool seek = op->type == VOLUME_SEEK_DATA || op->type == VOLUME_SEEK_HOLE;

        if (op->type == VOLUME_OPEN || (op->type == VOLUME_FLUSH && nbd_can_flush(v->h) <= 0)) {
                finish(op, 0);
                return true;
        }
        if (seek && (op->off >= v->size || !v->extents)) {
                op->found = op->off >= v->size             ? UINT64_MAX
                            : op->type == VOLUME_SEEK_DATA ? op->off
                                                           : v->size;
                finish(op, 0);
                return true;
        }
        return false;
}

static void say_goodbye(struct volume *v)
{
        if (nbd_aio_disconnect(v->h, 0) == 0)
                (void)nbd_aio_notify_write(v->h);
        nbd_close(v->h);
        v->h = NULL;
}

/* False when it could not be sent. */
static bool launch(struct volume *v, struct volume_op *op)
{
        if (op->type == VOLUME_READ && !op->buf && !(op->buf = nbd_buffer(v->engine)))
                return false;
        for (op->slot = 0; v->flight[op->slot];)
                op->slot++;
        v->flight[op->slot] = op;
        v->inflight++;
        if (send_op(v, op) >= 0)
                return true;
        v->flight[op->slot] = NULL;
        v->inflight--;
        return false;
}

static void send_queue(struct volume *v)
{
        struct volume_op *op;

        while ((op = v->queue) && v->inflight < NBD_INFLIGHT) {
                if (op->type == VOLUME_PAUSE && v->inflight > 0)
                        return;
                v->queue = op->next;
                if (!v->queue)
                        v->queue_tail = &v->queue;
                if (op->type == VOLUME_PAUSE) {
                        say_goodbye(v);
                        v->state = VOLUME_PAUSED;
                        v->pauses++;
                        finish(op, 0);
                        return;
                }
                if (!local_answer(v, op) && !launch(v, op)) {
                        int code = nbd_get_errno();

                        finish(op, code ? -code : -EIO);
                }
        }
}

/* The bytes go from the memory of who has them at hand: another thread would have to be woken, and
 * fetch them from this one's cache. */
bool volume_send_now(struct volume *v, struct volume_op *op, bool *more)
{
        if (v->state != VOLUME_READY || v->queue || v->inflight >= NBD_INFLIGHT ||
            (op->type != VOLUME_READ && op->type != VOLUME_WRITE) || !launch(v, op))
                return false;
        /* A connection that broke just now had it put back into the queue (completed()). */
        *more = v->queue || (nbd_aio_get_direction(v->h) & LIBNBD_AIO_DIRECTION_WRITE);
        return true;
}

/* --- the connection ----------------------------------------------------------------------------
 */

static void drop_handle(struct volume *v)
{
        nbd_close(v->h);
        v->h = NULL;
        for (unsigned i = 0; i < NBD_INFLIGHT; i++)
                if (v->flight[i])
                        completed(v->flight[i], &(int){ENOTCONN});
}

/* Whether it is worth another try.  One that never stood may have met a server that just died, but
 * as well one that has no such export. */
static bool may_stand(const struct volume *v, int code, int64_t now)
{
        int64_t end = v->deadline;

        if (!v->was_ready)
                end -= (CONNECT_S - FIRST_S) * INT64_C(1000000);
        return (v->was_ready || code == -ECONNRESET) && now < end;
}

/* The connection could not be made or broke: try again while there is time. */
static void lost(struct volume *v, int code)
{
        int64_t now = clock_mono();

        if (v->state == VOLUME_READY)
                v->deadline = now + CONNECT_S * INT64_C(1000000);
        v->code = code;
        if (v->h)
                drop_handle(v);
        if (may_stand(v, code, now) && v->queue && !v->closing) {
                v->state = VOLUME_NEW;
                v->retry_at = now + RETRY_US;
                return;
        }
        v->state = VOLUME_FAILED;
        fail_queue(v);
}

static void begin(struct volume *v)
{
        if (!v->deadline)
                v->deadline = clock_mono() + CONNECT_S * INT64_C(1000000);
        v->state = VOLUME_CONNECTING;
        v->h = nbd_create();
        if (!v->h || nbd_set_export_name(v->h, v->export) < 0 ||
            nbd_add_meta_context(v->h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
            nbd_set_pread_initialize(v->h, false) < 0 || nbd_aio_connect_unix(v->h, v->socket) < 0)
                lost(v, nbd_get_errno() ? -nbd_get_errno() : -EIO);
}

/* Into the socket at once, so that who sends need not wait for its room.  A plain user gets what
 * the host allows. */
static void take_whole_writes(int fd)
{
        int bytes = NBD_IO_MAX + (64 << 10);

        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static void connected(struct volume *v)
{
        int64_t size = nbd_get_size(v->h);

        if (size < 0) {
                lost(v, -EIO);
                return;
        }
        take_whole_writes(nbd_aio_get_fd(v->h));
        v->size = (uint64_t)size;
        v->extents = nbd_can_meta_context(v->h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
        v->state = VOLUME_READY;
        v->was_ready = true;
        v->deadline = 0;
        v->code = 0;
}

bool volume_advance(struct volume *v, int64_t now)
{
        if (v->state == VOLUME_FAILED && v->queue && v->was_ready) {
                v->state = VOLUME_NEW; /* somebody asks again: so do we */
                v->deadline = v->retry_at = 0;
        }
        if (v->state == VOLUME_PAUSED && (v->closing || v->resumes >= v->pauses)) {
                v->state = VOLUME_NEW;
                v->deadline = v->retry_at = 0;
        }
        if (v->state == VOLUME_NEW && now >= v->retry_at)
                begin(v);
        if (v->state == VOLUME_CONNECTING) {
                if (nbd_aio_is_ready(v->h) > 0)
                        connected(v);
                else if (nbd_aio_is_dead(v->h) > 0 || nbd_aio_is_closed(v->h) > 0)
                        lost(v, -ECONNRESET);
                else if (now >= v->deadline) {
                        v->was_ready = false;
                        lost(v, -ETIMEDOUT);
                }
        } else if (v->state == VOLUME_READY &&
                   (nbd_aio_is_dead(v->h) > 0 || nbd_aio_is_closed(v->h) > 0)) {
                lost(v, -EIO);
        }
        if (v->state == VOLUME_READY)
                send_queue(v);
        else if (v->state == VOLUME_FAILED)
                fail_queue(v);
        if (!v->closing || v->queue || v->inflight)
                return true;
        if (v->state == VOLUME_READY && nbd_aio_disconnect(v->h, 0) == 0)
                (void)nbd_aio_notify_write(v->h);
        if (v->h)
                drop_handle(v);
        return false;
}

void volume_free(struct volume *v)
{
        pthread_mutex_destroy(&v->lock);
        free(v->socket);
        free(v->export);
        free(v);
}

void volume_serve_fd(struct volume *v, short revents)
{
        if (!v->h || !revents)
                return;
        if (revents & (POLLIN | POLLHUP))
                (void)nbd_aio_notify_read(v->h);
        else if (revents & POLLOUT)
                (void)nbd_aio_notify_write(v->h);
        else
                lost(v, -EIO);
}
