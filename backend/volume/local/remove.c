/* Removing volumes, and collecting what crashes left. */
#include <dirent.h>

#include "backend/volume/local/pool.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

static void unlink_live(struct pool *p, const char *id, unsigned n)
{
        _cleanup_free_ char *live = layer_live_path(p->run, id, n);

        if (live)
                unlink(live);
}

/* Deletes the folder.  The metadata goes first and durably: what is left is a leftover. */
static int destroy_files(struct pool *p, const struct meta *m, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, m->id);
        _cleanup_free_ char *meta = path_printf("%s/%s/meta", p->dir, m->id);
        int r;

        if (!dir || !meta)
                return err_errno(e, -ENOMEM, "remove");
        if (unlink(meta) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", meta);
        r = fsync_parent(meta);
        if (r < 0)
                return err_errno(e, r, "sync '%s'", dir);
        unlink_live(p, m->id, meta_top(m)->n);
        if (remove_tree(dir, NULL) < 0)
                log_warning("'%s' could not be emptied; it will be tried again at start", dir);
        return 0;
}

/* With the lock; en is busy, unused and unreferenced.  Goes on with origins that were kept for
 * their clones only. */
static int destroy(struct pool *p, struct entry *en, struct err **e)
{
        while (en) {
                struct entry *origin;
                int r;

                pthread_mutex_unlock(&p->lock);
                r = destroy_files(p, &en->meta, e);
                pthread_mutex_lock(&p->lock);
                if (r < 0) {
                        pool_release(p, en);
                        return r;
                }
                origin = en->meta.origin[0] ? pool_find(p, en->meta.origin) : NULL;
                pool_drop(p, en);
                en = origin && --origin->refs == 0 && origin->meta.removed && !origin->busy ? origin
                                                                                            : NULL;
                if (en)
                        en->busy = true;
        }
        return 0;
}

/* With the lock: how many of en's layers its clones need, counted from the lowest. */
static unsigned layers_needed(struct pool *p, const struct entry *en)
{
        unsigned need = 0, seen = 0;
        struct entry *o, *tmp;

        HASH_ITER (hh, p->entries, o, tmp) {
                if (!streq(o->meta.origin, en->meta.id))
                        continue;
                seen++;
                need = MAX(need, (unsigned)meta_find(&en->meta, o->meta.origin_layer) + 1);
        }
        /* A clone being made this moment is counted in refs but not in the table yet. */
        return seen == en->refs && need > 0 ? need : en->meta.nlayers;
}

static void unlink_layer(struct pool *p, const char *dir, const char *id, unsigned n)
{
        _cleanup_free_ char *data = layer_data_path(dir, n), *log = layer_log_path(dir, n);

        if (data)
                unlink(data);
        if (log)
                unlink(log);
        unlink_live(p, id, n);
}

/* With the lock; en is busy and unused, and has clones. */
static int make_nameless(struct pool *p, struct entry *en, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        unsigned keep = layers_needed(p, en), had = en->meta.nlayers;
        struct meta m;
        int r;

        if (!dir || meta_copy(&en->meta, &m) < 0)
                return err_errno(e, -ENOMEM, "remove");
        m.removed = true;
        m.nlayers = keep;
        pthread_mutex_unlock(&p->lock);
        r = meta_write(dir, &m, e);
        if (r == 0) {
                for (unsigned i = keep; i < had; i++)
                        unlink_layer(p, dir, m.id, m.layers[i].n);
                unlink_live(p, m.id, m.layers[keep - 1].n);
        }
        /* Layer lists change with both locks, and layers_lock comes first. */
        pthread_mutex_lock(&p->layers_lock);
        pthread_mutex_lock(&p->lock);
        if (r == 0) {
                en->meta.removed = true;
                en->meta.nlayers = keep;
        }
        pthread_mutex_unlock(&p->layers_lock);
        meta_done(&m);
        return r;
}

int pool_remove(struct pool *p, const char *id, struct err **e)
{
        struct entry *en;
        int r;

        WITH_LOCK(&p->lock);
        en = pool_acquire(p, id);
        if (!en)
                return 0;
        if (en->users > 0) {
                pool_release(p, en);
                return err_set(e, -EBUSY, "it is in use");
        }
        if (en->refs == 0)
                return destroy(p, en, e);
        r = make_nameless(p, en, e);
        /* The last clone may have gone meanwhile. */
        if (r == 0 && en->refs == 0)
                return destroy(p, en, e);
        pool_release(p, en);
        return r;
}

/* Whether the metadata speaks of this file. */
static bool known_file(const struct meta *m, const char *name)
{
        unsigned n;
        int end = -1;

        if (streq(name, META_NAME) || streq(name, META_COPY) || streq(name, "failed"))
                return true;
        if (sscanf(name, "sum.%u%n", &n, &end) == 1 && name[end] == '\0')
                return meta_find(m, n) >= 0;
        end = -1;
        if (sscanf(name, "data.%u%n", &n, &end) == 1 && name[end] == '\0')
                return meta_find(m, n) >= 0;
        end = -1;
        if (sscanf(name, "map.%u%n", &n, &end) == 1 && name[end] == '\0')
                return meta_find(m, n) >= 0;
        return false;
}

static void collect_folder(struct pool *p, const char *name)
{
        _cleanup_free_ char *dir = pool_path(p, name);
        _cleanup_free_ char *meta = path_printf("%s/%s/meta", p->dir, name);
        struct entry *en = pool_find(p, name);
        struct dirent *de;
        DIR *d;

        if (!dir || !meta)
                return;
        if (!en && access(meta, F_OK) < 0 && errno == ENOENT) {
                log_info("collecting '%s': no volume", dir);
                remove_tree(dir, NULL);
        }
        d = en ? opendir(dir) : NULL;
        if (!d)
                return;
        while ((de = readdir(d)))
                if (de->d_name[0] != '.' && !known_file(&en->meta, de->d_name) &&
                    unlinkat(dirfd(d), de->d_name, 0) == 0)
                        log_info("collected '%s/%s'", dir, de->d_name);
        closedir(d);
}

/* Live maps of anything but a top layer that may be written. */
static void collect_live(struct pool *p, const char *dir, const char *name)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);
        _cleanup_free_ char *folder = NULL;
        char id[VOLUME_ID_SIZE] = "";
        struct entry *en;
        unsigned n;
        int end = -1;

        if (sscanf(name, "%36[0-9a-f-].%u%n", id, &n, &end) == 2 && end > 0 && !name[end]) {
                en = pool_find(p, id);
                if (en && !en->meta.removed && meta_top(&en->meta)->n == n)
                        return;
                folder = pool_path(p, id);
                if (!en && folder && access(folder, F_OK) == 0)
                        return; /* left out at start: not ours to judge */
        }
        if (path)
                unlink(path);
}

static int each_name(struct pool *p, const char *dir,
                     void (*each)(struct pool *p, const char *dir, const char *name),
                     struct err **e)
{
        DIR *d = opendir(dir);
        struct dirent *de;

        if (!d)
                return err_errno(e, -errno, "open '%s'", dir);
        while ((de = readdir(d)))
                if (de->d_name[0] != '.')
                        each(p, dir, de->d_name);
        closedir(d);
        return 0;
}

static void collect_name(struct pool *p, const char *dir _unused_, const char *name)
{
        sd_id128_t id;

        if (id_parse(name, &id) == 0)
                collect_folder(p, name);
}

int pool_collect(struct pool *p, struct err **e)
{
        _cleanup_free_ char *live = path_printf("%s/map", p->run);
        struct entry *en, *tmp;
        bool again = true;
        int r;

        if (!live)
                return err_errno(e, -ENOMEM, "collect");
        r = each_name(p, p->dir, collect_name, e);
        if (r == 0)
                r = each_name(p, live, collect_live, e);
        WITH_LOCK(&p->lock);
        while (r == 0 && again) { /* one removal may take others of the table with it */
                again = false;
                HASH_ITER (hh, p->entries, en, tmp) {
                        if (!en->meta.removed || en->refs > 0)
                                continue;
                        en->busy = true;
                        r = destroy(p, en, e);
                        again = true;
                        break;
                }
        }
        return r;
}
