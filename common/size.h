/* Sizes as people write them. */
#pragma once

#include <stdint.h>
#include "common/err.h"

/* "10G", "512", "1.5T"? no: an integer and one of K M G T P (1024), "max" where allowed.
 * n bytes of text, no surrounding space.  -EINVAL with a caret on anything else, -ERANGE never:
 * what does not fit 63 bits is -EINVAL too. */
int size_parse(const char *text, size_t n, uint64_t *ret, struct err **e);
/* For people: "10G", "1.5G", "512".  Returns out. */
enum { SIZE_TEXT_MAX = 32 };
char *size_human(char out[SIZE_TEXT_MAX], uint64_t bytes);
