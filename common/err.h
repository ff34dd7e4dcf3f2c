/* Errors with words.
 *
 * The contract, everywhere in the tree:
 *
 *  - A negative return is -errno: unexpected, it goes up unchanged.  The caller may put
 *    context before the words (err_prepend) but never changes the code.
 *  - A positive return is an outcome of that one function, listed in its header comment.
 *    The caller handles it; it is never passed up as it is.
 *  - Only the edges (fs/, blockd/, cli/) turn a code into something on a wire or a screen.
 *  - Library rooms do not log a failure they return.  Whoever stops the climb logs it, once.
 *
 * A message is one phrase: no newline, no full stop, names in single quotes.
 * Every `struct err **e` may be NULL when the caller wants no words. */
#pragma once

#include <stdarg.h>
#include "common/macro.h"

struct err {
        int code;    /* negative errno */
        char *msg;   /* "start 'web': open volume 'root': No such file or directory" */
        char *hint;  /* what would be legal instead; NULL when there is nothing to say */
        char *input; /* the text that was refused; NULL when the failure is not about text */
        size_t at;   /* offset in input of the bad token */
        size_t len;  /* its length; 0 means "here something is missing" */
};

/* Fills *e (which must be empty) and returns code.  When code is negative and the words do not
 * say so themselves, write the strerror text into them with %m or strerror(). */
int err_set(struct err **e, int code, const char *fmt, ...) _printf_(3, 4);
int err_setv(struct err **e, int code, const char *fmt, va_list ap) _printf_(3, 0);

/* err_set() with ": " and the text of the errno behind the words. */
int err_errno(struct err **e, int code, const char *fmt, ...) _printf_(3, 4);

/* Like err_set(), about len bytes at offset at of the n bytes of input (copied, capped at 1 KiB).
 */
int err_at(struct err **e, int code, const char *input, size_t n, size_t at, size_t len,
           const char *fmt, ...) _printf_(7, 8);

/* Puts "words: " before the message that is there (or makes one from code).  Returns code. */
int err_prepend(struct err **e, int code, const char *fmt, ...) _printf_(3, 4);

/* Sets the hint of the error that is there, replacing an earlier one.  Returns code, which is that
 * error's, also where nobody wants its words. */
int err_hint(struct err **e, int code, const char *fmt, ...) _printf_(3, 4);

/* The message of an error that may be NULL. */
const char *err_msg(const struct err *e);

/* Moves src into *dst (which must be empty) or frees it when dst is NULL.  Returns its code. */
int err_move(struct err **dst, struct err *src);

struct err *err_free(struct err *e);
DEFINE_CLEANUP(struct err *, err_free)
#define _cleanup_err_ _cleanup_(err_freep)
