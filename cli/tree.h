/* What the cloud says about itself, read from its mount: the `index` files, a line an object,
 * "name id state key=value ...". */
#pragma once

#include "cli/cli.h"

struct row {
        const char *name, *id, *state;
        const char *facts; /* the rest of the line */
};

/* Names of the tenants, NULL-terminated; free with tenants_free(). */
int tree_tenants(const struct cloud *c, char ***ret, struct err **e);
void tenants_free(char ***names);

/* Calls each(arg, row) for the objects of a collection ("instances") of a tenant, or of the cloud
 * ("flavors") when tenant is NULL.  A negative return ends it.  -ENOENT: no such collection. */
int tree_each(const struct cloud *c, const char *tenant, const char *collection,
              int (*each)(void *arg, const struct row *row), void *arg, struct err **e);

/* The value of key in a row's facts, copied into out; "" when it has none. */
const char *row_fact(const struct row *row, const char *key, char *out, size_t size);

/* Whether an instance in this state has a QEMU: all but the resting ones. */
bool state_has_guest(const char *state);

/* One write of text to a file of the tree. */
int tree_write(const char *path, const char *text, struct err **e);
/* A small file of the tree as one line, without its newline; NULL when it cannot be read. */
char *tree_line(const char *path);
