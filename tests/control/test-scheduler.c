/* The scheduler's one function, by table: who is chosen, and what is said of the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "control/scheduler.h"

#define G (1ULL << 30)

/* A host that is as good as empty; rows change what they are about. */
#define HOST(...)                                                                                  \
        {                                                                                          \
                .name = "?", .zone = "", .features = "", .state = "up", .up = true, .vcpus = 8,    \
                .memory = 16 * G, .vcpus_percent = 100, .memory_percent = 100, __VA_ARGS__         \
        }
#define WANT(...)                                                                                  \
        {                                                                                          \
                .vcpus = 2, .memory = 2 * G, .zone = "", .features = "", __VA_ARGS__               \
        }

#pragma GCC diagnostic ignored "-Woverride-init" /* a row says what differs */
#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#endif

static const struct sched_bind on_b[] = {{"b", "data"}}, on_both[] = {{"a", "x"}, {"b", "y"}};

static const struct row {
        const char *what;
        struct sched_want want;
        struct sched_host v[3];
        int chosen;      /* index, or -errno */
        const char *why; /* is in what is said */
} rows[] = {
        {"equal hosts: the first name, whatever the order",
         WANT(),
         {HOST(.name = "b"), HOST(.name = "a"), HOST(.name = "c")},
         1,
         "a: chosen, score"},
        {"spread: the emptier one",
         WANT(),
         {HOST(.name = "a", .memory_used = 8 * G), HOST(.name = "b", .memory_used = 4 * G)},
         1,
         "a: score 1125: memory 375, vcpus 750"},
        {"processors count as memory does",
         WANT(),
         {HOST(.name = "a", .vcpus_used = 6), HOST(.name = "b", .memory_used = 4 * G)},
         1,
         "b: chosen, score 1375: memory 625, vcpus 750"},
        {"pack: the fuller one",
         WANT(.pack = true),
         {HOST(.name = "a"), HOST(.name = "b", .memory_used = 8 * G)},
         1,
         "b: chosen, score 875: memory 625, vcpus 250"},
        {"equal scores: fewer guests",
         WANT(),
         {HOST(.name = "a", .guests = 1), HOST(.name = "b")},
         1,
         "b: chosen"},
        {"not up",
         WANT(),
         {HOST(.name = "a", .up = false, .state = "draining"), HOST(.name = "b", .vcpus_used = 6)},
         1,
         "a: no: it is draining"},
        {"no memory left",
         WANT(.memory = 9 * G),
         {HOST(.name = "a", .memory_used = 8 * G), HOST(.name = "b", .vcpus_used = 6)},
         1,
         "a: no: memory: 9G wanted, 8G left"},
        {"exactly full is legal",
         WANT(.memory = 8 * G),
         {HOST(.name = "a", .memory_used = 8 * G)},
         0,
         "a: chosen"},
        {"no processors left",
         WANT(.vcpus = 3),
         {HOST(.name = "a", .vcpus_used = 6)},
         -ENOSPC,
         "a: no: vcpus: 3 wanted, 2 left"},
        {"over-commit gives more than there is",
         WANT(.vcpus = 20, .memory = 20 * G),
         {HOST(.name = "a"), HOST(.name = "b", .vcpus_percent = 400, .memory_percent = 150)},
         1,
         "a: no: vcpus: 20 wanted, 8 left"},
        {"less than all, too",
         WANT(.memory = 9 * G),
         {HOST(.name = "a", .memory_percent = 50)},
         -ENOSPC,
         "9G wanted, 8G left"},
        {"used above the limit is no room, not much of it",
         WANT(),
         {HOST(.name = "a", .vcpus_used = 100)},
         -ENOSPC,
         "2 wanted, 0 left"},
        {"zone",
         WANT(.zone = "north"),
         {HOST(.name = "a", .zone = "south"), HOST(.name = "b", .zone = "north", .vcpus_used = 6)},
         1,
         "a: no: it is in zone 'south', not 'north'"},
        {"features: whole words, all of them",
         WANT(.features = "kvm gpu"),
         {HOST(.name = "a", .features = "kvm2 gpu"), HOST(.name = "b", .features = "gpu  kvm")},
         1,
         "a: no: it has no 'kvm'"},
        {"a local volume binds",
         WANT(.binds = on_b, .nbinds = 1),
         {HOST(.name = "a"), HOST(.name = "b", .vcpus_used = 6)},
         1,
         "a: no: volume 'data' is local to b"},
        {"two that bind to two",
         WANT(.binds = on_both, .nbinds = 2),
         {HOST(.name = "a"), HOST(.name = "b")},
         -ENOSPC,
         "a: no: volume 'y' is local to b"},
        {"affinity: beside the others",
         WANT(.policy = SCHED_AFFINITY, .members = 1),
         {HOST(.name = "a"), HOST(.name = "b", .members = 1, .vcpus_used = 6)},
         1,
         "a: no: its group is elsewhere"},
        {"affinity: the first goes anywhere",
         WANT(.policy = SCHED_AFFINITY),
         {HOST(.name = "a")},
         0,
         "a: chosen"},
        {"affinity is hard",
         WANT(.policy = SCHED_AFFINITY, .members = 1),
         {HOST(.name = "a"), HOST(.name = "b", .members = 1, .vcpus_used = 8)},
         -ENOSPC,
         "its group is elsewhere"},
        {"anti-affinity",
         WANT(.policy = SCHED_ANTI_AFFINITY, .members = 1),
         {HOST(.name = "a", .members = 1), HOST(.name = "b", .vcpus_used = 6)},
         1,
         "a: no: another of its group is there"},
        {"anti-affinity is hard",
         WANT(.policy = SCHED_ANTI_AFFINITY, .members = 1),
         {HOST(.name = "a", .members = 1)},
         -ENOSPC,
         "another of its group is there"},
        {"soft affinity comes before weights",
         WANT(.policy = SCHED_SOFT_AFFINITY, .members = 1),
         {HOST(.name = "a"), HOST(.name = "b", .members = 1, .vcpus_used = 6)},
         1,
         "group 10000"},
        {"soft affinity yields to room",
         WANT(.policy = SCHED_SOFT_AFFINITY, .members = 1),
         {HOST(.name = "a"), HOST(.name = "b", .members = 1, .vcpus_used = 8)},
         0,
         "b: no: vcpus"},
        {"soft anti-affinity: where fewest are",
         WANT(.policy = SCHED_SOFT_ANTI_AFFINITY, .members = 3),
         {HOST(.name = "a", .members = 2), HOST(.name = "b", .members = 1, .vcpus_used = 6)},
         1,
         "a: score -18"},
};

static size_t count(const struct sched_host *v)
{
        size_t n = 0;

        while (n < 3 && v[n].name)
                n++;
        return n;
}

static void test_rows(void **state)
{
        for (const struct row *r = rows; r < rows + sizeof(rows) / sizeof(*rows); r++) {
                _cleanup_err_ struct err *e = NULL;
                _cleanup_buf_ struct buf why = {};
                size_t n = count(r->v), lines = 0;
                int got = sched_place(&r->want, r->v, n, &why, &e);

                for (const char *p = buf_str(&why); *p; p++)
                        lines += *p == '\n';
                if (got != r->chosen || !strstr(buf_str(&why), r->why) || lines != n)
                        fail_msg("%s: %d\n%s%s", r->what, got, buf_str(&why), e ? err_msg(e) : "");
                assert_true(got >= 0 || (e && strstr(err_msg(e), "no host may have it: a: no: ")));
                assert_true(got < 0 || strncmp(buf_str(&why), r->v[got].name, 1) == 0);
        }
}

static void test_none(void **state)
{
        _cleanup_err_ struct err *e = NULL;
        _cleanup_buf_ struct buf why = {};
        struct sched_want w = WANT();

        assert_int_equal(sched_place(&w, NULL, 0, &why, &e), -ENOSPC);
        assert_string_equal(err_msg(e), "no host may have it");
}

static void test_policy(void **state)
{
        assert_int_equal(sched_policy("soft-anti-affinity"), SCHED_SOFT_ANTI_AFFINITY);
        assert_int_equal(sched_policy("affinity"), SCHED_AFFINITY);
        assert_int_equal(sched_policy(NULL), SCHED_NO_GROUP);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_none),
                cmocka_unit_test(test_policy),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
