#include "common/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/log.h"

enum { FAULTS_MAX = 16, DELAY_MAX_MS = 60000, ERRNO_MAX = 133 };

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
};

static struct faults faults;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held for faults */

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

        if (fs->n == FAULTS_MAX || n == 0 || n >= sizeof(f->name))
                return -EINVAL;
        memcpy(f->name, word, n);
        if (!action_parse(f, eq + 1))
                return -EINVAL;
        fs->n++;
        return 0;
}

int fault_set(const char *points)
{
        _cleanup_free_ char *copy = strdup(points);
        struct faults fs = {};
        char *save = NULL;

        if (!fault_armed)
                return -EPERM;
        if (!copy)
                return -ENOMEM;
        for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save))
                if (fault_parse(&fs, w) < 0)
                        return -EINVAL;
        WITH_LOCK(&lock);
        faults = fs;
        return 0;
}

void fault_init(void)
{
        const char *env = getenv("STRATOFS_FAULT");

        fault_armed = env;
        if (env && fault_set(env) < 0) {
                log_error("STRATOFS_FAULT: '%s' is not understood", env);
                exit(2);
        }
}

/* What this hit of the point asks for, if anything. */
static bool fault_due(const char *name, struct fault *ret)
{
        bool due = false;

        WITH_LOCK(&lock);
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
