/* The walls around a confined child (see struct confine in child.h).
 *
 * Purpose: a program that reads an uploaded file may be taken over by it.  Then it must be able to
 * do nothing but spoil its own output.
 *
 * Walls, from outside in: no_new_privs and an empty capability bounding set; a network, IPC and
 * UTS namespace with nothing in it (when the caller is root); Landlock, so that only the listed
 * paths can be opened; resource limits; an allow-list of system calls.  What Landlock does not
 * cover (chmod, chown, utimes, xattrs, truncate, signals to others) is not on the list.
 *
 * All that allocates or can fail with words happens in the parent, before fork(); the child only
 * makes system calls. */
#pragma once

#include <linux/filter.h>
#include "common/child.h"

struct confinement {
        int ruleset; /* of Landlock; -1 when there is none */
        struct sock_filter *filter;
        unsigned short filter_len; /* instructions */
        struct confine limits;     /* its lists are not used any more */
};

/* Prepares walls for a child that will execute `program` (an absolute path).  -ENOTSUP with words
 * when this kernel cannot keep them: nothing runs unconfined by accident.  Any thread. */
int confine_prepare(const struct confine *c, const char *program, struct confinement *ret,
                    struct err **e);
void confine_done(struct confinement *c);

/* Goes behind the walls, for good; for the child between fork() and exec(), async-signal-safe.
 * 0, or -errno with the name of the failed step in *ret_step: then the child must not go on. */
int confine_enter(const struct confinement *c, const char **ret_step);

/* Every capability, and the bounding set as far as the caller may.  Async-signal-safe; -errno. */
int capabilities_drop(void);

/* confine-syscalls.c: the allow-list as a BPF program; the caller frees *ret. */
int confine_syscalls(struct sock_filter **ret, unsigned short *ret_len, struct err **e);
