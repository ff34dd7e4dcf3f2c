/* Subnets: addresses of a network. */
#include "control/network.h"

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_subnet);

        if (l && l->n > SUBNETS_MAX)
                return err_set(e, -EDQUOT, "subnets of a network: limit=%d used=%zu wanted=1",
                               SUBNETS_MAX, l->n - 1);
        return 0;
}

static bool cidr_of(const struct object *o, uint32_t *a, unsigned *prefix)
{
        const char *s = object_str(o, "cidr");

        return *s && cidr_parse(s, strlen(s), a, prefix, NULL) == 0;
}

/* A port of the network that has an address in it, NULL if none. */
static struct object *user_of(struct control *c, const struct object *o)
{
        struct collection *l = model_collection(c, o->holder, &kind_port);
        uint32_t a, x;
        unsigned prefix;

        if (!cidr_of(o, &a, &prefix))
                return NULL;
        for (size_t i = 0; l && i < l->n; i++) {
                const char *s = object_str(l->v[i], "address");

                if (address_parse(s, strlen(s), &x) && (x & network_mask(prefix)) == a)
                        return l->v[i];
        }
        return NULL;
}

static int set_cidr(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_subnet);
        struct object *user = user_of(t->c, o);
        char gateway[ADDRESS_TEXT_SIZE];
        const char *s = v.s ?: "";
        uint32_t a, b;
        unsigned prefix, other;
        int r = cidr_parse(s, strlen(s), &a, &prefix, e);

        if (r < 0)
                return r;
        if (prefix < 8 || prefix > 29)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s), "a subnet is a /8 to a /29");
        if (a >> 24 == 127 || a >> 28 >= 14 || a >> 24 == 0 || a >> 16 == 0xa9fe)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "these addresses have another use");
        if (user)
                return err_set(e, -EBUSY, "port '%s' has an address in it", user->name);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i] != o && cidr_of(l->v[i], &b, &other) &&
                    ((a ^ b) & network_mask(MIN(prefix, other))) == 0)
                        return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                                      "subnet '%s' of this network has %s", l->v[i]->name,
                                      object_str(l->v[i], "cidr"));
        txn_set_str(t, o, "cidr", s);
        txn_set_str(t, o, "gateway", network_address(gateway, a + 1));
        txn_set_str(t, o, "pools", NULL);
        txn_set_state(t, o, SUBNET_ACTIVE);
        return 0;
}

static int set_gateway(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *user = user_of(t->c, o);
        const char *s = v.s ?: "";
        uint32_t a, g;
        unsigned prefix;

        if (!cidr_of(o, &a, &prefix))
                return err_set(e, -EINVAL, "its cidr comes first");
        if (!address_parse(s, strlen(s), &g) || (g & network_mask(prefix)) != a || g == a ||
            g == (a | ~network_mask(prefix)))
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "a gateway is an address in %s", object_str(o, "cidr"));
        if (user)
                return err_set(e, -EBUSY, "port '%s' has an address in it", user->name);
        txn_set_str(t, o, "gateway", s);
        return 0;
}

static int set_dns(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "", *p = s, *w;
        unsigned count = 0;
        uint32_t a;
        size_t n;

        while ((w = word_next(&p, &n)))
                if (!address_parse(w, n, &a) || ++count > DNS_MAX)
                        return err_at(e, -EINVAL, s, strlen(s), w - s, n,
                                      "dns is at most %d addresses", DNS_MAX);
        txn_set_str(t, o, "dns", s);
        return 0;
}

static int set_pools(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "", *p = s, *w;
        uint32_t a, from, to;
        unsigned prefix;
        size_t n;

        if (!cidr_of(o, &a, &prefix))
                return err_set(e, -EINVAL, "its cidr comes first");
        while ((w = word_next(&p, &n))) {
                const char *dash = memchr(w, '-', n);

                if (!dash || !address_parse(w, dash - w, &from) ||
                    !address_parse(dash + 1, n - (dash + 1 - w), &to) || from > to ||
                    (from & network_mask(prefix)) != a || (to & network_mask(prefix)) != a)
                        return err_at(e, -EINVAL, s, strlen(s), w - s, n,
                                      "a pool is FIRST-LAST, both in %s", object_str(o, "cidr"));
        }
        txn_set_str(t, o, "pools", s);
        return 0;
}

static int remove_subnet(struct txn *t, struct object *o, struct err **e)
{
        struct object *user = user_of(t->c, o);

        if (user)
                return err_set(e, -EBUSY, "port '%s' has an address in it", user->name);
        txn_delete(t, o);
        return 0;
}

static const struct attr_def attrs[] = {
        {"cidr", ATTR_TEXT, ROLE_MEMBER, .max = 18, .index = true, .set = set_cidr,
         .help = "its addresses, like 10.0.0.0/24; IPv4"},
        {"gateway", ATTR_TEXT, ROLE_MEMBER, .max = 15, .index = true, .set = set_gateway,
         .help = "the router's address in it; the first one unless written"},
        {"dns", ATTR_TEXT, ROLE_MEMBER, .max = 80, .set = set_dns,
         .help = "servers that answer for names from outside; empty: those of the host"},
        {"pools", ATTR_TEXT, ROLE_MEMBER, .max = 500, .set = set_pools,
         .help = "FIRST-LAST ...: where addresses are taken from; empty: everywhere"},
        {"dhcp", ATTR_BOOL, ROLE_MEMBER, .def = "1", .help = "1: guests get their address by DHCP"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct state_def states[] = {
        {"draft", .help = "without a cidr"},
        {"active", .help = "may be used"},
};

const struct kind kind_subnet = {
        .name = "subnet",
        .plural = "subnets",
        .inside = "network",
        .help = "Addresses of the network: echo 10.1.0.0/24 > cidr.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
        .remove = remove_subnet,
};
