#include "backend/image/unpack.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "common/child.h"
#include "common/fileio.h"

#define TREE_MAX (UINT64_C(64) << 30) /* bytes: no tree is larger */
#ifdef __SANITIZE_ADDRESS__           /* its shadow is terabytes of address space */
#define MEMORY_MAX 0
#else
#define MEMORY_MAX (UINT64_C(1) << 30) /* xz's dictionary is the most of it */
#endif

enum {
        TAR_BLOCK = 512,
        TAR_SUM = 148, /* octal, 8 bytes, which count as spaces */
        TAR_SUM_SIZE = 8,
        TAR_NAME_SIZE = 100,
        STATUS_NO_ARCHIVE = 3, /* unpack-main.c */
        PATIENCE_S = 3600,
        WORDS_MAX = 200,
};

int tar_parse(const struct image_input *in, struct image_header *ret, struct err **e)
{
        uint8_t h[TAR_BLOCK];
        char name[TAR_NAME_SIZE + 1] = "", sum[TAR_SUM_SIZE + 1] = "";
        unsigned long is = 0;
        int r = input_read(in, h, sizeof(h), 0, "tar header", e);

        if (r < 0)
                return err_prepend(e, r, "tar archive");
        for (size_t i = 0; i < sizeof(h); i++)
                is += i >= TAR_SUM && i < TAR_SUM + TAR_SUM_SIZE ? ' ' : h[i];
        memcpy(sum, h + TAR_SUM, TAR_SUM_SIZE);
        if (strtoul(sum, NULL, 8) != is)
                return err_set(e, -EINVAL, "image is a damaged tar archive");
        memcpy(name, h, TAR_NAME_SIZE);
        if (strlen(name) > 4 && streq(name + strlen(name) - 4, ".ovf"))
                return err_set(e, -EINVAL,
                               "image is a tar archive, an OVA file: refused, not a format on "
                               "offer");
        ret->format = IMAGE_TAR;
        ret->virtual_size = in->size;
        return 0;
}

/* What the program said, without its own name. */
static int refused(const struct child_result *r, struct err **e)
{
        static const char name[] = "stratofs-unpack: ";
        const char *s = buf_str(&r->err), *own = strstr(s, name);
        char text[WORDS_MAX + 1];
        size_t n = 0;

        if (WIFSIGNALED(r->status))
                return err_set(e, -EINVAL, "unpacking the archive was ended by signal %d",
                               WTERMSIG(r->status));
        s = own ? own + strlen(name) : s;
        for (; n < WORDS_MAX && s[n] >= ' ' && s[n] < 0x7f; n++)
                text[n] = s[n];
        text[n] = '\0';
        return err_set(e, strstr(s, "No space left") ? -ENOSPC : -EINVAL, "archive: %s", text);
}

static int have_program(const struct image_files *f, struct err **e)
{
        return f->unpack ? 0 : err_set(e, -ENOTSUP, "stratofs-unpack is not installed");
}

int unpack_check(struct image_files *f, const char *path, uint64_t file_size, uint64_t *ret_bytes,
                 struct err **e)
{
        char max[24];
        const char *read[] = {path, NULL};
        struct confine confine = {.read = read,
                                  .max_memory = MEMORY_MAX,
                                  .max_file_size = 4096, /* it has nothing to write */
                                  .max_cpu = PATIENCE_S};
        struct child c = {.argv = (const char *const[]){f->unpack, "check", path, max, NULL},
                          .confine = &confine,
                          .timeout_ms = PATIENCE_S * 1000};
        _cleanup_(child_result_done) struct child_result res = {};
        int r = have_program(f, e);

        snprintf(max, sizeof(max), "%" PRIu64, TREE_MAX);
        if (r == 0)
                r = child_run(&c, &res, e);
        if (r < 0)
                return r;
        if (WIFEXITED(res.status) && WEXITSTATUS(res.status) == STATUS_NO_ARCHIVE)
                return 1;
        if (!WIFEXITED(res.status) || WEXITSTATUS(res.status) != 0)
                return refused(&res, e);
        *ret_bytes = strtoull(buf_str(&res.out), NULL, 10);
        return 0;
}

int image_unpack(struct image_service *s, const char *id, const char *path, const char *dir,
                 uint32_t base, uint64_t max, struct err **e)
{
        struct image_files *f = image_files(s);
        _cleanup_free_ char *own = NULL;
        char text[24], first[16];
        struct child c = {.timeout_ms = PATIENCE_S * 1000};
        _cleanup_(child_result_done) struct child_result res = {};
        int r = have_program(f, e);

        if (r == 0)
                r = image_path(f, id, "upload", &own, e);
        c.argv = (const char *const[]){f->unpack, "into", dir, first, text, path ?: own, NULL};
        snprintf(text, sizeof(text), "%" PRIu64, max ? MIN(max, TREE_MAX) : TREE_MAX);
        snprintf(first, sizeof(first), "%u", base);
        if (r == 0)
                r = child_run(&c, &res, e);
        if (r == 0 && (!WIFEXITED(res.status) || WEXITSTATUS(res.status) != 0))
                r = refused(&res, e);
        return r;
}
