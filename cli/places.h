/* Where a cloud lives on this host, and where its programs are. */
#pragma once

#include "cli/cli.h"

/* Fills what the command line left open: root has /cloud, /var/lib/stratofs and /run/stratofs; a
 * plain user ~/cloud, ~/.local/state/stratofs and $XDG_RUNTIME_DIR/stratofs.  A state folder of
 * one's own has its run folder inside.  A mount point given at an earlier `up` is remembered. */
int places_fill(struct cloud *c, struct err **e);

/* Makes the folders: state and run may be entered by all when root's (guests run as another user
 * and open their sockets below), what is inside is closed. */
int places_make(const struct cloud *c, struct err **e);

/* The mount point that was written down; NULL when none was.  Caller frees. */
char *places_recall(const struct cloud *c);
/* Writes down the mount point for the next call without --mount. */
int places_remember(const struct cloud *c, struct err **e);

/* The path of one of our programs ("blockd", "stratod", "stratofs-probe"): beside this one in the
 * build folder, below libexec when installed, in $STRATOFS_PROGRAMS when set.  Caller frees.
 * -ENOENT says where it was looked for. */
int program_path(const char *name, char **ret, struct err **e);
