/* Transmission: requests and what they ask for. */
#include "blockd/flight.h"

enum {
        PIECE = 128 << 10,        /* a long payload is written in pieces of at least this */
        BLOCK = 4096,             /* and they end on a multiple of this */
        STATUS_PAYLOAD_MAX = 512, /* of a BLOCK_STATUS that chooses its contexts */
};

static unsigned volume_flags(const struct request *q)
{
        unsigned f = 0;

        if (q->flags & NBD_CMD_FLAG_FUA)
                f |= VOLUME_FUA;
        if (q->flags & NBD_CMD_FLAG_NO_HOLE)
                f |= VOLUME_NO_HOLE;
        if (q->flags & NBD_CMD_FLAG_FAST_ZERO)
                f |= VOLUME_FAST;
        return f;
}

static int cmd_read(struct session *s, const struct request *q)
{
        uint64_t size = volume_size(s->volume);

        if (q->len > VOLUME_IO_MAX || q->off > size || q->len > size - q->off ||
            (q->flags & NBD_CMD_FLAG_DF && s->form == FORM_SIMPLE))
                return reply_failure(s, q, -EINVAL);
        if (s->flights && q->len > 0 && q->len <= FLIGHT_READ_MAX)
                return flight_begin(s->flights, q, VOLUME_READ, 0, NULL);
        if (q->len > 0 && q->len < SESSION_LARGE)
                return batch_read(s, q);
        batch_run(s);
        if (q->len > 0)
                return read_large(s, q);
        if (s->form == FORM_STRUCTURED) {
                uint8_t *p = session_room(s, NBD_CHUNK_SIZE);

                if (!p)
                        return -EPIPE;
                chunk_put(s, p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, q->cookie, q->off, 0);
                session_put(s, p, NBD_CHUNK_SIZE);
                return 0;
        }
        return reply_done(s, q, 0);
}

static int cmd_flush(struct session *s, const struct request *q)
{
        if (s->flights && !q->off && !q->len)
                return flight_begin(s->flights, q, VOLUME_FLUSH, 0, NULL);
        return reply_done(s, q, q->off || q->len ? -EINVAL : volume_flush(s->volume));
}

static int cmd_trim(struct session *s, const struct request *q)
{
        if (s->flights)
                return flight_begin(s->flights, q, VOLUME_TRIM, volume_flags(q), NULL);
        return reply_done(s, q, volume_trim(s->volume, q->len, q->off, volume_flags(q)));
}

static int cmd_cache(struct session *s, const struct request *q)
{
        return reply_done(s, q, volume_cache(s->volume, q->len, q->off));
}

static int cmd_write_zeroes(struct session *s, const struct request *q)
{
        if (s->flights)
                return flight_begin(s->flights, q, VOLUME_ZEROES, volume_flags(q), NULL);
        return reply_done(s, q, volume_zero(s->volume, q->len, q->off, volume_flags(q)));
}

static int cmd_block_status(struct session *s, const struct request *q)
{
        return block_status(s, q, NULL, 0);
}

/* What came before it is still answered. */
static int cmd_disc(struct session *s, const struct request *q _unused_)
{
        if (s->flights)
                flights_settle(s->flights);
        s->phase = SESSION_OVER;
        return 0;
}

static const struct {
        int (*run)(struct session *s, const struct request *q);
        unsigned flags; /* legal beside FUA, which every command may carry */
} commands[] = {
        [NBD_CMD_READ] = {cmd_read, NBD_CMD_FLAG_DF},
        [NBD_CMD_WRITE] = {NULL, 0}, /* has a payload, see there */
        [NBD_CMD_DISC] = {cmd_disc, ~0u},
        [NBD_CMD_FLUSH] = {cmd_flush, 0},
        [NBD_CMD_TRIM] = {cmd_trim, 0},
        [NBD_CMD_CACHE] = {cmd_cache, 0},
        [NBD_CMD_WRITE_ZEROES] = {cmd_write_zeroes, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO},
        [NBD_CMD_BLOCK_STATUS] = {cmd_block_status, NBD_CMD_FLAG_REQ_ONE},
};

static int fail(struct session *s, const struct request *q, int error)
{
        return q->type == NBD_CMD_READ || q->type == NBD_CMD_BLOCK_STATUS
                       ? reply_failure(s, q, error)
                       : reply_done(s, q, error);
}

static int run(struct session *s, const struct request *q)
{
        int r = request_admit(s, q, false);

        if (r < 0)
                return r;
        if (q->type >= ARRAY_SIZE(commands) || !commands[q->type].run ||
            q->flags & ~(commands[q->type].flags | NBD_CMD_FLAG_FUA))
                return fail(s, q, -EINVAL);
        if (q->type != NBD_CMD_READ)
                batch_run(s);
        return commands[q->type].run(s, q);
}

/* ---- payloads ---- */

static int check_write(const struct session *s, const struct request *q)
{
        unsigned legal = NBD_CMD_FLAG_FUA;
        uint64_t size = volume_size(s->volume);

        if (s->form == FORM_EXTENDED)
                legal |= NBD_CMD_FLAG_PAYLOAD_LEN;
        if (volume_readonly(s->volume))
                return -EPERM;
        if (q->len > VOLUME_IO_MAX || q->flags & ~legal)
                return -EINVAL;
        return q->off > size || q->len > size - q->off ? -ENOSPC : 0;
}

/* Direct I/O wants the payload whole, and where pages begin; what flies is whole, too. */
static bool keep_payload(struct session *s, const struct request *q)
{
        const size_t align = volume_alignment(s->volume);

        if (s->flights) {
                s->write.flight = flight_new(s->flights, q, q->len);
                s->write.kept = s->write.flight ? s->write.flight->io.p : NULL;
                return s->write.flight;
        }
        if (align == 1 || q->len < SESSION_LARGE || q->off % align || q->len % align)
                return false;
        s->write.kept = payload_alloc(s, q->len);
        return s->write.kept != NULL;
}

/* A write whose payload is not all here, or that fails: it is taken as it comes. */
static int write_begin(struct session *s, const struct request *q, int error)
{
        if (q->len > SESSION_DRAIN)
                return -EPROTO;
        if (q->len == 0)
                return fail(s, q, error);
        if (error || q->type != NBD_CMD_WRITE || !keep_payload(s, q))
                batch_run(s);
        s->write.type = q->type;
        s->write.cookie = q->cookie;
        s->write.start = s->write.off = q->off;
        s->write.left = q->len;
        s->write.flags = volume_flags(q) & VOLUME_FUA;
        s->write.error = error;
        return 0;
}

static int write_end(struct session *s)
{
        const struct request q = {.type = s->write.type,
                                  .cookie = s->write.cookie,
                                  .off = s->write.start,
                                  .len = s->write.off - s->write.start};

        if (s->write.error == 0 && s->write.flags & VOLUME_FUA)
                s->write.error = volume_flush(s->volume);
        return fail(s, &q, s->write.error);
}

int payload_gathered(struct session *s, size_t n)
{
        const struct request q = {.type = s->write.type,
                                  .cookie = s->write.cookie,
                                  .off = s->write.start,
                                  .len = s->write.off - s->write.start + n};

        s->write.off += n;
        s->write.left -= n;
        if (s->write.left > 0)
                return 0;
        if (s->write.flight) {
                s->write.kept = NULL;
                flight_start(TAKE_PTR(s->write.flight), VOLUME_WRITE, s->write.flags);
                return 0;
        }
        return batch_write_kept(s, &q, TAKE_PTR(s->write.kept), s->write.flags);
}

void payload_settle(struct session *s)
{
        uint8_t *kept = TAKE_PTR(s->write.kept);

        if (kept)
                s->write.error = volume_pwrite(s->volume, kept, s->write.off - s->write.start,
                                               s->write.start, 0);
        if (s->write.flight)
                flight_drop(TAKE_PTR(s->write.flight));
        else
                free(kept);
}

static ssize_t payload_step(struct session *s, const uint8_t *p, size_t n)
{
        size_t k = MIN(n, (size_t)s->write.left), at;
        bool last = k == s->write.left;
        int r;

        if (s->write.kept) {
                at = s->write.off - s->write.start;
                memcpy(s->write.kept + at, p, k);
                r = payload_gathered(s, k);
                return r < 0 ? r : (ssize_t)k;
        }
        if (!last && s->write.error == 0) {
                if (n < PIECE)
                        return 0;
                k -= (s->write.off + k) % BLOCK;
        }
        if (s->write.error == 0)
                s->write.error = volume_pwrite(s->volume, p, k, s->write.off, 0);
        s->write.off += k;
        s->write.left -= k;
        if (!last)
                return k;
        r = write_end(s);
        return r < 0 ? r : (ssize_t)k;
}

/* Bytes taken of the payload that follows, or negative. */
static ssize_t write_step(struct session *s, const struct request *q, const uint8_t *p, size_t n)
{
        int r = check_write(s, q), admitted;

        if (s->flights && r == 0 && q->len > n && q->len < SESSION_LARGE)
                return -EAGAIN; /* it is worth waiting for the rest */
        admitted = request_admit(s, q, q->len > n && volume_alignment(s->volume) == 1);
        if (admitted < 0)
                return admitted;
        if (r == 0 && q->len > 0 && q->len <= n) {
                r = s->flights ? flight_begin(s->flights, q, VOLUME_WRITE, volume_flags(q), p)
                               : batch_write(s, q, p, volume_flags(q));
                return r < 0 ? r : (ssize_t)q->len;
        }
        return write_begin(s, q, r);
}

/* A payload where none belongs. */
static ssize_t refuse_payload(struct session *s, const struct request *q, size_t n)
{
        int r = request_admit(s, q, q->len > n);

        return r < 0 ? r : write_begin(s, q, -EINVAL);
}

/* BLOCK_STATUS for some of the contexts: the length asked about, then their ids. */
static ssize_t status_step(struct session *s, const struct request *q, const uint8_t *p, size_t n)
{
        struct request inner = *q;
        int r;

        if (q->len < 8 || q->len > STATUS_PAYLOAD_MAX || q->len % 4 != 0)
                return refuse_payload(s, q, n);
        if (n < q->len)
                return -EAGAIN;
        r = request_admit(s, q, false);
        if (r < 0)
                return r;
        inner.len = be64_get(p);
        inner.flags &= ~(unsigned)NBD_CMD_FLAG_PAYLOAD_LEN;
        batch_run(s);
        if (inner.flags & ~(NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_FUA))
                r = reply_failure(s, q, -EINVAL);
        else
                r = block_status(s, &inner, p + 8, (q->len - 8) / 4);
        return r < 0 ? r : (ssize_t)q->len;
}

/* With extended headers a flag says that a payload follows; before, WRITE alone has one. */
static bool has_payload(const struct session *s, const struct request *q)
{
        if (q->type == NBD_CMD_DISC) /* whatever follows is not read */
                return false;
        return s->form == FORM_EXTENDED ? q->flags & NBD_CMD_FLAG_PAYLOAD_LEN
                                        : q->type == NBD_CMD_WRITE;
}

static ssize_t parse(const struct session *s, const uint8_t *p, size_t n, struct request *q)
{
        const bool extended = s->form == FORM_EXTENDED;
        const size_t size = extended ? NBD_EXTENDED_REQUEST_SIZE : NBD_REQUEST_SIZE;

        if (n < size)
                return 0;
        if (be32_get(p) != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
                return -EPROTO;
        q->flags = be16_get(p + 4);
        q->type = be16_get(p + 6);
        q->cookie = be64_get(p + 8);
        q->off = be64_get(p + 16);
        q->len = extended ? be64_get(p + 24) : be32_get(p + 24);
        return size;
}

ssize_t request_step(struct session *s, const uint8_t *p, size_t n)
{
        struct request q;
        ssize_t size, r;

        if (s->write.left > 0)
                return payload_step(s, p, n);
        size = parse(s, p, n, &q);
        if (size <= 0)
                return size;
        if (!has_payload(s, &q))
                r = run(s, &q);
        else if (q.type == NBD_CMD_WRITE)
                r = write_step(s, &q, p + size, n - size);
        else if (q.type == NBD_CMD_BLOCK_STATUS)
                r = status_step(s, &q, p + size, n - size);
        else
                r = refuse_payload(s, &q, n - size);
        if (r == -EAGAIN)
                return 0;
        return r < 0 ? r : size + r;
}
