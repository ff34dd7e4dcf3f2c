/* Where an instance starts: the scheduler asked, its answer written down, and the host's own yes.
 *
 * The job begins on the host that was asked to start the instance.  It writes the chosen host into
 * the instance and into the job in one commit, guarded by the versions of both, and that host goes
 * on.  There the same step claims: it alone accepts guests of its own, one after the other, so what
 * two schedulers promised of the same room at the same time is given once; who gets none looks for
 * another host. */
#include "control/jobs/jobs.h"

#include "common/size.h"
#include "control/hosts.h"

enum { BINDS_MAX = 26, WHY_MAX = 4000 };

/* The volumes that bind it; live: not those whose bytes can go along.  Model held. */
static size_t find_binds(struct control *c, const struct object *o, bool live,
                         struct sched_bind v[BINDS_MAX])
{
        size_t n = 0;

        if (object_num(o, "adopted"))
                v[n++] = (struct sched_bind){object_str(o, "host"), "its definition"};
        if (*object_str(o, "rooted"))
                v[n++] = (struct sched_bind){object_str(o, "rooted"), "its root"};
        object_foreach_link (l, o)
                if (l->target->kind == &kind_volume && volume_local(l->target) &&
                    *object_str(l->target, "host") && n < BINDS_MAX &&
                    !(live && volume_goes_along(c, l->target)))
                        v[n++] =
                                (struct sched_bind){object_str(l->target, "host"), l->target->name};
        return n;
}

static struct sched_want wanted(struct control *c, const struct object *o, bool live,
                                const struct sched_host *v, size_t n,
                                struct sched_bind binds[BINDS_MAX])
{
        const struct object *group = object_target(o, "group");
        struct sched_want w = {.vcpus = object_num(o, "vcpus"),
                               .memory = object_num(o, "memory"),
                               .zone = object_str(o, "zone"),
                               .features = object_str(o, "features"),
                               .binds = binds,
                               .nbinds = find_binds(c, o, live, binds),
                               .policy = sched_policy(group ? object_str(group, "policy") : ""),
                               .pack = streq(object_str(o->tenant, "placement"), "pack")};

        for (size_t i = 0; i < n; i++)
                w.members += v[i].members;
        return w;
}

/* The best of all hosts, or that one alone.  Gives its index in v. */
static int ask(struct control *c, const struct object *o, const char *only, struct sched_host *v,
               size_t n, struct buf *why, struct err **e)
{
        const bool live = o->state == INSTANCE_MIGRATING; /* also off: see move.c */
        struct sched_bind binds[BINDS_MAX];
        struct sched_want w = wanted(c, o, live, v, n, binds);

        for (size_t i = 0; only && i < n; i++)
                if (streq(v[i].name, only))
                        return sched_place(&w, v + i, 1, why, e) < 0 ? -ENOSPC : (int)i;
        return sched_place(&w, v, n, why, e);
}

static bool was_placed_here(struct control *c, const struct object *o, const struct object *job)
{
        return *object_str(job, "placed") && host_here(c, object_str(o, "host"));
}

static void write_placed(struct txn *t, struct object *job, struct buf *why)
{
        if (why->len > WHY_MAX) {
                why->data[WHY_MAX] = '\0';
                strrchr(why->data, '\n')[1] = '\0';
        }
        txn_set_str(t, job, "placed", buf_str(why));
}

/* Gives 0: it is this host's; JOB_AWAY: another's. */
static int place(struct job *j, struct txn *t, struct object *o, struct object *job, struct err **e)
{
        struct control *c = j->c;
        bool claim = was_placed_here(c, o, job), mine;
        _cleanup_buf_ struct buf why = {};
        struct sched_host *v;
        int i = -ENOSPC;
        size_t n;

        if (claim) {
                v = host_views(c, o, true, &n);
                i = ask(c, o, c->cfg.host, v, n, &why, NULL);
                host_views_free(v, n);
                buf_clear(&why); /* as it was said */
        }
        mine = i >= 0;
        if (!mine) {
                v = host_views(c, o, false, &n);
                if (object_num(o, "stays")) /* it was taken there while it was off */
                        i = ask(c, o, object_str(o, "host"), v, n, &why, NULL);
                if (i < 0) {
                        buf_clear(&why);
                        i = ask(c, o, NULL, v, n, &why, e);
                }
                write_placed(t, job, &why); /* also of one that nobody may have */
                if (i >= 0) {
                        txn_set_num(t, o, "stays", 0);
                        txn_set_str(t, o, "host", v[i].name);
                        mine = host_here(c, v[i].name);
                }
                host_views_free(v, n);
        }
        if (i < 0)
                return i;
        txn_set_num(t, o, "claim", mine ? c->epoch : 0);
        txn_set_str(t, job, "host", object_str(o, "host"));
        txn_set_str(t, o, "died_with", NULL);
        return mine ? 0 : JOB_AWAY;
}

/* The scheduler is to see it as one that takes no guests, and to say why. */
static void bar(struct sched_host *h, const char *why)
{
        h->up = false;
        h->state = why;
}

int instance_place_elsewhere(struct txn *t, const struct object *o, struct object *job,
                             const char *named, bool live, char *ret, struct err **e)
{
        struct control *c = t->c;
        struct sched_bind binds[BINDS_MAX];
        _cleanup_buf_ struct buf why = {};
        struct sched_want w;
        size_t n;
        struct sched_host *v = host_views(c, o, false, &n);
        int i;

        for (size_t k = 0; k < n; k++) {
                if (streq(v[k].name, object_str(o, "host")))
                        bar(&v[k], "where it is");
                else if (*named && !streq(v[k].name, named))
                        bar(&v[k], "not the one that was asked for");
                else if (live && !streq(object_str(host_find(c, v[k].name), "compute"), "system"))
                        bar(&v[k], "without a libvirtd that others reach");
        }
        w = wanted(c, o, live, v, n, binds);
        i = sched_place(&w, v, n, &why, e);
        if (i >= 0)
                snprintf(ret, NAME_SIZE, "%s", v[i].name);
        write_placed(t, job, &why);
        host_views_free(v, n);
        return MIN(i, 0);
}

int instance_fits_here(struct control *c, const struct object *o, struct err **e)
{
        _cleanup_buf_ struct buf why = {};
        size_t n;
        struct sched_host *v = host_views(c, o, true, &n);
        int i = ask(c, o, c->cfg.host, v, n, &why, NULL);

        host_views_free(v, n);
        return i >= 0 ? 0
                      : err_set(e, -ENOSPC, "%.*s", (int)strcspn(buf_str(&why), "\n"),
                                buf_str(&why));
}

int instance_fits_somewhere(struct control *c, const struct object *o, struct err **e)
{
        _cleanup_buf_ struct buf why = {};
        size_t n;
        struct sched_host *v = host_views(c, o, false, &n);
        int i = ask(c, o, NULL, v, n, &why, e);

        host_views_free(v, n);
        return MIN(i, 0);
}

static int no_room(const struct object *host, const char *what, const char *more, const char *left,
                   struct err **e)
{
        err_set(e, -ENOSPC, "host '%s' has no room for it: %s: %s more wanted, %s left", host->name,
                what, more, left);
        return err_hint(e, -ENOSPC, "stop it, and start it where there is room");
}

int instance_may_grow(struct control *c, const struct object *o, uint64_t vcpus, uint64_t memory,
                      struct err **e)
{
        const struct object *host = host_find(c, object_str(o, "host"));
        uint64_t left_vcpus, left_memory;
        struct host_use use;
        char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];

        if (!host)
                return 0;
        host_use(c, host->name, false, NULL, &use);
        left_vcpus =
                sched_left(object_num(host, "cpus"), object_num(host, "vcpus_percent"), use.vcpus);
        left_memory = sched_left(object_num(host, "memory"), object_num(host, "memory_percent"),
                                 use.memory);
        if (memory > left_memory)
                return no_room(host, "memory", size_human(a, memory), size_human(b, left_memory),
                               e);
        if (vcpus <= left_vcpus)
                return 0;
        snprintf(a, sizeof(a), "%" PRIu64, vcpus);
        snprintf(b, sizeof(b), "%" PRIu64, left_vcpus);
        return no_room(host, "vcpus", a, b, e);
}

int instance_step_place(struct job *j, struct err **e)
{
        struct object *o, *job;
        struct txn t;
        int r, end;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        job = model_by_no(j->c, j->no);
        if (!o || !job) {
                txn_abort(&t);
                return err_set(e, -ENOENT, "it is gone");
        }
        r = job_mine(j, job) ? place(j, &t, o, job, e) : -ESTALE;
        if (r == -ENOSPC) { /* the reasons stay with the job */
                txn_commit(&t, NULL);
                return r;
        }
        if (r < 0) {
                txn_abort(&t);
                return r == -ESTALE ? JOB_AWAY : r;
        }
        end = txn_commit(&t, e);
        if (end == -ESTALE) { /* somebody else wrote one of the two: look again */
                if (e)
                        *e = err_free(*e);
                return job_wait(j, 0, 50000, "changed by another host meanwhile");
        }
        return end < 0 ? end : r;
}
