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

static const struct net_port *port_of(const struct net_network *n, const char *address)
{
        char a[ADDRESS_TEXT_SIZE];

        for (unsigned i = 0; i < n->nports; i++)
                if (n->ports[i].documents && n->ports[i].address &&
                    streq(network_address(a, n->ports[i].address), address))
                        return &n->ports[i];
        return NULL;
}

/* Files of ports that are gone, and what they had posted. */
static void sweep(const char *dir, const struct net_network *n)
{
        DIR *d = opendir(dir);

        for (struct dirent *x; d && (x = readdir(d));)
                if (x->d_type == DT_REG && x->d_name[0] != '.' && !port_of(n, x->d_name))
                        unlinkat(dirfd(d), x->d_name, 0);
        if (d)
                closedir(d);
}

static int documents(const char *meta, const char *posted, const struct net_network *n,
                     struct err **e)
{
        char a[ADDRESS_TEXT_SIZE];
        int r = mkdir_parents(posted, 0700, e);

        if (r == 0 && (chown(meta, 0, n->uid) < 0 || chmod(meta, 0710) < 0 ||
                       chown(posted, n->uid, n->uid) < 0))
                r = err_errno(e, -errno, "'%s'", posted);
        for (unsigned i = 0; r >= 0 && i < n->nports; i++) {
                const struct net_port *p = &n->ports[i];
                const struct buf text = {.data = (char *)p->documents, .len = p->ndocuments};

                if (p->documents && p->address)
                        r = server_put(meta, network_address(a, p->address), &text, n->uid, e);
        }
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
        sweep(meta, n);
        sweep(posted, n);
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

        for (struct dirent *x; d && (x = readdir(d));) {
                const struct net_port *port = port_of(n, x->d_name);

                if (port)
                        collect(dirfd(d), x->d_name, port, posted, arg);
        }
        if (d)
                closedir(d);
}
