/* The control plane's rules for images and their upload. */
#include "rig.h"

static void test_image(void **state)
{
        uint64_t no, v = make(&kind_volume, "clone");
        struct err *e = NULL;
        struct data *d;

        assert_int_equal(control_upload(fake.c, &root, fake.owner, "debian.qcow2", &no, &d, &e), 0);
        assert_string_equal(state_of(no), "saving");
        /* a clone asked for while the bytes arrive waits for them */
        assert_int_equal(link_to(v, &kind_volume, "source", "source", "../../images/debian"), 0);
        assert_int_equal(data_pwrite(fake.c, d, "x", 1, 0, NULL), 0);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(wait_for(no, "active"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(fake.clones, 1);
        assert_int_equal(control_open_data(fake.c, &root, no, 0, O_WRONLY, &d, &e), -EBUSY);
        err_free(e);
        assert_int_equal(drop(no), 0); /* the clone lives on */
        wait_for(no, "gone");
        assert_string_equal(state_of(v), "available");
}

static void test_cut_upload(void **state)
{
        struct data *d;
        uint64_t no;

        assert_int_equal(control_upload(fake.c, &root, fake.owner, "cut.raw", &no, &d, NULL), 0);
        data_pwrite(fake.c, d, "x", 1, 0, NULL);
        control_close_data(fake.c, d, "its writer was killed by a signal");
        assert_string_equal(state_of(no), "error");
        control_rdlock(fake.c);
        assert_non_null(strstr(model_by_no(fake.c, no)->error, "killed by a signal"));
        control_unlock(fake.c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_image),
                RIG_TEST(test_cut_upload),
        };

        return rig_run(tests);
}
