#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/doctor.h"
#include "common/fileio.h"
#include "common/macro.h"

/* As root: mount(2) itself.  Nobody answers the mount, so only its root may be touched, and the
 * descriptor's end takes it away. */
static int mount_as_root(const char *dir, struct err **e)
{
        _cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        char options[128];

        if (fd < 0) {
                int r = err_errno(e, -errno, "open /dev/fuse");

                return err_hint(e, r, "modprobe fuse; in a container: --device /dev/fuse");
        }
        snprintf(options, sizeof(options),
                 "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", fd);
        if (mount("stratofs-doctor", dir, "fuse.stratofs", MS_NOSUID | MS_NODEV, options) < 0) {
                int r = err_errno(e, -errno, "mount a FUSE file system");

                return err_hint(e, r, "in a container: --cap-add SYS_ADMIN");
        }
        if (umount2(dir, MNT_DETACH) < 0)
                return err_errno(e, -errno, "unmount it again");
        return 0;
}

/* Runs fusermount3; a mount comes back as a descriptor over a socket.  The exit status. */
static int fusermount(const char *dir, bool mounting, int *ret_fd)
{
        char control[CMSG_SPACE(sizeof(int))] = {}, number[16], byte;
        struct iovec iov = {&byte, 1};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        struct cmsghdr *cmsg;
        int pair[2], status;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return 1;
        pid = fork();
        if (pid == 0) {
                fcntl(pair[1], F_SETFD, 0);
                snprintf(number, sizeof(number), "%d", pair[1]);
                setenv("_FUSE_COMMFD", number, 1);
                if (mounting)
                        execlp("fusermount3", "fusermount3", "-o", "default_permissions", "--", dir,
                               NULL);
                else
                        execlp("fusermount3", "fusermount3", "-uz", "--", dir, NULL);
                _exit(127);
        }
        close(pair[1]);
        if (pid > 0 && mounting && recvmsg(pair[0], &msg, MSG_CMSG_CLOEXEC) > 0) {
                cmsg = CMSG_FIRSTHDR(&msg);
                if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
                        memcpy(ret_fd, CMSG_DATA(cmsg), sizeof(int));
        }
        close(pair[0]);
        if (pid < 0 || waitpid(pid, &status, 0) < 0)
                return 1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int mount_as_user(const char *dir, struct err **e)
{
        _cleanup_close_ int fd = -1;
        int status = fusermount(dir, true, &fd);

        if (status == 127) {
                err_set(e, -ENOENT, "fusermount3 is missing");
                return err_hint(e, -ENOENT, "apt-get install fuse3");
        }
        if (status != 0 || fd < 0)
                return err_set(e, -EPERM, "fusermount3 refused, status %d", status);
        if (fusermount(dir, false, &fd) != 0)
                return err_set(e, -EIO, "fusermount3 does not unmount");
        return 0;
}

enum verdict check_mount(const struct cloud *c _unused_, struct finding *f)
{
        _cleanup_err_ struct err *err = NULL;
        char dir[] = "/tmp/strato-doctor.XXXXXX";
        int r;

        if (!mkdtemp(dir)) {
                buf_printf(&f->words, "no folder in /tmp: %m");
                return CHECK_FAIL;
        }
        r = geteuid() == 0 ? mount_as_root(dir, &err) : mount_as_user(dir, &err);
        rmdir(dir);
        if (r < 0) {
                buf_addstr(&f->words, err_msg(err));
                if (err && err->hint)
                        buf_addstr(&f->hint, err->hint);
                return CHECK_FAIL;
        }
        buf_addstr(&f->words, geteuid() == 0 ? "a FUSE file system mounts, for all users"
                                             : "a FUSE file system mounts, for you alone");
        return CHECK_OK;
}
