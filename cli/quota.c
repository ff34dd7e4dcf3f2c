/* The quota of a tenant, for strato apply and diff: "volumes limit=10 used=3", a line each. */
#include <string.h>

#include "cli/describe.h"
#include "cli/item.h"
#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/size.h"

enum { QUOTA_MAX = 16 << 10 };

/* The limit of a name, as the file has it; false when there is no such line. */
static bool limit_of(const char *text, const char *name, char out[32])
{
        size_t n = strlen(name);

        for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
                if (strncmp(p, name, n) == 0 && strncmp(p + n, " limit=", 7) == 0) {
                        snprintf(out, 32, "%.*s", (int)strcspn(p + n + 7, " \n"), p + n + 7);
                        return true;
                }
        return false;
}

static bool same(const char *x, const char *y)
{
        uint64_t a, b;

        return streq(x, y) || (size_parse(x, strlen(x), &a, NULL) == 0 &&
                               size_parse(y, strlen(y), &b, NULL) == 0 && a == b);
}

int quota_apply(const char *tenant, const json_t *want, bool dry, unsigned *changes, struct err **e)
{
        _cleanup_free_ char *file = path_printf("%s/quota", tenant), *text = NULL;
        const char *name;
        json_t *v;
        int r;

        if (!file)
                return -ENOMEM;
        /* A tenant that diff would make has none yet. */
        if (json_object_size(want) && (r = file_read(file, QUOTA_MAX, &text, NULL, e)) < 0 &&
            !(dry && r == -ENOENT))
                return r;
        json_object_foreach ((json_t *)want, name, v) {
                _cleanup_free_ char *line = NULL;
                char limit[32], now[32] = "max";

                if (json_is_integer(v))
                        snprintf(limit, sizeof(limit), "%" JSON_INTEGER_FORMAT,
                                 json_integer_value(v));
                else
                        snprintf(limit, sizeof(limit), "%s", json_string_value(v) ?: "");
                if (text && !limit_of(text, name, now))
                        return err_set(e, -EINVAL, "quota: there is none of '%s'", name);
                if (same(limit, now))
                        continue;
                line = path_printf("%s limit=%s\n", name, limit);
                r = dry ? 0 : !line ? -ENOMEM : tree_write(file, line, NULL);
                if (r < 0)
                        return err_prepend(e, cloud_words(file, r, e), "quota");
                printf("~ quota %s: %s -> %s\n", name, now, limit);
                ++*changes;
        }
        return 0;
}
