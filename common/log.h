/* Logging to stderr, one line a message, with the "<N>" prefix that journald understands.
 * Threads may log at once: each line is one write(2).  Of one format 200 lines are written in ten
 * seconds, LOG_DEBUG apart; the next that is written is preceded by how many were left out. */
#pragma once

#include <syslog.h>
#include "common/macro.h"

/* Messages above this level are dropped; LOG_INFO at start. */
void log_set_level(int level);
int log_get_level(void);
void log_line(int level, const char *fmt, ...) _printf_(2, 3);

#define log_error(...) log_line(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
