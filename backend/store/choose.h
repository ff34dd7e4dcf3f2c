/* Which store a cloud is in: what its configuration file says. */
#pragma once

#include "backend/store/rados/rados.h"

/* Lines "key = value"; what begins with '#' is a remark.
 *
 *   store = sqlite | rados:POOL[/NAMESPACE]     sqlite unless told
 *   ceph_conf = FILE    ceph_user = client.NAME    ceph_timeout = SECONDS
 *   volumes = local | rbd:POOL[/NAMESPACE]      where volumes' bytes are; blockd is told by its
 *                       starter
 *   cloud_key = FILE    what wraps the tenants' keys in the store
 *   host = NAME         this host's name; its network name unless told
 *   lease = SECONDS     without a sign of life for so long, the others take a host over: 10 */
struct store_choice {
        char *text; /* the whole file */
        bool many;  /* rados: hosts share it */
        struct store_rados_config rados;
        char *host;       /* NULL: not said */
        char *cloud_key;  /* NULL: not said */
        unsigned lease;   /* seconds; 0: not said */
        char volumes[16]; /* the driver of volumes: local, rbd */
};

/* Reads the file; a missing one is an empty one if may_miss.  -EINVAL with file, line and a caret.
 */
int store_choice_read(const char *path, bool may_miss, struct store_choice *ret, struct err **e);
void store_choice_done(struct store_choice *c);
/* Opens it; sqlite: the database at path.  host: for people. */
int store_choice_open(const struct store_choice *c, const char *path, const char *host,
                      struct store **ret, struct err **e);
