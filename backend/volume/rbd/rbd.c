/* The driver's table, and what tells about volumes. */
#include "backend/volume/rbd/rbd.h"

#include "common/log.h"

static void driver_close(void *pool)
{
        struct pool *p = pool;
        struct entry *en, *tmp;

        work_background(p, false);
        HASH_ITER (hh, p->entries, en, tmp) {
                HASH_DEL(p->entries, en); /* of flattens that failed */
                pthread_mutex_destroy(&en->locking);
                free(en);
        }
        space_close(p);
        cluster_close(p);
        fence_leave(p);
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->idle);
        pthread_mutex_destroy(&p->work_lock);
        pthread_cond_destroy(&p->work_wake);
        free(p);
}

/* Connected, and nothing of a predecessor's is in the way.  An address is a number drawn at random:
 * one that is barred already, or about to be, is drawn again. */
static int connect_as_new(struct pool *p, const struct volume_pool_config *c, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int r = -ESHUTDOWN;

        for (int tries = 0; tries < 8 && r == -ESHUTDOWN; tries++) {
                why = err_free(why);
                cluster_close(p);
                r = cluster_open(p, c->target ? c->target : "", &why);
                if (r == 0 && fence_is_ours(p, c->state))
                        r = err_set(&why, -ESHUTDOWN, "our address is a predecessor's");
                if (r == 0 && !c->shared)
                        r = fence_predecessors(p, c->state, &why);
                if (r == 0)
                        r = index_open(p, &why);
        }
        return r < 0 ? err_move(e, TAKE_PTR(why)) : 0;
}

static int driver_open(const struct volume_pool_config *c, void **ret, struct err **e)
{
        struct pool *p = calloc(1, sizeof(*p));
        int r;

        if (!p)
                return err_errno(e, -ENOMEM, "pool");
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->idle, NULL);
        pthread_mutex_init(&p->work_lock, NULL);
        pthread_cond_init(&p->work_wake, NULL);
        r = connect_as_new(p, c, e);
        if (r == 0)
                r = fence_enter(p, c->state, e);
        if (r < 0)
                driver_close(p);
        else
                *ret = p;
        return r;
}

/* Nothing is kept back that a close could flush. */
static void driver_abandon(void *pool _unused_, bool abandoned _unused_)
{
}

static int driver_place(void *pool, const char *id, const char *space, struct err **e)
{
        return make_place(pool, id, space, e);
}

static int driver_has(void *pool, const char *id, struct err **e)
{
        struct record rec;

        return index_find(pool, id, &rec, e);
}

static int driver_adopt(void *pool, const char *id, const char *name, struct volume_snap **ret,
                        size_t *ret_n, struct err **e)
{
        return adopt_image(pool, id, name, ret, ret_n, e);
}

static int driver_release(void *pool, const char *id, const char *name, const struct volume_snap *v,
                          size_t n, struct err **e)
{
        return adopt_release(pool, id, name, v, n, e);
}

static int driver_grant(void *pool, const char *space, bool revoke, char **ret, struct err **e)
{
        return grant(pool, space, revoke, ret, e);
}

/* In plain words, before what was tried. */
static int said(int r, struct err **e)
{
        return r == -ENOSPC || r == -EDQUOT
                       ? err_prepend(e, -ENOSPC, "the Ceph cluster, or its pool, is full")
                       : r;
}

static int driver_create(void *pool, const char *id, uint64_t size, struct err **e)
{
        return said(make_create(pool, id, size, e), e);
}

static int driver_import(void *pool, const char *id, const char *path, struct err **e)
{
        return said(make_import(pool, id, path, e), e);
}

static int driver_clone(void *pool, const char *id, const char *parent, uint64_t size,
                        struct err **e)
{
        return said(make_clone(pool, id, parent, size, e), e);
}

static int driver_snapshot(void *pool, const char *id, const char *of, struct err **e)
{
        return said(make_snapshot(pool, id, of, e), e);
}

static int driver_resize(void *pool, const char *id, uint64_t size, struct err **e)
{
        return said(change_size(pool, id, size, false, e), e);
}

static int driver_shrink(void *pool, const char *id, uint64_t size, struct err **e)
{
        return change_size(pool, id, size, true, e);
}

static int driver_revert(void *pool, const char *id, const char *to, struct err **e)
{
        return said(change_revert(pool, id, to, e), e);
}

static int driver_flatten(void *pool, const char *id, bool cancel, struct err **e)
{
        return change_flatten(pool, id, cancel, e);
}

static void driver_background(void *pool, bool on)
{
        work_background(pool, on);
}

static int driver_work(void *pool)
{
        return work_piece(pool);
}

static int driver_remove(void *pool, const char *id, struct err **e)
{
        return said(change_remove(pool, id, e), e);
}

/* ---- what there is ---- */

/* What this process knows of it. */
static void live_facts(struct pool *p, const char *id, struct volume_info *info)
{
        struct entry *en;

        WITH_LOCK(&p->lock);
        HASH_FIND_STR(p->entries, id, en);
        if (!en)
                return;
        info->users = en->users;
        if (!info->flattening)
                return;
        info->flatten_done = en->flatten_done;
        info->flatten_total = en->flatten_total;
        info->flatten_failed = en->flatten_failed;
}

static int describe(struct pool *p, const char *id, const struct record *rec,
                    struct volume_info *ret, struct err **e)
{
        rbd_image_t image;
        struct entry *en;
        int r;

        *ret = (struct volume_info){.immutable = rec->snap[0], .flattening = rec->flatten};
        strcpy(ret->id, id);
        strcpy(ret->parent, rec->parent);
        live_facts(p, id, ret);
        r = image_open_readonly(rec->io, rec->image, rec->snap, &image, e);
        if (r < 0)
                return r;
        en = NULL;
        r = rbd_get_size(image, &ret->size);
        if (r == 0)
                r = extents_used(image, rec->snap, &ret->used);
        image_return(image, en);
        if (rec->flatten && ret->flatten_total == 0)
                ret->flatten_total = ret->size;
        return r < 0 ? err_errno(e, r, "RBD image %s", rec->image) : 0;
}

static int get_made(struct pool *p, const char *id, struct record *ret, struct err **e)
{
        int r = index_get(p, id, ret, e);

        return r == 0 && !ret->made ? err_set(e, -ENOENT, "there is no such volume") : r;
}

static int driver_exists(void *pool, const char *id, struct err **e)
{
        struct record rec;

        return get_made(pool, id, &rec, e);
}

static int driver_stat(void *pool, const char *id, struct volume_info *ret, struct err **e)
{
        struct record rec;
        int r = get_made(pool, id, &rec, e);

        return r < 0 ? r : describe(pool, id, &rec, ret, e);
}

struct listing {
        struct pool *p;
        volume_info_fn each;
        void *arg;
};

static int list_one(void *arg, const char *id, const struct record *rec)
{
        _cleanup_err_ struct err *why = NULL;
        struct listing *l = arg;
        struct volume_info info;
        int r;

        if (!rec->made)
                return 0;
        r = describe(l->p, id, rec, &info, &why);
        if (r == -ENOENT) /* removed meanwhile, by another host perhaps */
                return 0;
        if (r < 0)
                log_warning("volume %s: %s", id, err_msg(why));
        return r < 0 ? 0 : l->each(l->arg, &info);
}

static int driver_list(void *pool, const char *after, volume_info_fn each, void *arg,
                       struct err **e)
{
        struct listing l = {.p = pool, .each = each, .arg = arg};
        int r = index_walk(pool, after, list_one, &l, e);

        return MIN(r, 0);
}

/* ---- open volumes ---- */

static int driver_volume_open(void *pool, const char *id, void **ret, struct err **e)
{
        struct entry *en;
        int r = volume_handle_open(pool, id, &en, e);

        if (r == 0)
                *ret = en;
        return r;
}

static void driver_volume_close(void *v)
{
        volume_handle_close(v);
}

static int driver_activate(void *v, struct err **e)
{
        return entry_activate(v, e);
}

static int driver_deactivate(void *v, struct err **e)
{
        return entry_deactivate(v, e);
}

static uint64_t driver_volume_size(void *v)
{
        struct entry *en = v;
        uint64_t size = 0;

        rbd_get_size(en->image, &size);
        return size;
}

static bool driver_immutable(void *v)
{
        return ((struct entry *)v)->immutable;
}

static int driver_extents(void *v, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        return extents_walk(((struct entry *)v)->image, n, off, each, arg);
}

static int driver_changes_open(void *v, const char *since, void **ret, struct err **e)
{
        return changes_open(v, since, ret, e);
}

/* Large writes are best given to librbd whole. */
static size_t driver_alignment(void *v _unused_)
{
        return VOLUME_SECTOR;
}

__attribute__((visibility("default"))) const struct volume_driver stratofs_volume_driver = {
        .name = "rbd",
        .caps = VOLUME_CAP_CLONE | VOLUME_CAP_IMPORT | VOLUME_CAP_GROW_OPEN | VOLUME_CAP_SNAPSHOT |
                VOLUME_CAP_REVERT,
        .pool_open = driver_open,
        .pool_close = driver_close,
        .pool_abandon = driver_abandon,
        .place = driver_place,
        .has = driver_has,
        .adopt = driver_adopt,
        .release = driver_release,
        .header_put = secrets_header_put,
        .header_get = secrets_header_get,
        .member_put = secrets_member_put,
        .member_get = secrets_member_get,
        .member_count = secrets_member_count,
        .grant = driver_grant,
        .create = driver_create,
        .import = driver_import,
        .clone = driver_clone,
        .snapshot = driver_snapshot,
        .resize = driver_resize,
        .revert = driver_revert,
        .flatten = driver_flatten,
        .shrink = driver_shrink,
        .background = driver_background,
        .work = driver_work,
        .remove = driver_remove,
        .stat = driver_stat,
        .exists = driver_exists,
        .list = driver_list,
        .open = driver_volume_open,
        .close = driver_volume_close,
        .activate = driver_activate,
        .deactivate = driver_deactivate,
        .size = driver_volume_size,
        .immutable = driver_immutable,
        .pread = io_pread,
        .pwrite = io_pwrite,
        .flush = io_flush,
        .zero = io_zero,
        .trim = io_trim,
        .extents = driver_extents,
        .changes_open = driver_changes_open,
        .changes_walk = changes_walk,
        .changes_close = changes_close,
        .run = io_run,
        .start = io_start,
        .alignment = driver_alignment,
};
