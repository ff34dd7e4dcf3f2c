/* YAML by libyaml's parser, as JSON values. */
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

#include "cli/describe.h"
#include "common/macro.h"

enum { DEPTH_MAX = 16 };

static int next(yaml_parser_t *p, yaml_event_t *ev, struct err **e)
{
        if (yaml_parser_parse(p, ev))
                return 0;
        return err_set(e, -EINVAL, "line %zu: %s", p->problem_mark.line + 1,
                       p->problem ? p->problem : "not YAML");
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

static int take_value(yaml_parser_t *p, yaml_event_t *ev, int depth, json_t **ret, struct err **e);

static int take_map(yaml_parser_t *p, int depth, json_t *map, struct err **e)
{
        for (;;) {
                _cleanup_(yaml_event_delete) yaml_event_t key = {}, ev = {};
                json_t *value = NULL;
                const char *name;
                int r = next(p, &key, e);

                if (r < 0 || key.type == YAML_MAPPING_END_EVENT)
                        return r;
                if (key.type != YAML_SCALAR_EVENT || key.data.scalar.anchor)
                        return bad(&key, e, "a key is a plain word");
                name = (const char *)key.data.scalar.value;
                if (strlen(name) != key.data.scalar.length)
                        return bad(&key, e, "a key with a NUL");
                if (json_object_get(map, name))
                        return bad(&key, e, "this key is there already");
                r = next(p, &ev, e);
                if (r == 0)
                        r = take_value(p, &ev, depth, &value, e);
                if (r == 0 && json_object_set_new(map, name, value) < 0)
                        r = bad(&key, e, "not UTF-8");
                if (r < 0)
                        return r;
        }
}

/* The value that begins with ev. */
static int take_value(yaml_parser_t *p, yaml_event_t *ev, int depth, json_t **ret, struct err **e)
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
                r = j ? take_map(p, depth + 1, j, e) : -ENOMEM;
                break;
        case YAML_ALIAS_EVENT:
                return bad(ev, e, "aliases are not for this file");
        default:
                return bad(ev, e, "a map or a value is expected here");
        }
        if (r < 0)
                json_decref(j);
        else
                *ret = j;
        return r;
}

static int expect(yaml_parser_t *p, yaml_event_type_t type, struct err **e)
{
        _cleanup_(yaml_event_delete) yaml_event_t ev = {};
        int r = next(p, &ev, e);

        return r == 0 && ev.type != type ? bad(&ev, e, "one document, please") : r;
}

int yaml_load(const char *text, size_t n, json_t **ret, struct err **e)
{
        _cleanup_(yaml_parser_delete) yaml_parser_t p = {};
        _cleanup_(yaml_event_delete) yaml_event_t ev = {};
        json_t *doc = NULL;
        int r;

        if (!yaml_parser_initialize(&p))
                return -ENOMEM;
        yaml_parser_set_input_string(&p, (const unsigned char *)text, n);
        r = expect(&p, YAML_STREAM_START_EVENT, e);
        if (r == 0)
                r = expect(&p, YAML_DOCUMENT_START_EVENT, e);
        if (r == 0)
                r = next(&p, &ev, e);
        if (r == 0)
                r = take_value(&p, &ev, 0, &doc, e);
        if (r == 0)
                r = expect(&p, YAML_DOCUMENT_END_EVENT, e);
        if (r == 0)
                r = expect(&p, YAML_STREAM_END_EVENT, e);
        if (r < 0)
                json_decref(doc);
        else
                *ret = doc;
        return r;
}
