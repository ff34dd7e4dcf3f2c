#include "common/clock.h"

#include <stdio.h>

static int64_t clock_read(clockid_t id)
{
        struct timespec ts;

        clock_gettime(id, &ts);
        return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_now(void)
{
        return clock_read(CLOCK_REALTIME);
}

int64_t clock_mono(void)
{
        return clock_read(CLOCK_MONOTONIC);
}

char *clock_format(char out[CLOCK_TEXT_MAX], int64_t usec)
{
        time_t sec = usec / 1000000;
        struct tm tm;
        size_t n;

        gmtime_r(&sec, &tm);
        n = strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(out + n, CLOCK_TEXT_MAX - n, ".%03dZ", (int)(usec / 1000 % 1000));
        return out;
}

struct timespec clock_timespec(int64_t usec)
{
        return (struct timespec){.tv_sec = usec / 1000000, .tv_nsec = usec % 1000000 * 1000};
}
