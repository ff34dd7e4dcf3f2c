/* What hosts with one pool know of each other's encrypted volumes.
 *
 * Where the driver keeps families (family_put ...), its word counts: a volume that is not known
 * here is looked for there before it is taken for a plain one, and a header that does not open is
 * fetched again, as another host may have given it another passphrase.  What is in the folder is a
 * copy. */
#include <sys/stat.h>

#include "backend/volume/crypt/vault-private.h"
#include "common/fileio.h"
#include "common/log.h"

enum { HEADER_MAX = 4 << 20 };

static bool shares(const struct vault *v)
{
        return v->driver->family_of;
}

int share_fetch(struct vault *v, struct family *f, unsigned *ret_members, struct err **e)
{
        _cleanup_free_ char *path = vault_header(v, f), *dir = path_printf("%s/%s", v->dir, f->id);
        _cleanup_free_ void *header = NULL;
        size_t n;
        int r;

        *ret_members = f->members;
        if (!shares(v))
                return 0;
        if (!path || !dir)
                return err_errno(e, -ENOMEM, "header");
        r = v->driver->family_get(v->pool, f->id, &header, &n, ret_members, e);
        if (r == 0 && mkdir(dir, 0700) < 0 && errno != EEXIST)
                r = err_errno(e, -errno, "mkdir '%s'", dir);
        return r < 0 ? r : file_replace(path, header, n, 0600, e);
}

int share_header(struct vault *v, struct family *f, struct err **e)
{
        _cleanup_free_ char *path = vault_header(v, f), *header = NULL;
        size_t n;
        int r;

        if (!shares(v))
                return 0;
        if (!path)
                return err_errno(e, -ENOMEM, "header");
        r = file_read(path, HEADER_MAX, &header, &n, e);
        return r < 0 ? r : v->driver->family_put(v->pool, f->id, header, n, e);
}

int share_join(struct vault *v, const struct family *f, const char *id, struct err **e)
{
        return shares(v) ? v->driver->family_join(v->pool, f->id, id, e) : 0;
}

int share_leave(struct vault *v, const struct family *f, const char *id, struct err **e)
{
        return shares(v) ? v->driver->family_leave(v->pool, f->id, id, e) : 0;
}

/* With change. */
static int learn(struct vault *v, const char *id, const char *family, struct err **e)
{
        struct family *f = vault_family(v, family);
        unsigned members;
        bool fresh = !f;
        int r = 0;

        if (vault_find(v, id))
                return 0;
        if (fresh && !(f = vault_add_family(v, family)))
                return err_errno(e, -ENOMEM, "family");
        if (fresh)
                r = share_fetch(v, f, &members, e);
        if (r == 0)
                r = vault_mark(v, f, id, e);
        if (r < 0 && fresh)
                vault_drop_family(v, f);
        return r;
}

int vault_look(struct vault *v, const char *id, struct err **e)
{
        char family[VOLUME_ID_SIZE];
        int r;

        if (!shares(v))
                return 0;
        pthread_mutex_lock(&v->lock);
        r = vault_find(v, id) != NULL;
        pthread_mutex_unlock(&v->lock);
        if (r)
                return 0;
        r = v->driver->family_of(v->pool, id, family, e);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        WITH_LOCK(&v->change);
        return learn(v, id, family, e);
}

void share_all(struct vault *v)
{
        struct member *m, *tmp;

        if (!shares(v))
                return;
        HASH_ITER (hh, v->members, m, tmp) {
                _cleanup_err_ struct err *why = NULL;
                char family[VOLUME_ID_SIZE];
                struct volume_info info;
                int r = v->driver->family_of(v->pool, m->id, family, &why);

                if (r != -ENOENT || m->mark != 'm' ||
                    v->driver->stat(v->pool, m->id, &info, NULL) < 0)
                        continue;
                r = share_header(v, m->family, &why); /* from before they were shared */
                if (r == 0)
                        r = share_join(v, m->family, m->id, &why);
                if (r < 0)
                        log_error("encrypted volume '%s': %s", m->id, err_msg(why));
        }
}
