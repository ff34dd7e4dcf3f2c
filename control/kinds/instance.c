/* Instances: guests. */
#include "control/network.h"

enum { DISKS_MAX = 16 };

#define RESTING (STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_ERROR))
#define LIVE (STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_PAUSED))

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

char *instance_console(struct control *c, const struct object *o)
{
        return in_dir(c, o, "console.sock");
}

static void render_console(struct control *c, const struct object *o, struct buf *out)
{
        _cleanup_free_ char *p = instance_console(c, o);

        if (object_in(o, LIVE))
                buf_printf(out, "%s\n", p);
}

static void render_power(struct control *c, const struct object *o, struct buf *out)
{
        const char *p = object_str(o, "stalled");

        if (object_in(o, STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_STOPPING) |
                                 STATE(INSTANCE_REBOOTING)))
                buf_addstr(out, *p ? p : "running");
        else
                buf_addstr(out, o->state == INSTANCE_PAUSED ? "paused" : "off");
}

static int set_flavor(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *f = v.s ? model_by_name(t->c, NULL, &kind_flavor, v.s) : NULL;

        if (!f)
                return err_set(e, -EINVAL, "a flavor's name is missing");
        txn_set_str(t, o, "flavor", v.s);
        txn_set_num(t, o, "vcpus", object_num(f, "vcpus"));
        txn_set_num(t, o, "memory", object_num(f, "memory"));
        txn_set_num(t, o, "disk", object_num(f, "disk"));
        return 0;
}

/* --- links --------------------------------------------------------------------------------- */

static bool is_device(const char *name)
{
        return strlen(name) == 3 && name[0] == 'v' && name[1] == 'd' && name[2] >= 'a' &&
               name[2] <= 'z';
}

/* The name that was asked for if it is a device's, else the next free device. */
static int choose_device(const struct object *o, char *name, struct err **e)
{
        unsigned def = kind_link(o->kind, "volumes");
        unsigned n = 0;

        object_foreach_link(l, o)
                n += l->def == def;
        if (n >= DISKS_MAX)
                return err_set(e, -EDQUOT, "volumes of an instance: limit=%d used=%u wanted=1",
                               DISKS_MAX, n);
        if (is_device(name))
                return 0;
        for (char c = 'a'; c <= 'z'; c++) {
                snprintf(name, NAME_SIZE, "vd%c", c);
                if (!object_link(o, def, name))
                        return 0;
        }
        return err_set(e, -ENOSPC, "no device is free");
}

static int bind_volume(struct txn *t, struct object *o, char *name, struct object *volume,
                       struct err **e)
{
        const bool shared = volume_shared(t->c, volume);
        const unsigned fit = STATE(VOLUME_CREATING) | STATE(VOLUME_AVAILABLE) |
                             STATE(VOLUME_EXTENDING) |
                             (shared ? STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING) |
                                               STATE(VOLUME_DETACHING)
                                     : 0);
        char label[NAME_SIZE + 32];

        object_foreach_link(l, o)
                if (l->target == volume)
                        return err_set(e, -EEXIST, "volume '%s' is attached here already, as %s",
                                       volume->name, l->name);
        for (unsigned i = 0; i < volume->nrefs && !shared; i++)
                if (volume->refs[i]->kind == &kind_instance)
                        return err_set(e, -EBUSY, "volume '%s' is attached to %s", volume->name,
                                       object_label(volume->refs[i], label));
        if (volume->writers)
                return err_set(e, -EBUSY, "volume '%s' is being written through its data",
                               volume->name);
        if (!object_in(volume, fit)) {
                err_set(e, -EBUSY, "volume '%s' is %s", volume->name, object_state(volume));
                if (volume->state == VOLUME_DRAFT)
                        err_hint(e, "give it a size (echo 10G > size) or a source first");
                return -EBUSY;
        }
        return choose_device(o, name, e);
}

static int bound_volume(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        struct object *v = l->target;
        char id[ID_TEXT_SIZE];

        snprintf(id, sizeof(id), "%s", l->id);
        if (v->state == VOLUME_AVAILABLE)
                txn_set_state(t, v, object_in(o, LIVE) ? VOLUME_ATTACHING : VOLUME_IN_USE);
        else if (v->state == VOLUME_IN_USE && object_in(o, LIVE))
                txn_set_state(t, v, VOLUME_ATTACHING); /* one more of several */
        if (object_in(o, LIVE))
                job_start(t, o, &job_instance_attach, id);
        return 0;
}

unsigned volume_held_state(struct control *c, const struct object *v, const char *done)
{
        unsigned state = VOLUME_IN_USE;

        for (unsigned i = 0; i < v->nrefs; i++)
                object_foreach_link (l, v->refs[i])
                        if (l->target != v || streq(l->id, done))
                                continue;
                        else if (l->leaving)
                                state = VOLUME_DETACHING;
                        else if (state == VOLUME_IN_USE &&
                                 job_live_for(c, v->refs[i]->no, &job_instance_attach, l->id))
                                state = VOLUME_ATTACHING;
        return state;
}

void instance_release_volume(struct txn *t, struct object *o, struct object *v)
{
        struct link *mine = NULL;
        unsigned others = 0;

        if (!object_in(v, STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING)))
                return;
        for (unsigned i = 0; i < v->nrefs; i++)
                others += v->refs[i]->kind == &kind_instance && v->refs[i] != o;
        object_foreach_link (l, o)
                if (l->target == v)
                        mine = l;
        txn_set_state(t, v,
                      others ? volume_held_state(t->c, v, mine ? mine->id : "") : VOLUME_AVAILABLE);
}

static int unbind_volume(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        char id[ID_TEXT_SIZE];

        if (!object_in(o, LIVE)) {
                instance_release_volume(t, o, l->target);
                return 0;
        }
        txn_edit(t, o);
        l->leaving = true;
        snprintf(id, sizeof(id), "%s", l->id);
        if (object_in(l->target, STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING)))
                txn_set_state(t, l->target, VOLUME_DETACHING);
        job_start(t, o, &job_instance_detach, id);
        return LINK_LATER;
}

static int bind_image(struct txn *t, struct object *o, char *name, struct object *image,
                      struct err **e)
{
        const unsigned fit = STATE(IMAGE_SAVING) | STATE(IMAGE_ACTIVE);
        enum image_format f = image_format_parse(object_str(image, "format"));
        bool disk = streq(name, "image");

        if (!object_in(image, fit))
                return err_set(e, -EBUSY, "image '%s' is %s", image->name, object_state(image));
        if (image->state != IMAGE_ACTIVE)
                return 0; /* the start job looks again */
        if (disk && !image_format_bootable(f))
                return err_set(e, -EINVAL, "image '%s' is %s: no disk", image->name,
                               image_format_name(f));
        if (streq(name, "kernel") && f != IMAGE_AKI)
                return err_set(e, -EINVAL, "image '%s' is %s: kernel takes an aki", image->name,
                               image_format_name(f));
        if (streq(name, "ramdisk") && f != IMAGE_ARI)
                return err_set(e, -EINVAL, "image '%s' is %s: ramdisk takes an ari", image->name,
                               image_format_name(f));
        return 0;
}

/* --- verbs --------------------------------------------------------------------------------- */

static int verb_start(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (object_num(o, "memory") == 0) {
                err_set(e, -EINVAL, "start '%s': it has no flavor", o->name);
                return err_hint(e, "echo small > flavor; the flavors are in flavors/");
        }
        if (!object_link(o, kind_link(o->kind, "volumes"), NULL) && !object_target(o, "image") &&
            !object_target(o, "kernel")) {
                err_set(e, -EINVAL, "start '%s': it has no disk to boot from", o->name);
                return err_hint(e, "ln -s volumes/NAME volumes/vda, or ln -s images/NAME image");
        }
        job_start(t, o, &job_instance_start, object_state(o));
        txn_set_state(t, o, INSTANCE_STARTING);
        return 0;
}

static int verb_stop(struct txn *t, struct object *o, const char *args, struct err **e)
{
        uint64_t seconds = 60;
        char text[32];
        union value v = {};
        static const struct attr_def limit = {"SECONDS", ATTR_NUMBER, .max = 3600};

        if (streq(args, "now"))
                seconds = 0;
        else if (*args) {
                int r = value_parse(t->c, &limit, args, strlen(args), &v, e);

                if (r < 0)
                        return err_prepend(e, r, "stop takes `now` or seconds");
                seconds = v.u;
        }
        snprintf(text, sizeof(text), "%" PRId64, clock_now() / 1000000 + (int64_t)seconds);
        job_start(t, o, &job_instance_stop, seconds ? text : "now");
        txn_set_state(t, o, INSTANCE_STOPPING);
        return 0;
}

static int verb_reboot(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (*args && !streq(args, "hard") && !streq(args, "soft"))
                return err_at(e, -EINVAL, args, strlen(args), 0, strlen(args),
                              "reboot takes `hard` or `soft`");
        if (o->state == INSTANCE_PAUSED && !streq(args, "hard"))
                return err_set(e, -EBUSY, "a paused guest hears nothing: reboot hard");
        job_start(t, o, &job_instance_reboot, args);
        txn_set_state(t, o, INSTANCE_REBOOTING);
        return 0;
}

static int verb_pause(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (!job_live(t->c, o->no, &job_instance_pause))
                job_start(t, o, &job_instance_pause, NULL);
        return 0;
}

static int verb_resume(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (!job_live(t->c, o->no, &job_instance_resume))
                job_start(t, o, &job_instance_resume, NULL);
        return 0;
}

/* One job takes all of them, while the guest stands still. */
static int verb_snapshot(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char label[NAME_SIZE + 32];
        unsigned n = 0;
        int r = name_check(args, strlen(args), e);

        object_foreach_link (l, o) {
                struct object *s;

                if (r < 0 || l->target->kind != &kind_volume || l->leaving)
                        continue;
                if (!object_in(l->target, STATE(VOLUME_IN_USE)))
                        r = err_set(e, -EBUSY, "%s is %s", object_label(l->target, label),
                                    object_state(l->target));
                if (r == 0)
                        r = txn_create(t, &kind_snapshot, l->target, args, &s, e);
                if (r == 0)
                        txn_set_state(t, s, SNAPSHOT_CREATING);
                n++;
        }
        if (r == 0 && n == 0)
                r = err_set(e, -EINVAL, "it has no volumes");
        if (r == 0)
                job_start(t, o, &job_instance_snapshot, args);
        return r;
}

static int verb_reset(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_state(t, o, INSTANCE_ACTIVE); /* sync puts down what it really is */
        job_start(t, o, &job_instance_sync, NULL);
        return 0;
}

static int remove_instance(struct txn *t, struct object *o, struct err **e)
{
        const unsigned fit = RESTING | STATE(INSTANCE_STOPPING);
        int r = check_referrers(o, e);

        if (r < 0)
                return r;
        if (!object_in(o, fit)) {
                err_set(e, -EBUSY, "instance '%s' is %s", o->name, object_state(o));
                return err_hint(e, "echo stop > ctl first");
        }
        txn_release_name(t, o);
        txn_set_state(t, o, INSTANCE_DELETING);
        job_start(t, o, &job_instance_delete, NULL);
        return 0;
}

static const struct attr_def attrs[] = {
        {"flavor", ATTR_NAME, ROLE_MEMBER, RESTING, .of = "flavor", .index = true,
         .set = set_flavor, .help = "its size, from flavors/"},
        {"vcpus", ATTR_NUMBER, ROLE_NOBODY, .index = true, .help = "of its flavor"},
        {"memory", ATTR_SIZE, ROLE_NOBODY, .index = true, .help = "of its flavor"},
        {"cmdline", ATTR_TEXT, ROLE_MEMBER, RESTING, .max = 2000,
         .help = "kernel command line, with `kernel`"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"power", ATTR_TEXT, ROLE_NOBODY, .render = render_power, .changes = true, .index = true,
         .help = "running, paused, stalled (a disk does not answer) or off"},
        {"addresses", ATTR_TEXT, ROLE_NOBODY, .render = instance_render_addresses, .changes = true,
         .index = true, .help = "in its networks, known before it starts"},
        {"host", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "where it runs, or ran last"},
        {"disk", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "of its flavor"},
        {"thaw", ATTR_BOOL, ROLE_NOBODY, .hidden = true, .help = "its file systems may be frozen"},
        {"stalled", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "power, if not as the state"},
};

static const struct link_def links[] = {
        {"volumes", "volume", .many = true, .states = RESTING | LIVE, .bind = bind_volume,
         .bound = bound_volume, .unbind = unbind_volume,
         .help = "its disks, as vda, vdb, ...; also while it runs"},
        {"networks", "network port", .many = true, .states = RESTING | LIVE,
         .bind = instance_bind_network, .bound = instance_bound_network,
         .unbind = instance_unbind_network,
         .help = "what it is plugged into, each by a port of its own; also while it runs"},
        {"security_groups", "security_group", .many = true,
         .help = "of its ports that have none of their own"},
        {"image", "image", .states = RESTING, .bind = bind_image,
         .help = "its root volume is made from it at the first start, and goes with it"},
        {"kernel", "image", .states = RESTING, .bind = bind_image,
         .help = "aki: booted directly"},
        {"ramdisk", "image", .states = RESTING, .bind = bind_image, .help = "ari, for `kernel`"},
};

static const struct file_def files[] = {
        {"console.log", FILE_LOG, ROLE_NOBODY, .path = instance_console_log,
         .help = "what its serial console has said"},
        {"console", FILE_TEXT, ROLE_NOBODY, .render = render_console,
         .help = "socket that speaks the serial console, while it runs"},
};

static const struct verb_def verbs[] = {
        {"start", "", ROLE_MEMBER, RESTING, "boot it", verb_start},
        {"stop", "[now|SECONDS]", ROLE_MEMBER, LIVE,
         "ask it to power off, force it after SECONDS (60) or now", verb_stop},
        {"reboot", "[soft|hard]", ROLE_MEMBER, LIVE, "ask it to restart, or reset it",
         verb_reboot},
        {"pause", "", ROLE_MEMBER, STATE(INSTANCE_ACTIVE), "halt its processors", verb_pause},
        {"resume", "", ROLE_MEMBER, STATE(INSTANCE_PAUSED), "let them go on", verb_resume},
        {"snapshot", "NAME", ROLE_MEMBER,
         STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_PAUSED) | STATE(INSTANCE_STOPPED),
         "take snapshots NAME of its volumes, of one moment, frozen by the guest's agent if it has one",
         verb_snapshot},
        {"reset", "", ROLE_ADMIN, STATE(INSTANCE_ERROR), "out of error, as it really is",
         verb_reset},
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
};
