#include "cli/mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/child.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "cli/proc.h"

enum { PROBE_MS = 5000, FUSE_MAGIC = 0x65735546 };

const char *mount_word(enum mount_state s)
{
        static const char *const words[] = {[MOUNT_NONE] = "not mounted",
                                            [MOUNT_OK] = "mounted",
                                            [MOUNT_STALE] = "stale",
                                            [MOUNT_HUNG] = "hung",
                                            [MOUNT_FOREIGN] = "another file system"};

        return words[s];
}

/* errno says that the daemon behind the mount is gone, or is just going: a request on its way then
 * is aborted. */
static bool daemon_gone(void)
{
        return errno == ENOTCONN || errno == ECONNABORTED;
}

/* The child's part. */
static enum mount_state look(const char *path)
{
        _cleanup_free_ char *version = path_printf("%s/version", path);
        struct statx stx;
        struct statfs fs;

        if (!version)
                return MOUNT_HUNG;
        if (statx(AT_FDCWD, path, AT_NO_AUTOMOUNT, STATX_TYPE, &stx) < 0)
                return daemon_gone() ? MOUNT_STALE : MOUNT_NONE;
        if (!(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
                return MOUNT_NONE;
        if (statfs(path, &fs) < 0)
                return daemon_gone() ? MOUNT_STALE : MOUNT_FOREIGN;
        if (fs.f_type != FUSE_MAGIC || access(version, R_OK) < 0)
                return daemon_gone() ? MOUNT_STALE : MOUNT_FOREIGN;
        return MOUNT_OK;
}

enum mount_state mount_probe(const char *path, int timeout_ms)
{
        _cleanup_close_ int pidfd = -1;
        struct pollfd p;
        siginfo_t si = {};
        pid_t pid;

        pid = fork();
        if (pid < 0)
                return MOUNT_HUNG;
        if (pid == 0)
                _exit(look(path));
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        p = (struct pollfd){.fd = pidfd, .events = POLLIN};
        if (pidfd >= 0 && poll(&p, 1, timeout_ms) == 0) {
                kill(pid, SIGKILL); /* it ends when the mount does; init reaps it */
                return MOUNT_HUNG;
        }
        if (waitid(P_PID, pid, &si, WEXITED) < 0 || si.si_code != CLD_EXITED ||
            si.si_status >= NMOUNT_STATES)
                return MOUNT_HUNG;
        return si.si_status;
}

/* fusermount3 unmounts for a plain user. */
static int user_detach(const char *path, bool lazy, struct err **e)
{
        const char *argv[] = {"fusermount3", lazy ? "-uz" : "-u", "--", path, NULL};
        struct child_result res = {};
        struct child c = {.argv = argv, .timeout_ms = 10000};
        int r;

        r = child_run(&c, &res, e);
        if (r == 0 && res.status != 0) {
                if (strstr(buf_str(&res.err), "busy"))
                        r = err_errno(e, -EBUSY, "unmount '%s'", path);
                else
                        r = err_set(e, -EIO, "unmount '%s': %.*s", path,
                                    (int)strcspn(buf_str(&res.err), "\n"), buf_str(&res.err));
        }
        child_result_done(&res);
        return r;
}

/* -EBUSY with the names of those who hold it. */
static int is_held(const char *path, struct err **e)
{
        _cleanup_buf_ struct buf who = {};

        if (proc_holders(path, &who) > 0) {
                err_set(e, -EBUSY, "'%s' is in use by %s", path, buf_str(&who));
                return err_hint(e, -EBUSY, "leave it there, or: strato down --force");
        }
        err_set(e, -EBUSY, "'%s' is in use", path);
        return err_hint(e, -EBUSY, "strato down --force unmounts it as soon as it is free");
}

int mount_detach(const char *path, bool lazy, struct err **e)
{
        _cleanup_err_ struct err *err = NULL;
        int r;

        if (geteuid() == 0) {
                int flags = UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0);

                r = umount2(path, flags) < 0 ? err_errno(&err, -errno, "unmount '%s'", path) : 0;
        } else {
                r = user_detach(path, lazy, &err);
        }
        if (r == -EBUSY)
                return is_held(path, e);
        return r < 0 ? err_move(e, TAKE_PTR(err)) : 0;
}

/* 1: nothing in it. */
static int is_empty(const char *path, struct err **e)
{
        DIR *d = opendir(path);
        const struct dirent *entry;

        if (!d)
                return err_errno(e, -errno, "mount point '%s'", path);
        while ((entry = readdir(d)))
                if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
                        break;
        closedir(d);
        return !entry;
}

int mount_prepare(const char *path, struct err **e)
{
        int r;

        switch (mount_probe(path, PROBE_MS)) {
        case MOUNT_NONE:
                break;
        case MOUNT_STALE:
                r = mount_detach(path, true, e);
                if (r < 0)
                        return err_prepend(e, r, "take away what a dead stratod left");
                break;
        case MOUNT_OK:
                err_set(e, -EBUSY, "another cloud is mounted on '%s'", path);
                return err_hint(e, -EBUSY,
                                "--mount DIR, or --state DIR of the cloud that is there");
        case MOUNT_HUNG:
                err_set(e, -ETIMEDOUT, "'%s' is mounted and does not answer", path);
                return err_hint(e, -ETIMEDOUT, "strato down --force");
        default:
                err_set(e, -EBUSY, "another file system is mounted on '%s'", path);
                return err_hint(e, -EBUSY, "--mount DIR");
        }
        r = mkdir_parents(path, 0755, e);
        if (r < 0)
                return r;
        r = is_empty(path, e);
        if (r == 0) {
                err_set(e, -ENOTEMPTY, "the mount point '%s' is not empty", path);
                return err_hint(e, -ENOTEMPTY, "--mount DIR");
        }
        return r < 0 ? r : 0;
}
