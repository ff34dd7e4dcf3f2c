/* The blocklist of the Ceph cluster.  One connection a fencing: they are rare, and one that was
 * itself fenced meanwhile would be of no use. */
#include "backend/fence/fence.h"

#include <dirent.h>
#include <fcntl.h>
#include <rados/librados.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/fileio.h"
#include "common/log.h"

enum {
        ADDRESS_MAX = 512, /* bytes of one */
        CLIENTS_MAX = 64,
        FENCED_S = 365 * 86400, /* what was cut off for longer has waited all that time to write */
        TIMEOUT_S = 10,
};

struct ceph_fence {
        struct host_fence fence;
        char *conf, *user, *dir;
        unsigned timeout;
};

/* As "127.0.0.1:0/1234" or "v2:127.0.0.1:0/1234": the monitors take anything for an address. */
static bool is_address(const char *text)
{
        return strchr(text, ':') && strchr(text, '/') &&
               text[strspn(text, "0123456789abcdefv.:/[]")] == '\0';
}

static int add_address(const char *dir, const char *name, struct buf *out)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);
        char text[ADDRESS_MAX + 1] = "";
        _cleanup_close_ int fd = -1;
        struct stat st;

        if (!path)
                return -ENOMEM;
        /* blockd's user has that folder: nothing in it leads root elsewhere, or makes it wait. */
        fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return errno == ENOENT ? 0 : -errno; /* its connection has just ended */
        if (!S_ISREG(st.st_mode) || read(fd, text, ADDRESS_MAX) < 0)
                return -EPERM;
        text[strcspn(text, "\n")] = '\0';
        if (is_address(text))
                buf_printf(out, "%s%s", out->len ? " " : "", text);
        return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

/* In an order of their own, so that what has not changed is not written anew. */
static int each_name(const char *dir, int (*each)(void *arg, const char *dir, const char *name),
                     void *arg)
{
        struct dirent **v = NULL;
        int n = scandir(dir, &v, NULL, by_name), r = n > CLIENTS_MAX ? -E2BIG : 0;

        if (n < 0)
                return errno == ENOENT ? 0 : -errno;
        for (int i = 0; i < n; i++) {
                if (r == 0 && v[i]->d_name[0] != '.')
                        r = each(arg, dir, v[i]->d_name);
                free(v[i]);
        }
        free(v);
        return r;
}

static int add_client(void *arg, const char *dir, const char *name)
{
        return add_address(dir, name, arg);
}

/* A pool that is not blockd's first has a folder of its own. */
static int add_pool(void *arg, const char *dir, const char *name)
{
        _cleanup_free_ char *path = path_printf("%s/%s/ceph", dir, name);

        return path ? each_name(path, add_client, arg) : -ENOMEM;
}

static int fence_clients(struct host_fence *fence, char **ret, struct err **e)
{
        struct ceph_fence *f = (struct ceph_fence *)fence;
        _cleanup_free_ char *own = path_printf("%s/ceph", f->dir),
                            *pools = path_printf("%s/pools", f->dir);
        _cleanup_buf_ struct buf out = {};
        int r = own && pools ? each_name(own, add_client, &out) : -ENOMEM;

        if (r == 0)
                r = each_name(pools, add_pool, &out);
        if (r < 0)
                return err_errno(e, r, "Ceph clients in '%s'", f->dir);
        *ret = buf_take(&out) ?: strdup("");
        return *ret ? 0 : err_errno(e, -ENOMEM, "clients");
}

static int connect_to(struct ceph_fence *f, rados_t *ret, struct err **e)
{
        char seconds[16];
        int r = rados_create2(ret, "ceph", f->user ?: "client.admin", 0);

        if (r < 0)
                return err_errno(e, r, "begin with librados");
        snprintf(seconds, sizeof(seconds), "%u", f->timeout);
        r = rados_conf_read_file(*ret, f->conf);
        if (r == 0) /* both before the connect, or nothing ends it */
                r = rados_conf_set(*ret, "client_mount_timeout", seconds);
        if (r == 0)
                r = rados_conf_set(*ret, "rados_mon_op_timeout", seconds);
        if (r == 0)
                r = rados_connect(*ret);
        if (r == 0)
                return 0;
        rados_shutdown(*ret);
        return err_errno(e, r, "connect to the Ceph cluster");
}

static int fence_host(struct host_fence *fence, const char *host, uint64_t epoch _unused_,
                      const char *clients, struct err **e)
{
        struct ceph_fence *f = (struct ceph_fence *)fence;
        _cleanup_free_ char *copy = strdup(clients);
        char *save = NULL;
        rados_t cluster;
        int r;

        if (!copy)
                return err_errno(e, -ENOMEM, "fence '%s'", host);
        if (!*copy) /* it has no volumes that others can open */
                return 0;
        r = connect_to(f, &cluster, e);
        if (r < 0)
                return r;
        for (char *a = strtok_r(copy, " ", &save); a && r == 0; a = strtok_r(NULL, " ", &save)) {
                r = is_address(a) ? rados_blocklist_add(cluster, a, FENCED_S) : -EINVAL;
                if (r < 0)
                        err_errno(e, r, "bar Ceph client '%s' of host '%s'", a, host);
                else
                        log_info("Ceph client %s of host '%s' is barred", a, host);
        }
        /* An OSD acts on it once it has the map that has it, which requests of who has that map
         * bring along: whoever opens a volume of a lost host waits for the newest one first. */
        if (r == 0)
                r = rados_wait_for_latest_osdmap(cluster);
        rados_shutdown(cluster);
        return r < 0 && (!e || !*e) ? err_errno(e, r, "fence '%s'", host) : r;
}

static void fence_close(struct host_fence *fence)
{
        struct ceph_fence *f = (struct ceph_fence *)fence;

        free(f->conf);
        free(f->user);
        free(f->dir);
        free(f);
}

fence_ceph_entry fence_ceph_module_open;

__attribute__((visibility("default"))) int
fence_ceph_module_open(const struct fence_ceph_config *cfg, struct host_fence **ret, struct err **e)
{
        static const struct host_fence_ops ops = {"ceph", fence_clients, fence_host, fence_close};
        struct ceph_fence *f = calloc(1, sizeof(*f));

        if (!f)
                return err_errno(e, -ENOMEM, "fence");
        f->fence.ops = &ops;
        f->conf = cfg->conf ? strdup(cfg->conf) : NULL;
        f->user = cfg->user ? strdup(cfg->user) : NULL;
        f->dir = strdup(cfg->state);
        f->timeout = cfg->timeout ?: TIMEOUT_S;
        if (!f->dir || (cfg->conf && !f->conf) || (cfg->user && !f->user)) {
                fence_close(&f->fence);
                return err_errno(e, -ENOMEM, "fence");
        }
        *ret = &f->fence;
        return 0;
}
