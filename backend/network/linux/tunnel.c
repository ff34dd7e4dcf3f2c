/* Ways out of a network's namespace on its own level: tunnels to other hosts, and physical
 * networks.
 *
 * No packet is flooded and nothing is learnt.  What is for a guest elsewhere is routed: its address
 * by that host's, which is a neighbour that we name, at a MAC that we name, behind the host's
 * address.  So a guest that moves is one route that changes. */
#include "backend/network/linux/linux.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/network/linux/netlink.h"

bool network_tunnels(const struct net_plan *p, const struct net_network *w)
{
        return w->type == NET_VXLAN && p->here;
}

void tunnel_mac(uint8_t out[6], uint32_t host)
{
        memcpy(out, (uint8_t[]){0x02, 0xfe, host >> 24, host >> 16, host >> 8, host}, 6);
}

int tunnel_device(struct linux_net *s, struct nl *n, const struct net_plan *p,
                  const struct net_network *w, struct place *at, struct err **e)
{
        struct nl_vxlan x = {.segment = w->segment, .local = p->here};
        char name[DEVICE_SIZE], mac[MAC_TEXT_SIZE];
        struct nl_link l;
        uint8_t m[6];
        int r;

        tunnel_mac(m, p->here);
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
                 m[5]);
        x.mac = mac;
        network_device(name, NET_TUNNEL, w->id);
        r = device_ensure(at->in, name, "vxlan", &l, e);
        if (r == 1 && !streq(l.mac, mac)) { /* the host has another address now */
                r = nl_del(at->in, l.index, e);
        }
        if (r == 0) {
                r = nl_add_vxlan(n, name, at->ns, &x, e);
                if (r == 0)
                        r = nl_link(at->in, name, &l, e);
        }
        if (r >= 0 && (!l.up || l.mtu != w->mtu))
                r = nl_set(at->in, l.index, 0, w->mtu, NULL, NULL, e);
        return r < 0 ? r : 0;
}

static struct nl_ip host_ip6(uint32_t host)
{
        struct nl_ip ip = {AF_INET6, {0xfe, 0x80}};

        memcpy(ip.b + 12, nl_ip4(host).b, 4);
        return ip;
}

/* A guest that comes here is found by what is sent from here where it still is, and by what that
 * host sends on to us already here: at its own device, where it waits until the guest wakes up. */
static void arrivals(const struct net_network *w, unsigned guests, struct nl_list *routes)
{
        for (unsigned i = 0; i < w->nports; i++) {
                const struct net_port *x = &w->ports[i];
                struct nl_item to = {guests, .table = ARRIVALS};

                if (!x->coming)
                        continue;
                to.ip = nl_ip4(x->address);
                to.prefix = 32;
                if (x->address)
                        nl_list_add(routes, &to);
                to.ip = nl_ip6(&x->address6);
                to.prefix = 128;
                if (network_some6(&x->address6) && w->nsubnets6)
                        nl_list_add(routes, &to);
        }
}

static bool knows(const struct tunnel_hosts *v, uint32_t host)
{
        for (unsigned i = 0; i < v->n; i++)
                if (v->v[i] == host)
                        return true;
        return false;
}

static void add_hosts(const struct net_plan *p, const struct net_network *w, struct tunnel_hosts *v)
{
        for (unsigned i = 0; i < w->nports; i++) {
                uint32_t host = w->ports[i].host;
                uint32_t *more;

                if (!host || host == p->here || knows(v, host))
                        continue;
                more = reallocarray(v->v, v->n + 1, sizeof(*more));
                if (!more)
                        return; /* no way there until the next look */
                v->v = more;
                v->v[v->n++] = host;
        }
}

/* Also those that have the network as one of their router's only. */
void tunnel_hosts(const struct net_plan *p, const struct net_network *w, struct tunnel_hosts *ret)
{
        *ret = (struct tunnel_hosts){};
        if (!network_tunnels(p, w))
                return;
        add_hosts(p, w, ret);
        if (w->router < 0)
                return;
        for (unsigned i = 0; i < p->routers[w->router].nlegs; i++)
                add_hosts(p, &p->networks[p->routers[w->router].legs[i]], ret);
}

/* What came from outside by a router on another host is answered by way of that host, which knows
 * what it was translated from: the ruleset marks it with that host's address. */
static void returns(const struct tunnel_hosts *hosts, unsigned index, struct nl_list *routes)
{
        for (unsigned i = 0; i < hosts->n; i++)
                nl_list_add(routes, &(struct nl_item){index, nl_ip4(0), .table = hosts->v[i],
                                                      .via = nl_ip4(hosts->v[i])});
}

void tunnel_rules(const struct net_plan *p, const struct net_network *w, struct nl_list *out)
{
        struct nl_item from = {.table = ARRIVALS}, marked = {};
        struct tunnel_hosts hosts;

        network_device(from.from, NET_TUNNEL, w->id);
        from.ip.family = AF_INET;
        nl_list_add(out, &from);
        from.ip.family = AF_INET6;
        if (w->nsubnets6)
                nl_list_add(out, &from);
        tunnel_hosts(p, w, &hosts);
        marked.ip.family = AF_INET;
        for (unsigned i = 0; w->router >= 0 && i < hosts.n; i++) {
                marked.mark = marked.table = hosts.v[i];
                nl_list_add(out, &marked);
        }
        free(hosts.v);
}

/* The thread is in the namespace. */
int tunnel_inside(const struct net_plan *p, const struct net_network *w, struct place *at,
                  unsigned guests, struct nl_list *routes, struct err **e)
{
        _cleanup_list_ struct nl_list neighbours = {}, fdb = {};
        struct tunnel_hosts hosts;
        char name[DEVICE_SIZE];
        struct nl_link l;
        int r = nl_link(at->in, network_device(name, NET_TUNNEL, w->id), &l, e);

        if (r != 1)
                return r < 0 ? r : err_set(e, -EIO, "'%s' is gone", name);
        r = device_routes(name, w->nsubnets6 > 0, e);
        arrivals(w, guests, routes);
        for (unsigned i = 0; i < w->nports; i++) {
                const struct net_port *x = &w->ports[i];

                if (!x->host || x->host == p->here)
                        continue;
                if (x->address)
                        nl_list_add(routes, &(struct nl_item){l.index, nl_ip4(x->address), 32,
                                                              .via = nl_ip4(x->host)});
                if (network_some6(&x->address6) && w->nsubnets6)
                        nl_list_add(routes, &(struct nl_item){l.index, nl_ip6(&x->address6), 128,
                                                              .via = host_ip6(x->host)});
        }
        tunnel_hosts(p, w, &hosts);
        for (unsigned i = 0; i < hosts.n; i++) {
                struct nl_item to = {l.index, .via = nl_ip4(hosts.v[i])};

                tunnel_mac(to.mac, hosts.v[i]);
                nl_list_add(&fdb, &to);
                to.ip = to.via;
                to.via = (struct nl_ip){};
                nl_list_add(&neighbours, &to);
                to.ip = host_ip6(hosts.v[i]);
                if (w->nsubnets6)
                        nl_list_add(&neighbours, &to);
        }
        if (w->router >= 0)
                returns(&hosts, l.index, routes);
        free(hosts.v);
        if (r == 0)
                r = nl_fdb(at->in, l.index, &fdb, e);
        return r < 0 ? r : nl_neighbours(at->in, l.index, &neighbours, e);
}

/* --- physical networks ----------------------------------------------------------------------- */

/* A device of our own above the host's, which stays as it is. */
int physical_device(struct linux_net *s, struct nl *n, const struct net_network *w,
                    struct place *at, struct err **e)
{
        char name[DEVICE_SIZE];
        struct nl_link lower, l;
        int home, r;

        if (!*w->device)
                return err_set(e, -ENODEV,
                               "network %s: this host is in no such network outside; "
                               "admin/hosts/*/physical says which it is in",
                               w->id);
        r = nl_link(n, w->device, &lower, e);
        if (r != 1)
                return r < 0 ? r : err_set(e, -ENODEV, "there is no device '%s'", w->device);
        network_device(name, NET_PHYSICAL, w->id);
        if (w->type == NET_VLAN) {
                r = device_ensure(n, name, "vlan", &l, e);
                if (r == 0)
                        r = nl_add_vlan(n, name, lower.index, w->segment, e);
                if (r >= 0)
                        r = nl_link(n, name, &lower, e);
                if (r >= 0)
                        r = device_settle(s, n, &lower, 0, 0, e);
                if (r < 0)
                        return r;
        }
        r = device_ensure(at->in, name, "macvlan", &l, e);
        if (r == 0) {
                r = nl_add_macvlan(n, name, at->ns, lower.index, e);
                if (r == 0)
                        r = nl_link(at->in, name, &l, e);
        }
        if (r >= 0)
                r = netns_enter(at->ns, &home, e);
        if (r < 0)
                return r;
        r = device_routes(name, false, e);
        if (r == 0) /* for our guests and floating IPs there */
                r = netns_set("ipv4/conf/%/proxy_arp", name, "1", e);
        if (r == 0)
                r = netns_set("ipv4/neigh/%/proxy_delay", name, "0", e);
        if (r == 0 && !l.up)
                r = nl_set(at->in, l.index, 0, 0, NULL, NULL, e);
        netns_leave(home);
        return r;
}

/* --- what the kernel has --------------------------------------------------------------------- */

/* In a namespace that is gone afterwards. */
unsigned tunnel_types(void)
{
        unsigned all = 1u << NET_LOCAL, lower = 0;
        int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        _cleanup_nl_ struct nl *n = NULL;
        struct nl_link l;

        if (home < 0 || unshare(CLONE_NEWNET) < 0) {
                if (home >= 0)
                        close(home);
                return 0;
        }
        n = nl_open(NULL);
        if (n && nl_add_bridge(n, "b", "", NULL) == 0 && nl_link(n, "b", &l, NULL) == 1)
                lower = l.index;
        if (lower && nl_add_macvlan(n, "m", -1, lower, NULL) == 0) {
                all |= 1u << NET_FLAT;
                if (nl_add_vlan(n, "v", lower, 1, NULL) == 0)
                        all |= 1u << NET_VLAN;
        }
        if (n && nl_add_vxlan(n, "x", -1, &(struct nl_vxlan){.segment = 1, .local = HOST_END},
                              NULL) == 0)
                all |= 1u << NET_VXLAN;
        netns_leave(home);
        return all;
}
