/* hostile VERB [ARGUMENT...]: does one thing that a confined program must not.  Exit status 0 when
 * it could, 1 with the reason on stderr when it could not. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int verdict(int r)
{
        if (r >= 0)
                return 0;
        fprintf(stderr, "%s\n", strerror(errno));
        return 1;
}

static int do_read(char **a)
{
        char c;
        int fd = open(a[0], O_RDONLY);

        return verdict(fd < 0 ? fd : (int)read(fd, &c, 1));
}

static int do_write(char **a)
{
        int fd = open(a[0], O_WRONLY | O_CREAT, 0600);

        return verdict(fd < 0 ? fd : (int)write(fd, "x", 1));
}

static int do_rdtrunc(char **a)
{
        return verdict(open(a[0], O_RDONLY | O_TRUNC));
}

static int do_truncate(char **a)
{
        return verdict(truncate(a[0], 0));
}

static int do_chmod(char **a)
{
        return verdict(chmod(a[0], 0777));
}

static int do_unlink(char **a)
{
        return verdict(unlink(a[0]));
}

static int do_symlink(char **a)
{
        return verdict(symlink("/etc/shadow", a[0]));
}

static int do_list(char **a)
{
        return verdict(open(a[0], O_RDONLY | O_DIRECTORY));
}

static int do_tcp(char **a)
{
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(atoi(a[0]))};
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return verdict(fd < 0 ? fd : connect(fd, (void *)&in, sizeof(in)));
}

static int do_unix(char **a)
{
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        strncpy(un.sun_path, a[0], sizeof(un.sun_path) - 1);
        return verdict(fd < 0 ? fd : connect(fd, (void *)&un, sizeof(un)));
}

/* Until one fork works; all failed is a failure. */
static int do_fork(char **a)
{
        for (int i = 0; i < atoi(a[0]); i++) {
                pid_t pid = fork();

                if (pid == 0)
                        _exit(0);
                if (pid > 0)
                        return waitpid(pid, NULL, 0) == pid ? 0 : 1;
        }
        return verdict(-1);
}

/* A process, by the bare call. */
static int do_clone(char **a)
{
        pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

        if (pid == 0)
                _exit(0);
        return verdict(pid);
}

static int do_clone3(char **a)
{
        struct clone_args args = {.exit_signal = SIGCHLD};
        pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

        if (pid == 0)
                _exit(0);
        return verdict(pid);
}

static void *thread_main(void *arg)
{
        *(int *)arg = 1;
        return NULL;
}

static int do_thread(char **a)
{
        pthread_t t;
        int ran = 0;

        errno = pthread_create(&t, NULL, thread_main, &ran);
        if (errno)
                return verdict(-1);
        pthread_join(t, NULL);
        return ran ? 0 : 1;
}

/* Takes memory and writes to it, in pieces of 16 MiB. */
static int do_memory(char **a)
{
        for (long long left = atoll(a[0]); left > 0; left -= 16 << 20) {
                volatile char *p = malloc(16 << 20); /* else a compiler does without it */

                if (!p)
                        return verdict(-1);
                for (int i = 0; i < 16 << 20; i += 4096)
                        p[i] = 1;
        }
        return 0;
}

static int do_size(char **a)
{
        static char block[1 << 20];
        int fd = open(a[0], O_WRONLY | O_CREAT, 0600);

        signal(SIGXFSZ, SIG_IGN);
        if (fd < 0)
                return verdict(fd);
        for (int i = 0; i < atoi(a[1]); i++)
                if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
                        return verdict(-1);
        return 0;
}

static int do_spin(char **a)
{
        volatile uint64_t n = 0;

        while (n != UINT64_MAX)
                n++;
        return 0;
}

static int do_pause(char **a)
{
        if (fork() == 0) { /* so must end with its parent's group */
                pause();
                _exit(0);
        }
        for (;;)
                pause();
}

static int do_output(char **a)
{
        for (int i = 0; i < atoi(a[0]); i++)
                puts("0123456789012345678901234567890123456789012345678901234567890123456789");
        return 0;
}

static int do_kill(char **a)
{
        return verdict(kill(atoi(a[0]), SIGTERM));
}

static int do_ptrace(char **a)
{
        return verdict((int)ptrace(PTRACE_TRACEME, 0, 0, 0));
}

static int do_unshare(char **a)
{
        return verdict(unshare(CLONE_NEWUSER));
}

static int do_setsid(char **a)
{
        return verdict(setsid());
}

static int do_caps(char **a)
{
        char line[256];
        unsigned long long caps = 0;
        FILE *f = fopen("/proc/self/status", "r");

        if (!f) { /* behind the walls: ask by an act that wants CAP_CHOWN or the like */
                errno = EPERM;
                return verdict(chroot("/usr"));
        }
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "CapEff: %llx", &caps) == 1 && caps)
                        return 0;
        errno = EPERM;
        return verdict(-1);
}

/* Every descriptor above 2 is one that should not be here. */
static int do_fds(char **a)
{
        for (int fd = 3; fd < 1024; fd++)
                if (fcntl(fd, F_GETFD) >= 0)
                        return 0;
        errno = EBADF;
        return verdict(-1);
}

static int do_exit(char **a)
{
        fprintf(stderr, "first line\nlast \033words\n\n");
        return atoi(a[0]);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *verb;
                int args;
                int (*f)(char **a);
        } verbs[] = {
                {"read", 1, do_read},         {"write", 1, do_write},   {"rdtrunc", 1, do_rdtrunc},
                {"truncate", 1, do_truncate}, {"chmod", 1, do_chmod},   {"unlink", 1, do_unlink},
                {"symlink", 1, do_symlink},   {"list", 1, do_list},     {"tcp", 1, do_tcp},
                {"unix", 1, do_unix},         {"fork", 1, do_fork},     {"clone", 0, do_clone},
                {"clone3", 0, do_clone3},     {"thread", 0, do_thread}, {"memory", 1, do_memory},
                {"size", 2, do_size},         {"spin", 0, do_spin},     {"pause", 0, do_pause},
                {"output", 1, do_output},     {"kill", 1, do_kill},     {"ptrace", 0, do_ptrace},
                {"unshare", 0, do_unshare},   {"setsid", 0, do_setsid}, {"caps", 0, do_caps},
                {"fds", 0, do_fds},           {"exit", 1, do_exit},
        };

        for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
                if (strcmp(argv[1], verbs[i].verb) == 0 && argc == 2 + verbs[i].args)
                        return verbs[i].f(argv + 2);
        fprintf(stderr, "usage: hostile VERB [ARGUMENT...]\n");
        return 2;
}
