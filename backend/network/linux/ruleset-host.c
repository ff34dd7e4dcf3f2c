/* The host's rules, as nftables' own text: the doors of guests' taps, and ways out. */
#include "backend/network/linux/linux.h"

#include "backend/network/linux/netlink.h"

enum { DIGITS = 16 };

const char *ruleset_tail(char out[DEVICE_SIZE], const char *id)
{
        return network_device(out, NET_TAP, id) + 3;
}

void ruleset_empty(const char *table, struct buf *out)
{
        for (int i = 0; i < 2; i++) /* "add" first: deleting what is not there would fail */
                buf_printf(out, "%s table bridge %s\n%s table ip %s\n", i ? "delete" : "add", table,
                           i ? "delete" : "add", table);
}

bool port_link6(const struct net_port *p, struct in6_addr *ret)
{
        static const struct in6_addr net = {.s6_addr = {0xfe, 0x80}};

        return network_some6(&p->address6) && network_eui64(ret, &net, p->mac);
}

/* Of IPv6: its own address, that of its link, and asking whether they are free; no answer for
 * somebody else's, no router's words. */
static void door_six(const struct net_port *p, struct buf *out)
{
        char a[ADDRESS6_TEXT_SIZE], l[ADDRESS6_TEXT_SIZE];
        struct in6_addr own;

        if (!port_link6(p, &own))
                return;
        network_address6(a, &p->address6);
        network_address6(l, &own);
        buf_printf(out, "icmpv6 type { nd-router-advert, nd-redirect } drop\n"
                        "icmpv6 type nd-neighbor-advert @th,64,128 != { ");
        for (int i = 0; i < 2; i++) {
                buf_addstr(out, i ? ", 0x" : "0x");
                for (int k = 0; k < 16; k++)
                        buf_printf(out, "%02x", (i ? &own : &p->address6)->s6_addr[k]);
        }
        buf_printf(out,
                   " } drop\n"
                   "ether type ip6 ip6 saddr { %s, %s } accept\n"
                   "ether type ip6 ip6 saddr :: icmpv6 type { nd-neighbor-solicit, "
                   "nd-router-solicit, mld-listener-report, mld2-listener-report } accept\n",
                   a, l);
}

static void door_pairs(const struct net_port *p, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE];

        for (unsigned i = 0; i < p->npairs; i++) {
                const struct net_pair *x = &p->pairs[i];
                const char *mac = *x->mac ? x->mac : p->mac;

                network_address(a, x->address);
                buf_printf(out,
                           "ether saddr %s ether type arp arp saddr ether %s arp saddr ip %s/%u "
                           "accept\n"
                           "ether saddr %s ether type ip ip saddr %s/%u accept\n",
                           mac, mac, a, x->prefix, mac, a, x->prefix);
        }
}

/* What a port may say: ARP as itself, DHCP's question without an address, IP as itself. */
static void door_port(const struct net_port *p, struct buf *out)
{
        char m[ADDRESS6_TEXT_SIZE], six[ADDRESS6_TEXT_SIZE];
        char a[ADDRESS_TEXT_SIZE], t[DEVICE_SIZE];
        struct in6_addr own;

        network_address(a, p->address);
        buf_printf(out, "chain p_%s {\n", ruleset_tail(t, p->id));
        if (p->rate_out)
                buf_printf(out,
                           "limit rate over %" PRIu64 " bytes/second burst %" PRIu64
                           " bytes drop\n",
                           p->rate_out, MAX(p->rate_out / 20, (uint64_t)131072));
        /* The metadata service tells guests by their addresses: here nobody has another's. */
        if (p->address)
                buf_printf(out, "ether type ip ip daddr 169.254.169.254 ip saddr != %s drop\n", a);
        else
                buf_addstr(out, "ether type ip ip daddr 169.254.169.254 drop\n");
        network_address6(m, &METADATA_ADDRESS6);
        if (port_link6(p, &own))
                buf_printf(out,
                           "ether type ip6 ip6 daddr %s ip6 saddr != %s meta l4proto != 58 drop\n",
                           m, network_address6(six, &own));
        else
                buf_printf(out, "ether type ip6 ip6 daddr %s meta l4proto != 58 drop\n", m);
        if (p->open) {
                buf_addstr(out, "accept\n}\n");
                return;
        }
        door_pairs(p, out);
        buf_printf(out, "ether saddr != %s drop\n", p->mac);
        if (p->address)
                buf_printf(out,
                           "ether type arp arp saddr ether %s arp saddr ip 0.0.0.0 accept\n"
                           "ether type arp arp saddr ether %s arp saddr ip %s accept\n"
                           "ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept\n"
                           "ether type ip ip saddr %s accept\n",
                           p->mac, p->mac, a, a);
        door_six(p, out);
        buf_addstr(out, "drop\n}\n");
}

static void uplink_address(char out[ADDRESS_TEXT_SIZE], uint16_t n)
{
        network_address(out, 0xa9fe0000u | n);
}

/* Taps by the first digit of their ports' ids, so that a packet is not compared with them all. */
static void door_digit(const struct net_plan *p, unsigned digit, struct buf *out)
{
        char t[DEVICE_SIZE], first[2];

        snprintf(first, sizeof(first), "%x", digit);
        buf_printf(out, "chain d%s {\n", first);
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; k < p->networks[i].nports; k++)
                        if (p->networks[i].ports[k].live) {
                                ruleset_tail(t, p->networks[i].ports[k].id);
                                if (t[3] == *first)
                                        buf_printf(out, "iifname \"snt%s\" goto p_%s\n", t + 3,
                                                   t + 3);
                        }
        buf_addstr(out, "}\n");
}

static void host_bridges(const char *table, const struct net_plan *p, struct buf *out)
{
        buf_printf(out, "table bridge %s {\n", table);
        for (unsigned d = 0; d < DIGITS; d++)
                door_digit(p, d, out);
        buf_addstr(out,
                   "chain door {\ntype filter hook prerouting priority -300; policy accept;\n");
        for (unsigned d = 0; d < DIGITS; d++)
                buf_printf(out, "iifname \"snt%x*\" jump d%x\n", d, d);
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

/* Our tunnels begin at hosts of the cloud only. */
static void tunnel_ends(const struct net_plan *p, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE];

        if (!p->here)
                return;
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; network_tunnels(p, &p->networks[i]) && k < p->networks[i].nports; k++)
                        if (p->networks[i].ports[k].host)
                                buf_printf(out, "udp dport %d ip saddr %s accept\n", NL_VXLAN_PORT,
                                           network_address(a, p->networks[i].ports[k].host));
        buf_printf(out, "udp dport %d drop\n", NL_VXLAN_PORT);
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
        /* Guests leave as the host does, whose tunnels the other hosts trust. */
        buf_addstr(out,
                   "}\nchain forward {\ntype filter hook forward priority 0; policy accept;\n");
        /* A container's cable that is not in its bridge yet. */
        buf_addstr(out, "iifname \"snt*\" drop\n");
        buf_printf(out, "iifname \"snu*\" udp dport %d drop\n", NL_VXLAN_PORT);
        buf_addstr(out, "oifname \"snu*\" ct state established,related accept\n");
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; k < p->networks[i].nfloats; k++)
                        if (p->networks[i].uplink)
                                buf_printf(out, "oifname \"snu*\" ip daddr %s accept\n",
                                           network_address(a, p->networks[i].floats[k].address));
        for (unsigned i = 0, k; i < p->nnetworks; i++)
                for (k = 0; k < p->networks[i].nbeyond; k++)
                        if (p->networks[i].uplink &&
                            !network_has(&p->networks[i], p->networks[i].beyond[k].address))
                                buf_printf(out, "oifname \"snu*\" ip daddr %s accept\n",
                                           network_address(a, p->networks[i].beyond[k].address));
        buf_addstr(out, "oifname \"snu*\" drop\n}\n"
                        "chain host {\ntype filter hook input priority 0; policy accept;\n"
                        "iifname \"snu*\" ct state established,related accept\n"
                        "iifname { \"snu*\", \"snt*\" } drop\n");
        tunnel_ends(p, out);
        /* Nor does anybody here but the kernel, on behalf of our namespaces, and root speak to the
         * ends of others, which trust this host: those packets are of no socket of the host's. */
        buf_printf(out,
                   "}\nchain from {\ntype filter hook output priority 0; policy accept;\n"
                   "udp dport %d meta skuid != 0 drop\n}\n}\n",
                   NL_VXLAN_PORT);
}

void ruleset_host(const char *table, const struct net_plan *p, struct buf *out)
{
        ruleset_empty(table, out);
        if (p->nnetworks == 0)
                return;
        host_bridges(table, p, out);
        host_uplinks(table, p, out);
}
