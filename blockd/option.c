/* The handshake: option haggling. */
#include "blockd/option.h"

#include "blockd/flight.h"
#include "blockd/request.h"

uint8_t *option_reply_begin(struct session *s, uint32_t option, uint32_t type, uint32_t len)
{
        uint8_t *p = session_room(s, NBD_REPHDR_SIZE + len);

        if (!p)
                return NULL;
        session_put(s, p, NBD_REPHDR_SIZE + len);
        p = be64_put(p, NBD_REP_MAGIC);
        p = be32_put(p, option);
        p = be32_put(p, type);
        return be32_put(p, len);
}

int option_reply(struct session *s, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
        uint8_t *p = option_reply_begin(s, option, type, len);

        if (!p)
                return -EPIPE;
        if (len)
                memcpy(p, data, len);
        return 0;
}

int option_words(struct session *s, uint32_t option, uint32_t type, const char *words)
{
        return option_reply(s, option, type, words, MIN(strlen(words), (size_t)NBD_STRING_MAX));
}

int option_refuse(struct session *s, uint32_t option, int r, struct err *e)
{
        if (r == -EPIPE)
                return r;
        return option_words(s, option,
                            r == -ENOKEY || r == -EKEYREJECTED ? NBD_REP_ERR_POLICY
                                                               : NBD_REP_ERR_UNKNOWN,
                            err_msg(e));
}

static int begin_transmission(struct session *s, struct session_export *x)
{
        int r;

        s->volume = TAKE_PTR(x->volume);
        s->phase = SESSION_TRANSMISSION;
        r = contexts_begin(s, x->name);
        if (r == 0 && s->owner.begin)
                r = s->owner.begin(s->owner.arg, volume_id(s->volume), &s->limit, &s->stats);
        if (r == 0)
                request_resume(s);
        s->flights = flights_open(s);
        return r;
}

void session_detach(struct session *s)
{
        session_land(s);
        for (unsigned i = 0; i < s->ncontexts; i++)
                s->contexts[i].changes = volume_changes_close(s->contexts[i].changes);
        s->volume = volume_close(s->volume);
        s->limit = NULL;
        s->stats = NULL;
}

int session_resume(struct session *s, const char *name)
{
        struct session_export x = {};
        int r = s->owner.open(s->owner.arg, name, &x, NULL);

        if (r == 0)
                r = begin_transmission(s, &x);
        flights_unlock(s->flights);
        return r;
}

/* The one option without a reply to refuse with. */
static int opt_export_name(struct session *s, uint32_t option _unused_, struct data *d)
{
        char name[NBD_STRING_MAX + 1];
        struct session_export x = {};
        size_t n = d->n, len;
        const uint8_t *p = data_get(d, n);
        uint8_t *out;

        if (!p || n > NBD_STRING_MAX || memchr(p, 0, n))
                return -EPROTO;
        memcpy(name, p, n);
        name[n] = '\0';
        if (s->owner.open(s->owner.arg, name, &x, NULL) < 0)
                return -ENOENT;
        len = 10 + (s->no_zeroes ? 0 : 124);
        out = session_room(s, len);
        if (!out) {
                volume_close(x.volume);
                return -EPIPE;
        }
        memset(out, 0, len);
        be16_put(be64_put(out, volume_size(x.volume)), session_flags(s, x.volume));
        session_put(s, out, len);
        return begin_transmission(s, &x);
}

static int opt_abort(struct session *s, uint32_t option, struct data *d _unused_)
{
        int r = option_reply(s, option, NBD_REP_ACK, NULL, 0);

        s->phase = SESSION_OVER;
        return r;
}

static int list_one(void *arg, const char *name)
{
        struct session *s = arg;
        size_t n = strlen(name);
        uint8_t *p = option_reply_begin(s, NBD_OPT_LIST, NBD_REP_SERVER, 4 + n);

        if (!p)
                return -EPIPE;
        memcpy(be32_put(p, n), name, n);
        return 0;
}

static int opt_list(struct session *s, uint32_t option, struct data *d)
{
        int r;

        if (d->n > 0)
                return option_words(s, option, NBD_REP_ERR_INVALID, "LIST takes no data");
        r = s->owner.list(s->owner.arg, list_one, s);
        return r < 0 ? r : option_reply(s, option, NBD_REP_ACK, NULL, 0);
}

static int info_export(struct session *s, uint32_t option, const struct session_export *x)
{
        uint8_t data[12];

        be16_put(be64_put(be16_put(data, NBD_INFO_EXPORT), volume_size(x->volume)),
                 session_flags(s, x->volume));
        return option_reply(s, option, NBD_REP_INFO, data, sizeof(data));
}

static int info_text(struct session *s, uint32_t option, uint16_t type, const char *text)
{
        size_t n = strlen(text);
        uint8_t *p = option_reply_begin(s, option, NBD_REP_INFO, 2 + n);

        if (!p)
                return -EPIPE;
        memcpy(be16_put(p, type), text, n);
        return 0;
}

static int info_block_size(struct session *s, uint32_t option)
{
        uint8_t data[14], *p = be16_put(data, NBD_INFO_BLOCK_SIZE);

        p = be32_put(p, 1);
        p = be32_put(p, 4096);
        be32_put(p, VOLUME_IO_MAX);
        return option_reply(s, option, NBD_REP_INFO, data, sizeof(data));
}

static int send_info(struct session *s, uint32_t option, const struct session_export *x,
                     unsigned asked)
{
        char text[128];
        int r = info_export(s, option, x);

        if (r == 0 && asked & 1 << NBD_INFO_NAME)
                r = info_text(s, option, NBD_INFO_NAME, x->name);
        if (r == 0 && asked & 1 << NBD_INFO_DESCRIPTION) {
                snprintf(text, sizeof(text), "volume %s", volume_id(x->volume));
                r = info_text(s, option, NBD_INFO_DESCRIPTION, text);
        }
        if (r == 0 && asked & 1 << NBD_INFO_BLOCK_SIZE)
                r = info_block_size(s, option);
        return r == 0 ? option_reply(s, option, NBD_REP_ACK, NULL, 0) : r;
}

static int opt_go(struct session *s, uint32_t option, struct data *d)
{
        _cleanup_err_ struct err *e = NULL;
        char name[NBD_STRING_MAX + 1];
        struct session_export x = {};
        bool good = data_string(d, name);
        unsigned asked = 0, count;
        int r;

        if (d->bad)
                return option_words(s, option, NBD_REP_ERR_INVALID, "the name is cut short");
        count = data_16(d);
        for (unsigned i = 0; i < count && !d->bad; i++) {
                uint16_t what = data_16(d);

                asked |= what <= NBD_INFO_BLOCK_SIZE ? 1u << what : 0;
        }
        if (d->bad || d->n > 0)
                return option_words(s, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
        r = good ? s->owner.open(s->owner.arg, name, &x, &e)
                 : err_set(&e, -ENOENT, "no export has such a name");
        if (r < 0)
                return option_refuse(s, option, r, e);
        r = send_info(s, option, &x, asked);
        if (r == 0 && option == NBD_OPT_GO)
                return begin_transmission(s, &x);
        volume_close(x.volume);
        return r;
}

static int opt_structured_reply(struct session *s, uint32_t option, struct data *d)
{
        if (d->n > 0)
                return option_words(s, option, NBD_REP_ERR_INVALID,
                                    "STRUCTURED_REPLY takes no data");
        if (s->form == FORM_EXTENDED)
                return option_words(s, option, NBD_REP_ERR_EXT_HEADER_REQD,
                                    "extended headers are in use: they include it");
        s->form = FORM_STRUCTURED;
        return option_reply(s, option, NBD_REP_ACK, NULL, 0);
}

static int opt_extended_headers(struct session *s, uint32_t option, struct data *d)
{
        if (d->n > 0)
                return option_words(s, option, NBD_REP_ERR_INVALID,
                                    "EXTENDED_HEADERS takes no data");
        s->form = FORM_EXTENDED;
        return option_reply(s, option, NBD_REP_ACK, NULL, 0);
}

static const struct {
        uint32_t option;
        int (*run)(struct session *s, uint32_t option, struct data *d);
} options[] = {
        {NBD_OPT_EXPORT_NAME, opt_export_name},
        {NBD_OPT_ABORT, opt_abort},
        {NBD_OPT_LIST, opt_list},
        {NBD_OPT_INFO, opt_go},
        {NBD_OPT_GO, opt_go},
        {NBD_OPT_STRUCTURED_REPLY, opt_structured_reply},
        {NBD_OPT_LIST_META_CONTEXT, option_meta_context},
        {NBD_OPT_SET_META_CONTEXT, option_meta_context},
        {NBD_OPT_EXTENDED_HEADERS, opt_extended_headers},
};

/* n bytes are there in all; what is behind the option was sent by nobody knows whom. */
static int opt_starttls(struct session *s, struct data *d, size_t n)
{
        const uint32_t option = NBD_OPT_STARTTLS;
        int r;

        if (s->tls)
                return option_words(s, option, NBD_REP_ERR_INVALID, "TLS is in use already");
        if (!s->owner.starttls)
                return option_words(s, option, NBD_REP_ERR_UNSUP, "there is no TLS here");
        if (d->n > 0)
                return option_words(s, option, NBD_REP_ERR_INVALID, "STARTTLS takes no data");
        if (n > NBD_OPTION_SIZE)
                return -EPROTO;
        r = option_reply(s, option, NBD_REP_ACK, NULL, 0);
        if (r == 0)
                r = session_send(s);
        if (r == 0)
                r = s->owner.starttls(s->owner.arg);
        if (r < 0)
                return r;
        s->tls = true;
        s->owner.send_file = NULL;
        /* Nothing that was said before counts. */
        s->form = FORM_SIMPLE;
        contexts_end(s);
        return 0;
}

/* Before TLS, where there must be TLS. */
static bool needs_tls(const struct session *s, uint32_t option)
{
        return s->owner.tls_only && !s->tls && option != NBD_OPT_STARTTLS &&
               option != NBD_OPT_ABORT;
}

static int reply_needs_tls(struct session *s, uint32_t option)
{
        if (option == NBD_OPT_EXPORT_NAME)
                return -EPROTO;
        return option_words(s, option, NBD_REP_ERR_TLS_REQD, "STARTTLS comes first");
}

/* The rest of an option that was too long. */
static ssize_t drain_step(struct session *s, size_t n)
{
        size_t k = MIN(n, (size_t)s->drain);

        s->drain -= k;
        if (s->drain == 0) {
                int r = needs_tls(s, s->drain_option)
                                ? reply_needs_tls(s, s->drain_option)
                                : option_words(s, s->drain_option, NBD_REP_ERR_TOO_BIG,
                                               "the option's data is too long");

                if (r < 0)
                        return r;
        }
        return k;
}

static int run_option(struct session *s, uint32_t option, struct data *d)
{
        for (size_t i = 0; i < ARRAY_SIZE(options); i++)
                if (options[i].option == option)
                        return options[i].run(s, option, d);
        return option_words(s, option, NBD_REP_ERR_UNSUP, "this server has no such option");
}

ssize_t option_step(struct session *s, const uint8_t *p, size_t n)
{
        uint32_t option, len;
        struct data d;
        int r;

        if (s->drain > 0)
                return drain_step(s, n);
        if (n < NBD_OPTION_SIZE)
                return 0;
        option = be32_get(p + 8);
        len = be32_get(p + 12);
        if (be64_get(p) != NBD_OPT_MAGIC || len > SESSION_OPTION_DRAIN)
                return -EPROTO;
        if (len > SESSION_OPTION_MAX) {
                if (option == NBD_OPT_EXPORT_NAME)
                        return -EPROTO;
                s->drain_option = option;
                s->drain = len;
                return ++s->options > SESSION_OPTIONS ? -EPROTO : NBD_OPTION_SIZE;
        }
        if (n < NBD_OPTION_SIZE + len)
                return 0;
        if (++s->options > SESSION_OPTIONS)
                return -EPROTO;
        if (session_gone(s))
                return -ESHUTDOWN;
        d = (struct data){.p = p + NBD_OPTION_SIZE, .n = len};
        if (needs_tls(s, option))
                r = reply_needs_tls(s, option);
        else if (option == NBD_OPT_STARTTLS)
                r = opt_starttls(s, &d, n);
        else
                r = run_option(s, option, &d);
        return r < 0 ? r : NBD_OPTION_SIZE + (ssize_t)len;
}
