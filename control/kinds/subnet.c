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

uint32_t subnet_server(const struct object *o)
{
        unsigned prefix;
        uint32_t a;

        return cidr_of(o, &a, &prefix) ? (a | ~network_mask(prefix)) - 1 : 0;
}

static bool cidr6_of(const struct object *o, struct in6_addr *a)
{
        const char *s = object_str(o, "cidr");
        unsigned prefix;

        return cidr6_parse(s, strlen(s), a, &prefix);
}

static bool in_net6(const struct in6_addr *a, const struct in6_addr *net)
{
        return memcmp(a, net, 8) == 0; /* it is a /64 */
}

/* A port of the network, or a router that goes out by it, that has an address in it; NULL if none.
 */
static struct object *user_of(struct control *c, const struct object *o)
{
        struct collection *l = model_collection(c, o->holder, &kind_port);
        struct in6_addr six, y;
        uint32_t a, x;
        unsigned prefix;

        if (cidr6_of(o, &six)) {
                for (size_t i = 0; l && i < l->n; i++) {
                        const char *s = object_str(l->v[i], "address6");

                        struct object *user = port_instance(l->v[i]);

                        if (address6_parse(s, strlen(s), &y) && in_net6(&y, &six) && user &&
                            instance_plugged(user))
                                return l->v[i];
                }
                return NULL;
        }
        if (!cidr_of(o, &a, &prefix))
                return NULL;
        for (size_t i = 0; l && i < l->n; i++) {
                const char *s = object_str(l->v[i], "address");

                if (address_parse(s, strlen(s), &x) && (x & network_mask(prefix)) == a)
                        return l->v[i];
        }
        for (unsigned i = 0; i < o->holder->nrefs; i++) {
                struct object *r = o->holder->refs[i];
                const char *s = object_str(r, "address");

                if (r->kind == &kind_router && router_gateway(r) == o->holder &&
                    address_parse(s, strlen(s), &x) && (x & network_mask(prefix)) == a)
                        return r;
        }
        return NULL;
}

static int in_use(const struct object *user, struct err **e)
{
        char label[NAME_SIZE + 32];

        return err_set(e, -EBUSY, "%s has an address in it", object_label(user, label));
}

int subnet_check_router(struct control *c, const struct object *o, const char *s,
                        const struct object *router, struct err **e)
{
        struct in6_addr six, other6;
        unsigned prefix = 0, other;
        uint32_t a = 0, b;
        bool is6 = cidr6_parse(s, strlen(s), &six, &prefix);

        if (!router || (!is6 && cidr_parse(s, strlen(s), &a, &prefix, NULL) < 0))
                return 0;
        object_foreach_link (l, router) {
                struct collection *subnets = model_collection(c, l->target, &kind_subnet);

                for (size_t i = 0; subnets && i < subnets->n; i++)
                        if (subnets->v[i] != o &&
                            (is6 ? cidr6_of(subnets->v[i], &other6) && in_net6(&six, &other6)
                                 : cidr_of(subnets->v[i], &b, &other) &&
                                             ((a ^ b) & network_mask(MIN(prefix, other))) == 0))
                                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                                              "router '%s' leads to network '%s' with %s",
                                              router->name, l->target->name,
                                              object_str(subnets->v[i], "cidr"));
        }
        return 0;
}

/* The network's ports have an address in it from now on, or none. */
static void addresses6(struct txn *t, struct object *o, bool none)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_port);

        for (size_t i = 0; l && i < l->n; i++)
                if (none && l->v[i]->tenant == o->tenant)
                        txn_set_str(t, l->v[i], "address6", NULL);
                else if (l->v[i]->tenant == o->tenant)
                        port_derive6(t, l->v[i]);
}

static int set_cidr6(struct txn *t, struct object *o, const char *s, struct err **e)
{
        const char *type = object_str(o->holder, "type");
        struct collection *l = model_collection(t->c, o->holder, &kind_subnet);
        struct object *user = user_of(t->c, o);
        char text[ADDRESS6_TEXT_SIZE];
        struct in6_addr a, other;
        unsigned prefix;
        int r;

        if (!cidr6_parse(s, strlen(s), &a, &prefix) || prefix != 64)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "an IPv6 subnet is a /64, like fd00:0:0:1::/64");
        if (IN6_IS_ADDR_MULTICAST(&a) || IN6_IS_ADDR_LINKLOCAL(&a) || a.s6_addr[0] == 0)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "these addresses have another use");
        if (streq(type, "flat") || streq(type, "vlan"))
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "IPv6 is for networks within, and '%s' is of type %s",
                              o->holder->name, type);
        if (user)
                return in_use(user, e);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i] != o && cidr6_of(l->v[i], &other)) /* a port has one address of each */
                        return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                                      "subnet '%s' of this network is IPv6 already: %s",
                                      l->v[i]->name, object_str(l->v[i], "cidr"));
        r = subnet_check_router(t->c, o, s, network_router(o->holder), e);
        if (r < 0)
                return r;
        txn_set_str(t, o, "cidr", s);
        a.s6_addr[15] = 1;
        txn_set_str(t, o, "gateway", network_address6(text, &a));
        txn_set_str(t, o, "pools", NULL);
        txn_set_str(t, o, "route_text", NULL);
        txn_set_state(t, o, SUBNET_ACTIVE);
        addresses6(t, o, false);
        return 0;
}

static int set_cidr(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_subnet);
        struct object *user = user_of(t->c, o);
        char gateway[ADDRESS_TEXT_SIZE];
        const char *s = v.s ?: "";
        uint32_t a, b;
        unsigned prefix, other;
        int r;

        if (strchr(s, ':'))
                return set_cidr6(t, o, s, e);
        r = cidr_parse(s, strlen(s), &a, &prefix, e);
        if (r < 0)
                return r;
        if (prefix < 8 || prefix > 29)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s), "a subnet is a /8 to a /29");
        if (a >> 24 == 127 || a >> 28 >= 14 || a >> 24 == 0 || a >> 16 == 0xa9fe)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "these addresses have another use");
        if (user)
                return in_use(user, e);
        for (size_t i = 0; i < l->n; i++)
                if (l->v[i] != o && cidr_of(l->v[i], &b, &other) &&
                    ((a ^ b) & network_mask(MIN(prefix, other))) == 0)
                        return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                                      "subnet '%s' of this network has %s", l->v[i]->name,
                                      object_str(l->v[i], "cidr"));
        r = subnet_check_router(t->c, o, s, network_router(o->holder), e);
        if (r < 0)
                return r;
        txn_set_str(t, o, "cidr", s);
        txn_set_str(t, o, "gateway", network_address(gateway, a + 1));
        txn_set_str(t, o, "route_text", NULL);
        txn_set_str(t, o, "pools", NULL);
        txn_set_state(t, o, SUBNET_ACTIVE);
        return 0;
}

static int set_gateway(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *user = user_of(t->c, o);
        const char *s = v.s ?: "";
        struct in6_addr net6, g6;
        uint32_t a, g;
        unsigned prefix;

        if (cidr6_of(o, &net6)) {
                if (!address6_parse(s, strlen(s), &g6) || !in_net6(&g6, &net6))
                        return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                                      "a gateway is an address in %s", object_str(o, "cidr"));
                if (user)
                        return in_use(user, e);
                txn_set_str(t, o, "gateway", s);
                return 0;
        }
        if (!cidr_of(o, &a, &prefix))
                return err_set(e, -EINVAL, "its cidr comes first");
        if (!address_parse(s, strlen(s), &g) || (g & network_mask(prefix)) != a || g == a ||
            g == (a | ~network_mask(prefix)))
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "a gateway is an address in %s", object_str(o, "cidr"));
        if (user)
                return in_use(user, e);
        txn_set_str(t, o, "gateway", s);
        return 0;
}

static int set_ipv6(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct in6_addr net;
        struct object *user = cidr6_of(o, &net) ? user_of(t->c, o) : NULL;

        if (user)
                return in_use(user, e);
        txn_set_str(t, o, "ipv6", v.s);
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

/* --- routes ---------------------------------------------------------------------------------- */

static void render_routes(struct control *c, const struct object *o, struct buf *out)
{
        buf_addstr(out, object_str(o, "route_text"));
}

static int lines(const char *text)
{
        int n = 0;

        while ((text = strchr(text, '\n'))) {
                text++;
                n++;
        }
        return n;
}

static int write_route(struct txn *t, struct object *o, const char *line, struct err **e)
{
        const char *gateway = object_str(o, "gateway");
        bool less = *line == '-';
        struct net_route x;
        unsigned prefix;
        uint32_t net, g;
        int r;

        if (*line == '-' || *line == '+')
                line += 1 + strspn(line + 1, " \t");
        r = route_parse(line, &x, e);
        if (r == 0 && !less &&
            (!cidr_of(o, &net, &prefix) || (x.via & network_mask(prefix)) != net))
                r = err_at(e, -EINVAL, line, strlen(line), 0, strlen(line),
                           "the next hop is not in %s", object_str(o, "cidr"));
        if (r == 0 && !less &&
            (x.via == net || x.via == (net | ~network_mask(prefix)) ||
             (address_parse(gateway, strlen(gateway), &g) && x.via == g)))
                r = err_at(e, -EINVAL, line, strlen(line), 0, strlen(line),
                           "the next hop is not a guest's address");
        if (r == 0 && !less && lines(object_str(o, "route_text")) >= SUBNET_ROUTES_MAX)
                r = err_set(e, -EDQUOT, "routes of a subnet, which DHCP has to tell: limit=%d",
                            SUBNET_ROUTES_MAX);
        return r < 0 ? r : route_change(t, o, &x, less, e);
}

static int remove_subnet(struct txn *t, struct object *o, struct err **e)
{
        struct object *user = user_of(t->c, o);

        if (user)
                return in_use(user, e);
        if (strchr(object_str(o, "cidr"), ':'))
                addresses6(t, o, true);
        txn_delete(t, o);
        return 0;
}

static const struct attr_def attrs[] = {
        {"cidr", ATTR_TEXT, ROLE_MEMBER, .max = 43, .index = true, .set = set_cidr,
         .help = "its addresses, like 10.0.0.0/24 or fd00:0:0:1::/64"},
        {"gateway", ATTR_TEXT, ROLE_MEMBER, .max = 45, .index = true, .set = set_gateway,
         .help = "the router's address in it; the first one unless written"},
        {"dns", ATTR_TEXT, ROLE_MEMBER, .max = 80, .set = set_dns,
         .help = "servers that answer for names from outside; empty: those of the host"},
        {"pools", ATTR_TEXT, ROLE_MEMBER, .max = 500, .set = set_pools,
         .help = "FIRST-LAST ...: where addresses are taken from; empty: everywhere"},
        {"dhcp", ATTR_BOOL, ROLE_MEMBER, .def = "1", .help = "1: guests get their address by DHCP"},
        {"ipv6", ATTR_WORD, ROLE_MEMBER, .words = "slaac dhcp none", .def = "slaac",
         .set = set_ipv6,
         .help = "IPv6: guests make their address of their MAC, or get it by DHCPv6, or by hand"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"route_text", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "its routes"},
};

static const struct file_def files[] = {
        {"routes", FILE_LINES, ROLE_MEMBER, .render = render_routes, .write = write_route,
         .help = "what is behind guests in it: `10.9.0.0/16 via 10.0.0.9`; DHCP tells the others; "
                 "`- ROUTE` takes one away"},
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
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .create = create,
        .remove = remove_subnet,
};
