/* Memory for the model.  Every piece is small and bounded by a check made before it, so running
 * out here means that the host is out of memory: the process ends, and the store brings it back
 * as it was.  What a peer can size is allocated with plain malloc and checked. */
#pragma once

#include <stdlib.h>
#include <string.h>

static inline void *xcheck(void *p)
{
        if (!p)
                abort();
        return p;
}
static inline void *xcalloc(size_t n, size_t size)
{
        return xcheck(calloc(n, size));
}
static inline void *xrealloc(void *p, size_t n, size_t size)
{
        return xcheck(reallocarray(p, n, size));
}
static inline char *xstrdup(const char *s)
{
        return s ? (char *)xcheck(strdup(s)) : NULL;
}
static inline char *xstrndup(const char *s, size_t n)
{
        return (char *)xcheck(strndup(s, n));
}
