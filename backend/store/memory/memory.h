/* A store that forgets: the interface of control/driver/store.h in memory, for unit tests. */
#pragma once

#include "control/driver/store.h"

/* NULL only without memory.  Give it back with ops->close(). */
struct store *store_memory_new(void);
