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
 * What else leads out of a network's namespace: snr to its router's namespace; sng to each router
 * that has it as gateway; snx, a VXLAN whose outer packets are the host's, to the guests of other
 * hosts, each of which is a route; snp, a macvlan, to a physical network.
 *
 * Namespaces are files in <run>/net/<id>/ns, of networks and routers. */
#pragma once

#include <sys/types.h>
#include "common/buf.h"
#include "control/driver/network.h"

struct nl;
struct nl_link;
struct nl_list;

enum { TABLE_SIZE = 20 };
enum {
        HOST_END = 0xa9fe0001,    /* 169.254.0.1: the host's end of every uplink */
        ROUTER_END = 0xa9fe0002,  /* a router's end of each leg */
        NETWORK_END = 0xa9fe0003, /* and the network's */
        UPLINK_NET = 0xa9fe0000,  /* with its number: a network's end of its uplink */
        METADATA_ADDRESS = 0xa9fea9fe
};

enum { ARRIVALS = 100 }; /* table of routes to guests that are on their way here */

/* A namespace's rules: our ways to them, and what was applied last.  All 0 at first. */
struct nft {
        struct nft_ctx *ctx;
        struct mnl_socket *socket;
        unsigned seq;
        char *ruleset;       /* as applied; NULL: unknown */
        uint32_t generation; /* of nftables there after that */
};

/* Addresses outside that we answer for, each at a device. */
struct answer {
        unsigned index;
        uint32_t address;
};
struct answers {
        struct answer *v;
        unsigned n;
};

/* What is known of a namespace: what was applied last. */
struct inner {
        struct inner *next;
        char id[ID_TEXT_SIZE];
        ino_t ns;
        struct nft rules;
        char *rates;   /* of its way out */
        char *failure; /* of its load balancers, that was logged */
        struct answers told;
        bool wanted;
};

/* What is known of a tap. */
struct known_tap {
        char name[DEVICE_SIZE];
        uint64_t rate; /* that was set; 0: none or unknown */
        struct net_count count;
        bool seen;
};

struct linux_net {
        struct network_service base;
        char *dir;   /* <run>/net */
        char *alias; /* of our devices */
        char table[TABLE_SIZE];
        struct nft rules;    /* of the host */
        struct inner *inner; /* the same of namespaces */
        bool forwarding;     /* of the host was looked at */
        char *metadata;      /* stratofs-metadata; NULL: not served */
        struct known_tap *taps;
        size_t ntaps;
        struct answers answers; /* of the host */
        bool recalled;          /* those of a daemon before this one, too */
};

/* A namespace of the plan while it is worked on. */
struct place {
        int ns;
        struct nl *in;
        char *dir;
        struct inner *known;
        bool failed;
};

/* linux.c */
struct inner *inner_get(struct linux_net *s, const char *id);
struct known_tap *tap_get(struct linux_net *s, const char *name);

/* device.c */
/* No IPv6 of its own. */
int device_quiet(const char *device, struct err **e);
/* A link of that name and kind: 1; one of another kind in its place goes. */
int device_ensure(struct nl *n, const char *name, const char *kind, struct nl_link *l,
                  struct err **e);
int device_settle(struct linux_net *s, struct nl *n, const struct nl_link *l, unsigned master,
                  unsigned mtu, struct err **e);
/* A veth with one end here, called name, and one in the namespace, called inside. */
int device_leg(struct linux_net *s, struct nl *n, struct nl *in, int ns, const char *name,
               const char *inside, struct nl_link *here, struct nl_link *there, struct err **e);
/* Settings of a device through which packets go; six: it has IPv6.  The thread is in its namespace.
 */
int device_routes(const char *device, bool six, struct err **e);

/* network.c: a network's namespace, in this order. */
int network_devices(struct linux_net *s, struct nl *n, const struct net_plan *p,
                    const struct net_network *w, struct place *at, struct err **e);
int network_inside(struct linux_net *s, const struct net_plan *p, const struct net_network *w,
                   struct place *at, struct err **e);
int network_taps(struct linux_net *s, struct nl *n, const struct net_network *w, struct err **e);

/* router.c: a router's namespace and its legs; places: of the networks. */
int router_apply(struct linux_net *s, const struct net_plan *p, unsigned router,
                 const struct place *places, struct place *at, struct err **e);

/* tunnel.c: ways to other hosts and to physical networks. */
int tunnel_device(struct linux_net *s, struct nl *n, const struct net_plan *p,
                  const struct net_network *w, struct place *at, struct err **e);
int tunnel_inside(const struct net_plan *p, const struct net_network *w, struct place *at,
                  unsigned guests, struct nl_list *routes, struct err **e);
/* The MAC of the end of a tunnel on that host. */
void tunnel_mac(uint8_t out[6], uint32_t host);
/* The other hosts that its tunnel leads to; the caller frees v. */
struct tunnel_hosts {
        uint32_t *v;
        unsigned n;
};
void tunnel_hosts(const struct net_plan *p, const struct net_network *w, struct tunnel_hosts *ret);
/* Which tables are asked for what comes by the tunnel, that the network has. */
void tunnel_rules(const struct net_plan *p, const struct net_network *w, struct nl_list *out);
int physical_device(struct linux_net *s, struct nl *n, const struct net_network *w,
                    struct place *at, struct err **e);
bool network_tunnels(const struct net_plan *p, const struct net_network *w);
/* Bit n: the kernel has enum net_type n. */
unsigned tunnel_types(void);

/* announce.c */
/* The host answers for addresses outside that are here, and for no others of ours. */
int announce_host(struct linux_net *s, struct nl *n, const struct net_plan *p, struct err **e);
/* Tells a physical network what has come here (the thread is in the namespace). */
void announce_inside(const struct net_network *w, struct place *at);
void answers_free(struct answers *v);

/* rates.c */
/* At most so many bytes a second out of the link; 0: any. */
int rate_limit(struct nl *n, const struct nl_link *l, uint64_t rate, struct err **e);
/* The floors of ports on the network's way out; the classes are port_class(). */
int rate_floors(struct nl *n, const struct nl_link *l, const struct net_network *w, char **last,
                struct err **e);
/* The class of a port with a floor, 0: none. */
unsigned port_class(const struct net_network *w, unsigned port);

/* netns.c: the calling thread's network namespace. */
int netns_open(const char *path, struct err **e); /* a descriptor; made when it is not there */
int netns_enter(int fd, int *ret_home, struct err **e);
void netns_leave(int home); /* closes it */
void netns_remove(const char *path);
/* Writes a setting below /proc/sys/net of the thread's namespace; "%" of name is the device. */
int netns_set(const char *name, const char *device, const char *value, struct err **e);

/* nft.c */
/* In the thread's namespace, always the same of n; unless it is what was applied last and nobody
 * has changed any rule since.  Takes the text. */
int nft_apply(struct nft *n, struct buf *text, struct err **e);
void nft_done(struct nft *n);

/* ruleset-host.c, ruleset.c, ruleset-router.c */
void ruleset_host(const char *table, const struct net_plan *p, struct buf *out);
void ruleset_empty(const char *table, struct buf *out);
void ruleset_network(const char *table, const struct net_plan *p, const struct net_network *n,
                     struct buf *out);
void ruleset_router(const char *table, const struct net_plan *p, const struct net_router *r,
                    struct buf *out);
/* The digits of a device's name. */
const char *ruleset_tail(char out[DEVICE_SIZE], const char *id);

/* server.c: a process that serves a network, with files in dir; its pid is in <dir>/<name>.pid. */
struct server {
        const char *name, *program;
};
/* Replaces the file unless it holds just that; 1 when it did not.  It need not survive a crash.
 * gid: who may read it, 0: everybody. */
int server_put(const char *dir, const char *name, const struct buf *text, gid_t gid,
               struct err **e);
/* Its pid if it runs in that namespace (-1: any); else 0. */
pid_t server_pid(const struct server *s, const char *dir, int ns);
void server_end(const struct server *s, const char *dir);

/* services.c: metadata and load balancers (the thread is in the namespace). */
int services_inside(struct linux_net *s, const struct net_network *w, struct place *at,
                    struct err **e);

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
int sweep_links(struct linux_net *s, struct nl *n, const struct net_plan *p, struct err **e);
/* In the namespace of the plan's network: ways out that it has no more. */
int sweep_inside(struct nl *in, const struct net_plan *p, const struct net_network *w,
                 struct err **e);
/* In that of a router. */
int sweep_router(struct nl *in, const struct net_plan *p, const struct net_router *r,
                 struct err **e);
void sweep_namespaces(struct linux_net *s, const struct net_plan *p);
