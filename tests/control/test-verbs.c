/* The life of an instance beyond power: asleep in a file, on another disk, of another size; what is
 * legal when. */
#include "rig.h"

/* An instance that runs on volume "root". */
static uint64_t running(const char *name)
{
        uint64_t i = make(&kind_instance, name);

        volume("root");
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        return i;
}

static void test_suspend(void **state)
{
        uint64_t i = running("web");

        fake.save_error = -ENOSPC;
        assert_int_equal(verb(i, "suspend"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        settle(i);
        fake.save_error = 0;
        assert_int_equal(verb(i, "suspend"), 0);
        assert_int_equal(wait_for(i, "suspended"), 0);
        assert_int_equal(verb(i, "stop"), -EBUSY);
        assert_int_equal(verb(i, "start"), -EBUSY);
        fake.restore_error = -EIO;
        assert_int_equal(verb(i, "resume"), 0);
        wait_for(i, "suspended");
        settle(i);
        assert_false(fake.running);
        fake.restore_error = 0;
        assert_int_equal(verb(i, "resume"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_true(fake.running && !fake.paused);
        /* A fresh start instead. */
        assert_int_equal(verb(i, "suspend"), 0);
        assert_int_equal(wait_for(i, "suspended"), 0);
        assert_int_equal(verb(i, "reboot"), -EBUSY);
        assert_int_equal(verb(i, "reboot hard"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(fake.starts, 2);
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(verb(i, "reboot hard"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
}

static void test_commands(void **state)
{
        uint64_t i = running("web");

        assert_int_equal(verb(i, "send-key"), -EINVAL);
        assert_int_equal(verb(i, "send-key ctrl alt del"), -EINVAL);
        assert_int_equal(verb(i, "send-key a b c d e f g h i"), -EINVAL);
        assert_int_equal(verb(i, "send-key ctrl alt delete"), 0);
        settle(i);
        assert_string_equal(fake.told, "ctrl alt delete");
        assert_int_equal(verb(i, "crash-dump"), 0);
        settle(i);
        assert_string_equal(fake.told, "nmi");
        assert_int_equal(verb(i, "set-password root"), -EINVAL);
        assert_int_equal(verb(i, "set-password -x y"), -EINVAL);
        assert_int_equal(verb(i, "set-password root $ecret word"), 0);
        settle(i);
        assert_memory_equal(fake.told, "root $6$", 8);
        assert_int_equal(verb(i, "set-password root $6$x$y"), 0);
        settle(i);
        assert_string_equal(fake.told, "root $6$x$y");
        control_rdlock(fake.c);
        for (uint64_t no = i; no < i + 50; no++) { /* no job keeps a hash */
                struct object *o = model_by_no(fake.c, no);

                if (o && o->kind == &kind_job &&
                    streq(object_str(o, "op"), "instance.set-password"))
                        assert_string_equal(object_str(o, "args"), "");
        }
        control_unlock(fake.c);
}

/* The tenant's own are refused by a lock, whoever it is of; one of an admin they cannot take away.
 */
static void test_lock(void **state)
{
        struct caller member = {54321, 0, 0};
        uint64_t i = make(&kind_instance, "web");
        char name[NAME_SIZE];

        control_rdlock(fake.c);
        member.gid = object_gid(fake.c, model_by_no(fake.c, i));
        control_unlock(fake.c);
        volume("root");
        assert_int_equal(control_verb(fake.c, &member, i, "lock", 4, NULL), 0);
        assert_int_equal(control_verb(fake.c, &member, i, "start", 5, NULL), -EPERM);
        assert_int_equal(control_verb(fake.c, &member, i, "lock", 4, NULL), -EPERM);
        assert_int_equal(control_set(fake.c, &member, i, 0, "small", 5, NULL), -EPERM);
        assert_int_equal(control_link(fake.c, &member, i, 0, "vda", "volumes/root", name, NULL),
                         -EPERM);
        assert_int_equal(control_set_meta(fake.c, &member, i, "k", "v", 1, NULL), -EPERM);
        assert_int_equal(control_rename(fake.c, &member, i, "new", NULL), -EPERM);
        assert_int_equal(control_delete(fake.c, &member, i, NULL), -EPERM);
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(control_verb(fake.c, &member, i, "unlock", 6, NULL), 0);
        assert_int_equal(control_link(fake.c, &member, i, 0, "vda", "volumes/root", name, NULL), 0);
        assert_int_equal(verb(i, "lock"), 0);
        assert_int_equal(control_verb(fake.c, &member, i, "unlock", 6, NULL), -EPERM);
        assert_int_equal(verb(i, "unlock"), 0);
        assert_int_equal(control_delete(fake.c, &member, i, NULL), 0);
}

static bool is_there(const struct kind *k, const char *name)
{
        bool yes;

        control_rdlock(fake.c);
        yes = model_by_name(fake.c, model_by_no(fake.c, fake.owner), k, name) != NULL;
        control_unlock(fake.c);
        return yes;
}

static uint64_t image(const char *name)
{
        struct data *d;
        uint64_t no;

        assert_int_equal(control_upload(fake.c, &root, fake.owner, name, &no, &d, NULL), 0);
        assert_int_equal(data_pwrite(fake.c, d, "x", 1, 0, NULL), 0);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(wait_for(no, "active"), 0);
        return no;
}

/* An instance that runs on a root made from image "debian", with volume "root" as vdb. */
static uint64_t running_image(const char *name)
{
        uint64_t i = make(&kind_instance, name);

        image("debian.qcow2");
        volume("root");
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "image", "image", "images/debian"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        settle(i);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vdb", "volumes/root"), 0);
        settle(i);
        return i;
}

static void test_rescue(void **state)
{
        uint64_t i = running_image("web"), other = image("other.qcow2"), starts = fake.starts;

        assert_int_equal(verb(i, "rescue"), -EINVAL);
        assert_int_equal(verb(i, "rescue none"), -ENOENT);
        assert_int_equal(verb(i, "rescue volumes/root"), -EINVAL);
        assert_int_equal(verb(i, "unrescue"), -EBUSY);
        assert_int_equal(verb(i, "rescue other"), 0);
        assert_int_equal(wait_for(i, "rescued"), 0);
        assert_string_equal(fake.boots, "vdz");
        assert_true(is_there(&kind_volume, "web-rescue"));
        assert_int_equal(drop(i), -EBUSY);
        assert_int_equal(verb(i, "unrescue"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_string_equal(fake.boots, "vda");
        assert_false(is_there(&kind_volume, "web-rescue"));
        assert_int_equal(fake.starts, starts + 2);

        /* A start that fails leaves it off, and the way back open. */
        fake.start_error = -EIO;
        assert_int_equal(verb(i, "rescue images/other"), 0);
        wait_for(i, "stopped");
        settle(i);
        fake.start_error = 0;
        assert_int_equal(verb(i, "rescue other"), -EBUSY);
        assert_int_equal(verb(i, "unrescue"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(drop(other), 0);
}

static void test_rebuild(void **state)
{
        uint64_t i = running_image("web"), v;

        control_rdlock(fake.c);
        v = object_link(model_by_no(fake.c, i), 0, "vda")->target->no;
        control_unlock(fake.c);
        assert_int_equal(verb(i, "rebuild debian"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        wait_for(v, "gone");
        control_rdlock(fake.c);
        assert_true(object_link(model_by_no(fake.c, i), 0, "vda")->target->no != v);
        assert_non_null(object_link(model_by_no(fake.c, i), 0, "vdb"));
        v = object_link(model_by_no(fake.c, i), 0, "vda")->target->no;
        control_unlock(fake.c);
        assert_string_equal(fake.boots, "vda");
        /* One with snapshots is kept, and one that is off stays so. */
        assert_int_equal(verb(i, "snapshot s"), 0);
        settle(i);
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(verb(i, "rebuild debian"), 0);
        wait_for(i, "stopped");
        settle(i);
        assert_string_equal(state_of(v), "available");
}

static void test_shelve(void **state)
{
        uint64_t i = running_image("web");

        assert_true(used("vcpus ") > 0);
        assert_int_equal(verb(i, "shelve"), 0);
        assert_int_equal(wait_for(i, "shelved"), 0);
        assert_false(fake.running);
        assert_int_equal(used("vcpus "), 0);
        assert_int_equal(used("instances "), 1);
        assert_int_equal(verb(i, "start"), -EBUSY);
        assert_int_equal(quota(fake.owner, "vcpus limit=0"), 0);
        assert_int_equal(verb(i, "unshelve"), -EDQUOT);
        assert_string_equal(state_of(i), "shelved");
        assert_int_equal(quota(fake.owner, "vcpus limit=max"), 0);
        fake.start_error = -EIO;
        assert_int_equal(verb(i, "unshelve"), 0);
        wait_for(i, "shelved");
        settle(i);
        fake.start_error = 0;
        assert_int_equal(verb(i, "unshelve"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(verb(i, "suspend"), 0);
        assert_int_equal(wait_for(i, "suspended"), 0);
        assert_int_equal(verb(i, "shelve"), 0);
        assert_int_equal(wait_for(i, "shelved"), 0);
        assert_int_equal(drop(i), 0);
        wait_for(i, "gone");
}

/* One that is kept is the same when it comes back; when its time is over it is gone. */
static void test_deleted(void **state)
{
        uint64_t i = running_image("web"), v, host;

        control_rdlock(fake.c);
        v = object_link(model_by_no(fake.c, i), 0, "vda")->target->no;
        host = *object_str(model_by_no(fake.c, i), "host");
        control_unlock(fake.c);
        assert_int_equal(set(fake.owner, &kind_tenant, "reclaim", "3600"), 0);
        assert_int_equal(verb(i, "restore"), -EBUSY);
        assert_int_equal(verb(i, "delete"), 0);
        assert_int_equal(wait_for(i, "deleted"), 0);
        assert_false(fake.running);
        assert_true(host && is_there(&kind_volume, "root"));
        assert_string_equal(state_of(v), "in-use");
        assert_int_equal(used("vcpus "), 0);
        assert_true(stored(i, "reclaim_at") > (uint64_t)clock_now() / 1000000 + 3500);
        assert_int_equal(verb(i, "start"), -EBUSY);
        assert_int_equal(quota(fake.owner, "vcpus limit=0"), 0);
        assert_int_equal(verb(i, "restore"), -EDQUOT);
        assert_int_equal(quota(fake.owner, "vcpus limit=max"), 0);
        fake.start_error = -EIO;
        assert_int_equal(verb(i, "restore"), 0);
        wait_for(i, "deleted");
        settle(i);
        assert_string_equal(state_of(i), "deleted");
        fake.start_error = 0;
        assert_int_equal(verb(i, "restore"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(stored(i, "reclaim_at"), 0);
        assert_string_equal(fake.boots, "vda");

        /* What was under way for it neither starts it again nor says what it is. */
        fake.away_error = -ECONNREFUSED;
        assert_int_equal(verb(i, "resize tiny"), 0);
        assert_int_equal(verb(i, "delete"), 0);
        fake.away_error = 0;
        assert_int_equal(wait_for(i, "deleted"), 0);
        settle(i);
        assert_string_equal(state_of(i), "deleted");
        assert_false(fake.running);
        assert_int_equal(verb(i, "restore"), 0);
        assert_int_equal(wait_for(i, "active"), 0);

        /* Its memory is not kept; a disk may be taken from it meanwhile. */
        assert_int_equal(verb(i, "suspend"), 0);
        assert_int_equal(wait_for(i, "suspended"), 0);
        assert_int_equal(set(fake.owner, &kind_tenant, "reclaim", "1"), 0);
        assert_int_equal(verb(i, "delete"), 0);
        wait_for(i, "gone"); /* the reconciler */
        wait_for(v, "gone");
        assert_true(is_there(&kind_volume, "root"));

        /* By rmdir, or asked for twice, it does not wait. */
        i = make(&kind_instance, "two");
        assert_int_equal(set(fake.owner, &kind_tenant, "reclaim", "3600"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "small"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(verb(i, "delete"), 0);
        assert_int_equal(wait_for(i, "deleted"), 0);
        assert_int_equal(verb(i, "delete"), 0);
        wait_for(i, "gone");
        assert_int_equal(fake.starts, 4);
}

static void test_resize(void **state)
{
        uint64_t i = running_image("web"), before = used("memory "), large, box;

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_flavor, "box", &box, NULL), 0);
        assert_int_equal(set(box, &kind_flavor, "hypervisor", "lxc"), 0);
        assert_int_equal(verb(i, "resize box"), -EINVAL); /* it would be lost to its own engine */
        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_flavor, "large-x", &large, NULL),
                0);
        assert_int_equal(set(large, &kind_flavor, "memory", "4G"), 0);
        assert_int_equal(set(large, &kind_flavor, "disk", "3G"), 0);
        assert_int_equal(quota(fake.owner, "memory limit=max"), 0);
        assert_int_equal(verb(i, "resize none"), -ENOENT);
        assert_int_equal(verb(i, "resize small"), -EINVAL);
        assert_int_equal(verb(i, "confirm"), -EBUSY);
        assert_int_equal(verb(i, "resize large-x"), 0);
        assert_int_equal(wait_for(i, "resized"), 0);
        assert_int_equal(used("memory "), 4ULL << 30);
        assert_int_equal(verb(i, "resize small"), -EBUSY);
        assert_int_equal(verb(i, "revert"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(used("memory "), before);

        assert_int_equal(verb(i, "resize large-x"), 0);
        assert_int_equal(wait_for(i, "resized"), 0);
        assert_int_equal(verb(i, "confirm"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        settle(i);
        control_rdlock(fake.c);
        assert_int_equal(object_num(object_link(model_by_no(fake.c, i), 0, "vda")->target, "size"),
                         3ULL << 30);
        control_unlock(fake.c);

        /* Of one that is off, at its next start; the quota counts the larger until then. */
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "box"), -EINVAL);
        assert_int_equal(verb(i, "resize small"), 0);
        assert_int_equal(used("memory "), 4ULL << 30);
        assert_int_equal(set(i, &kind_instance, "flavor", "tiny"), -EBUSY);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "resized"), 0);
        assert_int_equal(verb(i, "confirm"), 0);
        assert_int_equal(used("memory "), before);
}

static void test_vcpus(void **state)
{
        uint64_t i, flavor;

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_flavor, "grows", &flavor, NULL),
                0);
        assert_int_equal(set(flavor, &kind_flavor, "vcpus_max", "4"), 0);
        i = running("web");
        assert_int_equal(set(i, &kind_instance, "vcpus", "64"), -EINVAL);
        assert_int_equal(verb(i, "resize grows"), 0);
        assert_int_equal(wait_for(i, "resized"), 0);
        assert_int_equal(set(i, &kind_instance, "vcpus", "2"), -EBUSY);
        assert_int_equal(verb(i, "confirm"), 0);
        assert_int_equal(set(i, &kind_instance, "vcpus", "5"), -EINVAL);
        assert_int_equal(set(i, &kind_instance, "vcpus", "3"), 0);
        settle(i);
        assert_int_equal(fake.vcpus, 3);
        assert_int_equal(used("vcpus "), 3);
        assert_int_equal(set(i, &kind_instance, "vcpus", "2"), -EINVAL);
        assert_int_equal(quota(fake.owner, "vcpus limit=3"), 0);
        assert_int_equal(set(i, &kind_instance, "vcpus", "4"), -EDQUOT);
        assert_int_equal(quota(fake.owner, "vcpus limit=max"), 0);
        fake.vcpus_error = -EIO;
        assert_int_equal(set(i, &kind_instance, "vcpus", "4"), 0);
        settle(i);
        assert_int_equal(stored(i, "vcpus"), 3);
}

static void test_image_of_instance(void **state)
{
        uint64_t i = running_image("web"), v = make(&kind_volume, "copy"), no;
        struct data *d;

        assert_int_equal(verb(i, "image"), -EINVAL);
        assert_int_equal(verb(i, "image debian"), -EEXIST);
        assert_int_equal(verb(i, "image golden"), 0);
        control_rdlock(fake.c);
        no = model_by_name(fake.c, model_by_no(fake.c, fake.owner), &kind_image, "golden")->no;
        control_unlock(fake.c);
        assert_int_equal(wait_for(no, "active"), 0);
        settle(i);
        assert_true(is_there(&kind_image, "golden-vdb"));
        assert_false(fake.taken_running || fake.frozen || fake.paused);
        assert_int_equal(stored(no, "frozen"), 1);
        assert_int_equal(control_open_data(fake.c, &root, no, 0, O_RDONLY, &d, NULL), 0);
        assert_int_equal(d->type, DATA_NBD);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(link_to(v, &kind_volume, "source", "source", "images/golden"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(drop(no), 0);
        wait_for(no, "gone");

        fake.volume_error = -ENOSPC;
        assert_int_equal(verb(i, "image bad"), 0);
        control_rdlock(fake.c);
        no = model_by_name(fake.c, model_by_no(fake.c, fake.owner), &kind_image, "bad")->no;
        control_unlock(fake.c);
        assert_int_equal(wait_for(no, "error"), 0);
        assert_int_equal(verb(no, "activate"), -EINVAL);
}

/* Which verbs are legal in which state of an instance: all, and no others.  The states are those of
 * OpenStack's servers, whose table of actions this is, read the other way round, and `draft`, which
 * is what create leaves here.  Of its own are: snapshot, as image; send-key; unrescue of one that
 * powered itself off, confirm and revert of one that was off when it was resized. */
static void test_transitions(void **state)
{
#define ANYWHERE "lock unlock delete "
#define BETWEEN "reset " ANYWHERE
        static const struct {
                const char *state, *verbs;
        } legal[] = {
                {"draft", "start " ANYWHERE},
                {"active",
                 "stop reboot pause suspend snapshot image backup send-key crash-dump set-password "
                 "rescue rebuild shelve resize vnc migrate " ANYWHERE},
                {"stopped",
                 "start reboot snapshot image backup rescue unrescue rebuild shelve resize confirm "
                 "revert migrate " ANYWHERE},
                {"paused",
                 "reboot resume snapshot image backup crash-dump shelve vnc migrate " ANYWHERE},
                {"suspended", "reboot resume snapshot image backup shelve evacuate " ANYWHERE},
                {"rescued", "unrescue send-key crash-dump vnc " ANYWHERE},
                {"shelved", "unshelve " ANYWHERE},
                {"resized", "confirm revert send-key crash-dump vnc " ANYWHERE},
                {"error", "stop reboot rescue rebuild crash-dump evacuate reset " ANYWHERE},
                {"deleting", "lock unlock reset "},
                {"deleted", "restore " ANYWHERE},
                {"migrating", "lock unlock reset "},
        };
        const struct kind *k = &kind_instance;

        for (unsigned s = 0; s < k->nstates; s++) {
                const char *verbs = k->states[s].transient ? BETWEEN : NULL;
                struct buf have = {}, want = {};

                for (unsigned i = 0; i < ARRAY_SIZE(legal); i++)
                        if (streq(legal[i].state, k->states[s].name))
                                verbs = legal[i].verbs;
                assert_non_null(verbs);
                for (unsigned i = 0; i < k->nverbs; i++) {
                        char word[40];

                        snprintf(word, sizeof(word), "%s ", k->verbs[i].name);
                        if (!k->verbs[i].states || (k->verbs[i].states & STATE(s)))
                                buf_addstr(&have, word);
                        for (const char *p = strstr(verbs, word); p; p = strstr(p + 1, word))
                                if (p == verbs || p[-1] == ' ')
                                        buf_addstr(&want, word);
                }
                if (!streq(buf_str(&have), buf_str(&want)))
                        fail_msg("%s: %s, not %s", k->states[s].name, buf_str(&have),
                                 buf_str(&want));
                buf_done(&have);
                buf_done(&want);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_suspend),     RIG_TEST(test_commands),
                RIG_TEST(test_lock),        RIG_TEST(test_rescue),
                RIG_TEST(test_rebuild),     RIG_TEST(test_shelve),
                RIG_TEST(test_deleted),     RIG_TEST(test_resize),
                RIG_TEST(test_vcpus),       RIG_TEST(test_image_of_instance),
                RIG_TEST(test_transitions),
        };

        return rig_run(tests);
}
