/* `topology` of a network: what is in it and where it leads. */
#include "control/network.h"

static void subnet_line(const struct object *s, struct buf *out)
{
        buf_printf(out, "subnet %s cidr=%s gateway=%s\n", s->name, object_str(s, "cidr"),
                   object_str(s, "gateway"));
}

static const struct object *float_of(const struct object *o)
{
        for (unsigned i = 0; o && i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_floating_ip)
                        return o->refs[i];
        return NULL;
}

static void port_line(const struct object *p, struct buf *out)
{
        const struct object *i = port_instance(p), *f = float_of(p) ?: float_of(i);

        buf_printf(out, "port %s address=%s", p->name, object_str(p, "address"));
        if (*object_str(p, "address6"))
                buf_printf(out, " address6=%s", object_str(p, "address6"));
        if (i)
                buf_printf(out, " instance=%s state=%s", i->name, object_state(i));
        if (i && *object_str(i, "host"))
                buf_printf(out, " host=%s", object_str(i, "host"));
        if (f)
                buf_printf(out, " floating=%s", object_str(f, "address"));
        buf_addc(out, '\n');
}

static void router_line(const struct object *r, struct buf *out)
{
        const struct object *g = router_gateway(r);

        buf_printf(out, "router %s", r->name);
        object_foreach_link (l, r)
                if ((int)l->def == kind_link(r->kind, "networks"))
                        buf_printf(out, " network=%s", l->target->name);
        if (g)
                buf_printf(out, " gateway=%s address=%s", g->name, object_str(r, "address"));
        buf_addc(out, '\n');
}

void network_render_topology(struct control *c, const struct object *o, struct buf *out)
{
        struct collection *subnets = model_collection(c, o, &kind_subnet);
        struct collection *ports = model_collection(c, o, &kind_port);

        buf_printf(out, "network %s type=%s mtu=%" PRIu64 "%s\n", o->name, object_str(o, "type"),
                   object_num(o, "mtu"), object_num(o, "external") ? " external" : "");
        for (size_t i = 0; subnets && i < subnets->n; i++)
                subnet_line(subnets->v[i], out);
        for (unsigned i = 0; i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_router && o->refs[i]->tenant == o->tenant)
                        router_line(o->refs[i], out);
        for (size_t i = 0; ports && i < ports->n; i++)
                port_line(ports->v[i], out);
}

/* Names have no quotes in them. */
static void graph_router(const struct object *o, const struct object *r, struct buf *out)
{
        const struct object *g = router_gateway(r);

        buf_printf(out, "\t\"router %s\" [shape=diamond];\n", r->name);
        object_foreach_link (l, r)
                if ((int)l->def == kind_link(r->kind, "networks"))
                        buf_printf(out, "\t\"network %s\" -- \"router %s\";\n", l->target->name,
                                   r->name);
        if (g)
                buf_printf(out, "\t\"router %s\" -- \"network %s\" [label=\"%s\"];\n", r->name,
                           g->name, object_str(r, "address"));
}

void network_render_graph(struct control *c, const struct object *o, struct buf *out)
{
        struct collection *subnets = model_collection(c, o, &kind_subnet);
        struct collection *ports = model_collection(c, o, &kind_port);

        buf_printf(out, "graph \"%s\" {\n\t\"network %s\" [shape=box, label=\"%s", o->name, o->name,
                   o->name);
        for (size_t i = 0; subnets && i < subnets->n; i++)
                buf_printf(out, "\\n%s", object_str(subnets->v[i], "cidr"));
        buf_addstr(out, "\"];\n");
        if (object_num(o, "external") && !network_router(o))
                buf_printf(out, "\t\"network %s\" -- \"outside\";\n", o->name);
        for (unsigned i = 0; i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_router && o->refs[i]->tenant == o->tenant)
                        graph_router(o, o->refs[i], out);
        for (size_t i = 0; ports && i < ports->n; i++) {
                const struct object *g = port_instance(ports->v[i]), *p = ports->v[i];

                buf_printf(out, "\t\"%s %s\" -- \"network %s\" [label=\"%s\"];\n",
                           g ? "instance" : "port", g ? g->name : p->name, o->name,
                           *object_str(p, "address") ? object_str(p, "address")
                                                     : object_str(p, "address6"));
        }
        buf_addstr(out, "}\n");
}
