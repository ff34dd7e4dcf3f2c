/* Volumes: disks that outlive guests. */
#include "control/jobs/jobs.h"
#include "control/kinds/volume-stats.h"

unsigned volume_rest(const struct object *o)
{
        for (unsigned i = 0; i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_instance)
                        return VOLUME_IN_USE;
        return VOLUME_AVAILABLE;
}

static void render_attached(struct control *c, const struct object *o, struct buf *out)
{
        for (unsigned i = 0; i < o->nrefs; i++) {
                object_foreach_link(l, o->refs[i])
                        if (l->target == o && o->refs[i]->kind == &kind_instance)
                                buf_printf(out, "%s%s:%s", out->len ? " " : "",
                                           o->refs[i]->name, l->name);
        }
}

static void render_progress(struct control *c, const struct object *o, struct buf *out)
{
        render_done(o, out);
}

static void render_nbd(struct control *c, const struct object *o, struct buf *out)
{
        char id[ID_TEXT_SIZE];

        buf_printf(out, "nbd+unix:///%s?socket=%s\n", id_text(id, o->id),
                   c->cfg.volumes->shared_socket);
}

static int set_size(struct txn *t, struct object *o, union value v, struct err **e)
{
        uint64_t now = object_num(o, "size");

        if (v.u % 512)
                return err_set(e, -EINVAL, "a size is a multiple of 512 bytes");
        if (o->state != VOLUME_DRAFT && v.u < now)
                return err_set(e, -EINVAL,
                               "volume '%s' has %" PRIu64 " bytes: it grows, it does not shrink",
                               o->name, now);
        txn_set_num(t, o, "size", v.u);
        if (object_in(o, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE))) {
                txn_set_state(t, o, VOLUME_EXTENDING);
                job_start(t, o, &job_volume_extend, NULL);
        }
        return 0;
}

static int bind_source(struct txn *t, struct object *o, char *name, struct object *image,
                       struct err **e)
{
        uint64_t want = object_num(o, "size"), need = object_num(image, "virtual_size");
        enum image_format f = image_format_parse(object_str(image, "format"));

        if (image->state == IMAGE_ERROR)
                return err_set(e, -EBUSY, "image '%s' is in error", image->name);
        if (image->state == IMAGE_QUEUED)
                return err_set(e, -EBUSY, "image '%s' has no bytes yet", image->name);
        if (image->state == IMAGE_ACTIVE && !image_format_bootable(f))
                return err_set(e, -EINVAL, "image '%s' is a %s: no disk", image->name,
                               image_format_name(f));
        if (want && want < need)
                return err_set(e, -EINVAL,
                               "image '%s' needs %" PRIu64 " bytes, the volume has %" PRIu64,
                               image->name, need, want);
        return 0;
}

/* A draft becomes real once it has a size or a source; what is real may have new limits. */
static int complete(struct txn *t, struct object *o, struct err **e)
{
        struct object *image = object_target(o, "source");
        uint64_t need = image ? MAX(object_num(image, "virtual_size"),
                                    object_num(image, "min_disk"))
                              : 0;

        volume_limits_due(t, o);
        if (o->state != VOLUME_DRAFT || (object_num(o, "size") == 0 && !image))
                return 0;
        if (object_num(o, "size") == 0 && need)
                txn_set_num(t, o, "size", need);
        txn_set_state(t, o, VOLUME_CREATING);
        job_start(t, o, &job_volume_create, NULL);
        return 0;
}

int volume_remove(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r < 0)
                return r;
        if (o->state == VOLUME_DRAFT) {
                txn_delete(t, o);
                return 0;
        }
        txn_release_name(t, o);
        txn_set_state(t, o, VOLUME_DELETING);
        job_start(t, o, &job_volume_delete, NULL);
        return 0;
}

static int verb_reset(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (object_num(o, "actual") == 0)
                return err_set(e, -EBUSY, "it was never made: rmdir it");
        txn_set_num(t, o, "size", object_num(o, "actual"));
        txn_set_state(t, o, volume_rest(o));
        return 0;
}

static int begin(struct txn *t, struct object *o, const struct job_def *def, struct err **e)
{
        if (job_live(t->c, o->no, &job_volume_check) || job_live(t->c, o->no, &job_volume_scrub))
                return err_set(e, -EBUSY, "it is being checked: see jobs/, or cancel that");
        job_start(t, o, def, NULL);
        return 0;
}

static int verb_check(struct txn *t, struct object *o, const char *args, struct err **e)
{
        return begin(t, o, &job_volume_check, e);
}

static int verb_scrub(struct txn *t, struct object *o, const char *args, struct err **e)
{
        return begin(t, o, &job_volume_scrub, e);
}

static void render_findings(struct control *c, const struct object *o, struct buf *out)
{
        buf_addstr(out, object_str(o, "report"));
}

static void render_used(struct control *c, const struct object *o, struct buf *out)
{
        buf_printf(out, "%" PRIu64, stats_used(c, o));
}

/* One that was made before there were limits has none. */
static void render_limit(const struct object *o, const char *attr, struct buf *out)
{
        uint64_t v = object_num(o, attr);

        if (v == 0 || v == VALUE_MAX)
                buf_addstr(out, "max");
        else
                buf_printf(out, "%" PRIu64, v);
}

static void render_iops(struct control *c, const struct object *o, struct buf *out)
{
        render_limit(o, "iops", out);
}

static void render_bandwidth(struct control *c, const struct object *o, struct buf *out)
{
        render_limit(o, "bandwidth", out);
}

#define LIMITABLE                                                                                  \
        (STATE(VOLUME_DRAFT) | STATE(VOLUME_CREATING) | STATE(VOLUME_AVAILABLE) |                  \
         STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING) |                \
         STATE(VOLUME_EXTENDING))

static const struct attr_def attrs[] = {
        {"size", ATTR_SIZE, ROLE_MEMBER,
         STATE(VOLUME_DRAFT) | STATE(VOLUME_CREATING) | STATE(VOLUME_AVAILABLE) |
                 STATE(VOLUME_IN_USE) | STATE(VOLUME_EXTENDING),
         .min = 512, .max = 1ULL << 46, .index = true, .set = set_size,
         .help = "bytes; the first write makes a blank volume, a larger one grows it, also under a running guest"},
        {"readonly", ATTR_BOOL, ROLE_MEMBER, STATE(VOLUME_DRAFT) | STATE(VOLUME_AVAILABLE),
         .help = "guests may only read it"},
        {"iops", ATTR_NUMBER, ROLE_ADMIN, LIMITABLE, .min = 1, .max = 1000000000, .max_word = true,
         .def = "max", .render = render_iops,
         .help = "reads, writes, trims and zeroings a second, of all its connections together"},
        {"bandwidth", ATTR_SIZE, ROLE_ADMIN, LIMITABLE, .min = 64 << 10, .max = 1ULL << 40,
         .max_word = true, .def = "max", .render = render_bandwidth,
         .help = "bytes read and written a second"},
        {"iops_burst", ATTR_NUMBER, ROLE_ADMIN, LIMITABLE, .max = 1000000000,
         .help = "a second, for burst_seconds after a rest; counts when above iops"},
        {"bandwidth_burst", ATTR_SIZE, ROLE_ADMIN, LIMITABLE, .max = 1ULL << 40,
         .help = "a second, for burst_seconds after a rest; counts when above bandwidth"},
        {"burst_seconds", ATTR_NUMBER, ROLE_ADMIN, LIMITABLE, .max = 86400,
         .help = "how long a burst lasts; 0 is 1"},
        {"checksums", ATTR_BOOL, ROLE_MEMBER,
         STATE(VOLUME_DRAFT) | STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE),
         .help = "a scrub gives checksums to what lies frozen below it; from then on reads of that "
                 "are checked, and fail rather than give wrong bytes"},
        {"used", ATTR_SIZE, ROLE_NOBODY, .render = render_used, .changes = true, .index = true,
         .help = "bytes of disk that it takes itself, as of the last second somebody looked"},
        {"checked", ATTR_TEXT, ROLE_NOBODY,
         .help = "the last check or scrub: when, how much was found and of that repaired"},
        {"report", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "what it found"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"attached_to", ATTR_TEXT, ROLE_NOBODY, .render = render_attached, .changes = true,
         .index = true, .help = "instance:device that has it"},
        {"progress", ATTR_TEXT, ROLE_NOBODY, .render = render_progress, .changes = true,
         .help = "of the job at work on it"},
        {"pool", ATTR_NAME, ROLE_NOBODY, .def = "local", .help = "where its bytes are"},
        {"host", ATTR_TEXT, ROLE_NOBODY, .help = "the host of a local pool"},
        {"actual", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "bytes it really has"},
        {"limits_set", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "a mark of the limits in force"},
        {"made_for", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "instance whose root it is: it goes with it"},
};

static const struct link_def links[] = {
        {"source", "image", .states = STATE(VOLUME_DRAFT), .bind = bind_source,
         .help = "image it is cloned from; makes the volume"},
};

static const struct file_def files[] = {
        {"data", FILE_DATA, ROLE_MEMBER, .suffix = "", .help = "its bytes, while no guest has it"},
        {"findings", FILE_TEXT, ROLE_NOBODY, .render = render_findings,
         .help = "of the last check or scrub, a line each: where, what, what it means, repaired or not"},
        {"nbd", FILE_TEXT, ROLE_NOBODY, .render = render_nbd, .help = "its URI for admins' tools"},
        VOLUME_STATS_FILES
};

static const struct verb_def verbs[] = {
        {"check", "", ROLE_MEMBER, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE),
         "look through what describes its bytes, mend what can be mended; see findings", verb_check},
        {"scrub", "", ROLE_MEMBER, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE),
         "check, and read all its bytes, slowly", verb_scrub},
        {"reset", "", ROLE_ADMIN, STATE(VOLUME_ERROR), "out of error, as it really is",
         verb_reset},
};

static const struct state_def states[] = {
        {"draft", .help = "has neither size nor source yet"},
        {"creating", .transient = true, .help = "being made"},
        {"available", .help = "may be attached, read and written"},
        {"in-use", .help = "linked to an instance"},
        {"attaching", .transient = true, .help = "going into a running guest"},
        {"detaching", .transient = true, .help = "coming out of a running guest"},
        {"extending", .transient = true, .help = "growing"},
        {"deleting", .transient = true, .help = "going away"},
        {"error", .terminal = true, .help = "read error"},
};

static int create(struct txn *t, struct object *o, struct err **e)
{
        txn_set_str(t, o, "host", t->c->cfg.host);
        return 0;
}

const struct kind kind_volume = {
        .name = "volume",
        .plural = "volumes",
        .help = "Disks, served over NBD; they outlive the guests that use them.",
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
        .create = create,
        .remove = volume_remove,
        .complete = complete,
};
