#include <libnbd.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include "common/clock.h"
#include "common/log.h"
#include "fs/nbd.h"

enum { POOL = 16, RETRY_US = 100000, CHUNK = 1 << 30 };

enum volume_state { VOLUME_NEW, VOLUME_CONNECTING, VOLUME_READY, VOLUME_FAILED };

struct volume {
        struct nbd *engine;
        struct volume *next;
        char *socket, *export;
        struct volume_op *in, **in_tail; /* queued by others; engine->lock */
        bool closed;                     /* engine->lock; nothing is queued any more */
        _Atomic uint64_t size;
        /* the thread's own */
        struct nbd_handle *h;
        enum volume_state state;
        bool was_ready, extents, closing;
        int64_t deadline, retry_at; /* monotonic usec */
        struct volume_op *queue, **queue_tail;
        struct volume_op *flight[NBD_INFLIGHT];
        unsigned inflight;
        int code; /* of the failure */
};

struct nbd {
        pthread_mutex_t lock;    /* all but volumes */
        struct volume *incoming; /* opened, not seen by the thread yet */
        struct volume *volumes;  /* the thread's own */
        pthread_t thread;
        bool started, running, stopping;
        int wake; /* eventfd */
        char *pool[POOL];
        unsigned npool;
};

int nbd_new(struct nbd **ret)
{
        struct nbd *n = calloc(1, sizeof(*n));

        if (!n)
                return -ENOMEM;
        n->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (n->wake < 0) {
                free(n);
                return -errno;
        }
        pthread_mutex_init(&n->lock, NULL);
        *ret = n;
        return 0;
}

char *nbd_buffer(struct nbd *n)
{
        void *p = NULL;

        pthread_mutex_lock(&n->lock);
        if (n->npool)
                p = n->pool[--n->npool];
        pthread_mutex_unlock(&n->lock);
        if (!p && posix_memalign(&p, 4096, NBD_IO_MAX))
                return NULL;
        return p;
}

static void give_back(struct nbd *n, char *p)
{
        pthread_mutex_lock(&n->lock);
        if (p && n->npool < POOL)
                n->pool[n->npool++] = TAKE_PTR(p);
        pthread_mutex_unlock(&n->lock);
        free(p);
}

static void wake(struct nbd *n)
{
        uint64_t one = 1;

        if (write(n->wake, &one, sizeof(one)) < 0)
                log_debug("nbd: wake: %m"); /* EAGAIN: it is awake */
}

static void finish(struct volume_op *op, int r)
{
        struct nbd *n = op->volume->engine;
        char *buf = op->buf;

        op->done(op, r);
        if (buf)
                give_back(n, buf);
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

static void send_queue(struct volume *v)
{
        struct volume_op *op;

        while ((op = v->queue) && v->inflight < NBD_INFLIGHT) {
                v->queue = op->next;
                if (!v->queue)
                        v->queue_tail = &v->queue;
                if (local_answer(v, op))
                        continue;
                if (op->type == VOLUME_READ && !op->buf)
                        op->buf = nbd_buffer(v->engine);
                if (op->type == VOLUME_READ && !op->buf) {
                        finish(op, -ENOMEM);
                        continue;
                }
                for (op->slot = 0; v->flight[op->slot];)
                        op->slot++;
                v->flight[op->slot] = op;
                v->inflight++;
                if (send_op(v, op) < 0) {
                        int code = nbd_get_errno();

                        v->flight[op->slot] = NULL;
                        v->inflight--;
                        finish(op, code ? -code : -EIO);
                }
        }
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

/* The connection could not be made or broke: try again while there is time, if it ever stood. */
static void lost(struct volume *v, int code)
{
        int64_t now = clock_mono();

        if (v->state == VOLUME_READY)
                v->deadline = now + CONNECT_S * INT64_C(1000000);
        v->code = code;
        if (v->h)
                drop_handle(v);
        if (v->was_ready && now < v->deadline && v->queue && !v->closing) {
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

static void connected(struct volume *v)
{
        int64_t size = nbd_get_size(v->h);

        if (size < 0) {
                lost(v, -EIO);
                return;
        }
        v->size = (uint64_t)size;
        v->extents = nbd_can_meta_context(v->h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
        v->state = VOLUME_READY;
        v->was_ready = true;
        v->deadline = 0;
        v->code = 0;
}

/* One step of a volume; false when it is closed and done. */
static bool advance(struct volume *v, int64_t now)
{
        if (v->state == VOLUME_FAILED && v->queue && v->was_ready) {
                v->state = VOLUME_NEW; /* somebody asks again: so do we */
                v->deadline = v->retry_at = 0;
        }
        if (v->state == VOLUME_NEW && now >= v->retry_at)
                begin(v);
        if (v->state == VOLUME_CONNECTING) {
                if (nbd_aio_is_ready(v->h) > 0)
                        connected(v);
                else if (nbd_aio_is_dead(v->h) > 0 || nbd_aio_is_closed(v->h) > 0)
                        lost(v, -ECONNREFUSED);
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
        free(v->socket);
        free(v->export);
        free(v);
        return false;
}

static void serve_fd(struct volume *v, short revents)
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

/* Takes what others queued; advances each volume; the time of the next deadline, or -1. */
static int64_t turn(struct nbd *n, int64_t now)
{
        int64_t next = -1;

        pthread_mutex_lock(&n->lock);
        for (struct volume *v; (v = n->incoming);) {
                n->incoming = v->next;
                v->next = n->volumes;
                n->volumes = v;
        }
        for (struct volume *v = n->volumes; v; v = v->next) {
                v->closing = v->closed || n->stopping;
                if (v->in) {
                        *v->queue_tail = v->in;
                        v->queue_tail = v->in_tail;
                        v->in = NULL;
                        v->in_tail = &v->in;
                }
        }
        pthread_mutex_unlock(&n->lock);
        for (struct volume **p = &n->volumes, *v; (v = *p);) {
                struct volume *after = v->next;

                if (!advance(v, now)) {
                        *p = after;
                        continue;
                }
                if (v->state == VOLUME_NEW && (next < 0 || v->retry_at < next))
                        next = v->retry_at;
                if (v->state == VOLUME_CONNECTING && (next < 0 || v->deadline < next))
                        next = v->deadline;
                p = &v->next;
        }
        return next;
}

static void wait_for_events(struct nbd *n, struct pollfd *fds, unsigned nfds, int64_t next)
{
        struct volume *v = n->volumes;
        int64_t left = next < 0 ? -1 : MAX(next - clock_mono(), 0);
        uint64_t count;

        if (poll(fds, nfds, left < 0 ? -1 : (int)(left / 1000) + 1) < 0)
                return;
        if (fds[0].revents && read(n->wake, &count, sizeof(count)) < 0)
                log_debug("nbd: wake: %m");
        for (unsigned i = 1; i < nfds; i++, v = v->next)
                serve_fd(v, fds[i].revents);
}

/* Room for one more descriptor; false without memory. */
static bool add_fd(struct pollfd **fds, unsigned *room, unsigned n, const struct volume *v)
{
        unsigned dir = v && v->h ? nbd_aio_get_direction(v->h) : 0;

        if (n == *room) {
                struct pollfd *p = realloc(*fds, (*room + 16) * sizeof(*p));

                if (!p)
                        return false;
                *fds = p;
                *room += 16;
        }
        (*fds)[n] = (struct pollfd){.fd = v && v->h ? nbd_aio_get_fd(v->h) : -1};
        if (dir & LIBNBD_AIO_DIRECTION_READ)
                (*fds)[n].events |= POLLIN;
        if (dir & LIBNBD_AIO_DIRECTION_WRITE)
                (*fds)[n].events |= POLLOUT;
        return true;
}

static void *run(void *arg)
{
        struct nbd *n = arg;
        struct pollfd *fds = NULL;
        unsigned room = 0, nfds;

        for (;;) {
                int64_t next = turn(n, clock_mono());

                pthread_mutex_lock(&n->lock);
                if (!n->volumes && !n->incoming) {
                        n->running = false;
                        while (n->npool)
                                free(n->pool[--n->npool]);
                        pthread_mutex_unlock(&n->lock);
                        break;
                }
                pthread_mutex_unlock(&n->lock);
                nfds = 0;
                if (!add_fd(&fds, &room, nfds, NULL))
                        continue;
                fds[nfds++] = (struct pollfd){.fd = n->wake, .events = POLLIN};
                for (struct volume *v = n->volumes; v; v = v->next)
                        if (!add_fd(&fds, &room, nfds++, v))
                                break;
                wait_for_events(n, fds, nfds, next);
        }
        free(fds);
        return NULL;
}

/* --- for everybody else ------------------------------------------------------------------------
 */

/* Lock held. */
static int start(struct nbd *n)
{
        int r;

        if (n->stopping)
                return -EIO;
        if (n->running)
                return 0;
        if (n->started)
                pthread_join(n->thread, NULL); /* it has left its loop */
        r = pthread_create(&n->thread, NULL, run, n);
        n->started = n->running = !r;
        return -r;
}

int volume_open(struct nbd *n, const char *socket, const char *export, struct volume_op *op,
                struct volume **ret)
{
        struct volume *v = calloc(1, sizeof(*v));
        int r;

        if (!v)
                return -ENOMEM;
        v->engine = n;
        v->socket = strdup(socket);
        v->export = strdup(export ?: "");
        v->in_tail = &v->in;
        v->queue_tail = &v->queue;
        pthread_mutex_lock(&n->lock);
        r = v->socket && v->export ? start(n) : -ENOMEM;
        if (!r) {
                op->volume = v;
                op->next = NULL;
                v->in = op;
                v->in_tail = &op->next;
                v->next = n->incoming;
                n->incoming = v;
                *ret = v;
        }
        pthread_mutex_unlock(&n->lock);
        if (r < 0) {
                free(v->socket);
                free(v->export);
                free(v);
                return r;
        }
        wake(n);
        return 0;
}

void volume_submit(struct volume *v, struct volume_op *op)
{
        struct nbd *n = v->engine;

        op->volume = v;
        op->next = NULL;
        pthread_mutex_lock(&n->lock);
        *v->in_tail = op;
        v->in_tail = &op->next;
        pthread_mutex_unlock(&n->lock);
        wake(n);
}

uint64_t volume_size(struct volume *v)
{
        return v->size;
}

void volume_close(struct volume *v)
{
        struct nbd *n = v->engine;

        pthread_mutex_lock(&n->lock);
        v->closed = true;
        pthread_mutex_unlock(&n->lock);
        wake(n);
}

void nbd_free(struct nbd *n)
{
        if (!n)
                return;
        pthread_mutex_lock(&n->lock);
        n->stopping = true;
        pthread_mutex_unlock(&n->lock);
        wake(n);
        if (n->started)
                pthread_join(n->thread, NULL);
        close(n->wake);
        pthread_mutex_destroy(&n->lock);
        free(n);
}
