/* YAML by libyaml's parser, as JSON values. */
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

#include "cli/describe.h"
#include "common/buf.h"
#include "common/fileio.h"
#include "common/macro.h"

enum { DEPTH_MAX = 16 };

struct loader {
        yaml_parser_t p;
        json_t *lines;          /* as yaml_load() has them */
        const char *collection; /* the key of the first level that we are under */
};

static int next(struct loader *l, yaml_event_t *ev, struct err **e)
{
        if (yaml_parser_parse(&l->p, ev))
                return 0;
        return err_set(e, -EINVAL, "line %zu: %s", l->p.problem_mark.line + 1,
                       l->p.problem ? l->p.problem : "not YAML");
}

static int bad(const yaml_event_t *ev, struct err **e, const char *words)
{
        return err_set(e, -EINVAL, "line %zu: %s", ev->start_mark.line + 1, words);
}

static bool is_null(const yaml_event_t *ev)
{
        const char *s = (const char *)ev->data.scalar.value;

        return ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
               (!*s || streq(s, "~") || streq(s, "null"));
}

static int take_value(struct loader *l, yaml_event_t *ev, int depth, json_t **ret, struct err **e);

static void note_line(struct loader *l, int depth, const char *name, size_t line)
{
        _cleanup_free_ char *key = NULL;

        if (depth == 1)
                l->collection = name; /* until the next, which is when it goes */
        if (depth == 2)
                key = path_printf("%s/%s", l->collection, name);
        if (depth <= 2)
                json_object_set_new(l->lines, key ?: name, json_integer((json_int_t)line));
}

/* "[a, b]" is "a,b": what the tree's own files have where they take several. */
static int take_list(struct loader *l, json_t **ret, struct err **e)
{
        _cleanup_buf_ struct buf text = {};

        for (;;) {
                _cleanup_(yaml_event_delete) yaml_event_t ev = {};
                int r = next(l, &ev, e);

                if (r < 0)
                        return r;
                if (ev.type == YAML_SEQUENCE_END_EVENT)
                        break;
                if (ev.type != YAML_SCALAR_EVENT || ev.data.scalar.anchor || ev.data.scalar.tag)
                        return bad(&ev, e, "a list holds values");
                if (text.len)
                        buf_addc(&text, ',');
                buf_add(&text, ev.data.scalar.value, ev.data.scalar.length);
        }
        *ret = json_stringn(buf_str(&text), text.len);
        return *ret ? 0 : err_set(e, -EINVAL, "a list that is not UTF-8");
}

static int take_map(struct loader *l, int depth, json_t *map, struct err **e)
{
        for (;;) {
                _cleanup_(yaml_event_delete) yaml_event_t key = {}, ev = {};
                json_t *value = NULL;
                const char *name;
                int r = next(l, &key, e);

                if (r < 0 || key.type == YAML_MAPPING_END_EVENT)
                        return r;
                if (key.type != YAML_SCALAR_EVENT || key.data.scalar.anchor)
                        return bad(&key, e, "a key is a plain word");
                name = (const char *)key.data.scalar.value;
                if (strlen(name) != key.data.scalar.length)
                        return bad(&key, e, "a key with a NUL");
                if (json_object_get(map, name))
                        return bad(&key, e, "this key is there already");
                note_line(l, depth, name, key.start_mark.line + 1);
                r = next(l, &ev, e);
                if (r == 0)
                        r = take_value(l, &ev, depth, &value, e);
                if (r == 0 && json_object_set_new(map, name, value) < 0)
                        r = bad(&key, e, "not UTF-8");
                if (r < 0)
                        return r;
        }
}

/* The value that begins with ev. */
static int take_value(struct loader *l, yaml_event_t *ev, int depth, json_t **ret, struct err **e)
{
        json_t *j;
        int r = 0;

        if (depth > DEPTH_MAX)
                return bad(ev, e, "too deep");
        switch (ev->type) {
        case YAML_SCALAR_EVENT:
                if (ev->data.scalar.anchor || ev->data.scalar.tag)
                        return bad(ev, e, "anchors and tags are not for this file");
                j = is_null(ev) ? json_null()
                                : json_stringn((const char *)ev->data.scalar.value,
                                               ev->data.scalar.length);
                if (!j)
                        return bad(ev, e, "not UTF-8");
                break;
        case YAML_MAPPING_START_EVENT:
                if (ev->data.mapping_start.anchor || ev->data.mapping_start.tag)
                        return bad(ev, e, "anchors and tags are not for this file");
                j = json_object();
                r = j ? take_map(l, depth + 1, j, e) : -ENOMEM;
                break;
        case YAML_SEQUENCE_START_EVENT:
                if (ev->data.sequence_start.anchor || ev->data.sequence_start.tag)
                        return bad(ev, e, "anchors and tags are not for this file");
                return take_list(l, ret, e);
        case YAML_ALIAS_EVENT:
                return bad(ev, e, "aliases are not for this file");
        default:
                return bad(ev, e, "a map, a list or a value is expected here");
        }
        if (r < 0)
                json_decref(j);
        else
                *ret = j;
        return r;
}

static int expect(struct loader *l, yaml_event_type_t type, struct err **e)
{
        _cleanup_(yaml_event_delete) yaml_event_t ev = {};
        int r = next(l, &ev, e);

        return r == 0 && ev.type != type ? bad(&ev, e, "one document, please") : r;
}

int yaml_load(const char *text, size_t n, json_t **ret, json_t *lines, struct err **e)
{
        struct loader l = {.lines = lines};
        _cleanup_(yaml_event_delete) yaml_event_t ev = {};
        json_t *doc = NULL;
        int r;

        if (!yaml_parser_initialize(&l.p))
                return -ENOMEM;
        yaml_parser_set_input_string(&l.p, (const unsigned char *)text, n);
        r = expect(&l, YAML_STREAM_START_EVENT, e);
        if (r == 0)
                r = expect(&l, YAML_DOCUMENT_START_EVENT, e);
        if (r == 0)
                r = next(&l, &ev, e);
        if (r == 0)
                r = take_value(&l, &ev, 0, &doc, e);
        if (r == 0)
                r = expect(&l, YAML_DOCUMENT_END_EVENT, e);
        if (r == 0)
                r = expect(&l, YAML_STREAM_END_EVENT, e);
        yaml_parser_delete(&l.p);
        if (r < 0)
                json_decref(doc);
        else
                *ret = doc;
        return r;
}
