#include "control/metrics.h"

#include <sys/stat.h>

#include "common/fileio.h"
#include "control/jobs/jobs.h"
#include "control/metrics-ring.h"
#include "control/network.h"

enum { EVERY_US = 10 * 1000000 };

struct guest_metrics {
        UT_hash_handle hh; /* by no */
        uint64_t no;
        struct ring_file *ring;   /* NULL: could not be had */
        struct guest_stats stats; /* the last ones; of this daemon's time */
        bool fresh;               /* there are */
};

struct metrics_keeper {
        pthread_mutex_t lock; /* taken under the model's; held over no call of the engine's */
        pthread_cond_t cond;
        pthread_t thread;
        bool running, stop, idle, wake;
        struct guest_metrics *table;
};

/* --- showing --------------------------------------------------------------------------------- */

static const char *const names[GUEST_FIGURES] = {
        [GUEST_CPU] = "cpu_nsec",          [GUEST_VCPUS] = "vcpus",
        [GUEST_MEM_SIZE] = "mem_size",     [GUEST_MEM_RSS] = "mem_rss",
        [GUEST_MEM_TOTAL] = "mem_total",   [GUEST_MEM_FREE] = "mem_free",
        [GUEST_MEM_USABLE] = "mem_usable", [GUEST_RD_OPS] = "rd_ops",
        [GUEST_RD_BYTES] = "rd_bytes",     [GUEST_WR_OPS] = "wr_ops",
        [GUEST_WR_BYTES] = "wr_bytes",     [GUEST_RX_PACKETS] = "rx_packets",
        [GUEST_RX_BYTES] = "rx_bytes",     [GUEST_TX_PACKETS] = "tx_packets",
        [GUEST_TX_BYTES] = "tx_bytes",
};

static void render_figures(const struct guest_stats *s, unsigned from, unsigned to, size_t skip,
                           struct buf *out)
{
        for (unsigned i = from; i <= to; i++)
                buf_printf(out, "%s %" PRIu64 "\n", names[i] + skip, s->all[i]);
}

static void render_disks(const struct guest_stats *s, struct buf *out)
{
        for (unsigned i = 0; i < s->ndisks; i++) {
                const struct guest_device *d = &s->disk[i];

                if (*d->name)
                        buf_printf(out,
                                   "%s rd_ops=%" PRIu64 " rd_bytes=%" PRIu64 " wr_ops=%" PRIu64
                                   " wr_bytes=%" PRIu64 " flushes=%" PRIu64 "\n",
                                   d->name, d->rd_ops, d->rd_bytes, d->wr_ops, d->wr_bytes,
                                   d->flushes);
        }
}

/* The tap's name leads to the link that made it. */
static const char *nic_name(const struct object *o, const char *tap)
{
        char id[ID_TEXT_SIZE], device[16];

        object_foreach_link (l, o)
                if (l->target->kind == &kind_port) {
                        network_device(device, NET_TAP, id_text(id, l->target->id));
                        if (streq(device, tap))
                                return l->name;
                }
        return tap;
}

static void render_nics(const struct object *o, const struct guest_stats *s, struct buf *out)
{
        for (unsigned i = 0; i < s->nnics; i++) {
                const struct guest_device *d = &s->nic[i];

                if (*d->name)
                        buf_printf(out,
                                   "%s rx_packets=%" PRIu64 " rx_bytes=%" PRIu64
                                   " tx_packets=%" PRIu64 " tx_bytes=%" PRIu64 "\n",
                                   nic_name(o, d->name), d->rd_ops, d->rd_bytes, d->wr_ops,
                                   d->wr_bytes);
        }
}

static void render_sample(void *arg, const struct sample *s)
{
        char when[CLOCK_TEXT_MAX];
        struct buf *out = arg;

        buf_addstr(out, clock_format(when, s->at));
        for (unsigned i = 0; i < GUEST_FIGURES; i++)
                buf_printf(out, " %" PRIu64, s->v[i]);
        buf_addc(out, '\n');
}

static void render_ring(const struct guest_metrics *g, unsigned ring, struct buf *out)
{
        if (!g->ring)
                return;
        buf_addstr(out, "time");
        for (unsigned i = 0; i < GUEST_FIGURES; i++)
                buf_printf(out, " %s", names[i]);
        buf_addc(out, '\n');
        ring_read(g->ring, ring, render_sample, out);
}

void metrics_render(struct control *c, const struct object *o, size_t which, struct buf *out)
{
        struct metrics_keeper *k = c->metrics;
        struct guest_metrics *g;
        bool runs = object_in(o, INSTANCE_RUNS);

        if (!k)
                return;
        WITH_LOCK(&k->lock);
        HASH_FIND(hh, k->table, &o->no, sizeof(o->no), g);
        if (!g)
                return;
        if (which == METRICS_HOUR || which == METRICS_DAY) {
                render_ring(g, which == METRICS_HOUR ? RING_HOUR : RING_DAY, out);
                return;
        }
        if (!runs || !g->fresh)
                return;
        if (which == METRICS_CPU)
                render_figures(&g->stats, GUEST_CPU, GUEST_VCPUS, 0, out);
        else if (which == METRICS_MEMORY)
                render_figures(&g->stats, GUEST_MEM_SIZE, GUEST_MEM_USABLE, strlen("mem_"), out);
        else if (which == METRICS_DISK)
                render_disks(&g->stats, out);
        else
                render_nics(o, &g->stats, out);
}

/* --- fetching -------------------------------------------------------------------------------- */

static void drop(struct metrics_keeper *k, struct guest_metrics *g)
{
        HASH_DEL(k->table, g);
        ring_close(g->ring);
        free(g);
}

static char *ring_path(struct control *c, const struct object *o)
{
        _cleanup_free_ char *dir = instance_dir(c, o);

        return xcheck(path_printf("%s/metrics", dir));
}

/* Lock held: the guest's place in the table, made if it runs or, with look, has a history. */
static void adopt(struct control *c, const struct object *o, bool runs, bool look)
{
        struct metrics_keeper *k = c->metrics;
        _cleanup_free_ char *path = NULL;
        struct guest_metrics *g;
        struct ring_file *ring;

        HASH_FIND(hh, k->table, &o->no, sizeof(o->no), g);
        if (g && !runs)
                g->fresh = false;
        if ((g && g->ring) || !(runs || look))
                return;
        path = ring_path(c, o);
        ring = ring_open(path, runs);
        if (!ring)
                return;
        if (!g) {
                g = xcalloc(1, sizeof(*g));
                g->no = o->no;
                HASH_ADD(hh, k->table, no, sizeof(g->no), g);
        }
        g->ring = ring;
}

/* Whether guests of this host run.  What is no more is dropped, what is new taken up. */
static bool take_stock(struct control *c, bool all)
{
        struct metrics_keeper *k = c->metrics;
        struct guest_metrics *g, *next;
        struct object *o, *tmp;
        bool some = false;

        control_rdlock(c);
        pthread_mutex_lock(&k->lock);
        HASH_ITER (hh, k->table, g, next)
                if (!model_by_no(c, g->no))
                        drop(k, g);
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                bool runs =
                        o->kind == &kind_instance && object_in(o, INSTANCE_RUNS) && feed_ours(c, o);

                if (o->kind == &kind_instance)
                        adopt(c, o, runs, all);
                some |= runs;
        }
        pthread_mutex_unlock(&k->lock);
        control_unlock(c);
        return some;
}

struct taking {
        struct control *c;
        int64_t now;
};

static void take(void *arg, const char *uuid, const struct guest_stats *s)
{
        struct taking *t = arg;
        struct metrics_keeper *k = t->c->metrics;
        struct sample sample = {.at = t->now};
        struct guest_metrics *g = NULL;
        struct object *o;
        sd_id128_t id;

        if (id_parse(uuid, &id) < 0)
                return;
        control_rdlock(t->c);
        o = model_by_id(t->c, id);
        pthread_mutex_lock(&k->lock);
        if (o)
                HASH_FIND(hh, k->table, &o->no, sizeof(o->no), g);
        if (g) {
                g->stats = *s;
                g->fresh = true;
                memcpy(sample.v, s->all, sizeof(sample.v));
                if (g->ring)
                        ring_write(g->ring, &sample);
        }
        pthread_mutex_unlock(&k->lock);
        control_unlock(t->c);
}

static void fetch(struct control *c)
{
        struct taking t = {c, clock_now()};
        struct compute *engines[ENGINES];
        size_t n;

        compute_engines(c, engines, &n, NULL);
        for (size_t i = 0; i < n; i++)
                if (engines[i]->ops->stats)
                        engines[i]->ops->stats(engines[i], take, &t, NULL);
}

static void *metrics_main(void *arg)
{
        struct control *c = arg;
        struct metrics_keeper *k = c->metrics;
        bool some = take_stock(c, true);

        pthread_mutex_lock(&k->lock);
        while (!k->stop) {
                struct timespec next = clock_timespec(clock_mono() + EVERY_US);
                int r = 0;

                if (some) {
                        k->idle = k->wake = false;
                        pthread_mutex_unlock(&k->lock);
                        fetch(c);
                        pthread_mutex_lock(&k->lock);
                }
                while (!k->stop && !k->wake && r == 0)
                        r = some ? pthread_cond_timedwait(&k->cond, &k->lock, &next)
                                 : pthread_cond_wait(&k->cond, &k->lock);
                k->wake = false;
                k->idle = true; /* what changes from here on wakes */
                pthread_mutex_unlock(&k->lock);
                some = take_stock(c, false);
                pthread_mutex_lock(&k->lock);
        }
        pthread_mutex_unlock(&k->lock);
        return NULL;
}

/* The first guest that starts; the others are found at the next tick. */
void metrics_changed(struct control *c, const struct kind *kind)
{
        struct metrics_keeper *k = c->metrics;

        if (!k || kind != &kind_instance)
                return;
        WITH_LOCK(&k->lock);
        if (!k->idle)
                return;
        k->wake = true;
        pthread_cond_signal(&k->cond);
}

int metrics_start(struct control *c, struct err **e)
{
        struct metrics_keeper *k = xcalloc(1, sizeof(*k));
        pthread_condattr_t a;

        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&k->lock, NULL);
        pthread_cond_init(&k->cond, &a);
        pthread_condattr_destroy(&a);
        c->metrics = k;
        k->idle = true;
        k->running = pthread_create(&k->thread, NULL, metrics_main, c) == 0;
        return k->running ? 0 : err_set(e, -EAGAIN, "no thread for the guests' figures");
}

void metrics_stop(struct control *c)
{
        struct metrics_keeper *k = c->metrics;

        if (!k || !k->running)
                return;
        pthread_mutex_lock(&k->lock);
        k->stop = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
        pthread_join(k->thread, NULL);
        k->running = false;
}

void metrics_free(struct control *c)
{
        struct metrics_keeper *k = c->metrics;
        struct guest_metrics *g, *next;

        if (!k)
                return;
        HASH_ITER (hh, k->table, g, next)
                drop(k, g);
        pthread_cond_destroy(&k->cond);
        pthread_mutex_destroy(&k->lock);
        free(k);
        c->metrics = NULL;
}
