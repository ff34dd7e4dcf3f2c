/* What the parts of the handshake share: an option's data, and replies to it. */
#pragma once

#include "blockd/nbd.h"
#include "blockd/session.h"

/* A cursor over an option's data.  What is asked for past its end is 0, and `bad` says so. */
struct data {
        const uint8_t *p;
        size_t n;
        bool bad;
};

static inline const uint8_t *data_get(struct data *d, size_t n)
{
        const uint8_t *p = d->p;

        if (d->bad || n > d->n) {
                d->bad = true;
                return NULL;
        }
        d->p += n;
        d->n -= n;
        return p;
}

static inline uint16_t data_16(struct data *d)
{
        const uint8_t *p = data_get(d, 2);

        return p ? be16_get(p) : 0;
}

static inline uint32_t data_32(struct data *d)
{
        const uint8_t *p = data_get(d, 4);

        return p ? be32_get(p) : 0;
}

/* A length and so many bytes, as a string; what holds a NUL or is too long is no name of ours. */
static inline bool data_string(struct data *d, char out[NBD_STRING_MAX + 1])
{
        uint32_t n = data_32(d);
        const uint8_t *p = data_get(d, n);

        out[0] = '\0';
        if (!p || n > NBD_STRING_MAX || memchr(p, 0, n))
                return false;
        memcpy(out, p, n);
        out[n] = '\0';
        return true;
}

/* Each 0 or -EPIPE. */
int option_reply(struct session *s, uint32_t option, uint32_t type, const void *data, uint32_t len);
int option_words(struct session *s, uint32_t option, uint32_t type, const char *words);
/* An export could not be opened: the words, unless the connection is over (-EPIPE). */
int option_refuse(struct session *s, uint32_t option, int r, struct err *e);
/* The reply's head, and room for len bytes, which the caller fills.  NULL: the session is over. */
uint8_t *option_reply_begin(struct session *s, uint32_t option, uint32_t type, uint32_t len);

/* ---- context.c ---- */

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
int option_meta_context(struct session *s, uint32_t option, struct data *d);
/* Transmission begins: what was selected is made ready, if it was for this export.  0 or -errno. */
int contexts_begin(struct session *s, const char *name);
void contexts_end(struct session *s);
