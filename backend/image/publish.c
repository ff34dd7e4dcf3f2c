/* inspect and publish: our parsers first, then qemu-img, then the raw view. */
#include <fcntl.h>
#include <inttypes.h>
#include <strings.h>
#include <sys/stat.h>
#include "backend/image/files.h"
#include "backend/image/qemu-img.h"
#include "backend/image/unpack.h"
#include "common/fault.h"
#include "common/fileio.h"

static bool is_container(enum image_format f)
{
        return f == IMAGE_QCOW2 || f == IMAGE_VMDK || f == IMAGE_VDI || f == IMAGE_VHD;
}

/* Our own look at the upload. */
static int detect(struct image_files *f, const char *id, const char *hint, uint64_t max_virtual,
                  struct image_header *ret, uint64_t *ret_size, struct err **e)
{
        _cleanup_close_ int fd = -1;
        struct image_input in;
        int r = image_upload_open(f, id, O_RDONLY, &fd, ret_size, e);

        if (r < 0)
                return r;
        in = image_input_of(&fd, *ret_size);
        return image_detect(&in, hint, max_virtual, ret, e);
}

static bool is_one_of(const char *hint, const char *const *names)
{
        while (hint && *names && strcasecmp(hint, *names) != 0)
                names++;
        return hint && *names;
}

/* Compressed, an archive looks like a ramdisk; only a look inside tells. */
static int look_for_tree(struct image_files *f, const char *path, const char *hint, uint64_t size,
                         struct image_header *h, struct err **e)
{
        static const char *const trees[] = {"tar", "tgz", "txz", "tzst", NULL};
        static const char *const ramdisks[] = {"ari", "initrd", NULL};
        const bool wanted = is_one_of(hint, trees);
        uint64_t bytes = 0;
        int r = 1;

        if (h->format == IMAGE_TAR || wanted ||
            (h->format == IMAGE_ARI && f->unpack && !is_one_of(hint, ramdisks)))
                r = unpack_check(f, path, size, &bytes, e);
        if (r == 0) {
                h->format = IMAGE_TAR;
                h->virtual_size = bytes;
        } else if (r == 1 && (wanted || h->format == IMAGE_TAR)) {
                return err_set(e, -EINVAL, "image is declared as a tar archive but is none");
        }
        return MIN(r, 0);
}

int image_inspect(struct image_service *s, const char *id, const char *hint, uint64_t max_virtual,
                  struct image_facts *ret, struct err **e)
{
        _cleanup_free_ char *path = NULL;
        struct image_header h;
        uint64_t size;
        int r = image_path(image_files(s), id, "upload", &path, e);

        if (r < 0 || (r = detect(image_files(s), id, hint, max_virtual, &h, &size, e)) < 0)
                return r;
        if (is_container(h.format) && (r = qemu_img_verify(path, size, &h, e)) < 0)
                return r;
        if ((r = look_for_tree(image_files(s), path, hint, size, &h, e)) < 0)
                return r;
        if (max_virtual && h.virtual_size > max_virtual)
                return err_set(e, -EINVAL,
                               "image has a virtual size of %" PRIu64
                               " bytes, more than the %" PRIu64 " allowed",
                               h.virtual_size, max_virtual);
        *ret = (struct image_facts){
                .format = h.format, .virtual_size = h.virtual_size, .file_size = size};
        return 0;
}

/* The bytes may have been written to since inspect: look again, and only the same will do. */
static int same_still(struct image_files *f, const char *id, const struct image_facts *facts,
                      struct image_header *ret, struct err **e)
{
        uint64_t size;
        int r = detect(f, id, image_format_name(facts->format), 0, ret, &size, e);

        if (r < 0)
                return r;
        if (ret->format != facts->format || size != facts->file_size ||
            (ret->virtual_size != facts->virtual_size && ret->chs_size != facts->virtual_size))
                return err_set(e, -ESTALE, "image '%s' has changed since it was inspected", id);
        ret->virtual_size = facts->virtual_size;
        return 0;
}

/* An empty file of the disk's size, for the child to fill. */
static int target_create(const char *path, uint64_t size, int *ret_fd, struct err **e)
{
        _cleanup_close_ int fd =
                open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd < 0 || ftruncate(fd, size) < 0)
                return err_errno(e, -errno, "make the raw view");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* The view gets its name only when it is whole and on disk. */
static int target_keep(int fd, const char *tmp, const char *raw, uint64_t size, struct err **e)
{
        struct stat st;
        int r = FAULT("image.publish.sync");

        if (r == 0 && (fstat(fd, &st) < 0 || fsync(fd) < 0))
                r = -errno;
        if (r == 0 && (uint64_t)st.st_size != size)
                return err_set(e, -EIO, "the raw view has the wrong size");
        if (r == 0)
                r = FAULT("image.publish.rename");
        if (r == 0 && rename(tmp, raw) < 0)
                r = -errno;
        if (r == 0)
                r = FAULT("image.publish.renamed");
        if (r == 0)
                r = fsync_parent(raw);
        return r < 0 ? err_errno(e, r, "keep the raw view") : 0;
}

static int convert(struct image_files *f, const char *id, const struct image_header *h,
                   uint64_t file_size, const char *raw, const struct image_progress *p,
                   struct err **e)
{
        _cleanup_free_ char *tmp = NULL, *upload = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        if ((r = image_path(f, id, "raw.tmp", &tmp, e)) < 0 ||
            (r = image_path(f, id, "upload", &upload, e)) < 0)
                return r;
        r = target_create(tmp, h->virtual_size, &fd, e);
        if (r == 0)
                r = qemu_img_convert(upload, file_size, h, tmp, p, e);
        if (r == 0)
                r = target_keep(fd, tmp, raw, h->virtual_size, e);
        if (r < 0)
                unlink(tmp);
        return r;
}

int image_publish(struct image_service *s, const char *id, const struct image_facts *facts,
                  const struct image_progress *p, char **ret_path, struct err **e)
{
        struct image_files *f = image_files(s);
        bool container = is_container(facts->format);
        _cleanup_free_ char *path = NULL;
        struct image_header h;
        struct stat st;
        int r;

        if (!image_format_bootable(facts->format))
                return err_set(e, -EINVAL, "image '%s' is %s: it has no raw view", id,
                               image_format_name(facts->format));
        if ((r = image_path(f, id, container ? "raw" : "upload", &path, e)) < 0 ||
            (r = same_still(f, id, facts, &h, e)) < 0)
                return r;
        if (container) {
                bool there = lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                             (uint64_t)st.st_size == h.virtual_size;

                /* convert renames last, so what has the name is whole */
                r = there ? 0 : convert(f, id, &h, facts->file_size, path, p, e);
        }
        if (r < 0)
                return r;
        *ret_path = TAKE_PTR(path);
        return 0;
}

int image_unpublish(struct image_service *s, const char *id, struct err **e)
{
        static const char *const files[] = {"raw", "raw.tmp"};

        for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
                _cleanup_free_ char *path = NULL;
                int r = image_path(image_files(s), id, files[i], &path, e);

                if (r < 0)
                        return r;
                if (unlink(path) < 0 && errno != ENOENT)
                        return err_errno(e, -errno, "drop the raw view of image '%s'", id);
        }
        return 0;
}
