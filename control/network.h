/* What the kinds of networks, their jobs and the keeper share. */
#pragma once

#include "control/driver/network.h"
#include "control/jobs/jobs.h"

/* So many at most; what a tenant makes is bounded. */
enum {
        NETWORKS_MAX = 100,
        SUBNETS_MAX = 8,
        PORTS_MAX = 1024,
        GROUPS_MAX = 100,
        RULES_MAX = 1024,
        FLOATING_MAX = 50,
        ROUTERS_MAX = 50,
        LINES_MAX = 64,         /* routes of a router, forwards */
        SUBNET_ROUTES_MAX = 24, /* of 9 bytes each at most, in an option of 255 */
        NICS_MAX = 8,
        NET_UID_BASE = 900000000, /* of those who serve a network: below the guests' uids */
        PAIRS_MAX = 16,
        DNS_MAX = 4
};

/* address.c */

/* "10.0.0.5"; false: it is none. */
bool address_parse(const char *text, size_t n, uint32_t *ret);
/* "10.0.0.0/24", to the network's address.  -EINVAL with a caret, also when host bits are set. */
int cidr_parse(const char *text, size_t n, uint32_t *ret, unsigned *prefix, struct err **e);
bool address6_parse(const char *text, size_t n, struct in6_addr *ret);
/* "fd00::/64"; false: it is none, or host bits are set. */
bool cidr6_parse(const char *text, size_t n, struct in6_addr *ret, unsigned *prefix);
/* The next word of *p (between blanks and commas), its length; NULL at the end. */
const char *word_next(const char **p, size_t *n);

/* network-plan.c */

/* What this host should have, from the model; networks without a guest here are left out.  Takes
 * the read lock. */
struct net_plan *network_plan(struct control *c);
void network_plan_free(struct net_plan *p);
/* Whether the instance is to have its devices, on its host.  Model held. */
bool instance_plugged(const struct object *o);
/* The subnet of the port's network that its address is in.  NULL: none. */
struct object *port_subnet(struct control *c, const struct object *port);

/* network.c: the keeper, which makes the host as the model says, again and again. */
int networks_start(struct control *c, struct err **e);
void networks_stop(struct control *c);   /* after the jobs */
bool networks_ending(struct control *c); /* the daemon ends: what has no guest need not stay */
void networks_free(struct control *c);
/* Now, and what became of it.  Blocks; no lock held. */
int networks_apply(struct control *c, struct err **e);
/* gone: a guest of this host stands still, and goes on where it moves to: what is for its ports
 * goes there from here on, before the store says so.  Else: the store is right again.  Blocks; no
 * lock held. */
void networks_leave(struct control *c, uint64_t instance, bool gone);
/* Where what is for the instance's ports goes: a host's name, "" for this one.  Model held. */
const char *networks_where(struct control *c, const struct object *instance);
/* -ENOTSUP with words where this cloud has no networks. */
int networks_check(struct control *c, struct err **e);

/* -ENOTSUP with words where the kernel has no such networks, as far as known.  Model held. */
int networks_type(struct control *c, enum net_type type, const char *name, struct err **e);
/* What a port has done; all 0: nothing on this host.  From memory; model held or not. */
void networks_count(struct control *c, const struct object *port, struct net_count *ret);

/* network-show.c: `topology`, as text and for Graphviz. */
void network_render_topology(struct control *c, const struct object *o, struct buf *out);
void network_render_graph(struct control *c, const struct object *o, struct buf *out);

/* network-number.c */

/* The first number that is this host's to give and no network has; 0: none is at hand.  Model held.
 */
uint16_t network_number(struct control *c);
/* This host's record takes more of them if few are left. */
void network_numbers_take(struct txn *t, struct object *host);
void network_numbers_keep(struct control *c); /* the same, in a transaction of its own if need be */

/* kinds/network.c */

/* The router that it is behind, NULL if none. */
struct object *network_router(const struct object *network);

/* What a tenant begins with: a group and a network, both `default`. */
int network_seed(struct txn *t, struct object *tenant, struct err **e);
/* Whether the tenant holds nothing of networks but these, unused; drop: they go. */
bool network_only_seeds(struct control *c, const struct object *tenant, const struct kind *k);
void network_drop_seeds(struct txn *t, struct object *tenant);

/* kinds/router.c: a host's `physical` and `address`. */
int host_set_physical(struct txn *t, struct object *host, union value v, struct err **e);
int host_set_address(struct txn *t, struct object *host, union value v, struct err **e);

/* kinds/floating-ip.c: "FIRST-LAST ..." as a host's `floating` has it. */
int floating_set_pool(struct txn *t, struct object *host, union value v, struct err **e);

/* kinds/router.c */

/* Whether it leads on: its own way out. */
struct object *router_gateway(const struct object *router);
/* One line of `routes`: "10.9.0.0/16 via 10.0.0.9". */
int route_parse(const char *line, struct net_route *ret, struct err **e);
/* One line of `forwards`: "tcp 8080 to 10.0.0.5 80". */
int forward_parse(const char *line, struct net_forward *ret, struct err **e);
/* Adds one to o's attribute `route_text`, or takes it away; there already is no failure. */
int route_change(struct txn *t, struct object *o, const struct net_route *x, bool less,
                 struct err **e);

/* kinds/network.c: whether it is one outside: flat, vlan. */
bool network_physical(const struct object *network);
/* kinds/subnet.c: our own address in a physical network, which has its gateway outside: the last.
 */
uint32_t subnet_server(const struct object *subnet);
/* Whether o's cidr, text, overlaps none of what the router (NULL: none) leads to. */
int subnet_check_router(struct control *c, const struct object *o, const char *text,
                        const struct object *router, struct err **e);

/* kinds/port.c */

/* Its IPv6 subnet, of which there is one at most; NULL: none. */
struct object *network_subnet6(struct control *c, const struct object *network,
                               struct in6_addr *net);
/* Gives it the IPv6 address of its MAC, if its network has such a subnet. */
void port_derive6(struct txn *t, struct object *port);
/* "ADDRESS[/PREFIX][@MAC]" */
bool pair_parse(const char *word, size_t n, struct net_pair *ret);

/* An address of the network that nobody has; 0: there is none, *some whether it has subnets. */
uint32_t port_free_address(struct control *c, const struct object *network, bool *some);

/* A port with an address and a MAC of its own.  made_for: the instance's number, 0: by hand. */
/* tenant: whose it is, that of the instance. */
int port_create(struct txn *t, struct object *network, struct object *tenant, const char *name,
                uint64_t made_for, struct object **ret, struct err **e);
void port_drop(struct txn *t, struct object *port);
/* The instance that has it, NULL if none. */
struct object *port_instance(const struct object *port);

/* kinds/security-group.c */

struct rule {
        struct net_rule r;
        char group[NAME_SIZE]; /* r.group is to be its index; "": none */
};
int rule_parse(const char *line, struct rule *ret, struct err **e);

/* kinds/instance-networks.c */
int instance_bind_network(struct txn *t, struct object *o, char *name, struct object *target,
                          struct err **e);
int instance_bound_network(struct txn *t, struct object *o, struct link *l, struct err **e);
int instance_unbind_network(struct txn *t, struct object *o, struct link *l, struct err **e);
void instance_render_addresses(struct control *c, const struct object *o, struct buf *out);
/* The link goes, and its port if it was made for it. */
void instance_unlink_port(struct txn *t, struct object *o, struct link *l);
