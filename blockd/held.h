/* Listening sockets that outlive us: systemd or stratofs-hold keeps a copy of each, so that clients
 * queue while we are away (sd_notify(3) FDSTORE=1, sd_listen_fds(3)).
 *
 * A socket is known by what it is for and by the inode of its name: "x.web.4711".  As long as the
 * socket lives its inode's number is given to nothing else, so a path with that number still leads
 * to it, and one with another does not.  Without a holder all of this does nothing.  One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { HELD_NAME_SIZE = 128 };

struct held {
        char **names;
        int *fds; /* -1: given away */
        int n;
};

/* Takes what was passed to the process; before any thread exists. */
int held_take(struct held *h);
/* The name of the socket at path that is there for `what`.  -errno; -ENOTSOCK. */
int held_name(char ret[HELD_NAME_SIZE], const char *what, const char *path);
/* The descriptor of that name, the caller's from now on; -1: not held, or it does not listen. */
int held_adopt(struct held *h, const char *name);
/* Closes what nobody wanted; drop: has it held no more. */
void held_done(struct held *h, bool drop);

/* Has fd held under the name, or no more. */
void held_keep(const char *name, int fd);
void held_drop(const char *name);
