/* The control plane's rules for instances: their life, what the guest does by itself. */
#include "rig.h"

static void test_instance_life(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = volume("root"), w = volume("data");

        assert_int_equal(verb(i, "start"), -EINVAL);
        assert_words("no flavor");
        assert_int_equal(set(i, &kind_instance, "flavor", "absent"), -ENOENT);
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(verb(i, "start"), -EINVAL);
        assert_words("no disk");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_string_equal(state_of(v), "in-use");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vdb", "volumes/root"), -EEXIST);
        assert_words("already");
        assert_int_equal(drop(v), -EBUSY);
        assert_words("instances/web");
        assert_int_equal(verb(i, "stop"), -EBUSY);
        assert_words("web' is draft");
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(drop(i), -EBUSY);
        /* a disk goes in and comes out while it runs */
        assert_int_equal(link_to(i, &kind_instance, "volumes", "anything", "../../../volumes/data"),
                         0);
        assert_int_equal(wait_for(w, "in-use"), 0);
        assert_int_equal(control_unlink(fake.c, &root, i, 0, "vdb", NULL), 0);
        assert_int_equal(wait_for(w, "available"), 0);
        assert_int_equal(verb(i, "stop"), 0);
        /* deleted while it stops; its volume right after it */
        assert_int_equal(drop(i), 0);
        assert_int_equal(drop(v), 0);
        wait_for(i, "gone");
        wait_for(v, "gone");
        assert_int_equal(used("instances "), 0);
        assert_int_equal(used("memory "), 0);
}

static void test_start_fails(void **state)
{
        uint64_t i = make(&kind_instance, "web");

        volume("root");
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        fake.start_error = -ECONNREFUSED;
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "draft"), 0);
        fake.start_error = 0;
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
}

/* Tells compute what to answer from now on. */
static void set_grow(int code)
{
        WITH_LOCK(&fake.lock);
        fake.grow_error = code;
}

static void test_live_growth(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = volume("root");

        set(i, &kind_instance, "flavor", "small");
        link_to(i, &kind_instance, "volumes", "vda", "volumes/root");
        assert_int_equal(set(v, &kind_volume, "size", "2M"), 0); /* nobody runs: blockd alone */
        assert_int_equal(wait_for(v, "in-use"), 0);
        assert_int_equal(told(), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(set(v, &kind_volume, "size", "3M"), 0);
        assert_int_equal(wait_for(v, "in-use"), 0);
        assert_int_equal(told(), 3 << 20);
        assert_int_equal(set(v, &kind_volume, "size", "2M"), -EINVAL);
        assert_words("does not shrink");

        /* An engine that is away is waited for. */
        set_grow(-ECONNREFUSED);
        assert_int_equal(set(v, &kind_volume, "size", "4M"), 0);
        assert_string_equal(state_of(v), "extending");
        set_grow(0);
        assert_int_equal(wait_for(v, "in-use"), 0);
        assert_int_equal(told(), 4 << 20);

        /* One that cannot leaves the volume grown, and the guest to its next start. */
        set_grow(-EIO);
        assert_int_equal(set(v, &kind_volume, "size", "5M"), 0);
        wait_for(v, "in-use");
        control_rdlock(fake.c);
        assert_int_equal(object_num(model_by_no(fake.c, v), "size"), 5 << 20);
        assert_int_equal(object_num(model_by_no(fake.c, v), "actual"), 5 << 20);
        assert_non_null(strstr(model_by_no(fake.c, v)->error, "at its next start"));
        control_unlock(fake.c);
        assert_int_equal(told(), 4 << 20);
}

static void test_guest_leaves(void **state)
{
        uint64_t i = make(&kind_instance, "web");
        char id[ID_TEXT_SIZE];

        volume("root");
        set(i, &kind_instance, "flavor", "small");
        link_to(i, &kind_instance, "volumes", "vda", "volumes/root");
        verb(i, "start");
        assert_int_equal(wait_for(i, "active"), 0);
        control_rdlock(fake.c);
        id_text(id, model_by_no(fake.c, i)->id);
        control_unlock(fake.c);
        guest_off();
        control_guest_changed(fake.c, id);
        assert_int_equal(wait_for(i, "stopped"), 0);
}

/* Each verb of each kind in each state: legal, or refused with the legal ones as a hint. */
static void test_illegal_verbs(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = make(&kind_volume, "v");

        for (unsigned k = 0; k < kind_instance.nverbs; k++)
                if (kind_instance.verbs[k].states && !(kind_instance.verbs[k].states & STATE(0))) {
                        assert_int_equal(verb(i, kind_instance.verbs[k].name), -EBUSY);
                        assert_non_null(last->hint);
                }
        for (unsigned k = 0; k < kind_volume.nverbs; k++)
                if (!(kind_volume.verbs[k].states & STATE(0)))
                        assert_int_equal(verb(v, kind_volume.verbs[k].name), -EBUSY);
        assert_int_equal(verb(i, "fly"), -EINVAL);
        assert_int_equal(verb(v, ""), -EINVAL);
        assert_int_equal(verb(i, "pause now"), -EBUSY);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_instance_life), RIG_TEST(test_start_fails),
                RIG_TEST(test_guest_leaves),  RIG_TEST(test_live_growth),
                RIG_TEST(test_illegal_verbs),
        };

        return rig_run(tests);
}
