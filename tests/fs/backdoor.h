/* Changes made inside the daemon, past the mount: for tests of what the mount's users see of them. */
#pragma once

#include "control/control.h"

/* Listens on a UNIX socket and serves each connection on a thread, until the process ends.  One line
 * a request, about the volumes of the tenant 'default', answered "0\n" or "ERRNO words\n":
 *     create NAME | delete NAME | rename NAME NAME | describe NAME TEXT | fill PREFIX COUNT |
 *     fill-in TENANT PREFIX COUNT
 * -errno with words. */
int backdoor_open(struct control *c, const char *path, struct err **e);
