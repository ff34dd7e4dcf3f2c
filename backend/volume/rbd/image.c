/* Opening and closing images. */
#include "backend/volume/rbd/rbd.h"

enum { TRIES = 3 };

/* Its parent may go between the look at its header and the opening of the parent, when it has just
 * been flattened: the next look says that there is none. */
int image_open_id(rados_ioctx_t io, const char *id, const char *snap, bool readonly,
                  rbd_image_t *ret)
{
        const char *at = snap[0] ? snap : NULL;
        int r = -ENOENT;

        for (int i = 0; i < TRIES && r == -ENOENT; i++)
                r = readonly ? rbd_open_by_id_read_only(io, id, ret, at)
                             : rbd_open_by_id(io, id, ret, at);
        return r;
}

int image_open_name(rados_ioctx_t io, const char *name, bool readonly, rbd_image_t *ret)
{
        return readonly ? rbd_open_read_only(io, name, ret, NULL) : rbd_open(io, name, ret, NULL);
}

int image_close(rbd_image_t image)
{
        return rbd_close(image);
}

int image_rename_away(rados_ioctx_t io, const char *name, struct err **e)
{
        char away[RBD_NAME_SIZE], id[RBD_IMAGE_ID_SIZE];
        rbd_image_t image;
        int r = image_open_name(io, name, true, &image);

        if (r == -ENOENT)
                return 0;
        if (r == 0) {
                r = rbd_get_id(image, id, sizeof(id));
                image_close(image);
        }
        if (r == 0) {
                snprintf(away, sizeof(away), "deleted-%s", id);
                r = rbd_rename(io, name, away);
        }
        return r < 0 ? err_errno(e, r, "rename RBD image '%s'", name) : 0;
}

int image_clear(rados_ioctx_t io, const char *name, struct err **e)
{
        int r = image_rename_away(io, name, e);

        if (r < 0)
                return r;
        r = rbd_remove(io, name); /* what there is of one that cannot be opened */
        return r < 0 && r != -ENOENT ? err_errno(e, r, "remove RBD image '%s'", name) : 0;
}
