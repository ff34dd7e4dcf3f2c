/* What is stored where, by librbd's diff. */
#include "backend/volume/rbd/rbd.h"

/* Ranges up to this are looked at exactly, which asks the OSDs for each object; longer ones by the
 * object map, in whole objects. */
static const uint64_t exact_max = 256 << 20;

struct walk {
        uint64_t at, end;   /* told up to here */
        uint64_t data, len; /* a stretch of data that may go on */
        volume_extent_fn each;
        void *arg;
        int result;
};

static void tell(struct walk *w, uint64_t end, enum volume_kind kind)
{
        if (end > w->at && w->result == 0)
                w->result = w->each(w->arg, w->at, end - w->at, kind);
        w->at = end;
}

static void flush(struct walk *w)
{
        if (w->len == 0)
                return;
        tell(w, w->data, VOLUME_HOLE);
        tell(w, w->data + w->len, VOLUME_DATA);
        w->len = 0;
}

static int on_extent(uint64_t off, size_t n, int exists, void *arg)
{
        uint64_t end = off + n;
        struct walk *w = arg;

        off = MAX(off, w->at);
        end = MIN(end, w->end);
        if (!exists || off >= end)
                return 0;
        if (w->len > 0 && off <= w->data + w->len) {
                w->len = MAX(w->data + w->len, end) - w->data;
                return 0;
        }
        flush(w);
        w->data = off;
        w->len = end - off;
        return 0; /* an error would end it with its requests still under way */
}

int extents_walk(rbd_image_t image, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        struct walk w = {.at = off, .end = off + n, .each = each, .arg = arg};
        int r = rbd_diff_iterate2(image, NULL, off, n, 1, n > exact_max, on_extent, &w);

        if (w.result != 0)
                return MIN(w.result, 0);
        if (r < 0)
                return r;
        flush(&w);
        tell(&w, w.end, VOLUME_HOLE);
        return MIN(w.result, 0);
}

static int on_used(uint64_t off _unused_, size_t n, int exists, void *arg)
{
        *(uint64_t *)arg += exists ? n : 0;
        return 0;
}

/* The newest snapshot that users made and that is older than what is open. */
static int last_snap(rbd_image_t image, const char *open, char ret[RBD_NAME_SIZE])
{
        uint64_t before = UINT64_MAX;
        rbd_snap_info_t snaps[64];
        rbd_snap_info_t *list = snaps, *more = NULL;
        int max = ARRAY_SIZE(snaps);
        int n = rbd_snap_list(image, list, &max);

        if (n == -ERANGE) {
                list = more = calloc(max, sizeof(*list));
                n = list ? rbd_snap_list(image, list, &max) : -ENOMEM;
        }
        ret[0] = '\0';
        for (int i = 0; i < n; i++)
                if (streq(list[i].name, open))
                        before = list[i].id;
        for (int i = 0; i < n; i++) {
                rbd_snap_namespace_type_t space;

                if (list[i].id < before &&
                    rbd_snap_get_namespace_type(image, list[i].id, &space) == 0 &&
                    space == RBD_SNAP_NAMESPACE_TYPE_USER)
                        snprintf(ret, RBD_NAME_SIZE, "%s", list[i].name);
        }
        if (n > 0)
                rbd_snap_list_end(list);
        free(more);
        return MIN(n, 0);
}

int extents_used(rbd_image_t image, const char *snap, uint64_t *ret)
{
        char since[RBD_NAME_SIZE];
        uint64_t size;
        int r = rbd_get_size(image, &size);

        *ret = 0;
        if (r == 0)
                r = last_snap(image, snap, since);
        return r < 0 ? r
                     : rbd_diff_iterate2(image, since[0] ? since : NULL, 0, size, 0, 1, on_used,
                                         ret);
}
