/* What fs/ computes without a mount: framing of writes, names of temporaries, relative paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fs/ephemeral.h"
#include "fs/frame.h"

struct taken {
        struct buf b; /* each piece in brackets */
        int fail;     /* what take answers */
};

static int take(void *arg, const char *p, size_t n, struct err **e)
{
        struct taken *t = arg;

        if (t->fail)
                return err_set(e, t->fail, "told to");
        buf_printf(&t->b, "[%.*s]", (int)n, p);
        return 0;
}

static int lines(struct frame *f, struct taken *t, const char *s)
{
        return frame_lines(f, s, strlen(s), 100, take, t, NULL);
}

static int json(struct frame *f, struct taken *t, const char *s)
{
        return frame_json(f, s, strlen(s), 100, take, t, NULL);
}

static void test_lines(void **state)
{
        struct frame f = {0};
        struct taken t = {0};

        assert_int_equal(lines(&f, &t, "start"), 0);
        assert_string_equal(buf_str(&t.b), "[start]");
        assert_int_equal(lines(&f, &t, " a \n\n b\nc"), 0);
        assert_string_equal(buf_str(&t.b), "[start][a][b]");
        assert_int_equal(lines(&f, &t, "d"), 0);
        assert_int_equal(lines(&f, &t, "\n"), 0);
        assert_string_equal(buf_str(&t.b), "[start][a][b][cd]");
        assert_int_equal(lines(&f, &t, "x\ny"), 0);
        assert_int_equal(frame_flush(&f, take, &t, NULL), 0);
        assert_string_equal(buf_str(&t.b), "[start][a][b][cd][x][y]");
        t.fail = -EBUSY;
        assert_int_equal(lines(&f, &t, "one\ntwo"), -EBUSY);
        assert_int_equal(f.pending.len, 0); /* the rest is dropped with it */
        buf_done(&t.b);
        frame_done(&f);
}

static void test_line_limit(void **state)
{
        struct frame f = {0};
        struct taken t = {0};
        char many[301] = "";

        memset(many, 'x', 300);
        assert_int_equal(lines(&f, &t, many), -EFBIG);
        for (int i = 9; i < 300; i += 10)
                many[i] = '\n';
        assert_int_equal(lines(&f, &t, many), 0); /* a limit of lines, not of writes */
        assert_int_equal(t.b.len, 30 * 11);
        buf_done(&t.b);
        frame_done(&f);
}

static void test_json(void **state)
{
        struct frame f = {0};
        struct taken t = {0};

        assert_int_equal(json(&f, &t, " {\"a\": {\"b"), 0);
        assert_int_equal(t.b.len, 0);
        assert_int_equal(json(&f, &t, "\\\"}}\": [1]"), 0);
        assert_int_equal(t.b.len, 0);
        assert_int_equal(json(&f, &t, "}}\n{}"), 0);
        assert_string_equal(buf_str(&t.b), "[{\"a\": {\"b\\\"}}\": [1]}}][{}]");
        assert_int_equal(json(&f, &t, "x"), -EINVAL);
        assert_int_equal(json(&f, &t, "{\"a"), 0);
        assert_int_equal(frame_flush(&f, take, &t, NULL), -EINVAL);
        assert_int_equal(f.pending.len, 0);
        buf_done(&t.b);
        frame_done(&f);
}

static void test_either(void **state)
{
        struct frame f = {0};
        struct taken t = {0};

        assert_int_equal(frame_either(&f, "name=v", 6, 100, take, take, &t, NULL), 0);
        assert_int_equal(frame_either(&f, "\n{\"n\":", 6, 100, take, take, &t, NULL), 0);
        assert_int_equal(frame_either(&f, "\n1}", 3, 100, take, take, &t, NULL), 0);
        assert_string_equal(buf_str(&t.b), "[name=v][{\"n\":\n1}]");
        buf_done(&t.b);
        frame_done(&f);
}

static void test_names(void **state)
{
        char *name = rsync_target(".debian.qcow2.a1B2c3");

        assert_string_equal(name, "debian.qcow2");
        free(name);
        assert_null(rsync_target("debian.qcow2"));
        assert_null(rsync_target(".x.toolong1"));
        assert_true(templink_name("CuA1b2C3"));
        assert_false(templink_name("Cu"));
        assert_true(scratch_name("size~"));
        assert_true(scratch_name(".size.swp"));
        assert_true(scratch_name("sedAbC123"));
        assert_true(scratch_name("4913"));
        assert_true(scratch_name("XXaB3dE6"));
        assert_true(scratch_name("tmp1j35till"));
        assert_false(scratch_name("tmpfs"));
        assert_true(locklink_name(".#size"));
        assert_false(locklink_name(".#"));
        assert_false(scratch_name("sise")); /* a misspelt attribute is an error */
        assert_false(scratch_name("sedan"));
}

static void relative(const char *from, const char *to, const char *want)
{
        _cleanup_buf_ struct buf b = {0};

        path_relative(from, to, &b);
        assert_string_equal(buf_str(&b), want);
}

static void test_paths(void **state)
{
        relative("tenants/a/volumes/v", "tenants/a/jobs/7", "../../jobs/7");
        relative("tenants/a/volumes/v", "", "../../../..");
        relative("tenants/a", "tenants/ab", "../ab");
        relative("tenants/ab", "tenants/a", "../a");
        relative("tenants/a", "tenants/a/jobs/7", "jobs/7");
        relative("tenants/a", "tenants/a", ".");
        relative("", "flavors/small", "flavors/small");
}

static void test_ids(void **state)
{
        assert_int_equal(ino_object(OBJECT_CLOUD), FUSE_ROOT_ID);
        assert_int_not_equal(ino_object(2), ino_object(3));
        assert_int_equal(ino_collection(2, &kind_volume, PART_DIR) >> SLOT_BITS, 2);
        assert_int_not_equal(ino_collection(2, &kind_volume, PART_NEW),
                             ino_collection(2, &kind_image, PART_NEW));
        assert_true(ino_user(0, USER_DIR) & INO_USER);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines), cmocka_unit_test(test_line_limit),
                cmocka_unit_test(test_json),  cmocka_unit_test(test_either),
                cmocka_unit_test(test_names), cmocka_unit_test(test_paths),
                cmocka_unit_test(test_ids),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
