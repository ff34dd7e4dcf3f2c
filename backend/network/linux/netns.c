/* Network namespaces as files, and threads that visit them. */
#include "backend/network/linux/linux.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "common/fileio.h"

enum { SYSCTL_PATH = 128 };
static const char own[] = "/proc/thread-self/ns/net";

static int existing(const char *path)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct statfs st;

        if (fd < 0 || fstatfs(fd, &st) < 0 || st.f_type != NSFS_MAGIC)
                return -1;
        return TAKE_FD(fd);
}

int netns_open(const char *path, struct err **e)
{
        _cleanup_close_ int file = -1;
        int fd = existing(path), home = -1, r = 0;

        if (fd >= 0)
                return fd;
        file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file < 0)
                return err_errno(e, -errno, "'%s'", path);
        home = open(own, O_RDONLY | O_CLOEXEC);
        if (home < 0 || unshare(CLONE_NEWNET) < 0) {
                r = err_errno(e, -errno, "make a network namespace");
                cleanup_close_(&home);
                return r;
        }
        if (mount(own, path, NULL, MS_BIND, NULL) < 0)
                r = err_errno(e, -errno, "keep a network namespace at '%s'", path);
        netns_leave(home);
        if (r < 0)
                return r;
        fd = existing(path);
        return fd < 0 ? err_errno(e, -EIO, "'%s'", path) : fd;
}

int netns_enter(int fd, int *ret_home, struct err **e)
{
        int home = open(own, O_RDONLY | O_CLOEXEC);

        if (home < 0 || setns(fd, CLONE_NEWNET) < 0) {
                int r = err_errno(e, -errno, "enter a network namespace");

                cleanup_close_(&home);
                return r;
        }
        *ret_home = home;
        return 0;
}

void netns_leave(int home)
{
        if (setns(home, CLONE_NEWNET) < 0) /* this thread would work on in the wrong one */
                abort();
        close(home);
}

void netns_remove(const char *path)
{
        umount2(path, MNT_DETACH);
        unlink(path);
}

int netns_set(const char *name, const char *device, const char *value, struct err **e)
{
        char path[SYSCTL_PATH];
        _cleanup_close_ int fd = -1;
        size_t n = snprintf(path, sizeof(path), "/proc/sys/net/");

        for (const char *p = name; *p && n < sizeof(path) - DEVICE_SIZE; p++)
                n += *p == '%' ? snprintf(path + n, DEVICE_SIZE, "%s", device)
                               : snprintf(path + n, 2, "%c", *p);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write_full(fd, value, strlen(value)) < 0)
                return err_errno(e, -errno, "'%s'", path);
        return 0;
}
