/* Handles, and what is asked or changed of one volume. */
#include <sys/stat.h>

#include "backend/volume/local/pool.h"
#include "common/fileio.h"

int pool_volume_open(struct pool *p, const char *id, struct entry **ret, struct err **e)
{
        struct entry *en;
        int r = 0;

        WITH_LOCK(&p->lock);
        en = pool_acquire(p, id);
        if (!en)
                return err_set(e, -ENOENT, "there is no such volume");
        if (en->users == 0) {
                pthread_mutex_unlock(&p->lock);
                r = pool_stack_open(p, en, e);
                pthread_mutex_lock(&p->lock);
        }
        if (r == 0) {
                en->users++;
                en->opened++;
                *ret = en;
        }
        pool_release(p, en);
        return r;
}

void pool_volume_close(struct pool *p, struct entry *en)
{
        WITH_LOCK(&p->lock);
        while (en->busy)
                pthread_cond_wait(&p->idle, &p->lock);
        if (en->users > 1) {
                en->users--;
                return;
        }
        en->busy = true;
        pthread_mutex_unlock(&p->lock);
        pool_stack_close(p, en);
        pthread_mutex_lock(&p->lock);
        en->users--;
        pool_todo(p, en); /* at rest its top may be merged, too */
        pool_release(p, en);
}

int pool_settle(struct pool *p, struct entry *en, struct err **e)
{
        int r = pool_stack_open(p, en, e);

        if (r < 0)
                return r;
        r = stack_flush(en->stack);
        if (r == 0)
                r = layer_settle(en->stack->top);
        pool_stack_close(p, en);
        return r < 0 ? err_errno(e, r, "flush") : 0;
}

int pool_resize(struct pool *p, const char *id, uint64_t size, struct err **e)
{
        struct entry *en;
        uint64_t now;
        int r;

        r = pool_volume_open(p, id, &en, e);
        if (r < 0)
                return r;
        pthread_mutex_lock(&p->lock);
        while (en->busy)
                pthread_cond_wait(&p->idle, &p->lock);
        en->busy = true;
        pthread_mutex_unlock(&p->lock);
        now = en->stack->size;
        if (en->meta.immutable)
                r = err_set(e, -EROFS, "it is immutable");
        else if (size < now)
                r = err_set(e, -EINVAL, "it has %llu bytes and cannot shrink to %llu",
                            (unsigned long long)now, (unsigned long long)size);
        else if (size > now)
                r = pool_grow(p, en, size, e);
        pthread_mutex_lock(&p->lock);
        pool_release(p, en);
        pthread_mutex_unlock(&p->lock);
        pool_volume_close(p, en);
        return r;
}

static uint64_t file_used(const char *path)
{
        struct stat st;

        return path && stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* With the lock. */
static void info_fill(struct pool *p, const struct entry *en, struct volume_info *ret)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        _cleanup_free_ char *failed = dir ? path_printf("%s/failed", dir) : NULL;

        *ret = (struct volume_info){.size = meta_top(&en->meta)->size,
                                    .immutable = en->meta.immutable,
                                    .users = en->users};
        strcpy(ret->id, en->meta.id);
        strcpy(ret->parent, en->meta.parent);
        ret->flattening = en->meta.flatten;
        ret->flatten_done = en->flatten_done;
        ret->flatten_total = en->flatten_total;
        ret->flatten_failed = en->flatten_failed;
        ret->failed = failed && access(failed, F_OK) == 0;
        for (unsigned i = 0; dir && i < en->meta.nlayers; i++) {
                _cleanup_free_ char *data = layer_data_path(dir, en->meta.layers[i].data);
                _cleanup_free_ char *log = layer_log_path(dir, en->meta.layers[i].map);

                ret->used += file_used(data) + (meta_mapped(&en->meta, i) ? file_used(log) : 0);
        }
}

int pool_stat(struct pool *p, const char *id, struct volume_info *ret, struct err **e)
{
        struct entry *en;

        WITH_LOCK(&p->lock);
        en = pool_acquire(p, id);
        if (!en)
                return err_set(e, -ENOENT, "there is no such volume");
        info_fill(p, en, ret);
        pool_release(p, en);
        return 0;
}

static int by_id(const void *a, const void *b)
{
        return strcmp(a, b);
}

/* The ids after `after`, sorted; the caller frees. */
static char (*ids_after(struct pool *p, const char *after, size_t *ret_n))[VOLUME_ID_SIZE]
{
        char(*ids)[VOLUME_ID_SIZE];
        struct entry *en, *tmp;
        size_t n = 0;

        WITH_LOCK(&p->lock);
        ids = calloc(HASH_COUNT(p->entries) + 1, VOLUME_ID_SIZE);
        if (!ids)
                return NULL;
        HASH_ITER (hh, p->entries, en, tmp) {
                if (!en->meta.removed && strcmp(en->meta.id, after) > 0)
                        memcpy(ids[n++], en->meta.id, VOLUME_ID_SIZE);
        }
        qsort(ids, n, VOLUME_ID_SIZE, by_id);
        *ret_n = n;
        return ids;
}

int pool_list(struct pool *p, const char *after, volume_info_fn each, void *arg, struct err **e)
{
        size_t n;
        _cleanup_free_ char(*ids)[VOLUME_ID_SIZE] = ids_after(p, after, &n);

        if (!ids)
                return err_errno(e, -ENOMEM, "list");
        for (size_t i = 0; i < n; i++) {
                struct volume_info info;
                int r = pool_stat(p, ids[i], &info, NULL);

                if (r == -ENOENT)
                        continue; /* gone meanwhile */
                r = each(arg, &info);
                if (r != 0)
                        return MIN(r, 0);
        }
        return 0;
}
