/* The Linux driver's ways, with guests that are namespaces.  All hosts are, too; no packet leaves
 * the machine. */
#include "rig.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/network/linux/network-linux.h"
#include "common/clock.h"
#include "common/fileio.h"

enum { PORTS = 8, NETWORKS = 4 };

static const char cloud[] = "11111111-2222-3333-4444-555555555555";
static char run[] = "/tmp/st-routes.XXXXXX";

/* --- plans ----------------------------------------------------------------------------------- */

static const unsigned groups[] = {0};
static struct net_rule rules[] = {
        {.out = true, .proto = -1, .group = -1},
        {.proto = -1, .group = 0},
        {.proto = -1, .group = -1, .prefix = 8, .peer = 0x0a000000},
        {.proto = -1, .group = -1, .prefix = 56, .six = true, .peer6 = {.s6_addr = {0xfd}}}};
static struct net_group group = {.id = "0123456789abcdef", .rules = rules, .nrules = 4};

struct lan {
        struct net_network *n;
        struct net_subnet subnet;
        struct net_subnet6 six;
        struct net_port port[PORTS];
};
static struct lan lan[NETWORKS];
static struct net_network networks[NETWORKS];
static struct net_router router;
static struct net_plan plan;

/* Network i is 10.i.0.0/24 and fd00:0:0:i::/64; its first port is .2. */
static void fill(void)
{
        memset(networks, 0, sizeof(networks));
        memset(lan, 0, sizeof(lan));
        for (unsigned i = 0; i < NETWORKS; i++) {
                struct lan *l = &lan[i];

                l->n = &networks[i];
                l->subnet = (struct net_subnet){.address = 0x0a000000 | i << 16,
                                                .prefix = 24,
                                                .gateway = 0x0a000001 | i << 16,
                                                .dhcp = true};
                l->six.address = (struct in6_addr){.s6_addr = {0xfd, [7] = i}};
                l->six.gateway = l->six.address;
                l->six.gateway.s6_addr[15] = 1;
                for (unsigned k = 0; k < PORTS; k++) {
                        struct net_port *p = &l->port[k];

                        *p = (struct net_port){.address = l->subnet.address + 2 + k,
                                               .groups = groups,
                                               .ngroups = 1};
                        snprintf(p->id, sizeof(p->id), "%08x-%04x-0000-0000-000000000000", i, k);
                        snprintf(p->mac, sizeof(p->mac), "06:00:00:00:%02x:%02x", i, k);
                        snprintf(p->name, sizeof(p->name), "g%u-%u", i, k);
                        network_eui64(&p->address6, &l->six.address, p->mac);
                }
                *l->n = (struct net_network){.mtu = 1500,
                                             .router = -1,
                                             .subnets = &l->subnet,
                                             .nsubnets = 1,
                                             .ports = l->port,
                                             .nports = 1,
                                             .groups = &group,
                                             .ngroups = 1};
                snprintf(l->n->id, sizeof(l->n->id), "%08x-aaaa-aaaa-aaaa-aaaaaaaaaaaa", i);
        }
        router = (struct net_router){.id = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb", .gateway = -1};
        plan = (struct net_plan){.networks = networks};
}

static void six(struct lan *l)
{
        l->n->subnets6 = &l->six;
        l->n->nsubnets6 = 1;
}

static void apply(struct network_service *s)
{
        _cleanup_err_ struct err *err = NULL;

        if (s->ops->apply(s, &plan, &err) < 0)
                fail_msg("%s", err_msg(err));
}

/* --- guests ---------------------------------------------------------------------------------- */

/* Plugged into the port's tap: the pid of its namespace. */
static pid_t guest(const struct lan *l, unsigned port)
{
        const struct net_port *p = &l->port[port];
        struct rig_guest g = {.mtu = l->n->mtu};
        char a[ADDRESS_TEXT_SIZE];

        network_device(g.tap, NET_TAP, p->id);
        snprintf(g.mac, sizeof(g.mac), "%s", p->mac);
        snprintf(g.address, sizeof(g.address), "%s/%u", network_address(a, p->address),
                 l->subnet.prefix);
        network_address(g.gateway, l->subnet.gateway);
        return rig_guest(&g);
}

static int ping(pid_t from, const char *to)
{
        return sh("nsenter -n -t %d busybox ping -q -A -c 2 -W 1 %s >/dev/null 2>&1", from, to);
}
#define reaches(from, to)                                                                          \
        do {                                                                                       \
                if (ping(from, to) != 0)                                                           \
                        fail_msg("%s is not reached", to);                                         \
        } while (0)
#define misses(from, to)                                                                           \
        no("nsenter -n -t %d busybox ping -q -c 1 -W 1 %s >/dev/null 2>&1", from, to)

/* What is asked of the other side, over a socket there that a shell answers. */
static int fetch(pid_t from, const char *address, unsigned port)
{
        return sh("nsenter -n -t %d timeout 3 busybox nc %s %u </dev/null 2>/dev/null | grep -q "
                  "hello",
                  from, address, port);
}

static pid_t serve(pid_t where, unsigned port)
{
        pid_t pid = fork();

        if (pid == 0) {
                char w[16], p[64];

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                snprintf(w, sizeof(w), "%d", where);
                snprintf(p, sizeof(p), "TCP-LISTEN:%u,fork,reuseaddr", port);
                execlp("nsenter", "nsenter", "-n", "-t", w, "socat", p,
                       "SYSTEM:echo hello $SOCAT_PEERADDR", NULL);
                _exit(127);
        }
        for (int i = 0;
             i < 100 && sh("nsenter -n -t %d ss -Hltn 'sport = %u' | grep -q .", where, port) != 0;
             i++)
                usleep(20000);
        return pid;
}

/* --- tests ----------------------------------------------------------------------------------- */

static const unsigned legs[] = {1, 2};

/* Networks 1 and 2 behind a router, whose way out is network 0. */
static void routed(void)
{
        static struct net_beyond beyond[2];
        static struct net_float f = {.address = 0xc6336401}; /* 198.51.100.1 */

        fill();
        plan.nnetworks = 3;
        plan.routers = &router;
        plan.nrouters = 1;
        router.legs = legs;
        router.nlegs = 2;
        router.gateway = 0;
        router.address = 0x0a000063;
        networks[0].uplink = 256;
        networks[1].router = networks[2].router = 0;
        for (int i = 0; i < 3; i++)
                lan[i].port[0].live = true;
        six(&lan[1]);
        six(&lan[2]);
        f.port = lan[1].port[0].address;
        networks[1].floats = &f;
        networks[1].nfloats = 1;
        beyond[0] = (struct net_beyond){router.address, 0};
        beyond[1] = (struct net_beyond){f.address, 0};
        networks[0].beyond = beyond;
        networks[0].nbeyond = 2;
}

static int reached6(pid_t from, const struct net_port *to)
{
        char a[ADDRESS6_TEXT_SIZE];

        network_address6(a, &to->address6);
        for (int i = 0; i < 20; i++) /* the router's words come when they come */
                if (ping(from, a) == 0)
                        return 1;
        return 0;
}

static void between_networks(void **state)
{
        static const struct net_forward forward = {6, 0x0a000063, 8080, 0x0a020002, 80};
        struct network_service *s = network_linux_new(run, cloud);
        pid_t g[3], o = rig_outside("cable"), server;

        yes("ip addr add 192.0.2.1/24 dev cable; nsenter -n -t %d sh -c 'ip addr add 192.0.2.2/24 "
            "dev "
            "eth0; ip route add default via 192.0.2.1'",
            o);
        routed();
        apply(s);
        for (int i = 0; i < 3; i++)
                g[i] = guest(&lan[i], 0);
        reaches(g[1], "10.2.0.2");
        reaches(g[2], "10.1.0.2");
        assert_true(reached6(g[1], &lan[2].port[0]));
        assert_true(reached6(g[2], &lan[1].port[0]));
        misses(g[0], "10.1.0.2"); /* the way out does not lead in */
        reaches(g[1], "192.0.2.2");
        reaches(g[2], "192.0.2.2");
        misses(g[1], "192.0.2.1"); /* the host */
        /* By its floating IP, from the outside and from behind the same router. */
        rules[2].peer = 0;
        rules[2].prefix = 0;
        apply(s);
        reaches(o, "198.51.100.1");
        reaches(g[2], "198.51.100.1");
        server = serve(o, 80);
        yes("nsenter -n -t %d timeout 3 busybox nc 192.0.2.2 80 </dev/null | grep -q 'hello "
            "198.51.100.1$'",
            g[1]);
        yes("nsenter -n -t %d timeout 3 busybox nc 192.0.2.2 80 </dev/null | grep -q 'hello "
            "192.0.2.1$'",
            g[2]);
        gone(server);
        /* A port of the router's address, from its way out. */
        router.forwards = &forward;
        router.nforwards = 1;
        apply(s);
        server = serve(g[2], 80);
        assert_int_equal(fetch(g[0], "10.0.0.99", 8080), 0);
        assert_int_not_equal(fetch(g[0], "10.0.0.99", 8081), 0);
        gone(server);
        /* Without translation only who has an address outside goes out. */
        router.address = 0;
        apply(s);
        misses(g[2], "192.0.2.2");
        reaches(g[1], "192.0.2.2");
        reaches(g[2], "10.1.0.2");
        rules[2] = (struct net_rule){.proto = -1, .group = -1, .prefix = 8, .peer = 0x0a000000};
        plan.nnetworks = plan.nrouters = 0;
        apply(s);
        no("ip -br link | grep '^sn'");
        for (int i = 0; i < 3; i++)
                gone(g[i]);
        gone(o);
        s->ops->close(s);
}

static void same_addresses(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);
        pid_t a, b, x;

        fill();
        plan.nnetworks = 2;
        lan[1].subnet = lan[0].subnet; /* of two tenants */
        for (int i = 0; i < 2; i++)
                lan[1].port[i].address = lan[0].port[i].address;
        networks[0].nports = 2;
        lan[0].port[0].live = lan[0].port[1].live = lan[1].port[0].live = true;
        apply(s);
        a = guest(&lan[0], 0);
        b = guest(&lan[0], 1);
        x = guest(&lan[1], 0);
        reaches(a, "10.0.0.3");
        reaches(b, "10.0.0.2");
        misses(x, "10.0.0.3");
        reaches(x, "10.0.0.1");
        plan.nnetworks = 0;
        apply(s);
        gone(a);
        gone(b);
        gone(x);
        s->ops->close(s);
}

static void what_ports_may(void **state)
{
        static const struct net_pair pair = {0x0a000032, 32, ""};
        struct network_service *s = network_linux_new(run, cloud);
        struct net_count count;
        pid_t a, b;
        int64_t begun;

        fill();
        plan.nnetworks = 1;
        networks[0].nports = 2;
        six(&lan[0]);
        lan[0].port[0].live = lan[0].port[1].live = true;
        apply(s);
        a = guest(&lan[0], 0);
        b = guest(&lan[0], 1);
        assert_true(reached6(a, &lan[0].port[1])); /* of one network, by the gateway, too */
        /* The gateway looks for guests from another address: who answers that one is itself. */
        yes("nsenter --net=%s/net/%s/ns ip -6 addr show | "
            "grep -q 'fe80::a9fe:a9fe/64 scope link .*deprecated'",
            run, networks[0].id);
        lan[0].six.mode = NET6_DHCP;
        lan[0].port[1].address6.s6_addr[15] = 0x77;
        apply(s);
        yes("nsenter -n -t %d /usr/bin/python3 " DHCP6 " eth0 %s | grep -qx fd00::400:ff:fe00:77",
            b, lan[0].port[1].mac);
        lan[0].six.mode = NET6_SLAAC;
        lan[0].port[1].address6.s6_addr[15] = 1;
        apply(s);
        yes("nsenter -n -t %d sh -c 'ip addr add 10.0.0.50/24 dev eth0; ip addr add fd00::50/128 "
            "dev "
            "eth0 nodad'",
            a);
        no("nsenter -n -t %d busybox ping -q -c 1 -W 1 -I 10.0.0.50 10.0.0.3 >/dev/null", a);
        no("nsenter -n -t %d busybox ping -q -c 1 -W 1 -I fd00::50 fd00::1 >/dev/null", a);
        lan[0].port[0].pairs = &pair;
        lan[0].port[0].npairs = 1;
        apply(s);
        yes("nsenter -n -t %d busybox ping -q -A -c 3 -W 2 -I 10.0.0.50 10.0.0.3 >/dev/null", a);
        reaches(b, "10.0.0.50");
        no("nsenter -n -t %d sh -c 'ip addr add 10.0.0.51/24 dev eth0; busybox ping -q -c 1 -W 1 "
           "-I 10.0.0.51 "
           "10.0.0.1 >/dev/null'",
           a);
        lan[0].port[0].open = true;
        apply(s);
        yes("nsenter -n -t %d busybox ping -q -A -c 3 -W 2 -I 10.0.0.51 10.0.0.1 >/dev/null", a);
        lan[0].port[0].open = false;
        /* Rates: 300 kB at 100 kB/s take their time, whatever may pass at once. */
        for (int out = 0; out < 2; out++) {
                lan[0].port[1].rate_in = out ? 0 : 100000;
                lan[0].port[0].rate_out = out ? 100000 : 0;
                apply(s);
                assert_int_equal(sh("tc qdisc show | grep -q tbf") == 0, !out);
                yes("(nsenter -n -t %d timeout 30 socat -u TCP-LISTEN:9,reuseaddr - | wc -c "
                    ">%s/bytes; "
                    "echo >>%s/bytes end) & while ! nsenter -n -t %d ss -Hltn | grep -q :9; do "
                    "sleep 0.02; "
                    "done",
                    b, run, run, b);
                begun = clock_mono();
                yes("nsenter -n -t %d sh -c 'head -c 300000 /dev/zero | socat -u - "
                    "TCP:10.0.0.3:9'; "
                    "while ! grep -q end %s/bytes; do sleep 0.05; done; grep -qx 300000 %s/bytes",
                    a, run, run);
                if (clock_mono() - begun < 400000)
                        fail_msg("%s: 0.3 MB in %ld us", out ? "out" : "in", clock_mono() - begun);
        }
        apply(s);
        assert_true(s->ops->count(s, lan[0].port[1].id, &count));
        assert_true(count.in_bytes > 300000 && count.out_packets > 10);
        plan.nnetworks = 0;
        apply(s);
        assert_false(s->ops->count(s, lan[0].port[1].id, &count));
        gone(a);
        gone(b);
        s->ops->close(s);
}

static void floors(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);

        fill();
        plan.nnetworks = 1;
        networks[0].uplink = 256;
        networks[0].rate = 10000000;
        networks[0].nports = 2;
        lan[0].port[0].live = lan[0].port[1].live = true;
        lan[0].port[1].floor = 2000000;
        apply(s);
        yes("nsenter --net=%s/net/%s/ns tc class show dev snu00000000aaaa | grep -q 'rate 16Mbit "
            "ceil "
            "80Mbit'",
            run, networks[0].id);
        yes("nsenter --net=%s/net/%s/ns nft list ruleset | grep -q '10.0.0.3 meta priority set "
            "1:10'",
            run, networks[0].id);
        networks[0].rate = 0;
        apply(s);
        no("nsenter --net=%s/net/%s/ns tc class show dev snu00000000aaaa | grep htb", run,
           networks[0].id);
        plan.nnetworks = 0;
        apply(s);
        s->ops->close(s);
}

/* A network outside: its gateway and others are there, guests are seen with their own addresses. */
static void physical(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);
        pid_t o = rig_outside("phys"), g, server;

        yes("nsenter -n -t %d ip addr add 10.0.0.1/24 dev eth0", o);
        fill();
        plan.nnetworks = 1;
        networks[0].type = NET_FLAT;
        snprintf(networks[0].device, sizeof(networks[0].device), "phys");
        lan[0].subnet.server = 0x0a0000fe;
        lan[0].port[0].live = true;
        rules[2].prefix = 32; /* the gateway's only */
        rules[2].peer = 0x0a000001;
        apply(s);
        g = guest(&lan[0], 0);
        reaches(g, "10.0.0.1");
        reaches(o, "10.0.0.2");
        server = serve(o, 80);
        yes("nsenter -n -t %d timeout 3 busybox nc 10.0.0.1 80 </dev/null | grep -q 'hello "
            "10.0.0.2$'",
            g);
        gone(server);
        rules[2].peer = 0x0a000009;
        apply(s);
        misses(o, "10.0.0.2");
        rules[2] = (struct net_rule){.proto = -1, .group = -1, .prefix = 8, .peer = 0x0a000000};
        snprintf(networks[0].device, sizeof(networks[0].device), "nowhere");
        yes("ip link show phys >/dev/null");
        plan.nnetworks = 0;
        apply(s);
        gone(g);
        gone(o);
        s->ops->close(s);
}

/* --- two hosts ------------------------------------------------------------------------------- */

/* Runs in a namespace of its own, told by a byte what to make: a plan for where guest 1 is. */
static void there(const char *dir, int in, int out)
{
        struct network_service *s = network_linux_new(dir, cloud);
        pid_t pid = 0;
        char c;

        while (read(in, &c, 1) == 1) {
                _cleanup_err_ struct err *err = NULL;
                bool mine = c == 'h';
                int r;

                lan[0].port[0].live = false;
                lan[0].port[1].live = mine || c == 'l'; /* it has left, and its device is here */
                lan[0].port[0].host = 0xcb007101;       /* 203.0.113.1 */
                lan[0].port[1].host = mine ? 0 : 0xcb007101;
                plan.here = 0xcb007102;
                plan.nnetworks = c == 'q' ? 0 : 2;
                plan.nrouters = c != 'q';
                r = s->ops->apply(s, &plan, &err);
                if (r < 0)
                        fprintf(stderr, "there: %s\n", err_msg(err));
                if (mine && !pid)
                        pid = guest(&lan[0], 1);
                else if (!mine && pid) {
                        gone(pid);
                        pid = 0;
                }
                if (write(out, &pid, sizeof(pid)) != sizeof(pid))
                        break;
        }
        _exit(0);
}

static pid_t tell(int to, int from, char c)
{
        pid_t pid = -1;

        assert_int_equal(write(to, &c, 1), 1);
        assert_int_equal(read(from, &pid, sizeof(pid)), sizeof(pid));
        return pid;
}

static void two_hosts(void **state)
{
        static const char send[] = "/usr/bin/python3 -c 'import socket; "
                                   "socket.socket(type=socket.SOCK_DGRAM).sendto(b\"x\", "
                                   "(\"203.0.113.2\", 14789))' 2>/dev/null";
        static const unsigned leg[] = {0};
        static const struct net_forward forward = {6, 0xc0000263, 8080, 0x0a000003, 80};
        static struct net_beyond beyond = {0xc0000263, 0}; /* 192.0.2.99 */
        struct network_service *s = network_linux_new(run, cloud);
        int to[2], from[2];
        char dir[64];
        pid_t host, a, b, o = rig_outside("street"), server;

        fill();
        plan.nnetworks = 2;
        plan.routers = &router;
        plan.nrouters = 1;
        router.legs = leg;
        router.nlegs = 1;
        router.gateway = 1;
        router.address = 0x0a010063;
        router.forwards = &forward;
        router.nforwards = 1;
        networks[0].router = 0;
        networks[1].uplink = 256;
        networks[1].beyond = &beyond;
        networks[1].nbeyond = 1;
        networks[0].type = NET_VXLAN;
        networks[0].segment = 77;
        networks[0].mtu = 1450;
        networks[0].nports = 2;
        six(&lan[0]);
        rules[2].prefix = 32; /* who is outside, else members of the group only */
        rules[2].peer = 0xc0000202;
        snprintf(dir, sizeof(dir), "%s/there", run);
        assert_int_equal(mkdir(dir, 0755), 0);
        assert_int_equal(pipe2(to, O_CLOEXEC) | pipe2(from, O_CLOEXEC), 0);
        host = fork();
        if (host == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                close(to[1]);
                if (unshare(CLONE_NEWNET) == 0)
                        kill(getpid(), SIGSTOP);
                there(dir, to[0], from[1]);
        }
        assert_int_equal(waitpid(host, NULL, WUNTRACED), host);
        kill(host, SIGCONT);
        close(to[0]);
        yes("ip link add wire type veth peer name wire netns %d && ip addr add 203.0.113.1/24 dev "
            "wire "
            "&& ip link set wire up && nsenter -n -t %d sh -c 'ip addr add 203.0.113.2/24 dev "
            "wire; ip "
            "link set wire up; ip link set lo up'",
            host, host);
        yes("ip addr add 192.0.2.1/24 dev street; ip neigh add proxy 192.0.2.77 dev street; "
            "nsenter "
            "-n -t %d ip addr add 192.0.2.2/24 dev eth0",
            o);
        plan.here = 0xcb007101;
        lan[0].port[0].live = true;
        lan[0].port[1].host = 0xcb007102;
        beyond.here = true;
        apply(s);
        b = tell(to[1], from[0], 'h');
        a = guest(&lan[0], 0);
        reaches(a, "10.0.0.3");
        reaches(b, "10.0.0.2");
        assert_true(reached6(a, &lan[0].port[1]));
        yes("nsenter -n -t %d busybox ping -q -c 1 -W 2 -s 1422 10.0.0.3 >/dev/null", a);
        /* Nothing goes to a host of which no entry tells. */
        yes("nsenter --net=%s/net/%s/ns bridge fdb show | grep 02:fe:cb:00:71:02 | grep -q "
            "'dst 203.0.113.2'",
            run, networks[0].id);
        no("nsenter --net=%s/net/%s/ns bridge fdb show | grep 00:00:00:00:00:00", run,
           networks[0].id);
        /* Tunnels begin at hosts of the cloud only. */
        yes("nft list ruleset | grep -q 'udp dport 14789 ip saddr 203.0.113.2 accept'");
        /* And only by root or a network. */
        yes("%s", send);
        no("setpriv --reuid 65534 --clear-groups %s", send);
        /* A router's forward to a guest on the other host, who sees who asks, and whose answer goes
         * back by this one, at an address that nobody but us tells the outside of. */
        server = serve(b, 80);
        yes("nsenter -n -t %d timeout 5 busybox nc 192.0.2.99 8080 </dev/null | grep -q 'hello "
            "192.0.2.2$'",
            o);
        gone(server);
        /* The guest moves here.  It is plugged in here first; what is sent to it goes to where it
         * is; where it has left from sends it on, and it meets the guest. */
        lan[0].port[1].live = lan[0].port[1].coming = true;
        apply(s);
        reaches(a, "10.0.0.3");
        assert_int_equal(tell(to[1], from[0], 'l'), 0);
        b = guest(&lan[0], 1);
        reaches(a, "10.0.0.3");
        assert_true(reached6(a, &lan[0].port[1]));
        lan[0].port[1].coming = false;
        lan[0].port[1].host = 0;
        apply(s);
        reaches(a, "10.0.0.3");
        assert_int_equal(tell(to[1], from[0], 'm'), 0);
        reaches(a, "10.0.0.3");
        no("nsenter --net=%s/net/%s/ns bridge fdb show | grep 'dst 203'", run, networks[0].id);
        rules[2] = (struct net_rule){.proto = -1, .group = -1, .prefix = 8, .peer = 0x0a000000};
        tell(to[1], from[0], 'q');
        yes("ip neigh show proxy | grep -q 192.0.2.99");
        plan.nnetworks = plan.nrouters = 0;
        apply(s);
        no("ip neigh show proxy | grep 192.0.2.99");
        yes("ip neigh show proxy | grep -q 192.0.2.77"); /* somebody else's */
        gone(a);
        gone(b);
        gone(o);
        gone(host);
        s->ops->close(s);
}

/* --- broken and mended ----------------------------------------------------------------------- */

static void mended(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);
        pid_t g[2], o = rig_outside("cable");
        static const char *const breaks[] = {
                "nft flush ruleset",
                "for t in bridge ip; do nft delete table $t stratofs_11111111; done",
                "$IN1 nft flush ruleset",
                "$INR nft flush ruleset",
                "$IN1 nft delete table ip6 stratofs_11111111",
                "ip link del snb00000001aaaa",
                "ip link del snv00000001aaaa",
                "ip link del snu00000000aaaa",
                "$IN1 ip link del snr00000001aaaa",
                "$INR ip link del sngbbbbbbbbbbbb",
                "$IN1 ip link set snl00000001aaaa down",
                ("bridge link set dev $(ip -br link | grep -o '^snt[0-9a-f]*' | head -n 1) "
                 "isolated off"),
                "$IN1 ip addr flush dev snl00000001aaaa",
                "$IN1 ip route flush proto static",
                "$INR ip route flush proto static",
                "$INR ip addr flush dev snr00000002aaaa",
                "kill -9 $(cat $D/00000001-aaaa-aaaa-aaaa-aaaaaaaaaaaa/dnsmasq.pid)",
                "umount $D/00000001-aaaa-aaaa-aaaa-aaaaaaaaaaaa/ns",
                "umount $D/bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb/ns",
                "rm -r $D/00000002-aaaa-aaaa-aaaa-aaaaaaaaaaaa/dhcp"};

        yes("ip link add foreign type bridge && nft add table inet foreign && nft add chain inet "
            "foreign "
            "c");
        yes("ip addr add 192.0.2.1/24 dev cable; nsenter -n -t %d sh -c 'ip addr add 192.0.2.2/24 "
            "dev "
            "eth0; ip route add default via 192.0.2.1'",
            o);
        routed();
        apply(s);
        g[0] = guest(&lan[1], 0);
        g[1] = guest(&lan[2], 0);
        reaches(g[0], "10.2.0.2");
        for (unsigned i = 0; i < ARRAY_SIZE(breaks); i++) {
                if (sh("D=%s/net; IN1=\"nsenter "
                       "--net=$D/00000001-aaaa-aaaa-aaaa-aaaaaaaaaaaa/ns\"; "
                       "INR=\"nsenter --net=$D/bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb/ns\"; %s",
                       run, breaks[i]) != 0)
                        fail_msg("cannot break: %s", breaks[i]);
                apply(s);
                if (ping(g[0], "10.2.0.2") != 0 || ping(g[1], "10.1.0.2") != 0 ||
                    ping(g[0], "192.0.2.2") != 0)
                        fail_msg("not mended: %s", breaks[i]);
                yes("kill -0 $(cat %s/net/%s/dnsmasq.pid)", run, networks[1].id);
                yes("nft list table bridge stratofs_11111111 | grep -q snt");
                no("bridge -d link | grep -A1 '^[0-9]*: snt' | grep -q 'isolated off'");
        }
        assert_true(reached6(g[0], &lan[2].port[0]));
        plan.nnetworks = plan.nrouters = 0;
        apply(s);
        yes("ip link show foreign >/dev/null");
        no("ip -br link | grep '^sn'");
        no("mount | grep %s/net", run);
        for (int i = 0; i < 2; i++)
                gone(g[i]);
        gone(o);
        s->ops->close(s);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(between_networks),
                                           cmocka_unit_test(same_addresses),
                                           cmocka_unit_test(what_ports_may),
                                           cmocka_unit_test(floors),
                                           cmocka_unit_test(physical),
                                           cmocka_unit_test(two_hosts),
                                           cmocka_unit_test(mended)};
        int r;

        if (getuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || sh("ip link set lo up") != 0) {
                fprintf(stderr, "only for root, with namespaces\n");
                return getenv("CI") ? 1 : 77;
        }
        if (!mkdtemp(run) || chmod(run, 0755) < 0)
                return 1;
        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        r = cmocka_run_group_tests(tests, NULL, NULL);
        /* What tests that failed have left. */
        sh("for d in %s/net/* %s/there/net/*; do [ ! -e $d/dnsmasq.pid ] || kill $(cat "
           "$d/dnsmasq.pid); "
           "[ ! -e $d/ns ] || umount -l $d/ns; done",
           run, run);
        remove_tree(run, NULL);
        return r;
}
