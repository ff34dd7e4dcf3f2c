/* A driver that stands before the real one, with a fault point before each operation,
 * "ask.ROOM.OPERATION", and one behind it, "did.ROOM.OPERATION" (common/fault.h).  It is put there
 * only in a process that is armed; so each operation has its points, whoever calls it from where.
 *
 * blockd's client (volumes) has the same around each request, the store around each commit. */
#pragma once

#include <stdlib.h>
#include "common/err.h"
#include "common/fault.h"

static inline int faulty_point(const char *name, struct err **e)
{
        int r = FAULT(name);

        return r < 0 ? err_errno(e, r, "fault point '%s'", name) : 0;
}

/* The body of an operation. */
#define FAULTY(driver, room, op, ...)                                                              \
        int r = faulty_point("ask." room "." #op, e), after;                                       \
                                                                                                   \
        if (r == 0)                                                                                \
                r = real(driver)->ops->op(real(driver), __VA_ARGS__);                              \
        after = r < 0 ? r : faulty_point("did." room "." #op, e);                                  \
        return after < 0 ? after : r

/* Of one that gives something: once it is there nothing fails, as the caller would not free it. */
#define FAULTY_GET(driver, room, op, ...)                                                          \
        int r = faulty_point("ask." room "." #op, e);                                              \
                                                                                                   \
        if (r == 0)                                                                                \
                r = real(driver)->ops->op(real(driver), __VA_ARGS__);                              \
        if (r >= 0)                                                                                \
                (void)FAULT("did." room "." #op);                                                  \
        return r

/* What the real one does not have, this one has not either. */
#define FAULTY_PUT(f, op)                                                                          \
        do {                                                                                       \
                if ((f)->real->ops->op)                                                            \
                        (f)->ops.op = op_##op;                                                     \
        } while (0)
