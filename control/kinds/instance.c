/* Instances: guests. */
#include "control/kinds/instance.h"
#include "control/metrics.h"
#include "control/network.h"

char *instance_dir(struct control *c, const struct object *o)
{
        char id[ID_TEXT_SIZE], *p;

        if (asprintf(&p, "%s/instances/%s", c->cfg.state, id_text(id, o->id)) < 0)
                abort();
        return p;
}

static char *in_dir(struct control *c, const struct object *o, const char *name)
{
        _cleanup_free_ char *dir = instance_dir(c, o);
        char *p;

        if (asprintf(&p, "%s/%s", dir, name) < 0)
                abort();
        return p;
}

char *instance_console_log(struct control *c, const struct object *o)
{
        return in_dir(c, o, "console.log");
}

char *instance_console_head(struct control *c, const struct object *o)
{
        return in_dir(c, o, "console.head");
}

char *instance_domain(struct control *c, const struct object *o)
{
        return in_dir(c, o, "domain.xml");
}

char *instance_vnc(struct control *c, const struct object *o)
{
        return in_dir(c, o, "screen/vnc.sock");
}

char *instance_nvram(struct control *c, const struct object *o)
{
        return in_dir(c, o, "nvram.fd");
}

char *instance_tpm(struct control *c, const struct object *o)
{
        return in_dir(c, o, "tpm/socket");
}

char *instance_memory(struct control *c, const struct object *o)
{
        return in_dir(c, o, "memory");
}

char *instance_console(struct control *c, const struct object *o)
{
        return in_dir(c, o, "console.sock");
}

static void render_console(struct control *c, const struct object *o, struct buf *out)
{
        _cleanup_free_ char *p = instance_console(c, o);

        if (object_in(o, INSTANCE_RUNS) && !object_num(o, "adopted"))
                buf_printf(out, "%s\n", p);
}

static char *console_1(struct control *c, const struct object *o)
{
        return instance_console_past(c, o, 1);
}

static char *console_2(struct control *c, const struct object *o)
{
        return instance_console_past(c, o, 2);
}

static char *console_3(struct control *c, const struct object *o)
{
        return instance_console_past(c, o, 3);
}

static void render_power(struct control *c, const struct object *o, struct buf *out)
{
        const char *p = object_str(o, "stalled"), *moving = object_str(o, "moving");

        if (o->state == INSTANCE_MIGRATING)
                buf_addstr(out, streq(moving, "active")   ? "running"
                                : streq(moving, "paused") ? "paused"
                                                          : "off");
        else if (object_in(o, STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_STOPPING) |
                                      STATE(INSTANCE_REBOOTING) | STATE(INSTANCE_SUSPENDING) |
                                      STATE(INSTANCE_RESCUED) | STATE(INSTANCE_RESIZED)))
                buf_addstr(out, *p ? p : "running");
        else
                buf_addstr(out, o->state == INSTANCE_PAUSED ? "paused" : "off");
}

static int set_vcpus(struct txn *t, struct object *o, union value v, struct err **e)
{
        const uint64_t now = object_num(o, "vcpus"), max = MAX(object_num(o, "vcpus_max"), now);
        char before[24];

        if (v.u < now)
                return err_set(e, -EINVAL, "a running guest is given processors, not less of them");
        if (v.u > max)
                return err_set(e, -EINVAL, "its flavor allows %" PRIu64, max);
        if (instance_may_grow(t->c, o, v.u - now, 0, e) < 0)
                return -ENOSPC;
        snprintf(before, sizeof(before), "%" PRIu64, now);
        txn_set_num(t, o, "vcpus", v.u);
        job_start(t, o, &job_instance_vcpus, before);
        return 0;
}

static int set_flavor(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *f = v.s ? model_by_name(t->c, NULL, &kind_flavor, v.s) : NULL;
        int r;

        if (!f)
                return err_set(e, -EINVAL, "a flavor's name is missing");
        if (instance_not_adopted(o, "flavor", e) < 0)
                return -ENOTSUP;
        if (*object_str(o, "resized_from"))
                return err_set(e, -EBUSY, "it was resized: confirm or revert that first");
        if (*object_str(o, "rooted") && !streq(object_str(f, "hypervisor"), "lxc"))
                return err_set(e, -EINVAL, "it is a container: '%s' is no flavor of one", f->name);
        r = instance_same_engine(o, f, e);
        if (r == 0)
                r = instance_flavor_fits(f, e);
        if (r == 0)
                instance_take_flavor(t, o, f);
        return r;
}

static int set_password(struct txn *t, struct object *o, union value v, struct err **e)
{
        if (v.s && *v.s)
                return err_set(e, -EPERM, "its guest gives it; written, it can only be cleared");
        txn_set_str(t, o, "password", NULL);
        return 0;
}

static int remove_instance(struct txn *t, struct object *o, struct err **e)
{
        const unsigned fit = RESTING | STATE(INSTANCE_STOPPING) | STATE(INSTANCE_SUSPENDED) |
                             STATE(INSTANCE_SHELVED) | STATE(INSTANCE_DELETED) |
                             (object_num(o, "adopted") ? LIVE : 0); /* it goes on without us */
        int r = check_referrers(o, e);

        if (r < 0)
                return r;
        if (!object_in(o, fit)) {
                err_set(e, -EBUSY, "instance '%s' is %s", o->name, object_state(o));
                return err_hint(e, -EBUSY, "echo %s > ctl first",
                                o->state == INSTANCE_RESCUED   ? "unrescue"
                                : o->state == INSTANCE_PAUSED  ? "resume"
                                : o->state == INSTANCE_RESIZED ? "confirm"
                                                               : "stop");
        }
        instance_begin_delete(t, o);
        return 0;
}

static const struct attr_def attrs[] = {
        {"flavor", ATTR_NAME, ROLE_MEMBER, RESTING, .of = "flavor", .index = true,
         .set = set_flavor, .help = "its size, from flavors/"},
        {"vcpus", ATTR_NUMBER, ROLE_MEMBER, STATE(INSTANCE_ACTIVE), .min = 1, .max = 1024,
         .index = true, .no_spec = true, .set = set_vcpus,
         .help = "of its flavor; a larger number, up to the flavor's vcpus_max, is plugged in"},
        {"vcpus_max", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "of its flavor"},
        {"memory", ATTR_SIZE, ROLE_MEMBER, STATE(INSTANCE_ACTIVE), .max = 1ULL << 44, .index = true,
         .no_spec = true, .set = instance_set_memory,
         .help = "of its flavor; more by pieces of 128M, up to the flavor's memory_max, is plugged "
                 "in"},
        {"cmdline", ATTR_TEXT, ROLE_MEMBER, RESTING, .max = 2000,
         .help = "kernel command line, with `kernel`"},
        {"screen", ATTR_WORD, ROLE_MEMBER, RESTING, .words = "none vnc", .def = "none",
         .help = "vnc: a VGA screen; see `vnc`"},
        {"config_drive", ATTR_BOOL, ROLE_MEMBER, RESTING,
         .help = "1: its cloud-init finds a disk config-2 with hostname, ssh_key and metadata; "
                 "metadata/user_data is its user data"},
        {"hostname", ATTR_NAME, ROLE_MEMBER, RESTING, .help = "for cloud-init; empty: its name"},
        {"ssh_key", ATTR_TEXT, ROLE_MEMBER, RESTING, .max = 4000,
         .help = "public key of who may log in, for cloud-init"},
        {"metadata_service", ATTR_WORD, ROLE_MEMBER, .words = "on tokens off", .def = "on",
         .help = "what 169.254.169.254 tells its guest: on, only to those who fetch a token first, "
                 "or nothing"},
        {"metadata_hops", ATTR_NUMBER, ROLE_MEMBER, .min = 1, .max = 64, .def = "1",
         .help = "routers that an answer with a token may pass, itself counted"},
        {"password", ATTR_TEXT, ROLE_MEMBER, .max = 4096, .no_spec = true, .set = set_password,
         .help = "that its guest gave to the metadata service, once; an empty line clears it"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"power", ATTR_TEXT, ROLE_NOBODY, .render = render_power, .changes = true, .index = true,
         .help = "running, paused, stalled (a disk does not answer) or off"},
        {"addresses", ATTR_TEXT, ROLE_NOBODY, .render = instance_render_addresses, .changes = true,
         .index = true, .help = "in its networks, known before it starts"},
        {"host", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "where it runs, or ran last"},
        {"adopted", ATTR_BOOL, ROLE_NOBODY,
         .help = "1: it was in libvirt before; its disks and its definition are there"},
        {"locked", ATTR_TEXT, ROLE_NOBODY, .index = true,
         .help = "by whom: member or admin; empty: it is not"},
        {"resized_from", ATTR_TEXT, ROLE_NOBODY,
         .help = "flavor it had, until the resize is confirmed"},
        {"old_vcpus_max", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "of that flavor"},
        {"old_vcpus", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "of that flavor"},
        {"old_memory", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "of that flavor"},
        {"old_disk", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "of that flavor"},
        {"rescue", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "volume it boots from instead"},
        {"zone", ATTR_NAME, ROLE_MEMBER, RESTING, .help = "availability zone it is to run in"},
        {"features", ATTR_TEXT, ROLE_MEMBER, RESTING, .max = 255,
         .help = "words that its host must have, as kvm or x86_64"},
        {"restart", ATTR_WORD, ROLE_MEMBER, .words = "never elsewhere", .def = "never",
         .help = "when its host dies: stay off, or start on another host"},
        {"disk", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "of its flavor"},
        {"claim", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "start of its host's daemon that accepted it; 0: nobody has"},
        {"died_with", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "its host, that was lost"},
        {"thaw", ATTR_BOOL, ROLE_NOBODY, .hidden = true, .help = "its file systems may be frozen"},
        {"stays", ATTR_BOOL, ROLE_NOBODY, .hidden = true,
         .help = "it was taken to its host while it was off: it starts there"},
        {"moving", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "state it migrates in"},
        {"moving_from", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "host it leaves"},
        {"moving_to", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "host it goes to"},
        {"moving_left", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "how it left its host"},
        {"moving_code", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "why it stays: errno"},
        {"moving_words", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "and words"},
        {"arrival", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "paths on the host it goes to"},
        {"reclaim_at", ATTR_NUMBER, ROLE_NOBODY,
         .help = "second since 1970 at which one that is deleted goes for good"},
        {"stalled", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "power, if not as the state"},
        {"memory_max", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "of its flavor"},
        {"old_memory_max", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "of that flavor"},
        {"hardware", ATTR_TEXT, ROLE_NOBODY,
         .help = "of its flavor: cores, threads, cpu, numa, huge_pages, hypervisor, where they are "
                 "not as usual"},
        {"old_hardware", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "of that flavor"},
        {"firmware", ATTR_WORD, ROLE_MEMBER, RESTING, .words = "auto bios uefi", .def = "auto",
         .help = "what it boots by; auto: as its `image` says, else bios"},
        {"disk_bus", ATTR_WORD, ROLE_MEMBER, RESTING, .words = "auto virtio scsi", .def = "auto",
         .help = "virtio: a device each disk; scsi: virtio's controller, for all of them and the "
                 "CD "
                 "drive; auto: as its `image` says, else virtio"},
        {"tpm", ATTR_BOOL, ROLE_MEMBER, RESTING, .help = "1: a TPM 2.0, which keeps its secrets"},
        {"watchdog", ATTR_WORD, ROLE_MEMBER, RESTING,
         .words = "off reset poweroff pause inject-nmi", .def = "off",
         .help = "an i6300esb, and what happens when the guest does not feed it"},
        {"boot", ATTR_TEXT, ROLE_MEMBER, RESTING, .max = 32, .def = "disk",
         .set = instance_set_boot,
         .help = "disk, cdrom, network, in the order to try; its disks as volumes/ names them"},
        {"extra.xml", ATTR_TEXT, ROLE_ADMIN, RESTING, .max = 32 << 10, .lines = true,
         .no_spec = true, .set = instance_set_extra,
         .help = "a <domain> that is merged into libvirt's at the next start, for what is no "
                 "attribute"},
        {"rooted", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "host that has its root"},
        {"vnc_password", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "see vnc"},
        {"vnc_until", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "second it ends at"},
        {"vnc_open", ATTR_BOOL, ROLE_NOBODY, .hidden = true, .help = "QEMU knows it"},
};

static const struct link_def links[] = {
        {"volumes", "volume", .many = true,
         .states = LINKABLE | STATE(INSTANCE_RESIZED) | STATE(INSTANCE_SHELVED) |
                   STATE(INSTANCE_DELETED),
         .bind = instance_bind_volume, .bound = instance_bound_volume,
         .unbind = instance_unbind_volume,
         .help = "its disks, as vda, vdb, ...; also while it runs"},
        {"networks", "network port", .many = true, .states = LINKABLE,
         .bind = instance_bind_network, .bound = instance_bound_network,
         .unbind = instance_unbind_network,
         .help = "what it is plugged into, each by a port of its own; also while it runs"},
        {"security_groups", "security_group", .many = true,
         .help = "of its ports that have none of their own"},
        {"group", "group", .states = RESTING,
         .help = "those it is to run beside, or apart from: see groups/"},
        {"image", "image", .states = RESTING, .bind = instance_bind_image,
         .help = "its root volume is made from it at the first start, and goes with it; tar: a "
                 "container's "
                 "root"},
        {"kernel", "image", .states = RESTING, .bind = instance_bind_image,
         .help = "aki: booted directly"},
        {"ramdisk", "image", .states = RESTING, .bind = instance_bind_image,
         .help = "ari, for `kernel`"},
        {"cdrom", "image", .states = RESTING | LIVE, .bind = instance_bind_image,
         .bound = instance_bound_cdrom, .unbind = instance_unbind_cdrom,
         .help = "iso: in its CD drive, also while it runs; rm ejects it, if the guest lets it go"},
};

#define METRIC(n, which, words)                                                                    \
        {                                                                                          \
                n, FILE_TEXT, ROLE_NOBODY, .folder = "metrics", .render_at = metrics_render,       \
                                           .at = which, .help = words                              \
        }

static const struct file_def files[] = {
        {"console.log", FILE_LOG, ROLE_NOBODY, .path = instance_console_log,
         .head = instance_console_head,
         .help = "what its serial console has said since it was started"},
        {"console.log.1", FILE_LOG, ROLE_NOBODY, .path = console_1, .help = "the boot before"},
        {"console.log.2", FILE_LOG, ROLE_NOBODY, .path = console_2, .help = "the one before that"},
        {"console.log.3", FILE_LOG, ROLE_NOBODY, .path = console_3, .help = "the oldest kept"},
        {"domain.xml", FILE_LOG, ROLE_NOBODY, .path = instance_domain,
         .help = "what runs, or ran last, in libvirt's words"},
        {"vnc", FILE_TEXT, ROLE_NOBODY, .render = instance_render_vnc,
         .help = "socket of its screen while it runs, and the password after the verb vnc"},
        {"console", FILE_TEXT, ROLE_NOBODY, .render = render_console,
         .help = "socket that speaks the serial console, while it runs"},
        METRIC("cpu", METRICS_CPU, "nanoseconds of its processors since its start, and how many"),
        METRIC("memory", METRICS_MEMORY,
               "bytes: what it was given, of its process, and total, free, usable as it says "
               "itself"),
        METRIC("disk", METRICS_DISK, "a line each disk: reads and writes since its start"),
        METRIC("network", METRICS_NETWORK, "a line each network: what it received and sent"),
        METRIC("hour", METRICS_HOUR, "all its figures every 10 seconds of the last hour it ran"),
        METRIC("day", METRICS_DAY, "the same every 5 minutes of the last day it ran"),
};

static const struct verb_def verbs[] = {
        {"start", "", ROLE_MEMBER, STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED), "boot it",
         instance_start},
        {"stop", "[now|SECONDS]", ROLE_MEMBER, STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_ERROR),
         "ask it to power off, force it after SECONDS (60) or now", instance_stop},
        {"reboot", "[soft|hard]", ROLE_MEMBER,
         LIVE | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_SUSPENDED) | STATE(INSTANCE_ERROR),
         "ask it to restart, or reset it; one that is suspended loses its memory", instance_reboot},
        {"pause", "", ROLE_MEMBER, STATE(INSTANCE_ACTIVE), "halt its processors", instance_pause},
        {"resume", "", ROLE_MEMBER, STATE(INSTANCE_PAUSED) | STATE(INSTANCE_SUSPENDED),
         "let it go on where it was", instance_resume},
        {"suspend", "", ROLE_MEMBER, STATE(INSTANCE_ACTIVE),
         "write its memory to disk and end it; resume brings it back", instance_suspend},
        {"snapshot", "NAME", ROLE_MEMBER,
         LIVE | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_SUSPENDED),
         "take snapshots NAME of its volumes, of one moment, frozen by its agent if it has one",
         instance_snapshot},
        {"image", "NAME", ROLE_MEMBER, LIVE | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_SUSPENDED),
         "make image NAME of its boot disk, NAME-DEVICE of each other, of one moment",
         instance_image},
        {"backup", "NAME [RULES]", ROLE_MEMBER,
         LIVE | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_SUSPENDED),
         "take backup NAME of its boot disk, NAME-DEVICE of each other; RULES: their keep",
         instance_backup},
        {"lock", "", ROLE_MEMBER, ANY_STATE,
         "refuse what its tenant would change of it, until unlock; one of an admin is an admin's",
         instance_lock},
        {"unlock", "", ROLE_MEMBER, ANY_STATE, "take the lock away", instance_unlock},
        {"send-key", "KEY...", ROLE_MEMBER,
         STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_RESCUED) | STATE(INSTANCE_RESIZED),
         "press keys together: ctrl alt delete", instance_send_key},
        {"crash-dump", "", ROLE_MEMBER, INSTANCE_RUNS | STATE(INSTANCE_ERROR),
         "a non-maskable interrupt: its kernel dumps itself, or panics, if it is set so",
         instance_crash_dump},
        {"set-password", "USER PASSWORD", ROLE_MEMBER, STATE(INSTANCE_ACTIVE),
         "by its agent; only a hash is kept meanwhile, and may be given instead",
         instance_set_password},
        {"rescue", "IMAGE", ROLE_MEMBER,
         STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_ERROR),
         "boot it from a new disk, made from IMAGE, beside its own ones", instance_rescue},
        {"unrescue", "", ROLE_MEMBER, STATE(INSTANCE_RESCUED) | STATE(INSTANCE_STOPPED),
         "boot it from its own disks again; the rescue disk goes", instance_unrescue},
        {"rebuild", "IMAGE", ROLE_MEMBER,
         STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_ERROR),
         "give it a new boot disk from IMAGE; all else of it stays", instance_rebuild},
        {"shelve", "", ROLE_MEMBER, LIVE | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_SUSPENDED),
         "power it off and give its place away: it keeps its disks, and counts no vcpus and memory",
         instance_shelve},
        {"unshelve", "", ROLE_MEMBER, STATE(INSTANCE_SHELVED), "boot it, wherever there is room",
         instance_unshelve},
        {"resize", "FLAVOR", ROLE_MEMBER, STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_STOPPED),
         "restart it with another flavor, on probation: confirm or revert", instance_resize},
        {"confirm", "", ROLE_MEMBER, STATE(INSTANCE_RESIZED) | STATE(INSTANCE_STOPPED),
         "keep the new flavor; a boot disk made for it grows to the flavor's", instance_confirm},
        {"revert", "", ROLE_MEMBER, STATE(INSTANCE_RESIZED) | STATE(INSTANCE_STOPPED),
         "restart it with the flavor it had before the resize", instance_revert},
        {"delete", "", ROLE_MEMBER,
         EVERY_STATE & ~(STATE(INSTANCE_DELETING) | STATE(INSTANCE_MIGRATING)),
         "power it off at once and remove it, whatever it is doing; if its tenant's `reclaim` says "
         "so, first into deleted, and for good the second time",
         instance_delete},
        {"restore", "", ROLE_MEMBER, STATE(INSTANCE_DELETED),
         "boot one that was deleted, while it is kept", instance_restore},
        {"reset", "", ROLE_ADMIN, STATE(INSTANCE_ERROR) | TRANSIENT,
         "out of error, or out of what takes too long, to what it really is", instance_reset},
        {"vnc", "[SECONDS]", ROLE_MEMBER, INSTANCE_RUNS,
         "a new password for its screen, good for SECONDS (600): read vnc", instance_vnc_verb},
        {"migrate", "[HOST]", ROLE_MEMBER, LIVE | STATE(INSTANCE_STOPPED),
         "to another host, also while it runs; only an admin says to which", instance_migrate},
        {"evacuate", "", ROLE_ADMIN, STATE(INSTANCE_SUSPENDED) | STATE(INSTANCE_ERROR),
         "boot it on another host, if its own is down; its memory, if suspended, is lost",
         instance_evacuate},
};

static const struct state_def states[] = {
        {"draft", .help = "never started"},
        {"starting", .transient = true, .help = "its disks and its guest come up"},
        {"active", .help = "runs"},
        {"stopping", .transient = true, .help = "asked to power off"},
        {"stopped", .terminal = true, .help = "off"},
        {"rebooting", .transient = true, .help = "restarting"},
        {"paused", .help = "halted, in memory"},
        {"deleting", .transient = true, .help = "going away"},
        {"error", .terminal = true, .help = "read error"},
        {"suspending", .transient = true, .help = "its memory goes to disk"},
        {"suspended", .help = "its memory is on disk"},
        {"resuming", .transient = true, .help = "comes back as it was suspended"},
        {"rescuing", .transient = true, .help = "goes off, to boot from its rescue disk"},
        {"rescued", .help = "runs from its rescue disk"},
        {"unrescuing", .transient = true, .help = "goes off, to boot from its own disk"},
        {"rebuilding", .transient = true, .help = "goes off, and gets a new boot disk"},
        {"shelving", .transient = true, .help = "goes off, and gives its place away"},
        {"shelved", .help = "off, nowhere"},
        {"resizing", .transient = true, .help = "goes off, to restart with another flavor"},
        {"resized", .help = "runs with another flavor: confirm or revert"},
        {"reverting", .transient = true, .help = "goes off, to restart with its old flavor"},
        {"migrating", .transient = true, .help = "goes to another host"},
        {"deleted", .terminal = true, .help = "off; restore, or it goes when its time is over"},
};

const struct kind kind_instance = {
        .name = "instance",
        .plural = "instances",
        .help = "Guests: a flavor, disks, and ctl to start and stop them.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .links = links,
        .nlinks = ARRAY_SIZE(links),
        .verbs = verbs,
        .nverbs = ARRAY_SIZE(verbs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .remove = remove_instance,
        .guard = instance_guard,
        .suits = instance_suits,
};
