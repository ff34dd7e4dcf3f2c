#include "blockd/handover.h"

#include <sys/socket.h>

#include "common/jsonl.h"
#include "common/fileio.h"

enum { JSON_MAX = 16 << 20 }; /* start names every volume in use */

struct head {
        uint32_t json, bytes; /* lengths; both ends are one machine */
};

static int send_head(int sock, const struct head *h, int fd)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct iovec iov = {.iov_base = (void *)h, .iov_len = sizeof(*h)};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

        if (fd >= 0) {
                m.msg_control = &control;
                m.msg_controllen = sizeof(control.space);
                control.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                                                 .cmsg_level = SOL_SOCKET,
                                                 .cmsg_type = SCM_RIGHTS};
                memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
        }
        for (;;) {
                ssize_t n = sendmsg(sock, &m, MSG_NOSIGNAL);

                if (n == sizeof(*h))
                        return 0;
                if (n >= 0)
                        return -EPIPE; /* so few bytes are never cut */
                if (errno != EINTR)
                        return -errno;
        }
}

int handover_send(int sock, json_t *o, const void *bytes, size_t n, int fd)
{
        _cleanup_free_ char *text = o ? json_text(o, JSON_COMPACT) : NULL;
        struct head h = {.json = text ? strlen(text) : 0, .bytes = n};
        int r;

        json_decref(o);
        if (!text)
                return -ENOMEM;
        r = send_head(sock, &h, fd);
        if (r == 0)
                r = write_full(sock, text, h.json);
        if (r == 0 && n > 0)
                r = write_full(sock, bytes, n);
        return r;
}

static int recv_head(int sock, struct head *h, int *ret_fd)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = h, .iov_len = sizeof(*h)};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof(control)};
        ssize_t n;

        *ret_fd = -1;
        do
                n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
                        memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
        if (n == 0)
                return -ENODATA;
        return n == sizeof(*h) ? 0 : -EPROTO;
}

int handover_recv(int sock, struct message *ret)
{
        _cleanup_free_ char *text = NULL;
        struct head h;
        int r;

        *ret = (struct message){.fd = -1};
        r = recv_head(sock, &h, &ret->fd);
        if (r == 0 && (h.json > JSON_MAX || h.bytes > SESSION_IN))
                r = -EPROTO;
        if (r == 0) {
                text = malloc(h.json + 1);
                ret->bytes = malloc(h.bytes + 1);
                ret->n = h.bytes;
                r = text && ret->bytes ? read_full(sock, text, h.json) : -ENOMEM;
        }
        if (r == 0)
                r = read_full(sock, ret->bytes, h.bytes);
        if (r == 0 && !(ret->o = json_loadb(text, h.json, 0, NULL)))
                r = -EPROTO;
        if (r < 0)
                message_done(ret);
        return r;
}

void message_done(struct message *m)
{
        json_decref(m->o);
        free(m->bytes);
        if (m->fd >= 0)
                close(m->fd);
        *m = (struct message){.fd = -1};
}

const char *message_op(const struct message *m)
{
        const char *op = json_string_value(json_object_get(m->o, "op"));

        return op ? op : "";
}

int handover_expect(int sock, const char *op, struct err **e)
{
        struct message m;
        json_int_t format = HANDOVER_FORMAT;
        int r = handover_recv(sock, &m);

        if (r == -ENODATA)
                return err_set(e, -ESRCH, "the other blockd ended");
        if (r == -EAGAIN)
                return err_set(e, -ETIMEDOUT, "the other blockd does not answer");
        if (r < 0)
                return err_errno(e, r, "hear the other blockd");
        json_unpack(m.o, "{s?I}", "format", &format);
        if (!streq(message_op(&m), op))
                r = err_set(e, -EPROTO, "the other blockd says '%.32s' for '%s'", message_op(&m),
                            op);
        else if (format != HANDOVER_FORMAT)
                r = err_set(e, -EPROTO, "the other blockd speaks format %lld, this one %d",
                            (long long)format, HANDOVER_FORMAT);
        message_done(&m);
        return r;
}

json_t *handover_pack(const struct session *s)
{
        json_t *contexts = json_array();

        for (unsigned i = 0; i < s->ncontexts; i++)
                json_array_append_new(contexts, json_string(s->contexts[i].since));
        return json_pack("{s:i, s:i, s:b, s:o, s:s, s:i, s:I, s:I, "
                         "s:{s:i, s:I, s:I, s:I, s:I, s:i, s:i}}",
                         "phase", (int)s->phase, "form", (int)s->form, "no_zeroes",
                         (int)s->no_zeroes, "contexts", contexts, "contexts_of", s->contexts_of,
                         "options", (int)s->options, "drain_option", (json_int_t)s->drain_option,
                         "drain", (json_int_t)s->drain, "write", "type", (int)s->write.type,
                         "cookie", (json_int_t)s->write.cookie, "off", (json_int_t)s->write.off,
                         "start", (json_int_t)s->write.start, "left", (json_int_t)s->write.left,
                         "flags", (int)s->write.flags, "error", s->write.error);
}

static int unpack_contexts(const json_t *array, const char *of, struct session *s)
{
        const json_t *since;
        size_t i;

        if (strlen(of) >= sizeof(s->contexts_of) || json_array_size(array) > SESSION_CONTEXTS)
                return -EPROTO;
        strcpy(s->contexts_of, of);
        json_array_foreach (array, i, since) {
                const char *id = json_string_value(since);

                if (!id || strlen(id) >= sizeof(s->contexts[i].since))
                        return -EPROTO;
                strcpy(s->contexts[s->ncontexts++].since, id);
        }
        return 0;
}

int handover_unpack(json_t *o, struct session *s)
{
        json_int_t drain_option, drain, cookie, off, start, left;
        int phase, form, no_zeroes, options, type, flags, error;
        const json_t *contexts;
        const char *of;

        if (json_unpack(o,
                        "{s:i, s:i, s:b, s:o, s:s, s:i, s:I, s:I, "
                        "s:{s:i, s:I, s:I, s:I, s:I, s:i, s:i}}",
                        "phase", &phase, "form", &form, "no_zeroes", &no_zeroes, "contexts",
                        &contexts, "contexts_of", &of, "options", &options, "drain_option",
                        &drain_option, "drain", &drain, "write", "type", &type, "cookie", &cookie,
                        "off", &off, "start", &start, "left", &left, "flags", &flags, "error",
                        &error) < 0)
                return -EPROTO;
        if (phase < SESSION_FLAGS || phase > SESSION_TRANSMISSION || form < FORM_SIMPLE ||
            form > FORM_EXTENDED)
                return -EPROTO;
        s->phase = phase;
        s->form = form;
        s->no_zeroes = no_zeroes;
        s->options = options;
        s->drain_option = drain_option;
        s->drain = drain;
        s->write.type = type;
        s->write.cookie = cookie;
        s->write.off = off;
        s->write.start = start;
        s->write.left = left;
        s->write.flags = flags;
        s->write.error = error;
        return unpack_contexts(contexts, of, s);
}
