/* Many reads and writes of files at once, through io_uring.
 *
 * Each thread has a ring of its own, made when it is first needed and freed when the thread ends.
 * Where the kernel gives none (its version, seccomp, io_uring_disabled; the fault point
 * "volume.ring") they are done one after the other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RING_DEPTH = 64 };

struct ring_io {
        int fd;
        bool write;
        bool plain; /* not for the ring: it waits for nothing, or has been started */
        int flags;  /* RWF_DSYNC */
        char *p;
        size_t n;
        uint64_t off;
        int result; /* 0 or -errno */
};

/* Does all of them, n <= RING_DEPTH, whole or -errno; a read past the file's end gives zeros.  One
 * alone needs no ring. */
void ring_run(struct ring_io *io, size_t n);
/* One, without a ring. */
int ring_plain(struct ring_io *io);
