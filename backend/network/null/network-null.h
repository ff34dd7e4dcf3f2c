/* Networks that are only remembered, for tests. */
#pragma once

#include "control/driver/network.h"

struct network_service *network_null_new(void);
/* The last plan, a line a thing; the caller frees.  Any thread. */
char *network_null_plan(struct network_service *s);
