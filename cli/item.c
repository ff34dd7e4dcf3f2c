/* Objects as they are and as they are wanted: reading and comparing. */
#include "cli/item.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/size.h"

enum { SPEC_MAX = 1 << 20 };

bool item_is(const struct item *it, const char *collection)
{
        size_t n = strlen(collection);

        return strncmp(it->key, collection, n) == 0 && it->key[n] == '/';
}

void item_done(struct item *it)
{
        free(it->key);
        free(it->path);
        free(it->words);
        json_decref(it->want);
        json_decref(it->have);
        json_decref(it->keep);
}

static int read_json(const char *dir, const char *name, json_t **ret)
{
        _cleanup_free_ char *file = path_printf("%s/%s", dir, name), *text = NULL;
        size_t n;
        int r;

        if (!file)
                return -ENOMEM;
        r = file_read(file, SPEC_MAX, &text, &n, NULL);
        if (r == 0) {
                *ret = json_loadb(text, n, 0, NULL);
                r = json_is_object(*ret) ? 0 : -EIO;
        }
        return r;
}

int item_load(struct item *it, const char *tenant, struct err **e)
{
        _cleanup_free_ char *error = NULL;
        json_auto_t *all = NULL;
        int r;

        if (!it->path)
                it->path = path_printf(item_is(it, "flavors") ? "%s/../../%s" : "%s/%s", tenant,
                                       it->key);
        error = it->path ? path_printf("%s/error", it->path) : NULL;
        if (!error)
                return -ENOMEM;
        json_decref(it->have);
        it->have = NULL;
        /* The revision first: a change in between is then a lost race, not an unseen one. */
        r = read_json(it->path, ".json", &all);
        if (r == 0)
                r = read_json(it->path, "spec", &it->have);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return err_errno(e, r, "read %s", it->key);
        it->rev = json_integer_value(json_object_get(all, "rev"));
        free(it->words);
        it->words = NULL;
        (void)file_read(error, SPEC_MAX, &it->words, NULL, NULL);
        return 0;
}

/* "../../volumes/v" as "volumes/v". */
static const char *target_of(const char *text)
{
        while (strncmp(text, "../", 3) == 0)
                text += 3;
        return text;
}

int links_each(const json_t *doc, int (*each)(void *arg, const char *target), void *arg)
{
        const char *key;
        json_t *v;
        int r = 0;

        json_object_foreach ((json_t *)doc, key, v) {
                if (streq(key, "metadata"))
                        continue;
                if (json_is_object(v))
                        r = links_each(v, each, arg);
                else if (json_is_string(v) && strchr(json_string_value(v), '/'))
                        r = each(arg, target_of(json_string_value(v)));
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool is_yes(const char *s)
{
        return streq(s, "1") || streq(s, "true") || streq(s, "yes") || streq(s, "on");
}

/* A scalar as people write it. */
static const char *text_of(const json_t *v, char out[32])
{
        if (json_is_string(v))
                return json_string_value(v);
        if (json_is_integer(v))
                snprintf(out, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        else
                snprintf(out, 32, "%s", json_is_true(v) ? "1" : json_is_false(v) ? "0" : "");
        return out;
}

static bool same(const json_t *want, const json_t *have)
{
        char a[32], b[32];
        const char *w = text_of(want, a), *h = text_of(have, b);
        uint64_t x, y;

        if (streq(w, h))
                return true;
        if (json_is_boolean(have))
                return is_yes(w) == json_is_true(have);
        if (json_is_integer(have))
                return size_parse(w, strlen(w), &x, NULL) == 0 &&
                       size_parse(h, strlen(h), &y, NULL) == 0 && x == y;
        return strchr(h, '/') && streq(target_of(w), target_of(h));
}

static void say(struct buf *lines, const char *folder, const char *key, const json_t *was,
                const json_t *is)
{
        char a[32], b[32];
        const char *w = text_of(was, a), *i = text_of(is, b);

        buf_printf(lines, "%s%s%s: %s%s->%s%s\n", folder ?: "", folder ? "/" : "", key, w,
                   *w ? " " : "", *i ? " " : "", i);
}

/* What `spec` leaves out, as its file says it; NULL when there is no such file. */
static json_t *unlisted(const struct item *it, const char *key)
{
        _cleanup_free_ char *file = path_printf("%s/%s", it->path, key);
        _cleanup_free_ char *line = file ? tree_line(file) : NULL;
        char *end;
        long long n;

        if (!line)
                return NULL;
        n = strtoll(line, &end, 10);
        return *line && !*end ? json_integer(n) : json_string(line);
}

bool item_own_key(const struct item *it, const char *key)
{
        return (item_is(it, "images") && streq(key, "file")) ||
               (item_is(it, "instances") && streq(key, "running")) ||
               (item_is(it, "volumes") && streq(key, "snapshots"));
}

char *item_snapshot_missing(const struct item *it, const char **at)
{
        const char *names = json_string_value(json_object_get(it->want, "snapshots"));
        const char *p = *at ?: names;

        while (item_is(it, "volumes") && p && *(p += strspn(p, ", "))) {
                size_t n = strcspn(p, ", ");
                _cleanup_free_ char *name = strndup(p, n);
                _cleanup_free_ char *path =
                        name ? path_printf("%s/snapshots/%s", it->path, name) : NULL;

                *at = p += n;
                if (path && access(path, F_OK) < 0)
                        return TAKE_PTR(name);
        }
        return NULL;
}

/* Ours, not the cloud's; or of the making only: a volume may let go of its source. */
static bool passed_over(const struct item *it, const char *key)
{
        return item_own_key(it, key) || streq(key, "kind") ||
               (streq(key, "source") && !json_object_get(it->have, key) &&
                json_integer_value(json_object_get(it->have, "size")) > 0);
}

static void patch_map(const char *folder, const json_t *want, const json_t *have, json_t *patch,
                      struct buf *lines)
{
        json_t *merged = json_is_object(have) ? json_copy((json_t *)have) : json_object(), *v;
        bool differs = false;
        const char *key;

        json_object_foreach ((json_t *)want, key, v) {
                const json_t *now = json_object_get(have, key);

                if (json_is_null(v) ? !now : now && same(v, now))
                        continue;
                differs = true;
                say(lines, folder, key, now, v);
                if (json_is_null(v))
                        json_object_del(merged, key);
                else
                        json_object_set(merged, key, v);
        }
        if (differs)
                json_object_set(patch, folder, merged);
        json_decref(merged);
}

json_t *item_patch(const struct item *it, struct buf *lines)
{
        json_t *patch = json_object(), *v;
        const char *key;

        json_object_foreach (it->want, key, v) {
                json_t *now = json_object_get(it->have, key), *read = NULL;

                if (passed_over(it, key))
                        continue;
                if (json_is_object(v)) {
                        patch_map(key, v, now, patch, lines);
                        continue;
                }
                if (!now)
                        now = read = unlisted(it, key);
                if (!(json_is_null(v) && !now) && !(now && same(v, now))) {
                        say(lines, NULL, key, now, v);
                        json_object_set(patch, key, v);
                }
                json_decref(read);
        }
        if (json_object_size(patch))
                return patch;
        json_decref(patch);
        return NULL;
}

static bool is_links(const json_t *map)
{
        const char *key;
        json_t *v;

        json_object_foreach ((json_t *)map, key, v)
                if (!json_is_string(v) || !strchr(json_string_value(v), '/'))
                        return false;
        return true;
}

static bool kept(const struct item *it, const json_t *target)
{
        return json_is_string(target) &&
               json_object_get(it->keep, target_of(json_string_value(target)));
}

json_t *item_unbind(struct item *it, bool prune, struct buf *lines)
{
        json_t *patch = json_object(), *map;
        const char *folder;

        json_object_foreach (it->have, folder, map) {
                const json_t *want = json_object_get(it->want, folder);
                json_t *left, *v;
                const char *key;

                if (!json_is_object(map) || !json_is_object(want))
                        continue;
                if (!streq(folder, "metadata") && !is_links(map))
                        continue;
                left = json_object();
                json_object_foreach (map, key, v) {
                        const json_t *w = json_object_get(want, key);
                        bool goes = w ? json_is_null(w) : prune && !kept(it, v);

                        if (goes)
                                say(lines, folder, key, v, NULL);
                        else
                                json_object_set(left, key, v);
                }
                if (json_object_size(left) < json_object_size(map))
                        json_object_set(patch, folder, left);
                json_decref(left);
        }
        if (!json_object_size(patch)) {
                json_decref(patch);
                return NULL;
        }
        json_object_update(it->have, patch);
        return patch;
}

const char *item_power(const struct item *it)
{
        const json_t *v = item_is(it, "instances") ? json_object_get(it->want, "running") : NULL;
        _cleanup_free_ char *file = path_printf("%s/state", it->path);
        _cleanup_free_ char *state = file ? tree_line(file) : NULL;
        bool runs = state && state_has_guest(state);
        char text[32];

        if (!v || is_yes(text_of(v, text)) == runs)
                return NULL;
        return runs ? "stop" : "start";
}

bool item_uploads(const struct item *it)
{
        _cleanup_free_ char *file = path_printf("%s/state", it->path);
        _cleanup_free_ char *state = file ? tree_line(file) : NULL;

        return item_is(it, "images") && json_object_get(it->want, "file") &&
               (!state || streq(state, "queued"));
}
