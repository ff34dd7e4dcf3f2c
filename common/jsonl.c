#include "common/jsonl.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/fileio.h"

/* The buffer remembers a failure, whatever jansson makes of our answers. */
static int add(const char *p, size_t n, void *arg)
{
        buf_add(arg, p, n);
        return 0;
}

char *json_text(const json_t *j, size_t flags)
{
        _cleanup_buf_ struct buf b = {};

        return json_dump_callback(j, add, &b, flags) < 0 || b.failed ? NULL : buf_take(&b);
}

static int connect_unix(const char *path, struct err **e)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = -1;

        if (strlen(path) >= sizeof(sa.sun_path))
                return err_errno(e, -ENAMETOOLONG, "socket '%s'", path);
        strcpy(sa.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_errno(e, -errno, "socket");
        if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
                /* No socket and nobody behind it are one thing: the daemon is down. */
                int r = errno == ENOENT ? -ECONNREFUSED : -errno;

                return err_errno(e, r, "connect to '%s'", path);
        }
        return TAKE_FD(fd);
}

/* Reads up to the newline into line. */
static int read_line(int fd, int64_t deadline, struct buf *line)
{
        for (;;) {
                struct pollfd p = {.fd = fd, .events = POLLIN};
                int64_t left = (deadline - clock_mono()) / 1000;
                char piece[4096];
                ssize_t n;
                int r;

                r = poll(&p, 1, left > 0 ? (int)left : 0);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0)
                        return r < 0 ? -errno : -ETIMEDOUT;
                n = read(fd, piece, sizeof(piece));
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -ECONNRESET;
                buf_add(line, piece, n);
                if (line->len > JSONL_MAX || line->failed)
                        return -EPROTO;
                if (line->len && line->data[line->len - 1] == '\n')
                        return 0;
        }
}

static int parse_answer(const struct buf *line, json_t **ret, struct err **e)
{
        json_auto_t *a = json_loadb(buf_str(line), line->len, JSON_REJECT_DUPLICATES, NULL);
        const char *words = "refused without words";
        int code = EIO;

        if (!json_is_object(a) || !json_is_boolean(json_object_get(a, "ok")))
                return err_set(e, -EPROTO, "the answer is not one of this protocol");
        if (json_is_true(json_object_get(a, "ok"))) {
                if (ret)
                        *ret = json_incref(a);
                return 0;
        }
        json_unpack(a, "{s?i, s?s}", "errno", &code, "error", &words);
        return err_set(e, -MAX(code, 1), "%s", words);
}

/* The first byte of the line, with the descriptor. */
static int send_with(int to, const char *byte, int fd)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct iovec iov = {.iov_base = (char *)byte, .iov_len = 1};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof(control)};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
        return sendmsg(to, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int jsonl_call(const char *path, json_t *request, int timeout_ms, json_t **ret, struct err **e)
{
        return jsonl_call_with(path, request, -1, timeout_ms, ret, e);
}

int jsonl_call_with(const char *path, json_t *request, int given, int timeout_ms, json_t **ret,
                    struct err **e)
{
        int64_t deadline = clock_mono() + (int64_t)timeout_ms * 1000;
        _cleanup_free_ char *text = json_text(request, JSON_COMPACT);
        _cleanup_buf_ struct buf line = {};
        _cleanup_close_ int fd = -1;
        int r;

        if (!text)
                return err_errno(e, -ENOMEM, "request");
        fd = connect_unix(path, e);
        if (fd < 0)
                return fd;
        buf_addstr(&line, text);
        buf_addc(&line, '\n');
        r = given >= 0 ? send_with(fd, line.data, given) : 0;
        if (r == 0)
                r = write_full(fd, line.data + (given >= 0), line.len - (given >= 0));
        if (r < 0)
                return err_errno(e, r, "write to '%s'", path);
        buf_clear(&line);
        r = read_line(fd, deadline, &line);
        if (r < 0)
                return err_errno(e, r, "answer from '%s'", path);
        return parse_answer(&line, ret, e);
}
