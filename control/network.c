/* The keeper: the host's networks as the model says.
 *
 * Whoever needs a device on the host at once (a guest that starts) asks for it with
 * networks_apply(); everything else that changes wakes the thread here.  While there are networks
 * on this host it looks every two seconds whether they are as they should be, in case somebody
 * broke one. */
#include "control/balancer.h"
#include "control/network.h"

enum { LOOK_US = 2000000 };

struct counted {
        char id[ID_TEXT_SIZE];
        struct net_count n;
};

/* A network that is not as it should be. */
struct trouble {
        char id[ID_TEXT_SIZE];
        struct net_outcome what;
};

struct network_keeper {
        pthread_mutex_t lock; /* stop, dirty */
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop, dirty;
        atomic_bool ending;
        atomic_uint begun;     /* looks whose plan was made */
        pthread_mutex_t apply; /* one at a time; what follows is of the last */
        unsigned networks;     /* that were on the host after it */
        int result;            /* and of it all: */
        struct err *why;
        struct trouble *troubles;
        size_t ntroubles;
        struct network_service *_Atomic service; /* once it was opened */
        atomic_uint types;      /* bit n: the kernel has type n; 0: nobody asked yet */
        struct counted *counts; /* under its own lock: reads do not wait for an apply */
        size_t ncounts;
        pthread_mutex_t count;
        char *failure;        /* that was logged */
        uint64_t *left;       /* instances that have left for where they move to; */
        size_t nleft;         /* under told */
        pthread_mutex_t told; /* what follows; after the model's lock */
        struct balancer_stats *stats;
};

/* Says a failure once, and that it is over. */
static void note(struct network_keeper *k, int r, const struct err *err)
{
        if (r == 0 && k->failure)
                log_info("networks: as they should be again");
        if (r < 0 && (!k->failure || !streq(k->failure, err_msg(err))))
                log_error("networks: %s", err_msg(err));
        free(k->failure);
        k->failure = r < 0 ? xstrdup(err_msg(err)) : NULL;
}

/* A guest gave its password to the metadata service: the first counts, until it is cleared.  1 when
 * that is durable, and the service knows it from the plan. */
static int posted(void *arg, const struct net_port *port, const char *text)
{
        struct control *c = arg;
        struct object *o, *i;
        sd_id128_t id;
        struct txn t;

        if (id_parse(port->id, &id) < 0 || !text_clean(text, strlen(text), true))
                return 1;
        txn_begin(&t, c, NULL);
        o = model_by_id(c, id);
        i = o && o->kind == &kind_port ? port_instance(o) : NULL;
        if (!i || *object_str(i, "password")) {
                txn_abort(&t);
                return 1;
        }
        txn_set_str(&t, i, "password", text);
        txn_event(&t, i, "its guest gave its password");
        txn_commit(&t, NULL); /* what fails is tried again */
        return 0;
}

static void tell_stats(struct network_keeper *k, struct network_service *s,
                       const struct net_plan *p)
{
        struct balancer_stats *next, *old;

        balancers_look(&next, s, p);
        pthread_mutex_lock(&k->told);
        old = k->stats;
        k->stats = next;
        pthread_mutex_unlock(&k->told);
        balancer_stats_free(old);
}

void balancers_stats(struct control *c, const struct object *o, struct buf *out)
{
        struct network_keeper *k = c->networks;
        _cleanup_free_ char *text = NULL;
        char id[ID_TEXT_SIZE];

        if (!k)
                return;
        WITH_LOCK(&k->told);
        text = balancer_stats_get(k->stats, id_text(id, o->id));
        buf_addstr(out, text ?: "");
}

/* Takes over what the ports' devices have counted. */
static void count(struct network_keeper *k, struct network_service *s, const struct net_plan *p)
{
        struct counted *v = NULL;
        size_t n = 0;

        for (unsigned i = 0; i < p->nnetworks; i++)
                for (unsigned j = 0; j < p->networks[i].nports; j++) {
                        const struct net_port *port = &p->networks[i].ports[j];
                        struct counted x = {};

                        if (!port->live || !s->ops->count || !s->ops->count(s, port->id, &x.n))
                                continue;
                        snprintf(x.id, sizeof(x.id), "%s", port->id);
                        v = xrealloc(v, n + 1, sizeof(*v));
                        v[n++] = x;
                }
        pthread_mutex_lock(&k->count);
        free(k->counts);
        k->counts = v;
        k->ncounts = n;
        pthread_mutex_unlock(&k->count);
}

void networks_count(struct control *c, const struct object *port, struct net_count *ret)
{
        struct network_keeper *k = c->networks;
        char id[ID_TEXT_SIZE];

        *ret = (struct net_count){};
        if (!k)
                return;
        id_text(id, port->id);
        WITH_LOCK(&k->count);
        for (size_t i = 0; i < k->ncounts; i++)
                if (streq(k->counts[i].id, id))
                        *ret = k->counts[i].n;
}

int networks_type(struct control *c, enum net_type type, const char *name, struct err **e)
{
        struct network_keeper *k = c->networks;

        struct network_service *s = k ? k->service : NULL;

        /* Asked once, and only by who wants to know: the kernel may load modules for it. */
        if (s && s->ops->types && !k->types)
                k->types = s->ops->types(s);
        if (type != NET_GRE && (!k || !k->types || k->types & 1u << type))
                return 0;
        if (type == NET_GRE) {
                err_set(e, -ENOTSUP, "networks of type gre are not made here");
                return err_hint(e, -ENOTSUP, "vxlan does the same");
        }
        return err_set(e, -ENOTSUP, "this host's kernel has no networks of type %s", name);
}

static void forget(struct network_keeper *k)
{
        for (size_t i = 0; i < k->ntroubles; i++)
                err_free(k->troubles[i].what.why);
        free(k->troubles);
        k->troubles = NULL;
        k->ntroubles = 0;
        k->why = err_free(k->why);
}

/* Takes the words of the plan's outcomes. */
static void remember(struct network_keeper *k, struct net_plan *p)
{
        for (unsigned i = 0; i < p->nnetworks; i++)
                if (p->outcomes[i].r < 0) {
                        struct trouble *x;

                        k->troubles = xrealloc(k->troubles, k->ntroubles + 1, sizeof(*x));
                        x = &k->troubles[k->ntroubles++];
                        memcpy(x->id, p->networks[i].id, sizeof(x->id));
                        x->what = p->outcomes[i];
                }
        free(p->outcomes);
        p->outcomes = NULL;
}

/* One look; the lock is held. */
static void apply(struct control *c, struct network_keeper *k)
{
        struct network_service *s;
        struct net_plan *p;

        forget(k);
        k->begun++;
        p = network_plan(c);
        p->outcomes = xcalloc(p->nnetworks + 1, sizeof(*p->outcomes));
        k->result = c->cfg.network(c->cfg.arg, &s, &k->why);
        for (unsigned i = 0; k->result < 0 && i < p->nnetworks; i++)
                p->outcomes[i].r = err_set(&p->outcomes[i].why, k->result, "%s", err_msg(k->why));
        if (k->result == 0) {
                k->service = s;
                k->result = s->ops->apply(s, p, &k->why);
                count(k, s, p);
                if (s->ops->passwords)
                        s->ops->passwords(s, p, posted, c);
                tell_stats(k, s, p);
        }
        k->networks = k->result == 0 ? p->nnetworks : 1; /* what failed is tried again */
        note(k, k->result, k->why);
        remember(k, p);
        network_plan_free(p);
}

static const struct net_outcome *trouble_of(const struct network_keeper *k,
                                            const struct object *network)
{
        char id[ID_TEXT_SIZE];

        id_text(id, network->id);
        for (size_t i = 0; i < k->ntroubles; i++)
                if (streq(k->troubles[i].id, id))
                        return &k->troubles[i].what;
        return NULL;
}

/* Of the last look, for one instance: what other networks have is nothing to it. */
static int outcome_for(struct control *c, const struct network_keeper *k, uint64_t instance,
                       struct err **e)
{
        const struct net_outcome *bad = NULL;
        const struct object *o;

        control_rdlock(c);
        o = model_by_no(c, instance);
        for (unsigned i = 0; o && i < o->nlinks && !bad; i++)
                if (o->links[i].target && o->links[i].target->kind == &kind_port)
                        bad = trouble_of(k, o->links[i].target->holder);
        control_unlock(c);
        return bad ? err_set(e, bad->r, "%s", err_msg(bad->why)) : 0;
}

static int look(struct control *c, uint64_t instance, struct err **e)
{
        struct network_keeper *k = c->networks;
        unsigned before;

        if (!c->cfg.network || !k)
                return 0;
        before = k->begun;
        WITH_LOCK(&k->apply);
        if (k->begun == before || k->ending)
                apply(c, k);
        if (instance)
                return outcome_for(c, k, instance, e);
        return k->result < 0 ? err_set(e, k->result, "%s", err_msg(k->why)) : 0;
}

int networks_apply(struct control *c, struct err **e)
{
        return look(c, 0, e);
}

int networks_apply_for(struct control *c, uint64_t instance, struct err **e)
{
        return look(c, instance, e);
}

void networks_leave(struct control *c, uint64_t instance, bool gone)
{
        struct network_keeper *k = c->networks;
        bool known = false;

        if (!k)
                return;
        pthread_mutex_lock(&k->told);
        for (size_t i = 0; i < k->nleft; i++)
                if (k->left[i] == instance) {
                        known = true;
                        if (!gone)
                                k->left[i--] = k->left[--k->nleft];
                }
        if (gone && !known) {
                k->left = xrealloc(k->left, k->nleft + 1, sizeof(*k->left));
                k->left[k->nleft++] = instance;
        }
        pthread_mutex_unlock(&k->told);
        if (gone && !known)
                networks_apply(c, NULL);
}

const char *networks_where(struct control *c, const struct object *o)
{
        struct network_keeper *k = c->networks;
        bool left = false;

        if (!feed_ours(c, o))
                return object_str(o, "host");
        if (!k || o->state != INSTANCE_MIGRATING)
                return "";
        WITH_LOCK(&k->told);
        for (size_t i = 0; i < k->nleft; i++)
                left |= k->left[i] == o->no;
        return left ? object_str(o, "moving_to") : "";
}

void networks_changed(struct control *c, const struct kind *kind)
{
        static const struct kind *const ours[] = {
                &kind_network, &kind_subnet,      &kind_port, &kind_security_group, &kind_instance,
                &kind_router,  &kind_floating_ip, &kind_host, &kind_load_balancer,  &kind_listener};
        struct network_keeper *k = c->networks;
        bool mine = false;

        for (unsigned i = 0; i < ARRAY_SIZE(ours); i++)
                mine |= kind == ours[i];
        if (!k || !mine)
                return;
        WITH_LOCK(&k->lock);
        k->dirty = true;
        pthread_cond_signal(&k->cond);
}

static void *keeper_main(void *arg)
{
        struct control *c = arg;
        struct network_keeper *k = c->networks;
        bool idle = false;

        pthread_mutex_lock(&k->lock);
        while (!k->stop) {
                struct timespec ts = clock_timespec(clock_mono() + LOOK_US);
                bool late = false;

                while (!k->stop && !k->dirty && !late) {
                        if (idle)
                                pthread_cond_wait(&k->cond, &k->lock);
                        else
                                late = pthread_cond_timedwait(&k->cond, &k->lock, &ts) != 0;
                }
                if (k->stop)
                        break;
                k->dirty = false;
                pthread_mutex_unlock(&k->lock);
                networks_apply(c, NULL);
                network_numbers_keep(c);
                pthread_mutex_lock(&k->apply);
                idle = k->networks == 0;
                pthread_mutex_unlock(&k->apply);
                pthread_mutex_lock(&k->lock);
        }
        pthread_mutex_unlock(&k->lock);
        return NULL;
}

int networks_start(struct control *c, struct err **e)
{
        struct network_keeper *k;
        pthread_condattr_t a;

        if (!c->cfg.network)
                return 0;
        k = xcalloc(1, sizeof(*k));
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&k->lock, NULL);
        pthread_mutex_init(&k->apply, NULL);
        pthread_mutex_init(&k->told, NULL);
        pthread_mutex_init(&k->count, NULL);
        pthread_cond_init(&k->cond, &a);
        pthread_condattr_destroy(&a);
        k->dirty = true; /* guests may have come or gone while we were away */
        c->networks = k;
        k->running = pthread_create(&k->thread, NULL, keeper_main, c) == 0;
        return k->running ? 0 : err_set(e, -EAGAIN, "no thread for the networks");
}

bool networks_ending(struct control *c)
{
        return c->networks && c->networks->ending;
}

/* Guests that ended just now leave nothing on the host. */
void networks_stop(struct control *c)
{
        struct network_keeper *k = c->networks;

        if (!k || !k->running)
                return;
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
        k->running = false;
        k->ending = true;
        networks_apply(c, NULL);
}

void networks_free(struct control *c)
{
        struct network_keeper *k = c->networks;

        if (!k)
                return;
        pthread_cond_destroy(&k->cond);
        pthread_mutex_destroy(&k->lock);
        pthread_mutex_destroy(&k->apply);
        pthread_mutex_destroy(&k->told);
        balancer_stats_free(k->stats);
        pthread_mutex_destroy(&k->count);
        free(k->counts);
        free(k->left);
        free(k->failure);
        forget(k);
        free(k);
        c->networks = NULL;
}
