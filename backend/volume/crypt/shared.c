/* What a vault shares with those of other hosts, where the driver's pool is theirs, too: whose
 * member a volume is, and the families' headers.  The pool has the truth, and the folder of this
 * host a copy, which is made when a volume is met that it does not know. */
#include <dirent.h>
#include <fcntl.h>

#include "backend/volume/crypt/vault-private.h"
#include "common/fileio.h"
#include "common/log.h"

enum { HEADER_MAX = 4 << 20 };

int shared_publish(struct vault *v, struct family *f, struct err **e)
{
        _cleanup_free_ char *path = NULL, *bytes = NULL;
        size_t n;
        int r;

        if (!v->driver->header_put)
                return 0;
        path = vault_header(v, f);
        r = path ? file_read(path, HEADER_MAX, &bytes, &n, e) : err_errno(e, -ENOMEM, "header");
        if (r == 0)
                r = v->driver->header_put(v->pool, f->id, bytes, n, e);
        if (bytes)
                explicit_bzero(bytes, n);
        return r;
}

int shared_refresh(struct vault *v, struct family *f, struct err **e)
{
        _cleanup_free_ char *path = NULL;
        void *bytes = NULL;
        size_t n = 0;
        int r;

        if (!v->driver->header_get)
                return 0;
        path = vault_header(v, f);
        if (!path)
                return err_errno(e, -ENOMEM, "header");
        r = v->driver->header_get(v->pool, f->id, &bytes, &n, e);
        if (r == 0)
                r = file_replace(path, bytes, n, 0600, e);
        if (bytes)
                explicit_bzero(bytes, n);
        free(bytes);
        return r;
}

int shared_join(struct vault *v, const struct family *f, const char *id, struct err **e)
{
        return v->driver->member_put ? v->driver->member_put(v->pool, id, f->id, true, e) : 0;
}

int shared_leave(struct vault *v, const struct family *f, const char *id, struct err **e)
{
        return v->driver->member_put ? v->driver->member_put(v->pool, id, f->id, false, e) : 0;
}

int shared_members(struct vault *v, const struct family *f, struct err **e)
{
        return v->driver->member_count ? v->driver->member_count(v->pool, f->id, e)
                                       : (int)f->members;
}

int shared_drop(struct vault *v, const struct family *f, struct err **e)
{
        return v->driver->header_put ? v->driver->header_put(v->pool, f->id, NULL, 0, e) : 0;
}

/* With change. */
static int learn(struct vault *v, const char *id, const char *family, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/%s", v->dir, family), *mark = NULL;
        struct family *f = vault_family(v, family);
        _cleanup_close_ int fd = -1;
        int r = dir ? mkdir_parents(dir, 0700, e) : err_errno(e, -ENOMEM, "family");

        if (r == 0 && !f && !(f = vault_add_family(v, family)))
                r = err_errno(e, -ENOMEM, "family");
        if (r == 0)
                r = shared_refresh(v, f, e);
        mark = path_printf("%s/m.%s", dir ?: "", id);
        if (r == 0 && (!mark || (fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) < 0))
                r = err_errno(e, mark ? -errno : -ENOMEM, "mark of volume '%s'", id);
        if (r == 0 && !vault_add_member(v, f, id, 'm'))
                r = err_errno(e, -ENOMEM, "member");
        if (r < 0 && f && f->members == 0)
                vault_drop_family(v, f);
        return r;
}

int vault_meet(struct vault *v, const char *id, struct err **e)
{
        char family[VOLUME_ID_SIZE];
        int r;

        if (!v->driver->member_get || vault_has(v, id))
                return 0;
        r = v->driver->member_get(v->pool, id, family, e);
        if (r <= 0)
                return r;
        WITH_LOCK(&v->change);
        return vault_find(v, id) ? 0 : learn(v, id, family, e);
}
