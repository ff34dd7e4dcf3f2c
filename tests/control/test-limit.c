/* The control plane's rules for limits, volume types and the figures of what was done. */
#include "rig.h"

static void limits_are(uint64_t iops, uint64_t bandwidth, uint64_t iops_burst, uint64_t seconds)
{
        WITH_LOCK(&fake.lock);
        assert_int_equal(fake.limits.iops, iops);
        assert_int_equal(fake.limits.bandwidth, bandwidth);
        assert_int_equal(fake.limits.iops_burst, iops_burst);
        assert_int_equal(fake.limits.burst_seconds, seconds);
}

static void set_limits_error(int code)
{
        WITH_LOCK(&fake.lock);
        fake.limits_error = code;
}

static int apply(const struct caller *who, uint64_t no, const char *spec)
{
        struct err *e = NULL;

        return say(control_apply(fake.c, who, no, spec, strlen(spec), NULL, &e), &e);
}

static void test_limits(void **state)
{
        const struct caller member = {.uid = 4711, .gid = (gid_t)stored(fake.owner, "gid")};
        uint64_t v = volume("v"), draft = make(&kind_volume, "draft");
        unsigned calls;

        assert_int_equal(fake.limits_calls, 0); /* without limits there is nothing to say */
        assert_int_equal(set(v, &kind_volume, "iops", "500"), 0);
        settle(v);
        limits_are(500, 0, 0, 0);
        assert_int_equal(set(v, &kind_volume, "bandwidth", "10M"), 0);
        assert_int_equal(set(v, &kind_volume, "bandwidth", "1"), -EINVAL);
        assert_int_equal(set(v, &kind_volume, "iops", "0"), -EINVAL);
        settle(v);
        limits_are(500, 10 << 20, 0, 0);
        /* a document is one call, and a word that changes nothing is none */
        calls = fake.limits_calls;
        assert_int_equal(apply(&root, v,
                               "{\"iops\": 700, \"bandwidth\": \"max\", \"iops_burst\": 900, "
                               "\"burst_seconds\": 5}"),
                         0);
        settle(v);
        limits_are(700, 0, 900, 5);
        assert_int_equal(set(v, &kind_volume, "description", "x"), 0);
        settle(v);
        assert_int_equal(fake.limits_calls, calls + 1);
        /* members may copy a spec that says the same */
        assert_int_equal(apply(&member, v, "{\"iops\": 700, \"description\": \"mine\"}"), 0);
        assert_int_equal(apply(&member, v, "{\"iops\": 701}"), -EPERM);
        assert_words("admins only");
        assert_int_equal(apply(&member, v, "{\"iops\": \"max\"}"), -EPERM);
        control_stop(fake.c);
        start_control();
        v = volume("x"), draft = make(&kind_volume, "another");
        /* a failure has words, and the next write tries again */
        set_limits_error(-ENOSPC);
        assert_int_equal(set(v, &kind_volume, "iops", "800"), 0);
        settle(v);
        control_rdlock(fake.c);
        assert_non_null(strstr(model_by_no(fake.c, v)->error, "told to fail"));
        control_unlock(fake.c);
        set_limits_error(0);
        assert_int_equal(set(v, &kind_volume, "iops", "800"), 0);
        settle(v);
        limits_are(800, 0, 0, 0);
        /* blockd away: it waits, and the last word counts */
        set_limits_error(-ECONNREFUSED);
        assert_int_equal(set(v, &kind_volume, "iops", "900"), 0);
        assert_int_equal(set(v, &kind_volume, "iops", "max"), 0);
        set_limits_error(0);
        settle(v);
        limits_are(0, 0, 0, 0);
        assert_int_equal(stored(v, "limits_set"), 0);
        /* a draft is limited once it is a volume */
        assert_int_equal(set(draft, &kind_volume, "iops", "77"), 0);
        assert_int_equal(set(draft, &kind_volume, "size", "1M"), 0);
        settle(draft);
        limits_are(77, 0, 0, 0);
        control_stop(fake.c);
        start_control();
        assert_int_equal(stored(draft, "iops"), 77);
        assert_int_equal(stored(v, "iops"), VALUE_MAX);
}

static void *set_900(void *arg)
{
        assert_int_equal(set(*(uint64_t *)arg, &kind_volume, "iops", "900"), 0);
        return NULL;
}

/* A limit written while the end of the last one's job is on its way to the store. */
static void test_limit_at_the_end(void **state)
{
        uint64_t v = volume("v");
        pthread_t t;

        fake.hold_after_limits = true;
        assert_int_equal(set(v, &kind_volume, "iops", "500"), 0);
        await_held(1);
        assert_int_equal(pthread_create(&t, NULL, set_900, &v), 0);
        await_held(2);
        release_commits();
        pthread_join(t, NULL);
        settle(v);
        limits_are(900, 0, 0, 0);
        assert_true(stored(v, "limits_set") != 0);
}

static void wait_limit(uint64_t iops, uint64_t bandwidth)
{
        for (bool there = false; !there; sched_yield()) {
                WITH_LOCK(&fake.lock);
                there = fake.limits.iops == iops && fake.limits.bandwidth == bandwidth;
        }
}

static void test_types(void **state)
{
        const struct caller member = {.uid = 4711, .gid = (gid_t)stored(fake.owner, "gid")};
        const struct kind *k = &kind_volume_type;
        uint64_t fast = make_type("fast"), v = make(&kind_volume, "v"), w = volume("w");
        struct err *e = NULL;

        assert_int_equal(set(fast, k, "iops", "500"), 0);
        assert_int_equal(set(fast, k, "iops_burst", "900"), 0);
        assert_int_equal(set(v, &kind_volume, "type", "absent"), -ENOENT);
        assert_int_equal(
                say(control_set(fake.c, &member, v, kind_attr(&kind_volume, "type"), "fast", 4, &e),
                    &e),
                0);
        assert_int_equal(set(v, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        settle(v);
        limits_are(500, 0, 900, 0);
        /* live, also once its own bandwidth is limited */
        assert_int_equal(set(fast, k, "iops", "600"), 0);
        wait_limit(600, 0);
        settle(v);
        assert_int_equal(set(v, &kind_volume, "bandwidth", "1M"), 0);
        settle(v);
        limits_are(600, 1 << 20, 900, 0);
        /* its own come first */
        assert_int_equal(set(v, &kind_volume, "iops", "77"), 0);
        settle(v);
        limits_are(77, 1 << 20, 0, 0);
        assert_int_equal(set(fast, k, "iops", "700"), 0);
        assert_int_equal(set(v, &kind_volume, "iops", "max"), 0);
        wait_limit(700, 1 << 20);
        settle(v);
        /* one that is there changes its type for admins only; one in use stays */
        assert_int_equal(
                say(control_set(fake.c, &member, w, kind_attr(&kind_volume, "type"), "fast", 4, &e),
                    &e),
                -EPERM);
        assert_words("admins only");
        assert_int_equal(
                say(control_set(fake.c, &member, fast, kind_attr(k, "iops"), "1", 1, &e), &e),
                -EPERM);
        assert_int_equal(drop(fast), -EBUSY);
        assert_words("tenants/default/volumes/v");
        assert_int_equal(say(control_rename(fake.c, &root, fast, "slow", &e), &e), -EBUSY);
        assert_int_equal(set(fast, k, "encrypted", "1"), -EBUSY);
        assert_int_equal(set(v, &kind_volume, "type", ""), 0);
        settle(v);
        limits_are(0, 1 << 20, 0, 0);
        /* what changed just before an end holds after the next start */
        assert_int_equal(set(w, &kind_volume, "type", "fast"), 0);
        settle(w);
        set_limits_error(-EIO);
        assert_int_equal(set(fast, k, "iops", "800"), 0);
        control_stop(fake.c);
        set_limits_error(0);
        start_control();
        wait_limit(800, 0);
        assert_int_equal(set(w, &kind_volume, "type", ""), 0);
        settle(w);
        assert_int_equal(drop(fast), 0);
}

static uint64_t look_at(uint64_t no, const char *file)
{
        const struct file_def *f = &kind_volume.files[kind_file(&kind_volume, file)];
        struct buf b = {};
        uint64_t v;

        control_rdlock(fake.c);
        f->render_at(fake.c, model_by_no(fake.c, no), f->at, &b);
        control_unlock(fake.c);
        v = strtoull(buf_str(&b), NULL, 10);
        buf_done(&b);
        return v;
}

/* Nobody asks blockd before somebody looks; who looks is answered with what is known. */
static void test_figures(void **state)
{
        uint64_t v = volume("v"), w = volume("w");

        control_rdlock(fake.c);
        id_text(fake.stats_id, model_by_no(fake.c, v)->id);
        control_unlock(fake.c);
        pthread_mutex_lock(&fake.lock); /* blockd does not answer for now */
        assert_int_equal(fake.stats_calls, 0);
        assert_int_equal(look_at(v, "read_ops"), 0);
        assert_int_equal(look_at(v, "as_of"), 1970);
        pthread_mutex_unlock(&fake.lock);
        while (look_at(v, "as_of") == 1970)
                sched_yield();
        assert_true(look_at(v, "read_ops") > 0);
        assert_int_equal(look_at(w, "read_ops"), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_limits),
                RIG_TEST(test_limit_at_the_end),
                RIG_TEST(test_types),
                RIG_TEST(test_figures),
        };

        return rig_run(tests);
}
