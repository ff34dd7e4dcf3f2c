/* The control plane's rules for volumes: their life, snapshots, growth, several guests on one. */

#include "rig.h"

static void test_volume_life(void **state)
{
        uint64_t v = make(&kind_volume, "v");

        assert_string_equal(state_of(v), "draft");
        assert_int_equal(set(v, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(used("volume_size "), 1 << 20);
        assert_int_equal(set(v, &kind_volume, "size", "2M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(used("volume_size "), 2 << 20);
        assert_int_equal(set(v, &kind_volume, "size", "1M"), -EINVAL);
        assert_words("does not shrink");
        assert_int_equal(verb(v, "shrink"), -EINVAL);
        assert_int_equal(verb(v, "shrink 2M"), -EINVAL);
        assert_int_equal(verb(v, "shrink 1000"), -EINVAL);
        fake.volume_error = -EIO;
        assert_int_equal(verb(v, "shrink 1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        fake.volume_error = 0;
        assert_int_equal(used("volume_size "), 2 << 20);
        assert_int_equal(verb(v, "shrink 1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(used("volume_size "), 1 << 20);
        assert_int_equal(drop(v), 0);
        assert_int_equal(make(&kind_volume, "v") != 0, 1); /* the name is free at once */
        wait_for(v, "gone");
        assert_int_equal(used("volume_size "), 0);
}

/* Who takes a snapshot and then cuts the volume off wants what was cut off to be in it. */
static void test_snapshot_first(void **state)
{
        uint64_t v = make(&kind_volume, "v"), s = 0;

        assert_int_equal(set(v, &kind_volume, "size", "2M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        set_volume_error(-ECONNREFUSED);
        assert_int_equal(control_create(fake.c, &root, v, &kind_snapshot, "s", &s, NULL), 0);
        for (bool asked = false; !asked; sched_yield()) {
                WITH_LOCK(&fake.lock);
                asked = fake.snapshot_asked;
        }
        set_volume_error(0); /* it is asked again in a second */
        assert_int_equal(verb(v, "shrink 1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_false(fake.early);
        assert_string_equal(state_of(s), "available");
}

static void test_failed_create(void **state)
{
        uint64_t v = make(&kind_volume, "v");

        fake.volume_error = -ENOSPC;
        assert_int_equal(set(v, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(v, "available"), -EIO);
        assert_string_equal(state_of(v), "error");
        fake.volume_error = 0;
        assert_int_equal(drop(v), 0);
        wait_for(v, "gone");
}

static void test_multi_attach(void **state)
{
        uint64_t type = make_type("shared"), v = volume("v"), i[2];
        const char *const names[] = {"one", "two"};

        for (int n = 0; n < 2; n++) {
                i[n] = make(&kind_instance, names[n]);
                assert_int_equal(set(i[n], &kind_instance, "flavor", "small"), 0);
        }
        assert_int_equal(link_to(i[0], &kind_instance, "volumes", "vda", "volumes/v"), 0);
        assert_int_equal(set(v, &kind_volume, "type", "shared"), 0);
        assert_int_equal(link_to(i[1], &kind_instance, "volumes", "vda", "volumes/v"), -EBUSY);
        assert_words("instance 'one'");
        assert_int_equal(set(type, &kind_volume_type, "multi_attach", "1"), 0);
        assert_int_equal(link_to(i[1], &kind_instance, "volumes", "vda", "volumes/v"), 0);
        assert_int_equal(link_to(i[1], &kind_instance, "volumes", "vdb", "volumes/v"), -EEXIST);
        assert_int_equal(set(type, &kind_volume_type, "multi_attach", "0"), -EBUSY);
        assert_int_equal(set(v, &kind_volume, "type", ""), -EBUSY);
        assert_int_equal(set(v, &kind_volume, "readonly", "1"), -EBUSY);
        assert_int_equal(verb(i[0], "start"), 0);
        assert_int_equal(wait_for(i[0], "active"), 0);
        assert_int_equal(verb(i[1], "start"), 0);
        assert_int_equal(wait_for(i[1], "active"), 0);
        assert_string_equal(state_of(v), "in-use");
        /* one lets go and comes back, then both do */
        assert_int_equal(control_unlink(fake.c, &root, i[0], 0, "vda", NULL), 0);
        settle(i[0]);
        assert_string_equal(state_of(v), "in-use");
        assert_int_equal(set(v, &kind_volume, "type", ""), 0);
        assert_int_equal(link_to(i[0], &kind_instance, "volumes", "vdb", "volumes/v"), -EBUSY);
        assert_int_equal(set(v, &kind_volume, "type", "shared"), 0);
        assert_int_equal(link_to(i[0], &kind_instance, "volumes", "vdb", "volumes/v"), 0);
        settle(i[0]);
        assert_string_equal(state_of(v), "in-use");
        assert_int_equal(control_unlink(fake.c, &root, i[0], 0, "vdb", NULL), 0);
        assert_int_equal(control_unlink(fake.c, &root, i[1], 0, "vda", NULL), 0);
        settle(i[0]);
        settle(i[1]);
        assert_string_equal(state_of(v), "available");
        assert_int_equal(set(type, &kind_volume_type, "multi_attach", "0"), 0);
}

/* The first that can boot does, whatever the devices' names. */
static void test_boot_order(void **state)
{
        uint64_t i = make(&kind_instance, "web"), a = volume("a"), b = volume("b");

        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/a"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vdb", "volumes/b"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_string_equal(fake.boots, "vda");
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(set(b, &kind_volume, "bootable", "1"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_string_equal(fake.boots, "vdb");
        assert_int_equal(stored(a, "bootable"), 0);
}

static struct data *open_to_write(uint64_t no)
{
        struct data *d = NULL;

        assert_int_equal(control_open_data(fake.c, &root, no, kind_file(&kind_volume, "data"),
                                           O_RDWR, &d, NULL),
                         0);
        return d;
}

/* A blank volume becomes a clone while its one writer has it open. */
static void test_adopt(void **state)
{
        uint64_t v = volume("v"), from = volume("from");
        struct data *d, *other;

        assert_int_equal(control_adopt(fake.c, v, from, NULL), -ENOTSUP); /* nobody writes */
        d = open_to_write(v);
        other = open_to_write(v);
        assert_int_equal(control_adopt(fake.c, v, from, NULL), -ENOTSUP);
        control_close_data(fake.c, other, NULL);
        set_volume_error(-EIO);
        assert_int_equal(control_adopt(fake.c, v, from, NULL), 0);
        settle(v);
        assert_string_equal(state_of(v), "available");
        assert_false(control_adopted(fake.c, v, from));
        set_volume_error(0);
        assert_int_equal(set(from, &kind_volume, "bootable", "1"), 0);
        assert_int_equal(control_adopt(fake.c, v, from, NULL), 0);
        settle(v);
        assert_string_equal(state_of(v), "available");
        assert_true(control_adopted(fake.c, v, from));
        assert_int_equal(stored(v, "bootable"), 1);
        assert_int_equal(control_adopt(fake.c, v, from, NULL), -ENOTSUP); /* it has a source */
        control_close_data(fake.c, d, NULL);
}

static uint64_t snapshot_of(uint64_t v, const char *name)
{
        struct object *s;
        uint64_t no;

        control_rdlock(fake.c);
        s = model_by_name(fake.c, model_by_no(fake.c, v), &kind_snapshot, name);
        no = s ? s->no : 0;
        control_unlock(fake.c);
        assert_int_not_equal(no, 0);
        return no;
}

static void test_snapshot_all(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = volume("root"), w = volume("data"), s;

        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vdb", "volumes/data"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);

        /* Frozen, and thawed although that takes two attempts. */
        fake.thaw_failures = 1;
        assert_int_equal(verb(i, "snapshot a"), 0);
        assert_int_equal(wait_for(snapshot_of(v, "a"), "available"), 0);
        assert_int_equal(wait_for(snapshot_of(w, "a"), "available"), 0);
        assert_int_equal(stored(snapshot_of(v, "a"), "frozen"), 1);
        assert_int_equal(stored(snapshot_of(w, "a"), "frozen"), 1);
        settle(i);
        assert_false(fake.frozen || fake.paused || fake.taken_running);
        assert_int_equal(fake.thaws, 2);
        assert_int_equal(stored(i, "thaw"), 0);

        /* No agent: taken all the same, and nothing to thaw. */
        fake.freeze_error = -ENOTCONN;
        assert_int_equal(verb(i, "snapshot b"), 0);
        assert_int_equal(wait_for(snapshot_of(v, "b"), "available"), 0);
        assert_int_equal(stored(snapshot_of(v, "b"), "frozen"), 0);
        settle(i);
        assert_int_equal(fake.thaws, 2);

        /* One that did not answer in time may freeze yet. */
        fake.freeze_error = -ETIMEDOUT;
        assert_int_equal(verb(i, "snapshot c"), 0);
        assert_int_equal(wait_for(snapshot_of(v, "c"), "available"), 0);
        assert_int_equal(stored(snapshot_of(v, "c"), "frozen"), 0);
        settle(i);
        assert_int_equal(fake.thaws, 3);

        /* Thawed also when the snapshot fails. */
        fake.freeze_error = 0;
        fake.volume_error = -ENOSPC;
        assert_int_equal(verb(i, "snapshot d"), 0);
        s = snapshot_of(v, "d");
        assert_int_equal(wait_for(s, "error"), 0);
        settle(i);
        assert_false(fake.frozen || fake.paused);
        assert_int_equal(fake.thaws, 4);
        fake.volume_error = 0;

        /* blockd goes away once it is frozen: thawed meanwhile, and frozen anew. */
        fake.pings = 1;
        assert_int_equal(verb(i, "snapshot away"), 0);
        assert_int_equal(wait_for(snapshot_of(v, "away"), "available"), 0);
        assert_int_equal(stored(snapshot_of(v, "away"), "frozen"), 1);
        settle(i);
        assert_int_equal(fake.freezes, 6);
        assert_int_equal(fake.thaws, 6);
        assert_false(fake.frozen || fake.paused || fake.taken_running);
        fake.pings = 0;

        /* A guest that is off has nothing to freeze. */
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(verb(i, "snapshot e"), 0);
        assert_int_equal(wait_for(snapshot_of(v, "e"), "available"), 0);
        assert_int_equal(fake.freezes, 6);
        assert_false(fake.taken_running);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_volume_life),  RIG_TEST(test_snapshot_first),
                RIG_TEST(test_snapshot_all), RIG_TEST(test_failed_create),
                RIG_TEST(test_multi_attach), RIG_TEST(test_boot_order),
                RIG_TEST(test_adopt),
        };

        return rig_run(tests);
}
