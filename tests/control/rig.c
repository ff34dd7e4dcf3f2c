/* The cloud under test, and what users do in it. */
#include "rig.h"

#include "rig-fakes.h"

#include "control/hosts.h"

const struct caller root = {0, 0, 0}, stranger = {54321, 54321, 0};

static char dir[] = "/tmp/test-control-XXXXXX"; /* consoles of instances that never ran */

int (*rig_network)(void *arg, struct network_service **ret, struct err **e);

void start_control(void)
{
        struct control_config cfg = {.store = fake.store,
                                     .volumes = &fake.volumes,
                                     .images = &fake.images,
                                     .compute = open_fake_compute,
                                     .mount = "/cloud",
                                     .state = dir,
                                     .run = dir,
                                     .host = "here",
                                     .uid = 1000, /* no groupadd */
                                     .gid = 1000};
        struct err *err = NULL;

        cfg.network = rig_network;
        if (control_start(&cfg, &fake.c, &err) < 0)
                fail_msg("%s", err_msg(err));
        assert_int_equal(control_host_set(fake.c, "embed", "tcg", NULL), 0);
        control_rdlock(fake.c);
        fake.owner = model_by_name(fake.c, NULL, &kind_tenant, "default")->no;
        control_unlock(fake.c);
}

int rig_make_dir(void **state)
{
        return mkdtemp(dir) ? 0 : -1;
}

int rig_remove_dir(void **state)
{
        return remove_tree(dir, NULL);
}

void rig_drivers(void)
{
        fake = (struct fake){.volumes = {.ops = &fake_volume_ops, .shared_socket = "/s"},
                             .images = {.ops = &fake_image_ops},
                             .compute = {.ops = &fake_compute_ops},
                             .store = &refusing.store,
                             .lock = PTHREAD_MUTEX_INITIALIZER};
}

int rig_setup(void **state)
{
        rig_drivers();
        refusing = (struct refusing){.store = {.ops = &refusing_ops},
                                     .real = store_memory_new(),
                                     .lock = PTHREAD_MUTEX_INITIALIZER,
                                     .cond = PTHREAD_COND_INITIALIZER};
        start_control();
        return 0;
}

int rig_teardown(void **state)
{
        assert_true(host_sums_right(fake.c));
        control_stop(fake.c);
        fake.store->ops->close(fake.store);
        return 0;
}

struct err *last;

/* A pointer, as the error is made by the call that is the other argument. */
int say(int r, struct err **e)
{
        err_free(last);
        last = TAKE_PTR(*e);
        return r;
}

uint64_t make(const struct kind *k, const char *name)
{
        struct err *e = NULL;
        uint64_t no = 0;

        if (say(control_create(fake.c, &root, fake.owner, k, name, &no, &e), &e) < 0)
                fail_msg("mkdir %s: %s", name, err_msg(last));
        return no;
}

int set(uint64_t no, const struct kind *k, const char *attr, const char *text)
{
        struct err *e = NULL;

        return say(control_set(fake.c, &root, no, kind_attr(k, attr), text, strlen(text), &e), &e);
}

int link_to(uint64_t no, const struct kind *k, const char *def, const char *name,
            const char *target)
{
        char canonical[NAME_SIZE];
        struct err *e = NULL;

        return say(control_link(fake.c, &root, no, kind_link(k, def), name, target, canonical, &e),
                   &e);
}

int verb(uint64_t no, const char *text)
{
        struct err *e = NULL;

        return say(control_verb(fake.c, &root, no, text, strlen(text), &e), &e);
}

int drop(uint64_t no)
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

int wait_for(uint64_t no, const char *state)
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

uint64_t used(const char *what)
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

const char *state_of(uint64_t no)
{
        struct object *o;
        const char *s;

        control_rdlock(fake.c);
        o = model_by_no(fake.c, no);
        s = o ? object_state(o) : "gone";
        control_unlock(fake.c);
        return s;
}

uint64_t volume(const char *name)
{
        uint64_t no = make(&kind_volume, name);

        assert_int_equal(set(no, &kind_volume, "size", "1M"), 0);
        assert_int_equal(wait_for(no, "available"), 0);
        return no;
}

void set_volume_error(int code)
{
        WITH_LOCK(&fake.lock);
        fake.volume_error = code;
}

void guest_off(void)
{
        WITH_LOCK(&fake.lock);
        fake.running = false;
}

uint64_t told(void)
{
        WITH_LOCK(&fake.lock);
        return fake.grown;
}

uint64_t stored(uint64_t no, const char *attr)
{
        uint64_t v;

        control_rdlock(fake.c);
        v = object_num(model_by_no(fake.c, no), attr);
        control_unlock(fake.c);
        return v;
}

void settle(uint64_t no)
{
        for (bool busy = true; busy; sched_yield()) {
                control_rdlock(fake.c);
                busy = model_by_no(fake.c, no)->jobs > 0;
                control_unlock(fake.c);
        }
}

uint64_t make_type(const char *name)
{
        uint64_t no = 0;

        assert_int_equal(
                control_create(fake.c, &root, OBJECT_CLOUD, &kind_volume_type, name, &no, NULL), 0);
        return no;
}

int quota(uint64_t tenant, const char *line)
{
        return control_write_line(fake.c, &root, tenant, kind_file(&kind_tenant, "quota"), line,
                                  strlen(line), NULL);
}

int rig_done(int r)
{
        err_free(last);
        return r;
}
