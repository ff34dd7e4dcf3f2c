#include "backend/volume/local/stack.h"

#include <assert.h>
#include <fcntl.h>

#include "backend/volume/local/index.h"
#include "common/fault.h"
#include "common/fileio.h"

static void unlock_io(pthread_rwlock_t **l)
{
        pthread_rwlock_unlock(*l);
}
#define WITH_IO(s)                                                                                 \
        _cleanup_(unlock_io) _unused_ pthread_rwlock_t *io_lock_ =                                 \
                (pthread_rwlock_rdlock(&(s)->io), &(s)->io)

/* Whether what is below the top was frozen by a blockd that was killed before all of it was
 * durable. A layer without a map has nothing that says so: it is, as a rule, and is synced once
 * more. */
static bool left_unsettled(struct layer *top)
{
        const struct layer *below = top->parent;

        if (!below || !sd_id128_equal(below->id.volume, top->id.volume))
                return false;
        return below->mapped ? layer_unsettled(below) : top->left;
}

int stack_new(struct layer *top, bool readonly, const char *dir, struct stack **ret)
{
        struct stack *s = calloc(1, sizeof(*s));
        pthread_rwlockattr_t attr;

        if (!s)
                return -ENOMEM;
        s->failed_path = path_printf("%s/failed", dir);
        if (!s->failed_path) {
                free(s);
                return -ENOMEM;
        }
        pthread_rwlockattr_init(&attr);
        /* A stream of I/O must not keep a snapshot waiting for ever. */
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&s->io, &attr);
        pthread_rwlockattr_destroy(&attr);
        pthread_mutex_init(&s->flush, NULL);
        top->index = index_new(top);
        s->top = top;
        if (!readonly && left_unsettled(top))
                s->under = top->parent;
        s->size = top->size;
        s->readonly = readonly;
        s->failed = access(s->failed_path, F_OK) == 0;
        /* A blockd before us may have been killed with writes in the page cache. */
        s->written = !readonly;
        *ret = s;
        return 0;
}

void stack_free(struct stack *s)
{
        if (!s)
                return;
        pthread_rwlock_destroy(&s->io);
        pthread_mutex_destroy(&s->flush);
        free(s->failed_path);
        free(s);
}

static void mark(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        if (fd >= 0) {
                fsync(fd);
                close(fd);
                fsync_parent(path);
        }
}

/* The kernel has thrown away writes that we acknowledged; which ones, nobody knows.  The marker
 * keeps that in mind over a restart. */
void stack_fail(struct stack *s)
{
        s->failed = true;
        mark(s->failed_path);
}

void stack_mark_failed(const char *dir)
{
        _cleanup_free_ char *path = path_printf("%s/failed", dir);

        if (path)
                mark(path);
}

int stack_read(struct stack *s, void *p, size_t n, uint64_t off)
{
        struct volume_io io = {VOLUME_READ, 0, p, n, off, VOLUME_IO_WAITS};

        stack_run(s, &io, 1);
        return io.result;
}

int stack_write(struct stack *s, const void *p, size_t n, uint64_t off, unsigned flags)
{
        struct volume_io io = {VOLUME_WRITE, flags, (void *)p, n, off, VOLUME_IO_WAITS};

        stack_run(s, &io, 1);
        return io.result;
}

/* With the flush lock, and io in either way, like the next.  Until it is done, nothing that lies
 * in the top may be called durable. */
static int settle_locked(struct stack *s)
{
        int r;

        if (s->failed)
                return -EIO;
        if (!s->under)
                return 0;
        r = FAULT("volume.settle");
        if (r == 0)
                r = layer_flush(s->under);
        if (r == 0)
                r = layer_settle(s->under);
        if (r == 0) {
                layer_freeze(s->under);
                s->under = NULL;
        } else if (r != -ENOSPC) {
                stack_fail(s);
        }
        return r;
}

static int flush_locked(struct stack *s)
{
        int r = settle_locked(s);

        if (r < 0)
                return r;
        if (s->readonly || !atomic_exchange(&s->written, false))
                return 0;
        r = layer_flush(s->top);
        if (r < 0)
                s->written = true;
        if (r < 0 && r != -ENOSPC)
                stack_fail(s);
        return r;
}

static int compact(struct stack *s)
{
        int r;

        pthread_rwlock_wrlock(&s->io);
        r = flush_locked(s);
        if (r == 0)
                r = layer_compact(s->top);
        if (r == -EIO)
                stack_fail(s);
        pthread_rwlock_unlock(&s->io);
        return r;
}

int stack_relog(struct stack *s)
{
        WITH_LOCK(&s->flush);
        return s->top->log_fd >= 0 ? compact(s) : -ENOTSUP;
}

int stack_flush(struct stack *s)
{
        bool wants;
        int r;

        WITH_LOCK(&s->flush);
        pthread_rwlock_rdlock(&s->io);
        r = flush_locked(s);
        wants = r == 0 && !s->hurry && layer_wants_compact(s->top);
        pthread_rwlock_unlock(&s->io);
        /* A log that could not be shortened is only long, unless that broke it. */
        if (wants && compact(s) == -EIO)
                return -EIO;
        return r;
}

int stack_written(struct stack *s, int r)
{
        if (r == -EFBIG || r == -EDQUOT)
                r = -ENOSPC;
        /* Almost always so already, and a line that is only read is shared by all CPUs. */
        if (!s->written)
                s->written = true; /* a failed write may have changed something, too */
        return r;
}

int stack_lend(struct stack *s, uint64_t n, uint64_t off, struct volume_file *ret)
{
        WITH_IO(s);
        if (s->top->direct_fd >= 0)
                return 0;
        return layer_lend(s->top, n, off, ret);
}

int stack_zero(struct stack *s, uint64_t n, uint64_t off, unsigned flags)
{
        int r;

        pthread_rwlock_rdlock(&s->io);
        r = s->failed ? -EIO : stack_written(s, layer_zero(s->top, n, off, flags));
        pthread_rwlock_unlock(&s->io);
        return r == 0 && flags & VOLUME_FUA ? stack_flush(s) : r;
}

int stack_trim(struct stack *s, uint64_t n, uint64_t off, unsigned flags)
{
        int r;

        pthread_rwlock_rdlock(&s->io);
        r = s->failed ? -EIO : stack_written(s, layer_trim(s->top, n, off));
        pthread_rwlock_unlock(&s->io);
        return r == 0 && flags & VOLUME_FUA ? stack_flush(s) : r;
}

int stack_extents(struct stack *s, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        WITH_IO(s);
        return layer_extents(s->top, n, off, each, arg);
}

void stack_cache(struct stack *s, uint64_t n, uint64_t off)
{
        WITH_IO(s);
        layer_cache(s->top, n, off);
}

bool stack_starts_sparse(struct stack *s, uint64_t n, uint64_t off)
{
        WITH_IO(s);
        return layer_starts_sparse(s->top, n, off);
}

uint64_t stack_size(struct stack *s)
{
        return s->size;
}

void stack_switch(struct stack *s, struct layer *top)
{
        WITH_LOCK(&s->flush);
        pthread_rwlock_wrlock(&s->io);
        assert(!s->under && top->parent == s->top);
        s->under = s->top;
        top->index = index_push(TAKE_PTR(s->top->index), top);
        s->top = top;
        s->written = true;
        pthread_rwlock_unlock(&s->io);
}

bool stack_freezing(struct stack *s, const struct layer *l)
{
        WITH_LOCK(&s->flush);
        return s->under == l;
}

int stack_settle(struct stack *s)
{
        int r;

        WITH_LOCK(&s->flush);
        pthread_rwlock_rdlock(&s->io);
        r = settle_locked(s);
        pthread_rwlock_unlock(&s->io);
        return r;
}

int stack_change(struct stack *s, int (*change)(struct stack *s, void *arg), void *arg)
{
        int r;

        WITH_LOCK(&s->flush);
        pthread_rwlock_wrlock(&s->io);
        r = flush_locked(s);
        if (r == 0)
                r = change(s, arg);
        pthread_rwlock_unlock(&s->io);
        return r;
}
