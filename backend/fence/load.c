/* The module is mapped on first use. */
#include "backend/fence/fence.h"

#include "common/module.h"

int fence_ceph_open(const struct fence_ceph_config *cfg, struct host_fence **ret, struct err **e)
{
        fence_ceph_entry *entry;
        int r = module_load("backend/fence", FENCE_CEPH_MODULE, FENCE_CEPH_ENTRY, "librados",
                            &entry, e);

        return r < 0 ? r : entry(cfg, ret, e);
}
