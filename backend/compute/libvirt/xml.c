/* Domain XML, in and out, by libxml2's tree. */
#include "backend/compute/libvirt/driver.h"

#include <sys/un.h>

#include <libxml/chvalid.h>

#include "backend/compute/libvirt/xml-tree.h"
#include "common/fileio.h"
#include "common/name.h"

/* Root ports for disks and networks that come while the guest runs (index 0 is pcie-root; each
 * device takes a port; those there at start get ports of their own). */
enum { SPARE_PORTS = 8, SERIAL_MAX = 20 };

int xml_check_text(const char *what, const char *s, struct err **e)
{
        if (!s || !text_clean(s, strlen(s), false) || strchr(s, '\t'))
                return err_set(e, -EINVAL, "%s is not clean text", what);
        /* U+FFFE, U+FFFF and the like are UTF-8, but no XML. */
        for (const xmlChar *p = X(s); *p;) {
                int len = 4, c = xmlGetUTF8Char(p, &len);

                if (c < 0 || !xmlIsCharQ(c))
                        return err_set(e, -EINVAL, "%s has a character that XML cannot hold", what);
                p += len;
        }
        return 0;
}

int xml_check_path(const char *what, const char *path, size_t max, struct err **e)
{
        int r = xml_check_text(what, path, e);

        if (r < 0)
                return r;
        if (path[0] != '/')
                return err_set(e, -EINVAL, "%s is not an absolute path: '%s'", what, path);
        if (strlen(path) > max)
                return err_set(e, -ENAMETOOLONG, "%s is longer than %zu bytes: '%s'", what, max,
                               path);
        return 0;
}

enum { SOCKET_PATH_MAX = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, PATH_TEXT_MAX = 4095 };

static int check_source(const struct guest_disk *d, struct err **e)
{
        int r = xml_check_path("disk socket", d->socket, SOCKET_PATH_MAX, e);

        if (r == 0)
                r = xml_check_text("disk export", d->export, e);
        if (r == 0 && d->serial) {
                r = xml_check_text("disk serial", d->serial, e);
                if (r == 0 && strlen(d->serial) > SERIAL_MAX)
                        r = err_set(e, -EINVAL, "disk serial is longer than %d characters",
                                    SERIAL_MAX);
        }
        return r < 0 ? err_prepend(e, r, "disk '%.15s'", d->target) : 0;
}

static int check_disk(const struct guest_disk *d, struct err **e)
{
        if (strncmp(d->target, "vd", 2) != 0 || d->target[2] < 'a' || d->target[2] > 'z' ||
            d->target[3] != '\0')
                return err_set(e, -EINVAL, "disk target is not vda to vdz");
        return check_source(d, e);
}

int xml_check_nic(const struct guest_nic *n, struct err **e)
{
        unsigned m[6];
        int end = 0;

        if (sscanf(n->mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5],
                   &end) != 6 ||
            n->mac[end])
                return err_set(e, -EINVAL, "network device has no MAC");
        if (!*n->device || xml_check_text("network device", n->device, NULL) < 0 ||
            strchr(n->device, '/'))
                return err_set(e, -EINVAL, "network device is no device's name");
        return 0;
}

static int check_guest(const struct guest *g, struct err **e)
{
        sd_id128_t id;
        int r = 0;

        if (id_parse(g->uuid, &id) < 0)
                return err_set(e, -EINVAL, "guest id is no UUID");
        if (!g->name || !name_valid(g->name))
                return err_set(e, -EINVAL, "guest name is not a name");
        if (g->vcpus < 1 || g->memory < 1 << 20)
                return err_set(e, -EINVAL, "guest has no processor or no memory");
        if (g->title)
                r = xml_check_text("title", g->title, e);
        if (r == 0 && g->console_log)
                r = xml_check_path("console log", g->console_log, PATH_TEXT_MAX, e);
        if (r == 0 && g->console_sock)
                r = xml_check_path("console socket", g->console_sock, SOCKET_PATH_MAX, e);
        if (r == 0 && g->agent_sock)
                r = xml_check_path("agent's socket", g->agent_sock, SOCKET_PATH_MAX, e);
        if (r == 0 && g->kernel)
                r = xml_check_path("kernel", g->kernel, PATH_TEXT_MAX, e);
        if (r == 0 && g->initrd)
                r = xml_check_path("initrd", g->initrd, PATH_TEXT_MAX, e);
        if (r == 0 && g->cmdline)
                r = xml_check_text("kernel command line", g->cmdline, e);
        if (r == 0 && !g->kernel && (g->initrd || g->cmdline))
                r = err_set(e, -EINVAL, "an initrd or a command line needs a kernel");
        if (r == 0 && g->vnc_sock)
                r = xml_check_path("VNC socket", g->vnc_sock, SOCKET_PATH_MAX, e);
        if (r == 0 && g->tpm_sock)
                r = xml_check_path("TPM's socket", g->tpm_sock, SOCKET_PATH_MAX, e);
        if (r == 0 && g->nvram)
                r = xml_check_path("UEFI's variables", g->nvram, PATH_TEXT_MAX, e);
        if (r == 0 && g->config_drive)
                r = xml_check_path("config drive", g->config_drive, PATH_TEXT_MAX, e);
        if (r == 0 && g->cdrom.socket)
                r = check_source(&g->cdrom, e);
        for (unsigned i = 0; r == 0 && i < g->ndisks; i++)
                r = check_disk(&g->disks[i], e);
        for (unsigned i = 0; r == 0 && i < g->nnics; i++)
                r = xml_check_nic(&g->nics[i], e);
        return r;
}

/* On its bus: each SCSI disk is a target of its own, so that a name always gives the same one. */
static void add_target(xmlNodePtr disk, const char *dev, bool scsi)
{
        xmlNodePtr n;

        attr(attr(add(disk, "target"), "dev", dev), "bus", scsi ? "scsi" : "virtio");
        if (!scsi)
                return;
        n = attr_u(attr(add(disk, "address"), "type", "drive"), "controller", 0);
        attr_u(attr_u(attr_u(n, "bus", 0), "target", (uint64_t)(dev[2] - 'a')), "unit", 0);
}

static xmlNodePtr add_disk(xmlNodePtr parent, const struct guest_disk *d, bool scsi, unsigned order)
{
        xmlNodePtr disk = add(parent, "disk"), n;

        attr(attr(disk, "type", "network"), "device", "disk");
        n = add(disk, "driver");
        attr(attr(attr(n, "name", "qemu"), "type", "raw"), "cache", "none");
        /* The guest stops and waits; it never sees an EIO of ours. */
        attr(attr(n, "error_policy", "stop"), "rerror_policy", "stop");
        attr(n, "discard", "unmap");
        n = add(disk, "source");
        attr(attr(n, "protocol", "nbd"), "name", d->export);
        n = add(n, "host");
        attr(attr(n, "transport", "unix"), "socket", d->socket);
        add_target(disk, d->target, scsi);
        if (d->readonly)
                add(disk, "readonly");
        if (d->shared)
                add(disk, "shareable");
        if (d->serial && *d->serial)
                text(disk, "serial", d->serial);
        if (order)
                attr_u(add(disk, "boot"), "order", order);
        return disk;
}

/* At the last device that no disk has. */
static void add_config_drive(xmlNodePtr devices, const struct guest *g)
{
        xmlNodePtr disk = attr(attr(add(devices, "disk"), "type", "file"), "device", "disk");
        char dev[] = "vdz";

        for (unsigned i = 0; i < g->ndisks; i++)
                if (streq(g->disks[i].target, dev)) {
                        dev[2]--;
                        i = -1;
                }
        attr(attr(add(disk, "driver"), "name", "qemu"), "type", "raw");
        attr(add(disk, "source"), "file", g->config_drive);
        add_target(disk, dev, g->scsi);
        add(disk, "readonly");
        text(disk, "serial", "config-2");
}

/* The tap is ours: made before, and not libvirt's to set up or to remove. */
static xmlNodePtr add_nic(xmlNodePtr parent, const struct guest_nic *n, unsigned order)
{
        xmlNodePtr nic = attr(add(parent, "interface"), "type", "ethernet");

        attr(add(nic, "mac"), "address", n->mac);
        attr(attr(add(nic, "target"), "dev", n->device), "managed", "no");
        attr(add(nic, "model"), "type", "virtio");
        if (n->mtu)
                attr_u(add(nic, "mtu"), "size", n->mtu);
        if (order)
                attr_u(add(nic, "boot"), "order", order);
        else
                attr(add(nic, "rom"), "enabled", "no");
        return nic;
}

static void add_console(xmlNodePtr devices, const struct guest *g)
{
        xmlNodePtr serial = add(devices, "serial"), n;

        if (g->console_sock) {
                attr(serial, "type", "unix");
                n = add(serial, "source");
                attr(attr(n, "mode", "bind"), "path", g->console_sock);
        } else {
                attr(serial, "type", "null");
        }
        if (g->console_log)
                attr(attr(add(serial, "log"), "file", g->console_log), "append", "on");
        attr_u(add(serial, "target"), "port", 0);
}

/* libvirt's own place for the socket is too deep a path in embedded mode. */
static void add_agent(xmlNodePtr devices, const char *sock)
{
        xmlNodePtr channel = attr(add(devices, "channel"), "type", "unix");

        attr(attr(add(channel, "source"), "mode", "bind"), "path", sock);
        attr(attr(add(channel, "target"), "type", "virtio"), "name", "org.qemu.guest_agent.0");
}

static void add_devices(xmlNodePtr root, const struct guest *g)
{
        xmlNodePtr devices = add(root, "devices"), n;

        attr(attr(attr_u(add(devices, "controller"), "index", 0), "type", "pci"), "model",
             "pcie-root");
        /* + rng, balloon, channels, config drive; SCSI, the watchdog's bridge */
        for (unsigned i = 1; i <= SPARE_PORTS + g->ndisks + g->nnics + 3 + !!g->config_drive +
                                          g->scsi + !!g->watchdog;
             i++)
                attr(attr(attr_u(add(devices, "controller"), "index", i), "type", "pci"), "model",
                     "pcie-root-port");
        attr(attr(add(devices, "controller"), "type", "usb"), "model", "none");
        if (g->scsi)
                attr(attr(attr_u(add(devices, "controller"), "index", 0), "type", "scsi"), "model",
                     "virtio-scsi");
        for (unsigned i = 0; i < g->ndisks; i++)
                add_disk(devices, &g->disks[i], g->scsi, xml_boot_order(g, "disk", i));
        xml_cdrom(devices, &g->cdrom, g->scsi, xml_boot_order(g, "cdrom", 0));
        if (g->config_drive)
                add_config_drive(devices, g);
        for (unsigned i = 0; i < g->nnics; i++)
                add_nic(devices, &g->nics[i], xml_boot_order(g, "network", i));
        add_console(devices, g);
        if (g->agent_sock)
                add_agent(devices, g->agent_sock);
        if (g->vnc_sock) {
                xml_screen(devices, g->vnc_sock, NULL, 0);
                attr(add(add(devices, "video"), "model"), "type", "vga");
        }
        xml_board_devices(devices, g);
        n = attr(add(devices, "rng"), "model", "virtio");
        attr(text(n, "backend", "/dev/urandom"), "model", "random");
}

static void add_os(xmlNodePtr root, const struct guest *g)
{
        xmlNodePtr os = add(root, "os"), n;

        n = text(os, "type", "hvm");
        if (g->hypervisor == HYPERVISOR_TEST) /* the one that it simulates */
                attr(n, "arch", "i686");
        else
                attr(attr(n, "arch", "x86_64"), "machine", "q35");
        xml_firmware(os, g);
        if (g->hypervisor == HYPERVISOR_QEMU)
                attr(add(os, "smbios"), "mode", "sysinfo");
        if (!g->kernel)
                return;
        text(os, "kernel", g->kernel);
        if (g->initrd)
                text(os, "initrd", g->initrd);
        if (g->cmdline)
                text(os, "cmdline", g->cmdline);
}

/* Guests know by this whom to ask what they are to be: cloud-init looks for OpenStack's metadata
 * service only where the firmware says one of its names. */
static void add_sysinfo(xmlNodePtr root)
{
        xmlNodePtr n = attr(add(root, "sysinfo"), "type", "smbios");

        n = add(n, "system");
        attr(text(n, "entry", "Stratofs"), "name", "manufacturer");
        attr(text(n, "entry", "OpenStack Compute"), "name", "product");
}

xmlNodePtr xml_mark(xmlNodePtr root, const char *owner)
{
        xmlNodePtr n = add(add(root, "metadata"), "guest");
        xmlNsPtr ns = n ? xmlNewNs(n, X(METADATA_URI), X("stratofs")) : NULL;

        if (ns)
                xmlSetNs(n, ns);
        return attr(n, "owner", owner);
}

static void add_seclabel(xmlNodePtr root, const struct guest *g)
{
        char label[48];
        xmlNodePtr n = add(root, "seclabel");

        snprintf(label, sizeof(label), "+%u:+%u", (unsigned)g->uid, (unsigned)g->gid);
        attr(attr(attr(n, "type", "static"), "model", "dac"), "relabel", "yes");
        text(n, "label", label);
}

int xml_dump(xmlDocPtr doc, char **ret, struct err **e)
{
        xmlBufferPtr b = xmlBufferCreate();
        int n = b ? xmlNodeDump(b, doc, xmlDocGetRootElement(doc), 0, 1) : -1;

        *ret = n > 0 ? strdup((const char *)xmlBufferContent(b)) : NULL;
        if (b)
                xmlBufferFree(b);
        return *ret ? 0 : err_errno(e, -ENOMEM, "write domain XML");
}

/* A document with that root element. */
xmlNodePtr xml_new_doc(const char *root, xmlDocPtr *ret)
{
        xmlNodePtr n = xmlNewNode(NULL, X(root));

        *ret = xmlNewDoc(X("1.0"));
        if (*ret && n)
                xmlDocSetRootElement(*ret, n);
        return n;
}

int xml_domain(const struct guest *g, const char *owner, bool dac, char **ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = NULL;
        xmlNodePtr root, n;
        int r = check_guest(g, e);

        if (r == 0)
                r = xml_check_board(g, e);

        if (r < 0)
                return r;
        root = xml_new_doc("domain", &doc);
        attr(root, "type", g->hypervisor == HYPERVISOR_TEST ? "test" : g->kvm ? "kvm" : "qemu");
        text(root, "name", g->name);
        text(root, "uuid", g->uuid);
        if (g->title && *g->title)
                text(root, "title", g->title);
        xml_mark(root, owner);
        xml_memory(root, g);
        n = attr(text_u(root, "vcpu", MAX(g->vcpus, g->vcpus_max)), "placement", "static");
        if (g->vcpus_max > g->vcpus)
                attr_u(n, "current", g->vcpus);
        add_os(root, g);
        if (g->hypervisor == HYPERVISOR_QEMU)
                add_sysinfo(root);
        n = add(root, "features");
        add(n, "acpi");
        add(n, "apic");
        xml_cpu(root, g);
        attr(add(root, "clock"), "offset", "utc");
        text(root, "on_poweroff", "destroy");
        text(root, "on_reboot", "restart");
        text(root, "on_crash", "destroy");
        add_devices(root, g);
        if (dac && g->uid != (uid_t)-1)
                add_seclabel(root, g);
        if (g->extra && *g->extra)
                r = xml_merge(root, g->extra, e);
        return r < 0 ? r : xml_dump(doc, ret, e);
}

/* The one device that add makes of it, as a document. */
static int device_xml(xmlNodePtr holder, xmlDocPtr doc, char **ret, struct err **e)
{
        xmlNodePtr n = holder ? holder->children : NULL;

        if (!n)
                return err_errno(e, -ENOMEM, "write device XML");
        xmlDocSetRootElement(doc, n);
        xmlFreeNode(holder);
        return xml_dump(doc, ret, e);
}

int xml_disk(const struct guest_disk *disk, bool scsi, char **ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = NULL;
        xmlNodePtr holder;
        int r = check_disk(disk, e);

        if (r < 0)
                return r;
        holder = xml_new_doc("devices", &doc);
        add_disk(holder, disk, scsi, 0);
        return device_xml(holder, doc, ret, e);
}

int xml_media(const struct guest_disk *disk, bool scsi, char **ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = NULL;
        xmlNodePtr holder;
        int r = disk ? check_source(disk, e) : 0;

        if (r < 0)
                return r;
        holder = xml_new_doc("devices", &doc);
        xml_cdrom(holder, disk, scsi, 0);
        return device_xml(holder, doc, ret, e);
}

int xml_nic(const struct guest_nic *nic, char **ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = NULL;
        xmlNodePtr holder;
        int r = xml_check_nic(nic, e);

        if (r < 0)
                return r;
        holder = xml_new_doc("devices", &doc);
        add_nic(holder, nic, 0);
        return device_xml(holder, doc, ret, e);
}

xmlDocPtr xml_parse(const char *xml)
{
        return xmlReadMemory(xml, (int)strlen(xml), "libvirt.xml", NULL,
                             XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

static void read_disk(xmlNodePtr n, struct disk_found *ret)
{
        xmlNodePtr source = child(n, "source");
        _cleanup_free_ char *protocol = value(source, "protocol"), *index = value(source, "index");
        _cleanup_free_ char *bus = value(child(n, "target"), "bus");

        *ret = (struct disk_found){
                .found = true,
                .readonly = child(n, "readonly") != NULL,
                .index = index ? (unsigned)strtoul(index, NULL, 10) : 0,
                .scsi = bus && streq(bus, "scsi"),
                .alias = value(child(n, "alias"), "name"),
                .export = value(source, "name"),
                .socket = value(child(source, "host"), "socket"),
        };
        ret->nbd = protocol && streq(protocol, "nbd") && ret->socket;
}

static bool is_disk(xmlNodePtr n)
{
        return n->type == XML_ELEMENT_NODE && xmlStrEqual(n->name, X("disk"));
}

int xml_find_disk(const char *xml, const char *target, struct disk_found *ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr devices = doc ? child(xmlDocGetRootElement(doc), "devices") : NULL;

        *ret = (struct disk_found){0};
        if (!devices)
                return err_set(e, -EIO, "libvirt gave a domain without devices");
        for (xmlNodePtr n = devices->children; n; n = n->next) {
                _cleanup_free_ char *dev = is_disk(n) ? value(child(n, "target"), "dev") : NULL;

                if (!dev || !streq(dev, target))
                        continue;
                read_disk(n, ret);
                return 0;
        }
        return 0;
}

int xml_find_nic(const char *xml, const char *mac, struct disk_found *ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr devices = doc ? child(xmlDocGetRootElement(doc), "devices") : NULL;

        *ret = (struct disk_found){0};
        if (!devices)
                return err_set(e, -EIO, "libvirt gave a domain without devices");
        for (xmlNodePtr n = devices->children; n && !ret->found; n = n->next) {
                _cleanup_free_ char *own = NULL;

                if (n->type == XML_ELEMENT_NODE && xmlStrEqual(n->name, X("interface")))
                        own = value(child(n, "mac"), "address");
                if (own && streq(own, mac))
                        *ret = (struct disk_found){.found = true,
                                                   .alias = value(child(n, "alias"), "name")};
        }
        return 0;
}

void xml_each_disk(const char *xml, void (*each)(void *arg, const struct disk_found *f), void *arg)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr devices = doc ? child(xmlDocGetRootElement(doc), "devices") : NULL;

        for (xmlNodePtr n = devices ? devices->children : NULL; n; n = n->next) {
                _cleanup_(disk_found_done) struct disk_found f = {0};

                if (!is_disk(n))
                        continue;
                read_disk(n, &f);
                each(arg, &f);
        }
}

void disk_found_done(struct disk_found *f)
{
        free(f->alias);
        free(f->socket);
        free(f->export);
        *f = (struct disk_found){0};
}

/* What path is there; NULL: the same.  The caller frees. */
static char *moved(const char *path, const struct guest_path *paths, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                const size_t len = strlen(paths[i].from);

                if (strncmp(path, paths[i].from, len) == 0 && (!path[len] || path[len] == '/'))
                        return path_printf("%s%s", paths[i].to, path + len);
        }
        return NULL;
}

static void move_node(xmlNodePtr n, const struct guest_path *paths, unsigned npaths)
{
        for (; n; n = n->next) {
                _cleanup_free_ char *to = NULL;

                if (n->type == XML_TEXT_NODE && n->content) {
                        to = moved((const char *)n->content, paths, npaths);
                        if (to)
                                xmlNodeSetContent(n, X(to)); /* of a text: as it is, no markup */
                }
                if (n->type != XML_ELEMENT_NODE)
                        continue;
                for (xmlAttrPtr a = n->properties; a; a = a->next) {
                        _cleanup_free_ char *old = value(n, (const char *)a->name);
                        _cleanup_free_ char *new = old ? moved(old, paths, npaths) : NULL;

                        if (new)
                                xmlSetProp(n, a->name, X(new));
                }
                move_node(n->children, paths, npaths);
        }
}

int xml_move(const char *xml, const struct guest_path *paths, unsigned n, char **ret,
             struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);

        if (!doc)
                return err_set(e, -EIO, "libvirt gave a domain that is no XML");
        move_node(xmlDocGetRootElement(doc), paths, n);
        return xml_dump(doc, ret, e);
}

char *xml_owner(const char *metadata)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(metadata);

        return doc ? value(xmlDocGetRootElement(doc), "owner") : NULL;
}
