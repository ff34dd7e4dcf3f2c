/* The Linux driver alone, in a namespace of the test's: what it makes, makes again, and takes away.
 * With the word "bench" it says how long things take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "backend/network/linux/network-linux.h"
#include "common/clock.h"
#include "common/fileio.h"

enum { PORTS = 200, RULES = 1000 };

static const char cloud[] = "11111111-2222-3333-4444-555555555555";
static char run[] = "/tmp/st-net.XXXXXX";

static struct net_rule rule[RULES];
static struct net_group group = {.id = "0123456789abcdef", .rules = rule, .nrules = 1};
static const unsigned groups[] = {0};
static struct net_port port[PORTS];
static struct net_subnet subnet = {
        .address = 0x0a000000, .prefix = 16, .gateway = 0x0a000001, .dhcp = true};
static struct net_network network = {.id = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
                                     .mtu = 1500,
                                     .uplink = 256,
                                     .subnets = &subnet,
                                     .nsubnets = 1,
                                     .ports = port,
                                     .nports = 1,
                                     .groups = &group,
                                     .ngroups = 1};
static struct net_plan plan = {.networks = &network, .nnetworks = 1};
static const struct net_plan nothing;

static void fill(void)
{
        for (unsigned i = 0; i < RULES; i++)
                rule[i] = (struct net_rule){.proto = 6,
                                            .from = i + 1,
                                            .to = i + 1,
                                            .group = -1,
                                            .peer = 0x0b000000 + (i << 8),
                                            .prefix = 24};
        for (unsigned i = 0; i < PORTS; i++) {
                port[i] = (struct net_port){
                        .address = 0x0a000002 + i, .groups = groups, .ngroups = 1, .live = true};
                snprintf(port[i].id, sizeof(port[i].id), "%08x-0000-0000-0000-000000000000", i);
                snprintf(port[i].mac, sizeof(port[i].mac), "06:00:00:00:00:%02x", i);
                snprintf(port[i].name, sizeof(port[i].name), "guest%u", i);
        }
}

static int64_t apply(struct network_service *s, const struct net_plan *p)
{
        _cleanup_err_ struct err *err = NULL;
        int64_t begun = clock_mono();

        if (s->ops->apply(s, p, &err) < 0)
                fail_msg("%s", err_msg(err));
        return clock_mono() - begun;
}

static unsigned index_of(enum net_device what, const char *id)
{
        char name[DEVICE_SIZE];

        return if_nametoindex(network_device(name, what, id));
}

static void makes_and_takes(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);
        unsigned tap, bridge;

        apply(s, &nothing); /* nothing is made for nothing */
        assert_int_equal(index_of(NET_BRIDGE, network.id), 0);
        apply(s, &plan);
        tap = index_of(NET_TAP, port[0].id);
        bridge = index_of(NET_BRIDGE, network.id);
        assert_true(tap && bridge && index_of(NET_LEG, network.id) &&
                    index_of(NET_UPLINK, network.id));
        s->ops->close(s);

        s = network_linux_new(run, cloud); /* a daemon that starts again finds it all */
        apply(s, &plan);
        assert_int_equal(index_of(NET_TAP, port[0].id), tap);
        assert_int_equal(index_of(NET_BRIDGE, network.id), bridge);
        network.mtu = 1400;
        apply(s, &plan);
        for (unsigned i = 0; i < 3; i++) {
                char name[DEVICE_SIZE], command[128];

                network_device(name, "tbv"[i], i ? network.id : port[0].id);
                snprintf(command, sizeof(command), "ip link show %s | grep -q 'mtu 1400 '", name);
                assert_int_equal(system(command), 0); /* NOLINT: the test's own words */
        }
        network.mtu = 1500;
        port[0].live = false;
        apply(s, &plan);
        assert_int_equal(index_of(NET_TAP, port[0].id), 0);
        assert_int_equal(index_of(NET_BRIDGE, network.id), bridge);
        port[0].live = true;
        apply(s, &nothing);
        assert_int_equal(index_of(NET_BRIDGE, network.id), 0);
        assert_int_equal(index_of(NET_LEG, network.id), 0);
        assert_int_equal(index_of(NET_UPLINK, network.id), 0);
        s->ops->close(s);
}

static void leaves_others(void **state)
{
        struct network_service *mine = network_linux_new(run, cloud);
        char other[] = "/tmp/st-net.XXXXXX";
        struct network_service *s;

        assert_non_null(mkdtemp(other));
        s = network_linux_new(other, "99999999-2222-3333-4444-555555555555");
        apply(mine, &plan);
        apply(s, &nothing);
        assert_true(index_of(NET_BRIDGE, network.id));
        apply(mine, &nothing);
        s->ops->close(s);
        mine->ops->close(mine);
        rmdir(other);
}

/* One without a device on this host: the other has all that it should, and is told so. */
static void one_fails(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);
        struct net_network both[] = {
                {.id = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb",
                 .type = NET_FLAT,
                 .device = "nosuch",
                 .router = -1,
                 .mtu = 1500},
                network,
        };
        struct net_outcome outcomes[2] = {};
        struct net_plan p = {.networks = both, .nnetworks = 2, .outcomes = outcomes};
        _cleanup_err_ struct err *err = NULL;

        assert_true(s->ops->apply(s, &p, &err) < 0);
        assert_true(outcomes[0].r < 0);
        assert_string_equal(err_msg(outcomes[0].why), err_msg(err));
        assert_int_equal(outcomes[1].r, 0);
        assert_null(outcomes[1].why);
        assert_true(index_of(NET_TAP, port[0].id));
        err_free(outcomes[0].why);
        apply(s, &nothing);
        s->ops->close(s);
}

static void many(void **state)
{
        struct network_service *s = network_linux_new(run, cloud);
        int64_t first, second, rules, ports, one, idle;

        first = apply(s, &plan);
        network.nports = 2;
        second = apply(s, &plan);
        group.nrules = RULES;
        rules = apply(s, &plan);
        network.nports = PORTS - 1;
        ports = apply(s, &plan);
        network.nports = PORTS;
        one = apply(s, &plan);
        idle = apply(s, &plan);
        print_message("first network %ld us, a second port %ld us, %d rules %ld us, %d ports more "
                      "%ld us, one more beside "
                      "them %ld us, nothing to do %ld us\n",
                      first, second, RULES, rules, PORTS - 2, ports, one, idle);
        assert_true(index_of(NET_TAP, port[PORTS - 1].id));
        apply(s, &nothing);
        assert_int_equal(index_of(NET_TAP, port[PORTS - 1].id), 0);
        s->ops->close(s);
}

/* --- parts and the whole --------------------------------------------------------------------- */

/* What a command says, to be freed. */
static char *said(const char *command)
{
        _cleanup_buf_ struct buf text = {};
        char part[4096];
        FILE *f = popen(command, "r"); /* NOLINT: the test's own words */
        size_t n;

        assert_non_null(f);
        while ((n = fread(part, 1, sizeof(part), f)) > 0)
                buf_add(&text, part, n);
        assert_int_equal(pclose(f), 0);
        return buf_take(&text);
}

/* Numbers of the tables, which are others after they were replaced. */
static char *tables(void)
{
        char command[512];

        snprintf(command, sizeof(command),
                 "nft -a list tables; nsenter --net=%s/net/%s/ns nft -a list tables", run,
                 network.id);
        return said(command);
}

/* What the kernel has of rules, in an order of names, sets too: to be freed. */
static char *rules(void)
{
        static const char sorter[] =
                "import re, sys\n"
                "for table in sorted(re.findall(r'^table .*?^}', sys.stdin.read(), re.M | re.S)):\n"
                "    print(table.split('\\n')[0])\n"
                "    for b in sorted(re.findall(r'^\\t(?:chain|set) .*?^\\t}', table, re.M | "
                "re.S)):\n"
                "        if b.startswith('\\tset'):\n"
                "            b = b.split('{')[0] + ' '.join(sorted(re.split(r'[\\s,]+', b)))\n"
                "        print(b)\n";
        char command[2048];
        char *text;

        snprintf(command, sizeof(command),
                 "{ nft -s list ruleset; nsenter --net=%s/net/%s/ns nft -s list ruleset; } | "
                 "/usr/bin/python3 -c \"%s\"",
                 run, network.id, sorter);
        text = said(command);
        assert_non_null(strstr(text, "goto"));
        return text;
}

/* Some plan: ports, their groups, what they may, what leads to them. */
static void shuffle(void)
{
        static struct net_group both[2] = {{.id = "0a000000-0000-4000-8000-000000000000"},
                                           {.id = "0b000000-0000-4000-8000-000000000000"}};
        static const unsigned one[] = {1}, two[] = {0, 1};
        static const struct net_pair pair = {.address = 0x0a000800, .prefix = 24};
        static struct net_float to[2];
        static const struct net_subnet6 six = {
                .address.s6_addr = {0xfd}, .gateway.s6_addr = {0xfd, [15] = 1}, .mode = NET6_SLAAC};

        network.nports = 1 + rand() % 20;
        network.groups = both;
        network.ngroups = 2;
        network.floats = to;
        network.nfloats = rand() % 3;
        network.subnets6 = &six;
        network.nsubnets6 = rand() % 4 > 0; /* else it loses a table */
        for (unsigned i = 0; i < ARRAY_SIZE(both); i++) {
                both[i].rules = &rule[rand() % 3];
                both[i].nrules = rand() % 5;
                to[i] = (struct net_float){0xc6336401 + i, 0x0a000002 + rand() % network.nports};
        }
        rule[1].group = rand() % 2;
        rule[2].out = true;
        for (unsigned i = 0; i < network.nports; i++) {
                struct net_port *p = &port[i];

                p->groups = rand() % 2 ? one : two;
                p->ngroups = p->groups == one ? 1 : rand() % 3;
                p->live = rand() % 4 > 0;
                p->open = rand() % 8 == 0;
                p->pairs = &pair;
                p->npairs = rand() % 8 == 0;
                p->rate_out = rand() % 4 ? 0 : 1000000;
                p->address6 = (struct in6_addr){.s6_addr = {0xfd, [14] = i, [15] = i + 2}};
                snprintf(p->id, sizeof(p->id), "%08x-0000-4000-8000-000000000000",
                         (i + 1) * 2654435769u);
        }
}

/* What is told to the kernel is what differs; what it has then is as if it were told all. */
static void parts_make_the_whole(void **state)
{
        struct network_service *s = network_linux_new(run, cloud), *anew;
        unsigned rounds = getenv("STRATOFS_LONG") ? 300 : 12;

        shuffle();
        apply(s, &plan);
        for (unsigned i = 0; i < rounds; i++) {
                _cleanup_free_ char *a = NULL, *b = NULL, *before = tables(), *after = NULL;
                unsigned six = network.nsubnets6;

                srand(i + 1);
                shuffle();
                apply(s, &plan);
                a = rules();
                after = tables();
                if (six == network.nsubnets6) /* so it was parts */
                        assert_string_equal(before, after);
                anew = network_linux_new(run, cloud);
                apply(anew, &plan);
                anew->ops->close(anew);
                b = rules();
                assert_string_equal(a, b);
                s->ops->close(s); /* its own is not the kernel's any more: */
                s = network_linux_new(run, cloud);
                apply(s, &plan);
        }
        apply(s, &nothing);
        s->ops->close(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(makes_and_takes),
                                           cmocka_unit_test(leaves_others),
                                           cmocka_unit_test(one_fails), cmocka_unit_test(many),
                                           cmocka_unit_test(parts_make_the_whole)};
        int r;

        if (getuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
                fprintf(stderr, "only for root, with namespaces\n");
                return getenv("CI") ? 1 : 77;
        }
        if (!mkdtemp(run) || chmod(run, 0755) < 0)
                return 1;
        fill();
        r = cmocka_run_group_tests(tests, NULL, NULL);
        remove_tree(run, NULL);
        return r;
}
