/* Ports: an address and a MAC in a network. */
#include "control/network.h"

/* --- addresses ------------------------------------------------------------------------------- */

struct range {
        uint32_t from, to;
};

static bool taken(const struct collection *ports, const struct object *but, uint32_t a)
{
        uint32_t x;

        for (size_t i = 0; ports && i < ports->n; i++) {
                const char *s = object_str(ports->v[i], "address");

                if (ports->v[i] != but && address_parse(s, strlen(s), &x) && x == a)
                        return true;
        }
        return false;
}

static int by_number(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

/* The addresses that ports have, and the gateway, in order; the caller frees. */
static uint32_t *used_addresses(const struct collection *ports, uint32_t gateway, size_t *ret)
{
        uint32_t *v = xcalloc((ports ? ports->n : 0) + 1, sizeof(*v));
        size_t n = 0;

        v[n++] = gateway;
        for (size_t i = 0; ports && i < ports->n; i++) {
                const char *s = object_str(ports->v[i], "address");

                if (address_parse(s, strlen(s), &v[n]))
                        n++;
        }
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

static uint32_t free_address(const struct collection *ports, const struct object *subnet)
{
        const char *cidr = object_str(subnet, "cidr"), *pools = object_str(subnet, "pools"), *w;
        const char *g = object_str(subnet, "gateway");
        uint32_t a = 0, gateway = 0, found = 0, *used;
        unsigned prefix = 0;
        struct range r;
        size_t n, count;

        if (cidr_parse(cidr, strlen(cidr), &a, &prefix, NULL) < 0)
                return 0;
        address_parse(g, strlen(g), &gateway);
        used = used_addresses(ports, gateway, &count);
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
        free(used);
        return found;
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

/* Gives the port an address and a MAC. */
static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *ports = model_collection(t->c, o->holder, &kind_port);
        struct collection *subnets = model_collection(t->c, o->holder, &kind_subnet);
        char text[ADDRESS_TEXT_SIZE], mac[MAC_TEXT_SIZE];
        bool some = false;
        uint32_t a = 0;

        if (ports && ports->n > PORTS_MAX)
                return err_set(e, -EDQUOT, "ports of a network: limit=%d used=%zu wanted=1",
                               PORTS_MAX, ports->n - 1);
        for (size_t i = 0; subnets && i < subnets->n && !a; i++) {
                some |= subnets->v[i]->state == SUBNET_ACTIVE;
                a = free_address(ports, subnets->v[i]);
        }
        if (!some) {
                err_set(e, -EINVAL, "network '%s' has no subnet", o->holder->name);
                return err_hint(e, "mkdir subnets/a; echo 10.1.0.0/24 > subnets/a/cidr");
        }
        if (!a)
                return err_set(e, -ENOSPC, "no address is free in network '%s'", o->holder->name);
        /* A locally administered one, random as the id is; that of the gateway ends in the
         * network's. */
        snprintf(mac, sizeof(mac), "06:%02x:%02x:%02x:%02x:%02x", o->id.bytes[0], o->id.bytes[1],
                 o->id.bytes[2], o->id.bytes[3], o->id.bytes[4]);
        txn_set_str(t, o, "mac", mac);
        txn_set_str(t, o, "address", network_address(text, a));
        return 0;
}

int port_create(struct txn *t, struct object *network, const char *name, uint64_t made_for,
                struct object **ret, struct err **e)
{
        char text[NAME_SIZE];
        int r = -EEXIST;

        for (int i = 1; r == -EEXIST && i < 100; i++) {
                snprintf(text, sizeof(text), i > 1 ? "%.58s-%d" : "%.58s", name, i);
                r = txn_create(t, &kind_port, network, text, ret, NULL);
        }
        if (r < 0)
                return err_set(e, r, "no name is free for its port");
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
        struct collection *ports = model_collection(t->c, o->holder, &kind_port);
        const char *s = v.s ?: "", *cidr;
        _cleanup_free_ char *before = xstrdup(object_str(o, "address"));
        struct object *subnet;
        char text[ADDRESS_TEXT_SIZE];
        uint32_t a, net = 0;
        unsigned prefix = 0;
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
        if (!subnet || a == net || a == (net | ~network_mask(prefix)))
                r = err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                           "no subnet of network '%s' has it for a guest", o->holder->name);
        else if (streq(object_str(subnet, "gateway"), text) || taken(ports, o, a))
                r = err_at(e, -EEXIST, s, strlen(s), 0, strlen(s), "the address is taken");
        if (r < 0)
                txn_set_str(t, o, "address", before);
        return r;
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
        {"instance", ATTR_TEXT, ROLE_NOBODY, .index = true, .changes = true,
         .render = render_instance, .help = "that has it"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"made_for", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "the instance whose link made it, and takes it away"},
};

static const struct link_def links[] = {
        {"security_groups", "security_group", .many = true,
         .help = "what it lets in and out; none: the tenant's `default`"},
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
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
        .remove = remove_port,
};
