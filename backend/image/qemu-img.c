#include "backend/image/qemu-img.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <jansson.h>
#include "common/child.h"

enum {
        LOOK_OUTPUT_MAX = 1 << 20,
        CHECK_CORRUPT = 2, /* exit statuses of qemu-img check */
        CHECK_LEAKS = 3,
};

/* Address space.  qemu-img needs a quarter of it; without enough for a thread it aborts. */
#define MEMORY_MAX (2ULL << 30)

#define _cleanup_json_ _cleanup_(json_decrefp)
#define _cleanup_result_ _cleanup_(child_result_done)

static const char *driver_of(enum image_format f)
{
        return f == IMAGE_VHD ? "vpc" : image_format_name(f);
}

/* Seconds that reading or writing so many bytes may take on a slow machine. */
static unsigned patience(uint64_t bytes)
{
        return 60 + (unsigned)MIN(bytes / (20 << 20), (uint64_t)24 * 3600);
}

/* The last line the child said, fit for words. */
static char *last_line(char out[INPUT_TEXT_SIZE], const struct buf *b)
{
        const char *s = buf_str(b), *end = s + strlen(s), *start;

        while (end > s && (end[-1] == '\n' || end[-1] == '\r'))
                end--;
        for (start = end; start > s && start[-1] != '\n';)
                start--;
        /* "qemu-img: Could not open '/long/path': words": the path means nothing to a user. */
        for (const char *p = start; p < end; p++)
                if (p[0] == '\'' && p + 2 < end && p[1] == ':' && p[2] == ' ')
                        start = p + 3;
        return input_text(out, start, end - start);
}

/* What a child that ran but did not exit with 0 says about the image. */
static int child_failed(const struct child_result *r, const char *doing, struct err **e)
{
        char text[INPUT_TEXT_SIZE];

        if (WIFSIGNALED(r->status) && WTERMSIG(r->status) == SIGXFSZ)
                return err_set(e, -EINVAL, "qemu-img %s wrote more than the image's virtual size",
                               doing);
        if (WIFSIGNALED(r->status))
                return err_set(e, -EINVAL, "qemu-img %s was killed by signal %d on this image",
                               doing, WTERMSIG(r->status));
        if (strstr(buf_str(&r->err), "No space left on device"))
                return err_set(e, -ENOSPC, "qemu-img %s: No space left on device", doing);
        return err_set(e, -EINVAL, "qemu-img %s refuses the image: %s", doing,
                       last_line(text, &r->err));
}

/* Runs qemu-img SUB --output=json on path.  *ret_exit is its exit status. */
static int look(const char *sub, const char *path, uint64_t file_size, enum image_format f,
                json_t **ret, int *ret_exit, struct err **e)
{
        const char *read[] = {path, NULL};
        const char *argv[] = {"qemu-img", sub, "--output=json", "-f", driver_of(f), path, NULL};
        struct confine confine = {.read = read,
                                  .max_memory = MEMORY_MAX,
                                  .max_file_size = 4096, /* it has nothing to write */
                                  .max_cpu = patience(file_size)};
        struct child c = {.argv = argv,
                          .confine = &confine,
                          .timeout_ms = (int)patience(file_size) * 1000,
                          .max_output = LOOK_OUTPUT_MAX};
        _cleanup_result_ struct child_result res = {};
        int r = child_run(&c, &res, e);

        if (r == -ETIMEDOUT)
                return err_prepend(e, r, "image refused, qemu-img %s took too long", sub);
        if (r < 0)
                return err_prepend(e, r, "qemu-img %s", sub);
        if (!WIFEXITED(res.status))
                return child_failed(&res, sub, e);
        *ret_exit = WEXITSTATUS(res.status);
        if (*ret_exit != 0 && *ret_exit != CHECK_CORRUPT && *ret_exit != CHECK_LEAKS)
                return child_failed(&res, sub, e);
        *ret = json_loads(buf_str(&res.out), JSON_REJECT_DUPLICATES, NULL);
        if (!*ret)
                return err_set(e, -EINVAL, "qemu-img %s says nothing that can be read", sub);
        return 0;
}

static int refuse_named(const json_t *o, const char *key, const char *what, struct err **e)
{
        const char *name = json_string_value(json_object_get(o, key));
        char text[INPUT_TEXT_SIZE];

        if (!json_object_get(o, key))
                return 0;
        return err_set(e, -EINVAL, "image names %s '%s': refused, an image must be whole", what,
                       input_text(text, name ? name : "?", name ? strlen(name) : 1));
}

static int extents_check(const json_t *extents, const char *path, struct err **e)
{
        const char *name =
                json_string_value(json_object_get(json_array_get(extents, 0), "filename"));

        if (!extents)
                return 0;
        if (json_array_size(extents) != 1 || !name || !streq(name, path))
                return err_set(e, -EINVAL,
                               "image has an extent elsewhere: refused, an image must be whole");
        return 0;
}

static int info_check(const json_t *info, const char *path, struct image_header *h, struct err **e)
{
        const json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
        const char *format = json_string_value(json_object_get(info, "format"));
        json_int_t size = json_integer_value(json_object_get(info, "virtual-size"));
        int r;

        if ((r = refuse_named(info, "backing-filename", "a backing file", e)) < 0 ||
            (r = refuse_named(info, "full-backing-filename", "a backing file", e)) < 0 ||
            (r = refuse_named(data, "data-file", "an external data file", e)) < 0 ||
            (r = extents_check(json_object_get(data, "extents"), path, e)) < 0)
                return r;
        if (!format || !streq(format, driver_of(h->format)))
                return err_set(e, -EINVAL, "qemu-img takes the image for another format");
        if (json_is_true(json_object_get(data, "corrupt")))
                return err_set(e, -EINVAL, "image is marked as corrupt");
        if (json_is_true(json_object_get(info, "encrypted")))
                return err_set(e, -EINVAL, "image is encrypted: refused");
        if (size <= 0 || ((uint64_t)size != h->virtual_size && (uint64_t)size != h->chs_size))
                return err_set(e, -EINVAL,
                               "image is ambiguous: its header says %" PRIu64
                               " bytes, qemu-img reads %" JSON_INTEGER_FORMAT,
                               h->virtual_size, size);
        h->virtual_size = (uint64_t)size;
        return 0;
}

static int corruption_check(const json_t *check, int status, struct err **e)
{
        json_int_t corrupt = json_integer_value(json_object_get(check, "corruptions"));
        json_int_t errors = json_integer_value(json_object_get(check, "check-errors"));

        if (status == CHECK_CORRUPT || corrupt || errors)
                return err_set(e, -EINVAL,
                               "image is damaged: qemu-img check finds %" JSON_INTEGER_FORMAT
                               " corruptions, %" JSON_INTEGER_FORMAT " errors",
                               corrupt, errors);
        return 0; /* leaked clusters only waste room */
}

int qemu_img_verify(const char *path, uint64_t file_size, struct image_header *h, struct err **e)
{
        _cleanup_json_ json_t *info = NULL, *check = NULL;
        int status, r = look("info", path, file_size, h->format, &info, &status, e);

        if (r < 0 || (r = info_check(info, path, h, e)) < 0 || h->format != IMAGE_QCOW2)
                return r;
        r = look("check", path, file_size, h->format, &check, &status, e);
        return r < 0 ? r : corruption_check(check, status, e);
}

/* The progress of `qemu-img convert -p`: "    (12.34/100%)\r" again and again. */
struct conversion {
        const struct image_progress *p;
        uint64_t total, done;
        char line[32];
        size_t len;
};

static int conversion_report(struct conversion *c)
{
        return c->p && c->p->report ? c->p->report(c->p->arg, c->done, c->total) : 0;
}

static int on_output(void *arg, const char *p, size_t n)
{
        struct conversion *c = arg;

        for (size_t i = 0; i < n; i++) {
                double percent;

                if (p[i] != '\r' && p[i] != '\n') {
                        if (c->len < sizeof(c->line) - 1)
                                c->line[c->len++] = p[i];
                        continue;
                }
                c->line[c->len] = '\0';
                c->len = 0;
                if (sscanf(c->line, " (%lf/100%%)", &percent) == 1 && percent >= 0 &&
                    percent <= 100)
                        c->done = (uint64_t)((double)c->total * percent / 100);
        }
        return conversion_report(c);
}

static int on_tick(void *arg)
{
        return conversion_report(arg);
}

int qemu_img_convert(const char *from, uint64_t file_size, const struct image_header *h,
                     const char *to, const struct image_progress *p, struct err **e)
{
        struct conversion conv = {.p = p, .total = h->virtual_size};
        const char *read[] = {from, NULL}, *write[] = {to, NULL};
        const char *argv[] = {"qemu-img",
                              "convert",
                              "-p",
                              "-n",
                              "--target-is-zero",
                              "-f",
                              driver_of(h->format),
                              "-O",
                              "raw",
                              "-S",
                              "4k",
                              from,
                              to,
                              NULL};
        unsigned seconds = patience(MAX(file_size, h->virtual_size));
        struct confine confine = {.read = read,
                                  .write = write,
                                  .max_memory = MEMORY_MAX,
                                  .max_file_size = h->virtual_size,
                                  .max_cpu = seconds * 2};
        struct child c = {.argv = argv,
                          .confine = &confine,
                          .timeout_ms = (int)seconds * 1000,
                          .on_output = on_output,
                          .on_tick = on_tick,
                          .arg = &conv};
        _cleanup_result_ struct child_result res = {};
        int r = child_run(&c, &res, e);

        if (r < 0)
                return err_prepend(e, r, "qemu-img convert");
        if (!WIFEXITED(res.status) || WEXITSTATUS(res.status) != 0)
                return child_failed(&res, "convert", e);
        return 0;
}
