/* Load balancers as tenants write them, what guests are told, and what the driver hears of both. */
#include "rig.h"

#include "backend/network/null/network-null.h"
#include "common/bundle.h"
#include "control/balancer.h"
#include "control/documents.h"
#include "control/network.h"

static struct network_service *null;
static uint64_t web, lb, listener;

static int open_null(void *arg, struct network_service **ret, struct err **e)
{
        *ret = null;
        return 0;
}

static int make_in(uint64_t owner, const struct kind *k, const char *name, uint64_t *ret)
{
        struct err *e = NULL;

        return say(control_create(fake.c, &root, owner, k, name, ret, &e), &e);
}

/* A guest that runs in the network lan, 10.1.0.0/24. */
static int setup(void **state)
{
        uint64_t n, s;
        int r;

        null = network_null_new();
        rig_network = open_null;
        r = rig_setup(state);
        n = make(&kind_network, "lan");
        assert_int_equal(make_in(n, &kind_subnet, "a", &s), 0);
        assert_int_equal(set(s, &kind_subnet, "cidr", "10.1.0.0/24"), 0);
        web = make(&kind_instance, "web");
        volume("web");
        assert_int_equal(set(web, &kind_instance, "flavor", "tiny"), 0);
        assert_int_equal(set(web, &kind_instance, "ssh_key", "ssh-ed25519 AAAA"), 0);
        assert_int_equal(link_to(web, &kind_instance, "volumes", "vda", "volumes/web"), 0);
        assert_int_equal(link_to(web, &kind_instance, "networks", "lan", "networks/lan"), 0);
        assert_int_equal(verb(web, "start"), 0);
        assert_int_equal(wait_for(web, "active"), 0);
        return r;
}

static int teardown(void **state)
{
        int r = rig_teardown(state);

        rig_network = NULL;
        null->ops->close(null);
        return r;
}

static void balanced(void)
{
        lb = make(&kind_load_balancer, "front");
        assert_int_equal(make_in(lb, &kind_listener, "http", &listener), 0);
        assert_int_equal(link_to(lb, &kind_load_balancer, "network", "network", "networks/lan"), 0);
        assert_int_equal(set(listener, &kind_listener, "port", "80"), 0);
        assert_int_equal(link_to(listener, &kind_listener, "members", "web", "instances/web"), 0);
}

static void refused(void **state)
{
        uint64_t other, alone = make(&kind_instance, "alone");

        assert_int_equal(make_in(fake.owner, &kind_vpn, "office", &other), -ENOTSUP);
        lb = make(&kind_load_balancer, "early");
        assert_int_equal(make_in(lb, &kind_listener, "http", &listener), 0);
        assert_int_equal(link_to(listener, &kind_listener, "members", "web", "instances/web"),
                         -EINVAL); /* in no network yet */
        balanced();
        assert_true(alone);
        assert_int_equal(link_to(listener, &kind_listener, "members", "alone", "instances/alone"),
                         -EINVAL); /* not in it */
        assert_int_equal(make_in(lb, &kind_listener, "more", &other), 0);
        assert_int_equal(set(other, &kind_listener, "port", "80"), -EEXIST);
        assert_int_equal(set(other, &kind_listener, "port", "0"), -EINVAL);
        assert_int_equal(set(other, &kind_listener, "protocol", "https"), -EINVAL); /* with what? */
        assert_int_equal(set(other, &kind_listener, "certificate", "what"), -EINVAL);
        /* A piece of it is none yet. */
        assert_int_equal(set(other, &kind_listener, "certificate", "-----BEGIN CERTIFICATE-----"),
                         0);
        assert_int_equal(set(other, &kind_listener, "protocol", "https"), -EINVAL);
        assert_int_equal(set(other, &kind_listener, "check_path", "x"), -EINVAL);
        assert_int_equal(set(other, &kind_listener, "check_path", "/a b"), -EINVAL);
        assert_int_equal(set(other, &kind_listener, "check_path", "/\n  server evil"), -EINVAL);
        assert_int_equal(set(other, &kind_listener, "check_path", "/a?b=c"), 0);
}

static void planned(void **state)
{
        const struct net_balancer *b;
        struct net_plan *p;

        balanced();
        p = network_plan(fake.c);
        assert_int_equal(p->nnetworks, 1);
        assert_int_equal(p->networks[0].nbalancers, 1);
        assert_int_equal(p->networks[0].nports, 2);
        b = &p->networks[0].balancers[0];
        assert_int_equal(b->address, 0x0a010003);
        assert_int_equal(b->nlisteners, 1);
        assert_string_equal(b->listeners[0].name, "http");
        assert_int_equal(b->listeners[0].port, 80);
        assert_int_equal(b->listeners[0].member_port, 80);
        assert_int_equal(b->listeners[0].nmembers, 1);
        assert_int_equal(b->listeners[0].members[0].address, 0x0a010002);
        network_plan_free(p);
        /* It alone keeps its network here. */
        assert_int_equal(verb(web, "stop now"), 0);
        assert_int_equal(wait_for(web, "stopped"), 0);
        p = network_plan(fake.c);
        assert_int_equal(p->nnetworks, 1);
        network_plan_free(p);
        assert_int_equal(drop(lb), 0);
        p = network_plan(fake.c);
        assert_int_equal(p->nnetworks, 0);
        network_plan_free(p);
}

static bool document(const char *name, struct bundle_item *ret, struct buf *text)
{
        bool some;

        buf_clear(text);
        control_rdlock(fake.c);
        some = documents(fake.c, model_by_no(fake.c, web), text);
        control_unlock(fake.c);
        return some && bundle_find(text->data, text->len, name, ret);
}

#define assert_told(name, words)                                                                   \
        do {                                                                                       \
                assert_true(document(name, &x, &text));                                            \
                if (!memmem(x.data, x.len, words, strlen(words)))                                  \
                        fail_msg("%s: %.*s", name, (int)x.len, x.data);                            \
        } while (0)

static void told_itself(void **state)
{
        _cleanup_buf_ struct buf text = {};
        struct bundle_item x;
        struct err *e = NULL;

        assert_told("openstack/latest/meta_data.json", "\"hostname\": \"web\"");
        assert_told("openstack/latest/network_data.json", "ipv4_dhcp");
        assert_told("latest/meta-data/local-ipv4", "10.1.0.2");
        assert_told("latest/meta-data/public-keys/", "0=default");
        assert_told("latest/meta-data/public-keys/0/openssh-key", "AAAA");
        assert_false(document("latest/user-data", &x, &text));
        assert_int_equal(
                say(control_set_meta(fake.c, &root, web, "user_data", "#!/bin/sh\n", 10, &e), &e),
                0);
        assert_told("latest/user-data", "#!/bin/sh\n");
        assert_told("openstack/latest/user_data", "#!/bin/sh\n");
        assert_told("openstack/latest/vendor_data.json", "{}");
        assert_int_equal(set(fake.owner, &kind_tenant, "vendor_data", "all"), 0);
        assert_told("openstack/latest/vendor_data.json", "\"cloud-init\": \"all\"");
        assert_false(document(".tokens", &x, &text));
        assert_int_equal(set(web, &kind_instance, "metadata_service", "tokens"), 0);
        assert_told(".tokens", "");
        assert_told(".hops", "1");
        assert_int_equal(set(web, &kind_instance, "metadata_service", "off"), 0);
        assert_false(document(".hops", &x, &text));
        assert_int_equal(set(web, &kind_instance, "password", "mine"), -EPERM);
}

/* --- a network that fails -------------------------------------------------------------------- */

static atomic_uint broken; /* the segment of the network that the driver does not manage */

/* As the null driver, but for that one. */
static int apply_but_one(struct network_service *s, const struct net_plan *p, struct err **e)
{
        int r = null->ops->apply(null, p, NULL);

        for (unsigned i = 0; i < p->nnetworks; i++)
                if (broken && p->networks[i].subnets->address == broken) {
                        p->outcomes[i].r = err_set(&p->outcomes[i].why, -EIO, "its cable is cut");
                        r = err_set(e, -EIO, "its cable is cut");
                }
        return r;
}

static void close_nothing(struct network_service *s)
{
}

static const struct network_ops but_one = {
        .name = "but one", .apply = apply_but_one, .close = close_nothing};
static struct network_service partly = {&but_one};

static int open_partly(void *arg, struct network_service **ret, struct err **e)
{
        *ret = &partly;
        return 0;
}

static int setup_partly(void **state)
{
        uint64_t n, s;
        int r;

        null = network_null_new();
        rig_network = open_partly;
        broken = 0;
        r = rig_setup(state);
        for (int i = 1; i < 3; i++) {
                n = make(&kind_network, i == 1 ? "one" : "two");
                assert_int_equal(make_in(n, &kind_subnet, "a", &s), 0);
                assert_int_equal(
                        set(s, &kind_subnet, "cidr", i == 1 ? "10.1.0.0/24" : "10.2.0.0/24"), 0);
        }
        return r;
}

static uint64_t guest(const char *name, const char *network)
{
        char path[64];
        uint64_t i = make(&kind_instance, name);

        volume(name);
        assert_int_equal(set(i, &kind_instance, "flavor", "tiny"), 0);
        snprintf(path, sizeof(path), "volumes/%s", name);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", path), 0);
        snprintf(path, sizeof(path), "networks/%s", network);
        assert_int_equal(link_to(i, &kind_instance, "networks", network, path), 0);
        assert_int_equal(verb(i, "start"), 0);
        return i;
}

/* Who is not in a network that fails starts, and is plugged in, as if there were none. */
static void one_fails(void **state)
{
        uint64_t a = guest("a", "two"), b, c;

        assert_int_equal(wait_for(a, "active"), 0); /* it keeps that network here */
        broken = 0x0a020000;
        b = guest("b", "two");
        assert_true(wait_for(b, "active") < 0);
        assert_string_equal(state_of(b), "draft");
        c = guest("c", "one");
        assert_int_equal(wait_for(c, "active"), 0);
        broken = 0;
        assert_int_equal(verb(b, "start"), 0);
        assert_int_equal(wait_for(b, "active"), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(refused, setup, teardown),
                cmocka_unit_test_setup_teardown(planned, setup, teardown),
                cmocka_unit_test_setup_teardown(told_itself, setup, teardown),
                cmocka_unit_test_setup_teardown(one_fails, setup_partly, teardown)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
