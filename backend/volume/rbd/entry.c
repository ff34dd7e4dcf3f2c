/* Volumes that are open or being changed, and images for one call. */
#include "backend/volume/rbd/rbd.h"

#include "common/log.h"

enum {
        LOOK_MS = 2,     /* between two looks at a lock that another host is about to give up */
        LOCK_MS = 5000,  /* so long in all: a switch takes milliseconds */
        SHUT_MS = 60000, /* so long a write waits for a volume that was deactivated */
};

/* With the lock. */
static struct entry *find_or_add(struct pool *p, const char *id)
{
        struct entry *en;

        HASH_FIND_STR(p->entries, id, en);
        if (en)
                return en;
        en = calloc(1, sizeof(*en));
        if (!en)
                return NULL;
        strcpy(en->id, id);
        en->pool = p;
        pthread_mutex_init(&en->locking, NULL);
        HASH_ADD_STR(p->entries, id, en);
        return en;
}

/* With the lock: gone when nobody has it. */
static void settle(struct entry *en)
{
        struct pool *p = en->pool;

        if (en->busy || en->closing || en->users > 0 || en->waiting > 0 || en->flatten_failed)
                return;
        HASH_DEL(p->entries, en);
        pthread_mutex_destroy(&en->locking);
        free(en);
}

struct entry *entry_take(struct pool *p, const char *id)
{
        struct entry *en;

        WITH_LOCK(&p->lock);
        en = find_or_add(p, id);
        if (!en)
                return NULL;
        en->waiting++;
        while (en->busy || en->closing)
                pthread_cond_wait(&p->idle, &p->lock);
        en->waiting--;
        en->busy = true;
        return en;
}

void entry_release(struct entry *en)
{
        struct pool *p = en->pool;

        WITH_LOCK(&p->lock);
        en->busy = false;
        pthread_cond_broadcast(&p->idle);
        settle(en);
}

int image_open_readonly(rados_ioctx_t io, const char *image, const char *snap, rbd_image_t *ret,
                        struct err **e)
{
        int r = image_open_id(io, image, snap, true, ret);

        return r < 0 ? err_errno(e, r, "open RBD image %s%s%s", image, snap[0] ? "@" : "", snap)
                     : 0;
}

int image_name(rados_ioctx_t io, const char *image, char ret[RBD_NAME_SIZE], struct err **e)
{
        size_t n = RBD_NAME_SIZE;
        rbd_image_t handle;
        int r = image_open_readonly(io, image, "", &handle, e);

        if (r < 0)
                return r;
        r = rbd_get_name(handle, ret, &n);
        image_close(handle);
        return r < 0 ? err_errno(e, r, "name of RBD image %s", image) : 0;
}

static int image_open(const struct record *r, rados_ioctx_t io, rbd_image_t *ret, struct err **e)
{
        int q;

        if (r->snap[0])
                return image_open_readonly(io, r->image, r->snap, ret, e);
        q = image_open_id(io, r->image, "", false, ret);
        return q < 0 ? err_errno(e, q, "open RBD image %s", r->image) : 0;
}

int volume_handle_open(struct pool *p, const char *id, struct entry **ret, struct err **e)
{
        struct entry *en = entry_take(p, id);
        struct record rec;
        int r = 0;

        if (!en)
                return err_errno(e, -ENOMEM, "open");
        if (en->users == 0) {
                r = index_get(p, id, &rec, e);
                if (r == 0 && !rec.made)
                        r = err_set(e, -ENOENT, "there is no such volume");
                if (r == 0)
                        r = image_open(&rec, rec.data, &en->image, e);
                if (r == 0) {
                        en->immutable = rec.snap[0];
                        en->locked = en->shut = false;
                }
        }
        if (r == 0) {
                pthread_mutex_lock(&p->lock);
                en->users++;
                pthread_mutex_unlock(&p->lock);
        }
        entry_release(en);
        if (r == 0)
                *ret = en;
        return r;
}

/* Whoever wants the volume waits until its image is closed; not who closes, who may have it busy.
 */
void volume_handle_close(struct entry *en)
{
        struct pool *p = en->pool;
        rbd_image_t image = NULL;

        pthread_mutex_lock(&p->lock);
        if (--en->users == 0)
                image = TAKE_PTR(en->image);
        if (image)
                en->closing = true;
        pthread_mutex_unlock(&p->lock);
        if (image && image_close(image) < 0)
                log_warning("close volume %s: the Ceph cluster says no", en->id);
        WITH_LOCK(&p->lock);
        if (image)
                en->closing = false;
        pthread_cond_broadcast(&p->idle);
        settle(en);
}

int image_borrow(struct pool *p, const char *id, const struct record *rec, rbd_image_t *ret,
                 struct entry **ret_en, struct err **e)
{
        struct entry *en;

        *ret_en = NULL;
        pthread_mutex_lock(&p->lock);
        HASH_FIND_STR(p->entries, id, en);
        if (en && en->users > 0 && en->image) {
                en->users++;
                *ret_en = en;
                *ret = en->image;
        }
        pthread_mutex_unlock(&p->lock);
        return *ret_en ? 0 : image_open(rec, rec->io, ret, e);
}

void image_return(rbd_image_t image, struct entry *en)
{
        if (en)
                volume_handle_close(en);
        else if (image)
                image_close(image);
}

/* Who has it, for the log. */
static void tell_owner(struct entry *en, int r)
{
        rbd_lock_mode_t mode;
        char *owners[4];
        size_t n = ARRAY_SIZE(owners);

        if (rbd_lock_get_owners(en->image, &mode, owners, &n) < 0)
                n = 0;
        log_error("volume %s cannot be written: %s%s%s", en->id, strerror(-r),
                  n > 0 ? "; its image is locked by " : "", n > 0 ? owners[0] : "");
        if (n > 0)
                rbd_lock_get_owners_cleanup(owners, n);
}

/* A guest that has come from another host may write before that host's blockd has let go. */
static int acquire(struct entry *en)
{
        int r = rbd_lock_acquire(en->image, RBD_LOCK_MODE_EXCLUSIVE);

        for (int ms = 0; (r == -EROFS || r == -EBUSY) && ms < LOCK_MS; ms += LOOK_MS) {
                usleep(LOOK_MS * 1000);
                r = rbd_lock_acquire(en->image, RBD_LOCK_MODE_EXCLUSIVE);
        }
        return r;
}

int entry_lock(struct entry *en)
{
        int r;

        if (en->locked)
                return 0;
        WITH_LOCK(&en->locking);
        /* A guest that did not get away waits for the word that it is to go on here. */
        for (int ms = 0; en->shut && ms < SHUT_MS; ms += LOOK_MS)
                usleep(LOOK_MS * 1000);
        if (en->shut)
                return -EPERM;
        if (en->locked)
                return 0;
        /* With the newest map our requests tell the OSDs who was fenced; none of his lands behind
         * them. */
        r = rados_wait_for_latest_osdmap(en->pool->cluster);
        if (r == 0)
                r = acquire(en);
        if (r < 0) {
                tell_owner(en, r);
                return r == -EROFS ? -EBUSY : r;
        }
        en->locked = true;
        return 0;
}

int entry_activate(struct entry *en, struct err **e)
{
        int r;

        en->shut = false;
        if (en->immutable)
                return 0;
        r = rbd_invalidate_cache(en->image);
        if (r == 0)
                r = entry_lock(en);
        return r < 0 ? err_errno(e, r, "lock the image of volume %s", en->id) : 0;
}

int entry_deactivate(struct entry *en, struct err **e)
{
        int r, ours = 0;

        WITH_LOCK(&en->locking);
        en->shut = true;
        r = rbd_flush(en->image);
        if (r == 0) /* an I/O that failed late may have cleared `locked` */
                r = rbd_is_exclusive_lock_owner(en->image, &ours);
        if (r == 0 && ours)
                r = rbd_lock_release(en->image);
        if (r < 0) {
                en->shut = false;
                return err_errno(e, r, "release the image of volume %s", en->id);
        }
        en->locked = false;
        return 0;
}
