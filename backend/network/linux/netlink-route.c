/* Addresses, routes and neighbours, by libmnl.  Each call makes what there is of a kind into
 * exactly what it is told. */
#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include "backend/network/linux/netlink-raw.h"

struct nl_ip nl_ip4(uint32_t a)
{
        struct nl_ip ip = {.family = AF_INET};

        a = htonl(a);
        memcpy(ip.b, &a, 4);
        return ip;
}

struct nl_ip nl_ip6(const struct in6_addr *a)
{
        struct nl_ip ip = {.family = AF_INET6};

        memcpy(ip.b, a, 16);
        return ip;
}

void nl_list_add(struct nl_list *l, const struct nl_item *i)
{
        struct nl_item *v = l->n % 16 ? l->v : reallocarray(l->v, l->n + 16, sizeof(*v));

        if (!v) {
                l->failed = true;
                return;
        }
        l->v = v;
        v[l->n++] = *i;
}

void nl_list_free(struct nl_list *l)
{
        free(l->v);
}

static unsigned size_of(const struct nl_ip *ip)
{
        return ip->family == AF_INET ? 4 : ip->family == AF_INET6 ? 16 : 0;
}

static bool same(const struct nl_item *a, const struct nl_item *b)
{
        return a->index == b->index && a->prefix == b->prefix && a->ip.family == b->ip.family &&
               a->via.family == b->via.family && memcmp(a->ip.b, b->ip.b, 16) == 0 &&
               memcmp(a->via.b, b->via.b, 16) == 0 && memcmp(a->mac, b->mac, 6) == 0 &&
               a->table == b->table && a->mark == b->mark && streq(a->from, b->from);
}

static void put_ip(struct nlmsghdr *h, int type, const struct nl_ip *ip)
{
        if (ip->family)
                mnl_attr_put(h, type, size_of(ip), ip->b);
}

static void get_ip(const struct nlattr *a, uint8_t family, struct nl_ip *ret)
{
        size_t n = mnl_attr_get_payload_len(a);

        *ret = (struct nl_ip){.family = family};
        if (n == size_of(ret))
                memcpy(ret->b, mnl_attr_get_payload(a), n);
}

/* One kind of thing. */
struct sort {
        const char *name;
        int get, family; /* of the question */
        size_t header;   /* of the question */
        mnl_cb_t see;    /* adds to struct seen what is ours to change */
        struct nlmsghdr *(*make)(struct nl *n, bool add, const struct nl_item *i);
};
struct seen {
        unsigned index;
        struct nl_list there;
};

static int look(struct nl *n, const struct sort *s, int family, struct seen *w, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, s->get, NLM_F_DUMP);
        uint8_t *m = mnl_nlmsg_put_extra_header(h, s->header);
        int r;

        *m = family; /* the first byte of each of these headers */
        r = nl_talk(n, h, s->see, w);
        if ((r == -EOPNOTSUPP || r == -EAFNOSUPPORT) &&
            family == AF_INET6) /* a kernel without IPv6 */
                return 0;
        if (r == 0 && w->there.failed)
                r = -ENOMEM;
        return r < 0 ? err_errno(e, r, "list %s", s->name) : 0;
}

static bool in(const struct nl_list *l, const struct nl_item *i)
{
        for (unsigned k = 0; k < l->n; k++)
                if (same(&l->v[k], i))
                        return true;
        return false;
}

/* What goes goes first: a route may stand in the way of its successor. */
static int sync_list(struct nl *n, const struct sort *s, unsigned index, const struct nl_list *l,
                     struct err **e)
{
        struct seen w = {.index = index};
        int r = l->failed ? err_errno(e, -ENOMEM, "%s", s->name) : 0;

        if (r == 0)
                r = look(n, s, s->family ?: AF_INET, &w, e);
        if (r == 0 && !s->family)
                r = look(n, s, AF_INET6, &w, e);
        for (unsigned i = 0; r == 0 && i < w.there.n; i++)
                if (!in(l, &w.there.v[i]))
                        r = nl_change(n, s->make(n, false, &w.there.v[i]), e, s->name);
        for (unsigned i = 0; r == 0 && i < l->n; i++)
                if (!in(&w.there, &l->v[i]))
                        r = nl_change(n, s->make(n, true, &l->v[i]), e, s->name);
        nl_list_free(&w.there);
        return r;
}

/* --- addresses ------------------------------------------------------------------------------- */

static int see_address(const struct nlmsghdr *h, void *arg)
{
        const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
        struct seen *w = arg;
        struct nl_item i = {.index = m->ifa_index, .prefix = m->ifa_prefixlen};
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWADDR || (w->index && m->ifa_index != w->index))
                return MNL_CB_OK;
        mnl_attr_for_each(a, h, sizeof(*m))
        {
                int type = mnl_attr_get_type(a);

                if (type == (m->ifa_family == AF_INET ? IFA_LOCAL : IFA_ADDRESS))
                        get_ip(a, m->ifa_family, &i.ip);
        }
        if (i.ip.family == AF_INET6 && i.ip.b[0] == 0xfe && i.ip.b[1] == 0x80 &&
            i.ip.b[11] == 0xff) /* the kernel's own, of the MAC */
                return MNL_CB_OK;
        nl_list_add(&w->there, &i);
        return MNL_CB_OK;
}

static struct nlmsghdr *make_address(struct nl *n, bool add, const struct nl_item *i)
{
        struct nlmsghdr *h = nl_begin(n, add ? RTM_NEWADDR : RTM_DELADDR,
                                      add ? NLM_F_CREATE | NLM_F_REPLACE : 0);
        struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
        static const struct ifa_cacheinfo deprecated = {.ifa_valid = UINT32_MAX};

        m->ifa_family = i->ip.family;
        m->ifa_prefixlen = i->prefix;
        m->ifa_index = i->index;
        m->ifa_flags = i->ip.family == AF_INET6 ? IFA_F_NODAD : 0;
        if (i->bare)
                mnl_attr_put_u32(h, IFA_FLAGS, IFA_F_NOPREFIXROUTE);
        put_ip(h, IFA_LOCAL, &i->ip);
        put_ip(h, IFA_ADDRESS, &i->ip);
        if (i->answers)
                mnl_attr_put(h, IFA_CACHEINFO, sizeof(deprecated), &deprecated);
        return h;
}

static const struct sort sort_addresses = {"addresses", RTM_GETADDR, 0, sizeof(struct ifaddrmsg),
                                           see_address, make_address};

int nl_addresses(struct nl *n, unsigned index, const struct nl_list *l, struct err **e)
{
        return sync_list(n, &sort_addresses, index, l, e);
}

int nl_all_addresses(struct nl *n, struct nl_list *out, struct err **e)
{
        struct seen w = {};
        int r = look(n, &sort_addresses, AF_INET, &w, e);

        *out = w.there;
        return r;
}

/* --- routes ---------------------------------------------------------------------------------- */

static int see_route(const struct nlmsghdr *h, void *arg)
{
        const struct rtmsg *m = mnl_nlmsg_get_payload(h);
        struct nl_item i = {.prefix = m->rtm_dst_len, .ip = {.family = m->rtm_family}};
        struct seen *w = arg;
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_protocol != RTPROT_STATIC ||
            m->rtm_type != RTN_UNICAST || m->rtm_flags & RTM_F_CLONED)
                return MNL_CB_OK;
        i.table = m->rtm_table;
        mnl_attr_for_each(a, h, sizeof(*m))
        {
                if (mnl_attr_get_type(a) == RTA_OIF)
                        i.index = mnl_attr_get_u32(a);
                else if (mnl_attr_get_type(a) == RTA_DST)
                        get_ip(a, m->rtm_family, &i.ip);
                else if (mnl_attr_get_type(a) == RTA_GATEWAY)
                        get_ip(a, m->rtm_family, &i.via);
                else if (mnl_attr_get_type(a) == RTA_TABLE)
                        i.table = mnl_attr_get_u32(a);
        }
        if (i.table == RT_TABLE_MAIN)
                i.table = 0;
        if (w->index ? w->index == i.index && !i.table : true)
                nl_list_add(&w->there, &i);
        return MNL_CB_OK;
}

static struct nlmsghdr *make_route(struct nl *n, bool add, const struct nl_item *i)
{
        struct nlmsghdr *h = nl_begin(n, add ? RTM_NEWROUTE : RTM_DELROUTE,
                                      add ? NLM_F_CREATE | NLM_F_REPLACE : 0);
        struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

        m->rtm_family = i->ip.family;
        m->rtm_dst_len = i->prefix;
        m->rtm_table = i->table ? RT_TABLE_UNSPEC : RT_TABLE_MAIN;
        m->rtm_protocol = RTPROT_STATIC;
        m->rtm_type = RTN_UNICAST;
        m->rtm_scope = !add                      ? RT_SCOPE_NOWHERE /* any */
                       : i->via.family           ? RT_SCOPE_UNIVERSE
                       : i->ip.family == AF_INET ? RT_SCOPE_LINK
                                                 : RT_SCOPE_UNIVERSE;
        m->rtm_flags = add && i->via.family ? RTNH_F_ONLINK : 0;
        if (i->prefix)
                put_ip(h, RTA_DST, &i->ip);
        put_ip(h, RTA_GATEWAY, &i->via);
        mnl_attr_put_u32(h, RTA_OIF, i->index);
        if (i->table)
                mnl_attr_put_u32(h, RTA_TABLE, i->table);
        return h;
}

int nl_routes(struct nl *n, unsigned index, const struct nl_list *l, struct err **e)
{
        static const struct sort s = {"routes",  RTM_GETROUTE, 0, sizeof(struct rtmsg),
                                      see_route, make_route};

        return sync_list(n, &s, index, l, e);
}

/* --- rules ----------------------------------------------------------------------------------- */

enum { RULES_PRIORITY = 1000 }; /* ours are known by it */

static int see_rule(const struct nlmsghdr *h, void *arg)
{
        const struct fib_rule_hdr *m = mnl_nlmsg_get_payload(h);
        struct nl_item i = {.ip = {.family = m->family}, .table = m->table};
        struct seen *w = arg;
        const struct nlattr *a;
        uint32_t priority = 0;

        if (h->nlmsg_type != RTM_NEWRULE)
                return MNL_CB_OK;
        mnl_attr_for_each(a, h, sizeof(*m))
        {
                if (mnl_attr_get_type(a) == FRA_PRIORITY)
                        priority = mnl_attr_get_u32(a);
                else if (mnl_attr_get_type(a) == FRA_TABLE)
                        i.table = mnl_attr_get_u32(a);
                else if (mnl_attr_get_type(a) == FRA_FWMARK)
                        i.mark = mnl_attr_get_u32(a);
                else if (mnl_attr_get_type(a) == FRA_IIFNAME)
                        snprintf(i.from, sizeof(i.from), "%s", mnl_attr_get_str(a));
        }
        if (priority == RULES_PRIORITY)
                nl_list_add(&w->there, &i);
        return MNL_CB_OK;
}

static struct nlmsghdr *make_rule(struct nl *n, bool add, const struct nl_item *i)
{
        struct nlmsghdr *h =
                nl_begin(n, add ? RTM_NEWRULE : RTM_DELRULE, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
        struct fib_rule_hdr *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

        m->family = i->ip.family;
        m->action = FR_ACT_TO_TBL;
        mnl_attr_put_u32(h, FRA_PRIORITY, RULES_PRIORITY);
        mnl_attr_put_u32(h, FRA_TABLE, i->table);
        if (i->mark)
                mnl_attr_put_u32(h, FRA_FWMARK, i->mark);
        if (*i->from)
                mnl_attr_put_strz(h, FRA_IIFNAME, i->from);
        return h;
}

int nl_rules(struct nl *n, const struct nl_list *l, struct err **e)
{
        static const struct sort s = {"rules",  RTM_GETRULE, 0, sizeof(struct fib_rule_hdr),
                                      see_rule, make_rule};

        return sync_list(n, &s, 0, l, e);
}

/* --- neighbours ------------------------------------------------------------------------------ */

static int see_neighbour(const struct nlmsghdr *h, void *arg)
{
        const struct ndmsg *m = mnl_nlmsg_get_payload(h);
        struct nl_item i = {.index = m->ndm_ifindex};
        struct seen *w = arg;
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWNEIGH || i.index != w->index || !(m->ndm_state & NUD_PERMANENT))
                return MNL_CB_OK;
        mnl_attr_for_each(a, h, sizeof(*m))
        {
                if (mnl_attr_get_type(a) == NDA_DST)
                        get_ip(a, m->ndm_family == AF_BRIDGE ? AF_INET : m->ndm_family,
                               m->ndm_family == AF_BRIDGE ? &i.via : &i.ip);
                else if (mnl_attr_get_type(a) == NDA_LLADDR && mnl_attr_get_payload_len(a) == 6)
                        memcpy(i.mac, mnl_attr_get_payload(a), 6);
        }
        nl_list_add(&w->there, &i);
        return MNL_CB_OK;
}

static struct nlmsghdr *make_neighbour(struct nl *n, bool add, const struct nl_item *i)
{
        struct nlmsghdr *h = nl_begin(n, add ? RTM_NEWNEIGH : RTM_DELNEIGH,
                                      add ? NLM_F_CREATE | NLM_F_REPLACE : 0);
        struct ndmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

        m->ndm_family = i->ip.family ?: AF_BRIDGE;
        m->ndm_ifindex = i->index;
        m->ndm_state = NUD_PERMANENT;
        m->ndm_flags = i->ip.family ? 0 : NTF_SELF;
        mnl_attr_put(h, NDA_LLADDR, 6, i->mac);
        put_ip(h, NDA_DST, i->ip.family ? &i->ip : &i->via);
        return h;
}

int nl_neighbours(struct nl *n, unsigned index, const struct nl_list *l, struct err **e)
{
        static const struct sort s = {"neighbours",         RTM_GETNEIGH,  0,
                                      sizeof(struct ndmsg), see_neighbour, make_neighbour};

        return sync_list(n, &s, index, l, e);
}

int nl_fdb(struct nl *n, unsigned index, const struct nl_list *l, struct err **e)
{
        static const struct sort s = {"forwarding entries", RTM_GETNEIGH,  AF_BRIDGE,
                                      sizeof(struct ndmsg), see_neighbour, make_neighbour};

        return sync_list(n, &s, index, l, e);
}

int nl_proxy(struct nl *n, bool on, unsigned index, uint32_t address, struct err **e)
{
        struct nlmsghdr *h = nl_begin(n, on ? RTM_NEWNEIGH : RTM_DELNEIGH,
                                      on ? NLM_F_CREATE | NLM_F_REPLACE : 0);
        struct ndmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
        struct nl_ip ip = nl_ip4(address);

        m->ndm_family = AF_INET;
        m->ndm_ifindex = index;
        m->ndm_state = NUD_PERMANENT;
        m->ndm_flags = NTF_PROXY;
        put_ip(h, NDA_DST, &ip);
        return nl_change(n, h, e, "answer for an address outside");
}
