#include "common/fault.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/fileio.h"
#include "common/log.h"

enum { FAULTS_MAX = 16, DELAY_MAX_MS = 60000, ERRNO_MAX = 133, FILE_MAX = 4096 };

bool fault_armed;

struct fault {
        char name[64];
        enum { FAIL, DELAY, KILL } action;
        int value; /* a negative errno; milliseconds */
        int nth;   /* 0: every time */
        int count;
};

struct faults {
        struct fault list[FAULTS_MAX];
        int n;
        bool trace;
};

static struct faults faults;
static const char *file; /* where the points are; NULL: they are not in a file */
static struct stat seen; /* of that file, when it was read */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held for faults and seen */

/* 0 if there is no such errno. */
static int errno_parse(const char *name)
{
        if (streq(name, "ENOTSUP"))
                return -ENOTSUP;
        for (int i = 1; i <= ERRNO_MAX; i++)
                if (strerrorname_np(i) && streq(strerrorname_np(i), name))
                        return -i;
        return 0;
}

/* The whole of s as a number in 1..max. */
static bool number_parse(const char *s, int max, int *ret)
{
        char *end;
        long v;

        errno = 0;
        v = strtol(s, &end, 10);
        if (errno || end == s || *end || v < 1 || v > max)
                return false;
        *ret = v;
        return true;
}

/* ACTION[:N]; s is cut up. */
static bool action_parse(struct fault *f, char *s)
{
        char *save = NULL, *action = strtok_r(s, ":", &save), *n;

        if (!action)
                return false;
        if (streq(action, "kill")) {
                f->action = KILL;
        } else if (streq(action, "delay")) {
                char *ms = strtok_r(NULL, ":", &save);

                f->action = DELAY;
                if (!ms || !number_parse(ms, DELAY_MAX_MS, &f->value))
                        return false;
        } else {
                f->action = FAIL;
                f->value = errno_parse(action);
                if (!f->value)
                        return false;
        }
        n = strtok_r(NULL, "", &save);
        return !n || number_parse(n, INT32_MAX, &f->nth);
}

static int fault_parse(struct faults *fs, char *word)
{
        struct fault *f = &fs->list[fs->n];
        char *eq = strchr(word, '=');
        size_t n = eq ? eq - word : 0;

        if (file && streq(word, "trace")) {
                fs->trace = true;
                return 0;
        }
        if (fs->n == FAULTS_MAX || n == 0 || n >= sizeof(f->name))
                return -EINVAL;
        memcpy(f->name, word, n);
        if (!action_parse(f, eq + 1))
                return -EINVAL;
        fs->n++;
        return 0;
}

static int points_parse(const char *points, struct faults *ret)
{
        _cleanup_free_ char *copy = strdup(points);
        char *save = NULL;

        if (!copy)
                return -ENOMEM;
        *ret = (struct faults){};
        for (char *w = strtok_r(copy, ",\n", &save); w; w = strtok_r(NULL, ",\n", &save))
                if (fault_parse(ret, w) < 0)
                        return -EINVAL;
        return 0;
}

int fault_set(const char *points)
{
        struct faults fs;
        int r;

        if (!fault_armed)
                return -EPERM;
        r = points_parse(points, &fs);
        if (r < 0)
                return r;
        WITH_LOCK(&lock);
        faults = fs;
        return 0;
}

/* Lock held. */
static void file_look(void)
{
        _cleanup_free_ char *text = NULL;
        struct stat st = {};

        if (stat(file, &st) < 0)
                st = (struct stat){};
        if (st.st_ino == seen.st_ino && st.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
            st.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
                return;
        seen = st;
        faults = (struct faults){};
        if (st.st_ino && file_read(file, FILE_MAX, &text, NULL, NULL) == 0 &&
            points_parse(text, &faults) < 0) {
                log_error("'%s': '%s' is not understood", file, text);
                exit(2);
        }
}

void fault_init(void)
{
        const char *env = getenv("STRATOFS_FAULT");

        fault_armed = env;
        if (env && *env == '@')
                file = env + 1;
        else if (env && fault_set(env) < 0) {
                log_error("STRATOFS_FAULT: '%s' is not understood", env);
                exit(2);
        }
}

/* Lock held. */
static void trace(const char *name)
{
        _cleanup_free_ char *path = path_printf("%s.trace", file);
        _cleanup_close_ int fd =
                path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;

        if (fd < 0 || dprintf(fd, "%s %s\n", program_invocation_short_name, name) < 0)
                log_warning("fault point '%s' cannot be traced: %m", name);
}

/* What this hit of the point asks for, if anything. */
static bool fault_due(const char *name, struct fault *ret)
{
        bool due = false;

        WITH_LOCK(&lock);
        if (file)
                file_look();
        if (faults.trace)
                trace(name);
        for (int i = 0; i < faults.n; i++) {
                struct fault *f = &faults.list[i];

                if (!streq(f->name, name) || (++f->count != f->nth && f->nth != 0) || due)
                        continue;
                *ret = *f;
                due = true;
        }
        return due;
}

int fault_hit(const char *name)
{
        struct fault f = {};
        struct timespec t;

        if (!fault_due(name, &f))
                return 0;
        log_warning("fault point '%s'", name);
        switch (f.action) {
        case KILL:
                if (file)
                        unlink(file);
                kill(getpid(), SIGKILL);
                break;
        case DELAY:
                t = clock_timespec(f.value * INT64_C(1000));
                while (nanosleep(&t, &t) < 0 && errno == EINTR) {
                }
                break;
        case FAIL:
                return f.value;
        }
        return 0;
}

int fault_hit_of(const char *room, const char *what)
{
        char name[sizeof(((struct fault *)0)->name)];

        snprintf(name, sizeof(name), "%s.%s", room, what);
        return fault_hit(name);
}
