/* The image driver on a command line, for the test scripts.
 *
 *   image-probe detect FILE HINT MAX      our parsers alone
 *   image-probe inspect DIR ID HINT MAX   "ok FORMAT VIRTUAL FILE"
 *   image-probe publish DIR ID HINT [AT]  inspect and publish; AT: cancel at that many bytes
 *   image-probe checksum DIR ID
 *
 * HINT "-" is none.  A failure is "err CODE words" and exit status 1. */
#include <fcntl.h>
#include <inttypes.h>
#include "backend/image/files.h"
#include "backend/image/image-files.h"
#include "common/fault.h"

struct watch {
        uint64_t cancel_at, calls, last;
};

static int on_report(void *arg, uint64_t done, uint64_t total)
{
        struct watch *w = arg;

        w->calls++;
        w->last = done;
        return done >= w->cancel_at ? -ECANCELED : 0;
}

static int detect(const char *file, const char *hint, const char *max, struct err **e)
{
        _cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC);
        struct image_header h = {};
        struct image_input in;
        int r;

        if (fd < 0)
                return err_errno(e, -errno, "open '%s'", file);
        in = image_input_of(&fd, lseek(fd, 0, SEEK_END));
        r = image_detect(&in, hint, strtoull(max, NULL, 0), &h, e);
        if (r == 0)
                printf("ok %s %" PRIu64 "\n", image_format_name(h.format), h.virtual_size);
        return r;
}

static int publish(struct image_service *s, const char *id, const char *hint, const char *cancel,
                   struct err **e)
{
        struct watch w = {.cancel_at = cancel ? strtoull(cancel, NULL, 0) : UINT64_MAX};
        struct image_progress p = {.report = on_report, .arg = &w};
        _cleanup_free_ char *path = NULL;
        struct image_facts f;
        int r = s->ops->inspect(s, id, hint, 0, &f, e);

        if (r == 0)
                r = s->ops->publish(s, id, &f, &p, &path, e);
        if (r == 0)
                printf("ok %s %" PRIu64 " %s\n", image_format_name(f.format), f.virtual_size, path);
        return r;
}

static int run(struct image_service *s, char **a, struct err **e)
{
        const char *hint = a[4] && !streq(a[4], "-") ? a[4] : NULL;
        struct image_facts f;
        char sum[65];
        int r;

        if (streq(a[1], "publish"))
                return publish(s, a[3], hint, a[4] ? a[5] : NULL, e);
        if (streq(a[1], "checksum")) {
                r = s->ops->checksum(s, a[3], sum, NULL, e);
                if (r == 0)
                        printf("ok %s\n", sum);
                return r;
        }
        r = s->ops->inspect(s, a[3], hint, a[4] && a[5] ? strtoull(a[5], NULL, 0) : 0, &f, e);
        if (r == 0)
                printf("ok %s %" PRIu64 " %" PRIu64 "\n", image_format_name(f.format),
                       f.virtual_size, f.file_size);
        return r;
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *e = NULL;
        struct image_service *s;
        int r;

        fault_init();
        if (argc < 4)
                return 2;
        if (streq(argv[1], "detect")) {
                r = detect(argv[2], streq(argv[3], "-") ? NULL : argv[3], argc > 4 ? argv[4] : "0",
                           &e);
        } else {
                r = image_files_open(argv[2], &s, &e);
                if (r == 0) {
                        r = run(s, argv, &e);
                        s->ops->close_service(s);
                }
        }
        if (r < 0)
                printf("err %d %s\n", r, err_msg(e));
        return r < 0;
}
