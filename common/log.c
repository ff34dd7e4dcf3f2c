#include "common/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"

static _Atomic int log_level = LOG_INFO; /* the one debug flag of the process */

/* Whoever can make a daemon say something, must not fill the disk with it: of one sentence so many
 * lines are written in a while.  Sentences are told apart by their format; two that meet in one
 * place share it. */
enum { LINES = 200, WHILE_US = 10 * 1000000, SENTENCES = 256 };

static struct ration {
        _Atomic int64_t since; /* monotonic usec */
        atomic_uint n;
} rations[SENTENCES];

/* Whether a line of this sentence may be written; how many were not, before it. */
static bool may_say(const char *fmt, unsigned *ret_left_out)
{
        struct ration *r = &rations[((uintptr_t)fmt >> 3 ^ (uintptr_t)fmt >> 11) % SENTENCES];
        int64_t now = clock_mono(), since = atomic_load(&r->since);
        unsigned n;

        *ret_left_out = 0;
        if (now - since > WHILE_US && atomic_compare_exchange_strong(&r->since, &since, now)) {
                n = atomic_exchange(&r->n, 1);
                *ret_left_out = n > LINES ? n - LINES : 0;
                return true;
        }
        return atomic_fetch_add(&r->n, 1) < LINES;
}

void log_set_level(int level)
{
        atomic_store(&log_level, level);
}

int log_get_level(void)
{
        return atomic_load(&log_level);
}

void log_line(int level, const char *fmt, ...)
{
        char line[2048], stamp[CLOCK_TEXT_MAX];
        int n, m, saved = errno;
        unsigned left_out = 0;
        va_list ap;

        if (level > log_get_level() || (level < LOG_DEBUG && !may_say(fmt, &left_out)))
                return;
        if (left_out)
                log_line(LOG_WARNING, "%u lines like the next were left out", left_out);
        clock_format(stamp, clock_now());
        n = snprintf(line, sizeof(line), "<%d>%s ", level, stamp);
        errno = saved; /* for %m */
        va_start(ap, fmt);
        m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
        va_end(ap);
        n += MIN(MAX(m, 0), (int)sizeof(line) - n - 2);
        for (int i = 0; i < n; i++) /* what a stranger said begins no line of its own */
                if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
                        line[i] = '?';
        line[n++] = '\n';
        if (write(STDERR_FILENO, line, n) < 0) { /* nowhere left to say it */
        }
        errno = saved;
}
