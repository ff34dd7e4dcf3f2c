/* Limits with a clock that the test moves, waiting without asserting a time, and counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "blockd/limit.h"
#include "blockd/stats.h"
#include "common/macro.h"

#define SECOND INT64_C(1000000000)
enum { MB = 1 << 20, DAYS = 1000000 /* I/Os at one a second: eleven */ };

/* Runs requests of that size, one after the other, for so long; returns how many passed. */
static unsigned run(struct limit *l, int64_t *now, int64_t until, uint64_t bytes)
{
        unsigned n = 0;

        while (*now < until) {
                int64_t wait = limit_step(l, *now, 1, bytes);

                if (wait == 0)
                        n++;
                *now += wait;
        }
        return n;
}

static struct limit *limited(struct limit *l, struct limit_config c)
{
        limit_init(l);
        assert_int_equal(limit_check(&c), 0);
        limit_set(l, &c);
        return l;
}

static void test_rate_is_kept(void **state)
{
        static const uint64_t rates[] = {1, 7, 100, 12345, 1000000};

        for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
                struct limit l;
                int64_t now = 5 * SECOND;
                unsigned n;

                limited(&l, (struct limit_config){.iops = rates[i]});
                n = run(&l, &now, 15 * SECOND, 1 << 30);
                /* a tenth of a second was saved up, and the last may be on credit */
                assert_in_range(n, 10 * rates[i], 10 * rates[i] + rates[i] / 10 + 2);
                limit_done(&l);
        }
}

static void test_bytes(void **state)
{
        struct limit l;
        int64_t now = 0;
        unsigned n;

        limited(&l, (struct limit_config){.bandwidth = 10 * MB});
        n = run(&l, &now, 10 * SECOND, 64 << 10);
        assert_in_range(n, 1600, 1600 + 16 + 2);
        /* larger than the bucket: it passes, and what comes after it pays */
        now += SECOND;
        assert_int_equal(limit_step(&l, now, 1, 32 * MB), 0);
        assert_in_range(limit_step(&l, now, 1, 1), 3 * SECOND, 33 * SECOND / 10);
        now += 33 * SECOND / 10;
        assert_int_equal(limit_step(&l, now, 1, 1), 0);
        /* as large as the protocol can say */
        now += SECOND;
        assert_int_equal(limit_step(&l, now, 1, UINT64_MAX), 0);
        assert_true(limit_step(&l, now, 1, 1) > 0);
        assert_true(limit_step(&l, now, 1, 1) < INT64_MAX / 2);
        limit_done(&l);
}

static void test_both_count(void **state)
{
        struct limit l;
        int64_t now = 0;

        limited(&l, (struct limit_config){.iops = 100, .bandwidth = 1 * MB});
        assert_in_range(run(&l, &now, 10 * SECOND, 512), 1000, 1012); /* held by iops */
        now += 10 * SECOND;
        assert_in_range(run(&l, &now, now + 10 * SECOND, 64 << 10), 160, 164); /* by bytes */
        limit_done(&l);
}

static void test_burst(void **state)
{
        struct limit l;
        int64_t now = 100 * SECOND;
        unsigned n;

        limited(&l, (struct limit_config){.iops = 100, .iops_burst = 1000, .burst_seconds = 5});
        n = run(&l, &now, 105 * SECOND, 0);
        assert_in_range(n, 5000, 5102); /* five seconds at the burst rate */
        n = run(&l, &now, 115 * SECOND, 0);
        assert_in_range(n, 990, 1030);   /* then at the rate */
        now += 45 * SECOND + SECOND / 5; /* (1000 - 100) * 5 / 100 seconds of rest: full again */
        n = run(&l, &now, now + 5 * SECOND, 0);
        assert_in_range(n, 5000, 5102);
        limit_done(&l);
        /* a burst below the rate is none; seconds 0 are 1 */
        limited(&l, (struct limit_config){.iops = 100, .iops_burst = 50});
        now = SECOND;
        assert_in_range(run(&l, &now, 2 * SECOND, 0), 100, 112);
        limit_done(&l);
        limited(&l, (struct limit_config){.iops = 100, .iops_burst = 1000});
        now = SECOND;
        assert_in_range(run(&l, &now, 2 * SECOND, 0), 1000, 1112);
        limit_done(&l);
}

static void test_extremes(void **state)
{
        const struct limit_config most = {LIMIT_IOPS_MAX, LIMIT_BANDWIDTH_MAX, LIMIT_IOPS_MAX,
                                          LIMIT_BANDWIDTH_MAX, LIMIT_SECONDS_MAX};
        struct limit_config c = {.iops = 1,
                                 .bandwidth = 1,
                                 .iops_burst = LIMIT_IOPS_MAX,
                                 .bandwidth_burst = LIMIT_BANDWIDTH_MAX,
                                 .burst_seconds = LIMIT_SECONDS_MAX};
        struct limit l;

        limited(&l, most);
        assert_int_equal(limit_step(&l, 0, 1, 4096), 0);
        limit_set(&l, &c);
        for (int i = 0; i < 100; i++)
                assert_true(limit_step(&l, i * SECOND, 1000000, UINT64_MAX) >= 0);
        limit_done(&l);
        c.burst_seconds++;
        assert_int_equal(limit_check(&c), -EINVAL);
        c = (struct limit_config){.iops = LIMIT_IOPS_MAX + UINT64_C(1)};
        assert_int_equal(limit_check(&c), -EINVAL);
        c = (struct limit_config){.bandwidth = LIMIT_BANDWIDTH_MAX + 1};
        assert_int_equal(limit_check(&c), -EINVAL);
}

static void test_change(void **state)
{
        struct limit l;
        struct limit_config c = {.iops = 1};

        limited(&l, c);
        assert_int_equal(limit_step(&l, 0, 1000, 0), 0);
        assert_true(limit_step(&l, 0, 1, 0) > 900 * SECOND);
        c.iops = 10;
        limit_set(&l, &c); /* no debt is taken along */
        assert_int_equal(limit_step(&l, 0, 1, 0), 0);
        limit_set(&l, &(struct limit_config){});
        assert_true(limit_try(&l, UINT32_MAX, UINT64_MAX));
        assert_int_equal(limit_step(&l, 0, UINT32_MAX, UINT64_MAX), 0);
        limit_done(&l);
}

/* --- waiting --------------------------------------------------------------------------------- */

struct waiter {
        struct limit *l;
        pthread_t thread;
        atomic_bool gone, asked;
        atomic_uint *granted;
        unsigned rank;
        int r;
};

static bool is_gone(void *arg)
{
        struct waiter *w = arg;

        atomic_store(&w->asked, true);
        return atomic_load(&w->gone);
}

static void *wait_main(void *arg)
{
        struct waiter *w = arg;

        w->r = limit_take(w->l, DAYS, 0, is_gone, w);
        w->rank = atomic_fetch_add(w->granted, 1);
        return NULL;
}

static void start(struct waiter *w, struct limit *l, atomic_uint *granted)
{
        *w = (struct waiter){.l = l, .granted = granted};
        assert_int_equal(pthread_create(&w->thread, NULL, wait_main, w), 0);
        while (!atomic_load(&w->asked)) /* it is in the line then */
                sched_yield();
}

static void test_live_change_and_kick(void **state)
{
        struct limit_config slow = {.iops = 1};
        atomic_uint granted = 0;
        struct waiter w[6];
        struct limit l;

        limited(&l, slow);
        assert_true(limit_try(&l, DAYS, 0));
        assert_false(limit_try(&l, 1, 0));
        for (size_t i = 0; i < ARRAY_SIZE(w); i++)
                start(&w[i], &l, &granted);
        /* one in the middle, and the first, go away */
        for (size_t i = 0; i < 4; i += 3) {
                atomic_store(&w[i].gone, true);
                limit_kick(&l);
                pthread_join(w[i].thread, NULL);
                assert_int_equal(w[i].r, -ESHUTDOWN);
        }
        assert_int_equal(atomic_load(&granted), 2);
        limit_set(&l, &(struct limit_config){}); /* the others pass at once */
        for (size_t i = 0; i < ARRAY_SIZE(w); i++)
                if (i % 3) {
                        pthread_join(w[i].thread, NULL);
                        assert_int_equal(w[i].r, 0);
                }
        assert_null(l.waiters);
        limit_done(&l);
}

/* Each new limit begins with full buckets and so lets exactly one of them through. */
static void test_order(void **state)
{
        const struct limit_config c = {.iops = 1};
        atomic_uint granted = 0;
        struct waiter w[8];
        struct limit l;

        limited(&l, c);
        assert_true(limit_try(&l, DAYS, 0));
        for (size_t i = 0; i < ARRAY_SIZE(w); i++)
                start(&w[i], &l, &granted);
        for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
                limit_set(&l, &c);
                pthread_join(w[i].thread, NULL);
                assert_int_equal(w[i].r, 0);
                assert_int_equal(w[i].rank, i);
                assert_false(limit_try(&l, 1, 0));
        }
        limit_done(&l);
}

/* --- counters -------------------------------------------------------------------------------- */

static void test_counters(void **state)
{
        struct stats s = {};
        struct stats_sum sum = {};
        uint64_t seen = 0;

        stats_start(&s, STATS_READ, 4096);
        stats_start(&s, STATS_READ, 4096);
        stats_start(&s, STATS_FLUSH, 0);
        stats_failed(&s, STATS_READ, 4096);
        stats_add(&sum, &s.sum);
        assert_int_equal(sum.in_flight, 3);
        assert_int_equal(sum.op[STATS_READ].ops, 0);
        stats_end(&s);
        stats_end(&s);
        stats_start(&s, STATS_WRITE, 512);
        stats_end(&s);
        sum = (struct stats_sum){};
        stats_add(&sum, &s.sum);
        stats_add(&sum, &s.sum); /* as if two connections had done it */
        assert_int_equal(sum.in_flight, 0);
        assert_int_equal(sum.op[STATS_READ].ops, 4);
        assert_int_equal(sum.op[STATS_READ].bytes, 8192);
        assert_int_equal(sum.op[STATS_READ].errors, 2);
        assert_int_equal(sum.op[STATS_FLUSH].ops, 2);
        assert_int_equal(sum.op[STATS_WRITE].bytes, 1024);
        for (unsigned i = 0; i < STATS_BUCKETS; i++)
                seen += sum.op[STATS_READ].latency[i];
        assert_int_equal(seen, 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rate_is_kept),
                cmocka_unit_test(test_bytes),
                cmocka_unit_test(test_both_count),
                cmocka_unit_test(test_burst),
                cmocka_unit_test(test_extremes),
                cmocka_unit_test(test_change),
                cmocka_unit_test(test_live_change_and_kick),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_counters),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
