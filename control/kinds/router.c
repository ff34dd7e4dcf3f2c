/* Routers: between networks of a tenant, and out by a network that is external. */
#include "control/network.h"

/* --- lines ----------------------------------------------------------------------------------- */

/* The next word between blanks, and where it begins; NULL at the end. */
static const char *word(const char **p, size_t *n)
{
        const char *at = *p + strspn(*p, " \t");

        *n = strcspn(at, " \t");
        *p = at + *n;
        return *n ? at : NULL;
}

static int refuse(const char *line, const char *at, const char *words, struct err **e)
{
        size_t n = strlen(line), where = at ? (size_t)(at - line) : n;

        return err_at(e, -EINVAL, line, n, where, strcspn(line + where, " \t"), "%s", words);
}

static bool is(const char *w, size_t n, const char *text)
{
        return w && n == strlen(text) && memcmp(w, text, n) == 0;
}

int route_parse(const char *line, struct net_route *ret, struct err **e)
{
        const char *p = line, *w;
        size_t n;

        w = word(&p, &n);
        if (!w || cidr_parse(w, n, &ret->address, &ret->prefix, NULL) < 0)
                return refuse(line, w, "expected an IPv4 network, like 10.9.0.0/16", e);
        w = word(&p, &n);
        if (!is(w, n, "via"))
                return refuse(line, w, "expected `via`", e);
        w = word(&p, &n);
        if (!w || !address_parse(w, n, &ret->via))
                return refuse(line, w, "expected the address of the next hop", e);
        w = word(&p, &n);
        return w ? refuse(line, w, "nothing is expected here", e) : 0;
}

static bool number(const char *w, size_t n, uint16_t *ret)
{
        unsigned v = 0;

        if (!w || n > 5)
                return false;
        for (size_t i = 0; i < n; i++) {
                if (w[i] < '0' || w[i] > '9')
                        return false;
                v = v * 10 + (w[i] - '0');
        }
        *ret = v;
        return v > 0 && v <= 65535;
}

int forward_parse(const char *line, struct net_forward *ret, struct err **e)
{
        const char *p = line, *w;
        size_t n;

        *ret = (struct net_forward){};
        w = word(&p, &n);
        if (!is(w, n, "tcp") && !is(w, n, "udp"))
                return refuse(line, w, "a forward begins with tcp or udp", e);
        ret->proto = *w == 't' ? 6 : 17;
        w = word(&p, &n);
        if (!number(w, n, &ret->port))
                return refuse(line, w, "a port is 1 to 65535", e);
        w = word(&p, &n);
        if (!is(w, n, "to"))
                return refuse(line, w, "expected `to`", e);
        w = word(&p, &n);
        if (!w || !address_parse(w, n, &ret->to))
                return refuse(line, w, "expected an address inside, like 10.0.0.5", e);
        ret->to_port = ret->port;
        w = word(&p, &n);
        if (w && !number(w, n, &ret->to_port))
                return refuse(line, w, "a port is 1 to 65535", e);
        w = w ? word(&p, &n) : NULL;
        return w ? refuse(line, w, "nothing is expected here", e) : 0;
}

/* Where the line (with its newline) stands in the list; NULL: nowhere. */
static const char *find(const char *list, const char *line)
{
        for (const char *p = list; (p = strstr(p, line)); p++)
                if (p == list || p[-1] == '\n')
                        return p;
        return NULL;
}

/* Adds the line to the list in that attribute, or takes it away. */
static int change(struct txn *t, struct object *o, const char *attr, const char *line, bool less,
                  struct err **e)
{
        const char *list = object_str(o, attr), *there = find(list, line);
        _cleanup_buf_ struct buf next = {};
        int count = 0;

        if (less && !there)
                return err_set(e, -ENOENT, "there is no such line");
        if (!less && there)
                return 0;
        for (const char *p = list; (p = strchr(p, '\n')); p++)
                count++;
        if (!less && count >= LINES_MAX)
                return err_set(e, -EDQUOT, "lines: limit=%d used=%d wanted=1", LINES_MAX, count);
        buf_add(&next, list, less ? (size_t)(there - list) : strlen(list));
        buf_addstr(&next, less ? there + strlen(line) : line);
        txn_set_str(t, o, attr, buf_str(&next));
        return 0;
}

int route_change(struct txn *t, struct object *o, const struct net_route *x, bool less,
                 struct err **e)
{
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE], text[64];

        snprintf(text, sizeof(text), "%s/%u via %s\n", network_address(a, x->address), x->prefix,
                 network_address(b, x->via));
        return change(t, o, "route_text", text, less, e);
}

static bool behind(struct control *c, const struct object *router, uint32_t a)
{
        object_foreach_link (l, router) {
                struct collection *subnets = model_collection(c, l->target, &kind_subnet);
                unsigned prefix;
                uint32_t net;

                for (size_t i = 0; subnets && i < subnets->n; i++) {
                        const char *s = object_str(subnets->v[i], "cidr");

                        if (cidr_parse(s, strlen(s), &net, &prefix, NULL) == 0 &&
                            (a & network_mask(prefix)) == net)
                                return true;
                }
        }
        return false;
}

static void render_routes(struct control *c, const struct object *o, struct buf *out)
{
        buf_addstr(out, object_str(o, "route_text"));
}

static int write_route(struct txn *t, struct object *o, const char *line, struct err **e)
{
        bool less = *line == '-';
        struct net_route x;
        int r;

        if (*line == '-' || *line == '+')
                line += 1 + strspn(line + 1, " \t");
        r = route_parse(line, &x, e);
        if (r == 0 && !less && !behind(t->c, o, x.via))
                r = err_at(e, -EINVAL, line, strlen(line), 0, strlen(line),
                           "no network of the router has the next hop");
        return r < 0 ? r : route_change(t, o, &x, less, e);
}

static void render_forwards(struct control *c, const struct object *o, struct buf *out)
{
        buf_addstr(out, object_str(o, "forward_text"));
}

static int write_forward(struct txn *t, struct object *o, const char *line, struct err **e)
{
        char a[ADDRESS_TEXT_SIZE], text[64];
        bool less = *line == '-';
        struct net_forward x, y;
        int r;

        if (*line == '-' || *line == '+')
                line += 1 + strspn(line + 1, " \t");
        r = forward_parse(line, &x, e);
        if (r == 0 && !less && !behind(t->c, o, x.to))
                r = err_at(e, -EINVAL, line, strlen(line), 0, strlen(line),
                           "no network of the router has %s", network_address(a, x.to));
        if (r < 0)
                return r;
        snprintf(text, sizeof(text), "%s %u to %s %u\n", x.proto == 6 ? "tcp" : "udp", x.port,
                 network_address(a, x.to), x.to_port);
        for (const char *p = object_str(o, "forward_text"), *nl; !less && (nl = strchr(p, '\n'));
             p = nl + 1) {
                _cleanup_free_ char *old = xstrndup(p, nl - p);

                if (forward_parse(old, &y, NULL) == 0 && y.proto == x.proto && y.port == x.port &&
                    (y.to != x.to || y.to_port != x.to_port))
                        return err_set(e, -EEXIST, "that port goes elsewhere: %s", old);
        }
        return change(t, o, "forward_text", text, less, e);
}

/* --- links ----------------------------------------------------------------------------------- */

struct object *router_gateway(const struct object *router)
{
        return object_target(router, "gateway");
}

static int bind_network(struct txn *t, struct object *o, char *name, struct object *target,
                        struct err **e)
{
        struct collection *subnets = model_collection(t->c, target, &kind_subnet);
        struct object *other = network_router(target);
        const char *type = object_str(target, "type");
        int r = 0;

        if (other)
                return err_set(e, -EBUSY, "router '%s' has network '%s'", other->name,
                               target->name);
        if (target->tenant != o->tenant)
                return err_set(e, -EPERM, "a shared network is a gateway, not behind one");
        if (router_gateway(o) == target)
                return err_set(e, -EBUSY, "it is the router's gateway");
        if (streq(type, "flat") || streq(type, "vlan"))
                return err_set(e, -EINVAL, "network '%s' has a router of its own outside",
                               target->name);
        for (size_t i = 0; r == 0 && subnets && i < subnets->n; i++)
                r = subnet_check_router(t->c, subnets->v[i], object_str(subnets->v[i], "cidr"), o,
                                        e);
        return r;
}

/* Its address there is what guests without a floating IP are seen as. */
static int bind_gateway(struct txn *t, struct object *o, char *name, struct object *target,
                        struct err **e)
{
        struct collection *subnets = model_collection(t->c, target, &kind_subnet);
        char text[ADDRESS_TEXT_SIZE];
        bool some = false;
        uint32_t a;
        int r = 0;

        if (!object_num(target, "external"))
                return err_set(e, -EINVAL, "network '%s' is not external: it leads nowhere",
                               target->name);
        object_foreach_link (l, o)
                if (l->target == target)
                        return err_set(e, -EBUSY, "the router is between it and others already");
        if (network_router(target))
                return err_set(e, -EBUSY, "it is behind router '%s'", network_router(target)->name);
        for (size_t i = 0; r == 0 && subnets && i < subnets->n; i++)
                r = subnet_check_router(t->c, subnets->v[i], object_str(subnets->v[i], "cidr"), o,
                                        e);
        if (r < 0)
                return r;
        a = port_free_address(t->c, target, &some);
        if (!a)
                return some ? err_set(e, -ENOSPC, "no address is free in network '%s'",
                                      target->name)
                            : err_set(e, -EINVAL, "network '%s' has no subnet", target->name);
        txn_set_str(t, o, "address", network_address(text, a));
        return 0;
}

static int unbind_gateway(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        txn_set_str(t, o, "address", NULL);
        return 0;
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->tenant, &kind_router);
        int r = networks_check(t->c, e);

        if (r == 0 && l && l->n > ROUTERS_MAX)
                r = err_set(e, -EDQUOT, "routers of a tenant: limit=%d used=%zu wanted=1",
                            ROUTERS_MAX, l->n - 1);
        return r;
}

static int remove_router(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r < 0)
                return r;
        while (o->nlinks)
                txn_unlink(t, o, &o->links[o->nlinks - 1]);
        txn_delete(t, o);
        return 0;
}

/* --- what a host says of itself -------------------------------------------------------------- */

int host_set_physical(struct txn *t, struct object *host, union value v, struct err **e)
{
        const char *s = v.s ?: "", *p = s, *w;
        size_t n;

        while ((w = word_next(&p, &n))) {
                const char *eq = memchr(w, '=', n);
                size_t device = eq ? n - (eq + 1 - w) : 0;

                if (!eq || eq == w || eq - w >= NAME_SIZE || device < 1 || device >= DEVICE_SIZE ||
                    memchr(eq + 1, '/', device))
                        return err_at(e, -EINVAL, s, strlen(s), w - s, n,
                                      "expected NAME=DEVICE, like outside=eth1");
        }
        txn_set_str(t, host, "physical", s);
        return 0;
}

int host_set_address(struct txn *t, struct object *host, union value v, struct err **e)
{
        const char *s = v.s ?: "";
        uint32_t a;

        if (*s &&
            (!address_parse(s, strlen(s), &a) || a >> 24 == 0 || a >> 24 == 127 || a >> 28 >= 14))
                return err_at(e, -EINVAL, s, strlen(s), 0, strlen(s),
                              "expected an IPv4 address of the host");
        txn_set_str(t, host, "address", s);
        return 0;
}

static const struct attr_def attrs[] = {
        {"address", ATTR_TEXT, ROLE_NOBODY, .index = true,
         .help = "its own in the gateway's network: guests without a floating IP speak from it"},
        {"snat", ATTR_BOOL, ROLE_MEMBER, .def = "1",
         .help = "0: only guests with a floating IP reach the outside"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"route_text", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "its routes"},
        {"forward_text", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "its forwards"},
};

static const struct link_def links[] = {
        {"networks", "network", .many = true, .bind = bind_network,
         .help = "what it is between; a network is behind one router at most"},
        {"gateway", "network", .bind = bind_gateway, .unbind = unbind_gateway,
         .help = "its way out: an external network, also a shared one of another tenant"},
};

static const struct file_def files[] = {
        {"routes", FILE_LINES, ROLE_MEMBER, .render = render_routes, .write = write_route,
         .help = "what is behind guests: `10.9.0.0/16 via 10.0.0.9`; `- ROUTE` takes one away"},
        {"forwards", FILE_LINES, ROLE_MEMBER, .render = render_forwards, .write = write_forward,
         .help = "ports of its address and of floating IPs that lead to it: `tcp 8080 to 10.0.0.5 "
                 "80`; `- FORWARD` takes one away"},
};

static const struct state_def states[] = {
        {"active", .help = "may be used"},
};

const struct kind kind_router = {
        .name = "router",
        .plural = "routers",
        .help = "Between networks, and out: ln -s networks/lan networks/; ln -s networks/default "
                "gateway.",
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
        .remove = remove_router,
};
