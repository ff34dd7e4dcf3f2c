/* Rates: token buckets on guests' taps, classes on a network's way out.  By libmnl: what tc(8)
 * would do. */
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include "backend/network/linux/linux.h"
#include "backend/network/linux/netlink-raw.h"

enum { BURST_MIN = 16384, LATENCY_MS = 50, FIRST_CLASS = 0x10, CLASSES_MAX = 4000 };

static struct nlmsghdr *message(struct nl *n, int type, int flags, unsigned index, uint32_t parent,
                                uint32_t handle)
{
        struct nlmsghdr *h = nl_begin(n, type, flags);
        struct tcmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

        m->tcm_family = AF_UNSPEC;
        m->tcm_ifindex = index;
        m->tcm_parent = parent;
        m->tcm_handle = handle;
        return h;
}

/* What passes at once: enough for 10 ms, and for a packet that segmentation leaves whole. */
static uint32_t burst(uint64_t rate)
{
        return MIN(MAX(rate / 100, (uint64_t)BURST_MIN * 5), (uint64_t)UINT32_MAX / 2);
}

static int remove_root(struct nl *n, unsigned index, struct err **e)
{
        struct nlmsghdr *h = message(n, RTM_DELQDISC, NLM_F_ACK, index, TC_H_ROOT, 0);
        int r = nl_talk(n, h, NULL, NULL);

        return r < 0 && r != -ENOENT && r != -EINVAL ? err_errno(e, r, "lift a rate") : 0;
}

int rate_limit(struct nl *n, const struct nl_link *l, uint64_t rate, struct err **e)
{
        struct tc_tbf_qopt q = {.rate.rate = MIN(rate, (uint64_t)UINT32_MAX)};
        struct nlmsghdr *h;
        struct nlattr *o;
        uint32_t b = burst(rate);

        if (!rate)
                return streq(l->qdisc, "tbf") ? remove_root(n, l->index, e) : 0;
        q.limit = MIN(rate * LATENCY_MS / 1000 + b, (uint64_t)UINT32_MAX);
        h = message(n, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, l->index, TC_H_ROOT, 0);
        mnl_attr_put_strz(h, TCA_KIND, "tbf");
        o = mnl_attr_nest_start(h, TCA_OPTIONS);
        mnl_attr_put(h, TCA_TBF_PARMS, sizeof(q), &q);
        mnl_attr_put_u32(h, TCA_TBF_BURST, b);
        if (rate >= UINT32_MAX)
                mnl_attr_put_u64(h, TCA_TBF_RATE64, rate);
        mnl_attr_nest_end(h, o);
        return nl_change(n, h, e, "set a rate");
}

/* --- floors ---------------------------------------------------------------------------------- */

static bool has_floor(const struct net_network *w, const struct net_port *p)
{
        return w->rate && w->uplink && p->live && p->floor;
}

unsigned port_class(const struct net_network *w, unsigned port)
{
        unsigned c = FIRST_CLASS;

        if (!has_floor(w, &w->ports[port]))
                return 0;
        for (unsigned i = 0; i < port; i++)
                c += has_floor(w, &w->ports[i]);
        return c < FIRST_CLASS + CLASSES_MAX ? c : 0;
}

/* Time to send so many bytes, as the kernel counts it: in 64 ns. */
static uint32_t ticks(uint32_t bytes, uint64_t rate)
{
        return MIN((uint64_t)bytes * 1000000000 / rate >> 6, (uint64_t)UINT32_MAX);
}

static int class(struct nl *n, unsigned index, uint32_t parent, uint32_t id, uint64_t rate,
                 uint64_t ceil, struct err **e)
{
        struct nlmsghdr *h =
                message(n, RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_REPLACE, index, parent, id);
        struct tc_htb_opt x = {.rate.rate = MIN(rate, (uint64_t)UINT32_MAX),
                               .ceil.rate = MIN(ceil, (uint64_t)UINT32_MAX),
                               .buffer = ticks(burst(rate), rate),
                               .cbuffer = ticks(burst(ceil), ceil),
                               .quantum = BURST_MIN};
        struct nlattr *o;

        mnl_attr_put_strz(h, TCA_KIND, "htb");
        o = mnl_attr_nest_start(h, TCA_OPTIONS);
        mnl_attr_put(h, TCA_HTB_PARMS, sizeof(x), &x);
        if (rate >= UINT32_MAX)
                mnl_attr_put_u64(h, TCA_HTB_RATE64, rate);
        if (ceil >= UINT32_MAX)
                mnl_attr_put_u64(h, TCA_HTB_CEIL64, ceil);
        mnl_attr_nest_end(h, o);
        return nl_change(n, h, e, "set a floor");
}

static int classes(struct nl *n, unsigned index, const struct net_network *w, struct err **e)
{
        struct tc_htb_glob g = {.version = TC_HTB_PROTOVER, .rate2quantum = 10, .defcls = 2};
        struct nlmsghdr *h =
                message(n, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index, TC_H_ROOT, 0x10000);
        struct nlattr *o;
        int r;

        mnl_attr_put_strz(h, TCA_KIND, "htb");
        o = mnl_attr_nest_start(h, TCA_OPTIONS);
        mnl_attr_put(h, TCA_HTB_INIT, sizeof(g), &g);
        mnl_attr_nest_end(h, o);
        r = nl_change(n, h, e, "rate of the way out");
        if (r == 0)
                r = class(n, index, 0x10000, 0x10001, w->rate, w->rate, e);
        if (r == 0) /* everybody else's */
                r = class(n, index, 0x10001, 0x10002, MAX(w->rate / 100, 1000ul), w->rate, e);
        for (unsigned i = 0; r == 0 && i < w->nports; i++) {
                unsigned c = port_class(w, i);

                if (c)
                        r = class(n, index, 0x10001, 0x10000 | c, w->ports[i].floor,
                                  MAX(w->ports[i].floor, w->rate), e);
        }
        return r;
}

int rate_floors(struct nl *n, const struct nl_link *l, const struct net_network *w, char **last,
                struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        bool there = streq(l->qdisc, "htb");
        int r;

        if (!w->rate) {
                free(*last);
                *last = NULL;
                return there ? remove_root(n, l->index, e) : 0;
        }
        buf_printf(&text, "%u %" PRIu64, l->index, w->rate);
        for (unsigned i = 0; i < w->nports; i++)
                if (port_class(w, i))
                        buf_printf(&text, " %s=%" PRIu64, w->ports[i].id, w->ports[i].floor);
        if (there && *last && streq(*last, buf_str(&text)))
                return 0;
        free(*last);
        *last = NULL;
        r = there ? remove_root(n, l->index, e) : 0;
        if (r == 0)
                r = classes(n, l->index, w, e);
        if (r == 0)
                *last = buf_take(&text);
        return r;
}
