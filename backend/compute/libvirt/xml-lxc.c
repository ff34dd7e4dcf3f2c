/* Containers' domain XML (libvirt's LXC driver), in and out. */
#include "backend/compute/libvirt/driver.h"

#include "backend/compute/libvirt/xml-tree.h"
#include "common/name.h"

enum { PATH_TEXT_MAX = 4095, SOCKET_PATH_MAX = 107, CPU_PERIOD_US = 100000 };

/* cloud-init looks there for a config drive that is no drive. */
#define CONFIG_AT "/var/lib/cloud/seed/config_drive"

static int check(const struct guest *g, struct err **e)
{
        sd_id128_t id;
        int r = 0;

        if (id_parse(g->uuid, &id) < 0)
                return err_set(e, -EINVAL, "guest id is no UUID");
        if (!g->name || !name_valid(g->name))
                return err_set(e, -EINVAL, "guest name is not a name");
        if (g->vcpus < 1 || g->memory < 1 << 20)
                return err_set(e, -EINVAL, "guest has no processor or no memory");
        if (g->ndisks || g->kernel)
                return err_set(e, -EINVAL, "a container has no disks and no kernel");
        if (!g->root || !g->init || !g->id_base)
                return err_set(e, -EINVAL,
                               "a container has a root, a first program and users of its own");
        r = xml_check_path("root", g->root, PATH_TEXT_MAX, e);
        if (r == 0)
                r = xml_check_path("first program", g->init, PATH_TEXT_MAX, e);
        if (r == 0 && g->title)
                r = xml_check_text("title", g->title, e);
        if (r == 0 && g->config_dir)
                r = xml_check_path("config drive", g->config_dir, PATH_TEXT_MAX, e);
        if (r == 0 && g->console_log)
                r = xml_check_path("console log", g->console_log, PATH_TEXT_MAX, e);
        if (r == 0 && g->console_sock)
                r = xml_check_path("console socket", g->console_sock, SOCKET_PATH_MAX, e);
        for (unsigned i = 0; r == 0 && i < g->nnics; i++)
                r = xml_check_nic(&g->nics[i], e);
        return r;
}

static void add_ids(xmlNodePtr root, const struct guest *g)
{
        static const char *const sorts[] = {"uid", "gid"};
        xmlNodePtr map = add(root, "idmap");

        for (size_t i = 0; i < ARRAY_SIZE(sorts); i++)
                attr_u(attr_u(attr_u(add(map, sorts[i]), "start", 0), "target", g->id_base),
                       "count", GUEST_IDS);
}

static void add_folder(xmlNodePtr devices, const char *from, const char *to, bool readonly)
{
        xmlNodePtr n = attr(add(devices, "filesystem"), "type", "mount");

        attr(n, "accessmode", "passthrough");
        attr(add(n, "source"), "dir", from);
        attr(add(n, "target"), "dir", to);
        if (readonly)
                add(n, "readonly");
}

/* libvirt makes the cable; the network driver puts the end here, known by its name, where the tap
 * of another guest would be. */
static void add_nic(xmlNodePtr devices, const struct guest_nic *n)
{
        xmlNodePtr nic = attr(add(devices, "interface"), "type", "ethernet");

        attr(add(nic, "mac"), "address", n->mac);
        attr(add(nic, "target"), "dev", n->device);
        if (*n->guest)
                attr(add(nic, "guest"), "dev", n->guest);
}

int xml_container(const struct guest *g, const char *owner, char **ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = NULL;
        xmlNodePtr root, n;
        int r = check(g, e);

        if (r < 0)
                return r;
        root = xml_new_doc("domain", &doc);
        attr(root, "type", "lxc");
        text(root, "name", g->name);
        text(root, "uuid", g->uuid);
        if (g->title && *g->title)
                text(root, "title", g->title);
        n = xml_mark(root, owner);
        if (g->console_log && g->console_sock)
                attr(attr(n, "log", g->console_log), "socket", g->console_sock);
        attr(text_u(root, "memory", g->memory >> 10), "unit", "KiB");
        text_u(root, "vcpu", g->vcpus);
        n = add(root, "cputune"); /* its processors are a share of the host's */
        text_u(n, "period", CPU_PERIOD_US);
        text_u(n, "quota", (uint64_t)g->vcpus * CPU_PERIOD_US);
        n = add(root, "os");
        text(n, "type", "exe");
        text(n, "init", g->init);
        add_ids(root, g);
        /* Also without a network: else it would be in this host's. */
        add(add(root, "features"), "privnet");
        text(root, "on_poweroff", "destroy");
        text(root, "on_reboot", "restart");
        text(root, "on_crash", "destroy");
        n = add(root, "devices");
        add_folder(n, g->root, "/", false);
        if (g->config_dir)
                add_folder(n, g->config_dir, CONFIG_AT, true);
        for (unsigned i = 0; i < g->nnics; i++)
                add_nic(n, &g->nics[i]);
        attr(add(n, "console"), "type", "pty");
        return xml_dump(doc, ret, e);
}

int xml_find_container(const char *xml, struct container_found *ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr root = doc ? xmlDocGetRootElement(doc) : NULL, mark;

        *ret = (struct container_found){0};
        if (!root)
                return err_set(e, -EIO, "libvirt's XML cannot be read");
        mark = child(child(root, "metadata"), "guest");
        ret->terminal = value(child(child(child(root, "devices"), "console"), "source"), "path");
        ret->log = value(mark, "log");
        ret->socket = value(mark, "socket");
        return 0;
}

void container_found_done(struct container_found *f)
{
        free(f->terminal);
        free(f->log);
        free(f->socket);
}

void xml_each_nic(const char *xml, void (*each)(void *arg, const char *device), void *arg)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr n = doc ? child(xmlDocGetRootElement(doc), "devices") : NULL;

        for (n = n ? n->children : NULL; n; n = n->next) {
                _cleanup_free_ char *device = NULL;

                if (n->type != XML_ELEMENT_NODE || !xmlStrEqual(n->name, X("interface")))
                        continue;
                device = value(child(n, "target"), "dev");
                if (device)
                        each(arg, device);
        }
}
