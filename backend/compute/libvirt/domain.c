/* Guests as a whole: start, stop, pause, list. */
#include "backend/compute/libvirt/driver.h"

#include <sys/stat.h>

#include "common/clock.h"
#include "common/fault.h"

enum { REMOVED_US = 10000000 }; /* at most this long for an earlier guest to be put away */

/* Debian's libvirtd keeps each guest's own folder below one that only libvirt-qemu's group may pass
 * through; a guest with a user of its own gets there by that group. */
static gid_t guest_gid(const struct driver *d, const struct guest *g)
{
        struct stat st;

        if (d->mode == COMPUTE_SYSTEM && stat("/var/lib/libvirt/qemu", &st) == 0 &&
            !(st.st_mode & S_IXOTH))
                return st.st_gid;
        return g->gid;
}

/* The guest, or -ENOENT. */
static int find(virConnectPtr conn, const char *uuid, virDomainPtr *ret, struct err **e)
{
        *ret = virDomainLookupByUUIDString(conn, uuid);
        if (*ret)
                return 0;
        if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
                virResetLastError();
                return err_set(e, -ENOENT, "no guest '%s'", uuid);
        }
        return virt_error(conn, e);
}

int guest_find(struct compute *c, const char *uuid, virConnectPtr *conn, virDomainPtr *dom,
               struct err **e)
{
        *conn = link_get(driver(c), e);
        if (!*conn)
                return -ECONNREFUSED;
        return find(*conn, uuid, dom, e);
}

int guest_failed(virConnectPtr conn, virDomainPtr dom, const char *uuid, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int r = virt_error(conn, &why);

        if (r != -ECONNREFUSED && virDomainIsActive(dom) != 1)
                r = err_set(e, -ENOENT, "no guest '%s'", uuid);
        else
                err_move(e, TAKE_PTR(why));
        virResetLastError();
        return r;
}

bool guest_is_active(virConnectPtr conn, const char *uuid)
{
        _cleanup_dom_ virDomainPtr dom = virDomainLookupByUUIDString(conn, uuid);
        bool yes = dom && virDomainIsActive(dom) == 1;

        virResetLastError();
        return yes;
}

/* libvirt refuses a name or UUID in use with OPERATION_FAILED; which of them, only a look tells. */
static bool name_taken(virConnectPtr conn, const char *name, const char *uuid)
{
        _cleanup_dom_ virDomainPtr dom = virDomainLookupByName(conn, name);
        char other[VIR_UUID_STRING_BUFLEN];
        bool yes = dom && virDomainGetUUIDString(dom, other) == 0 && !streq(other, uuid);

        virResetLastError();
        return yes;
}

/* A guest that has just ended is still being put away for a moment, and libvirt refuses its name
 * and UUID meanwhile.  The code is the one of any failure; only the words tell. */
static bool being_removed(void)
{
        const char *words = virGetLastErrorMessage();

        return words && strstr(words, "is already being removed");
}

virDomainPtr guest_create(virConnectPtr conn, const char *xml, unsigned flags)
{
        int64_t deadline = clock_mono() + REMOVED_US;
        virDomainPtr dom;

        while (!(dom = virDomainCreateXML(conn, xml, flags)) && being_removed() &&
               clock_mono() < deadline)
                usleep(20000);
        return dom;
}

int op_start(struct compute *c, const struct guest *g, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        _cleanup_free_ char *xml = NULL;
        struct guest own = *g;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        if (g->adopted)
                return adopted_start(d, conn, g->uuid, e);
        own.gid = guest_gid(d, g);
        if (d->mode == COMPUTE_TEST)
                own.hypervisor = HYPERVISOR_TEST;
        r = xml_domain(&own, d->owner, d->mode == COMPUTE_SYSTEM || d->mode == COMPUTE_EMBED, &xml,
                       e);
        if (r < 0)
                return r;
        if (guest_is_active(conn, g->uuid))
                return 0;
        for (unsigned i = 0; r == 0 && i < g->ndisks; i++)
                r = disk_present(&g->disks[i], e);
        if (r < 0)
                return r;
        r = FAULT("compute.start");
        if (r < 0)
                return err_errno(e, r, "start guest");
        reaper_busy(d->reaper, +1);
        dom = guest_create(conn, xml, g->held ? VIR_DOMAIN_START_PAUSED : 0);
        if (!dom)
                r = virt_error(conn, &why);
        else
                reaper_watch_guest(d->reaper, d->root, g->name);
        reaper_busy(d->reaper, -1);
        if (dom || (r != -ECONNREFUSED && guest_is_active(conn, g->uuid))) /* somebody else was faster */
                return 0;
        if (r == -EIO && name_taken(conn, g->name, g->uuid))
                return err_set(e, -EEXIST, "another guest is named '%s'", g->name);
        err_move(e, TAKE_PTR(why));
        return r;
}

int op_shutdown(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0 && virDomainShutdownFlags(dom, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}

int op_destroy(struct compute *c, const char *uuid, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        int r = guest_find(c, uuid, &conn, &dom, &why);

        if (r == 0) {
                reaper_busy(d->reaper, +1);
                if (virDomainDestroy(dom) < 0)
                        r = guest_failed(conn, dom, uuid, &why);
                reaper_busy(d->reaper, -1);
        }
        if (r == 0 || r == -ENOENT)
                return 0;
        err_move(e, TAKE_PTR(why));
        return r;
}

int op_reboot(struct compute *c, const char *uuid, bool hard, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        if (hard ? virDomainReset(dom, 0) : virDomainReboot(dom, VIR_DOMAIN_REBOOT_ACPI_POWER_BTN))
                return guest_failed(conn, dom, uuid, e);
        return 0;
}

int op_describe(struct compute *c, const char *uuid, char **ret, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        *ret = virDomainGetXMLDesc(dom, 0);
        return *ret ? 0 : guest_failed(conn, dom, uuid, e);
}

static int state_of(virConnectPtr conn, virDomainPtr dom, enum guest_state *ret, struct err **e)
{
        int state, reason;

        if (virDomainGetState(dom, &state, &reason, 0) < 0)
                return virt_error(conn, e);
        *ret = guest_state_of(state, reason);
        return 0;
}

int op_state(struct compute *c, const char *uuid, enum guest_state *ret, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        int r = guest_find(c, uuid, &conn, &dom, &why);

        if (r == 0)
                r = state_of(conn, dom, ret, &why);
        if (r == -ENOENT) {
                *ret = GUEST_GONE;
                return 0;
        }
        if (r < 0)
                err_move(e, TAKE_PTR(why));
        return r;
}

/* Suspend and resume refuse a guest that is where it should be already: that is success. */
static int settle(virConnectPtr conn, virDomainPtr dom, const char *uuid, bool running,
                  struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        enum guest_state s = GUEST_GONE;
        int r = guest_failed(conn, dom, uuid, &why);

        if (r == -EIO && state_of(conn, dom, &s, NULL) == 0 &&
            (running ? s == GUEST_RUNNING : s == GUEST_PAUSED))
                return 0;
        err_move(e, TAKE_PTR(why));
        return r;
}

int op_pause(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0 && virDomainSuspend(dom) < 0)
                r = settle(conn, dom, uuid, false, e);
        return r;
}

int op_resume(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0 && virDomainResume(dom) < 0)
                r = settle(conn, dom, uuid, true, e);
        if (r == 0) /* one that stalled may have a disk without */
                seat_guest(driver(c), dom);
        return r;
}

/* Whether this cloud started it. */
bool guest_is_ours(struct driver *d, virDomainPtr dom)
{
        _cleanup_free_ char *metadata =
                virDomainGetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT, METADATA_URI, 0);
        _cleanup_free_ char *owner = metadata ? xml_owner(metadata) : NULL;

        virResetLastError();
        return owner && streq(owner, d->owner);
}

int op_list(struct compute *c, int (*each)(void *arg, const char *uuid, enum guest_state s),
            void *arg, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        char uuid[VIR_UUID_STRING_BUFLEN];
        virDomainPtr *doms = NULL;
        enum guest_state s = GUEST_GONE;
        int n, r = 0;

        if (!conn)
                return -ECONNREFUSED;
        n = virConnectListAllDomains(conn, &doms, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        if (n < 0)
                return virt_error(conn, e);
        for (int i = 0; i < n; i++) {
                /* One that went away meanwhile is left out. */
                if (r == 0 && guest_is_ours(d, doms[i]) && state_of(conn, doms[i], &s, NULL) == 0 &&
                    virDomainGetUUIDString(doms[i], uuid) == 0)
                        r = each(arg, uuid, s);
                virDomainFree(doms[i]);
        }
        free(doms);
        if (r == 0 && virConnectIsAlive(conn) == 0) /* then "went away" may have been ourselves */
                r = err_set(e, -ECONNREFUSED, "%s: the connection was lost", d->uri);
        return r;
}

void seat_all(struct driver *d)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        virDomainPtr *doms = NULL;
        int n;

        {
                WITH_LOCK(&d->lock);
                if (d->conn && !d->lost && virConnectRef(d->conn) == 0)
                        conn = d->conn;
        }
        n = conn ? virConnectListAllDomains(conn, &doms, VIR_CONNECT_LIST_DOMAINS_ACTIVE) : 0;
        for (int i = 0; i < n; i++) {
                if (!link_closing(d) && guest_is_ours(d, doms[i]))
                        seat_guest(d, doms[i]);
                virDomainFree(doms[i]);
        }
        free(doms);
        virResetLastError();
}

int op_warm(struct compute *c, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_free_ char *caps = NULL;

        if (!conn)
                return -ECONNREFUSED;
        reaper_busy(d->reaper, +1);
        caps = virConnectGetCapabilities(conn);
        reaper_busy(d->reaper, -1);
        return caps ? 0 : virt_error(conn, e);
}
