/* The probes against the real QEMU. */
#include "backend/compute/compute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/fileio.h"

enum { PROBE_MS = 60000, KVM_MS = 5000 };

static void tcg_boots(void **state)
{
        _cleanup_err_ struct err *e = NULL;
        int64_t t = clock_mono();

        if (compute_probe_tcg(*state, PROBE_MS, &e) < 0)
                fail_msg("%s", err_msg(e));
        printf("# TCG: %d ms\n", (int)((clock_mono() - t) / 1000));
}

/* Either answer is right; that there is one, within the time, is the point. */
static void kvm_answers(void **state)
{
        _cleanup_err_ struct err *e = NULL;
        int64_t t = clock_mono();
        bool kvm;

        if (compute_probe_kvm(*state, KVM_MS, &kvm, &e) < 0)
                fail_msg("%s", err_msg(e));
        printf("# KVM: %s, %d ms\n", kvm ? "yes" : "no", (int)((clock_mono() - t) / 1000));
        if (access("/dev/kvm", R_OK | W_OK) < 0)
                assert_false(kvm);
}

static void says_why(void **state)
{
        _cleanup_err_ struct err *e = NULL;
        char *path = strdup(getenv("PATH"));

        assert_int_equal(compute_probe_tcg("/nonexistent", PROBE_MS, &e), -ENOENT);
        assert_non_null(strstr(err_msg(e), "/nonexistent"));
        e = err_free(e);
        setenv("PATH", *state, 1); /* no QEMU there */
        assert_int_equal(compute_probe_tcg(*state, PROBE_MS, &e), -ENOENT);
        setenv("PATH", path, 1);
        free(path);
        assert_non_null(strstr(err_msg(e), "qemu-system-x86_64"));
        e = err_free(e);
        assert_int_equal(compute_probe_tcg(*state, 1, &e), -ETIMEDOUT);
}

static void leaves_nothing(void **state)
{
        assert_int_equal(rmdir(*state), 0);
        assert_int_equal(mkdir(*state, 0700), 0);
}

static int set_up(void **state)
{
        *state = strdup("/tmp/sp-XXXXXX");
        return mkdtemp(*state) ? 0 : -1;
}

static int tear_down(void **state)
{
        remove_tree(*state, NULL);
        free(*state);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(tcg_boots), cmocka_unit_test(kvm_answers),
                cmocka_unit_test(says_why), cmocka_unit_test(leaves_nothing)};

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
