/* Addresses and rules as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/network.h"

static void networks(void **state)
{
        static const char *const bad[] = {
                "",           "10.0.0.0",     "10.0.0.0/",   "10.0.0.0/33",
                "10.0.0.1/8", "10.0.0/24",    "10.0.0.0/2x", "::/0",
                "/24",        "10.0.0.0/024", " 10.0.0.0/8"};
        unsigned prefix;
        uint32_t a;

        assert_int_equal(cidr_parse("10.1.0.0/16", 11, &a, &prefix, NULL), 0);
        assert_int_equal(a, 0x0a010000);
        assert_int_equal(prefix, 16);
        assert_int_equal(cidr_parse("0.0.0.0/0", 9, &a, &prefix, NULL), 0);
        assert_int_equal(prefix, 0);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                _cleanup_err_ struct err *err = NULL;

                assert_int_equal(cidr_parse(bad[i], strlen(bad[i]), &a, &prefix, &err), -EINVAL);
                assert_string_equal(err->input, bad[i]);
        }
}

static void rules(void **state)
{
        static const char *const bad[] = {"",
                                          "in",
                                          "up any",
                                          "in any 80",
                                          "in tcp 0",
                                          "in tcp 80-79",
                                          "in tcp 65536",
                                          "in tcp 80 81",
                                          "in tcp to 10.0.0.0/8",
                                          "out any from 10.0.0.0/8",
                                          "in any from",
                                          "in any from group",
                                          "in any from group a b",
                                          "in any from 10.0.0.1/8",
                                          "in any from group a\"b",
                                          "in 256",
                                          "in any from fd00::1/64",
                                          "in any from fd00::/129",
                                          "in any from fd00:::/64",
                                          "in tcp 80 from any; drop"};
        struct rule x;

        assert_int_equal(rule_parse("in tcp 80-90 from 10.0.0.0/8", &x, NULL), 0);
        assert_false(x.r.out);
        assert_int_equal(x.r.proto, 6);
        assert_int_equal(x.r.from, 80);
        assert_int_equal(x.r.to, 90);
        assert_int_equal(x.r.peer, 0x0a000000);
        assert_int_equal(x.r.prefix, 8);
        assert_int_equal(rule_parse("out any", &x, NULL), 0);
        assert_true(x.r.out);
        assert_int_equal(x.r.proto, -1);
        assert_int_equal(x.r.prefix, 0);
        assert_int_equal(rule_parse(" in  udp 53 from group  web ", &x, NULL), 0);
        assert_string_equal(x.group, "web");
        assert_int_equal(rule_parse("in 47 from 192.0.2.1", &x, NULL), 0);
        assert_int_equal(x.r.prefix, 32);
        assert_int_equal(rule_parse("in icmp6 from fd00:1::/32", &x, NULL), 0);
        assert_true(x.r.six && x.r.prefix == 32 && x.r.proto == 58);
        assert_int_equal(rule_parse("in any from fd00::1", &x, NULL), 0);
        assert_int_equal(x.r.prefix, 128);
        /* All of a family is not all of both. */
        assert_int_equal(rule_parse("in tcp 22 from 0.0.0.0/0", &x, NULL), 0);
        assert_true(x.r.four && !x.r.six && x.r.prefix == 0);
        assert_int_equal(rule_parse("in tcp 22 from ::/0", &x, NULL), 0);
        assert_true(x.r.six && !x.r.four && x.r.prefix == 0);
        assert_int_equal(rule_parse("in tcp 22 from any", &x, NULL), 0);
        assert_false(x.r.six || x.r.four);
        assert_int_equal(rule_parse("in tcp 22", &x, NULL), 0);
        assert_false(x.r.six || x.r.four);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                _cleanup_err_ struct err *err = NULL;

                if (rule_parse(bad[i], &x, &err) != -EINVAL)
                        fail_msg("taken: '%s'", bad[i]);
                assert_true(err->at + err->len <= strlen(bad[i]));
        }
}

static void names(void **state)
{
        char t[DEVICE_SIZE], a[ADDRESS_TEXT_SIZE];

        assert_string_equal(network_device(t, NET_TAP, "01234567-89ab-cdef-0123-456789abcdef"),
                            "snt0123456789ab");
        assert_string_equal(network_address(a, 0xc0000201), "192.0.2.1");
        assert_int_equal(network_mask(0), 0);
        assert_int_equal(network_mask(24), 0xffffff00);
        assert_int_equal(network_mask(32), 0xffffffff);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(networks), cmocka_unit_test(rules),
                                           cmocka_unit_test(names)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
