/* The control plane on a store in memory and drivers that remember: rules, undo, jobs, recovery.
 * The real drivers have suites of their own; here their answers can be chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>

#include "backend/store/memory/memory.h"
#include "common/fileio.h"
#include "control/internal.h"
#include "control/control.h"
#include "control/driver/compute.h"
#include "control/driver/image.h"
#include "control/driver/store.h"
#include "control/driver/volume.h"
#include "control/txn.h"

/* --- drivers that remember ------------------------------------------------------------------ */

struct fake {
        struct volume_service volumes;
        struct image_service images;
        struct compute compute;
        struct store *store;
        pthread_mutex_t lock;
        int volume_error;      /* what create and clone answer */
        int start_error;
        int remove_error;
        int away_error;        /* what import and unexport answer while blockd is "down" */
        struct volume_limits limits; /* set last */
        int limits_error;
        unsigned limits_calls, stats_calls;
        bool hold_after_limits; /* hold_commits() once they are set */
        char stats_id[37]; /* of the volume that has been read */
        int grow_error;
        unsigned pings; /* counted from 1 on: the second fails */
        int rekey_error;
        unsigned rekeys;
        char opens[PASSPHRASE_SIZE]; /* the encrypted volume, of which there is one */
        char family[37];
        int freeze_error;
        unsigned thaw_failures; /* so often thaw fails first */
        unsigned freezes, thaws;
        bool frozen, paused, taken_running; /* a snapshot of a guest that ran */
        bool running;
        char boots[16];        /* the first disk of the guest started last */
        uint64_t grown;        /* what the guest was last told of its disk's size */
        bool snapshot_asked, snapshot_taken, early; /* early: the last shrink came before one */
        unsigned creates, clones, removes, exports, starts;
        struct control *c;
        uint64_t owner;        /* the default tenant */
};
static struct fake fake;

static int v_ping(struct volume_service *s, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.pings && ++fake.pings == 3 ? err_set(e, -ECONNREFUSED, "away") : 0;
}
static int v_create(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.volume_error)
                return err_set(e, fake.volume_error, "told to fail");
        fake.creates++;
        return 0;
}
static int v_import(struct volume_service *s, const char *id, const char *path, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.away_error ? err_set(e, fake.away_error, "away") : 0;
}
static int v_clone(struct volume_service *s, const char *id, const char *parent, uint64_t size,
                   struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.clones++;
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_snapshot(struct volume_service *s, const char *id, const char *volume, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.taken_running |= fake.running && !fake.paused;
        fake.snapshot_asked = true;
        fake.snapshot_taken = !fake.volume_error;
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_shrink(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.early = !fake.snapshot_taken;
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_create_encrypted(struct volume_service *s, const char *id, uint64_t size,
                              const char *passphrase, struct err **e)
{
        WITH_LOCK(&fake.lock);
        snprintf(fake.opens, sizeof(fake.opens), "%s", passphrase);
        snprintf(fake.family, sizeof(fake.family), "%s", id);
        return 0;
}
static int v_rekey(struct volume_service *s, const char *id, const char *passphrase,
                   const char *next, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (streq(fake.opens, next))
                return 0;
        if (fake.rekey_error)
                return err_set(e, fake.rekey_error, "told to fail");
        if (!streq(fake.opens, passphrase))
                return err_set(e, -EKEYREJECTED, "not its key");
        snprintf(fake.opens, sizeof(fake.opens), "%s", next);
        fake.rekeys++;
        return 0;
}
static int v_resize(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return fake.volume_error ? err_set(e, fake.volume_error, "told to fail") : 0;
}
static int v_remove(struct volume_service *s, const char *id, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.removes++;
        return fake.remove_error ? err_set(e, fake.remove_error, "told to fail") : 0;
}
static void hold_commits(void);

static int v_set_limits(struct volume_service *s, const char *id, const struct volume_limits *l,
                        struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.limits_calls++;
        if (fake.limits_error)
                return err_set(e, fake.limits_error, "told to fail");
        fake.limits = *l;
        if (fake.hold_after_limits)
                hold_commits();
        fake.hold_after_limits = false;
        return 0;
}
static int v_stats(struct volume_service *s, int (*each)(void *arg, const struct volume_stats *v),
                   void *arg, struct err **e)
{
        struct volume_stats v = {.since = 1};

        pthread_mutex_lock(&fake.lock);
        strcpy(v.id, fake.stats_id);
        v.op[VOLUME_REQ_READ].ops = ++fake.stats_calls;
        pthread_mutex_unlock(&fake.lock);
        return each(arg, &v);
}
static int v_list(struct volume_service *s, int (*each)(void *arg, const struct volume_facts *f),
                  void *arg, struct err **e)
{
        return 0;
}
static int v_stat(struct volume_service *s, const char *id, struct volume_facts *ret,
                  struct err **e)
{
        *ret = (struct volume_facts){.size = 1 << 20};
        snprintf(ret->family, sizeof(ret->family), "%s", fake.family);
        return 0;
}
static int v_export(struct volume_service *s, const struct volume_export *x, char **ret,
                    struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.exports++;
        *ret = strdup("/socket");
        return 0;
}
static int v_unexport(struct volume_service *s, const char *id, struct err **e)
{
        WITH_LOCK(&fake.lock);
        return fake.away_error ? err_set(e, fake.away_error, "away") : 0;
}
static const struct volume_service_ops volume_ops = {
        .name = "fake", .ping = v_ping, .create = v_create, .import = v_import, .clone = v_clone,
        .snapshot = v_snapshot, .resize = v_resize, .shrink = v_shrink, .remove = v_remove, .stat = v_stat, .export = v_export,
        .create_encrypted = v_create_encrypted, .rekey = v_rekey, .set_limits = v_set_limits,
        .stats = v_stats, .list = v_list,
        .unexport = v_unexport};

static int i_create(struct image_service *s, const char *id, struct err **e)
{
        return 0;
}
static int i_open(struct image_service *s, const char *id, bool w, struct image_blob **ret,
                  struct err **e)
{
        *ret = (struct image_blob *)&fake;
        return 0;
}
static int i_pwrite(struct image_blob *b, const void *p, size_t n, uint64_t off)
{
        return 0;
}
static int64_t i_size(struct image_blob *b)
{
        return 0;
}
static int i_sync(struct image_blob *b)
{
        return 0;
}
static void i_close(struct image_blob *b)
{
}
static int i_inspect(struct image_service *s, const char *id, const char *hint, uint64_t max,
                     struct image_facts *ret, struct err **e)
{
        *ret = (struct image_facts){IMAGE_QCOW2, 1 << 20, 4096};
        return 0;
}
static int i_checksum(struct image_service *s, const char *id, char ret[65],
                      const struct image_progress *p, struct err **e)
{
        memset(ret, 'a', 64);
        ret[64] = '\0';
        return 0;
}
static int i_publish(struct image_service *s, const char *id, const struct image_facts *f,
                     const struct image_progress *p, char **ret, struct err **e)
{
        *ret = strdup("/raw");
        return 0;
}
static int i_unpublish(struct image_service *s, const char *id, struct err **e)
{
        return 0;
}
static int i_remove(struct image_service *s, const char *id, struct err **e)
{
        return 0;
}
static const struct image_service_ops image_ops = {
        .name = "fake", .create = i_create, .open = i_open, .pwrite = i_pwrite, .size = i_size,
        .sync = i_sync, .close = i_close, .inspect = i_inspect, .checksum = i_checksum,
        .publish = i_publish, .unpublish = i_unpublish, .remove = i_remove};

static int c_start(struct compute *c, const struct guest *g, struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.start_error)
                return err_set(e, fake.start_error, "told to fail");
        fake.starts++;
        if (g->ndisks)
                snprintf(fake.boots, sizeof(fake.boots), "%s", g->disks[0].target);
        fake.running = true;
        return 0;
}
static int c_off(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.running = false;
        return 0;
}
static int c_pause(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.paused = true;
        return 0;
}
static int c_resume(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.paused = false;
        return 0;
}
static int c_freeze(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        fake.freezes++;
        if (fake.freeze_error)
                return err_set(e, fake.freeze_error, "told not to freeze");
        fake.frozen = true;
        return 0;
}
static int c_thaw(struct compute *c, const char *uuid, struct err **e)
{
        WITH_LOCK(&fake.lock);
        assert_false(fake.paused); /* its agent would hear nothing */
        fake.thaws++;
        if (fake.thaw_failures) {
                fake.thaw_failures--;
                return err_set(e, -ENOTCONN, "told not to thaw");
        }
        fake.frozen = false;
        return 0;
}
static int c_state(struct compute *c, const char *uuid, enum guest_state *ret, struct err **e)
{
        WITH_LOCK(&fake.lock);
        *ret = fake.running ? GUEST_RUNNING : GUEST_GONE;
        return 0;
}
static int c_list(struct compute *c, int (*each)(void *arg, const char *uuid, enum guest_state s),
                  void *arg, struct err **e)
{
        return 0;
}
static int c_attach(struct compute *c, const char *uuid, const struct guest_disk *d,
                    struct err **e)
{
        return 0;
}
static int c_detach(struct compute *c, const char *uuid, const char *target, int ms,
                    struct err **e)
{
        return 0;
}
static int c_grow(struct compute *c, const char *uuid, const char *target, uint64_t size,
                  struct err **e)
{
        WITH_LOCK(&fake.lock);
        if (fake.grow_error)
                return err_set(e, fake.grow_error, "told to fail");
        if (!fake.running)
                return err_set(e, -ENOENT, "no guest");
        fake.grown = streq(target, "vda") ? size : 1;
        return 0;
}
static const struct compute_ops compute_ops = {
        .name = "fake", .start = c_start, .shutdown = c_off, .destroy = c_off, .pause = c_pause,
        .resume = c_resume, .freeze = c_freeze, .thaw = c_thaw, .attach = c_attach, .detach = c_detach, .state = c_state,
        .list = c_list, .grow = c_grow};

static int open_compute(void *arg, struct compute **ret, struct err **e)
{
        *ret = &fake.compute;
        return 0;
}

/* --- a store that can be told to refuse -------------------------------------------------------- */

struct refusing {
        struct store store;
        struct store *real;
        bool refuse;
        /* Or told to keep who commits waiting. */
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool hold;
        struct store_txn *held[4];
        unsigned nheld;
};
static struct refusing refusing;

static void hold_commits(void)
{
        WITH_LOCK(&refusing.lock);
        refusing.hold = true;
}

/* Until n transactions wait. */
static void await_held(unsigned n)
{
        WITH_LOCK(&refusing.lock);
        while (refusing.nheld < n)
                pthread_cond_wait(&refusing.cond, &refusing.lock);
}

static void release_commits(void)
{
        WITH_LOCK(&refusing.lock);
        refusing.hold = false;
        for (unsigned i = 0; i < refusing.nheld; i++)
                refusing.real->ops->commit(refusing.real, refusing.held[i]);
        refusing.nheld = 0;
}

static void *refuse_main(void *arg)
{
        struct store_txn *t = arg;
        struct err *e = NULL;

        err_set(&e, -ENOSPC, "told to fail");
        t->done(t->arg, STORE_FAILED, e);
        err_free(e);
        store_txn_free(t);
        return NULL;
}

static int r_load(struct store *s, int (*each)(void *arg, const struct store_record *r), void *arg,
                  struct err **e)
{
        struct refusing *f = (struct refusing *)s;

        return f->real->ops->load(f->real, each, arg, e);
}
static void r_commit(struct store *s, struct store_txn *t)
{
        struct refusing *f = (struct refusing *)s;
        pthread_t thread;

        WITH_LOCK(&f->lock);
        if (f->hold) {
                assert_true(f->nheld < ARRAY_SIZE(f->held));
                f->held[f->nheld++] = t;
                pthread_cond_broadcast(&f->cond);
                return;
        }
        if (!f->refuse) {
                f->real->ops->commit(f->real, t);
                return;
        }
        pthread_create(&thread, NULL, refuse_main, t);
        pthread_detach(thread);
}
static void r_close(struct store *s)
{
        struct refusing *f = (struct refusing *)s;

        f->real->ops->close(f->real);
}
static const struct store_ops refusing_ops = {
        .name = "refusing", .load = r_load, .commit = r_commit, .close = r_close};

/* --- the cloud under test --------------------------------------------------------------------- */

static const struct caller root = {0, 0, 0}, stranger = {54321, 54321, 0};

static char dir[] = "/tmp/test-control-XXXXXX"; /* consoles of instances that never ran */

static void start_control(void)
{
        struct control_config cfg = {.store = fake.store,
                                     .volumes = &fake.volumes,
                                     .images = &fake.images,
                                     .compute = open_compute,
                                     .mount = "/cloud",
                                     .state = dir,
                                     .run = dir,
                                     .host = "here",
                                     .uid = 1000, /* no groupadd */
                                     .gid = 1000};
        struct err *err = NULL;

        if (control_start(&cfg, &fake.c, &err) < 0)
                fail_msg("%s", err_msg(err));
        assert_int_equal(control_host_set(fake.c, "embed", "tcg", NULL), 0);
        control_rdlock(fake.c);
        fake.owner = model_by_name(fake.c, NULL, &kind_tenant, "default")->no;
        control_unlock(fake.c);
}

static int make_dir(void **state)
{
        return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
        return remove_tree(dir, NULL);
}

static int setup(void **state)
{
        fake = (struct fake){.volumes = {.ops = &volume_ops, .shared_socket = "/s"},
                             .images = {.ops = &image_ops},
                             .compute = {.ops = &compute_ops},
                             .store = &refusing.store,
                             .lock = PTHREAD_MUTEX_INITIALIZER};
        refusing = (struct refusing){.store = {.ops = &refusing_ops},
                                     .real = store_memory_new(),
                                     .lock = PTHREAD_MUTEX_INITIALIZER,
                                     .cond = PTHREAD_COND_INITIALIZER};
        start_control();
        return 0;
}

static int teardown(void **state)
{
        control_stop(fake.c);
        fake.store->ops->close(fake.store);
        return 0;
}

static struct err *last;

/* A pointer, as the error is made by the call that is the other argument. */
static int say(int r, struct err **e)
{
        err_free(last);
        last = TAKE_PTR(*e);
        return r;
}

static uint64_t make(const struct kind *k, const char *name)
{
        struct err *e = NULL;
        uint64_t no = 0;

        if (say(control_create(fake.c, &root, fake.owner, k, name, &no, &e), &e) < 0)
                fail_msg("mkdir %s: %s", name, err_msg(last));
        return no;
}

static int set(uint64_t no, const struct kind *k, const char *attr, const char *text)
{
        struct err *e = NULL;

        return say(control_set(fake.c, &root, no, kind_attr(k, attr), text, strlen(text), &e), &e);
}

static int link_to(uint64_t no, const struct kind *k, const char *def, const char *name,
                   const char *target)
{
        char canonical[NAME_SIZE];
        struct err *e = NULL;

        return say(control_link(fake.c, &root, no, kind_link(k, def), name, target, canonical, &e),
                   &e);
}

static int verb(uint64_t no, const char *text)
{
        struct err *e = NULL;

        return say(control_verb(fake.c, &root, no, text, strlen(text), &e), &e);
}

static int drop(uint64_t no)
{
        struct err *e = NULL;

        return say(control_delete(fake.c, &root, no, &e), &e);
}

struct wait_end {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool ended;
        int r;
};

static void wait_ended(void *arg, int r)
{
        struct wait_end *w = arg;

        pthread_mutex_lock(&w->lock);
        w->ended = true;
        w->r = r;
        pthread_cond_signal(&w->cond);
        pthread_mutex_unlock(&w->lock);
}

static int wait_for(uint64_t no, const char *state)
{
        struct wait_end w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
        struct waiter *handle;
        struct err *e = NULL;
        int r = say(control_wait(fake.c, &root, no, state, 10000000, wait_ended, &w, &handle, &e),
                    &e);

        if (r < 0)
                return r;
        pthread_mutex_lock(&w.lock);
        while (!w.ended)
                pthread_cond_wait(&w.cond, &w.lock);
        pthread_mutex_unlock(&w.lock);
        return w.r;
}

static uint64_t used(const char *what)
{
        struct buf b = {};
        const char *p;
        uint64_t v;

        control_rdlock(fake.c);
        kind_tenant.files[kind_file(&kind_tenant, "usage")].render(
                fake.c, model_by_no(fake.c, fake.owner), &b);
        control_unlock(fake.c);
        p = strstr(b.data, what);
        assert_non_null(p);
        v = strtoull(p + strlen(what), NULL, 10);
        buf_done(&b);
        return v;
}

static const char *state_of(uint64_t no)
{
        struct object *o;
        const char *s;

        control_rdlock(fake.c);
        o = model_by_no(fake.c, no);
        s = o ? object_state(o) : "gone";
        control_unlock(fake.c);
        return s;
}

#define assert_words(text) assert_non_null(strstr(err_msg(last), (text)))

static uint64_t volume(const char *name)
{
        uint64_t no = make(&kind_volume, name);

        assert_int_equal(set(no, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(no, "available"), 0);
        return no;
}

/* --- tests -------------------------------------------------------------------------------------- */

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

static void set_volume_error(int code)
{
        WITH_LOCK(&fake.lock);
        fake.volume_error = code;
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

static void test_bad_values(void **state)
{
        static const char *const bad[] = {"0", "-1", "1Z", "10 G B", "\xff\xfe", "", "99999999999T",
                                          "1.5G"};
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
        assert_int_equal(say(control_create(fake.c, &root, fake.owner, &kind_volume, "a", &no, &e),
                             &e), -EEXIST);
        assert_int_equal(say(control_create(fake.c, &root, fake.owner, &kind_volume, "-x", &no,
                                            &e), &e), -EINVAL);
        assert_int_equal(say(control_create(fake.c, &stranger, fake.owner, &kind_volume, "x", &no,
                                            &e), &e), -EPERM);
        assert_int_equal(say(control_create(fake.c, &stranger, OBJECT_CLOUD, &kind_flavor, "x",
                                            &no, &e), &e), -EPERM);
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

static void test_quota(void **state)
{
        int q = kind_file(&kind_tenant, "quota");
        struct err *e = NULL;
        uint64_t no;

        assert_int_equal(control_write_line(fake.c, &root, fake.owner, q, "volumes limit=1", 15,
                                            NULL), 0);
        volume("one");
        assert_int_equal(say(control_create(fake.c, &root, fake.owner, &kind_volume, "two", &no,
                                            &e), &e), -EDQUOT);
        assert_words("limit=1 used=1 wanted=1");
        assert_int_equal(used("volumes "), 1);
        assert_int_equal(say(control_write_line(fake.c, &root, fake.owner, q, "volume limit=1", 14,
                                                &e), &e), -EINVAL);
        assert_int_equal(control_write_line(fake.c, &root, fake.owner, q, "volumes limit=max", 17,
                                            NULL), 0);
        make(&kind_volume, "two");
}

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

static uint64_t told(void)
{
        WITH_LOCK(&fake.lock);
        return fake.grown;
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
        c_off(NULL, id, NULL);
        control_guest_changed(fake.c, id);
        assert_int_equal(wait_for(i, "stopped"), 0);
}

static void test_link_targets(void **state)
{
        static const struct {
                const char *target;
                int r;
        } cases[] = {
                {"volumes/none", -ENOENT},       {"", -ENOENT},
                {"images", -ENOENT},             {"instances/web", -EINVAL},
                {"../../../../acme/volumes/x", -EPERM}, {"/etc/passwd", -ENOENT},
                {"../../../../../../../..", -ENOENT},   {"/cloud/tenants/default/volumes/v", 0},
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

        assert_int_equal(control_new(fake.c, &root, fake.owner, &kind_volume, words,
                                     strlen(words), &one, NULL), 0);
        assert_int_equal(control_new(fake.c, &root, fake.owner, &kind_volume, words,
                                     strlen(words), &two, NULL), 0);
        assert_string_equal(one, two); /* a retry with its token */
        control_rdlock(fake.c);
        o = model_by_name(fake.c, model_by_no(fake.c, fake.owner), &kind_volume, "v1");
        assert_non_null(o);
        no = o->no;
        control_unlock(fake.c);
        assert_int_equal(wait_for(no, "available"), 0);
        assert_int_equal(say(control_apply(fake.c, &root, no, bad, strlen(bad), NULL, &e), &e), -EINVAL);
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

static void test_image(void **state)
{
        uint64_t no, v = make(&kind_volume, "clone");
        struct err *e = NULL;
        struct data *d;

        assert_int_equal(control_upload(fake.c, &root, fake.owner, "debian.qcow2", &no, &d, &e), 0);
        assert_string_equal(state_of(no), "saving");
        /* a clone asked for while the bytes arrive waits for them */
        assert_int_equal(link_to(v, &kind_volume, "source", "source", "../../images/debian"), 0);
        assert_int_equal(data_pwrite(fake.c, d, "x", 1, 0, NULL), 0);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(wait_for(no, "active"), 0);
        assert_int_equal(wait_for(v, "available"), 0);
        assert_int_equal(fake.clones, 1);
        assert_int_equal(control_open_data(fake.c, &root, no, 0, O_WRONLY, &d, &e), -EBUSY);
        err_free(e);
        assert_int_equal(drop(no), 0); /* the clone lives on */
        wait_for(no, "gone");
        assert_string_equal(state_of(v), "available");
}

static void test_cut_upload(void **state)
{
        struct data *d;
        uint64_t no;

        assert_int_equal(control_upload(fake.c, &root, fake.owner, "cut.raw", &no, &d, NULL), 0);
        data_pwrite(fake.c, d, "x", 1, 0, NULL);
        control_close_data(fake.c, d, "its writer was killed by a signal");
        assert_string_equal(state_of(no), "error");
        control_rdlock(fake.c);
        assert_non_null(strstr(model_by_no(fake.c, no)->error, "killed by a signal"));
        control_unlock(fake.c);
}

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

static void *create_many(void *arg)
{
        char name[32];
        uint64_t no;

        for (int i = 0; i < 50; i++) {
                snprintf(name, sizeof(name), "t%ld-%d", (long)arg, i);
                assert_int_equal(control_create(fake.c, &root, fake.owner, &kind_volume, name, &no,
                                                NULL), 0);
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

/* The size comes with the image, after the quota was asked: the job ends all the same. */
static void test_quota_at_the_end(void **state)
{
        int q = kind_file(&kind_tenant, "quota");
        uint64_t no, v = make(&kind_volume, "clone");
        struct data *d;

        assert_int_equal(control_write_line(fake.c, &root, fake.owner, q, "volume_size limit=4096", 22,
                                            NULL), 0);
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

        assert_int_equal(control_write_line(fake.c, &root, fake.owner, q, "image_size limit=8", 18,
                                            NULL), 0);
        assert_int_equal(control_upload(fake.c, &root, fake.owner, "x.raw", &no, &d, NULL), 0);
        assert_int_equal(data_pwrite(fake.c, d, "12345678", 8, 0, NULL), 0);
        assert_int_equal(say(data_pwrite(fake.c, d, "9", 1, 8, &e), &e), -EDQUOT);
        assert_words("image_size limit=8");
        control_close_data(fake.c, d, NULL);
        assert_string_equal(state_of(no), "error");
}

/* A deletion that failed can be asked for again, by id. */
static void test_delete_again(void **state)
{
        uint64_t v = volume("v");

        fake.remove_error = -EIO;
        assert_int_equal(drop(v), 0);
        assert_int_equal(wait_for(v, "gone"), -EIO);
        fake.remove_error = 0;
        assert_int_equal(drop(v), 0);
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

static uint64_t stored(uint64_t no, const char *attr)
{
        uint64_t v;

        control_rdlock(fake.c);
        v = object_num(model_by_no(fake.c, no), attr);
        control_unlock(fake.c);
        return v;
}

/* Until no job is live that targets it. */
static void settle(uint64_t no)
{
        for (bool busy = true; busy; sched_yield()) {
                control_rdlock(fake.c);
                busy = model_by_no(fake.c, no)->jobs > 0;
                control_unlock(fake.c);
        }
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

static uint64_t make_type(const char *name)
{
        uint64_t no = 0;

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_volume_type, name, &no,
                                        NULL), 0);
        return no;
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
        assert_int_equal(say(control_set(fake.c, &member, v, kind_attr(&kind_volume, "type"),
                                         "fast", 4, &e), &e), 0);
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
        assert_int_equal(say(control_set(fake.c, &member, w, kind_attr(&kind_volume, "type"),
                                         "fast", 4, &e), &e), -EPERM);
        assert_words("admins only");
        assert_int_equal(say(control_set(fake.c, &member, fast, kind_attr(k, "iops"), "1", 1, &e),
                             &e), -EPERM);
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

static int quota(uint64_t tenant, const char *line)
{
        return control_write_line(fake.c, &root, tenant, kind_file(&kind_tenant, "quota"), line,
                                  strlen(line), NULL);
}

static void test_transfer(void **state)
{
        uint64_t v = volume("v"), other = 0, w = 0;
        _cleanup_free_ char *key = NULL, *again = NULL, *none = NULL;

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other,
                                        NULL), 0);
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

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other,
                                        NULL), 0);
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

static struct data *open_to_write(uint64_t no)
{
        struct data *d = NULL;

        assert_int_equal(control_open_data(fake.c, &root, no, kind_file(&kind_volume, "data"),
                                           O_RDWR, &d, NULL), 0);
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

static void test_tenant_goes(void **state)
{
        uint64_t no, v;
        struct err *e = NULL;

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "acme", &no,
                                        NULL), 0);
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

        assert_int_equal(control_apply(fake.c, &stranger, v, meta, strlen(meta), NULL, NULL), -EPERM);
        assert_int_equal(control_set_meta(fake.c, &stranger, v, "k", "v", 1, NULL), -EPERM);
        assert_int_equal(control_open_data(fake.c, &stranger, v, 0, O_RDONLY, &d, NULL), -EPERM);
        assert_int_equal(control_set(fake.c, &stranger, v, 0, "2M", 2, NULL), -EPERM);
        assert_int_equal(control_verb(fake.c, &stranger, i, "start", 5, NULL), -EPERM);
        assert_int_equal(control_delete(fake.c, &stranger, v, NULL), -EPERM);
        assert_int_equal(control_rename(fake.c, &stranger, v, "w", NULL), -EPERM);
        assert_int_equal(control_link(fake.c, &stranger, i, 0, "vda", "volumes/v", canonical, NULL),
                         -EPERM);
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
        assert_int_equal(say(control_create(fake.c, &root, fake.owner, &kind_volume, "w", &no, &e),
                             &e), -ENOSPC);
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
        assert_int_equal(say(control_create(fake.c, &root, fake.owner, &kind_backup, "c", &no, &e),
                             &e), -EDQUOT);
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

/* An encrypted volume takes its key along; where that fails it stays with its owner's. */
static void test_transfer_encrypted(void **state)
{
        uint64_t v = make(&kind_volume, "v"), other = 0, w = 0, plain = volume("plain"), c;
        _cleanup_free_ char *key = NULL, *open = NULL;
        char owner[ID_TEXT_SIZE], id[ID_TEXT_SIZE], first[PASSPHRASE_SIZE], other_id[ID_TEXT_SIZE];

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_tenant, "other", &other,
                                        NULL), 0);
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
                                                 strlen(text), &line, &e), &e), -EINVAL);
        }
        assert_words("not encrypted");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(test_volume_life), T(test_snapshot_first),  T(test_bad_values),   T(test_names),
                T(test_failed_create), T(test_snapshot_all), T(test_quota), T(test_quota_of_copies),       T(test_instance_life),
                T(test_start_fails),  T(test_guest_leaves), T(test_live_growth), T(test_link_targets),
                T(test_new_and_spec), T(test_illegal_verbs), T(test_image),
                T(test_cut_upload),   T(test_restart),      T(test_many_threads),
                T(test_store_refuses), T(test_quota_at_the_end), T(test_upload_quota),
                T(test_delete_again), T(test_stranger), T(test_limits), T(test_limit_at_the_end),
                T(test_figures), T(test_tenant_goes),
                T(test_delete_again), T(test_stranger), T(test_limits), T(test_types), T(test_multi_attach),
                T(test_boot_order), T(test_transfer), T(test_transfer_encrypted), T(test_transfer_cut), T(test_adopt),
                T(test_figures), T(test_tenant_goes),
                T(test_blockd_away),
        };
        int r = cmocka_run_group_tests(tests, make_dir, remove_dir);

        err_free(last);
        return r;
}
