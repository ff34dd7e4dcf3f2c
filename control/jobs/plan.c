/* A guest put together from what the model knows. */
#include "control/jobs/plan.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/child.h"
#include "common/fileio.h"

enum { FETCH_MS = 600000 };

void plan_done(struct plan *p)
{
        for (unsigned i = 0; i < DISKS_MAX; i++)
                free(p->socket[i]);
        free(p->name);
        free(p->title);
        free(p->dir);
        free(p->log);
        free(p->console);
        free(p->agent);
        free(p->kernel);
        free(p->initrd);
        free(p->cmdline);
        free(p->config);
        free(p->vnc);
        free(p->cd_socket);
        free(p->nvram);
        free(p->tpm);
        free(p->extra);
        free(p->tree);
        free(p->root);
}

/* 0 ready; 1 wait for *watch; -errno. */
int link_ready(const struct object *o, const struct link *l, uint64_t *watch,
               char label[NAME_SIZE + 32], struct err **e)
{
        const struct object *t = l->target;
        const char *what = o->kind->links[l->def].name;
        enum image_format f;

        object_label(t, label);
        *watch = t->no;
        if (t->kind == &kind_group || t->kind == &kind_port || t->kind == &kind_security_group)
                return 0;
        if (t->kind == &kind_volume)
                return object_in(t, STATE(VOLUME_CREATING) | STATE(VOLUME_EXTENDING)) ? 1
                       : t->state == VOLUME_ERROR ? err_set(e, -EIO, "%s is in error", label)
                                                  : 0;
        if (t->state == IMAGE_SAVING)
                return 1;
        if (t->state != IMAGE_ACTIVE)
                return err_set(e, -EIO, "%s is %s", label, object_state(t));
        f = image_format_parse(object_str(t, "format"));
        if (streq(what, "image") && container_image_fits(o, t, e) < 0)
                return -EINVAL;
        if (streq(what, "kernel") && f != IMAGE_AKI)
                return err_set(e, -EINVAL, "%s is %s: kernel takes an aki", label,
                               image_format_name(f));
        if (streq(what, "ramdisk") && f != IMAGE_ARI)
                return err_set(e, -EINVAL, "%s is %s: ramdisk takes an ari", label,
                               image_format_name(f));
        if (streq(what, "cdrom") && f != IMAGE_ISO)
                return err_set(e, -EINVAL, "%s is %s: cdrom takes an iso", label,
                               image_format_name(f));
        return 0;
}

static int by_target(const void *a, const void *b)
{
        return strcmp(((const struct link *)a)->name, ((const struct link *)b)->name);
}

/* virtio shows 20 characters: the id's first ones, which lsblk and /dev/disk/by-id then have. */
static void plan_serial(struct plan *p, unsigned i)
{
        snprintf(p->serial[i], sizeof(p->serial[i]), "%.20s", p->volume[i]);
        p->disks[i].serial = p->serial[i];
}

static void plan_disks(struct control *c, struct plan *p, const struct object *o)
{
        unsigned def = kind_link(o->kind, "volumes");
        struct link sorted[DISKS_MAX];
        const struct link *boot = instance_boot_link(o);
        unsigned n = 0, root = 0;

        object_foreach_link (l, o)
                if (l->def == def && !l->leaving && n < DISKS_MAX)
                        sorted[n++] = *l;
        qsort(sorted, n, sizeof(*sorted), by_target);
        while (root < n && !streq(sorted[root].name, boot->name))
                root++;
        if (root > 0 && root < n) { /* the first of them boots */
                struct link l = sorted[root];

                memmove(sorted + 1, sorted, root * sizeof(*sorted));
                sorted[0] = l;
        }
        for (unsigned i = 0; i < n; i++) {
                struct guest_disk *d = &p->disks[i];

                snprintf(d->target, sizeof(d->target), "%s", sorted[i].name);
                id_text(p->volume[i], sorted[i].target->id);
                snprintf(p->export[i], ID_TEXT_SIZE, "%s", sorted[i].id);
                d->export = p->volume[i];
                plan_serial(p, i);
                d->readonly = object_num(sorted[i].target, "readonly");
                d->shared = volume_shared(c, sorted[i].target);
        }
        p->g.disks = p->disks;
        p->g.ndisks = n;
}

void plan_nic(const struct object *port, struct guest_nic *ret)
{
        char id[ID_TEXT_SIZE];

        *ret = (struct guest_nic){.mtu = object_num(port->holder, "mtu")};
        snprintf(ret->mac, sizeof(ret->mac), "%s", object_str(port, "mac"));
        network_device(ret->device, NET_TAP, id_text(id, port->id));
}

/* In the order in which they were linked. */
static void plan_nics(struct plan *p, const struct object *o)
{
        int def = kind_link(o->kind, "networks");

        object_foreach_link (l, o)
                if ((int)l->def == def && !l->leaving && p->g.nnics < NICS_MAX)
                        plan_nic(l->target, &p->nics[p->g.nnics++]);
        p->g.nics = p->nics;
}

static void plan_image(const struct object *o, const char *link, char id[ID_TEXT_SIZE])
{
        struct object *image = object_target(o, link);

        id[0] = '\0';
        if (image)
                id_text(id, image->id);
}

static void guest_user(struct control *c, uint64_t no, uid_t *uid, gid_t *gid)
{
        *uid = c->cfg.uid == 0 ? GUEST_UID_BASE + no % GUEST_UID_BASE : (uid_t)-1;
        *gid = *uid;
}

static unsigned hardware_number(const struct object *o, const char *key)
{
        char text[NAME_SIZE];

        return instance_hardware(o, key, text, sizeof(text)) ? (unsigned)strtoul(text, NULL, 10)
                                                             : 0;
}

/* Its board, and its CD. */
static void plan_board(struct control *c, struct plan *p, const struct object *o)
{
        const struct link *cd = object_link(o, kind_link(o->kind, "cdrom"), NULL);
        char pages[NAME_SIZE];

        p->g.memory_max = object_num(o, "memory_max");
        p->g.cores = hardware_number(o, "cores");
        p->g.threads = hardware_number(o, "threads");
        p->g.numa = hardware_number(o, "numa");
        if (instance_hardware(o, "huge_pages", pages, sizeof(pages)))
                p->g.huge_page = streq(pages, "1G") ? 1 << 30 : 2 << 20;
        if (instance_hardware(o, "cpu", p->cpu, sizeof(p->cpu)))
                p->g.cpu = p->cpu;
        if (streq(instance_or_image(o, "firmware"), "uefi"))
                p->g.nvram = p->nvram = instance_nvram(c, o);
        p->g.scsi = streq(instance_or_image(o, "disk_bus"), "scsi");
        if (object_num(o, "tpm"))
                p->g.tpm_sock = p->tpm = instance_tpm(c, o);
        snprintf(p->watchdog, sizeof(p->watchdog), "%s", object_str(o, "watchdog"));
        if (*p->watchdog && !streq(p->watchdog, "off"))
                p->g.watchdog = p->watchdog;
        snprintf(p->boot, sizeof(p->boot), "%s", object_str(o, "boot"));
        p->g.boot = p->boot;
        p->g.extra = p->extra = xstrdup(object_str(o, "extra.xml"));
        if (!cd)
                return;
        id_text(p->cd_image, cd->target->id);
        snprintf(p->cd_export, sizeof(p->cd_export), "%s", cd->id);
}

/* Everything of the guest that the model knows.  -EAGAIN while the host is being probed. */
int plan_guest(struct job *j, struct plan *p, struct err **e)
{
        struct control *c = j->c;
        struct object *o, *host;
        const char *accel = "tcg";

        control_rdlock(c);
        o = model_by_no(c, j->target);
        host = model_by_name(c, NULL, &kind_host, c->cfg.host);
        if (o) {
                if (host)
                        accel = object_str(host, "accel");
                p->g.kvm = streq(accel, "kvm");
                id_text(p->g.uuid, o->id);
                p->g.adopted = object_num(o, "adopted");
                p->g.vcpus = object_num(o, "vcpus");
                p->g.vcpus_max = object_num(o, "vcpus_max");
                p->g.memory = object_num(o, "memory");
                guest_user(c, o->no, &p->g.uid, &p->g.gid);
                p->name = path_printf("%s-%.8s", o->name, p->g.uuid);
                p->title = path_printf("%s/%s", o->tenant->name, o->name);
                p->dir = instance_dir(c, o);
                p->log = instance_console_log(c, o);
                p->console = instance_console(c, o);
                p->agent = path_printf("%s/agent.sock", p->dir);
                if (streq(object_str(o, "screen"), "vnc"))
                        p->vnc = instance_vnc(c, o);
                p->cmdline = xstrdup(object_str(o, "cmdline"));
                if (!object_num(o, "rescue")) { /* whose disk boots by itself */
                        plan_image(o, "kernel", p->kernel_id);
                        plan_image(o, "ramdisk", p->initrd_id);
                }
                plan_disks(c, p, o);
                plan_nics(p, o);
                plan_board(c, p, o);
                if (instance_container(o))
                        plan_container(p, o);
                p->members = object_num(o->tenant, "gid");
        }
        accel = streq(accel, "unknown") ? NULL : accel;
        control_unlock(c);
        if (!o)
                return err_set(e, -ENOENT, "it is gone");
        p->g.name = p->name;
        p->g.title = p->title;
        p->g.console_log = p->log;
        p->g.console_sock = p->console;
        p->g.agent_sock = p->agent;
        p->g.vnc_sock = p->vnc;
        return accel ? 0 : -EAGAIN;
}

/* From the pool, where it was published. */
static int fetch_file(struct job *j, const struct plan *p, const char *id, const char *to,
                      struct err **e)
{
        _cleanup_close_ int fd = -1;
        _cleanup_free_ char *uri = xcheck(
                path_printf("nbd+unix:///%s?socket=%s", id, j->c->cfg.volumes->shared_socket));
        int r;

        if (unlink(to) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", to);
        fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(e, -errno, "create '%s'", to);
        r = child_check(
                &(struct child){.argv = (const char *const[]){"qemu-img", "convert", "-f", "raw",
                                                              "-O", "raw", uri, to, NULL},
                                .timeout_ms = FETCH_MS},
                e);
        if (r == 0 &&
            (fchmod(fd, 0400) < 0 || (p->g.uid != (uid_t)-1 && fchown(fd, p->g.uid, p->g.gid) < 0)))
                r = err_errno(e, -errno, "give '%s' to its guest", to);
        return r;
}

int plan_fetch(struct job *j, const struct plan *p, const char *id, const char *name, char **ret,
               struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        _cleanup_free_ char *to = xcheck(path_printf("%s/%s", p->dir, name));
        struct image_blob *b;
        int r = s->ops->open(s, id, false, &b, NULL);

        if (r == 0)
                s->ops->close(b);
        if (r != -ENOENT || !pool_shared(j->c))
                return 0; /* here, or nowhere: then who reads it says so */
        r = fetch_file(j, p, id, to, e);
        if (r == 0)
                *ret = TAKE_PTR(to);
        return r;
}

/* A copy that QEMU's user may read, in the instance's folder; the image's own file stays closed. */
static int plan_file(struct job *j, const struct plan *p, const char *id, const char *name,
                     char **ret, struct err **e)
{
        struct image_service *s = j->c->cfg.images;
        _cleanup_free_ char *from = NULL, *to = xcheck(path_printf("%s/%s", p->dir, name));
        _cleanup_err_ struct err *why = NULL;
        int r;

        if (!*id)
                return 0;
        r = s->ops->path(s, id, &from, &why);
        if (r == -ENOENT && pool_shared(j->c)) /* another host has the upload */
                r = fetch_file(j, p, id, to, e);
        else
                r = r < 0 ? err_move(e, TAKE_PTR(why))
                          : file_copy(from, to, p->g.uid, p->g.gid, 0400, e);
        if (r == 0)
                *ret = TAKE_PTR(to);
        return r;
}

int plan_kernel(struct job *j, struct plan *p, struct err **e)
{
        int r = mkdir_parents(p->dir, 0711, e);

        if (r == 0)
                r = plan_file(j, p, p->kernel_id, "kernel", &p->kernel, e);
        if (r == 0)
                r = plan_file(j, p, p->initrd_id, "ramdisk", &p->initrd, e);
        p->g.kernel = p->kernel;
        p->g.initrd = p->initrd;
        p->g.cmdline = p->kernel ? p->cmdline : NULL;
        return r;
}

int plan_screen(struct plan *p, struct err **e)
{
        _cleanup_free_ char *dir = NULL;
        int r;

        if (!p->vnc)
                return 0;
        dir = xstrndup(p->vnc, strrchr(p->vnc, '/') - p->vnc);
        r = mkdir_parents(dir, 0700, e);
        /* The socket gets the folder's group: its tenant's members come to it, and nobody else. */
        if (r == 0 && p->g.uid != (uid_t)-1 &&
            (chown(dir, p->g.uid, p->members) < 0 || chmod(dir, 02710) < 0))
                r = err_errno(e, -errno, "give '%s' to its guest", dir);
        return r;
}

/* Made once: what the guest has written there since stays. */
int plan_firmware(struct plan *p, struct err **e)
{
        int r;

        if (!p->nvram || access(p->nvram, F_OK) == 0)
                return 0;
        if (access(GUEST_FIRMWARE_VARS, R_OK) < 0) {
                err_set(e, -ENOENT, "there is no UEFI firmware: " GUEST_FIRMWARE_VARS);
                return err_hint(e, -ENOENT, "apt-get install ovmf");
        }
        r = file_copy(GUEST_FIRMWARE_VARS, p->nvram, p->g.uid, p->g.gid, 0600, e);
        return r < 0 ? err_prepend(e, r, "UEFI's variables") : 0;
}

static int export_one(struct job *j, const struct plan *p, const char *id, const char *volume,
                      bool readonly, char **ret, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_export x = {
                .id = id, .volume = volume, .uid = p->g.uid, .gid = p->g.gid, .readonly = readonly};
        int r;

        if (x.uid == (uid_t)-1) {
                x.uid = j->c->cfg.uid;
                x.gid = j->c->cfg.gid;
        }
        r = keys_unlock(j->c, volume, e);
        if (r == 0)
                r = volume_limits_here(j->c, volume, e);
        return r < 0 ? r : s->ops->export(s, &x, ret, e);
}

int plan_cdrom(struct job *j, struct plan *p, struct err **e)
{
        int r;

        snprintf(p->g.cdrom.target, sizeof(p->g.cdrom.target), "sda");
        if (!*p->cd_image)
                return 0;
        r = export_one(j, p, p->cd_export, p->cd_image, true, &p->cd_socket, e);
        if (r < 0)
                return err_prepend(e, r, "CD");
        p->g.cdrom.socket = p->cd_socket;
        p->g.cdrom.export = p->cd_image;
        p->g.cdrom.readonly = true;
        return 0;
}

int plan_exports(struct job *j, struct plan *p, struct err **e)
{
        for (unsigned i = 0; i < p->g.ndisks; i++) {
                int r = export_one(j, p, p->export[i], p -> volume[i], p -> disks[i].readonly,
                                   &p->socket[i], e);

                if (r < 0)
                        return err_prepend(e, r, "disk %s", p->disks[i].target);
                p->disks[i].socket = p->socket[i];
        }
        return 0;
}
