/* From two layers to one: choosing, and step by step.  See merge.h. */
#include "backend/volume/local/merge.h"

#include <fcntl.h>
#include <inttypes.h>

#include "backend/volume/local/sums.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"

static void merge_free(struct pool *p, struct merge *m)
{
        if (!m)
                return;
        if (m->fd >= 0)
                close(m->fd);
        map_done(&m->map);
        layer_free(m->u);
        if (m->flatten && m->below)
                pool_layer_close(p, m->below);
        else
                layer_free(m->below);
        if (m->counted) {
                pthread_mutex_lock(&p->lock);
                pool_origin_put(p, m->origin);
                pthread_mutex_unlock(&p->lock);
        }
        free(m);
}

void merge_drop(struct pool *p)
{
        merge_free(p, TAKE_PTR(p->merge));
}

void merge_put_off(struct pool *p)
{
        struct entry *en;

        if (!p->merge)
                return;
        pthread_mutex_lock(&p->lock);
        en = pool_find(p, p->merge->id);
        if (en)
                pool_todo(p, en);
        pthread_mutex_unlock(&p->lock);
        merge_drop(p);
}

/* With the lock: the entry, removed or not, marked busy; NULL if there is none. */
static struct entry *take_entry(struct pool *p, const char *id)
{
        struct entry *en;

        while ((en = pool_find(p, id)) && en->busy)
                pthread_cond_wait(&p->idle, &p->lock);
        if (en)
                en->busy = true;
        return en;
}

int merge_open_layer(struct pool *p, const struct meta *meta, const struct meta_layer *l,
                     struct layer **ret, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, meta->id);
        const struct layer_open o = {.dir = dir,
                                     .run = p->run,
                                     .volume = meta->id,
                                     .data = l->data,
                                     .map = l->map,
                                     .size = l->size,
                                     .overlap = l->overlap,
                                     .mapped = l->below != META_GROUND,
                                     .direct = p->direct};

        return dir ? layer_open(&o, ret, e) : err_errno(e, -ENOMEM, "layer");
}

/* ---- choosing; the entry is busy ---- */

/* With the lock: a layer that only one other of the volume lies on, and that one. */
static bool find_pair(struct pool *p, struct entry *en, struct merge *m)
{
        const struct meta *meta = &en->meta;
        _cleanup_free_ unsigned *users = pool_layer_users(p, en);
        bool top;

        for (unsigned k = 1; users && k < meta->nlayers; k++) {
                int i = meta_find(meta, meta->layers[k].below);

                if (i < 0 || users[i] != 1)
                        continue;
                top = k == meta->nlayers - 1 && !meta->removed;
                if (top && en->users > 0)
                        continue;
                m->top = top;
                m->lower = meta->layers[i];
                m->upper = meta->layers[k];
                m->ground = m->lower.below == META_GROUND;
                return true;
        }
        return false;
}

/* A layer on the origin, frozen. */
static int find_on_origin(struct pool *p, struct entry *en, struct merge *m, struct err **e)
{
        const struct meta *meta = &en->meta;
        bool opened = en->users == 0;
        unsigned i = 0;
        int r = 0;

        while (meta->layers[i].below != META_ORIGIN)
                i++;
        if (i == meta->nlayers - 1) {
                if (opened)
                        r = pool_stack_open(p, en, e);
                if (r < 0)
                        return r;
                r = pool_push_layer(p, en, e);
                if (opened)
                        pool_stack_close(p, en);
        }
        m->flatten = m->ground = true;
        m->upper = meta->layers[i];
        strcpy(m->origin, meta->origin);
        m->origin_layer = meta->origin_layer;
        return r;
}

char *merge_mark_path(struct pool *p, const struct merge *m)
{
        return path_printf("%s/%s/flatten.%u", p->dir, m->id, m->upper.n);
}

/* Where one that was cut off may go on: the bytes before are on disk. */
static void read_mark(struct pool *p, struct merge *m)
{
        _cleanup_free_ char *path = merge_mark_path(p, m), *text = NULL;
        uint64_t off;

        if (path && file_read(path, 64, &text, NULL, NULL) == 0 &&
            sscanf(text, "%" SCNu64, &off) == 1 && off < m->end && off % MAP_BLOCK == 0)
                m->off = m->marked = off;
}

int merge_sync(const struct merge *m)
{
        int r = FAULT("volume.merge.sync");

        return r == 0 && fdatasync(m->fd) < 0 ? -errno : r;
}

/* Only what is long is worth a mark. */
static int write_mark(struct pool *p, struct merge *m)
{
        enum { EVERY = 256 << 20 };
        _cleanup_free_ char *path = merge_mark_path(p, m);
        uint64_t off = m->off / MAP_BLOCK * MAP_BLOCK;
        char text[32];
        int r;

        if (!m->flatten || off < m->marked + EVERY || !path)
                return 0;
        r = merge_sync(m);
        if (r < 0)
                return r;
        snprintf(text, sizeof(text), "%" PRIu64 "\n", off);
        if (file_replace(path, text, strlen(text), 0600, NULL) == 0)
                m->marked = off;
        return 0;
}

static int open_lower(struct pool *p, struct entry *en, struct merge *m, struct err **e)
{
        struct entry *origin;

        if (!m->flatten)
                return merge_open_layer(p, &en->meta, &m->lower, &m->below, e);
        pthread_mutex_lock(&p->lock);
        origin = pool_find(p, m->origin);
        if (origin) { /* so that it stays, even if our volume is removed meanwhile */
                origin->refs++;
                m->counted = true;
        }
        pthread_mutex_unlock(&p->lock);
        if (!origin || meta_find(&origin->meta, m->origin_layer) < 0)
                return err_set(e, -EUCLEAN, "what it grew from is missing");
        return pool_layer_open(p, origin, meta_find(&origin->meta, m->origin_layer), &m->below, e);
}

static int open_both(struct pool *p, struct entry *en, struct merge *m, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, m->id), *path = NULL;
        int r = merge_open_layer(p, &en->meta, &m->upper, &m->u, e);

        if (r == 0)
                r = open_lower(p, en, m, e);
        if (r < 0)
                return r;
        merge_choose(m);
        m->end = m->upper.size;
        m->vis = MIN(m->upper.overlap, m->below->size);
        path = dir ? layer_data_path(dir, m->up ? m->upper.data : m->lower.data) : NULL;
        m->fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        if (m->fd < 0)
                return err_errno(e, path ? -errno : -ENOMEM, "open data file");
        if (!m->ground && map_init(&m->map, (m->end + MAP_BLOCK - 1) / MAP_BLOCK, -1, 0) < 0)
                return err_errno(e, -ENOMEM, "map");
        if (m->flatten)
                read_mark(p, m);
        return 0;
}

/* Nothing lies on the origin any more: that is what was wanted. */
static int flattened(struct pool *p, struct entry *en, struct err **e)
{
        struct meta m;
        int r;

        if (meta_copy(&en->meta, &m) < 0)
                return err_errno(e, -ENOMEM, "flatten");
        m.flatten = false;
        m.parent[0] = m.origin[0] = '\0';
        r = pool_set_meta(p, en, &m, e);
        meta_done(&m);
        return r;
}

/* Layers that nobody needs go. */
static int prune(struct pool *p, struct entry *en, struct err **e)
{
        struct meta m;
        bool any;
        int r = 0;

        if (meta_copy(&en->meta, &m) < 0)
                return err_errno(e, -ENOMEM, "layers");
        pthread_mutex_lock(&p->lock);
        any = pool_prune(p, en, &m);
        pthread_mutex_unlock(&p->lock);
        if (any && (r = FAULT("volume.prune")) < 0)
                err_errno(e, r, "fault point");
        if (any && r == 0)
                r = pool_set_meta(p, en, &m, e);
        meta_done(&m);
        return r;
}

/* What is frozen is merged from its files: they must say all. */
static int settle_below(struct pool *p, struct entry *en, struct err **e)
{
        int r;

        if (en->meta.removed || en->rests)
                return 0;
        if (!en->stack)
                return pool_settle(p, en, e);
        r = stack_settle(en->stack);
        return r < 0 ? err_errno(e, r, "flush") : 0;
}

/* 1: m is ready, 0: there is nothing to do. */
static int look(struct pool *p, struct entry *en, struct merge *m, struct err **e)
{
        bool pair;
        int r = prune(p, en, e);

        if (r < 0)
                return r;
        pthread_mutex_lock(&p->lock);
        pair = !en->stuck && find_pair(p, en, m);
        pthread_mutex_unlock(&p->lock);
        if (!pair && en->meta.flatten && !meta_on_origin(&en->meta))
                return flattened(p, en, e);
        if (!pair && (!en->meta.flatten || en->flatten_failed))
                return 0;
        r = settle_below(p, en, e);
        if (r < 0)
                return r;
        if (!pair)
                r = find_on_origin(p, en, m, e);
        else if (m->top)
                r = pool_settle(p, en, e);
        m->opened = en->opened;
        if (r == 0)
                r = open_both(p, en, m, e);
        return r < 0 ? r : 1;
}

void merge_gave_up(struct entry *en, const struct merge *m, int r, struct err *e)
{
        if (m->flatten)
                en->flatten_failed = r;
        else
                en->stuck = true;
        log_error("volume %s: layers cannot be merged: %s", en->meta.id,
                  e ? err_msg(e) : strerror(-r));
}

int merge_begin(struct pool *p, const char *id)
{
        struct merge *m = calloc(1, sizeof(*m));
        _cleanup_err_ struct err *e = NULL;
        struct entry *en;
        int r;

        WITH_LOCK(&p->lock);
        en = m ? take_entry(p, id) : NULL;
        if (!en) {
                free(m);
                return 0;
        }
        en->todo = false;
        if (en->meta.removed && en->refs == 0) {
                free(m);
                pool_destroy(p, en, NULL);
                return 0;
        }
        m->fd = -1;
        m->serial = en->serial;
        strcpy(m->id, id);
        pthread_mutex_unlock(&p->lock);
        r = look(p, en, m, &e);
        pthread_mutex_lock(&p->lock);
        if (r < 0)
                merge_gave_up(en, m, r, e);
        pool_release(p, en);
        pthread_mutex_unlock(&p->lock);
        if (r == 1)
                p->merge = m;
        else
                merge_free(p, m);
        pthread_mutex_lock(&p->lock); /* for who leaves */
        return r == 1;
}

/* ---- step by step ---- */

/* The file is about to change: its checksums go, and of the lower one's what is not seen. */
static int begin_writing(struct pool *p, struct merge *m)
{
        const struct meta_layer *kept = m->up ? &m->upper : &m->lower;
        _cleanup_free_ char *dir = pool_path(p, m->id);
        const uint64_t cut = MIN(m->vis, m->upper.size);
        struct entry *en;
        int r, i;

        pthread_mutex_lock(&p->layers_lock);
        pthread_mutex_lock(&p->lock);
        en = pool_find(p, m->id);
        if (en && en->serial != m->serial)
                en = NULL;
        i = en ? meta_find(&en->meta, kept->n) : -1;
        if (i >= 0 && en->loaded[i] && en->loaded[i]->sums)
                en->loaded[i]->sums->off = true; /* for reads that are under way, too */
        pthread_mutex_unlock(&p->lock);
        pthread_mutex_unlock(&p->layers_lock);
        if (!en)
                return 0; /* it is gone, as the next step will see */
        r = dir ? sums_drop(dir, kept->map) : -ENOMEM;
        if (r == 0 && !m->up && (ftruncate(m->fd, cut) < 0 || ftruncate(m->fd, m->upper.size) < 0))
                r = -errno;
        m->writing = r == 0;
        return r;
}

static int slice(struct pool *p, struct merge *m)
{
        int r = m->writing ? 0 : merge_check(m);

        if (r == 1)
                r = begin_writing(p, m);
        if (r == 0 && m->writing)
                r = merge_copy(m);
        return r < 0 ? r : write_mark(p, m);
}

/* It will not be finished, or only from its beginning: the room that it has taken is given back.
 * First the mark is gone for good, which says that the bytes are there. */
static void take_back(struct pool *p, struct merge *m)
{
        _cleanup_free_ char *path = merge_mark_path(p, m);

        if (!m->up || m->top || !path)
                return;
        if (m->marked && ((unlink(path) < 0 && errno != ENOENT) || fsync_parent(path) < 0))
                return;
        merge_uncopy(m);
}

void merge_step(struct pool *p)
{
        struct merge *m = p->merge;
        struct entry *en;
        bool so;
        int r = 0;

        pthread_mutex_lock(&p->lock);
        en = take_entry(p, m->id);
        so = en && merge_still_so(p, en, m);
        if (so && m->flatten) {
                en->flatten_done = m->off;
                en->flatten_total = m->end;
        }
        if (so && m->off < m->end && !m->top)
                pool_release(p, en); /* frozen ones need no protection */
        pthread_mutex_unlock(&p->lock);
        if (so && m->off == m->end) {
                merge_finish(p, en, m);
                merge_drop(p);
                return;
        }
        if (so)
                r = slice(p, m);
        pthread_mutex_lock(&p->lock);
        if (!so || m->top || r < 0) {
                en = !so || m->top ? en : take_entry(p, m->id);
                if (en && r < 0)
                        merge_gave_up(en, m, r, NULL);
                if (en) {
                        pool_todo(p, en);
                        pool_release(p, en);
                }
        }
        pthread_mutex_unlock(&p->lock);
        if (!so || r < 0) {
                take_back(p, m);
                merge_drop(p);
        }
}
