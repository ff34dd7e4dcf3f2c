/* Child processes, run to their end.
 *
 * Purpose: one careful way to run qemu-img, groupadd and their like: no shell, no inherited
 * descriptors, a deadline, output with a ceiling, and on request a confinement that holds even if
 * the child is taken over by the file it reads. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/err.h"

/* What a confined child may do: read the files and folders in `read`, read and write those in
 * `write` (NULL-terminated lists of existing paths; either may be NULL), and compute.  It keeps
 * its uid but no capability (a root child reads what root owns or all may read), may make threads
 * but no processes and no sockets, and gets EPERM at what seccomp forbids.  With root as caller
 * its network namespace is empty, too.  Its environment is PATH and LC_ALL=C.  The loader's and
 * the libraries' folders are always readable.  Walls: confine.h. */
struct confine {
        const char *const *read;
        const char *const *write;
        uint64_t max_memory;    /* RLIMIT_AS, bytes; 0 leaves it */
        uint64_t max_file_size; /* RLIMIT_FSIZE, bytes; 0 leaves it */
        unsigned max_cpu;       /* RLIMIT_CPU, seconds; 0 leaves it */
};

struct child {
        const char *const *argv;       /* argv[0] is searched in PATH */
        const struct confine *confine; /* NULL: an ordinary child */
        int timeout_ms;                /* then SIGKILL and -ETIMEDOUT; 0 means 60 s */
        size_t max_output;             /* each of stdout and stderr; 0 means 1 MiB */
        /* Optional: each piece of stdout as it comes, instead of collecting it.  A negative return
         * kills the child and becomes child_run's result (this is how a job cancels). */
        int (*on_output)(void *arg, const char *p, size_t n);
        /* Optional: called about every 100 ms; same contract. */
        int (*on_tick)(void *arg);
        void *arg;
};

struct child_result {
        int status;     /* as waitpid(2) gives it */
        struct buf out; /* stdout, unless on_output took it */
        struct buf err; /* stderr */
};

/* Runs the child and waits.  0 when it ran to its end, whatever its exit status: look at
 * ret->status.  -ETIMEDOUT, -EFBIG (output), -ENOENT (no such program), -errno otherwise.
 * Blocks; call it on a worker. */
int child_run(const struct child *c, struct child_result *ret, struct err **e);
void child_result_done(struct child_result *r);

/* child_run() that also wants exit status 0: otherwise -EIO with the last line of stderr as words. */
int child_check(const struct child *c, struct err **e);
