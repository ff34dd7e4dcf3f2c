/* Ours in place of libc's, for the subject and for the libraries that it uses; and the driver. */
#include "nth.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"

enum kind { NONE, MEMORY, ERROR, INTERRUPTED, SHORT };

static const struct trouble {
        const char *name;
        enum kind kind;
        int code;
        bool stays; /* the Nth and all after it */
} troubles[] = {
        {"ENOMEM", MEMORY, ENOMEM, false},          {"EIO", ERROR, EIO, false},
        {"EIO that stays", ERROR, EIO, true},       {"ENOSPC", ERROR, ENOSPC, false},
        {"ENOSPC that stays", ERROR, ENOSPC, true}, {"EINTR", INTERRUPTED, EINTR, false},
        {"a short one", SHORT, 0, false},
};

/* In memory that parent and child share. */
struct state {
        atomic_int kind;
        int code, nth;
        bool stays;
        atomic_int count;
        max_align_t shared[];
};
static struct state *st;
static const struct trouble *now;
static int ended; /* children that chose not to go on */

/* Whether this call of that kind is the one. */
static bool due(enum kind kind)
{
        int n;

        if (!st || st->kind != (int)kind)
                return false;
        n = atomic_fetch_add(&st->count, 1) + 1;
        return n == st->nth || (st->stays && n > st->nth);
}

/* ---- memory ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);

static bool no_memory(void)
{
        if (!due(MEMORY))
                return false;
        errno = ENOMEM;
        return true;
}

void *malloc(size_t n)
{
        return no_memory() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
        return no_memory() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
        return no_memory() ? NULL : __libc_realloc(p, n);
}

/* ---- files ---- */

/* EINTR and half of it only where bytes move.  ENOSPC is of those that write. */
static bool fails(bool writes, size_t *n)
{
        if (n && *n > 1 && due(SHORT)) {
                *n /= 2;
                return false;
        }
        if (n && due(INTERRUPTED)) {
                errno = EINTR;
                return true;
        }
        if (!st || (st->code == ENOSPC && !writes) || !due(ERROR))
                return false;
        errno = st->code;
        return true;
}

ssize_t write(int fd, const void *p, size_t n)
{
        return fails(true, &n) ? -1 : syscall(SYS_write, fd, p, n);
}

ssize_t read(int fd, void *p, size_t n)
{
        return fails(false, &n) ? -1 : syscall(SYS_read, fd, p, n);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t off)
{
        return fails(true, &n) ? -1 : syscall(SYS_pwrite64, fd, p, n, off);
}

ssize_t pread64(int fd, void *p, size_t n, off64_t off)
{
        return fails(false, &n) ? -1 : syscall(SYS_pread64, fd, p, n, off);
}

int fsync(int fd)
{
        return fails(true, NULL) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
        return fails(true, NULL) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate64(int fd, off64_t n)
{
        return fails(true, NULL) ? -1 : (int)syscall(SYS_ftruncate, fd, n);
}

int rename(const char *from, const char *to)
{
        return fails(true, NULL) ? -1 : (int)syscall(SYS_rename, from, to);
}

int renameat(int dir, const char *from, int to_dir, const char *to)
{
        return fails(true, NULL) ? -1 : (int)syscall(SYS_renameat, dir, from, to_dir, to);
}

/* ---- the driver ---- */

void nth_fail(const char *file, int line, const char *what)
{
        if (st)
                st->kind = NONE;
        fprintf(stderr, "%s:%d: %s, with %s at %d\n", file, line, what, now ? now->name : "nothing",
                st ? st->nth : 0);
        _exit(1);
}

/* What it did with that trouble; false: it was not reached. */
static bool attempt(const struct trouble *t, int nth)
{
        char dir[] = "/dev/shm/nth.XXXXXX";
        int status;
        pid_t pid;

        now = t;
        memset(st, 0, sizeof(*st) + nth_shared);
        st->code = t->code;
        st->nth = nth;
        st->stays = t->stays;
        CHECK(mkdtemp(dir));
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
                alarm(60);
                st->kind = (int)t->kind;
                nth_work(st->shared, dir);
                st->kind = NONE;
                _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        st->kind = NONE;
        if (t->kind == MEMORY && WIFEXITED(status) && WEXITSTATUS(status) == (uint8_t)-1)
                ended++; /* uthash(3) does that: the daemon is started again */
        else
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        nth_check(st->shared, dir);
        CHECK(remove_tree(dir, NULL) == 0);
        return st->count >= nth;
}

/* Short: each of the first calls, and a sample of the others, which are many and much alike. */
int main(void)
{
        bool all = getenv("STRATOFS_LONG");

        log_set_level(LOG_EMERG);
        st = mmap(NULL, sizeof(*st) + nth_shared, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(st != MAP_FAILED);
        for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
                int n = 1, tries = 0;

                for (; attempt(&troubles[i], n); tries++)
                        n += all || n < 24 ? 1 : 1 + n / 16;
                printf("%s: %d of at least %d calls, %d ended the process\n", troubles[i].name,
                       tries, st->count, ended);
                ended = 0;
        }
        return 0;
}
