#include "blockd/session.h"

#include "blockd/nbd.h"

int session_init(struct session *s, const struct session_owner *owner)
{
        uint8_t *p;

        *s = (struct session){.owner = *owner, .phase = SESSION_FLAGS};
        s->out_size = SESSION_OUT;
        s->out = malloc(s->out_size);
        if (!s->out)
                return -ENOMEM;
        p = be64_put(s->out, NBD_MAGIC);
        p = be64_put(p, NBD_OPT_MAGIC);
        p = be16_put(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        s->out_len = p - s->out;
        return 0;
}

void session_done(struct session *s)
{
        volume_close(s->volume);
        free(s->out);
        *s = (struct session){.phase = SESSION_OVER};
}

int session_send(struct session *s)
{
        int r = 0;

        if (s->out_len > 0)
                r = s->owner.send(s->owner.arg, s->out, s->out_len);
        s->out_len = 0;
        if (s->out_size > SESSION_OUT) { /* one large reply does not make the session large */
                free(s->out);
                s->out_size = SESSION_OUT;
                s->out = malloc(s->out_size);
                if (!s->out)
                        r = r < 0 ? r : -ENOMEM;
        }
        if (r < 0)
                s->phase = SESSION_OVER;
        return r;
}

uint8_t *session_room(struct session *s, size_t n)
{
        if (n > s->out_size - s->out_len && session_send(s) < 0)
                return NULL;
        if (n > s->out_size) {
                uint8_t *p = malloc(n);

                if (!p)
                        return NULL;
                free(s->out);
                s->out = p;
                s->out_size = n;
        }
        return s->out + s->out_len;
}

static ssize_t flags_step(struct session *s, const uint8_t *p, size_t n)
{
        uint32_t flags;

        if (n < 4)
                return 0;
        flags = be32_get(p);
        if (flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
                return -EPROTO; /* "the server MUST close", and we do */
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

ssize_t session_input(struct session *s, const uint8_t *p, size_t n)
{
        size_t done = 0;
        ssize_t r = 0;

        if (!s->out)
                return -ESHUTDOWN;
        while (done < n && s->phase != SESSION_OVER) {
                r = step(s, p + done, n - done);
                if (r <= 0)
                        break;
                done += r;
        }
        if (s->out && s->out_len > 0 && session_send(s) < 0)
                return -EPIPE;
        if (r < 0)
                return r;
        return s->phase == SESSION_OVER ? -ESHUTDOWN : (ssize_t)done;
}

uint16_t session_flags(const struct session *s, const struct volume *v)
{
        uint16_t f = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

        if (volume_readonly(v))
                f |= NBD_FLAG_READ_ONLY;
        else
                f |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
        if (s->structured)
                f |= NBD_FLAG_SEND_DF;
        return f;
}
