/* Fencing hosts in a Ceph cluster: what of a dead one still writes is put on the cluster's blocklist.
 *
 * blockd writes the address of each of its connections into a file of <state>/ceph; these, read anew
 * with each renewal of the host's lease and before a guest starts, are what the others need.  A connection
 * that was made after the last renewal of a host that died is not in its record: blockd opens none
 * unless it starts.  Then the locks of its images stand in the way of others for half a minute. */
#pragma once

#include "control/driver/fence.h"

#define FENCE_CEPH_MODULE "stratofs-fence-ceph.so"
#define FENCE_CEPH_ENTRY "fence_ceph_module_open"

struct fence_ceph_config {
        const char *conf;  /* Ceph's configuration file; NULL: where Ceph looks for it */
        const char *user;  /* NULL: client.admin */
        unsigned timeout;  /* seconds that the cluster may take over one command; 0: 10 */
        const char *state; /* this host's state folder */
};

/* Loads the module; connects when there is something to fence.  cfg is copied.  Give it back with
 * (*ret)->ops->close().  -ENOTSUP: no module, or no Ceph on this machine. */
int fence_ceph_open(const struct fence_ceph_config *cfg, struct host_fence **ret, struct err **e);

/* What the module exports under FENCE_CEPH_ENTRY. */
typedef int fence_ceph_entry(const struct fence_ceph_config *cfg, struct host_fence **ret,
                             struct err **e);
