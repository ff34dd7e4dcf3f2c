#include "cli/conf.h"

#include <ctype.h>

#include "common/buf.h"
#include "common/fileio.h"

enum { CONF_MAX = 64 << 10 };

/* The value of the last line "key = value"; points into text, which is cut there.  NULL: none. */
static char *value_of(const char *text, const char *key)
{
        const size_t n = strlen(key);
        char *found = NULL;

        for (const char *p = text; *p; p = strchrnul(p, '\n'), p += *p != '\0') {
                const char *end;

                while (*p && *p != '\n' && isspace((unsigned char)*p))
                        p++;
                if (strncmp(p, key, n) != 0)
                        continue;
                p += n + strspn(p + n, " \t");
                if (*p != '=')
                        continue;
                p += 1 + strspn(p + 1, " \t");
                end = strchrnul(p, '\n');
                while (end > p && isspace((unsigned char)end[-1]))
                        end--;
                free(found);
                found = strndup(p, end - p);
        }
        return found;
}

/* Each as blockd's --pool takes it, with a NUL behind it; an empty one is the last. */
static char *pool_words(const char *volumes, const char *conf, const char *user)
{
        _cleanup_buf_ struct buf out = {};

        if (user && strncmp(user, "client.", 7) == 0)
                user += 7;
        for (const char *p = volumes + strspn(volumes, " \t"); *p; p += strspn(p, " \t")) {
                size_t n = strcspn(p, " \t");
                bool rbd = strncmp(p, "rbd:", 4) == 0;

                buf_add(&out, p, n);
                if (rbd && conf)
                        buf_printf(&out, ",conf=%s", conf);
                if (rbd && user)
                        buf_printf(&out, ",id=%s", user);
                buf_add(&out, "", 1);
                p += n;
        }
        buf_add(&out, "", 1);
        return buf_take(&out);
}

int conf_pools(const struct cloud *c, char **ret, struct err **e)
{
        _cleanup_free_ char *kept = path_printf("%s/stratod.conf", c->state);
        _cleanup_free_ char *text = NULL, *volumes = NULL, *conf = NULL, *user = NULL;
        int r;

        *ret = NULL;
        if (!kept)
                return err_errno(e, -ENOMEM, "configuration");
        if (!c->conf && access(kept, F_OK) < 0)
                return 0;
        r = file_read(c->conf ? c->conf : kept, CONF_MAX, &text, NULL, e);
        if (r < 0)
                return r;
        volumes = value_of(text, "volumes");
        conf = value_of(text, "ceph_conf");
        user = value_of(text, "ceph_user");
        if (!volumes)
                return 0;
        *ret = pool_words(volumes, conf, user);
        return *ret ? 0 : err_errno(e, -ENOMEM, "configuration");
}
