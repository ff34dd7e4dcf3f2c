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
        unlink_live(p, m->id, meta_top(m)->map);
        if (remove_tree(dir, NULL) < 0)
                log_warning("'%s' could not be emptied; it will be tried again at start", dir);
        return 0;
}

/* With the lock: a volume less grows from origin.  True if it was kept for that one only: it is
 * busy now, and to be destroyed. */
static bool drop_ref(struct entry *origin)
{
        if (--origin->refs > 0 || !origin->meta.removed || origin->busy)
                return false;
        origin->busy = true;
        return true;
}

int pool_destroy(struct pool *p, struct entry *en, struct err **e)
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
                en = NULL;
                if (origin && drop_ref(origin))
                        en = origin;
                else if (origin)
                        pool_todo(p, origin);
        }
        return 0;
}

void pool_unref(struct pool *p, struct entry *origin)
{
        if (drop_ref(origin))
                pool_destroy(p, origin, NULL); /* what stays is collected at the next start */
}

/* With the lock; en is busy and unused, and has clones. */
static int make_nameless(struct pool *p, struct entry *en, struct err **e)
{
        unsigned top = meta_top(&en->meta)->map;
        struct meta m;
        int r;

        if (meta_copy(&en->meta, &m) < 0)
                return err_errno(e, -ENOMEM, "remove");
        m.removed = true;
        m.flatten = false;
        pool_prune(p, en, &m);
        pthread_mutex_unlock(&p->lock);
        r = pool_set_meta(p, en, &m, e);
        if (r == 0)
                unlink_live(p, en->meta.id, top);
        pthread_mutex_lock(&p->lock);
        meta_done(&m);
        if (r == 0)
                pool_todo(p, en);
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
                return pool_destroy(p, en, e);
        r = make_nameless(p, en, e);
        /* The last clone may have gone meanwhile. */
        if (r == 0 && en->refs == 0)
                return pool_destroy(p, en, e);
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
        if (sscanf(name, "flatten.%u%n", &n, &end) == 1 && end > 0 && name[end] == '\0')
                return m->flatten && meta_find(m, n) >= 0;
        for (unsigned i = 0; i < m->nlayers; i++) {
                char data[32], map[32], sum[32];

                snprintf(data, sizeof(data), "data.%u", m->layers[i].data);
                snprintf(map, sizeof(map), "map.%u", m->layers[i].map);
                snprintf(sum, sizeof(sum), "sum.%u", m->layers[i].map);
                if (streq(name, data) || (meta_mapped(m, i) && streq(name, map)) ||
                    streq(name, sum))
                        return true;
        }
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
                if (en && !en->meta.removed && meta_top(&en->meta)->map == n)
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
                        r = pool_destroy(p, en, e);
                        again = true;
                        break;
                }
        }
        return r;
}
