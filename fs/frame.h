/* What a program writes, cut into lines or JSON objects.
 *
 * Shells write a line at a time or all at once, and lose the error of a close: whatever is whole
 * is carried out in the write that brought it (stratofs(5), "Writing"). */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct frame {
        struct buf pending; /* a partial line, or a JSON object that is still open */
        bool json;          /* pending is JSON */
        size_t scanned;     /* of pending, JSON: bytes the tracker has seen */
        unsigned depth;     /* open braces and brackets */
        bool string, escape;
};

typedef int (*frame_take)(void *arg, const char *p, size_t n, struct err **e);

/* Lines: each complete one, trimmed, non-empty, goes to take.  A partial last line waits, unless
 * it is the whole write and nothing waited before it.  The first failure ends it and drops the
 * rest.  -EFBIG when more than max waits. */
int frame_lines(struct frame *f, const char *p, size_t n, size_t max, frame_take take, void *arg,
                struct err **e);
/* JSON: the object goes to take with the byte that closes its outermost brace.  -EINVAL when it
 * does not begin with a brace. */
int frame_json(struct frame *f, const char *p, size_t n, size_t max, frame_take take, void *arg,
               struct err **e);
/* Whichever it begins with. */
int frame_either(struct frame *f, const char *p, size_t n, size_t max, frame_take line,
                 frame_take json, void *arg, struct err **e);
/* The end of input: a partial line goes to take, an open object is -EINVAL. */
int frame_flush(struct frame *f, frame_take line, void *arg, struct err **e);
/* What was pending in another process. */
void frame_again(struct frame *f, const char *p, size_t n, bool json);
void frame_reset(struct frame *f);
void frame_done(struct frame *f);
