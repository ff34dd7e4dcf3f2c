/* Routers: a namespace each, with a leg into that of each of its networks. */
#include "backend/network/linux/linux.h"

#include "backend/network/linux/netlink.h"

static const struct nl_ip router_end6 = {AF_INET6, {0xfe, 0x80, [15] = 2}};
static const struct nl_ip network_end6 = {AF_INET6, {0xfe, 0x80, [15] = 3}};

static bool has_six(const struct net_plan *p, const struct net_router *r)
{
        for (unsigned i = 0; i < r->nlegs; i++)
                if (p->networks[r->legs[i]].nsubnets6)
                        return true;
        return false;
}

/* One end: up, with its address. */
static int end(struct place *at, const struct nl_link *l, uint32_t address,
               const struct nl_ip *address6, bool six, unsigned mtu, struct err **e)
{
        _cleanup_list_ struct nl_list list = {};
        int home, r = netns_enter(at->ns, &home, e);

        if (r < 0)
                return r;
        nl_list_add(&list, &(struct nl_item){l->index, nl_ip4(address), 32});
        if (six)
                nl_list_add(&list, &(struct nl_item){l->index, *address6, 64});
        r = device_routes(l->name, six, e);
        if (r == 0 && (!l->up || l->mtu != mtu))
                r = nl_set(at->in, l->index, 0, mtu, NULL, NULL, e);
        netns_leave(home);
        return r < 0 ? r : nl_addresses(at->in, l->index, &list, e);
}

/* A cable from the network's namespace to the router's.  *ret: the index of the router's end. */
static int leg(struct linux_net *s, const struct net_network *w, const char *name,
               const struct place *network, struct place *router, bool six, unsigned *ret,
               struct err **e)
{
        struct place there = *network;
        struct nl_link a, b;
        int home, r = netns_enter(network->ns, &home, e);

        if (r < 0)
                return r;
        r = device_leg(s, network->in, router->in, router->ns, name, name, &a, &b, e);
        netns_leave(home);
        if (r == 0)
                r = end(&there, &a, NETWORK_END, &network_end6, six, w->mtu, e);
        if (r == 0)
                r = end(router, &b, ROUTER_END, &router_end6, six, w->mtu, e);
        *ret = b.index;
        return r;
}

static void routes_to(const struct net_network *w, const struct net_router *r, unsigned index,
                      bool six, struct nl_list *out)
{
        struct nl_item to = {index, .via = nl_ip4(NETWORK_END)};

        for (unsigned i = 0; i < w->nsubnets; i++) {
                to.ip = nl_ip4(w->subnets[i].address);
                to.prefix = w->subnets[i].prefix;
                nl_list_add(out, &to);
        }
        for (unsigned i = 0; i < r->nroutes; i++) {
                to.ip = nl_ip4(r->routes[i].address);
                to.prefix = r->routes[i].prefix;
                if (network_has(w, r->routes[i].via))
                        nl_list_add(out, &to);
        }
        to.prefix = 32;
        for (unsigned i = 0; r->gateway >= 0 && i < w->nfloats; i++) {
                to.ip = nl_ip4(w->floats[i].address);
                nl_list_add(out, &to);
        }
        for (unsigned i = 0; six && i < w->nsubnets6; i++)
                nl_list_add(out, &(struct nl_item){index, nl_ip6(&w->subnets6[i].address), 64,
                                                   .via = network_end6});
}

static int inside(struct linux_net *s, const struct net_plan *p, const struct net_router *r,
                  struct place *at, struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        int home, err = netns_enter(at->ns, &home, e);

        if (err < 0)
                return err;
        ruleset_router(s->table, p, r, &text);
        err = nft_apply(&at->known->rules, &text, e);
        netns_leave(home);
        return err;
}

int router_apply(struct linux_net *s, const struct net_plan *p, unsigned router,
                 const struct place *places, struct place *at, struct err **e)
{
        const struct net_router *x = &p->routers[router];
        _cleanup_list_ struct nl_list routes = {};
        bool six = has_six(p, x);
        char name[DEVICE_SIZE];
        unsigned index = 0;
        int r = sweep_router(at->in, p, x, e);

        if (r == 0) /* before anything leads through it */
                r = inside(s, p, x, at, e);
        for (unsigned i = 0; r == 0 && i < x->nlegs; i++) {
                const struct net_network *w = &p->networks[x->legs[i]];

                if (places[x->legs[i]].failed) /* which has its own words */
                        continue;
                r = leg(s, w, network_device(name, NET_ROUTED, w->id), &places[x->legs[i]], at,
                        six && w->nsubnets6, &index, e);
                routes_to(w, x, index, six, &routes);
        }
        if (r == 0 && x->gateway >= 0 && !places[x->gateway].failed) {
                r = leg(s, &p->networks[x->gateway], network_device(name, NET_GATEWAY, x->id),
                        &places[x->gateway], at, false, &index, e);
                nl_list_add(&routes,
                            &(struct nl_item){index, nl_ip4(0), .via = nl_ip4(NETWORK_END)});
        }
        return r < 0 ? r : nl_routes(at->in, 0, &routes, e);
}
