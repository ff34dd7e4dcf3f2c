/* Opening and closing images: by librbd's asynchronous calls alone.  In 16.2 the synchronous ones
 * free what the thread that completes them still uses: one of some hundred opens and closes brings
 * the process down. */
#include "backend/volume/rbd/rbd.h"

static int finish(rbd_completion_t c, int r)
{
        if (r == 0) {
                rbd_aio_wait_for_complete(c);
                r = rbd_aio_get_return_value(c);
        }
        rbd_aio_release(c);
        return r;
}

int image_open_id(struct pool *p, const char *id, const char *snap, bool readonly, rbd_image_t *ret)
{
        const char *at = snap[0] ? snap : NULL;
        rbd_completion_t c;
        int r = rbd_aio_create_completion(NULL, NULL, &c);

        if (r < 0)
                return r;
        r = readonly ? rbd_aio_open_by_id_read_only(p->io, id, ret, at, c)
                     : rbd_aio_open_by_id(p->io, id, ret, at, c);
        return finish(c, r);
}

int image_open_name(struct pool *p, const char *name, bool readonly, rbd_image_t *ret)
{
        rbd_completion_t c;
        int r = rbd_aio_create_completion(NULL, NULL, &c);

        if (r < 0)
                return r;
        r = readonly ? rbd_aio_open_read_only(p->io, name, ret, NULL, c)
                     : rbd_aio_open(p->io, name, ret, NULL, c);
        return finish(c, r);
}

int image_close(rbd_image_t image)
{
        rbd_completion_t c;
        int r = rbd_aio_create_completion(NULL, NULL, &c);

        return r < 0 ? r : finish(c, rbd_aio_close(image, c));
}
