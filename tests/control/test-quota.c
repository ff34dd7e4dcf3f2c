/* The control plane's rules for quotas: nothing is counted twice or lost, whatever fails. */
#include "rig.h"

static void test_quota(void **state)
{
        int q = kind_file(&kind_tenant, "quota");
        struct err *e = NULL;
        uint64_t no;

        assert_int_equal(
                control_write_line(fake.c, &root, fake.owner, q, "volumes limit=1", 15, NULL), 0);
        volume("one");
        assert_int_equal(
                say(control_create(fake.c, &root, fake.owner, &kind_volume, "two", &no, &e), &e),
                -EDQUOT);
        assert_words("limit=1 used=1 wanted=1");
        assert_int_equal(used("volumes "), 1);
        assert_int_equal(
                say(control_write_line(fake.c, &root, fake.owner, q, "volume limit=1", 14, &e), &e),
                -EINVAL);
        assert_int_equal(
                control_write_line(fake.c, &root, fake.owner, q, "volumes limit=max", 17, NULL), 0);
        make(&kind_volume, "two");
}

/* The size comes with the image, after the quota was asked: the job ends all the same. */
static void test_quota_at_the_end(void **state)
{
        int q = kind_file(&kind_tenant, "quota");
        uint64_t no, v = make(&kind_volume, "clone");
        struct data *d;

        assert_int_equal(control_write_line(fake.c, &root, fake.owner, q, "volume_size limit=4096",
                                            22, NULL),
                         0);
        assert_int_equal(control_upload(fake.c, &root, fake.owner, "x.qcow2", &no, &d, NULL), 0);
        assert_int_equal(link_to(v, &kind_volume, "source", "source", "images/x"), 0);
        data_pwrite(fake.c, d, "x", 1, 0, NULL);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(wait_for(v, "available"), -EIO);
        assert_string_equal(state_of(v), "error");
        assert_int_equal(drop(v), 0);
        wait_for(v, "gone");
}

static void test_upload_quota(void **state)
{
        int q = kind_file(&kind_tenant, "quota");
        struct err *e = NULL;
        struct data *d;
        uint64_t no;

        assert_int_equal(
                control_write_line(fake.c, &root, fake.owner, q, "image_size limit=8", 18, NULL),
                0);
        assert_int_equal(control_upload(fake.c, &root, fake.owner, "x.raw", &no, &d, NULL), 0);
        assert_int_equal(data_pwrite(fake.c, d, "12345678", 8, 0, NULL), 0);
        assert_int_equal(say(data_pwrite(fake.c, d, "9", 1, 8, &e), &e), -EDQUOT);
        assert_words("image_size limit=8");
        control_close_data(fake.c, d, NULL);
        assert_string_equal(state_of(no), "error");
}

static int snap(uint64_t v, const char *name, uint64_t *no)
{
        struct err *e = NULL;

        return say(control_create(fake.c, &root, v, &kind_snapshot, name, no, &e), &e);
}

static void test_quota_of_copies(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = volume("root"), w = volume("data"), s, b, no;
        struct err *e = NULL;

        assert_int_equal(quota(fake.owner, "snapshots limit=2"), 0);
        assert_int_equal(snap(v, "one", &s), 0);
        assert_int_equal(wait_for(s, "available"), 0);
        assert_int_equal(used("snapshots "), 1);

        /* An instance's are all or none. */
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vdb", "volumes/data"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(verb(i, "snapshot both"), -EDQUOT);
        assert_words("snapshots limit=2 used=1 wanted=2");
        assert_int_equal(used("snapshots "), 1);
        assert_int_equal(snap(w, "two", &no), 0);
        assert_int_equal(snap(w, "three", &no), -EDQUOT);
        assert_words("snapshots limit=2 used=2 wanted=1");
        assert_int_equal(drop(s), 0);
        wait_for(s, "gone");
        assert_int_equal(snap(w, "three", &no), 0);

        /* Backups: how many, and the bytes of the volumes in them, told before a copy begins. */
        assert_int_equal(quota(fake.owner, "backups limit=1"), 0);
        b = make(&kind_backup, "b");
        assert_int_equal(
                say(control_create(fake.c, &root, fake.owner, &kind_backup, "c", &no, &e), &e),
                -EDQUOT);
        assert_words("backups limit=1 used=1 wanted=1");
        assert_int_equal(used("backup_size "), 0);
        assert_int_equal(quota(fake.owner, "backup_size limit=1000"), 0);
        assert_int_equal(link_to(b, &kind_backup, "source", "source", "volumes/data"), -EDQUOT);
        assert_words("backup_size limit=");
        assert_string_equal(state_of(b), "draft");
        assert_int_equal(quota(fake.owner, "backup_size limit=max"), 0);
        assert_int_equal(link_to(b, &kind_backup, "source", "source", "volumes/data"), 0);
        assert_int_equal(wait_for(b, "error"), 0); /* this cloud has no place for backups */
        assert_int_equal(used("backup_size "), 0);
        assert_int_equal(used("backups "), 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_quota),
                RIG_TEST(test_quota_of_copies),
                RIG_TEST(test_quota_at_the_end),
                RIG_TEST(test_upload_quota),
        };

        return rig_run(tests);
}
