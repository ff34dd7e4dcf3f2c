#include "common/bundle.h"

enum { DIGITS_MAX = 9 };

void bundle_add(struct buf *b, const char *name, const void *data, size_t n)
{
        buf_printf(b, "%s %zu\n", name, n);
        buf_add(b, data, n);
        buf_addc(b, '\n');
}

bool bundle_next(const char **p, const char *end, struct bundle_item *ret)
{
        const char *s = *p, *blank = memchr(s, ' ', end - s), *d;
        size_t n = 0;

        if (!blank || blank == s || memchr(s, '\n', blank - s))
                return false;
        for (d = blank + 1; d < end && d - blank <= DIGITS_MAX && *d >= '0' && *d <= '9'; d++)
                n = n * 10 + (*d - '0');
        if (d == blank + 1 || d == end || *d++ != '\n' || (size_t)(end - d) <= n || d[n] != '\n')
                return false;
        *ret = (struct bundle_item){.name = s, .name_len = blank - s, .data = d, .len = n};
        *p = d + n + 1;
        return true;
}

bool bundle_find(const char *text, size_t n, const char *name, struct bundle_item *ret)
{
        const char *p = text;
        size_t len = strlen(name);

        while (bundle_next(&p, text + n, ret))
                if (ret->name_len == len && memcmp(ret->name, name, len) == 0)
                        return true;
        return false;
}
