#include "backend/compute/libvirt/driver.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/fileio.h"

enum { SCAN_MS = 20, LINGER_US = 1000000, CHILDREN_MAX = 64 << 10 };

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

struct reaper {
        pthread_t thread;
        pthread_mutex_t lock;
        int wake; /* eventfd: something below changed */
        int busy;
        int64_t linger; /* the last one was busy until then, and what it left may still die */
        bool quit;
        struct pollfd *fds; /* [0] is wake, the others pidfds */
        size_t nfds, size;
};

/* libvirt's own emulator probes lead a session; nothing else that this process starts directly does
 * so under that name. */
static bool is_qemu(pid_t pid)
{
        _cleanup_free_ char *comm = NULL;
        char path[32];

        snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
        return file_read(path, 64, &comm, NULL, NULL) == 0 &&
               strncmp(comm, "qemu-system", strlen("qemu-system")) == 0;
}

/* Reaps pid if it is dead and adopted; see driver.h for how that is known. */
static void reap_one(pid_t pid)
{
        pid_t sid = getsid(pid);

        if (sid > 0 && sid != getsid(0) && (sid != pid || is_qemu(pid)))
                waitpid(pid, NULL, WNOHANG);
}

/* The children of one of our threads. */
static void scan_thread(int tasks, const char *tid)
{
        char path[64], *text, *p, *end;
        ssize_t n, got = 0;
        _cleanup_close_ int fd = -1;

        snprintf(path, sizeof(path), "%.20s/children", tid);
        fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return;
        text = malloc(CHILDREN_MAX);
        if (!text)
                return;
        while (got < CHILDREN_MAX - 1 && (n = read(fd, text + got, CHILDREN_MAX - 1 - got)) > 0)
                got += n;
        text[got] = '\0';
        for (p = text; strtol(p, &end, 10) > 0; p = end)
                reap_one((pid_t)strtol(p, NULL, 10));
        free(text);
}

static void scan(void)
{
        siginfo_t si = {0};
        struct dirent *de;
        DIR *dir;

        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0)
                return; /* nobody is dead */
        reap_one(si.si_pid);
        dir = opendir("/proc/self/task");
        if (!dir)
                return;
        while ((de = readdir(dir)))
                if (de->d_name[0] != '.')
                        scan_thread(dirfd(dir), de->d_name);
        closedir(dir);
}

/* Reaps those whose pidfd is readable, and forgets them. */
static void collect(struct reaper *r, struct pollfd *seen, size_t n)
{
        siginfo_t si;

        for (size_t i = 1; i < n; i++) {
                if (!seen[i].revents)
                        continue;
                waitid((idtype_t)P_PIDFD, (id_t)seen[i].fd, &si, WEXITED | WNOHANG);
                for (size_t j = 1; j < r->nfds; j++)
                        if (r->fds[j].fd == seen[i].fd) {
                                close(seen[i].fd);
                                r->fds[j] = r->fds[--r->nfds];
                                break;
                        }
        }
}

static void *run(void *arg)
{
        struct reaper *r = arg;

        pthread_mutex_lock(&r->lock);
        while (!r->quit) {
                int timeout = r->busy || clock_mono() < r->linger ? SCAN_MS : -1;
                size_t n = r->nfds;
                struct pollfd *seen = malloc(n * sizeof(*seen));
                uint64_t count;

                if (seen)
                        memcpy(seen, r->fds, n * sizeof(*seen));
                pthread_mutex_unlock(&r->lock);
                if (seen)
                        poll(seen, n, timeout);
                else /* no memory: at least do not spin */
                        poll(NULL, 0, 1000);
                if (read(r->wake, &count, sizeof(count)) < 0) { /* EAGAIN: it was not that */
                }
                if (timeout >= 0)
                        scan();
                pthread_mutex_lock(&r->lock);
                if (seen)
                        collect(r, seen, n);
                free(seen);
        }
        pthread_mutex_unlock(&r->lock);
        return NULL;
}

static void wake_up(struct reaper *r)
{
        uint64_t one = 1;

        if (write(r->wake, &one, sizeof(one)) < 0) { /* full: it wakes all the same */
        }
}

static struct reaper *reaper_free(struct reaper *r)
{
        for (size_t i = 0; i < r->nfds; i++)
                close(r->fds[i].fd);
        free(r->fds);
        pthread_mutex_destroy(&r->lock);
        free(r);
        return NULL;
}

int reaper_start(struct reaper **ret, struct err **e)
{
        struct reaper *r = calloc(1, sizeof(*r));
        int code;

        if (!r)
                return err_errno(e, -ENOMEM, "start the reaper");
        pthread_mutex_init(&r->lock, NULL);
        r->size = 16;
        r->fds = calloc(r->size, sizeof(*r->fds));
        r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (!r->fds || r->wake < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) {
                code = r->fds ? -errno : -ENOMEM;
                if (r->wake >= 0)
                        close(r->wake);
                reaper_free(r);
                return err_errno(e, code, "start the reaper");
        }
        r->fds[r->nfds++] = (struct pollfd){.fd = r->wake, .events = POLLIN};
        code = -pthread_create(&r->thread, NULL, run, r);
        if (code < 0) {
                reaper_free(r);
                return err_errno(e, code, "start the reaper");
        }
        *ret = r;
        return 0;
}

void reaper_stop(struct reaper *r)
{
        if (!r)
                return;
        pthread_mutex_lock(&r->lock);
        r->quit = true;
        pthread_mutex_unlock(&r->lock);
        wake_up(r);
        pthread_join(r->thread, NULL);
        /* Nobody is left to reap: let the next subreaper or process 1 have them. */
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
        reaper_free(r);
}

void reaper_busy(struct reaper *r, int change)
{
        if (!r)
                return;
        pthread_mutex_lock(&r->lock);
        r->busy += change;
        r->linger = clock_mono() + LINGER_US;
        pthread_mutex_unlock(&r->lock);
        if (change > 0)
                wake_up(r);
}

static void watch(struct reaper *r, pid_t pid)
{
        struct pollfd *more;
        int fd;

        fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0)
                return;
        pthread_mutex_lock(&r->lock);
        if (r->nfds == r->size) {
                more = reallocarray(r->fds, r->size, 2 * sizeof(*more));
                if (more) {
                        r->fds = more;
                        r->size *= 2;
                }
        }
        if (r->nfds < r->size)
                r->fds[r->nfds++] = (struct pollfd){.fd = fd, .events = POLLIN};
        else /* no memory: it is reaped by the next scan */
                close(fd);
        pthread_mutex_unlock(&r->lock);
        wake_up(r);
}

void reaper_watch_guest(struct reaper *r, const char *root, const char *name)
{
        _cleanup_free_ char *path = NULL, *text = NULL;
        long pid;

        if (!r)
                return;
        path = path_printf("%s/run/qemu/%s.pid", root, name);
        if (!path || file_read(path, 64, &text, NULL, NULL) < 0)
                return;
        pid = strtol(text, NULL, 10);
        if (pid > 1)
                watch(r, (pid_t)pid);
}

void reaper_watch_all(struct reaper *r, const char *root)
{
        _cleanup_free_ char *path = path_printf("%s/run/qemu", root);
        DIR *dir = path ? opendir(path) : NULL;
        struct dirent *de;

        while (dir && (de = readdir(dir))) {
                char *dot = strrchr(de->d_name, '.');

                if (!dot || !streq(dot, ".pid") || streq(de->d_name, "driver.pid"))
                        continue;
                *dot = '\0';
                reaper_watch_guest(r, root, de->d_name);
        }
        if (dir)
                closedir(dir);
}
