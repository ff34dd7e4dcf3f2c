/* What other hosts commit, told by a store that the test speaks for. */
#include <poll.h>

#include "rig.h"

static struct shared {
        struct store store;
        void (*changed)(void *arg, const char *scope, const struct store_record *v, size_t n,
                        bool whole, uint64_t now);
        void *arg;
        bool blind;         /* changes() fails */
        atomic_bool frozen; /* numbers() fails */
        uint64_t numbers, applied;
} shared;

static int s_load(struct store *s, int (*each)(void *arg, const struct store_record *r), void *arg,
                  struct err **e)
{
        return refusing.real->ops->load(refusing.real, each, arg, e);
}

static void s_commit(struct store *s, struct store_txn *t)
{
        refusing.real->ops->commit(refusing.real, t);
}

static int s_changes(struct store *s, const char *scope, uint64_t since,
                     int (*each)(void *arg, const struct store_record *r), void *arg,
                     uint64_t *ret_now, struct err **e)
{
        if (shared.blind)
                return err_set(e, -EIO, "told to fail");
        return refusing.real->ops->changes(refusing.real, scope, since, each, arg, ret_now, e);
}

static int s_watch(struct store *s,
                   void (*changed)(void *arg, const char *scope, const struct store_record *v,
                                   size_t n, bool whole, uint64_t now),
                   void *arg, struct err **e)
{
        shared.changed = changed;
        shared.arg = arg;
        return 0;
}

static void s_applied(struct store *s, const char *scope, uint64_t now)
{
        shared.applied = now;
}

static int s_numbers(struct store *s, uint64_t at_least, uint64_t n, uint64_t *ret, struct err **e)
{
        if (atomic_load(&shared.frozen))
                return err_set(e, -ETIMEDOUT, "told to fail");
        *ret = MAX(at_least, shared.numbers);
        shared.numbers = *ret + n;
        return 0;
}

static void s_close(struct store *s)
{
        refusing.real->ops->close(refusing.real);
}

static const struct store_ops shared_ops = {.name = "shared",
                                            .load = s_load,
                                            .commit = s_commit,
                                            .changes = s_changes,
                                            .close = s_close,
                                            .watch = s_watch,
                                            .applied = s_applied,
                                            .numbers = s_numbers};

static int setup(void **state)
{
        rig_setup(state);
        control_stop(fake.c);
        shared = (struct shared){.store = {.ops = &shared_ops}};
        fake.store = &shared.store;
        start_control();
        return 0;
}

/* --- what the other host writes ----------------------------------------------------------------
 */

static const char *const ids[] = {
        "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b",
        "00000000-0000-4000-8000-00000000000c", "00000000-0000-4000-8000-00000000000d"};

/* Object i, with links to the volumes 0 to n-1. */
static char *record(const struct kind *k, unsigned i, unsigned n)
{
        _cleanup_buf_ struct buf b = {};

        buf_printf(&b,
                   "{\"v\":%u,\"no\":%u,\"kind\":\"%s\",\"name\":\"o%u\",\"state\":\"%s\","
                   "\"created\":1,\"updated\":1,\"since\":1,\"next\":9,\"links\":[",
                   k->schema, 1000000 + i, k->name, i, k->states[0].name);
        for (unsigned t = 0; t < n; t++)
                buf_printf(&b,
                           "%s{\"link\":\"volumes\",\"name\":\"vd%c\",\"to\":\"%s\",\"id\":\"%s\","
                           "\"slot\":%u,\"created\":1,\"leaving\":false}",
                           t ? "," : "", 'a' + t, ids[t], ids[t], t + 1);
        buf_addstr(&b, "]}");
        return buf_take(&b);
}

/* text NULL: deleted; i beyond ids: nothing is new. */
static void tell(unsigned i, char *text, bool whole, uint64_t now)
{
        char scope[ID_TEXT_SIZE];
        struct store_record r = {.scope = scope, .version = 1, .value = text};

        r.len = text ? strlen(text) : 0;
        control_rdlock(fake.c);
        id_text(scope, model_by_no(fake.c, fake.owner)->id);
        control_unlock(fake.c);
        if (i < ARRAY_SIZE(ids))
                r.key = ids[i];
        shared.changed(shared.arg, scope, &r, r.key && !whole, whole, now);
        free(text);
}

enum { NOTHING = 99 };

/* How many links it has, -1 if it is not there. */
static int links_of(unsigned i)
{
        struct object *o;
        int n;

        control_rdlock(fake.c);
        o = model_by_no(fake.c, 1000000 + i);
        n = o ? (int)o->nlinks : -1;
        control_unlock(fake.c);
        return n;
}

/* A record may be tried often until all that it refers to is there. */
static void test_targets_come_later(void **state)
{
        tell(0, record(&kind_volume, 0, 0), false, 1);
        assert_int_equal(shared.applied, 1);
        tell(3, record(&kind_instance, 3, 3), false, 2);
        tell(NOTHING, NULL, false, 2);
        tell(2, record(&kind_volume, 2, 0), false, 3);
        assert_int_equal(links_of(3), -1);
        assert_int_equal(shared.applied, 1);
        tell(1, record(&kind_volume, 1, 0), false, 4);
        assert_int_equal(links_of(3), 3);
        assert_int_equal(shared.applied, 4);
}

/* One host deletes what another one, in another scope, makes a link to.  Nobody will ever undo
 * either, and what is committed here must not wait for it. */
static void test_target_goes(void **state)
{
        tell(0, record(&kind_volume, 0, 0), false, 1);
        tell(1, record(&kind_volume, 1, 0), false, 2);
        tell(3, record(&kind_instance, 3, 2), false, 3);
        tell(0, NULL, false, 4);
        assert_int_equal(links_of(0), 0);
        assert_int_equal(shared.applied, 3);
        while (shared.applied < 4) {
                poll(NULL, 0, 50);
                tell(NOTHING, NULL, false, 4);
        }
        assert_int_equal(links_of(0), -1);
        assert_int_equal(links_of(3), 1);
        tell(3, NULL, false, 5);
        tell(1, NULL, false, 6);
        assert_int_equal(links_of(1), -1);
        assert_int_equal(shared.applied, 6);
}

/* All of the scope is to be read, and cannot be at first. */
static void test_whole_fails(void **state)
{
        tell(0, record(&kind_volume, 0, 0), false, 1);
        assert_int_equal(links_of(0), 0);
        shared.blind = true;
        tell(NOTHING, NULL, true, 1000);
        tell(1, record(&kind_volume, 1, 0), false, 1001);
        assert_int_equal(shared.applied, 1);
        shared.blind = false;
        tell(NOTHING, NULL, false, 1001);
        assert_int_equal(links_of(0), -1); /* as the store has none */
        assert_int_equal(shared.applied, 1001);
}

/* While the store does not answer, who asks for what he may not have must not take the last number:
 * the model would be locked until there are more. */
static void test_refused_use_no_numbers(void **state)
{
        struct err *e = NULL;
        uint64_t no;

        assert_int_equal(quota(fake.owner, "volumes limit=0"), 0);
        atomic_store(&shared.frozen, true);
        for (int i = 0; i < 5000; i++)
                assert_int_equal(
                        say(control_create(fake.c, &root, fake.owner, &kind_volume, "v", &no, &e),
                            &e),
                        -EDQUOT);
        atomic_store(&shared.frozen, false);
}

#define FEED_TEST(f) cmocka_unit_test_setup_teardown(f, setup, rig_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                FEED_TEST(test_targets_come_later),
                FEED_TEST(test_target_goes),
                FEED_TEST(test_whole_fails),
                FEED_TEST(test_refused_use_no_numbers),
        };

        return rig_run(tests);
}
