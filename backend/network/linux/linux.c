/* The driver: the host as the plan says. */
#include "backend/network/linux/linux.h"

#include "backend/network/linux/netlink.h"
#include "backend/network/linux/network-linux.h"
#include "common/fileio.h"
#include "common/log.h"

enum {
        HOST_END = 0xa9fe0001, /* 169.254.0.1: the host's end of every uplink */
        LOCALHOST = 0x7f000001,
        SERVICES = 60, /* addresses of them in one network */
};

/* What is known of a namespace's ruleset. */
struct inner {
        struct inner *next;
        char id[ID_TEXT_SIZE];
        char *ruleset;
        uint32_t generation;
        char *failure; /* of its load balancers, that was logged */
        bool wanted;
};

static void inner_free(struct inner *i)
{
        free(i->ruleset);
        free(i->failure);
        free(i);
}

static struct linux_net *self(struct network_service *s)
{
        return (struct linux_net *)s;
}

static struct inner *inner_get(struct linux_net *s, const char *id)
{
        struct inner *i;

        for (i = s->inner; i; i = i->next)
                if (streq(i->id, id))
                        return i;
        i = calloc(1, sizeof(*i));
        if (!i)
                return NULL;
        snprintf(i->id, sizeof(i->id), "%s", id);
        i->next = s->inner;
        s->inner = i;
        return i;
}

/* --- rulesets -------------------------------------------------------------------------------- */

/* In the thread's namespace, unless it is what was applied last and nobody has changed any rule
 * since.
 */
static int rules(char **last, uint32_t *generation, struct buf *text, struct err **e)
{
        uint32_t now = 0;
        int r;

        if (text->failed)
                return err_errno(e, -ENOMEM, "ruleset");
        r = nft_generation(&now, e);
        if (r < 0)
                return r;
        if (*last && streq(*last, buf_str(text)) && now == *generation)
                return 0;
        free(*last);
        *last = NULL;
        r = nft_apply(buf_str(text), generation, e);
        if (r == 0)
                *last = buf_take(text);
        return r;
}

static int host_rules(struct linux_net *s, const struct net_plan *p, struct err **e)
{
        _cleanup_buf_ struct buf text = {};

        ruleset_host(s->table, p, &text);
        return rules(&s->ruleset, &s->generation, &text, e);
}

/* --- one network ----------------------------------------------------------------------------- */

static int quiet(const char *device, struct err **e)
{
        return netns_set("ipv6/conf/%/disable_ipv6", device, "1", e);
}

/* A link of that name and kind; one of another kind in its place goes. */
static int ensure(struct nl *n, const char *name, const char *kind, struct nl_link *l,
                  struct err **e)
{
        int r = nl_link(n, name, l, e);

        if (r == 1 && !streq(l->kind, kind)) {
                r = nl_del(n, l->index, e);
                return r < 0 ? r : 0;
        }
        return r;
}

static int settle(struct linux_net *s, struct nl *n, const struct nl_link *l, unsigned master,
                  unsigned mtu, struct err **e)
{
        if (l->up && (!master || l->master == master) && (!mtu || l->mtu == mtu) &&
            streq(l->alias, s->alias))
                return 0;
        return nl_set(n, l->index, master, mtu, NULL, s->alias, e);
}

static int bridge(struct linux_net *s, struct nl *n, const struct net_network *w, unsigned *ret,
                  struct err **e)
{
        char name[DEVICE_SIZE];
        struct nl_link l;
        int r;

        network_device(name, NET_BRIDGE, w->id);
        r = ensure(n, name, "bridge", &l, e);
        if (r == 0) {
                r = nl_add_bridge(n, name, s->alias, e);
                if (r == 0)
                        r = quiet(name, e);
                if (r == 0)
                        r = nl_link(n, name, &l, e);
        }
        if (r < 0)
                return r;
        *ret = l.index;
        return settle(s, n, &l, 0, w->mtu, e);
}

/* A veth with one end here, called name, and one in the namespace, called inside. */
static int leg(struct linux_net *s, struct nl *n, struct nl *in, int ns, const char *name,
               const char *inside, struct nl_link *here, struct nl_link *there, struct err **e)
{
        int a = ensure(n, name, "veth", here, e), b = a < 0 ? a : nl_link(in, inside, there, e),
            r = b;

        if (r >= 0 && (!a || !b)) { /* half a cable is none: its other end is in a lost namespace */
                r = a ? nl_del(n, here->index, e) : 0;
                if (r == 0 && b)
                        r = nl_del(in, there->index, e);
                if (r == 0)
                        r = nl_add_veth(n, name, s->alias, inside, ns, e);
                if (r == 0)
                        r = quiet(name, e);
                if (r == 0)
                        r = nl_link(n, name, here, e);
                if (r >= 0)
                        r = nl_link(in, inside, there, e);
        }
        return r < 0 ? r : 0;
}

/* The gateway's MAC: of the network, so that guests know it still after it was made anew. */
static void gateway_mac(char out[MAC_TEXT_SIZE], const char *id)
{
        snprintf(out, MAC_TEXT_SIZE, "02:%.2s:%.2s:%.2s:%.2s:%.2s", id, id + 2, id + 4, id + 6,
                 id + 9);
}

/* The thread is in the namespace. */
static int inside_settings(const char *device, struct err **e)
{
        static const char *const set[][2] = {{"ipv6/conf/%/disable_ipv6", "1"},
                                             {"ipv4/conf/%/send_redirects", "0"},
                                             {"ipv4/conf/all/send_redirects", "0"},
                                             {"ipv4/conf/%/proxy_arp_pvlan", "1"},
                                             {"ipv4/neigh/%/proxy_delay", "0"},
                                             {"ipv4/conf/all/rp_filter", "0"},
                                             {"ipv4/ip_forward", "1"}};
        int r = 0;

        for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(set); i++)
                r = netns_set(set[i][0], device, set[i][1], e);
        return r;
}

/* Addresses that are not the network's own: those of its services. */
static int services(struct nl *in, const struct net_network *w, struct err **e)
{
        uint32_t a[SERVICES] = {LOCALHOST, METADATA_ADDRESS};
        unsigned prefix[SERVICES] = {8, 32}, n = 2;
        struct nl_link lo;
        int r = nl_link(in, "lo", &lo, e);

        if (r == 1 && !lo.up)
                r = nl_set(in, lo.index, 0, 0, NULL, NULL, e);
        for (unsigned i = 0; i < w->nbalancers && n < SERVICES; i++, n++) {
                a[n] = w->balancers[i].address;
                prefix[n] = 32;
        }
        return r < 0 ? r : nl_addresses(in, lo.index, a, prefix, n, e);
}

/* A load balancer that fails leaves guests what they have; its `stats` say it, too. */
static void balance(struct inner *known, const char *dir, const struct net_network *w, int ns)
{
        _cleanup_err_ struct err *err = NULL;
        int r = balancers_serve(dir, w, ns, &err);

        if (r < 0 && (!known->failure || !streq(known->failure, err_msg(err))))
                log_error("network %s: %s", w->id, err_msg(err));
        free(known->failure);
        known->failure = r < 0 ? strdup(err_msg(err)) : NULL;
}

/* Gateway, addresses and filter, in the namespace. */
static int inside(struct linux_net *s, struct nl *in, const struct net_network *w,
                  const struct nl_link *l, int ns, const char *dir, struct err **e)
{
        struct inner *known = inner_get(s, w->id);
        _cleanup_buf_ struct buf text = {};
        uint32_t a[16];
        unsigned prefix[16], n = MIN(w->nsubnets, (unsigned)ARRAY_SIZE(a));
        char mac[MAC_TEXT_SIZE];
        int r = known ? 0 : err_errno(e, -ENOMEM, "network");

        if (r == 0) {
                known->wanted = true;
                ruleset_network(s->table, w, &text);
                r = rules(&known->ruleset, &known->generation, &text, e);
        }
        gateway_mac(mac, w->id);
        if (r == 0)
                r = services(in, w, e);
        if (r == 0 && (!l->up || l->mtu != w->mtu || !streq(l->mac, mac))) {
                r = inside_settings(l->name, e);
                if (r == 0)
                        r = nl_set(in, l->index, 0, w->mtu, mac, NULL, e);
        }
        for (unsigned i = 0; i < n; i++) {
                a[i] = w->subnets[i].gateway;
                prefix[i] = w->subnets[i].prefix;
        }
        if (r == 0)
                r = nl_addresses(in, l->index, a, prefix, n, e);
        if (r == 0)
                r = dhcp_serve(dir, w, ns, e);
        if (r == 0 && s->metadata)
                r = metadata_serve(s->metadata, dir, w, ns, e);
        if (r == 0)
                balance(known, dir, w, ns);
        return r;
}

static int host_forwards(struct linux_net *s, struct err **e)
{
        _cleanup_free_ char *text = NULL;
        int r = s->forwarding ? 0 : file_read("/proc/sys/net/ipv4/ip_forward", 16, &text, NULL, e);

        if (r == 0 && text && text[0] == '0') {
                r = netns_set("ipv4/ip_forward", "", "1", e);
                if (r == 0)
                        log_info("network: the host forwards IPv4 from now on "
                                 "(net.ipv4.ip_forward)");
        }
        s->forwarding = r == 0;
        return r;
}

static int uplink(struct linux_net *s, struct nl *n, struct nl *in, int ns,
                  const struct net_network *w, struct err **e)
{
        uint32_t to[256], host = HOST_END, own = (HOST_END & 0xffff0000) | w->uplink;
        char name[DEVICE_SIZE];
        struct nl_link here, there;
        unsigned whole = 32, count = 1;
        int r;

        network_device(name, NET_UPLINK, w->id);
        r = leg(s, n, in, ns, name, name, &here, &there, e);
        if (r == 0)
                r = settle(s, n, &here, 0, 0, e);
        if (r == 0 && !there.up)
                r = nl_set(in, there.index, 0, 0, NULL, NULL, e);
        if (r == 0)
                r = nl_addresses(n, here.index, &host, &whole, 1, e);
        if (r == 0)
                r = nl_addresses(in, there.index, &own, &whole, 1, e);
        to[0] = own;
        for (unsigned i = 0; i < w->nfloats && count < ARRAY_SIZE(to); i++)
                to[count++] = w->floats[i].address;
        if (r == 0)
                r = nl_hosts(n, here.index, to, count, e);
        if (r == 0)
                r = nl_route(in, there.index, 0, 0, HOST_END, e);
        return r < 0 ? r : host_forwards(s, e);
}

static int tap(struct linux_net *s, struct nl *n, const struct net_port *p, unsigned br,
               unsigned mtu, struct err **e)
{
        char name[DEVICE_SIZE];
        struct nl_link l;
        int r;

        network_device(name, NET_TAP, p->id);
        r = ensure(n, name, "tun", &l, e);
        if (r == 0) {
                r = tap_add(name, e);
                if (r == 0)
                        r = quiet(name, e);
                if (r == 0)
                        r = nl_link(n, name, &l, e);
        }
        if (r >= 0)
                r = settle(s, n, &l, br, mtu, e);
        /* The door is shut by the ruleset, which was there first. */
        return r < 0 || (l.isolated && l.master == br) ? r : nl_isolate(n, l.index, e);
}

static int network(struct linux_net *s, struct nl *n, const struct net_network *w, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/%s", s->dir, w->id);
        _cleanup_free_ char *file = path_printf("%s/%s/ns", s->dir, w->id);
        char name[DEVICE_SIZE], peer[DEVICE_SIZE];
        _cleanup_close_ int ns = -1;
        struct nl_link here, there;
        _cleanup_nl_ struct nl *in = NULL;
        unsigned br = 0;
        int home, r;

        if (!dir || !file)
                return err_errno(e, -ENOMEM, "network");
        r = mkdir_parents(dir, 0711, e);
        if (r < 0)
                return r;
        ns = netns_open(file, e);
        if (ns < 0)
                return ns;
        r = netns_enter(ns, &home, e);
        if (r < 0)
                return r;
        in = nl_open(e); /* a socket stays in the namespace it was made in */
        netns_leave(home);
        r = in ? bridge(s, n, w, &br, e) : -EIO;
        network_device(name, NET_LEG, w->id);
        network_device(peer, NET_INNER, w->id);
        if (r == 0)
                r = leg(s, n, in, ns, name, peer, &here, &there, e);
        if (r == 0)
                r = settle(s, n, &here, br, w->mtu, e);
        if (r == 0 && w->uplink)
                r = uplink(s, n, in, ns, w, e);
        if (r == 0)
                r = netns_enter(ns, &home, e);
        if (r == 0) {
                r = inside(s, in, w, &there, ns, dir, e);
                netns_leave(home);
        }
        for (unsigned i = 0; r == 0 && i < w->nports; i++)
                if (w->ports[i].live)
                        r = tap(s, n, &w->ports[i], br, w->mtu, e);
        return r;
}

/* --- all of it ------------------------------------------------------------------------------- */

/* What was known of namespaces that are gone. */
static void forget(struct linux_net *s)
{
        for (struct inner **i = &s->inner; *i;) {
                struct inner *x = *i;

                if (x->wanted) {
                        x->wanted = false;
                        i = &x->next;
                        continue;
                }
                *i = x->next;
                inner_free(x);
        }
}

/* <run>/net/owner holds the alias of our devices, for who looks for what was left behind. */
static int mark(struct linux_net *s, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/owner", s->dir);
        int r = path ? mkdir_parents(s->dir, 0711, e) : err_errno(e, -ENOMEM, "network");

        if (r < 0 || access(path, F_OK) == 0)
                return r;
        return file_replace(path, s->alias, strlen(s->alias), 0644, e);
}

static int apply(struct network_service *base, const struct net_plan *p, struct err **e)
{
        struct linux_net *s = self(base);
        _cleanup_nl_ struct nl *n = NULL;
        int r;

        if (p->nnetworks == 0 && access(s->dir, F_OK) < 0) /* nor was there anything */
                return 0;
        r = mark(s, e);
        if (r < 0)
                return r;
        n = nl_open(e);
        r = n ? host_rules(s, p, e) : -EIO;
        if (r < 0)
                return r;
        for (unsigned i = 0; i < p->nnetworks; i++) {
                int one = network(s, n, &p->networks[i], r < 0 ? NULL : e);

                r = r < 0 ? r : one;
        }
        if (r == 0) /* else something may look unwanted that is not */
                r = sweep_links(s, n, p, e);
        if (r == 0) {
                sweep_namespaces(s, p);
                forget(s);
        }
        if (r == 0 && p->nnetworks == 0)
                r = remove_tree(s->dir, e);
        return r;
}

static void passwords(struct network_service *base, const struct net_plan *p,
                      int (*posted)(void *arg, const struct net_port *port, const char *text),
                      void *arg)
{
        for (unsigned i = 0; i < p->nnetworks; i++) {
                _cleanup_free_ char *dir = path_printf("%s/%s", self(base)->dir, p->networks[i].id);

                if (dir)
                        metadata_passwords(dir, &p->networks[i], posted, arg);
        }
}

static void balancer(struct network_service *base, const struct net_network *n,
                     const struct net_balancer *b, struct buf *out)
{
        struct inner *known = inner_get(self(base), n->id);
        _cleanup_free_ char *dir = path_printf("%s/%s", self(base)->dir, n->id);
        int r = dir ? balancer_text(dir, b, out) : -ENOMEM;

        if (r < 0)
                buf_printf(out, "it does not answer: %s\n",
                           known && known->failure ? known->failure : strerror(-r));
}

static void close_service(struct network_service *base)
{
        struct linux_net *s = self(base);

        while (s->inner) {
                struct inner *i = s->inner;

                s->inner = i->next;
                inner_free(i);
        }
        free(s->ruleset);
        free(s->alias);
        free(s->metadata);
        free(s->dir);
        free(s);
}

static const struct network_ops ops = {.name = "linux",
                                       .apply = apply,
                                       .passwords = passwords,
                                       .balancer = balancer,
                                       .close = close_service};

struct network_service *network_linux_new(const char *run, const char *cloud)
{
        struct linux_net *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->base.ops = &ops;
        s->dir = path_printf("%s/net", run);
        s->alias = path_printf("stratofs %s", cloud);
        snprintf(s->table, sizeof(s->table), "stratofs_%.8s", cloud);
        if (!s->dir || !s->alias) {
                close_service(&s->base);
                return NULL;
        }
        return &s->base;
}

void network_linux_metadata(struct network_service *s, const char *program)
{
        free(self(s)->metadata);
        self(s)->metadata = program ? strdup(program) : NULL;
}
