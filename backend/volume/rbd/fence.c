/* Who we are to Ceph is written down: <state>/ceph/<instance>, the connection's address. */
#include "backend/volume/rbd/rbd.h"

#include <dirent.h>

#include "common/fileio.h"
#include "common/log.h"

enum { ADDRESS_MAX = 512, FENCED_S = 3600 };

static char *folder(const char *state)
{
        return path_printf("%s/ceph", state);
}

/* Its watches end with it, so its locks can be broken at once. */
static int fence_one(struct pool *p, const char *path, struct err **e)
{
        _cleanup_free_ char *address = NULL;
        int r = file_read(path, ADDRESS_MAX, &address, NULL, e);

        if (r < 0)
                return r;
        /* The monitors take anything for an address. */
        if (!strchr(address, ':') || !strchr(address, '/'))
                return unlink(path) < 0 ? err_errno(e, -errno, "remove '%s'", path) : 0;
        r = rados_blocklist_add(p->cluster, address, FENCED_S);
        if (r < 0)
                return err_errno(e, r, "bar Ceph client %s, a predecessor", address);
        log_info("predecessor %s is barred from the Ceph cluster", address);
        return unlink(path) < 0 ? err_errno(e, -errno, "remove '%s'", path) : 0;
}

static bool same_address(const char *path, const char *address)
{
        _cleanup_free_ char *text = NULL;

        return file_read(path, ADDRESS_MAX, &text, NULL, NULL) == 0 && streq(text, address);
}

bool fence_is_ours(struct pool *p, const char *state)
{
        _cleanup_free_ char *dir = folder(state);
        DIR *d = dir ? opendir(dir) : NULL;
        char *address = NULL;
        struct dirent *de;
        bool found = false;

        if (!d)
                return false;
        while (rados_getaddrs(p->cluster, &address) == 0 && !found && (de = readdir(d))) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, de->d_name);

                found = path && same_address(path, address);
                rados_buffer_free(TAKE_PTR(address));
        }
        if (address)
                rados_buffer_free(address);
        closedir(d);
        return found;
}

int fence_predecessors(struct pool *p, const char *state, struct err **e)
{
        _cleanup_free_ char *dir = folder(state);
        struct dirent *de;
        DIR *d = dir ? opendir(dir) : NULL;
        int r = 0;

        if (!d)
                return dir && errno == ENOENT ? 0 : err_errno(e, dir ? -errno : -ENOMEM, "fence");
        while (r == 0 && (de = readdir(d))) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, de->d_name);

                if (de->d_name[0] != '.')
                        r = path ? fence_one(p, path, e) : err_errno(e, -ENOMEM, "fence");
        }
        closedir(d);
        return r;
}

int fence_enter(struct pool *p, const char *state, struct err **e)
{
        _cleanup_free_ char *dir = folder(state);
        char *address = NULL;
        int r = dir ? mkdir_parents(dir, 0700, e) : err_errno(e, -ENOMEM, "fence");

        if (r < 0)
                return r;
        r = rados_getaddrs(p->cluster, &address);
        if (r < 0)
                return err_errno(e, r, "our address in the Ceph cluster");
        p->fence =
                path_printf("%s/%llu", dir, (unsigned long long)rados_get_instance_id(p->cluster));
        r = p->fence ? file_replace(p->fence, address, strlen(address), 0600, e)
                     : err_errno(e, -ENOMEM, "fence");
        rados_buffer_free(address);
        return r;
}

void fence_leave(struct pool *p)
{
        if (p->fence)
                unlink(p->fence);
        free(TAKE_PTR(p->fence));
}
