/* JSON lines over a UNIX stream socket: the daemons' control sockets.
 *
 * One request a line, {"op": "...", ...}; one answer a line, {"ok": true, ...} or
 * {"ok": false, "errno": 17, "error": "words"}. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include "common/err.h"

/* As json_dumps(3), but whole or NULL (no memory): that one leaves out what it has no room for, and
 * says nothing (jansson 2.14: dump_string() of a key is not looked at).  The caller frees. */
char *json_text(const json_t *j, size_t flags);

enum { JSONL_MAX = 1 << 20 }; /* a line that is longer is refused and the connection closed */

/* Sends request (borrowed) to the socket at path and waits at most timeout_ms for the answer.
 * On {"ok": true} gives the answer to *ret (may be NULL) and returns 0.  On {"ok": false} returns
 * its -errno with its words.  -ECONNREFUSED when nobody listens, -ETIMEDOUT when the outcome is
 * unknown, -ECONNRESET or -EPIPE as well, as the other side went, -EPROTO when the answer is no
 * answer.  Blocks; any thread. */
int jsonl_call(const char *path, json_t *request, int timeout_ms, json_t **ret, struct err **e);
/* The same with a copy of the descriptor fd for the other side (-1: none), by SCM_RIGHTS with the
 * first byte: what we may read and it may not. */
int jsonl_call_with(const char *path, json_t *request, int fd, int timeout_ms, json_t **ret,
                    struct err **e);
