/* Disks and network devices that come and go while the guest runs. */
#include "backend/compute/libvirt/driver.h"

#include "common/clock.h"

int disk_present(const struct guest_disk *disk, struct err **e)
{
        if (access(disk->socket, F_OK) == 0)
                return 0;
        return err_set(e, -EIO, "disk '%.15s': '%s': %s", disk->target, disk->socket,
                       strerror(errno));
}

/* How a guest and its disk at target, or its network device with that MAC, stand.  -ENOENT: no
 * guest.  scsi, if not NULL: the bus that the guest's disks are on. */
static int look_bus(virConnectPtr conn, const char *uuid, const char *target, virDomainPtr *dom,
                    struct disk_found *ret, bool *scsi, struct err **e)
{
        _cleanup_free_ char *xml = NULL;

        if (!*dom)
                *dom = virDomainLookupByUUIDString(conn, uuid);
        xml = *dom ? virDomainGetXMLDesc(*dom, 0) : NULL;
        if (xml && scsi)
                *scsi = xml_is_scsi(xml);
        if (xml)
                return (strchr(target, ':') ? xml_find_nic : xml_find_disk)(xml, target, ret, e);
        if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
                virResetLastError();
                return err_set(e, -ENOENT, "no guest '%s'", uuid);
        }
        return virt_error(conn, e);
}

static int look(virConnectPtr conn, const char *uuid, const char *target, virDomainPtr *dom,
                struct disk_found *ret, struct err **e)
{
        return look_bus(conn, uuid, target, dom, ret, NULL, e);
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
        bool scsi = false;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = look_bus(conn, uuid, disk->target, &dom, &there, &scsi, e);
        if (r == 0)
                r = xml_disk(disk, scsi, &xml, e);
        if (r < 0 || driver(c)->mode == COMPUTE_TEST || (there.found && same(&there, disk)))
                return r;
        if (there.found)
                return err_set(e, -EEXIST, "the guest has another disk at '%s'", disk->target);
        r = disk_present(disk, e);
        if (r < 0)
                return r;
        if (virDomainAttachDeviceFlags(dom, xml, VIR_DOMAIN_AFFECT_LIVE) == 0)
                return 0;
        r = virt_error(conn, &why);
        if (r == -EIO && virDomainIsActive(dom) != 1)
                r = err_set(&why, -ENOENT, "no guest '%s'", uuid);
        virResetLastError();
        err_move(e, TAKE_PTR(why));
        return r;
}

void op_settle(struct compute *c, const char *uuid, const char *target)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;

        if (d->mode != COMPUTE_TEST && guest_find(c, uuid, &conn, &dom, NULL) == 0)
                target ? seat_target(d, dom, target) : seat_guest(d, dom);
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

/* Asks and waits until the device is gone.  An event that got lost is made up for by looking; the
 * look at the start tells whether the device left just before u was there to be told. */
static int let_go(struct driver *d, virConnectPtr conn, virDomainPtr dom, struct unplug *u,
                  const char *target, int64_t deadline, struct err **e)
{
        enum unplug_answer answer = UNPLUG_NONE;

        for (bool first = true;; first = false) {
                _cleanup_(disk_found_done) struct disk_found now = {0};
                int r = look(conn, u->uuid, target, &dom, &now, e);

                if (r == -ENOENT) { /* the guest went, and its devices with it */
                        if (e)
                                *e = err_free(*e);
                        return 0;
                }
                if (r < 0 || !now.found)
                        return r;
                if (answer == UNPLUG_REFUSED || (!first && clock_mono() >= deadline))
                        return err_set(e, -ETIMEDOUT, "the guest %s let go of device '%s'",
                                       answer == UNPLUG_REFUSED ? "refused to" : "did not", target);
                r = unplug_due(d, u) ? ask(conn, dom, u->alias, e) : 0;
                if (r < 0) {
                        unplug_not_asked(d, u);
                        return r;
                }
                answer = r > 0 ? UNPLUG_NONE : unplug_wait(d, u, deadline);
                if (answer == UNPLUG_REMOVED)
                        return 0;
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
        struct unplug *u;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = look(conn, uuid, target, &dom, &there, e);
        if (r < 0 || !there.found || d->mode == COMPUTE_TEST)
                return r;
        if (!there.alias)
                return err_set(e, -EIO, "libvirt gave device '%s' no alias", target);
        u = unplug_get(d, uuid, there.alias, target);
        if (!u)
                return err_errno(e, -ENOMEM, "detach '%s'", target);
        r = let_go(d, conn, dom, u, target, deadline, e);
        unplug_put(d, u, r == 0);
        return r;
}

int op_plug(struct compute *c, const char *uuid, const struct guest_nic *nic, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = link_get(driver(c), e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_(disk_found_done) struct disk_found there = {0};
        _cleanup_free_ char *xml = NULL;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = xml_nic(nic, &xml, e);
        if (r == 0)
                r = look(conn, uuid, nic->mac, &dom, &there, e);
        if (r < 0 || there.found || driver(c)->mode == COMPUTE_TEST)
                return r;
        if (virDomainAttachDeviceFlags(dom, xml, VIR_DOMAIN_AFFECT_LIVE) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}

int op_unplug(struct compute *c, const char *uuid, const char *mac, int timeout_ms, struct err **e)
{
        return op_detach(c, uuid, mac, timeout_ms, e);
}

int op_grow(struct compute *c, const char *uuid, const char *target, uint64_t size, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_(disk_found_done) struct disk_found there = {0};
        _cleanup_err_ struct err *why = NULL;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = look(conn, uuid, target, &dom, &there, &why);
        if (r == 0 && d->mode == COMPUTE_TEST)
                return 0;
        if (r == 0 && !there.found)
                r = err_set(&why, -ENOENT, "the guest has no disk '%s'", target);
        if (r == 0)
                r = seat_disk(d, dom, &there, true, &why);
        if (r == 0)
                r = seat_resize(dom, &there, size, &why);
        if (r == -EIO && virDomainIsActive(dom) != 1) {
                why = err_free(why);
                r = err_set(&why, -ENOENT, "no guest '%s'", uuid);
        }
        virResetLastError();
        err_move(e, TAKE_PTR(why));
        return r;
}
