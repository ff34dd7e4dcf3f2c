/* The layers of a volume as a tree: who needs which, and new tops on old layers. */
#include "backend/volume/local/pool.h"

#include "backend/volume/local/sums.h"
#include "common/fault.h"
#include "common/fileio.h"

/* With the lock: counts the clones that grow from each of m's layers, which are to be en's.  False
 * while one is being made, which counts in refs but is not in the table yet. */
static bool count_clones(struct pool *p, const struct entry *en, const struct meta *m,
                         unsigned *count)
{
        struct entry *o, *tmp;
        unsigned seen = 0;

        if (en->refs == 0)
                return true;
        HASH_ITER (hh, p->entries, o, tmp) {
                int i;

                if (!streq(o->meta.origin, en->meta.id))
                        continue;
                seen++;
                i = meta_find(m, o->meta.origin_layer);
                if (i >= 0)
                        count[i]++;
        }
        return seen == en->refs;
}

unsigned *pool_layer_users(struct pool *p, const struct entry *en)
{
        const struct meta *m = &en->meta;
        unsigned *users = calloc(m->nlayers, sizeof(*users));

        if (!users || !count_clones(p, en, m, users)) {
                free(users);
                return NULL;
        }
        users[m->nlayers - 1] += !m->removed;
        for (unsigned i = 0; i < m->nlayers; i++)
                if (m->layers[i].below >= 0)
                        users[meta_find(m, m->layers[i].below)]++;
        return users;
}

/* How much each of m's layers is needed: as a clone's origin, the top, or under one that is. */
static unsigned *needed(struct pool *p, const struct entry *en, const struct meta *m)
{
        unsigned *need = calloc(m->nlayers, sizeof(*need));

        if (!need || !count_clones(p, en, m, need)) {
                free(need);
                return NULL;
        }
        need[m->nlayers - 1] += !m->removed;
        for (unsigned i = m->nlayers; i-- > 0;)
                if (need[i] && m->layers[i].below >= 0)
                        need[meta_find(m, m->layers[i].below)]++;
        return need;
}

bool pool_prune(struct pool *p, const struct entry *en, struct meta *m)
{
        _cleanup_free_ unsigned *need = needed(p, en, m);
        bool any = false;

        for (int i = m->nlayers - 1; need && i >= 0; i--) {
                if (need[i] || m->nlayers == 1)
                        continue;
                meta_take(m, i);
                any = true;
        }
        if (!meta_on_origin(m))
                m->origin[0] = '\0';
        return any;
}

void pool_unlink_layer(struct pool *p, const char *id, const struct meta_layer *l)
{
        _cleanup_free_ char *dir = pool_path(p, id);
        _cleanup_free_ char *data = dir ? layer_data_path(dir, l->data) : NULL;
        _cleanup_free_ char *log = dir ? layer_log_path(dir, l->map) : NULL;
        _cleanup_free_ char *live = layer_live_path(p->run, id, l->map);
        _cleanup_free_ char *mark = dir ? path_printf("%s/flatten.%u", dir, l->n) : NULL;

        if (!data || !log || !live || !mark)
                return;
        unlink(data);
        unlink(log);
        unlink(live);
        unlink(mark);
        sums_drop(dir, l->map);
}

int pool_take_meta(struct entry *en, struct meta *m)
{
        struct layer **loaded = calloc(m->nlayers, sizeof(*loaded));

        if (!loaded)
                return -ENOMEM;
        for (unsigned i = 0; i < m->nlayers; i++) {
                int was = meta_find(&en->meta, m->layers[i].n);

                if (was >= 0)
                        loaded[i] = en->loaded[was];
        }
        free(en->loaded);
        en->loaded = loaded;
        /* The id is the table's key: only what it is the key of changes. */
        free(en->meta.layers);
        strcpy(en->meta.parent, m->parent);
        strcpy(en->meta.origin, m->origin);
        en->meta.origin_layer = m->origin_layer;
        en->meta.removed = m->removed;
        en->meta.flatten = m->flatten;
        en->meta.nlayers = m->nlayers;
        en->meta.layers = TAKE_PTR(m->layers);
        return 0;
}

void pool_origin_put(struct pool *p, const char *origin)
{
        struct entry *o = origin[0] ? pool_find(p, origin) : NULL;

        if (!o)
                return;
        o->refs--;
        pool_todo(p, o);
}

int pool_meta_restore(struct pool *p, const struct entry *en)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        struct meta now = {};
        bool old = dir && meta_read(dir, &now, NULL) == 0 && meta_same(&now, &en->meta);
        int r = old ? 0 : dir ? meta_write(dir, &en->meta, NULL) : -ENOMEM;

        meta_done(&now);
        return r;
}

void pool_meta_undo(struct pool *p, const struct entry *en)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);

        if (pool_meta_restore(p, en) < 0 && dir)
                stack_mark_failed(dir);
}

int pool_set_meta(struct pool *p, struct entry *en, struct meta *m, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        struct meta old = {};
        int r;

        if (!dir || meta_copy(&en->meta, &old) < 0)
                return err_errno(e, -ENOMEM, "metadata");
        r = meta_write(dir, m, e);
        if (r == 0) {
                pthread_mutex_lock(&p->layers_lock);
                pthread_mutex_lock(&p->lock);
                r = pool_take_meta(en, m);
                if (r == 0 && old.origin[0] && !en->meta.origin[0])
                        pool_origin_put(p, old.origin);
                pthread_mutex_unlock(&p->lock);
                pthread_mutex_unlock(&p->layers_lock);
        }
        if (r < 0)
                pool_meta_undo(p, en);
        for (unsigned i = 0; r == 0 && i < old.nlayers; i++)
                if (meta_find(&en->meta, old.layers[i].n) < 0)
                        pool_unlink_layer(p, old.id, &old.layers[i]);
        meta_done(&old);
        return r;
}

int pool_put_top(struct pool *p, struct entry *en, struct meta *m, const char *fault,
                 struct err **e)
{
        int r = pool_layer_files(p, en->meta.id, meta_top(m)->n, e);

        if (r == 0 && fault_armed && (r = fault_hit(fault)) < 0)
                err_errno(e, r, "fault point");
        return r < 0 ? r : pool_set_meta(p, en, m, e);
}

/* With the lock: both, idle; NULL with words. */
static struct entry *find_both(struct pool *p, const char *id, const char *to,
                               struct entry **ret_to, struct err **e)
{
        for (;;) {
                struct entry *en = pool_find(p, id);

                *ret_to = pool_find(p, to);
                if (!en || en->meta.removed || !*ret_to || (*ret_to)->meta.removed) {
                        err_set(e, -ENOENT, "there is no volume '%s'",
                                !en || en->meta.removed ? id : to);
                        return NULL;
                }
                if (!en->busy && !(*ret_to)->busy)
                        return en;
                pthread_cond_wait(&p->idle, &p->lock);
        }
}

/* Where the new top of en lies: on what the snapshot lies. */
static int revert_meta(struct entry *en, const struct entry *to, struct meta *m, struct err **e)
{
        const struct meta *s = &to->meta;
        const bool own = streq(s->origin, en->meta.id);

        if (!s->immutable || !s->origin[0] || !streq(s->parent, en->meta.id))
                return err_set(e, -EINVAL, "volume %s is no snapshot of it", s->id);
        if (!own && en->meta.origin[0] &&
            (!streq(s->origin, en->meta.origin) || s->origin_layer != en->meta.origin_layer))
                return err_set(e, -EINVAL, "the snapshot %s grew from elsewhere", s->id);
        if (meta_copy(&en->meta, m) < 0)
                return err_errno(e, -ENOMEM, "revert");
        if (meta_push(m, meta_next(m), meta_top(s)->size) < 0) {
                meta_done(m);
                return err_errno(e, -ENOMEM, "revert");
        }
        m->layers[m->nlayers - 1].below = own ? (int)s->origin_layer : META_ORIGIN;
        if (!own) {
                strcpy(m->origin, s->origin);
                m->origin_layer = s->origin_layer;
        }
        return 0;
}

int pool_revert(struct pool *p, const char *id, const char *to, struct err **e)
{
        struct entry *en, *snap;
        struct meta m;
        bool newly;
        int r;

        WITH_LOCK(&p->lock);
        en = find_both(p, id, to, &snap, e);
        if (!en)
                return -ENOENT;
        if (en->meta.immutable)
                return err_set(e, -EROFS, "it is immutable");
        if (en->users > 0)
                return err_set(e, -EBUSY, "it is in use");
        r = revert_meta(en, snap, &m, e);
        if (r < 0)
                return r;
        newly = !en->meta.origin[0] && m.origin[0];
        if (newly)
                pool_find(p, m.origin)->refs++;
        pool_prune(p, en, &m);
        en->busy = snap->busy = true;
        pthread_mutex_unlock(&p->lock);
        r = pool_settle(p, en, e); /* its top is frozen now */
        if (r == 0)
                r = pool_put_top(p, en, &m, "volume.revert", e);
        pthread_mutex_lock(&p->lock);
        if (r < 0 && newly)
                pool_find(p, m.origin)->refs--;
        meta_done(&m);
        pool_release(p, snap);
        pool_todo(p, en);
        pool_release(p, en);
        return r;
}

int pool_shrink(struct pool *p, const char *id, uint64_t size, struct err **e)
{
        struct entry *en;
        struct meta m;
        int r = 0;

        WITH_LOCK(&p->lock);
        en = pool_acquire(p, id);
        if (!en)
                return err_set(e, -ENOENT, "there is no such volume");
        if (en->meta.immutable)
                r = err_set(e, -EROFS, "it is immutable");
        else if (en->users > 0)
                r = err_set(e, -EBUSY, "it is in use");
        else if (size < meta_top(&en->meta)->size && meta_copy(&en->meta, &m) < 0)
                r = err_errno(e, -ENOMEM, "resize");
        if (r < 0 || size >= meta_top(&en->meta)->size) {
                pool_release(p, en);
                return r;
        }
        pthread_mutex_unlock(&p->lock);
        r = pool_settle(p, en, e);
        if (r == 0 && meta_push(&m, meta_next(&m), size) < 0)
                r = err_errno(e, -EMLINK, "resize");
        if (r == 0) {
                m.layers[m.nlayers - 1].overlap = size;
                r = pool_put_top(p, en, &m, "volume.shrink", e);
        }
        meta_done(&m);
        pthread_mutex_lock(&p->lock);
        pool_todo(p, en);
        pool_release(p, en);
        return r;
}
