/* The control plane's rules for volumes given to another tenant. */
#include "rig.h"

static char *shown(uint64_t no, const char *attr)
{
        struct buf b = {};

        control_rdlock(fake.c);
        render_attr(fake.c, model_by_no(fake.c, no), kind_attr(&kind_volume, attr), &b);
        control_unlock(fake.c);
        b.data[b.len - 1] = '\0';
        return b.data;
}

/* echo 'name=NAME transfer=KEY' > volumes/new */
static int take(uint64_t tenant, const char *name, const char *key, uint64_t *ret)
{
        char text[200], *line = NULL;
        struct err *e = NULL;
        int r;

        snprintf(text, sizeof(text), "name=%s transfer=%s", name, key);
        r = say(control_new(fake.c, &root, tenant, &kind_volume, text, strlen(text), &line, &e),
                &e);
        free(line);
        control_rdlock(fake.c);
        if (r == 0)
                *ret = model_by_name(fake.c, model_by_no(fake.c, tenant), &kind_volume, name)->no;
        control_unlock(fake.c);
        return r;
}

static void test_transfer(void **state)
{
        uint64_t v = volume("v"), other = 0, w = 0;
        _cleanup_free_ char *key = NULL, *again = NULL, *none = NULL;

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other, NULL),
                0);
        assert_int_equal(wait_for(other, "active"), 0);
        assert_int_equal(set(v, &kind_volume, "description", "mine"), 0);
        none = shown(v, "transfer");
        assert_string_equal(none, "");
        assert_int_equal(verb(v, "withdraw"), -EBUSY);
        assert_int_equal(verb(v, "offer"), 0);
        key = shown(v, "transfer");
        assert_int_equal(strlen(key), 40);
        control_rdlock(fake.c); /* the store never has it */
        assert_int_equal(strlen(object_str(model_by_no(fake.c, v), "transfer_hash")), 64);
        control_unlock(fake.c);
        /* offered is not to be used, and can be taken back */
        make(&kind_instance, "web");
        assert_int_equal(set(v, &kind_volume, "size", "2M"), -EBUSY);
        assert_int_equal(take(other, "w", "nonsense", &w), -ENOENT);
        assert_null(strstr(err_msg(last), "nonsense"));
        assert_int_equal(take(fake.owner, "w", key, &w), -EINVAL);
        assert_words("already");
        assert_int_equal(verb(v, "withdraw"), 0);
        assert_int_equal(take(other, "w", key, &w), -ENOENT);
        /* anew, with another key; quotas of the other side count */
        assert_int_equal(verb(v, "offer"), 0);
        again = shown(v, "transfer");
        assert_string_not_equal(key, again);
        assert_int_equal(quota(other, "volume_size limit=1000000"), 0);
        assert_int_equal(take(other, "w", again, &w), -EDQUOT);
        assert_int_equal(quota(other, "volume_size limit=max"), 0);
        /* its bytes are plain, whatever the draft says */
        assert_int_equal(take(other, "w encrypted=1", again, &w), -EINVAL);
        /* a clone that fails gives it back */
        set_volume_error(-EIO);
        assert_int_equal(take(other, "w", again, &w), 0);
        assert_int_equal(wait_for(w, "error"), 0);
        set_volume_error(0);
        assert_string_equal(state_of(v), "offered");
        assert_int_equal(stored(v, "transfer_to"), 0);
        assert_int_equal(drop(w), 0);
        wait_for(w, "gone");
        /* one takes it; it is in one tenant only */
        assert_int_equal(take(other, "w", again, &w), 0);
        assert_int_equal(wait_for(w, "available"), 0);
        wait_for(v, "gone");
        assert_int_equal(used("volumes "), 0);
        assert_int_equal(stored(w, "size"), 1 << 20);
        free(none);
        none = shown(w, "description");
        assert_string_equal(none, "mine");
        assert_int_equal(take(other, "x", again, &w), -ENOENT);
}

/* The daemon ends in the middle; two take at once; a week goes by. */
static void test_transfer_cut(void **state)
{
        uint64_t v = volume("v"), old = volume("old"), other = 0, w = 0, x = 0;
        _cleanup_free_ char *key = NULL, *late = NULL, *forgotten = NULL;
        struct txn t;

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other, NULL),
                0);
        assert_int_equal(wait_for(other, "active"), 0);
        assert_int_equal(verb(v, "offer"), 0);
        assert_int_equal(verb(old, "offer"), 0);
        key = shown(v, "transfer");
        late = shown(old, "transfer");
        txn_begin(&t, fake.c, NULL);
        txn_set_num(&t, model_by_no(fake.c, old), "transfer_until", clock_now() / 1000000 - 1);
        assert_int_equal(txn_commit(&t, NULL), 0);
        assert_int_equal(take(other, "late", late, &w), -ENOENT);
        set_volume_error(-ECONNREFUSED);
        assert_int_equal(take(other, "w", key, &w), 0);
        while (stored(v, "transfer_to") != w)
                sched_yield();
        assert_int_equal(take(other, "x", key, &x), -EBUSY);
        assert_words("being accepted");
        assert_int_equal(verb(v, "withdraw"), -EBUSY);
        assert_int_equal(drop(v), -EBUSY);
        control_stop(fake.c);
        start_control();
        assert_string_equal(state_of(v), "offered");
        assert_string_equal(state_of(w), "creating");
        forgotten = shown(v, "transfer");
        assert_string_equal(forgotten, "");
        set_volume_error(0);
        assert_int_equal(wait_for(w, "available"), 0);
        wait_for(v, "gone");
        assert_string_equal(state_of(old), "offered");
}

/* An encrypted volume takes its key along; where that fails it stays with its owner's. */
static void test_transfer_encrypted(void **state)
{
        uint64_t v = make(&kind_volume, "v"), other = 0, w = 0, plain = volume("plain"), c;
        _cleanup_free_ char *key = NULL, *open = NULL;
        char owner[ID_TEXT_SIZE], id[ID_TEXT_SIZE], first[PASSPHRASE_SIZE], other_id[ID_TEXT_SIZE];

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other, NULL),
                0);
        assert_int_equal(wait_for(other, "active"), 0);
        assert_int_equal(set(v, &kind_volume, "encrypted", "1"), 0);
        assert_int_equal(set(v, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        control_rdlock(fake.c);
        id_text(owner, model_by_no(fake.c, fake.owner)->id);
        id_text(other_id, model_by_no(fake.c, other)->id);
        id_text(id, model_by_no(fake.c, v)->id);
        control_unlock(fake.c);
        assert_int_equal(keys_passphrase(fake.c, owner, id, false, first, NULL), 0);
        assert_string_equal(fake.opens, first);

        /* A clone has its key, too. */
        c = make(&kind_volume, "c");
        assert_int_equal(link_to(c, &kind_volume, "source", "source", "volumes/v"), 0);
        assert_int_equal(wait_for(c, "available"), 0);
        assert_int_equal(verb(v, "offer"), -EBUSY);
        assert_words("volume 'c'");
        assert_int_equal(verb(c, "offer"), -EBUSY);
        assert_words("volume 'v'");
        assert_int_equal(drop(c), 0);
        wait_for(c, "gone");

        /* blockd knows of one that is not known here: the offer stands, the key is the owner's. */
        assert_int_equal(verb(v, "offer"), 0);
        key = shown(v, "transfer");
        fake.rekey_error = -EBUSY;
        assert_int_equal(take(other, "w", key, &w), 0);
        assert_int_equal(wait_for(w, "error"), 0);
        fake.rekey_error = 0;
        assert_string_equal(state_of(v), "offered");
        assert_int_equal(stored(v, "transfer_to"), 0);
        assert_string_equal(fake.opens, first);
        assert_int_equal(drop(w), 0);
        wait_for(w, "gone");

        /* The clone fails after the key has changed: it changes back. */
        set_volume_error(-EIO);
        assert_int_equal(take(other, "w", key, &w), 0);
        assert_int_equal(wait_for(w, "error"), 0);
        set_volume_error(0);
        assert_int_equal(fake.rekeys, 2);
        assert_string_equal(fake.opens, first);
        assert_int_equal(drop(w), 0);
        wait_for(w, "gone");

        assert_int_equal(take(other, "w", key, &w), 0);
        assert_int_equal(wait_for(w, "available"), 0);
        assert_int_equal(stored(w, "encrypted"), 1);
        assert_int_equal(keys_passphrase(fake.c, other_id, id, false, first, NULL), 0);
        assert_string_equal(fake.opens, first);
        wait_for(v, "gone");

        /* Who asked for encryption does not get plain bytes. */
        assert_int_equal(verb(plain, "offer"), 0);
        open = shown(plain, "transfer");
        {
                char text[200], *line = NULL;
                struct err *e = NULL;

                snprintf(text, sizeof(text), "name=x encrypted=1 transfer=%s", open);
                assert_int_equal(say(control_new(fake.c, &root, other, &kind_volume, text,
                                                 strlen(text), &line, &e),
                                     &e),
                                 -EINVAL);
        }
        assert_words("not encrypted");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_transfer),
                RIG_TEST(test_transfer_encrypted),
                RIG_TEST(test_transfer_cut),
        };

        return rig_run(tests);
}
