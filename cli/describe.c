/* Files that describe a tenant: JSON or YAML, one or several. */
#include "cli/describe.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>

#include "common/buf.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/name.h"

enum { FILE_MAX = 4 << 20 };

static int read_all(const char *path, struct buf *out, struct err **e)
{
        _cleanup_close_ int fd = streq(path, "-") ? dup(0) : open(path, O_RDONLY | O_CLOEXEC);
        char part[65536];
        ssize_t n;

        if (fd < 0)
                return err_errno(e, -errno, "open '%s'", path);
        while ((n = read(fd, part, sizeof(part))) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(e, -errno, "read '%s'", path);
                buf_add(out, part, (size_t)n);
                if (out->failed || out->len > FILE_MAX)
                        return err_set(e, -EFBIG, "'%s' has more than 4 MiB", path);
        }
        return 0;
}

static int parse(const char *text, size_t n, json_t **ret, struct err **e)
{
        json_error_t je;

        if (text[strspn(text, " \t\r\n")] != '{')
                return yaml_load(text, n, ret, e);
        *ret = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
        return *ret ? 0 : err_set(e, -EINVAL, "line %d: not JSON: %s", je.line, je.text);
}

/* What an image is made from, found from the folder of its description. */
static int place_file(const char *path, json_t *want, struct err **e)
{
        json_t *file = json_object_get(want, "file");
        const char *name = json_string_value(file), *slash = strrchr(path, '/');
        _cleanup_free_ char *whole = NULL;

        if (!file)
                return 0;
        if (!name || !*name)
                return err_set(e, -EINVAL, "file: the path of what to upload");
        if (*name == '/')
                return 0;
        whole = slash ? path_printf("%.*s/%s", (int)(slash - path), path, name) : strdup(name);
        if (!whole)
                return -ENOMEM;
        return json_object_set_new(want, "file", json_string(whole)) < 0 ? -ENOMEM : 0;
}

static bool collection_valid(const char *s)
{
        for (const char *p = s; *p; p++)
                if (!islower((unsigned char)*p) && *p != '_')
                        return false;
        return *s;
}

static int add_object(const char *path, json_t *doc, const char *collection, const char *name,
                      json_t *want, struct err **e)
{
        json_t *objects = json_object_get(doc, "objects");
        _cleanup_free_ char *key = path_printf("%s/%s", collection, name);
        int r = name_check(name, strlen(name), e);

        if (!key)
                return -ENOMEM;
        if (r < 0)
                return err_prepend(e, r, "%s", collection);
        if (json_is_null(want)) /* "v:" alone: as it comes */
                want = json_object();
        else
                json_incref(want);
        if (!json_is_object(want))
                r = err_set(e, -EINVAL, "%s: a map of KEY: VALUE", key);
        else if (json_object_get(objects, key))
                r = err_set(e, -EEXIST, "%s is described twice", key);
        else if (streq(collection, "images"))
                r = place_file(path, want, e);
        if (r == 0 && json_object_set(objects, key, want) < 0)
                r = -ENOMEM;
        json_decref(want);
        return r;
}

static int add_tenant(json_t *doc, json_t *name, struct err **e)
{
        const char *now = json_string_value(json_object_get(doc, "tenant")),
                   *s = json_string_value(name);

        if (!s)
                return err_set(e, -EINVAL, "tenant: a name");
        if (now && !streq(now, s))
                return err_set(e, -EEXIST, "tenant: '%s', and '%s' before", s, now);
        return name_check(s, strlen(s), e) ?: json_object_set(doc, "tenant", name);
}

static int add_all(const char *path, json_t *doc, json_t *from, struct err **e)
{
        const char *collection, *name;
        json_t *all, *want;
        int r;

        if (!json_is_object(from))
                return err_set(e, -EINVAL, "a map of collections is expected");
        json_object_foreach (from, collection, all) {
                if (streq(collection, "tenant")) {
                        r = add_tenant(doc, all, e);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (!collection_valid(collection))
                        return err_set(e, -EINVAL, "'%s' is no collection", collection);
                if (json_is_null(all))
                        continue;
                if (!json_is_object(all))
                        return err_set(e, -EINVAL, "%s: a map of NAME: OBJECT", collection);
                json_object_foreach (all, name, want) {
                        r = add_object(path, doc, collection, name, want, e);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

int describe_file(const char *path, json_t *doc, struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        json_auto_t *from = NULL;
        int r = read_all(path, &text, e);

        if (r < 0)
                return r;
        r = parse(buf_str(&text), text.len, &from, e);
        if (r == 0)
                r = add_all(path, doc, from, e);
        return r < 0 ? err_prepend(e, r, "%s", path) : 0;
}
