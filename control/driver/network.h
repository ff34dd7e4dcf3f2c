/* Networks: what guests are plugged into on this host.  Driver: backend/network/linux.
 *
 * The driver is told the whole of what this host should have, and makes it so: what is missing is
 * made, what is not wanted any more goes, what is right stays untouched.  A driver for OVN would
 * write the same to its northbound database.
 *
 * Everything a driver makes carries a name of network_device() and the cloud's id; what others made
 * on the host is never changed.  All addresses are IPv4, in host byte order. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/name.h"

enum { DEVICE_SIZE = 16, MAC_TEXT_SIZE = 18, ADDRESS_TEXT_SIZE = 16 };

struct net_subnet {
        uint32_t address; /* of the network: its host bits are 0 */
        unsigned prefix;
        uint32_t gateway; /* ours, in it: router, and server of DHCP and DNS */
        bool dhcp;
        uint32_t dns[4]; /* servers that names we do not know are asked from */
        unsigned ndns;   /* 0: those of the host */
};

struct net_port {
        char id[ID_TEXT_SIZE];
        char mac[MAC_TEXT_SIZE];
        uint32_t address;
        char name[NAME_SIZE];   /* the guest's, in DNS */
        bool live;              /* its guest runs or is about to: it needs a device on this host */
        const unsigned *groups; /* indices in net_network.groups */
        unsigned ngroups;
        /* What its guest's metadata service says (common/bundle.h; names: metadata/metadata.h);
         * NULL: there is none for it. */
        const char *documents;
        size_t ndocuments; /* bytes */
};

/* One rule of a group: what it lets pass. */
struct net_rule {
        bool out;          /* from the guest; else to it */
        int proto;         /* -1: any */
        uint16_t from, to; /* ports; 0 0: any */
        uint32_t peer;     /* the other side's network */
        unsigned prefix;   /* 0: anybody */
        int group;         /* or the ports of this group: an index; -1 none */
};
struct net_group {
        char id[ID_TEXT_SIZE];
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
struct net_member {
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
        const struct net_member *members;
        unsigned nmembers;
};
struct net_balancer {
        char id[ID_TEXT_SIZE];
        char port[ID_TEXT_SIZE]; /* a port's id */
        uint32_t address;
        const struct net_listener *listeners;
        unsigned nlisteners;
};

struct net_network {
        char id[ID_TEXT_SIZE];
        unsigned mtu;
        uid_t uid; /* of the processes that serve it, nobody else's */
        uint16_t uplink; /* number of its way out, its own in the cloud; 0: it has none */
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
};

struct net_plan {
        const struct net_network *networks;
        unsigned nnetworks;
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
        NET_UPLINK = 'u'
};
char *network_device(char out[DEVICE_SIZE], enum net_device what, const char *id);
/* Text of an address; gives out. */
char *network_address(char out[ADDRESS_TEXT_SIZE], uint32_t address);
/* The netmask of a prefix. */
uint32_t network_mask(unsigned prefix);
