/* Many named documents in one text, to be replaced as a whole: for each "NAME LENGTH\n", so many
 * bytes, "\n". */
#pragma once

#include <stdbool.h>
#include "common/buf.h"

/* A view into the text. */
struct bundle_item {
        const char *name, *data;
        size_t name_len, len;
};

/* name: no blanks, no newlines, not empty. */
void bundle_add(struct buf *b, const char *name, const void *data, size_t n);
/* The item at *p, which goes on to the next.  false: there is none, or what follows is none. */
bool bundle_next(const char **p, const char *end, struct bundle_item *ret);
/* The item of that name. */
bool bundle_find(const char *text, size_t n, const char *name, struct bundle_item *ret);
