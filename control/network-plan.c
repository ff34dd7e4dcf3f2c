/* What this host should have of networks, from the model. */
#include "control/hosts.h"
#include "control/network.h"

bool instance_plugged(const struct object *o)
{
        return !object_in(o, STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) |
                                     STATE(INSTANCE_DELETING) | STATE(INSTANCE_ERROR) |
                                     STATE(INSTANCE_SUSPENDED) | STATE(INSTANCE_SHELVED));
}

static bool plugged_here(struct control *c, const struct object *o)
{
        return o && instance_plugged(o) && (feed_ours(c, o) || host_expects(o, c->cfg.host));
}

/* A network that is being put together. */
struct draft {
        struct control *c;
        struct net_network *n;
        struct object *tenant;
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
                struct object *g = model_by_name(d->c, d->tenant, &kind_security_group, "default");

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
        /* One that is still on its way has it where it is. */
        const struct object *i = port_instance(port),
                            *f = p->live && d->n->uplink && i && feed_ours(d->c, i)
                                         ? floating(port)
                                         : NULL;
        const char *s = f ? object_str(f, "address") : "";
        struct net_float *v, x = {.port = p->address};

        if (!address_parse(s, strlen(s), &x.address))
                return;
        v = xrealloc((void *)d->n->floats, d->n->nfloats + 1, sizeof(*v));
        v[d->n->nfloats++] = x;
        d->n->floats = v;
}

static void add_port(struct draft *d, const struct object *port)
{
        const struct object *i = port_instance(port);
        const char *address = object_str(port, "address");
        struct net_port *v = xrealloc((void *)d->n->ports, d->n->nports + 1, sizeof(*v)), *p;

        d->n->ports = v;
        p = &v[d->n->nports];
        *p = (struct net_port){.live = plugged_here(d->c, i)};
        if (!address_parse(address, strlen(address), &p->address))
                return;
        d->n->nports++;
        id_text(p->id, port->id);
        snprintf(p->mac, sizeof(p->mac), "%s", object_str(port, "mac"));
        snprintf(p->name, sizeof(p->name), "%s", i ? i->name : port->name);
        /* A name in DNS has no dots and underscores of its own. */
        for (char *s = p->name; *s; s++)
                if (*s == '.' || *s == '_')
                        *s = '-';
        add_groups(d, port, p);
        add_float(d, port, p);
}

static void add_subnet(struct draft *d, const struct object *s)
{
        const char *cidr = object_str(s, "cidr"), *g = object_str(s, "gateway");
        const char *dns = object_str(s, "dns"), *w;
        struct net_subnet *v, x = {.dhcp = object_num(s, "dhcp")};
        size_t n;

        if (cidr_parse(cidr, strlen(cidr), &x.address, &x.prefix, NULL) < 0 ||
            !address_parse(g, strlen(g), &x.gateway))
                return;
        while (x.ndns < ARRAY_SIZE(x.dns) && (w = word_next(&dns, &n)))
                x.ndns += address_parse(w, n, &x.dns[x.ndns]);
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
                        other = model_by_name(d->c, d->tenant, &kind_security_group, x.group);
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

static bool has_guests(struct control *c, const struct collection *ports)
{
        for (size_t i = 0; ports && i < ports->n; i++)
                if (plugged_here(c, port_instance(ports->v[i])))
                        return true;
        return false;
}

static void add_network(struct control *c, struct net_network *n, const struct object *o)
{
        struct collection *ports = model_collection(c, o, &kind_port);
        struct collection *subnets = model_collection(c, o, &kind_subnet);
        struct draft d = {.c = c, .n = n, .tenant = o->tenant};

        *n = (struct net_network){.mtu = object_num(o, "mtu"),
                                  .uplink =
                                          object_num(o, "external") ? object_num(o, "uplink") : 0};
        id_text(n->id, o->id);
        for (size_t i = 0; subnets && i < subnets->n; i++)
                add_subnet(&d, subnets->v[i]);
        for (size_t i = 0; i < ports->n; i++)
                add_port(&d, ports->v[i]);
        for (unsigned g = 0; g < n->ngroups; g++) /* it grows meanwhile */
                add_rules(&d, g);
        free(d.groups);
}

struct net_plan *network_plan(struct control *c)
{
        struct net_plan *p = xcalloc(1, sizeof(*p));
        struct net_network *v = NULL;
        struct object *o, *tmp;

        control_rdlock(c);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (o->kind != &kind_network || !has_guests(c, model_collection(c, o, &kind_port)))
                        continue;
                v = xrealloc(v, p->nnetworks + 1, sizeof(*v));
                add_network(c, &v[p->nnetworks++], o);
        }
        control_unlock(c);
        p->networks = v;
        return p;
}

void network_plan_free(struct net_plan *p)
{
        for (unsigned i = 0; i < p->nnetworks; i++) {
                const struct net_network *n = &p->networks[i];

                for (unsigned k = 0; k < n->nports; k++)
                        free((void *)n->ports[k].groups);
                for (unsigned k = 0; k < n->ngroups; k++)
                        free((void *)n->groups[k].rules);
                free((void *)n->ports);
                free((void *)n->groups);
                free((void *)n->floats);
                free((void *)n->subnets);
        }
        free((void *)p->networks);
        free(p);
}
