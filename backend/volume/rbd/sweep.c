/* Images of removed volumes go when nothing grows from them any more; and names that a crash left
 * wrong are put right. */
#include "backend/volume/rbd/rbd.h"

#include "common/log.h"

enum { YOUNG_S = 120 }; /* a revert takes less */

/* A snapshot that was a clone's alone ("for-..."), or that waits in Ceph's trash for its last
 * clone: tried, and refused while there is one. */
static bool drop_snaps(rbd_image_t image)
{
        rbd_snap_info_t *list;
        bool some = false;
        int max = 1024, n;

        list = calloc(max, sizeof(*list));
        n = list ? rbd_snap_list(image, list, &max) : -ENOMEM;
        for (int i = 0; i < n; i++) {
                rbd_snap_namespace_type_t space;
                int r = rbd_snap_get_namespace_type(image, list[i].id, &space);

                if (r == 0 && space == RBD_SNAP_NAMESPACE_TYPE_TRASH)
                        r = rbd_snap_remove_by_id(image, list[i].id);
                else if (r == 0 &&
                         (strncmp(list[i].name, "for-", 4) == 0 || streq(list[i].name, "base")))
                        r = rbd_snap_remove(image, list[i].name);
                else
                        r = -EBUSY;
                some |= r < 0;
        }
        if (n > 0)
                rbd_snap_list_end(list);
        free(list);
        return n >= 0 && !some;
}

/* Only one that we have renamed: its name has the image's own id. */
static bool is_ours(rbd_image_t image, const char *name)
{
        char id[RBD_IMAGE_ID_SIZE];

        return rbd_get_id(image, id, sizeof(id)) == 0 && streq(name + strlen("deleted-"), id);
}

static int protected_base(rbd_image_t image, uint64_t *ret_snap)
{
        int is = 0;
        int r = rbd_snap_is_protected(image, "base", &is);

        if (r == 0)
                r = rbd_snap_get_id(image, "base", ret_snap);
        return r < 0 ? r : is;
}

static bool has_children(rbd_image_t image)
{
        size_t n = 0;
        int r = rbd_snap_set(image, "base");

        if (r == 0)
                r = rbd_list_children3(image, NULL, &n);
        return r < 0 || n > 0; /* -ERANGE says how many */
}

/* rbd_snap_unprotect() waits in 16.2 for a thread of which we have but one: what it does at its
 * end, cls_rbd's set_protection_status(snapid, unprotected), once there is no child of either
 * format. */
static void unprotect(rados_ioctx_t io, const char *name)
{
        char header[RBD_IMAGE_ID_SIZE + 16] = "rbd_header.", *id = header + strlen(header);
        char args[9] = {}, out;
        rbd_image_t image;
        uint64_t snap = 0;
        bool may;

        if (image_open_name(io, name, true, &image) < 0)
                return;
        may = is_ours(image, name) && protected_base(image, &snap) > 0 &&
              rbd_get_id(image, id, RBD_IMAGE_ID_SIZE) == 0 && !has_children(image);
        image_close(image);
        for (int i = 0; i < 8; i++)
                args[i] = (char)(snap >> 8 * i);
        if (may)
                rados_exec(io, header, "rbd", "set_protection_status", args, sizeof(args), &out, 0);
}

static bool sweep_deleted(rados_ioctx_t io, const char *name)
{
        rbd_image_t image;
        bool bare;
        int r;

        unprotect(io, name);
        if (image_open_name(io, name, false, &image) < 0)
                return false;
        bare = is_ours(image, name) && drop_snaps(image);
        image_close(image);
        if (!bare)
                return false;
        r = rbd_remove(io, name);
        if (r < 0 && r != -ENOENT && r != -EBUSY)
                log_warning("remove RBD image '%s': %s", name, strerror(-r));
        return r == 0;
}

static bool get_id(rados_ioctx_t io, const char *name, char ret[RBD_IMAGE_ID_SIZE])
{
        rbd_image_t image;
        bool ok;

        if (image_open_name(io, name, true, &image) < 0)
                return false;
        ok = rbd_get_id(image, ret, RBD_IMAGE_ID_SIZE) == 0;
        image_close(image);
        return ok;
}

/* Another host may be at a revert: it has the image, and has not said so in the index. */
static bool is_young(rados_ioctx_t io, const char *name)
{
        struct timespec made = {};
        rbd_image_t image;
        int r;

        if (image_open_name(io, name, true, &image) < 0)
                return true;
        r = rbd_get_create_timestamp(image, &made);
        image_close(image);
        return r < 0 || made.tv_sec + YOUNG_S > time(NULL);
}

/* A revert was cut off: it had happened if the index says so. */
static bool sweep_new(struct pool *p, rados_ioctx_t io, const char *name)
{
        char to[RBD_NAME_SIZE], away[RBD_NAME_SIZE], id[RBD_IMAGE_ID_SIZE], old[RBD_IMAGE_ID_SIZE];
        const char *volume = name + 4;
        struct record rec;
        struct entry *en;
        bool done = false;
        int r;

        if (strlen(volume) != VOLUME_ID_SIZE - 1 || !(en = entry_take(p, volume)))
                return false;
        r = index_get(p, volume, &rec, NULL);
        if ((r == 0 || r == -ENOENT) && get_id(io, name, id) &&
            ((r == 0 && streq(rec.image, id)) || !is_young(io, name))) {
                snprintf(to, sizeof(to), "volume-%s", volume);
                if (r == 0 && streq(rec.image, id)) {
                        if (get_id(io, to, old)) {
                                snprintf(away, sizeof(away), "deleted-%s", old);
                                rbd_rename(io, to, away);
                        }
                } else {
                        snprintf(to, sizeof(to), "deleted-%s", id);
                }
                done = rbd_rename(io, name, to) == 0;
        }
        entry_release(en);
        return done;
}

static bool sweep_space(struct pool *p, rados_ioctx_t io)
{
        rbd_image_spec_t *images;
        size_t max = 0;
        bool done = false;
        int r = rbd_list2(io, NULL, &max);

        if (r != -ERANGE || max == 0)
                return false;
        max += 64;
        images = calloc(max, sizeof(*images));
        r = images ? rbd_list2(io, images, &max) : -ENOMEM;
        for (size_t i = 0; r >= 0 && i < max; i++) {
                const char *name = images[i].name;

                if (strncmp(name, "new-", 4) == 0)
                        done |= sweep_new(p, io, name);
                else if (strncmp(name, "deleted-", 8) == 0)
                        done |= sweep_deleted(io, name);
        }
        if (r >= 0)
                rbd_image_spec_list_cleanup(images, max);
        free(images);
        return done;
}

bool sweep(struct pool *p)
{
        return space_each(p, sweep_space);
}
