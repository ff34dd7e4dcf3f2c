/* Between keys.c and keys-cloud.c: a tenant's key, where the cloud has several hosts.  All block. */
#pragma once

#include "control/internal.h"

enum { TENANT_KEY = 32 }; /* bytes */

/* The one in the tenant's record.  -ENOENT: there is none; -ENOKEY: this host has not the cloud's key;
 * -EKEYREJECTED: or another one. */
int keys_cloud_get(struct control *c, const char *tenant, uint8_t ret[TENANT_KEY], struct err **e);
/* Puts key there; or, if another host was quicker, gives what that one has put. */
int keys_cloud_put(struct control *c, const char *tenant, uint8_t key[TENANT_KEY], struct err **e);
/* A new one. */
int keys_cloud_make(struct control *c, const char *tenant, uint8_t ret[TENANT_KEY], struct err **e);
