/* Many hosts, one cloud: what one changes the others see; one host runs a guest, never two; a host
 * that dies is fenced and taken over; one that comes back stands down first. */
#include "hosts-rig.h"

#define A (&rig.h[0])
#define B (&rig.h[1])
#define C (&rig.h[2])

static void test_seen(void **state)
{
        make(A, &kind_volume, "v");
        AWAIT_STATE(B, &kind_volume, "v", "draft");
        assert_int_equal(set(B, &kind_volume, "v", "description", "from b"), 0);
        AWAIT(has(A, &kind_volume, "v", "description", "from b"));
        assert_int_equal(control_rename(A->c, &root, number(A, &kind_volume, "v"), "w", NULL), 0);
        AWAIT_STATE(B, &kind_volume, "w", "draft");
        assert_true(is(B, &kind_volume, "v", "gone"));
        assert_int_equal(control_delete(B->c, &root, number(B, &kind_volume, "w"), NULL), 0);
        AWAIT_STATE(A, &kind_volume, "w", "gone");
}

/* --- placement and claims ----------------------------------------------------------------------
 */

/* What the last job of that op says under `why`, as h sees it; the caller frees. */
static char *why(struct rig_host *h, const char *op, char host[NAME_SIZE])
{
        struct collection *l;
        char *text = NULL;

        control_rdlock(h->c);
        l = model_collection(h->c, model_by_name(h->c, NULL, &kind_tenant, "default"), &kind_job);
        for (size_t i = 0; i < l->n; i++) {
                if (!streq(object_str(l->v[i], "op"), op))
                        continue;
                free(text);
                text = strdup(object_str(l->v[i], "placed"));
                snprintf(host, NAME_SIZE, "%s", object_str(l->v[i], "host"));
        }
        control_unlock(h->c);
        return text ?: strdup("");
}

static void test_spread(void **state)
{
        _cleanup_free_ char *text = NULL;
        char host[NAME_SIZE] = "";

        make_instance(A, "i1", "small");
        assert_int_equal(verb(A, &kind_instance, "i1", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "i1", "active");
        assert_true(has(A, &kind_instance, "i1", "host", "a")); /* equal: the first name */
        make_instance(A, "i2", "small");
        assert_int_equal(verb(A, &kind_instance, "i2", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "i2", "active");
        assert_true(has(A, &kind_instance, "i2", "host", "b"));
        assert_int_equal(running(A), 1);
        assert_int_equal(running(B), 1);
        text = why(A, "instance.start", host);
        assert_string_equal(host, "b");
        assert_non_null(strstr(text, "b: chosen, score "));
        assert_non_null(strstr(text, "\na: score "));
        assert_int_equal(verb(A, &kind_instance, "i2", "stop now"), 0); /* runs on b */
        AWAIT_STATE(A, &kind_instance, "i2", "stopped");
        assert_int_equal(running(B), 0);
}

struct racer {
        struct rig_host *h;
        const char *const *names;
        size_t n;
        unsigned won;
};

static void *race_main(void *arg)
{
        struct racer *r = arg;

        for (size_t i = 0; i < r->n; i++)
                r->won += verb(r->h, &kind_instance, r->names[i], "start") == 0;
        return NULL;
}

static const char *const names[] = {"i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7"};

static bool all_in(struct rig_host *h, const char *one, const char *other)
{
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (!is(h, &kind_instance, names[i], one) &&
                    !is(h, &kind_instance, names[i], other))
                        return false;
        return true;
}

/* Both hosts start the same instances at the same time. */
static void start_all(unsigned ret_won[2])
{
        struct racer r[2] = {{A, names, ARRAY_SIZE(names)}, {B, names, ARRAY_SIZE(names)}};
        pthread_t threads[2];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                make_instance(A, names[i], "small");
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                AWAIT(has(B, &kind_instance, names[i], "flavor", "small"));
        AWAIT(is(B, &kind_volume, "i7-v", "in-use"));
        for (int i = 0; i < 2; i++)
                pthread_create(&threads[i], NULL, race_main, &r[i]);
        for (int i = 0; i < 2; i++) {
                pthread_join(threads[i], NULL);
                ret_won[i] = r[i].won;
        }
}

static void test_claim_race(void **state)
{
        unsigned won[2];

        start_all(won);
        assert_int_equal(won[0] + won[1], ARRAY_SIZE(names)); /* one of two, each time */
        AWAIT(all_in(A, "active", "active") && all_in(B, "active", "active"));
        assert_int_equal(rig.starts, ARRAY_SIZE(names));
        assert_int_equal(running(A) + running(B), ARRAY_SIZE(names));
        assert_false(rig.twice);
}

/* Room for two on each host, eight that want it, placed by two schedulers at once. */
static void test_room_race(void **state)
{
        unsigned won[2];
        char percent[32];

        for (struct rig_host *h = A; h <= B; h++) {
                struct object *o = look(A, &kind_host, h->name);

                snprintf(percent, sizeof(percent), "%u",
                         (unsigned)((250 + object_num(o, "cpus") - 1) / object_num(o, "cpus")));
                control_unlock(A->c);
                AWAIT(set(A, &kind_host, h->name, "vcpus_percent", percent) == 0);
        }
        start_all(won);
        AWAIT(all_in(A, "active", "draft") && all_in(B, "active", "draft"));
        assert_int_equal(running(A), 2);
        assert_int_equal(running(B), 2);
        assert_false(rig.twice);
}

static void test_group(void **state)
{
        char link[NAME_SIZE];

        make(A, &kind_group, "apart");
        assert_int_equal(set(A, &kind_group, "apart", "policy", "anti-affinity"), 0);
        for (int i = 0; i < 3; i++) {
                make_instance(A, names[i], "tiny");
                assert_int_equal(control_link(A->c, &root, number(A, &kind_instance, names[i]),
                                              kind_link(&kind_instance, "group"), "group",
                                              "groups/apart", link, NULL),
                                 0);
                assert_int_equal(verb(A, &kind_instance, names[i], "start"), 0);
                AWAIT_STATE(A, &kind_instance, names[i], i < 2 ? "active" : "draft");
        }
        assert_int_equal(running(A), 1);
        assert_int_equal(running(B), 1);
        assert_int_equal(control_delete(A->c, &root, number(A, &kind_group, "apart"), NULL),
                         -EBUSY);
}

/* Zone, feature and a local volume each leave one host. */
static void test_filters(void **state)
{
        AWAIT(set(A, &kind_host, "b", "zone", "north") == 0);
        AWAIT(set(A, &kind_host, "b", "features", "gpu") == 0);
        for (int i = 0; i < 3; i++)
                make_instance(A, names[i], "tiny");
        assert_int_equal(set(A, &kind_instance, "i0", "zone", "north"), 0);
        assert_int_equal(set(A, &kind_instance, "i1", "features", "x86_64 gpu"), 0);
        make_volume(B, "data", "local");
        AWAIT_STATE(A, &kind_volume, "data", "available");
        assert_int_equal(B->creates, 1); /* where its pool is */
        assert_int_equal(control_link(A->c, &root, number(A, &kind_instance, "i2"),
                                      kind_link(&kind_instance, "volumes"), "vdb", "volumes/data",
                                      (char[NAME_SIZE]){}, NULL),
                         0);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(verb(A, &kind_instance, names[i], "start"), 0);
                AWAIT_STATE(A, &kind_instance, names[i], "active");
                assert_true(has(A, &kind_instance, names[i], "host", "b"));
        }
}

static char *file(struct rig_host *h, const char *host, const char *name)
{
        struct buf b = {};
        struct object *o = look(h, &kind_host, host);

        kind_host.files[kind_file(&kind_host, name)].render(h->c, o, &b);
        control_unlock(h->c);
        return buf_take(&b) ?: strdup("");
}

static void test_drain(void **state)
{
        char *text;

        make_instance(A, "i1", "small");
        assert_int_equal(verb(A, &kind_instance, "i1", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "i1", "active");
        AWAIT(verb(B, &kind_host, "a", "drain") == 0); /* a renewal may come between */
        AWAIT_STATE(A, &kind_host, "a", "draining");
        for (int i = 2; i < 5; i++) {
                make_instance(A, names[i], "small");
                assert_int_equal(verb(A, &kind_instance, names[i], "start"), 0);
                AWAIT_STATE(B, &kind_instance, names[i], "active");
                assert_true(has(B, &kind_instance, names[i], "host", "b"));
        }
        text = file(B, "a", "instances");
        assert_string_equal(text, "tenants/default/instances/i1 active\n");
        free(text);
        text = file(B, "a", "used");
        assert_int_equal(strncmp(text, "instances 1\nvcpus 1\nmemory 536870912\n", 37), 0);
        free(text);
        AWAIT(verb(A, &kind_host, "a", "undrain") == 0);
        make_instance(A, "i6", "small");
        assert_int_equal(verb(A, &kind_instance, "i6", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "i6", "active");
        assert_true(has(A, &kind_instance, "i6", "host", "a"));
}

/* A job that another host runs is cancelled by a word in its record. */
static void test_cancel(void **state)
{
        char name[NAME_SIZE] = "";
        struct collection *l;

        pthread_mutex_lock(&rig.lock);
        A->hold = true;
        pthread_mutex_unlock(&rig.lock);
        make_volume(A, "v", "shared"); /* a keeps the tenant, and is busy with it */
        AWAIT(A->creates == 1);
        AWAIT(verb(A, &kind_host, "a", "drain") == 0);
        make(A, &kind_instance, "web");
        assert_int_equal(set(A, &kind_instance, "web", "flavor", "tiny"), 0);
        assert_int_equal(control_link(A->c, &root, number(A, &kind_instance, "web"),
                                      kind_link(&kind_instance, "volumes"), "vda", "volumes/v",
                                      (char[NAME_SIZE]){}, NULL),
                         0);
        assert_int_equal(verb(A, &kind_instance, "web", "start"), 0);
        AWAIT(has(A, &kind_instance, "web", "host", "b")); /* waits there for the volume */
        control_rdlock(A->c);
        l = model_collection(A->c, model_by_name(A->c, NULL, &kind_tenant, "default"), &kind_job);
        for (size_t i = 0; i < l->n; i++)
                if (streq(object_str(l->v[i], "op"), "instance.start"))
                        snprintf(name, sizeof(name), "%s", l->v[i]->name);
        control_unlock(A->c);
        assert_int_equal(verb(A, &kind_job, name, "cancel"), 0);
        AWAIT_STATE(A, &kind_job, name, "cancelled");
        AWAIT_STATE(A, &kind_instance, "web", "draft");
        assert_int_equal(rig.starts, 0);
        pthread_mutex_lock(&rig.lock);
        A->hold = false;
        pthread_cond_broadcast(&rig.pulse);
        pthread_mutex_unlock(&rig.lock);
        AWAIT_STATE(B, &kind_volume, "v", "in-use");
}

/* --- a host dies ------------------------------------------------------------------------------ */

/* Two guests on a; one asks to be restarted. */
static void two_on_a(void)
{
        AWAIT(verb(A, &kind_host, "b", "drain") == 0);
        make_instance(A, "again", "small");
        make_instance(A, "off", "small");
        assert_int_equal(set(A, &kind_instance, "again", "restart", "elsewhere"), 0);
        assert_int_equal(verb(A, &kind_instance, "again", "start"), 0);
        assert_int_equal(verb(A, &kind_instance, "off", "start"), 0);
        AWAIT_STATE(B, &kind_instance, "again", "active");
        AWAIT_STATE(B, &kind_instance, "off", "active");
        assert_int_equal(running(A), 2);
        AWAIT(verb(B, &kind_host, "b", "undrain") == 0);
}

static void check_taken_over(void)
{
        struct object *o;

        AWAIT_STATE(B, &kind_host, "a", "down");
        AWAIT_STATE(B, &kind_instance, "again", "active");
        assert_true(has(B, &kind_instance, "again", "host", "b"));
        o = look(B, &kind_instance, "off");
        assert_string_equal(object_state(o), "error");
        assert_non_null(strstr(o->error, "its host 'a' died"));
        control_unlock(B->c);
        assert_int_equal(running(B), 1);
        assert_false(rig.twice);
}

/* Cut off from the store, alive otherwise: it stops by itself, before the others take over. */
static void test_partition(void **state)
{
        uint64_t epoch;

        two_on_a();
        epoch = A->c->epoch;
        rig.fence_refusals = 2; /* it is asked until it succeeds */
        cut(A);
        AWAIT(rig.fences > 0);
        assert_false(lease_holds(A->c));
        assert_int_equal(rig.fenced[0], epoch);
        check_taken_over();
        assert_int_equal(set(A, &kind_instance, "off", "description", "x"), -EROFS);
        assert_true(is(A, &kind_instance, "again", "active")); /* reading goes on */

        heal(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
        assert_int_equal(running(A), 0); /* gone before it served again */
        WITH_LOCK(&rig.lock);
        assert_int_equal(A->exports.n, 0);
        assert_true(A->c->epoch > epoch);
}

/* The store answers nobody for longer than a lease: nobody is dead when it is back. */
static void test_silence(void **state)
{
        uint64_t epochs[2];

        two_on_a();
        epochs[0] = A->c->epoch;
        epochs[1] = B->c->epoch;
        cut(A);
        cut(B);
        AWAIT(!lease_holds(A->c) && !lease_holds(B->c));
        for (int64_t until = clock_mono() + 1500LL * rig.lease_ms; clock_mono() < until;)
                AWAIT(!lease_holds(B->c));
        heal(B);
        AWAIT(lease_holds(B->c));
        heal(A);
        AWAIT(lease_holds(A->c));
        for (int64_t until = clock_mono() + 1500LL * rig.lease_ms; clock_mono() < until;)
                AWAIT(is(A, &kind_host, "b", "up") && is(B, &kind_host, "a", "up"));
        assert_int_equal(rig.fences, 0);
        assert_int_equal(A->c->epoch, epochs[0]);
        assert_int_equal(B->c->epoch, epochs[1]);
        assert_int_equal(running(A), 2);
}

/* Its record is taken by no other machine, and stays. */
static void test_record(void **state)
{
        struct control *c;
        struct err *e = NULL;
        struct control_config cfg = A->c->cfg;

        assert_int_equal(control_delete(B->c, &root, number(B, &kind_host, "a"), NULL), -EBUSY);
        AWAIT(force(A, &kind_host, "a", "machine", "another") == 0);
        C->store.ops = &store_ops;
        C->real = store_memory_join(A->real);
        cfg.store = &C->store;
        assert_int_equal(control_start(&cfg, &c, &e), -EEXIST);
        assert_non_null(strstr(err_msg(e), "on another machine"));
        err_free(e);
        assert_true(is(A, &kind_host, "a", "up"));
}

/* After it, a host that came back is one like any other. */
static void test_back(void **state)
{
        two_on_a();
        cut(A);
        check_taken_over();
        heal(A);
        AWAIT(lease_holds(A->c));
        AWAIT_STATE(A, &kind_instance, "off", "error");
        assert_int_equal(verb(A, &kind_instance, "off", "reboot hard"), 0);
        AWAIT_STATE(B, &kind_instance, "off", "active");
        assert_true(has(B, &kind_instance, "off", "host", "a"));
        assert_int_equal(running(A), 1);
        assert_true(A->leased_at_start && B->leased_at_start);
}

/* Its memory is on that host's disks and waits there, unless it is given up. */
static void test_suspended(void **state)
{
        two_on_a();
        assert_int_equal(verb(A, &kind_instance, "off", "suspend"), 0);
        assert_int_equal(verb(A, &kind_instance, "again", "suspend"), 0);
        AWAIT_STATE(B, &kind_instance, "off", "suspended");
        AWAIT_STATE(B, &kind_instance, "again", "suspended");
        assert_int_equal(running(A), 0);
        cut(A);
        AWAIT_STATE(B, &kind_host, "a", "down");
        assert_true(is(B, &kind_instance, "off", "suspended"));
        assert_int_equal(verb(B, &kind_instance, "off", "resume"), -EHOSTDOWN);
        assert_int_equal(verb(B, &kind_instance, "again", "reboot hard"), 0);
        AWAIT_STATE(B, &kind_instance, "again", "active");
        assert_true(has(B, &kind_instance, "again", "host", "b"));
        heal(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
        assert_int_equal(verb(B, &kind_instance, "off", "resume"), 0);
        AWAIT_STATE(B, &kind_instance, "off", "active");
        assert_true(has(B, &kind_instance, "off", "host", "a"));
        assert_int_equal(running(A), 1);
        assert_int_equal(running(B), 1);
}

static unsigned networks(struct rig_host *h)
{
        WITH_LOCK(&rig.lock);
        return h->networks;
}

/* A network is where its guests are, and comes along when they are taken over. */
static void test_networks(void **state)
{
        char link[NAME_SIZE];

        make_instance(A, "web", "small");
        assert_int_equal(set(A, &kind_instance, "web", "restart", "elsewhere"), 0);
        assert_int_equal(control_link(A->c, &root, number(A, &kind_instance, "web"),
                                      kind_link(&kind_instance, "networks"), "lan",
                                      "networks/default", link, NULL),
                         0);
        assert_int_equal(networks(A) + networks(B), 0);
        AWAIT(verb(A, &kind_host, "b", "drain") == 0);
        assert_int_equal(verb(A, &kind_instance, "web", "start"), 0);
        AWAIT_STATE(B, &kind_instance, "web", "active");
        AWAIT(networks(A) == 1);
        assert_int_equal(networks(B), 0);
        assert_int_equal(verb(B, &kind_instance, "web", "suspend"), 0);
        AWAIT(networks(A) == 0);
        AWAIT_STATE(B, &kind_instance, "web", "suspended");
        assert_int_equal(verb(B, &kind_instance, "web", "resume"), 0);
        AWAIT_STATE(B, &kind_instance, "web", "active");
        assert_int_equal(networks(A), 1); /* before the guest was back */
        assert_int_equal(verb(B, &kind_host, "b", "undrain"), 0);
        cut(A);
        AWAIT(networks(B) == 1);
        AWAIT_STATE(B, &kind_instance, "web", "active");
        heal(A);
        AWAIT(networks(A) == 0);
}

static uint32_t elsewhere(struct rig_host *h)
{
        WITH_LOCK(&rig.lock);
        return h->elsewhere;
}

/* Each host knows where the guests of the others are, by what these say of themselves. */
static void test_tunnels(void **state)
{
        static const char *const guests[] = {"web", "db"};
        char link[NAME_SIZE];

        assert_int_equal(set(A, &kind_host, "a", "address", "203.0.113.1"), 0);
        AWAIT(set(A, &kind_host, "b", "address", "203.0.113.2") == 0);
        for (int i = 0; i < 2; i++) {
                make_instance(A, guests[i], "small");
                assert_int_equal(control_link(A->c, &root, number(A, &kind_instance, guests[i]),
                                              kind_link(&kind_instance, "networks"), "lan",
                                              "networks/default", link, NULL),
                                 0);
        }
        assert_int_equal(verb(A, &kind_host, "b", "drain"), 0);
        assert_int_equal(verb(A, &kind_instance, "web", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "web", "active");
        assert_int_equal(verb(A, &kind_host, "b", "undrain"), 0);
        assert_int_equal(verb(A, &kind_host, "a", "drain"), 0);
        assert_int_equal(verb(A, &kind_instance, "db", "start"), 0);
        AWAIT_STATE(A, &kind_instance, "db", "active");
        AWAIT(elsewhere(A) == 0xcb007102 && elsewhere(B) == 0xcb007101);
        assert_int_equal(verb(A, &kind_instance, "db", "stop now"), 0);
        AWAIT_STATE(A, &kind_instance, "db", "stopped");
        AWAIT(elsewhere(A) == 0);
}

/* Of two tenants that make networks on two hosts at once, so many that a host needs more numbers
 * than it took at first. */
enum { MAKERS = 2, MADE = 90 };
struct maker {
        struct rig_host *h;
        const char *tenant;
};

static void *make_networks(void *arg)
{
        struct maker *m = arg;
        uint64_t owner = number(m->h, &kind_tenant, m->tenant), no;
        char name[16];

        for (int i = 0; i < MADE; i++) {
                struct err *e = NULL;

                snprintf(name, sizeof(name), "n%d", i);
                if (control_create(m->h->c, &root, owner, &kind_network, name, &no, &e) < 0)
                        fail_msg("%s on %s: %s", name, m->h->name, err_msg(e));
        }
        return NULL;
}

static size_t count_networks(struct rig_host *h, const char *tenant)
{
        struct collection *l;
        size_t n;

        control_rdlock(h->c);
        l = model_collection(h->c, model_by_name(h->c, NULL, &kind_tenant, tenant), &kind_network);
        n = l ? l->n : 0;
        control_unlock(h->c);
        return n;
}

static void test_numbers(void **state)
{
        struct maker m[MAKERS] = {{A, "default"}, {B, "other"}};
        static bool used[65536];
        pthread_t threads[MAKERS];
        struct object *o, *tmp;
        unsigned wrong = 0;
        uint64_t no;

        assert_int_equal(
                control_create(A->c, &root, OBJECT_CLOUD, &kind_tenant, "other", &no, NULL), 0);
        AWAIT(is(B, &kind_tenant, "other", "active"));
        for (int i = 0; i < MAKERS; i++)
                pthread_create(&threads[i], NULL, make_networks, &m[i]);
        for (int i = 0; i < MAKERS; i++)
                pthread_join(threads[i], NULL);
        AWAIT(count_networks(A, "other") == MADE + 1 && count_networks(A, "default") == MADE + 1);
        control_rdlock(A->c);
        HASH_ITER (hh_no, A->c->by_no, o, tmp) {
                uint64_t v = o->kind == &kind_network ? object_num(o, "uplink") : 0;

                if (o->kind != &kind_network)
                        continue;
                wrong += v < 256 || v >= 65280 || v == (169 << 8 | 254) || used[v];
                used[v] = true;
        }
        control_unlock(A->c);
        assert_int_equal(wrong, 0);
        /* Nor do two hosts give the same address outside. */
        AWAIT(set(A, &kind_host, "a", "floating", "198.51.100.1-198.51.100.9") == 0);
        AWAIT(has(B, &kind_host, "a", "floating", "198.51.100.1-198.51.100.9"));
        assert_int_equal(set(B, &kind_host, "b", "floating", "192.0.2.1, 198.51.100.9"), -EINVAL);
        AWAIT(set(B, &kind_host, "b", "floating", "198.51.100.10") == 0);
        AWAIT(set(B, &kind_host, "b", "floating", "198.51.100.10-198.51.100.12") == 0);
}

/* The daemon is gone, its guests are not: the next start finds the record and ends them first. */
static void test_restart_lost(void **state)
{
        two_on_a();
        cut(A);
        check_taken_over();
        stop_host(A);
        assert_int_equal(running(A), 2);
        rig.h[2].real = A->real; /* closed at the end */
        A->real = store_memory_join(B->real);
        A->cut = false;
        start_host(A);
        AWAIT_STATE(A, &kind_host, "a", "up");
        assert_int_equal(running(A), 0);
        assert_false(rig.twice);
}

/* A step that was under way when its host was lost ends, and what it says counts no more. */
static void test_job_moves(void **state)
{
        make_volume(A, "first", "shared"); /* now a keeps the tenant */
        AWAIT_STATE(B, &kind_volume, "first", "available");
        pthread_mutex_lock(&rig.lock);
        A->hold = true;
        pthread_mutex_unlock(&rig.lock);
        make_volume(B, "v", "shared");
        AWAIT(A->creates == 2); /* asked on b, runs on a */
        cut(A);
        AWAIT_STATE(B, &kind_volume, "v", "available");
        assert_int_equal(B->creates, 1);
        assert_int_equal(control_delete(B->c, &root, number(B, &kind_volume, "v"), NULL), 0);
        AWAIT_STATE(B, &kind_volume, "v", "gone");
        heal(A);
        pthread_mutex_lock(&rig.lock);
        A->hold = false;
        pthread_cond_broadcast(&rig.pulse);
        pthread_mutex_unlock(&rig.lock);
        AWAIT_STATE(B, &kind_host, "a", "up");
        assert_true(is(B, &kind_volume, "v", "gone"));
        AWAIT(lease_holds(A->c));
        make_volume(A, "w", "shared"); /* its keeper is b now */
        AWAIT_STATE(A, &kind_volume, "w", "available");
        assert_int_equal(B->creates, 2);
}

/* What is on a lost host's own disks waits for it. */
static void test_local_waits(void **state)
{
        make_volume(A, "data", "local");
        AWAIT_STATE(B, &kind_volume, "data", "available");
        cut(A);
        AWAIT_STATE(B, &kind_host, "a", "down");
        assert_int_equal(control_delete(B->c, &root, number(B, &kind_volume, "data"), NULL), 0);
        make_volume(B, "other", "local");
        AWAIT_STATE(B, &kind_volume, "other", "available");
        AWAIT_STATE(B, &kind_volume, "data", "gone"); /* its name is */
        assert_int_equal(B->creates, 1);
        heal(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
}

/* A daemon that was stopped is no dead host: nobody takes over, until an admin says so. */
static void test_away(void **state)
{
        two_on_a();
        stop_host(A);
        AWAIT_STATE(B, &kind_host, "a", "away");
        make_volume(B, "v", "shared"); /* kept by a, which nobody replaces */
        add_host(2, "c");
        AWAIT_STATE(B, &kind_host, "c", "up");
        for (int64_t until = clock_mono() + 2000LL * rig.lease_ms; clock_mono() < until;)
                AWAIT(is(B, &kind_host, "a", "away") && is(C, &kind_host, "a", "away"));
        assert_true(is(B, &kind_instance, "again", "active"));
        assert_true(is(B, &kind_volume, "v", "creating"));
        assert_int_equal(rig.fences, 0);
        start_host(A); /* its guests went on, and so does its job */
        AWAIT_STATE(B, &kind_volume, "v", "available");
        assert_int_equal(running(A), 2);
        stop_host(A);
        AWAIT(verb(B, &kind_host, "a", "evacuate") == 0);
        AWAIT_STATE(B, &kind_host, "a", "down");
        AWAIT_STATE(B, &kind_instance, "again", "active");
        assert_true(rig.fences > 0);
}

static int delete_host(struct rig_host *h, const char *name)
{
        return control_delete(h->c, &root, number(h, &kind_host, name), NULL);
}

/* On request what died starts elsewhere, also what did not ask for it; a dead host can be
 * forgotten. */
static void test_evacuate(void **state)
{
        two_on_a();
        make_instance(A, "one", "small");
        AWAIT(verb(A, &kind_host, "b", "drain") == 0);
        assert_int_equal(verb(A, &kind_instance, "one", "start"), 0);
        AWAIT_STATE(B, &kind_instance, "one", "active");
        AWAIT(verb(B, &kind_host, "b", "undrain") == 0);
        assert_int_equal(verb(B, &kind_instance, "one", "evacuate"), -EBUSY); /* its host is up */
        assert_int_equal(delete_host(B, "a"), -EBUSY);
        assert_int_equal(delete_host(B, "b"), -EBUSY);
        cut(A);
        AWAIT_STATE(B, &kind_host, "a", "down");
        AWAIT_STATE(B, &kind_instance, "off", "error");
        AWAIT_STATE(B, &kind_instance, "one", "error");
        assert_int_equal(verb(B, &kind_instance, "one", "evacuate"), 0);
        AWAIT_STATE(B, &kind_instance, "one", "active");
        AWAIT(verb(B, &kind_host, "a", "evacuate") == 0);
        AWAIT_STATE(B, &kind_instance, "off", "active");
        AWAIT_STATE(B, &kind_instance, "again", "active");
        AWAIT_STATE(B, &kind_host, "a", "down");
        assert_int_equal(running(B), 3);
        assert_int_equal(delete_host(B, "a"), 0);
        AWAIT_STATE(B, &kind_host, "a", "gone");
        heal(A); /* forgotten, not barred: what it still ran ends first */
        AWAIT_STATE(B, &kind_host, "a", "up");
        assert_int_equal(running(A), 0);
        assert_false(rig.twice);
}

/* A host cannot be forgotten with what only it has. */
/* Not only out of sight. */
static bool ended(struct rig_host *h, uint64_t no)
{
        bool gone;

        control_rdlock(h->c);
        gone = !model_by_no(h->c, no);
        control_unlock(h->c);
        return gone;
}

static void test_remove_host(void **state)
{
        uint64_t no;

        make_volume(A, "data", "local");
        AWAIT_STATE(B, &kind_volume, "data", "available");
        stop_host(A);
        AWAIT_STATE(B, &kind_host, "a", "away");
        assert_int_equal(delete_host(B, "a"), -EBUSY);
        start_host(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
        no = number(A, &kind_volume, "data");
        assert_int_equal(control_delete(A->c, &root, no, NULL), 0);
        AWAIT(ended(B, no));
        stop_host(A);
        AWAIT(delete_host(B, "a") == 0);
        start_host(A);
        AWAIT_STATE(B, &kind_host, "a", "up");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_seen, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_spread, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_claim_race, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_room_race, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_group, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_filters, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_drain, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_cancel, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_partition, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_silence, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_record, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_back, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_suspended, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_networks, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_tunnels, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_numbers, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_restart_lost, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_job_moves, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_local_waits, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_evacuate, rig_setup_short, rig_teardown),
                cmocka_unit_test_setup_teardown(test_remove_host, rig_setup, rig_teardown),
                cmocka_unit_test_setup_teardown(test_away, rig_setup_short, rig_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
