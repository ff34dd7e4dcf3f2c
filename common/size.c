#include "common/size.h"

#include <ctype.h>
#include <inttypes.h>

static int unit_shift(char c)
{
        static const char units[] = "KMGTP";
        const char *p = c ? strchr(units, toupper((unsigned char)c)) : NULL;

        return p ? (int)(p - units + 1) * 10 : -1;
}

int size_parse(const char *text, size_t n, uint64_t *ret, struct err **e)
{
        uint64_t v = 0;
        size_t i = 0;
        int shift = 0;

        if (n == 0)
                return err_at(e, -EINVAL, text, n, 0, 0, "a size is missing");
        for (; i < n && isdigit((unsigned char)text[i]); i++) {
                if (v > (uint64_t)(INT64_MAX - (text[i] - '0')) / 10)
                        return err_at(e, -EINVAL, text, n, 0, n, "size is too large");
                v = v * 10 + (text[i] - '0');
        }
        if (i == 0)
                return err_at(e, -EINVAL, text, n, 0, n, "not a size: it starts with no digit");
        if (i < n) {
                shift = unit_shift(text[i]);
                if (shift < 0 || i + 1 < n)
                        return err_at(e, -EINVAL, text, n, i, n - i,
                                      "not a size: after the number only one of K M G T P");
        }
        if (shift && v > (uint64_t)INT64_MAX >> shift)
                return err_at(e, -EINVAL, text, n, 0, n, "size is too large");
        *ret = v << shift;
        return 0;
}

char *size_human(char out[SIZE_TEXT_MAX], uint64_t bytes)
{
        static const char units[] = "\0KMGTPE";
        int u = 0;
        uint64_t whole = bytes, rest = 0;

        while (whole >= 1024 && u < 6) {
                rest = whole % 1024;
                whole /= 1024;
                u++;
        }
        if (u && rest * 10 / 1024)
                snprintf(out, SIZE_TEXT_MAX, "%" PRIu64 ".%d%c", whole, (int)(rest * 10 / 1024),
                         units[u]);
        else
                snprintf(out, SIZE_TEXT_MAX, u ? "%" PRIu64 "%c" : "%" PRIu64, whole, units[u]);
        return out;
}
