/* Small reads and writes gathered, done by one call, answered by one send. */
#include "blockd/request.h"

/* Bytes before the data of a read's reply. */
static size_t read_head(const struct session *s)
{
        return s->form == FORM_SIMPLE ? NBD_SIMPLE_SIZE : chunk_size(s) + 8;
}

static void add(struct session *s, const struct request *q, const struct volume_io *io,
                uint8_t *reply)
{
        struct session_work *w = s->work;

        w->io[w->n] = *io;
        w->of[w->n].cookie = q->cookie;
        w->of[w->n].off = q->off;
        w->of[w->n].reply = reply;
        w->of[w->n].kept = NULL;
        w->n++;
}

int batch_read(struct session *s, const struct request *q)
{
        const size_t head = read_head(s), align = volume_alignment(s->volume);
        struct volume_io io = {.op = VOLUME_READ, .n = q->len, .off = q->off};
        uint8_t *p;

        if (s->work->n == SESSION_BATCH)
                batch_run(s);
        p = session_room(s, align + head + q->len);
        if (!p)
                return -EPIPE;
        /* The buffer is aligned: so is the data, if it follows a gap. */
        io.p = s->work->out + (s->work->used + head + align - 1) / align * align;
        p = (uint8_t *)io.p - head;
        s->work->used = p + head + q->len - s->work->out;
        add(s, q, &io, p);
        return 0;
}

/* Room for the reply to a write, as it is when all goes well. */
static size_t write_reply(const struct session *s)
{
        return s->form == FORM_EXTENDED ? REPLY_MAX : NBD_SIMPLE_SIZE;
}

int batch_write(struct session *s, const struct request *q, const uint8_t *payload, unsigned flags)
{
        const size_t align = volume_alignment(s->volume), copy = align > 1 ? q->len + align : 0;
        struct volume_io io = {.op = VOLUME_WRITE,
                               .flags = flags,
                               .p = (void *)payload,
                               .n = q->len,
                               .off = q->off};
        struct session_work *w = s->work;
        uint8_t *p;

        if (w->n == SESSION_BATCH)
                batch_run(s);
        p = session_room(s, REPLY_MAX + copy);
        if (!p)
                return -EPIPE;
        w->used += write_reply(s);
        if (copy) { /* the buffer of replies is aligned, what was received is not */
                io.p = w->out + (w->used + align - 1) / align * align;
                memcpy(io.p, payload, q->len);
                w->used = (uint8_t *)io.p + q->len - w->out;
        }
        add(s, q, &io, p);
        return 0;
}

uint8_t *payload_alloc(struct session *s, size_t n)
{
        struct session_work *w = s->work;

        for (unsigned i = 0; i < w->nspare; i++) {
                struct iovec v = w->spare[i];

                if (v.iov_len != n)
                        continue;
                w->spare[i] = w->spare[--w->nspare];
                return v.iov_base;
        }
        return aligned_alloc(volume_alignment(s->volume), n);
}

void payload_free(struct session *s, uint8_t *p, size_t n)
{
        struct session_work *w = s->work;

        if (p && w->nspare < SESSION_SPARE && n <= SESSION_KEPT / SESSION_SPARE)
                w->spare[w->nspare++] = (struct iovec){.iov_base = p, .iov_len = n};
        else
                free(p);
}

int batch_write_kept(struct session *s, const struct request *q, uint8_t *payload, unsigned flags)
{
        struct volume_io io = {
                .op = VOLUME_WRITE, .flags = flags, .p = payload, .n = q->len, .off = q->off};
        struct session_work *w = s->work;
        uint8_t *p = NULL;

        if (w->n == SESSION_BATCH)
                batch_run(s);
        p = session_room(s, REPLY_MAX);
        if (!p) {
                free(payload);
                return -EPIPE;
        }
        w->used += write_reply(s);
        add(s, q, &io, p);
        w->of[w->n - 1].kept = payload;
        w->nkept++;
        w->kept += q->len;
        return 0;
}

static uint8_t *read_put(const struct session *s, unsigned i)
{
        const struct volume_io *io = &s->work->io[i];
        uint64_t cookie = s->work->of[i].cookie;
        uint8_t *p = s->work->of[i].reply;

        if (io->result < 0)
                return failure_put(s, p, cookie, io->off, io->result);
        if (s->form == FORM_SIMPLE)
                p = done_put(s, p, cookie, io->off, 0);
        else
                p = be64_put(chunk_put(s, p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA,
                                       cookie, io->off, 8 + io->n),
                             io->off);
        return p + io->n;
}

void batch_run(struct session *s)
{
        struct session_work *w = s->work;

        if (w->n == 0)
                return;
        volume_run(s->volume, w->io, w->n);
        for (unsigned i = 0; i < w->n; i++) {
                uint8_t *p = w->of[i].reply;
                uint8_t *end = w->io[i].op == VOLUME_READ ? read_put(s, i)
                                                          : done_put(s, p, w->of[i].cookie,
                                                                     w->of[i].off, w->io[i].result);

                if (w->io[i].result < 0)
                        request_failed(s, w->io[i].op == VOLUME_READ ? NBD_CMD_READ : NBD_CMD_WRITE,
                                       w->io[i].n);
                session_put(s, p, end - p);
                payload_free(s, w->of[i].kept, w->io[i].n);
        }
        w->n = w->nkept = w->kept = 0;
}

void batch_drop(struct session *s)
{
        struct session_work *w = s->work;

        free(s->write.kept); /* a flight's is not here any more */
        s->write.kept = NULL;
        for (unsigned i = 0; w && i < w->n; i++)
                free(w->of[i].kept);
        if (w)
                w->n = w->nkept = w->kept = 0;
}
