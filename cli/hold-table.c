#include "cli/hold-table.h"

#include <sys/stat.h>

#include "common/log.h"

enum {
        HELD_MAX = 8192,
        NAMES_MAX = 100 << 10, /* of all names: one environment string holds 128 KiB */
        NAME_LEN_MAX = 255,
};

static bool same_file(int a, int b)
{
        struct stat x, y;

        return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
               x.st_ino == y.st_ino;
}

bool hold_name_good(const char *name)
{
        size_t n = strlen(name);

        for (const char *p = name; *p; p++)
                if (*p <= ' ' || *p > '~' || *p == ':')
                        return false;
        return n > 0 && n <= NAME_LEN_MAX;
}

void hold_store(struct hold_table *t, const char *name, int fd)
{
        char *copy;

        for (unsigned i = 0; i < t->n; i++)
                if (streq(t->held[i].name, name) && same_file(t->held[i].fd, fd)) {
                        close(fd);
                        return;
                }
        if (t->n == t->room && t->room < HELD_MAX) {
                unsigned room = t->room ? 2 * t->room : 16;
                struct held_fd *p = realloc(t->held, room * sizeof(*p));

                if (p) {
                        t->held = p;
                        t->room = room;
                }
        }
        copy = t->n < t->room && t->names + strlen(name) + 1 <= NAMES_MAX ? strdup(name) : NULL;
        if (!copy) {
                log_error("no room to hold '%s'", name);
                close(fd);
                return;
        }
        t->held[t->n++] = (struct held_fd){.fd = fd, .name = copy};
        t->names += strlen(name) + 1;
}

void hold_drop(struct hold_table *t, const char *name)
{
        unsigned k = 0;

        for (unsigned i = 0; i < t->n; i++) {
                if (!streq(t->held[i].name, name)) {
                        t->held[k++] = t->held[i];
                        continue;
                }
                t->names -= strlen(name) + 1;
                close(t->held[i].fd);
                free(t->held[i].name);
        }
        t->n = k;
}

void hold_done(struct hold_table *t)
{
        for (unsigned i = 0; i < t->n; i++) {
                close(t->held[i].fd);
                free(t->held[i].name);
        }
        free(t->held);
        *t = (struct hold_table){};
}
