#include "common/buf.h"

static bool buf_reserve(struct buf *b, size_t more)
{
        size_t size;
        char *p;

        if (b->failed)
                return false;
        if (more > BUF_MAX || b->len + more + 1 > BUF_MAX) {
                b->failed = true;
                return false;
        }
        if (b->len + more + 1 <= b->size)
                return true;
        size = MAX(b->size * 2, b->len + more + 1);
        size = MAX(size, (size_t)128);
        p = realloc(b->data, size);
        if (!p) {
                b->failed = true;
                return false;
        }
        b->data = p;
        b->size = size;
        return true;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
        if (n == 0 || !buf_reserve(b, n))
                return;
        memcpy(b->data + b->len, p, n);
        b->len += n;
        b->data[b->len] = '\0';
}

void buf_addstr(struct buf *b, const char *s)
{
        buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
        buf_add(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
        va_list ap, again;
        int n;

        va_start(ap, fmt);
        va_copy(again, ap);
        n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        if (n > 0 && buf_reserve(b, n)) {
                vsnprintf(b->data + b->len, n + 1, fmt, again);
                b->len += n;
        }
        va_end(again);
}

const char *buf_str(const struct buf *b)
{
        return b->data ? b->data : "";
}

char *buf_take(struct buf *b)
{
        char *p = b->data ? b->data : strdup("");

        *b = (struct buf){};
        return p;
}

void buf_clear(struct buf *b)
{
        b->len = 0;
        b->failed = false;
        if (b->data)
                b->data[0] = '\0';
}

void buf_done(struct buf *b)
{
        free(b->data);
        *b = (struct buf){};
}
