#include "common/fileio.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <sys/stat.h>

enum { TREE_DEPTH = 64 }; /* folders in folders that remove_tree() goes down: a descriptor each */

int read_full(int fd, void *p, size_t n)
{
        while (n > 0) {
                ssize_t r = read(fd, p, n);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        return -ENODATA;
                p = (char *)p + r;
                n -= r;
        }
        return 0;
}

int write_full(int fd, const void *p, size_t n)
{
        while (n > 0) {
                ssize_t r = write(fd, p, n);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                p = (const char *)p + r;
                n -= r;
        }
        return 0;
}

int pread_full(int fd, void *p, size_t n, uint64_t off)
{
        while (n > 0) {
                ssize_t r = pread(fd, p, n, off);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        return -ENODATA;
                p = (char *)p + r;
                off += r;
                n -= r;
        }
        return 0;
}

int pwrite_full(int fd, const void *p, size_t n, uint64_t off)
{
        while (n > 0) {
                ssize_t r = pwrite(fd, p, n, off);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                p = (const char *)p + r;
                off += r;
                n -= r;
        }
        return 0;
}

int file_read(const char *path, size_t max, char **ret, size_t *ret_len, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        _cleanup_free_ char *p = NULL;
        size_t len = 0, size = 0;

        if (fd < 0)
                return err_errno(e, -errno, "open '%s'", path);
        for (;;) {
                ssize_t r;

                if (len == size) {
                        char *q = realloc(p, (size = MAX(size * 2, (size_t)4096)) + 1);

                        if (!q)
                                return err_errno(e, -ENOMEM, "read '%s'", path);
                        p = q;
                }
                r = read(fd, p + len, size - len);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return err_errno(e, -errno, "read '%s'", path);
                if (r == 0)
                        break;
                len += r;
                if (len > max)
                        return err_errno(e, -EFBIG, "read '%s'", path);
        }
        p[len] = '\0';
        if (ret_len)
                *ret_len = len;
        *ret = TAKE_PTR(p);
        return 0;
}

int fsync_parent(const char *path)
{
        _cleanup_free_ char *copy = strdup(path);
        _cleanup_close_ int fd = -1;

        if (!copy)
                return -ENOMEM;
        fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
                return -errno;
        return 0;
}

int file_replace(const char *path, const void *p, size_t n, mode_t mode, struct err **e)
{
        _cleanup_free_ char *tmp = path_printf("%s.new", path);
        _cleanup_close_ int fd = -1;
        int r;

        if (!tmp)
                return err_errno(e, -ENOMEM, "write '%s'", path);
        fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
        if (fd < 0)
                return err_errno(e, -errno, "create '%s'", tmp);
        r = write_full(fd, p, n);
        if (r == 0 && fsync(fd) < 0)
                r = -errno;
        if (r == 0 && rename(tmp, path) < 0)
                r = -errno;
        if (r == 0)
                r = fsync_parent(path);
        if (r < 0) {
                unlink(tmp);
                return err_errno(e, r, "write '%s'", path);
        }
        return 0;
}

int mkdir_parents(const char *path, mode_t mode, struct err **e)
{
        _cleanup_free_ char *copy = strdup(path);

        if (!copy)
                return err_errno(e, -ENOMEM, "mkdir '%s'", path);
        for (char *p = copy + 1;; p++) {
                char c = *p;

                if (c != '/' && c != '\0')
                        continue;
                *p = '\0';
                if (mkdir(copy, mode) < 0 && errno != EEXIST)
                        return err_errno(e, -errno, "mkdir '%s'", copy);
                if (c == '\0')
                        return 0;
                *p = c;
        }
}

/* What fd, which it takes, holds.  Only descriptors are followed: a folder that somebody moves or
 * replaces meanwhile leads nowhere else. */
static int empty_folder(int fd, dev_t dev, unsigned depth);

static int remove_at(int folder, const char *name, dev_t dev, unsigned depth)
{
        int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;

        if (fd < 0 && errno != ENOTDIR && errno != ELOOP)
                return errno == ENOENT ? 0 : -errno;
        r = fd < 0 ? 0 : empty_folder(fd, dev, depth);
        if (r == 0 && unlinkat(folder, name, fd < 0 ? 0 : AT_REMOVEDIR) < 0 && errno != ENOENT)
                r = -errno;
        return r;
}

static int empty_folder(int fd, dev_t dev, unsigned depth)
{
        struct dirent *de;
        struct stat st;
        int r = fstat(fd, &st) < 0 ? -errno : 0;
        DIR *d = NULL;

        if (r == 0 && dev != 0 && st.st_dev != dev)
                r = -EXDEV;
        if (r == 0 && depth == TREE_DEPTH)
                r = -ENOTEMPTY;
        if (r == 0 && !(d = fdopendir(fd)))
                r = -errno;
        if (!d) {
                close(fd);
                return r;
        }
        while ((de = readdir(d))) {
                int n = streq(de->d_name, ".") || streq(de->d_name, "..")
                                ? 0
                                : remove_at(fd, de->d_name, st.st_dev, depth + 1);

                r = r < 0 ? r : n; /* the rest goes in any case */
        }
        closedir(d);
        return r;
}

int remove_tree(const char *path, struct err **e)
{
        int r = remove_at(AT_FDCWD, path, 0, 0);

        return r < 0 ? err_errno(e, r, "remove '%s'", path) : 0;
}

static int copy_bytes(int in, int out)
{
        for (;;) {
                ssize_t n = copy_file_range(in, NULL, out, NULL, 1 << 30, 0);

                if (n == 0)
                        return 0;
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
        }
}

int file_copy(const char *from, const char *to, uid_t uid, gid_t gid, mode_t mode, struct err **e)
{
        _cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
        int r;

        if (in < 0)
                return err_errno(e, -errno, "open '%s'", from);
        if (unlink(to) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "replace '%s'", to);
        out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (out < 0)
                return err_errno(e, -errno, "create '%s'", to);
        r = copy_bytes(in, out);
        if (r == 0 && (fchown(out, uid, gid) < 0 || fchmod(out, mode) < 0))
                r = -errno;
        if (r < 0)
                unlink(to);
        return r < 0 ? err_errno(e, r, "copy '%s' to '%s'", from, to) : 0;
}

char *path_printf(const char *fmt, ...)
{
        va_list ap;
        char *p;
        int n;

        va_start(ap, fmt);
        n = vasprintf(&p, fmt, ap);
        va_end(ap);
        return n < 0 ? NULL : p;
}

int file_open_named(const char *path, int flags)
{
        static const char own[] = "/proc/self/fd/";
        int fd;

        if (strncmp(path, own, strlen(own)) == 0)
                fd = fcntl(atoi(path + strlen(own)), F_DUPFD_CLOEXEC, 3);
        else
                fd = open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}
