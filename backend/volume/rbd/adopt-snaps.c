/* The snapshots of an image that is adopted or released.  They keep the names that they have there:
 * the index says which id is which. */
#include "backend/volume/rbd/rbd.h"

#include "common/name.h"

enum { SNAPS_MAX = 200 }; /* one answer's worth */

/* The snapshots of a volume that the index has. */
struct snaps {
        const char *of;
        struct volume_snap v[SNAPS_MAX + 1];
        char image[SNAPS_MAX + 1][RBD_IMAGE_ID_SIZE];
        size_t n;
};

static int note(void *arg, const char *id, const struct record *r)
{
        struct snaps *s = arg;

        if (!r->snap[0] || r->import || r->own || !streq(r->parent, s->of) || s->n > SNAPS_MAX)
                return 0;
        strcpy(s->v[s->n].id, id);
        strcpy(s->v[s->n].name, r->snap);
        strcpy(s->image[s->n++], r->image);
        return 0;
}

static int known(struct pool *p, const char *id, struct snaps **ret, struct err **e)
{
        struct snaps *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return err_errno(e, -ENOMEM, "snapshots");
        s->of = id;
        r = index_walk(p, "", note, s, e);
        if (r == 0 && s->n > SNAPS_MAX)
                r = err_set(e, -E2BIG, "it has more than %d snapshots", SNAPS_MAX);
        if (r < 0)
                free(s);
        else
                *ret = s;
        return r;
}

static const struct volume_snap *find(const struct volume_snap *v, size_t n, const char *id)
{
        for (size_t i = 0; i < n; i++)
                if (streq(v[i].id, id))
                        return &v[i];
        return NULL;
}

/* ---- adopt ---- */

static int adopt_one(struct pool *p, const char *id, const struct record *of, const struct snaps *s,
                     const rbd_snap_info_t *snap, struct volume_snap *ret, struct err **e)
{
        struct record rec = {.io = of->io, .data = of->data, .made = true, .size = snap->size};

        if (strlen(snap->name) >= sizeof(ret->name))
                return err_set(e, -EINVAL, "its snapshot '%s' has too long a name", snap->name);
        strcpy(ret->name, snap->name);
        ret->size = snap->size;
        for (size_t i = 0; i < s->n; i++)
                if (streq(s->v[i].name, snap->name)) {
                        strcpy(ret->id, s->v[i].id);
                        return 0;
                }
        id_text(ret->id, id_new());
        strcpy(rec.space, of->space);
        strcpy(rec.image, of->image);
        strcpy(rec.snap, snap->name);
        strcpy(rec.parent, id);
        return index_put(p, ret->id, &rec, true, e);
}

/* Not those in Ceph's trash, nor those that mirrors and groups have. */
static bool is_users(rbd_image_t image, const rbd_snap_info_t *snap)
{
        rbd_snap_namespace_type_t space;

        return rbd_snap_get_namespace_type(image, snap->id, &space) == 0 &&
               space == RBD_SNAP_NAMESPACE_TYPE_USER;
}

int snaps_adopt(struct pool *p, const char *id, const struct record *rec, struct volume_snap **ret,
                size_t *ret_n, struct err **e)
{
        rbd_snap_info_t *list = calloc(SNAPS_MAX, sizeof(*list));
        struct volume_snap *v = calloc(SNAPS_MAX, sizeof(*v));
        int max = SNAPS_MAX, n = -ENOMEM, r;
        struct snaps *s = NULL;
        rbd_image_t image;
        size_t found = 0;

        r = image_open_readonly(rec->io, rec->image, "", &image, e);
        if (r == 0) {
                n = list && v ? rbd_snap_list(image, list, &max) : -ENOMEM;
                r = n == -ERANGE ? err_set(e, -E2BIG, "it has more than %d snapshots", SNAPS_MAX)
                    : n < 0      ? err_errno(e, n, "its snapshots")
                    : n == 0     ? 0
                                 : known(p, id, &s, e);
                for (int i = 0; i < n && r == 0; i++)
                        if (is_users(image, &list[i]))
                                r = adopt_one(p, id, rec, s, &list[i], &v[found++], e);
                image_close(image);
        }
        if (n > 0)
                rbd_snap_list_end(list);
        free(list);
        free(s);
        if (r < 0) {
                free(v);
                return r;
        }
        *ret = v;
        *ret_n = found;
        return 0;
}

/* ---- release ---- */

int snaps_refuse(struct pool *p, const char *id, const struct record *rec,
                 const struct volume_snap *v, size_t n, struct err **e)
{
        struct snaps *s;
        int r = known(p, id, &s, e);

        if (r < 0)
                return r;
        for (size_t i = 0; i < s->n && r == 0; i++) {
                const struct volume_snap *to = find(v, n, s->v[i].id);

                if (!streq(s->image[i], rec->image)) {
                        r = err_set(e, -EBUSY, "its snapshot '%s' is of before it was reverted",
                                    to ? to->name : s->v[i].name);
                        err_hint(e, r, "remove that snapshot first, or copy it into a volume");
                } else if (to && strpbrk(to->name, "@/")) {
                        r = err_set(e, -EINVAL, "'%s' is no name of a snapshot", to->name);
                }
        }
        free(s);
        return r;
}

int snaps_release(struct pool *p, const char *id, const struct record *rec,
                  const struct volume_snap *v, size_t n, struct err **e)
{
        rbd_image_t image;
        struct snaps *s;
        int r = known(p, id, &s, e);

        if (r < 0)
                return r;
        r = s->n ? image_open_id(rec->io, rec->image, "", false, &image) : 0;
        if (r < 0) {
                free(s);
                return err_errno(e, r, "open RBD image %s", rec->image);
        }
        for (size_t i = 0; i < s->n && r == 0; i++) {
                const struct volume_snap *to = find(v, n, s->v[i].id);

                if (to && !streq(to->name, s->v[i].name)) {
                        r = rbd_snap_rename(image, s->v[i].name, to->name);
                        if (r == -ENOENT) /* it was, before the answer got lost */
                                r = 0;
                        if (r < 0)
                                err_errno(e, r, "rename its snapshot '%s' to '%s'", s->v[i].name,
                                          to->name);
                }
        }
        for (size_t i = 0; i < s->n && r == 0; i++)
                r = index_drop(p, s->v[i].id, e);
        if (s->n)
                image_close(image);
        free(s);
        return r;
}
