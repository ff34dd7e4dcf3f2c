/* Links: what a symlink's text means, and binding and unbinding. */
#include "control/internal.h"

enum { PARTS_MAX = 16 };

struct path {
        char *text; /* cut into parts */
        const char *part[PARTS_MAX];
        int n;
};

static void path_done(struct path *p)
{
        free(p->text);
}

/* Appends the components of text, resolving "." and "..".  false: too deep or above the root. */
static bool path_add(struct path *p, char *text)
{
        char *save = NULL;

        for (char *w = strtok_r(text, "/", &save); w; w = strtok_r(NULL, "/", &save)) {
                if (streq(w, "."))
                        continue;
                if (streq(w, "..")) {
                        if (p->n-- == 0)
                                return false;
                        continue;
                }
                if (p->n == PARTS_MAX)
                        return false;
                p->part[p->n++] = w;
        }
        return true;
}

/* What other tenants may link to. */
static bool shared(const struct object *o)
{
        return o && o->kind == &kind_network && object_num(o, "shared");
}

/* The object at the path from the mount point.  -EPERM: it is another tenant's. */
static int path_object(struct control *c, const struct path *p, const struct object *tenant,
                       struct object **ret)
{
        const struct object *owner = NULL;
        bool foreign = false;
        const struct kind *k;
        sd_id128_t id;
        int i = 0;

        *ret = NULL;
        if (p->n >= 2 && streq(p->part[0], "tenants")) {
                foreign = tenant && !streq(p->part[1], tenant->name);
                if (foreign && (p->n != 4 || !streq(p->part[2], "networks")))
                        return -EPERM;
                owner = model_by_name(c, NULL, &kind_tenant, p->part[1]);
                if (!owner)
                        return foreign ? -EPERM : -ENOENT;
                i = 2;
        }
        if (p->n - i < 2)
                return -ENOENT;
        k = kind_by_plural(p->part[i]);
        if (!k || (k->global ? owner != NULL : owner == NULL))
                return -ENOENT;
        /* Down through holders: volumes/v/snapshots/s. */
        while (p->n - i >= 4 && !streq(p->part[i + 1], ".id")) {
                owner = model_by_name(c, owner, k, p->part[i + 1]);
                k = kind_by_plural(p->part[i + 2]);
                if (!owner || !k || !kind_holds(owner->kind, k))
                        return -ENOENT;
                i += 2;
        }
        if (p->n - i == 3 && streq(p->part[i + 1], ".id") && id_parse(p->part[i + 2], &id) == 0)
                *ret = model_by_id(c, id);
        else if (p->n - i == 2)
                *ret = model_by_name(c, owner, k, p->part[i + 1]);
        if (*ret && ((*ret)->kind != k || (!k->global && object_owner(c, *ret) != owner)))
                *ret = NULL;
        if (foreign && !shared(*ret))
                return -EPERM;
        return *ret ? 0 : -ENOENT;
}

static int try_path(struct control *c, const struct object *o, struct object **ret, const char *fmt,
                    ...) _printf_(4, 5);
static int try_path(struct control *c, const struct object *o, struct object **ret, const char *fmt,
                    ...)
{
        _cleanup_(path_done) struct path p = {};
        va_list ap;

        va_start(ap, fmt);
        if (vasprintf(&p.text, fmt, ap) < 0)
                abort();
        va_end(ap);
        if (!path_add(&p, p.text))
                return -ENOENT;
        return path_object(c, &p, o->tenant, ret);
}

/* Below the mount point?  Then the rest of the path, else NULL. */
static const char *below_mount(struct control *c, const char *target)
{
        size_t n = c->cfg.mount ? strlen(c->cfg.mount) : 0;

        if (n == 0 || strncmp(target, c->cfg.mount, n) != 0 || target[n] != '/')
                return NULL;
        return target + n;
}

/* "volume/root": a kind's singular name. */
static int try_kind_name(struct control *c, const struct object *o, const char *target,
                         struct object **ret)
{
        const char *slash = strchr(target, '/');
        char kind[NAME_SIZE];
        const struct kind *k;

        if (!slash || slash - target >= NAME_SIZE)
                return -ENOENT;
        memcpy(kind, target, slash - target);
        kind[slash - target] = '\0';
        k = kind_by_name(kind);
        *ret = k ? model_by_name(c, o->tenant, k, slash + 1) : NULL;
        return *ret ? 0 : -ENOENT;
}

int resolve_target(struct control *c, const struct object *o, const struct link_def *d,
                   const char *target, bool beside_link, struct object **ret, struct err **e)
{
        const char *t = o->tenant ? o->tenant->name : "", *abs = below_mount(c, target);
        sd_id128_t id;
        int r = -ENOENT;

        if (abs)
                r = try_path(c, o, ret, "%s", abs);
        else if (*target != '/') {
                if (beside_link) { /* from the folder that holds the link */
                        _cleanup_buf_ struct buf here = {};

                        render_path(c, o, &here);
                        r = try_path(c, o, ret, "%s%s%s/%s", buf_str(&here), d->many ? "/" : "",
                                     d->many ? d->name : "", target);
                }
                if (r == -ENOENT)
                        r = try_path(c, o, ret, "tenants/%s/%s", t, target);
                if (r == -ENOENT)
                        r = try_path(c, o, ret, "%s", target);
                if (r == -ENOENT)
                        r = try_kind_name(c, o, target, ret);
        }
        if (r == -ENOENT && id_parse(target, &id) == 0) {
                *ret = model_by_id(c, id);
                r = *ret && ((*ret)->tenant == o->tenant || shared(*ret)) ? 0 : -ENOENT;
        }
        if (r == -EPERM)
                return err_at(e, -EPERM, target, strlen(target), 0, strlen(target),
                              "a link does not leave its tenant, except to shared networks");
        if (r < 0 || (*ret)->nameless) {
                err_at(e, -ENOENT, target, strlen(target), 0, strlen(target), "there is no '%.*s'",
                       200, target);
                err_hint(e, -ENOENT,
                         "a target is a path from the link, from the tenant (volumes/root), or "
                         "an id; of kind: %s",
                         d->targets);
                return -ENOENT;
        }
        return 0;
}

static bool target_kind_legal(const struct link_def *d, const struct kind *k)
{
        size_t n = strlen(k->name);

        for (const char *p = d->targets; *p;) {
                size_t len = strcspn(p, " ");

                if (len == n && memcmp(p, k->name, n) == 0)
                        return true;
                p += len + (p[len] == ' ');
        }
        return false;
}

static int state_refused(const struct object *o, const struct link_def *d, struct err **e)
{
        char label[NAME_SIZE + 32];

        return err_set(e, -EBUSY, "%s: %s is %s", d->name, object_label(o, label), object_state(o));
}

int action_link(struct txn *t, struct object *o, unsigned def, const char *name, const char *target,
                bool beside_link, char *ret_name, struct err **e)
{
        const struct link_def *d = &o->kind->links[def];
        struct object *to;
        struct link *l;
        int r;

        r = authorise(t->c, t->who, o, o->kind->creator, d->name, e);
        if (r == 0 && o->nameless)
                r = err_set(e, -EBUSY, "it is being deleted");
        if (r == 0)
                r = resolve_target(t->c, o, d, target, beside_link, &to, e);
        if (r == 0 && txn_unborn(t->c, to))
                r = err_set(e, -EAGAIN, "'%s' is being made", to->name);
        if (r == 0 && !target_kind_legal(d, to->kind))
                r = err_at(e, -EINVAL, target, strlen(target), 0, strlen(target),
                           "%s takes %s, and '%s' is %s %s", d->name, d->targets, to->name,
                           strchr("aeiou", to->kind->name[0]) ? "an" : "a", to->kind->name);
        if (r == 0 && !object_in(o, d->states))
                r = state_refused(o, d, e);
        if (r < 0)
                return r;
        snprintf(ret_name, NAME_SIZE, "%s", d->many ? name : d->name);
        if (!d->many && object_link(o, def, NULL))
                return err_set(e, -EEXIST, "%s is set already: rm it first", d->name);
        if (d->bind && (r = d->bind(t, o, ret_name, to, e)) < 0)
                return r;
        if (object_link(o, def, ret_name))
                return err_set(e, -EEXIST, "'%s' is taken", ret_name);
        l = txn_link(t, o, def, ret_name, to);
        txn_event(t, o, "link %s -> %s/%s", ret_name, to->kind->plural, to->name);
        return d->bound ? d->bound(t, o, l, e) : 0;
}

int action_unlink(struct txn *t, struct object *o, unsigned def, const char *name, struct err **e)
{
        const struct link_def *d = &o->kind->links[def];
        struct link *l = object_link(o, def, d->many ? name : NULL);
        int r;

        r = authorise(t->c, t->who, o, o->kind->creator, d->name, e);
        if (r < 0)
                return r;
        if (o->nameless)
                return err_set(e, -EBUSY, "it is being deleted");
        if (!l || l->leaving)
                return err_set(e, -ENOENT, "there is no link '%s'", name);
        if (!object_in(o, d->states))
                return state_refused(o, d, e);
        txn_event(t, o, "unlink %s", l->name);
        r = d->unbind ? d->unbind(t, o, l, e) : 0;
        if (r != 0)
                return r == LINK_LATER ? 0 : r;
        txn_unlink(t, o, object_link(o, def, d->many ? name : NULL));
        return 0;
}

static int link_once(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                     const char *name, const char *target, char *ret_name, struct err **e)
{
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0 && !text_clean(target, strlen(target), false))
                r = err_set(e, -EINVAL, "a target is UTF-8 text");
        if (r == 0)
                r = action_link(&t, o, def, name, target, true, ret_name, e);
        if (r == 0)
                r = action_complete(&t, o, e);
        return txn_end(&t, r, e);
}

int control_relink(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                   const char *name, const char *target, struct err **e)
{
        char canonical[NAME_SIZE];
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0 && !text_clean(target, strlen(target), false))
                r = err_set(e, -EINVAL, "a target is UTF-8 text");
        if (r == 0 && object_link(o, def, o->kind->links[def].many ? name : NULL))
                r = action_unlink(&t, o, def, name, e);
        if (r == 0)
                r = action_link(&t, o, def, name, target, true, canonical, e);
        if (r == 0)
                r = action_complete(&t, o, e);
        return txn_end(&t, r, e);
}

static int unlink_once(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                       const char *name, struct err **e)
{
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = action_unlink(&t, o, def, name, e);
        return txn_end(&t, r, e);
}

/* --- each until no other host was quicker -------------------------------------------------------
 */

int control_link(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                 const char *name, const char *target, char *ret_name, struct err **e)
{
        return AGAIN(c, e, link_once(c, who, no, def, name, target, ret_name, e));
}

int control_unlink(struct control *c, const struct caller *who, uint64_t no, unsigned def,
                   const char *name, struct err **e)
{
        return AGAIN(c, e, unlink_once(c, who, no, def, name, e));
}
