/* The store of many hosts: one RADOS object a scope, in one pool of a Ceph cluster.
 *
 * The driver is a module, loaded on first use: a machine without Ceph has no use for it.  Every
 * host opens the same store; doc/rados-store.md says what is in the pool and why it is safe. */
#pragma once

#include "control/driver/store.h"

#define STORE_RADOS_MODULE "stratofs-store-rados.so"
#define STORE_RADOS_ENTRY "store_rados_module_open"

struct store_rados_config {
        char *conf;       /* Ceph's configuration file; NULL: where Ceph looks for it */
        char *user;       /* "client.name"; NULL: client.admin */
        char *pool;       /* must be there; replicated, as erasure-coded ones have no omap */
        char *space;      /* RADOS namespace; NULL: "stratofs" */
        char *host;       /* this host's name, for people */
        unsigned timeout; /* seconds that the cluster may take over one operation; 0: 10 */
};

/* Loads the module, connects, checks the format (makes it in an empty namespace) and starts the
 * threads.  cfg is copied.  Give it back with (*ret)->ops->close().
 *
 * -ETIMEDOUT the cluster does not answer
 * -ENOENT    no such pool or configuration file
 * -ENOTSUP   a newer release wrote it; or no module, no Ceph on this machine
 * -errno     otherwise (key refused...) */
int store_rados_open(const struct store_rados_config *cfg, struct store **ret, struct err **e);

/* "rados:POOL" or "rados:POOL/NAMESPACE" into cfg's pool and space (the caller frees them). -EINVAL
 * with words. */
int store_rados_parse(const char *text, struct store_rados_config *cfg, struct err **e);

/* What the module exports under STORE_RADOS_ENTRY: store_rados_open() without the loading. */
typedef int store_rados_entry(const struct store_rados_config *cfg, struct store **ret,
                              struct err **e);
