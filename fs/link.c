/* Symbolic links: bindings that users make, and the ones we show. */
#include "fs/ephemeral.h"
#include "fs/ops.h"

/* "../" for each component of the directory `path`. */
static void climb(const char *path, struct buf *out)
{
        path_relative(path, "", out);
        buf_addc(out, '/');
}

void link_render(struct fs *fs, const struct node *n, uid_t uid, struct buf *out)
{
        _cleanup_buf_ struct buf from = {0}, to = {0};
        char id[ID_TEXT_SIZE];
        const struct object *job;

        switch (n->type) {
        case NODE_SELF:
                buf_printf(out, ".users/%u", (unsigned)uid);
                return;
        case NODE_JOB:
                job = model_by_no(fs->control, n->o->job);
                if (!job)
                        return;
                render_path(fs->control, n->o, &from);
                render_path(fs->control, job, &to);
                path_relative(buf_str(&from), buf_str(&to), out);
                return;
        case NODE_LINK1:
        case NODE_LINK:
                render_link(fs->control, n->o, n->link, out);
                return;
        case NODE_DATALINK:
                render_path(fs->control, n->o, &from);
                climb(buf_str(&from), out);
                buf_printf(out, ".data/%s%s", id_text(id, n->o->id),
                           n->kind->files[n->index].suffix ?: "");
                return;
        case NODE_IDLINK:
                buf_printf(out, "../%s", n->o->name);
                return;
        case NODE_TEMPLINK:
                buf_addstr(out, n->e->text);
                return;
        default:
                return;
        }
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
        struct fs *fs = fs_of(req);
        _cleanup_buf_ struct buf b = {0};
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        if (!r && node_is_link(n.type))
                link_render(fs, &n, fuse_req_ctx(req)->uid, &b);
        control_unlock(fs->control);
        if (!r && !b.len)
                r = -ENOENT;
        if (r)
                fuse_reply_err(req, fs_errno(r));
        else
                fuse_reply_readlink(req, buf_str(&b));
}

/* Where a link called `name` would go in this directory: its def, or -1 with words. */
static int link_place(const struct node *dir, const char *name, struct err **e)
{
        _cleanup_buf_ struct buf names = {0};
        const struct kind *k = dir->kind;
        int def;

        if (dir->type == NODE_LINKS)
                return (int)dir->index;
        def = dir->type == NODE_OBJECT ? kind_link(k, name) : -1;
        if (def >= 0 && !k->links[def].many)
                return def;
        if (def >= 0) {
                err_set(e, -EEXIST, "'%s' is a directory of links", name);
                err_hint(e, -EEXIST, "ln -s TARGET %s/", name);
                return -1;
        }
        err_set(e, dir->type == NODE_OBJECT ? -ENOENT : -EPERM,
                dir->type == NODE_OBJECT ? "this kind has no link '%s'" : "no link '%s' goes here",
                name);
        for (unsigned i = 0; dir->type == NODE_OBJECT && i < k->nlinks; i++)
                buf_printf(&names, " %s", k->links[i].name);
        if (names.len)
                err_hint(e, dir->type == NODE_OBJECT ? -ENOENT : -EPERM, "its links:%s",
                         names.data);
        return -1;
}

static void make_temporary(fuse_req_t req, const struct node *dir, const char *target,
                           const char *name)
{
        struct fs *fs = fs_of(req);
        struct ephemeral like = {.type = NODE_TEMPLINK,
                                 .no = dir->no,
                                 .kind = dir->kind,
                                 .index = dir->index,
                                 .parent = dir->ino,
                                 .uid = fuse_req_ctx(req)->uid};
        struct ephemeral *t;
        struct err *e = NULL;
        int r;

        like.text = strdup(target);
        like.len = strlen(target);
        r = like.text ? ephemeral_add(fs->ephemerals, &like, name, &t, &e) : -ENOMEM;
        if (r < 0) {
                free(like.text);
                fs_fail(req, "symlink", dir->ino, name, r, e);
                return;
        }
        reply_node(req, t->ino);
}

static fuse_ino_t find_link(struct fs *fs, uint64_t no, unsigned def, const char *name)
{
        const struct object *o;
        const struct link *l;
        fuse_ino_t ino = 0;

        control_rdlock(fs->control);
        o = model_by_no(fs->control, no);
        l = o ? node_link(o, def, name) : NULL;
        if (l)
                ino = o->kind->links[def].many ? INO_OF(no, SLOT_DYNAMIC + l->slot)
                                               : INO_OF(no, SLOT_LINKS + def);
        control_unlock(fs->control);
        return ino;
}

static int get_dir(struct fs *fs, fuse_ino_t parent, struct node *ret)
{
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, parent, ret);
        control_unlock(fs->control);
        return r;
}

static bool link_is_temporary(const struct node *dir, const char *name)
{
        if (dir->type == NODE_METADATA)
                return locklink_name(name);
        if (dir->type == NODE_OBJECT)
                return locklink_name(name) || templink_name(name);
        return dir->type == NODE_LINKS && templink_name(name);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        char canonical[NAME_SIZE];
        struct err *e = NULL;
        struct node dir;
        int def, r = get_dir(fs, parent, &dir);

        if (r) {
                fs_fail(req, "symlink", parent, name, r, NULL);
                return;
        }
        if (link_is_temporary(&dir, name)) {
                make_temporary(req, &dir, target, name);
                return;
        }
        def = link_place(&dir, name, &e);
        if (def < 0) {
                fs_fail(req, "symlink", parent, name, e->code, e);
                return;
        }
        snprintf(canonical, sizeof(canonical), "%.*s", NAME_SIZE - 1, name);
        r = once_done(fs) ? 0
                          : control_link(fs->control, &who, dir.no, (unsigned)def, name, target,
                                         canonical, &e);
        if (r < 0)
                fs_fail(req, "symlink", parent, name, r, e);
        else
                reply_node(req, find_link(fs, dir.no, (unsigned)def, canonical));
}

void link_replace(fuse_req_t req, struct ephemeral *temp, fuse_ino_t parent, const char *name)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        _cleanup_free_ char *target = NULL;
        struct err *e = NULL;
        struct node dir;
        int def, r = get_dir(fs, parent, &dir);

        if (!r && parent != temp->parent)
                r = err_set(&e, -EPERM, "links are made where they belong");
        if (r) {
                fs_fail(req, "rename", parent, name, r, e);
                return;
        }
        target = ephemeral_text(fs->ephemerals, temp, NULL);
        def = link_place(&dir, name, &e);
        if (def < 0)
                r = e->code;
        else if (!target)
                r = -ENOMEM;
        else
                r = once_done(fs) ? 0
                                  : control_relink(fs->control, &who, dir.no, (unsigned)def, name,
                                                   target, &e);
        if (r < 0) {
                fs_fail(req, "rename", parent, name, r, e);
                return;
        }
        ephemeral_unname(fs->ephemerals, temp);
        fuse_reply_err(req, 0);
}
