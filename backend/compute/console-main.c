/* stratofs-console LOG SOCKET, a terminal as stdin: a container's console.
 *
 * libvirt's LXC driver has a terminal for it and nothing else.  This program reads the terminal,
 * appends to LOG, and serves SOCKET as QEMU does a serial line: what comes from there is typed, and
 * all who are connected see what the container says.  It goes on when stratod ends, as a container
 * that nobody listens to would stand still with its terminal full, and ends with the terminal.
 *
 * There is one of them a container: it holds SOCKET.lock.  The caller has it again at once. */
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/fileio.h"
#include "common/macro.h"

enum { CLIENTS = 8, LOCK_TRIES = 100, LOCK_MS = 50, NOBODY = 65534 };

/* One of an earlier boot may still be on its way out. */
static void take_lock(const char *socket)
{
        _cleanup_free_ char *path = path_printf("%s.lock", socket);
        int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

        if (fd < 0)
                err(1, "lock");
        for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
                if (i == LOCK_TRIES)
                        errx(1, "another one serves '%s'", socket);
                nanosleep(&(struct timespec){.tv_nsec = LOCK_MS * 1000000}, NULL);
        }
        /* open until the end of this process */
}

static int take_terminal(void)
{
        int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        struct termios t;

        if (fd < 0 || tcgetattr(fd, &t) < 0)
                err(1, "terminal");
        cfmakeraw(&t);
        if (tcsetattr(fd, TCSANOW, &t) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                err(1, "terminal");
        return fd;
}

static int listen_at(const char *path)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (strlen(path) >= sizeof(sa.sun_path))
                errx(1, "too long a path: '%s'", path);
        memcpy(sa.sun_path, path, strlen(path));
        unlink(path);
        umask(0077);
        if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, CLIENTS) < 0)
                err(1, "'%s'", path);
        return fd;
}

/* Nothing is opened from here on. */
static void step_down(void)
{
        if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
                               setresuid(NOBODY, NOBODY, NOBODY) < 0))
                err(1, "become nobody");
}

/* Twice, so that it leads no session: whoever adopts it may reap it (backend/compute/libvirt). */
static void go_on_alone(void)
{
        pid_t pid = 0;

        if (daemon(0, 0) < 0 || (pid = fork()) < 0)
                err(1, "daemon");
        if (pid > 0)
                _exit(0);
}

static void drop(struct pollfd *p)
{
        close(p->fd);
        p->fd = -1;
}

/* What the container says; false: it is gone.  A client that does not read misses it. */
static bool say(struct pollfd *p, int log)
{
        char text[4096];
        ssize_t n = read(p[0].fd, text, sizeof(text));

        if (n < 0)
                return errno == EAGAIN || errno == EINTR;
        if (n == 0)
                return false;
        if (write_full(log, text, (size_t)n) < 0) { /* disk full: its users still see it */
        }
        for (int i = 2; i < 2 + CLIENTS; i++)
                if (p[i].fd >= 0 &&
                    send(p[i].fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
                    errno != EAGAIN)
                        drop(&p[i]);
        return true;
}

/* What is typed; more than the terminal takes is lost, as on a serial line. */
static void type(struct pollfd *p, int terminal)
{
        char text[256];
        ssize_t n = read(p->fd, text, sizeof(text));

        if (n <= 0 && errno != EAGAIN && errno != EINTR)
                drop(p);
        else if (n == 0)
                drop(p);
        else if (n > 0 && write(terminal, text, (size_t)n) < 0) {
        }
}

static void admit(struct pollfd *p)
{
        int fd = accept4(p[1].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        for (int i = 2; fd >= 0 && i < 2 + CLIENTS; i++)
                if (p[i].fd < 0) {
                        p[i].fd = fd;
                        return;
                }
        if (fd >= 0)
                close(fd);
}

static void relay(int terminal, int listener, int log)
{
        struct pollfd p[2 + CLIENTS] = {{terminal, POLLIN, 0}, {listener, POLLIN, 0}};

        for (int i = 2; i < 2 + CLIENTS; i++)
                p[i] = (struct pollfd){-1, POLLIN, 0};
        for (;;) {
                if (poll(p, ARRAY_SIZE(p), -1) < 0) {
                        if (errno == EINTR)
                                continue;
                        return;
                }
                if (p[0].revents && !say(p, log))
                        return;
                if (p[1].revents)
                        admit(p);
                for (int i = 2; i < 2 + CLIENTS; i++)
                        if (p[i].fd >= 0 && p[i].revents)
                                type(&p[i], terminal);
        }
}

int main(int argc, char **argv)
{
        int terminal, listener, log;

        if (argc != 3)
                errx(2, "usage: stratofs-console LOG SOCKET");
        signal(SIGPIPE, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        take_lock(argv[2]);
        terminal = take_terminal();
        log = open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (log < 0)
                err(1, "'%s'", argv[1]);
        listener = listen_at(argv[2]);
        step_down();
        go_on_alone();
        relay(terminal, listener, log);
        return 0;
}
