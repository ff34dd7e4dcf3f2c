/* A container's console: a program of ours reads its terminal (stratofs-console), as libvirt keeps
 * no log of a container's and serves no socket.  It outlives this process; here is seen to it that
 * it is there: after a start, and whenever somebody looks at the container. */
#include "backend/compute/libvirt/driver.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "common/fileio.h"
#include "common/log.h"

extern char **environ;

/* It holds the lock while it lives. */
static bool is_served(const char *socket)
{
        _cleanup_free_ char *path = path_printf("%s.lock", socket);
        _cleanup_close_ int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

        return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
}

static int spawn(const char *program, const struct container_found *f, int terminal)
{
        char *const argv[] = {(char *)program, f->log, f->socket, NULL};
        posix_spawn_file_actions_t io;
        int r, status;
        pid_t pid;

        posix_spawn_file_actions_init(&io);
        posix_spawn_file_actions_adddup2(&io, terminal, STDIN_FILENO);
        posix_spawn_file_actions_addopen(&io, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_adddup2(&io, STDOUT_FILENO, STDERR_FILENO);
        r = -posix_spawn(&pid, program, &io, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&io);
        if (r < 0)
                return r;
        while (waitpid(pid, &status, 0) < 0) /* it makes itself a daemon */
                if (errno != EINTR)
                        return -errno;
        return status == 0 ? 0 : -EIO;
}

void console_ensure(struct driver *d, virDomainPtr dom)
{
        _cleanup_(container_found_done) struct container_found f = {0};
        _cleanup_free_ char *xml = d->console ? virDomainGetXMLDesc(dom, 0) : NULL;
        _cleanup_close_ int terminal = -1;
        int r;

        if (!xml || xml_find_container(xml, &f, NULL) < 0 || !f.terminal || !f.log || !f.socket ||
            is_served(f.socket)) {
                virResetLastError();
                return;
        }
        terminal = open(f.terminal, O_RDWR | O_NOCTTY | O_CLOEXEC);
        /* The terminal lives as long as the container: if that is there still, what was opened is
         * its terminal, and not one that has got the same number since. */
        if (terminal < 0 || virDomainIsActive(dom) != 1) {
                virResetLastError();
                return;
        }
        r = spawn(d->console, &f, terminal);
        if (r < 0)
                log_warning("console '%s' is not served: %s", f.socket, strerror(-r));
}
