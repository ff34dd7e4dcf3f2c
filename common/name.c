#include "common/name.h"

#include <ctype.h>

static bool name_char(char c, bool first)
{
        return isascii(c) && (isalnum((unsigned char)c) || (!first && strchr("._-", c) && c));
}

int name_check(const char *name, size_t n, struct err **e)
{
        if (n == 0)
                return err_at(e, -EINVAL, name, n, 0, 0, "a name is missing");
        for (size_t i = 0; i < n; i++)
                if (!name_char(name[i], i == 0))
                        return err_at(e, -EINVAL, name, n, i, 1,
                                      "not a name: letters, digits, '.', '_' and '-', beginning "
                                      "with a letter or digit");
        if (n >= NAME_SIZE)
                return err_at(e, -ENAMETOOLONG, name, n, NAME_SIZE - 1, n - NAME_SIZE + 1,
                              "a name has at most %d characters", NAME_SIZE - 1);
        return 0;
}

bool name_valid(const char *name)
{
        return name_check(name, strlen(name), NULL) == 0;
}

char *id_text(char out[ID_TEXT_SIZE], sd_id128_t id)
{
        snprintf(out, ID_TEXT_SIZE, SD_ID128_UUID_FORMAT_STR, SD_ID128_FORMAT_VAL(id));
        return out;
}

int id_parse(const char *text, sd_id128_t *ret)
{
        if (strlen(text) != ID_TEXT_SIZE - 1 || sd_id128_from_string(text, ret) < 0)
                return -EINVAL;
        return 0;
}

sd_id128_t id_new(void)
{
        sd_id128_t id = SD_ID128_NULL;

        if (sd_id128_randomize(&id) < 0)
                abort(); /* no entropy: nothing made from here on could be told apart */
        return id;
}

/* Length of the UTF-8 sequence at p (n bytes left), 0 when there is none. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
        size_t len = p[0] < 0x80                   ? 1
                     : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                     : (p[0] & 0xf0) == 0xe0       ? 3
                     : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                                   : 0;

        if (len == 0 || len > n)
                return 0;
        for (size_t i = 1; i < len; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
            (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
                return 0; /* overlong, surrogate or past U+10FFFF */
        return len;
}

bool text_clean(const char *text, size_t n, bool lines)
{
        const unsigned char *p = (const unsigned char *)text;

        for (size_t i = 0; i < n;) {
                size_t len = utf8_len(p + i, n - i);

                if (len == 0 || p[i] == 0x7f)
                        return false;
                if (p[i] < 0x20 && p[i] != '\t' && !(lines && p[i] == '\n'))
                        return false;
                if (p[i] == 0xc2 && p[i + 1] < 0xa0) /* U+0080..9F: C1, for some terminals ESC */
                        return false;
                i += len;
        }
        return true;
}
