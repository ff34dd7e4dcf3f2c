#include <ctype.h>
#include "fs/frame.h"

void frame_reset(struct frame *f)
{
        buf_clear(&f->pending);
        f->json = f->string = f->escape = false;
        f->depth = 0;
        f->scanned = 0;
}

void frame_done(struct frame *f)
{
        buf_done(&f->pending);
        *f = (struct frame){0};
}

static int add(struct frame *f, const char *p, size_t n, size_t max, struct err **e)
{
        if (n > max || f->pending.len + n > max) {
                frame_reset(f);
                return err_set(e, -EFBIG, "more than %zu bytes in one value", max);
        }
        buf_add(&f->pending, p, n);
        return f->pending.failed ? -ENOMEM : 0;
}

static int take_line(frame_take take, void *arg, const char *p, size_t n, struct err **e)
{
        while (n && isspace((unsigned char)p[n - 1]))
                n--;
        while (n && isspace((unsigned char)*p))
                p++, n--;
        return n ? take(arg, p, n, e) : 0;
}

int frame_lines(struct frame *f, const char *p, size_t n, size_t max, frame_take take, void *arg,
                struct err **e)
{
        bool alone = !f->pending.len && !memchr(p, '\n', n);
        int r;

        if (alone && n <= max)
                return take_line(take, arg, p, n, e);
        while (n) {
                const char *nl = memchr(p, '\n', n);
                size_t len = nl ? (size_t)(nl - p) + 1 : n;

                r = add(f, p, len, max, e);
                if (r < 0)
                        return r;
                p += len;
                n -= len;
                if (!nl)
                        break;
                r = take_line(take, arg, f->pending.data, f->pending.len, e);
                frame_reset(f);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Moves the tracker over pending; true when the outermost brace has closed at *end. */
static bool json_closed(struct frame *f, size_t *end)
{
        for (; f->scanned < f->pending.len; f->scanned++) {
                char c = f->pending.data[f->scanned];

                if (f->escape)
                        f->escape = false;
                else if (f->string && c == '\\')
                        f->escape = true;
                else if (c == '"')
                        f->string = !f->string;
                else if (f->string)
                        continue;
                else if (c == '{' || c == '[')
                        f->depth++;
                else if ((c == '}' || c == ']') && --f->depth == 0) {
                        *end = ++f->scanned;
                        return true;
                }
        }
        return false;
}

int frame_json(struct frame *f, const char *p, size_t n, size_t max, frame_take take, void *arg,
               struct err **e)
{
        while (n) {
                size_t before = f->pending.len, end, used;
                int r;

                if (!before) {
                        while (n && isspace((unsigned char)*p))
                                p++, n--;
                        if (!n)
                                return 0;
                        if (*p != '{')
                                return err_at(e, -EINVAL, p, n, 0, 1,
                                              "a JSON object begins with a brace");
                }
                f->json = true;
                r = add(f, p, n, max, e);
                if (r < 0)
                        return r;
                if (!json_closed(f, &end))
                        return 0;
                used = end - before;
                r = take(arg, f->pending.data, end, e);
                frame_reset(f);
                if (r < 0)
                        return r;
                p += used;
                n -= used;
        }
        return 0;
}

void frame_again(struct frame *f, const char *p, size_t n, bool json)
{
        size_t end;

        frame_reset(f);
        buf_add(&f->pending, p, n);
        f->json = json;
        if (json)
                (void)json_closed(f, &end);
}

int frame_either(struct frame *f, const char *p, size_t n, size_t max, frame_take line,
                 frame_take json, void *arg, struct err **e)
{
        size_t blank = 0;

        while (blank < n && isspace((unsigned char)p[blank]))
                blank++;
        if (f->pending.len ? f->json : blank < n && p[blank] == '{')
                return frame_json(f, p, n, max, json, arg, e);
        return frame_lines(f, p, n, max, line, arg, e);
}

int frame_flush(struct frame *f, frame_take line, void *arg, struct err **e)
{
        int r = 0;

        if (!f->pending.len)
                return 0;
        if (f->json)
                r = err_at(e, -EINVAL, f->pending.data, f->pending.len, f->pending.len, 0,
                           "the JSON object is not closed");
        else if (line)
                r = take_line(line, arg, f->pending.data, f->pending.len, e);
        frame_reset(f);
        return r;
}
