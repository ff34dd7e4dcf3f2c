/* Domains that others defined: marked as ours, started as they are, let go of. */
#include "backend/compute/libvirt/driver.h"

#include "common/name.h"

enum { EVERYWHERE = VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG };

/* By name or UUID. */
static virDomainPtr find_any(virConnectPtr conn, const char *word)
{
        sd_id128_t id;

        return id_parse(word, &id) == 0 ? virDomainLookupByUUIDString(conn, word)
                                        : virDomainLookupByName(conn, word);
}

/* The cloud whose mark the domain bears; NULL: none.  The caller frees. */
static char *marked_by(virDomainPtr dom)
{
        _cleanup_free_ char *metadata =
                virDomainGetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT, METADATA_URI, 0);
        char *owner = metadata ? xml_owner(metadata) : NULL;

        virResetLastError();
        return owner;
}

/* owner NULL takes the mark away. */
static int mark(virDomainPtr dom, const char *owner)
{
        unsigned flags = virDomainIsActive(dom) == 1 ? EVERYWHERE : VIR_DOMAIN_AFFECT_CONFIG;
        _cleanup_free_ char *text = NULL;

        if (owner && asprintf(&text, "<guest owner='%s'/>", owner) < 0)
                return -1;
        return virDomainSetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT, text,
                                    owner ? "stratofs" : NULL, METADATA_URI, flags);
}

int op_adopt(struct compute *c, const char *name, struct guest_found *ret, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_free_ char *owner = NULL;
        virDomainInfo info;
        int state, reason;

        if (!conn)
                return -ECONNREFUSED;
        dom = find_any(conn, name);
        if (!dom)
                return virt_error(conn, e);
        if (virDomainIsPersistent(dom) != 1) {
                err_set(e, -EINVAL, "'%s' is transient: nothing is left of it when it ends", name);
                return err_hint(e, -EINVAL, "virsh dumpxml %s > f; virsh define f", name);
        }
        owner = marked_by(dom);
        if (owner && !streq(owner, d->owner))
                return err_set(e, -EBUSY, "'%s' is of another cloud, %s", name, owner);
        *ret = (struct guest_found){};
        if (virDomainGetUUIDString(dom, ret->uuid) < 0 || virDomainGetInfo(dom, &info) < 0 ||
            virDomainGetState(dom, &state, &reason, 0) < 0 || mark(dom, d->owner) < 0)
                return virt_error(conn, e);
        ret->vcpus = info.nrVirtCpu;
        ret->memory = (uint64_t)info.maxMem << 10;
        ret->state = guest_state_of(state, reason);
        return 0;
}

int op_release(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_err_ struct err *why = NULL;
        int r = guest_find(c, uuid, &conn, &dom, &why);

        if (r == 0 && mark(dom, NULL) < 0)
                r = virt_error(conn, &why);
        if (r == 0 || r == -ENOENT)
                return 0;
        err_move(e, TAKE_PTR(why));
        return r;
}

int adopted_start(struct driver *d, virConnectPtr conn, const char *uuid, struct err **e)
{
        _cleanup_dom_ virDomainPtr dom = virDomainLookupByUUIDString(conn, uuid);
        int r = 0;

        if (!dom)
                return virt_error(conn, e);
        reaper_busy(d->reaper, +1);
        if (virDomainIsActive(dom) != 1 && virDomainCreate(dom) < 0)
                r = virt_error(conn, e);
        reaper_busy(d->reaper, -1);
        return r;
}
