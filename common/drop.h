/* What a daemon gives up once it has what only root could get.
 *
 * Purpose: a daemon that strangers talk to holds no power that it does not need, so that whoever
 * takes it over has little.  Child processes have walls of their own, see confine.h.
 *
 * Before any thread exists, all of it: what is given up is the calling thread's and of what it
 * starts. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include "common/err.h"

/* The user that blockd becomes where nobody says otherwise, and the number it has on hosts where no
 * such user was made. */
#define DROP_BLOCKD_USER "stratofs-blockd"
enum { DROP_BLOCKD_UID = 65010 };

struct drop_user {
        uid_t uid;
        gid_t gid;
        char name[64]; /* for supplementary groups; "" when the user is a number only */
};

/* A name of the user database, DROP_BLOCKD_USER also without it, or a number (its group is the same
 * number).  -ENOENT with words. */
int drop_find_user(const char *name, struct drop_user *ret, struct err **e);

/* Becomes that user with its groups of the group database, for good: no capability, none to be had
 * by exec (no_new_privs and an empty bounding set).  With the uid of the caller only the
 * capabilities and groups go.  NULL: stays who it is. */
int drop_to_user(const struct drop_user *u, struct err **e);

/* Capabilities of which none is needed by a daemon that mounts, makes networks and runs guests:
 * the clock, kernel modules, raw devices, reboot, kexec, audit, kernel log, BPF programs that
 * trace.  They go from this process and, as it leaves the bounding set, from all it starts.
 * Nothing without root. */
int drop_for_children(struct err **e);

enum drop_calls {
        DROP_KERNEL, /* what changes the kernel or looks at others: modules, mounts, namespaces,
                        BPF, ptrace..., and sockets of other families than UNIX, IP and netlink */
        DROP_ALONE,  /* these, and no process, no program, no socket, no ring */
};

/* From here on these system calls answer EPERM, in what is started, too.  Sets no_new_privs. */
int drop_calls(enum drop_calls which, struct err **e);

/* What is in memory does not get into a core file, nor into one of what is started.  own: nor can
 * another process of the same user look at it, which a plain user's tools must. */
void drop_dumps(bool own);
