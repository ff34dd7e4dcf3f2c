/* The service: targets, and what is done in them. */
#include "backend/backup/backup.h"

#include <inttypes.h>

#include "backend/backup/copy.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

struct backup_files {
        struct backup_service service;
        char *dir;
};

static const char *target_dir(struct backup_service *s, const char *target)
{
        return *target ? target : ((struct backup_files *)s)->dir;
}

static int files_check(struct backup_service *s, const char *target, bool make, struct err **e)
{
        return store_check(target_dir(s, target), make, e);
}

static struct backup_facts facts_of(const struct manifest *m)
{
        return (struct backup_facts){.size = m->size,
                                     .read_bytes = m->read_bytes,
                                     .new_bytes = m->new_bytes,
                                     .incremental = *m->parent != '\0'};
}

/* Who it is, as the manifest tells. */
static int describe(struct manifest *m, const struct backup_request *q, struct err **e)
{
        snprintf(m->id, sizeof(m->id), "%s", q->id);
        clock_format(m->created, q->taken);
        m->name = strdup(q->name);
        m->tenant = strdup(q->tenant);
        m->volume = strdup(q->volume);
        m->volume_name = strdup(q->volume_name);
        return m->name && m->tenant && m->volume && m->volume_name
                       ? 0
                       : err_errno(e, -ENOMEM, "backup");
}

static int files_create(struct backup_service *s, const char *target,
                        const struct backup_request *q, const struct backup_progress *p,
                        struct backup_facts *ret, struct err **e)
{
        _cleanup_manifest_ struct manifest m = {}, base = {};
        _cleanup_store_ struct store store = STORE_NONE;
        bool based = q->parent;
        int r = store_open(target_dir(s, target), false, &store, e);

        if (r < 0)
                return r;
        if (manifest_read(&store, q->id, &m, NULL) == 0) {
                *ret = facts_of(&m);
                return manifest_sync(&store, e);
        }
        if (based) {
                _cleanup_err_ struct err *no = NULL;

                based = manifest_read(&store, q->parent, &base, &no) == 0;
                if (!based)
                        log_warning("backup: %s; the next one is full", err_msg(no));
        }
        r = describe(&m, q, e);
        if (r == 0)
                r = volume_copy(&store, q, based ? &base : NULL, p, &m, &based, e);
        if (r == 0)
                r = store_sync(&store, e);
        if (r < 0)
                return r;
        if (based)
                snprintf(m.parent, sizeof(m.parent), "%s", base.id);
        r = manifest_write(&store, &m, e);
        *ret = facts_of(&m);
        return r;
}

static int files_stat(struct backup_service *s, const char *target, const char *id,
                      struct backup_facts *ret, struct err **e)
{
        _cleanup_store_ struct store store = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        int r = store_open(target_dir(s, target), false, &store, e);

        if (r == 0)
                r = manifest_read(&store, id, &m, e);
        if (r == 0)
                *ret = facts_of(&m);
        return r;
}

static int files_restore(struct backup_service *s, const char *target, const char *id,
                         const char *socket, const char *volume, bool blank,
                         const struct backup_progress *p, struct err **e)
{
        _cleanup_store_ struct store store = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        int r = store_open(target_dir(s, target), false, &store, e);

        if (r == 0)
                r = manifest_read(&store, id, &m, e);
        return r < 0 ? r : volume_restore(&store, &m, socket, volume, blank, p, e);
}

/* Goes on after a bad one, to say how many there are. */
static int verify_chunks(struct store *s, const struct manifest *m, const struct backup_progress *p,
                         struct err **e)
{
        _cleanup_err_ struct err *first = NULL;
        _cleanup_free_ char *buf = malloc(m->chunk_size);
        size_t bad = 0, at = 0;

        if (!buf)
                return err_errno(e, -ENOMEM, "verify");
        for (size_t i = 0; i < m->nchunks; i++) {
                size_t len = manifest_chunk_len(m, i);
                _cleanup_err_ struct err *err = NULL;
                int r = store_get(s, &m->chunks[i], buf, len, &err);

                if (r < 0 && r != -EBADMSG)
                        return err_move(e, TAKE_PTR(err));
                if (r < 0) {
                        store_spoil(s, &m->chunks[i]);
                        if (bad++ == 0) {
                                first = TAKE_PTR(err);
                                at = i;
                        }
                }
                r = p && p->report ? p->report(p->arg, i * m->chunk_size + len, m->size) : 0;
                if (r < 0)
                        return err_errno(e, r, "verify");
        }
        if (!bad)
                return 0;
        return err_set(e, -EBADMSG, "%zu of %zu chunks %s bad; at byte %" PRIu64 ": %s", bad,
                       m->nchunks, bad == 1 ? "is" : "are", at * m->chunk_size, err_msg(first));
}

static int files_verify(struct backup_service *s, const char *target, const char *id,
                        const struct backup_progress *p, struct err **e)
{
        _cleanup_store_ struct store store = STORE_NONE;
        _cleanup_manifest_ struct manifest m = {};
        int r = store_open(target_dir(s, target), false, &store, e);

        if (r == 0)
                r = manifest_read(&store, id, &m, e);
        return r < 0 ? r : verify_chunks(&store, &m, p, e);
}

static int files_remove(struct backup_service *s, const char *target, const char *id,
                        struct err **e)
{
        _cleanup_store_ struct store store = STORE_NONE;
        int r = store_open(target_dir(s, target), false, &store, e);

        return r < 0 ? r : manifest_remove(&store, id, e);
}

static int files_sweep(struct backup_service *s, const char *target, struct err **e)
{
        _cleanup_store_ struct store store = STORE_NONE;
        int r = store_open(target_dir(s, target), true, &store, e);

        return r < 0 ? r : store_sweep(&store, e);
}

static void files_close(struct backup_service *s)
{
        struct backup_files *f = (struct backup_files *)s;

        free(f->dir);
        free(f);
}

static const struct backup_service_ops ops = {
        .name = "files",
        .check = files_check,
        .create = files_create,
        .stat = files_stat,
        .restore = files_restore,
        .verify = files_verify,
        .remove = files_remove,
        .sweep = files_sweep,
        .close = files_close,
};

struct backup_service *backup_files_new(const char *dir)
{
        struct backup_files *f = calloc(1, sizeof(*f));

        if (!f)
                return NULL;
        f->service.ops = &ops;
        f->dir = strdup(dir);
        if (!f->dir) {
                free(f);
                return NULL;
        }
        return &f->service;
}
