#include "cli/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/drop.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "cli/conf.h"
#include "cli/places.h"
#include "cli/proc.h"

enum {
        WORDS_MAX = 2048, /* of a dead daemon's log */
        LINES_MAX = 4,
        EXIT_LOCKED = 75,  /* our child lost the race for the lock */
        OOM_BLOCKD = -900, /* guests' disks go last */
        HOLDER_MS = 5000,
        REPLACE_LOOK_USEC = 20000,
};
#define GIVE_UP_S "180"

const char *daemon_name(enum daemon d)
{
        return d == BLOCKD ? "blockd" : "stratod";
}

static char *pid_path(const struct cloud *c, enum daemon d)
{
        return path_printf("%s/%s.pid", c->run, daemon_name(d));
}

int daemon_find(const struct cloud *c, enum daemon d, pid_t *ret)
{
        _cleanup_free_ char *path = pid_path(c, d);
        _cleanup_close_ int fd = -1;
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

        if (!path)
                return -ENOMEM;
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (fcntl(fd, F_GETLK, &lock) < 0)
                return -errno;
        if (lock.l_type == F_UNLCK)
                return 0;
        *ret = lock.l_pid;
        return 1;
}

/* The number in the pid file, if that process is the lock's owner or a descendant of it. */
static pid_t main_pid(const struct cloud *c, enum daemon d, pid_t owner)
{
        _cleanup_free_ char *path = pid_path(c, d);
        _cleanup_free_ char *text = NULL;
        pid_t pid;

        if (!path || file_read(path, 256, &text, NULL, NULL) < 0)
                return 0;
        pid = (pid_t)strtol(text, NULL, 10);
        for (pid_t p = pid; p > 1; p = proc_parent(p))
                if (p == owner)
                        return pid;
        return 0;
}

int daemon_find_main(const struct cloud *c, enum daemon d, pid_t *ret)
{
        int r = daemon_find(c, d, ret);

        if (r > 0)
                *ret = main_pid(c, d, *ret);
        return r;
}

void daemon_version(const struct cloud *c, enum daemon d, char ret[32])
{
        _cleanup_free_ char *path = pid_path(c, d);
        _cleanup_free_ char *text = NULL;
        const char *line;

        *ret = '\0';
        if (!path || file_read(path, 256, &text, NULL, NULL) < 0)
                return;
        line = strchr(text, '\n');
        if (line)
                snprintf(ret, 32, "%.*s", (int)strcspn(line + 1, "\n"), line + 1);
}

/* --- in the child ------------------------------------------------------------------------- */

/* Takes the lock for life: the descriptor stays open across exec, the lock is the process's.
 * Returns the descriptor. */
static int take_lock(const char *path)
{
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR | O_CREAT, 0644);

        if (fd < 0)
                return -errno;
        if (fcntl(fd, F_SETLK, &lock) < 0) {
                close(fd);
                return errno == EACCES ? -EAGAIN : -errno;
        }
        if (ftruncate(fd, 0) == 0)
                dprintf(fd, "%d\n" STRATOFS_VERSION "\n", getpid());
        return fd;
}

static void guard_from_oom(void)
{
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        /* Only root may; a plain user's blockd is as any process of theirs. */
        if (fd >= 0 && dprintf(fd, "%d", OOM_BLOCKD) < 0)
                return;
}

enum { POOLS_END = 44 }; /* words; blockd refuses more pools than it has room for */

struct words {
        const char *argv[64];
        int n;
        char pid_fd[16], ready_fd[16];
};

static void add(struct words *w, const char *option, const char *value)
{
        w->argv[w->n++] = option;
        if (value)
                w->argv[w->n++] = value;
}

/* What the operator wants of blockd beyond our own options: words between spaces. */
static void add_options(struct words *w, char *text)
{
        char *rest = NULL;

        for (char *p = text ? strtok_r(text, " ", &rest) : NULL;
             p && w->n < (int)ARRAY_SIZE(w->argv) - 1; p = strtok_r(NULL, " ", &rest))
                add(w, p, NULL);
}

/* The holder comes before the daemon: it starts it again when it dies, and has the descriptors.
 * Callers of a mount whose daemon cannot start any more are not kept waiting for ever. */
static void add_holder(struct words *w, enum daemon d, const char *holder, int lock)
{
        snprintf(w->pid_fd, sizeof(w->pid_fd), "%d", lock);
        add(w, holder, NULL);
        add(w, "--pid-fd", w->pid_fd);
        add(w, "--ready-fd", w->ready_fd);
        if (d == STRATOD)
                add(w, "--give-up", GIVE_UP_S);
        if (d == BLOCKD && geteuid() == 0)
                add(w, "--user", DROP_BLOCKD_USER); /* may speak to it */
        add(w, "--", NULL);
}

/* Lock, then exec.  The daemon says by sd_notify(3) that it serves, to systemd or to its holder,
 * which passes it on to ready (-1: none).  Returns only on failure. */
static int become(const struct cloud *c, enum daemon d, const char *holder, const char *program,
                  const char *pidfile, int ready)
{
        _cleanup_free_ char *own = path_printf("%s/blockd", c->state);
        _cleanup_free_ char *pools = NULL;
        struct words w = {};
        int lock, r;

        if (!own)
                return -ENOMEM;
        r = d == BLOCKD ? conf_pools(c, &pools, NULL) : 0;
        if (r < 0)
                return r;
        lock = take_lock(pidfile);
        if (lock < 0)
                return lock;
        if (d == BLOCKD)
                guard_from_oom();
        if (ready >= 0 && fcntl(ready, F_SETFD, 0) < 0)
                return -errno;
        snprintf(w.ready_fd, sizeof(w.ready_fd), "%d", ready);
        if (holder)
                add_holder(&w, d, holder, lock);
        add(&w, program, NULL);
        if (d == STRATOD)
                add(&w, "--mount", c->mount);
        add(&w, "--state", d == BLOCKD ? own : c->state); /* each daemon has a lock in its own */
        add(&w, "--run", c->run);
        if (c->loglevel)
                add(&w, "--loglevel", c->loglevel);
        if (d == STRATOD && c->conf)
                add(&w, "--conf", c->conf);
        for (const char *p = pools; p && *p && w.n < POOLS_END; p += strlen(p) + 1)
                add(&w, "--pool", p);
        if (d == BLOCKD && geteuid() == 0)
                add(&w, "--user", DROP_BLOCKD_USER);
        if (d == BLOCKD)
                add_options(&w, getenv("STRATOFS_BLOCKD_OPTIONS"));
        execv(w.argv[0], (char *const *)w.argv);
        return -errno;
}

/* Between fork and exec, detached from the caller's terminal and folders. */
static void child_main(const struct cloud *c, enum daemon d, const char *holder,
                       const char *program, const char *pidfile, int log, int ready)
{
        sigset_t none;
        int null, r;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        setsid();
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || chdir("/") < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
                _exit(STATUS_FAILED);
        umask(022);
        r = become(c, d, holder, program, pidfile, ready);
        if (r == -EAGAIN)
                _exit(EXIT_LOCKED);
        dprintf(2, "%s: %s\n", program, strerror(-r));
        _exit(STATUS_FAILED);
}

/* --- in the parent ------------------------------------------------------------------------ */

/* A line of the log without its level and its time. */
static const char *plain(const char *line)
{
        size_t n;

        if (line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>')
                line += 3;
        n = strspn(line, "0123456789-:.TZ");
        return n >= strlen("2026-01-31T12:00:00Z") && line[n] == ' ' ? line + n + 1 : line;
}

/* What the log got since `from`: its last lines. */
static void last_words(const char *log, off_t from, struct buf *out)
{
        _cleanup_close_ int fd = open(log, O_RDONLY | O_CLOEXEC);
        char text[WORDS_MAX + 1], *p, *save = NULL;
        const char *lines[LINES_MAX];
        unsigned n = 0;
        off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
        ssize_t len;

        if (end < 0)
                return;
        len = pread(fd, text, WORDS_MAX, MAX(from, end - WORDS_MAX));
        if (len <= 0)
                return;
        text[len] = '\0';
        for (p = strtok_r(text, "\n", &save); p; p = strtok_r(NULL, "\n", &save))
                lines[n++ % LINES_MAX] = plain(p);
        for (unsigned i = n > LINES_MAX ? n - LINES_MAX : 0; i < n; i++)
                buf_printf(out, "%s%s", out->len ? "; " : "", lines[i % LINES_MAX]);
}

/* 0 served, -ECHILD ended, -ETIMEDOUT. */
static int await_ready(int fd, int timeout_ms)
{
        int64_t deadline = clock_mono() + (int64_t)timeout_ms * 1000;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char byte;

        for (;;) {
                int64_t left = (deadline - clock_mono()) / 1000;
                int n = left > 0 ? poll(&p, 1, (int)left) : 0;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ETIMEDOUT;
                return read(fd, &byte, 1) == 1 ? 0 : -ECHILD;
        }
}

/* It did not come up: ends it if need be and says what it said. */
static int start_failed(enum daemon d, pid_t pid, int r, const char *log, off_t from,
                        struct err **e)
{
        _cleanup_buf_ struct buf words = {};
        int status = 0;

        if (r == -ETIMEDOUT)
                kill(pid, SIGTERM); /* the holder sees to the rest */
        waitpid(pid, &status, 0);
        last_words(log, from, &words);
        if (r == -ETIMEDOUT)
                err_set(e, r, "%s did not serve in time%s%s", daemon_name(d), words.len ? ": " : "",
                        buf_str(&words));
        else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_LOCKED)
                return err_set(e, -EEXIST, "%s was started by somebody else", daemon_name(d));
        else if (WIFSIGNALED(status))
                err_set(e, r, "%s was ended by signal %d (%s)%s%s", daemon_name(d),
                        WTERMSIG(status), strsignal(WTERMSIG(status)), words.len ? ": " : "",
                        buf_str(&words));
        else
                err_set(e, r, "%s ended at its start with status %d: %s", daemon_name(d),
                        WEXITSTATUS(status), words.len ? buf_str(&words) : "it said nothing");
        return err_hint(e, r, "its log: %s", log);
}

int daemon_start(const struct cloud *c, enum daemon d, int timeout_ms, struct err **e)
{
        _cleanup_free_ char *holder = NULL, *program = NULL, *pidfile = pid_path(c, d);
        _cleanup_free_ char *logname = path_printf("%s/log/%s.log", c->state, daemon_name(d));
        _cleanup_close_ int log = -1, ready = -1, theirs = -1;
        int fds[2], r;
        off_t from;
        pid_t pid;

        if (!pidfile || !logname)
                return -ENOMEM;
        r = program_path(daemon_name(d), &program, e);
        if (r == 0)
                r = program_path("stratofs-hold", &holder, e);
        if (r < 0)
                return r;
        log = open(logname, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (log < 0)
                return err_errno(e, -errno, "open '%s'", logname);
        from = lseek(log, 0, SEEK_END);
        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "start %s", daemon_name(d));
        ready = fds[0];
        theirs = fds[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "start %s", daemon_name(d));
        if (pid == 0)
                child_main(c, d, holder, program, pidfile, log, theirs);
        close(TAKE_FD(theirs));
        r = await_ready(ready, timeout_ms);
        return r < 0 ? start_failed(d, pid, r, logname, from, e) : 0;
}

int daemon_become(const struct cloud *c, enum daemon d, struct err **e)
{
        _cleanup_free_ char *program = NULL, *pidfile = pid_path(c, d);
        int r;

        if (!pidfile)
                return -ENOMEM;
        r = program_path(daemon_name(d), &program, e);
        if (r < 0)
                return r;
        r = become(c, d, NULL, program, pidfile, -1);
        if (r == -EAGAIN)
                return err_set(e, -EEXIST, "%s runs already", daemon_name(d));
        return err_errno(e, r, "run '%s'", program);
}

/* --- the end ------------------------------------------------------------------------------ */

static int await_pidfd(int pidfd, int timeout_ms)
{
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        int n;

        do
                n = poll(&p, 1, timeout_ms);
        while (n < 0 && errno == EINTR);
        return n > 0 ? 0 : -ETIMEDOUT;
}

/* A descriptor of the running daemon, -ENOENT when it does not run.  The second look makes sure
 * that the pid was not recycled in between. */
static int daemon_pidfd(const struct cloud *c, enum daemon d)
{
        _cleanup_close_ int fd = -1;
        pid_t pid, again;
        int r;

        r = daemon_find(c, d, &pid);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0)
                return errno == ESRCH ? -ENOENT : -errno;
        r = daemon_find(c, d, &again);
        if (r < 0)
                return r;
        return r == 0 || again != pid ? -ENOENT : TAKE_FD(fd);
}

int daemon_await_end(const struct cloud *c, enum daemon d, int timeout_ms)
{
        _cleanup_close_ int fd = daemon_pidfd(c, d);

        if (fd < 0)
                return fd == -ENOENT ? 0 : fd;
        return await_pidfd(fd, timeout_ms);
}

static void kill_main(const struct cloud *c, enum daemon d)
{
        pid_t pid;

        if (daemon_find_main(c, d, &pid) > 0 && pid > 0)
                kill(pid, SIGKILL);
}

int daemon_stop(const struct cloud *c, enum daemon d, int timeout_ms, bool hard, struct err **e)
{
        _cleanup_close_ int fd = daemon_pidfd(c, d);

        if (fd == -ENOENT)
                return 0;
        if (fd < 0)
                return err_errno(e, fd, "stop %s", daemon_name(d));
        if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
                return err_errno(e, -errno, "stop %s", daemon_name(d));
        if (await_pidfd(fd, timeout_ms) == 0)
                return 0;
        if (!hard) {
                err_set(e, -ETIMEDOUT, "%s does not end", daemon_name(d));
                return err_hint(e, -ETIMEDOUT,
                                "strato down --force kills it; nothing acknowledged is lost");
        }
        kill_main(c, d); /* then its holder ends, too */
        if (await_pidfd(fd, HOLDER_MS) == 0)
                return 0;
        syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
        if (await_pidfd(fd, timeout_ms) < 0)
                return err_set(e, -ETIMEDOUT, "%s does not even end by SIGKILL", daemon_name(d));
        return 0;
}

int daemon_replace(const struct cloud *c, enum daemon d, int timeout_ms, struct err **e)
{
        int64_t deadline = clock_mono() + (int64_t)timeout_ms * 1000;
        _cleanup_close_ int fd = daemon_pidfd(c, d);
        pid_t old, now;

        if (fd < 0)
                return fd == -ENOENT ? 0 : err_errno(e, fd, "replace %s", daemon_name(d));
        if (daemon_find_main(c, d, &old) <= 0)
                old = 0;
        if (syscall(SYS_pidfd_send_signal, fd, SIGHUP, NULL, 0) < 0)
                return err_errno(e, -errno, "replace %s", daemon_name(d));
        while (clock_mono() < deadline) {
                if (daemon_find_main(c, d, &now) > 0 && now > 0 && now != old)
                        return 1;
                usleep(REPLACE_LOOK_USEC);
        }
        err_set(e, -ETIMEDOUT, "%s was not replaced in time", daemon_name(d));
        return err_hint(e, -ETIMEDOUT, "its log: %s/log/%s.log", c->state, daemon_name(d));
}

bool daemon_alone(const struct cloud *c, enum daemon d)
{
        _cleanup_free_ char *path = pid_path(c, d);
        _cleanup_free_ char *text = NULL;

        return path && file_read(path, 256, &text, NULL, NULL) == 0 && strstr(text, "\nalone\n");
}
