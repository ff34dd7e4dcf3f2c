/* The NBD nodes of running guests: reconnect-delay on each, and exports that grew.
 *
 * libvirt 9.0 has no word for QEMU's reconnect-delay.  QEMU 7.2 takes it at a node's opening only,
 * and reads an export's size only then, so both take a new node.  The format node, which the
 * guest's device holds, is reopened onto a node of ours; that frees the storage node's name, under
 * which a new one is opened; the format node goes back and ours goes away.  Afterwards every name
 * is the one libvirt knows, and its detach, its resize and its restart find what they expect.
 * Requests in flight are waited for by each reopen; none is lost and the guest notices nothing.
 *
 * Each step can be the last one before a crash: the next call looks at what nodes there are and
 * goes on from there.  What is done is marked by a write threshold on the new node that no write
 * reaches: it is shown by query-named-block-nodes, as reconnect-delay is not, and goes with it. */
#include "backend/compute/libvirt/driver.h"

#include <inttypes.h>
#include <jansson.h>

#include "common/jsonl.h"
#include <libvirt/libvirt-qemu.h>

#include "common/fault.h"
#include "common/log.h"

#define MARK INT64_MAX

static inline void json_freep(json_t **j)
{
        json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_freep)

/* Takes args (NULL: none); the result goes to *ret (may be NULL).  -EIO with QEMU's words. */
static int qmp(virDomainPtr dom, const char *command, json_t *args, json_t **ret, struct err **e)
{
        _cleanup_json_ json_t *request =
                json_pack("{s:s, s:o*}", "execute", command, "arguments", args);
        _cleanup_free_ char *text = request ? json_text(request, JSON_COMPACT) : NULL;
        _cleanup_free_ char *reply = NULL;
        _cleanup_json_ json_t *answer = NULL;
        json_t *value;

        if (!text)
                return err_errno(e, -ENOMEM, "%s", command);
        if (virDomainQemuMonitorCommand(dom, text, &reply, VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT))
                return virt_error(virDomainGetConnect(dom), e);
        answer = json_loads(reply, 0, NULL);
        value = json_object_get(answer, "return");
        if (!value) {
                const char *why = json_string_value(
                        json_object_get(json_object_get(answer, "error"), "desc"));

                return err_set(e, -EIO, "QEMU: %s: %s", command, why ? why : "no answer");
        }
        if (ret)
                *ret = json_incref(value);
        return 0;
}

int monitor(virDomainPtr dom, const char *command, struct json_t *args, struct err **e)
{
        return qmp(dom, command, args, NULL, e);
}

struct nodes {
        char ours[32], storage[32], format[32];
        bool has_ours, has_storage, has_format, marked;
};

static int nodes_find(virDomainPtr dom, const struct disk_found *f, struct nodes *ret,
                      struct err **e)
{
        _cleanup_json_ json_t *list = NULL;
        json_t *node;
        size_t i;
        int r;

        *ret = (struct nodes){0};
        snprintf(ret->ours, sizeof(ret->ours), "stratofs-%u", f->index);
        snprintf(ret->storage, sizeof(ret->storage), "libvirt-%u-storage", f->index);
        snprintf(ret->format, sizeof(ret->format), "libvirt-%u-format", f->index);
        r = qmp(dom, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &list, e);
        if (r < 0)
                return r;
        json_array_foreach (list, i, node) {
                const char *name = json_string_value(json_object_get(node, "node-name"));

                if (!name)
                        continue;
                ret->has_ours |= streq(name, ret->ours);
                ret->has_format |= streq(name, ret->format);
                if (streq(name, ret->storage)) {
                        ret->has_storage = true;
                        ret->marked = json_integer_value(
                                              json_object_get(node, "write_threshold")) == MARK;
                }
        }
        if (!ret->has_format)
                return err_set(e, -EIO, "QEMU has no node '%s'", ret->format);
        return 0;
}

/* A step of the dance. */
static int change(virDomainPtr dom, const char *command, json_t *args, struct err **e)
{
        int r = FAULT("compute.seat");

        if (r == 0)
                return qmp(dom, command, args, NULL, e);
        json_decref(args);
        return err_errno(e, r, "%s", command);
}

static int node_del(virDomainPtr dom, const char *name, struct err **e)
{
        return change(dom, "blockdev-del", json_pack("{s:s}", "node-name", name), e);
}

/* The options are those that libvirt makes of xml.c's disk; a reopen resets what it does not say.
 */
static int node_add(struct driver *d, virDomainPtr dom, const struct disk_found *f,
                    const char *name, struct err **e)
{
        json_t *args = json_pack("{s:s, s:s, s:{s:s, s:s}, s:s, s:i, s:{s:b, s:b}, s:b, s:s}",
                                 "driver", "nbd", "node-name", name, "server", "type", "unix",
                                 "path", f->socket, "export", f->export ? f->export : "",
                                 "reconnect-delay", d->reconnect, "cache", "direct", 1, "no-flush",
                                 0, "auto-read-only", 1, "discard", "unmap");

        return change(dom, "blockdev-add", args, e);
}

static int format_reopen(virDomainPtr dom, const struct disk_found *f, const char *format,
                         const char *file, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        json_t *args =
                json_pack("{s:[{s:s, s:s, s:s, s:b, s:{s:b, s:b}, s:s}]}", "options", "driver",
                          "raw", "node-name", format, "file", file, "read-only", f->readonly,
                          "cache", "direct", 1, "no-flush", 0, "discard", "unmap");
        int r;

        r = change(dom, "blockdev-reopen", args, &why);
        /* The old node's connection was given up and is only coming back: its flush fails at once,
         * and has QEMU connect again. */
        if (r == -EIO && strstr(err_msg(why), "Error flushing"))
                return err_set(e, -ETIMEDOUT, "disk '%s' has no connection yet",
                               f->alias ? f->alias : "?");
        if (r < 0)
                err_move(e, TAKE_PTR(why));
        return r;
}

/* A new node of that name, and the format node on it. */
static int move_to(struct driver *d, virDomainPtr dom, const struct disk_found *f,
                   const char *format, const char *name, struct err **e)
{
        int r = node_add(d, dom, f, name, e);

        if (r < 0)
                return r;
        r = format_reopen(dom, f, format, name, e);
        if (r < 0)
                node_del(dom, name, NULL);
        return r;
}

static int seat_locked(struct driver *d, virDomainPtr dom, const struct disk_found *f, bool again,
                       struct err **e)
{
        struct nodes n;
        int r = nodes_find(dom, f, &n, e);

        if (r < 0)
                return r;
        /* Left behind unused it goes.  If it does not go, the format node is on it. */
        if (n.has_ours && node_del(dom, n.ours, NULL) == 0)
                n.has_ours = false;
        if (n.marked && !n.has_ours && !again)
                return 0;
        if (!n.has_ours)
                r = move_to(d, dom, f, n.format, n.ours, e);
        if (r < 0)
                return r;
        if (n.has_storage)
                r = node_del(dom, n.storage, e);
        if (r == 0)
                r = move_to(d, dom, f, n.format, n.storage, e);
        if (r == 0)
                r = change(dom, "block-set-write-threshold",
                           json_pack("{s:s, s:I}", "node-name", n.storage, "write-threshold",
                                     (json_int_t)MARK),
                           e);
        if (r == 0)
                return node_del(dom, n.ours, e);
        /* It goes unless the format node is on it; then the next call goes on from there. */
        node_del(dom, n.ours, NULL);
        return r;
}

int seat_disk(struct driver *d, virDomainPtr dom, const struct disk_found *f, bool again,
              struct err **e)
{
        unsigned char uuid[VIR_UUID_BUFLEN];

        if (!f->nbd || !f->socket || !f->index)
                return err_set(e, -EIO, "disk '%s' is no NBD disk of ours",
                               f->alias ? f->alias : "?");
        if (virDomainGetUUID(dom, uuid) < 0)
                return virt_error(NULL, e);
        WITH_LOCK(&d->seats[uuid[0] % SEAT_LOCKS]);
        return seat_locked(d, dom, f, again, e);
}

struct seating {
        struct driver *d;
        virDomainPtr dom;
};

/* What fails is tried again when the guest is resumed and when the engine is back; until then the
 * error policy alone stands between the guest and an error. */
static void seat_one(void *arg, const struct disk_found *f)
{
        _cleanup_err_ struct err *why = NULL;
        struct seating *s = arg;
        char uuid[VIR_UUID_STRING_BUFLEN] = "?";

        if (!f->nbd || link_closing(s->d) || seat_disk(s->d, s->dom, f, false, &why) == 0)
                return;
        virDomainGetUUIDString(s->dom, uuid);
        if (virDomainIsActive(s->dom) == 1)
                log_warning("guest %s: disk %s: no reconnect-delay: %s", uuid,
                            f->alias ? f->alias : "?", err_msg(why));
        virResetLastError();
}

void seat_guest(struct driver *d, virDomainPtr dom)
{
        _cleanup_free_ char *xml = d->mode != COMPUTE_TEST ? virDomainGetXMLDesc(dom, 0) : NULL;
        struct seating s = {d, dom};

        if (xml)
                xml_each_disk(xml, seat_one, &s);
        virResetLastError();
}

void seat_target(struct driver *d, virDomainPtr dom, const char *target)
{
        _cleanup_free_ char *xml = d->mode != COMPUTE_TEST ? virDomainGetXMLDesc(dom, 0) : NULL;
        _cleanup_(disk_found_done) struct disk_found f = {0};
        struct seating s = {d, dom};

        if (xml && xml_find_disk(xml, target, &f, NULL) == 0 && f.found)
                seat_one(&s, &f);
        virResetLastError();
}

int seat_resize(virDomainPtr dom, const struct disk_found *f, uint64_t size, struct err **e)
{
        char node[32];

        snprintf(node, sizeof(node), "libvirt-%u-format", f->index);
        return qmp(dom, "block_resize",
                   json_pack("{s:s, s:I}", "node-name", node, "size", (json_int_t)size), NULL, e);
}
