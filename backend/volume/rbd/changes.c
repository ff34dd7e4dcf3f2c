/* What has changed between two volumes that grew from one image.
 *
 * Each is a chain of images, child to parent.  They differ at most in what the images above the
 * common one have of their own, and in the common one between the two places where they leave it.
 */
#include "backend/volume/rbd/rbd.h"

enum { CHAIN = 64 };

struct link {
        rbd_image_t image; /* open at where it is left */
        bool borrowed;
        char id[RBD_IMAGE_ID_SIZE];
        uint64_t snap; /* UINT64_MAX: its head */
        char name[RBD_NAME_SIZE];
};

struct chain {
        struct link links[CHAIN];
        unsigned n;
};

/* A diff to be asked for. */
struct part {
        rbd_image_t image;
        char since[RBD_NAME_SIZE]; /* "": all that it has */
};

struct range {
        uint64_t from, to;
};

struct rbd_changes {
        struct entry *since; /* in use meanwhile */
        struct chain a, b;
        struct part parts[2 * CHAIN];
        unsigned nparts;
        uint64_t since_size;
        rbd_image_t image;
};

static void chain_close(struct chain *c)
{
        while (c->n > 0) {
                struct link *l = &c->links[--c->n];

                if (!l->borrowed)
                        image_close(l->image);
        }
}

/* A child that was opened earlier does not hear that its parent's snapshot went to Ceph's trash. */
static void name_now(struct link *l)
{
        rbd_snap_namespace_type_t space;
        size_t n = sizeof(l->name);

        if (rbd_snap_get_namespace_type(l->image, l->snap, &space) < 0 ||
            space != RBD_SNAP_NAMESPACE_TYPE_USER ||
            rbd_snap_get_name(l->image, l->snap, l->name, &n) < 0)
                l->name[0] = '\0';
}

static int parent_io(struct pool *p, const rbd_linked_image_spec_t *spec, rados_ioctx_t *ret)
{
        rados_ioctx_t io;

        if (spec->pool_id != rados_ioctx_get_id(p->io))
                return -EXDEV;
        if (streq(spec->pool_namespace, p->base))
                return space_io(p, "", &io, ret, NULL);
        return space_io(p, spec->pool_namespace[0] ? spec->pool_namespace : "/", &io, ret, NULL);
}

/* The next link: the image's parent.  1: there is none. */
static int climb(struct pool *p, struct chain *c, struct err **e)
{
        rbd_linked_image_spec_t spec;
        rbd_snap_spec_t snap;
        rados_ioctx_t io;
        struct link *l = &c->links[c->n];
        int r = rbd_get_parent(c->links[c->n - 1].image, &spec, &snap);

        if (r == -ENOENT)
                return 1;
        if (r < 0)
                return err_errno(e, r, "parent of an RBD image");
        if (c->n == CHAIN) {
                r = err_set(e, -EMLINK, "it has more than %d parents", CHAIN);
        } else {
                *l = (struct link){.snap = snap.id};
                snprintf(l->id, sizeof(l->id), "%s", spec.image_id);
                r = parent_io(p, &spec, &io);
                if (r == 0)
                        r = image_open_id(io, l->id, "", true, &l->image);
                if (r == 0 && (r = rbd_snap_set_by_id(l->image, snap.id)) < 0)
                        image_close(l->image);
                if (r < 0) {
                        err_errno(e, r, "open RBD image %s", l->id);
                } else {
                        name_now(l);
                        c->n++;
                }
        }
        rbd_linked_image_spec_cleanup(&spec);
        rbd_snap_spec_cleanup(&snap);
        return r;
}

static int chain_open(struct pool *p, struct entry *en, struct chain *c, struct err **e)
{
        struct link *l = &c->links[0];
        struct record rec;
        int r = index_get(p, en->id, &rec, e);

        if (r < 0)
                return r;
        *l = (struct link){.image = en->image, .borrowed = true, .snap = UINT64_MAX};
        strcpy(l->id, rec.image);
        strcpy(l->name, rec.snap);
        if (rec.snap[0] && (r = rbd_snap_get_id(en->image, rec.snap, &l->snap)) < 0)
                return err_errno(e, r, "snapshot '%s'", rec.snap);
        c->n = 1;
        while (r == 0)
                r = climb(p, c, e);
        return MIN(r, 0);
}

static void add_part(struct rbd_changes *c, rbd_image_t image, const char *since)
{
        c->parts[c->nparts].image = image;
        strcpy(c->parts[c->nparts++].since, since);
}

/* In the common image, from the older place to the newer one; all of both if the older has no name
 * that a diff could be asked from. */
static void add_common(struct rbd_changes *c, const struct link *a, const struct link *b)
{
        const struct link *older = a->snap < b->snap ? a : b, *newer = older == a ? b : a;

        if (a->snap == b->snap)
                return;
        add_part(c, newer->image, older->name);
        if (!older->name[0])
                add_part(c, older->image, "");
}

static int compare(struct rbd_changes *c, struct err **e)
{
        for (unsigned i = 0; i < c->a.n; i++)
                for (unsigned j = 0; j < c->b.n; j++) {
                        if (!streq(c->a.links[i].id, c->b.links[j].id))
                                continue;
                        for (unsigned k = 0; k < i; k++)
                                add_part(c, c->a.links[k].image, "");
                        for (unsigned k = 0; k < j; k++)
                                add_part(c, c->b.links[k].image, "");
                        add_common(c, &c->a.links[i], &c->b.links[j]);
                        return 0;
                }
        return err_set(e, -EINVAL, "they have nothing in common");
}

int changes_open(struct entry *en, const char *since, void **ret, struct err **e)
{
        struct rbd_changes *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return err_errno(e, -ENOMEM, "changes");
        c->image = en->image;
        r = volume_handle_open(en->pool, since, &c->since, e);
        if (r == 0)
                r = chain_open(en->pool, en, &c->a, e);
        if (r == 0)
                r = chain_open(en->pool, c->since, &c->b, e);
        if (r == 0 && (r = rbd_get_size(c->since->image, &c->since_size)) < 0)
                err_errno(e, r, "size");
        if (r == 0)
                r = compare(c, e);
        if (r < 0)
                changes_close(c);
        else
                *ret = c;
        return r;
}

void changes_close(void *arg)
{
        struct rbd_changes *c = arg;

        chain_close(&c->a);
        chain_close(&c->b);
        if (c->since)
                volume_handle_close(c->since);
        free(c);
}

/* ---- walking ---- */

struct ranges {
        struct range *list;
        size_t n, max;
};

static int add_range(struct ranges *l, uint64_t from, uint64_t to)
{
        if (l->n == l->max) {
                size_t max = l->max ? 2 * l->max : 256;
                struct range *list = reallocarray(l->list, max, sizeof(*list));

                if (!list)
                        return -ENOMEM;
                l->list = list;
                l->max = max;
        }
        l->list[l->n++] = (struct range){from, to};
        return 0;
}

/* Gone is changed, too. */
static int on_change(uint64_t off, size_t n, int exists _unused_, void *arg)
{
        return add_range(arg, off, off + n);
}

static int by_start(const void *a, const void *b)
{
        const struct range *x = a, *y = b;

        return x->from < y->from ? -1 : x->from > y->from;
}

static int gather(struct rbd_changes *c, uint64_t n, uint64_t off, struct ranges *l)
{
        int r = 0;

        for (unsigned i = 0; i < c->nparts && r == 0; i++) {
                const struct part *k = &c->parts[i];
                uint64_t size;

                r = rbd_get_size(k->image, &size);
                if (r == 0 && off < size)
                        r = rbd_diff_iterate2(k->image, k->since[0] ? k->since : NULL, off,
                                              MIN(n, size - off), 0, 1, on_change, l);
        }
        if (r == 0 && off + n > c->since_size)
                r = add_range(l, MAX(off, c->since_size), off + n);
        if (r == 0 && l->n > 1)
                qsort(l->list, l->n, sizeof(*l->list), by_start);
        return r;
}

static int tell(volume_extent_fn each, void *arg, uint64_t from, uint64_t to, enum volume_kind kind)
{
        return from < to ? each(arg, from, to - from, kind) : 0;
}

int changes_walk(void *changes, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        const uint64_t end = off + n;
        struct ranges l = {};
        uint64_t at = off;
        int r = gather(changes, n, off, &l);

        for (size_t i = 0; i < l.n && r == 0;) {
                uint64_t from = MAX(l.list[i].from, at), to = MIN(l.list[i].to, end);

                for (i++; i < l.n && l.list[i].from <= to; i++)
                        to = MAX(to, MIN(l.list[i].to, end));
                if (from >= to)
                        continue;
                r = tell(each, arg, at, from, VOLUME_HOLE);
                if (r == 0)
                        r = tell(each, arg, from, to, VOLUME_DATA);
                at = to;
        }
        if (r == 0)
                r = tell(each, arg, at, end, VOLUME_HOLE);
        free(l.list);
        return MIN(r, 0);
}
