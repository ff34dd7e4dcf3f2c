/* Snapshots: what a volume held at one moment. */
#include "control/jobs/jobs.h"

static void render_progress(struct control *c, const struct object *o, struct buf *out)
{
        render_done(o, out);
}

/* The job may have to wait for a volume that is still being made. */
static int create(struct txn *t, struct object *o, struct err **e)
{
        char label[NAME_SIZE + 32];

        if (object_in(o->holder, STATE(VOLUME_DRAFT) | STATE(VOLUME_DELETING) |
                                         STATE(VOLUME_ERROR) | STATE(VOLUME_OFFERED) |
                                         STATE(VOLUME_RELEASING) | STATE(VOLUME_SHRINKING) |
                                         STATE(VOLUME_REVERTING) | STATE(VOLUME_RESTORING)))
                return err_set(e, -EBUSY, "%s is %s", object_label(o->holder, label),
                               object_state(o->holder));
        txn_set_state(t, o, SNAPSHOT_CREATING);
        job_start(t, o, &job_snapshot_create, NULL);
        return 0;
}

int volume_let_clones_go(struct txn *t, struct object *o, struct err **e)
{
        int source = kind_link(&kind_volume, "source");

        for (unsigned i = o->nrefs; i-- > 0;) {
                struct object *v = o->refs[i];

                if (v->kind == &kind_volume && !object_in(v, STATE(VOLUME_CREATING)) &&
                    !v->nameless && object_target(v, "source") == o)
                        txn_unlink(t, v, object_link(v, source, NULL));
                else if (v->kind == &kind_backup && !object_in(v, STATE(BACKUP_CREATING)))
                        txn_unlink(t, v, object_link(v, kind_link(v->kind, "source"), NULL));
        }
        for (unsigned i = 0; i < o->nrefs; i++)
                if (o->refs[i]->kind == &kind_instance && !o->refs[i]->nameless)
                        return check_referrers(o, e);
        return 0;
}

static int remove_snapshot(struct txn *t, struct object *o, struct err **e)
{
        int r;

        if (object_in(o->holder, STATE(VOLUME_REVERTING) | STATE(VOLUME_RELEASING)))
                return err_set(e, -EBUSY, "volume '%s' is %s", /* its job may be done again */
                               o->holder->name, object_state(o->holder));
        /* Its deletion would not wait for the instance's job, which would take it afterwards. */
        if (o->state == SNAPSHOT_CREATING && o->jobs == 0)
                return err_set(e, -EBUSY,
                               "snapshot '%s' is being taken with the others of its instance",
                               o->name);
        r = volume_let_clones_go(t, o, e);
        if (r < 0)
                return r;
        txn_release_name(t, o);
        txn_set_state(t, o, SNAPSHOT_DELETING);
        job_start(t, o, &job_snapshot_delete, NULL);
        return 0;
}

static const struct attr_def attrs[] = {
        {"size", ATTR_SIZE, ROLE_NOBODY, .index = true, .help = "bytes the volume had"},
        {"frozen", ATTR_BOOL, ROLE_NOBODY, .index = true,
         .help = "1: the guest's agent held its file systems still, written out; 0: as after a "
                 "power cut, or of a guest that was off"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"progress", ATTR_TEXT, ROLE_NOBODY, .render = render_progress, .changes = true,
         .help = "of the job at work on it"},
};

static const struct file_def files[] = {
        {"data", FILE_DATA, ROLE_NOBODY, .suffix = "", .help = "the bytes, as they were"},
};

static const struct state_def states[] = {
        {"creating", .transient = true, .help = "being taken"},
        {"available", .help = "may be read, and volumes be made from it"},
        {"deleting", .transient = true, .help = "going away"},
        {"error", .terminal = true, .help = "read error"},
};

const struct kind kind_snapshot = {
        .name = "snapshot",
        .plural = "snapshots",
        .inside = "volume",
        .help = "What the volume held at one moment, between mkdir and `available`.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .create = create,
        .remove = remove_snapshot,
};
