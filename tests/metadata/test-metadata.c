/* What is called how, what is signed for whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/bundle.h"
#include "metadata/metadata.h"

static void paths(void **state)
{
        static const char *const same[][2] = {
                {"/", ""},
                {"", ""},
                {"/latest/meta-data/", "latest/meta-data"},
                {"//2009-04-04//meta-data/mac", "latest/meta-data/mac"},
                {"/openstack", "openstack"},
                {"/openstack/", "openstack"},
                {"/openstack/2018-08-27/user_data", "openstack/latest/user_data"},
                {"/openstack/latest", "openstack/latest"},
        };
        static const char *const none[] = {"/1999-01-01/meta-data", "/openstack/1999-01-01",
                                           "/etc/passwd",           "/latest/../x",
                                           "/latest/.hops",         "/openstack/latest/.tokens"};
        char name[PATH_SIZE], big[2 * PATH_SIZE];

        for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
                assert_true(path_canonical(same[i][0], name));
                assert_string_equal(name, same[i][1]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(none); i++)
                assert_false(path_canonical(none[i], name));
        for (size_t n = PATH_SIZE - 20; n < PATH_SIZE + 20; n++) {
                memset(big, 'x', n);
                memcpy(big, "/latest/", 8);
                big[n] = '\0';
                if (path_canonical(big, name))
                        assert_int_equal(strlen(name), n - 1);
                else
                        assert_true(n >= PATH_SIZE - 1);
        }
}

static void lists(void **state)
{
        static const char *const names[] = {"latest/a/b", "latest/a/c/d", "latest/a/c/e",
                                            "latest/k/",  "latest/k/0/x", "latest/z"};
        _cleanup_buf_ struct buf text = {}, list = {};
        struct bundle_item x;

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                bundle_add(&text, names[i], names[i], strlen(names[i]));
#define LOOK(name) (buf_clear(&list), path_look(text.data, text.len, name, &list, &x))
        assert_int_equal(LOOK("latest"), 1);
        assert_int_equal(x.len, 7);
        assert_memory_equal(x.data, "a/\nk/\nz", 7);
        assert_int_equal(LOOK("latest/a"), 1);
        assert_memory_equal(x.data, "b\nc/", 4);
        assert_int_equal(LOOK("latest/a/c/e"), 1);
        assert_int_equal(x.len, 12);
        assert_memory_equal(x.data, "latest/a/c/e", 12);
        assert_int_equal(LOOK("latest/k"), 1);
        assert_memory_equal(x.data, "latest/k/", 9);
        assert_int_equal(LOOK("latest/a/x"), 0);
        assert_int_equal(LOOK("late"), 0);
}

static void bundles(void **state)
{
        static const char *const bad[] = {"",
                                          "a",
                                          "a 1",
                                          "a 1\n",
                                          "a 1\nx",
                                          "a x\n\n",
                                          " 1\nx\n",
                                          "a 9999999999\nx\n",
                                          "a\nb 1\nx\n",
                                          "a 2\nx\n",
                                          "a -1\nx\n"};
        struct bundle_item x;

        assert_true(bundle_find("a 1\nx\nb 0\n\n", 11, "b", &x));
        assert_int_equal(x.len, 0);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                const char *p = bad[i];

                assert_false(bundle_next(&p, bad[i] + strlen(bad[i]), &x));
        }
}

static void tokens(void **state)
{
        struct service a = {.secret = {1}}, b = {.secret = {2}};
        char t[TOKEN_SIZE];

        token_make(&a, 0x0a000002, 1000, t);
        assert_true(token_valid(&a, 0x0a000002, 999, t));
        assert_false(token_valid(&a, 0x0a000002, 1000, t)); /* it has ended */
        assert_false(token_valid(&a, 0x0a000003, 999, t));  /* somebody else's */
        assert_false(token_valid(&b, 0x0a000002, 999, t));
        assert_false(token_valid(&a, 0x0a000002, 999, ""));
        assert_false(token_valid(&a, 0x0a000002, 999, "1001-"));
        t[strlen(t) - 1] ^= 1;
        assert_false(token_valid(&a, 0x0a000002, 999, t));
        token_make(&a, 1, 1000000, t); /* none is made for so long */
        assert_false(token_valid(&a, 1, 999, t));
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(paths), cmocka_unit_test(lists),
                                           cmocka_unit_test(bundles), cmocka_unit_test(tokens)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
