/* What the files of the tree say. */
#include "control/internal.h"

#include <sys/utsname.h>

gid_t object_gid(struct control *c, const struct object *o)
{
        const struct object *t = o->kind == &kind_tenant ? o : o->tenant;

        return t ? (gid_t)object_num(t, "gid") : c->cfg.gid;
}

uid_t control_uid(struct control *c)
{
        return c->cfg.uid;
}

bool caller_is_admin(struct control *c, const struct caller *who)
{
        return !who || who->uid == 0 || who->uid == c->cfg.uid;
}

void render_done(const struct object *o, struct buf *out)
{
        uint64_t done = __atomic_load_n(&o->done, __ATOMIC_RELAXED),
                 total = __atomic_load_n(&o->total, __ATOMIC_RELAXED);

        if (total)
                buf_printf(out, "%.2f%% %" PRIu64 "/%" PRIu64, 100.0 * done / total, done, total);
}

void render_attr(struct control *c, const struct object *o, unsigned attr, struct buf *out)
{
        const struct attr_def *a = &o->kind->attrs[attr];

        if (a->render)
                a->render(c, o, out);
        else
                value_render(a, o->vals[attr], out);
        buf_addc(out, '\n');
}

void render_ctl(struct control *c, const struct object *o, struct buf *out)
{
        for (unsigned i = 0; i < o->kind->nverbs; i++) {
                const struct verb_def *v = &o->kind->verbs[i];

                if (!object_in(o, v->states) || o->nameless ||
                    (o->kind->suits && o->kind->suits(o, v->name, NULL) < 0))
                        continue;
                buf_printf(out, "%s%s%s\n", v->name, *v->args ? " " : "", v->args);
        }
}

void render_path(struct control *c, const struct object *o, struct buf *out)
{
        if (o->kind == &kind_cloud)
                return;
        if (o->holder) {
                render_path(c, o->holder, out);
                buf_addc(out, '/');
        } else if (o->tenant)
                buf_printf(out, "tenants/%s/", o->tenant->name);
        else if (o->kind->parent && *o->kind->parent)
                buf_printf(out, "%s/", o->kind->parent);
        buf_addstr(out, o->kind->plural);
        buf_addc(out, '/');
        if (o->nameless) {
                char id[ID_TEXT_SIZE];

                buf_printf(out, ".id/%s", id_text(id, o->id));
                return;
        }
        buf_addstr(out, o->name);
}

void render_link(struct control *c, const struct object *o, const struct link *l, struct buf *out)
{
        const struct object *t = l->target;
        struct buf path = {};
        unsigned skip = t->tenant && t->tenant == o->tenant ? 2 : t->tenant ? 1 : 0;
        const char *p;

        /* From instances/web/volumes/ or volumes/root/ up to the tenant, or higher, then down. */
        buf_addstr(out, o->kind->links[l->def].many ? "../../../" : "../../");
        buf_addstr(out, o->holder ? "../../" : "");
        buf_addstr(out, skip == 2 || !o->tenant ? "" : skip == 1 ? "../" : "../../");
        render_path(c, t, &path);
        p = buf_str(&path);
        for (; skip > 0; skip--)
                p = strchr(p, '/') + 1;
        buf_addstr(out, p);
        buf_done(&path);
}

void render_index(struct control *c, const struct collection *l, struct buf *out)
{
        for (size_t i = 0; i < l->n; i++) {
                const struct object *o = l->v[i];
                const struct kind *k = o->kind;
                char id[ID_TEXT_SIZE];

                if (o->nameless)
                        continue;
                buf_printf(out, "%s %s %s", o->name, id_text(id, o->id), object_state(o));
                for (unsigned a = 0; a < k->nattrs; a++) {
                        struct buf v = {};

                        if (!k->attrs[a].index)
                                continue;
                        render_attr(c, o, a, &v);
                        v.len -= v.len > 0;
                        if (v.len)
                                buf_printf(out, " %s=%.*s", k->attrs[a].name, (int)v.len, v.data);
                        buf_done(&v);
                }
                object_foreach_link (n, o)
                        if (!n->leaving)
                                buf_printf(out, " %s=%s/%s", n->name, n->target->kind->plural,
                                           n->target->name);
                buf_addc(out, '\n');
        }
}

void render_version(struct control *c, struct buf *out)
{
        struct utsname u;

        uname(&u);
        buf_printf(out, "stratofs %s\nhost %s\nkernel %s\nstore %s\n", STRATOFS_VERSION,
                   c->cfg.host, u.release, c->cfg.store->ops->name);
}

void render_help(struct control *c, struct buf *out)
{
        buf_addstr(out,
                   "Stratofs: a cloud that you mount.\n"
                   "\n"
                   "  cd tenants/default             this is yours; flavors/ is for all\n"
                   "  cp disk.qcow2 images/          upload an image (named after the file)\n"
                   "  mkdir volumes/v                a volume: a draft until it has a size\n"
                   "  echo 10G > volumes/v/size      ... which makes it; again, larger: grows\n"
                   "  ln -s images/disk volumes/v/source   ... or clone an image, at once\n"
                   "  mkdir instances/web; echo small > instances/web/flavor\n"
                   "  ln -s volumes/v instances/web/volumes/vda    attach; rm detaches\n"
                   "  echo start > instances/web/ctl boots it; cat ctl lists what is legal now\n"
                   "  cat instances/web/.wait/active blocks until then, exits as told\n"
                   "  rmdir instances/web            deletes; what is in use says who uses it\n"
                   "\n"
                   "In every object: id state ctl spec error events metadata/; beside the objects: "
                   "new help index.\n"
                   "A failed command leaves its words in the object's `error`, the tenant's "
                   "`errors`, and self/error.\n"
                   "\n"
                   "collections:\n");
        for (unsigned i = 0; kinds[i]; i++)
                if (kinds[i] != &kind_cloud)
                        buf_printf(out, "  %-12s %s\n", kinds[i]->plural, kinds[i]->help);
}
