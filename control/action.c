/* The changes that the mount asks for: create, set, verb, delete, rename, metadata. */
#include "control/internal.h"

int find_object(struct control *c, uint64_t no, struct object **ret, struct err **e)
{
        *ret = model_by_no(c, no);
        if (!*ret)
                return err_set(e, -ENOENT, "it is gone");
        return 0;
}

/* Legal states and the way out, as a hint. */
static int wrong_state(const struct object *o, unsigned states, struct err **e)
{
        char label[NAME_SIZE + 32];
        struct buf b = {};

        err_set(e, -EBUSY, "%s is %s", object_label(o, label), object_state(o));
        for (unsigned i = 0; i < o->kind->nstates; i++)
                if (states & STATE(i))
                        buf_printf(&b, " %s", o->kind->states[i].name);
        err_hint(e, -EBUSY, "legal in:%s", buf_str(&b));
        buf_done(&b);
        return -EBUSY;
}

int action_complete(struct txn *t, struct object *o, struct err **e)
{
        return o->kind->complete ? o->kind->complete(t, o, e) : 0;
}

/* --- create -------------------------------------------------------------------------------- */

int action_create(struct txn *t, struct object *owner, const struct kind *k, const char *name,
                  struct object **ret, struct err **e)
{
        char label[NAME_SIZE + 32];
        int r;

        if (k->creator == ROLE_NOBODY)
                return err_set(e, -EPERM, "%s are made by the cloud itself", k->plural);
        r = authorise(t->c, t->who, owner, k->creator, "mkdir", e);
        if (r == 0)
                r = name_check(name, strlen(name), e);
        if (r == 0 && !k->global &&
            !(k->inside ? kind_holds(owner->kind, k) : owner->kind == &kind_tenant))
                r = err_set(e, -EPERM, "a %s belongs into a %s", k->name, k->inside ?: "tenant");
        if (r == 0 && owner->nameless)
                r = err_set(e, -ENOENT, "%s is being deleted", object_label(owner, label));
        if (r == 0 && txn_unborn(t->c, owner))
                r = err_set(e, -EAGAIN, "'%s' is being made", owner->name);
        if (r == 0)
                r = txn_create(t, k, k->global ? NULL : owner, name, ret, e);
        if (r == 0)
                txn_event(t, *ret, "created");
        if (r == 0 && k->create)
                r = k->create(t, *ret, e);
        return r;
}

static int create_once(struct control *c, const struct caller *who, uint64_t owner_no,
                       const struct kind *k, const char *name, uint64_t *ret_no, struct err **e)
{
        struct object *owner, *o = NULL;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, owner_no, &owner, e);
        if (r == 0)
                r = action_create(&t, owner, k, name, &o, e);
        if (r == 0)
                *ret_no = o->no;
        r = txn_end(&t, r, e);
        return r < 0 ? err_prepend(e, r, "create %s '%.*s'", k->name, NAME_SIZE, name) : 0;
}

/* --- attributes and verbs -------------------------------------------------------------------- */

static bool value_same(const struct attr_def *a, union value x, union value y)
{
        if (!attr_is_text(a))
                return x.u == y.u;
        return streq(x.s ? x.s : "", y.s ? y.s : "");
}

int action_set(struct txn *t, struct object *o, unsigned attr, const char *text, size_t n,
               struct err **e)
{
        const struct attr_def *a = &o->kind->attrs[attr];
        union value v = {};
        int r;

        r = authorise(t->c, t->who, o, a->writer, NULL, e);
        if (r < 0)
                return r;
        r = value_parse(t->c, a, text, n, &v, e);
        if (r < 0)
                return r;
        if (value_same(a, v, o->vals[attr])) {
                value_free(a, &v);
                return 0;
        }
        if (!object_in(o, a->states))
                r = wrong_state(o, a->states, e);
        else if (a->set)
                r = a->set(t, o, v, e);
        else
                txn_set_value(t, o, attr, v);
        if (r < 0 || a->set)
                value_free(a, &v); /* a hook copies what it keeps */
        return r;
}

static int set_once(struct control *c, const struct caller *who, uint64_t no, unsigned attr,
                    const char *text, size_t n, struct err **e)
{
        struct object *o;
        const char *name = "";
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0) {
                name = o->kind->attrs[attr].name;
                r = action_set(&t, o, attr, text, n, e);
        }
        if (r == 0)
                r = action_complete(&t, o, e);
        r = txn_end(&t, r, e);
        return r < 0 ? err_prepend(e, r, "set %s", name) : 0;
}

static int write_line_once(struct control *c, const struct caller *who, uint64_t no, unsigned file,
                           const char *text, size_t n, struct err **e)
{
        _cleanup_free_ char *line = xstrndup(text, n);
        const struct file_def *f;
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0) {
                f = &o->kind->files[file];
                r = authorise(c, who, o, f->write ? f->writer : ROLE_NOBODY, f->name, e);
                if (r == 0 && !text_clean(text, n, false))
                        r = err_at(e, -EINVAL, text, n, 0, n, "not a line of UTF-8");
                if (r == 0)
                        r = f->write(&t, o, line, e);
        }
        return txn_end(&t, r, e);
}

static const struct verb_def *verb_find(const struct kind *k, const char *p, size_t n)
{
        for (unsigned i = 0; i < k->nverbs; i++)
                if (strlen(k->verbs[i].name) == n && memcmp(k->verbs[i].name, p, n) == 0)
                        return &k->verbs[i];
        return NULL;
}

static int legal_verbs(const struct object *o, struct err **e)
{
        struct buf b = {};

        for (unsigned i = 0; i < o->kind->nverbs; i++)
                if (object_in(o, o->kind->verbs[i].states) &&
                    (!o->kind->suits || o->kind->suits(o, o->kind->verbs[i].name, NULL) == 0))
                        buf_printf(&b, " %s", o->kind->verbs[i].name);
        err_hint(e, -EINVAL, "legal now:%s", b.len ? b.data : " nothing");
        buf_done(&b);
        return 0;
}

static int run_verb(struct txn *t, struct object *o, const char *text, size_t n, struct err **e)
{
        size_t from = strspn(text, " \t"), len = strcspn(text + from, " \t");
        const struct verb_def *v = verb_find(o->kind, text + from, len);
        const char *args = text + from + len;
        char label[NAME_SIZE + 32];
        int r;

        if (!v) {
                /* The rest of the line is not shown: it may have been meant as a password. */
                r = err_at(e, -EINVAL, text, from + len, from, len, "'%.*s' is no verb of %s",
                           (int)MIN(len, (size_t)NAME_SIZE), text + from, o->kind->plural);
                legal_verbs(o, e);
                return r;
        }
        r = authorise(t->c, t->who, o, v->role, v->name, e);
        if (r == 0 && o->kind->suits)
                r = o->kind->suits(o, v->name, e);
        if (r < 0)
                return r;
        if (o->nameless || !object_in(o, v->states)) {
                r = err_set(e, -EBUSY, "%s: %s is %s", v->name, object_label(o, label),
                            object_state(o));
                legal_verbs(o, e);
                return r;
        }
        args += strspn(args, " \t");
        if (*args && !*v->args)
                return err_at(e, -EINVAL, text, n, args - text, strlen(args),
                              "%s takes no argument", v->name);
        return v->run(t, o, args, e);
}

static int verb_once(struct control *c, const struct caller *who, uint64_t no, const char *text,
                     size_t n, struct err **e)
{
        _cleanup_free_ char *line = NULL;
        struct object *o;
        struct txn t;
        int r;

        while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t' || text[n - 1] == '\r'))
                n--;
        line = xstrndup(text, n); /* as long as that only if it is clean */
        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0 && !text_clean(text, n, false))
                r = err_at(e, -EINVAL, text, n, 0, n, "a verb is one line of UTF-8");
        if (r == 0)
                r = run_verb(&t, o, line, n, e);
        return txn_end(&t, r, e);
}

/* --- delete, rename -------------------------------------------------------------------------- */

int check_referrers(const struct object *o, struct err **e)
{
        char label[NAME_SIZE + 32];
        struct buf b = {};

        for (unsigned i = 0; i < o->nrefs; i++)
                if (!o->refs[i]->nameless)
                        buf_printf(&b, "%s%s/%s", b.len ? ", " : "", o->refs[i]->kind->plural,
                                   o->refs[i]->name);
        if (b.len == 0)
                return 0;
        err_set(e, -EBUSY, "%s is in use by %s", object_label(o, label), b.data);
        buf_done(&b);
        return -EBUSY;
}

static int delete_once(struct control *c, const struct caller *who, uint64_t no, struct err **e)
{
        char label[NAME_SIZE + 32] = "it";
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0) {
                object_label(o, label);
                /* One that failed is left under its id: it may be tried again. */
                r = o->nameless && o->kind->states[o->state].transient
                            ? err_set(e, -ENOENT, "it is being deleted already")
                            : authorise(c, who, o, o->kind->remover ?: o->kind->creator, "rmdir",
                                        e);
        }
        if (r == 0)
                txn_event(&t, o, "deleted");
        if (r == 0 && o->kind->remove)
                r = o->kind->remove(&t, o, e);
        else if (r == 0 && (r = check_referrers(o, e)) == 0)
                txn_delete(&t, o);
        r = txn_end(&t, r, e);
        return r < 0 ? err_prepend(e, r, "delete %s", label) : 0;
}

static int rename_once(struct control *c, const struct caller *who, uint64_t no, const char *name,
                       struct err **e)
{
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = authorise(c, who, o, o->kind->creator, "rename", e);
        if (r == 0)
                r = name_check(name, strlen(name), e);
        if (r == 0 && o->kind->rename)
                r = o->kind->rename(&t, o, name, e);
        if (r == 0) {
                txn_event(&t, o, "renamed to %s", name);
                r = txn_rename(&t, o, name, e);
        }
        return txn_end(&t, r, e);
}

/* --- metadata -------------------------------------------------------------------------------- */

bool meta_key_valid(const char *key)
{
        size_t n = strlen(key);

        return n > 0 && n <= META_KEY && !strchr(key, '/') && !streq(key, ".") &&
               !streq(key, "..") && text_clean(key, n, false);
}

size_t meta_value_max(const struct kind *k, const char *key)
{
        return k == &kind_instance && streq(key, "user_data") ? USER_DATA : META_VALUE;
}

static int set_meta_once(struct control *c, const struct caller *who, uint64_t no, const char *key,
                         const char *value, size_t n, struct err **e)
{
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = authorise(c, who, o, ROLE_MEMBER, "metadata", e);
        if (r == 0 && !meta_key_valid(key))
                r = err_set(e, -EINVAL, "a metadata key is 1 to %d bytes of UTF-8", META_KEY);
        if (r == 0 && n > meta_value_max(o->kind, key))
                r = err_set(e, -EFBIG, "this metadata value has at most %zu bytes",
                            meta_value_max(o->kind, key));
        if (r == 0 && !text_clean(value, n, true))
                r = err_at(e, -EINVAL, value, n, 0, n, "a metadata value is UTF-8 text");
        if (r == 0 && !object_meta(o, key) && o->nmeta >= META_KEYS)
                r = err_set(e, -EDQUOT, "metadata limit=%d used=%u wanted=1", META_KEYS, o->nmeta);
        if (r == 0)
                txn_set_meta(&t, o, key, value, n);
        return txn_end(&t, r, e);
}

static int del_meta_once(struct control *c, const struct caller *who, uint64_t no, const char *key,
                         struct err **e)
{
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = authorise(c, who, o, ROLE_MEMBER, "metadata", e);
        if (r == 0 && !object_meta(o, key))
                r = err_set(e, -ENOENT, "there is no key '%s'", key);
        if (r == 0)
                txn_del_meta(&t, o, key);
        return txn_end(&t, r, e);
}

/* --- each until no other host was quicker -------------------------------------------------------
 */

int control_create(struct control *c, const struct caller *who, uint64_t owner_no,
                   const struct kind *k, const char *name, uint64_t *ret_no, struct err **e)
{
        return AGAIN(c, e, create_once(c, who, owner_no, k, name, ret_no, e));
}

int control_write_line(struct control *c, const struct caller *who, uint64_t no, unsigned file,
                       const char *text, size_t n, struct err **e)
{
        return AGAIN(c, e, write_line_once(c, who, no, file, text, n, e));
}

int control_verb(struct control *c, const struct caller *who, uint64_t no, const char *text,
                 size_t n, struct err **e)
{
        return AGAIN(c, e, verb_once(c, who, no, text, n, e));
}

int control_delete(struct control *c, const struct caller *who, uint64_t no, struct err **e)
{
        return AGAIN(c, e, delete_once(c, who, no, e));
}

int control_rename(struct control *c, const struct caller *who, uint64_t no, const char *name,
                   struct err **e)
{
        return AGAIN(c, e, rename_once(c, who, no, name, e));
}

int control_set_meta(struct control *c, const struct caller *who, uint64_t no, const char *key,
                     const char *value, size_t n, struct err **e)
{
        return AGAIN(c, e, set_meta_once(c, who, no, key, value, n, e));
}

int control_del_meta(struct control *c, const struct caller *who, uint64_t no, const char *key,
                     struct err **e)
{
        return AGAIN(c, e, del_meta_once(c, who, no, key, e));
}

int control_set(struct control *c, const struct caller *who, uint64_t no, unsigned attr,
                const char *text, size_t n, struct err **e)
{
        return AGAIN(c, e, set_once(c, who, no, attr, text, n, e));
}
