#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>
#include "common/log.h"
#include "fs/ephemeral.h"
#include "fs/hold.h"
#include "fs/ops.h"

/* Who sees a kind's objects: members of the tenant, everybody, or root alone. */
enum view { VIEW_TENANT, VIEW_PUBLIC, VIEW_ADMIN };

static enum view kind_view(const struct kind *k)
{
        if (!k->global)
                return VIEW_TENANT;
        return k->parent && *k->parent ? VIEW_ADMIN : VIEW_PUBLIC;
}

static enum view node_view(const struct node *n)
{
        switch (n->type) {
        case NODE_COLLECTION:
        case NODE_IDS:
        case NODE_NEW:
        case NODE_KIND_HELP:
        case NODE_INDEX:
                return kind_view(n->kind);
        case NODE_ADMIN:
        case NODE_LOGLEVEL:
        case NODE_ADMIN_HELP:
                return VIEW_ADMIN;
        default:
                if (!n->kind || n->no == OBJECT_CLOUD)
                        return VIEW_PUBLIC;
                /* a tenant is global, but what is in it is its members' */
                return node_has_collections(n->o) ? VIEW_TENANT : kind_view(n->kind);
        }
}

static mode_t file_mode(enum view v, enum role writer)
{
        static const mode_t modes[][3] = {
                /* ROLE_NOBODY, ROLE_MEMBER, ROLE_ADMIN */
                [VIEW_TENANT] = {0440, 0660, 0640},
                [VIEW_PUBLIC] = {0444, 0644, 0644},
                [VIEW_ADMIN] = {0400, 0600, 0600},
        };

        return modes[v][writer];
}

static mode_t node_mode(const struct node *n)
{
        static const mode_t dirs[] = {
                [VIEW_TENANT] = 0770, [VIEW_PUBLIC] = 0755, [VIEW_ADMIN] = 0700};
        enum view v = node_view(n);

        switch (n->type) {
        case NODE_USERS:
        case NODE_BYTES:
                return 0711;
        case NODE_USER:
                return 0500;
        case NODE_USER_ERROR:
        case NODE_USER_TENANT:
                return 0400;
        case NODE_USER_ERRORS:
                return 0600;
        case NODE_OBJECT:
                return node_has_collections(n->o) ? 0750 : dirs[v];
        case NODE_FOLDER:
                return dirs[v] & 0555;
        case NODE_SCRATCH:
                return n->e->mode;
        case NODE_UPLOAD:
                return 0660;
        case NODE_LOG:
        case NODE_WAIT:
        case NODE_FOLLOW:
                return file_mode(v, ROLE_NOBODY);
        case NODE_DATA:
                return file_mode(v, n->kind->files[n->index].writer);
        default:
                if (node_is_link(n->type))
                        return 0777;
                if (node_is_dir(n->type))
                        return dirs[v];
                return file_mode(v, text_writer(n));
        }
}

static void stat_times(struct fs *fs, const struct node *n, struct stat *st)
{
        int64_t t = n->o ? n->o->updated : fs->born, made = n->o ? n->o->created : fs->born;
        struct collection *l;

        switch (n->type) {
        case NODE_STATE:
                t = n->o->state_since;
                break;
        case NODE_META:
                t = n->meta->updated;
                break;
        case NODE_LINK:
        case NODE_LINK1:
                t = n->link->created;
                break;
        case NODE_COLLECTION:
                l = model_collection(fs->control, n->o, n->kind);
                t = l && l->changed ? l->changed : made;
                break;
        case NODE_IDS:
        case NODE_NEW:
        case NODE_KIND_HELP:
                t = made; /* the same whatever becomes of the owner */
                break;
        case NODE_SCRATCH:
        case NODE_UPLOAD:
        case NODE_TEMPLINK:
                t = n->e->changed;
                break;
        default:
                break;
        }
        st->st_mtim = st->st_ctim = clock_timespec(t);
        st->st_atim = st->st_mtim;
}

/* The file on the host that a FILE_LOG shows; 0 when it is not there yet. */
static uint64_t log_size(struct fs *fs, const struct node *n)
{
        const struct file_def *f = &n->kind->files[n->index];
        _cleanup_free_ char *path = f->path ? f->path(fs->control, n->o) : NULL;
        _cleanup_free_ char *head = f->head ? f->head(fs->control, n->o) : NULL;
        uint64_t size = 0;
        struct stat st;

        if (head && !stat(head, &st))
                size = (uint64_t)st.st_size;
        if (path && !stat(path, &st))
                size += (uint64_t)st.st_size;
        return size;
}

static uint64_t node_size(struct fs *fs, const struct node *n)
{
        _cleanup_buf_ struct buf b = {0};

        if (node_is_dir(n->type))
                return 0;
        if (node_is_text(n->type)) {
                text_render(fs, n, &b);
                return b.len;
        }
        switch (n->type) {
        case NODE_LOG:
                return log_size(fs, n);
        case NODE_DATA:
                return data_known_size(fs, n->o, n->index);
        case NODE_UPLOAD:
                return upload_size(n->e);
        case NODE_SCRATCH:
                return n->e->len;
        case NODE_WAIT:
        case NODE_FOLLOW:
                return 0;
        default:
                link_render(fs, n, n->uid, &b);
                return b.len;
        }
}

static void stat_all(struct fs *fs, const struct node *n, bool sized, struct stat *st)
{
        bool personal = n->type >= NODE_USER_ERROR && n->type <= NODE_USER_TENANT;

        *st = (struct stat){
                .st_ino = n->ino,
                .st_nlink = 1, /* of a directory too: "not counted", as btrfs has it */
                .st_mode = node_ifmt(n->type) | node_mode(n),
                .st_uid = control_uid(fs->control),
                .st_gid = getegid(),
                .st_size = sized ? (off_t)node_size(fs, n) : 0,
                .st_blksize = 4096,
        };
        if (personal || n->type == NODE_USER || n->type == NODE_SCRATCH || n->type == NODE_UPLOAD ||
            n->type == NODE_TEMPLINK)
                st->st_uid = n->e ? n->e->uid : n->uid;
        if (n->o && n->no != OBJECT_CLOUD)
                st->st_gid = object_gid(fs->control, n->o);
        /* cp takes a file with fewer blocks than bytes for a sparse one and reads its holes. */
        st->st_blocks = (st->st_size + 511) / 512;
        if (n->type == NODE_DATA)
                st->st_blksize = 1 << 20;
        stat_times(fs, n, st);
}

void node_stat(struct fs *fs, const struct node *n, struct stat *st)
{
        stat_all(fs, n, true, st);
}

void node_entry(struct fs *fs, const struct node *n, bool listed, struct fuse_entry_param *ret)
{
        enum cache_for why = listed ? CACHE_LISTING : CACHE_LOOKUP;
        bool sized;

        hold_told(fs->hold, n->no);
        *ret = (struct fuse_entry_param){
                .ino = n->ino,
                .attr_timeout = cache_attr(fs, n, why),
                .entry_timeout = cache_entry(fs, n, why),
        };
        /* attributes that are void at once are asked for again before anybody sees them: a listing
         * need not render the text */
        sized = !listed || ret->attr_timeout > 0 || !node_is_text(n->type);
        stat_all(fs, n, sized, &ret->attr);
}

void reply_node(fuse_req_t req, fuse_ino_t ino)
{
        struct fs *fs = fs_of(req);
        struct fuse_entry_param entry;
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        if (!r) {
                if (n.type == NODE_SELF)
                        n.uid = fuse_req_ctx(req)->uid;
                node_entry(fs, &n, false, &entry);
        }
        control_unlock(fs->control);
        if (r)
                fuse_reply_err(req, fs_errno(r));
        else
                fuse_reply_entry(req, &entry);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct handle *h = handle_of(req, fi);
        double timeout = 0;
        struct stat st;
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        if (!r) {
                if (n.type == NODE_SELF)
                        n.uid = fuse_req_ctx(req)->uid;
                timeout = cache_attr(fs, &n, CACHE_GETATTR);
                node_stat(fs, &n, &st);
        }
        control_unlock(fs->control);
        if (!r && h && h->data && h->data->type == DATA_IMAGE) {
                st.st_size = data_size(h->data);
                st.st_blocks = (st.st_size + 511) / 512;
        }
        if (r)
                fuse_reply_err(req, fi ? fs_errno(r) : fs_gone(r));
        else
                fuse_reply_attr(req, &st, timeout);
}

/* ftruncate and truncate, by what the file is. */
static int set_size(struct fs *fs, const struct caller *who, const struct node *n, struct handle *h,
                    uint64_t known, uint64_t size, struct err **e)
{
        switch (n->type) {
        case NODE_SCRATCH:
                return ephemeral_truncate(fs->ephemerals, n->e, size);
        case NODE_UPLOAD:
                return upload_truncate(fs, n->e, size);
        case NODE_DATA:
                if (h && h->data && h->data->upload)
                        return data_cut(fs, h, size, e);
                if (size <= known)
                        return 0; /* a disk keeps its size */
                return err_set(e, -EFBIG, "a disk does not grow by truncation: write its `size`");
        default:
                if (!node_is_text(n->type))
                        return err_set(e, -EPERM, "not a file that can be cut");
                if (h)
                        return text_cut(fs, who, n, h, size, e);
                if (size)
                        return err_set(e, -EINVAL, "a value has no length of its own: write it");
                return text_truncate(fs, who, n, e);
        }
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int set, struct fuse_file_info *fi)
{
        struct fs *fs = fs_of(req);
        struct caller who = fs_caller(req);
        struct err *e = NULL;
        struct stat now;
        struct node n;
        bool ours;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        if (!r)
                node_stat(fs, &n, &now);
        control_unlock(fs->control);
        if (r) {
                fuse_reply_err(req, fs_errno(r));
                return;
        }
        /* who copies a file's mode along with its text (cp -a, Node) meant the text */
        ours = n.type == NODE_SCRATCH || n.type == NODE_UPLOAD ||
               ((node_is_text(n.type) || n.type == NODE_DATA) && handle_writes(fs, ino, who.pid));
        if (!ours && (set & FUSE_SET_ATTR_MODE) && ((st->st_mode ^ now.st_mode) & 07777))
                r = err_set(&e, -EPERM, "modes here follow from the tenant and the table of kinds");
        if (!r && !ours &&
            (((set & FUSE_SET_ATTR_UID) && st->st_uid != now.st_uid) ||
             ((set & FUSE_SET_ATTR_GID) && st->st_gid != now.st_gid)))
                r = err_set(&e, -EPERM, "owner and group here are the tenant's");
        if (!r && n.type == NODE_SCRATCH && (set & FUSE_SET_ATTR_MODE))
                n.e->mode = st->st_mode & 0777;
        if (!r && (set & FUSE_SET_ATTR_SIZE))
                r = set_size(fs, &who, &n, handle_of(req, fi), (uint64_t)now.st_size,
                             (uint64_t)st->st_size, &e);
        if (r < 0) {
                fs_fail(req, "setattr", ino, NULL, r, e);
                return;
        }
        op_getattr(req, ino, fi);
}

/* A tenant's directory is as large as what its volumes may have, or as the disk, and as full as its
 * volumes make it. */
static void tenant_space(struct fs *fs, fuse_ino_t ino, struct statvfs *v)
{
        const uint64_t all = v->f_blocks * v->f_frsize;
        uint64_t limit, used;
        struct node n;
        int r;

        control_rdlock(fs->control);
        r = node_get(fs, ino, &n);
        if (r == 0)
                r = control_space(fs->control, n.o ? n.o : model_by_no(fs->control, n.no), &limit,
                                  &used);
        control_unlock(fs->control);
        if (r < 0 || !v->f_frsize)
                return;
        limit = MIN(limit, all);
        v->f_blocks = limit / v->f_frsize;
        v->f_bfree = (limit - MIN(used, limit)) / v->f_frsize;
        v->f_bavail = MIN(v->f_bavail, v->f_bfree);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
        struct fs *fs = fs_of(req);
        struct statvfs v = {.f_bsize = 4096, .f_frsize = 4096};

        if (fs->state && statvfs(fs->state, &v) < 0)
                log_debug("statvfs %s: %m", fs->state);
        if (fs->state)
                tenant_space(fs, ino, &v);
        v.f_namemax = NAME_MAX;
        fuse_reply_statfs(req, &v);
}
