#include "backend/volume/local/folio.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include "common/macro.h"

enum {
        STEP = 256 << 10, /* smaller folios than this may stay */
        AHEAD = 16 << 20, /* how far readahead may go */
        PAGE = 4096,
        SYS_CACHESTAT = 451,
};

static bool concerned(int fd)
{
        int major = 0, minor = 0;
        struct utsname u;
        struct statfs fs;

        return sysconf(_SC_PAGESIZE) == PAGE && uname(&u) == 0 &&
               sscanf(u.release, "%d.%d", &major, &minor) == 2 &&
               (major > 6 || (major == 6 && minor >= 16)) && fstatfs(fd, &fs) == 0 &&
               fs.f_type == EXT4_SUPER_MAGIC;
}

static uint64_t regions(uint64_t size)
{
        return (size + FOLIO_REGION - 1) / FOLIO_REGION;
}

void folios_init(struct folios *f, int fd, uint64_t size)
{
        *f = (struct folios){.syncs = 2};
        if (!concerned(fd))
                return;
        f->n = regions(size);
        f->region = calloc(MAX(f->n, UINT64_C(1)), sizeof(*f->region));
}

void folios_grow(struct folios *f, uint64_t size)
{
        uint64_t n = regions(size);
        uint32_t *p;

        if (!f->region || n <= f->n)
                return;
        p = reallocarray(f->region, n, sizeof(*p));
        if (!p)
                return; /* what is past the table is left as it is */
        memset(p + f->n, 0, (n - f->n) * sizeof(*p));
        f->region = p;
        f->n = n;
}

void folios_done(struct folios *f)
{
        free(TAKE_PTR(f->region));
}

void folios_sync(struct folios *f)
{
        __atomic_fetch_add(&f->syncs, 1, __ATOMIC_RELAXED);
}

static uint32_t state_get(const struct folios *f, uint64_t i)
{
        return __atomic_load_n(&f->region[i], __ATOMIC_RELAXED);
}

static void state_set(struct folios *f, uint64_t i, uint32_t state)
{
        __atomic_store_n(&f->region[i], state, __ATOMIC_RELAXED);
}

/* POPULATE_READ rather than a touch: where the file cannot be read it is an error, not SIGBUS. */
static void split(int fd, uint64_t at)
{
        unsigned char there[FOLIO_REGION / PAGE];
        char *p = mmap(NULL, FOLIO_REGION, PROT_READ, MAP_SHARED, fd, at);

        if (p == MAP_FAILED)
                return;
        if (mincore(p, FOLIO_REGION, there) < 0)
                memset(there, 0, sizeof(there));
        for (size_t o = 0; o < FOLIO_REGION; o += STEP)
                if (there[o / PAGE] & 1 && madvise(p + o, PAGE, MADV_POPULATE_READ) == 0)
                        madvise(p + o, PAGE, MADV_COLD);
        munmap(p, FOLIO_REGION);
}

static void split_small(struct folios *f, int fd, uint64_t i)
{
        uint32_t state = state_get(f, i);

        if (state == FOLIO_SPLIT)
                return;
        /* A dirty folio cannot be split. */
        if (state != FOLIO_UNKNOWN &&
            (int32_t)(__atomic_load_n(&f->syncs, __ATOMIC_RELAXED) - state) < 0)
                return;
        state_set(f, i, FOLIO_SPLIT);
        split(fd, i * FOLIO_REGION);
}

/* To be split after the end of the first sync that begins from now on. */
static void after_sync(struct folios *f, uint64_t i)
{
        if (state_get(f, i) != FOLIO_SPLIT)
                state_set(f, i, ((__atomic_load_n(&f->syncs, __ATOMIC_RELAXED) + 1) & ~1u) + 2);
}

void folios_prepare(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        for (uint64_t i = off / FOLIO_REGION; i <= (off + n - 1) / FOLIO_REGION && i < f->n; i++) {
                if (n < FOLIO_LARGE)
                        split_small(f, fd, i);
                else
                        after_sync(f, i);
        }
}

/* Threads may lose each other's counts: it is a hint. */
void folios_timed(struct folios *f, uint64_t n, uint64_t off, bool slow)
{
        uint32_t score = __atomic_load_n(&f->slow, __ATOMIC_RELAXED);
        uint64_t last = (off + n - 1) / FOLIO_REGION;

        if (score >= FOLIO_EAGER)
                return;
        __atomic_store_n(&f->slow, slow ? score + FOLIO_SLOW : score - (score > 0),
                         __ATOMIC_RELAXED);
        for (uint64_t i = off / FOLIO_REGION; slow && i <= last && i < f->n; i++)
                after_sync(f, i);
}

/* Whether the page at off is in the page cache: cachestat(2), newer than our C library. */
static bool cached(int fd, uint64_t off)
{
        struct {
                uint64_t off, len;
        } range = {off, 1};
        uint64_t stat[5] = {};

        return syscall(SYS_CACHESTAT, fd, &range, stat, 0) < 0 || stat[0] > 0;
}

void folios_follow(struct folios *f, int fd, uint64_t n, uint64_t off)
{
        uint64_t last = (off + n + AHEAD - 1) / FOLIO_REGION;

        if (__atomic_load_n(&f->stream, __ATOMIC_RELAXED) != off && cached(fd, off))
                return;
        __atomic_store_n(&f->stream, off + n, __ATOMIC_RELAXED);
        for (uint64_t i = off / FOLIO_REGION; i <= last && i < f->n; i++)
                if (state_get(f, i) == FOLIO_SPLIT)
                        state_set(f, i, FOLIO_UNKNOWN);
}
