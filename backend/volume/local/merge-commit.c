/* The moment when two layers become one: see merge.h. */
#include "backend/volume/local/merge.h"

#include "backend/volume/local/index.h"
#include "backend/volume/local/sums.h"
#include "common/fault.h"
#include "common/fileio.h"

static bool same_layer(const struct meta *m, const struct meta_layer *l)
{
        int i = meta_find(m, l->n);

        return i >= 0 && memcmp(&m->layers[i], l, sizeof(*l)) == 0;
}

/* With the lock: whether all is as it was when the merge began. */
bool merge_still_so(struct pool *p, struct entry *en, const struct merge *m)
{
        const struct meta *meta = &en->meta;
        _cleanup_free_ unsigned *users = NULL;

        if (en->serial != m->serial || !same_layer(meta, &m->upper) ||
            (m->top && (en->users || en->opened != m->opened)))
                return false;
        if (m->flatten)
                return meta->flatten && streq(meta->origin, m->origin) &&
                       meta->origin_layer == m->origin_layer;
        users = pool_layer_users(p, en);
        return users && same_layer(meta, &m->lower) && users[meta_find(meta, m->lower.n)] == 1;
}

/* What the metadata is to say. */
static int result_meta(const struct entry *en, const struct merge *m, struct meta *ret)
{
        struct meta_layer *l;

        if (meta_copy(&en->meta, ret) < 0)
                return -ENOMEM;
        l = &ret->layers[meta_find(ret, m->upper.n)];
        l->data = m->up ? m->upper.data : m->lower.data;
        l->map = m->ground ? l->n : meta_next(&en->meta);
        l->below = m->flatten ? META_GROUND : m->lower.below;
        l->overlap = m->ground ? UINT64_MAX : MIN(m->upper.overlap, m->lower.overlap);
        if (!m->flatten)
                meta_take(ret, meta_find(ret, m->lower.n));
        if (!meta_on_origin(ret)) {
                ret->origin[0] = '\0';
                if (ret->flatten)
                        ret->parent[0] = '\0';
                ret->flatten = false;
        }
        return 0;
}

static int write_map(struct pool *p, const struct merge *m, unsigned n)
{
        _cleanup_free_ char *dir = pool_path(p, m->id);
        _cleanup_free_ char *path = dir ? layer_log_path(dir, n) : NULL;
        struct maplog_id id = m->u->id;

        id.layer = n;
        return path ? layer_log_write(&m->map, &id, path) : -ENOMEM;
}

/* The layers that were replaced in memory, to be freed when nobody can be reading them. */
struct old {
        struct layer *upper, *lower, *foreign;
        struct layer *new; /* what took their place */
};

/* With both locks: who has the old layers gets the new one. */
static void replace_layer(struct pool *p, struct entry *en, const struct merge *m,
                          struct layer *new, struct layer *lower, struct old *old)
{
        int i = meta_find(&en->meta, m->upper.n);
        struct layer *upper = en->loaded[i];
        struct entry *o, *tmp;

        new->refs = upper->refs;
        new->owner = en;
        new->parent = lower ? lower->parent : NULL;
        *old = (struct old){upper, lower, lower ? NULL : upper->parent, new};
        HASH_ITER (hh, p->entries, o, tmp)
                for (unsigned k = 0; k < o->meta.nlayers; k++)
                        if (o->loaded[k] && o->loaded[k]->parent == upper)
                                o->loaded[k]->parent = new;
        en->loaded[i] = new;
}

static int take_over(struct pool *p, struct entry *en, const struct merge *m, struct meta *meta,
                     struct layer **new, struct old *old)
{
        struct layer *lower = NULL;
        char origin[VOLUME_ID_SIZE] = "";
        int r, i;

        WITH_LOCK(&p->layers_lock);
        WITH_LOCK(&p->lock);
        if (!meta->origin[0])
                strcpy(origin, en->meta.origin);
        if (!m->flatten)
                lower = en->loaded[meta_find(&en->meta, m->lower.n)];
        r = pool_take_meta(en, meta);
        if (r < 0)
                return r;
        i = meta_find(&en->meta, m->upper.n);
        if (en->loaded[i])
                replace_layer(p, en, m, TAKE_PTR(*new), lower, old);
        pool_origin_put(p, origin);
        return 0;
}

/* Files that only the layers before had. */
static void unlink_old(struct pool *p, const struct merge *m)
{
        struct meta_layer gone = m->upper;

        gone.data = m->up ? m->lower.data : m->upper.data;
        if (!m->flatten) {
                pool_unlink_layer(p, m->id, &gone);
                gone = m->lower;
                gone.data = m->up ? m->lower.data : m->upper.data;
                pool_unlink_layer(p, m->id, &gone);
        } else {
                _cleanup_free_ char *dir = pool_path(p, m->id);
                _cleanup_free_ char *log = dir ? layer_log_path(dir, m->upper.map) : NULL;
                _cleanup_free_ char *mark = merge_mark_path(p, m);

                if (log)
                        unlink(log);
                if (mark)
                        unlink(mark);
        }
}

/* Waits until no I/O that began before goes on in any open volume, whose indexes forget the old
 * layers. */
static void wait_for_readers(struct pool *p, const struct old *old)
{
        char(*ids)[VOLUME_ID_SIZE];
        struct entry *en, *tmp;
        size_t n = 0;

        WITH_LOCK(&p->lock);
        do /* there is nobody to tell, and no other way */
                ids = calloc(HASH_COUNT(p->entries) + 1, VOLUME_ID_SIZE);
        while (!ids);
        HASH_ITER (hh, p->entries, en, tmp)
                memcpy(ids[n++], en->meta.id, VOLUME_ID_SIZE);
        while (n-- > 0) {
                while ((en = pool_find(p, ids[n])) && en->busy)
                        pthread_cond_wait(&p->idle, &p->lock);
                if (!en || !en->stack)
                        continue;
                en->busy = true;
                pthread_mutex_unlock(&p->lock);
                pthread_rwlock_wrlock(&en->stack->io);
                index_replace(en->stack->top->index, old->upper, old->lower, old->new);
                pthread_rwlock_unlock(&en->stack->io);
                pthread_mutex_lock(&p->lock);
                pool_release(p, en);
        }
        free(ids);
}

static void free_old(struct pool *p, struct old *old)
{
        if (!old->upper)
                return;
        wait_for_readers(p, old);
        layer_free(old->upper);
        layer_free(old->lower);
        if (old->foreign)
                pool_layer_close(p, old->foreign);
}

/* The entry is busy, and all as it was. */
static int commit(struct pool *p, struct entry *en, const struct merge *m, struct old *old,
                  struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, m->id);
        struct meta meta = {};
        struct meta_layer now;
        struct layer *new = NULL;
        int r = dir ? result_meta(en, m, &meta) : -ENOMEM;

        if (r < 0)
                return err_errno(e, r, "merge");
        now = meta.layers[meta_find(&meta, m->upper.n)];
        if (!m->ground)
                r = write_map(p, m, now.map);
        if (r == 0)
                r = FAULT("volume.merge");
        if (r < 0)
                err_errno(e, r, "write merged map");
        /* All that was copied was checked; what comes out may have that one's number. */
        if (r == 0 && !m->up && (r = sums_drop(dir, m->upper.map)) < 0)
                err_errno(e, r, "remove checksums");
        if (r == 0)
                r = merge_open_layer(p, &meta, &now, &new, e);
        if (r == 0)
                r = meta_write(dir, &meta, e);
        if (r == 0)
                r = FAULT("volume.merged");
        if (r == 0)
                r = take_over(p, en, m, &meta, &new, old);
        if (r == 0)
                unlink_old(p, m);
        else
                pool_meta_undo(p, en);
        layer_free(new);
        meta_done(&meta);
        return r;
}

void merge_finish(struct pool *p, struct entry *en, struct merge *m)
{
        _cleanup_err_ struct err *e = NULL;
        struct old old = {};
        int r = merge_sync(m);

        if (r < 0)
                err_errno(&e, r, "sync");
        else
                r = commit(p, en, m, &old, &e);
        pthread_mutex_lock(&p->lock);
        if (r < 0)
                merge_gave_up(en, m, r, e);
        pool_todo(p, en);
        pool_release(p, en);
        pthread_mutex_unlock(&p->lock);
        free_old(p, &old);
}
