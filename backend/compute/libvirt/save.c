/* Guests that sleep in a file: virDomainSave and virDomainRestore.
 *
 * Our guests are transient, so libvirt's managed save is not for them; the file is ours to name.
 * Until it is whole it begins with "LibvirtQemudPart", and libvirt refuses it. */
#include "backend/compute/libvirt/driver.h"

#include "common/fault.h"

int op_save(struct compute *c, const char *uuid, const char *path, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        reaper_busy(d->reaper, +1);
        if (virDomainSaveFlags(dom, path, NULL, 0) < 0)
                r = guest_failed(conn, dom, uuid, e);
        reaper_busy(d->reaper, -1);
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
