/* What the files that make the plan share.  Model held. */
#pragma once

#include "control/network.h"

/* Whether the instance (or NULL) has its devices on this host. */
bool plan_plugged_here(struct control *c, const struct object *instance);
uint32_t plan_host_address(struct control *c, const char *host);
/* All of n but what routers are to it. */
void plan_network(struct control *c, struct net_network *n, const struct object *o);
/* The routes in o's `route_text`; the caller frees. */
struct net_route *plan_routes(const struct object *o, unsigned *n);
enum net_type plan_type(const struct object *network);
/* The device of this host that is in the physical network; "" if it has none. */
void plan_device(struct control *c, const struct object *network, char out[DEVICE_SIZE]);
