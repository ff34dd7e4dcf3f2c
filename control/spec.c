/* `spec`, `.json` and `new`: an object as one document. */
#include "control/internal.h"

#include <ctype.h>
#include <jansson.h>

#include "common/jsonl.h"

/* --- reading ------------------------------------------------------------------------------- */

static json_t *attr_json(struct control *c, const struct object *o, unsigned i)
{
        const struct attr_def *a = &o->kind->attrs[i];
        struct buf b = {};
        json_t *j;

        render_attr(c, o, i, &b);
        b.data[b.len - 1] = '\0';
        if (a->type == ATTR_BOOL)
                j = json_boolean(streq(b.data, "1"));
        else if (!attr_is_text(a) && isdigit((unsigned char)b.data[0]))
                j = json_integer(strtoll(b.data, NULL, 10));
        else
                j = json_string(b.data);
        buf_done(&b);
        return j;
}

static json_t *link_json(struct control *c, const struct link *l)
{
        return json_sprintf("%s/%s", l->target->kind->plural, l->target->name);
}

static void add_links(struct control *c, const struct object *o, json_t *doc)
{
        for (unsigned d = 0; d < o->kind->nlinks; d++) {
                const struct link_def *def = &o->kind->links[d];
                json_t *many = def->many ? json_object() : NULL;

                object_foreach_link (l, o) {
                        if (l->def != d || l->leaving || l->target->nameless)
                                continue;
                        json_object_set_new(many ? many : doc, l->name, link_json(c, l));
                }
                if (many)
                        json_object_set_new(doc, def->name, many);
        }
}

static void add_meta(const struct object *o, json_t *doc)
{
        json_t *m = json_object();

        for (unsigned i = 0; i < o->nmeta; i++)
                json_object_set_new(m, o->meta[i].key, json_string(o->meta[i].value));
        json_object_set_new(doc, "metadata", m);
}

static void dump(json_t *doc, struct buf *out)
{
        _cleanup_free_ char *text = json_text(doc, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

        buf_addstr(out, xcheck(text));
        buf_addc(out, '\n');
}

/* What a user may write, in the order of the table: it can be copied to another object. */
void render_spec(struct control *c, const struct object *o, struct buf *out)
{
        json_auto_t *doc = json_pack("{s:s}", "kind", o->kind->name);

        for (unsigned i = 0; i < o->kind->nattrs; i++) {
                const struct attr_def *a = &o->kind->attrs[i];

                if (a->writer != ROLE_NOBODY && !a->no_spec && !a->hidden)
                        json_object_set_new(doc, a->name, attr_json(c, o, i));
        }
        add_links(c, o, doc);
        add_meta(o, doc);
        dump(doc, out);
}

void render_json(struct control *c, const struct object *o, struct buf *out)
{
        char id[ID_TEXT_SIZE], created[CLOCK_TEXT_MAX], updated[CLOCK_TEXT_MAX];
        json_auto_t *doc =
                json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "kind", o->kind->name, "name",
                          o->name, "id", id_text(id, o->id), "state", object_state(o), "created",
                          clock_format(created, o->created), "updated",
                          clock_format(updated, o->updated), "rev", (json_int_t)o->rev);

        for (unsigned i = 0; i < o->kind->nattrs; i++)
                if (!o->kind->attrs[i].hidden)
                        json_object_set_new(doc, o->kind->attrs[i].name, attr_json(c, o, i));
        add_links(c, o, doc);
        add_meta(o, doc);
        if (o->error)
                json_object_set_new(doc, "error", json_string(o->error));
        dump(doc, out);
}

/* --- writing ------------------------------------------------------------------------------- */

static int bad_key(const char *text, size_t n, const char *key, const struct kind *k,
                   struct err **e)
{
        const char *at = memmem(text, n, key, strlen(key));

        if (!text_clean(key, strlen(key), false))
                return err_set(e, -EINVAL, "a key with control characters");

        return err_at(e, -EINVAL, text, n, at ? (size_t)(at - text) : 0, strlen(key),
                      "a %s has no '%.*s' to write", k->name, NAME_SIZE, key);
}

/* A JSON scalar as the text one would write into the file. */
static char *scalar_text(json_t *v)
{
        char *s = NULL;

        if (json_is_string(v))
                return xstrdup(json_string_value(v));
        if (json_is_integer(v) && asprintf(&s, "%" JSON_INTEGER_FORMAT, json_integer_value(v)) >= 0)
                return s;
        if (json_is_boolean(v))
                return xstrdup(json_is_true(v) ? "1" : "0");
        if (json_is_null(v))
                return xstrdup("");
        return NULL;
}

/* One document on its way into one object, and what it changed so far, a line a key. */
struct applying {
        struct txn *t;
        struct object *o;
        const char *text; /* the document, for carets */
        size_t n;
        struct buf said; /* "KEY: OLD -> NEW" */
        struct buf keys; /* the keys alone: the event's words */
};

static void note_key(struct applying *ap, const char *folder, const char *key)
{
        struct buf *lists[] = {&ap->said, &ap->keys};

        buf_addstr(&ap->keys, ap->keys.len ? ", " : "");
        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                buf_printf(lists[i], "%s%s%s", folder ?: "", folder ? "/" : "", key);
}

static void note(struct applying *ap, const char *folder, const char *key, const char *was,
                 const char *is)
{
        note_key(ap, folder, key);
        if (*was || *is)
                buf_printf(&ap->said, ": %s%s->%s%s", was, *was ? " " : "", *is ? " " : "", is);
        buf_addc(&ap->said, '\n');
}

static char *attr_text(struct control *c, const struct object *o, unsigned i)
{
        struct buf b = {};

        render_attr(c, o, i, &b);
        b.data[b.len - 1] = '\0';
        return buf_take(&b);
}

/* Whether text, in whatever spelling ("1G"), is what the attribute shows now. */
static bool says_the_same(struct control *c, const struct attr_def *a, const char *text,
                          const char *now)
{
        _cleanup_buf_ struct buf b = {};
        union value v = {};

        if (streq(text, now))
                return true;
        if (value_parse(c, a, text, strlen(text), &v, NULL) < 0)
                return false;
        value_render(a, v, &b);
        value_free(a, &v);
        return streq(buf_str(&b), now);
}

static int apply_attr(struct applying *ap, unsigned i, json_t *v, struct err **e)
{
        const struct attr_def *a = &ap->o->kind->attrs[i];
        _cleanup_free_ char *text = scalar_text(v), *was = NULL, *is = NULL;
        int r;

        if (!text)
                return err_set(e, -EINVAL, "%s: a string, a number or true/false", a->name);
        was = attr_text(ap->t->c, ap->o, i);
        if (says_the_same(ap->t->c, a, text, was))
                return 0;
        r = action_set(ap->t, ap->o, i, text, strlen(text), e);
        if (r < 0)
                return err_prepend(e, r, "%s", a->name);
        is = attr_text(ap->t->c, ap->o, i);
        /* What is kept out of `spec` may be a secret. */
        if (a->no_spec)
                note(ap, NULL, a->name, "", "");
        else if (!streq(was, is))
                note(ap, NULL, a->name, was, is);
        return 0;
}

static void link_text(const struct link *l, char out[NAME_SIZE * 2])
{
        snprintf(out, NAME_SIZE * 2, "%s/%s", l->target->kind->plural, l->target->name);
}

static int drop_link(struct applying *ap, unsigned d, struct link *l, struct err **e)
{
        const struct link_def *def = &ap->o->kind->links[d];
        char was[NAME_SIZE * 2], name[NAME_SIZE];
        int r;

        link_text(l, was);
        snprintf(name, sizeof(name), "%s", l->name);
        r = action_unlink(ap->t, ap->o, d, name, e);
        if (r >= 0)
                note(ap, def->many ? def->name : NULL, name, was, "");
        return r;
}

static int apply_one_link(struct applying *ap, unsigned d, const char *name, json_t *v,
                          struct err **e)
{
        const struct link_def *def = &ap->o->kind->links[d];
        struct link *l = object_link(ap->o, d, def->many ? name : NULL);
        const char *text = json_string_value(v);
        char canonical[NAME_SIZE], is[NAME_SIZE * 2];
        struct object *to;
        int r;

        if (!text && !json_is_null(v))
                return err_set(e, -EINVAL, "%s: a target is a string", name);
        if (l && text) {
                r = resolve_target(ap->t->c, ap->o, def, text, false, &to, e);
                if (r < 0 || to == l->target)
                        return r;
        }
        if (l && (r = drop_link(ap, d, l, e)) < 0)
                return r;
        if (!text)
                return 0;
        r = action_link(ap->t, ap->o, d, name, text, false, canonical, e);
        if (r < 0)
                return r;
        l = object_link(ap->o, d, def->many ? canonical : NULL);
        if (l) {
                link_text(l, is);
                note(ap, def->many ? def->name : NULL, l->name, "", is);
        }
        return 0;
}

/* The document says all of them: what it does not name goes. */
static int apply_links(struct applying *ap, unsigned d, json_t *doc, struct err **e)
{
        struct object *o = ap->o;
        const char *name;
        json_t *v;
        int r;

        if (!o->kind->links[d].many)
                return apply_one_link(ap, d, o->kind->links[d].name, doc, e);
        if (!json_is_object(doc))
                return err_set(e, -EINVAL, "%s: an object of NAME: TARGET", o->kind->links[d].name);
        for (unsigned i = o->nlinks; i-- > 0;) {
                struct link *l = &o->links[i];

                if (l->def != d || l->leaving || json_object_get(doc, l->name))
                        continue;
                r = drop_link(ap, d, l, e);
                if (r < 0)
                        return r;
        }
        json_object_foreach (doc, name, v) {
                r = apply_one_link(ap, d, name, v, e);
                if (r < 0)
                        return err_prepend(e, r, "%s", name);
        }
        return 0;
}

static const struct meta *meta_find(const struct object *o, const char *key)
{
        for (unsigned i = 0; i < o->nmeta; i++)
                if (streq(o->meta[i].key, key))
                        return &o->meta[i];
        return NULL;
}

/* Values may have lines of their own: only the keys are told. */
static int apply_meta(struct applying *ap, json_t *doc, struct err **e)
{
        struct object *o = ap->o;
        const char *key;
        json_t *v;
        int r;

        r = authorise(ap->t->c, ap->t->who, o, ROLE_MEMBER, "metadata", e);
        if (r < 0)
                return r;
        if (!json_is_object(doc))
                return err_set(e, -EINVAL, "metadata: an object of KEY: TEXT");
        if (json_object_size(doc) > META_KEYS)
                return err_set(e, -EDQUOT, "metadata limit=%d wanted=%zu", META_KEYS,
                               json_object_size(doc));
        for (unsigned i = o->nmeta; i-- > 0;) {
                if (json_object_get(doc, o->meta[i].key))
                        continue;
                note(ap, "metadata", o->meta[i].key, "", "");
                txn_del_meta(ap->t, o, o->meta[i].key);
        }
        json_object_foreach (doc, key, v) {
                const char *s = json_string_value(v);
                const struct meta *now = meta_find(o, key);

                if (!s || strlen(s) > meta_value_max(o->kind, key) ||
                    !text_clean(s, strlen(s), true) || !meta_key_valid(key))
                        return err_set(e, -EINVAL, "metadata: an object of KEY: TEXT");
                if (now && streq(now->value, s))
                        continue;
                note(ap, "metadata", key, "", "");
                txn_set_meta(ap->t, o, key, s, strlen(s));
        }
        return 0;
}

static int apply_key(struct applying *ap, const char *key, json_t *v, struct err **e)
{
        const struct object *o = ap->o;
        const struct kind *k = o->kind;
        int i = kind_attr(k, key);

        if (i >= 0 && !k->attrs[i].hidden && k->attrs[i].writer != ROLE_NOBODY)
                return apply_attr(ap, i, v, e);
        i = kind_link(k, key);
        if (i >= 0)
                return apply_links(ap, i, v, e);
        if (streq(key, "metadata"))
                return apply_meta(ap, v, e);
        if (streq(key, "kind"))
                return json_is_string(v) && streq(json_string_value(v), k->name)
                               ? 0
                               : err_set(e, -EINVAL, "this is a %s", k->name);
        if (streq(key, "name"))
                return json_is_string(v) && streq(json_string_value(v), o->name)
                               ? 0
                               : err_set(e, -EINVAL, "name: mv renames, a spec does not");
        if (streq(key, "rev"))
                return json_is_integer(v) && (uint64_t)json_integer_value(v) == o->rev
                               ? 0
                               : err_set(e, -ESTALE, "rev is %" PRIu64 " now", o->rev);
        return bad_key(ap->text, ap->n, key, k, e);
}

/* In the order of the kind's table, whatever that of the document: a size comes before the source
 * that completes a draft.  Then what remains, and what is wrong. */
static int apply_doc(struct applying *ap, json_t *doc, struct err **e)
{
        const struct kind *k = ap->o->kind;
        const char *key;
        json_t *v;
        int r;

        json_object_foreach (doc, key, v) {
                if (kind_attr(k, key) >= 0)
                        continue;
                r = kind_link(k, key) >= 0 ? 0 : apply_key(ap, key, v, e);
                if (r < 0)
                        return r;
        }
        for (unsigned i = 0; i < k->nattrs + k->nlinks; i++) {
                key = i < k->nattrs ? k->attrs[i].name : k->links[i - k->nattrs].name;
                v = json_object_get(doc, key);
                r = v ? apply_key(ap, key, v, e) : 0;
                if (r < 0)
                        return r;
        }
        return action_complete(ap->t, ap->o, e);
}

static json_t *parse_doc(const char *text, size_t n, struct err **e)
{
        json_error_t je;
        json_t *doc = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);

        if (!doc)
                err_at(e, -EINVAL, text, n, MAX(je.position, 1) - 1, 1, "not JSON: %s (line %d)",
                       je.text, je.line);
        else if (!json_is_object(doc)) {
                err_set(e, -EINVAL, "not a JSON object");
                json_decref(doc);
                doc = NULL;
        }
        return doc;
}

static int apply_once(struct control *c, const struct caller *who, uint64_t no, const char *json,
                      size_t n, char **ret_said, struct err **e)
{
        json_auto_t *doc = parse_doc(json, n, e);
        struct applying ap = {.text = json, .n = n};
        struct txn t;
        int r;

        if (!doc)
                return -EINVAL;
        txn_begin(&t, c, who);
        ap.t = &t;
        r = find_object(c, no, &ap.o, e);
        if (r == 0)
                r = apply_doc(&ap, doc, e);
        if (r == 0 && ap.keys.len)
                txn_event(&t, ap.o, "spec: %.400s", buf_str(&ap.keys));
        r = txn_end(&t, r, e);
        if (r == 0 && ret_said)
                *ret_said = buf_take(&ap.said);
        buf_done(&ap.said);
        buf_done(&ap.keys);
        return r < 0 ? err_prepend(e, r, "spec") : 0;
}

/* --- new ----------------------------------------------------------------------------------- */

/* "name=v1 size=10G volumes.vda=volumes/v1 metadata.k=v" as a document. */
static json_t *parse_words(const struct kind *k, const char *text, size_t n, struct err **e)
{
        json_t *doc = json_object();

        for (size_t i = 0; i < n;) {
                size_t from = i, eq, len, dot;
                json_t *into = doc;
                char key[NAME_SIZE * 2], sub[NAME_SIZE] = "";

                if (isspace((unsigned char)text[i])) {
                        i++;
                        continue;
                }
                while (i < n && !isspace((unsigned char)text[i]))
                        i++;
                len = i - from;
                eq = strcspn(text + from, "=");
                if (eq == 0 || eq >= len || eq >= sizeof(key)) {
                        err_at(e, -EINVAL, text, n, from, len, "not KEY=VALUE");
                        json_decref(doc);
                        return NULL;
                }
                snprintf(key, sizeof(key), "%.*s", (int)eq, text + from);
                dot = strcspn(key, ".");
                if (key[dot]) {
                        snprintf(sub, sizeof(sub), "%.*s", NAME_SIZE - 1, key + dot + 1);
                        key[dot] = '\0';
                        into = json_object_get(doc, key);
                        if (!into)
                                json_object_set_new(doc, key, into = json_object());
                }
                if (!json_is_object(into) ||
                    json_object_set_new(into, *sub ? sub : key,
                                        json_stringn(text + from + eq + 1, len - eq - 1)) < 0) {
                        err_at(e, -EINVAL, text, n, from, len, "not UTF-8 text");
                        json_decref(doc);
                        return NULL;
                }
        }
        return doc;
}

/* Answers of the last `new` writes with a token, so that a retry gets the first one again. */
struct token_list {
        struct token {
                char key[200];
                char *line;
        } v[256];
        unsigned next;
};

static const char *token_find(struct control *c, const char *key)
{
        for (unsigned i = 0; c->tokens && i < ARRAY_SIZE(c->tokens->v); i++)
                if (c->tokens->v[i].line && streq(c->tokens->v[i].key, key))
                        return c->tokens->v[i].line;
        return NULL;
}

static void token_add(struct control *c, const char *key, const char *line)
{
        struct token *k;

        if (!c->tokens)
                c->tokens = xcalloc(1, sizeof(*c->tokens));
        k = &c->tokens->v[c->tokens->next++ % ARRAY_SIZE(c->tokens->v)];
        free(k->line);
        snprintf(k->key, sizeof(k->key), "%s", key);
        k->line = xstrdup(line);
}

void tokens_free(struct control *c)
{
        for (unsigned i = 0; c->tokens && i < ARRAY_SIZE(c->tokens->v); i++)
                free(c->tokens->v[i].line);
        free(c->tokens);
        c->tokens = NULL;
}

static int new_object(struct txn *t, struct object *owner, const struct kind *k, const char *text,
                      size_t n, json_t *doc, char **ret_line, struct err **e)
{
        const char *name = json_string_value(json_object_get(doc, "name"));
        struct applying ap = {.t = t, .text = text, .n = n};
        char id[ID_TEXT_SIZE];
        int r;

        if (!name)
                return err_set(e, -EINVAL, "name= is missing");
        r = action_create(t, owner, k, name, &ap.o, e);
        if (r == 0)
                r = apply_doc(&ap, doc, e);
        buf_done(&ap.said);
        buf_done(&ap.keys);
        if (r == 0 && asprintf(ret_line, "%s %s\n", ap.o->name, id_text(id, ap.o->id)) < 0)
                abort();
        return r;
}

int control_made(struct control *c, uint64_t owner_no, const struct kind *k, const char *text,
                 size_t n, char **ret_line, struct err **e)
{
        size_t from = 0;
        json_auto_t *doc = NULL;
        const char *name;
        struct object *owner, *o = NULL;
        char id[ID_TEXT_SIZE];

        while (from < n && isspace((unsigned char)text[from]))
                from++;
        doc = from < n && text[from] == '{' ? parse_doc(text, n, e) : parse_words(k, text, n, e);
        name = json_string_value(json_object_get(doc, "name"));
        *ret_line = NULL;
        control_rdlock(c);
        owner = model_by_no(c, owner_no);
        if (owner && name)
                o = model_by_name(c, owner, k, name);
        if (o && asprintf(ret_line, "%s %s\n", o->name, id_text(id, o->id)) < 0)
                abort();
        control_unlock(c);
        return o ? 0 : err_set(e, -ENOENT, "it was made, and is gone again");
}

static int new_once(struct control *c, const struct caller *who, uint64_t owner_no,
                    const struct kind *k, const char *text, size_t n, char **ret_line,
                    struct err **e)
{
        size_t from = 0;
        json_auto_t *doc = NULL;
        const char *token, *before;
        struct object *owner;
        char key[200] = "";
        struct txn t;
        int r;

        while (from < n && isspace((unsigned char)text[from]))
                from++;
        doc = from < n && text[from] == '{' ? parse_doc(text, n, e) : parse_words(k, text, n, e);
        if (!doc)
                return err_prepend(e, -EINVAL, "new %s", k->name);
        *ret_line = NULL;
        txn_begin(&t, c, who);
        token = json_string_value(json_object_get(doc, "token"));
        if (token)
                snprintf(key, sizeof(key), "%u %" PRIu64 " %s %.128s", who ? who->uid : 0, owner_no,
                         k->name, token);
        before = *key ? token_find(c, key) : NULL;
        json_object_del(doc, "token");
        if (before) {
                *ret_line = xstrdup(before);
                txn_abort(&t);
                return 0;
        }
        r = find_object(c, owner_no, &owner, e);
        if (r == 0)
                r = new_object(&t, owner, k, text, n, doc, ret_line, e);
        r = txn_end(&t, r, e);
        if (r < 0) {
                free(TAKE_PTR(*ret_line));
                return err_prepend(e, r, "new %s", k->name);
        }
        if (*key) {
                pthread_rwlock_wrlock(&c->model);
                token_add(c, key, *ret_line);
                pthread_rwlock_unlock(&c->model);
        }
        return 0;
}

/* --- each until no other host was quicker -------------------------------------------------------
 */

int control_apply(struct control *c, const struct caller *who, uint64_t no, const char *json,
                  size_t n, char **ret_said, struct err **e)
{
        return AGAIN(c, e, apply_once(c, who, no, json, n, ret_said, e));
}

int control_new(struct control *c, const struct caller *who, uint64_t owner_no,
                const struct kind *k, const char *text, size_t n, char **ret_line, struct err **e)
{
        return AGAIN(c, e, new_once(c, who, owner_no, k, text, n, ret_line, e));
}
