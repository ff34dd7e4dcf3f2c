/* The control plane's rules for what goes wrong: a restart, a store that refuses, a block service
 * that is away. */
#include "rig.h"

/* Stops without a word and starts again on the same store. */
static void test_restart(void **state)
{
        uint64_t v = volume("v"), i = make(&kind_instance, "web"), cut;
        struct data *d;

        set(i, &kind_instance, "flavor", "small");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/v"), 0);
        assert_int_equal(control_set_meta(fake.c, &root, v, "k", "text\n", 5, NULL), 0);
        assert_int_equal(control_upload(fake.c, &root, fake.owner, "cut.raw", &cut, &d, NULL), 0);
        fake.volume_error = -ECONNREFUSED; /* a job that cannot end before the stop */
        set(make(&kind_volume, "late"), &kind_volume, "size", "1M");
        control_stop(fake.c);
        fake.volume_error = 0;
        free(d->socket);
        free(d);
        start_control();
        assert_string_equal(state_of(v), "in-use");
        assert_string_equal(state_of(cut), "error");
        assert_int_equal(used("volumes "), 2);
        control_rdlock(fake.c);
        assert_string_equal(object_meta(model_by_no(fake.c, v), "k")->value, "text\n");
        assert_ptr_equal(object_link(model_by_no(fake.c, i), 0, "vda")->target,
                         model_by_no(fake.c, v));
        cut = model_by_name(fake.c, model_by_no(fake.c, fake.owner), &kind_volume, "late")->no;
        control_unlock(fake.c);
        assert_int_equal(wait_for(cut, "available"), 0); /* its job went on */
}

static void set_remove_error(int code)
{
        WITH_LOCK(&fake.lock);
        fake.remove_error = code;
}

static unsigned removes(void)
{
        WITH_LOCK(&fake.lock);
        return fake.removes;
}

/* A deletion goes on until it succeeds, and nobody need ask for it again. */
static void test_delete_again(void **state)
{
        uint64_t v = volume("v");

        set_remove_error(-EIO);
        assert_int_equal(drop(v), 0);
        while (removes() < 3)
                usleep(1000);
        assert_string_equal(state_of(v), "deleting");
        assert_int_equal(drop(v), -ENOENT);
        set_remove_error(0);
        wait_for(v, "gone");
        assert_string_equal(state_of(v), "gone");
        assert_int_equal(used("volumes "), 0);
}

static void set_away(int code)
{
        WITH_LOCK(&fake.lock);
        fake.away_error = code;
}

/* blockd is away while a disk comes out of a guest and while an image is published: both wait. */
static void test_blockd_away(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = volume("v"), no;
        struct data *d;

        set(i, &kind_instance, "flavor", "small");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/v"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(control_upload(fake.c, &root, fake.owner, "x.raw", &no, &d, NULL), 0);
        data_pwrite(fake.c, d, "x", 1, 0, NULL);
        set_away(-ECONNREFUSED);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(control_unlink(fake.c, &root, i, 0, "vda", NULL), 0);
        assert_string_equal(state_of(v), "detaching");
        assert_string_equal(state_of(no), "saving");
        set_away(0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(wait_for(no, "active"), 0);
        control_rdlock(fake.c);
        assert_null(object_link(model_by_no(fake.c, i), 0, "vda"));
        control_unlock(fake.c);
}

/* A refused commit leaves the model as if it had never been asked. */
static void test_store_refuses(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = volume("v"), no;
        struct err *e = NULL;
        struct buf b = {}, after = {};

        set(i, &kind_instance, "flavor", "small");
        control_rdlock(fake.c);
        render_json(fake.c, model_by_no(fake.c, i), &b);
        render_json(fake.c, model_by_no(fake.c, v), &b);
        control_unlock(fake.c);
        refusing.refuse = true;
        assert_int_equal(
                say(control_create(fake.c, &root, fake.owner, &kind_volume, "w", &no, &e), &e),
                -ENOSPC);
        assert_words("told to fail");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/v"), -ENOSPC);
        assert_int_equal(set(v, &kind_volume, "size", "8M"), -ENOSPC);
        assert_int_equal(drop(v), -ENOSPC);
        assert_int_equal(control_rename(fake.c, &root, v, "other", NULL), -ENOSPC);
        assert_int_equal(control_set_meta(fake.c, &root, v, "k", "x", 1, NULL), -ENOSPC);
        refusing.refuse = false;
        control_rdlock(fake.c);
        render_json(fake.c, model_by_no(fake.c, i), &after);
        render_json(fake.c, model_by_no(fake.c, v), &after);
        assert_null(model_by_name(fake.c, model_by_no(fake.c, fake.owner), &kind_volume, "w"));
        assert_int_equal(model_by_no(fake.c, v)->nrefs, 0);
        control_unlock(fake.c);
        assert_string_equal(b.data, after.data);
        assert_int_equal(used("volumes "), 1);
        make(&kind_volume, "w");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/v"), 0);
        buf_done(&b);
        buf_done(&after);
}

/* All the workers that a tenant can have are stuck in the volume service: another's job runs. */
static void test_stuck_tenant(void **state)
{
        char name[16];
        uint64_t other, last_one = 0;

        pthread_mutex_lock(&fake.lock); /* the service answers nobody */
        for (unsigned i = 0; i < 40; i++) {
                snprintf(name, sizeof(name), "v%u", i);
                last_one = make(&kind_volume, name);
                assert_int_equal(set(last_one, &kind_volume, "size", "1M"), 0);
        }
        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other, NULL),
                0);
        assert_int_equal(drop(other), 0);
        assert_int_equal(wait_for(other, "gone"), 0);
        assert_string_equal(state_of(last_one), "creating");
        pthread_mutex_unlock(&fake.lock);
        assert_int_equal(wait_for(last_one, "available"), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_restart),      RIG_TEST(test_store_refuses),
                RIG_TEST(test_delete_again), RIG_TEST(test_blockd_away),
                RIG_TEST(test_stuck_tenant),
        };

        return rig_run(tests);
}
