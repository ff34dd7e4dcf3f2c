/* Guests that move to another host while they run: virDomainMigrateToURI3, from daemon to daemon.
 *
 * The two libvirtds do it among themselves, so it goes on when we end, and a call for a guest that
 * is on its way already waits for that.  Which host has the guest afterwards tells the state of
 * both: libvirt's answer alone is not enough, as a daemon may have died before it could give one.
 *
 * The call blocks until the end, in a thread of its own; the caller's tells progress meanwhile, has
 * the guest's disks handed over when QEMU has halted it and written everything, and stops what
 * takes too long. */
#include "backend/compute/libvirt/driver.h"

#include <jansson.h>
#include <libvirt/libvirt-qemu.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

enum { TICK_US = 250000 };

/* The event loop may be in our callback still when that has been deregistered: the last of the two
 * frees it, and the callback touches nothing but the lock and what stands behind it. */
struct migration {
        struct driver *d;
        virConnectPtr conn;
        virDomainPtr dom;
        const struct guest_move *m;
        char *xml; /* what it is to be there */
        pthread_mutex_t lock;
        pthread_cond_t cond; /* CLOCK_MONOTONIC */
        unsigned refs;       /* the caller, and the callback */
        bool halted, ended;
        int result;
        struct err *err;
        bool told, hurried, stopped; /* the watching thread's */
};

static struct migration *migration_new(struct driver *d, const struct guest_move *m)
{
        struct migration *g = calloc(1, sizeof(*g));
        pthread_condattr_t a;

        if (!g)
                return NULL;
        g->d = d;
        g->m = m;
        g->refs = 1;
        pthread_mutex_init(&g->lock, NULL);
        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_cond_init(&g->cond, &a);
        pthread_condattr_destroy(&a);
        return g;
}

/* A virFreeCallback. */
static void migration_unref(void *arg)
{
        struct migration *g = arg;
        bool last;

        pthread_mutex_lock(&g->lock);
        last = --g->refs == 0;
        pthread_mutex_unlock(&g->lock);
        if (!last)
                return;
        pthread_cond_destroy(&g->cond);
        pthread_mutex_destroy(&g->lock);
        free(g);
}

/* --- the call ----------------------------------------------------------------------------------
 */

static unsigned flags_of(const struct guest_move *m)
{
        unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_ABORT_ON_ERROR;

        if (m->tls)
                flags |= VIR_MIGRATE_TLS;
        if (m->ncopy)
                flags |= VIR_MIGRATE_NON_SHARED_DISK;
        if (m->late == GUEST_LATE_POSTCOPY)
                flags |= VIR_MIGRATE_POSTCOPY;
        else
                flags |= VIR_MIGRATE_AUTO_CONVERGE;
        return flags;
}

static int param(virTypedParameterPtr *v, int *n, int *max, const char *name, const char *value)
{
        return value && *value ? virTypedParamsAddString(v, n, max, name, value) : 0;
}

static int migrate_call(struct migration *g, struct err **e)
{
        const struct guest_move *m = g->m;
        virTypedParameterPtr v = NULL;
        int n = 0, max = 0;
        int r = param(&v, &n, &max, VIR_MIGRATE_PARAM_DEST_XML, g->xml);

        if (r == 0)
                r = param(&v, &n, &max, VIR_MIGRATE_PARAM_URI, m->data);
        if (r == 0 && m->ncopy)
                r = param(&v, &n, &max, VIR_MIGRATE_PARAM_DISKS_URI, m->disks);
        for (unsigned i = 0; i < m->ncopy && r == 0; i++)
                r = param(&v, &n, &max, VIR_MIGRATE_PARAM_MIGRATE_DISKS, m->copy[i]);
        if (r == 0)
                r = virDomainMigrateToURI3(g->dom, m->to, v, (unsigned)n, flags_of(m));
        if (r < 0)
                r = virt_error(g->conn, e);
        virTypedParamsFree(v, n);
        return r;
}

static void *migrate_main(void *arg)
{
        struct migration *g = arg;
        struct err *err = NULL;
        int r = migrate_call(g, &err);

        WITH_LOCK(&g->lock);
        g->result = r;
        g->err = err;
        g->ended = true;
        pthread_cond_signal(&g->cond);
        return NULL;
}

/* --- what goes on meanwhile ----------------------------------------------------------------------
 */

/* From the first of these on it stands still here, and all that it wrote is with its disks. */
static bool halts(const char *details)
{
        static const char *const words[] = {"pre-switchover", "device", "postcopy-active",
                                            "completed"};
        json_auto_t *o = json_loads(details ? details : "", 0, NULL);
        const char *status = json_string_value(json_object_get(o, "status"));

        for (size_t i = 0; status && i < ARRAY_SIZE(words); i++)
                if (streq(status, words[i]))
                        return true;
        return false;
}

/* On the event loop's thread. */
static void on_event(virConnectPtr conn, virDomainPtr dom, const char *event, long long seconds,
                     unsigned micros, const char *details, void *arg)
{
        struct migration *g = arg;

        if (!halts(details))
                return;
        WITH_LOCK(&g->lock);
        g->halted = true;
        pthread_cond_signal(&g->cond);
}

/* -1: without it, the disks change hands at the end. */
static int listen_events(struct migration *g)
{
        int cb;

        pthread_mutex_lock(&g->lock);
        g->refs++;
        pthread_mutex_unlock(&g->lock);
        cb = virConnectDomainQemuMonitorEventRegister(g->conn, g->dom, "MIGRATION", on_event, g,
                                                      migration_unref, 0);
        if (cb < 0)
                migration_unref(g);
        return cb;
}

/* Whether libvirt is at it; tells how far. */
static bool look(struct migration *g, uint64_t *done, uint64_t *total)
{
        virDomainJobInfo info = {};
        bool busy = virDomainGetJobInfo(g->dom, &info) == 0 &&
                    (info.type == VIR_DOMAIN_JOB_BOUNDED || info.type == VIR_DOMAIN_JOB_UNBOUNDED);

        virResetLastError();
        *done = info.dataProcessed;
        *total = info.dataProcessed + info.dataRemaining;
        return busy;
}

static void stop(struct migration *g)
{
        if (g->stopped || g->halted)
                return;
        g->stopped = virDomainAbortJob(g->dom) == 0;
        virResetLastError();
}

/* Its time is over. */
static void hurry(struct migration *g)
{
        int r = 0;

        if (g->hurried)
                return;
        g->hurried = true;
        switch (g->m->late) {
        case GUEST_LATE_ABORT:
                stop(g);
                break;
        case GUEST_LATE_PAUSE:
                r = virDomainSuspend(g->dom);
                break;
        case GUEST_LATE_POSTCOPY:
                r = virDomainMigrateStartPostCopy(g->dom, 0);
                break;
        }
        if (r < 0) {
                log_warning("migration: %s", virGetLastErrorMessage());
                virResetLastError();
        }
}

/* Once round; lock held on entry and on return. */
static void tend(struct migration *g, int64_t deadline)
{
        const struct guest_move *m = g->m;
        bool tell = g->halted && !g->told;
        uint64_t done, total;

        pthread_mutex_unlock(&g->lock);
        if (tell) {
                g->told = true;
                m->halted(m->arg);
        }
        if (look(g, &done, &total) && m->progress(m->arg, done, total) != 0)
                stop(g);
        if (clock_mono() >= deadline)
                hurry(g);
        pthread_mutex_lock(&g->lock);
}

/* Until the thread has ended, or (joined) libvirt is not at it any more. */
static void await(struct migration *g, bool joined)
{
        int64_t deadline = clock_mono() + g->m->seconds * INT64_C(1000000);

        pthread_mutex_lock(&g->lock);
        while (!g->ended) {
                struct timespec ts = clock_timespec(clock_mono() + TICK_US);

                if (!g->halted || g->told)
                        pthread_cond_timedwait(&g->cond, &g->lock, &ts);
                if (g->ended)
                        break;
                tend(g, deadline);
                if (joined) {
                        uint64_t done, total;

                        g->ended = !look(g, &done, &total);
                }
        }
        pthread_mutex_unlock(&g->lock);
}

/* --- the whole -----------------------------------------------------------------------------------
 */

static int run(struct migration *g, struct err **e)
{
        pthread_t thread;
        uint64_t done, total;
        int cb, r;

        if (look(g, &done, &total)) { /* begun by a daemon before this one */
                cb = listen_events(g);
                await(g, true);
        } else {
                r = FAULT("compute.migrate");
                if (r < 0)
                        return err_errno(e, r, "migrate guest");
                cb = listen_events(g);
                r = -pthread_create(&thread, NULL, migrate_main, g);
                if (r == 0) {
                        await(g, false);
                        pthread_join(thread, NULL);
                } else {
                        g->result = err_errno(&g->err, r, "migrate guest");
                }
        }
        if (cb >= 0)
                virConnectDomainQemuMonitorEventDeregister(g->conn, cb);
        virResetLastError();
        err_move(e, TAKE_PTR(g->err));
        return g->result;
}

/* What it came to: libvirt's words, unless the caller had it stopped. */
static int outcome(struct migration *g, const char *uuid, int r, struct err **e)
{
        enum guest_state s;

        if (r == 0 && op_state(&g->d->base, uuid, &s, NULL) == 0 && s != GUEST_GONE)
                return err_set(e, -EIO, "the migration did not come to its end");
        if (r < 0 && g->stopped) {
                if (e)
                        *e = err_free(*e);
                return g->hurried ? err_set(e, -ETIME, "not done within %u s", g->m->seconds)
                                  : err_set(e, -ECANCELED, "cancelled");
        }
        return r;
}

int op_migrate(struct compute *c, const char *uuid, const struct guest_move *m, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_free_ char *xml = NULL, *moved = NULL;
        struct driver *d = driver(c);
        struct migration *g;
        int r;

        if (d->mode != COMPUTE_SYSTEM)
                return err_set(e, -ENOTSUP, "a guest migrates between two system libvirtds only");
        r = guest_find(c, uuid, &conn, &dom, e);
        if (r < 0)
                return r;
        xml = virDomainGetXMLDesc(dom, VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_MIGRATABLE);
        if (!xml)
                return guest_failed(conn, dom, uuid, e);
        r = xml_move(xml, m->paths, m->npaths, &moved, e);
        if (r < 0)
                return r;
        g = migration_new(d, m);
        if (!g)
                return err_errno(e, -ENOMEM, "migrate guest");
        g->conn = conn;
        g->dom = dom;
        g->xml = moved;
        r = outcome(g, uuid, run(g, e), e);
        migration_unref(g);
        return r;
}
