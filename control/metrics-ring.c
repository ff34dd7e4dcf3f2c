#include "control/metrics-ring.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"

#define MAGIC "stratofs metrics 1\n"

struct ring_file {
        char magic[64];
        _Atomic uint64_t hours; /* samples written */
        struct sample hour[HOUR_SAMPLES];
        _Atomic uint64_t days;
        struct sample day[DAY_SAMPLES];
};

enum { DAY_STEP_US = 300 * 1000000 };

/* Another file in the place of what is there, which somebody may have mapped.  Blocks are taken
 * now: a full disk is no reason to die in a page fault later. */
static int make_file(const char *path)
{
        int fd;

        if (unlink(path) < 0 && errno != ENOENT)
                return -1;
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0 && posix_fallocate(fd, 0, sizeof(struct ring_file)) == 0)
                return fd;
        if (fd >= 0)
                close(fd);
        return -1;
}

struct ring_file *ring_open(const char *path, bool make)
{
        _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        struct ring_file *f;
        struct stat st;

        if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
                return NULL;
        if (fd < 0 || st.st_size != sizeof(*f)) {
                if (fd >= 0)
                        close(fd);
                fd = make ? make_file(path) : -1;
        }
        if (fd < 0)
                return NULL;
        f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (f == MAP_FAILED)
                return NULL;
        if (strncmp(f->magic, MAGIC, sizeof(f->magic)) != 0) {
                memset(f, 0, sizeof(*f));
                memcpy(f->magic, MAGIC, sizeof(MAGIC));
        }
        return f;
}

void ring_close(struct ring_file *f)
{
        if (f)
                munmap(f, sizeof(*f));
}

void ring_write(struct ring_file *f, const struct sample *s)
{
        const uint64_t n = atomic_load(&f->hours), d = atomic_load(&f->days);

        f->hour[n % HOUR_SAMPLES] = *s;
        atomic_store(&f->hours, n + 1);
        if (d && s->at - f->day[(d - 1) % DAY_SAMPLES].at < DAY_STEP_US &&
            s->at >= f->day[(d - 1) % DAY_SAMPLES].at)
                return;
        f->day[d % DAY_SAMPLES] = *s;
        atomic_store(&f->days, d + 1);
}

void ring_read(const struct ring_file *f, unsigned ring,
               void (*each)(void *arg, const struct sample *s), void *arg)
{
        const uint64_t n = atomic_load(ring == RING_HOUR ? &f->hours : &f->days);
        const uint64_t size = ring == RING_HOUR ? HOUR_SAMPLES : DAY_SAMPLES;
        const struct sample *v = ring == RING_HOUR ? f->hour : f->day;

        for (uint64_t i = n > size ? n - size : 0; i < n; i++)
                each(arg, &v[i % size]);
}
