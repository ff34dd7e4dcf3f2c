/* A growable text buffer with a ceiling.  Zero-initialised is valid and empty. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include "common/macro.h"

struct buf {
        char *data;  /* NUL-terminated once anything was added; NULL before */
        size_t len;  /* bytes, without the NUL */
        size_t size; /* allocated */
        bool failed; /* memory or the ceiling ran out: what follows was dropped */
};

enum { BUF_MAX = 64 << 20 }; /* no text of ours is larger */

void buf_add(struct buf *b, const void *p, size_t n);
void buf_addstr(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
/* The text, never NULL; valid until the next change. */
const char *buf_str(const struct buf *b);
/* Gives the memory to the caller (free()); the buffer is empty afterwards. */
char *buf_take(struct buf *b);
void buf_clear(struct buf *b); /* empties, keeps the memory */
void buf_done(struct buf *b);
#define _cleanup_buf_ _cleanup_(buf_done)
