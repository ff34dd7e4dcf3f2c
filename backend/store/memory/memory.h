/* A store that forgets: the interface of control/driver/store.h in memory, for unit tests. */
#pragma once

#include "control/driver/store.h"

/* NULL only without memory.  Give it back with ops->close(). */
struct store *store_memory_new(void);
/* One more handle on the same records, for another "host": its commits are told to the others, and
 * its epoch can be fenced.  NULL only without memory.  Each handle is closed by itself. */
struct store *store_memory_join(struct store *s);
