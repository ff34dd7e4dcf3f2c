/* The processes that serve a network: their files, and whether they run. */
#include "backend/network/linux/linux.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/fileio.h"

enum { TEXT_MAX = 8 << 20, END_US = 2000000, COMM_SIZE = 16 };

int server_put(const char *dir, const char *name, const struct buf *text, gid_t gid, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name), *old = NULL;
        _cleanup_free_ char *temp = path_printf("%s/.%s", dir, name);
        _cleanup_close_ int fd = -1;
        size_t n = 0;

        if (!path || !temp || text->failed)
                return err_errno(e, -ENOMEM, "'%s'", name);
        if (file_read(path, TEXT_MAX, &old, &n, NULL) == 0 && n == text->len &&
            memcmp(old, buf_str(text), n) == 0)
                return 0;
        unlink(temp);
        fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || (gid && gid != ROOT_ONLY && fchown(fd, 0, gid) < 0) ||
            (gid != ROOT_ONLY && fchmod(fd, gid ? 0640 : 0644) < 0) ||
            write_full(fd, buf_str(text), text->len) < 0 || rename(temp, path) < 0)
                return err_errno(e, -errno, "'%s'", path);
        return 1;
}

pid_t server_pid(const struct server *s, const char *dir, int ns)
{
        _cleanup_free_ char *file = path_printf("%s/%s.pid", dir, s->name);
        _cleanup_free_ char *text = NULL, *comm = NULL;
        char path[64];
        struct stat a, b;
        pid_t pid;

        if (!file || file_read(file, 64, &text, NULL, NULL) < 0 || (pid = atoi(text)) <= 1)
                return 0;
        snprintf(path, sizeof(path), "/proc/%d/comm", pid);
        if (file_read(path, 64, &comm, NULL, NULL) < 0 ||
            strncmp(comm, s->program, MIN(strlen(s->program), (size_t)COMM_SIZE - 1)) != 0)
                return 0;
        snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
        if (stat(path, &a) < 0) /* ended, and nobody has reaped it */
                return 0;
        if (ns >= 0 && (fstat(ns, &b) < 0 || a.st_ino != b.st_ino))
                return 0;
        return pid;
}

/* It is gone, or only waits to be reaped.  It loses its namespace before its sockets. */
static bool ended(pid_t pid)
{
        _cleanup_free_ char *text = NULL;
        char path[64];
        const char *state;

        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        if (file_read(path, 4096, &text, NULL, NULL) < 0)
                return true;
        state = strrchr(text, ')');
        return !state || strlen(state) < 3 || state[2] == 'Z' || state[2] == 'X';
}

void server_end(const struct server *s, const char *dir)
{
        int64_t begun = clock_mono();
        pid_t pid = server_pid(s, dir, -1);

        if (!pid)
                return;
        kill(pid, SIGTERM);
        while (!ended(pid) && clock_mono() < begun + 2 * END_US) {
                if (clock_mono() > begun + END_US)
                        kill(pid, SIGKILL);
                usleep(2000);
        }
        waitpid(pid, NULL, WNOHANG); /* ours, where this process adopts */
}
