/* Replies without data, and the heads of those with. */
#include "blockd/request.h"

/* The one place where our codes become NBD's. */
static uint32_t wire_errno(int r)
{
        switch (r) {
        case 0:
                return 0;
        case -EPERM:
        case -EROFS:
                return NBD_EPERM;
        case -ENOMEM:
                return NBD_ENOMEM;
        case -EINVAL:
                return NBD_EINVAL;
        case -ENOSPC:
        case -EDQUOT:
        case -EFBIG:
                return NBD_ENOSPC;
        case -ENOTSUP:
                return NBD_ENOTSUP;
        default:
                return NBD_EIO;
        }
}

uint8_t *chunk_put(const struct session *s, uint8_t *p, unsigned flags, unsigned type,
                   uint64_t cookie, uint64_t off, uint64_t len)
{
        const bool extended = s->form == FORM_EXTENDED;

        p = be32_put(p, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
        p = be16_put(p, flags);
        p = be16_put(p, type);
        p = be64_put(p, cookie);
        return extended ? be64_put(be64_put(p, off), len) : be32_put(p, len);
}

uint8_t *failure_put(const struct session *s, uint8_t *p, uint64_t cookie, uint64_t off, int error)
{
        if (s->form == FORM_SIMPLE)
                return done_put(s, p, cookie, off, error);
        p = chunk_put(s, p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, off,
                      REPLY_ERROR_SIZE);
        return be16_put(be32_put(p, wire_errno(error)), 0);
}

uint8_t *done_put(const struct session *s, uint8_t *p, uint64_t cookie, uint64_t off, int error)
{
        if (s->form == FORM_EXTENDED && error)
                return failure_put(s, p, cookie, off, error);
        if (s->form == FORM_EXTENDED)
                return chunk_put(s, p, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, cookie, off, 0);
        p = be32_put(p, NBD_SIMPLE_REPLY_MAGIC);
        p = be32_put(p, wire_errno(error));
        return be64_put(p, cookie);
}

int reply_done(struct session *s, const struct request *q, int error)
{
        uint8_t *p = session_room(s, REPLY_MAX);

        if (!p)
                return -EPIPE;
        if (error)
                request_failed(s, q->type, q->len);
        session_put(s, p, done_put(s, p, q->cookie, q->off, error) - p);
        return 0;
}

int reply_failure(struct session *s, const struct request *q, int error)
{
        uint8_t *p = session_room(s, REPLY_MAX);

        if (!p)
                return -EPIPE;
        request_failed(s, q->type, q->len);
        session_put(s, p, failure_put(s, p, q->cookie, q->off, error) - p);
        return 0;
}
