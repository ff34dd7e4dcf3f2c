/* Networks: what guests are plugged into. */
#include "control/network.h"

int networks_check(struct control *c, struct err **e)
{
        if (c->cfg.network)
                return 0;
        err_set(e, -ENOTSUP, "this cloud has no networks: its daemon does not run as root");
        return err_hint(e,
                        "bridges and network namespaces are made by root; run strato up as root");
}

/* The smallest number above 255 that no network of the cloud has: its uplink is
 * 169.254.N/256.N%256. */
static uint16_t free_uplink(struct control *c)
{
        static const unsigned first = 256, end = 65280;
        uint8_t *used = xcalloc(end / 8, 1);
        struct object *o, *tmp;
        unsigned n;

        used[(169 << 8 | 254) / 8] |= 1
                                      << (254 % 8); /* 169.254.169.254 is the metadata service's */
        HASH_ITER (hh_no, c->by_no, o, tmp)
                if (o->kind == &kind_network && object_num(o, "uplink") < end)
                        used[object_num(o, "uplink") / 8] |= 1 << object_num(o, "uplink") % 8;
        for (n = first; n < end && used[n / 8] & 1 << n % 8; n++)
                ;
        free(used);
        return n < end ? n : 0;
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->tenant, &kind_network);
        int r = networks_check(t->c, e);

        if (r < 0)
                return r;
        if (l && l->n > NETWORKS_MAX)
                return err_set(e, -EDQUOT, "networks of a tenant: limit=%d used=%zu wanted=1",
                               NETWORKS_MAX, l->n - 1);
        txn_set_num(t, o, "uplink", free_uplink(t->c));
        return 0;
}

static int remove_network(struct txn *t, struct object *o, struct err **e)
{
        struct collection *ports = model_collection(t->c, o, &kind_port);
        struct collection *subnets = model_collection(t->c, o, &kind_subnet);
        struct object *user;
        char label[NAME_SIZE + 32];

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
        {"type", ATTR_WORD, ROLE_MEMBER, .words = "local", .def = "local", .index = true,
         .help = "local: within this host"},
        {"mtu", ATTR_NUMBER, ROLE_MEMBER, .min = 576, .max = 65535, .def = "1500", .index = true,
         .help = "bytes of a packet"},
        {"external", ATTR_BOOL, ROLE_MEMBER, .def = "1", .index = true,
         .help = "1: its guests reach the outside, by the host and as the host"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"uplink", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "number of its way out"},
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
