/* Guests' networks from what Linux has: see linux.h. */
#pragma once

#include "control/driver/network.h"

/* run: the cloud's run folder; cloud: its id, the mark of what is ours.  The caller may change this
 * host's network (CAP_NET_ADMIN, CAP_SYS_ADMIN).  NULL: no memory. */
struct network_service *network_linux_new(const char *run, const char *cloud);
/* From the next apply on program, stratofs-metadata, serves the ports' documents.  NULL: nobody. */
void network_linux_metadata(struct network_service *s, const char *program);
/* With fault points before and behind each operation, for a process that is armed; it takes `to`
 * over.  Without memory: `to` itself. */
struct network_service *network_faulty(struct network_service *to);
