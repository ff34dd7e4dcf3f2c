/* The local driver's doors beside struct volume_driver. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include "common/err.h"

/* Checks the pool below state, which nobody may be using: one line a finding to out; with repair,
 * mends what can be mended without losing anything.  The number of findings that stay, or -errno.
 */
int local_check(const char *state, bool repair, FILE *out, struct err **e);
