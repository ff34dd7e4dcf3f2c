#include <poll.h>
#include <sys/eventfd.h>
#include "common/log.h"
#include "fs/volume.h"

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

void nbd_give_back(struct nbd *n, char *p)
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

/* Takes what others queued; false when the volume is closed and has nothing left to do. */
static bool advance(struct nbd *n, struct volume *v, int64_t now)
{
        WITH_LOCK(&v->lock);
        pthread_mutex_lock(&n->lock);
        v->closing = v->closed || n->stopping;
        if (v->in) {
                *v->queue_tail = v->in;
                v->queue_tail = v->in_tail;
                v->in = NULL;
                v->in_tail = &v->in;
        }
        pthread_mutex_unlock(&n->lock);
        return volume_advance(v, now);
}

/* Advances each volume; the time of the next deadline, or -1. */
static int64_t turn(struct nbd *n, int64_t now)
{
        int64_t next = -1;

        pthread_mutex_lock(&n->lock);
        for (struct volume *v; (v = n->incoming);) {
                n->incoming = v->next;
                v->next = n->volumes;
                n->volumes = v;
        }
        pthread_mutex_unlock(&n->lock);
        for (struct volume **p = &n->volumes, *v; (v = *p);) {
                if (!advance(n, v, now)) {
                        *p = v->next;
                        volume_free(v);
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
        for (unsigned i = 1; i < nfds; i++, v = v->next) {
                WITH_LOCK(&v->lock);
                volume_serve_fd(v, fds[i].revents);
        }
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

/* op NULL: as one whose connection broke.  */
static int add_volume(struct nbd *n, const char *socket, const char *export, uint64_t size,
                      struct volume_op *op, struct volume **ret)
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
        pthread_mutex_init(&v->lock, NULL);
        pthread_mutex_lock(&n->lock);
        r = v->socket && v->export ? start(n) : -ENOMEM;
        if (!r) {
                v->size = size;
                v->was_ready = !op;
                if (op) {
                        op->volume = v;
                        op->next = NULL;
                        v->in = op;
                        v->in_tail = &op->next;
                }
                v->next = n->incoming;
                n->incoming = v;
                *ret = v;
        }
        pthread_mutex_unlock(&n->lock);
        if (r < 0) {
                volume_free(v);
                return r;
        }
        wake(n);
        return 0;
}

int volume_open(struct nbd *n, const char *socket, const char *export, struct volume_op *op,
                struct volume **ret)
{
        return add_volume(n, socket, export, 0, op, ret);
}

int volume_again(struct nbd *n, const char *socket, const char *export, uint64_t size,
                 struct volume **ret)
{
        return add_volume(n, socket, export, size, NULL, ret);
}

/* A lock that is taken is the thread's at work, maybe below us: op is queued then. */
static bool submit_now(struct nbd *n, struct volume *v, struct volume_op *op)
{
        bool idle, sent = false, more = false;

        if (pthread_mutex_trylock(&v->lock) != 0)
                return false;
        pthread_mutex_lock(&n->lock);
        idle = !v->in && !n->stopping;
        pthread_mutex_unlock(&n->lock);
        if (idle)
                sent = volume_send_now(v, op, &more);
        pthread_mutex_unlock(&v->lock);
        if (more)
                wake(n);
        return sent;
}

void volume_submit(struct volume *v, struct volume_op *op)
{
        struct nbd *n = v->engine;

        op->volume = v;
        op->next = NULL;
        if (submit_now(n, v, op))
                return;
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

void volume_resume(struct volume *v)
{
        v->resumes++;
        wake(v->engine);
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
