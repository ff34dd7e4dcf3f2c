/* libvirt's events, on the event loop's thread. */
#include "backend/compute/libvirt/driver.h"

#include "common/log.h"

enum guest_state guest_state_of(int state, int reason)
{
        switch (state) {
        case VIR_DOMAIN_PAUSED:
                return reason == VIR_DOMAIN_PAUSED_IOERROR ? GUEST_STALLED
                       : reason == VIR_DOMAIN_PAUSED_MIGRATION ||
                                       reason == VIR_DOMAIN_PAUSED_POSTCOPY ||
                                       reason == VIR_DOMAIN_PAUSED_POSTCOPY_FAILED
                               ? GUEST_BETWEEN
                               : GUEST_PAUSED;
        case VIR_DOMAIN_PMSUSPENDED:
                return GUEST_PAUSED;
        case VIR_DOMAIN_CRASHED:
                return GUEST_CRASHED;
        case VIR_DOMAIN_SHUTOFF:
                return GUEST_GONE;
        default: /* also NOSTATE, BLOCKED, and SHUTDOWN: on its way, still there */
                return GUEST_RUNNING;
        }
}

static enum guest_reason reason_of(int detail)
{
        switch (detail) {
        case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
                return GUEST_REASON_SHUTDOWN;
        case VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
                return GUEST_REASON_DESTROYED;
        default: /* crashed, failed: QEMU died */
                return GUEST_REASON_FAILED;
        }
}

static void tell(struct driver *d, const char *uuid, enum guest_state s, enum guest_reason why)
{
        if (d->ev.changed)
                d->ev.changed(d->ev.arg, uuid, s, why);
}

static int on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *arg)
{
        struct driver *d = arg;
        char uuid[VIR_UUID_STRING_BUFLEN];

        if (virDomainGetUUIDString(dom, uuid) < 0)
                return 0;
        switch (event) {
        case VIR_DOMAIN_EVENT_STARTED:
        case VIR_DOMAIN_EVENT_RESUMED:
                unplug_resumed(d, uuid);
                tell(d, uuid, GUEST_RUNNING, GUEST_REASON_NONE);
                break;
        case VIR_DOMAIN_EVENT_SUSPENDED:
                tell(d, uuid,
                     detail == VIR_DOMAIN_EVENT_SUSPENDED_IOERROR ? GUEST_STALLED : GUEST_PAUSED,
                     GUEST_REASON_NONE);
                break;
        case VIR_DOMAIN_EVENT_PMSUSPENDED:
                tell(d, uuid, GUEST_PAUSED, GUEST_REASON_NONE);
                break;
        case VIR_DOMAIN_EVENT_CRASHED:
                tell(d, uuid, GUEST_CRASHED, GUEST_REASON_FAILED);
                break;
        case VIR_DOMAIN_EVENT_STOPPED:
                unplug_removed(d, uuid, NULL);
                tell(d, uuid, GUEST_GONE, reason_of(detail));
                break;
        default: /* defined, undefined, shutdown under way: the state is what it was */
                break;
        }
        return 0;
}

/* Which disk, and QEMU's word for why: for the log.  The pause itself comes as SUSPENDED. */
static void on_io_error(virConnectPtr conn, virDomainPtr dom, const char *source, const char *alias,
                        int action, const char *reason, void *arg)
{
        char uuid[VIR_UUID_STRING_BUFLEN];

        if (virDomainGetUUIDString(dom, uuid) < 0)
                return;
        log_warning("guest %s: disk %s: I/O error%s%s%s", uuid, alias ? alias : "?",
                    reason && *reason ? " (" : "", reason ? reason : "",
                    reason && *reason ? ")" : "");
}

static void on_removed(virConnectPtr conn, virDomainPtr dom, const char *alias, void *arg)
{
        char uuid[VIR_UUID_STRING_BUFLEN];

        if (virDomainGetUUIDString(dom, uuid) == 0)
                unplug_removed(arg, uuid, alias);
}

static void on_removal_failed(virConnectPtr conn, virDomainPtr dom, const char *alias, void *arg)
{
        char uuid[VIR_UUID_STRING_BUFLEN];

        if (virDomainGetUUIDString(dom, uuid) == 0)
                unplug_refused(arg, uuid, alias);
}

/* A container that restarts itself comes anew, with another terminal; a guest only jumps. */
static void on_reboot(virConnectPtr conn, virDomainPtr dom, void *arg)
{
        struct driver *d = arg;
        char uuid[VIR_UUID_STRING_BUFLEN];

        if (d->mode == COMPUTE_LXC && virDomainGetUUIDString(dom, uuid) == 0)
                tell(d, uuid, GUEST_RUNNING, GUEST_REASON_NONE);
}

static const struct {
        int id;
        virConnectDomainEventGenericCallback cb;
} kinds[EVENT_KINDS] = {
        {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
        {VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, VIR_DOMAIN_EVENT_CALLBACK(on_io_error)},
        {VIR_DOMAIN_EVENT_ID_REBOOT, VIR_DOMAIN_EVENT_CALLBACK(on_reboot)},
        {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_removed)},
        {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, VIR_DOMAIN_EVENT_CALLBACK(on_removal_failed)},
};

int events_register(struct driver *d, virConnectPtr conn, struct err **e)
{
        int r;

        for (size_t i = 0; i < EVENT_KINDS; i++)
                d->callbacks[i] = -1;
        for (size_t i = 0; i < EVENT_KINDS; i++) {
                d->callbacks[i] = virConnectDomainEventRegisterAny(conn, NULL, kinds[i].id,
                                                                   kinds[i].cb, d, NULL);
                if (d->callbacks[i] < 0) {
                        r = virt_error(conn, e);
                        events_drop(d, conn);
                        return r;
                }
        }
        return 0;
}

void events_drop(struct driver *d, virConnectPtr conn)
{
        for (size_t i = 0; i < EVENT_KINDS; i++) {
                if (d->callbacks[i] >= 0)
                        virConnectDomainEventDeregisterAny(conn, d->callbacks[i]);
                d->callbacks[i] = -1;
        }
        virResetLastError();
}
