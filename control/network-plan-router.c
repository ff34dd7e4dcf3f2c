/* What this host should have of networks and routers, from the model. */
#include "control/balancer.h"
#include "control/network-plan.h"

enum net_type plan_type(const struct object *o)
{
        static const char *const names[] = {"local", "flat", "vlan", "vxlan", "gre"};

        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
                if (streq(object_str(o, "type"), names[i]))
                        return i;
        return NET_LOCAL;
}

void plan_device(struct control *c, const struct object *o, char out[DEVICE_SIZE])
{
        struct object *host = model_by_name(c, NULL, &kind_host, c->cfg.host);
        const char *want = object_str(o, "physical"), *p, *w;
        size_t n, len = strlen(want);

        *out = '\0';
        p = host ? object_str(host, "physical") : "";
        while (len && (w = word_next(&p, &n)))
                if (n > len + 1 && w[len] == '=' && memcmp(w, want, len) == 0)
                        snprintf(out, DEVICE_SIZE, "%.*s", (int)(n - len - 1), w + len + 1);
}

struct net_route *plan_routes(const struct object *o, unsigned *n)
{
        struct net_route *v = NULL;

        *n = 0;
        for (const char *p = object_str(o, "route_text"), *nl; (nl = strchr(p, '\n')); p = nl + 1) {
                _cleanup_free_ char *line = xstrndup(p, nl - p);

                v = xrealloc(v, *n + 1, sizeof(*v));
                *n += route_parse(line, &v[*n], NULL) == 0;
        }
        return v;
}

/* Networks and routers that are put together, as objects in the order of the plan. */
struct drawing {
        struct control *c;
        struct net_plan *p;
        const struct object **networks, **routers;
        unsigned nnetworks, nrouters;
};

static int index_of(const struct object *const *v, unsigned n, const struct object *o)
{
        for (unsigned i = 0; i < n; i++)
                if (v[i] == o)
                        return i;
        return -1;
}

static void want(const struct object ***v, unsigned *n, const struct object *o)
{
        if (index_of(*v, *n, o) >= 0)
                return;
        *v = xrealloc(*v, *n + 1, sizeof(**v));
        (*v)[(*n)++] = o;
}

/* Or load balancers. */
static bool has_guests(struct control *c, const struct object *network)
{
        struct collection *ports = model_collection(c, network, &kind_port);

        for (size_t i = 0; ports && i < ports->n; i++)
                if (plan_plugged_here(c, port_instance(ports->v[i])) ||
                    (port_balancer(ports->v[i]) && !networks_ending(c) &&
                     balancer_here(c, port_balancer(ports->v[i]))))
                        return true;
        return false;
}

/* A network with a guest here brings its router, and that all that it leads to: what a guest sends
 * is routed on its own host. */
static void choose(struct drawing *d)
{
        struct object *o, *tmp;
        unsigned guests;

        HASH_ITER (hh_no, d->c->by_no, o, tmp)
                if (o->kind == &kind_network && has_guests(d->c, o))
                        want(&d->networks, &d->nnetworks, o);
        guests = d->nnetworks;
        for (unsigned i = 0; i < guests; i++)
                if (network_router(d->networks[i]))
                        want(&d->routers, &d->nrouters, network_router(d->networks[i]));
        for (unsigned i = 0; i < d->nrouters; i++)
                object_foreach_link (l, d->routers[i])
                        want(&d->networks, &d->nnetworks, l->target);
}

/* Whether this is the host that is spoken to at the router's own addresses, of all that it is on:
 * where its first forward leads, else where the oldest port with a guest is.  All come to the
 * same. */
static bool fronts(struct control *c, const struct object *router, const struct net_router *r)
{
        const struct object *best = NULL;

        if (!feed_shared(c))
                return true;
        object_foreach_link (l, router) {
                struct collection *ports = model_collection(c, l->target, &kind_port);

                for (size_t i = 0; ports && i < ports->n && l->target != router_gateway(router);
                     i++) {
                        const struct object *o = port_instance(ports->v[i]);
                        const char *s = object_str(ports->v[i], "address");
                        uint32_t a = 0;

                        if (!o || !instance_plugged(o))
                                continue;
                        if (r->nforwards && address_parse(s, strlen(s), &a) &&
                            a == r->forwards[0].to)
                                return feed_ours(c, o);
                        if (!best || ports->v[i]->no < best->no)
                                best = ports->v[i];
                }
        }
        return best ? feed_ours(c, port_instance(best))
                    : streq(object_str(router->tenant, "keeper"), c->cfg.host);
}

static void add_beyond(struct net_network *n, uint32_t address, unsigned router, bool here)
{
        struct net_beyond *v;

        if (!address)
                return;
        v = xrealloc((void *)n->beyond, n->nbeyond + 1, sizeof(*v));
        v[n->nbeyond++] = (struct net_beyond){address, router, here};
        n->beyond = v;
}

static void add_forwards(struct net_router *r, const struct object *o, uint32_t address)
{
        struct net_forward *v = (struct net_forward *)r->forwards, x;

        for (const char *p = object_str(o, "forward_text"), *nl; address && (nl = strchr(p, '\n'));
             p = nl + 1) {
                _cleanup_free_ char *line = xstrndup(p, nl - p);

                if (forward_parse(line, &x, NULL) < 0)
                        continue;
                x.address = address;
                v = xrealloc(v, r->nforwards + 1, sizeof(*v));
                v[r->nforwards++] = x;
        }
        r->forwards = v;
}

/* The ports of `from` that are in the group. */
static void add_others(struct net_group *g, const struct net_network *from)
{
        struct net_member *v = (struct net_member *)g->others;
        unsigned at;

        for (at = 0; at < from->ngroups && !streq(from->groups[at].id, g->id); at++)
                ;
        for (unsigned i = 0; at < from->ngroups && i < from->nports; i++)
                for (unsigned k = 0; k < from->ports[i].ngroups; k++)
                        if (from->ports[i].groups[k] == at) {
                                v = xrealloc(v, g->nothers + 1, sizeof(*v));
                                v[g->nothers++] = (struct net_member){from->ports[i].address,
                                                                      from->ports[i].address6};
                        }
        g->others = v;
}

/* A group's rules name its members in all networks that a router joins. */
static void join_groups(const struct net_router *r, const struct net_network *networks)
{
        for (unsigned i = 0; i < r->nlegs; i++)
                for (unsigned k = 0; k < r->nlegs; k++) {
                        const struct net_network *n = &networks[r->legs[i]];

                        for (unsigned g = 0; i != k && g < n->ngroups; g++)
                                add_others((struct net_group *)&n->groups[g],
                                           &networks[r->legs[k]]);
                }
}

static void add_router(struct drawing *d, unsigned at, struct net_router *r)
{
        struct net_network *networks = (struct net_network *)d->p->networks, *out;
        const struct object *o = d->routers[at], *gateway = router_gateway(o);
        const char *s = object_str(o, "address");
        unsigned *legs = NULL;
        bool here;

        *r = (struct net_router){.gateway = index_of(d->networks, d->nnetworks, gateway)};
        id_text(r->id, o->id);
        out = r->gateway >= 0 ? &networks[r->gateway] : NULL;
        object_foreach_link (l, o) {
                int i = index_of(d->networks, d->nnetworks, l->target);

                if (l->target == gateway || i < 0)
                        continue;
                legs = xrealloc(legs, r->nlegs + 1, sizeof(*legs));
                legs[r->nlegs++] = i;
                networks[i].router = at;
                if (out) /* one way out is enough */
                        networks[i].uplink = 0;
                for (unsigned k = 0; out && k < networks[i].nfloats; k++)
                        add_beyond(out, networks[i].floats[k].address, at, true);
        }
        r->legs = legs;
        r->routes = plan_routes(o, &r->nroutes);
        if (!out)
                return;
        address_parse(s, strlen(s), &r->address);
        add_forwards(r, o, r->address);
        here = fronts(d->c, o, r);
        /* Else its subnet went: nobody else's packets are for us. */
        if (network_has(out, r->address))
                add_beyond(out, r->address, at, here);
        for (unsigned i = 0; i < o->nrefs; i++) {
                uint32_t a = 0;

                if (o->refs[i]->kind != &kind_floating_ip)
                        continue;
                s = object_str(o->refs[i], "address");
                address_parse(s, strlen(s), &a);
                add_beyond(out, a, at, here);
                add_forwards(r, o, a);
        }
        if (!object_num(o, "snat"))
                r->address = 0;
}

struct net_plan *network_plan(struct control *c)
{
        struct net_plan *p = xcalloc(1, sizeof(*p));
        struct drawing d = {.c = c, .p = p};
        struct net_network *networks;
        struct net_router *routers;

        control_rdlock(c);
        choose(&d);
        p->networks = networks = xcalloc(d.nnetworks + 1, sizeof(*networks));
        p->routers = routers = xcalloc(d.nrouters + 1, sizeof(*routers));
        p->here = plan_host_address(c, c->cfg.host);
        for (; p->nnetworks < d.nnetworks; p->nnetworks++)
                plan_network(c, &networks[p->nnetworks], d.networks[p->nnetworks]);
        for (; p->nrouters < d.nrouters; p->nrouters++)
                add_router(&d, p->nrouters, &routers[p->nrouters]);
        for (unsigned i = 0; i < p->nrouters; i++)
                join_groups(&routers[i], networks);
        control_unlock(c);
        free(d.networks);
        free(d.routers);
        return p;
}
