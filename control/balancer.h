/* Load balancers: what their kinds, the plan of networks and the keeper share.
 *
 * One runs on one host: the keeper of its tenant (control/owner.c), in its network's namespace.
 * While it has a listener the network is on that host, whether guests are there or not. */
#pragma once

#include "control/driver/network.h"
#include "control/jobs/jobs.h"

#define HAPROXY "/usr/sbin/haproxy"

enum { BALANCERS_MAX = 20, LISTENERS_MAX = 16, MEMBERS_MAX = 64 };
enum { BALANCER_DRAFT, BALANCER_ACTIVE };
enum { LISTENER_DRAFT, LISTENER_ACTIVE };

/* kinds/load-balancer.c: that has the port, NULL if none. */
struct object *port_balancer(const struct object *port);

/* kinds/listener.c */

/* The port by which target, an instance or a port, is in the network of o, a listener.  NULL: it is
 * not. */
const struct object *listener_member(const struct object *o, const struct object *target);
void listener_drop(struct txn *t, struct object *o);

/* balancer.c.  Model held. */

/* The name of the host that o listens on; "": none. */
const char *balancer_host(struct control *c, const struct object *o);
/* Whether that is this one. */
bool balancer_here(struct control *c, const struct object *o);
/* Those of a network that listen on this host; the caller frees with balancers_free(). */
struct net_balancer *balancers_plan(struct control *c, const struct object *network, unsigned *ret);
void balancers_free(const struct net_balancer *v, unsigned n);
/* What o was last heard to have done, as text. */
void balancers_stats(struct control *c, const struct object *o, struct buf *out);

/* What the balancers of the plan say now, for balancers_stats().  Blocks; no model lock held. */
struct network_service;
struct balancer_stats;
void balancers_look(struct balancer_stats **s, struct network_service *n, const struct net_plan *p);
void balancer_stats_free(struct balancer_stats *s);
/* The text of the balancer of that id, NULL if there is none; the caller frees. */
char *balancer_stats_get(const struct balancer_stats *s, const char *id);
