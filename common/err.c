#include "common/err.h"

enum { INPUT_MAX = 1024 };

struct err *err_free(struct err *e)
{
        if (!e)
                return NULL;
        free(e->msg);
        free(e->hint);
        free(e->input);
        free(e);
        return NULL;
}

int err_setv(struct err **e, int code, const char *fmt, va_list ap)
{
        struct err *n;

        if (!e)
                return code;
        n = calloc(1, sizeof(*n));
        if (!n)
                return code; /* the code still goes up; only the words are lost */
        n->code = code;
        if (vasprintf(&n->msg, fmt, ap) < 0)
                n->msg = NULL;
        err_free(*e);
        *e = n;
        return code;
}

int err_set(struct err **e, int code, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        err_setv(e, code, fmt, ap);
        va_end(ap);
        return code;
}

int err_errno(struct err **e, int code, const char *fmt, ...)
{
        char *whole;
        va_list ap;

        if (!e)
                return code;
        va_start(ap, fmt);
        err_setv(e, code, fmt, ap);
        va_end(ap);
        if (*e && (*e)->msg && asprintf(&whole, "%s: %s", (*e)->msg, strerror(-code)) >= 0) {
                free((*e)->msg);
                (*e)->msg = whole;
        }
        return code;
}

int err_at(struct err **e, int code, const char *input, size_t n, size_t at, size_t len,
           const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        err_setv(e, code, fmt, ap);
        va_end(ap);
        if (!e || !*e)
                return code;
        (*e)->input = strndup(input, MIN(n, (size_t)INPUT_MAX));
        (*e)->at = MIN(at, n);
        (*e)->len = len;
        return code;
}

int err_prepend(struct err **e, int code, const char *fmt, ...)
{
        _cleanup_free_ char *front = NULL;
        char *whole;
        va_list ap;

        if (!e)
                return code;
        if (!*e)
                err_set(e, code, "%s", strerror(-code));
        va_start(ap, fmt);
        if (vasprintf(&front, fmt, ap) < 0)
                front = NULL;
        va_end(ap);
        if (*e && front && asprintf(&whole, "%s: %s", front, err_msg(*e)) >= 0) {
                free((*e)->msg);
                (*e)->msg = whole;
        }
        return code;
}

int err_hint(struct err **e, int code, const char *fmt, ...)
{
        va_list ap;
        char *hint;

        if (!e || !*e)
                return code;
        va_start(ap, fmt);
        if (vasprintf(&hint, fmt, ap) >= 0) {
                free((*e)->hint);
                (*e)->hint = hint;
        }
        va_end(ap);
        return code;
}

const char *err_msg(const struct err *e)
{
        return e && e->msg ? e->msg : "no details (out of memory)";
}

int err_move(struct err **dst, struct err *src)
{
        int code = src ? src->code : 0;

        if (dst) {
                err_free(*dst);
                *dst = src;
        } else {
                err_free(src);
        }
        return code;
}
