/* Whether a history of one store could have happened one operation after the other.
 *
 * A register is a record whose writes each name the version they expect and make the next one, so
 * the order of writes is the order of versions; a read of version v stands between the writes of v
 * and v + 1.  What is left to check is that this order agrees with the clock: an operation that had
 * ended before another began stands before it.  Registers are checked one by one:
 * linearizability is a property of each. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include "common/macro.h"

enum linear_type { LINEAR_NONE, LINEAR_WRITE, LINEAR_READ };
/* OPEN: its end was not seen; it may have taken effect at any time since. */
enum linear_result { LINEAR_OPEN, LINEAR_DONE, LINEAR_CONFLICT, LINEAR_FAILED };

struct linear_op {
        _Atomic int result; /* written last */
        int type;
        unsigned reg;
        uint64_t version;   /* written (it expected the one before) or read */
        uint64_t value;     /* written or read; unique to a write; 0 is never written */
        int64_t begin, end; /* monotonic usec; end: unless open */
};

/* The history ends with a read of each register, after everything else.  Returns how many things
 * are wrong, and says the first ones on stderr. */
int linear_check(const struct linear_op *v, size_t n, unsigned nregs);
