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
        RULES_MAX = 1024, FLOATING_MAX = 50,
        NICS_MAX = 8,
        NET_UID_BASE = 900000000, /* of those who serve a network: below the guests' uids */
        DNS_MAX = 4
};

/* address.c */

/* "10.0.0.5"; false: it is none. */
bool address_parse(const char *text, size_t n, uint32_t *ret);
/* "10.0.0.0/24", to the network's address.  -EINVAL with a caret, also when host bits are set. */
int cidr_parse(const char *text, size_t n, uint32_t *ret, unsigned *prefix, struct err **e);
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
void networks_stop(struct control *c); /* after the jobs */
void networks_free(struct control *c);
/* Now, and what became of it.  Blocks; no lock held. */
int networks_apply(struct control *c, struct err **e);
/* -ENOTSUP with words where this cloud has no networks. */
int networks_check(struct control *c, struct err **e);

/* kinds/network.c */

/* What a tenant begins with: a group and a network, both `default`. */
int network_seed(struct txn *t, struct object *tenant, struct err **e);
/* Whether the tenant holds nothing of networks but these, unused; drop: they go. */
bool network_only_seeds(struct control *c, const struct object *tenant, const struct kind *k);
void network_drop_seeds(struct txn *t, struct object *tenant);

/* kinds/floating-ip.c: "FIRST-LAST ..." as a host's `floating` has it. */
int floating_set_pool(struct txn *t, struct object *host, union value v, struct err **e);

/* kinds/port.c */

/* A port with an address and a MAC of its own.  made_for: the instance's number, 0: by hand. */
int port_create(struct txn *t, struct object *network, const char *name, uint64_t made_for,
                struct object **ret, struct err **e);
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
