/* What an admin merges into a domain: elements for what is not modelled here.
 *
 * It comes as a <domain> of its own.  Its elements are added; those of devices, features, cpu,
 * clock and memoryBacking to ours of that name.  What we make ourselves is refused by name: then
 * the guest would no longer be what its files say. */
#include "backend/compute/libvirt/driver.h"

#include "backend/compute/libvirt/xml-tree.h"

/* Elements whose children are added to ours. */
static const char *const merged[] = {"devices", "features", "cpu", "clock", "memoryBacking"};

/* ELEMENT or ELEMENT/CHILD, and which file says it. */
static const struct {
        const char *path, *instead;
} ours[] = {
        {"name", "mv renames it"},
        {"uuid", "its id stays"},
        {"title", "it is its path"},
        {"metadata", "see metadata/"},
        {"memory", "see flavor"},
        {"currentMemory", "see flavor"},
        {"maxMemory", "see memory_max of its flavor"},
        {"memoryBacking/hugepages", "see huge_pages of its flavor"},
        {"vcpu", "see flavor"},
        {"vcpus", "see flavor"},
        {"os", "see firmware, boot, kernel, ramdisk and cmdline"},
        {"on_poweroff", "it is this cloud's to know"},
        {"on_reboot", "it is this cloud's to know"},
        {"on_crash", "it is this cloud's to know"},
        {"features/acpi", "it is there"},
        {"features/apic", "it is there"},
        {"cpu/model", "see cpu of its flavor"},
        {"cpu/topology", "see cores and threads of its flavor"},
        {"cpu/numa", "see numa of its flavor"},
        {"seclabel", "it keeps guests apart"},
        {"devices/emulator", "it is this cloud's to choose"},
        {"devices/memory", "see memory"},
        {"devices/graphics", "see screen"},
        {"devices/video", "see screen"},
        {"devices/serial", "see console"},
        {"devices/console", "see console"},
        {"devices/memballoon", "it is there"},
        {"devices/rng", "it is there"},
        {"devices/tpm", "see tpm"},
        {"devices/watchdog", "see watchdog"},
};

static bool is_merged(xmlNodePtr n)
{
        for (size_t i = 0; i < ARRAY_SIZE(merged); i++)
                if (xmlStrEqual(n->name, X(merged[i])))
                        return true;
        return false;
}

static int refuse(struct err **e, const char *path, const char *instead)
{
        err_set(e, -EINVAL, "<%s> is this cloud's own", path);
        return err_hint(e, -EINVAL, "%s", instead);
}

static int check_name(const char *path, struct err **e)
{
        for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
                if (streq(path, ours[i].path))
                        return refuse(e, path, ours[i].instead);
        return 0;
}

static bool is_named(xmlNodePtr n, const char *name)
{
        return xmlStrEqual(n->name, X(name));
}

/* Devices of which some are ours and others may be added. */
static int check_device(xmlNodePtr n, struct err **e)
{
        _cleanup_free_ char *dev = value(child(n, "target"), "dev"), *type = value(n, "type");
        _cleanup_free_ char *name = value(child(n, "target"), "name"), *index = value(n, "index");

        if (is_named(n, "disk") && (!dev || streq(dev, XML_CDROM) || !strncmp(dev, "vd", 2)))
                return refuse(e, "devices/disk",
                              "vda to vdz and " XML_CDROM " are volumes/ and cdrom: name another "
                              "target");
        if (is_named(n, "interface") && (!type || streq(type, "ethernet")))
                return refuse(e, "devices/interface",
                              "taps are networks/; other types may be added");
        if (is_named(n, "channel") && name && streq(name, "org.qemu.guest_agent.0"))
                return refuse(e, "devices/channel", "the agent's is there");
        if (is_named(n, "controller") && type && streq(type, "pci"))
                return refuse(e, "devices/controller",
                              "the PCI ports are there, with some to spare");
        if (is_named(n, "controller") && type && streq(type, "scsi") &&
            (!index || streq(index, "0")))
                return refuse(e, "devices/controller",
                              "SCSI controller 0 is disk_bus: name another "
                              "index");
        return 0;
}

static int check_inside(xmlNodePtr parent, struct err **e)
{
        char path[128];
        int r = 0;

        if (parent->properties) {
                snprintf(path, sizeof(path), "%s %s=", (const char *)parent->name,
                         (const char *)parent->properties->name);
                return refuse(e, path, "attributes of what is merged stay as they are");
        }
        for (xmlNodePtr n = parent->children; n && r == 0; n = n->next) {
                if (n->type != XML_ELEMENT_NODE)
                        continue;
                snprintf(path, sizeof(path), "%.40s/%.80s", (const char *)parent->name,
                         (const char *)n->name);
                r = check_name(path, e);
                if (r == 0 && is_named(parent, "devices"))
                        r = check_device(n, e);
        }
        return r;
}

static int check_tree(xmlDocPtr doc, struct err **e)
{
        xmlNodePtr root = xmlDocGetRootElement(doc);
        int r = 0;

        if (doc->intSubset)
                return err_set(e, -EINVAL, "it has a DOCTYPE: entities are not for here");
        if (!is_named(root, "domain"))
                return err_set(e, -EINVAL, "it is a <%.80s>, not a <domain>",
                               (const char *)root->name);
        if (root->properties)
                return refuse(e, "domain type=", "attributes of the domain stay as they are");
        for (xmlNodePtr n = root->children; n && r == 0; n = n->next)
                if (n->type == XML_ELEMENT_NODE)
                        r = is_merged(n) ? check_inside(n, e)
                                         : check_name((const char *)n->name, e);
        return r;
}

/* The line and words of the parser. */
static xmlDocPtr parse(const char *extra, struct err **e)
{
        const xmlError *x;
        xmlDocPtr doc;

        xmlResetLastError();
        doc = xml_parse(extra);
        x = doc ? NULL : xmlGetLastError();
        if (x && x->message)
                err_set(e, -EINVAL, "line %d: %.*s", x->line, (int)strcspn(x->message, "\n"),
                        x->message);
        else if (!doc)
                err_set(e, -EINVAL, "it is no well-formed XML");
        return doc;
}

int xml_check_extra(const char *extra, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = parse(extra, e);

        return doc ? check_tree(doc, e) : -EINVAL;
}

/* A USB controller instead of the word that there is none. */
static void drop_no_usb(xmlNodePtr devices, xmlNodePtr added)
{
        _cleanup_free_ char *type = value(added, "type");

        if (!is_named(added, "controller") || !type || !streq(type, "usb"))
                return;
        for (xmlNodePtr n = devices->children; n; n = n->next) {
                _cleanup_free_ char *model = value(n, "model");

                if (is_named(n, "controller") && model && streq(model, "none")) {
                        xmlUnlinkNode(n);
                        xmlFreeNode(n);
                        return;
                }
        }
}

static int add_copy(xmlNodePtr to, xmlNodePtr n, struct err **e)
{
        xmlNodePtr copy = xmlDocCopyNode(n, to->doc, 1);

        if (is_named(to, "devices"))
                drop_no_usb(to, n);
        return copy && xmlAddChild(to, copy) ? 0 : err_errno(e, -ENOMEM, "merge extra.xml");
}

int xml_merge(xmlNodePtr domain, const char *extra, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = parse(extra, e);
        int r = doc ? check_tree(doc, e) : -EINVAL;

        for (xmlNodePtr n = r == 0 ? xmlDocGetRootElement(doc)->children : NULL; n && r == 0;
             n = n->next) {
                xmlNodePtr own = n->type == XML_ELEMENT_NODE && is_merged(n)
                                         ? child(domain, (const char *)n->name)
                                         : NULL;

                if (n->type != XML_ELEMENT_NODE)
                        continue;
                if (!own)
                        r = add_copy(domain, n, e);
                for (xmlNodePtr c = own ? n->children : NULL; c && r == 0; c = c->next)
                        if (c->type == XML_ELEMENT_NODE)
                                r = add_copy(own, c, e);
        }
        return r < 0 ? err_prepend(e, r, "extra.xml") : 0;
}
