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

/* Lists of JSON become what yaml_load() makes of them. */
static int join_lists(json_t *map, struct err **e)
{
        const char *key;
        json_t *v, *item;
        void *tmp;
        size_t i;

        json_object_foreach_safe(map, tmp, key, v)
        {
                _cleanup_buf_ struct buf text = {};
                int r = json_is_object(v) ? join_lists(v, e) : 0;

                if (r < 0)
                        return r;
                if (!json_is_array(v))
                        continue;
                json_array_foreach (v, i, item) {
                        _cleanup_free_ char *number = json_dumps(item, JSON_ENCODE_ANY);

                        if (!json_is_string(item) && !json_is_number(item))
                                return err_set(e, -EINVAL, "%s: a list holds values", key);
                        buf_printf(&text, "%s%s", i ? "," : "", json_string_value(item) ?: number);
                }
                json_object_set_new(map, key, json_string(buf_str(&text)));
        }
        return 0;
}

static int parse(const char *text, size_t n, json_t **ret, json_t *lines, struct err **e)
{
        json_auto_t *again = NULL;
        json_error_t je;

        if (text[strspn(text, " \t\r\n")] != '{')
                return yaml_load(text, n, ret, lines, e);
        *ret = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
        if (!*ret)
                return err_set(e, -EINVAL, "line %d: not JSON: %s", je.line, je.text);
        (void)yaml_load(text, n, &again, lines, NULL); /* JSON is YAML: for the lines alone */
        return join_lists(*ret, e);
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

static int add_quota(json_t *doc, json_t *quota, struct err **e)
{
        const char *name;
        json_t *v;

        if (!json_is_object(quota))
                return err_set(e, -EINVAL, "quota: a map of NAME: LIMIT");
        json_object_foreach (quota, name, v) {
                if (!json_is_string(v) && !json_is_integer(v))
                        return err_set(e, -EINVAL, "quota: %s: a number or max", name);
                if (json_object_get(json_object_get(doc, "quota"), name))
                        return err_set(e, -EEXIST, "quota: %s is described twice", name);
        }
        return json_object_get(doc, "quota")
                       ? json_object_update(json_object_get(doc, "quota"), quota)
                       : json_object_set(doc, "quota", quota);
}

/* Where an object, or a collection, is described: into the words of an error about it. */
static int at_line(const json_t *lines, const char *collection, const char *name, int r,
                   struct err **e)
{
        _cleanup_free_ char *key = name ? path_printf("%s/%s", collection, name) : NULL;
        json_int_t line = json_integer_value(json_object_get(lines, key ?: collection));

        return r < 0 && line ? err_prepend(e, r, "line %" JSON_INTEGER_FORMAT, line) : r;
}

static int note_places(const char *path, json_t *doc, json_t *lines)
{
        json_t *places = json_object_get(doc, "places"), *line;
        const char *key;

        if (!places && json_object_set_new(doc, "places", places = json_object()) < 0)
                return -ENOMEM;
        json_object_foreach (lines, key, line) {
                _cleanup_free_ char *place =
                        path_printf("%s:%" JSON_INTEGER_FORMAT, path, json_integer_value(line));

                if (!place || json_object_set_new(places, key, json_string(place)) < 0)
                        return -ENOMEM;
        }
        return 0;
}

static int add_collection(const char *path, json_t *doc, const char *collection, json_t *all,
                          const json_t *lines, struct err **e)
{
        const char *name;
        json_t *want;
        int r;

        if (streq(collection, "tenant"))
                return at_line(lines, collection, NULL, add_tenant(doc, all, e), e);
        if (streq(collection, "quota"))
                return at_line(lines, collection, NULL, add_quota(doc, all, e), e);
        if (!collection_valid(collection))
                return at_line(lines, collection, NULL,
                               err_set(e, -EINVAL, "'%s' is no collection", collection), e);
        if (json_is_null(all))
                return 0;
        if (!json_is_object(all))
                return at_line(lines, collection, NULL,
                               err_set(e, -EINVAL, "%s: a map of NAME: OBJECT", collection), e);
        json_object_foreach (all, name, want) {
                r = add_object(path, doc, collection, name, want, e);
                if (r < 0)
                        return at_line(lines, collection, name, r, e);
        }
        return 0;
}

static int add_all(const char *path, json_t *doc, json_t *from, const json_t *lines, struct err **e)
{
        const char *collection;
        json_t *all;
        int r;

        if (!json_is_object(from))
                return err_set(e, -EINVAL, "a map of collections is expected");
        json_object_foreach (from, collection, all) {
                r = add_collection(path, doc, collection, all, lines, e);
                if (r < 0)
                        return r;
        }
        return 0;
}

int describe_file(const char *path, json_t *doc, struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        json_auto_t *from = NULL, *lines = json_object();
        int r = lines ? read_all(path, &text, e) : -ENOMEM;

        if (r < 0)
                return r;
        r = parse(buf_str(&text), text.len, &from, lines, e);
        if (r == 0)
                r = add_all(path, doc, from, lines, e);
        if (r == 0)
                r = note_places(path, doc, lines);
        return r < 0 ? err_prepend(e, r, "%s", path) : 0;
}
