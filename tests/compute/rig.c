#include "rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <cmocka.h>
#include <glob.h>

#include "common/clock.h"
#include "common/fileio.h"

extern char **environ;

char *fmt(const char *f, ...)
{
        static char *keep[4096]; /* reachable, so that the leak checker has no complaint */
        static unsigned n;
        va_list ap;
        char *s;

        va_start(ap, f);
        assert_true(vasprintf(&s, f, ap) >= 0);
        va_end(ap);
        assert_true(n < ARRAY_SIZE(keep));
        keep[n++] = s;
        return s;
}

pid_t spawn(const char *const *argv, int *out, int pass_fd)
{
        posix_spawn_file_actions_t fa;
        int pipefd[2];
        pid_t pid;

        posix_spawn_file_actions_init(&fa);
        if (out) {
                assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
                posix_spawn_file_actions_adddup2(&fa, pipefd[1], STDOUT_FILENO);
        }
        if (pass_fd >= 0)
                posix_spawn_file_actions_adddup2(&fa, pass_fd, 3);
        assert_int_equal(posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)argv, environ), 0);
        posix_spawn_file_actions_destroy(&fa);
        if (out) {
                close(pipefd[1]);
                *out = pipefd[0];
        }
        return pid;
}

static void run(const char *const *argv)
{
        pid_t pid = spawn(argv, NULL, -1);
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void find_kernel(struct rig *r)
{
        const char *make = getenv("MAKE_INITRD"), *release;
        glob_t g;

        if (glob("/boot/vmlinuz-*-cloud-amd64", 0, NULL, &g) != 0)
                fail_msg("package linux-image-cloud-amd64 is needed");
        r->kernel = fmt("%s", g.gl_pathv[g.gl_pathc - 1]);
        globfree(&g);
        release = r->kernel + strlen("/boot/vmlinuz-");
        r->initrd = fmt("%s/initrd", r->dir);
        if (access(r->initrd, R_OK) < 0)
                run((const char *[]){make ? make : SOURCE_DIR "/make-initrd", r->initrd, release,
                                     NULL});
}

struct rig *rig_new(enum compute_mode mode, const char *dir)
{
        struct rig *r = calloc(1, sizeof(*r));
        pthread_condattr_t attr;

        assert_non_null(r);
        umask(022);
        r->mode = mode;
        snprintf(r->dir, sizeof(r->dir), "%s", dir ? dir : "/tmp/sc-XXXXXX");
        if (!dir)
                assert_non_null(mkdtemp(r->dir));
        chmod(r->dir, 0711);
        mkdir(fmt("%s/disk", r->dir), 0711);
        mkdir(fmt("%s/console", r->dir), 0700); /* root's: guests must not need to enter */
        pthread_mutex_init(&r->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&r->cond, &attr);
        find_kernel(r);
        return r;
}

static void on_changed(void *arg, const char *uuid, enum guest_state now, enum guest_reason why)
{
        struct rig *r = arg;

        pthread_mutex_lock(&r->lock);
        printf("# event %.8s %s %d\n", uuid, guest_state_name(now), why);
        if (r->nevents < EVENTS_MAX) {
                struct event *ev = &r->events[r->nevents++];

                snprintf(ev->uuid, sizeof(ev->uuid), "%s", uuid);
                ev->state = now;
                ev->why = why;
        }
        pthread_cond_broadcast(&r->cond);
        pthread_mutex_unlock(&r->lock);
}

static void on_resync(void *arg)
{
        struct rig *r = arg;

        pthread_mutex_lock(&r->lock);
        r->resyncs++;
        pthread_cond_broadcast(&r->cond);
        pthread_mutex_unlock(&r->lock);
}

int rig_try_open(struct rig *r, struct err **e)
{
        struct compute_config cfg = {.mode = r->mode,
                                     .state = fmt("%s/state", r->dir),
                                     .owner = r->dir,
                                     .reconnect = RECONNECT_S};
        struct compute_events ev = {.changed = on_changed, .resync = on_resync, .arg = r};

        return compute_open(&cfg, &ev, &r->c, e);
}

void rig_open(struct rig *r)
{
        _cleanup_err_ struct err *e = NULL;
        int64_t t = clock_mono();

        if (rig_try_open(r, &e) < 0)
                fail_msg("open: %s", err_msg(e));
        printf("# open: %d ms\n", (int)((clock_mono() - t) / 1000));
}

void rig_close(struct rig *r)
{
        if (r->c)
                r->c->ops->close(r->c);
        r->c = NULL;
}

static int destroy_one(void *arg, const char *uuid, enum guest_state s)
{
        struct rig *r = arg;

        return r->c->ops->destroy(r->c, uuid, NULL);
}

void rig_free(struct rig *r)
{
        if (r->c)
                r->c->ops->list(r->c, destroy_one, r, NULL);
        rig_close(r);
        remove_tree(r->dir, NULL);
        free(r);
}

char *disk_file(struct rig *r, const char *name, off_t size)
{
        char *path = fmt("%s/disk/%s.img", r->dir, name);
        _cleanup_close_ int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        struct stat st;

        assert_true(fd >= 0);
        assert_int_equal(fstat(fd, &st), 0);
        if (st.st_size < size)
                assert_int_equal(ftruncate(fd, size), 0);
        return path;
}

pid_t disk_start(struct rig *r, const char *name, uid_t uid)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        pid_t pid;

        snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/disk/%s.sock", r->dir, name);
        unlink(sa.sun_path);
        assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
        assert_int_equal(chmod(sa.sun_path, 0600), 0);
        if (uid != (uid_t)-1)
                assert_int_equal(chown(sa.sun_path, uid, uid), 0);
        assert_int_equal(listen(fd, 16), 0);
        /* Socket activation: it can be connected to from here on, nothing to wait for. */
        pid = spawn((const char *[]){"sh", "-c",
                                     "LISTEN_PID=$$ LISTEN_FDS=1 exec nbdkit -f file \"$0\"",
                                     disk_file(r, name, 64 << 20), NULL},
                    NULL, fd);
        close(fd);
        return pid;
}

void disk_kill(pid_t pid)
{
        int status;

        assert_int_equal(kill(pid, SIGKILL), 0);
        /* Nobody may have reaped a child of ours before us. */
        assert_int_equal(waitpid(pid, &status, 0), pid);
}

static struct timespec deadline(void)
{
        return clock_timespec(clock_mono() + WAIT_MS * INT64_C(1000));
}

void expect_event(struct rig *r, const char *uuid, enum guest_state s, enum guest_reason why)
{
        struct timespec until = deadline();
        const struct event *ev;

        pthread_mutex_lock(&r->lock);
        for (;;) {
                while (r->seen == r->nevents)
                        if (pthread_cond_timedwait(&r->cond, &r->lock, &until) == ETIMEDOUT) {
                                pthread_mutex_unlock(&r->lock);
                                fail_msg("no event '%s' came", guest_state_name(s));
                        }
                ev = &r->events[r->seen++];
                /* A start tells "running" twice: repeats mean nothing. */
                if (!streq(ev->uuid, uuid) ||
                    (ev > r->events && ev->state == ev[-1].state && streq(ev->uuid, ev[-1].uuid)))
                        continue;
                if (ev->state == s && ev->why == why)
                        break;
                pthread_mutex_unlock(&r->lock);
                fail_msg("event '%s' (%d) instead of '%s' (%d)", guest_state_name(ev->state),
                         ev->why, guest_state_name(s), why);
        }
        pthread_mutex_unlock(&r->lock);
}

void forget_events(struct rig *r)
{
        pthread_mutex_lock(&r->lock);
        r->seen = r->nevents = 0;
        pthread_mutex_unlock(&r->lock);
}

void expect_resync(struct rig *r, unsigned count)
{
        struct timespec until = deadline();

        pthread_mutex_lock(&r->lock);
        while (r->resyncs < count)
                if (pthread_cond_timedwait(&r->cond, &r->lock, &until) == ETIMEDOUT) {
                        pthread_mutex_unlock(&r->lock);
                        fail_msg("no resync came");
                }
        pthread_mutex_unlock(&r->lock);
}

size_t file_size(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

/* Where the words end in the file behind `from`; 0 when they are not there. */
static size_t find_words(const char *log, const char *words, size_t from, bool show_end)
{
        _cleanup_free_ char *text = NULL;
        const char *at;
        size_t len;

        assert_int_equal(file_read(log, 16 << 20, &text, &len, NULL), 0);
        for (size_t i = 0; i < len; i++) /* a console may say NUL */
                text[i] = text[i] ? text[i] : ' ';
        at = from < len ? strstr(text + from, words) : NULL;
        if (!at && show_end)
                printf("# the console ends: %s\n", text + (len > 400 ? len - 400 : 0));
        return at ? (size_t)(at - text) + strlen(words) : 0;
}

size_t expect_words_or(const char *log, const char *words, size_t from, int tick_ms,
                       void (*tick)(void *arg), void *arg)
{
        int64_t until = clock_mono() + WAIT_MS * INT64_C(1000);
        _cleanup_close_ int in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        struct pollfd p = {.fd = in, .events = POLLIN};
        char junk[4096];
        size_t at;

        assert_true(in >= 0);
        assert_true(inotify_add_watch(in, log, IN_MODIFY) >= 0);
        while ((at = find_words(log, words, from, false)) == 0) {
                int left = (int)MAX(0, (until - clock_mono()) / 1000);

                if (left == 0) {
                        find_words(log, words, from, true);
                        fail_msg("'%s' did not come on the console", words);
                }
                poll(&p, 1, tick ? MIN(left, tick_ms) : left);
                while (read(in, junk, sizeof(junk)) > 0)
                        ;
                if (tick)
                        tick(arg);
        }
        return at;
}

size_t expect_words(const char *log, const char *words, size_t from)
{
        return expect_words_or(log, words, from, 0, NULL, NULL);
}

bool last_event_is(struct rig *r, const char *uuid, enum guest_state s)
{
        bool is = false;

        pthread_mutex_lock(&r->lock);
        for (unsigned i = 0; i < r->nevents; i++)
                if (streq(r->events[i].uuid, uuid))
                        is = r->events[i].state == s;
        pthread_mutex_unlock(&r->lock);
        return is;
}

bool saw_event(struct rig *r, const char *uuid, enum guest_state s)
{
        bool saw = false;

        pthread_mutex_lock(&r->lock);
        for (unsigned i = 0; i < r->nevents; i++)
                saw |= r->events[i].state == s && streq(r->events[i].uuid, uuid);
        pthread_mutex_unlock(&r->lock);
        return saw;
}

void expect_no_words(const char *log, const char *words, size_t from)
{
        if (find_words(log, words, from, false))
                fail_msg("'%s' is on the console", words);
}

pid_t qemu_pid(const char *uuid)
{
        DIR *d = opendir("/proc");
        struct dirent *de;
        pid_t found = 0;

        assert_non_null(d);
        while (!found && (de = readdir(d))) {
                _cleanup_free_ char *text = NULL;
                char path[64];
                size_t len = 0;

                snprintf(path, sizeof(path), "/proc/%.20s/cmdline", de->d_name);
                if (atoi(de->d_name) <= 1 || file_read(path, 1 << 20, &text, &len, NULL) < 0)
                        continue;
                if (strstr(text, "qemu-system") && memmem(text, len, uuid, strlen(uuid)))
                        found = atoi(de->d_name);
        }
        closedir(d);
        return found;
}

struct guest_disk rig_disk(struct rig *r, const char *target, const char *name, const char *serial)
{
        struct guest_disk d = {
                .socket = fmt("%s/disk/%s.sock", r->dir, name), .export = "", .serial = serial};

        snprintf(d.target, sizeof(d.target), "%s", target);
        return d;
}

struct guest rig_guest(struct rig *r, unsigned number, const struct guest_disk *disks,
                       unsigned ndisks)
{
        struct guest g = {
                .name = fmt("t%u-%s", number, strrchr(r->dir, '-') + 1),
                .title = "tenant/<web> & \"co\"",
                .vcpus = 1,
                .memory = 192 << 20,
                .uid = geteuid() == 0 ? 64000 + number : (uid_t)-1,
                .gid = geteuid() == 0 ? 64000 + number : (gid_t)-1,
                .disks = disks,
                .ndisks = ndisks,
                .console_log = fmt("%s/console/%u.log", r->dir, number),
                .console_sock = fmt("%s/console/%u.sock", r->dir, number),
                .agent_sock = fmt("%s/console/%u.agent", r->dir, number),
                .kernel = r->kernel,
                .initrd = r->initrd,
                .cmdline = "console=ttyS0 no_timer_check panic=-1 quiet writer",
        };

        snprintf(g.uuid, sizeof(g.uuid), "5f000000-0000-4000-8000-%06u%06u", number,
                 (unsigned)getpid() % 1000000);
        return g;
}
