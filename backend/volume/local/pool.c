#include "backend/volume/local/pool.h"

#include <dirent.h>
#include <sys/stat.h>

#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

char *pool_path(const struct pool *p, const char *id)
{
        return path_printf("%s/%s", p->dir, id);
}

struct entry *pool_find(struct pool *p, const char *id)
{
        struct entry *en;

        HASH_FIND_STR(p->entries, id, en);
        return en;
}

struct entry *pool_acquire(struct pool *p, const char *id)
{
        struct entry *en;

        while ((en = pool_find(p, id)) && en->busy)
                pthread_cond_wait(&p->idle, &p->lock);
        if (!en || en->meta.removed)
                return NULL;
        en->busy = true;
        return en;
}

void pool_release(struct pool *p, struct entry *en)
{
        en->busy = false;
        if (en->todo)
                pthread_cond_signal(&p->wanted);
        pthread_cond_broadcast(&p->idle);
}

struct entry *pool_add(struct pool *p, struct meta *m)
{
        struct entry *en = calloc(1, sizeof(*en));

        if (!en)
                return NULL;
        en->loaded = calloc(m->nlayers, sizeof(struct layer *));
        if (!en->loaded) {
                free(en);
                return NULL;
        }
        en->serial = ++p->serials;
        en->meta = *m;
        *m = (struct meta){};
        HASH_ADD_STR(p->entries, meta.id, en);
        return en;
}

void pool_drop(struct pool *p, struct entry *en)
{
        HASH_DEL(p->entries, en);
        meta_done(&en->meta);
        free(en->loaded);
        free(en);
        pthread_cond_broadcast(&p->idle);
}

/* A blockd that was killed may have left names in the folder that are not on disk yet; from now on
 * others build on them. */
static int settle_names(const char *meta, struct err **e)
{
        int r = fsync_parent(meta);

        return r < 0 ? err_errno(e, r, "sync the folder of '%s'", meta) : 0;
}

static int scan_one(struct pool *p, const char *name, bool shared, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, name);
        _cleanup_free_ char *file = path_printf("%s/%s/meta", p->dir, name);
        struct meta m = {};
        sd_id128_t id;
        int r;

        if (!dir || !file)
                return err_errno(e, -ENOMEM, "scan");
        if (id_parse(name, &id) < 0)
                return 0;
        r = shared ? 0 : settle_names(file, e);
        if (r < 0)
                return r;
        if (access(file, F_OK) < 0 && errno == ENOENT)
                return 0; /* half made or half removed: pool_collect() */
        r = meta_read(dir, &m, e);
        if (r == 0 && !streq(m.id, name))
                r = err_set(e, -EUCLEAN, "'%s' says it is volume %s", dir, m.id);
        if (r == 0 && !pool_add(p, &m))
                r = err_errno(e, -ENOMEM, "scan");
        meta_done(&m);
        return r;
}

static int scan(struct pool *p, bool shared, struct err **e)
{
        DIR *d = opendir(p->dir);
        struct dirent *de;

        if (!d)
                return err_errno(e, -errno, "open '%s'", p->dir);
        if (!shared && fsync(dirfd(d)) < 0) {
                closedir(d);
                return err_errno(e, -errno, "sync '%s'", p->dir);
        }
        while ((de = readdir(d))) {
                _cleanup_err_ struct err *why = NULL;
                int r;

                if (de->d_name[0] == '.')
                        continue;
                r = scan_one(p, de->d_name, shared, &why);
                if (r == -ENOMEM || r == -ENOTSUP) {
                        closedir(d);
                        return err_move(e, TAKE_PTR(why));
                }
                /* One bad volume must not keep the others from their guests. */
                if (r < 0)
                        log_error("volume left out: %s", err_msg(why));
        }
        closedir(d);
        return 0;
}

/* Both copies of the metadata as they should be: one that is damaged, or from before there were
 * two, is written anew. */
static void refresh(struct pool *p)
{
        struct entry *en, *tmp;

        HASH_ITER (hh, p->entries, en, tmp) {
                _cleanup_free_ char *dir = pool_path(p, en->meta.id);
                _cleanup_err_ struct err *e = NULL;

                if (!dir || !meta_bad(dir, &en->meta))
                        continue;
                log_warning("volume %s: its metadata was damaged, or from before there were two "
                            "copies: written anew",
                            en->meta.id);
                if (meta_write(dir, &en->meta, &e) < 0)
                        log_error("volume %s: its metadata stays as it is: %s", en->meta.id,
                                  err_msg(e));
        }
}

static int count_refs(struct pool *p)
{
        struct entry *en, *tmp;

        HASH_ITER (hh, p->entries, en, tmp) {
                struct entry *origin = en->meta.origin[0] ? pool_find(p, en->meta.origin) : NULL;

                if (origin)
                        origin->refs++;
                en->todo = true;
        }
        return 0;
}

/* Makes the pool's folder, durably; who may not read the state folder's parent leaves that to the
 * one who made it. */
static int make_dir(struct pool *p, const char *state, struct err **e)
{
        int r = mkdir_parents(p->dir, 0700, e);

        if (r < 0)
                return r;
        r = fsync_parent(p->dir);
        if (r == 0 && (r = fsync_parent(state)) == -EACCES)
                r = 0;
        return r < 0 ? err_errno(e, r, "sync '%s'", state) : 0;
}

int pool_open(const struct volume_pool_config *c, struct pool **ret, struct err **e)
{
        _cleanup_free_ char *live = path_printf("%s/map", c->run);
        struct pool *p = calloc(1, sizeof(*p));
        pthread_condattr_t attr;
        int r;

        if (!p || !live)
                return err_errno(e, -ENOMEM, "pool");
        pthread_mutex_init(&p->lock, NULL);
        pthread_mutex_init(&p->layers_lock, NULL);
        pthread_mutex_init(&p->work, NULL);
        pthread_cond_init(&p->idle, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&p->wanted, &attr);
        pthread_condattr_destroy(&attr);
        p->dir = path_printf("%s/pool", c->state);
        p->run = strdup(c->run);
        p->direct = c->direct;
        r = p->dir && p->run ? 0 : err_errno(e, -ENOMEM, "pool");
        if (r == 0)
                r = make_dir(p, c->state, e);
        if (r == 0)
                r = mkdir_parents(live, 0700, e);
        if (r == 0)
                r = scan(p, c->shared, e);
        if (r == 0)
                r = count_refs(p);
        if (r == 0 && !c->shared) {
                refresh(p);
                r = pool_collect(p, e);
        }
        if (r < 0) {
                pool_close(p);
                return r;
        }
        *ret = p;
        return 0;
}

void pool_close(struct pool *p)
{
        struct entry *en, *tmp;

        pool_background(p, false);
        merge_drop(p);
        HASH_ITER (hh, p->entries, en, tmp) {
                pool_drop(p, en);
        }
        pthread_mutex_destroy(&p->lock);
        pthread_mutex_destroy(&p->layers_lock);
        pthread_mutex_destroy(&p->work);
        pthread_cond_destroy(&p->idle);
        pthread_cond_destroy(&p->wanted);
        free(p->dir);
        free(p->run);
        free(p);
}
