#include "common/child.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/confine.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

enum {
        TIMEOUT_MS = 60000,
        TICK_MS = 100,
        OUTPUT_MAX = 1 << 20,
        STEP_MAX = 64,
};

enum { OUT, ERR, REPORT, NPIPES };

/* A running child and our ends of its pipes. */
struct run {
        const struct child *c;
        struct child_result *ret;
        pid_t pid; /* and its process group; 0 before and after */
        int pidfd;
        int pipes[NPIPES]; /* read ends; -1 once they ended */
        int64_t deadline;  /* clock_mono() */
};

/* What a child says that could not exec.  Written at once, so it arrives whole. */
struct report {
        int code;
        char step[STEP_MAX];
};

/* The absolute path of a program, as execvp() would find it. */
static int program_find(const char *name, char **ret, struct err **e)
{
        const char *path = getenv("PATH"), *end;

        if (strchr(name, '/')) {
                *ret = realpath(name, NULL);
                return *ret ? 0 : err_errno(e, -errno, "run '%s'", name);
        }
        for (const char *p = path ? path : "/usr/bin:/bin"; *p; p = *end ? end + 1 : end) {
                _cleanup_free_ char *try = NULL;
                struct stat st;

                end = strchrnul(p, ':');
                try = path_printf("%.*s/%s", (int)(end - p), p, name);
                if (!try)
                        return err_errno(e, -ENOMEM, "run '%s'", name);
                if (*try == '/' && stat(try, &st) == 0 && S_ISREG(st.st_mode) &&
                    access(try, X_OK) == 0) {
                        *ret = TAKE_PTR(try);
                        return 0;
                }
        }
        return err_set(e, -ENOENT, "run '%s': no such program in PATH", name);
}

/* A pipe whose ends are above 2, so that the child can put them there in any order. */
static int pipe_new(int ret[2])
{
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        for (int i = 0; i < 2; i++) {
                ret[i] = fds[i] > 2 ? fds[i] : fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
                if (ret[i] != fds[i])
                        close(fds[i]);
        }
        if (ret[0] >= 0 && ret[1] >= 0 && fcntl(ret[0], F_SETFL, O_NONBLOCK) == 0)
                return 0;
        for (int i = 0; i < 2; i++)
                if (ret[i] >= 0)
                        close(ret[i]);
        return -EMFILE;
}

/* From here to exec: the memory of a process of many threads, of which one is left.  System calls
 * only. */
static int child_become(const struct confinement *walls, const int pipes[NPIPES], pid_t parent,
                        const char **ret_step)
{
        struct sigaction dfl = {.sa_handler = SIG_DFL};
        sigset_t none;
        int null;

        *ret_step = "prepare it";
        setpgid(0, 0);
        for (int sig = 1; sig < NSIG; sig++)
                sigaction(sig, &dfl, NULL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        /* Who restarts after a crash must not meet the child of an earlier life at its files. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                return -errno;
        if (getppid() != parent)
                return -ECHILD;
        null = open("/dev/null", O_RDONLY);
        if (null < 0 || dup2(null, 0) < 0 || dup2(pipes[OUT], 1) < 0 || dup2(pipes[ERR], 2) < 0)
                return -errno;
        if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
                return -errno;
        return walls ? confine_enter(walls, ret_step) : 0;
}

static void child_main(const struct child *c, const char *program, const struct confinement *walls,
                       const int pipes[NPIPES], pid_t parent)
{
        static const char *const confined_env[] = {
                "PATH=/usr/bin:/bin", "LC_ALL=C",
                "MALLOC_ARENA_MAX=2", /* each arena takes 64 MiB of the address space allowed */
                NULL};
        struct report report = {0};
        const char *step;

        report.code = child_become(walls, pipes, parent, &step);
        if (report.code == 0) {
                step = "execute it";
                execve(program, (char *const *)c->argv,
                       walls ? (char *const *)confined_env : environ);
                report.code = -errno;
        }
        for (size_t i = 0; i < STEP_MAX - 1 && step[i]; i++)
                report.step[i] = step[i];
        if (write(pipes[REPORT], &report, sizeof(report)) < 0)
                _exit(126);
        _exit(127);
}

static int child_fork(struct run *run, const char *program, const struct confinement *walls,
                      const int pipes[NPIPES])
{
        pid_t parent = getpid();
        sigset_t all, old;
        pid_t pid;
        int r = 0;

        /* No handler of ours may run in the child. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        pid = fork();
        if (pid == 0)
                child_main(run->c, program, walls, pipes, parent);
        if (pid < 0)
                r = -errno;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r < 0)
                return r;
        run->pid = pid;
        setpgid(pid, pid); /* both sides do: whoever is first */
        run->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        return run->pidfd < 0 ? -errno : 0;
}

static int run_start(struct run *run, const char *program, const struct confinement *walls,
                     struct err **e)
{
        int theirs[NPIPES] = {-1, -1, -1}, r = 0;

        for (int i = 0; r == 0 && i < NPIPES; i++) {
                int fds[2] = {-1, -1};

                r = pipe_new(fds);
                if (r == 0) {
                        run->pipes[i] = fds[0];
                        theirs[i] = fds[1];
                }
        }
        if (r == 0)
                r = child_fork(run, program, walls, theirs);
        for (int i = 0; i < NPIPES; i++)
                if (theirs[i] >= 0)
                        close(theirs[i]);
        return r < 0 ? err_errno(e, r, "run '%s'", run->c->argv[0]) : 0;
}

static int output_take(struct run *run, int which, const char *p, size_t n, struct err **e)
{
        struct buf *b = which == OUT ? &run->ret->out : &run->ret->err;
        size_t max = run->c->max_output ? run->c->max_output : OUTPUT_MAX;
        int r;

        if (which == OUT && run->c->on_output) {
                r = run->c->on_output(run->c->arg, p, n);
                return r < 0 ? err_errno(e, r, "'%s' was stopped", run->c->argv[0]) : 0;
        }
        if (b->len + n > max)
                return err_set(e, -EFBIG, "'%s' wrote more than %zu bytes to %s", run->c->argv[0],
                               max, which == OUT ? "stdout" : "stderr");
        buf_add(b, p, n);
        return b->failed ? err_errno(e, -ENOMEM, "'%s'", run->c->argv[0]) : 0;
}

static int report_take(struct run *run, const char *p, size_t n, struct err **e)
{
        struct report report;

        if (n < sizeof(report))
                return 0;
        memcpy(&report, p, sizeof(report));
        return err_errno(e, report.code, "run '%s': %.*s", run->c->argv[0], STEP_MAX, report.step);
}

/* Reads what is there.  0, also at the end, or -errno. */
static int pipe_drain(struct run *run, int which, struct err **e)
{
        char p[8192];

        while (run->pipes[which] >= 0) {
                ssize_t n = read(run->pipes[which], p, sizeof(p));
                int r;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return 0;
                if (n <= 0) {
                        close(run->pipes[which]);
                        run->pipes[which] = -1;
                        return 0;
                }
                r = which == REPORT ? report_take(run, p, (size_t)n, e)
                                    : output_take(run, which, p, (size_t)n, e);
                if (r < 0)
                        return r;
                if ((size_t)n < sizeof(p)) /* back to poll: the deadline must be seen */
                        return 0;
        }
        return 0;
}

static int run_wait(struct run *run, struct err **e)
{
        int timeout = run->c->timeout_ms ? run->c->timeout_ms : TIMEOUT_MS;
        int64_t left = (run->deadline - clock_mono() + 999) / 1000;
        struct pollfd fds[NPIPES + 1] = {[NPIPES] = {.fd = run->pidfd, .events = POLLIN}};
        int r;

        if (left <= 0)
                return err_set(e, -ETIMEDOUT, "'%s' did not end within %d.%03d s", run->c->argv[0],
                               timeout / 1000, timeout % 1000);
        if (run->c->on_tick)
                left = MIN(left, TICK_MS);
        for (int i = 0; i < NPIPES; i++)
                fds[i] = (struct pollfd){.fd = run->pipes[i], .events = POLLIN};
        if (poll(fds, ARRAY_SIZE(fds), (int)MIN(left, INT_MAX)) < 0 && errno != EINTR)
                return err_errno(e, -errno, "wait for '%s'", run->c->argv[0]);
        for (int i = 0; i < NPIPES; i++) {
                r = fds[i].revents ? pipe_drain(run, i, e) : 0;
                if (r < 0)
                        return r;
        }
        return fds[NPIPES].revents ? 1 : 0;
}

/* Until it has ended. */
static int run_loop(struct run *run, struct err **e)
{
        int64_t tick = clock_mono() + TICK_MS * 1000;
        int r;

        while ((r = run_wait(run, e)) == 0) {
                if (!run->c->on_tick || clock_mono() < tick)
                        continue;
                tick = clock_mono() + TICK_MS * 1000;
                r = run->c->on_tick(run->c->arg);
                if (r < 0)
                        return err_errno(e, r, "'%s' was stopped", run->c->argv[0]);
        }
        return r < 0 ? r : 0;
}

/* Ends what is left of the group and reaps.  The zombie keeps the group's number ours. */
static int run_end(struct run *run, int r, struct err **e)
{
        if (run->pid > 0) {
                kill(-run->pid, SIGKILL);
                kill(run->pid, SIGKILL); /* had it no time yet to make the group */
                while (waitpid(run->pid, &run->ret->status, 0) < 0)
                        if (errno != EINTR) {
                                r = r < 0 ? r
                                          : err_errno(e, -errno, "wait for '%s'", run->c->argv[0]);
                                break;
                        }
        }
        for (int i = 0; i < NPIPES; i++) {
                while (r == 0 && run->pipes[i] >= 0) {
                        struct pollfd fd = {.fd = run->pipes[i], .events = POLLIN};

                        if (poll(&fd, 1, 0) <= 0)
                                break;
                        r = pipe_drain(run, i, e);
                }
                if (run->pipes[i] >= 0)
                        close(run->pipes[i]);
        }
        if (run->pidfd >= 0)
                close(run->pidfd);
        return r;
}

int child_run(const struct child *c, struct child_result *ret, struct err **e)
{
        int timeout = c->timeout_ms ? c->timeout_ms : TIMEOUT_MS;
        struct confinement walls = {.ruleset = -1};
        _cleanup_free_ char *program = NULL;
        struct run run = {.c = c,
                          .ret = ret,
                          .pidfd = -1,
                          .pipes = {-1, -1, -1},
                          .deadline = clock_mono() + (int64_t)timeout * 1000};
        int r;

        *ret = (struct child_result){0};
        r = program_find(c->argv[0], &program, e);
        if (r < 0)
                return r;
        if (c->confine) {
                r = confine_prepare(c->confine, program, &walls, e);
                if (r < 0)
                        return err_prepend(e, r, "run '%s'", c->argv[0]);
        }
        r = FAULT("child.start");
        if (r == 0)
                r = run_start(&run, program, c->confine ? &walls : NULL, e);
        if (r == 0)
                r = run_loop(&run, e);
        r = run_end(&run, r, e);
        if (r == 0)
                (void)FAULT("child.ended");
        confine_done(&walls);
        if (r < 0)
                child_result_done(ret);
        return r;
}

void child_result_done(struct child_result *r)
{
        buf_done(&r->out);
        buf_done(&r->err);
}

/* The last line that is not empty, made printable in place. */
static const char *last_line(char *text)
{
        size_t n = strlen(text);
        char *line;

        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
                text[--n] = '\0';
        line = strrchr(text, '\n');
        line = line ? line + 1 : text;
        if (!text_clean(line, strlen(line), false)) /* the file it read may have a say in it */
                for (char *p = line; *p; p++)
                        if (*p < ' ' || *p == 0x7f)
                                *p = '?';
        return line;
}

int child_check(const struct child *c, struct err **e)
{
        _cleanup_(child_result_done) struct child_result res = {0};
        _cleanup_free_ char *text = NULL;
        const char *line;
        int r = child_run(c, &res, e);

        if (r < 0)
                return r;
        if (WIFSIGNALED(res.status))
                return err_set(e, -EIO, "'%s' was killed by signal %d (%s)", c->argv[0],
                               WTERMSIG(res.status), strsignal(WTERMSIG(res.status)));
        if (WEXITSTATUS(res.status) == 0)
                return 0;
        text = strdup(buf_str(&res.err));
        line = text ? last_line(text) : "";
        if (*line)
                return err_set(e, -EIO, "'%s': %.500s", c->argv[0], line);
        return err_set(e, -EIO, "'%s' failed with status %d", c->argv[0], WEXITSTATUS(res.status));
}
