/* The index: object "stratofs.volumes", in whose omap each volume has a JSON record under its id.
 *
 *   {"format":1, "made":true, "image":"<Ceph's id>", "snap":"<name>", "parent":"<volume>",
 *    "size":N, "import":false, "own":true, "flatten":false, "space":"<namespace>"}
 *
 * "was" is what an image is called that is to be adopted.  space, and format 2 with it, only where
 * the image is not in the pool's own namespace. A record that is not made is an intent: it is
 * written before the image, and the image is made before it says so.  Calls wait RBD_ANSWER_MS, no
 * longer. */
#include "backend/volume/rbd/rbd.h"

#include <jansson.h>

#include "common/jsonl.h"

#include "common/clock.h"

enum { FORMAT = 2, PAGE = 500 };

static const char object[] = "stratofs.volumes";

/* ---- time limits ---- */

struct wait {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool done;
};

static void on_done(rados_completion_t c _unused_, void *arg)
{
        struct wait *w = arg;

        WITH_LOCK(&w->lock);
        w->done = true;
        pthread_cond_signal(&w->cond);
}

static bool wait_for(struct wait *w)
{
        struct timespec end = clock_timespec(clock_mono() + RBD_ANSWER_MS * INT64_C(1000));
        int r = 0;

        WITH_LOCK(&w->lock);
        while (!w->done && r == 0)
                r = pthread_cond_clockwait(&w->cond, &w->lock, CLOCK_MONOTONIC, &end);
        return w->done;
}

int index_operate(struct pool *p, const char *name, rados_write_op_t write, rados_read_op_t read)
{
        struct wait w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        rados_completion_t c;
        bool late = false;
        int r = rados_aio_create_completion2(&w, on_done, &c);

        if (r == 0) {
                r = write ? rados_aio_write_op_operate(write, p->io, c, name, NULL, 0)
                          : rados_aio_read_op_operate(read, p->io, c, name, 0);
                if (r == 0) {
                        late = !wait_for(&w);
                        if (late)
                                rados_aio_cancel(p->io, c);
                        rados_aio_wait_for_complete(c);
                        while (!wait_for(&w))
                                ;
                        r = rados_aio_get_return_value(c);
                }
                rados_aio_release(c);
        }
        if (write)
                rados_release_write_op(write);
        else
                rados_release_read_op(read);
        return late && r < 0 ? -ETIMEDOUT : r;
}

static int operate(struct pool *p, rados_write_op_t write, rados_read_op_t read)
{
        return index_operate(p, object, write, read);
}

static int failed(int r, struct err **e)
{
        if (r == -ETIMEDOUT)
                return err_set(e, r, "the Ceph cluster does not answer (%d s)",
                               RBD_ANSWER_MS / 1000);
        return err_errno(e, r, "index of volumes in Ceph");
}

int index_open(struct pool *p, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        int r;

        rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
        r = operate(p, op, NULL);
        if (r < 0)
                return failed(r, e);
        space_ready(p->io);
        return 0;
}

/* ---- records ---- */

static int decode(struct pool *p, const char *text, size_t n, struct record *ret)
{
        json_auto_t *o = json_loadb(text, n, 0, NULL);
        const char *image, *snap, *parent, *space = "", *was = "";
        int format, made, import, own, flatten;
        json_int_t size;

        if (json_unpack(o, "{s:i, s:b, s:s, s:s, s:s, s:I, s:b, s:b, s:b, s?s, s?s}", "format",
                        &format, "made", &made, "image", &image, "snap", &snap, "parent", &parent,
                        "size", &size, "import", &import, "own", &own, "flatten", &flatten, "space",
                        &space, "was", &was) < 0 ||
            strlen(image) >= sizeof(ret->image) || strlen(snap) >= sizeof(ret->snap) ||
            strlen(parent) >= sizeof(ret->parent) || strlen(space) >= sizeof(ret->space) ||
            strlen(was) >= sizeof(ret->was))
                return -EUCLEAN;
        if (format > FORMAT)
                return -ENOTSUP;
        *ret = (struct record){
                .made = made, .import = import, .own = own, .flatten = flatten, .size = size};
        strcpy(ret->image, image);
        strcpy(ret->snap, snap);
        strcpy(ret->parent, parent);
        strcpy(ret->space, space);
        strcpy(ret->was, was);
        return space_io(p, space, &ret->io, &ret->data, NULL);
}

static char *encode(const struct record *r)
{
        const int format = r->space[0] || r->was[0] ? FORMAT : 1; /* which one release back reads */
        json_auto_t *o = json_pack("{s:i, s:b, s:s, s:s, s:s, s:I, s:b, s:b, s:b}", "format",
                                   format, "made", (int)r->made, "image", r->image, "snap", r->snap,
                                   "parent", r->parent, "size", (json_int_t)r->size, "import",
                                   (int)r->import, "own", (int)r->own, "flatten", (int)r->flatten);
        bool failed = !o;

        if (o && r->space[0])
                failed |= json_object_set_new(o, "space", json_string(r->space)) < 0;
        if (o && r->was[0])
                failed |= json_object_set_new(o, "was", json_string(r->was)) < 0;
        return failed ? NULL : json_text(o, JSON_COMPACT);
}

int index_get(struct pool *p, const char *id, struct record *ret, struct err **e)
{
        const size_t n = strlen(id);
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        char *key = NULL, *val = NULL;
        size_t klen, vlen = 0;
        int rv = 0, r;

        rados_read_op_omap_get_vals_by_keys2(op, &id, 1, &n, &it, &rv);
        r = operate(p, NULL, op);
        r = r < 0 ? r : rv;
        if (r == 0)
                rados_omap_get_next2(it, &key, &val, &klen, &vlen);
        if (r == 0)
                r = key ? decode(p, val, vlen, ret) : -ENOENT;
        if (it)
                rados_omap_get_end(it);
        if (r == -ENOENT)
                return err_set(e, r, "there is no such volume");
        return r < 0 ? failed(r, e) : 0;
}

int index_find(struct pool *p, const char *id, struct record *ret, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int r = index_get(p, id, ret, &why);

        if (r == -ENOENT)
                return 0;
        return r < 0 ? err_move(e, TAKE_PTR(why)) : 1;
}

int index_put(struct pool *p, const char *id, const struct record *rec, bool fresh, struct err **e)
{
        _cleanup_free_ char *text = encode(rec);
        const size_t klen = strlen(id);
        const char *value = text;
        rados_write_op_t op;
        size_t n;
        int rv = 0, r;

        if (!text)
                return err_errno(e, -ENOMEM, "index");
        n = strlen(text);
        op = rados_create_write_op();
        if (fresh) /* nothing is what an absent key equals */
                rados_write_op_omap_cmp2(op, id, LIBRADOS_CMPXATTR_OP_EQ, "", klen, 0, &rv);
        rados_write_op_omap_set2(op, &id, &value, &klen, &n, 1);
        r = operate(p, op, NULL);
        if (fresh && r == -ECANCELED)
                return err_set(e, -EEXIST, "it is being made by another host");
        return r < 0 ? failed(r, e) : 0;
}

int index_drop(struct pool *p, const char *id, struct err **e)
{
        const size_t n = strlen(id);
        rados_write_op_t op = rados_create_write_op();
        int r;

        rados_write_op_omap_rm_keys2(op, &id, &n, 1);
        r = operate(p, op, NULL);
        return r < 0 && r != -ENOENT ? failed(r, e) : 0;
}

/* One page; `after` becomes its last id.  1: there are more; else as each said, or -errno. */
static int walk_page(struct pool *p, char after[VOLUME_ID_SIZE],
                     int (*each)(void *arg, const char *id, const struct record *r), void *arg,
                     bool *stopped)
{
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        unsigned char more = 0;
        int rv = 0, r;

        rados_read_op_omap_get_vals2(op, after, "", PAGE, &it, &more, &rv);
        r = operate(p, NULL, op);
        r = r < 0 ? r : rv;
        while (r == 0 && it) {
                struct record rec;
                char *key = NULL, *val = NULL;
                size_t klen, vlen;

                rados_omap_get_next2(it, &key, &val, &klen, &vlen);
                if (!key)
                        break;
                if (klen >= VOLUME_ID_SIZE)
                        continue;
                memcpy(after, key, klen);
                after[klen] = '\0';
                if (decode(p, val, vlen, &rec) == 0)
                        r = each(arg, after, &rec);
                *stopped = r != 0;
        }
        if (it)
                rados_omap_get_end(it);
        return r < 0 ? r : more && !*stopped;
}

int index_walk(struct pool *p, const char *after,
               int (*each)(void *arg, const char *id, const struct record *r), void *arg,
               struct err **e)
{
        char at[VOLUME_ID_SIZE] = "";
        bool stopped = false;
        int r;

        snprintf(at, sizeof(at), "%s", after);
        do
                r = walk_page(p, at, each, arg, &stopped);
        while (r > 0);
        if (r == -ENOENT && !stopped)
                return 0;
        return r < 0 && !stopped ? failed(r, e) : r;
}
