/* Backups: what a volume held at one moment, in a folder of the host. */
#include "control/jobs/jobs.h"

static void render_progress(struct control *c, const struct object *o, struct buf *out)
{
        render_done(o, out);
}

/* Of the job at work, else of the copy as it went. */
static void render_rate(struct control *c, const struct object *o, struct buf *out)
{
        uint64_t done = __atomic_load_n(&o->done, __ATOMIC_RELAXED);
        const struct object *job = o->job ? model_by_no(c, o->job) : NULL;
        int64_t usec = job ? clock_now() - job->created : 0;

        if (job && done && usec > 0)
                buf_printf(out, "%.0f", done * 1e6 / usec);
        else
                buf_printf(out, "%" PRIu64, object_num(o, "rate"));
}

static void render_taken(struct control *c, const struct object *o, struct buf *out)
{
        char text[CLOCK_TEXT_MAX];

        if (object_num(o, "taken_at"))
                buf_addstr(out, clock_format(text, object_num(o, "taken_at")));
}

/* --- target ------------------------------------------------------------------------------------
 */

static bool target_allowed(const struct object *tenant, const char *dir)
{
        size_t n = strlen(dir);

        for (const char *p = object_str(tenant, "backup_targets"); *p;) {
                size_t len = strcspn(p, ":");

                if (len == n && memcmp(p, dir, n) == 0)
                        return true;
                p += len + (p[len] == ':');
        }
        return false;
}

static int set_target(struct txn *t, struct object *o, union value v, struct err **e)
{
        size_t n = v.s ? strlen(v.s) : 0;

        while (n > 1 && v.s[n - 1] == '/')
                v.s[--n] = '\0';
        if (n && v.s[0] != '/')
                return err_at(e, -EINVAL, v.s, n, 0, n, "a target is an absolute path");
        if (n &&
            (strstr(v.s, "/../") || strstr(v.s, "//") || (n >= 3 && streq(v.s + n - 3, "/.."))))
                return err_at(e, -EINVAL, v.s, n, 0, n, "a target is a path without detours");
        if (n && !target_allowed(o->tenant, v.s) && !caller_is_admin(t->c, t->who)) {
                err_at(e, -EPERM, v.s, n, 0, n, "no admin has allowed that target");
                err_hint(e, -EPERM, "allowed: the default, %s",
                         object_str(o->tenant, "backup_targets"));
                return -EPERM;
        }
        txn_set_str(t, o, "target", v.s);
        return 0;
}

/* --- making ------------------------------------------------------------------------------------
 */

static int bind_source(struct txn *t, struct object *o, char *name, struct object *volume,
                       struct err **e)
{
        if (object_in(volume, STATE(VOLUME_DRAFT) | STATE(VOLUME_DELETING) | STATE(VOLUME_ERROR) |
                                      STATE(VOLUME_OFFERED) | STATE(VOLUME_RELEASING) |
                                      STATE(VOLUME_SHRINKING) | STATE(VOLUME_REVERTING)))
                return err_set(e, -EBUSY, "volume '%s' is %s", volume->name, object_state(volume));
        if (volume_encrypted(volume)) {
                err_set(e, -ENOTSUP,
                        "volume '%s' is encrypted: a backup would hold its plain bytes",
                        volume->name);
                return err_hint(e, -ENOTSUP, "a snapshot of it stays encrypted");
        }
        return 0;
}

static void begin(struct txn *t, struct object *o, const struct object *volume)
{
        txn_set_str(t, o, "volume", volume->name);
        txn_set_num(t, o, "volume_no", volume->no);
        txn_set_num(t, o, "bootable", object_num(volume, "bootable"));
        txn_set_num(t, o, "expected", object_num(volume, "size"));
        txn_set_state(t, o, BACKUP_CREATING);
}

int backup_of(struct txn *t, struct object *volume, const char *name, uint64_t job, struct err **e)
{
        struct object *o;
        int r = bind_source(t, NULL, NULL, volume, e);

        if (r == 0)
                r = action_create(t, volume->tenant, &kind_backup, name, &o, e);
        if (r < 0)
                return r;
        txn_link(t, o, kind_link(o->kind, "source"), "source", volume);
        begin(t, o, volume);
        txn_set_num(t, o, "taken_by", job);
        return 0;
}

static int complete(struct txn *t, struct object *o, struct err **e)
{
        struct object *volume = object_target(o, "source");

        if (o->state != BACKUP_DRAFT || !volume)
                return 0;
        begin(t, o, volume);
        job_start(t, o, &job_backup_create, NULL);
        return 0;
}

/* --- going -------------------------------------------------------------------------------------
 */

/* Volumes that are to become what it holds; those made from it live on without it. */
static int leave_volumes(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->tenant, &kind_volume);
        int src = kind_link(&kind_volume, "source");

        for (size_t i = 0; i < l->n; i++)
                if (object_num(l->v[i], "restoring") == o->no)
                        return err_set(e, -EBUSY, "volume '%s' is being restored from it",
                                       l->v[i]->name);
        for (unsigned i = o->nrefs; i-- > 0;) {
                struct object *v = o->refs[i];

                if (v->kind == &kind_volume && !object_in(v, STATE(VOLUME_CREATING)) &&
                    !v->nameless)
                        txn_unlink(t, v, object_link(v, src, NULL));
        }
        return 0;
}

static int go(struct txn *t, struct object *o, const char *how, struct err **e)
{
        struct object *job = o->job ? model_by_no(t->c, o->job) : NULL;
        int r = leave_volumes(t, o, e);

        if (r < 0)
                return r;
        if (o->state == BACKUP_DRAFT) {
                txn_delete(t, o);
                return 0;
        }
        if (job) /* nobody wants to wait for a copy that goes at once */
                job_cancel(t, job, "", NULL);
        txn_release_name(t, o);
        txn_set_state(t, o, BACKUP_DELETING);
        job_start(t, o, &job_backup_delete, how);
        return 0;
}

int backup_remove(struct txn *t, struct object *o, struct err **e)
{
        if (object_num(o, "protected"))
                return err_set(e, -EPERM, "it is protected: echo 0 > protected first");
        if (o->state == BACKUP_CREATING && object_num(o, "taken_by"))
                return err_set(e, -EBUSY, "it is being taken with the others of its instance");
        return go(t, o, NULL, e);
}

/* --- verbs -------------------------------------------------------------------------------------
 */

static int verb_verify(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (job_live(t->c, o->no, &job_backup_verify))
                return err_set(e, -EBUSY, "it is being verified");
        job_start(t, o, &job_backup_verify, NULL);
        return 0;
}

static int verb_restore(struct txn *t, struct object *o, const char *args, struct err **e)
{
        struct object *v = model_by_name(t->c, o->tenant, &kind_volume, args);
        uint64_t size = object_num(o, "size");

        if (!v)
                return err_at(e, *args ? -ENOENT : -EINVAL, args, strlen(args), 0, strlen(args),
                              *args ? "there is no volume '%s'" : "restore VOLUME%s", args);
        if (!object_in(v, STATE(VOLUME_AVAILABLE) | STATE(VOLUME_ERROR)) ||
            volume_rest(v) != VOLUME_AVAILABLE || !object_num(v, "actual"))
                return err_set(e, -EBUSY, "volume '%s' is %s: it must be available", v->name,
                               v->state == VOLUME_ERROR ? "in error" : object_state(v));
        if (__atomic_load_n(&v->writers, __ATOMIC_RELAXED))
                return err_set(e, -EBUSY, "the data of volume '%s' is open for writing", v->name);
        if (object_num(v, "readonly"))
                return err_set(e, -EACCES, "volume '%s' is read-only", v->name);
        if (object_num(v, "actual") < size)
                return err_set(e, -EINVAL, "the backup has %" PRIu64 " bytes, volume '%s' %" PRIu64,
                               size, v->name, object_num(v, "actual"));
        txn_set_num(t, v, "restoring", o->no);
        txn_set_state(t, v, VOLUME_RESTORING);
        job_start(t, v, &job_volume_restore, NULL);
        return 0;
}

static int verb_forget(struct txn *t, struct object *o, const char *args, struct err **e)
{
        return go(t, o, "forget", e);
}

static const struct attr_def attrs[] = {
        {"target", ATTR_TEXT, ROLE_MEMBER, STATE(BACKUP_DRAFT), .max = 1000, .set = set_target,
         .help = "folder on the host that it goes to; empty: the cloud's own"},
        {"volume", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "name of the volume, then"},
        {"taken", ATTR_TEXT, ROLE_NOBODY, .render = render_taken, .index = true,
         .help = "the moment whose bytes it has"},
        {"size", ATTR_SIZE, ROLE_NOBODY, .index = true, .help = "bytes of the volume"},
        {"bootable", ATTR_BOOL, ROLE_NOBODY, .help = "1: the volume was"},
        {"incremental", ATTR_BOOL, ROLE_NOBODY, .index = true,
         .help = "1: only what had changed since parent was read; it needs no other all the same"},
        {"parent", ATTR_TEXT, ROLE_NOBODY, .help = "the backup that it was compared with"},
        {"read_bytes", ATTR_SIZE, ROLE_NOBODY, .help = "bytes that were read from the volume"},
        {"new_bytes", ATTR_SIZE, ROLE_NOBODY, .index = true,
         .help = "bytes that it added to the target, compressed"},
        {"verified", ATTR_TEXT, ROLE_NOBODY, .help = "when all of it was good; or what is bad"},
        {"progress", ATTR_TEXT, ROLE_NOBODY, .render = render_progress, .changes = true,
         .help = "of the job at work on it"},
        {"rate", ATTR_SIZE, ROLE_NOBODY, .render = render_rate, .changes = true,
         .help = "bytes of the volume that were dealt with a second"},
        {"protected", ATTR_BOOL, ROLE_MEMBER, .help = "1: neither rmdir nor expire take it"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"volume_no", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "the volume's number"},
        {"taken_at", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "microseconds since 1970"},
        {"expected", ATTR_SIZE, ROLE_NOBODY, .hidden = true,
         .help = "what it counts for while it has no size yet"},
        {"taken_by", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "job that takes the snapshots of all disks of an instance"},
        {"snapshot", ATTR_BOOL, ROLE_NOBODY, .hidden = true,
         .help = "blockd has the volume's snapshot still, under the backup's id"},
};

static const struct link_def links[] = {
        {"source", "volume", .states = STATE(BACKUP_DRAFT), .bind = bind_source,
         .help = "volume that it is taken of; begins it"},
};

static const struct verb_def verbs[] = {
        {"verify", "", ROLE_MEMBER, STATE(BACKUP_AVAILABLE),
         "read all of it and compare with its checksums", verb_verify},
        {"restore", "VOLUME", ROLE_MEMBER, STATE(BACKUP_AVAILABLE),
         "overwrite that volume, which nobody uses", verb_restore},
        {"forget", "", ROLE_ADMIN, STATE(BACKUP_AVAILABLE) | STATE(BACKUP_ERROR),
         "delete the record only: what is in the target stays, or is lost", verb_forget},
};

static const struct state_def states[] = {
        {"draft", .help = "has no source yet"},
        {"creating", .transient = true, .help = "being copied"},
        {"available", .help = "whole; may be restored from"},
        {"deleting", .transient = true, .help = "going away"},
        {"error", .terminal = true, .help = "not made, or not deleted: read error"},
};

const struct kind kind_backup = {
        .name = "backup",
        .plural = "backups",
        .help = "Copies of volumes in a folder of the host; each is whole by itself.",
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
        .remove = backup_remove,
        .complete = complete,
};
