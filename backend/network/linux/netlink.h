/* rtnetlink: links, addresses and routes of the calling thread's network namespace. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "control/driver/network.h"

struct nl; /* one socket, of the namespace it was opened in */
struct nl *nl_open(struct err **e);
void nl_close(struct nl *n);
DEFINE_CLEANUP(struct nl *, nl_close)
#define _cleanup_nl_ _cleanup_(nl_closep)

struct nl_link {
        unsigned index, master, mtu;
        bool up, isolated;
        char name[DEVICE_SIZE], kind[16], alias[96], mac[MAC_TEXT_SIZE], qdisc[16];
        struct net_count count; /* of a tap: its guest's */
};
/* Every link; each's non-zero answer ends the walk and is given. */
int nl_links(struct nl *n, int (*each)(void *arg, const struct nl_link *l), void *arg,
             struct err **e);
/* 1 found, 0 there is none. */
int nl_link(struct nl *n, const char *name, struct nl_link *ret, struct err **e);
int nl_add_bridge(struct nl *n, const char *name, const char *alias, struct err **e);
/* peer is made in the namespace of that descriptor. */
int nl_add_veth(struct nl *n, const char *name, const char *alias, const char *peer, int peer_ns,
                struct err **e);
/* Down first if mac is changed; up at the end.  master, mtu 0: as it is; mac NULL likewise. */
int nl_set(struct nl *n, unsigned index, unsigned master, unsigned mtu, const char *mac,
           const char *alias, struct err **e);
/* A port of a bridge that may talk to those that are not isolated only. */
int nl_isolate(struct nl *n, unsigned index, struct err **e);
int nl_del(struct nl *n, unsigned index, struct err **e); /* gone is success */
/* peer_ns: where it is made; its outer packets belong to this socket's namespace.  -ENOTSUP. */
enum { NL_VXLAN_PORT = 14789 }; /* not the usual one, which others may use on the host */
struct nl_vxlan {
        unsigned segment;
        uint32_t local;
        const char *mac;
};
int nl_add_vxlan(struct nl *n, const char *name, int ns, const struct nl_vxlan *x, struct err **e);
int nl_add_macvlan(struct nl *n, const char *name, int ns, unsigned lower, struct err **e);
int nl_add_vlan(struct nl *n, const char *name, unsigned lower, unsigned tag, struct err **e);

/* --- netlink-route.c ------------------------------------------------------------------------- */

struct nl_ip {
        uint8_t family; /* AF_INET, AF_INET6; 0: none */
        uint8_t b[16];
};
struct nl_ip nl_ip4(uint32_t a);
struct nl_ip nl_ip6(const struct in6_addr *a);
/* What a namespace of ours has; lists that grow.  Freed by nl_list_free(). */
struct nl_item {
        unsigned index;
        struct nl_ip ip; /* the address; the route's destination; the neighbour */
        unsigned prefix;
        bool bare;              /* an address without a route to its prefix */
        bool answers;           /* IPv6: an address that nothing is sent from of our own accord */
        struct nl_ip via;       /* routes: no family: directly.  FDB: where that MAC is */
        uint8_t mac[6];         /* neighbours, FDB */
        uint32_t table;         /* routes, rules; 0: the main one */
        uint32_t mark;          /* rules: of packets that carry it, 0: any */
        char from[DEVICE_SIZE]; /* rules: of packets that come by it, "": any */
};
struct nl_list {
        struct nl_item *v;
        unsigned n;
        bool failed; /* no memory */
};
void nl_list_add(struct nl_list *l, const struct nl_item *i);
void nl_list_free(struct nl_list *l);
#define _cleanup_list_ _cleanup_(nl_list_free)
/* Addresses of a link, of both families: exactly these; link-local ones of IPv6 that nobody names
 * stay. */
int nl_addresses(struct nl *n, unsigned index, const struct nl_list *l, struct err **e);
/* Adds the addresses of all links. */
int nl_all_addresses(struct nl *n, struct nl_list *out, struct err **e);
/* The link answers ARP for that address of others, or does not any more. */
int nl_proxy(struct nl *n, bool on, unsigned index, uint32_t address, struct err **e);
/* Static routes: exactly these; index 0: on any link and in any table, else on that, in the main
 * one. */
int nl_routes(struct nl *n, unsigned index, const struct nl_list *l, struct err **e);
/* Rules which table is asked, before the main one: exactly these; ip: the family only.  The
 * namespace is ours. */
int nl_rules(struct nl *n, const struct nl_list *l, struct err **e);
/* Permanent neighbours of a link: exactly these. */
int nl_neighbours(struct nl *n, unsigned index, const struct nl_list *l, struct err **e);
/* A VXLAN's forwarding entries: exactly these. */
int nl_fdb(struct nl *n, unsigned index, const struct nl_list *l, struct err **e);

/* A persistent tap that the engine may open. */
int tap_add(const char *name, struct err **e);
