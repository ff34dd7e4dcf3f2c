/* Opening and closing images. */
#include "backend/volume/rbd/rbd.h"

int image_open_id(struct pool *p, const char *id, const char *snap, bool readonly, rbd_image_t *ret)
{
        const char *at = snap[0] ? snap : NULL;

        return readonly ? rbd_open_by_id_read_only(p->io, id, ret, at)
                        : rbd_open_by_id(p->io, id, ret, at);
}

int image_open_name(struct pool *p, const char *name, bool readonly, rbd_image_t *ret)
{
        return readonly ? rbd_open_read_only(p->io, name, ret, NULL)
                        : rbd_open(p->io, name, ret, NULL);
}

int image_close(rbd_image_t image)
{
        return rbd_close(image);
}
