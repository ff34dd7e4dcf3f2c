/* What a tenant writes about networks, and what the driver is told then. */
#include "rig.h"

#include "backend/network/null/network-null.h"
#include "control/network.h"

static struct network_service *null;

static int open_null(void *arg, struct network_service **ret, struct err **e)
{
        *ret = null;
        return 0;
}

static int setup(void **state)
{
        null = network_null_new();
        rig_network = open_null;
        return rig_setup(state);
}

static int teardown(void **state)
{
        int r = rig_teardown(state);

        rig_network = NULL;
        null->ops->close(null);
        return r;
}

static int make_in(uint64_t owner, const struct kind *k, const char *name, uint64_t *ret)
{
        struct err *e = NULL;

        return say(control_create(fake.c, &root, owner, k, name, ret, &e), &e);
}

static int write_line(uint64_t no, const struct kind *k, const char *file, const char *line)
{
        struct err *e = NULL;

        return say(
                control_write_line(fake.c, &root, no, kind_file(k, file), line, strlen(line), &e),
                &e);
}

/* A network with one subnet. */
static uint64_t lan(const char *name, const char *cidr)
{
        uint64_t n = make(&kind_network, name), s;

        assert_int_equal(make_in(n, &kind_subnet, "a", &s), 0);
        assert_int_equal(set(s, &kind_subnet, "cidr", cidr), 0);
        return n;
}

static uint64_t inside(uint64_t holder, const struct kind *k, const char *name)
{
        struct object *o;
        uint64_t no;

        control_rdlock(fake.c);
        o = model_by_name(fake.c, model_by_no(fake.c, holder), k, name);
        no = o ? o->no : 0;
        control_unlock(fake.c);
        assert_true(no);
        return no;
}

static char *text(uint64_t no, const char *attr)
{
        char *s;

        control_rdlock(fake.c);
        s = xstrdup(object_str(model_by_no(fake.c, no), attr));
        control_unlock(fake.c);
        return s;
}

#define assert_attr(no, attr, value)                                                               \
        do {                                                                                       \
                _cleanup_free_ char *_s = text(no, attr);                                          \
                assert_string_equal(_s ?: "", value);                                              \
        } while (0)

/* A guest with a port in each of these networks. */
static uint64_t guest(const char *name, const char *const *networks)
{
        uint64_t i = make(&kind_instance, name);
        char path[64];

        volume(name);
        snprintf(path, sizeof(path), "volumes/%s", name);
        assert_int_equal(set(i, &kind_instance, "flavor", "tiny"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", path), 0);
        for (; *networks; networks++) {
                snprintf(path, sizeof(path), "networks/%s", *networks);
                assert_int_equal(link_to(i, &kind_instance, "networks", *networks, path), 0);
        }
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        return i;
}

static char *plan(void)
{
        assert_int_equal(networks_apply(fake.c, NULL), 0);
        return network_null_plan(null);
}

#define assert_plan(words)                                                                         \
        do {                                                                                       \
                _cleanup_free_ char *_p = plan();                                                  \
                if (!strstr(_p, words))                                                            \
                        fail_msg("no '%s' in\n%s", words, _p);                                     \
        } while (0)
#define assert_no_plan(words)                                                                      \
        do {                                                                                       \
                _cleanup_free_ char *_p = plan();                                                  \
                if (strstr(_p, words))                                                             \
                        fail_msg("'%s' in\n%s", words, _p);                                        \
        } while (0)

static void subnets(void **state)
{
        uint64_t n = lan("lan", "10.1.0.0/24"), s = inside(n, &kind_subnet, "a"), six, p, q;

        assert_int_equal(make_in(n, &kind_subnet, "six", &six), 0);
        assert_int_equal(set(six, &kind_subnet, "cidr", "fd00:0:0:1::/48"), -EINVAL);
        assert_words("/64");
        assert_int_equal(set(six, &kind_subnet, "cidr", "fe80::/64"), -EINVAL);
        assert_int_equal(make_in(n, &kind_port, "p", &p), 0);
        assert_attr(p, "address", "10.1.0.2");
        assert_attr(p, "address6", "");
        assert_int_equal(set(p, &kind_port, "mac", "06:00:00:12:34:56"), 0);
        assert_int_equal(set(six, &kind_subnet, "cidr", "fd00:0:0:1::/64"), 0);
        assert_attr(six, "gateway", "fd00:0:0:1::1");
        assert_attr(p, "address6", "fd00::1:400:ff:fe12:3456"); /* as its guest makes it */
        assert_int_equal(set(p, &kind_port, "address6", "fd00:0:0:1::9"), -EPERM);
        assert_int_equal(set(six, &kind_subnet, "ipv6", "dhcp"), 0);
        assert_int_equal(set(p, &kind_port, "address6", "fd00:0:0:2::9"), -EINVAL);
        assert_int_equal(set(p, &kind_port, "address6", "fd00:0:0:1::1"), -EEXIST);
        assert_int_equal(set(p, &kind_port, "address6", "fd00:0:0:1::9"), 0);
        assert_int_equal(make_in(n, &kind_port, "q", &q), 0);
        assert_int_equal(set(q, &kind_port, "address6", "fd00:0:0:1::9"), -EEXIST);
        assert_int_equal(set(q, &kind_port, "address", "10.1.0.1"), -EEXIST);
        assert_int_equal(write_line(s, &kind_subnet, "routes", "10.9.0.0/16 via 10.1.0.9"), 0);
        assert_int_equal(write_line(s, &kind_subnet, "routes", "10.9.0.0/16 via 10.2.0.9"),
                         -EINVAL);
        assert_int_equal(write_line(s, &kind_subnet, "routes", "10.9.0.0/16 by 10.1.0.9"), -EINVAL);
        assert_int_equal(write_line(s, &kind_subnet, "routes", "- 10.8.0.0/16 via 10.1.0.9"),
                         -ENOENT);
        guest("g", (const char *const[]){"lan", NULL});
        assert_plan("route 10.9.0.0/16 via 10.1.0.9");
        assert_plan("subnet fd00:0:0:1::/64 mode=1");
        assert_int_equal(write_line(s, &kind_subnet, "routes", "- 10.9.0.0/16 via 10.1.0.9"), 0);
        assert_no_plan("10.9.0.0");
        assert_int_equal(drop(six), -EBUSY); /* its guest runs with it */
}

/* Addresses are taken from the pools, and by hand from anywhere. */
static void pools(void **state)
{
        uint64_t n = lan("lan", "10.1.0.0/24"), s = inside(n, &kind_subnet, "a"), p[3], more;

        assert_int_equal(set(s, &kind_subnet, "pools", "10.1.0.50-10.2.0.60"), -EINVAL);
        assert_int_equal(set(s, &kind_subnet, "pools", "10.1.0.60-10.1.0.50"), -EINVAL);
        assert_int_equal(set(s, &kind_subnet, "pools", "10.1.0.50-10.1.0.51 10.1.0.70-10.1.0.70"),
                         0);
        for (unsigned i = 0; i < 3; i++) {
                char name[] = {'p', '0' + i, 0};

                assert_int_equal(make_in(n, &kind_port, name, &p[i]), 0);
        }
        assert_attr(p[0], "address", "10.1.0.50");
        assert_attr(p[1], "address", "10.1.0.51");
        assert_attr(p[2], "address", "10.1.0.70");
        assert_true(make_in(n, &kind_port, "full", &more) < 0);
        assert_int_equal(set(p[2], &kind_port, "address", "10.1.0.9"), 0);
        assert_int_equal(make_in(n, &kind_port, "more", &more), 0);
        assert_attr(more, "address", "10.1.0.70");
}

static void types(void **state)
{
        uint64_t n = lan("lan", "10.1.0.0/24"), h, m = lan("other", "10.1.0.0/24");

        assert_int_equal(networks_apply(fake.c, NULL), 0); /* the driver was asked */
        assert_int_equal(set(n, &kind_network, "type", "gre"), -ENOTSUP);
        assert_words("networks of type gre");
        assert_int_equal(set(n, &kind_network, "type", "vlan"), -ENOTSUP);
        assert_words("kernel has no networks of type vlan");
        assert_int_equal(set(n, &kind_network, "type", "vxlan"), 0);
        assert_int_equal(stored(n, "mtu"), 1450);
        assert_true(stored(n, "segment") >= 1 << 23); /* the cloud's; below are those of admins */
        assert_int_equal(set(n, &kind_network, "segment", "8388608"), -EINVAL);
        assert_int_equal(set(n, &kind_network, "segment", "77"), 0);
        assert_int_equal(set(m, &kind_network, "type", "flat"), 0);
        assert_int_equal(set(m, &kind_network, "physical", "outside"), 0);
        control_rdlock(fake.c);
        h = model_by_name(fake.c, NULL, &kind_host, "here")->no;
        control_unlock(fake.c);
        assert_int_equal(set(h, &kind_host, "physical", "outside"), -EINVAL);
        assert_int_equal(set(h, &kind_host, "physical", "dc=br0 outside=eth1"), 0);
        assert_int_equal(set(h, &kind_host, "address", "300.1.1.1"), -EINVAL);
        guest("g", (const char *const[]){"other", "lan", NULL});
        assert_plan("device=eth1");
        assert_plan("port g 10.1.0.2 live");
        assert_int_equal(set(n, &kind_network, "type", "local"), -EBUSY);
}

static void routers(void **state)
{
        uint64_t a = lan("a", "10.1.0.0/24"), r = make(&kind_router, "r"), f, h, p, x;

        lan("b", "10.2.0.0/24");
        lan("clash", "10.1.0.0/16");
        x = lan("out", "10.3.0.0/24");
        assert_int_equal(link_to(r, &kind_router, "networks", "a", "networks/a"), 0);
        assert_int_equal(link_to(r, &kind_router, "networks", "b", "networks/b"), 0);
        assert_int_equal(link_to(r, &kind_router, "networks", "clash", "networks/clash"), -EINVAL);
        assert_words("10.1.0.0/24");
        assert_int_equal(link_to(r, &kind_router, "gateway", "gateway", "networks/a"), -EBUSY);
        assert_int_equal(set(x, &kind_network, "external", "0"), 0);
        assert_int_equal(link_to(r, &kind_router, "gateway", "gateway", "networks/out"), -EINVAL);
        assert_int_equal(set(x, &kind_network, "external", "1"), 0);
        assert_int_equal(link_to(r, &kind_router, "gateway", "gateway", "networks/out"), 0);
        assert_attr(r, "address", "10.3.0.2");
        assert_int_equal(make_in(x, &kind_port, "p", &p), 0);
        assert_attr(p, "address", "10.3.0.3"); /* the router's is taken */
        make(&kind_router, "other");
        assert_int_equal(link_to(inside(fake.owner, &kind_router, "other"), &kind_router,
                                 "networks", "a", "networks/a"),
                         -EBUSY);
        assert_int_equal(drop(a), -EBUSY);
        assert_int_equal(write_line(r, &kind_router, "routes", "10.9.0.0/16 via 10.2.0.9"), 0);
        assert_int_equal(write_line(r, &kind_router, "routes", "10.9.0.0/16 via 10.4.0.9"),
                         -EINVAL);
        assert_int_equal(write_line(r, &kind_router, "forwards", "tcp 8080 to 10.1.0.2 80"), 0);
        assert_int_equal(write_line(r, &kind_router, "forwards", "tcp 8080 to 10.1.0.3 80"),
                         -EEXIST);
        assert_int_equal(write_line(r, &kind_router, "forwards", "tcp 0 to 10.1.0.3 80"), -EINVAL);
        assert_int_equal(write_line(r, &kind_router, "forwards", "icmp 1 to 10.1.0.3"), -EINVAL);
        assert_int_equal(write_line(r, &kind_router, "forwards", "tcp 1 to 10.7.0.3"), -EINVAL);
        guest("g", (const char *const[]){"a", NULL});
        assert_plan("router legs=2 gateway=");
        assert_plan("route 10.9.0.0/16 via 10.2.0.9");
        assert_plan("forward 6 10.3.0.2 8080 to 10.1.0.2 80");
        assert_plan("beyond 10.3.0.2 router=0");
        assert_plan("subnet 10.2.0.0/24"); /* what the router leads to is there, too */
        control_rdlock(fake.c);
        h = model_by_name(fake.c, NULL, &kind_host, "here")->no;
        control_unlock(fake.c);
        assert_int_equal(set(h, &kind_host, "floating", "198.51.100.1-198.51.100.9"), 0);
        f = make(&kind_floating_ip, "f");
        assert_int_equal(link_to(f, &kind_floating_ip, "target", "target", "instances/g"), 0);
        assert_plan("float 198.51.100.1 10.1.0.2");
        assert_plan("beyond 198.51.100.1 router=0");
        f = make(&kind_floating_ip, "f2");
        assert_int_equal(link_to(f, &kind_floating_ip, "target", "target", "routers/r"), 0);
        assert_plan("forward 6 198.51.100.2 8080 to 10.1.0.2 80");
        assert_int_equal(set(r, &kind_router, "snat", "0"), 0);
        assert_plan("address=0.0.0.0");
        assert_int_equal(drop(r), -EBUSY);
}

/* A network of another tenant that is shared: the port is counted where its guest is. */
static void shared(void **state)
{
        uint64_t other, n, s, i = make(&kind_instance, "web"), r = make(&kind_router, "r");
        char path[64] = "../../../../other/networks/pub";
        struct err *e = NULL;

        assert_int_equal(
                say(control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other, &e),
                    &e),
                0);
        assert_int_equal(make_in(other, &kind_network, "pub", &n), 0);
        assert_int_equal(make_in(n, &kind_subnet, "a", &s), 0);
        assert_int_equal(set(s, &kind_subnet, "cidr", "10.7.0.0/24"), 0);
        assert_int_equal(link_to(i, &kind_instance, "networks", "pub", path), -EPERM);
        assert_int_equal(
                link_to(r, &kind_router, "gateway", "gateway", "../../../other/networks/no"),
                -EPERM);
        assert_int_equal(set(n, &kind_network, "shared", "1"), 0);
        assert_int_equal(link_to(i, &kind_instance, "networks", "pub", path), 0);
        assert_int_equal(used("ports "), 1);
        assert_int_equal(link_to(r, &kind_router, "networks", "pub", "../../../other/networks/pub"),
                         -ENOENT); /* the path is from the link's folder, which is one deeper */
        assert_int_equal(
                link_to(r, &kind_router, "networks", "pub", "../../../../other/networks/pub"),
                -EPERM);
        assert_int_equal(
                link_to(r, &kind_router, "gateway", "gateway", "../../../other/networks/pub"), 0);
        assert_attr(r, "address", "10.7.0.3");
        assert_int_equal(set(n, &kind_network, "shared", "0"), -EBUSY);
        assert_int_equal(drop(n), -EBUSY);
        /* It is all there after a restart. */
        control_stop(fake.c);
        start_control();
        assert_int_equal(used("ports "), 1);
        assert_int_equal(drop(i), 0);
        for (int k = 0; k < 5000 && !streq(state_of(i), "gone"); k++)
                usleep(1000);
        assert_int_equal(used("ports "), 0);
        assert_int_equal(drop(r), 0);
        assert_int_equal(drop(n), 0);
}

static void ports(void **state)
{
        uint64_t n = lan("lan", "10.1.0.0/24"), p, i;
        char *show;
        struct buf out = {};

        assert_int_equal(make_in(n, &kind_port, "p", &p), 0);
        assert_int_equal(set(p, &kind_port, "open", "1"), -EPERM);
        assert_int_equal(set(n, &kind_network, "open_ports", "1"), 0);
        assert_int_equal(set(p, &kind_port, "open", "1"), 0);
        assert_int_equal(set(p, &kind_port, "address_pairs", "10.1.0.50 x"), -EINVAL);
        assert_int_equal(
                set(p, &kind_port, "address_pairs", "10.1.0.50 10.9.0.0/16@06:00:00:00:00:01"), 0);
        assert_int_equal(set(p, &kind_port, "rate_in", "1M"), 0);
        assert_int_equal(set(p, &kind_port, "floor", "4K"), 0);
        i = guest("g", (const char *const[]){"lan/ports/p", NULL});
        assert_plan("port g 10.1.0.2 live open rates=1048576,0,4096 pair=10.1.0.50/32 "
                    "pair=10.9.0.0/16");
        control_rdlock(fake.c);
        network_render_topology(fake.c, model_by_no(fake.c, n), &out);
        assert_non_null(strstr(buf_str(&out), "port p address=10.1.0.2 instance=g state=active"));
        buf_done(&out);
        network_render_graph(fake.c, model_by_no(fake.c, n), &out);
        assert_non_null(strstr(buf_str(&out), "\"instance g\" -- \"network lan\""));
        buf_done(&out);
        kind_port.files[kind_file(&kind_port, "stats")].render(fake.c, model_by_no(fake.c, p),
                                                               &out);
        show = buf_take(&out);
        control_unlock(fake.c);
        assert_non_null(strstr(show, "in_bytes 60\nin_packets 1\n"));
        free(show);
        assert_int_equal(i > 0, 1);
}

static void quotas(void **state)
{
        uint64_t n = lan("lan", "10.1.0.0/24"), p;

        assert_int_equal(quota(fake.owner, "ports limit=1"), 0);
        assert_int_equal(make_in(n, &kind_port, "p", &p), 0);
        assert_int_equal(make_in(n, &kind_port, "q", &p), -EDQUOT);
        assert_words("ports limit=1 used=1 wanted=1");
        assert_int_equal(quota(fake.owner, "routers limit=0"), 0);
        assert_int_equal(make_in(fake.owner, &kind_router, "r", &p), -EDQUOT);
        assert_int_equal(quota(fake.owner, "networks limit=2"), 0); /* `default` is one */
        assert_int_equal(make_in(fake.owner, &kind_network, "more", &p), -EDQUOT);
        assert_int_equal(quota(fake.owner, "security_groups limit=1"), 0);
        assert_int_equal(make_in(fake.owner, &kind_security_group, "more", &p), -EDQUOT);
        assert_int_equal(quota(fake.owner, "floating_ips limit=0"), 0);
}

#define ROUTE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                ROUTE_TEST(subnets), ROUTE_TEST(pools), ROUTE_TEST(types), ROUTE_TEST(routers),
                ROUTE_TEST(shared),  ROUTE_TEST(ports), ROUTE_TEST(quotas)};

        return rig_run(tests);
}
