/* Ports: an address and a MAC in a network. */
#include "control/network.h"

/* --- addresses ------------------------------------------------------------------------------- */

struct range {
        uint32_t from, to;
};

static int by_number(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

static void use(uint32_t **v, size_t *n, const char *address)
{
        *v = xrealloc(*v, *n + 1, sizeof(**v));
        if (address_parse(address, strlen(address), &(*v)[*n]))
                (*n)++;
}

/* The addresses of the network that somebody has, in order: ports but one, gateways, routers that
 * go out by it, floating IPs; the caller frees. */
static uint32_t *used_addresses(struct control *c, const struct object *network,
                                const struct object *but, size_t *ret)
{
        struct collection *ports = model_collection(c, network, &kind_port);
        struct collection *subnets = model_collection(c, network, &kind_subnet);
        bool outside = network_physical(network);
        struct object *o, *tmp;
        uint32_t *v = NULL, a;
        size_t n = 0;

        for (size_t i = 0; ports && i < ports->n; i++)
                if (ports->v[i] != but)
                        use(&v, &n, object_str(ports->v[i], "address"));
        for (size_t i = 0; subnets && i < subnets->n; i++) {
                use(&v, &n, object_str(subnets->v[i], "gateway"));
                if (outside && (a = subnet_server(subnets->v[i]))) {
                        char text[ADDRESS_TEXT_SIZE];

                        use(&v, &n, network_address(text, a));
                }
        }
        for (unsigned i = 0; i < network->nrefs; i++)
                if (network->refs[i]->kind == &kind_router &&
                    router_gateway(network->refs[i]) == network)
                        use(&v, &n, object_str(network->refs[i], "address"));
        if (outside)
                HASH_ITER (hh_no, c->by_no, o, tmp)
                        if (o->kind == &kind_floating_ip)
                                use(&v, &n, object_str(o, "address"));
        if (n)
                qsort(v, n, sizeof(*v), by_number);
        *ret = n;
        return v;
}

/* The first free one of the range; 0: there is none. */
static uint32_t free_in(const uint32_t *used, size_t n, struct range r)
{
        uint64_t a = r.from;

        for (size_t i = 0; i < n && a <= r.to; i++)
                if (used[i] == a)
                        a++;
        return a <= r.to ? a : 0;
}

static uint32_t free_address(const uint32_t *used, size_t count, const struct object *subnet)
{
        const char *cidr = object_str(subnet, "cidr"), *pools = object_str(subnet, "pools"), *w;
        uint32_t a = 0, found = 0;
        unsigned prefix = 0;
        struct range r;
        size_t n;

        if (cidr_parse(cidr, strlen(cidr), &a, &prefix, NULL) < 0)
                return 0;
        r = (struct range){a + 1, (a | ~network_mask(prefix)) - 1};
        if (!*pools)
                found = free_in(used, count, r);
        while (!found && (w = word_next(&pools, &n))) {
                const char *dash = memchr(w, '-', n);
                struct range p;

                if (dash && address_parse(w, dash - w, &p.from) &&
                    address_parse(dash + 1, n - (dash + 1 - w), &p.to))
                        found = free_in(used, count,
                                        (struct range){MAX(p.from, r.from), MIN(p.to, r.to)});
        }
        return found;
}

uint32_t port_free_address(struct control *c, const struct object *network, bool *some)
{
        struct collection *subnets = model_collection(c, network, &kind_subnet);
        uint32_t *used, a = 0;
        size_t n;

        *some = false;
        used = used_addresses(c, network, NULL, &n);
        for (size_t i = 0; subnets && i < subnets->n && !a; i++)
                if (subnets->v[i]->state == SUBNET_ACTIVE &&
                    !strchr(object_str(subnets->v[i], "cidr"), ':')) {
                        *some = true;
                        a = free_address(used, n, subnets->v[i]);
                }
        free(used);
        return a;
}

struct object *network_subnet6(struct control *c, const struct object *network,
                               struct in6_addr *net)
{
        struct collection *l = model_collection(c, network, &kind_subnet);
        unsigned prefix;

        for (size_t i = 0; l && i < l->n; i++) {
                const char *s = object_str(l->v[i], "cidr");

                if (cidr6_parse(s, strlen(s), net, &prefix))
                        return l->v[i];
        }
        return NULL;
}

struct object *port_subnet(struct control *c, const struct object *port)
{
        struct collection *l = model_collection(c, port->holder, &kind_subnet);
        const char *s = object_str(port, "address");
        uint32_t a, net;
        unsigned prefix;

        if (!address_parse(s, strlen(s), &a))
                return NULL;
        for (size_t i = 0; l && i < l->n; i++) {
                const char *cidr = object_str(l->v[i], "cidr");

                if (cidr_parse(cidr, strlen(cidr), &net, &prefix, NULL) == 0 &&
                    (a & network_mask(prefix)) == net)
                        return l->v[i];
        }
        return NULL;
}

/* --- making ---------------------------------------------------------------------------------- */

struct object *port_instance(const struct object *port)
{
        for (unsigned i = 0; i < port->nrefs; i++)
                if (port->refs[i]->kind == &kind_instance)
                        return port->refs[i];
        return NULL;
}

void port_derive6(struct txn *t, struct object *o)
{
        char text[ADDRESS6_TEXT_SIZE];
        struct in6_addr net, a;

        if (network_subnet6(t->c, o->holder, &net) && network_eui64(&a, &net, object_str(o, "mac")))
                txn_set_str(t, o, "address6", network_address6(text, &a));
}

/* Gives the port addresses and a MAC. */
static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *ports = model_collection(t->c, o->holder, &kind_port);
        char text[ADDRESS_TEXT_SIZE], mac[MAC_TEXT_SIZE];
        struct in6_addr net;
        bool some;
        uint32_t a;

        if (ports && ports->n > PORTS_MAX)
                return err_set(e, -EDQUOT, "ports of a network: limit=%d used=%zu wanted=1",
                               PORTS_MAX, ports->n - 1);
        a = port_free_address(t->c, o->holder, &some);
        if (!some && !network_subnet6(t->c, o->holder, &net)) {
                err_set(e, -EINVAL, "network '%s' has no subnet", o->holder->name);
                return err_hint(e, -EINVAL, "mkdir subnets/a; echo 10.1.0.0/24 > subnets/a/cidr");
        }
        if (some && !a)
                return err_set(e, -ENOSPC, "no address is free in network '%s'", o->holder->name);
        /* A locally administered one, random as the id is; that of the gateway ends in the
         * network's. */
        snprintf(mac, sizeof(mac), "06:%02x:%02x:%02x:%02x:%02x", o->id.bytes[0], o->id.bytes[1],
                 o->id.bytes[2], o->id.bytes[3], o->id.bytes[4]);
        txn_set_str(t, o, "mac", mac);
        txn_set_str(t, o, "address", a ? network_address(text, a) : NULL);
        port_derive6(t, o);
        return 0;
}

int port_create(struct txn *t, struct object *network, struct object *tenant, const char *name,
                uint64_t made_for, struct object **ret, struct err **e)
{
        char text[NAME_SIZE];
        int r = -EEXIST;

        for (int i = 1; r == -EEXIST && i < 100; i++) {
                snprintf(text, sizeof(text), i > 1 ? "%.58s-%d" : "%.58s", name, i);
                r = txn_create(t, &kind_port, network, text, ret, NULL);
        }
        if (r < 0)
                return err_set(e, r, "no name is free for its port");
        (*ret)->tenant = tenant; /* of a shared network: its record is with the instance's */
        txn_set_num(t, *ret, "made_for", made_for);
        return create(t, *ret, e);
}

void port_drop(struct txn *t, struct object *port)
{
        while (port->nlinks)
                txn_unlink(t, port, &port->links[port->nlinks - 1]);
        txn_delete(t, port);
}

/* --- changing -------------------------------------------------------------------------------- */

static int check_idle(const struct object *o, struct err **e)
{
        struct object *i = port_instance(o);
        char label[NAME_SIZE + 32];

        if (i && (instance_plugged(i) || i->state == INSTANCE_SUSPENDED)) /* its guest knows it */
                return err_set(e, -EBUSY, "%s has it, and is %s", object_label(i, label),
                               object_state(i));
        return 0;
}

static int set_address(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "", *cidr;
        _cleanup_free_ char *before = xstrdup(object_str(o, "address"));
        _cleanup_free_ uint32_t *used = NULL;
        struct object *subnet;
        char text[ADDRESS_TEXT_SIZE];
        uint32_t a, net = 0;
        unsigned prefix = 0;
        size_t n;
        int r = check_idle(o, e);

        if (r < 0)
                return r;
        if (!address_parse(s, strlen(s), &a))
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s), "expected an IPv4 address");
        txn_set_str(t, o, "address", network_address(text, a));
        subnet = port_subnet(t->c, o);
        cidr = subnet ? object_str(subnet, "cidr") : "";
        if (subnet)
                cidr_parse(cidr, strlen(cidr), &net, &prefix, NULL);
        used = used_addresses(t->c, o->holder, o, &n);
        if (!subnet || a == net || a == (net | ~network_mask(prefix)))
                r = err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                           "no subnet of network '%s' has it for a guest", o->holder->name);
        else if (n && bsearch(&a, used, n, sizeof(*used), by_number))
                r = err_at(e, -EEXIST, s, strlen(s), 0, strlen(s), "the address is taken");
        if (r < 0)
                txn_set_str(t, o, "address", before);
        return r;
}

static int set_address6(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *ports = model_collection(t->c, o->holder, &kind_port);
        struct in6_addr net, a, b;
        struct object *subnet = network_subnet6(t->c, o->holder, &net);
        char text[ADDRESS6_TEXT_SIZE];
        const char *s = v.s ?: "";
        int r = check_idle(o, e);

        if (r < 0)
                return r;
        if (!subnet)
                return err_set(e, -EINVAL, "network '%s' has no IPv6 subnet", o->holder->name);
        if (streq(object_str(subnet, "ipv6"), "slaac"))
                return err_set(e, -EPERM, "guests make it of their MAC, as subnet '%s' says",
                               subnet->name);
        if (!address6_parse(s, strlen(s), &a) || memcmp(&a, &net, 8) != 0 ||
            memcmp(&a, &net, sizeof(a)) == 0)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s), "expected an address in %s",
                              object_str(subnet, "cidr"));
        network_address6(text, &a);
        for (size_t i = 0; i < ports->n; i++) {
                const char *other = object_str(ports->v[i], "address6");

                if (ports->v[i] != o && address6_parse(other, strlen(other), &b) &&
                    memcmp(&a, &b, sizeof(a)) == 0)
                        return err_at(e, -EEXIST, s, strlen(s), 0, strlen(s), "port '%s' has it",
                                      ports->v[i]->name);
        }
        if (streq(object_str(subnet, "gateway"), text))
                return err_at(e, -EEXIST, s, strlen(s), 0, strlen(s), "the gateway has it");
        txn_set_str(t, o, "address6", text);
        return 0;
}

bool pair_parse(const char *w, size_t n, struct net_pair *ret)
{
        const char *at = memchr(w, '@', n);
        size_t len = at ? (size_t)(at - w) : n;
        char mac[MAC_TEXT_SIZE];
        uint8_t m[6];
        int end = 0;

        *ret = (struct net_pair){.prefix = 32};
        if (memchr(w, '/', len) ? cidr_parse(w, len, &ret->address, &ret->prefix, NULL) < 0
                                : !address_parse(w, len, &ret->address))
                return false;
        if (!at)
                return ret->prefix >= 8;
        if (n - len - 1 != sizeof(mac) - 1)
                return false;
        memcpy(mac, at + 1, sizeof(mac) - 1);
        mac[sizeof(mac) - 1] = '\0';
        if (sscanf(mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4],
                   &m[5], &end) != 6 ||
            end != sizeof(mac) - 1 || m[0] & 1)
                return false;
        snprintf(ret->mac, sizeof(ret->mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2],
                 m[3], m[4], m[5]);
        return ret->prefix >= 8;
}

static int set_pairs(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "", *p = s, *w;
        struct net_pair x;
        unsigned count = 0;
        size_t n;

        while ((w = word_next(&p, &n)))
                if (!pair_parse(w, n, &x) || ++count > PAIRS_MAX)
                        return err_at(e, -EINVAL, s, strlen(s), w - s, n,
                                      "expected at most %d of ADDRESS[/PREFIX][@MAC]", PAIRS_MAX);
        txn_set_str(t, o, "address_pairs", s);
        return 0;
}

static int set_open(struct txn *t, struct object *o, union value v, struct err **e)
{
        if (v.u && !object_num(o->holder, "open_ports")) {
                err_set(e, -EPERM, "network '%s' does not allow ports without security",
                        o->holder->name);
                return err_hint(e, -EPERM, "an admin does: echo 1 > networks/%s/open_ports",
                                o->holder->name);
        }
        txn_set_num(t, o, "open", v.u);
        return 0;
}

static void render_stats(struct control *c, const struct object *o, struct buf *out)
{
        struct net_count n;

        networks_count(c, o, &n);
        buf_printf(out,
                   "in_bytes %" PRIu64 "\nin_packets %" PRIu64 "\nin_dropped %" PRIu64
                   "\nout_bytes %" PRIu64 "\nout_packets %" PRIu64 "\nout_dropped %" PRIu64 "\n",
                   n.in_bytes, n.in_packets, n.in_dropped, n.out_bytes, n.out_packets,
                   n.out_dropped);
}

static int set_mac(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *ports = model_collection(t->c, o->holder, &kind_port);
        const char *s = v.s ?: "";
        char text[MAC_TEXT_SIZE];
        uint8_t m[6];
        int end = 0, r = check_idle(o, e);

        if (r < 0)
                return r;
        if (sscanf(s, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4],
                   &m[5], &end) != 6 ||
            s[end] || end != MAC_TEXT_SIZE - 1 || m[0] & 1)
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "expected the MAC of one device, like 06:00:00:12:34:56");
        snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
                 m[5]);
        for (size_t i = 0; i < ports->n; i++)
                if (ports->v[i] != o && streq(object_str(ports->v[i], "mac"), text))
                        return err_at(e, -EEXIST, s, strlen(s), 0, strlen(s), "port '%s' has it",
                                      ports->v[i]->name);
        txn_set_str(t, o, "mac", text);
        port_derive6(t, o);
        return 0;
}

static void render_instance(struct control *c, const struct object *o, struct buf *out)
{
        struct object *i = port_instance(o);

        buf_addstr(out, i ? i->name : "");
}

static int remove_port(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r == 0)
                port_drop(t, o);
        return r;
}

static const struct attr_def attrs[] = {
        {"address", ATTR_TEXT, ROLE_MEMBER, .max = 15, .index = true, .set = set_address,
         .help = "known before its guest starts; may be written while none runs with it"},
        {"mac", ATTR_TEXT, ROLE_MEMBER, .max = 17, .index = true, .set = set_mac,
         .help = "of the guest's device; may be written while none runs with it"},
        {"address6", ATTR_TEXT, ROLE_MEMBER, .max = 45, .set = set_address6,
         .help = "IPv6; of its MAC, or in subnets with DHCPv6 as written"},
        {"instance", ATTR_TEXT, ROLE_NOBODY, .index = true, .changes = true,
         .render = render_instance, .help = "that has it"},
        {"address_pairs", ATTR_TEXT, ROLE_MEMBER, .max = 600, .set = set_pairs,
         .help = "ADDRESS[/PREFIX][@MAC] ...: what its guest may speak from, too, and is reached "
                 "at"},
        {"open", ATTR_BOOL, ROLE_MEMBER, .set = set_open,
         .help = "1: no port security: any address, no rules; where the network has open_ports"},
        {"rate_in", ATTR_SIZE, ROLE_ADMIN, .min = 1000, .max_word = true, .def = "max",
         .help = "bytes a second to its guest"},
        {"rate_out", ATTR_SIZE, ROLE_ADMIN, .min = 1000, .max_word = true, .def = "max",
         .help = "bytes a second from its guest"},
        {"floor", ATTR_SIZE, ROLE_ADMIN,
         .help = "bytes a second of the network's way out that are its, whatever others send"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"made_for", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "the instance whose link made it, and takes it away"},
};

static const struct link_def links[] = {
        {"security_groups", "security_group", .many = true,
         .help = "what it lets in and out; none: the tenant's `default`"},
};

static const struct file_def files[] = {
        {"stats", FILE_TEXT, ROLE_NOBODY, .render = render_stats,
         .help = "bytes and packets to and from its guest since its device was made, on this host"},
};

static const struct state_def states[] = {
        {"active", .help = "may be used"},
};

const struct kind kind_port = {
        .name = "port",
        .plural = "ports",
        .inside = "network",
        .help = "An address and a MAC in the network; made by a link of an instance, or by hand.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .links = links,
        .nlinks = ARRAY_SIZE(links),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
        .remove = remove_port,
};
