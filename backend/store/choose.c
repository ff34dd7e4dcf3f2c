#include "backend/store/choose.h"

#include <ctype.h>

#include "backend/store/sqlite/sqlite.h"
#include "common/fileio.h"
#include "common/name.h"

enum { CONF_MAX = 64 << 10, TIMEOUT_MAX = 600 };

static int take_text(char **to, const char *value, struct err **e)
{
        free(*to);
        *to = strdup(value);
        return *to ? 0 : err_errno(e, -ENOMEM, "configuration");
}

static int take_store(struct store_choice *c, const char *value, struct err **e)
{
        free(TAKE_PTR(c->rados.pool));
        free(TAKE_PTR(c->rados.space));
        c->many = !streq(value, "sqlite");
        return c->many ? store_rados_parse(value, &c->rados, e) : 0;
}

static int take_seconds(unsigned *to, const char *value, struct err **e)
{
        char *end;
        unsigned long n = strtoul(value, &end, 10);

        if (!isdigit((unsigned char)*value) || *end || n == 0 || n > TIMEOUT_MAX)
                return err_at(e, -EINVAL, value, strlen(value), 0, strlen(value),
                              "not a number of seconds, 1 to %d", TIMEOUT_MAX);
        *to = (unsigned)n;
        return 0;
}

/* blockd takes a closer look. */
static int take_volumes(struct store_choice *c, const char *value, struct err **e)
{
        const size_t all = strlen(value);
        size_t len = 0, n;

        for (const char *p = value + strspn(value, " \t"); *p || p == value;
             p += n, p += strspn(p, " \t")) {
                bool rbd = strncmp(p, "rbd:", 4) == 0;

                n = strcspn(p, " \t");
                if ((!rbd || n == 4 || memchr(p, ',', n)) &&
                    (n != 5 || memcmp(p, "local", 5) != 0)) {
                        err_at(e, -EINVAL, value, all, (size_t)(p - value), n,
                               "no place for volumes");
                        return err_hint(e, -EINVAL,
                                        "local, rbd:POOL[/NAMESPACE], or several of these");
                }
                if (len + n + 2 > sizeof(c->volumes))
                        return err_at(e, -EINVAL, value, all, 0, all, "too many");
                len += (size_t)snprintf(c->volumes + len, sizeof(c->volumes) - len, "%s%.*s",
                                        len ? " " : "", (int)n, p);
        }
        return 0;
}

static int take(struct store_choice *c, const char *key, const char *value, struct err **e)
{
        if (streq(key, "store"))
                return take_store(c, value, e);
        if (streq(key, "ceph_conf") && *value != '/')
                return err_at(e, -EINVAL, value, strlen(value), 0, strlen(value),
                              "not an absolute path");
        if (streq(key, "ceph_conf"))
                return take_text(&c->rados.conf, value, e);
        if (streq(key, "cloud_key") && *value != '/')
                return err_at(e, -EINVAL, value, strlen(value), 0, strlen(value),
                              "not an absolute path");
        if (streq(key, "cloud_key"))
                return take_text(&c->cloud_key, value, e);
        if (streq(key, "ceph_user"))
                return take_text(&c->rados.user, value, e);
        if (streq(key, "ceph_timeout"))
                return take_seconds(&c->rados.timeout, value, e);
        if (streq(key, "lease"))
                return take_seconds(&c->lease, value, e);
        if (streq(key, "host")) {
                int r = name_check(value, strlen(value), e);

                return r < 0 ? r : take_text(&c->host, value, e);
        }
        if (streq(key, "volumes"))
                return take_volumes(c, value, e);
        err_at(e, -EINVAL, key, strlen(key), 0, strlen(key), "unknown key");
        return err_hint(
                e, -EINVAL,
                "store, volumes, ceph_conf, ceph_user, ceph_timeout, cloud_key, host, lease");
}

static char *strip(char *s)
{
        char *end;

        while (isspace((unsigned char)*s))
                s++;
        end = s + strlen(s);
        while (end > s && isspace((unsigned char)end[-1]))
                *--end = '\0';
        return s;
}

static int take_line(struct store_choice *c, char *line, struct err **e)
{
        char *value;

        line = strip(line);
        if (!*line || *line == '#')
                return 0;
        value = strchr(line, '=');
        if (!value)
                return err_at(e, -EINVAL, line, strlen(line), strlen(line), 0, "not 'key = value'");
        *value++ = '\0';
        return take(c, strip(line), strip(value), e);
}

int store_choice_read(const char *path, bool may_miss, struct store_choice *ret, struct err **e)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *copy = NULL;
        char *line, *at;
        int r, n = 0;

        *ret = (struct store_choice){.volumes = "local"};
        r = file_read(path, CONF_MAX, &ret->text, NULL, &err);
        if (r == -ENOENT && may_miss) {
                ret->text = strdup("");
                r = ret->text ? 0 : -ENOMEM;
        } else if (r < 0) {
                return err_move(e, TAKE_PTR(err));
        }
        at = copy = r == 0 ? strdup(ret->text) : NULL;
        if (!copy)
                r = err_errno(e, -ENOMEM, "read '%s'", path);
        while (r == 0 && (line = strsep(&at, "\n"))) {
                n++;
                r = take_line(ret, line, e);
                if (r < 0)
                        err_prepend(e, r, "'%s', line %d", path, n);
        }
        if (r < 0)
                store_choice_done(ret);
        return r;
}

void store_choice_done(struct store_choice *c)
{
        free(c->text);
        free(c->host);
        free(c->cloud_key);
        free(c->rados.conf);
        free(c->rados.user);
        free(c->rados.pool);
        free(c->rados.space);
        *c = (struct store_choice){0};
}

int store_choice_open(const struct store_choice *c, const char *path, const char *host,
                      struct store **ret, struct err **e)
{
        struct store_rados_config cfg = c->rados;

        if (!c->many)
                return store_sqlite_open(path, ret, e);
        cfg.host = (char *)host;
        return store_rados_open(&cfg, ret, e);
}
