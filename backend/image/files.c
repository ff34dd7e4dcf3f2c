#include "backend/image/image-files.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include "backend/image/files.h"
#include "backend/image/unpack.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

struct image_blob {
        int fd;
};

int image_path(struct image_files *f, const char *id, const char *name, char **ret, struct err **e)
{
        if (!name_valid(id))
                return err_set(e, -EINVAL, "image id is not valid");
        *ret = name ? path_printf("%s/%s/%s", f->dir, id, name) : path_printf("%s/%s", f->dir, id);
        return *ret ? 0 : err_errno(e, -ENOMEM, "image '%s'", id);
}

int image_upload_open(struct image_files *f, const char *id, int flags, int *ret_fd,
                      uint64_t *ret_size, struct err **e)
{
        _cleanup_free_ char *path = NULL;
        _cleanup_close_ int fd = -1;
        struct stat st;
        int r = image_path(f, id, "upload", &path, e);

        if (r < 0)
                return r;
        fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open image '%s'", id);
        if (!S_ISREG(st.st_mode))
                return err_set(e, -EINVAL, "open image '%s': not a regular file", id);
        if (ret_size)
                *ret_size = st.st_size;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static int input_pread(void *arg, void *p, size_t n, uint64_t off)
{
        return pread_full(*(int *)arg, p, n, off);
}

struct image_input image_input_of(int *fd, uint64_t size)
{
        return (struct image_input){.read = input_pread, .arg = fd, .size = size};
}

static int files_create(struct image_service *s, const char *id, struct err **e)
{
        struct image_files *f = image_files(s);
        _cleanup_free_ char *folder = NULL;
        _cleanup_close_ int fd = -1;
        int r = image_path(f, id, NULL, &folder, e);

        if (r < 0)
                return r;
        if (mkdir(folder, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "create image '%s'", id);
        r = image_unpublish(s, id, e); /* a view of the old bytes */
        if (r < 0)
                return r;
        r = image_upload_open(f, id, O_RDWR | O_CREAT | O_TRUNC, &fd, NULL, e);
        if (r < 0)
                return r;
        if (fsync(fd) < 0)
                return err_errno(e, -errno, "create image '%s'", id);
        r = fsync_parent(folder);
        return r < 0 ? err_errno(e, r, "create image '%s'", id) : 0;
}

static int files_open(struct image_service *s, const char *id, bool writable,
                      struct image_blob **ret, struct err **e)
{
        _cleanup_free_ struct image_blob *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return err_errno(e, -ENOMEM, "open image '%s'", id);
        r = image_upload_open(image_files(s), id, writable ? O_RDWR : O_RDONLY, &b->fd, NULL, e);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b);
        return 0;
}

static int64_t blob_pread(struct image_blob *b, void *p, size_t n, uint64_t off)
{
        size_t done = 0;

        while (done < n) {
                ssize_t r = pread(b->fd, (char *)p + done, n - done, off + done);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        break;
                done += r;
        }
        return done;
}

static int blob_pwrite(struct image_blob *b, const void *p, size_t n, uint64_t off)
{
        int r = FAULT("image.pwrite");

        return r < 0 ? r : pwrite_full(b->fd, p, n, off);
}

static int blob_truncate(struct image_blob *b, uint64_t size)
{
        return ftruncate(b->fd, size) < 0 ? -errno : 0;
}

static int64_t blob_seek(struct image_blob *b, uint64_t off, int whence)
{
        off_t r = lseek(b->fd, off, whence);

        return r < 0 ? -errno : r;
}

static int64_t blob_size(struct image_blob *b)
{
        struct stat st;

        return fstat(b->fd, &st) < 0 ? -errno : st.st_size;
}

static int blob_sync(struct image_blob *b)
{
        int r = FAULT("image.sync");

        if (r < 0)
                return r;
        return fsync(b->fd) < 0 ? -errno : 0;
}

static void blob_close(struct image_blob *b)
{
        close(b->fd);
        free(b);
}

/* A hypervisor runs as another user: it may pass the folder, which it cannot list, and read this
 * one file. */
static int files_path(struct image_service *s, const char *id, char **ret, struct err **e)
{
        _cleanup_free_ char *path = NULL, *folder = NULL;
        _cleanup_close_ int fd = -1;
        struct stat st;
        int r;

        if ((r = image_path(image_files(s), id, NULL, &folder, e)) < 0 ||
            (r = image_path(image_files(s), id, "upload", &path, e)) < 0 ||
            (r = image_upload_open(image_files(s), id, O_RDONLY, &fd, NULL, e)) < 0)
                return r;
        /* What blockd's group may do with it stays. */
        if (fstat(fd, &st) < 0 || fchmod(fd, (st.st_mode & 0777) | 0644) < 0 ||
            chmod(folder, 0711) < 0)
                return err_errno(e, -errno, "open image '%s' for reading", id);
        *ret = TAKE_PTR(path);
        return 0;
}

static int files_remove(struct image_service *s, const char *id, struct err **e)
{
        _cleanup_free_ char *folder = NULL;
        int r = image_path(image_files(s), id, NULL, &folder, e);

        if (r < 0 || (r = remove_tree(folder, e)) < 0)
                return r;
        r = fsync_parent(folder);
        return r < 0 ? err_errno(e, r, "remove image '%s'", id) : 0;
}

static void closedirp(DIR **d)
{
        if (*d)
                closedir(*d);
}

static int files_list(struct image_service *s, int (*each)(void *arg, const char *id), void *arg,
                      struct err **e)
{
        struct image_files *f = image_files(s);
        _cleanup_(closedirp) DIR *d = opendir(f->dir);

        if (!d)
                return err_errno(e, -errno, "list images in '%s'", f->dir);
        for (;;) {
                struct dirent *de;
                struct stat st;
                int r;

                errno = 0;
                de = readdir(d);
                if (!de && errno)
                        return err_errno(e, -errno, "list images in '%s'", f->dir);
                if (!de)
                        return 0;
                if (!name_valid(de->d_name) ||
                    fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                    !S_ISDIR(st.st_mode))
                        continue;
                r = each(arg, de->d_name);
                if (r < 0)
                        return r;
        }
}

static void files_close(struct image_service *s)
{
        struct image_files *f = image_files(s);

        free(f->unpack);
        free(f->dir);
        free(f);
}

static const struct image_service_ops files_ops = {
        .name = "files",
        .create = files_create,
        .open = files_open,
        .pread = blob_pread,
        .pwrite = blob_pwrite,
        .truncate = blob_truncate,
        .seek = blob_seek,
        .size = blob_size,
        .sync = blob_sync,
        .close = blob_close,
        .inspect = image_inspect,
        .checksum = image_checksum,
        .publish = image_publish,
        .unpublish = image_unpublish,
        .path = files_path,
        .unpack = image_unpack,
        .remove = files_remove,
        .list = files_list,
        .close_service = files_close,
};

void image_files_unpacker(struct image_service *s, const char *program)
{
        image_files(s)->unpack = program ? strdup(program) : NULL;
}

int image_files_open(const char *dir, struct image_service **ret, struct err **e)
{
        _cleanup_free_ struct image_files *f = calloc(1, sizeof(*f));
        int r = mkdir_parents(dir, 0711, e);

        if (r < 0)
                return r;
        if (!f)
                return err_errno(e, -ENOMEM, "open images in '%s'", dir);
        f->service.ops = &files_ops;
        /* Absolute, so that qemu-img can never read it as "protocol:name". */
        f->dir = realpath(dir, NULL);
        if (!f->dir)
                return err_errno(e, -errno, "open images in '%s'", dir);
        *ret = &TAKE_PTR(f)->service;
        return 0;
}
