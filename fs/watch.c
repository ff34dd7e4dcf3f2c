/* stratofs-watch MOUNT: makes inotify see what the cloud itself changes.
 *
 * The kernel tells watchers of a FUSE mount what processes do there, and a daemon that touched its
 * own mount could wait for itself.  This process does it for the daemon, by messages on descriptor
 * 0 (SOCK_SEQPACKET):
 *
 *     "?"    answered with the inode numbers (uint64_t) of the mount that anybody watches, as
 *            /proc has them; at most WATCHED_MAX
 *     PATH   below the mount: its time of modification is set to now, the access time is left.
 *            The kernel says IN_MODIFY to watchers of the file and of its directory; the daemon
 *            takes SETATTR of times as nothing.
 *
 * It ends with the daemon.  It keeps nothing open in the mount, and has no state. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/fileio.h"
#include "common/macro.h"
#include "fs/notice.h"

enum { PATH_ROOM = 4096, FDINFO_MAX = 1 << 20 };

struct scan {
        unsigned long device; /* as the kernel prints it */
        uint64_t inodes[WATCHED_MAX + 1];
        size_t n;
};

/* "inotify wd:1 ino:7000440 sdev:2a mask:..." */
static void scan_fdinfo(struct scan *s, int process, const char *fd)
{
        _cleanup_free_ char *path = path_printf("/proc/%d/fdinfo/%s", process, fd);
        _cleanup_free_ char *text = NULL;
        unsigned long inode, device;

        if (!path || file_read(path, FDINFO_MAX, &text, NULL, NULL) < 0)
                return;
        for (char *p = text; (p = strstr(p, "inotify wd:")) && s->n < WATCHED_MAX; p++)
                if (sscanf(p, "inotify wd:%*x ino:%lx sdev:%lx", &inode, &device) == 2 &&
                    device == s->device)
                        s->inodes[s->n++] = inode;
}

static void scan_process(struct scan *s, int process)
{
        _cleanup_free_ char *path = path_printf("/proc/%d/fd", process);
        DIR *dir = path ? opendir(path) : NULL;
        char link[64];
        ssize_t n;

        for (struct dirent *d; dir && (d = readdir(dir));) {
                n = readlinkat(dirfd(dir), d->d_name, link, sizeof(link) - 1);
                if (n < 0)
                        continue;
                link[n] = '\0';
                if (streq(link, "anon_inode:inotify"))
                        scan_fdinfo(s, process, d->d_name);
        }
        if (dir)
                closedir(dir);
}

static void answer(const char *mount)
{
        struct scan s = {};
        struct stat st;
        DIR *dir = opendir("/proc");

        if (stat(mount, &st) == 0)
                s.device = (unsigned long)major(st.st_dev) << 20 | minor(st.st_dev);
        for (struct dirent *d; s.device && dir && (d = readdir(dir));)
                if (d->d_name[0] >= '1' && d->d_name[0] <= '9')
                        scan_process(&s, atoi(d->d_name));
        if (dir)
                closedir(dir);
        s.inodes[s.n] = 0; /* a message is never empty: that would be the end */
        if (send(STDIN_FILENO, s.inodes, (s.n + 1) * sizeof(*s.inodes), MSG_NOSIGNAL) < 0)
                exit(1);
}

static void touch(const char *mount, const char *name)
{
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
        _cleanup_free_ char *path = path_printf("%s/%s", mount, name);

        /* What is gone meanwhile needs no word. */
        if (path && utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0)
                return;
}

int main(int argc, char **argv)
{
        char message[PATH_ROOM];
        ssize_t n;

        if (argc != 2) {
                fputs("usage: stratofs-watch MOUNT, by stratod\n", stderr);
                return 2;
        }
        signal(SIGINT, SIG_IGN); /* a terminal's is the daemon's */
        (void)setpriority(PRIO_PROCESS, 0, 10);
        while ((n = recv(STDIN_FILENO, message, sizeof(message) - 1, 0)) > 0) {
                message[n] = '\0';
                if (streq(message, "?"))
                        answer(argv[1]);
                else
                        touch(argv[1], message);
        }
        return n < 0;
}
