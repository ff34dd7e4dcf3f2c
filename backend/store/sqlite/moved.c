/* A database that was moved into another store: a file beside it, PATH.moved, says where. */
#include "backend/store/sqlite/internal.h"

#include "common/clock.h"
#include "common/fileio.h"

int sqlite_retire(struct store *store, const char *to, struct err **e)
{
        struct sqlite_store *s = (struct sqlite_store *)store;
        _cleanup_free_ char *mark = path_printf("%s.moved", s->path);

        if (!mark)
                return err_errno(e, -ENOMEM, "mark '%s'", s->path);
        return to ? file_replace(mark, to, strlen(to), 0600, e) : 0; /* only we have it open */
}

int sqlite_moved(const char *path, struct err **e)
{
        _cleanup_free_ char *mark = path_printf("%s.moved", path), *to = NULL;
        int r = mark ? file_read(mark, 4096, &to, NULL, NULL) : -ENOMEM;

        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return err_errno(e, r, "read '%s.moved'", path);
        err_set(e, -EREMOTE, "it was moved to '%s'", to);
        return err_hint(e, -EREMOTE, "--conf with the file that names it");
}

int store_sqlite_put_aside(const char *path, struct err **e)
{
        _cleanup_free_ char *mark = path_printf("%s.moved", path);
        _cleanup_free_ char *old = path_printf("%s.%lld", path, (long long)(clock_now() / 1000000));

        if (!mark || !old)
                return err_errno(e, -ENOMEM, "put '%s' aside", path);
        if (access(mark, F_OK) < 0)
                return 0;
        if (rename(path, old) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "rename '%s'", path);
        if (unlink(mark) < 0)
                return err_errno(e, -errno, "remove '%s'", mark);
        fsync_parent(path);
        return 0;
}
