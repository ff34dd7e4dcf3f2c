/* Networks: what guests are plugged into on this host.  Drivers: backend/network/linux; null, which
 * only remembers, for tests.
 *
 * The driver is told the whole of what this host should have, and makes it so: what is missing is
 * made, what is not wanted any more goes, what is right stays untouched.  A driver for OVN would
 * write the same to its northbound database.
 *
 * Everything a driver makes carries a name of network_device() and the cloud's id; what others made
 * on the host is never changed.  IPv4 addresses are in host byte order; 0, and :: of IPv6: none. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/name.h"

enum { DEVICE_SIZE = 16, MAC_TEXT_SIZE = 18, ADDRESS_TEXT_SIZE = 16, ADDRESS6_TEXT_SIZE = 46 };

/* What is behind another address than the gateway's. */
struct net_route {
        uint32_t address;
        unsigned prefix;
        uint32_t via;
};

struct net_subnet {
        uint32_t address; /* of the network: its host bits are 0 */
        unsigned prefix;
        uint32_t gateway; /* ours, in it: router, and server of DHCP and DNS */
        bool dhcp;
        uint32_t dns[4]; /* servers that names we do not know are asked from */
        unsigned ndns;   /* 0: those of the host */
        const struct net_route *routes;
        unsigned nroutes;
        uint32_t server; /* in a physical network, whose gateway is not ours: our own address */
};

/* A /64.  Guests are told that nothing in it is on their link, so all goes by the gateway. */
enum net_mode6 { NET6_SLAAC, NET6_DHCP, NET6_NONE };
struct net_subnet6 {
        struct in6_addr address, gateway;
        enum net_mode6 mode;
};

/* Addresses beside its own that a port may speak from and is spoken to at. */
struct net_pair {
        uint32_t address;
        unsigned prefix;
        char mac[MAC_TEXT_SIZE];
};

struct net_port {
        char id[ID_TEXT_SIZE];
        char mac[MAC_TEXT_SIZE];
        uint32_t address;
        struct in6_addr address6;
        char name[NAME_SIZE];   /* the guest's, in DNS */
        bool live;              /* its guest runs or is about to: it needs a device on this host */
        const unsigned *groups; /* indices in net_network.groups */
        unsigned ngroups;
        /* What its guest's metadata service says (common/bundle.h; names: metadata/metadata.h);
         * NULL: there is none for it. */
        const char *documents;
        size_t ndocuments; /* bytes */
        const struct net_pair *pairs;
        unsigned npairs;
        bool open;                  /* neither its address is looked at nor any rule */
        uint64_t rate_in, rate_out; /* bytes a second to and from it, at most; 0: any */
        uint64_t floor;             /* of the network's way out at least so much is its; 0: none */
        uint32_t host; /* where its guest is: that host's address; 0: here or nowhere */
        bool coming;   /* it is on its way here, but still there: live, too */
};

/* One rule of a group: what it lets pass. */
struct net_rule {
        bool out;          /* from the guest; else to it */
        int proto;         /* -1: any */
        uint16_t from, to; /* ports; 0 0: any */
        uint32_t peer;     /* the other side's network */
        unsigned prefix;   /* 0: anybody */
        bool six;          /* peer6 with that prefix instead */
        struct in6_addr peer6;
        int group; /* or the ports of this group: an index; -1 none */
};
struct net_member {
        uint32_t address;
        struct in6_addr address6;
};
struct net_group {
        char id[ID_TEXT_SIZE];
        const struct net_member *others; /* its ports in other networks behind the same router */
        unsigned nothers;
        const struct net_rule *rules;
        unsigned nrules;
};

/* An address outside that is a port's: what comes for it goes to the port, whose rules let it in or
 * not; what the port sends out comes from it. */
struct net_float {
        uint32_t address, port;
};

/* A load balancer: it listens at the address of one of the network's ports, lets in what that
 * port's groups let in, and reaches its members as that port. */
struct net_backend {
        char name[NAME_SIZE];
        uint32_t address;
};
enum net_check { NET_CHECK_NONE, NET_CHECK_TCP, NET_CHECK_HTTP };
struct net_listener {
        char name[NAME_SIZE];
        bool http; /* else it passes on what comes */
        uint16_t port, member_port;
        char balance[16]; /* roundrobin, leastconn, source */
        enum net_check check;
        unsigned interval; /* seconds */
        char path[128];    /* that a check asks for; no blanks, nothing that quotes */
        const struct net_backend *members;
        unsigned nmembers;
};
struct net_balancer {
        char id[ID_TEXT_SIZE];
        char port[ID_TEXT_SIZE]; /* a port's id */
        uint32_t address;
        const struct net_listener *listeners;
        unsigned nlisteners;
};

/* An address that is behind a router of the plan. */
struct net_beyond {
        uint32_t address;
        unsigned router;
        bool here; /* of all hosts that the router is on this one is spoken to at it */
};

enum net_type { NET_LOCAL, NET_FLAT, NET_VLAN, NET_VXLAN, NET_GRE };
struct net_network {
        char id[ID_TEXT_SIZE];
        enum net_type type;
        unsigned segment;         /* VLAN: its tag; VXLAN: its number */
        char device[DEVICE_SIZE]; /* FLAT, VLAN: of the host; it stays as it is */
        unsigned mtu;
        uid_t uid;       /* of the processes that serve it, nobody else's */
        uint16_t uplink; /* number of its way out, its own in the cloud; 0: it has none */
        uint64_t rate; /* of the way out, bytes a second; 0: any.  Without it there are no floors */
        int router;    /* index of the router that knows the way on; -1: none */
        const struct net_subnet *subnets;
        unsigned nsubnets;
        const struct net_port *ports;
        unsigned nports;
        const struct net_group *groups;
        unsigned ngroups;
        const struct net_float *floats;
        unsigned nfloats;
        const struct net_balancer *balancers;
        unsigned nbalancers;
        const struct net_subnet6 *subnets6;
        unsigned nsubnets6;
        const struct net_beyond *beyond; /* it is the gateway of these */
        unsigned nbeyond;
};

/* What comes for a port of an address outside goes to one inside. */
struct net_forward {
        uint8_t proto;
        uint32_t address; /* outside */
        uint16_t port;
        uint32_t to;
        uint16_t to_port;
};

/* A router is on every host that one of its networks is on. */
struct net_router {
        char id[ID_TEXT_SIZE];
        const unsigned *legs; /* indices in net_plan.networks */
        unsigned nlegs;
        int gateway; /* the network that is its way out, an index; -1: none */
        uint32_t
                address; /* what goes out comes from it, or from a floating IP; 0: only from such */
        const struct net_route *routes;
        unsigned nroutes;
        const struct net_forward *forwards;
        unsigned nforwards;
};

struct net_plan {
        const struct net_network *networks;
        unsigned nnetworks;
        const struct net_router *routers;
        unsigned nrouters;
        uint32_t here; /* this host, as other hosts reach it */
};

/* What a port has done since its device was made. */
struct net_count {
        uint64_t in_bytes, in_packets, in_dropped, out_bytes, out_packets, out_dropped;
};

struct network_service;
struct network_ops {
        const char *name;
        /* Makes the host as the plan says.  Repeatable, cheap when all is so already; one caller at
         * a time.  What fails for one network leaves the others whole; the words are of the first.
         * -EPERM, -ENOTSUP (the kernel lacks it), -EIO. */
        int (*apply)(struct network_service *s, const struct net_plan *p, struct err **e);
        /* Optional: calls posted() with each password that a guest gave to its metadata service and
         * that is not collected yet; 1 from it: it is now. */
        void (*passwords)(struct network_service *s, const struct net_plan *p,
                          int (*posted)(void *arg, const struct net_port *port, const char *text),
                          void *arg);
        /* Optional: what a load balancer has done, or why it does not run, as text for people. */
        void (*balancer)(struct network_service *s, const struct net_network *n,
                         const struct net_balancer *b, struct buf *out);
        /* Bit n: the kernel has networks of enum net_type n.  Any thread, also during apply(). */
        unsigned (*types)(struct network_service *s);
        /* As of the last apply(), by whoever calls that; the id as in the plan.  false: no device.
         */
        bool (*count)(struct network_service *s, const char *port, struct net_count *ret);
        void (*close)(struct network_service *s); /* leaves everything as it is */
};
struct network_service {
        const struct network_ops *ops;
};

/* The name of a device of ours: "sn", what it is, and the id's first 12 digits. */
enum net_device {
        NET_TAP = 't',
        NET_BRIDGE = 'b',
        NET_LEG = 'v',
        NET_INNER = 'l',
        NET_UPLINK = 'u',
        NET_ROUTED = 'r',  /* between a network and its router; the network's id */
        NET_GATEWAY = 'g', /* between a router and the network that is its way out; its own id */
        NET_TUNNEL = 'x',
        NET_PHYSICAL = 'p'
};
char *network_device(char out[DEVICE_SIZE], enum net_device what, const char *id);
/* Text of an address; gives out. */
char *network_address(char out[ADDRESS_TEXT_SIZE], uint32_t address);
char *network_address6(char out[ADDRESS6_TEXT_SIZE], const struct in6_addr *address);
bool network_some6(const struct in6_addr *address); /* it is not :: */
/* The netmask of a prefix. */
uint32_t network_mask(unsigned prefix);
/* Whether a subnet of the network has the address. */
bool network_has(const struct net_network *w, uint32_t address);
/* The address that a device with that MAC makes for itself in a /64.  false: no MAC. */
bool network_eui64(struct in6_addr *ret, const struct in6_addr *net, const char *mac);
