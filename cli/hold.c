/* stratofs-hold: runs a program, starts it again when it dies, and holds descriptors for it
 * meanwhile.  See doc/stratofs-hold.8.rst.
 *
 * To the program it is what systemd is to a service (sd_notify(3), sd_listen_fds(3)).  Guests'
 * disks hang on it, so it does nothing that can fail for good: it has one thread, and memory for
 * the table of descriptors alone. */
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "cli/hold-table.h"
#include "common/clock.h"
#include "common/drop.h"
#include "common/log.h"

enum {
        MESSAGE_FDS = 253, /* the kernel's SCM_MAX_FD */
        MESSAGE_MAX = 4096,
        FIRST_FD = 3, /* SD_LISTEN_FDS_START */
        EXIT_NO_PROGRAM = 127,
        EXIT_AGAIN = 75, /* EX_TEMPFAIL: it wants its successor */
};
/* Pause before the program is started again: none after it lived this long, else it doubles. */
#define LIVED_USEC 1000000
#define PAUSE_MIN_USEC 10000
#define PAUSE_SERVED_USEC 160000 /* at most for one that served, however shortly */
#define PAUSE_MAX_USEC 5000000

struct hold {
        char **argv;
        struct hold_table table;
        pid_t main;  /* 0: none runs */
        bool served; /* it said READY once: from now on it is started again */
        bool stopping;
        int64_t started, pause; /* microseconds */
        int64_t away;           /* since when nobody serves; 0: somebody does */
        int64_t give_up;        /* how long that may last; 0: for ever */
        int notify, signals, pid_fd, ready_fd;
        char version[32];
        struct rlimit files;
        uid_t user; /* what the program may become */
        sigset_t mask;
};

/* ---- what the program says ---- */

static void write_pid_file(const struct hold *h)
{
        char text[64];
        int n = snprintf(text, sizeof(text), "%d\n%s\n", h->main, h->version);

        if (h->pid_fd >= 0 && (pwrite(h->pid_fd, text, n, 0) != n || ftruncate(h->pid_fd, n) < 0))
                log_warning("pid file: %m");
}

static void now_serves(struct hold *h)
{
        h->served = true;
        h->away = 0;
        write_pid_file(h);
        if (h->ready_fd < 0)
                return;
        if (write(h->ready_fd, "1", 1) != 1)
                log_debug("nobody waits for us: %m");
        close(TAKE_FD(h->ready_fd));
}

/* Who is not root says so of itself only: the main process is sent signals. */
static void new_main(struct hold *h, const struct ucred *who, const char *text)
{
        pid_t pid = strtol(text, NULL, 10);

        if (pid <= 1 || pid == getpid() || pid == h->main)
                return;
        if (who->uid != 0 && who->uid != geteuid() && pid != who->pid) {
                log_warning("process %d says that process %d follows it: not heard", who->pid, pid);
                return;
        }
        log_info("process %d follows process %d", pid, h->main);
        h->main = pid;
        h->started = clock_mono();
        write_pid_file(h);
        if (h->stopping)
                kill(pid, SIGTERM);
}

/* One message: lines KEY=VALUE.  What is not known is left alone, as systemd does. */
static void message(struct hold *h, const struct ucred *who, char *text, int *fds, unsigned nfds)
{
        const char *name = "stored", *main = NULL;
        bool add = false, remove = false, ready = false;
        char *line, *save = NULL;

        for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                if (streq(line, "READY=1"))
                        ready = true;
                else if (streq(line, "STOPPING=1"))
                        h->stopping = true;
                else if (streq(line, "FDSTORE=1"))
                        add = true;
                else if (streq(line, "FDSTOREREMOVE=1"))
                        remove = true;
                else if (strncmp(line, "FDNAME=", 7) == 0)
                        name = line + 7;
                else if (strncmp(line, "MAINPID=", 8) == 0)
                        main = line + 8;
                else if (strncmp(line, "X_VERSION=", 10) == 0)
                        snprintf(h->version, sizeof(h->version), "%s", line + 10);
        }
        if (!hold_name_good(name)) {
                log_warning("'%.64s' is no name for a descriptor", name);
                add = remove = false;
        }
        for (unsigned i = 0; i < nfds; i++) {
                if (add)
                        hold_store(&h->table, name, fds[i]);
                else
                        close(fds[i]);
        }
        if (remove)
                hold_drop(&h->table, name);
        if (main)
                new_main(h, who, main);
        if (ready)
                now_serves(h);
}

/* false: nothing is waiting. */
static bool receive(struct hold *h)
{
        char text[MESSAGE_MAX + 1];
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * MESSAGE_FDS) +
                           CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct iovec iov = {.iov_base = text, .iov_len = MESSAGE_MAX};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof(control)};
        struct ucred who = {.uid = (uid_t)-1};
        int fds[MESSAGE_FDS];
        unsigned nfds = 0;
        ssize_t n = recvmsg(h->notify, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0)
                return errno == EINTR;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
                if (c->cmsg_level != SOL_SOCKET)
                        continue;
                if (c->cmsg_type == SCM_CREDENTIALS) {
                        memcpy(&who, CMSG_DATA(c), sizeof(who));
                } else if (c->cmsg_type == SCM_RIGHTS) {
                        nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        memcpy(fds, CMSG_DATA(c), nfds * sizeof(int));
                }
        }
        text[n] = '\0';
        if (who.uid != 0 && who.uid != geteuid() && who.uid != h->user) {
                log_warning("process %d, uid %u, is none of ours", who.pid, who.uid);
                *text = '\0';
        }
        if (m.msg_flags & MSG_CTRUNC)
                log_error("out of descriptors: not everything is held");
        message(h, &who, text, fds, nfds);
        return true;
}

/* ---- the program ---- */

/* Puts the held descriptors at 3, 4, ... and says so. */
static int hand_over(const struct hold_table *t)
{
        char number[16], *names = malloc(t->names + 1), *p = names;
        int *high = malloc(t->n * sizeof(*high));

        if (!names || !high)
                return -ENOMEM;
        for (unsigned i = 0; i < t->n; i++) {
                high[i] = fcntl(t->held[i].fd, F_DUPFD_CLOEXEC, FIRST_FD + (int)t->n);
                if (high[i] < 0)
                        return -errno;
                p = stpcpy(p, i ? ":" : "");
                p = stpcpy(p, t->held[i].name);
        }
        for (unsigned i = 0; i < t->n; i++)
                if (dup2(high[i], FIRST_FD + (int)i) < 0)
                        return -errno;
        snprintf(number, sizeof(number), "%u", t->n);
        setenv("LISTEN_FDS", number, 1);
        setenv("LISTEN_FDNAMES", names, 1);
        snprintf(number, sizeof(number), "%d", getpid());
        setenv("LISTEN_PID", number, 1);
        return 0;
}

static void child_main(const struct hold *h)
{
        int r = h->table.n > 0 ? hand_over(&h->table) : 0;

        if (r == 0) {
                setrlimit(RLIMIT_NOFILE, &h->files);
                signal(SIGPIPE, SIG_DFL);
                sigprocmask(SIG_SETMASK, &h->mask, NULL);
                execv(h->argv[0], h->argv);
                r = -errno;
        }
        log_error("'%s': %s", h->argv[0], strerror(-r));
        _exit(EXIT_NO_PROGRAM);
}

static void start(struct hold *h)
{
        pid_t pid = fork();

        if (pid == 0)
                child_main(h);
        if (pid < 0)
                log_error("fork: %m");
        h->main = MAX(pid, 0);
        h->started = clock_mono();
        write_pid_file(h);
}

static void plan_restart(struct hold *h)
{
        bool served = h->away == 0;

        if (served)
                h->away = clock_mono();
        if (clock_mono() - h->started >= LIVED_USEC)
                h->pause = 0;
        else
                h->pause = MIN(MAX(2 * h->pause, PAUSE_MIN_USEC),
                               served ? PAUSE_SERVED_USEC : PAUSE_MAX_USEC);
}

/* As the program ended: by the same signal, too. */
static int end_like(int status)
{
        const struct rlimit none = {};

        if (WIFEXITED(status))
                return WEXITSTATUS(status);
        setrlimit(RLIMIT_CORE, &none);
        signal(WTERMSIG(status), SIG_DFL);
        sigprocmask(SIG_SETMASK, &(sigset_t){}, NULL);
        raise(WTERMSIG(status));
        return 128 + WTERMSIG(status);
}

/* One that was another's child, whose end that one saw and, ending itself, did not tell.  1: as
 * reap(). */
static int main_lost(struct hold *h, int *ret)
{
        if (h->stopping || !h->served) {
                *ret = !h->stopping;
                return 1;
        }
        log_error("'%s', process %d, is no more: it is started again; %u descriptors are held",
                  h->argv[0], h->main, h->table.n);
        h->main = 0;
        plan_restart(h);
        return 0;
}

/* 1: it is over, with *ret as our own status. */
static int reap(struct hold *h, int *ret)
{
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                if (pid != h->main)
                        continue; /* what followed another's death came to us */
                if ((WIFEXITED(status) && WEXITSTATUS(status) == 0) || h->stopping || !h->served) {
                        *ret = end_like(status);
                        return 1;
                }
                h->main = 0;
                plan_restart(h);
                if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_AGAIN) {
                        log_info("'%s' makes room for its successor", h->argv[0]);
                        h->pause = 0;
                        continue;
                }
                log_error("'%s' %s %d: it is started again; %u descriptors are held", h->argv[0],
                          WIFSIGNALED(status) ? "was ended by signal" : "ended with status",
                          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), h->table.n);
        }
        if (pid < 0 && errno == ECHILD && h->main > 0)
                return main_lost(h, ret);
        return 0;
}

/* 1: it is over. */
static int on_signal(struct hold *h, int *ret)
{
        struct signalfd_siginfo si;

        while (read(h->signals, &si, sizeof(si)) == sizeof(si)) {
                if (si.ssi_signo == SIGCHLD)
                        continue;
                if (si.ssi_signo != SIGHUP)
                        h->stopping = true;
                if (h->main == 0 && h->stopping)
                        return *ret = 0, 1;
                /* What never served has nothing to put away, and may hang. */
                if (h->main > 0)
                        kill(h->main, si.ssi_signo == SIGHUP ? SIGHUP
                                      : h->served            ? SIGTERM
                                                             : SIGKILL);
        }
        return 0;
}

/* Whoever waits for what is held learns that nobody comes. */
static bool gave_up(struct hold *h)
{
        if (!h->give_up || h->away == 0 || clock_mono() < h->away + h->give_up)
                return false;
        log_error("'%s' did not serve again for %lld s: %u descriptors are given up", h->argv[0],
                  (long long)(h->give_up / 1000000), h->table.n);
        if (h->main > 0)
                kill(h->main, SIGKILL);
        return true;
}

/* Microseconds until something is due, -1: never. */
static int64_t next_due(const struct hold *h)
{
        int64_t due = h->main > 0 ? INT64_MAX : h->started + h->pause;

        if (h->give_up && h->away)
                due = MIN(due, h->away + h->give_up);
        return due == INT64_MAX ? -1 : MAX(0, due - clock_mono());
}

static int loop(struct hold *h)
{
        struct pollfd p[] = {{.fd = h->signals, .events = POLLIN},
                             {.fd = h->notify, .events = POLLIN}};
        int ret = 0;

        for (;;) {
                int64_t left;

                if (gave_up(h))
                        return 1;
                left = next_due(h);
                if (h->main == 0 && h->started + h->pause <= clock_mono()) {
                        start(h);
                        if (h->main == 0)
                                plan_restart(h);
                        continue;
                }
                if (poll(p, ARRAY_SIZE(p), left < 0 ? -1 : (int)(left / 1000) + 1) < 0 &&
                    errno != EINTR)
                        log_error("poll: %m");
                if (on_signal(h, &ret))
                        return ret;
                while (receive(h)) { /* what it said before it died counts */
                }
                if (reap(h, &ret))
                        return ret;
        }
}

/* ---- the start ---- */

/* An abstract name that the kernel chooses; who may speak is told by their credentials. */
static int open_notify(void)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        socklen_t len = sizeof(sa);
        char name[sizeof(sa.sun_path) + 1];
        const int on = 1;
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
            bind(fd, (struct sockaddr *)&sa, sizeof(sa.sun_family)) < 0 ||
            getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
                return -errno;
        len -= offsetof(struct sockaddr_un, sun_path);
        snprintf(name, sizeof(name), "@%.*s", (int)len - 1, sa.sun_path + 1);
        return setenv("NOTIFY_SOCKET", name, 1) < 0 ? -errno : fd;
}

static int prepare(struct hold *h)
{
        struct rlimit more;
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        sigprocmask(SIG_BLOCK, &set, &h->mask);
        signal(SIGPIPE, SIG_IGN);
        h->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (h->signals < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
            getrlimit(RLIMIT_NOFILE, &h->files) < 0)
                return -errno;
        more = h->files;
        more.rlim_cur = more.rlim_max;
        setrlimit(RLIMIT_NOFILE, &more);
        /* Neither the lock on the pid file nor the news of the start is the program's. */
        if ((h->pid_fd >= 0 && fcntl(h->pid_fd, F_SETFD, FD_CLOEXEC) < 0) ||
            (h->ready_fd >= 0 && fcntl(h->ready_fd, F_SETFD, FD_CLOEXEC) < 0))
                return -errno;
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
        unsetenv("LISTEN_PID");
        h->notify = open_notify();
        return MIN(h->notify, 0);
}

int main(int argc, char **argv)
{
        static const struct option longs[] = {
                {"pid-fd", required_argument, NULL, 'p'},
                {"ready-fd", required_argument, NULL, 'r'},
                {"give-up", required_argument, NULL, 'g'},
                {"user", required_argument, NULL, 'u'},
                {"version", no_argument, NULL, 'V'},
                {},
        };
        struct hold h = {.pid_fd = -1, .ready_fd = -1, .version = STRATOFS_VERSION};
        _cleanup_err_ struct err *e = NULL;
        struct drop_user user;
        int c, r;

        while ((c = getopt_long(argc, argv, "+", longs, NULL)) >= 0) {
                if (c == 'V')
                        return puts("stratofs-hold " STRATOFS_VERSION), 0;
                else if (c == '?')
                        return 2;
                if (c == 'u') {
                        if (drop_find_user(optarg, &user, &e) < 0)
                                return log_error("%s", err_msg(e)), 2;
                        h.user = user.uid;
                } else if (c == 'g')
                        h.give_up = strtol(optarg, NULL, 10) * INT64_C(1000000);
                else
                        *(c == 'p' ? &h.pid_fd : &h.ready_fd) = (int)strtol(optarg, NULL, 10);
        }
        h.argv = argv + optind;
        if (!*h.argv) {
                fputs("usage: stratofs-hold [--pid-fd N] [--ready-fd N] [--give-up SECONDS] "
                      "[--user NAME] -- PROGRAM [ARG]...\n",
                      stderr);
                return 2;
        }
        r = prepare(&h);
        if (r < 0) {
                log_error("start: %s", strerror(-r));
                return 1;
        }
        r = loop(&h);
        hold_done(&h.table);
        return r;
}
