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
