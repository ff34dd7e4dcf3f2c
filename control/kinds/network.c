/* Networks: what guests are plugged into. */
#include "control/network.h"

enum { SEGMENT_OWN = 1 << 23 }; /* from here on they are chosen by the cloud */

int networks_check(struct control *c, struct err **e)
{
        if (c->cfg.network)
                return 0;
        err_set(e, -ENOTSUP, "this cloud has no networks: its daemon does not run as root");
        return err_hint(e, -ENOTSUP,
                        "bridges and network namespaces are made by root; run strato up as root");
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->tenant, &kind_network);
        int r = networks_check(t->c, e);
        uint16_t number;

        if (r < 0)
                return r;
        if (l && l->n > NETWORKS_MAX)
                return err_set(e, -EDQUOT, "networks of a tenant: limit=%d used=%zu wanted=1",
                               NETWORKS_MAX, l->n - 1);
        number = network_number(t->c);
        if (!number)
                return err_set(e, -EAGAIN,
                               "no number for its way out is at hand: this host takes more of them "
                               "within seconds, if the cloud has any");
        txn_set_num(t, o, "uplink", number);
        return 0;
}

/* --- what it is made of ---------------------------------------------------------------------- */

/* A number that no VXLAN of the cloud has.  The network's own, which no other host gives; what
 * admins write is below. */
static uint32_t free_segment(struct control *c, const struct object *o)
{
        uint32_t n = o->no & (SEGMENT_OWN - 1);
        struct object *x, *tmp;
        bool taken;

        do {
                taken = false;
                HASH_ITER (hh_no, c->by_no, x, tmp)
                        taken |= x->kind == &kind_network && x != o &&
                                 object_num(x, "segment") == (SEGMENT_OWN | n);
                n = taken ? (n + 1) & (SEGMENT_OWN - 1) : n;
        } while (taken);
        return SEGMENT_OWN | n;
}

static int set_type(struct txn *t, struct object *o, union value v, struct err **e)
{
        static const char *const names[] = {"local", "flat", "vlan", "vxlan", "gre"};
        struct collection *ports = model_collection(t->c, o, &kind_port);
        struct collection *subnets = model_collection(t->c, o, &kind_subnet);
        unsigned type = 0;
        int r = 0;

        while (!streq(names[type], v.s))
                type++;
        if (ports && ports->n)
                return err_set(e, -EBUSY, "it has ports: %s", ports->v[0]->name);
        if (type == NET_FLAT || type == NET_VLAN)
                r = authorise(t->c, t->who, o, ROLE_ADMIN, "a network outside", e);
        if (r == 0)
                r = networks_type(t->c, type, v.s, e);
        for (size_t i = 0; r == 0 && subnets && i < subnets->n; i++)
                if ((type == NET_FLAT || type == NET_VLAN) &&
                    strchr(object_str(subnets->v[i], "cidr"), ':'))
                        r = err_set(e, -EINVAL, "subnet '%s' is IPv6, which is for networks within",
                                    subnets->v[i]->name);
        if (r < 0)
                return r;
        if (type == NET_VXLAN && object_num(o, "mtu") == 1500)
                txn_set_num(t, o, "mtu", 1450); /* what the tunnel puts around it takes 50 */
        if (type == NET_VXLAN && object_num(o, "segment") == 0)
                txn_set_num(t, o, "segment", free_segment(t->c, o));
        txn_set_str(t, o, "type", v.s);
        return 0;
}

/* What is made stays as it is. */
static int check_unused(struct txn *t, struct object *o, struct err **e)
{
        struct collection *ports = model_collection(t->c, o, &kind_port);

        if (ports && ports->n)
                return err_set(e, -EBUSY, "it has ports: %s", ports->v[0]->name);
        return 0;
}

static int set_physical(struct txn *t, struct object *o, union value v, struct err **e)
{
        int r = check_unused(t, o, e);

        if (r == 0)
                txn_set_str(t, o, "physical", v.s);
        return r;
}

static int set_segment(struct txn *t, struct object *o, union value v, struct err **e)
{
        bool vlan = streq(object_str(o, "type"), "vlan");
        struct object *x, *tmp;

        if (check_unused(t, o, e) < 0)
                return -EBUSY;
        if (vlan && (v.u < 1 || v.u > 4094))
                return err_set(e, -EINVAL, "a VLAN's tag is 1 to 4094");
        if (!vlan && v.u >= SEGMENT_OWN)
                return err_set(e, -EINVAL, "from %d on numbers are the cloud's to give",
                               SEGMENT_OWN);
        HASH_ITER (hh_no, t->c->by_no, x, tmp)
                if (x->kind == &kind_network && x != o && object_num(x, "segment") == v.u &&
                    streq(object_str(x, "type"), object_str(o, "type")) &&
                    (!vlan || streq(object_str(x, "physical"), object_str(o, "physical"))))
                        return err_set(e, -EEXIST, "another network has that segment");
        txn_set_num(t, o, "segment", v.u);
        return 0;
}

static int set_shared(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *ports = model_collection(t->c, o, &kind_port);

        for (size_t i = 0; !v.u && ports && i < ports->n; i++)
                if (ports->v[i]->tenant != o->tenant)
                        return err_set(e, -EBUSY, "tenant '%s' has a port in it",
                                       ports->v[i]->tenant->name);
        for (unsigned i = 0; !v.u && i < o->nrefs; i++)
                if (o->refs[i]->tenant != o->tenant)
                        return err_set(e, -EBUSY, "tenant '%s' has a router to it",
                                       o->refs[i]->tenant->name);
        txn_set_num(t, o, "shared", v.u);
        return 0;
}

bool network_physical(const struct object *o)
{
        const char *type = object_str(o, "type");

        return streq(type, "flat") || streq(type, "vlan");
}

struct object *network_router(const struct object *o)
{
        for (unsigned i = 0; i < o->nrefs; i++) {
                struct object *r = o->refs[i];

                if (r->kind != &kind_router)
                        continue;
                object_foreach_link (l, r)
                        if (l->target == o && (int)l->def == kind_link(&kind_router, "networks"))
                                return r;
        }
        return NULL;
}

static int remove_network(struct txn *t, struct object *o, struct err **e)
{
        struct collection *ports = model_collection(t->c, o, &kind_port);
        struct collection *subnets = model_collection(t->c, o, &kind_subnet);
        struct object *user;
        char label[NAME_SIZE + 32];
        int r = check_referrers(o, e);

        if (r < 0)
                return r;
        if (ports && ports->n) {
                user = port_instance(ports->v[0]);
                return err_set(e, -EBUSY, "it has ports: %s%s%s%s", ports->v[0]->name,
                               user ? " of " : "", user ? object_label(user, label) : "",
                               ports->n > 1 ? " and more" : "");
        }
        while (subnets && subnets->n)
                txn_delete(t, subnets->v[subnets->n - 1]);
        txn_delete(t, o);
        return 0;
}

static const struct attr_def attrs[] = {
        {"type", ATTR_WORD, ROLE_MEMBER, .words = "local flat vlan vxlan gre", .def = "local",
         .index = true, .set = set_type,
         .help = "local: within each host; vxlan: over hosts; flat, vlan: a network outside, for "
                 "admins"},
        {"mtu", ATTR_NUMBER, ROLE_MEMBER, .min = 1280, .max = 65521, .def = "1500", .index = true,
         .help = "bytes of a packet"},
        {"segment", ATTR_NUMBER, ROLE_ADMIN, .max = 16777215, .set = set_segment,
         .help = "vlan: its tag; vxlan: its number, the cloud's choice unless written"},
        {"physical", ATTR_NAME, ROLE_ADMIN, .set = set_physical,
         .help = "flat, vlan: name of the network outside, as a host.s `physical` has it"},
        {"external", ATTR_BOOL, ROLE_MEMBER, .def = "1", .index = true,
         .help = "1: its guests reach the outside, by the host and as the host; and routers may "
                 "have it as gateway"},
        {"shared", ATTR_BOOL, ROLE_ADMIN, .index = true, .set = set_shared,
         .help = "1: guests and routers of other tenants may be in it"},
        {"open_ports", ATTR_BOOL, ROLE_ADMIN,
         .help = "1: its ports may do without security: see `security` of a port"},
        {"rate", ATTR_SIZE, ROLE_ADMIN, .max_word = true, .min = 1000, .def = "max",
         .help = "bytes a second of its way out, which the floors of its ports share"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"uplink", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "number of its way out"},
};

static const struct file_def files[] = {
        {"topology", FILE_TEXT, ROLE_NOBODY, .render = network_render_topology,
         .help = "what is in it and where it leads"},
        {"topology.dot", FILE_TEXT, ROLE_NOBODY, .render = network_render_graph,
         .help = "the same for Graphviz: dot -Tsvg topology.dot"},
};

static const struct state_def states[] = {
        {"active", .help = "may be used"},
};

const struct kind kind_network = {
        .name = "network",
        .plural = "networks",
        .help = "What guests are plugged into: give it a subnet, then ln -s it into an instance.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .create = create,
        .remove = remove_network,
};

/* --- what a tenant begins with --------------------------------------------------------------- */

static const char *const default_rules = "out any\nin any from group default\n";

int network_seed(struct txn *t, struct object *tenant, struct err **e)
{
        struct object *group, *network, *subnet;
        int r;

        if (!t->c->cfg.network || model_by_name(t->c, tenant, &kind_security_group, "default"))
                return 0;
        r = txn_create(t, &kind_security_group, tenant, "default", &group, e);
        if (r < 0)
                return r;
        txn_set_str(t, group, "text", default_rules);
        if (model_by_name(t->c, tenant, &kind_network, "default"))
                return 0;
        r = txn_create(t, &kind_network, tenant, "default", &network, e);
        if (r == 0)
                r = create(t, network, e);
        if (r == 0)
                r = txn_create(t, &kind_subnet, network, "default", &subnet, e);
        return r < 0 ? r
                     : action_set(t, subnet, kind_attr(&kind_subnet, "cidr"), "10.0.0.0/24", 11, e);
}

bool network_only_seeds(struct control *c, const struct object *tenant, const struct kind *k)
{
        struct collection *l = model_collection(c, tenant, k), *ports;

        if (k == &kind_security_group)
                return l->n == 1 && streq(l->v[0]->name, "default");
        if (k != &kind_network || l->n != 1 || !streq(l->v[0]->name, "default"))
                return false;
        ports = model_collection(c, l->v[0], &kind_port);
        return !ports || ports->n == 0;
}

void network_drop_seeds(struct txn *t, struct object *tenant)
{
        struct object *n = model_by_name(t->c, tenant, &kind_network, "default");
        struct object *g = model_by_name(t->c, tenant, &kind_security_group, "default");

        if (n)
                remove_network(t, n, NULL);
        if (g)
                txn_delete(t, g);
}
