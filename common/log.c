#include "common/log.h"

#include <stdarg.h>
#include <stdatomic.h>

#include "common/clock.h"

static _Atomic int log_level = LOG_INFO; /* the one debug flag of the process */

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
        va_list ap;

        if (level > log_get_level())
                return;
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
