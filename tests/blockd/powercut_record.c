/* The calls of the engine that change files, wrapped by the linker (--wrap): each is done and
 * logged.  Syncs are logged only. */
#include "powercut.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fileio.h"

struct record the_record;
struct log *the_log;

int __real_open64(const char *path, int flags, ...);
ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t off);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __real_pwritev64v2(int fd, const struct iovec *v, int n, off_t off, int flags);
int __real_ftruncate64(int fd, off_t size);
int __real_fallocate64(int fd, int mode, off_t off, off_t n);
int __real_rename(const char *from, const char *to);
int __real_linkat(int d, const char *from, int e, const char *to, int flags);
int __real_unlink(const char *path);
int __real_unlinkat(int d, const char *name, int flags);
int __real_remove(const char *path);
int __real_mkdir(const char *path, mode_t mode);

int __wrap_open64(const char *path, int flags, ...);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t off);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *v, int n, off_t off, int flags);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t n);
int __wrap_rename(const char *from, const char *to);
int __wrap_linkat(int d, const char *from, int e, const char *to, int flags);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int d, const char *name, int flags);
int __wrap_remove(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_msync(void *p, size_t n, int flags);
int __wrap_syncfs(int fd);
ssize_t __wrap_copy_file_range(int in, off_t *inoff, int out, off_t *outoff, size_t n,
                               unsigned flags);
int __wrap_ioctl(int fd, unsigned long request, ...);

/* ---- the log ---- */

struct event *log_add(enum event_kind kind)
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

static uint32_t node_of_ino(ino_t ino)
{
        for (uint32_t i = the_log->nodes; i-- > 0;)
                if (the_log->node[i].ino == ino)
                        return i;
        return NONE;
}

static uint32_t node_of_fd(int fd)
{
        struct stat st;

        return the_record.on && fstat(fd, &st) == 0 ? node_of_ino(st.st_ino) : NONE;
}

static uint32_t node_of_path(const char *path)
{
        struct stat st;

        return lstat(path, &st) == 0 ? node_of_ino(st.st_ino) : NONE;
}

/* The folder's node, and the name in it; NONE when it is not ours. */
static uint32_t split(const char *path, const char **ret)
{
        char folder[512];
        size_t n;

        if (!the_record.on)
                return NONE;
        n = strlen(the_record.top);
        if (strncmp(path, the_record.top, n) != 0 || path[n] != '/')
                return NONE;
        *ret = strrchr(path, '/') + 1;
        snprintf(folder, sizeof(folder), "%.*s", (int)(*ret - path - 1), path);
        return node_of_path(folder);
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
        the_record = (struct record){.top = top};
        CHECK(stat(top, &st) == 0, "no %s", top);
        node_new(st.st_ino, true);
        scan(top, 0);
}

/* ---- the calls ---- */

int __wrap_open64(const char *path, int flags, ...)
{
        const char *name = NULL;
        uint32_t folder = flags & (O_CREAT | O_TRUNC) ? split(path, &name) : NONE;
        struct stat st;
        bool there;
        va_list ap;
        mode_t mode;
        int fd;

        va_start(ap, flags);
        mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
        va_end(ap);
        if (folder == NONE)
                return __real_open64(path, flags, mode);
        there = lstat(path, &st) == 0;
        if ((!there || flags & O_TRUNC) && tick(!there) < 0)
                return -1;
        fd = __real_open64(path, flags, mode);
        if (fd < 0)
                return fd;
        if (there && flags & O_TRUNC && st.st_size > 0)
                of_file(EV_SIZE, node_of_fd(fd), 0, 0);
        if (!there && fstat(fd, &st) == 0)
                entry(folder, name, node_new(st.st_ino, false));
        return fd;
}

ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t off)
{
        uint32_t node = node_of_fd(fd);
        ssize_t r;

        if (node == NONE)
                return __real_pwrite64(fd, p, n, off);
        if (tick(true) < 0)
                return -1;
        r = __real_pwrite64(fd, p, n, off);
        wrote(node, p, r, off);
        return r;
}

ssize_t __wrap_write(int fd, const void *p, size_t n)
{
        uint32_t node = node_of_fd(fd);
        ssize_t r;
        off_t off;

        if (node == NONE)
                return __real_write(fd, p, n);
        if (tick(true) < 0)
                return -1;
        off = lseek(fd, 0, SEEK_CUR);
        r = __real_write(fd, p, n);
        wrote(node, p, r, off);
        return r;
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *v, int n, off_t off, int flags)
{
        uint32_t node = node_of_fd(fd);
        ssize_t r;

        if (node == NONE)
                return __real_pwritev64v2(fd, v, n, off, flags & ~RWF_DSYNC);
        CHECK(n == 1, "a vector of %d", n);
        if (tick(true) < 0)
                return -1;
        r = __real_pwritev64v2(fd, v, n, off, flags & ~RWF_DSYNC);
        wrote(node, v->iov_base, r, off);
        if (r > 0 && flags & (RWF_DSYNC | RWF_SYNC))
                of_file(EV_SYNC_RANGE, node, off, r);
        return r;
}

int __wrap_ftruncate64(int fd, off_t size)
{
        uint32_t node = node_of_fd(fd);
        struct stat st;
        int r;

        if (node == NONE || (fstat(fd, &st) == 0 && st.st_size == size))
                return __real_ftruncate64(fd, size);
        if (tick(size > st.st_size) < 0)
                return -1;
        r = __real_ftruncate64(fd, size);
        if (r == 0)
                of_file(EV_SIZE, node, size, 0);
        return r;
}

int __wrap_fallocate64(int fd, int mode, off_t off, off_t n)
{
        uint32_t node = node_of_fd(fd);
        int r;

        if (node == NONE)
                return __real_fallocate64(fd, mode, off, n);
        CHECK(mode & FALLOC_FL_KEEP_SIZE, "fallocate mode %d", mode);
        if (tick(!(mode & FALLOC_FL_PUNCH_HOLE)) < 0)
                return -1;
        r = __real_fallocate64(fd, mode, off, n);
        if (r == 0 && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
                of_file(EV_ZERO, node, off, n);
        return r;
}

int __wrap_rename(const char *from, const char *to)
{
        const char *old = NULL, *new = NULL;
        uint32_t a = split(from, &old), b = split(to, &new), moved, over;
        int r;

        if (a == NONE && b == NONE)
                return __real_rename(from, to);
        CHECK(a != NONE && b != NONE, "rename '%s' to '%s'", from, to);
        if (tick(true) < 0)
                return -1;
        moved = node_of_path(from);
        over = node_of_path(to);
        r = __real_rename(from, to);
        if (r < 0)
                return r;
        if (over != NONE)
                the_log->node[over].ino = 0;
        entry(b, new, moved);
        entry(a, old, NONE);
        return 0;
}

/* Of a file that is not ours so far. */
int __wrap_linkat(int d, const char *from, int e, const char *to, int flags)
{
        const char *name = NULL;
        uint32_t folder = split(to, &name), node;
        _cleanup_free_ char *p = NULL;
        struct stat st;
        size_t n;

        if (folder == NONE)
                return __real_linkat(d, from, e, to, flags);
        if (tick(true) < 0)
                return -1;
        if (the_record.ticks % 2) { /* as if it were on another file system */
                errno = EXDEV;
                return -1;
        }
        if (__real_linkat(d, from, e, to, flags) < 0)
                return -1;
        CHECK(stat(to, &st) == 0 && file_read(to, SIZE_MAX, &p, &n, NULL) == 0, "read '%s'", to);
        node = node_new(st.st_ino, false);
        entry(folder, name, node);
        wrote(node, p, n, 0);
        return 0;
}

static int unlinked(uint32_t folder, const char *name, uint32_t node, int r)
{
        if (r == 0) {
                the_log->node[node].ino = 0;
                entry(folder, name, NONE);
        }
        return r;
}

int __wrap_unlink(const char *path)
{
        const char *name = NULL;
        uint32_t folder = split(path, &name), node;

        if (folder == NONE || (node = node_of_path(path)) == NONE)
                return __real_unlink(path);
        tick(false);
        return unlinked(folder, name, node, __real_unlink(path));
}

int __wrap_remove(const char *path)
{
        const char *name = NULL;
        uint32_t folder = split(path, &name), node;

        if (folder == NONE || (node = node_of_path(path)) == NONE)
                return __real_remove(path);
        tick(false);
        return unlinked(folder, name, node, __real_remove(path));
}

int __wrap_unlinkat(int d, const char *name, int flags)
{
        const char *last = name;
        uint32_t folder = d == AT_FDCWD ? split(name, &last) : node_of_fd(d), node;
        struct stat st;

        if (folder == NONE || fstatat(d, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return __real_unlinkat(d, name, flags);
        node = node_of_ino(st.st_ino);
        tick(false);
        return unlinked(folder, last, node, __real_unlinkat(d, name, flags));
}

int __wrap_mkdir(const char *path, mode_t mode)
{
        const char *name = NULL;
        uint32_t folder = split(path, &name);
        struct stat st;

        if (folder == NONE || lstat(path, &st) == 0)
                return __real_mkdir(path, mode);
        if (tick(true) < 0 || __real_mkdir(path, mode) < 0)
                return -1;
        CHECK(stat(path, &st) == 0, "stat");
        entry(folder, name, node_new(st.st_ino, true));
        return 0;
}

int __wrap_fsync(int fd)
{
        uint32_t node = node_of_fd(fd);

        if (node != NONE) {
                tick(false);
                of_file(EV_SYNC, node, 0, 0);
        }
        return 0;
}

int __wrap_fdatasync(int fd)
{
        return __wrap_fsync(fd);
}

int __wrap_msync(void *p, size_t n, int flags)
{
        broken("msync is not simulated");
}

int __wrap_syncfs(int fd)
{
        broken("syncfs is not simulated");
}

ssize_t __wrap_copy_file_range(int in, off_t *inoff, int out, off_t *outoff, size_t n,
                               unsigned flags)
{
        errno = EXDEV;
        return -1;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
        CHECK(request == FICLONE, "ioctl %lx", request);
        errno = EOPNOTSUPP;
        return -1;
}
