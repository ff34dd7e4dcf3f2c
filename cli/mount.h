/* The mount point, whatever it is in. */
#pragma once

#include <stdbool.h>
#include "common/err.h"

enum mount_state {
        MOUNT_NONE,    /* nothing is mounted, or there is no such folder */
        MOUNT_OK,      /* a cloud answers */
        MOUNT_STALE,   /* its server is gone: Transport endpoint is not connected */
        MOUNT_HUNG,    /* no answer within the time */
        MOUNT_FOREIGN, /* another file system */
        NMOUNT_STATES,
};

/* What is at path.  Asked by a child, so that a hung mount does not hang us. */
enum mount_state mount_probe(const char *path, int timeout_ms);
const char *mount_word(enum mount_state s); /* "mounted" */

/* Unmounts.  -EBUSY with the names of those who hold it, unless lazy. */
int mount_detach(const char *path, bool lazy, struct err **e);

/* Makes the folder a mount needs: it exists, is empty and nothing is mounted on it.  A stale mount
 * is taken away. */
int mount_prepare(const char *path, struct err **e);
