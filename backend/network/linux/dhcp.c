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
        char a[ADDRESS_TEXT_SIZE];

        for (unsigned i = 0; i < n->nports; i++) {
                const struct net_port *p = &n->ports[i];

                network_address(a, p->address);
                buf_printf(dhcp, "%s,%s,%s,1h\n", p->mac, a, p->name);
                buf_printf(dns, "%s %s.internal %s\n", a, p->name, p->name);
        }
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
                        buf_printf(out, "--dhcp-range=%s,static,%s,1h\n",
                                   network_address(a, s->address),
                                   network_address(m, network_mask(s->prefix)));
                for (unsigned k = 0; k < s->ndns; k++, servers++)
                        buf_printf(out, "--server=%s\n", network_address(a, s->dns[k]));
        }
        if (servers || !n->uplink)
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
