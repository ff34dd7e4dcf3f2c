/* The control plane's rules for what holds for every kind: values, names, links, documents, who
 * may. */
#include "rig.h"

static void test_bad_values(void **state)
{
        static const char *const bad[] = {"0",        "-1", "1Z",           "10 G B",
                                          "\xff\xfe", "",   "99999999999T", "1.5G"};
        uint64_t v = make(&kind_volume, "v");
        char digits[5000];

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_int_equal(set(v, &kind_volume, "size", bad[i]), -EINVAL);
                assert_non_null(last->msg);
        }
        memset(digits, '9', sizeof(digits) - 1);
        digits[sizeof(digits) - 1] = '\0';
        assert_int_equal(set(v, &kind_volume, "size", digits), -EINVAL);
        assert_string_equal(state_of(v), "draft");
        assert_int_equal(used("volume_size "), 0);
}

static void test_names(void **state)
{
        struct err *e = NULL;
        uint64_t no;

        make(&kind_volume, "a");
        assert_int_equal(
                say(control_create(fake.c, &root, fake.owner, &kind_volume, "a", &no, &e), &e),
                -EEXIST);
        assert_int_equal(
                say(control_create(fake.c, &root, fake.owner, &kind_volume, "-x", &no, &e), &e),
                -EINVAL);
        assert_int_equal(
                say(control_create(fake.c, &stranger, fake.owner, &kind_volume, "x", &no, &e), &e),
                -EPERM);
        assert_int_equal(
                say(control_create(fake.c, &stranger, OBJECT_CLOUD, &kind_flavor, "x", &no, &e),
                    &e),
                -EPERM);
}

static void test_link_targets(void **state)
{
        static const struct {
                const char *target;
                int r;
        } cases[] = {
                {"volumes/none", -ENOENT},
                {"", -ENOENT},
                {"images", -ENOENT},
                {"instances/web", -EINVAL},
                {"../../../../acme/volumes/x", -EPERM},
                {"/etc/passwd", -ENOENT},
                {"../../../../../../../..", -ENOENT},
                {"/cloud/tenants/default/volumes/v", 0},
        };
        uint64_t i = make(&kind_instance, "web");

        volume("v");
        for (size_t k = 0; k < ARRAY_SIZE(cases); k++)
                assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", cases[k].target),
                                 cases[k].r);
}

static void test_new_and_spec(void **state)
{
        static const char words[] = "name=v1 size=2M token=abc", json[] = "{\"size\": 4194304}",
                          same[] = "{\"size\": \"4M\", \"metadata\": {}}",
                          bad[] = "{\"size\": \"4M\", \"nonsense\": 1}";
        _cleanup_free_ char *one = NULL, *two = NULL, *said = NULL, *again = NULL;
        struct buf spec = {};
        struct err *e = NULL;
        struct object *o;
        uint64_t no;

        assert_int_equal(control_new(fake.c, &root, fake.owner, &kind_volume, words, strlen(words),
                                     &one, NULL),
                         0);
        assert_int_equal(control_new(fake.c, &root, fake.owner, &kind_volume, words, strlen(words),
                                     &two, NULL),
                         0);
        assert_string_equal(one, two); /* a retry with its token */
        control_rdlock(fake.c);
        o = model_by_name(fake.c, model_by_no(fake.c, fake.owner), &kind_volume, "v1");
        assert_non_null(o);
        no = o->no;
        control_unlock(fake.c);
        assert_int_equal(wait_for(no, "available"), 0);
        assert_int_equal(say(control_apply(fake.c, &root, no, bad, strlen(bad), NULL, &e), &e),
                         -EINVAL);
        assert_words("nonsense");
        control_rdlock(fake.c);
        assert_int_equal(object_num(model_by_no(fake.c, no), "size"), 2 << 20); /* all or nothing */
        control_unlock(fake.c);
        assert_int_equal(control_apply(fake.c, &root, no, json, strlen(json), &said, NULL), 0);
        assert_string_equal(said, "size: 2097152 -> 4194304\n");
        assert_int_equal(wait_for(no, "available"), 0);
        control_rdlock(fake.c);
        render_spec(fake.c, model_by_no(fake.c, no), &spec);
        control_unlock(fake.c);
        assert_non_null(strstr(spec.data, "\"size\": 4194304"));
        if (say(control_apply(fake.c, &root, no, spec.data, spec.len, NULL, &e), &e) < 0)
                fail_msg("what was read cannot be written: %s", err_msg(last));
        buf_done(&spec);
        /* another spelling of what is there is no change, and makes no new revision */
        assert_int_equal(control_apply(fake.c, &root, no, same, strlen(same), &again, NULL), 0);
        assert_string_equal(again, "");
        assert_int_equal(say(control_apply(fake.c, &root, no, "{\"rev\": 1}", 10, NULL, &e), &e),
                         -ESTALE);
}

static void *create_many(void *arg)
{
        char name[32];
        uint64_t no;

        for (int i = 0; i < 50; i++) {
                snprintf(name, sizeof(name), "t%ld-%d", (long)arg, i);
                assert_int_equal(
                        control_create(fake.c, &root, fake.owner, &kind_volume, name, &no, NULL),
                        0);
                assert_int_equal(control_set(fake.c, &root, no, 0, "1M", 2, NULL), 0);
                if (i % 3 == 0)
                        assert_int_equal(control_delete(fake.c, &root, no, NULL), 0);
        }
        return NULL;
}

static void test_many_threads(void **state)
{
        pthread_t t[8];

        for (long i = 0; i < 8; i++)
                pthread_create(&t[i], NULL, create_many, (void *)i);
        for (int i = 0; i < 8; i++)
                pthread_join(t[i], NULL);
        for (int i = 0; i < 1000 && used("volumes ") != 8 * 33; i++)
                usleep(10000); /* deletions end one by one */
        assert_int_equal(used("volumes "), 8 * 33);
}

static void test_tenant_goes(void **state)
{
        uint64_t no, v;
        struct err *e = NULL;

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "acme", &no, NULL), 0);
        assert_int_equal(control_create(fake.c, &root, no, &kind_volume, "v", &v, NULL), 0);
        assert_int_equal(set(v, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(say(control_delete(fake.c, &root, no, &e), &e), -EBUSY);
        assert_words("volumes/v");
        assert_int_equal(drop(v), 0);
        wait_for(v, "gone");
        assert_int_equal(drop(no), 0);
        wait_for(no, "gone");
        assert_string_equal(state_of(no), "gone");
}

/* A stranger who reaches the call all the same is refused everything. */
static void test_stranger(void **state)
{
        static const char meta[] = "{\"metadata\": {\"k\": \"v\"}}";
        uint64_t v = volume("v"), i = make(&kind_instance, "web");
        char canonical[NAME_SIZE];
        struct data *d;

        assert_int_equal(control_apply(fake.c, &stranger, v, meta, strlen(meta), NULL, NULL),
                         -EPERM);
        assert_int_equal(control_set_meta(fake.c, &stranger, v, "k", "v", 1, NULL), -EPERM);
        assert_int_equal(control_open_data(fake.c, &stranger, v, 0, O_RDONLY, &d, NULL), -EPERM);
        assert_int_equal(control_set(fake.c, &stranger, v, 0, "2M", 2, NULL), -EPERM);
        assert_int_equal(control_verb(fake.c, &stranger, i, "start", 5, NULL), -EPERM);
        assert_int_equal(control_delete(fake.c, &stranger, v, NULL), -EPERM);
        assert_int_equal(control_rename(fake.c, &stranger, v, "w", NULL), -EPERM);
        assert_int_equal(control_link(fake.c, &stranger, i, 0, "vda", "volumes/v", canonical, NULL),
                         -EPERM);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_bad_values),   RIG_TEST(test_names),
                RIG_TEST(test_link_targets), RIG_TEST(test_new_and_spec),
                RIG_TEST(test_many_threads), RIG_TEST(test_stranger),
                RIG_TEST(test_tenant_goes),
        };

        return rig_run(tests);
}
