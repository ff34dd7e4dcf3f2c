/* lookup, readdir: the tree as libfuse asks for it. */
#include "fs/ephemeral.h"
#include "fs/ops.h"

struct ephemeral *dir_find_ephemeral(struct fs *fs, const struct node *dir, const char *name,
                                     uid_t uid)
{
        const struct object *o;
        struct ephemeral *e;

        if (dir->type != NODE_OBJECT && dir->type != NODE_METADATA && dir->type != NODE_LINKS &&
            dir->type != NODE_COLLECTION)
                return NULL;
        e = ephemeral_find(fs->ephemerals, dir->ino, name, uid);
        if (!e || e->type != NODE_UPLOAD)
                return e;
        o = model_by_no(fs->control, e->no);
        if (o && !o->nameless)
                return e;
        ephemeral_unname(fs->ephemerals, e); /* what was uploaded has been deleted */
        ephemeral_forget(fs->ephemerals, e->ino, 1);
        return NULL;
}

/* .data is a folder of all tenants: to one who may do nothing with a file in it, its id is as good
 * as any other.  Both are EACCES, as below another's tenant. */
static bool may_know(fuse_req_t req, const struct stat *st)
{
        const struct caller who = fs_caller(req);

        return who.uid == 0 || who.uid == st->st_uid || st->st_mode & S_IRWXO ||
               caller_in_group(&who, st->st_gid);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct fs *fs = fs_of(req);
        struct fuse_entry_param entry = {0};
        struct ephemeral *e = NULL;
        struct node dir, n;
        fuse_ino_t ino = 0;
        bool bytes = false;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, parent, &dir);
        if (r)
                r = -fs_gone(r);
        else
                bytes = dir.type == NODE_BYTES;
        if (!r) {
                ino = dir_find(fs, &dir, name);
                if (!ino) {
                        e = dir_find_ephemeral(fs, &dir, name, fuse_req_ctx(req)->uid);
                        ino = e ? e->ino : 0;
                }
                r = ino ? node_get(fs, ino, &n) : -ENOENT;
        }
        if (!r) {
                if (n.type == NODE_SELF)
                        n.uid = fuse_req_ctx(req)->uid;
                node_entry(fs, &n, false, &entry);
        }
        control_unlock(fs->control);
        /* Asked each time: the kernel remembers none of these. */
        if (bytes &&
            (r == -ENOENT ? fuse_req_ctx(req)->uid != 0 : !r && !may_know(req, &entry.attr)))
                r = -EACCES;
        if (r)
                fuse_reply_err(req, fs_errno(r));
        else if (fuse_reply_entry(req, &entry) < 0 && e)
                ephemeral_forget(fs->ephemerals, e->ino, 1); /* interrupted: it never arrived */
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
        if (ino & INO_EPHEMERAL)
                ephemeral_forget(fs_of(req)->ephemerals, ino, n);
        fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *v)
{
        for (size_t i = 0; i < count; i++)
                if (v[i].ino & INO_EPHEMERAL)
                        ephemeral_forget(fs_of(req)->ephemerals, v[i].ino, v[i].nlookup);
        fuse_reply_none(req);
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        if (!r)
                fi->cache_readdir = fi->keep_cache = cache_listing(fs, &n);
        control_unlock(fs->control);
        fi->fh = 0;
        if (r)
                fuse_reply_err(req, fs_gone(r));
        else
                fuse_reply_open(req, fi);
}

struct page {
        fuse_req_t req;
        char *p;
        size_t n, size;
        bool plus;
};

static bool add(void *arg, uint64_t cookie, const char *name, fuse_ino_t ino, enum node_type type)
{
        struct page *page = arg;
        struct fs *fs = fs_of(page->req);
        size_t room = page->size - page->n, used;
        struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = node_ifmt(type)}};
        struct node n;

        if (!page->plus) {
                used = fuse_add_direntry(page->req, page->p + page->n, room, name, &entry.attr,
                                         (off_t)cookie);
        } else {
                /* "." and ".." carry no node: that would be a lookup the kernel never gives back */
                if (cookie > 2) {
                        if (node_get(fs, ino, &n))
                                return false;
                        if (n.type == NODE_SELF)
                                n.uid = fuse_req_ctx(page->req)->uid;
                        node_entry(fs, &n, true, &entry);
                }
                used = fuse_add_direntry_plus(page->req, page->p + page->n, room, name, &entry,
                                              (off_t)cookie);
        }
        if (used > room)
                return true;
        page->n += used;
        return false;
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
        struct fs *fs = fs_of(req);
        _cleanup_free_ char *p = malloc(size);
        struct page page = {.req = req, .p = p, .size = size, .plus = plus};
        struct node dir;
        int r = p ? 0 : -ENOMEM;

        if (!r) {
                control_rdlock(fs->control);
                r = node_get(fs, ino, &dir);
                if (!r)
                        dir_list(fs, &dir, (uint64_t)off, add, &page);
                control_unlock(fs->control);
        }
        if (r)
                fuse_reply_err(req, fs_errno(r));
        else
                fuse_reply_buf(req, p, page.n);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
        read_dir(req, ino, size, off, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
        read_dir(req, ino, size, off, true);
}
