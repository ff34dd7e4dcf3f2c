/* Retention: which backups the rules keep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/jobs/jobs.h"

#define HOUR 3600000000LL
#define DAY (24 * HOUR)

/* The numbers of those kept of n taken every step, the newest (number 0) at 3 March 2026, 12:00. */
static void kept(const char *rules, size_t n, int64_t step, const char *want)
{
        static int64_t taken[1000];
        static bool keep[1000];
        char got[4096] = "";

        for (size_t i = 0; i < n; i++)
                taken[i] = 1772539200000000LL - (int64_t)i * step;
        keep_mark(rules, taken, n, keep);
        for (size_t i = 0; i < n; i++)
                if (keep[i])
                        sprintf(got + strlen(got), "%s%zu", *got ? " " : "", i);
        assert_string_equal(got, want);
}

static void test_mark(void **state)
{
        kept("", 4, HOUR, "0 1 2 3");
        kept("last:2", 4, HOUR, "0 1");
        kept("last:9", 4, HOUR, "0 1 2 3");
        kept("hourly:2", 8, HOUR / 4, "0 1"); /* 12:00, and 11:45 as the newest of its hour */
        kept("daily:3", 100, HOUR, "0 13 37");
        kept("daily:3", 5, 10 * DAY, "0 1 2"); /* days that have any */
        kept("weekly:3", 60, DAY, "0 2 9");    /* a Tuesday; Sunday, Sunday */
        kept("monthly:3", 100, DAY, "0 3 31"); /* 28 February, 31 January */
        kept("yearly:2", 100, DAY, "0 62");
        kept("daily:2,weekly:2", 60, DAY, "0 1 2");
        kept("last:1,monthly:2", 60, DAY, "0 3");
        kept("daily:7", 0, DAY, "");
}

static void test_check(void **state)
{
        static const char *const good[] = {"daily:7", "daily:7,weekly:4", "last:10000",
                                           "hourly:1,daily:1,weekly:1,monthly:1,yearly:1,last:1"};
        static const char *const bad[] = {
                "",           "daily",    "daily:",           "daily:0",        "daily:-1",
                "daily:7,",   ",daily:7", "daily:7;weekly:4", "daily: 7",       "daily:7x",
                "last:10001", "days:7",   "Daily:7",          "daily:7,x",      "daily:+7",
                "7:daily",    ":7",       "dail:7",           "daily:7 ,last:1"};

        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                assert_int_equal(keep_check(good[i], NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                _cleanup_err_ struct err *e = NULL;

                assert_int_equal(keep_check(bad[i], &e), -EINVAL);
                assert_non_null(e->hint);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_mark),
                                           cmocka_unit_test(test_check)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
