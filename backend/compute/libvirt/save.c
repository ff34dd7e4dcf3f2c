/* Guests that sleep in a file: virDomainSave and virDomainRestore.
 *
 * Our guests are transient, so libvirt's managed save is not for them; the file is ours to name.
 * Until it is whole it begins with "LibvirtQemudPart", and libvirt refuses it. */
#include "backend/compute/libvirt/driver.h"

#include "common/clock.h"
#include "common/fault.h"

enum { LOOK_US = 250000 };

/* A call that lasts, and a thread beside it that tells how far it is and ends it on request. */
struct lasting {
        const struct compute_watch *w;
        virDomainPtr dom;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool over, started, aborted;
};

static void tell(struct lasting *l)
{
        virDomainJobInfo info;

        if (l->w->progress && virDomainGetJobInfo(l->dom, &info) == 0 && info.dataTotal)
                l->w->progress(l->w->arg, info.dataProcessed, info.dataTotal);
        if (l->w->cancelled && l->w->cancelled(l->w->arg) && virDomainAbortJob(l->dom) == 0)
                l->aborted = true;
        virResetLastError(); /* it may just have begun, or ended */
}

static void *beside(void *arg)
{
        struct lasting *l = arg;

        WITH_LOCK(&l->lock);
        while (!l->over) {
                struct timespec ts = clock_timespec(clock_mono() + LOOK_US);

                if (pthread_cond_timedwait(&l->cond, &l->lock, &ts) == 0 || l->over)
                        continue;
                pthread_mutex_unlock(&l->lock);
                tell(l);
                pthread_mutex_lock(&l->lock);
        }
        return NULL;
}

/* Without a thread the call cannot be cancelled; it goes on all the same. */
static void lasting_begin(struct lasting *l)
{
        pthread_condattr_t a;

        pthread_condattr_init(&a);
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->cond, &a);
        pthread_condattr_destroy(&a);
        l->started = l->w && pthread_create(&l->thread, NULL, beside, l) == 0;
}

static void lasting_end(struct lasting *l)
{
        pthread_mutex_lock(&l->lock);
        l->over = true;
        pthread_cond_signal(&l->cond);
        pthread_mutex_unlock(&l->lock);
        if (l->started)
                pthread_join(l->thread, NULL);
        pthread_cond_destroy(&l->cond);
        pthread_mutex_destroy(&l->lock);
}

int op_save(struct compute *c, const char *uuid, const char *path, const struct compute_watch *w,
            struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        struct lasting l = {.w = w};
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        l.dom = dom;
        reaper_busy(d->reaper, +1);
        lasting_begin(&l);
        if (virDomainSaveFlags(dom, path, NULL, 0) < 0)
                r = guest_failed(conn, dom, uuid, &why);
        lasting_end(&l);
        reaper_busy(d->reaper, -1);
        if (r < 0 && l.aborted)
                return err_set(e, -ECANCELED, "cancelled: it goes on as it was");
        err_move(e, TAKE_PTR(why));
        return r;
}

int op_saved(struct compute *c, const char *path, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = link_get(driver(c), e);
        _cleanup_free_ char *xml = NULL;

        if (!conn)
                return -ECONNREFUSED;
        if (access(path, F_OK) < 0)
                return err_errno(e, -errno, "%s", path);
        xml = virDomainSaveImageGetXMLDesc(conn, path, 0);
        return xml ? 0 : virt_error(conn, e);
}

/* The simulation cannot bring one back paused. */
static int restore(struct driver *d, virConnectPtr conn, const char *path)
{
        if (d->mode == COMPUTE_TEST)
                return virDomainRestoreFlags(conn, path, NULL, 0);
        return virDomainRestoreFlags(conn, path, NULL, VIR_DOMAIN_SAVE_PAUSED);
}

int op_restore(struct compute *c, const char *uuid, const char *path, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = FAULT("compute.restore");
        if (r < 0)
                return err_errno(e, r, "restore guest");
        dom = virDomainLookupByUUIDString(conn, uuid);
        if (dom && virDomainIsActive(dom) != 1) { /* adopted: its definition is always there */
                virDomainFree(dom);
                dom = NULL;
        }
        if (!dom) {
                reaper_busy(d->reaper, +1);
                if (restore(d, conn, path) < 0)
                        r = virt_error(conn, &why);
                else
                        dom = virDomainLookupByUUIDString(conn, uuid);
                if (dom)
                        reaper_watch_guest(d->reaper, d->root, virDomainGetName(dom));
                reaper_busy(d->reaper, -1);
        }
        virResetLastError();
        if (r == 0 && dom)
                seat_guest(d, dom);
        if (r < 0)
                err_move(e, TAKE_PTR(why));
        return r;
}
