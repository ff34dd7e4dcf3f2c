#include "cli/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/fileio.h"
#include "common/macro.h"

enum { INDEX_MAX = 64 << 20, LINE_MAX_BYTES = 64 << 10 };

void tenants_free(char ***names)
{
        for (char **p = *names; p && *p; p++)
                free(*p);
        free(*names);
        *names = NULL;
}

int tree_tenants(const struct cloud *c, char ***ret, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/tenants", c->mount);
        _cleanup_(tenants_free) char **names = NULL;
        struct dirent **entries = NULL;
        int n, r = 0;

        if (!path)
                return -ENOMEM;
        n = scandir(path, &entries, NULL, alphasort);
        if (n < 0)
                return err_errno(e, -errno, "list '%s'", path);
        names = calloc(n + 1, sizeof(*names));
        for (int i = 0, k = 0; i < n; i++) {
                /* A collection has files of its own: new, help, index. */
                if (names && r == 0 && entries[i]->d_type == DT_DIR &&
                    entries[i]->d_name[0] != '.') {
                        names[k] = strdup(entries[i]->d_name);
                        r = names[k++] ? 0 : -ENOMEM;
                }
                free(entries[i]);
        }
        free(entries);
        if (!names || r < 0)
                return -ENOMEM;
        *ret = TAKE_PTR(names);
        return 0;
}

/* Cuts a line into a row; false when it is none. */
static bool row_parse(char *line, struct row *row)
{
        char *save = NULL;

        if (*line == '#')
                return false;
        row->name = strtok_r(line, " \t", &save);
        row->id = strtok_r(NULL, " \t", &save);
        row->state = strtok_r(NULL, " \t", &save);
        row->facts = save ? save + strspn(save, " \t") : "";
        return row->name && row->id && row->state;
}

int tree_each(const struct cloud *c, const char *tenant, const char *collection,
              int (*each)(void *arg, const struct row *row), void *arg, struct err **e)
{
        _cleanup_free_ char *path =
                tenant ? path_printf("%s/tenants/%s/%s/index", c->mount, tenant, collection)
                       : path_printf("%s/%s/index", c->mount, collection);
        _cleanup_free_ char *text = NULL;
        char *save = NULL;
        int r;

        if (!path)
                return -ENOMEM;
        r = file_read(path, INDEX_MAX, &text, NULL, e);
        if (r < 0)
                return r;
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                struct row row;

                if (!row_parse(line, &row))
                        continue;
                r = each(arg, &row);
                if (r < 0)
                        return r;
        }
        return 0;
}

const char *row_fact(const struct row *row, const char *key, char *out, size_t size)
{
        size_t n = strlen(key);

        *out = '\0';
        for (const char *p = row->facts; *p; p += strspn(p, " ")) {
                size_t len = strcspn(p, " ");

                if (len > n && p[n] == '=' && strncmp(p, key, n) == 0) {
                        snprintf(out, size, "%.*s", (int)(len - n - 1), p + n + 1);
                        break;
                }
                p += len;
        }
        return out;
}

bool state_has_guest(const char *state)
{
        static const char *const resting[] = {"draft", "stopped", "error"};

        for (size_t i = 0; i < ARRAY_SIZE(resting); i++)
                if (streq(state, resting[i]))
                        return false;
        return true;
}

int tree_write(const char *path, const char *text, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

        if (fd < 0)
                return err_errno(e, -errno, "open '%s'", path);
        if (write(fd, text, strlen(text)) < 0)
                return err_errno(e, -errno, "write '%s' to '%s'", text, path);
        return 0;
}

char *tree_line(const char *path)
{
        char *text = NULL;

        if (file_read(path, LINE_MAX_BYTES, &text, NULL, NULL) < 0)
                return NULL;
        text[strcspn(text, "\n")] = '\0';
        return text;
}
