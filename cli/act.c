/* strato ctl and strato new: one write to `ctl` or `new`, with the words of a refusal, and with
 * completion by the shell. */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/item.h"
#include "common/buf.h"
#include "common/fileio.h"
#include "common/macro.h"

/* FILE of the folder at path, absolute, as cloud_words() needs it. */
static char *file_in(const char *path, const char *file, struct err **e)
{
        _cleanup_free_ char *whole = realpath(path, NULL);

        if (!whole) {
                err_errno(e, -errno, "'%s'", path);
                return NULL;
        }
        return path_printf("%s/%s", whole, file);
}

int verb_ctl(struct cloud *c, struct err **e)
{
        _cleanup_free_ char *file = file_in(c->words[0], "ctl", e);
        _cleanup_close_ int fd = -1;
        _cleanup_buf_ struct buf line = {};

        if (!file)
                return -ENOENT;
        for (int i = 1; i < c->nwords; i++)
                buf_printf(&line, "%s%s", i > 1 ? " " : "", c->words[i]);
        if (strchr(buf_str(&line), '\n'))
                return err_set(e, -EINVAL, "a verb is one line");
        buf_addc(&line, '\n');
        fd = open(file, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return err_errno(e, -errno, "'%s' is no object of a cloud", c->words[0]);
        if (line.failed || write(fd, line.data, line.len) < 0)
                return line.failed ? -ENOMEM : cloud_words(file, -errno, e);
        return STATUS_OK;
}

/* "size=10G", "volumes.vda=volumes/v" into doc. */
static int add_word(json_t *doc, const char *word, struct err **e)
{
        const char *eq = strchr(word, '='),
                   *dot = eq ? memchr(word, '.', (size_t)(eq - word)) : NULL;
        _cleanup_free_ char *key = NULL, *sub = NULL;
        json_t *into = doc;

        if (!eq || eq == word)
                return err_at(e, -EINVAL, word, strlen(word), 0, strlen(word), "not KEY=VALUE");
        key = strndup(word, (size_t)((dot ?: eq) - word));
        sub = dot ? strndup(dot + 1, (size_t)(eq - dot - 1)) : NULL;
        if (!key || (dot && !sub))
                return -ENOMEM;
        if (sub) {
                into = json_object_get(doc, key);
                if (!into)
                        json_object_set_new(doc, key, into = json_object());
        }
        if (json_object_set_new(into, sub ?: key, json_string(eq + 1)) < 0)
                return err_set(e, -EINVAL, "'%s': not UTF-8, or said twice", key);
        return 0;
}

int verb_new(struct cloud *c, struct err **e)
{
        _cleanup_free_ char *file = file_in(c->words[0], "new", e), *text = NULL;
        json_auto_t *doc = json_pack("{s:s}", "name", c->words[1]);
        _cleanup_close_ int fd = -1;
        char line[256];
        ssize_t n;
        int r;

        if (!file)
                return -ENOENT;
        for (int i = 2; i < c->nwords; i++) {
                r = add_word(doc, c->words[i], e);
                if (r < 0)
                        return r;
        }
        text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
        if (!text)
                return err_set(e, -EINVAL, "a name is UTF-8");
        fd = open(file, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return err_errno(e, -errno, "'%s' is no collection of a cloud", c->words[0]);
        if (write(fd, text, strlen(text)) < 0)
                return cloud_words(file, -errno, e);
        n = read(fd, line, sizeof(line));
        if (n > 0)
                fwrite(line, 1, (size_t)n, stdout);
        return STATUS_OK;
}
