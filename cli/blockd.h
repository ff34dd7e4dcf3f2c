/* blockd's control socket, as far as doctor needs it. */
#pragma once

#include "cli/cli.h"

/* A volume of that size, by its id; there with the same size is success. */
int blockd_create(const struct cloud *c, const char *id, uint64_t size, struct err **e);
int blockd_remove(const struct cloud *c, const char *id, struct err **e);
/* Calls each(arg, id, parent) for every volume. */
int blockd_list(const struct cloud *c, int (*each)(void *arg, const char *id, const char *parent),
                void *arg, struct err **e);
/* The NBD socket that serves any volume to its own user.  Caller frees; NULL without memory. */
char *blockd_shared_socket(const struct cloud *c);
