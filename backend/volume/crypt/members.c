/* Making and removing encrypted volumes, and reading the marks at start. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "backend/volume/crypt/luks.h"
#include "backend/volume/crypt/vault-private.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

static char *mark_path(const struct vault *v, const struct family *f, char mark, const char *id)
{
        return path_printf("%s/%s/%c.%s", v->dir, f->id, mark, id);
}

/* The member's mark becomes that one, durably. */
static int remark(struct vault *v, struct member *m, char mark, struct err **e)
{
        _cleanup_free_ char *from = mark_path(v, m->family, m->mark, m->id);
        _cleanup_free_ char *to = mark_path(v, m->family, mark, m->id);
        int r;

        if (m->mark == mark)
                return 0;
        if (!from || !to)
                return err_errno(e, -ENOMEM, "mark");
        r = rename(from, to) < 0 ? -errno : 0;
        if (r == 0) {
                pthread_mutex_lock(&v->lock);
                m->mark = mark;
                pthread_mutex_unlock(&v->lock);
                r = fsync_parent(to);
        }
        return r < 0 ? err_errno(e, r, "rename '%s' to '%s'", from, to) : 0;
}

static int put_mark(const char *path, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        int r = fd < 0 ? -errno : fsync_parent(path);

        return r < 0 ? err_errno(e, r, "create '%s'", path) : 0;
}

int vault_mark(struct vault *v, struct family *f, const char *id, struct err **e)
{
        _cleanup_free_ char *path = mark_path(v, f, 'm', id);
        int r = path ? put_mark(path, e) : err_errno(e, -ENOMEM, "mark");

        if (r == 0 && !vault_add_member(v, f, id, 'm'))
                r = err_errno(e, -ENOMEM, "mark");
        return r;
}

/* A family without members: its key is gone when this returns, and its folder if that works. */
static int erase(struct vault *v, struct family *f, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/%s", v->dir, f->id);
        _cleanup_free_ char *header = vault_header(v, f);
        int r = dir && header ? luks_erase(header, e) : err_errno(e, -ENOMEM, "erase");

        if (r < 0)
                return r;
        vault_forget(v, f);
        remove_tree(dir, NULL);
        vault_drop_family(v, f);
        return 0;
}

static int unmark(struct vault *v, struct member *m, struct err **e)
{
        _cleanup_free_ char *path = mark_path(v, m->family, m->mark, m->id);
        struct family *f = m->family;
        int r = share_leave(v, f, m->id, e);

        if (r < 0)
                return r;
        r = path ? 0 : -ENOMEM;
        if (r == 0 && unlink(path) < 0 && errno != ENOENT)
                r = -errno;
        if (r == 0)
                r = fsync_parent(path);
        if (r < 0)
                return err_errno(e, r, "remove the mark of encrypted volume '%s'", m->id);
        vault_drop_member(v, m);
        return f->members == 0 ? erase(v, f, e) : 0;
}

/* What the driver is to make. */
struct making {
        const char *id, *parent;
        uint64_t size;
        bool snapshot;
};

static int drive(struct vault *v, const struct making *k, struct err **e)
{
        if (!k->parent)
                return v->driver->create(v->pool, k->id, k->size, e);
        if (k->snapshot)
                return v->driver->snapshot(v->pool, k->id, k->parent, e);
        return v->driver->clone(v->pool, k->id, k->parent, k->size, e);
}

/* With change: marked, made, and known as a member. */
static int make(struct vault *v, struct family *f, const struct making *k, struct err **e)
{
        _cleanup_free_ char *path = mark_path(v, f, 'c', k->id);
        struct member *m = vault_find(v, k->id);
        bool fresh = !m;
        int r = 0;

        if (!path)
                return err_errno(e, -ENOMEM, "create");
        if (m && m->family != f)
                return err_set(e, -EEXIST, "it is there, encrypted, of family '%s'", m->family->id);
        if (fresh) {
                r = put_mark(path, e);
                if (r == 0 && !(m = vault_add_member(v, f, k->id, 'c')))
                        r = err_errno(e, -ENOMEM, "create");
                if (r == 0 && (r = FAULT("volume.mark")) < 0)
                        err_errno(e, r, "fault point");
        }
        if (r == 0)
                r = share_join(v, f, k->id, e);
        if (r == 0)
                r = drive(v, k, e);
        if (r == 0)
                return remark(v, m, 'm', e);
        if (fresh && m) {
                struct volume_info info;

                if (v->driver->stat(v->pool, k->id, &info, NULL) == -ENOENT)
                        unmark(v, m, NULL);
        } else if (fresh) {
                unlink(path);
        }
        return r;
}

/* A volume that is there and is no member is a plain one. */
static int refuse_plain(struct vault *v, const char *id, struct err **e)
{
        struct volume_info info;

        if (vault_find(v, id) || v->driver->stat(v->pool, id, &info, NULL) < 0)
                return 0;
        return err_set(e, -EEXIST, "it is there, not encrypted");
}

static int found_family(struct vault *v, const char *id, const char *passphrase,
                        struct family **ret, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/%s", v->dir, id);
        _cleanup_free_ char *header = NULL;
        struct family *f = vault_family(v, id);
        int r;

        if (f && f->members > 0) {
                if (!vault_find(v, id))
                        return err_set(e, -EEXIST, "it was removed and its family lives on");
                *ret = f;
                return vault_unlock(v, f, passphrase, e);
        }
        if (!f && !(f = vault_add_family(v, id)))
                return err_errno(e, -ENOMEM, "create");
        header = vault_header(v, f);
        r = dir && header ? remove_tree(dir, e) : err_errno(e, -ENOMEM, "create");
        if (r == 0 && mkdir(dir, 0700) < 0)
                r = err_errno(e, -errno, "mkdir '%s'", dir);
        if (r == 0) {
                WITH_LOCK(&v->keys);
                r = luks_format(header, passphrase, e);
        }
        if (r == 0 && (r = fsync_parent(header)) == 0)
                r = fsync_parent(dir);
        if (r == 0)
                r = share_header(v, f, e);
        if (r == 0)
                r = vault_unlock(v, f, passphrase, e);
        if (r < 0)
                erase(v, f, NULL);
        else
                *ret = f;
        return r;
}

int vault_create(struct vault *v, const char *id, uint64_t size, const char *passphrase,
                 struct err **e)
{
        struct family *f = NULL;
        int r = vault_look(v, id, e);

        if (r < 0)
                return r;
        WITH_LOCK(&v->change);
        r = refuse_plain(v, id, e);
        if (r == 0)
                r = found_family(v, id, passphrase, &f, e);
        return r < 0 ? r : make(v, f, &(struct making){.id = id, .size = size}, e);
}

static int grow(struct vault *v, const struct making *k, struct err **e)
{
        struct member *parent;
        int r = vault_look(v, k->parent, e);

        if (r < 0)
                return r;
        WITH_LOCK(&v->change);
        parent = vault_find(v, k->parent);
        if (!parent)
                return err_set(e, -ENOENT, "there is no parent volume '%s'", k->parent);
        r = refuse_plain(v, k->id, e);
        return r < 0 ? r : make(v, parent->family, k, e);
}

int vault_clone(struct vault *v, const char *id, const char *parent, uint64_t size, struct err **e)
{
        return grow(v, &(struct making){.id = id, .parent = parent, .size = size}, e);
}

int vault_snapshot(struct vault *v, const char *id, const char *of, struct err **e)
{
        return grow(v, &(struct making){.id = id, .parent = of, .snapshot = true}, e);
}

int vault_remove(struct vault *v, const char *id, struct err **e)
{
        struct member *m;
        bool used;
        int r = vault_look(v, id, e);

        if (r < 0)
                return r;
        WITH_LOCK(&v->change);
        m = vault_find(v, id);
        if (!m)
                return 0;
        pthread_mutex_lock(&v->lock);
        used = m->users > 0;
        pthread_mutex_unlock(&v->lock);
        if (used)
                return err_set(e, -EBUSY, "it is in use");
        r = remark(v, m, 'r', e);
        if (r < 0)
                return r;
        r = v->driver->remove(v->pool, id, e);
        if (r < 0) {
                remark(v, m, 'm', NULL);
                return r;
        }
        return unmark(v, m, e);
}

/* ---- at start ---- */

/* A mark's name, as its letter; 0: it is something else. */
static char parse_mark(const char *name, const char **ret_id)
{
        sd_id128_t id;

        if (!strchr("mcr", name[0]) || name[0] == '\0' || name[1] != '.' ||
            strlen(name) != VOLUME_ID_SIZE + 1 || id_parse(name + 2, &id) < 0)
                return 0;
        *ret_id = name + 2;
        return name[0];
}

/* A crash may leave a rename's both names where the file system has no journal.  Nobody was told
 * that it is done: it is a member, as before a removal and after a making. */
static int scan_twice(struct vault *v, struct member *m, char mark, struct err **e)
{
        _cleanup_free_ char *path = NULL;
        char other = mark == 'm' ? m->mark : mark;

        path = mark_path(v, m->family, other, m->id);
        if (!path)
                return err_errno(e, -ENOMEM, "mark");
        m->mark = mark == 'm' ? mark : m->mark;
        return unlink(path) < 0 ? err_errno(e, -errno, "remove '%s'", path) : 0;
}

/* sync: a rename that a killed process made may not be on disk yet, and what follows hangs on it.
 */
static int scan_family(struct vault *v, struct family *f, bool sync, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/%s", v->dir, f->id);
        DIR *d = path ? opendir(path) : NULL;
        struct dirent *de;
        int r = 0;

        if (!d)
                return err_errno(e, path ? -errno : -ENOMEM, "open '%s'", path ? path : "");
        if (sync && fsync(dirfd(d)) < 0)
                r = err_errno(e, -errno, "sync '%s'", path);
        while (r == 0 && (de = readdir(d))) {
                const char *id;
                char mark = parse_mark(de->d_name, &id);
                struct member *m = mark ? vault_find(v, id) : NULL;

                if (!mark)
                        continue;
                if (m && m->family == f && (m->mark == 'm' || mark == 'm'))
                        r = scan_twice(v, m, mark, e);
                else if (m)
                        r = err_set(e, -EUCLEAN, "'%s' has another mark of volume %s", path, id);
                else if (!vault_add_member(v, f, id, mark))
                        r = err_errno(e, -ENOMEM, "scan '%s'", path);
        }
        closedir(d);
        return r;
}

static int scan(struct vault *v, bool sync, struct err **e)
{
        DIR *d = opendir(v->dir);
        struct dirent *de;
        int r = 0;

        if (!d)
                return err_errno(e, -errno, "open '%s'", v->dir);
        while (r == 0 && (de = readdir(d))) {
                struct family *f;
                sd_id128_t id;

                if (strlen(de->d_name) != VOLUME_ID_SIZE - 1 || id_parse(de->d_name, &id) < 0)
                        continue;
                f = vault_add_family(v, de->d_name);
                r = f ? scan_family(v, f, sync, e) : err_errno(e, -ENOMEM, "scan '%s'", v->dir);
        }
        closedir(d);
        return r;
}

/* What a crash cut off is undone (making) or finished (removing). */
static int settle(struct vault *v, struct member *m, struct err **e)
{
        struct volume_info info;
        int r;

        if (m->mark == 'm')
                return 0;
        r = m->mark == 'r' ? v->driver->remove(v->pool, m->id, e)
                           : v->driver->stat(v->pool, m->id, &info, NULL);
        if (m->mark == 'r')
                return r < 0 ? r : unmark(v, m, e);
        return r == -ENOENT ? unmark(v, m, e) : remark(v, m, 'm', e);
}

static void collect(struct vault *v)
{
        struct member *m, *mtmp;
        struct family *f, *ftmp;

        HASH_ITER (hh, v->families, f, ftmp) {
                _cleanup_err_ struct err *why = NULL;

                if (f->members == 0 && erase(v, f, &why) < 0)
                        log_error("left over key: %s", err_msg(why));
        }
        HASH_ITER (hh, v->members, m, mtmp) {
                _cleanup_err_ struct err *why = NULL;

                if (settle(v, m, &why) < 0)
                        log_error("encrypted volume: %s", err_msg(why));
        }
}

int vault_open(const struct volume_pool_config *c, const struct volume_driver *d, void *pool,
               struct vault **ret, struct err **e)
{
        struct vault *v = calloc(1, sizeof(*v));
        int r;

        if (!v)
                return err_errno(e, -ENOMEM, "vault");
        v->driver = d;
        v->pool = pool;
        pthread_mutex_init(&v->change, NULL);
        pthread_mutex_init(&v->keys, NULL);
        pthread_mutex_init(&v->lock, NULL);
        pthread_mutex_init(&v->bounces.lock, NULL);
        v->dir = path_printf("%s/crypt", c->state);
        r = v->dir ? mkdir_parents(v->dir, 0700, e) : err_errno(e, -ENOMEM, "vault");
        if (r == 0 && !c->shared && (r = fsync_parent(v->dir)) < 0) /* else all would be plain */
                err_errno(e, r, "sync '%s'", c->state);
        if (r == 0)
                r = scan(v, !c->shared, e);
        if (r < 0) {
                vault_close(v);
                return r;
        }
        if (!c->shared) {
                collect(v);
                share_all(v);
        }
        *ret = v;
        return 0;
}
