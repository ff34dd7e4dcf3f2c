/* strato wait PATH STATE: one blocking read of PATH/.wait/STATE, with a bar on a terminal. */
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/tree.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/macro.h"

enum {
        LOOK_USEC = 200000, /* how often the bar is drawn */
        GRACE_S = 5,        /* stratod ends the wait itself; past that it is not answering */
        BAR_WIDTH = 32,
};

/* The read, on a thread of its own: nothing else can be interrupted without a signal. */
struct parked {
        const char *path;
        int result; /* 0 reached, -errno */
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool done;
};

static void *parked_main(void *arg)
{
        struct parked *p = arg;
        _cleanup_close_ int fd = open(p->path, O_RDONLY | O_CLOEXEC);
        char text[256];
        ssize_t n = 0;
        int r = fd < 0 ? -errno : 0;

        while (r == 0 && (n = read(fd, text, sizeof(text))) != 0)
                if (n < 0 && errno != EINTR)
                        r = -errno;
        WITH_LOCK(&p->lock);
        p->result = r;
        p->done = true;
        pthread_cond_signal(&p->cond);
        return NULL;
}

/* Percent of PATH's job or upload; negative when nothing is known. */
static double progress(const char *path)
{
        static const char *const files[] = {"job/progress", "progress"};

        for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
                _cleanup_free_ char *file = path_printf("%s/%s", path, files[i]);
                _cleanup_free_ char *line = file ? tree_line(file) : NULL;
                char *end;
                double d;

                if (!line)
                        continue;
                d = strtod(line, &end);
                if (end != line && *end == '%')
                        return MIN(d, 100.0);
        }
        return -1;
}

static void draw(const char *path)
{
        _cleanup_free_ char *file = path_printf("%s/state", path);
        _cleanup_free_ char *state = file ? tree_line(file) : NULL;
        double percent = progress(path);
        int full = percent < 0 ? 0 : (int)(percent * BAR_WIDTH / 100);

        if (percent < 0)
                fprintf(stderr, "\r\033[K%s: %s", path, state ? state : "?");
        else
                fprintf(stderr, "\r\033[K%s: %s [%.*s%*s] %.0f%%", path, state ? state : "?", full,
                        "################################", BAR_WIDTH - full, "", percent);
}

/* Until the read ends; false when stratod let the time pass without an answer. */
static bool await(struct parked *p, const char *path, int timeout)
{
        int64_t end =
                timeout < 0 ? INT64_MAX : clock_mono() + ((int64_t)timeout + GRACE_S) * 1000000;
        bool bar = isatty(2), drawn = false;

        WITH_LOCK(&p->lock);
        while (!p->done && clock_mono() < end) {
                struct timespec ts = clock_timespec(clock_now() + LOOK_USEC);

                pthread_cond_timedwait(&p->cond, &p->lock, &ts);
                if (!bar || p->done)
                        continue;
                pthread_mutex_unlock(&p->lock);
                draw(path);
                drawn = true;
                pthread_mutex_lock(&p->lock);
        }
        if (drawn)
                fputs("\r\033[K", stderr);
        return p->done;
}

/* What the object says for itself, as the error's words. */
static int ended_elsewhere(const char *path, const char *want, struct err **e)
{
        _cleanup_free_ char *state_file = path_printf("%s/state", path);
        _cleanup_free_ char *error_file = path_printf("%s/error", path);
        _cleanup_free_ char *state = state_file ? tree_line(state_file) : NULL;
        _cleanup_free_ char *words = NULL;

        if (error_file && file_read(error_file, 64 << 10, &words, NULL, NULL) == 0)
                for (size_t n = strlen(words); n > 0 && words[n - 1] == '\n'; n--)
                        words[n - 1] = '\0';
        return err_set(e, -EIO, "'%s' is not '%s' but '%s'%s%s", path, want, state ? state : "gone",
                       words && *words ? "\n" : "", words ? words : "");
}

/* Whether path names something in a collection, there or not: `new` is beside it. */
static bool in_collection(const char *path)
{
        const char *slash = strrchr(path, '/');
        _cleanup_free_ char *beside =
                path_printf("%.*s/new", slash ? (int)(slash - path) : 1, slash ? path : ".");

        return beside && access(beside, F_OK) == 0;
}

/* PATH/.wait/STATE[@S] as it was opened failed with ENOENT: what is missing? */
static int nothing_there(const char *path, const char *want, struct err **e)
{
        _cleanup_free_ char *file = path_printf("%s/state", path);
        struct stat st;

        if (stat(path, &st) < 0) {
                int r = -errno;

                return r == -ENOENT && streq(want, "gone") && in_collection(path)
                               ? STATUS_OK
                               : err_errno(e, r, "'%s'", path);
        }
        if (!file || stat(file, &st) < 0)
                return err_set(e, -EINVAL, "'%s' is no object of a cloud", path);
        err_set(e, -EINVAL, "'%s' never is '%s'", path, want);
        return err_hint(e, -EINVAL, "the states are listed in the collection's help");
}

static int timed_out(const struct cloud *c, const char *path)
{
        _cleanup_free_ char *file = path_printf("%s/state", path);
        _cleanup_free_ char *state = file ? tree_line(file) : NULL;

        fprintf(stderr, "strato wait: '%s' is '%s' after %d s, not '%s'\n", path,
                state ? state : "?", c->timeout, c->words[1]);
        return STATUS_TIMEOUT;
}

static int judge(const struct cloud *c, int result, const char *path, struct err **e)
{
        const char *want = c->words[1];

        switch (result) {
        case 0:
                return STATUS_OK;
        case -ETIMEDOUT:
                return timed_out(c, path);
        case -ENOENT:
                return nothing_there(path, want, e);
        case -ENOTDIR:
                return err_set(e, -EINVAL, "'%s' is no object of a cloud", path);
        case -EIO:
                return ended_elsewhere(path, want, e);
        case -ENOTCONN:
        case -ECONNABORTED:
                err_set(e, -ENOTCONN, "the cloud went away");
                return err_hint(e, -ENOTCONN, "strato up, then wait again");
        default:
                return err_errno(e, result, "wait for '%s'", path);
        }
}

int verb_wait(struct cloud *c, struct err **e)
{
        struct parked p = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        _cleanup_free_ char *path = strdup(c->words[0]), *wait = NULL;
        pthread_t thread;
        bool done;
        int r;

        if (!path)
                return -ENOMEM;
        for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
                path[n - 1] = '\0';
        if (!*c->words[1] || strchr(c->words[1], '/'))
                return err_set(e, -EINVAL, "'%s' is no state", c->words[1]);
        if (c->timeout >= 0)
                wait = path_printf("%s/.wait/%s@%d", path, c->words[1], c->timeout);
        else
                wait = path_printf("%s/.wait/%s", path, c->words[1]);
        if (!wait)
                return -ENOMEM;
        p.path = wait;
        r = pthread_create(&thread, NULL, parked_main, &p);
        if (r != 0)
                return err_errno(e, -r, "start a thread");
        done = await(&p, path, c->timeout);
        if (!done) {
                /* Nothing ends a read that a server ignores but our own end. */
                timed_out(c, path);
                fflush(NULL);
                _exit(STATUS_TIMEOUT);
        }
        pthread_join(thread, NULL);
        return judge(c, p.result, path, e);
}
