/* Memory, the CD drive and the screen of a running guest. */
#include "backend/compute/libvirt/driver.h"

#include "backend/compute/libvirt/xml-tree.h"

static int plug_memory(virConnectPtr conn, virDomainPtr dom, const char *uuid, uint64_t bytes,
                       struct err **e)
{
        _cleanup_free_ char *xml = NULL;
        int r = xml_dimm(bytes, &xml, e);

        if (r == 0 && virDomainAttachDeviceFlags(dom, xml, VIR_DOMAIN_AFFECT_LIVE) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}

/* What was plugged in before, by a call whose answer was lost, too, is in what it has. */
int op_set_memory(struct compute *c, const char *uuid, uint64_t bytes, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_free_ char *xml = NULL;
        uint64_t now = 0;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        xml = virDomainGetXMLDesc(dom, 0);
        if (!xml)
                return guest_failed(conn, dom, uuid, e);
        r = xml_memory_size(xml, &now, e);
        if (r == 0 && bytes > now)
                r = plug_memory(conn, dom, uuid, bytes - now, e);
        return r;
}

/* libvirt asks the guest to open the drive and waits for it; its words for one that does not are of
 * more than one code. */
static int change_media(virConnectPtr conn, virDomainPtr dom, const char *uuid, const char *xml,
                        struct err **e)
{
        const char *words;

        if (virDomainUpdateDeviceFlags(dom, xml, VIR_DOMAIN_AFFECT_LIVE) == 0)
                return 0;
        words = virGetLastErrorMessage();
        if (words && (strstr(words, "tray") || strstr(words, "locked"))) {
                virResetLastError();
                err_set(e, -EBUSY, "the guest keeps its CD drive shut");
                return err_hint(e, -EBUSY, "unmount it in the guest");
        }
        return guest_failed(conn, dom, uuid, e);
}

int op_media(struct compute *c, const char *uuid, const struct guest_disk *d, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_(disk_found_done) struct disk_found there = {0};
        _cleanup_free_ char *xml = NULL, *media = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        xml = virDomainGetXMLDesc(dom, 0);
        if (!xml)
                return guest_failed(conn, dom, uuid, e);
        r = xml_find_disk(xml, XML_CDROM, &there, e);
        if (r == 0 && !there.found)
                r = err_set(e, -ENOTSUP, "it was started without a CD drive: restart it");
        if (r < 0 || (d ? there.socket && streq(there.socket, d->socket) : !there.socket))
                return r;
        r = d ? disk_present(d, e) : 0;
        if (r == 0)
                r = xml_media(d, there.scsi, &media, e);
        if (r == 0)
                r = change_media(conn, dom, uuid, media, e);
        if (r == 0 && d)
                seat_guest(driver(c), dom);
        return r;
}

/* The socket of its screen, NULL if it has none; the caller frees. */
static char *screen_of(const char *xml)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr devices = doc ? child(xmlDocGetRootElement(doc), "devices") : NULL;

        return value(child(devices, "graphics"), "socket");
}

int op_screen(struct compute *c, const char *uuid, const char *password, int64_t until,
              struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_free_ char *xml = NULL, *sock = NULL, *device = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r < 0)
                return r;
        xml = virDomainGetXMLDesc(dom, 0);
        if (!xml)
                return guest_failed(conn, dom, uuid, e);
        sock = screen_of(xml);
        if (!sock)
                return err_set(e, -ENOENT, "it has no screen");
        r = xml_screen_device(sock, password, until, &device, e);
        if (r == 0 && virDomainUpdateDeviceFlags(dom, device, VIR_DOMAIN_AFFECT_LIVE) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}
