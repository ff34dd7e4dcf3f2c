/* A very small NBD client: enough to know whether a server serves. */
#pragma once

#include "common/err.h"

/* Connects to the UNIX socket, negotiates (fixed newstyle, NBD_OPT_GO) the export, writes 4 KiB at
 * its start, flushes, reads them back and compares.  -EPROTO when the server does not speak NBD as
 * it should, -EIO when the bytes differ.  Gives up after some seconds. */
int nbd_try(const char *socket, const char *export, struct err **e);
