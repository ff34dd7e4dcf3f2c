#include "blockd/wire.h"

#include <errno.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "blockd/tls.h"
#include "common/clock.h"

static int wait_once(int fd, short events, int64_t deadline)
{
        struct pollfd p = {.fd = fd, .events = events};
        int64_t left = deadline ? (deadline - clock_mono() + 999) / 1000 : -1;
        int r = poll(&p, 1, deadline && left < 0 ? 0 : left);

        return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

int wire_wait(int fd, short events, int64_t deadline)
{
        int r;

        do
                r = wait_once(fd, events, deadline);
        while (r == -EINTR);
        return r;
}

ssize_t wire_recv(struct wire *w, void *p, size_t n)
{
        ssize_t r;

        if (w->tls)
                return tls_recv(w->tls, p, n, w->deadline);
        if (w->deadline) {
                r = wait_once(w->fd, POLLIN, w->deadline);
                if (r < 0)
                        return r;
        }
        r = recv(w->fd, p, n, 0);
        return r < 0 ? -errno : r;
}

static void count(struct wire *w, size_t n)
{
        __atomic_store_n(&w->sent, w->sent + n, __ATOMIC_RELAXED);
}

/* Takes n sent bytes off the front. */
static void advance(struct msghdr *m, size_t n)
{
        while (m->msg_iovlen > 0 && n >= m->msg_iov->iov_len) {
                n -= m->msg_iov->iov_len;
                m->msg_iov++;
                m->msg_iovlen--;
        }
        if (n > 0) {
                m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
                m->msg_iov->iov_len -= n;
        }
}

int wire_send(struct wire *w, struct iovec *iov, int n)
{
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
        const int flags = MSG_NOSIGNAL | (w->deadline ? MSG_DONTWAIT : 0);

        if (w->tls)
                return tls_send(w->tls, iov, n, w->deadline);
        while (m.msg_iovlen > 0) {
                ssize_t r = sendmsg(w->fd, &m, flags);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0 && errno == EAGAIN && w->deadline) {
                        r = wire_wait(w->fd, POLLOUT, w->deadline);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (r < 0)
                        return -errno;
                count(w, r);
                advance(&m, r);
        }
        return 0;
}

ssize_t wire_send_some(struct wire *w, struct iovec *iov, int n)
{
        const struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
        ssize_t r;

        if (w->tls)
                return -EAGAIN;
        r = sendmsg(w->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0)
                return errno == EINTR ? -EAGAIN : -errno;
        count(w, r);
        return r;
}

bool wire_pending(const struct wire *w)
{
        return w->tls && tls_pending(w->tls);
}

int wire_send_file(struct wire *w, int fd, uint64_t off, uint64_t n)
{
        off_t at = off;

        while (n > 0) {
                ssize_t r = sendfile(w->fd, fd, &at, n);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0)
                        return r < 0 ? -errno : -EIO;
                count(w, r);
                n -= r;
        }
        return 0;
}
