/* Changing and removing volumes. */
#include "backend/volume/rbd/rbd.h"

/* For a change: the record of a volume that is there. */
static int record_of(struct pool *p, const char *id, struct record *ret, struct err **e)
{
        int r = index_get(p, id, ret, e);

        return r == 0 && !ret->made ? err_set(e, -ENOENT, "there is no such volume") : r;
}

static int resize(struct pool *p, const char *id, uint64_t size, bool shrink, struct err **e)
{
        struct record rec;
        rbd_image_t image;
        struct entry *en;
        uint64_t now;
        int r = record_of(p, id, &rec, e);

        if (r == 0)
                r = image_borrow(p, id, &rec, &image, &en, e);
        if (r < 0)
                return r;
        r = rbd_get_size(image, &now);
        if (r < 0)
                err_errno(e, r, "size");
        else if (size == now || (shrink && size > now))
                r = 0;
        else if (rec.snap[0])
                r = err_set(e, -EROFS, "it is immutable");
        else if (size < now && !shrink)
                r = err_set(e, -EINVAL, "it has %llu bytes already", (unsigned long long)now);
        else if ((r = rbd_resize2(image, size, shrink, NULL, NULL)) < 0)
                err_errno(e, r, "resize its image");
        image_return(image, en);
        return r;
}

static int refuse_open(const struct entry *en, struct err **e)
{
        return en->users > 0 ? err_set(e, -EBUSY, "it is open") : 0;
}

int change_size(struct pool *p, const char *id, uint64_t size, bool shrink, struct err **e)
{
        struct entry *en;
        int r;

        if (!shrink)
                return resize(p, id, size, false, e);
        en = entry_take(p, id);
        if (!en)
                return err_errno(e, -ENOMEM, "shrink");
        r = refuse_open(en, e);
        if (r == 0)
                r = resize(p, id, size, true, e);
        entry_release(en);
        return r;
}

/* ---- revert ---- */

/* `to` is a snapshot that was made of the volume, on whatever image it had then. */
static int check_past(const char *id, const struct record *to, const char *to_id, struct err **e)
{
        if (!to->snap[0] || !streq(to->parent, id))
                return err_set(e, -EINVAL, "'%s' is no snapshot of it", to_id);
        return 0;
}

/* The volume goes on as a child of the snapshot, under its old image's name: a rollback in place
 * would copy all that differs.  The index decides which image it is; sweep() puts names right that
 * a crash left wrong. */
static int revert(struct pool *p, const char *id, const char *to, struct err **e)
{
        char fresh[RBD_NAME_SIZE], name[RBD_NAME_SIZE];
        struct record rec, past;
        int r = record_of(p, id, &rec, e);

        if (r == 0)
                r = record_of(p, to, &past, e);
        if (r == 0 && rec.snap[0])
                r = err_set(e, -EROFS, "it is immutable");
        if (r == 0)
                r = check_past(id, &past, to, e);
        if (r < 0)
                return r;
        snprintf(fresh, sizeof(fresh), "new-%s", id);
        snprintf(name, sizeof(name), "volume-%s", id);
        r = rbd_remove(rec.io, fresh); /* of a call that was cut off */
        if (r < 0 && r != -ENOENT)
                return err_errno(e, r, "remove RBD image '%s'", fresh);
        r = make_child(p, &past, to, rec.io, fresh, 0, rec.image, e);
        if (r == 0)
                r = index_put(p, id, &rec, false, e);
        if (r == 0)
                r = image_rename_away(rec.io, name, e);
        if (r == 0) {
                r = rbd_rename(rec.io, fresh, name);
                if (r == -ENOENT && image_name(rec.io, rec.image, fresh, NULL) == 0 &&
                    streq(fresh, name))
                        r = 0; /* another host's sweep() was quicker */
                if (r < 0)
                        err_errno(e, r, "rename RBD image '%s'", fresh);
        }
        work_kick(p);
        return r;
}

int change_revert(struct pool *p, const char *id, const char *to, struct err **e)
{
        struct entry *en = entry_take(p, id);
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "revert");
        r = refuse_open(en, e);
        if (r == 0)
                r = revert(p, id, to, e);
        entry_release(en);
        return r;
}

/* ---- flatten ---- */

static int flatten(struct pool *p, struct entry *en, bool cancel, struct err **e)
{
        struct record rec;
        int r = record_of(p, en->id, &rec, e);

        if (r < 0)
                return r;
        if (rec.snap[0])
                return cancel ? 0 : err_set(e, -EROFS, "it is immutable");
        en->flatten_failed = 0;
        if (!rec.parent[0] || rec.flatten == !cancel)
                return 0;
        rec.flatten = !cancel;
        return index_put(p, en->id, &rec, false, e);
}

int change_flatten(struct pool *p, const char *id, bool cancel, struct err **e)
{
        struct entry *en = entry_take(p, id);
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "flatten");
        r = flatten(p, en, cancel, e);
        entry_release(en);
        if (r == 0)
                work_kick(p);
        return r;
}

/* ---- remove ---- */

/* Another client has it open for writing. */
static int refuse_locked(rbd_image_t image, struct err **e)
{
        rbd_lock_mode_t mode;
        char *owners[4];
        size_t n = ARRAY_SIZE(owners);
        int r = rbd_lock_get_owners(image, &mode, owners, &n);

        if (r < 0 || n == 0)
                return 0;
        r = err_set(e, -EBUSY, "its image is locked by %s", owners[0]);
        rbd_lock_get_owners_cleanup(owners, n);
        return r;
}

static int remove_snap(const struct record *rec, struct err **e)
{
        rbd_image_t image;
        int r = image_open_id(rec->io, rec->image, "", false, &image);

        if (r == -ENOENT)
                return 0;
        if (r == 0) {
                r = rbd_snap_remove(image, rec->snap);
                image_close(image);
        }
        return r < 0 && r != -ENOENT ? err_errno(e, r, "remove snapshot '%s'", rec->snap) : 0;
}

/* What must live on has another name then; the rest is sweep()'s. */
static int remove_image(const struct record *rec, struct err **e)
{
        char name[RBD_NAME_SIZE], away[RBD_NAME_SIZE];
        rbd_image_t image;
        int r;

        r = image_open_id(rec->io, rec->image, "", false, &image);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return err_errno(e, r, "open RBD image %s", rec->image);
        r = refuse_locked(image, e);
        image_close(image);
        if (r == 0)
                r = image_name(rec->io, rec->image, name, e);
        if (r < 0 || strncmp(name, "deleted-", 8) == 0)
                return r;
        snprintf(away, sizeof(away), "deleted-%s", rec->image);
        r = rbd_rename(rec->io, name, away);
        if (r == -ENOSPC) /* a name is an object, too: what nobody else needs goes at once */
                r = rbd_remove(rec->io, name) == 0 ? 0 : -ENOSPC;
        return r < 0 && r != -ENOENT ? err_errno(e, r, "rename RBD image '%s'", name) : 0;
}

/* An intent: whatever there is of it. */
static int remove_unmade(struct pool *p, const char *id, struct record *rec, struct err **e)
{
        char name[RBD_NAME_SIZE];
        struct record of;
        int r;

        if (rec->was[0])
                return adopt_undo(p, id, rec, e);
        snprintf(name, sizeof(name), "%s-%s", rec->import ? "image" : "volume", id);
        r = image_rename_away(rec->io, name, e);
        if (r < 0 || !rec->snap[0] || rec->own)
                return r;
        if (index_get(p, rec->parent, &of, NULL) == 0 && !of.snap[0]) {
                strcpy(rec->image, of.image);
                rec->io = of.io;
                r = remove_snap(rec, e);
        }
        return r;
}

static int remove_volume(struct pool *p, const char *id, struct err **e)
{
        struct record rec;
        int r = index_find(p, id, &rec, e);

        if (r <= 0)
                return r;
        if (!rec.made) {
                r = remove_unmade(p, id, &rec, e);
        } else {
                r = rec.snap[0] && !rec.import ? remove_snap(&rec, e)
                                               : 0; /* a base's is sweep()'s */
                if (r == 0 && rec.own)
                        r = remove_image(&rec, e);
        }
        return r < 0 ? r : index_drop(p, id, e);
}

int change_remove(struct pool *p, const char *id, struct err **e)
{
        struct entry *en = entry_take(p, id);
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "remove");
        r = refuse_open(en, e);
        if (r == 0)
                r = remove_volume(p, id, e);
        if (r == 0)
                en->flatten_failed = 0;
        entry_release(en);
        if (r == 0)
                work_kick(p);
        return r;
}
