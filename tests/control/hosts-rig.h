/* Several hosts in one process: each a control with drivers of its own that remember, all on one
 * store in memory.  A host can be cut off from the store, as a partition would do it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/store/memory/memory.h"
#include "common/fileio.h"
#include "control/hosts.h"
#include "control/jobs/jobs.h"

enum { HOSTS = 3, GUESTS = 64, PATIENCE_S = 20 };

struct guests_of {
        char v[GUESTS][ID_TEXT_SIZE];
        unsigned n;
};

struct rig_host {
        char name[16];
        struct control *c;
        uint64_t epoch; /* of the life that was stopped */
        /* The store as this host sees it. */
        struct store store;
        struct store *real;
        bool cut;
        void (*changed)(void *arg, const char *scope, const struct store_record *v, size_t n,
                        bool whole, uint64_t now);
        void *arg;
        /* Its drivers, and what they hold. */
        struct compute compute;
        struct volume_service volumes;
        struct image_service images;
        struct host_fence fence;
        struct network_service network;
        unsigned networks;  /* that it was last told to have */
        uint32_t elsewhere; /* the host that guests of these are on, too */
        struct guests_of running, exports;
        unsigned creates;
        bool hold;                     /* volumes wait in create */
        unsigned given_up, taken_back; /* volumes, by guests that move */
        struct guests_of between;      /* guests that run, and are halted for a move */
        bool leased_at_start;          /* at every start of a guest so far this host had a lease */
};

/* What becomes of guests that move while they run. */
enum ferry {
        FERRY_GOES,
        FERRY_SINKS,  /* they stay, and the engine says why */
        FERRY_SILENT, /* they went, and the engine's answer is lost */
        FERRY_STUCK,  /* they are halted, and its answer is lost */
        FERRY_WAITS,  /* on the way, until this changes */
        FERRY_ISLAND, /* they went, and the call waits until this changes */
};

static struct rig {
        enum ferry ferry;
        bool under_way; /* one waits */
        pthread_mutex_t lock;
        pthread_cond_t pulse; /* something happened anywhere */
        struct rig_host h[HOSTS];
        unsigned lease_ms;
        unsigned starts, held, fences, fence_refusals;
        uint64_t fenced[16]; /* epochs, in order */
        bool twice;          /* a guest was started while it ran on an unfenced host */
        char dir[32];
} rig;

static const struct caller root = {0, 0, 0};

static void pulse(void)
{
        WITH_LOCK(&rig.lock);
        pthread_cond_broadcast(&rig.pulse);
}

static void on_change(void *arg, const struct change *ch)
{
        pulse();
}

/* --- drivers ---------------------------------------------------------------------------------- */

static int find_id(const struct guests_of *g, const char *id)
{
        for (unsigned i = 0; i < g->n; i++)
                if (streq(g->v[i], id))
                        return i;
        return -1;
}

static void add_id(struct guests_of *g, const char *id)
{
        if (find_id(g, id) >= 0)
                return;
        assert_true(g->n < GUESTS);
        snprintf(g->v[g->n++], ID_TEXT_SIZE, "%s", id);
}

static void drop_id(struct guests_of *g, const char *id)
{
        int i = find_id(g, id);

        if (i >= 0)
                memmove(g->v[i], g->v[--g->n], ID_TEXT_SIZE);
}

#define HOST_OF(member, p) ((struct rig_host *)((char *)(p)-offsetof(struct rig_host, member)))

static bool is_fenced(const struct rig_host *h)
{
        for (unsigned i = 0; i < rig.fences; i++)
                if (rig.fenced[i] == (h->c ? h->c->epoch : h->epoch))
                        return true;
        return false;
}

static int c_start(struct compute *p, const struct guest *g, struct err **e)
{
        struct rig_host *h = HOST_OF(compute, p);
        WITH_LOCK(&rig.lock);

        for (struct rig_host *o = rig.h; o < rig.h + HOSTS; o++)
                if (o != h && find_id(&o->running, g->uuid) >= 0 && !is_fenced(o))
                        rig.twice = true;
        add_id(&h->running, g->uuid);
        if (h->c) /* else it is being stopped */
                h->leased_at_start = h->leased_at_start && lease_holds(h->c);
        rig.starts++;
        rig.held += g->held;
        pthread_cond_broadcast(&rig.pulse);
        return 0;
}

static int c_destroy(struct compute *p, const char *uuid, struct err **e)
{
        struct rig_host *h = HOST_OF(compute, p);
        WITH_LOCK(&rig.lock);

        drop_id(&h->running, uuid);
        pthread_cond_broadcast(&rig.pulse);
        return 0;
}

static int c_state(struct compute *p, const char *uuid, enum guest_state *ret, struct err **e)
{
        WITH_LOCK(&rig.lock);
        *ret = find_id(&HOST_OF(compute, p)->between, uuid) >= 0   ? GUEST_BETWEEN
               : find_id(&HOST_OF(compute, p)->running, uuid) >= 0 ? GUEST_RUNNING
                                                                   : GUEST_GONE;
        return 0;
}

static int c_list(struct compute *p, int (*each)(void *arg, const char *uuid, enum guest_state s),
                  void *arg, struct err **e)
{
        struct guests_of g;

        pthread_mutex_lock(&rig.lock);
        g = HOST_OF(compute, p)->running;
        pthread_mutex_unlock(&rig.lock);
        for (unsigned i = 0; i < g.n; i++)
                each(arg, g.v[i], GUEST_RUNNING);
        return 0;
}

static int c_describe(struct compute *p, const char *uuid, char **ret, struct err **e)
{
        *ret = strdup("<domain/>");
        return 0;
}

static int c_save(struct compute *p, const char *uuid, const char *path,
                  const struct compute_watch *w, struct err **e)
{
        int r = file_replace(path, "memory", 6, 0600, e);

        return r < 0 ? r : c_destroy(p, uuid, e);
}

static int c_restore(struct compute *p, const char *uuid, const char *path, struct err **e)
{
        struct guest g = {};

        if (access(path, F_OK) < 0)
                return err_set(e, -ENOENT, "no memory");
        snprintf(g.uuid, sizeof(g.uuid), "%s", uuid);
        return c_start(p, &g, e);
}

static int c_resume(struct compute *p, const char *uuid, struct err **e)
{
        WITH_LOCK(&rig.lock);
        drop_id(&HOST_OF(compute, p)->between, uuid);
        return 0;
}

/* The host's name is in the middle of "qemu+tls://NAME/system". */
static struct rig_host *other_end(const char *uri)
{
        for (struct rig_host *h = rig.h; h < rig.h + HOSTS; h++)
                if (h->name[0] &&
                    strncmp(uri + strlen("qemu+tls://"), h->name, strlen(h->name)) == 0)
                        return h;
        return NULL;
}

/* Whether to go on waiting. */
static bool ferry_waits(const struct guest_move *m, enum ferry f)
{
        struct timespec ts = clock_timespec(clock_mono() + 20000);

        if (m->progress(m->arg, 1, 2) != 0)
                return false;
        WITH_LOCK(&rig.lock);
        rig.under_way = true;
        if (rig.ferry == f)
                pthread_cond_timedwait(&rig.pulse, &rig.lock, &ts);
        return rig.ferry == f;
}

static void ferry_over(struct rig_host *h, struct rig_host *to, const char *uuid)
{
        WITH_LOCK(&rig.lock);
        drop_id(&h->running, uuid);
        add_id(&to->running, uuid);
        pthread_cond_broadcast(&rig.pulse);
}

static int c_migrate(struct compute *p, const char *uuid, const struct guest_move *m,
                     struct err **e)
{
        struct rig_host *h = HOST_OF(compute, p), *to = other_end(m->to);
        enum ferry f = rig.ferry;

        assert_non_null(to);
        while (f == FERRY_WAITS && ferry_waits(m, f))
                ;
        if (f == FERRY_WAITS && m->progress(m->arg, 1, 2) != 0)
                return err_set(e, -ECANCELED, "cancelled");
        f = f == FERRY_WAITS ? rig.ferry : f;
        if (f == FERRY_SINKS)
                return err_set(e, -EIO, "told to fail");
        m->halted(m->arg);
        if (f == FERRY_STUCK) {
                WITH_LOCK(&rig.lock);
                add_id(&h->between, uuid);
                return err_set(e, -EIO, "told to be stuck");
        }
        ferry_over(h, to, uuid);
        while (f == FERRY_ISLAND && ferry_waits(m, f))
                ;
        return f == FERRY_SILENT ? err_set(e, -EIO, "told to be silent") : 0;
}

static const struct compute_ops compute_ops = {.name = "fake",
                                               .start = c_start,
                                               .shutdown = c_destroy,
                                               .destroy = c_destroy,
                                               .describe = c_describe,
                                               .save = c_save,
                                               .restore = c_restore,
                                               .resume = c_resume,
                                               .state = c_state,
                                               .list = c_list,
                                               .pause = c_resume,
                                               .migrate = c_migrate};

static int open_compute(void *arg, struct compute **ret, struct err **e)
{
        *ret = &((struct rig_host *)arg)->compute;
        return 0;
}

static int v_ping(struct volume_service *s, struct err **e)
{
        return 0;
}

static int v_create(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        struct rig_host *h = HOST_OF(volumes, s);
        WITH_LOCK(&rig.lock);

        h->creates++;
        pthread_cond_broadcast(&rig.pulse);
        while (h->hold)
                pthread_cond_wait(&rig.pulse, &rig.lock);
        return 0;
}

static int v_ok(struct volume_service *s, const char *id, struct err **e)
{
        return 0;
}

static int v_limits(struct volume_service *s, const char *id, const struct volume_limits *l,
                    struct err **e)
{
        return 0;
}

static int v_list(struct volume_service *s, int (*each)(void *arg, const struct volume_facts *f),
                  void *arg, struct err **e)
{
        return 0;
}

static int v_stats(struct volume_service *s, int (*each)(void *arg, const struct volume_stats *v),
                   void *arg, struct err **e)
{
        return 0;
}

static int v_stat(struct volume_service *s, const char *id, struct volume_facts *ret,
                  struct err **e)
{
        *ret = (struct volume_facts){.size = 1 << 20};
        return 0;
}

static int v_export(struct volume_service *s, const struct volume_export *x, char **ret,
                    struct err **e)
{
        WITH_LOCK(&rig.lock);
        add_id(&HOST_OF(volumes, s)->exports, x->id);
        *ret = strdup("/socket");
        return 0;
}

static int v_unexport(struct volume_service *s, const char *id, struct err **e)
{
        WITH_LOCK(&rig.lock);
        drop_id(&HOST_OF(volumes, s)->exports, id);
        return 0;
}

static int v_activate(struct volume_service *s, const char *id, bool active, struct err **e)
{
        WITH_LOCK(&rig.lock);
        if (active)
                HOST_OF(volumes, s)->taken_back++;
        else
                HOST_OF(volumes, s)->given_up++;
        return 0;
}

static int v_list_exports(struct volume_service *s,
                          int (*each)(void *arg, const char *id, const char *volume), void *arg,
                          struct err **e)
{
        struct guests_of g;

        pthread_mutex_lock(&rig.lock);
        g = HOST_OF(volumes, s)->exports;
        pthread_mutex_unlock(&rig.lock);
        for (unsigned i = 0; i < g.n; i++)
                each(arg, g.v[i], "");
        return 0;
}

static const struct volume_service_ops volume_ops = {.name = "fake",
                                                     .ping = v_ping,
                                                     .create = v_create,
                                                     .remove = v_ok,
                                                     .set_limits = v_limits,
                                                     .stats = v_stats,
                                                     .stat = v_stat,
                                                     .list = v_list,
                                                     .export = v_export,
                                                     .unexport = v_unexport,
                                                     .activate = v_activate,
                                                     .list_exports = v_list_exports};

static const struct image_service_ops image_ops = {.name = "fake"};

static int n_apply(struct network_service *s, const struct net_plan *p, struct err **e)
{
        WITH_LOCK(&rig.lock);
        HOST_OF(network, s)->networks = p->nnetworks;
        HOST_OF(network, s)->elsewhere = 0;
        for (unsigned i = 0; i < p->nnetworks; i++)
                for (unsigned k = 0; k < p->networks[i].nports; k++)
                        HOST_OF(network, s)->elsewhere |= p->networks[i].ports[k].host;
        pthread_cond_broadcast(&rig.pulse);
        return 0;
}

static const struct network_ops network_ops = {.name = "fake", .apply = n_apply};

static int open_network(void *arg, struct network_service **ret, struct err **e)
{
        *ret = &((struct rig_host *)arg)->network;
        return 0;
}

static int f_clients(struct host_fence *f, char **ret, struct err **e)
{
        if (asprintf(ret, "client of %s", HOST_OF(fence, f)->name) < 0)
                abort();
        return 0;
}

static int f_fence(struct host_fence *f, const char *host, uint64_t epoch, const char *clients,
                   struct err **e)
{
        char expected[32];

        pthread_mutex_lock(&rig.lock);
        snprintf(expected, sizeof(expected), "client of %s", host);
        if (rig.fence_refusals) {
                rig.fence_refusals--;
                pthread_mutex_unlock(&rig.lock);
                return err_set(e, -ETIMEDOUT, "told to fail");
        }
        if (!streq(clients, expected) || rig.fences == ARRAY_SIZE(rig.fenced)) {
                /* An assertion would have no test to fail in this thread. */
                fprintf(stderr, "fence %u of '%s': clients '%s'\n", rig.fences, host, clients);
                abort();
        }
        rig.fenced[rig.fences++] = epoch;
        pthread_cond_broadcast(&rig.pulse);
        pthread_mutex_unlock(&rig.lock);
        return 0;
}

static const struct host_fence_ops fence_ops = {
        .name = "fake", .clients = f_clients, .fence = f_fence};

/* --- a store that can be cut off -------------------------------------------------------------- */

static struct rig_host *of_store(struct store *s)
{
        return HOST_OF(store, s);
}

static bool is_cut(struct rig_host *h)
{
        WITH_LOCK(&rig.lock);
        return h->cut;
}

static void *time_out_main(void *arg)
{
        struct store_txn *t = arg;
        struct err *e = NULL;

        err_set(&e, -ETIMEDOUT, "cut off");
        t->done(t->arg, STORE_FAILED, e);
        err_free(e);
        store_txn_free(t);
        return NULL;
}

static void s_commit(struct store *s, struct store_txn *t)
{
        struct rig_host *h = of_store(s);
        pthread_t thread;

        if (!is_cut(h)) {
                h->real->ops->commit(h->real, t);
                return;
        }
        pthread_create(&thread, NULL, time_out_main, t);
        pthread_detach(thread);
}

static int s_load(struct store *s, int (*each)(void *arg, const struct store_record *r), void *arg,
                  struct err **e)
{
        return of_store(s)->real->ops->load(of_store(s)->real, each, arg, e);
}

static int s_epoch(struct store *s, uint64_t *ret, struct err **e)
{
        return of_store(s)->real->ops->epoch(of_store(s)->real, ret, e);
}

static void heard(void *arg, const char *scope, const struct store_record *v, size_t n, bool whole,
                  uint64_t now)
{
        struct rig_host *h = arg;

        if (!is_cut(h))
                h->changed(h->arg, scope, v, n, whole, now);
}

static int s_watch(struct store *s,
                   void (*changed)(void *arg, const char *scope, const struct store_record *v,
                                   size_t n, bool whole, uint64_t now),
                   void *arg, struct err **e)
{
        struct rig_host *h = of_store(s);

        if (changed) {
                h->changed = changed;
                h->arg = arg;
        }
        return h->real->ops->watch(h->real, changed ? heard : NULL, h, e);
}

static void s_applied(struct store *s, const char *scope, uint64_t now)
{
        of_store(s)->real->ops->applied(of_store(s)->real, scope, now);
}

static int s_fence(struct store *s, uint64_t epoch, struct err **e)
{
        return of_store(s)->real->ops->fence(of_store(s)->real, epoch, e);
}

static int s_changes(struct store *s, const char *scope, uint64_t since,
                     int (*each)(void *arg, const struct store_record *r), void *arg,
                     uint64_t *ret_now, struct err **e)
{
        struct store *real = of_store(s)->real;

        return real->ops->changes(real, scope, since, each, arg, ret_now, e);
}

static int s_numbers(struct store *s, uint64_t at_least, uint64_t n, uint64_t *ret, struct err **e)
{
        return of_store(s)->real->ops->numbers(of_store(s)->real, at_least, n, ret, e);
}

static const struct store_ops store_ops = {.name = "rig",
                                           .load = s_load,
                                           .commit = s_commit,
                                           .epoch = s_epoch,
                                           .changes = s_changes,
                                           .watch = s_watch,
                                           .applied = s_applied,
                                           .numbers = s_numbers,
                                           .fence = s_fence};

static void cut(struct rig_host *h)
{
        WITH_LOCK(&rig.lock);
        h->cut = true;
}

/* A new handle, as a driver that was fenced connects anew: it is told everything. */
static void heal(struct rig_host *h)
{
        struct store *old = h->real;

        old->ops->watch(old, NULL, NULL, NULL);
        pthread_mutex_lock(&rig.lock);
        h->real = store_memory_join(old);
        h->cut = false;
        pthread_mutex_unlock(&rig.lock);
        h->real->ops->watch(h->real, heard, h, NULL);
        old->ops->close(old);
}

/* --- the cloud -------------------------------------------------------------------------------- */

static void start_host(struct rig_host *h)
{
        struct control_config cfg = {.store = &h->store,
                                     .volumes = &h->volumes,
                                     .images = &h->images,
                                     .compute = open_compute,
                                     .network = open_network,
                                     .arg = h,
                                     .fence = &h->fence,
                                     .lease_ms = rig.lease_ms,
                                     .mount = "/cloud",
                                     .state = rig.dir,
                                     .run = rig.dir,
                                     .host = h->name,
                                     .uid = 1000, /* no groupadd */
                                     .gid = 1000};
        struct err *err = NULL;

        if (control_start(&cfg, &h->c, &err) < 0)
                fail_msg("%s: %s", h->name, err_msg(err));
        control_on_change(h->c, on_change, NULL);
}

static void stop_host(struct rig_host *h)
{
        struct control *c = h->c;

        h->epoch = c->epoch;
        h->c = NULL;
        assert_true(host_sums_right(c));
        control_stop(c);
}

static struct rig_host *add_host(unsigned i, const char *name)
{
        struct rig_host *h = &rig.h[i];

        *h = (struct rig_host){.store = {.ops = &store_ops},
                               .real = i ? store_memory_join(rig.h[0].real)
                                         : store_memory_new_shared(),
                               .compute = {.ops = &compute_ops},
                               .volumes = {.ops = &volume_ops, .shared_socket = "/s"},
                               .images = {.ops = &image_ops},
                               .fence = {.ops = &fence_ops},
                               .network = {.ops = &network_ops},
                               .leased_at_start = true};
        snprintf(h->name, sizeof(h->name), "%s", name);
        start_host(h);
        assert_int_equal(control_host_set(h->c, "embed", "tcg", NULL), 0);
        return h;
}

static int rig_teardown(void **state)
{
        for (int i = HOSTS - 1; i >= 0; i--) { /* the store's first handle last */
                if (!rig.h[i].name[0])
                        continue;
                if (rig.h[i].c)
                        stop_host(&rig.h[i]);
        }
        for (int i = HOSTS - 1; i >= 0; i--)
                if (rig.h[i].real)
                        rig.h[i].real->ops->close(rig.h[i].real);
        pthread_cond_destroy(&rig.pulse);
        return remove_tree(rig.dir, NULL);
}

/* --- looking ---------------------------------------------------------------------------------- */

/* The object of that kind and name as host h sees it; the model is read-locked on return. */
static struct object *look(struct rig_host *h, const struct kind *k, const char *name)
{
        control_rdlock(h->c);
        return model_by_name(h->c,
                             k->global ? NULL : model_by_name(h->c, NULL, &kind_tenant, "default"),
                             k, name);
}

static bool is(struct rig_host *h, const struct kind *k, const char *name, const char *state)
{
        struct object *o = look(h, k, name);
        bool yes = streq(o ? object_state(o) : "gone", state);

        control_unlock(h->c);
        return yes;
}

static bool has(struct rig_host *h, const struct kind *k, const char *name, const char *attr,
                const char *value)
{
        struct object *o = look(h, k, name);
        bool yes = o && streq(object_str(o, attr), value);

        control_unlock(h->c);
        return yes;
}

static uint64_t number(struct rig_host *h, const struct kind *k, const char *name)
{
        struct object *o = look(h, k, name);
        uint64_t no = o ? o->no : 0;

        control_unlock(h->c);
        return no;
}

/* What a failure is read from: every live job and every instance, as each host sees it. */
static void dump(void)
{
        for (struct rig_host *h = rig.h; h < rig.h + HOSTS; h++) {
                if (!h->c)
                        continue;
                control_rdlock(h->c);
                for (struct object *o = h->c->by_no; o; o = o->hh_no.next)
                        if (o->kind == &kind_instance || o->kind == &kind_host ||
                            (o->kind == &kind_job && o->state <= 1))
                                print_error("%s sees %s %s rev %lu %s host=%s %s step %lu\n",
                                            h->name, o->kind->name, o->name, (unsigned long)o->rev,
                                            object_state(o),
                                            o->kind == &kind_host ? "" : object_str(o, "host"),
                                            o->kind == &kind_job ? object_str(o, "op") : "",
                                            o->kind == &kind_job
                                                    ? (unsigned long)object_num(o, "step")
                                                    : 0);
                control_unlock(h->c);
        }
}

/* Waits for an event after which the condition is true. */
#define AWAIT(condition)                                                                           \
        do {                                                                                       \
                int64_t until_ = clock_mono() + PATIENCE_S * 1000000LL;                            \
                while (!(condition)) {                                                             \
                        struct timespec ts_ = clock_timespec(clock_mono() + 20000);                \
                        if (clock_mono() > until_)                                                 \
                                dump();                                                            \
                        if (clock_mono() > until_)                                                 \
                                fail_msg("not within %d s: %s", PATIENCE_S, #condition);           \
                        pthread_mutex_lock(&rig.lock);                                             \
                        pthread_cond_timedwait(&rig.pulse, &rig.lock, &ts_);                       \
                        pthread_mutex_unlock(&rig.lock);                                           \
                }                                                                                  \
        } while (0)

#define AWAIT_STATE(h, k, name, state) AWAIT(is(h, k, name, state))

static int rig_start(unsigned lease_ms)
{
        pthread_condattr_t a;

        rig = (struct rig){.lock = PTHREAD_MUTEX_INITIALIZER,
                           .lease_ms = lease_ms,
                           .dir = "/tmp/test-hosts-XXXXXX"};
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&rig.pulse, &a);
        pthread_condattr_destroy(&a);
        if (!mkdtemp(rig.dir))
                return -1;
        add_host(0, "a");
        add_host(1, "b");
        AWAIT(has(&rig.h[0], &kind_host, "b", "accel", "tcg") &&
              has(&rig.h[1], &kind_host, "a", "accel", "tcg"));
        return 0;
}

/* Nobody is found dead. */
static int rig_setup(void **state)
{
        return rig_start(60000);
}

/* One that is cut off is found dead soon. */
static int rig_setup_short(void **state)
{
        return rig_start(1000);
}

/* --- doing ------------------------------------------------------------------------------------ */

static uint64_t make(struct rig_host *h, const struct kind *k, const char *name)
{
        uint64_t no = 0, owner = number(h, &kind_tenant, "default");
        struct err *e = NULL;

        if (control_create(h->c, &root, owner, k, name, &no, &e) < 0)
                fail_msg("mkdir %s on %s: %s", name, h->name, err_msg(e));
        return no;
}

static int set(struct rig_host *h, const struct kind *k, const char *name, const char *attr,
               const char *text)
{
        return control_set(h->c, &root, number(h, k, name), kind_attr(k, attr), text, strlen(text),
                           NULL);
}

static int verb(struct rig_host *h, const struct kind *k, const char *name, const char *text)
{
        return control_verb(h->c, &root, number(h, k, name), text, strlen(text), NULL);
}

/* An attribute that nobody may write. */
static int force(struct rig_host *h, const struct kind *k, const char *name, const char *attr,
                 const char *text)
{
        struct txn t;

        txn_begin(&t, h->c, NULL);
        txn_set_str(
                &t,
                model_by_name(h->c,
                              k->global ? NULL : model_by_name(h->c, NULL, &kind_tenant, "default"),
                              k, name),
                attr, text);
        return txn_commit(&t, NULL);
}

/* In a pool that any host can open, or in h's own ("local"). */
static void make_volume(struct rig_host *h, const char *name, const char *pool)
{
        make(h, &kind_volume, name);
        AWAIT(force(h, &kind_volume, name, "pool", pool) == 0);
        assert_int_equal(set(h, &kind_volume, name, "size", "1M"), 0);
}

/* An instance with a volume of its own, NAME-v. */
static void make_instance_in(struct rig_host *h, const char *name, const char *flavor,
                             const char *pool)
{
        char volume[NAME_SIZE], target[2 * NAME_SIZE], link[NAME_SIZE];
        uint64_t no;

        snprintf(volume, sizeof(volume), "%s-v", name);
        make_volume(h, volume, pool);
        AWAIT_STATE(h, &kind_volume, volume, "available");
        no = make(h, &kind_instance, name);
        assert_int_equal(set(h, &kind_instance, name, "flavor", flavor), 0);
        snprintf(target, sizeof(target), "volumes/%s", volume);
        assert_int_equal(control_link(h->c, &root, no, kind_link(&kind_instance, "volumes"), "vda",
                                      target, link, NULL),
                         0);
}

static void make_instance(struct rig_host *h, const char *name, const char *flavor)
{
        make_instance_in(h, name, flavor, "shared");
}

static unsigned running(struct rig_host *h)
{
        WITH_LOCK(&rig.lock);
        return h->running.n;
}
