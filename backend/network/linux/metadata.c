/* The metadata service of a network: stratofs-metadata, and the files it answers from. */
#include "backend/network/linux/linux.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/child.h"
#include "common/fileio.h"

enum { PASSWORD_MAX = 4096 };
static const struct server server = {"metadata", "stratofs-metadata"};

void metadata_end(const char *dir)
{
        server_end(&server, dir);
}

/* A file: the port's address, or that of its link. */
struct served {
        char name[ADDRESS6_TEXT_SIZE];
        const struct net_port *port;
};
struct list {
        struct served *v; /* by name */
        size_t n;
};

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct served *)a)->name, ((const struct served *)b)->name);
}

/* Frees with l->v. */
static int list(const struct net_network *n, struct list *l)
{
        struct in6_addr link;

        *l = (struct list){.v = calloc(2 * n->nports + 1, sizeof(*l->v))};
        if (!l->v)
                return -ENOMEM;
        for (unsigned i = 0; i < n->nports; i++) {
                const struct net_port *p = &n->ports[i];

                if (p->documents && p->address) {
                        network_address(l->v[l->n].name, p->address);
                        l->v[l->n++].port = p;
                }
                if (p->documents && port_link6(p, &link)) {
                        network_address6(l->v[l->n].name, &link);
                        l->v[l->n++].port = p;
                }
        }
        qsort(l->v, l->n, sizeof(*l->v), by_name);
        return 0;
}

static const struct net_port *port_of(const struct list *l, const char *name)
{
        struct served key = {}, *found;

        if (strlen(name) >= sizeof(key.name))
                return NULL;
        memcpy(key.name, name, strlen(name));
        found = bsearch(&key, l->v, l->n, sizeof(key), by_name);
        return found ? found->port : NULL;
}

/* Files of ports that are gone, and what they had posted. */
static void sweep(const char *dir, const struct list *l)
{
        DIR *d = opendir(dir);

        for (struct dirent *x; d && (x = readdir(d));)
                if (x->d_type == DT_REG && x->d_name[0] != '.' && !port_of(l, x->d_name))
                        unlinkat(dirfd(d), x->d_name, 0);
        if (d)
                closedir(d);
}

static int documents(const char *meta, const char *posted, const struct net_network *n,
                     struct err **e)
{
        struct list l = {};
        int r = mkdir_parents(posted, 0700, e);

        if (r == 0 && (chown(meta, 0, n->uid) < 0 || chmod(meta, 0710) < 0 ||
                       chown(posted, n->uid, n->uid) < 0))
                r = err_errno(e, -errno, "'%s'", posted);
        if (r == 0 && list(n, &l) < 0)
                r = err_errno(e, -ENOMEM, "metadata");
        for (size_t i = 0; r >= 0 && i < l.n; i++) {
                const struct net_port *p = l.v[i].port;
                const struct buf text = {.data = (char *)p->documents, .len = p->ndocuments};

                r = server_put(meta, l.v[i].name, &text, n->uid, e);
        }
        if (r >= 0) {
                sweep(meta, &l);
                sweep(posted, &l);
        }
        free(l.v);
        return r < 0 ? r : 0;
}

int metadata_serve(const char *program, const char *dir, const struct net_network *n, int ns,
                   struct err **e)
{
        _cleanup_free_ char *meta = path_printf("%s/meta", dir);
        _cleanup_free_ char *posted = path_printf("%s/meta/posted", dir);
        char device[DEVICE_SIZE], uid[16];
        int r;

        if (!meta || !posted)
                return err_errno(e, -ENOMEM, "metadata");
        r = documents(meta, posted, n, e);
        if (r < 0)
                return r;
        if (server_pid(&server, dir, ns))
                return 0;
        server_end(&server, dir);
        network_device(device, NET_INNER, n->id);
        snprintf(uid, sizeof(uid), "%u", (unsigned)n->uid);
        return child_check(
                &(struct child){.argv = (const char *const[]){program, dir, device, uid, NULL},
                                .timeout_ms = 10000},
                e);
}

/* The service may have been taken over by a guest: what it wrote is a plain file, small, and text.
 */
static void collect(int dir, const char *name, const struct net_port *port,
                    int (*posted)(void *arg, const struct net_port *port, const char *text),
                    void *arg)
{
        _cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        char text[PASSWORD_MAX + 1];
        struct stat st;
        bool fits = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                    st.st_size <= PASSWORD_MAX && read_full(fd, text, st.st_size) == 0;

        if (fits)
                text[st.st_size] = '\0';
        if (!fits || posted(arg, port, text))
                unlinkat(dir, name, 0);
}

void metadata_passwords(const char *dir, const struct net_network *n,
                        int (*posted)(void *arg, const struct net_port *port, const char *text),
                        void *arg)
{
        _cleanup_free_ char *path = path_printf("%s/meta/posted", dir);
        DIR *d = path ? opendir(path) : NULL;
        struct list l = {};

        if (d && list(n, &l) == 0)
                for (struct dirent *x; (x = readdir(d));) {
                        const struct net_port *port = port_of(&l, x->d_name);

                        if (port)
                                collect(dirfd(d), x->d_name, port, posted, arg);
                }
        free(l.v);
        if (d)
                closedir(d);
}
