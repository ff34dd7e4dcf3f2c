/* Names made, removed and moved. */
#include <fcntl.h>
#include "common/fault.h"
#include "fs/ephemeral.h"
#include "fs/ops.h"

/* A name in a directory, resolved; `e` when it is an ephemeral one (with one lookup to give
 * back).  The strings of n's tables outlive the lock, o and link do not. */
struct place {
        struct node dir, n;
        struct ephemeral *e;
        uint64_t tenant;
        bool found;
};

static int resolve(fuse_req_t req, fuse_ino_t parent, const char *name, struct place *ret)
{
        struct fs *fs = fs_of(req);
        fuse_ino_t ino = 0;
        int r;

        *ret = (struct place){0};
        control_rdlock(fs->control);
        r = node_get(fs, parent, &ret->dir);
        if (!r) {
                ret->tenant = node_tenant(&ret->dir);
                ino = dir_find(fs, &ret->dir, name);
                if (!ino)
                        ret->e = dir_find_ephemeral(fs, &ret->dir, name, fuse_req_ctx(req)->uid);
                if (!ino && ret->e)
                        ino = ret->e->ino;
                ret->found = ino && !node_get(fs, ino, &ret->n);
        }
        control_unlock(fs->control);
        return r;
}

static void place_done(struct fs *fs, struct place *p)
{
        if (p->e)
                ephemeral_forget(fs->ephemerals, p->e->ino, 1);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        struct node dir;
        uint64_t no;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, parent, &dir);
        control_unlock(fs->control);
        if (!r && dir.type != NODE_COLLECTION)
                r = err_set(&e, -EPERM,
                            dir.type == NODE_METADATA ? "metadata has no directories: write a file"
                                                      : "directories are made in collections only");
        if (!r && once_done(fs)) {
                op_lookup(req, parent, name);
                return;
        }
        if (!r)
                r = control_create(fs->control, &who, dir.no, dir.kind, name, &no, &e);
        if (r < 0)
                fs_fail(req, "mkdir", parent, name, r, e);
        else
                reply_node(req, ino_object(no));
}

/* The words are those of the first refusal: an `rm -r` meets dozens. */
static int refuse_again(fuse_req_t req, struct place *p)
{
        place_done(fs_of(req), p);
        fuse_reply_err(req, EPERM);
        return 1;
}

/* After a process was refused an attribute: it is an `rm -r`, and nothing below goes. */
static bool refused_before(fuse_req_t req, const struct place *p)
{
        return refusals_hit(fs_of(req), fuse_req_ctx(req)->pid,
                            p->n.type == NODE_OBJECT ? p->n.no : node_object(&p->dir), p->tenant);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        struct place p;
        int r = resolve(req, parent, name, &p);

        if (!r && !p.found) {
                if (!once_done(fs))
                        r = -ENOENT;
        } else if (!r && p.n.type != NODE_OBJECT)
                r = refused_before(req, &p)
                            ? refuse_again(req, &p)
                            : err_set(&e, -EPERM, "'%s' belongs to the object and goes with it",
                                      name);
        else if (!r && p.dir.type != NODE_COLLECTION && p.dir.type != NODE_IDS)
                r = err_set(&e, -EBUSY, "its deletion is under way");
        else if (!r && refused_before(req, &p))
                r = refuse_again(req, &p);
        if (r > 0)
                return;
        if (!r && p.found && !once_done(fs)) {
                cache_rename_begins(fs, p.n.no);
                r = control_delete(fs->control, &who, p.n.no, &e);
                cache_rename_ended(fs, p.n.no);
        }
        place_done(fs, &p);
        if (r < 0)
                fs_fail(req, "rmdir", parent, name, r, e);
        else
                fuse_reply_err(req, 0);
}

static int refuse_unlink(fuse_req_t req, const struct place *p, const char *name, struct err **e)
{
        uint64_t no = node_object(&p->dir);

        refusals_add(fs_of(req), fuse_req_ctx(req)->pid, no ?: p->tenant ?: OBJECT_CLOUD);
        err_set(e, -EPERM, "'%s' is part of its object and cannot be removed alone", name);
        if (p->dir.type == NODE_OBJECT)
                err_hint(e, -EPERM,
                         "%srmdir of the directory deletes the object; of rm -r nothing else is "
                         "carried out",
                         node_is_text(p->n.type) && text_writer(&p->n)
                                 ? "cp, or tar --overwrite, sets it; "
                                 : "");
        return (*e)->code;
}

static int unlink_ephemeral(struct fs *fs, const struct caller *who, struct ephemeral *x,
                            struct err **e)
{
        int r = x->type == NODE_UPLOAD ? upload_removed(fs, x, who, e) : 0;

        if (!r)
                ephemeral_unname(fs->ephemerals, x);
        return r;
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        struct place p;
        int r = resolve(req, parent, name, &p);

        if (!r && !p.found && !once_done(fs))
                r = -ENOENT;
        if (r < 0 || !p.found)
                goto out;
        if (p.e) {
                r = unlink_ephemeral(fs, &who, p.e, &e);
                goto out;
        }
        if (refused_before(req, &p)) {
                refuse_again(req, &p);
                return;
        }
        switch (p.n.type) {
        case NODE_META:
                if (!once_done(fs))
                        r = control_del_meta(fs->control, &who, p.dir.no, name, &e);
                break;
        case NODE_LINK:
        case NODE_LINK1:
                if (!once_done(fs))
                        r = control_unlink(fs->control, &who, p.dir.no, p.n.index, name, &e);
                break;
        default:
                r = refuse_unlink(req, &p, name, &e);
        }
out:
        place_done(fs, &p);
        if (r < 0)
                fs_fail(req, "unlink", parent, name, r, e);
        else
                fuse_reply_err(req, 0);
}

/* A scratch file becomes the value of what it is renamed onto, or a metadata key, or gets another
 * scratch name. */
static int rename_scratch(struct fs *fs, const struct caller *who, struct place *from,
                          struct place *to, const char *newname, struct err **e)
{
        _cleanup_free_ char *text = NULL;
        size_t len;
        int r;

        text = ephemeral_text(fs->ephemerals, from->e, &len);
        if (!text)
                return -ENOMEM;
        if (to->dir.no != from->dir.no || to->dir.type != from->dir.type)
                return err_set(e, -EPERM, "a temporary file stays in its directory");
        if (to->dir.type == NODE_METADATA && !(to->e || scratch_name(newname))) {
                if (once_done(fs))
                        return 0;
                r = control_set_meta(fs->control, who, to->dir.no, newname, text, len, e);
        } else if (to->found && !to->e) {
                if (!node_is_text(to->n.type))
                        return err_set(e, -EPERM, "'%s' is no file to write", newname);
                r = text_replace(fs, who, &to->n, text, len, e);
        } else if (scratch_name(newname)) {
                return ephemeral_rename(fs->ephemerals, from->e, to->dir.ino, newname);
        } else {
                return err_set(e, -ENOENT, "this kind has no file '%s'", newname);
        }
        if (!r)
                ephemeral_unname(fs->ephemerals, from->e);
        return r;
}

/* A key under another name; an editor's backup name makes it a scratch file. */
static int rename_meta(struct fs *fs, const struct caller *who, struct place *from,
                       struct place *to, const char *name, const char *newname, struct err **e)
{
        _cleanup_free_ char *value = NULL;
        struct ephemeral like = {.type = NODE_SCRATCH,
                                 .no = from->dir.no,
                                 .kind = from->dir.kind,
                                 .parent = from->dir.ino,
                                 .uid = who->uid,
                                 .gid = who->gid,
                                 .mode = 0600},
                         *x;
        const struct object *o;
        const struct meta *m;
        int r = 0;

        if (to->dir.ino != from->dir.ino)
                return err_set(e, -EPERM, "metadata stays with its object");
        control_rdlock(fs->control);
        o = model_by_no(fs->control, from->dir.no);
        m = o ? object_meta(o, name) : NULL;
        value = m ? strdup(m->value) : NULL;
        control_unlock(fs->control);
        if (!value)
                return -ENOENT;
        if (scratch_name(newname) && newname[0] != '.' && !name_valid(newname)) {
                like.len = strlen(value);
                like.text = TAKE_PTR(value);
                r = ephemeral_add(fs->ephemerals, &like, newname, &x, e);
                if (r < 0) {
                        free(like.text);
                        return r;
                }
                ephemeral_forget(fs->ephemerals, x->ino, 1);
        } else if (!once_done(fs)) {
                r = control_set_meta(fs->control, who, from->dir.no, newname, value, strlen(value),
                                     e);
        }
        if (r < 0 || once_done(fs))
                return r;
        return control_del_meta(fs->control, who, from->dir.no, name, e);
}

/* rsync's upload comes in as ".NAME.XXXXXX" and is renamed to NAME: it is the object called so
 * from the start, what goes is the temporary name. */
static int rename_upload(struct fs *fs, struct place *from, struct place *to, const char *name,
                         const char *newname, struct err **e)
{
        _cleanup_free_ char *want = rsync_target(name);

        if (to->dir.ino != from->dir.ino || !want || !streq(want, newname))
                return err_set(e, -EPERM, "an upload keeps the name it was begun with");
        ephemeral_unname(fs->ephemerals, from->e);
        return 0;
}

static int rename_place(fuse_req_t req, struct place *from, struct place *to, const char *name,
                        const char *newname, struct err **e)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        int r;

        switch (from->n.type) {
        case NODE_OBJECT:
                if (from->dir.type != NODE_COLLECTION || to->dir.ino != from->dir.ino)
                        return err_set(e, -EPERM,
                                       "an object can be renamed in its collection, not moved");
                if (once_done(fs))
                        return 0;
                cache_rename_begins(fs, from->n.no);
                r = control_rename(fs->control, &who, from->n.no, newname, e);
                cache_rename_ended(fs, from->n.no);
                return r;
        case NODE_SCRATCH:
                return rename_scratch(fs, &who, from, to, newname, e);
        case NODE_META:
                return rename_meta(fs, &who, from, to, name, newname, e);
        case NODE_UPLOAD:
                return rename_upload(fs, from, to, name, newname, e);
        case NODE_LINK:
        case NODE_LINK1:
                err_set(e, -EPERM, "a link cannot be renamed");
                return err_hint(e, -EPERM, "rm it and make it anew");
        default:
                err_set(e, -EPERM, "'%s' is part of its object and stays", name);
                return err_hint(e, -EPERM, "no backup by renaming: copy it");
        }
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
               const char *newname, unsigned flags)
{
        struct fs *fs = fs_of(req);
        struct place from, to = {0};
        struct err *e = NULL;
        bool done = false;
        int r;

        r = resolve(req, parent, name, &from);
        if (!r)
                r = resolve(req, newparent, newname, &to);
        if (!r && (flags & ~(unsigned)RENAME_NOREPLACE))
                r = err_set(&e, -EINVAL, "names cannot be exchanged here");
        if (!r && !from.found && !(done = once_done(fs)))
                r = -ENOENT;
        if (!r && !done && (flags & RENAME_NOREPLACE) && to.found)
                r = err_set(&e, -EEXIST, "'%s' is taken", newname);
        if (!r && done) {
                fuse_reply_err(req, 0);
        } else if (!r && from.n.type == NODE_TEMPLINK) {
                link_replace(req, from.e, newparent, newname);
        } else {
                if (!r)
                        r = rename_place(req, &from, &to, name, newname, &e);
                if (r < 0 && from.n.type == NODE_OBJECT) /* it is the object that says why */
                        fs_fail(req, "rename", parent, name, r, e);
                else if (r < 0)
                        fs_fail(req, "rename", newparent, newname, r, e);
                else
                        fuse_reply_err(req, 0);
        }
        place_done(fs, &from);
        place_done(fs, &to);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
        (void)FAULT("fs.link");
        fs_refuse(req, "link", newparent, newname, -EPERM, "no hard links here: ln -s");
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
        fs_refuse(req, "mknod", parent, name, -EPERM, "no device or socket files here");
}
