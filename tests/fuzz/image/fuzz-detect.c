/* image_detect() on a buffer: must end, and must not read outside it. */
#include <inttypes.h>
#include "backend/image/detect.h"

struct memory {
        const uint8_t *p;
        size_t n;
};

static int memory_read(void *arg, void *p, size_t n, uint64_t off)
{
        const struct memory *m = arg;

        if (off > m->n || n > m->n - off)
                abort(); /* input.h promises reads inside the image only */
        memcpy(p, m->p + off, n);
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static const char *const hints[] = {NULL, "raw", "ami", "qcow2"};
        struct memory m = {p, n};
        struct image_input in = {.read = memory_read, .arg = &m, .size = n};

        for (size_t i = 0; i < ARRAY_SIZE(hints); i++) {
                _cleanup_err_ struct err *e = NULL;
                struct image_header h = {};
                int r = image_detect(&in, hints[i], 0, &h, &e);

                if (r == 0 ? h.format == IMAGE_UNKNOWN : (!e || strchr(err_msg(e), '\n')))
                        abort();
        }
        return 0;
}
