/* The bytes of one connection.  One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls;

struct wire {
        int fd;
        struct tls *tls;  /* NULL: plain */
        int64_t deadline; /* clock_mono(): receiving and sending fail with -ETIMEDOUT; 0: never */
        uint64_t sent;    /* bytes, but those of TLS; any thread may read it by wire_sent() */
};

static inline uint64_t wire_sent(const struct wire *w)
{
        return __atomic_load_n(&w->sent, __ATOMIC_RELAXED);
}

/* Until fd is ready for those poll(2) events.  0, -ETIMEDOUT, -errno. */
int wire_wait(int fd, short events, int64_t deadline);
/* At least one byte, 0 at the end, -errno (-EINTR and -EAGAIN too: the caller knows why). */
ssize_t wire_recv(struct wire *w, void *p, size_t n);
/* All of it or -errno.  iov is used up. */
int wire_send(struct wire *w, struct iovec *iov, int n);
/* Some of it, if the socket takes any now: bytes, -EAGAIN (TLS: always), -errno. */
ssize_t wire_send_some(struct wire *w, struct iovec *iov, int n);
/* Whether something to be received is here already, where poll(2) does not see it. */
bool wire_pending(const struct wire *w);
/* n bytes of a file, from off on; without TLS and deadline only.  -EIO when the file is shorter. */
int wire_send_file(struct wire *w, int fd, uint64_t off, uint64_t n);
