#include "fs/migrate.h"

#include <sys/stat.h>

#include "backend/store/choose.h"
#include "backend/store/migrate.h"
#include "backend/store/sqlite/sqlite.h"
#include "common/fileio.h"

static char *name_of(const struct store_choice *c, const char *db)
{
        if (!c->many)
                return strdup(db);
        return path_printf("rados:%s/%s", c->rados.pool, c->rados.space ?: "stratofs");
}

static int move(const struct store_choice *was, const struct store_choice *now, const char *db,
                const char *host, struct err **e)
{
        _cleanup_free_ char *from_name = name_of(was, db), *to_name = name_of(now, db);
        struct store *from = NULL, *to = NULL;
        size_t n = 0;
        int r;

        if (!from_name || !to_name)
                return err_errno(e, -ENOMEM, "migrate");
        if (streq(from_name, to_name))
                return err_set(e, -EINVAL, "the cloud is in '%s' already", to_name);
        r = store_choice_open(was, db, host, &from, e);
        if (r == 0 && !now->many)
                r = store_sqlite_put_aside(db, e);
        if (r == 0)
                r = store_choice_open(now, db, host, &to, e);
        if (r == 0)
                r = store_migrate(from, to, to_name, &n, e);
        if (to)
                to->ops->close(to);
        if (from)
                from->ops->close(from);
        if (r < 0)
                return err_prepend(e, r, "migrate from '%s' to '%s'", from_name, to_name);
        printf("%zu records are in '%s' now, read again and compared.\n"
               "'%s' has what it had, and is marked as moved.\n",
               n, to_name, from_name);
        return 0;
}

int migrate_store(const char *state, const char *conf, const char *host, struct err **e)
{
        _cleanup_free_ char *kept = path_printf("%s/stratod.conf", state);
        _cleanup_free_ char *dir = path_printf("%s/stratod", state);
        _cleanup_free_ char *db = path_printf("%s/stratod/cloud.db", state);
        struct store_choice was = {0}, now = {0};
        int r;

        if (!kept || !dir || !db)
                return err_errno(e, -ENOMEM, "migrate");
        if (access(dir, F_OK) < 0)
                return err_errno(e, -errno, "no cloud in '%s'", state);
        r = store_choice_read(kept, true, &was, e);
        if (r == 0)
                r = store_choice_read(conf, false, &now, e);
        if (r == 0)
                r = move(&was, &now, db, host, e);
        /* A crash before this line: the next start hears from the mark where the cloud went. */
        if (r == 0)
                r = file_replace(kept, now.text, strlen(now.text), 0644, e);
        store_choice_done(&was);
        store_choice_done(&now);
        return r;
}
