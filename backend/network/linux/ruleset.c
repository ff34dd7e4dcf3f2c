/* Rulesets as nftables' own text.
 *
 * In a network's namespace a packet of a guest goes through `forward` into the chain of its port
 * (e_), which jumps to those of its groups (ge_); what one of them lets out goes on to `to`: out by
 * the uplink, or into the chain of the guest it is for (i_, gi_).  What nobody let pass is dropped.
 * Answers to what was let pass are known by connection tracking. */
#include "backend/network/linux/linux.h"

static const char *tail(char out[DEVICE_SIZE], const char *id)
{
        return network_device(out, NET_TAP, id) + 3;
}

void ruleset_empty(const char *table, struct buf *out)
{
        for (int i = 0; i < 2; i++) /* "add" first: deleting what is not there would fail */
                buf_printf(out, "%s table bridge %s\n%s table ip %s\n", i ? "delete" : "add", table,
                           i ? "delete" : "add", table);
}

/* What a port may say: ARP as itself, DHCP's question without an address, IPv4 as itself. */
static void door_port(const struct net_port *p, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        network_address(a, p->address);
        buf_printf(out,
                   "chain p_%s {\n"
                   "ether saddr != %s drop\n"
                   "ether type arp arp saddr ether %s arp saddr ip { 0.0.0.0, %s } accept\n"
                   "ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept\n"
                   "ether type ip ip saddr %s accept\n"
                   "drop\n}\n",
                   tail(t, p->id), p->mac, p->mac, a, a);
}

static void uplink_address(char out[ADDRESS_TEXT_SIZE], uint16_t n)
{
        network_address(out, 0xa9fe0000u | n);
}

static void host_bridges(const char *table, const struct net_plan *p, struct buf *out)
{
        char t[DEVICE_SIZE];

        buf_printf(out, "table bridge %s {\n", table);
        buf_addstr(out,
                   "chain door {\ntype filter hook prerouting priority -300; policy accept;\n");
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; k < p->networks[i].nports; k++)
                        if (p->networks[i].ports[k].live) {
                                tail(t, p->networks[i].ports[k].id);
                                buf_printf(out, "iifname \"snt%s\" goto p_%s\n", t + 3, t + 3);
                        }
        /* Nothing of a guest's is for the host itself, which has no address here but would answer
         * ARP for those that it has elsewhere. */
        buf_addstr(out, "}\nchain host {\ntype filter hook input priority -200; policy accept;\n"
                        "iifname \"snt*\" drop\niifname \"snv*\" drop\n}\n");
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; k < p->networks[i].nports; k++)
                        if (p->networks[i].ports[k].live)
                                door_port(&p->networks[i].ports[k], out);
        buf_addstr(out, "}\n");
}

/* Ways out: by the host, as the host.  Not to the host, nor to another network. */
static void host_uplinks(const char *table, const struct net_plan *p, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE];

        buf_printf(out, "table ip %s {\n", table);
        buf_addstr(out, "chain out {\ntype nat hook postrouting priority 100; policy accept;\n");
        for (unsigned i = 0; i < p->nnetworks; i++)
                if (p->networks[i].uplink) {
                        uplink_address(a, p->networks[i].uplink);
                        buf_printf(out, "ip saddr %s masquerade\n", a);
                }
        buf_addstr(out, "}\nchain forward {\ntype filter hook forward priority 0; policy accept;\n"
                        "oifname \"snu*\" ct state established,related accept\n");
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; k < p->networks[i].nfloats; k++)
                        buf_printf(out, "oifname \"snu*\" ip daddr %s accept\n",
                                   network_address(a, p->networks[i].floats[k].address));
        buf_addstr(out, "oifname \"snu*\" drop\n}\n"
                        "chain host {\ntype filter hook input priority 0; policy accept;\n"
                        "iifname \"snu*\" ct state established,related accept\n"
                        "iifname \"snu*\" drop\n}\n}\n");
}

void ruleset_host(const char *table, const struct net_plan *p, struct buf *out)
{
        ruleset_empty(table, out);
        if (p->nnetworks == 0)
                return;
        host_bridges(table, p, out);
        host_uplinks(table, p, out);
}

/* --- a network's namespace ------------------------------------------------------------------- */

static void rule_text(const struct net_network *n, const struct net_rule *r, struct buf *out)
{
        const char *side = r->out ? "daddr" : "saddr";
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        if (r->group >= 0)
                buf_printf(out, "ip %s @g_%s ", side, tail(t, n->groups[r->group].id));
        else if (r->prefix)
                buf_printf(out, "ip %s %s/%u ", side, network_address(a, r->peer), r->prefix);
        if (r->from || r->to)
                buf_printf(out, "meta l4proto %d th dport %u-%u ", r->proto, r->from, r->to);
        else if (r->proto >= 0)
                buf_printf(out, "meta l4proto %d ", r->proto);
        buf_addstr(out, r->out ? "goto to\n" : "accept\n");
}

/* The members' addresses, and what it lets out and in. */
static void group_text(const struct net_network *n, unsigned g, struct buf *out)
{
        const struct net_group *group = &n->groups[g];
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];
        unsigned count = 0;

        tail(t, group->id);
        buf_printf(out, "set g_%s {\ntype ipv4_addr\n", t + 3);
        for (unsigned i = 0; i < n->nports; i++)
                for (unsigned k = 0; k < n->ports[i].ngroups; k++)
                        if (n->ports[i].groups[k] == g)
                                buf_printf(out, "%s%s", count++ ? ", " : "elements = { ",
                                           network_address(a, n->ports[i].address));
        buf_addstr(out, count ? " }\n}\n" : "}\n");
        for (int o = 0; o < 2; o++) {
                buf_printf(out, "chain g%c_%s {\n", o ? 'e' : 'i', t + 3);
                for (unsigned i = 0; i < group->nrules; i++)
                        if (group->rules[i].out == o)
                                rule_text(n, &group->rules[i], out);
                buf_addstr(out, "}\n");
        }
}

static void port_text(const struct net_network *n, const struct net_port *p, struct buf *out)
{
        char t[DEVICE_SIZE], g[DEVICE_SIZE];

        tail(t, p->id);
        for (int o = 0; o < 2; o++) {
                buf_printf(out, "chain %c_%s {\n", o ? 'e' : 'i', t + 3);
                for (unsigned k = 0; k < p->ngroups; k++)
                        buf_printf(out, "jump g%c_%s\n", o ? 'e' : 'i',
                                   tail(g, n->groups[p->groups[k]].id));
                buf_addstr(out, "drop\n}\n");
        }
}

static void port_map(const struct net_network *n, char what, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        for (unsigned i = 0; i < n->nports; i++)
                buf_printf(out, "%s%s : goto %c_%s", i ? ", " : "",
                           network_address(a, n->ports[i].address), what, tail(t, n->ports[i].id));
}

/* What comes for a load balancer is let out by the guest's groups and in by its port's. */
static void balancer_in(const struct net_network *n, const struct net_balancer *b, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        network_address(a, b->address);
        buf_printf(out, "iifname \"snl*\" ip daddr %s ip saddr vmap { ", a);
        port_map(n, 'e', out);
        buf_printf(out,
                   " }\niifname \"snu*\" ct status dnat ip daddr %s goto i_%s\nip daddr %s drop\n",
                   a, tail(t, b->port), a);
}

/* It reaches its members as any guest would. */
static void balancers_out(const struct net_network *n, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];

        if (n->nbalancers == 0)
                return;
        buf_addstr(out, "chain from {\ntype filter hook output priority 0; policy accept;\n"
                        "ct state established,related accept\noifname \"lo\" accept\n");
        for (unsigned i = 0; i < n->nbalancers; i++)
                buf_printf(out, "ip saddr %s goto e_%s\n",
                           network_address(a, n->balancers[i].address),
                           tail(t, n->balancers[i].port));
        buf_addstr(out, "}\n");
}

void ruleset_network(const char *table, const struct net_network *n, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE];

        buf_printf(out, "add table ip %s\ndelete table ip %s\ntable ip %s {\n", table, table,
                   table);
        for (unsigned g = 0; g < n->ngroups; g++)
                group_text(n, g, out);
        buf_addstr(out, "chain to {\noifname \"snu*\" accept\n");
        if (n->nports) {
                buf_addstr(out, "ip daddr vmap { ");
                port_map(n, 'i', out);
                buf_addstr(out, " }\n");
        }
        buf_addstr(out, "drop\n}\n");
        for (unsigned i = 0; i < n->nports; i++)
                port_text(n, &n->ports[i], out);
        buf_addstr(out, "chain forward {\ntype filter hook forward priority 0; policy drop;\n"
                        "ct state established,related accept\nct state invalid drop\n");
        if (n->nports) {
                buf_addstr(out, "iifname \"snl*\" ip saddr vmap { ");
                port_map(n, 'e', out);
                buf_addstr(out, " }\niifname \"snu*\" ct status dnat ip daddr vmap { ");
                port_map(n, 'i', out);
                buf_addstr(out, " }\n");
        }
        buf_addstr(out, "}\nchain own {\ntype filter hook input priority 0; policy drop;\n"
                        "ct state established,related accept\niifname \"lo\" accept\n");
        for (unsigned i = 0; i < n->nbalancers; i++)
                balancer_in(n, &n->balancers[i], out);
        buf_addstr(out, "iifname \"snl*\" ip daddr 169.254.169.254 tcp dport 80 accept\n"
                        "ip daddr 169.254.0.0/16 drop\n"
                        "iifname \"snl*\" udp dport { 53, 67 } accept\n"
                        "iifname \"snl*\" tcp dport 53 accept\n"
                        "iifname \"snl*\" icmp type echo-request accept\n}\n");
        balancers_out(n, out);
        for (unsigned i = 0; i < n->nfloats; i++)
                buf_printf(
                        out, "%siifname \"snu*\" ip daddr %s dnat to %s\n",
                        i ? ""
                          : "chain in {\ntype nat hook prerouting priority -100; policy accept;\n",
                        network_address(a, n->floats[i].address),
                        network_address(b, n->floats[i].port));
        buf_addstr(out, n->nfloats ? "}\n" : "");
        buf_addstr(out, "chain out {\ntype nat hook postrouting priority 100; policy accept;\n");
        for (unsigned i = 0; i < n->nfloats; i++)
                buf_printf(out, "oifname \"snu*\" ip saddr %s snat to %s\n",
                           network_address(a, n->floats[i].port),
                           network_address(b, n->floats[i].address));
        buf_addstr(out, "oifname \"snu*\" masquerade\n}\n}\n");
}
