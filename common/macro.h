/* Cleanup attributes and small macros that every room uses. */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_ __attribute__((unused))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define streq(a, b) (strcmp((a), (b)) == 0)

/* Hand-over: the local gives its value away and forgets it. */
#define TAKE_PTR(p)                                                                                \
        ({                                                                                         \
                __typeof__(p) _taken = (p);                                                        \
                (p) = NULL;                                                                        \
                _taken;                                                                            \
        })
#define TAKE_FD(fd)                                                                                \
        ({                                                                                         \
                int _taken = (fd);                                                                 \
                (fd) = -1;                                                                         \
                _taken;                                                                            \
        })

/* The cleanup function `fp` of a type whose destructor is `f`: NULL is left alone. */
#define DEFINE_CLEANUP(type, f)                                                                    \
        static inline void f##p(type *p)                                                           \
        {                                                                                          \
                if (*p)                                                                            \
                        f(*p);                                                                     \
        }

static inline void cleanup_free_(void *p)
{
        free(*(void **)p);
}
static inline void cleanup_close_(int *fd)
{
        int saved = errno;

        if (*fd >= 0)
                close(*fd);
        errno = saved;
}
static inline void cleanup_file_(FILE **f)
{
        if (*f)
                fclose(*f);
}
static inline void cleanup_unlock_(pthread_mutex_t **m)
{
        pthread_mutex_unlock(*m);
}

#define _cleanup_free_ _cleanup_(cleanup_free_)
#define _cleanup_close_ _cleanup_(cleanup_close_)
#define _cleanup_file_ _cleanup_(cleanup_file_)

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)
/* Holds the mutex until the end of the enclosing block. */
#define WITH_LOCK(m)                                                                               \
        _cleanup_(cleanup_unlock_) _unused_ pthread_mutex_t *CONCAT(lock_, __LINE__) =             \
                (pthread_mutex_lock(m), (m))
