/* A file's bytes into an image: its holes are left out, several pieces are under way at once. */
#include "backend/volume/rbd/rbd.h"

#include "common/fileio.h"

enum { PIECE = 4 << 20, PIECES = 4 };

struct slot {
        char *buf;
        rbd_completion_t c; /* NULL: free */
};

static int wait_for(struct slot *s)
{
        ssize_t r;

        if (!s->c)
                return 0;
        rbd_aio_wait_for_complete(s->c);
        r = rbd_aio_get_return_value(s->c);
        rbd_aio_release(TAKE_PTR(s->c));
        return r < 0 ? r : 0;
}

static int put(rbd_image_t image, struct slot *s, int fd, uint64_t off, size_t n)
{
        int r = wait_for(s);

        if (r == 0 && !s->buf && !(s->buf = malloc(PIECE)))
                r = -ENOMEM;
        if (r == 0)
                r = pread_full(fd, s->buf, n, off);
        if (r == 0)
                r = rbd_aio_create_completion(NULL, NULL, &s->c);
        if (r < 0)
                return r;
        r = rbd_aio_write(image, off, n, s->buf, s->c);
        if (r < 0)
                rbd_aio_release(TAKE_PTR(s->c));
        return r;
}

int import_bytes(rbd_image_t image, int fd, uint64_t len, struct err **e)
{
        struct slot slots[PIECES] = {};
        unsigned turn = 0;
        uint64_t at = 0;
        int r = 0;

        while (r == 0 && at < len) {
                off_t data = lseek(fd, at, SEEK_DATA);
                uint64_t end;

                if (data < 0 && errno == ENXIO)
                        break;
                at = data < 0 ? at : (uint64_t)data;
                end = MIN(len, (at / PIECE + 1) * PIECE);
                r = put(image, &slots[turn++ % PIECES], fd, at, end - at);
                at = end;
        }
        for (int i = 0; i < PIECES; i++) {
                int w = wait_for(&slots[i]);

                r = r < 0 ? r : w;
                free(slots[i].buf);
        }
        if (r == 0)
                r = rbd_flush(image);
        return r < 0 ? err_errno(e, r, "copy into an RBD image") : 0;
}
