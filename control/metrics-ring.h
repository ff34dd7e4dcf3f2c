/* The file of a guest's history.
 *
 *     0     "stratofs metrics 1\n", zeros up to 64
 *     64    two rings: uint64 written (samples ever), then SIZE samples
 *     a sample: int64 usec since 1970, then GUEST_FIGURES numbers, of the machine's own byte order
 *
 * A sample is written before the count that shows it.  A file of other content is begun anew. */
#pragma once

#include "control/driver/compute.h"

enum { RING_HOUR, RING_DAY, RINGS };
enum { HOUR_SAMPLES = 360, DAY_SAMPLES = 288 };

struct sample {
        int64_t at;
        uint64_t v[GUEST_FIGURES];
};

struct ring_file; /* as mapped */

/* Maps the file at path; make: makes it if it is not there.  NULL when it cannot be had. */
struct ring_file *ring_open(const char *path, bool make);
void ring_close(struct ring_file *f);
/* One more sample, for both rings as they are due. */
void ring_write(struct ring_file *f, const struct sample *s);
/* Calls each for the samples of a ring, oldest first. */
void ring_read(const struct ring_file *f, unsigned ring,
               void (*each)(void *arg, const struct sample *s), void *arg);
