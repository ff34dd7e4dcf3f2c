/* A network's rules, as nftables' own text: a table each for IPv4 and IPv6.
 *
 * In a network's namespace a packet of a guest goes through `forward` into the chain of its port
 * (e_), which jumps to those of its groups (ge_); what one of them lets out goes on to `to`: out by
 * whatever leads out, or into the chain of the guest it is for (i_, gi_).  What nobody let pass is
 * dropped.  Answers to what was let pass are known by connection tracking.
 *
 * What is dropped at the end of a chain at a hook is so by a rule, not by the chain's policy: while
 * the kernel replaces a table, the old chain is for a moment still at its hook without its rules,
 * and a policy would drop what the new one lets pass. */
#include "backend/network/linux/linux.h"

#include <stdlib.h>

/* One of the two tables. */
struct side {
        const struct net_plan *p;
        const struct net_network *n;
        bool six;
        char guests[DEVICE_SIZE], up[DEVICE_SIZE], tunnel[DEVICE_SIZE];
        struct buf *out;
};

static const char *ip(const struct side *s)
{
        return s->six ? "ip6" : "ip";
}

/* The port's address on this side; false: it has none. */
static bool address_of(const struct side *s, const struct net_port *p, char a[ADDRESS6_TEXT_SIZE])
{
        if (s->six ? !network_some6(&p->address6) : !p->address)
                return false;
        if (s->six)
                network_address6(a, &p->address6);
        else
                network_address(a, p->address);
        return true;
}

static void rule_text(const struct side *s, const struct net_rule *r)
{
        const char *side = r->out ? "daddr" : "saddr";
        char a[ADDRESS6_TEXT_SIZE], t[DEVICE_SIZE];

        if ((r->prefix && r->six != s->six) || r->proto == (s->six ? 1 : 58))
                return;
        if (r->group >= 0)
                buf_printf(s->out, "%s %s @g_%s ", ip(s), side,
                           ruleset_tail(t, s->n->groups[r->group].id));
        else if (r->prefix)
                buf_printf(s->out, "%s %s %s/%u ", ip(s), side,
                           r->six ? network_address6(a, &r->peer6) : network_address(a, r->peer),
                           r->prefix);
        if (r->from || r->to)
                buf_printf(s->out, "meta l4proto %d th dport %u-%u ", r->proto, r->from, r->to);
        else if (r->proto >= 0)
                buf_printf(s->out, "meta l4proto %d ", r->proto);
        buf_addstr(s->out, r->out ? "goto to\n" : "accept\n");
}

/* The members' addresses, and what it lets out and in. */
static void group_text(const struct side *s, unsigned g)
{
        const struct net_group *group = &s->n->groups[g];
        char a[ADDRESS6_TEXT_SIZE], t[DEVICE_SIZE];
        unsigned count = 0;

        ruleset_tail(t, group->id);
        buf_printf(s->out, "set g_%s {\ntype %s\n", t + 3, s->six ? "ipv6_addr" : "ipv4_addr");
        for (unsigned i = 0; i < s->n->nports; i++)
                for (unsigned k = 0; k < s->n->ports[i].ngroups; k++)
                        if (s->n->ports[i].groups[k] == g && address_of(s, &s->n->ports[i], a))
                                buf_printf(s->out, "%s%s", count++ ? ", " : "elements = { ", a);
        for (unsigned i = 0; i < group->nothers; i++) {
                struct net_port p = {.address = group->others[i].address,
                                     .address6 = group->others[i].address6};

                if (address_of(s, &p, a))
                        buf_printf(s->out, "%s%s", count++ ? ", " : "elements = { ", a);
        }
        buf_addstr(s->out, count ? " }\n}\n" : "}\n");
        for (int o = 0; o < 2; o++) {
                buf_printf(s->out, "chain g%c_%s {\n", o ? 'e' : 'i', t + 3);
                for (unsigned i = 0; i < group->nrules; i++)
                        if (group->rules[i].out == o)
                                rule_text(s, &group->rules[i]);
                buf_addstr(s->out, "}\n");
        }
}

static void port_text(const struct side *s, const struct net_port *p)
{
        char t[DEVICE_SIZE], g[DEVICE_SIZE];

        ruleset_tail(t, p->id);
        for (int o = 0; o < 2; o++) {
                buf_printf(s->out, "chain %c_%s {\n", o ? 'e' : 'i', t + 3);
                if (p->open)
                        buf_addstr(s->out, o ? "goto to\n" : "accept\n");
                for (unsigned k = 0; !p->open && k < p->ngroups; k++)
                        buf_printf(s->out, "jump g%c_%s\n", o ? 'e' : 'i',
                                   ruleset_tail(g, s->n->groups[p->groups[k]].id));
                buf_addstr(s->out, "drop\n}\n");
        }
}

/* Into the chain of the port that the packet is of or for: what is the chain's letter.  Addresses
 * that ports have beside their own are the first such port's.  Rules, not a map: a packet that is
 * here while the table is replaced would find the old map's elements gone, and be dropped.  Packets
 * of connections that stand do not come here. */
static void to_ports(const struct side *s, const char *match, char what)
{
        const char *field = what == 'e' ? "saddr" : "daddr";
        char a[ADDRESS6_TEXT_SIZE], t[DEVICE_SIZE];

        for (unsigned i = 0; i < s->n->nports; i++)
                if (address_of(s, &s->n->ports[i], a))
                        buf_printf(s->out, "%s%s %s %s goto %c_%s\n", match, ip(s), field, a, what,
                                   ruleset_tail(t, s->n->ports[i].id));
        for (unsigned i = 0; i < s->n->nports; i++) {
                const struct net_port *p = &s->n->ports[i];

                for (unsigned k = 0; !s->six && k < p->npairs; k++)
                        buf_printf(s->out, "%s%s %s %s/%u goto %c_%s\n", match, ip(s), field,
                                   network_address(a, p->pairs[k].address), p->pairs[k].prefix,
                                   what, ruleset_tail(t, p->id));
                if (p->open && p->live && what == 'e')
                        buf_printf(s->out, "%sether saddr %s goto to\n", match, p->mac);
        }
}

/* Ports with a floor, each to its class of the way out. */
static void classes(const struct side *s)
{
        char a[ADDRESS6_TEXT_SIZE];

        for (unsigned i = 0; i < s->n->nports; i++) {
                unsigned c = port_class(s->n, i);

                if (c && address_of(s, &s->n->ports[i], a))
                        buf_printf(s->out, "oifname \"%s\" %s saddr %s meta priority set 1:%x\n",
                                   s->up, ip(s), a, c);
        }
}

static void forward(const struct side *s)
{
        char match[64];

        buf_addstr(s->out,
                   "chain forward {\ntype filter hook forward priority 0; policy accept;\n");
        classes(s);
        /* On its way between a router and another host; that host looks at it. */
        buf_printf(s->out,
                   "iifname { \"snr*\", \"sng*\" } oifname \"%s\" accept\n"
                   "ct state established,related accept\nct state invalid drop\n",
                   s->tunnel);
        snprintf(match, sizeof(match), "iifname \"%s\" ", s->guests);
        to_ports(s, match, 'e');
        buf_printf(s->out, "iifname \"%s\" drop\n", s->guests);
        /* To and from routers that have their way out here; they look for themselves. */
        buf_printf(s->out, "oifname \"sng*\" accept\niifname \"sng*\" oifname != \"%s\" accept\n",
                   s->guests);
        if (s->n->uplink && !s->six) {
                snprintf(match, sizeof(match), "iifname \"%s\" ct status dnat ", s->up);
                to_ports(s, match, 'i');
                buf_printf(s->out, "iifname \"%s\" drop\n", s->up);
        }
        to_ports(s, "", 'i');
        buf_addstr(s->out, "drop\n}\n");
}

/* What comes for a load balancer is let out by the guest's groups and in by its port's (`to`). */
static void balancers_in(const struct side *s)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE], match[96];

        for (unsigned i = 0; i < s->n->nbalancers; i++) {
                const struct net_balancer *b = &s->n->balancers[i];
                const char *port = ruleset_tail(t, b->port);

                network_address(a, b->address);
                snprintf(match, sizeof(match), "iifname \"%s\" ip daddr %s ", s->guests, a);
                to_ports(s, match, 'e');
                buf_printf(s->out,
                           "iifname \"%s\" ip daddr %s drop\n"
                           "iifname \"%s\" ip daddr %s ct status dnat goto i_%s\n"
                           "iifname \"%s\" ip daddr %s drop\n"
                           "ip daddr %s goto i_%s\n",
                           s->guests, a, s->up, a, port, s->up, a, a, port);
        }
}

/* It reaches its members as any guest would. */
static void balancers_out(const struct side *s)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        if (s->n->nbalancers == 0)
                return;
        buf_addstr(s->out, "chain from {\ntype filter hook output priority 0; policy accept;\n"
                           "ct state established,related accept\noifname \"lo\" accept\n");
        for (unsigned i = 0; i < s->n->nbalancers; i++)
                buf_printf(s->out, "ip saddr %s goto e_%s\n",
                           network_address(a, s->n->balancers[i].address),
                           ruleset_tail(t, s->n->balancers[i].port));
        buf_addstr(s->out, "}\n");
}

static void own(const struct side *s)
{
        buf_addstr(s->out, "chain own {\ntype filter hook input priority 0; policy accept;\n"
                           "ct state established,related accept\niifname \"lo\" accept\n");
        if (!s->six)
                balancers_in(s);
        if (s->six)
                buf_printf(s->out,
                           "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n"
                           "iifname \"%s\" icmpv6 type { nd-router-solicit, echo-request } accept\n"
                           "iifname \"%s\" udp dport { 53, 547 } accept\n",
                           s->guests, s->guests);
        else
                buf_printf(s->out,
                           "iifname \"%s\" ip daddr 169.254.169.254 tcp dport 80 accept\n"
                           "ip daddr 169.254.0.0/16 drop\n"
                           "iifname \"%s\" udp dport { 53, 67 } accept\n"
                           "iifname \"%s\" icmp type echo-request accept\n",
                           s->guests, s->guests, s->guests);
        buf_printf(s->out, "iifname \"%s\" tcp dport 53 accept\ndrop\n}\n", s->guests);
}

/* Addresses outside of guests here, and as what the others go out. */
static void translate(const struct side *s)
{
        const struct net_network *n = s->n;
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE];

        buf_addstr(s->out, "chain in {\ntype nat hook prerouting priority -100; policy accept;\n");
        for (unsigned i = 0; i < n->nfloats; i++)
                buf_printf(s->out, "ip daddr %s dnat to %s\n",
                           network_address(a, n->floats[i].address),
                           network_address(b, n->floats[i].port));
        buf_addstr(s->out,
                   "}\nchain out {\ntype nat hook postrouting priority 100; policy accept;\n");
        for (unsigned i = 0; n->router < 0 && i < n->nfloats; i++)
                buf_printf(s->out, "oifname { \"snu*\", \"snp*\" } ip saddr %s snat to %s\n",
                           network_address(a, n->floats[i].port),
                           network_address(b, n->floats[i].address));
        for (unsigned i = 0; i < n->nbeyond; i++)
                if (!network_has(n, n->beyond[i].address))
                        buf_printf(s->out, "oifname \"snu*\" ip saddr %s accept\n",
                                   network_address(a, n->beyond[i].address));
        buf_addstr(s->out, "oifname \"snu*\" masquerade\n}\n");
}

static void subnets(const struct net_network *n, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE];

        for (unsigned i = 0; i < n->nsubnets; i++)
                buf_printf(out, "ip saddr %s/%u accept\n",
                           network_address(a, n->subnets[i].address), n->subnets[i].prefix);
}

/* What comes from outside by a router on another host, to a guest here, is answered by way of that
 * host: see tunnel.c.  Of the one it came by last: a guest that has just come here may be reached
 * by way of the host where it was. */
static void returns(const struct side *s)
{
        const struct net_router *r = s->n->router < 0 ? NULL : &s->p->routers[s->n->router];
        struct tunnel_hosts hosts;
        uint8_t m[6];

        if (!r || !network_tunnels(s->p, s->n))
                return;
        tunnel_hosts(s->p, s->n, &hosts);
        buf_printf(s->out,
                   "chain back {\ntype filter hook prerouting priority -150; policy accept;\n"
                   "iifname \"%s\" ct direction reply ct mark != 0 meta mark set ct mark\n"
                   "iifname != \"%s\" accept\n",
                   s->guests, s->tunnel);
        subnets(s->n, s->out);
        for (unsigned i = 0; i < r->nlegs; i++)
                if (&s->p->networks[r->legs[i]] != s->n)
                        subnets(&s->p->networks[r->legs[i]], s->out);
        for (unsigned i = 0; i < hosts.n; i++) {
                tunnel_mac(m, hosts.v[i]);
                buf_printf(s->out,
                           "ether saddr %02x:%02x:%02x:%02x:%02x:%02x ct direction original ct "
                           "mark set 0x%08x\n",
                           m[0], m[1], m[2], m[3], m[4], m[5], hosts.v[i]);
        }
        buf_addstr(s->out, "}\n");
        free(hosts.v);
}

static void table_text(struct side *s, const char *table)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        buf_printf(s->out, "add table %s %s\ndelete table %s %s\n", ip(s), table, ip(s), table);
        if (s->six && !s->n->nsubnets6)
                return;
        buf_printf(s->out, "table %s %s {\n", ip(s), table);
        for (unsigned g = 0; g < s->n->ngroups; g++)
                group_text(s, g);
        /* What a guest sends leads out, or to a guest; those of other hosts are let in here, too.
         */
        buf_addstr(s->out, "chain to {\n");
        for (unsigned i = 0; !s->six && i < s->n->nbalancers; i++)
                buf_printf(s->out, "ip daddr %s goto i_%s\n",
                           network_address(a, s->n->balancers[i].address),
                           ruleset_tail(t, s->n->balancers[i].port));
        buf_printf(s->out, "oifname != { \"%s\", \"%s\" } accept\n", s->guests, s->tunnel);
        to_ports(s, "", 'i');
        buf_addstr(s->out, "drop\n}\n");
        for (unsigned i = 0; i < s->n->nports; i++)
                port_text(s, &s->n->ports[i]);
        forward(s);
        own(s);
        if (!s->six) {
                balancers_out(s);
                translate(s);
                returns(s);
        }
        buf_addstr(s->out, "}\n");
}

void ruleset_network(const char *table, const struct net_plan *p, const struct net_network *n,
                     struct buf *out)
{
        struct side s = {.p = p, .n = n, .out = out};

        network_device(s.guests, NET_INNER, n->id);
        network_device(s.up, NET_UPLINK, n->id);
        network_device(s.tunnel, NET_TUNNEL, n->id);
        table_text(&s, table);
        s.six = true;
        table_text(&s, table);
}
