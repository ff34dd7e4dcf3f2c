/* What the host has of networks, beside what the tree has. */
#include "cli/fsck-network.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tree.h"
#include "common/fileio.h"
#include "common/name.h"

enum { DIGITS = 12, ALIAS_MAX = 256 };

/* The first digits of the ids of networks and ports; those of a device's name. */
struct known {
        char (*v)[DIGITS + 1];
        size_t n;
        const struct cloud *c;
        const char *tenant;
};

static void digits(char out[DIGITS + 1], const char *id)
{
        size_t n = 0;

        for (; *id && n < DIGITS; id++)
                if (*id != '-')
                        out[n++] = *id;
        out[n] = '\0';
}

static int know(void *arg, const struct row *row)
{
        struct known *k = arg;
        void *v = reallocarray(k->v, k->n + 1, sizeof(*k->v));

        if (!v)
                return -ENOMEM;
        k->v = v;
        digits(k->v[k->n++], row->id);
        return 0;
}

static int know_network(void *arg, const struct row *row)
{
        struct known *k = arg;
        _cleanup_free_ char *ports = path_printf("networks/%s/ports", row->name);
        int r = ports ? know(arg, row) : -ENOMEM;

        return r < 0 ? r : tree_each(k->c, k->tenant, ports, know, k, NULL);
}

static char *line(const char *path)
{
        char *text = NULL;

        if (file_read(path, ALIAS_MAX, &text, NULL, NULL) == 0)
                text[strcspn(text, "\n")] = '\0';
        return text;
}

static bool is_known(const struct known *k, const char *device)
{
        for (size_t i = 0; i < k->n; i++)
                if (strcmp(k->v[i], device + 3) == 0)
                        return true;
        return false;
}

static void look(const struct known *k, const char *owner, bool guests,
                 void (*orphan)(void *arg, const char *what, const char *name), void *arg)
{
        DIR *d = opendir("/sys/class/net");

        for (struct dirent *x; d && (x = readdir(d));) {
                _cleanup_free_ char *path = NULL, *alias = NULL;

                if (strncmp(x->d_name, "sn", 2) != 0 || strlen(x->d_name) != DIGITS + 3)
                        continue;
                path = path_printf("/sys/class/net/%s/ifalias", x->d_name);
                alias = path ? line(path) : NULL;
                if (alias && strcmp(alias, owner) == 0 && (!guests || !is_known(k, x->d_name)))
                        orphan(arg, "network device without a guest:", x->d_name);
        }
        if (d)
                closedir(d);
}

int fsck_network(const struct cloud *c, bool guests,
                 void (*orphan)(void *arg, const char *what, const char *name), void *arg,
                 struct err **e)
{
        _cleanup_free_ char *mark = path_printf("%s/net/owner", c->run);
        _cleanup_free_ char *owner = mark ? line(mark) : NULL;
        _cleanup_(tenants_free) char **tenants = NULL;
        struct known k = {.c = c};
        int r;

        if (!owner) /* it never had any, or none is left */
                return 0;
        r = tree_tenants(c, &tenants, e);
        for (char **t = tenants; r == 0 && *t; t++) {
                k.tenant = *t;
                r = tree_each(c, *t, "networks", know_network, &k, e);
        }
        if (r == 0)
                look(&k, owner, guests, orphan, arg);
        free(k.v);
        return r;
}
