/* One network: its bridge, its namespace with what is in it, its guests' taps. */
#include "backend/network/linux/linux.h"

#include <unistd.h>

#include "backend/network/linux/netlink.h"
#include "common/fileio.h"
#include "common/log.h"

/* --- devices --------------------------------------------------------------------------------- */

static int bridge(struct linux_net *s, struct nl *n, const struct net_network *w, unsigned *ret,
                  struct err **e)
{
        char name[DEVICE_SIZE];
        struct nl_link l;
        int r;

        network_device(name, NET_BRIDGE, w->id);
        r = device_ensure(n, name, "bridge", &l, e);
        if (r == 0) {
                r = nl_add_bridge(n, name, s->alias, e);
                if (r == 0)
                        r = device_quiet(name, e);
                if (r == 0)
                        r = nl_link(n, name, &l, e);
        }
        if (r < 0)
                return r;
        *ret = l.index;
        return device_settle(s, n, &l, 0, w->mtu, e);
}

/* The gateway's MAC: of the network, so that guests know it still after it was made anew, and on
 * the host that they move to. */
static void gateway_mac(char out[MAC_TEXT_SIZE], const char *id)
{
        snprintf(out, MAC_TEXT_SIZE, "02:%.2s:%.2s:%.2s:%.2s:%.2s", id, id + 2, id + 4, id + 6,
                 id + 9);
}

static int host_forwards(struct linux_net *s, struct err **e)
{
        _cleanup_free_ char *text = NULL;
        int r = s->forwarding ? 0 : file_read("/proc/sys/net/ipv4/ip_forward", 16, &text, NULL, e);

        if (r == 0 && text && text[0] == '0') {
                r = netns_set("ipv4/ip_forward", "", "1", e);
                if (r == 0)
                        log_info("network: the host forwards IPv4 from now on "
                                 "(net.ipv4.ip_forward)");
        }
        s->forwarding = r == 0;
        return r;
}

static int uplink(struct linux_net *s, struct nl *n, const struct net_network *w, struct place *at,
                  struct err **e)
{
        uint32_t own = UPLINK_NET | w->uplink;
        _cleanup_list_ struct nl_list host = {}, mine = {}, routes = {};
        char name[DEVICE_SIZE];
        struct nl_link here, there;
        int r;

        network_device(name, NET_UPLINK, w->id);
        r = device_leg(s, n, at->in, at->ns, name, name, &here, &there, e);
        if (r == 0)
                r = device_settle(s, n, &here, 0, 0, e);
        if (r == 0 && !there.up)
                r = nl_set(at->in, there.index, 0, 0, NULL, NULL, e);
        if (r < 0)
                return r;
        nl_list_add(&host, &(struct nl_item){here.index, nl_ip4(HOST_END), 32});
        nl_list_add(&mine, &(struct nl_item){there.index, nl_ip4(own), 32});
        nl_list_add(&routes, &(struct nl_item){here.index, nl_ip4(own), 32});
        for (unsigned i = 0; i < w->nfloats; i++)
                nl_list_add(&routes, &(struct nl_item){here.index, nl_ip4(w->floats[i].address), 32,
                                                       .via = nl_ip4(own)});
        for (unsigned i = 0; i < w->nbeyond; i++)
                if (!network_has(w, w->beyond[i].address))
                        nl_list_add(&routes,
                                    &(struct nl_item){here.index, nl_ip4(w->beyond[i].address), 32,
                                                      .via = nl_ip4(own)});
        r = nl_addresses(n, here.index, &host, e);
        if (r == 0)
                r = nl_addresses(at->in, there.index, &mine, e);
        if (r == 0)
                r = nl_routes(n, here.index, &routes, e);
        if (r == 0)
                r = rate_floors(at->in, &there, w, &at->known->rates, e);
        return r < 0 ? r : host_forwards(s, e);
}

int network_devices(struct linux_net *s, struct nl *n, const struct net_plan *p,
                    const struct net_network *w, struct place *at, struct err **e)
{
        char name[DEVICE_SIZE], peer[DEVICE_SIZE];
        struct nl_link here, there;
        unsigned br = 0;
        int r = bridge(s, n, w, &br, e);

        network_device(name, NET_LEG, w->id);
        network_device(peer, NET_INNER, w->id);
        if (r == 0)
                r = device_leg(s, n, at->in, at->ns, name, peer, &here, &there, e);
        if (r == 0)
                r = device_settle(s, n, &here, br, w->mtu, e);
        if (r == 0)
                r = sweep_inside(at->in, p, w, e);
        if (r == 0 && w->uplink)
                r = uplink(s, n, w, at, e);
        if (r == 0 && network_tunnels(p, w))
                r = tunnel_device(s, n, p, w, at, e);
        if (r == 0 && (w->type == NET_FLAT || w->type == NET_VLAN))
                r = physical_device(s, n, w, at, e);
        return r;
}

/* --- in the namespace ------------------------------------------------------------------------ */

/* The thread is in the namespace. */
static int gateway_link(const struct net_network *w, struct nl *in, const struct nl_link *l,
                        struct err **e)
{
        char mac[MAC_TEXT_SIZE];
        struct nl_link lo;
        int r = 0;

        gateway_mac(mac, w->id);
        if (nl_link(in, "lo", &lo, NULL) == 1 && !lo.up)
                r = nl_set(in, lo.index, 0, 0, NULL, NULL, e);
        if (r == 0)
                r = device_routes(l->name, w->nsubnets6 > 0, e);
        if (r < 0 || (l->up && l->mtu == w->mtu && streq(l->mac, mac)))
                return r;
        /* It answers ARP for all guests: those here, and those elsewhere. */
        r = netns_set("ipv4/conf/%/proxy_arp_pvlan", l->name, "1", e);
        if (r == 0)
                r = netns_set("ipv4/conf/%/proxy_arp", l->name, "1", e);
        if (r == 0)
                r = netns_set("ipv4/neigh/%/proxy_delay", l->name, "0", e);
        return r < 0 ? r : nl_set(in, l->index, 0, w->mtu, mac, NULL, e);
}

static void gateway_addresses(const struct net_network *w, unsigned index, struct nl_list *out)
{
        for (unsigned i = 0; i < w->nsubnets; i++) {
                const struct net_subnet *x = &w->subnets[i];

                nl_list_add(out, &(struct nl_item){index, nl_ip4(x->server ?: x->gateway),
                                                   x->prefix, .bare = x->server != 0});
        }
        for (unsigned i = 0; i < w->nsubnets6; i++)
                nl_list_add(out, &(struct nl_item){index, nl_ip6(&w->subnets6[i].gateway), 64});
        if (w->nsubnets6)
                nl_list_add(out, &(struct nl_item){index, nl_ip6(&METADATA_ADDRESS6), 64,
                                                   .answers = true});
}

static const struct nl_ip router_end6 = {AF_INET6, {0xfe, 0x80, [15] = 2}};

/* By the router: its way out, and what else it leads to. */
static void routes_by_router(const struct net_plan *p, const struct net_network *w, unsigned leg,
                             unsigned guests, struct nl_list *out)
{
        const struct net_router *r = &p->routers[w->router];
        struct nl_item by = {leg, .via = nl_ip4(ROUTER_END)};
        struct nl_item by6 = {leg, .via = router_end6};

        by.ip = nl_ip4(0);
        if (r->gateway >= 0)
                nl_list_add(out, &by);
        for (unsigned i = 0; i < r->nlegs; i++) {
                const struct net_network *x = &p->networks[r->legs[i]];

                for (unsigned k = 0; x != w && k < x->nsubnets; k++) {
                        by.ip = nl_ip4(x->subnets[k].address);
                        by.prefix = x->subnets[k].prefix;
                        nl_list_add(out, &by);
                }
                for (unsigned k = 0; x != w && k < x->nsubnets6; k++) {
                        by6.ip = nl_ip6(&x->subnets6[k].address);
                        by6.prefix = 64;
                        if (w->nsubnets6)
                                nl_list_add(out, &by6);
                }
        }
        for (unsigned i = 0; i < r->nroutes; i++) {
                bool own = network_has(w, r->routes[i].via);

                nl_list_add(out,
                            &(struct nl_item){own ? guests : leg, nl_ip4(r->routes[i].address),
                                              r->routes[i].prefix,
                                              .via = nl_ip4(own ? r->routes[i].via : ROUTER_END)});
        }
}

static void routes_to_guests(const struct net_network *w, unsigned guests, struct nl_list *out)
{
        bool physical = w->type == NET_FLAT || w->type == NET_VLAN;

        for (unsigned i = 0; i < w->nsubnets; i++)
                for (unsigned k = 0; k < w->subnets[i].nroutes; k++) {
                        const struct net_route *x = &w->subnets[i].routes[k];

                        nl_list_add(out, &(struct nl_item){guests, nl_ip4(x->address), x->prefix,
                                                           .via = nl_ip4(x->via)});
                }
        for (unsigned i = 0; i < w->nports; i++) {
                const struct net_port *x = &w->ports[i];

                if (physical && x->live && !x->coming && x->address)
                        nl_list_add(out, &(struct nl_item){guests, nl_ip4(x->address), 32});
                for (unsigned k = 0; x->live && k < x->npairs; k++)
                        if (physical || !network_has(w, x->pairs[k].address))
                                nl_list_add(out,
                                            &(struct nl_item){guests, nl_ip4(x->pairs[k].address),
                                                              x->pairs[k].prefix});
        }
        for (unsigned i = 0; physical && i < w->nfloats; i++) /* so that ARP is answered for it */
                nl_list_add(out, &(struct nl_item){guests, nl_ip4(w->floats[i].address), 32});
}

static unsigned index_of(struct nl *in, enum net_device what, const char *id)
{
        char name[DEVICE_SIZE];
        struct nl_link l;

        return nl_link(in, network_device(name, what, id), &l, NULL) == 1 ? l.index : 0;
}

static int routes(const struct net_plan *p, const struct net_network *w, struct place *at,
                  unsigned guests, struct err **e)
{
        _cleanup_list_ struct nl_list l = {}, rules = {};
        unsigned to;
        int r = 0;

        routes_to_guests(w, guests, &l);
        if (w->uplink && (to = index_of(at->in, NET_UPLINK, w->id)))
                nl_list_add(&l, &(struct nl_item){to, nl_ip4(0), .via = nl_ip4(HOST_END)});
        if (w->router >= 0 && (to = index_of(at->in, NET_ROUTED, w->id)))
                routes_by_router(p, w, to, guests, &l);
        for (unsigned i = 0; i < w->nbeyond; i++) {
                to = index_of(at->in, NET_GATEWAY, p->routers[w->beyond[i].router].id);
                if (to && (w->uplink || w->beyond[i].here)) /* a route there answers ARP */
                        nl_list_add(&l, &(struct nl_item){to, nl_ip4(w->beyond[i].address), 32,
                                                          .via = nl_ip4(ROUTER_END)});
        }
        if ((to = index_of(at->in, NET_PHYSICAL, w->id)))
                for (unsigned i = 0; i < w->nsubnets; i++) {
                        nl_list_add(&l, &(struct nl_item){to, nl_ip4(w->subnets[i].address),
                                                          w->subnets[i].prefix});
                        if (i == 0)
                                nl_list_add(&l, &(struct nl_item){
                                                        to, nl_ip4(0),
                                                        .via = nl_ip4(w->subnets[i].gateway)});
                }
        if (network_tunnels(p, w))
                r = tunnel_inside(p, w, at, guests, &l, e);
        if (r == 0)
                r = nl_routes(at->in, 0, &l, e);
        if (r < 0 || !network_tunnels(p, w))
                return r;
        tunnel_rules(p, w, &rules);
        return nl_rules(at->in, &rules, e);
}

int network_inside(struct linux_net *s, const struct net_plan *p, const struct net_network *w,
                   struct place *at, struct err **e)
{
        _cleanup_list_ struct nl_list addresses = {};
        _cleanup_buf_ struct buf text = {};
        char name[DEVICE_SIZE];
        struct nl_link l;
        int home, r;

        r = nl_link(at->in, network_device(name, NET_INNER, w->id), &l, e);
        if (r != 1)
                return r < 0 ? r : err_set(e, -EIO, "'%s' is gone", name);
        r = netns_enter(at->ns, &home, e);
        if (r < 0)
                return r;
        ruleset_network(s->table, p, w, &text);
        r = nft_apply(&at->known->rules, &text, e);
        if (r == 0)
                r = gateway_link(w, at->in, &l, e);
        gateway_addresses(w, l.index, &addresses);
        if (r == 0)
                r = nl_addresses(at->in, l.index, &addresses, e);
        if (r == 0)
                r = routes(p, w, at, l.index, e);
        if (r == 0)
                r = dhcp_serve(at->dir, w, at->ns, e);
        if (r == 0)
                r = services_inside(s, w, at, e);
        if (r == 0)
                announce_inside(w, at);
        netns_leave(home);
        return r;
}

/* --- taps ------------------------------------------------------------------------------------ */

static bool tap_settled(const struct linux_net *s, const struct nl_link *l, const char *kind,
                        unsigned br, unsigned mtu)
{
        return l && streq(l->kind, kind) && l->up && l->master == br && l->mtu == mtu &&
               l->isolated && streq(l->alias, s->alias);
}

/* 1: its container has not made it yet. */
static int tap_make(struct linux_net *s, struct nl *n, const char *name, bool cabled, unsigned br,
                    unsigned mtu, struct nl_link *l, struct err **e)
{
        int r = device_ensure(n, name, cabled ? "veth" : "tun", l, e);

        if (cabled && r == 0)
                return 1;
        if (cabled && r == 1 && l->master != br && device_quiet(name, e) < 0)
                return -EIO;
        if (r == 0) {
                r = tap_add(name, e);
                if (r == 0)
                        r = device_quiet(name, e);
                if (r == 0)
                        r = nl_link(n, name, l, e);
        }
        if (r >= 0)
                r = device_settle(s, n, l, br, mtu, e);
        /* The door is shut by the ruleset, which was there first. */
        if (r == 0 && !(l->isolated && l->master == br))
                r = nl_isolate(n, l->index, e);
        return r;
}

static int tap(struct linux_net *s, struct nl *n, const struct net_port *p, unsigned br,
               unsigned mtu, struct err **e)
{
        const char *kind = p->cabled ? "veth" : "tun";
        char name[DEVICE_SIZE];
        struct known_tap *known;
        const struct nl_link *seen;
        struct nl_link l;
        int r;

        network_device(name, NET_TAP, p->id);
        seen = links_get(&s->links, name);
        if (tap_settled(s, seen, kind, br, mtu))
                l = *seen, r = 0;
        else
                r = tap_make(s, n, name, p->cabled, br, mtu, &l, e);
        if (r > 0)
                return 0;
        known = r < 0 ? NULL : tap_get(s, name);
        if (known && (known->rate != p->rate_in || streq(l.qdisc, "tbf") != (p->rate_in > 0))) {
                r = rate_limit(n, &l, p->rate_in, e);
                known->rate = r == 0 ? p->rate_in : 0;
        }
        return r < 0 ? r : 0;
}

int network_taps(struct linux_net *s, struct nl *n, const struct net_network *w, struct err **e)
{
        char name[DEVICE_SIZE];
        struct nl_link l;
        int r = nl_link(n, network_device(name, NET_BRIDGE, w->id), &l, e);

        if (r != 1)
                return r < 0 ? r : err_set(e, -EIO, "'%s' is gone", name);
        r = 0;
        for (unsigned i = 0; r == 0 && i < w->nports; i++)
                if (w->ports[i].live)
                        r = tap(s, n, &w->ports[i], l.index, w->mtu, e);
        return r;
}
