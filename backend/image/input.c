#include "backend/image/input.h"

#include <inttypes.h>

bool input_has(const struct image_input *in, uint64_t off, uint64_t n)
{
        return off <= in->size && n <= in->size - off;
}

int input_want(const struct image_input *in, uint64_t off, uint64_t n, const char *what,
               struct err **e)
{
        if (input_has(in, off, n))
                return 0;
        return err_set(e, -EINVAL,
                       "image is truncated: %s at byte %" PRIu64 " (%" PRIu64
                       " bytes) lies past the end of the file at %" PRIu64,
                       what, off, n, in->size);
}

int input_read(const struct image_input *in, void *p, size_t n, uint64_t off, const char *what,
               struct err **e)
{
        int r = input_want(in, off, n, what, e);

        if (r < 0)
                return r;
        r = in->read(in->arg, p, n, off);
        if (r < 0)
                return err_errno(e, r, "read %s", what);
        return 0;
}

int input_load(const struct image_input *in, uint8_t **ret, uint64_t n, uint64_t max, uint64_t off,
               const char *what, struct err **e)
{
        _cleanup_free_ uint8_t *p = NULL;
        int r = input_want(in, off, n, what, e);

        if (r < 0)
                return r;
        if (n > max)
                return err_set(e, -EINVAL,
                               "image is out of proportion: %s has %" PRIu64
                               " bytes (limit %" PRIu64 ")",
                               what, n, max);
        p = malloc(MAX(n, (uint64_t)1));
        if (!p)
                return err_errno(e, -ENOMEM, "read %s", what);
        r = input_read(in, p, n, off, what, e);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(p);
        return 0;
}

int input_peek(const struct image_input *in, void *p, size_t n, uint64_t off, struct err **e)
{
        uint64_t have = off < in->size ? MIN((uint64_t)n, in->size - off) : 0;

        memset((uint8_t *)p + have, 0, n - have);
        return have ? input_read(in, p, have, off, "image", e) : 0;
}

int input_size_check(const struct image_input *in, uint64_t virtual_size, struct err **e)
{
        if (virtual_size == 0)
                return err_set(e, -EINVAL, "image has a virtual size of 0");
        if (in->max_virtual && virtual_size > in->max_virtual)
                return err_set(e, -EINVAL,
                               "image has a virtual size of %" PRIu64
                               " bytes, more than the %" PRIu64 " allowed",
                               virtual_size, in->max_virtual);
        return 0;
}

static int by_value(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

bool input_has_twice(uint64_t *v, size_t n)
{
        qsort(v, n, sizeof(*v), by_value);
        for (size_t i = 1; i < n; i++)
                if (v[i] && v[i] == v[i - 1])
                        return true;
        return false;
}

char *input_text(char out[INPUT_TEXT_SIZE], const void *p, size_t n)
{
        const uint8_t *s = p;
        size_t len = 0;

        for (; len < n && s[len] && len < INPUT_TEXT_SIZE - 4; len++)
                out[len] = s[len] < 0x20 || s[len] > 0x7e || s[len] == '\'' ? '?' : (char)s[len];
        strcpy(out + len, len < n && s[len] ? "..." : "");
        return out;
}
