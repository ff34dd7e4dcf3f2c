#include <stdarg.h>
#include "common/fileio.h"
#include "fs/ops.h"

enum { REFUSALS = 64, REFUSAL_LIFE = 10 };

int fs_errno(int code)
{
        switch (-code) {
        case 0:
                return 0;
        case EINVAL: case ENOENT: case EEXIST: case EBUSY: case EDQUOT: case EACCES: case EPERM:
        case EROFS: case ENOSPC: case EFBIG: case ESTALE: case ENOTSUP: case ETIMEDOUT: case EIO:
        case EAGAIN: case EINTR: case ENXIO: case ENOMEM: case ENOTDIR: case EISDIR:
        case ENAMETOOLONG: case ENOTEMPTY: case ENFILE:
                return -code;
        default:
                return EIO;
        }
}

int fs_gone(int code)
{
        return code == -ENOENT ? ESTALE : fs_errno(code);
}

struct caller fs_caller(fuse_req_t req)
{
        const struct fuse_ctx *ctx = fuse_req_ctx(req);

        return (struct caller){.uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid};
}

void fs_record(struct fs *fs, const struct caller *who, const char *op, fuse_ino_t dir,
               const char *name, int code, struct err *e)
{
        _cleanup_err_ struct err *made = NULL;
        _cleanup_buf_ struct buf path = {0};
        uint64_t no = 0, tenant = 0;
        struct node n, child;

        control_rdlock(fs->control);
        if (!node_get(fs, dir, &n)) {
                node_path(fs, &n, &path);
                no = node_object(&n);
                tenant = node_tenant(&n);
                /* rmdir and mv of an object are about it, not about the collection it is in */
                if (name && n.type == NODE_COLLECTION &&
                    !node_get(fs, dir_find(fs, &n, name), &child) && child.type == NODE_OBJECT)
                        no = child.no;
        }
        control_unlock(fs->control);
        if (name)
                buf_printf(&path, "%s%s", path.len ? "/" : "", name);
        if (!e) {
                err_set(&made, code, "%s", strerror(-code));
                e = made;
        }
        control_record(fs->control, who, op, buf_str(&path), no, tenant, -fs_errno(code), e);
}

void fs_fail(fuse_req_t req, const char *op, fuse_ino_t dir, const char *name, int code,
             struct err *e)
{
        _cleanup_err_ struct err *words = e;
        struct caller who = fs_caller(req);

        fs_record(fs_of(req), &who, op, dir, name, code, words);
        fuse_reply_err(req, fs_errno(code));
}

void fs_refuse(fuse_req_t req, const char *op, fuse_ino_t dir, const char *name, int code,
               const char *fmt, ...)
{
        struct err *e = NULL;
        va_list ap;

        va_start(ap, fmt);
        err_setv(&e, code, fmt, ap);
        va_end(ap);
        fs_fail(req, op, dir, name, code, e);
}

void fs_stale(fuse_req_t req, const char *op, fuse_ino_t ino)
{
        fs_refuse(req, op, ino, NULL, -ESTALE,
                  "the daemon was started again meanwhile: open the file again");
}

struct refusals {
        pthread_mutex_t lock;
        struct refusal {
                pid_t tgid;
                uint64_t no;
                int64_t at; /* monotonic usec; 0: free */
        } v[REFUSALS];
};

int refusals_new(struct refusals **ret)
{
        struct refusals *t = calloc(1, sizeof(*t));

        if (!t)
                return -ENOMEM;
        pthread_mutex_init(&t->lock, NULL);
        *ret = t;
        return 0;
}

void refusals_free(struct refusals *t)
{
        if (t)
                pthread_mutex_destroy(&t->lock);
        free(t);
}

/* A request carries the thread's id; the rule is about the process. */
static pid_t tgid_of(pid_t pid)
{
        _cleanup_free_ char *path = path_printf("/proc/%d/status", (int)pid);
        _cleanup_free_ char *text = NULL;
        const char *line;

        if (!path || file_read(path, 64 << 10, &text, NULL, NULL) < 0)
                return pid;
        line = strstr(text, "\nTgid:");
        return line ? (pid_t)atoi(line + 6) : pid;
}

void refusals_add(struct fs *fs, pid_t pid, uint64_t no)
{
        struct refusal *oldest = fs->refusals->v;
        pid_t tgid = tgid_of(pid);

        WITH_LOCK(&fs->refusals->lock);
        for (struct refusal *x = fs->refusals->v; x < fs->refusals->v + REFUSALS; x++) {
                if (x->tgid == tgid && x->no == no) {
                        oldest = x;
                        break;
                }
                if (x->at < oldest->at)
                        oldest = x;
        }
        *oldest = (struct refusal){.tgid = tgid, .no = no, .at = clock_mono()};
}

bool refusals_hit(struct fs *fs, pid_t pid, uint64_t no, uint64_t tenant)
{
        int64_t now = clock_mono();
        pid_t tgid = 0;

        WITH_LOCK(&fs->refusals->lock);
        for (struct refusal *x = fs->refusals->v; x < fs->refusals->v + REFUSALS; x++) {
                if (!x->at || now - x->at > REFUSAL_LIFE * INT64_C(1000000))
                        continue;
                if (!tgid)
                        tgid = tgid_of(pid);
                if (x->tgid == tgid &&
                    ((no && x->no == no) || (tenant && x->no == tenant) || x->no == OBJECT_CLOUD)) {
                        x->at = now;
                        return true;
                }
        }
        return false;
}
