/* Networks: how long the driver takes, and what passes, beside a network of libvirt's own.
 * Not a test: prints, asserts nothing of what it measured.  As root; with libvirt's:
 *
 *     unshare -n tests/compute/with-libvirtd BUILD/tests/bench/bench-network [SECONDS [rates]]
 *
 * Guests are namespaces behind taps, so both have the same cost of their own. */
#include "../network/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/network/linux/network-linux.h"
#include "common/clock.h"
#include "common/fileio.h"

enum { PORTS = 1001, RULES = 1000, ROUNDS = 9, CHUNK = 128 * 1024 };

static const char cloud[] = "11111111-2222-3333-4444-555555555555";
static char run[] = "/tmp/st-bench-net.XXXXXX";
static unsigned seconds = 3;

static struct net_rule rule[RULES];
static struct net_group group = {.id = "0123456789abcdef", .rules = rule, .nrules = 2};
static const unsigned groups[] = {0};
static struct net_port port[PORTS];
static struct net_subnet subnet = {
        .address = 0x0a000000, .prefix = 16, .gateway = 0x0a000001, .dhcp = true};
static struct net_network network = {.id = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
                                     .mtu = 1500,
                                     .router = -1,
                                     .uplink = 256,
                                     .subnets = &subnet,
                                     .nsubnets = 1,
                                     .ports = port,
                                     .nports = 1,
                                     .groups = &group,
                                     .ngroups = 1};
static struct net_plan plan = {.networks = &network, .nnetworks = 1};

static void fill(void)
{
        for (unsigned i = 0; i < RULES; i++)
                rule[i] = (struct net_rule){.proto = 6,
                                            .from = i + 1,
                                            .to = i + 1,
                                            .group = -1,
                                            .peer = 0x0b000000 + (i << 8),
                                            .prefix = 24};
        rule[0] = (struct net_rule){.out = true, .proto = -1, .group = -1};
        rule[1] = (struct net_rule){.proto = -1, .group = 0};
        for (unsigned i = 0; i < PORTS; i++) {
                port[i] = (struct net_port){
                        .address = 0x0a000002 + i, .groups = groups, .ngroups = 1, .live = true};
                /* As of random numbers, in no order. */
                snprintf(port[i].id, sizeof(port[i].id), "%08x-0000-4000-8000-000000000000",
                         (i + 1) * 2654435769u);
                snprintf(port[i].mac, sizeof(port[i].mac), "06:00:00:00:%02x:%02x", i >> 8,
                         i & 255);
                snprintf(port[i].name, sizeof(port[i].name), "guest%u", i);
        }
}

static double cpu_ms; /* of the last apply(), this process's alone */

static double cpu(void)
{
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static double apply(struct network_service *s, unsigned ports, unsigned rules)
{
        _cleanup_err_ struct err *err = NULL;
        int64_t begun = clock_mono();

        cpu_ms = cpu();

        network.nports = ports;
        group.nrules = rules;
        if (s->ops->apply(s, &plan, &err) < 0)
                fail_msg("%s", err_msg(err));
        cpu_ms = cpu() - cpu_ms;
        return (clock_mono() - begun) / 1000.0;
}

static int by_size(const void *a, const void *b)
{
        double x = *(const double *)a, y = *(const double *)b;

        return x < y ? -1 : x > y;
}

/* The middle of some rounds of one port more, where so many are. */
static double one_more(struct network_service *s, unsigned ports, unsigned rules)
{
        double v[ROUNDS], c[ROUNDS];

        for (int i = 0; i < ROUNDS; i++) {
                apply(s, ports, rules);
                v[i] = apply(s, ports + 1, rules);
                c[i] = cpu_ms;
        }
        qsort(v, ROUNDS, sizeof(*v), by_size);
        qsort(c, ROUNDS, sizeof(*c), by_size);
        cpu_ms = c[ROUNDS / 2];
        return v[ROUNDS / 2];
}

static void row(const char *what, double ms)
{
        printf("%-44s %8.1f ms, %.1f of them its own\n", what, ms, cpu_ms);
        fflush(stdout);
}

static void times(struct network_service *s)
{
        row("first port of a first network", apply(s, 1, 2));
        row("nothing to do", apply(s, 1, 2));
        row("one port more, beside 1", one_more(s, 1, 2));
        row("one port more, beside 20", one_more(s, 20, 2));
        row("1000 rules", apply(s, 20, RULES));
        row("one port more, with 1000 rules", one_more(s, 20, RULES));
        row("200 ports", apply(s, 200, 2));
        row("nothing to do", apply(s, 200, 2));
        row("one port more, beside 200", one_more(s, 200, 2));
        row("1000 rules, beside 200", apply(s, 200, RULES));
        row("one port more, with 1000 rules", one_more(s, 200, RULES));
        row("1000 ports", apply(s, PORTS - 1, 2));
        row("nothing to do", apply(s, PORTS - 1, 2));
        row("one port more, beside 1000", one_more(s, PORTS - 1, 2));
        row("1000 rules, beside 1000", apply(s, PORTS - 1, RULES));
        apply(s, 1, 2);
}

/* --- what passes ----------------------------------------------------------------------------- */

static void enter(pid_t where)
{
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/ns/net", where);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
                _exit(1);
        close(fd);
}

/* Bytes a second that one end takes from the other. */
static double rate(pid_t from, pid_t to, const char *address)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(5001)};
        static char buf[CHUNK];
        pid_t sender, taker;
        double result = 0;
        int said[2], status;

        if (pipe2(said, O_CLOEXEC) < 0)
                return 0;
        taker = fork();
        if (taker == 0) {
                int l, c, on = 1;
                uint64_t sum = 0;
                int64_t begun;
                ssize_t n;

                enter(to);
                l = socket(AF_INET, SOCK_STREAM, 0);
                setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
                if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l, 1) < 0 ||
                    write(said[1], &result, sizeof(result)) < 0 || (c = accept(l, NULL, NULL)) < 0)
                        _exit(1);
                begun = clock_mono();
                while ((n = read(c, buf, sizeof(buf))) > 0)
                        sum += n;
                result = sum * 1e6 / (clock_mono() - begun);
                _exit(write(said[1], &result, sizeof(result)) < 0);
        }
        if (read(said[0], &result, sizeof(result)) < 0) /* it listens */
                return 0;
        sender = fork();
        if (sender == 0) {
                int64_t until;
                int c;

                enter(from);
                c = socket(AF_INET, SOCK_STREAM, 0);
                inet_pton(AF_INET, address, &a.sin_addr);
                if (connect(c, (struct sockaddr *)&a, sizeof(a)) < 0)
                        _exit(1);
                until = clock_mono() + seconds * 1000000;
                while (clock_mono() < until && write(c, buf, sizeof(buf)) > 0)
                        ;
                _exit(0);
        }
        waitpid(sender, &status, 0);
        if (status != 0 || read(said[0], &result, sizeof(result)) != sizeof(result))
                result = 0;
        gone(taker);
        close(said[0]);
        close(said[1]);
        return result;
}

static pid_t ours(unsigned i)
{
        struct rig_guest g = {.mtu = 1500, .gateway = "10.0.0.1"};

        network_device(g.tap, NET_TAP, port[i].id);
        snprintf(g.mac, sizeof(g.mac), "%s", port[i].mac);
        snprintf(g.address, sizeof(g.address), "10.0.0.%u/16", 2 + i);
        return rig_guest(&g);
}

static pid_t theirs(unsigned i)
{
        struct rig_guest g = {.mtu = 1500, .gateway = "192.168.122.1"};

        snprintf(g.tap, sizeof(g.tap), "theirs%u", i);
        snprintf(g.mac, sizeof(g.mac), "52:54:00:00:00:%02x", i);
        snprintf(g.address, sizeof(g.address), "192.168.122.%u/24", 10 + i);
        yes("ip tuntap add %s mode tap vnet_hdr && ip link set %s master virbr0 up", g.tap, g.tap);
        return rig_guest(&g);
}

static void line(const char *what, double our, double their)
{
        printf("%-28s ours %8.1f MB/s   libvirt %8.1f MB/s   ratio %.2f\n", what, our / 1e6,
               their / 1e6, their ? our / their : 0);
        fflush(stdout);
}

int main(int argc, char **argv)
{
        struct network_service *s;
        pid_t o, a[2], b[2] = {};
        bool libvirt;

        if (argc > 1 && atoi(argv[1]) > 0)
                seconds = atoi(argv[1]);
        libvirt = getenv("STRATOFS_INNER") != NULL;
        if (getuid() != 0 || unshare(libvirt ? CLONE_NEWNS : CLONE_NEWNET | CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || sh("ip link set lo up") != 0) {
                fprintf(stderr, "only for root, with namespaces\n");
                return 77;
        }
        if (!mkdtemp(run) || chmod(run, 0755) < 0)
                return 1;
        fill();
        s = network_linux_new(run, cloud);
        if (argc < 3 || strcmp(argv[2], "rates") != 0)
                times(s);
        apply(s, 2, 2);
        o = rig_outside("cable");
        yes("ip addr add 192.0.2.1/24 dev cable; nsenter -n -t %d sh -c 'ip addr add 192.0.2.2/24 "
            "dev "
            "eth0; ip route add default via 192.0.2.1'",
            o);
        for (unsigned i = 0; i < 2; i++)
                a[i] = ours(i);
        if (libvirt) {
                yes("virsh -q -c qemu:///system net-info default >/dev/null "
                    "&& { virsh -q -c qemu:///system net-start default; true; }");
                for (unsigned i = 0; i < 2; i++)
                        b[i] = theirs(i);
                for (int i = 0;
                     i < 30 && sh("nsenter -n -t %d busybox ping -q -c 1 -W 1 192.168.122.11 "
                                  ">/dev/null",
                                  b[0]) != 0;
                     i++) /* the bridge listens before it forwards */
                        ;
        }
        line("guest to guest", rate(a[0], a[1], "10.0.0.3"),
             libvirt ? rate(b[0], b[1], "192.168.122.11") : 0);
        line("guest to outside, by NAT", rate(a[0], o, "192.0.2.2"),
             libvirt ? rate(b[0], o, "192.0.2.2") : 0);
        for (unsigned i = 0; i < 2; i++) {
                gone(a[i]);
                if (b[i])
                        gone(b[i]);
        }
        gone(o);
        if (libvirt)
                sh("virsh -q -c qemu:///system net-destroy default");
        plan.nnetworks = 0;
        apply(s, 0, 0);
        s->ops->close(s);
        remove_tree(run, NULL);
        return 0;
}
