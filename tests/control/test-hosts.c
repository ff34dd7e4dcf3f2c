/* Many hosts, one cloud: what one changes the others see; one host runs a guest, never two; a host
 * that dies is fenced and taken over; one that comes back stands down first. */
#include "hosts-rig.h"

#define A (&rig.h[0])
#define B (&rig.h[1])
#define C (&rig.h[2])

static void test_seen(void **state)
{
        make(A, &kind_volume, "v");
        AWAIT_STATE(B, &kind_volume, "v", "draft");
        assert_int_equal(set(B, &kind_volume, "v", "description", "from b"), 0);
        AWAIT(has(A, &kind_volume, "v", "description", "from b"));
        assert_int_equal(control_rename(A->c, &root, number(A, &kind_volume, "v"), "w", NULL), 0);
        AWAIT_STATE(B, &kind_volume, "w", "draft");
        assert_true(is(B, &kind_volume, "v", "gone"));
        assert_int_equal(control_delete(B->c, &root, number(B, &kind_volume, "w"), NULL), 0);
        AWAIT_STATE(A, &kind_volume, "w", "gone");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_seen, rig_setup, rig_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
