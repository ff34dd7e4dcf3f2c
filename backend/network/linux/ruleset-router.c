/* A router's rules, as nftables' own text.
 *
 * Between its networks everything passes: they have looked at it, or will.  It is on each host, so
 * it may see one direction only of what goes between two hosts, and keeps no account of that.  By
 * its gateway goes out what it translates, and in comes what it knows. */
#include "backend/network/linux/linux.h"

static void addresses(const struct net_plan *p, const struct net_router *r, bool inner,
                      const char *match, const char *verdict, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE];
        unsigned count = 0;

        for (unsigned i = 0; i < r->nlegs; i++)
                for (unsigned k = 0; k < p->networks[r->legs[i]].nfloats; k++) {
                        const struct net_float *f = &p->networks[r->legs[i]].floats[k];

                        if (!count)
                                buf_printf(out, "%s { ", match);
                        buf_printf(out, "%s%s", count++ ? ", " : "",
                                   network_address(a, inner ? f->port : f->address));
                }
        if (count)
                buf_printf(out, " } %s\n", verdict);
}

static void translate(const struct net_plan *p, const struct net_router *r, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE];

        buf_addstr(out, "chain in {\ntype nat hook prerouting priority -100; policy accept;\n");
        for (unsigned i = 0; i < r->nforwards; i++) {
                const struct net_forward *f = &r->forwards[i];

                buf_printf(out, "ip daddr %s %s dport %u dnat to %s:%u\n",
                           network_address(a, f->address), f->proto == 6 ? "tcp" : "udp", f->port,
                           network_address(b, f->to), f->to_port);
        }
        buf_addstr(out, "}\nchain out {\ntype nat hook postrouting priority 100; policy accept;\n"
                        "oifname != \"sng*\" accept\n");
        for (unsigned i = 0; i < r->nlegs; i++)
                for (unsigned k = 0; k < p->networks[r->legs[i]].nfloats; k++) {
                        const struct net_float *f = &p->networks[r->legs[i]].floats[k];

                        buf_printf(out, "ip saddr %s snat to %s\n", network_address(a, f->port),
                                   network_address(b, f->address));
                }
        addresses(p, r, false, "ip saddr", "accept", out);
        if (r->address)
                buf_printf(out, "snat to %s\n", network_address(a, r->address));
        buf_addstr(out, "}\n");
}

void ruleset_router(const char *table, const struct net_plan *p, const struct net_router *r,
                    struct buf *out)
{
        for (int six = 0; six < 2; six++)
                buf_printf(out, "add table %s %s\ndelete table %s %s\n", six ? "ip6" : "ip", table,
                           six ? "ip6" : "ip", table);
        buf_printf(out, "table ip %s {\n", table);
        buf_addstr(out, "chain forward {\ntype filter hook forward priority 0; policy accept;\n"
                        "iifname \"sng*\" oifname \"sng*\" drop\n"
                        "iifname \"sng*\" ct state established,related accept\n"
                        "iifname \"sng*\" ct status dnat accept\n");
        addresses(p, r, false, "iifname \"sng*\" ip daddr", "accept", out);
        buf_addstr(out, "iifname \"sng*\" drop\n");
        if (!r->address) { /* only what has an address outside goes out */
                buf_addstr(out, "oifname \"sng*\" ct state established,related accept\n");
                addresses(p, r, false, "oifname \"sng*\" ip saddr", "accept", out);
                addresses(p, r, true, "oifname \"sng*\" ip saddr", "accept", out);
                buf_addstr(out, "oifname \"sng*\" drop\n");
        }
        buf_addstr(out, "}\nchain own {\ntype filter hook input priority 0; policy accept;\n"
                        "ct state established,related accept\n"
                        "icmp type echo-request accept\ndrop\n}\n");
        if (r->gateway >= 0)
                translate(p, r, out);
        buf_printf(out, "}\ntable ip6 %s {\n", table);
        buf_addstr(out, "chain forward {\ntype filter hook forward priority 0; policy accept;\n"
                        "iifname \"sng*\" drop\noifname \"sng*\" drop\n}\n"
                        "chain own {\ntype filter hook input priority 0; policy accept;\n"
                        "meta l4proto 58 accept\ndrop\n}\n}\n");
}
