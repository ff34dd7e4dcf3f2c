/* Migrations between hosts that share a store: on which host the instance is in the end, whatever
 * fails in the middle. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "hosts-rig.h"

#define A (&rig.h[0])
#define B (&rig.h[1])
#define C (&rig.h[2])

static const struct caller member = {2000, 1000, 0};

static int setup(void **state, unsigned lease_ms)
{
        int r = rig_start(lease_ms);

        for (struct rig_host *h = rig.h; r == 0 && h < rig.h + 2; h++)
                AWAIT(control_host_set(h->c, "system", "tcg", NULL) == 0);
        AWAIT(has(A, &kind_host, "b", "compute", "system") &&
              has(B, &kind_host, "a", "compute", "system"));
        return r;
}

static int setup_long(void **state)
{
        return setup(state, 60000);
}

static int setup_short(void **state)
{
        return setup(state, 1000);
}

static void set_ferry(enum ferry f)
{
        WITH_LOCK(&rig.lock);
        rig.ferry = f;
        pthread_cond_broadcast(&rig.pulse);
}

static bool under_way(void)
{
        WITH_LOCK(&rig.lock);
        return rig.under_way;
}

static unsigned exports(struct rig_host *h)
{
        WITH_LOCK(&rig.lock);
        return h->exports.n;
}

/* "web" runs on a. */
static void on_a(const char *name)
{
        AWAIT(verb(A, &kind_host, "b", "drain") == 0);
        AWAIT_STATE(A, &kind_host, "b", "draining");
        make_instance(A, name, "small");
        assert_int_equal(verb(A, &kind_instance, name, "start"), 0);
        AWAIT_STATE(A, &kind_instance, name, "active");
        AWAIT(verb(A, &kind_host, "b", "undrain") == 0);
        AWAIT_STATE(A, &kind_host, "b", "up");
        AWAIT_STATE(B, &kind_instance, name, "active");
        assert_true(has(A, &kind_instance, name, "host", "a"));
}

/* The newest job of that op. */
static void job_name(struct rig_host *h, const char *op, char out[NAME_SIZE])
{
        out[0] = '\0';
        control_rdlock(h->c);
        for (struct object *o = h->c->by_no; o; o = o->hh_no.next)
                if (o->kind == &kind_job && streq(object_str(o, "op"), op))
                        snprintf(out, NAME_SIZE, "%s", o->name);
        control_unlock(h->c);
}

static void check_on(struct rig_host *h, struct rig_host *other, const char *state)
{
        /* Each may see for a moment what was. */
        AWAIT(is(h, &kind_instance, "web", state) && is(other, &kind_instance, "web", state) &&
              has(h, &kind_instance, "web", "host", h->name) &&
              has(other, &kind_instance, "web", "host", h->name));
        assert_int_equal(running(h), !streq(state, "stopped"));
        assert_int_equal(running(other), 0);
        assert_int_equal(exports(h), !streq(state, "stopped"));
        assert_int_equal(exports(other), 0);
        assert_false(rig.twice);
}

static void test_live(void **state)
{
        on_a("web");
        assert_int_equal(verb(B, &kind_instance, "web", "migrate a"), -EINVAL);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate nowhere"), -EINVAL);
        assert_int_equal(
                control_verb(B->c, &member, number(B, &kind_instance, "web"), "migrate b", 9, NULL),
                -EPERM);
        assert_int_equal(
                control_verb(B->c, &member, number(B, &kind_instance, "web"), "migrate", 7, NULL),
                0);
        check_on(B, A, "active");
        assert_int_equal(A->given_up, 1);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate a"), 0);
        check_on(A, B, "active");
        assert_int_equal(verb(A, &kind_instance, "web", "stop now"), 0);
        AWAIT_STATE(B, &kind_instance, "web", "stopped");
        assert_int_equal(verb(B, &kind_instance, "web", "migrate"), 0);
        check_on(B, A, "stopped");
        assert_int_equal(verb(A, &kind_instance, "web", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "web", "active");
}

static bool said_of(struct rig_host *h, const char *name, const char *words)
{
        struct object *o = look(h, &kind_instance, name);
        bool yes = o->error && strstr(o->error, words);

        control_unlock(h->c);
        return yes;
}

static bool said(struct rig_host *h, const char *words)
{
        return said_of(h, "web", words);
}

/* It did not go: it is what it was, and says why. */
static void test_refused(void **state)
{
        on_a("web");
        set_ferry(FERRY_SINKS);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate"), 0);
        AWAIT(said(A, "told to fail"));
        check_on(A, B, "active");
        assert_int_equal(A->given_up, 0);
        AWAIT(control_host_set(A->c, "embed", "tcg", NULL) == 0);
        assert_int_equal(verb(A, &kind_instance, "web", "migrate"), 0);
        AWAIT(said(A, "without a libvirtd"));
        check_on(A, B, "active");
}

/* It went, and nobody could say so; or it was halted for the way, and libvirt died. */
static void test_answer_lost(void **state)
{
        on_a("web");
        set_ferry(FERRY_SILENT);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate"), 0);
        check_on(B, A, "active");
        set_ferry(FERRY_STUCK);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate"), 0);
        AWAIT(said(B, "told to be stuck"));
        check_on(B, A, "active");
        assert_int_equal(B->given_up, 1);
        assert_int_equal(B->taken_back, 2); /* before it went, and after */
}

static void test_cancel(void **state)
{
        char name[NAME_SIZE];

        on_a("web");
        set_ferry(FERRY_WAITS);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate"), 0);
        AWAIT(under_way());
        job_name(B, "instance.migrate", name);
        AWAIT(verb(B, &kind_job, name, "cancel") == 0);
        AWAIT_STATE(B, &kind_job, name, "cancelled");
        check_on(A, B, "active");
}

/* The daemon that has the job ends, and begins anew. */
static void test_restart(void **state)
{
        on_a("web");
        set_ferry(FERRY_WAITS);
        assert_int_equal(verb(B, &kind_instance, "web", "migrate"), 0);
        AWAIT(under_way());
        stop_host(A);
        assert_int_equal(running(A), 1);
        set_ferry(FERRY_GOES);
        start_host(A);
        check_on(B, A, "active");
}

/* What it leaves dies on the way: it is started where it was to go, or not at all. */
static void test_source_dies(void **state)
{
        struct object *o;

        on_a("web");
        on_a("off");
        assert_int_equal(set(A, &kind_instance, "web", "restart", "elsewhere"), 0);
        set_ferry(FERRY_WAITS);
        assert_int_equal(verb(A, &kind_instance, "web", "migrate"), 0);
        assert_int_equal(verb(A, &kind_instance, "off", "migrate"), 0);
        AWAIT(under_way());
        cut(A);
        AWAIT_STATE(B, &kind_host, "a", "down");
        AWAIT_STATE(B, &kind_instance, "web", "active");
        AWAIT_STATE(B, &kind_instance, "off", "error");
        assert_true(has(B, &kind_instance, "web", "host", "b"));
        o = look(B, &kind_instance, "off");
        assert_non_null(strstr(o->error, "its host 'a' died"));
        control_unlock(B->c);
        assert_int_equal(running(B), 1);
        set_ferry(FERRY_GOES);
        heal(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
        AWAIT(running(A) == 0);
}

/* It had come when its old host died. */
static void test_source_dies_late(void **state)
{
        on_a("web");
        set_ferry(FERRY_ISLAND);
        assert_int_equal(verb(A, &kind_instance, "web", "migrate"), 0);
        AWAIT(under_way());
        cut(A);
        AWAIT_STATE(B, &kind_host, "a", "down");
        AWAIT_STATE(B, &kind_instance, "web", "active");
        assert_true(has(B, &kind_instance, "web", "host", "b"));
        assert_int_equal(running(B), 1);
        assert_int_equal(rig.starts, 1);
        set_ferry(FERRY_GOES);
        heal(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
        assert_int_equal(running(B), 1);
}

/* Where it is to go dies on the way: it goes on. */
static void test_target_dies(void **state)
{
        on_a("web");
        set_ferry(FERRY_WAITS);
        assert_int_equal(verb(A, &kind_instance, "web", "migrate"), 0);
        AWAIT(under_way());
        cut(B);
        AWAIT_STATE(A, &kind_host, "b", "down");
        set_ferry(FERRY_SINKS);
        AWAIT_STATE(A, &kind_instance, "web", "active");
        assert_true(has(A, &kind_instance, "web", "host", "a"));
        assert_int_equal(running(A), 1);
        set_ferry(FERRY_GOES);
        heal(B);
        AWAIT_STATE(A, &kind_host, "b", "up");
        assert_int_equal(verb(A, &kind_instance, "web", "migrate"), 0);
        check_on(B, A, "active");
}

/* "cold" is off on a, with a volume that a alone has. */
static void off_with_local(void)
{
        AWAIT(verb(A, &kind_host, "b", "drain") == 0);
        AWAIT_STATE(A, &kind_host, "b", "draining");
        make_instance_in(A, "cold", "small", "local");
        assert_int_equal(verb(A, &kind_instance, "cold", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "cold", "active");
        assert_int_equal(verb(A, &kind_instance, "cold", "stop now"), 0);
        AWAIT_STATE(A, &kind_instance, "cold", "stopped");
        AWAIT(verb(A, &kind_host, "b", "undrain") == 0);
        AWAIT_STATE(A, &kind_host, "b", "up");
        AWAIT_STATE(B, &kind_instance, "cold", "stopped");
        assert_true(has(B, &kind_volume, "cold-v", "host", "a"));
}

static void check_cold(struct rig_host *h)
{
        for (unsigned i = 0; i < 2; i++) {
                AWAIT(is(&rig.h[i], &kind_instance, "cold", "stopped") &&
                      has(&rig.h[i], &kind_instance, "cold", "host", h->name) &&
                      has(&rig.h[i], &kind_volume, "cold-v", "host", h->name));
                AWAIT(running(&rig.h[i]) == 0 && exports(&rig.h[i]) == 0);
        }
        assert_false(rig.twice);
}

/* Its bytes go with a guest that never runs, and is not there before or afterwards. */
static void test_cold_local(void **state)
{
        char name[NAME_SIZE];

        off_with_local();
        assert_int_equal(verb(B, &kind_instance, "cold", "migrate"), 0);
        check_cold(B);
        assert_int_equal(rig.starts, 2);
        assert_int_equal(rig.held, 1);

        set_ferry(FERRY_WAITS);
        assert_int_equal(verb(B, &kind_instance, "cold", "migrate"), 0);
        AWAIT(under_way());
        job_name(B, "instance.migrate", name);
        AWAIT(verb(B, &kind_job, name, "cancel") == 0);
        AWAIT_STATE(B, &kind_job, name, "cancelled");
        check_cold(B);

        set_ferry(FERRY_SINKS);
        assert_int_equal(verb(B, &kind_instance, "cold", "migrate"), 0);
        AWAIT(said_of(B, "cold", "told to fail"));
        check_cold(B);
        set_ferry(FERRY_SILENT);
        assert_int_equal(verb(B, &kind_instance, "cold", "migrate"), 0);
        check_cold(A);
        assert_int_equal(verb(A, &kind_instance, "cold", "start"), 0);
        AWAIT_STATE(B, &kind_instance, "cold", "active");
        assert_int_equal(running(A), 1);
}

/* What dies with its host's bytes is off, and there. */
static void test_cold_source_dies(void **state)
{
        off_with_local();
        set_ferry(FERRY_WAITS);
        assert_int_equal(verb(A, &kind_instance, "cold", "migrate"), 0);
        AWAIT(under_way());
        cut(A);
        AWAIT_STATE(B, &kind_host, "a", "down");
        AWAIT_STATE(B, &kind_instance, "cold", "stopped");
        assert_true(has(B, &kind_instance, "cold", "host", "a") &&
                    has(B, &kind_volume, "cold-v", "host", "a"));
        assert_int_equal(running(B), 0);
        set_ferry(FERRY_SINKS);
        heal(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
        check_cold(A);
}

static void test_drain(void **state)
{
        on_a("web");
        on_a("two");
        on_a("three");
        assert_int_equal(verb(A, &kind_instance, "three", "pause"), 0);
        AWAIT_STATE(B, &kind_instance, "three", "paused");
        AWAIT(verb(B, &kind_host, "a", "drain") == 0);
        AWAIT(has(B, &kind_instance, "web", "host", "b") &&
              has(B, &kind_instance, "two", "host", "b") &&
              has(B, &kind_instance, "three", "host", "b"));
        AWAIT_STATE(B, &kind_instance, "three", "paused");
        AWAIT(running(A) == 0 && running(B) == 3);
        AWAIT_STATE(B, &kind_instance, "web", "active");
        assert_false(rig.twice);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_live, setup_long, rig_teardown),
                cmocka_unit_test_setup_teardown(test_refused, setup_long, rig_teardown),
                cmocka_unit_test_setup_teardown(test_answer_lost, setup_long, rig_teardown),
                cmocka_unit_test_setup_teardown(test_cancel, setup_long, rig_teardown),
                cmocka_unit_test_setup_teardown(test_restart, setup_long, rig_teardown),
                cmocka_unit_test_setup_teardown(test_source_dies, setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_source_dies_late, setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_target_dies, setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_cold_local, setup_long, rig_teardown),
                cmocka_unit_test_setup_teardown(test_cold_source_dies, setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_drain, setup_long, rig_teardown),
        };

        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
