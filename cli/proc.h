/* Other processes, as /proc shows them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"

struct proc_facts {
        int64_t uptime; /* seconds since its start */
        uint64_t pss;   /* bytes of memory, shared pages counted in part; 0 when not readable */
        bool replaced;  /* its program file was removed or replaced since */
        char name[16];
};

/* false when there is no such process (any more). */
bool proc_facts(pid_t pid, struct proc_facts *ret);

/* Its parent; 0 when there is no such process. */
pid_t proc_parent(pid_t pid);

/* Adds "vim (1234), bash (99)" for each process that has a file, folder or root below path, at
 * most eight.  Reads links only: a dead mount below is not touched.  Gives their number. */
unsigned proc_holders(const char *path, struct buf *out);

/* The QEMUs whose command line names a path below run or state: this cloud's guests, whether or
 * not anybody manages them.  Puts at most max pids into pids (may be NULL), gives their number. */
unsigned proc_guests(const char *run, const char *state, pid_t *pids, unsigned max);
