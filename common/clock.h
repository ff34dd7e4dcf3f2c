/* Time as text and as numbers. */
#pragma once

#include <stdint.h>
#include <time.h>

enum { CLOCK_TEXT_MAX = 40 };

/* Wall clock, microseconds since the epoch. */
int64_t clock_now(void);
/* Monotonic clock, microseconds. */
int64_t clock_mono(void);
/* RFC 3339 in UTC with milliseconds: 2026-01-31T12:00:00.123Z.  Returns out. */
char *clock_format(char out[CLOCK_TEXT_MAX], int64_t usec);
/* A timespec from microseconds. */
struct timespec clock_timespec(int64_t usec);
