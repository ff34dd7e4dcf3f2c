/* One request on the control socket, between control.c and control-pools.c. */
#pragma once

#include <jansson.h>
#include "blockd/server.h"

struct call {
        struct server *server;
        json_t *request;
        json_t *answer;
        int given; /* a descriptor that came with it, still the connection's; -1: none */
};

/* json_unpack of the request, with words. */
int call_args(struct call *c, struct err **e, const char *fmt, ...);
/* -EINVAL: negative. */
int call_size(json_int_t v, uint64_t *ret, struct err **e);
/* With `change`, so that nobody exports it meanwhile: -EBUSY if somebody has. */
int call_not_exported(struct server *s, const char *what, const char *id, struct err **e);

/* control-pools.c: see doc/blockd.8.rst. */
int op_place(struct call *c, struct err **e);
int op_move(struct call *c, struct err **e);
int op_adopt(struct call *c, struct err **e);
int op_release(struct call *c, struct err **e);
int op_grant(struct call *c, struct err **e);
