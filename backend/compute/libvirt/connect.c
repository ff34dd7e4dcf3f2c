/* The connection to the engine: opened, lost, opened again. */
#include "backend/compute/libvirt/driver.h"

#include <time.h>

#include "common/clock.h"
#include "common/log.h"

enum {
        KEEPALIVE_INTERVAL = 5, /* seconds; a libvirtd that hangs is taken for dead after */
        KEEPALIVE_COUNT = 5,    /* this many unanswered */
        RETRY_FIRST_MS = 100,
        RETRY_LAST_MS = 5000,
        TRY_MS = 3000, /* a caller waits this long for an attempt made for it */
};

static void on_close(virConnectPtr conn, int reason, void *arg)
{
        struct driver *d = arg;

        WITH_LOCK(&d->lock);
        if (conn != d->conn) /* closed by us, or one that never became ours */
                return;
        d->lost = true;
        pthread_cond_broadcast(&d->cond);
}

int link_open(struct driver *d, struct err **e)
{
        virConnectPtr conn;
        int r;

        reaper_busy(d->reaper, +1);
        conn = virConnectOpen(d->uri);
        reaper_busy(d->reaper, -1);
        if (!conn)
                return virt_error(NULL, e);
        r = events_register(d, conn, e);
        if (r == 0 && link_remote(d)) {
                if (virConnectRegisterCloseCallback(conn, on_close, d, NULL) < 0 ||
                    virConnectSetKeepAlive(conn, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT) < 0)
                        r = virt_error(conn, e);
        }
        if (r < 0) {
                events_drop(d, conn);
                virConnectClose(conn);
                return r;
        }
        WITH_LOCK(&d->lock);
        d->conn = conn;
        d->opened = clock_mono();
        /* It may have died before the callback could recognise it. */
        d->lost = virConnectIsAlive(conn) == 0;
        free(TAKE_PTR(d->down));
        return 0;
}

void link_close(struct driver *d)
{
        virConnectPtr conn;

        {
                WITH_LOCK(&d->lock);
                conn = TAKE_PTR(d->conn);
        }
        if (!conn)
                return;
        events_drop(d, conn);
        if (link_remote(d))
                virConnectUnregisterCloseCallback(conn, on_close);
        virConnectClose(conn);
        virResetLastError();
}

/* An attempt is made at once for who needs the engine: it may be back, and the next attempt be
 * seconds away.  Lock held. */
static void try_now(struct driver *d)
{
        struct timespec until = clock_timespec(clock_mono() + TRY_MS * INT64_C(1000));
        unsigned before = d->tries;

        if (!d->link_started)
                return;
        d->asked = true;
        pthread_cond_broadcast(&d->cond);
        while (d->tries == before && !d->closing &&
               pthread_cond_timedwait(&d->cond, &d->lock, &until) != ETIMEDOUT)
                ;
}

virConnectPtr link_get(struct driver *d, struct err **e)
{
        WITH_LOCK(&d->lock);
        if (!d->conn || d->lost)
                try_now(d);
        if (d->conn && !d->lost && virConnectRef(d->conn) == 0)
                return d->conn;
        err_set(e, -ECONNREFUSED, "%s is down: %s", d->uri,
                d->down ? d->down : "the connection was lost");
        err_hint(e, -ECONNREFUSED,
                 d->mode == COMPUTE_SESSION
                         ? "is XDG_RUNTIME_DIR set, and libvirt-daemon installed?"
                 : d->mode == COMPUTE_LXC
                         ? "containers need a libvirtd (libvirt-daemon-system) and its LXC driver "
                           "(libvirt-daemon-driver-lxc)"
                         : "start libvirtd; guests that ran go on meanwhile");
        return NULL;
}

/* Sleeps ms, or until the driver closes. */
static void pause_for(struct driver *d, int ms)
{
        struct timespec until = clock_timespec(clock_mono() + ms * INT64_C(1000));

        while (!d->closing && !d->asked &&
               pthread_cond_timedwait(&d->cond, &d->lock, &until) != ETIMEDOUT)
                ;
}

/* One attempt, lock held on entry and on return.  True when the engine is back. */
static bool try_again(struct driver *d)
{
        _cleanup_err_ struct err *why = NULL;
        int r;

        d->asked = false;
        pthread_mutex_unlock(&d->lock);
        link_close(d);
        r = link_open(d, &why);
        if (r == 0) {
                log_info("%s answers again", d->uri);
                if (d->ev.resync)
                        d->ev.resync(d->ev.arg);
        }
        pthread_mutex_lock(&d->lock);
        d->tries++;
        pthread_cond_broadcast(&d->cond);
        if (r < 0) {
                free(d->down);
                d->down = strdup(err_msg(why));
        }
        return r == 0;
}

void *link_run(void *arg)
{
        struct driver *d = arg;
        int ms = RETRY_FIRST_MS;

        seat_all(d); /* guests that an earlier process left running */
        pthread_mutex_lock(&d->lock);
        while (!d->closing) {
                if (d->conn && !d->lost) {
                        ms = RETRY_FIRST_MS;
                        pthread_cond_wait(&d->cond, &d->lock);
                } else {
                        if (d->conn)
                                log_warning("%s: connection lost", d->uri);
                        if (try_again(d)) {
                                pthread_mutex_unlock(&d->lock);
                                seat_all(d);
                                pthread_mutex_lock(&d->lock);
                        } else {
                                pause_for(d, ms);
                                ms = MIN(2 * ms, RETRY_LAST_MS);
                        }
                }
        }
        pthread_mutex_unlock(&d->lock);
        return NULL;
}
