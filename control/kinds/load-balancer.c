/* Load balancers: an address in a network, and what listens there. */
#include "control/balancer.h"
#include "control/network.h"

struct object *port_balancer(const struct object *port)
{
        for (unsigned i = 0; i < port->nrefs; i++)
                if (port->refs[i]->kind == &kind_load_balancer)
                        return port->refs[i];
        return NULL;
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->tenant, &kind_load_balancer);
        int r = networks_check(t->c, e);

        if (r < 0)
                return r;
        if (access(HAPROXY, X_OK) < 0)
                return err_set(e, -ENOTSUP, "this host has no %s: install the package haproxy",
                               HAPROXY);
        if (l && l->n > BALANCERS_MAX)
                return err_set(e, -EDQUOT, "load balancers of a tenant: limit=%d used=%zu wanted=1",
                               BALANCERS_MAX, l->n - 1);
        owner_keep(t, o->tenant);
        return 0;
}

/* --- its network ----------------------------------------------------------------------------- */

static int bind_network(struct txn *t, struct object *o, char *name, struct object *target,
                        struct err **e)
{
        struct object *user;
        char label[NAME_SIZE + 32];

        if (target->tenant != o->tenant)
                return err_set(e, -EPERM, "a load balancer is in a network of its own tenant");
        if (target->kind != &kind_port)
                return 0;
        user = port_instance(target) ?: port_balancer(target);
        return user ? err_set(e, -EBUSY, "%s has the port", object_label(user, label)) : 0;
}

/* A link to a network makes a port in it, and goes there instead. */
static int bound_network(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        char name[NAME_SIZE];
        unsigned def = l->def;
        struct object *port;
        int r;

        if (l->target->kind == &kind_network) {
                r = port_create(t, l->target, o->tenant, o->name, o->no, &port, e);
                if (r < 0)
                        return r;
                snprintf(name, sizeof(name), "%s", l->name);
                txn_unlink(t, o, l);
                txn_link(t, o, def, name, port);
        }
        txn_set_state(t, o, BALANCER_ACTIVE);
        return 0;
}

static int unbind_network(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        struct collection *s = model_collection(t->c, o, &kind_listener);

        for (size_t i = 0; s && i < s->n; i++)
                if (s->v[i]->nlinks)
                        return err_set(e, -EBUSY, "listener '%s' has members in it", s->v[i]->name);
        instance_unlink_port(t, o, l);
        txn_set_state(t, o, BALANCER_DRAFT);
        return LINK_LATER; /* it is gone */
}

static void render_address(struct control *c, const struct object *o, struct buf *out)
{
        const struct object *port = object_target(o, "network");

        if (port && port->kind == &kind_port)
                buf_addstr(out, object_str(port, "address"));
}

static int remove_balancer(struct txn *t, struct object *o, struct err **e)
{
        struct collection *s = model_collection(t->c, o, &kind_listener);
        int r = check_referrers(o, e);

        if (r < 0)
                return r;
        while (s && s->n)
                listener_drop(t, s->v[s->n - 1]);
        while (o->nlinks)
                instance_unlink_port(t, o, &o->links[o->nlinks - 1]);
        txn_delete(t, o);
        return 0;
}

static const struct attr_def attrs[] = {
        {"address", ATTR_TEXT, ROLE_NOBODY, .render = render_address, .changes = true,
         .index = true, .help = "where it listens: that of its port"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct link_def links[] = {
        {"network", "network port", .bind = bind_network, .bound = bound_network,
         .unbind = unbind_network,
         .help = "where its address and its members are; a link to a network makes a port in it"},
};

static const struct file_def files[] = {
        {"stats", FILE_TEXT, ROLE_NOBODY, .render = balancers_stats,
         .help = "connections, bytes and what the checks say, a line for each listener and member"},
};

static const struct state_def states[] = {
        {"draft", .help = "in no network"},
        {"active", .help = "listens, if it has listeners"},
};

const struct kind kind_load_balancer = {
        .name = "load_balancer",
        .plural = "load_balancers",
        .help = "An address that spreads connections over guests: ln -s networks/default network, "
                "mkdir listeners/web.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .links = links,
        .nlinks = ARRAY_SIZE(links),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .create = create,
        .remove = remove_balancer,
};
