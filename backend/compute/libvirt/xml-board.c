/* The board in a domain's XML: firmware, processors, memory, and what is not a disk or a network.
 */
#include "backend/compute/libvirt/driver.h"

#include <sys/random.h>
#include <time.h>

#include "backend/compute/libvirt/xml-tree.h"
#include "common/name.h"

enum { BALLOON_PERIOD_S = 10 };

static unsigned max_vcpus(const struct guest *g)
{
        return MAX(g->vcpus, g->vcpus_max);
}

static bool word_of(const char *word, const char *const *words, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (streq(word, words[i]))
                        return true;
        return false;
}

static int check_processors(const struct guest *g, struct err **e)
{
        const unsigned per_socket = MAX(g->cores, 1u) * MAX(g->threads, 1u);

        if (max_vcpus(g) % per_socket)
                return err_set(e, -EINVAL, "%u processors do not fill sockets of %u", max_vcpus(g),
                               per_socket);
        if (g->numa > max_vcpus(g))
                return err_set(e, -EINVAL, "%u NUMA nodes need as many processors", g->numa);
        for (const char *p = g->cpu ? g->cpu : ""; *p; p++)
                if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
                            *p))
                        return err_set(e, -EINVAL, "the CPU's model is no name");
        return 0;
}

int xml_check_board(const struct guest *g, struct err **e)
{
        static const char *const actions[] = {"reset", "poweroff", "pause", "inject-nmi"};
        int r = check_processors(g, e);

        if (r == 0 && g->watchdog && !word_of(g->watchdog, actions, ARRAY_SIZE(actions)))
                r = err_set(e, -EINVAL, "no watchdog does '%s'", g->watchdog);
        if (r == 0 && g->nvram && access(GUEST_FIRMWARE, R_OK) < 0) {
                err_set(e, -ENOENT, "there is no UEFI firmware at " GUEST_FIRMWARE);
                r = err_hint(e, -ENOENT, "apt-get install ovmf");
        }
        return r;
}

void xml_firmware(xmlNodePtr os, const struct guest *g)
{
        if (!g->nvram)
                return;
        attr(attr(text(os, "loader", GUEST_FIRMWARE), "readonly", "yes"), "type", "pflash");
        text(os, "nvram", g->nvram);
}

/* Memory that is plugged in belongs to a node, so there is at least one. */
static unsigned nodes(const struct guest *g)
{
        return g->numa ? g->numa : g->memory_max > g->memory;
}

void xml_memory(xmlNodePtr root, const struct guest *g)
{
        xmlNodePtr n;

        if (g->memory_max > g->memory) {
                n = attr(text_u(root, "maxMemory", g->memory_max / 1024), "unit", "KiB");
                attr_u(n, "slots", DIMM_SLOTS);
        }
        attr(text_u(root, "memory", g->memory / 1024), "unit", "KiB");
        if (!g->huge_page)
                return;
        n = add(add(add(root, "memoryBacking"), "hugepages"), "page");
        attr(attr_u(n, "size", g->huge_page / 1024), "unit", "KiB");
}

static void add_nodes(xmlNodePtr cpu, const struct guest *g)
{
        const unsigned n = nodes(g), vcpus = max_vcpus(g);
        const uint64_t kib = g->memory / 1024;
        xmlNodePtr numa = n ? add(cpu, "numa") : NULL;

        for (unsigned i = 0, from = 0; i < n; i++) {
                unsigned to = (uint64_t)vcpus * (i + 1) / n - 1;
                xmlNodePtr cell = attr_u(add(numa, "cell"), "id", i);
                char cpus[32];

                snprintf(cpus, sizeof(cpus), "%u-%u", from, to);
                attr(cell, "cpus", cpus);
                /* whole MiB, as DIMMs ask for; the last node has the rest */
                attr_u(cell, "memory",
                       i + 1 < n ? kib / n / 1024 * 1024 : kib - kib / n / 1024 * 1024 * (n - 1));
                attr(cell, "unit", "KiB");
                from = to + 1;
        }
}

void xml_cpu(xmlNodePtr root, const struct guest *g)
{
        xmlNodePtr cpu = add(root, "cpu"), n;

        if (g->cpu && *g->cpu) {
                attr(attr(cpu, "mode", "custom"), "match", "exact");
                attr(cpu, "check", "none"); /* TCG leaves out what it cannot do */
                attr(text(cpu, "model", g->cpu), "fallback", "forbid");
        } else {
                attr(cpu, "mode", g->kvm ? "host-passthrough" : "maximum");
        }
        if (g->cores || g->threads) {
                unsigned cores = MAX(g->cores, 1u), threads = MAX(g->threads, 1u);

                n = add(cpu, "topology");
                attr_u(attr_u(n, "sockets", max_vcpus(g) / (cores * threads)), "dies", 1);
                attr_u(attr_u(n, "cores", cores), "threads", threads);
        }
        add_nodes(cpu, g);
}

/* How many devices of that sort there are to boot from. */
static unsigned count(const struct guest *g, const char *sort, size_t len)
{
        if (len == 4 && !memcmp(sort, "disk", len))
                return g->ndisks;
        if (len == 7 && !memcmp(sort, "network", len))
                return g->nnics;
        return 1;
}

unsigned xml_boot_order(const struct guest *g, const char *sort, unsigned n)
{
        const char *p = g->boot && *g->boot ? g->boot : "disk";
        unsigned before = 0;

        if (g->kernel)
                return 0;
        while (*(p += strspn(p, " "))) {
                size_t len = strcspn(p, " ");

                if (len == strlen(sort) && !memcmp(p, sort, len))
                        return before + n + 1;
                before += count(g, p, len);
                p += len;
        }
        return 0;
}

/* SATA, which every firmware and system knows, beside virtio disks. */
void xml_cdrom(xmlNodePtr devices, const struct guest_disk *d, bool scsi, unsigned order)
{
        const bool full = d && d->socket;
        xmlNodePtr disk = attr(add(devices, "disk"), "type", full ? "network" : "file"), n;

        attr(disk, "device", "cdrom");
        n = attr(attr(add(disk, "driver"), "name", "qemu"), "type", "raw");
        if (full) {
                attr(attr(attr(n, "cache", "none"), "error_policy", "stop"), "rerror_policy",
                     "stop");
                attr(n, "discard", "unmap");
                n = attr(attr(add(disk, "source"), "protocol", "nbd"), "name", d->export);
                attr(attr(add(n, "host"), "transport", "unix"), "socket", d->socket);
        }
        attr(attr(add(disk, "target"), "dev", XML_CDROM), "bus", scsi ? "scsi" : "sata");
        add(disk, "readonly");
        if (scsi) {
                n = attr_u(attr(add(disk, "address"), "type", "drive"), "controller", 0);
                attr_u(attr_u(attr_u(n, "bus", 0), "target", CDROM_TARGET), "unit", 0);
        }
        if (order)
                attr_u(add(disk, "boot"), "order", order);
}

void xml_screen(xmlNodePtr devices, const char *sock, const char *password, int64_t until)
{
        xmlNodePtr n = attr(add(devices, "graphics"), "type", "vnc");
        char when[32] = "1970-01-01T00:00:01", nobodys[9];
        uint32_t random = 0;
        struct tm tm;
        time_t at = until;

        attr(n, "socket", sock);
        if (password && gmtime_r(&at, &tm))
                strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
                abort(); /* it gives so few bytes always */
        snprintf(nobodys, sizeof(nobodys), "%08x", random);
        attr(attr(n, "passwd", password ? password : nobodys), "passwdValidTo", when);
}

void xml_board_devices(xmlNodePtr devices, const struct guest *g)
{
        xmlNodePtr n;

        if (g->tpm_sock) {
                n = attr(add(devices, "tpm"), "model", "tpm-crb");
                n = attr(add(n, "backend"), "type", "external");
                n = attr(attr(add(n, "source"), "type", "unix"), "mode", "connect");
                attr(n, "path", g->tpm_sock);
        }
        if (g->watchdog)
                attr(attr(add(devices, "watchdog"), "model", "i6300esb"), "action", g->watchdog);
        attr_u(add(attr(add(devices, "memballoon"), "model", "virtio"), "stats"), "period",
               BALLOON_PERIOD_S);
}

/* The one child of holder, as a document. */
static int only_child(const char *name, void (*make)(xmlNodePtr holder, const void *arg),
                      const void *arg, char **ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = xmlNewDoc(X("1.0"));
        xmlNodePtr holder = xmlNewNode(NULL, X(name));

        if (holder)
                make(holder, arg);
        if (doc && holder && holder->children)
                xmlDocSetRootElement(doc, holder->children);
        xmlFreeNode(holder);
        return doc ? xml_dump(doc, ret, e) : err_errno(e, -ENOMEM, "write device XML");
}

struct screen {
        const char *sock, *password;
        int64_t until;
};

static void make_screen(xmlNodePtr holder, const void *arg)
{
        const struct screen *s = arg;

        xml_screen(holder, s->sock, s->password, s->until);
}

int xml_screen_device(const char *sock, const char *password, int64_t until, char **ret,
                      struct err **e)
{
        return only_child("devices", make_screen, &(struct screen){sock, password, until}, ret, e);
}

static void make_dimm(xmlNodePtr holder, const void *arg)
{
        xmlNodePtr n = attr(add(holder, "memory"), "model", "dimm");

        n = add(n, "target");
        attr(text_u(n, "size", *(const uint64_t *)arg / 1024), "unit", "KiB");
        text_u(n, "node", 0);
}

int xml_dimm(uint64_t bytes, char **ret, struct err **e)
{
        return only_child("devices", make_dimm, &bytes, ret, e);
}

bool xml_is_scsi(const char *xml)
{
        _cleanup_(disk_found_done) struct disk_found f = {0};

        return xml_find_disk(xml, XML_CDROM, &f, NULL) == 0 && f.found && f.scsi;
}

int xml_memory_size(const char *xml, uint64_t *ret, struct err **e)
{
        _cleanup_doc_ xmlDocPtr doc = xml_parse(xml);
        xmlNodePtr n = doc ? child(xmlDocGetRootElement(doc), "memory") : NULL;
        xmlChar *kib = n ? xmlNodeGetContent(n) : NULL;

        *ret = kib ? strtoull((const char *)kib, NULL, 10) * 1024 : 0;
        if (kib)
                xmlFree(kib);
        return *ret ? 0 : err_set(e, -EIO, "libvirt gave a domain without memory");
}
