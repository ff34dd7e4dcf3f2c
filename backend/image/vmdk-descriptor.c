#include "backend/image/vmdk.h"

#include <ctype.h>
#include <strings.h>
#include "backend/image/input.h"

struct descriptor {
        bool typed;
        unsigned extents;
};

/* The value of "key = value" if the line has that key: without quotes and spaces around it. */
static const char *value_of(char *line, const char *key)
{
        size_t n = strlen(key);
        char *p = line, *end;

        if (strncasecmp(p, key, n) != 0)
                return NULL;
        for (p += n; *p == ' ' || *p == '\t'; p++)
                ;
        if (*p != '=')
                return NULL;
        for (p++; *p == ' ' || *p == '\t' || *p == '"'; p++)
                ;
        for (end = p + strlen(p); end > p && (isspace((unsigned char)end[-1]) || end[-1] == '"');)
                *--end = '\0';
        return p;
}

static int type_check(struct descriptor *d, const char *type, struct err **e)
{
        char text[INPUT_TEXT_SIZE];

        d->typed = true;
        if (strcasecmp(type, "monolithicSparse") == 0 || strcasecmp(type, "streamOptimized") == 0)
                return 0;
        return err_set(e, -EINVAL,
                       "VMDK type '%s' is not offered: only monolithicSparse and streamOptimized "
                       "are whole",
                       input_text(text, type, strlen(type)));
}

/* ACCESS SECTORS TYPE "FILE" [OFFSET] */
static int extent_check(struct descriptor *d, const char *line, struct err **e)
{
        char type[32] = "", text[INPUT_TEXT_SIZE];
        const char *name = strchr(line, '"'), *end = name ? strchr(name + 1, '"') : NULL;
        size_t n = end ? (size_t)(end - name - 1) : 0;

        if (sscanf(line, "%*31s %*31s %31s", type) != 1 || strcasecmp(type, "SPARSE") != 0)
                return err_set(e, -EINVAL,
                               "image has a VMDK extent '%s': refused, an image must be whole",
                               input_text(text, line, strlen(line)));
        if (++d->extents > 1)
                return err_set(e, -EINVAL,
                               "image has more than one VMDK extent ('%s'): refused, an image must "
                               "be whole",
                               input_text(text, name ? name + 1 : line, name ? n : 0));
        if (n && (memchr(name + 1, '/', n) || memchr(name + 1, '\\', n)))
                return err_set(
                        e, -EINVAL,
                        "image names a VMDK extent elsewhere '%s': refused, an image must be "
                        "whole",
                        input_text(text, name + 1, n));
        return 0;
}

static bool is_extent(const char *line)
{
        static const char *const access[] = {"RW ",  "RDONLY ",  "NOACCESS ",
                                             "RW\t", "RDONLY\t", "NOACCESS\t"};

        for (size_t i = 0; i < ARRAY_SIZE(access); i++)
                if (strncasecmp(line, access[i], strlen(access[i])) == 0)
                        return true;
        return false;
}

static int line_check(struct descriptor *d, char *line, struct err **e)
{
        char text[INPUT_TEXT_SIZE];
        const char *v;

        while (isspace((unsigned char)*line))
                line++;
        v = value_of(line, "parentFileNameHint");
        if (v)
                return err_set(e, -EINVAL,
                               "image names a parent '%s': refused, an image must be whole",
                               input_text(text, v, strlen(v)));
        v = value_of(line, "parentCID");
        if (v && strcasecmp(v, "ffffffff") != 0)
                return err_set(
                        e, -EINVAL,
                        "image names a parent (parentCID %s): refused, an image must be whole",
                        input_text(text, v, strlen(v)));
        v = value_of(line, "createType");
        if (v)
                return type_check(d, v, e);
        return is_extent(line) ? extent_check(d, line, e) : 0;
}

int vmdk_descriptor_check(char *text, struct err **e)
{
        struct descriptor d = {};
        char *save = NULL;

        for (char *l = strtok_r(text, "\r\n", &save); l; l = strtok_r(NULL, "\r\n", &save)) {
                int r = line_check(&d, l, e);

                if (r < 0)
                        return r;
        }
        if (!d.typed)
                return err_set(e, -EINVAL, "VMDK descriptor has no createType");
        if (d.extents != 1)
                return err_set(e, -EINVAL, "VMDK descriptor has no extent");
        return 0;
}
