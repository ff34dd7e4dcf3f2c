/* The bytes of one connection.  One thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct wire {
        int fd;
};

/* At least one byte, 0 at the end, -errno (-EINTR and -EAGAIN too: the caller knows why). */
ssize_t wire_recv(struct wire *w, void *p, size_t n);
/* All of it or -errno.  iov is used up. */
int wire_send(struct wire *w, struct iovec *iov, int n);
/* n bytes of a file, from off on.  -EIO when the file is shorter. */
int wire_send_file(struct wire *w, int fd, uint64_t off, uint64_t n);
