/* The Nth call fails, for N = 1... until it is not reached: of malloc(3) and its kin, and of the
 * calls that move bytes to and from files.
 *
 * A program gives nth_work() and nth_check().  The work is done in a child, which writes what was
 * acknowledged into memory that both share; whatever became of the child, the check finds all of
 * that in the folder, and that one can go on there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "common/fileio.h"

extern const size_t nth_shared; /* bytes of memory that both share, zeros at first */
void nth_work(void *shared, const char *dir);
void nth_check(const void *shared, const char *dir);

/* Ends the program, with what was tried. */
void nth_fail(const char *file, int line, const char *what);
#define CHECK(cond)                                                                                \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        nth_fail(__FILE__, __LINE__, #cond);                                       \
        } while (0)
