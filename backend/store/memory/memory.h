/* A store that forgets: the interface of control/driver/store.h in memory, for unit tests. */
#pragma once

#include "control/driver/store.h"

/* NULL only without memory.  Give it back with ops->close(). */
struct store *store_memory_new(void);
/* The same, for several hosts: with watch, numbers and fences. */
struct store *store_memory_new_shared(void);
/* One more handle on the records of such a store, for another host.  One that is not loaded is told
 * everything when it watches.  NULL only without memory.  Each handle is closed by itself. */
struct store *store_memory_join(struct store *s);
