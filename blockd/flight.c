#include "blockd/flight.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"

enum { HEAD = 64 }; /* before the data: the reply's head, and what aligns the data */

static void push(struct flight_list *l, struct flight *fl)
{
        fl->next = NULL;
        if (!l->first)
                l->end = &l->first;
        *l->end = fl;
        l->end = &fl->next;
}

static struct flight *pop(struct flight_list *l)
{
        struct flight *fl = l->first;

        l->first = fl->next;
        return fl;
}

static void kick(struct flights *f)
{
        eventfd_write(f->fd, 1);
}

/* ---- memory ---- */

void flight_drop(struct flight *fl)
{
        struct flights *f = fl->of;

        f->bytes -= fl->room;
        atomic_fetch_sub(&f->n, 1);
        if (f->kept + fl->size > FLIGHT_KEPT) {
                free(fl->buf);
                free(fl);
                return;
        }
        f->kept += fl->size;
        fl->next = f->idle;
        f->idle = fl;
}

static struct flight *take_idle(struct flights *f)
{
        struct flight *fl = f->idle;

        if (!fl)
                return calloc(1, sizeof(*fl));
        f->idle = fl->next;
        f->kept -= fl->size;
        return fl;
}

static struct flight *make(struct flights *f, size_t n)
{
        const size_t size = HEAD + MAX(n, (size_t)REPLY_MAX);
        struct flight *fl = take_idle(f);

        if (fl && fl->size < size) {
                free(fl->buf);
                fl->size = (size + 4095) / 4096 * 4096;
                fl->buf = aligned_alloc(64, fl->size);
                if (!fl->buf) {
                        free(fl);
                        fl = NULL;
                }
        }
        return fl;
}

void flights_rest(struct flights *f)
{
        while (f && f->idle) {
                struct flight *fl = take_idle(f);

                free(fl->buf);
                free(fl);
        }
}

/* ---- landing ---- */

static uint8_t *read_reply(const struct session *s, struct flight *fl)
{
        const struct request *q = &fl->q;
        uint8_t *p = fl->io.p;

        if (s->form == FORM_SIMPLE) {
                fl->reply = p - NBD_SIMPLE_SIZE;
                done_put(s, fl->reply, q->cookie, q->off, 0);
        } else {
                fl->reply = p - chunk_size(s) - 8;
                be64_put(chunk_put(s, fl->reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA,
                                   q->cookie, q->off, 8 + q->len),
                         q->off);
        }
        return p + q->len;
}

/* It has its result. */
static void answer(struct flight *fl, int64_t now)
{
        struct session *s = fl->of->session;
        const int r = fl->io.result;
        uint8_t *end;

        fl->reply = fl->buf;
        if (fl->q.type != NBD_CMD_READ)
                end = done_put(s, fl->reply, fl->q.cookie, fl->q.off, r);
        else if (r < 0)
                end = failure_put(s, fl->reply, fl->q.cookie, fl->q.off, r);
        else
                end = read_reply(s, fl);
        fl->len = end - fl->reply;
        request_landed(s, &fl->q, now - fl->begin, r < 0);
        push(&fl->of->replies, fl);
        fl->of->nreplies++;
}

/* In the order of landing. */
static void reap(struct flights *f)
{
        struct flight *list = atomic_exchange(&f->landed, NULL), *turned = NULL, *fl;
        int64_t now;

        if (!list)
                return;
        now = clock_mono();
        while ((fl = list)) {
                list = fl->next;
                fl->next = turned;
                turned = fl;
        }
        while ((fl = turned)) {
                turned = fl->next;
                if (fl->io.result == VOLUME_IO_WAITS)
                        push(&f->again, fl);
                else
                        answer(fl, now);
        }
}

/* ---- sending ---- */

static int gather(const struct flights *f, struct iovec *iov, size_t *ret_bytes)
{
        size_t skip = f->sent;
        int n = 0;

        *ret_bytes = 0;
        for (struct flight *fl = f->replies.first; fl && n < FLIGHT_IOV; fl = fl->next) {
                iov[n].iov_base = fl->reply + skip;
                iov[n].iov_len = fl->len - skip;
                *ret_bytes += iov[n++].iov_len;
                skip = 0;
        }
        return n;
}

static void advance(struct flights *f, size_t n)
{
        n += f->sent;
        while (f->replies.first && n >= f->replies.first->len) {
                n -= f->replies.first->len;
                flight_drop(pop(&f->replies));
                f->nreplies--;
        }
        f->sent = n;
}

static void discard(struct flights *f)
{
        while (f->replies.first)
                flight_drop(pop(&f->replies));
        while (f->again.first)
                flight_drop(pop(&f->again));
        f->sent = 0;
        f->nreplies = 0;
}

/* As far as it goes without waiting, in a thread of the driver's.  Whether that was all. */
static bool send_some(struct flights *f)
{
        const struct session_owner *o = &f->session->owner;
        struct iovec iov[FLIGHT_IOV];
        size_t bytes;
        int n = gather(f, iov, &bytes);
        ssize_t r;

        if (n == 0 || f->error || !o->send_some || bytes > FLIGHT_INLINE)
                return n == 0;
        r = o->send_some(o->arg, iov, n);
        if (r >= 0)
                advance(f, r);
        else if (r != -EAGAIN)
                f->error = r;
        return !f->replies.first;
}

int flights_send(struct flights *f)
{
        const struct session_owner *o = &f->session->owner;
        struct iovec iov[FLIGHT_IOV];
        size_t bytes;
        int n;

        reap(f);
        while (f->again.first && !f->error) {
                struct flight *fl = pop(&f->again);

                volume_again(f->session->volume, &fl->io);
                answer(fl, clock_mono());
        }
        while (!f->error && (n = gather(f, iov, &bytes)) > 0) {
                f->error = o->send(o->arg, iov, n);
                if (f->error == 0)
                        advance(f, bytes);
        }
        return f->error;
}

/* ---- who has the lock ---- */

/* Whether replies may wait for more of them. */
static bool gathers(const struct flights *f)
{
        return f->moment && f->n > FLIGHT_FEW && f->nreplies < f->n / 2 && !f->again.first;
}

/* What has landed while somebody else had the lock was left to him, and he may not have seen it: a
 * result is put down before the lock is tried, and looked for after it was let go. */
static void look(struct flights *f)
{
        bool needed = false;

        do {
                if (pthread_mutex_trylock(&f->lock) != 0)
                        break;
                reap(f);
                needed = !gathers(f) && (!send_some(f) || f->again.first || f->awaited);
                pthread_mutex_unlock(&f->lock);
                if (needed)
                        kick(f);
                atomic_thread_fence(memory_order_seq_cst);
        } while (atomic_load(&f->landed));
}

static void on_done(struct volume_io *io)
{
        struct flight *fl = (struct flight *)io;
        struct flights *f = fl->of;

        atomic_fetch_add(&f->inside, 1); /* not closed before it has landed */
        fl->next = atomic_load(&f->landed);
        while (!atomic_compare_exchange_weak(&f->landed, &fl->next, fl))
                ;
        atomic_thread_fence(memory_order_seq_cst);
        look(f);
        atomic_fetch_sub(&f->inside, 1);
}

void flights_lock(struct flights *f)
{
        if (f)
                pthread_mutex_lock(&f->lock);
}

void flights_unlock(struct flights *f)
{
        if (!f)
                return;
        pthread_mutex_unlock(&f->lock);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load(&f->landed))
                look(f);
}

/* Until something has landed. */
static void await(struct flights *f)
{
        struct pollfd p = {.fd = f->fd, .events = POLLIN};
        eventfd_t v;

        f->awaited = true;
        atomic_store(&f->moment, false);
        flights_unlock(f);
        if (poll(&p, 1, -1) > 0)
                eventfd_read(f->fd, &v);
        flights_lock(f);
        f->awaited = false;
}

int flights_settle(struct flights *f)
{
        while (f->n > 0) {
                flights_send(f);
                if (f->error)
                        discard(f);
                if (f->n > 0)
                        await(f);
        }
        return f->error;
}

/* ---- beginning ---- */

static bool full(const struct flights *f, size_t n)
{
        return f->n > 0 && (f->n >= FLIGHTS || f->bytes + n > FLIGHT_BYTES);
}

struct flight *flight_new(struct flights *f, const struct request *q, size_t n)
{
        struct flight *fl;

        while (full(f, n) && flights_send(f) == 0 && full(f, n))
                await(f);
        fl = f->error ? NULL : make(f, n);
        if (!fl) {
                f->session->phase = SESSION_OVER;
                return NULL;
        }
        fl->of = f;
        fl->q = *q;
        fl->room = n;
        fl->io = (struct volume_io){
                .p = fl->buf + HEAD, .n = q->len, .off = q->off, .done = on_done};
        f->bytes += n;
        atomic_fetch_add(&f->n, 1);
        return fl;
}

void flight_start(struct flight *fl, enum volume_op op, unsigned flags)
{
        struct session *s = fl->of->session;

        fl->of->quiet = false;
        fl->begin = request_flies(s, &fl->q);
        fl->io.op = op;
        fl->io.flags = flags;
        volume_start(s->volume, &fl->io);
}

int flight_begin(struct flights *f, const struct request *q, enum volume_op op, unsigned flags,
                 const uint8_t *payload)
{
        struct flight *fl = flight_new(f, q, op == VOLUME_READ || payload ? q->len : 0);

        if (!fl)
                return -EPIPE;
        if (payload)
                memcpy(fl->io.p, payload, q->len);
        flight_start(fl, op, flags);
        return 0;
}

/* ---- the volume's ---- */

struct flights *flights_open(struct session *s)
{
        struct flights *f;

        if (!volume_starts(s->volume) || !s->owner.send)
                return NULL;
        f = calloc(1, sizeof(*f));
        if (!f)
                return NULL;
        f->session = s;
        f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (f->fd < 0) {
                free(f);
                return NULL;
        }
        pthread_mutex_init(&f->lock, NULL);
        pthread_mutex_lock(&f->lock);
        return f;
}

struct flights *flights_close(struct flights *f)
{
        if (!f)
                return NULL;
        flights_lock(f);
        if (f->error == 0)
                f->error = -ESHUTDOWN;
        flights_settle(f);
        flights_unlock(f);
        while (atomic_load(&f->inside) > 0)
                sched_yield(); /* on its last steps */
        flights_rest(f);
        close(f->fd);
        pthread_mutex_destroy(&f->lock);
        free(f);
        return NULL;
}
