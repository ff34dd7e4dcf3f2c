#include "blockd/session.h"

#include "blockd/flight.h"
#include "blockd/option.h"
#include "blockd/request.h"

static int work_begin(struct session *s)
{
        struct session_work *w;

        if (s->work)
                return 0;
        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->size = SESSION_OUT;
        w->out = aligned_alloc(4096, w->size);
        if (!w->out) {
                free(w);
                return -ENOMEM;
        }
        s->work = w;
        return 0;
}

void session_rest(struct session *s)
{
        flights_rest(s->flights);
        if (!s->work)
                return;
        while (s->work->nspare > 0)
                free(s->work->spare[--s->work->nspare].iov_base);
        free(s->work->out);
        free(s->work);
        s->work = NULL;
}

int session_init(struct session *s, const struct session_owner *owner)
{
        uint8_t *p, *start;

        *s = (struct session){.owner = *owner, .phase = SESSION_FLAGS};
        if (work_begin(s) < 0)
                return -ENOMEM;
        p = start = session_room(s, 18);
        p = be64_put(p, NBD_MAGIC);
        p = be64_put(p, NBD_OPT_MAGIC);
        p = be16_put(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        session_put(s, start, p - start);
        return 0;
}

void session_done(struct session *s)
{
        session_land(s);
        batch_drop(s);
        contexts_end(s);
        volume_close(s->volume);
        session_rest(s);
        *s = (struct session){.phase = SESSION_OVER};
}

int session_send(struct session *s)
{
        struct session_work *w = s->work;
        int r = 0;

        if (!w)
                return 0;                       /* at rest until now */
        if (s->flights && s->flights->sent > 0) /* the rest of one */
                r = flights_send(s->flights);
        if (r == 0 && w->niov > 0)
                r = s->owner.send(s->owner.arg, w->iov, w->niov);
        if (r == 0 && s->flights)
                r = flights_send(s->flights);
        w->niov = w->used = 0;
        if (w->size > SESSION_OUT) { /* one large reply does not make the session large */
                free(w->out);
                w->size = SESSION_OUT;
                w->out = aligned_alloc(4096, w->size);
                if (!w->out)
                        r = r < 0 ? r : -ENOMEM;
        }
        if (r < 0)
                s->phase = SESSION_OVER;
        return r;
}

/* Nothing but one large reply may be longer than the buffer. */
static int grow(struct session_work *w, size_t n)
{
        uint8_t *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);

        if (!p)
                return -ENOMEM;
        free(w->out);
        w->out = p;
        w->size = n;
        return 0;
}

uint8_t *session_room(struct session *s, size_t n)
{
        struct session_work *w = s->work;

        if (w->size - w->used < n || w->niov + w->n + 1 >= ARRAY_SIZE(w->iov)) {
                batch_run(s);
                if (session_send(s) < 0)
                        return NULL;
        }
        if (n > w->size && grow(w, n) < 0) {
                s->phase = SESSION_OVER;
                return NULL;
        }
        return w->out + w->used;
}

void session_put(struct session *s, const uint8_t *p, size_t n)
{
        struct session_work *w = s->work;
        struct iovec *last = w->niov > 0 ? &w->iov[w->niov - 1] : NULL;

        w->used = MAX(w->used, (size_t)(p + n - w->out));
        if (last && (uint8_t *)last->iov_base + last->iov_len == p)
                last->iov_len += n;
        else
                w->iov[w->niov++] = (struct iovec){.iov_base = (void *)p, .iov_len = n};
}

static ssize_t flags_step(struct session *s, const uint8_t *p, size_t n)
{
        uint32_t flags;

        if (n < 4)
                return 0;
        flags = be32_get(p);
        if (flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
                return -EPROTO;                     /* "the server MUST close", and we do */
        if (!(flags & NBD_FLAG_C_FIXED_NEWSTYLE)) { /* "the server MUST operate in NOTLS mode" */
                if (s->owner.tls_only)
                        return -EPROTO;
                s->owner.starttls = NULL;
        }
        s->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
        s->phase = SESSION_OPTION;
        return 4;
}

static ssize_t step(struct session *s, const uint8_t *p, size_t n)
{
        switch (s->phase) {
        case SESSION_FLAGS:
                return flags_step(s, p, n);
        case SESSION_OPTION:
                return option_step(s, p, n);
        case SESSION_TRANSMISSION:
                return request_step(s, p, n);
        case SESSION_OVER:
                break;
        }
        return -ESHUTDOWN;
}

/* Large writes alone may wait for more of them: their payload is their own. */
static bool may_gather(struct session *s)
{
        const struct session_work *w = s->work;

        return w->n > 0 && w->n == w->nkept && w->kept < SESSION_KEPT && w->n < SESSION_BATCH &&
               s->owner.more && s->owner.more(s->owner.arg);
}

/* All input has been taken. */
static int finish(struct session *s)
{
        if (s->work->out && !may_gather(s)) {
                batch_run(s);
                if (session_send(s) < 0)
                        return -EPIPE;
                if (s->stats && s->write.left == 0)
                        stats_end(s->stats);
        }
        return s->phase == SESSION_OVER ? -ESHUTDOWN : 0;
}

int session_settle(struct session *s)
{
        int r;

        if (!s->work)
                return 0;
        flights_lock(s->flights);
        payload_settle(s);
        batch_run(s);
        r = session_send(s);
        if (r == 0 && s->flights)
                r = flights_settle(s->flights);
        flights_unlock(s->flights);
        return r;
}

void session_land(struct session *s)
{
        if (s->write.flight && s->flights) { /* it was not begun */
                flights_lock(s->flights);
                flight_drop(TAKE_PTR(s->write.flight));
                s->write.kept = NULL;
                flights_unlock(s->flights);
        }
        s->flights = flights_close(s->flights);
}

int session_flying(struct session *s, int64_t *ret_usec)
{
        struct flights *f = s->flights;
        unsigned n = f ? atomic_load(&f->n) - (s->write.flight ? 1 : 0) : 0;

        if (n == 0)
                return -1;
        *ret_usec = n > FLIGHT_FEW && !f->quiet ? FLIGHT_MOMENT_US : -1;
        atomic_store(&f->moment, *ret_usec >= 0);
        return f->fd;
}

int session_landed(struct session *s)
{
        struct flights *f = s->flights;
        int r = 0;

        flights_lock(f);
        atomic_store(&f->moment, false);
        f->quiet = !f->replies.first && !f->again.first && !atomic_load(&f->landed);
        if (!f->quiet || f->error)
                r = session_send(s);
        flights_unlock(f);
        return r;
}

uint8_t *session_sink(struct session *s, size_t *ret)
{
        if (!s->write.kept)
                return NULL;
        *ret = s->write.left;
        return s->write.kept + (s->write.off - s->write.start);
}

int session_sunk(struct session *s, size_t n)
{
        int r;

        flights_lock(s->flights);
        r = payload_gathered(s, n);
        if (r == 0)
                r = finish(s);
        flights_unlock(s->flights);
        return r;
}

static ssize_t take_input(struct session *s, const uint8_t *p, size_t n)
{
        size_t done = 0;
        ssize_t r = 0;

        s->paused = false;
        while (done < n && s->phase != SESSION_OVER) {
                if (session_to_pause(s)) {
                        s->paused = true;
                        break;
                }
                r = step(s, p + done, n - done);
                if (r <= 0)
                        break;
                done += r;
        }
        if (r >= 0) {
                int over = finish(s);

                return over < 0 ? over : (ssize_t)done;
        }
        batch_run(s); /* what was asked before the nonsense is still answered */
        if (s->flights)
                flights_settle(s->flights);
        session_send(s);
        return r;
}

ssize_t session_input(struct session *s, const uint8_t *p, size_t n)
{
        ssize_t r;

        if (work_begin(s) < 0)
                return -ENOMEM;
        flights_lock(s->flights);
        r = take_input(s, p, n);
        flights_unlock(s->flights); /* perhaps of transmission that has just begun */
        return r;
}

uint16_t session_flags(const struct session *s, const struct volume *v)
{
        uint16_t f = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

        if (volume_readonly(v))
                f |= NBD_FLAG_READ_ONLY;
        else
                f |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
        if (s->form >= FORM_STRUCTURED)
                f |= NBD_FLAG_SEND_DF;
        if (s->form == FORM_EXTENDED)
                f |= NBD_FLAG_BLOCK_STAT_PAYLOAD;
        return f;
}
