/* The driver's insides: Linux bridges, a network namespace each, nftables, dnsmasq.
 *
 * In the host's namespace a network is a bridge.  Guests' taps are isolated ports of it: they reach
 * one port only, a veth whose other end, in the network's own namespace, is gateway, router and
 * server of DHCP and DNS.  It answers ARP for every guest, so that what goes from guest to guest is
 * routed, too, and meets the stateful filter there; that needs neither br_netfilter nor connection
 * tracking of bridges, and whatever the host's own filter does to bridged or routed packets
 * does not matter.  At the bridge's door (bridge family, prerouting) a guest can speak only as
 * itself.
 *
 *     guest - snt tap - snb bridge - snv veth | snl in the namespace, snu | snu veth - host
 *
 * Namespaces are files in <run>/net/<id>/ns. */
#pragma once

#include "common/buf.h"
#include "control/driver/network.h"

enum { TABLE_SIZE = 20, METADATA_ADDRESS = 0xa9fea9fe };

struct linux_net {
        struct network_service base;
        char *dir;   /* <run>/net */
        char *alias; /* of our devices */
        char table[TABLE_SIZE];
        char *ruleset;       /* of the host, as applied; NULL: unknown */
        uint32_t generation; /* of the host's nftables after that */
        struct inner *inner; /* the same of namespaces */
        bool forwarding;     /* of the host was looked at */
        char *metadata;      /* stratofs-metadata; NULL: not served */
};

/* netns.c: the calling thread's network namespace. */
int netns_open(const char *path, struct err **e); /* a descriptor; made when it is not there */
int netns_enter(int fd, int *ret_home, struct err **e);
void netns_leave(int home); /* closes it */
void netns_remove(const char *path);
/* Writes a setting below /proc/sys/net of the thread's namespace; "%s" of name is the device. */
int netns_set(const char *name, const char *device, const char *value, struct err **e);

/* nft.c */
int nft_apply(const char *ruleset, uint32_t *ret_generation, struct err **e);
int nft_generation(uint32_t *ret, struct err **e);

/* ruleset.c */
void ruleset_host(const char *table, const struct net_plan *p, struct buf *out);
void ruleset_empty(const char *table, struct buf *out);
void ruleset_network(const char *table, const struct net_network *n, struct buf *out);

/* server.c: a process that serves a network, with files in dir; its pid is in <dir>/<name>.pid. */
struct server {
        const char *name, *program;
};
/* Replaces the file unless it holds just that; 1 when it did not.  It need not survive a crash.
 * gid: who may read it, 0: everybody. */
int server_put(const char *dir, const char *name, const struct buf *text, gid_t gid, struct err **e);
/* Its pid if it runs in that namespace (-1: any); else 0. */
pid_t server_pid(const struct server *s, const char *dir, int ns);
void server_end(const struct server *s, const char *dir);

/* metadata.c: program serves the documents of n's ports (the thread is in the namespace). */
int metadata_serve(const char *program, const char *dir, const struct net_network *n, int ns,
                   struct err **e);
void metadata_passwords(const char *dir, const struct net_network *n,
                        int (*posted)(void *arg, const struct net_port *port, const char *text),
                        void *arg);
void metadata_end(const char *dir);

/* balancer.c: the network's load balancers (the thread is in the namespace); end: those that n has
 * not, NULL: all. */
int balancers_serve(const char *dir, const struct net_network *n, int ns, struct err **e);
void balancers_end(const char *dir, const struct net_network *n);
/* What it has done, a line for each listener and member. */
int balancer_text(const char *dir, const struct net_balancer *b, struct buf *out);

/* dhcp.c: dnsmasq of a network, in its namespace (the thread is in it).  dir: its own folder. */
int dhcp_serve(const char *dir, const struct net_network *n, int ns, struct err **e);
void dhcp_end(const char *dir);

/* sweep.c: devices and namespaces of ours that the plan has not, and their dnsmasqs. */
struct nl;
int sweep_links(struct linux_net *s, struct nl *n, const struct net_plan *p, struct err **e);
void sweep_namespaces(struct linux_net *s, const struct net_plan *p);
