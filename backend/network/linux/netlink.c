/* rtnetlink, by libmnl. */
#include "backend/network/linux/netlink-raw.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/ioctl.h>

struct nl *nl_open(struct err **e)
{
        struct nl *n = calloc(1, sizeof(*n));

        if (n)
                n->s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
        if (!n || !n->s || mnl_socket_bind(n->s, 0, MNL_SOCKET_AUTOPID) < 0) {
                err_errno(e, -errno, "netlink");
                nl_close(n);
                return NULL;
        }
        return n;
}

void nl_close(struct nl *n)
{
        if (!n)
                return;
        if (n->s)
                mnl_socket_close(n->s);
        free(n);
}

struct nlmsghdr *nl_begin(struct nl *n, int type, int flags)
{
        struct nlmsghdr *h = mnl_nlmsg_put_header(n->buf);

        h->nlmsg_type = type;
        h->nlmsg_flags = NLM_F_REQUEST | flags;
        h->nlmsg_seq = ++n->seq;
        return h;
}

/* Sends what begin() made and hears the answer: each message to cb.  -errno of the kernel. */
int nl_talk(struct nl *n, struct nlmsghdr *h, mnl_cb_t cb, void *arg)
{
        unsigned port = mnl_socket_get_portid(n->s);
        int r;

        if (mnl_socket_sendto(n->s, h, h->nlmsg_len) < 0)
                return -errno;
        do {
                ssize_t len = mnl_socket_recvfrom(n->s, n->buf, sizeof(n->buf));

                if (len < 0)
                        return -errno;
                r = mnl_cb_run(n->buf, len, n->seq, port, cb, arg);
        } while (r > 0);
        return r < 0 ? -errno : 0;
}

int nl_change(struct nl *n, struct nlmsghdr *h, struct err **e, const char *words)
{
        int r;

        h->nlmsg_flags |= NLM_F_ACK;
        r = nl_talk(n, h, NULL, NULL);
        return r < 0 ? err_errno(e, r, "%s", words) : 0;
}

/* --- looking --------------------------------------------------------------------------------- */

static int keep(const struct nlattr *a, void *arg)
{
        const struct nlattr **t = arg;

        if (mnl_attr_get_type(a) <= IFLA_MAX)
                t[mnl_attr_get_type(a)] = a;
        return MNL_CB_OK;
}

static void read_info(const struct nlattr *info, struct nl_link *l)
{
        const struct nlattr *a, *b;

        mnl_attr_for_each_nested(a, info)
        {
                if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
                        snprintf(l->kind, sizeof(l->kind), "%s", mnl_attr_get_str(a));
                else if (mnl_attr_get_type(a) == IFLA_INFO_SLAVE_DATA)
                        mnl_attr_for_each_nested(b, a) if (mnl_attr_get_type(b) ==
                                                           IFLA_BRPORT_ISOLATED) l->isolated =
                                mnl_attr_get_u8(b);
        }
}

/* What we receive of a guest's tap it has sent. */
static void read_stats(const void *from, struct net_count *ret)
{
        struct rtnl_link_stats64 s = {};

        memcpy(&s, from, 8 * sizeof(__u64)); /* up to tx_dropped */
        *ret = (struct net_count){.in_bytes = s.tx_bytes,
                                  .in_packets = s.tx_packets,
                                  .in_dropped = s.tx_dropped,
                                  .out_bytes = s.rx_bytes,
                                  .out_packets = s.rx_packets,
                                  .out_dropped = s.rx_dropped};
}

static void read_link(const struct nlmsghdr *h, struct nl_link *l)
{
        const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
        const struct nlattr *t[IFLA_MAX + 1] = {};

        *l = (struct nl_link){.index = m->ifi_index, .up = m->ifi_flags & IFF_UP};
        mnl_attr_parse(h, sizeof(*m), keep, t);
        if (t[IFLA_IFNAME])
                snprintf(l->name, sizeof(l->name), "%s", mnl_attr_get_str(t[IFLA_IFNAME]));
        if (t[IFLA_IFALIAS])
                snprintf(l->alias, sizeof(l->alias), "%s", mnl_attr_get_str(t[IFLA_IFALIAS]));
        if (t[IFLA_MASTER])
                l->master = mnl_attr_get_u32(t[IFLA_MASTER]);
        if (t[IFLA_MTU])
                l->mtu = mnl_attr_get_u32(t[IFLA_MTU]);
        if (t[IFLA_ADDRESS] && mnl_attr_get_payload_len(t[IFLA_ADDRESS]) == 6) {
                const uint8_t *p = mnl_attr_get_payload(t[IFLA_ADDRESS]);

                snprintf(l->mac, sizeof(l->mac), "%02x:%02x:%02x:%02x:%02x:%02x", p[0], p[1], p[2],
                         p[3], p[4], p[5]);
        }
        if (t[IFLA_QDISC])
                snprintf(l->qdisc, sizeof(l->qdisc), "%s", mnl_attr_get_str(t[IFLA_QDISC]));
        if (t[IFLA_STATS64] && mnl_attr_get_payload_len(t[IFLA_STATS64]) >= 8 * 8)
                read_stats(mnl_attr_get_payload(t[IFLA_STATS64]), &l->count);
        if (t[IFLA_LINKINFO])
                read_info(t[IFLA_LINKINFO], l);
}

struct walk {
        int (*each)(void *arg, const struct nl_link *l);
        void *arg;
        int result;
};

static int see_link(const struct nlmsghdr *h, void *arg)
{
        struct walk *w = arg;
        struct nl_link l;

        if (h->nlmsg_type != RTM_NEWLINK || w->result)
                return MNL_CB_OK;
        read_link(h, &l);
        w->result = w->each(w->arg, &l);
        return MNL_CB_OK;
}

int nl_links(struct nl *n, int (*each)(void *arg, const struct nl_link *l), void *arg,
             struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_GETLINK, NLM_F_DUMP);
        struct walk w = {.each = each, .arg = arg};
        int r;

        mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
        r = nl_talk(n, h, see_link, &w);
        return r < 0 ? err_errno(e, r, "list links") : w.result;
}

static int found(void *arg, const struct nl_link *l)
{
        *(struct nl_link *)arg = *l;
        return 1;
}

int nl_link(struct nl *n, const char *name, struct nl_link *ret, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_GETLINK, NLM_F_ACK);
        struct walk w = {.each = found, .arg = ret};
        int r;

        mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
        mnl_attr_put_strz(h, IFLA_IFNAME, name);
        r = nl_talk(n, h, see_link, &w);
        return r == -ENODEV ? 0 : r < 0 ? err_errno(e, r, "look at %s", name) : w.result;
}

/* --- links ----------------------------------------------------------------------------------- */

int nl_add_bridge(struct nl *n, const char *name, const char *alias, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        struct nlattr *info, *data;

        mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
        mnl_attr_put_strz(h, IFLA_IFNAME, name);
        info = mnl_attr_nest_start(h, IFLA_LINKINFO);
        mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
        data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
        mnl_attr_put_u32(h, IFLA_BR_STP_STATE, 0);
        mnl_attr_put_u32(h, IFLA_BR_FORWARD_DELAY, 0);
        mnl_attr_put_u8(h, IFLA_BR_MCAST_SNOOPING, 0); /* there is nothing to learn */
        mnl_attr_nest_end(h, data);
        mnl_attr_nest_end(h, info);
        return nl_change(n, h, e, name);
}

int nl_add_veth(struct nl *n, const char *name, const char *alias, const char *peer, int peer_ns,
                struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        struct nlattr *info, *data, *other;

        mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
        mnl_attr_put_strz(h, IFLA_IFNAME, name);
        info = mnl_attr_nest_start(h, IFLA_LINKINFO);
        mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
        data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
        other = mnl_attr_nest_start(h, VETH_INFO_PEER);
        mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
        mnl_attr_put_strz(h, IFLA_IFNAME, peer);
        mnl_attr_put_u32(h, IFLA_NET_NS_FD, peer_ns);
        mnl_attr_nest_end(h, other);
        mnl_attr_nest_end(h, data);
        mnl_attr_nest_end(h, info);
        return nl_change(n, h, e, name);
}

/* A link of that kind, made in the namespace of that descriptor; nest: its data follows. */
static struct nlmsghdr *add_link(struct nl *n, const char *name, const char *kind, int ns,
                                 unsigned lower, const char *mac, struct nlattr **info,
                                 struct nlattr **data)
{
        struct nlmsghdr *h = nl_begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        uint8_t bytes[6];

        mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
        mnl_attr_put_strz(h, IFLA_IFNAME, name);
        if (ns >= 0)
                mnl_attr_put_u32(h, IFLA_NET_NS_FD, ns);
        if (lower)
                mnl_attr_put_u32(h, IFLA_LINK, lower);
        if (mac && nl_mac(mac, bytes))
                mnl_attr_put(h, IFLA_ADDRESS, 6, bytes);
        *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
        mnl_attr_put_strz(h, IFLA_INFO_KIND, kind);
        *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
        return h;
}

static int added(struct nl *n, struct nlmsghdr *h, struct nlattr *info, struct nlattr *data,
                 const char *name, const char *kind, struct err **e)
{
        int r;

        mnl_attr_nest_end(h, data);
        mnl_attr_nest_end(h, info);
        h->nlmsg_flags |= NLM_F_ACK;
        r = nl_talk(n, h, NULL, NULL);
        if (r == -EOPNOTSUPP)
                return err_set(e, -ENOTSUP, "this host's kernel has no %s", kind);
        return r < 0 ? err_errno(e, r, "%s '%s'", kind, name) : 0;
}

int nl_add_vxlan(struct nl *n, const char *name, int ns, const struct nl_vxlan *x, struct err **e)
{
        struct nlattr *info, *data;
        struct nlmsghdr *h = add_link(n, name, "vxlan", ns, 0, x->mac, &info, &data);

        mnl_attr_put_u32(h, IFLA_VXLAN_ID, x->segment);
        mnl_attr_put_u32(h, IFLA_VXLAN_LOCAL, htonl(x->local));
        mnl_attr_put_u16(h, IFLA_VXLAN_PORT, htons(NL_VXLAN_PORT));
        mnl_attr_put_u8(h, IFLA_VXLAN_LEARNING, 0);
        return added(n, h, info, data, name, "vxlan", e);
}

int nl_add_macvlan(struct nl *n, const char *name, int ns, unsigned lower, struct err **e)
{
        struct nlattr *info, *data;
        struct nlmsghdr *h = add_link(n, name, "macvlan", ns, lower, NULL, &info, &data);

        mnl_attr_put_u32(h, IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE);
        return added(n, h, info, data, name, "macvlan", e);
}

int nl_add_vlan(struct nl *n, const char *name, unsigned lower, unsigned tag, struct err **e)
{
        struct nlattr *info, *data;
        struct nlmsghdr *h = add_link(n, name, "vlan", -1, lower, NULL, &info, &data);

        mnl_attr_put_u16(h, IFLA_VLAN_ID, tag);
        return added(n, h, info, data, name, "vlan", e);
}

bool nl_mac(const char *text, uint8_t m[6])
{
        return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &m[0], &m[1], &m[2], &m[3],
                      &m[4], &m[5]) == 6;
}

int nl_set(struct nl *n, unsigned index, unsigned master, unsigned mtu, const char *mac,
           const char *alias, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_NEWLINK, 0);
        struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
        uint8_t bytes[6];

        m->ifi_index = index;
        m->ifi_flags = m->ifi_change = IFF_UP;
        if (master)
                mnl_attr_put_u32(h, IFLA_MASTER, master);
        if (mtu)
                mnl_attr_put_u32(h, IFLA_MTU, mtu);
        if (mac && nl_mac(mac, bytes))
                mnl_attr_put(h, IFLA_ADDRESS, 6, bytes);
        if (alias)
                mnl_attr_put_strz(h, IFLA_IFALIAS, alias);
        return nl_change(n, h, e, "set a link up");
}

int nl_isolate(struct nl *n, unsigned index, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_SETLINK, 0);
        struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
        struct nlattr *port;

        m->ifi_family = AF_BRIDGE;
        m->ifi_index = index;
        port = mnl_attr_nest_start(h, IFLA_PROTINFO);
        mnl_attr_put_u8(h, IFLA_BRPORT_ISOLATED, 1);
        mnl_attr_nest_end(h, port);
        return nl_change(n, h, e, "isolate a port of a bridge");
}

int nl_del(struct nl *n, unsigned index, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, RTM_DELLINK, NLM_F_ACK);
        struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
        int r;

        m->ifi_index = index;
        r = nl_talk(n, h, NULL, NULL);
        return r < 0 && r != -ENODEV ? err_errno(e, r, "remove a link") : 0;
}

int tap_add(const char *name, struct err **e)
{
        _cleanup_close_ int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
        struct ifreq f = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

        snprintf(f.ifr_name, sizeof(f.ifr_name), "%s", name);
        if (fd < 0 || ioctl(fd, TUNSETIFF, &f) < 0 ||
            ioctl(fd, TUNSETOWNER, 0) < 0 || /* one without is everybody's */
            ioctl(fd, TUNSETPERSIST, 1) < 0)
                return err_errno(e, -errno, "tap '%s'", name);
        return 0;
}
