/* DHCP and DNS of a network: dnsmasq, which serves what we tell it and gives no lease of its own.
 */
#include "backend/network/linux/linux.h"

#include <signal.h>

#include "common/child.h"
#include "common/fileio.h"

enum { ARGS_MAX = 128 };
static const struct server dnsmasq = {"dnsmasq", "dnsmasq"};

void dhcp_end(const char *dir)
{
        server_end(&dnsmasq, dir);
}

static void hosts(const struct net_network *n, struct buf *dhcp, struct buf *dns)
{
        char a[ADDRESS_TEXT_SIZE], a6[ADDRESS6_TEXT_SIZE];

        for (unsigned i = 0; i < n->nports; i++) {
                const struct net_port *p = &n->ports[i];

                buf_printf(dhcp, "%s", p->mac);
                if (p->address) {
                        network_address(a, p->address);
                        buf_printf(dhcp, ",%s", a);
                        buf_printf(dns, "%s %s.internal %s\n", a, p->name, p->name);
                }
                if (network_some6(&p->address6)) {
                        network_address6(a6, &p->address6);
                        if (n->nsubnets6 && n->subnets6[0].mode == NET6_DHCP)
                                buf_printf(dhcp, ",[%s]", a6);
                        buf_printf(dns, "%s %s.internal %s\n", a6, p->name, p->name);
                }
                buf_printf(dhcp, ",%s,1h\n", p->name);
        }
}

/* The gateway, where it is not this server; routes, which take the place of the gateway. */
static void ways(const struct net_subnet *s, unsigned tag, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], b[ADDRESS_TEXT_SIZE];

        buf_printf(out, "--dhcp-option=tag:s%u,option:router,%s\n", tag,
                   network_address(a, s->gateway));
        if (!s->nroutes)
                return;
        buf_printf(out, "--dhcp-option=tag:s%u,option:classless-static-route,0.0.0.0/0,%s", tag, a);
        for (unsigned i = 0; i < s->nroutes; i++)
                buf_printf(out, ",%s/%u,%s", network_address(a, s->routes[i].address),
                           s->routes[i].prefix, network_address(b, s->routes[i].via));
        buf_addc(out, '\n');
}

/* Nothing is on the link but the gateway, so that what goes to neighbours goes by it, too. */
static void six(const struct net_subnet6 *s, struct buf *out)
{
        char a[ADDRESS6_TEXT_SIZE];

        if (s->mode == NET6_NONE)
                return;
        buf_printf(out, "--enable-ra\n--dhcp-range=%s,%s,off-link,64,1h\n",
                   network_address6(a, &s->address),
                   s->mode == NET6_DHCP ? "static" : "ra-stateless");
}

/* Whether names that we do not know can be asked for. */
static bool leads_out(const struct net_network *n)
{
        return n->uplink || n->router >= 0 || n->type == NET_FLAT || n->type == NET_VLAN;
}

/* One argument a line. */
static void arguments(const char *dir, const struct net_network *n, struct buf *out)
{
        char device[DEVICE_SIZE], a[ADDRESS_TEXT_SIZE], m[ADDRESS_TEXT_SIZE];
        unsigned servers = 0;

        network_device(device, NET_INNER, n->id);
        buf_printf(out,
                   "dnsmasq\n--conf-file=\n--no-hosts\n--interface=%s\n--except-interface=lo\n"
                   "--bind-interfaces\n--no-ping\n--dhcp-authoritative\n--user=nobody\n"
                   "--group=nogroup\n--domain=internal\n--local=/internal/\n--domain-needed\n"
                   "--dhcp-option=option:mtu,%u\n--pid-file=%s/dnsmasq.pid\n"
                   "--dhcp-leasefile=%s/leases\n--dhcp-hostsfile=%s/dhcp\n--addn-hosts=%s/dns\n"
                   "--quiet-dhcp\n--log-facility=%s/dnsmasq.log\n",
                   device, n->mtu, dir, dir, dir, dir, dir);
        for (unsigned i = 0; i < n->nsubnets; i++) {
                const struct net_subnet *s = &n->subnets[i];

                if (s->dhcp)
                        buf_printf(out, "--dhcp-range=set:s%u,%s,static,%s,1h\n", i,
                                   network_address(a, s->address),
                                   network_address(m, network_mask(s->prefix)));
                if (s->dhcp)
                        ways(s, i, out);
                for (unsigned k = 0; k < s->ndns; k++, servers++)
                        buf_printf(out, "--server=%s\n", network_address(a, s->dns[k]));
        }
        for (unsigned i = 0; i < n->nsubnets6; i++)
                six(&n->subnets6[i], out);
        if (servers || !leads_out(n))
                buf_addstr(out, "--no-resolv\n");
}

static int start(const char *dir, const struct buf *args, struct err **e)
{
        _cleanup_free_ char *text = strdup(buf_str(args)),
                            *pid = path_printf("%s/dnsmasq.pid", dir);
        const char *argv[ARGS_MAX];
        char *save = NULL;
        unsigned n = 0;
        int r;

        if (!text || !pid)
                return err_errno(e, -ENOMEM, "dnsmasq");
        for (char *w = strtok_r(text, "\n", &save); w && n < ARGS_MAX - 1;
             w = strtok_r(NULL, "\n", &save))
                argv[n++] = w;
        argv[n] = NULL;
        unlink(pid);
        r = child_check(&(struct child){.argv = argv, .timeout_ms = 10000},
                        e); /* it makes itself a daemon */
        return r < 0 ? err_prepend(e, r, "dnsmasq") : 0;
}

int dhcp_serve(const char *dir, const struct net_network *n, int ns, struct err **e)
{
        _cleanup_buf_ struct buf dhcp = {}, dns = {}, args = {};
        int a, b, c;
        pid_t pid;

        hosts(n, &dhcp, &dns);
        arguments(dir, n, &args);
        a = server_put(dir, "dhcp", &dhcp, 0, e);
        b = a < 0 ? a : server_put(dir, "dns", &dns, 0, e);
        c = b < 0 ? b : server_put(dir, "args", &args, 0, e);
        if (c < 0)
                return c;
        pid = c == 0 ? server_pid(&dnsmasq, dir, ns) : 0;
        if (!pid) {
                dhcp_end(dir);
                return start(dir, &args, e);
        }
        if (a || b)
                kill(pid, SIGHUP);
        return 0;
}
