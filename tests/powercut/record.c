/* The calls that change files, ours in place of libc's: for the subject, and for the libraries that
 * it uses.  Each is done and logged.  Syncs are logged only. */
#include "powercut.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fileio.h"

struct record the_record;
struct log *the_log;

/* What would be called without us. */
#define REAL(call)                                                                                 \
        ({                                                                                         \
                static __typeof__(&call) call_;                                                    \
                                                                                                   \
                if (!call_)                                                                        \
                        *(void **)&call_ = dlsym(RTLD_NEXT, #call);                                \
                call_;                                                                             \
        })

/* ---- the log ---- */

struct event *log_add(uint32_t kind)
{
        struct event *ev;

        CHECK(the_log->n < EVENTS_MAX, "the log is full");
        ev = &the_log->ev[the_log->n++];
        *ev = (struct event){.kind = kind, .node = NONE, .child = NONE, .vol = NONE};
        return ev;
}

static uint64_t keep(const void *p, size_t n)
{
        uint64_t at = the_log->used;

        CHECK(at + n <= LOG_BYTES, "the log is full");
        memcpy(the_log->bytes + at, p, n);
        the_log->used += (n + 7) / 8 * 8;
        return at;
}

static uint32_t node_new(ino_t ino, bool folder)
{
        CHECK(the_log->nodes < NODES_MAX, "too many files");
        the_log->node[the_log->nodes] = (struct node){ino, folder};
        return the_log->nodes++;
}

static uint32_t node_of(const struct stat *st)
{
        if (st->st_dev != the_record.dev)
                return NONE;
        for (uint32_t i = the_log->nodes; i-- > 0;)
                if (the_log->node[i].ino == st->st_ino)
                        return i;
        return NONE;
}

static uint32_t node_of_fd(int fd)
{
        struct stat st;

        return the_record.on && fstat(fd, &st) == 0 ? node_of(&st) : NONE;
}

static uint32_t node_of_path(int d, const char *path)
{
        struct stat st;

        return fstatat(d, path, &st, AT_SYMLINK_NOFOLLOW) == 0 ? node_of(&st) : NONE;
}

/* The folder's node, and the name in it; NONE when it is not ours. */
static uint32_t split(int d, const char *path, const char **ret)
{
        const char *slash = strrchr(path, '/');
        char folder[512];

        if (!the_record.on)
                return NONE;
        *ret = slash ? slash + 1 : path;
        snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) : 1,
                 slash ? path : ".");
        return node_of_path(d, folder);
}

/* Before each change.  What is injected happens here. */
static int tick(bool room)
{
        struct record *r = &the_record;

        r->ticks++;
        if (r->kill_in && --r->kill_in == 0)
                kill(getpid(), SIGKILL);
        if (room && r->nospace_in && (r->nospace_in == 1 || --r->nospace_in == 1)) {
                errno = ENOSPC;
                return -1;
        }
        return 0;
}

static void entry(uint32_t folder, const char *name, uint32_t child)
{
        struct event *ev = log_add(EV_ENTRY);

        ev->node = folder;
        ev->child = child;
        ev->data = keep(name, strlen(name) + 1);
}

static void of_file(enum event_kind kind, uint32_t node, uint64_t off, uint64_t len)
{
        struct event *ev = log_add(kind);

        ev->node = node;
        ev->off = off;
        ev->len = len;
}

static void wrote(uint32_t node, const void *p, ssize_t n, uint64_t off)
{
        if (n <= 0)
                return;
        of_file(EV_WRITE, node, off, n);
        the_log->ev[the_log->n - 1].data = keep(p, n);
}

static void scan(const char *path, uint32_t node)
{
        struct dirent **names;
        int n = scandir(path, &names, NULL, alphasort);

        CHECK(n >= 0, "scandir %s", path);
        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *p = path_printf("%s/%s", path, names[i]->d_name);
                struct stat st;

                if (names[i]->d_name[0] != '.' && lstat(p, &st) == 0) {
                        uint32_t child = node_new(st.st_ino, S_ISDIR(st.st_mode));

                        if (S_ISDIR(st.st_mode))
                                scan(p, child);
                }
                free(names[i]);
        }
        free(names);
}

void record_begin(const char *top)
{
        struct stat st;

        the_log->n = the_log->nodes = 0;
        the_log->used = 0;
        CHECK(stat(top, &st) == 0, "no %s", top);
        the_record = (struct record){.dev = st.st_dev};
        node_new(st.st_ino, true);
        scan(top, 0);
}

/* ---- the calls ---- */

static int opened(int d, const char *path, int flags, mode_t mode)
{
        const char *name = NULL;
        uint32_t folder = flags & (O_CREAT | O_TRUNC) ? split(d, path, &name) : NONE;
        struct stat st;
        bool there;
        int fd;

        if (folder == NONE)
                return REAL(openat64)(d, path, flags, mode);
        there = fstatat(d, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if ((!there || flags & O_TRUNC) && tick(!there) < 0)
                return -1;
        fd = REAL(openat64)(d, path, flags, mode);
        if (fd < 0)
                return fd;
        if (there && flags & O_TRUNC && st.st_size > 0)
                of_file(EV_SIZE, node_of_fd(fd), 0, 0);
        if (!there && fstat(fd, &st) == 0)
                entry(folder, name, node_new(st.st_ino, false));
        return fd;
}

int open64(const char *path, int flags, ...)
{
        va_list ap;
        mode_t mode;

        va_start(ap, flags);
        mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
        va_end(ap);
        return opened(AT_FDCWD, path, flags, mode);
}

int openat64(int d, const char *path, int flags, ...)
{
        va_list ap;
        mode_t mode;

        va_start(ap, flags);
        mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
        va_end(ap);
        return opened(d, path, flags, mode);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t off)
{
        uint32_t node = node_of_fd(fd);
        ssize_t r;

        if (node == NONE)
                return REAL(pwrite64)(fd, p, n, off);
        if (tick(true) < 0)
                return -1;
        r = REAL(pwrite64)(fd, p, n, off);
        wrote(node, p, r, off);
        return r;
}

ssize_t write(int fd, const void *p, size_t n)
{
        uint32_t node = node_of_fd(fd);
        ssize_t r;
        off_t off;

        if (node == NONE)
                return REAL(write)(fd, p, n);
        if (tick(true) < 0)
                return -1;
        off = lseek(fd, 0, SEEK_CUR);
        r = REAL(write)(fd, p, n);
        wrote(node, p, r, off);
        return r;
}

ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off_t off, int flags)
{
        uint32_t node = node_of_fd(fd);
        ssize_t r;

        if (node == NONE)
                return REAL(pwritev64v2)(fd, v, n, off, flags & ~RWF_DSYNC);
        CHECK(n == 1, "a vector of %d", n);
        if (tick(true) < 0)
                return -1;
        r = REAL(pwritev64v2)(fd, v, n, off, flags & ~RWF_DSYNC);
        wrote(node, v->iov_base, r, off);
        if (r > 0 && flags & (RWF_DSYNC | RWF_SYNC))
                of_file(EV_SYNC_RANGE, node, off, r);
        return r;
}

int ftruncate64(int fd, off_t size)
{
        uint32_t node = node_of_fd(fd);
        struct stat st;
        int r;

        if (node == NONE || (fstat(fd, &st) == 0 && st.st_size == size))
                return REAL(ftruncate64)(fd, size);
        if (tick(size > st.st_size) < 0)
                return -1;
        r = REAL(ftruncate64)(fd, size);
        if (r == 0)
                of_file(EV_SIZE, node, size, 0);
        return r;
}

int fallocate64(int fd, int mode, off_t off, off_t n)
{
        uint32_t node = node_of_fd(fd);
        int r;

        if (node == NONE)
                return REAL(fallocate64)(fd, mode, off, n);
        CHECK(mode & FALLOC_FL_KEEP_SIZE, "fallocate mode %d", mode);
        if (tick(!(mode & FALLOC_FL_PUNCH_HOLE)) < 0)
                return -1;
        r = REAL(fallocate64)(fd, mode, off, n);
        if (r == 0 && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
                of_file(EV_ZERO, node, off, n);
        return r;
}

int renameat(int d, const char *from, int e, const char *to)
{
        const char *old = NULL, *new = NULL;
        uint32_t a = split(d, from, &old), b = split(e, to, &new), moved, over;
        int r;

        if (a == NONE || b == NONE) {
                r = REAL(renameat)(d, from, e, to);
                CHECK(r < 0 || a == b, "rename '%s' to '%s'", from, to);
                return r;
        }
        if (tick(true) < 0)
                return -1;
        moved = node_of_path(d, from);
        over = node_of_path(e, to);
        r = REAL(renameat)(d, from, e, to);
        if (r < 0)
                return r;
        if (over != NONE)
                the_log->node[over].ino = 0;
        entry(b, new, moved);
        entry(a, old, NONE);
        return 0;
}

int rename(const char *from, const char *to)
{
        return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

/* Of a file that is not ours so far. */
int linkat(int d, const char *from, int e, const char *to, int flags)
{
        const char *name = NULL;
        uint32_t folder = split(e, to, &name), node;
        _cleanup_free_ char *p = NULL;
        struct stat st;
        size_t n;

        if (folder == NONE)
                return REAL(linkat)(d, from, e, to, flags);
        if (tick(true) < 0)
                return -1;
        if (the_record.ticks % 2) { /* as if it were on another file system */
                errno = EXDEV;
                return -1;
        }
        if (REAL(linkat)(d, from, e, to, flags) < 0)
                return -1;
        CHECK(stat(to, &st) == 0 && file_read(to, SIZE_MAX, &p, &n, NULL) == 0, "read '%s'", to);
        node = node_new(st.st_ino, false);
        entry(folder, name, node);
        wrote(node, p, n, 0);
        return 0;
}

int unlinkat(int d, const char *path, int flags)
{
        const char *name = NULL;
        uint32_t folder = split(d, path, &name), node;
        int r;

        if (folder == NONE || (node = node_of_path(d, path)) == NONE)
                return REAL(unlinkat)(d, path, flags);
        tick(false);
        r = REAL(unlinkat)(d, path, flags);
        if (r == 0) {
                the_log->node[node].ino = 0;
                entry(folder, name, NONE);
        }
        return r;
}

int unlink(const char *path)
{
        return unlinkat(AT_FDCWD, path, 0);
}

int remove(const char *path)
{
        struct stat st;
        bool folder = lstat(path, &st) == 0 && S_ISDIR(st.st_mode);

        return unlinkat(AT_FDCWD, path, folder ? AT_REMOVEDIR : 0);
}

int mkdirat(int d, const char *path, mode_t mode)
{
        const char *name = NULL;
        uint32_t folder = split(d, path, &name);
        struct stat st;

        if (folder == NONE || fstatat(d, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return REAL(mkdirat)(d, path, mode);
        if (tick(true) < 0 || REAL(mkdirat)(d, path, mode) < 0)
                return -1;
        CHECK(fstatat(d, path, &st, AT_SYMLINK_NOFOLLOW) == 0, "stat");
        entry(folder, name, node_new(st.st_ino, true));
        return 0;
}

int mkdir(const char *path, mode_t mode)
{
        return mkdirat(AT_FDCWD, path, mode);
}

/* libc writes by itself; what is in the file then is logged as one write. */
int fflush(FILE *f)
{
        uint32_t node = f ? node_of_fd(fileno(f)) : NONE;
        _cleanup_free_ char *p = NULL;
        struct stat st;
        int r;

        if (node == NONE)
                return REAL(fflush)(f);
        if (tick(true) < 0)
                return EOF;
        r = REAL(fflush)(f);
        CHECK(fstat(fileno(f), &st) == 0 && (p = malloc(st.st_size + 1)), "fflush");
        wrote(node, p, pread(fileno(f), p, st.st_size, 0), 0);
        return r;
}

int posix_fallocate64(int fd, off_t off, off_t n)
{
        uint32_t node = node_of_fd(fd);
        struct stat st;
        int r;

        if (node == NONE)
                return REAL(posix_fallocate64)(fd, off, n);
        if (tick(true) < 0)
                return errno;
        CHECK(fstat(fd, &st) == 0, "stat");
        r = REAL(posix_fallocate64)(fd, off, n);
        if (r == 0 && off + n > st.st_size)
                of_file(EV_SIZE, node, off + n, 0);
        return r;
}

int fsync(int fd)
{
        uint32_t node = node_of_fd(fd);

        if (node == NONE)
                return 0;
        tick(false);
        if (the_record.nosync_in && (the_record.nosync_in == 1 || --the_record.nosync_in == 1)) {
                errno = EIO;
                return -1;
        }
        of_file(EV_SYNC, node, 0, 0);
        return 0;
}

int fdatasync(int fd)
{
        return fsync(fd);
}

int msync(void *p, size_t n, int flags)
{
        broken("msync is not simulated");
}

int syncfs(int fd)
{
        broken("syncfs is not simulated");
}

ssize_t copy_file_range(int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags)
{
        errno = EXDEV;
        return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
        va_list ap;
        void *p;

        va_start(ap, request);
        p = va_arg(ap, void *);
        va_end(ap);
        if (request != FICLONE)
                return REAL(ioctl)(fd, request, p);
        errno = EOPNOTSUPP;
        return -1;
}
