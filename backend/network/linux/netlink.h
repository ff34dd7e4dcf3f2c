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
        char name[DEVICE_SIZE], kind[16], alias[96], mac[MAC_TEXT_SIZE];
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
/* Addresses of a link: exactly these; host byte order. */
int nl_addresses(struct nl *n, unsigned index, const uint32_t *a, const unsigned *prefix,
                 unsigned count, struct err **e);
/* prefix 0: the default route; gateway 0: none.  There already is success. */
int nl_route(struct nl *n, unsigned index, uint32_t dst, unsigned prefix, uint32_t gateway,
             struct err **e);
/* Routes to single addresses over a link: exactly these, the first one directly, the others by it.
 */
int nl_hosts(struct nl *n, unsigned index, const uint32_t *a, unsigned count, struct err **e);
/* A persistent tap that the engine may open. */
int tap_add(const char *name, struct err **e);
