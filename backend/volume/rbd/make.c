/* Making volumes.  An intent in the index, then the image, then the index says that it is there; a
 * call that is repeated goes on where the one before it was cut off. */
#include "backend/volume/rbd/rbd.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { ORDER = 22 }; /* objects of 4 MiB */

static const uint64_t features = RBD_FEATURE_LAYERING | RBD_FEATURE_EXCLUSIVE_LOCK |
                                 RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF |
                                 RBD_FEATURE_DEEP_FLATTEN;

static void name_of(char out[RBD_NAME_SIZE], const char *id, const struct record *r)
{
        snprintf(out, RBD_NAME_SIZE, "%s-%s", r->import ? "image" : "volume", id);
}

/* Success if what is there is what was asked for; size 0 is any. */
static int same(struct pool *p, const char *id, const struct record *have,
                const struct record *want, struct err **e)
{
        uint64_t size = 0;
        struct entry *en;
        rbd_image_t image;
        int r = image_borrow(p, id, have, &image, &en, e);

        if (r < 0)
                return r;
        r = rbd_get_size(image, &size);
        image_return(image, en);
        if (r < 0)
                return err_errno(e, r, "size");
        if (!streq(have->parent, want->parent) || !have->snap[0] != !want->snap[0] ||
            (want->size && want->size != size))
                return err_set(e, -EEXIST, "it is there with %llu bytes, %s%s",
                               (unsigned long long)size,
                               have->parent[0] ? have->snap[0] ? "a snapshot of " : "a clone of "
                               : have->snap[0] ? "imported"
                                               : "without parent",
                               have->parent);
        return 0;
}

/* 1: it is there already, and that is success.  What was placed before stays where it is placed. */
static int intend(struct pool *p, const char *id, struct record *want, struct err **e)
{
        struct record have;
        int r = index_find(p, id, &have, e);

        if (r < 0)
                return r;
        if (r > 0 && have.made) {
                r = same(p, id, &have, want, e);
                return r < 0 ? r : 1;
        }
        if (r > 0 && !want->io) {
                strcpy(want->space, have.space);
                want->io = have.io;
                want->data = have.data;
        } else if (!want->io) {
                want->io = p->io;
                want->data = p->data;
        }
        return index_put(p, id, want, r == 0, e);
}

/* An intent that is nothing yet but a place. */
int make_place(struct pool *p, const char *id, const char *space, struct err **e)
{
        struct entry *en = entry_take(p, id);
        struct record rec = {.own = true}, have;
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "place");
        r = index_find(p, id, &have, e);
        if (r == 0) {
                r = space_make(p, space, rec.space, e);
                if (r == 0)
                        r = index_put(p, id, &rec, true, e);
        }
        entry_release(en);
        return MIN(r, 0);
}

static int finish(struct pool *p, const char *id, struct record *rec, struct err **e)
{
        rec->made = true;
        return index_put(p, id, rec, false, e);
}

static int image_id(rados_ioctx_t io, const char *name, char ret[RBD_IMAGE_ID_SIZE], struct err **e)
{
        rbd_image_t image;
        int r = image_open_name(io, name, true, &image);

        if (r == 0) {
                r = rbd_get_id(image, ret, RBD_IMAGE_ID_SIZE);
                image_close(image);
        }
        return r < 0 ? err_errno(e, r, "RBD image '%s'", name) : 0;
}

/* Who died making it may have left half an image, or a clone that has no parent yet: one that is
 * there already is none of which anybody was told, and is made anew. */
static int create_image(rados_ioctx_t io, const char *name, uint64_t size, struct err **e)
{
        rbd_image_options_t o;
        int r;

        rbd_image_options_create(&o);
        rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_FEATURES, features);
        rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_ORDER, ORDER);
        r = rbd_create4(io, name, size, o);
        if (r == -EEXIST && image_clear(io, name, e) == 0)
                r = rbd_create4(io, name, size, o);
        rbd_image_options_destroy(o);
        return r < 0 ? err_errno(e, r, "create RBD image '%s'", name) : 0;
}

static int create(struct pool *p, const char *id, struct record *rec, struct err **e)
{
        char name[RBD_NAME_SIZE];
        int r = intend(p, id, rec, e);

        if (r != 0)
                return MIN(r, 0);
        name_of(name, id, rec);
        r = create_image(rec->io, name, rec->size, e);
        if (r == 0)
                r = image_id(rec->io, name, rec->image, e);
        return r < 0 ? r : finish(p, id, rec, e);
}

int make_create(struct pool *p, const char *id, uint64_t size, struct err **e)
{
        struct record rec = {.size = size, .own = true};
        struct entry *en = entry_take(p, id);
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "create");
        r = create(p, id, &rec, e);
        entry_release(en);
        return r;
}

/* ---- clones ---- */

static int clone_image(rados_ioctx_t from, const char *parent, const char *snap, rados_ioctx_t io,
                       const char *name, struct err **e)
{
        rbd_image_options_t o;
        int r;

        rbd_image_options_create(&o);
        rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_FEATURES, features);
        rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_CLONE_FORMAT, 2);
        r = rbd_clone3(from, parent, snap, io, name, o);
        if (r == -EEXIST && image_clear(io, name, e) == 0)
                r = rbd_clone3(from, parent, snap, io, name, o);
        rbd_image_options_destroy(o);
        return r < 0 ? err_errno(e, r, "clone RBD image '%s'", parent) : 0;
}

static int grow_child(rados_ioctx_t io, const char *name, uint64_t size)
{
        rbd_image_t image;
        int r = image_open_name(io, name, false, &image);

        if (r < 0)
                return r;
        r = rbd_resize(image, size);
        image_close(image);
        return r;
}

/* Tells its id; it grows.  Open for reading only it costs the cluster no write. */
static int adopt_child(rados_ioctx_t io, const char *name, uint64_t size,
                       char ret[RBD_IMAGE_ID_SIZE], struct err **e)
{
        rbd_image_t image;
        uint64_t now;
        int r = image_open_name(io, name, true, &image);

        if (r < 0)
                return err_errno(e, r, "open RBD image '%s'", name);
        r = rbd_get_size(image, &now);
        if (r == 0)
                r = rbd_get_id(image, ret, RBD_IMAGE_ID_SIZE);
        image_close(image);
        if (r == 0 && now < size)
                r = grow_child(io, name, size);
        if (r == 0 && now > size && size > 0)
                return err_set(e, -EINVAL, "a clone cannot be smaller than its parent (%llu bytes)",
                               (unsigned long long)now);
        return r < 0 ? err_errno(e, r, "RBD image '%s'", name) : 0;
}

/* Of a volume's head: by a snapshot that is nobody's once it has a child, as Ceph keeps it for the
 * child. */
static int clone_head(struct pool *p, const struct record *from, const char *from_id,
                      const char *parent, rados_ioctx_t io, const char *name, struct err **e)
{
        char snap[RBD_NAME_SIZE + 4];
        rbd_image_t image;
        struct entry *en;
        int r = image_borrow(p, from_id, from, &image, &en, e);

        if (r < 0)
                return r;
        snprintf(snap, sizeof(snap), "for-%s", name);
        r = rbd_snap_create(image, snap);
        if (r < 0 && r != -EEXIST)
                err_errno(e, r, "parent RBD image %s", from->image);
        else
                r = clone_image(from->io, parent, snap, io, name, e);
        rbd_snap_remove(image, snap);
        image_return(image, en);
        return r;
}

int make_child(struct pool *p, const struct record *from, const char *from_id, rados_ioctx_t io,
               const char *name, uint64_t size, char ret[RBD_IMAGE_ID_SIZE], struct err **e)
{
        char parent[RBD_NAME_SIZE];
        int r = image_name(from->io, from->image, parent, e);

        if (r == 0)
                r = from->snap[0] ? clone_image(from->io, parent, from->snap, io, name, e)
                                  : clone_head(p, from, from_id, parent, io, name, e);
        return r < 0 ? r : adopt_child(io, name, size, ret, e);
}

static int parent_record(struct pool *p, const char *parent, struct record *ret, struct err **e)
{
        int r = index_get(p, parent, ret, e);

        if (r == -ENOENT || (r == 0 && !ret->made)) {
                if (r == 0)
                        r = err_set(e, -ENOENT, "it is not there");
                return err_prepend(e, -ENOENT, "parent volume '%s'", parent);
        }
        return r;
}

static int make_of(struct pool *p, const char *id, struct record *rec, struct err **e)
{
        char name[RBD_NAME_SIZE];
        struct record from;
        struct record have;
        int r = index_find(p, id, &have, e);

        if (r > 0 && have.made) /* its parent may be gone */
                return same(p, id, &have, rec, e);
        if (r >= 0)
                r = parent_record(p, rec->parent, &from, e);
        if (r == 0)
                r = intend(p, id, rec, e);
        if (r != 0)
                return MIN(r, 0);
        name_of(name, id, rec);
        r = make_child(p, &from, rec->parent, rec->io, name, rec->size, rec->image, e);
        if (r == -EINVAL) {
                rbd_remove(rec->io, name);
                index_drop(p, id, NULL);
        }
        return r < 0 ? r : finish(p, id, rec, e);
}

int make_clone(struct pool *p, const char *id, const char *parent, uint64_t size, struct err **e)
{
        struct record rec = {.size = size, .own = true};
        struct entry *en = entry_take(p, id);
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "clone");
        strcpy(rec.parent, parent);
        r = make_of(p, id, &rec, e);
        entry_release(en);
        return r;
}

/* ---- snapshots ---- */

/* Of a snapshot: what it is of is a child's that nobody writes to. */
static int snapshot_of_snapshot(struct pool *p, const char *id, struct record *rec,
                                const struct record *of, struct err **e)
{
        char name[RBD_NAME_SIZE];

        name_of(name, id, rec);
        return make_child(p, of, rec->parent, rec->io, name, 0, rec->image, e);
}

static int snap_image(struct pool *p, const char *of, struct record *rec, struct err **e)
{
        const struct record head = {.made = true, .io = rec->io, .data = rec->data};
        struct record from = head;
        rbd_image_t image;
        struct entry *en;
        int r;

        strcpy(from.image, rec->image);
        r = image_borrow(p, of, &from, &image, &en, e);
        if (r < 0)
                return r;
        r = rbd_snap_create(image, rec->snap);
        image_return(image, en);
        return r < 0 && r != -EEXIST ? err_errno(e, r, "snapshot of RBD image %s", rec->image) : 0;
}

static int snapshot(struct pool *p, const char *id, struct record *rec, struct err **e)
{
        struct record of = {}, have;
        int r = index_find(p, id, &have, e);

        if (r > 0 && have.made)
                return same(p, id, &have, rec, e);
        if (r >= 0)
                r = parent_record(p, rec->parent, &of, e);
        rec->own = of.snap[0];
        strcpy(rec->space, of.space);
        rec->io = of.io;
        rec->data = of.data;
        if (r == 0)
                r = intend(p, id, rec, e);
        if (r != 0)
                return MIN(r, 0);
        if (of.snap[0])
                r = snapshot_of_snapshot(p, id, rec, &of, e);
        else
                strcpy(rec->image, of.image);
        if (r == 0)
                r = snap_image(p, of.snap[0] ? id : rec->parent, rec, e);
        return r < 0 ? r : finish(p, id, rec, e);
}

int make_snapshot(struct pool *p, const char *id, const char *of, struct err **e)
{
        struct entry *en = entry_take(p, id);
        struct record rec = {};
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "snapshot");
        strcpy(rec.parent, of);
        strcpy(rec.snap, id);
        r = snapshot(p, id, &rec, e);
        entry_release(en);
        return r;
}

/* ---- imports ---- */

static int open_source(const char *path, uint64_t *ret_len, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open '%s'", path);
        if (!S_ISREG(st.st_mode))
                return err_set(e, -EINVAL, "'%s' is no regular file", path);
        if (st.st_size == 0 || (uint64_t)st.st_size > VOLUME_SIZE_MAX)
                return err_set(e, -EINVAL, "'%s' is empty or too large", path);
        *ret_len = st.st_size;
        return TAKE_FD(fd);
}

/* Nobody removes the base's snapshot by mistake: it is protected. */
static int fill(const char *name, int fd, uint64_t len, struct record *rec, struct err **e)
{
        rbd_image_t image;
        int r = image_open_name(rec->io, name, false, &image);

        if (r < 0)
                return err_errno(e, r, "open RBD image '%s'", name);
        r = import_bytes(image, fd, len, e);
        if (r == 0)
                r = rbd_get_id(image, rec->image, sizeof(rec->image));
        if (r == 0)
                r = rbd_snap_create(image, rec->snap);
        if (r == 0 || r == -EEXIST)
                r = rbd_snap_protect(image, rec->snap);
        image_close(image);
        return r < 0 && r != -EBUSY ? err_errno(e, r, "RBD image '%s'", name) : 0;
}

static int import(struct pool *p, const char *id, const char *path, struct record *rec,
                  struct err **e)
{
        _cleanup_close_ int fd = -1;
        char name[RBD_NAME_SIZE];
        struct record have;
        uint64_t len = 0;
        int r = index_find(p, id, &have, e);

        if (r < 0)
                return r;
        fd = open_source(path, &len, r > 0 && have.made ? NULL : e);
        if (r > 0 && have.made) { /* the caller may have removed its name since */
                rec->size = fd < 0 ? 0 : (len + VOLUME_SECTOR - 1) / VOLUME_SECTOR * VOLUME_SECTOR;
                return same(p, id, &have, rec, e);
        }
        if (fd < 0)
                return fd;
        rec->size = (len + VOLUME_SECTOR - 1) / VOLUME_SECTOR * VOLUME_SECTOR;
        r = intend(p, id, rec, e);
        if (r != 0)
                return MIN(r, 0);
        name_of(name, id, rec);
        r = create_image(rec->io, name, rec->size, e);
        if (r == 0)
                r = fill(name, fd, len, rec, e);
        return r < 0 ? r : finish(p, id, rec, e);
}

int make_import(struct pool *p, const char *id, const char *path, struct err **e)
{
        struct entry *en = entry_take(p, id);
        struct record rec = {.import = true, .own = true, .snap = "base"};
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "import");
        r = import(p, id, path, &rec, e);
        entry_release(en);
        return r;
}
