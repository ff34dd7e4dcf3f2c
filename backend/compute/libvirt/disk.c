/* Disks that come and go while the guest runs. */
#include "backend/compute/libvirt/driver.h"

#include "common/clock.h"

/* The guest overlooks a request when it is early in its boot: it is asked again after this. */
enum { ASK_AGAIN_MS = 6000 };

/* How a guest and its disk at target stand.  -ENOENT: no guest. */
static int look(virConnectPtr conn, const char *uuid, const char *target, virDomainPtr *dom,
                struct disk_found *ret, struct err **e)
{
        _cleanup_free_ char *xml = NULL;
        int r;

        if (!*dom)
                *dom = virDomainLookupByUUIDString(conn, uuid);
        xml = *dom ? virDomainGetXMLDesc(*dom, 0) : NULL;
        if (xml)
                return xml_find_disk(xml, target, ret, e);
        if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
                virResetLastError();
                return err_set(e, -ENOENT, "no guest '%s'", uuid);
        }
        r = virt_error(conn, e);
        return r;
}

static bool same(const struct disk_found *f, const struct guest_disk *disk)
{
        /* libvirt leaves an empty name out. */
        return f->socket && streq(f->socket, disk->socket) &&
               streq(f->export ? f->export : "", disk->export);
}

int op_attach(struct compute *c, const char *uuid, const struct guest_disk *disk, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = link_get(driver(c), e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_(disk_found_done) struct disk_found there = {0};
        _cleanup_err_ struct err *why = NULL;
        _cleanup_free_ char *xml = NULL;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = xml_disk(disk, &xml, e);
        if (r == 0)
                r = look(conn, uuid, disk->target, &dom, &there, e);
        if (r < 0)
                return r;
        if (there.found && same(&there, disk))
                return 0;
        if (there.found)
                return err_set(e, -EEXIST, "the guest has another disk at '%s'", disk->target);
        if (virDomainAttachDeviceFlags(dom, xml, VIR_DOMAIN_AFFECT_LIVE) == 0)
                return 0;
        r = virt_error(conn, &why);
        if (r == -EIO && virDomainIsActive(dom) != 1)
                r = err_set(&why, -ENOENT, "no guest '%s'", uuid);
        virResetLastError();
        err_move(e, TAKE_PTR(why));
        return r;
}

/* Asks the guest to let go.  0 asked, 1 it is gone already.  libvirt's success means no more than
 * that QEMU took the request. */
static int ask(virConnectPtr conn, virDomainPtr dom, const char *alias, struct err **e)
{
        virErrorPtr v;

        if (virDomainDetachDeviceAlias(dom, alias, VIR_DOMAIN_AFFECT_LIVE) == 0)
                return 0;
        v = virGetLastError();
        if (v && (v->code == VIR_ERR_DEVICE_MISSING || v->code == VIR_ERR_NO_DOMAIN)) {
                virResetLastError();
                return 1;
        }
        if (v && v->message && strstr(v->message, "in the process of unplug")) {
                virResetLastError();
                return 0; /* the earlier request stands */
        }
        return virt_error(conn, e);
}

/* Waits for the event, at most until `until` (monotonic microseconds).  True when it came. */
static bool wait_removed(struct driver *d, struct waiter *w, int64_t until)
{
        struct timespec ts = clock_timespec(until);
        int r = 0;

        WITH_LOCK(&d->lock);
        while (!w->removed && !w->refused && !d->lost && !d->closing && r != ETIMEDOUT)
                r = pthread_cond_timedwait(&d->cond, &d->lock, &ts);
        return w->removed;
}

static void enlist(struct driver *d, struct waiter *w)
{
        WITH_LOCK(&d->lock);
        w->next = d->waiters;
        d->waiters = w;
}

static void dismiss(struct driver *d, struct waiter *w)
{
        WITH_LOCK(&d->lock);
        for (struct waiter **p = &d->waiters; *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        break;
                }
}

/* Asks and waits until the device is gone.  An event that got lost is made up for by looking. */
static int let_go(struct driver *d, virConnectPtr conn, virDomainPtr dom, struct waiter *w,
                  const char *target, int64_t deadline, struct err **e)
{
        int r;

        for (;;) {
                _cleanup_(disk_found_done) struct disk_found now = {0};

                r = ask(conn, dom, w->alias, e);
                if (r < 0)
                        return r;
                if (wait_removed(d, w, MIN(deadline, clock_mono() + ASK_AGAIN_MS * 1000)))
                        return 0;
                r = look(conn, w->uuid, target, &dom, &now, e);
                if (r == -ENOENT) { /* the guest went, and its devices with it */
                        if (e)
                                *e = err_free(*e);
                        return 0;
                }
                if (r < 0 || !now.found)
                        return r;
                if (w->refused || clock_mono() >= deadline)
                        return err_set(e, -ETIMEDOUT, "the guest %s let go of disk '%s'",
                                       w->refused ? "refused to" : "did not", target);
        }
}

int op_detach(struct compute *c, const char *uuid, const char *target, int timeout_ms,
              struct err **e)
{
        int64_t deadline = clock_mono() + timeout_ms * INT64_C(1000);
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_(disk_found_done) struct disk_found there = {0};
        struct waiter w = {.uuid = uuid};
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = look(conn, uuid, target, &dom, &there, e);
        if (r < 0 || !there.found)
                return r;
        if (!there.alias)
                return err_set(e, -EIO, "libvirt gave disk '%s' no alias", target);
        w.alias = there.alias;
        enlist(d, &w);
        r = let_go(d, conn, dom, &w, target, deadline, e);
        dismiss(d, &w);
        return r;
}
