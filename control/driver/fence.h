/* Fencing: keeping a host that was declared dead from writing to volumes that others can open, before
 * they take over from it.  Its commits are the store's to refuse (store_ops.fence). */
#pragma once

#include <stdint.h>
#include "common/err.h"

struct host_fence;
struct host_fence_ops {
        const char *name;
        /* What others must know to fence this host, as one line of text that goes into its record:
         * the addresses of its Ceph clients.  Asked when the host takes its lease, and with each
         * renewal; "" if there is nothing.  The caller frees.  May block shortly. */
        int (*clients)(struct host_fence *f, char **ret, struct err **e);
        /* Returns 0 when no write of that host to a volume can land any more; epoch is the life that
         * ends.  Breaks its locks.  Repeatable; blocks for seconds.  On failure nobody takes over yet, and it is asked again. */
        int (*fence)(struct host_fence *f, const char *host, uint64_t epoch, const char *clients,
                     struct err **e);
        void (*close)(struct host_fence *f);
};
struct host_fence {
        const struct host_fence_ops *ops;
};
