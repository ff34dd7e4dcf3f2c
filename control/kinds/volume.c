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
                object_foreach_link (l, o->refs[i])
                        if (l->target == o && o->refs[i]->kind == &kind_instance)
                                buf_printf(out, "%s%s:%s", out->len ? " " : "", o->refs[i]->name,
                                           l->name);
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

int volume_check_size(const struct object *o, uint64_t size, struct err **e)
{
        if (size % 512)
                return err_set(e, -EINVAL, "a size is a multiple of 512 bytes");
        if (size % 4096 && object_num(o, "encrypted"))
                return err_set(e, -EINVAL,
                               "the size of an encrypted volume is a multiple of 4096 bytes");
        return 0;
}

static int set_size(struct txn *t, struct object *o, union value v, struct err **e)
{
        uint64_t now = object_num(o, "size");
        int r = volume_check_size(o, v.u, e);

        if (r < 0)
                return r;
        if (o->state != VOLUME_DRAFT && v.u < now) {
                err_set(e, -EINVAL,
                        "volume '%s' has %" PRIu64 " bytes: it grows, it does not shrink", o->name,
                        now);
                return err_hint(e, -EINVAL,
                                "echo 'shrink SIZE' > ctl cuts off its end, and what is there");
        }
        txn_set_num(t, o, "size", v.u);
        if (object_in(o, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE))) {
                txn_set_state(t, o, VOLUME_EXTENDING);
                job_start(t, o, &job_volume_extend, NULL);
        }
        return 0;
}

static int set_type(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *was = volume_type(t->c, o), *now = NULL;
        bool late = o->state != VOLUME_DRAFT;

        if (v.s)
                now = model_by_name(t->c, NULL, &kind_volume_type, v.s);
        if (late && !caller_is_admin(t->c, t->who))
                return err_set(e, -EPERM,
                               "a volume that is there changes its type for admins only");
        if (late && (was && object_num(was, "encrypted")) != (now && object_num(now, "encrypted")))
                return err_set(e, -EINVAL, "a volume is encrypted from its first byte or never");
        if (late && !volume_fits_type(t->c, o, now)) {
                err_set(e, -EBUSY, "type '%s' has its volumes in another pool", v.s ? v.s : "");
                return err_hint(e, -EBUSY, "echo 'retype %s' > ctl moves it", v.s ? v.s : "-");
        }
        if (volume_holders(o) > 1 && !(now && object_num(now, "multi_attach")))
                return err_set(e, -EBUSY, "%u instances have it, which type '%s' does not allow",
                               volume_holders(o), v.s ? v.s : "");
        txn_set_str(t, o, "type", v.s);
        if (now && object_num(now, "encrypted"))
                txn_set_num(t, o, "encrypted", 1);
        if (!late)
                volume_follow_type(t, o);
        return 0;
}

static int set_encrypted(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct object *type = volume_type(t->c, o);

        if (!v.u && type && object_num(type, "encrypted"))
                return err_set(e, -EINVAL, "volumes of type '%s' are encrypted", type->name);
        txn_set_num(t, o, "encrypted", v.u);
        return 0;
}

/* Guests and tools that may write already would go on. */
static int set_readonly(struct txn *t, struct object *o, union value v, struct err **e)
{
        if (o->writers)
                return err_set(e, -EBUSY, "volume '%s' is being written through its data", o->name);
        txn_set_num(t, o, "readonly", v.u);
        return 0;
}

static int bind_image(struct object *image, struct err **e)
{
        enum image_format f = image_format_parse(object_str(image, "format"));

        if (image->state == IMAGE_ERROR)
                return err_set(e, -EBUSY, "image '%s' is in error", image->name);
        if (image->state == IMAGE_QUEUED)
                return err_set(e, -EBUSY, "image '%s' has no bytes yet", image->name);
        if (image->state == IMAGE_ACTIVE && !image_format_bootable(f))
                return err_set(e, -EINVAL, "image '%s' is a %s: no disk", image->name,
                               image_format_name(f));
        return 0;
}

uint64_t volume_source_size(const struct object *source)
{
        return object_num(source, source->kind == &kind_image ? "virtual_size" : "size");
}

static int bind_source(struct txn *t, struct object *o, char *name, struct object *source,
                       struct err **e)
{
        uint64_t want = object_num(o, "size"), need = volume_source_size(source);
        char label[NAME_SIZE + 32];
        int r = 0;

        if (source == o)
                return err_set(e, -EINVAL, "a volume is not made from itself");
        if (source->kind == &kind_image)
                r = bind_image(source, e);
        else if (object_in(source, source->kind == &kind_backup
                                           ? ~(STATE(BACKUP_CREATING) | STATE(BACKUP_AVAILABLE))
                                   : source->kind == &kind_volume
                                           ? STATE(VOLUME_DRAFT) | STATE(VOLUME_DELETING) |
                                                     STATE(VOLUME_ERROR)
                                           : STATE(SNAPSHOT_DELETING) | STATE(SNAPSHOT_ERROR)))
                r = err_set(e, -EBUSY, "%s is %s", object_label(source, label),
                            object_state(source));
        if (r == 0 && want && want < need)
                r = err_set(e, -EINVAL, "%s needs %" PRIu64 " bytes, the volume has %" PRIu64,
                            object_label(source, label), need, want);
        return r;
}

/* A draft becomes real once it has a size or a source; what is real may have new limits. */
static int complete(struct txn *t, struct object *o, struct err **e)
{
        struct object *source = object_target(o, "source");
        bool backup = source && source->kind == &kind_backup;
        uint64_t need = source ? volume_source_size(source) : 0;

        if (source && source->kind == &kind_image)
                need = MAX(need, object_num(source, "min_disk"));

        volume_limits_due(t, o);
        if (o->state != VOLUME_DRAFT || (object_num(o, "size") == 0 && !source))
                return 0;
        if (source && volume_encrypted(source))
                txn_set_num(t, o, "encrypted", 1); /* what grows from it has its key */
        if (object_num(o, "size") == 0 && need)
                txn_set_num(t, o, "size", need);
        txn_set_state(t, o, VOLUME_CREATING);
        job_start(t, o, backup ? &job_volume_restore : &job_volume_create, NULL);
        return 0;
}

int volume_check_snapshots(struct txn *t, const struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o, &kind_snapshot);
        struct buf names = {};
        int r = 0;

        for (size_t i = 0; l && i < l->n; i++)
                if (!l->v[i]->nameless && names.len < 200)
                        buf_printf(&names, " %s", l->v[i]->name);
        if (names.len) {
                r = err_set(e, -EBUSY, "it has snapshots:%s", buf_str(&names));
                err_hint(e, -EBUSY, "rmdir snapshots/NAME first");
        }
        buf_done(&names);
        return r < 0 ? r : volume_check_backups(o, e);
}

int volume_check_backups(const struct object *o, struct err **e)
{
        for (unsigned i = 0; i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_backup && o->refs[i]->state == BACKUP_CREATING)
                        return err_set(e, -EBUSY, "backup '%s' is being taken of it",
                                       o->refs[i]->name);
        return 0;
}

int volume_remove(struct txn *t, struct object *o, struct err **e)
{
        int r = volume_check_snapshots(t, o, e);

        if (r == 0)
                r = volume_offer_claimed(o, e);
        if (r == 0)
                r = volume_let_clones_go(t, o, e);
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

static int set_keep(struct txn *t, struct object *o, union value v, struct err **e)
{
        int r = v.s ? keep_check(v.s, e) : 0;

        if (r == 0)
                txn_set_str(t, o, "keep", v.s);
        return r;
}

static int verb_expire(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (!*object_str(o, "keep"))
                return err_set(e, -EINVAL, "nothing is said of what to keep: echo daily:7 > keep");
        return backup_expire(t, o, e);
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
         .help = "bytes; the first write makes a blank volume, a larger one grows it, also under a "
                 "running guest"},
        {"type", ATTR_NAME, ROLE_MEMBER, LIMITABLE, .of = "volume_type", .index = true,
         .set = set_type, .help = "from volume_types/; of a volume that is there, for admins"},
        {"bootable", ATTR_BOOL, ROLE_MEMBER, LIMITABLE,
         .help = "a guest boots from its first volume that is; set when cloned from an image"},
        {"encrypted", ATTR_BOOL, ROLE_MEMBER, STATE(VOLUME_DRAFT), .index = true,
         .set = set_encrypted,
         .help = "1, before the size or the source: on disk it is AES-256-XTS, in LUKS2's format"},
        {"readonly", ATTR_BOOL, ROLE_MEMBER, STATE(VOLUME_DRAFT) | STATE(VOLUME_AVAILABLE),
         .set = set_readonly, .help = "guests may only read it"},
        {"iops", ATTR_NUMBER, ROLE_ADMIN, LIMITABLE, .min = 1, .max = 1000000000, .max_word = true,
         .def = "max", .changes = true, .render = render_iops,
         .help = "reads, writes, trims and zeroings a second, of all its connections together; "
                 "max: as its type"},
        {"bandwidth", ATTR_SIZE, ROLE_ADMIN, LIMITABLE, .min = 64 << 10, .max = 1ULL << 40,
         .max_word = true, .def = "max", .changes = true, .render = render_bandwidth,
         .help = "bytes read and written a second; max: as its type"},
        {"iops_burst", ATTR_NUMBER, ROLE_ADMIN, LIMITABLE, .max = 1000000000,
         .help = "a second, for burst_seconds after a rest; counts when above iops"},
        {"bandwidth_burst", ATTR_SIZE, ROLE_ADMIN, LIMITABLE, .max = 1ULL << 40,
         .help = "a second, for burst_seconds after a rest; counts when above bandwidth"},
        {"burst_seconds", ATTR_NUMBER, ROLE_ADMIN, LIMITABLE, .max = 86400,
         .help = "how long a burst lasts; 0 is 1"},
        {"keep", ATTR_TEXT, ROLE_MEMBER, .max = 255, .set = set_keep,
         .help = "backups of it that are kept, such as daily:7,weekly:4; also last, hourly, "
                 "monthly, yearly; empty: all"},
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
        {"transfer", ATTR_TEXT, ROLE_MEMBER, STATE(VOLUME_DRAFT), .max = 64, .no_spec = true,
         .changes = true, .set = volume_accept, .render = volume_render_transfer,
         .help = "of one that is offered: its key; written to a draft, it takes that volume over"},
        {"manage", ATTR_TEXT, ROLE_ADMIN, STATE(VOLUME_DRAFT), .no_spec = true, .max = 4000,
         .set = volume_manage,
         .help = "a raw file on the host that becomes the volume's bottom layer, or a qcow2 to "
                 "convert; or rbd:POOL/[NAMESPACE/]IMAGE, which stays where it is"},
        {"attached_to", ATTR_TEXT, ROLE_NOBODY, .render = render_attached, .changes = true,
         .index = true, .help = "instance:device that has it"},
        {"progress", ATTR_TEXT, ROLE_NOBODY, .render = render_progress, .changes = true,
         .help = "of the job at work on it"},
        {"pool", ATTR_TEXT, ROLE_NOBODY, .def = "local", .index = true,
         .help = "where its bytes are: local, or rbd:POOL of a Ceph cluster; see its type"},
        {"host", ATTR_TEXT, ROLE_NOBODY, .help = "the host of a local pool"},
        {"actual", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "bytes it really has"},
        {"limits_set", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "a mark of the limits in force"},
        {"shrunk", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "when, microseconds since 1970"},
        {"restoring", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "backup that it is being made like again"},
        {"base", ATTR_TEXT, ROLE_NOBODY, .hidden = true,
         .help = "a managed file's own id, at first; the snapshot that is copied, -: it was"},
        {"adopted", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "what it became a clone of"},
        {"transfer_hash", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "SHA-256 of the key"},
        {"transfer_until", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "its last second"},
        {"transfer_to", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "who takes it over"},
        {"made_for", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "instance whose root it is: it goes with it"},
};

static const struct link_def links[] = {
        {"source", "image volume snapshot backup", .states = STATE(VOLUME_DRAFT),
         .bind = bind_source,
         .help = "image, volume or snapshot it is cloned from, or backup; makes the volume"},
};

static const struct file_def files[] = {
        {"data", FILE_DATA, ROLE_MEMBER, .suffix = "", .help = "its bytes, while no guest has it"},
        {"findings", FILE_TEXT, ROLE_NOBODY, .render = render_findings,
         .help = "of the last check or scrub, a line each: where, what, what it means, repaired or "
                 "not"},
        {"nbd", FILE_TEXT, ROLE_NOBODY, .render = render_nbd, .help = "its URI for admins' tools"},
        VOLUME_STATS_FILES};

static const struct verb_def verbs[] = {
        {"check", "", ROLE_MEMBER, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE),
         "look through what describes its bytes, mend what can be mended; see findings",
         verb_check},
        {"scrub", "", ROLE_MEMBER, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE),
         "check, and read all its bytes, slowly", verb_scrub},
        {"expire", "", ROLE_MEMBER,
         STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING) |
                 STATE(VOLUME_DETACHING) | STATE(VOLUME_EXTENDING) | STATE(VOLUME_ERROR),
         "delete the backups of it that keep does not keep; each new backup does so, too",
         verb_expire},
        {"offer", "", ROLE_MEMBER, STATE(VOLUME_AVAILABLE),
         "to another tenant: who writes the key in `transfer` to its volumes/new has it, for a "
         "week",
         volume_offer},
        {"release", "PATH|rbd:NAME", ROLE_ADMIN, STATE(VOLUME_AVAILABLE),
         "give a raw file on the host, or an RBD image that name, and end the volume",
         volume_release},
        {"revert", "SNAPSHOT", ROLE_MEMBER, STATE(VOLUME_AVAILABLE),
         "go back to what it held then; its snapshots all stay", volume_revert},
        {"flatten", "", ROLE_MEMBER, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_IN_USE),
         "copy what it has from its source, and let that go", volume_flatten},
        {"shrink", "SIZE", ROLE_MEMBER, STATE(VOLUME_AVAILABLE),
         "cut off its end: what is past SIZE is lost", volume_shrink},
        {"withdraw", "", ROLE_MEMBER, STATE(VOLUME_OFFERED), "take the offer back",
         volume_withdraw},
        {"retype", "TYPE|-", ROLE_ADMIN, STATE(VOLUME_AVAILABLE),
         "give it that type, or none; if that one's pool is another, its bytes move there",
         volume_retype},
        {"reset", "", ROLE_ADMIN, STATE(VOLUME_ERROR), "out of error, as it really is", verb_reset},
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
        {"offered", .help = "another tenant may take it over: `transfer` has the key"},
        {"releasing", .transient = true, .help = "becoming a file"},
        {"shrinking", .transient = true, .help = "getting smaller"},
        {"reverting", .transient = true, .help = "going back to a snapshot"},
        {"restoring", .transient = true, .help = "being overwritten with a backup"},
        {"moving", .transient = true, .help = "being copied to another pool"},
};

static int create(struct txn *t, struct object *o, struct err **e)
{
        volume_follow_type(t, o);
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
