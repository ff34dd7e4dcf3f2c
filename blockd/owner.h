/* The user that blockd becomes once its sockets are open, and whose its files are.
 *
 * Started by root with --user, blockd gives the state folder and its parts of the run folder to
 * that user, once, and becomes it: without capabilities, behind a filter of system calls.  The run
 * folder itself stays root's: stratod, which is root, has files in it, too.
 *
 * Where that user could not reach the folders or read a key (a state folder in root's home, a
 * keyring of Ceph for root alone), blockd stays root in name and gives up the rest: it has what
 * root's files give, and no capability. */
#pragma once

#include <stdbool.h>
#include "common/err.h"

struct owner {
        const char *user; /* a name or number; NULL: who we are already */
        const char *state, *run;
        const char *program; /* a successor is started from it */
        const char *const *pools; /* DRIVER[:TARGET], NULL after the last */
        const char *tls_dir;      /* or NULL */
        int locks[2];             /* open files that are ours, too */
        bool succeeds;            /* a predecessor has done it for us */
};

/* Before any thread; see above.  Words on error, after which nothing may go on. */
int owner_become(const struct owner *o, struct err **e);

/* Root becomes the owner of that state folder, so that what it makes there is theirs. */
int owner_of(const char *state, struct err **e);
