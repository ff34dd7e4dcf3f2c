/* scene RUN METADATA: two tenants' networks with the same addresses, for a test that is in a
 * network namespace of its own.  Says "ready"; for each line of its standard input gives the group
 * web a rule, or takes it back, and the first network a guest more or less, and says "done"; every
 * second time as a daemon that has just started, so all rules are replaced.  Takes all away at its
 * end. */
#include <stdio.h>

#include "backend/network/linux/network-linux.h"
#include "common/macro.h"

static const char cloud[] = "11111111-2222-3333-4444-555555555555";
static const struct net_subnet subnet = {
        .address = 0x0a000000, .prefix = 24, .gateway = 0x0a000001, .dhcp = true};

static const struct net_subnet6 subnet6 = {.address.s6_addr = {0xfd, 0, 0, 8},
                                           .gateway.s6_addr = {0xfd, 0, 0, 8, [15] = 1},
                                           .mode = NET6_SLAAC};

/* Groups: default, web, closed, front. */
static const struct net_rule def[] = {
        {.out = true, .proto = -1, .group = -1},
        {.proto = -1, .group = 0},
};
static const struct net_rule web[] = {
        {.out = true, .proto = -1, .group = -1},
        {.proto = 6, .from = 80, .to = 80, .group = -1},
        {.proto = 17, .from = 84, .to = 84, .group = -1, .four = true},
        {.proto = 17, .from = 86, .to = 86, .group = -1, .six = true},
        {.proto = 6, .from = 81, .to = 81, .group = -1}, /* not at first */
};
static const struct net_rule front[] = {
        {.out = true, .proto = -1, .group = -1},
        {.proto = 6, .from = 8080, .to = 8080, .group = 0},
};
static struct net_group groups[] = {
        {.id = "0a000000-0000-0000-0000-000000000000", .rules = def, .nrules = ARRAY_SIZE(def)},
        {.id = "0b000000-0000-0000-0000-000000000000", .rules = web, .nrules = 4},
        {.id = "0c000000-0000-0000-0000-000000000000"},
        {.id = "0d000000-0000-0000-0000-000000000000", .rules = front, .nrules = ARRAY_SIZE(front)},
};
static const unsigned in_default[] = {0}, in_web[] = {1}, in_closed[] = {2}, in_front[] = {3};

#define PORT(n, last, where, runs)                                                                 \
        {                                                                                          \
                .id = n "0000000-0000-0000-0000-000000000000", .mac = "06:00:00:00:00:" n "0",     \
                .address = 0x0a000000 + (last),                                                    \
                .address6.s6_addr = {0xfd, 0, 0, 8, [15] = (last)}, .name = "guest" n,             \
                .live = (runs), .groups = (where), .ngroups = 1                                    \
        }
static const struct net_port a[] = {
        PORT("1", 2, in_default, true), PORT("2", 3, in_default, true),
        PORT("3", 4, in_web, true),     PORT("4", 5, in_closed, true),
        PORT("7", 6, in_front, false),  PORT("8", 7, in_default, true)}; /* not at first */
static const struct net_port b[] = {PORT("5", 2, in_default, true), PORT("6", 3, in_default, true)};
static const struct net_float floats[] = {{0xc6336401, 0x0a000002}, {0xc6336402, 0x0a000004}};

/* A load balancer on port 7, before guests 3 and 4. */
static const struct net_backend members[] = {{"three", 0x0a000004}, {"four", 0x0a000005}};
static const struct net_listener listener = {.name = "web",
                                             .port = 8080,
                                             .member_port = 80,
                                             .balance = "roundrobin",
                                             .check = NET_CHECK_TCP,
                                             .interval = 1,
                                             .members = members,
                                             .nmembers = ARRAY_SIZE(members)};
static const struct net_balancer balancer = {.id = "70000000-0000-0000-0000-00000000000b",
                                             .port = "70000000-0000-0000-0000-000000000000",
                                             .address = 0x0a000006,
                                             .listeners = &listener,
                                             .nlisteners = 1};

static struct net_network networks[] = {
        {.id = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
         .mtu = 1500,
         .router = -1,
         .uid = 900000256,
         .uplink = 256,
         .subnets = &subnet,
         .nsubnets = 1,
         .subnets6 = &subnet6,
         .nsubnets6 = 1,
         .ports = a,
         .nports = ARRAY_SIZE(a) - 1,
         .groups = groups,
         .ngroups = ARRAY_SIZE(groups),
         .floats = floats,
         .nfloats = ARRAY_SIZE(floats),
         .balancers = &balancer,
         .nbalancers = 1},
        {.id = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb",
         .mtu = 1500,
         .router = -1,
         .uid = 900000257,
         .uplink = 257,
         .subnets = &subnet,
         .nsubnets = 1,
         .subnets6 = &subnet6,
         .nsubnets6 = 1,
         .ports = b,
         .nports = ARRAY_SIZE(b),
         .groups = groups,
         .ngroups = 1},
};
static const struct net_plan plan = {networks, ARRAY_SIZE(networks)}, nothing;

static struct network_service *open_service(char **argv)
{
        struct network_service *s = network_linux_new(argv[1], cloud);

        if (s)
                network_linux_metadata(s, argv[2]);
        return s;
}

int main(int argc, char **argv)
{
        struct network_service *s = argc == 3 ? open_service(argv) : NULL;
        _cleanup_err_ struct err *err = NULL;
        unsigned count = 0;
        int r;

        if (!s)
                return 2;
        r = s->ops->apply(s, &plan, &err);
        if (r == 0 && puts("ready") >= 0 && fflush(stdout) == 0)
                while (r == 0 && getchar() != EOF) {
                        groups[1].nrules ^= 1;
                        networks[0].nports ^= (ARRAY_SIZE(a) - 1) ^ ARRAY_SIZE(a);
                        if (++count % 4 > 1) {
                                s->ops->close(s);
                                s = open_service(argv);
                        }
                        r = s->ops->apply(s, &plan, &err);
                        puts("done");
                        fflush(stdout);
                }
        if (r == 0)
                r = s->ops->apply(s, &nothing, &err);
        if (r < 0)
                fprintf(stderr, "scene: %s\n", err_msg(err));
        s->ops->close(s);
        return r < 0;
}
