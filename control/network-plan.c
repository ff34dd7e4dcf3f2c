/* One network of the plan, from the model.  The whole: network-plan-router.c. */
#include "control/balancer.h"
#include "control/documents.h"
#include "control/hosts.h"
#include "control/network-plan.h"

bool instance_plugged(const struct object *o)
{
        return !object_in(o, STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) |
                                     STATE(INSTANCE_DELETING) | STATE(INSTANCE_ERROR) |
                                     STATE(INSTANCE_SUSPENDED) | STATE(INSTANCE_SHELVED));
}

bool plan_plugged_here(struct control *c, const struct object *o)
{
        return o && instance_plugged(o) && (feed_ours(c, o) || host_expects(o, c->cfg.host));
}

/* Where other hosts reach that one; 0: its record does not say. */
uint32_t plan_host_address(struct control *c, const char *name)
{
        struct object *o = *name ? model_by_name(c, NULL, &kind_host, name) : NULL;
        const char *s = o ? object_str(o, "address") : "";
        uint32_t a;

        return address_parse(s, strlen(s), &a) ? a : 0;
}

/* A network that is being put together. */
struct draft {
        struct control *c;
        struct net_network *n;
        const struct object **groups; /* n->groups, as objects */
};

static unsigned group_index(struct draft *d, const struct object *g)
{
        struct net_group *v = (struct net_group *)d->n->groups;
        unsigned i;

        for (i = 0; i < d->n->ngroups; i++)
                if (d->groups[i] == g)
                        return i;
        v = xrealloc(v, i + 1, sizeof(*v));
        d->groups = xrealloc(d->groups, i + 1, sizeof(*d->groups));
        v[i] = (struct net_group){};
        id_text(v[i].id, g->id);
        d->groups[i] = g;
        d->n->groups = v;
        d->n->ngroups++;
        return i;
}

/* The port's own groups, else its instance's, else the tenant's default. */
static void add_groups(struct draft *d, const struct object *port, struct net_port *p)
{
        const struct object *from[] = {port, port_instance(port)};
        unsigned *v = NULL;

        for (unsigned i = 0; i < ARRAY_SIZE(from) && !v; i++) {
                int def = from[i] ? kind_link(from[i]->kind, "security_groups") : -1;

                for (unsigned k = 0; from[i] && k < from[i]->nlinks; k++)
                        if ((int)from[i]->links[k].def == def) {
                                v = xrealloc(v, p->ngroups + 1, sizeof(*v));
                                v[p->ngroups++] = group_index(d, from[i]->links[k].target);
                        }
        }
        if (!v) {
                struct object *g =
                        model_by_name(d->c, port->tenant, &kind_security_group, "default");

                v = xcalloc(1, sizeof(*v));
                if (g)
                        v[p->ngroups++] = group_index(d, g);
        }
        p->groups = v;
}

/* The floating address that is the port's: its own, or its instance's if this is the first port. */
static const struct object *floating(const struct object *port)
{
        const struct object *o = port_instance(port), *from[] = {port, NULL};

        if (o) {
                struct link *first = object_link(o, kind_link(o->kind, "networks"), NULL);

                from[1] = first && first->target == port ? o : NULL;
        }
        for (unsigned k = 0; k < ARRAY_SIZE(from); k++)
                for (unsigned i = 0; from[k] && i < from[k]->nrefs; i++)
                        if (from[k]->refs[i]->kind == &kind_floating_ip)
                                return from[k]->refs[i];
        return NULL;
}

static void add_float(struct draft *d, const struct object *port, const struct net_port *p)
{
        const struct object *b = port_balancer(port), *i = port_instance(port);
        /* One that is still on its way has it where it is. */
        bool here = (p->live && i && !*networks_where(d->c, i)) || (b && balancer_here(d->c, b));
        const struct object *f = here ? floating(port) : NULL;
        const char *s = f ? object_str(f, "address") : "";
        struct net_float *v, x = {.port = p->address};

        if (!address_parse(s, strlen(s), &x.address))
                return;
        v = xrealloc((void *)d->n->floats, d->n->nfloats + 1, sizeof(*v));
        v[d->n->nfloats++] = x;
        d->n->floats = v;
}

static void add_documents(struct draft *d, const struct object *instance, struct net_port *p)
{
        _cleanup_buf_ struct buf text = {};

        if (!documents(d->c, instance, &text))
                return;
        p->ndocuments = text.len;
        p->documents = buf_take(&text);
}

/* 0: any. */
static uint64_t rate(const struct object *o, const char *attr)
{
        uint64_t v = object_num(o, attr);

        return v == VALUE_MAX ? 0 : v;
}

static void add_pairs(const struct object *port, struct net_port *p)
{
        const char *s = object_str(port, "address_pairs"), *w;
        struct net_pair *v = NULL;
        size_t n;

        while (p->npairs < PAIRS_MAX && (w = word_next(&s, &n))) {
                v = xrealloc(v, p->npairs + 1, sizeof(*v));
                p->npairs += pair_parse(w, n, &v[p->npairs]);
        }
        p->pairs = v;
}

static void add_port(struct draft *d, const struct object *port)
{
        const struct object *i = port_instance(port), *b = port_balancer(port);
        const char *address = object_str(port, "address"), *six = object_str(port, "address6");
        struct net_port *v = xrealloc((void *)d->n->ports, d->n->nports + 1, sizeof(*v)), *p;

        d->n->ports = v;
        p = &v[d->n->nports];
        *p = (struct net_port){.live = plan_plugged_here(d->c, i)};
        address_parse(address, strlen(address), &p->address);
        address6_parse(six, strlen(six), &p->address6);
        if (!p->address && !network_some6(&p->address6))
                return;
        d->n->nports++;
        id_text(p->id, port->id);
        snprintf(p->mac, sizeof(p->mac), "%s", object_str(port, "mac"));
        snprintf(p->name, sizeof(p->name), "%s", i ? i->name : port->name);
        /* A name in DNS has no dots and underscores of its own. */
        for (char *s = p->name; *s; s++)
                if (*s == '.' || *s == '_')
                        *s = '-';
        p->open = object_num(port, "open") && object_num(port->holder, "open_ports");
        p->rate_in = rate(port, "rate_in");
        p->rate_out = rate(port, "rate_out");
        p->floor = object_num(port, "floor");
        add_pairs(port, p);
        add_groups(d, port, p);
        add_float(d, port, p);
        if (p->live)
                add_documents(d, i, p);
        if (i && instance_plugged(i)) {
                p->coming = p->live && !feed_ours(d->c, i);
                p->host = plan_host_address(d->c, networks_where(d->c, i));
        }
        if (b && !balancer_here(d->c, b) && *balancer_host(d->c, b))
                p->host = plan_host_address(d->c, balancer_host(d->c, b));
}

static void add_subnet(struct draft *d, const struct object *s)
{
        const char *cidr = object_str(s, "cidr"), *g = object_str(s, "gateway");
        const char *dns = object_str(s, "dns"), *w;
        struct net_subnet *v, x = {.dhcp = object_num(s, "dhcp")};
        struct net_subnet6 *v6, y = {};
        unsigned prefix;
        size_t n;

        if (cidr6_parse(cidr, strlen(cidr), &y.address, &prefix)) {
                const char *mode = object_str(s, "ipv6");

                y.mode = streq(mode, "dhcp")   ? NET6_DHCP
                         : streq(mode, "none") ? NET6_NONE
                                               : NET6_SLAAC;
                address6_parse(g, strlen(g), &y.gateway);
                v6 = xrealloc((void *)d->n->subnets6, d->n->nsubnets6 + 1, sizeof(*v6));
                v6[d->n->nsubnets6++] = y;
                d->n->subnets6 = v6;
                return;
        }
        if (cidr_parse(cidr, strlen(cidr), &x.address, &x.prefix, NULL) < 0 ||
            !address_parse(g, strlen(g), &x.gateway))
                return;
        while (x.ndns < ARRAY_SIZE(x.dns) && (w = word_next(&dns, &n)))
                x.ndns += address_parse(w, n, &x.dns[x.ndns]);
        x.routes = plan_routes(s, &x.nroutes);
        if (network_physical(s->holder))
                x.server = subnet_server(s);
        v = xrealloc((void *)d->n->subnets, d->n->nsubnets + 1, sizeof(*v));
        v[d->n->nsubnets++] = x;
        d->n->subnets = v;
}

/* Rules name other groups, whose rules do not matter unless ports have them; their members do. */
static void add_rules(struct draft *d, unsigned g)
{
        const char *text = object_str(d->groups[g], "text");
        struct net_rule *v = NULL;
        unsigned count = 0;

        for (const char *p = text, *nl; (nl = strchr(p, '\n')); p = nl + 1) {
                _cleanup_free_ char *line = xstrndup(p, nl - p);
                struct object *other = NULL;
                struct rule x;

                if (rule_parse(line, &x, NULL) < 0)
                        continue;
                if (*x.group) {
                        other = model_by_name(d->c, d->groups[g]->tenant, &kind_security_group,
                                              x.group);
                        if (!other) /* gone: nobody is in it */
                                continue;
                        x.r.group = group_index(d, other);
                }
                v = xrealloc(v, count + 1, sizeof(*v));
                v[count++] = x.r;
        }
        ((struct net_group *)d->n->groups)[g].rules = v;
        ((struct net_group *)d->n->groups)[g].nrules = count;
}

void plan_network(struct control *c, struct net_network *n, const struct object *o)
{
        struct collection *ports = model_collection(c, o, &kind_port);
        struct collection *subnets = model_collection(c, o, &kind_subnet);
        struct draft d = {.c = c, .n = n};

        *n = (struct net_network){.mtu = object_num(o, "mtu"),
                                  .uid = NET_UID_BASE + object_num(o, "uplink"),
                                  .type = plan_type(o),
                                  .segment = object_num(o, "segment"),
                                  .rate = rate(o, "rate"),
                                  .router = -1,
                                  .uplink =
                                          object_num(o, "external") ? object_num(o, "uplink") : 0};
        id_text(n->id, o->id);
        if (network_physical(o)) {
                n->uplink = 0;
                plan_device(c, o, n->device);
        }
        for (size_t i = 0; subnets && i < subnets->n; i++)
                add_subnet(&d, subnets->v[i]);
        for (size_t i = 0; ports && i < ports->n; i++)
                add_port(&d, ports->v[i]);
        for (unsigned g = 0; g < n->ngroups; g++) /* it grows meanwhile */
                add_rules(&d, g);
        n->balancers = balancers_plan(c, o, &n->nbalancers);
        free(d.groups);
}

void network_plan_free(struct net_plan *p)
{
        for (unsigned i = 0; i < p->nnetworks; i++) {
                const struct net_network *n = &p->networks[i];

                for (unsigned k = 0; k < n->nports; k++) {
                        free((void *)n->ports[k].groups);
                        free((void *)n->ports[k].documents);
                        free((void *)n->ports[k].pairs);
                }
                for (unsigned k = 0; k < n->nsubnets; k++)
                        free((void *)n->subnets[k].routes);
                for (unsigned k = 0; k < n->ngroups; k++) {
                        free((void *)n->groups[k].rules);
                        free((void *)n->groups[k].others);
                }
                free((void *)n->ports);
                free((void *)n->groups);
                free((void *)n->floats);
                balancers_free(n->balancers, n->nbalancers);
                free((void *)n->subnets);
                free((void *)n->subnets6);
                free((void *)n->beyond);
        }
        for (unsigned i = 0; i < p->nrouters; i++) {
                free((void *)p->routers[i].legs);
                free((void *)p->routers[i].routes);
                free((void *)p->routers[i].forwards);
        }
        free((void *)p->routers);
        free((void *)p->networks);
        free(p);
}
