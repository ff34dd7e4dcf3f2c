/* strato complete WORD...: what could stand for the last word, a line each; for the shells'
 * completion.  Verbs and options are strato's own tables; those of the tree are read from the
 * mount: `ctl` lists the verbs that are legal now, `help` is made from the kinds.  Nothing: a file.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "common/fileio.h"
#include "common/macro.h"

enum { TEXT_LIMIT = 1 << 20 };

static void offer(const char *part, const char *word, size_t n, const char *tail)
{
        if (strncmp(part, word, MIN(strlen(part), n)) == 0 && strlen(part) <= n)
                printf("%.*s%s\n", (int)n, word, tail);
}

/* Calls each with the first word of every line of the file's section, and with the line.  Without a
 * section: of the whole file. */
static void lines_of(const char *file, const char *section,
                     void (*each)(const char *part, const char *line), const char *part)
{
        _cleanup_free_ char *text = NULL;
        bool in = !section;
        char *save = NULL;

        if (!file || file_read(file, TEXT_LIMIT, &text, NULL, NULL) < 0)
                return;
        for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
                if (section && *l != ' ')
                        in = strncmp(l, section, strlen(section)) == 0;
                else if (in)
                        each(part, l + strspn(l, " "));
        }
}

static void offer_first(const char *part, const char *line)
{
        offer(part, line, strcspn(line, " \n"), "");
}

/* "  size  write  bytes <size>": what may be written is a key. */
static void offer_key(const char *part, const char *line)
{
        size_t n = strcspn(line, " ");
        const char *kind = line + n + strspn(line + n, " ");

        if (strncmp(kind, "write", 5) == 0 || strncmp(kind, "one", 3) == 0)
                offer(part, line, n, "=");
        else if (strncmp(kind, "many", 4) == 0)
                offer(part, line, n, ".");
}

/* What a link may point at: the objects of each kind between the last <>. */
static void offer_targets(const char *collection, const char *part, const char *key,
                          const char *line)
{
        const char *from = strrchr(line, '<');

        for (from = from ? from + 1 : ""; *from && *from != '>'; from += strspn(from, " ")) {
                size_t n = strcspn(from, " >");
                _cleanup_free_ char *dir = path_printf("%s/../%.*ss", collection, (int)n, from);
                DIR *d = dir ? opendir(dir) : NULL;
                const struct dirent *x;

                while (d && (x = readdir(d))) {
                        char word[768];
                        int len;

                        if (x->d_type != DT_DIR || x->d_name[0] == '.')
                                continue;
                        len = snprintf(word, sizeof(word), "%s=%.*ss/%s", key, (int)n, from,
                                       x->d_name);
                        offer(part, word, MIN((size_t)len, sizeof(word) - 1), "");
                }
                if (d)
                        closedir(d);
                from += n;
        }
}

/* KEY=...: the value of a link. */
static void complete_value(const char *collection, const char *part)
{
        _cleanup_free_ char *help = path_printf("%s/help", collection), *text = NULL;
        _cleanup_free_ char *key = strndup(part, strcspn(part, "="));
        size_t n = key ? strcspn(key, ".") : 0;
        char *save = NULL;
        bool links = false;

        if (!n || !help || file_read(help, TEXT_LIMIT, &text, NULL, NULL) < 0)
                return;
        for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
                const char *name = l + strspn(l, " ");

                if (*l != ' ')
                        links = strncmp(l, "links", 5) == 0;
                else if (links && strncmp(name, key, n) == 0 && name[n] == ' ')
                        offer_targets(collection, part, key, l);
        }
}

/* The collection of the object at path: its folder. */
static char *help_beside(const char *path)
{
        size_t n = strlen(path);
        const char *slash;

        while (n > 1 && path[n - 1] == '/')
                n--;
        slash = memrchr(path, '/', n);
        return slash ? path_printf("%.*s/help", (int)(slash - path), path) : path_printf("help");
}

static void complete_options(const struct verb *v, const char *part)
{
        for (const char *p = v->options; *p; p += strspn(p, " ")) {
                size_t n = strcspn(p, " ");
                char option[64];

                snprintf(option, sizeof(option), "--%.*s", (int)n, p);
                offer(part, option, strlen(option), "");
                p += n;
        }
        offer(part, "--help", 6, "");
}

/* at: which word behind the verb it is, options not counted, from 0. */
static void complete_word(const struct verb *v, char **words, int at, const char *part)
{
        _cleanup_free_ char *file = NULL;

        if (streq(v->name, "wait") && at == 1) {
                file = help_beside(words[0]);
                lines_of(file, "states", offer_first, part);
                offer(part, "gone", 4, "");
                offer(part, "change", 6, "");
        } else if (streq(v->name, "ctl") && at == 1) {
                file = path_printf("%s/ctl", words[0]);
                lines_of(file, NULL, offer_first, part);
        } else if (streq(v->name, "new") && at > 1) {
                file = path_printf("%s/help", words[0]);
                if (strchr(part, '=')) {
                        complete_value(words[0], part);
                        return;
                }
                lines_of(file, "attributes", offer_key, part);
                lines_of(file, "links", offer_key, part);
                offer(part, "metadata", 8, ".");
        } else if (streq(v->name, "serve") && at == 0) {
                offer(part, "blockd", 6, "");
                offer(part, "stratod", 7, "");
        }
}

int complete(int argc, char **argv)
{
        const char *part = argc > 0 ? argv[argc - 1] : "";
        const struct verb *v = verbs;
        char *words[2] = {};
        int at = 0;

        if (argc <= 1) {
                for (; v->name; v++)
                        if (v->help)
                                offer(part, v->name, strlen(v->name), "");
                return STATUS_OK;
        }
        while (v->name && !streq(v->name, argv[0]))
                v++;
        if (!v->name)
                return STATUS_OK;
        for (int i = 1; i < argc - 1; i++)
                if (argv[i][0] != '-') {
                        if (at < 2)
                                words[at] = argv[i];
                        at++;
                }
        if (*part == '-')
                complete_options(v, part);
        else if (at == 0 || words[0])
                complete_word(v, words, at, part);
        return STATUS_OK;
}
