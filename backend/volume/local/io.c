/* Reading and writing a stack of layers. */
#include <fcntl.h>
#include <linux/falloc.h>

#include <sys/uio.h>

#include "backend/volume/local/index.h"
#include "backend/volume/local/ring.h"
#include "backend/volume/local/sums.h"
#include "common/fault.h"
#include "common/fileio.h"

enum { ZEROS = 64 << 10 };

static uint64_t blocks_of(uint64_t off, uint64_t n)
{
        return (off % MAP_BLOCK + n + MAP_BLOCK - 1) / MAP_BLOCK;
}

/* Down the stack with all of a small range at once, which many layers without it make long.  False
 * where that does not work; *l is the layer to go on with. */
static bool resolve_whole(struct layer **l, uint64_t off, uint64_t n, struct piece *ret)
{
        const struct map_span span = map_span(off / MAP_BLOCK, blocks_of(off, n));
        enum map_state state;

        for (; span.mask; *l = (*l)->parent) {
                struct layer *at = *l;

                if (!at || n > at->size || off > at->size - n)
                        return false;
                state = at->mapped ? map_span_state(&at->map, span) : MAP_DATA;
                if (state == MAP_HOLE && at->overlap >= off + n)
                        continue;
                if (state == MAP_HOLE)
                        return false;
                *ret = (struct piece){.layer = state == MAP_DATA ? at : NULL, .len = n};
                return state != MAP_MIXED;
        }
        return false;
}

struct piece layer_walk(struct layer *l, uint64_t off, uint64_t n)
{
        struct piece whole;

        if (resolve_whole(&l, off, n, &whole))
                return whole;
        for (; l; l = l->parent) {
                enum map_state state;
                uint64_t blocks;

                if (off >= l->size)
                        break;
                n = MIN(n, l->size - off);
                if (!l->mapped)
                        return (struct piece){.layer = l, .len = n};
                blocks = map_run(&l->map, off / MAP_BLOCK, blocks_of(off, n), &state);
                n = MIN(n, blocks * MAP_BLOCK - off % MAP_BLOCK);
                if (state == MAP_DATA)
                        return (struct piece){.layer = l, .len = n};
                if (state == MAP_ZERO)
                        return (struct piece){.len = n};
                if (off >= l->overlap)
                        break;
                n = MIN(n, l->overlap - off);
        }
        return (struct piece){.len = n, .hole = true};
}

/* What the layer itself has not is looked up. */
static struct piece resolve_below(struct layer *l, uint64_t off, uint64_t n)
{
        struct piece k;

        if (off >= l->overlap)
                return (struct piece){.len = n, .hole = true};
        n = MIN(n, l->overlap - off);
        return index_find(l->index, off, n, &k) == INDEX_FOUND ? k : layer_walk(l, off, k.len);
}

struct piece layer_resolve(struct layer *l, uint64_t off, uint64_t n)
{
        const struct map_span span = map_span(off / MAP_BLOCK, blocks_of(off, n));
        enum map_state state;
        uint64_t blocks;

        if (!l->index || n == 0 || n > INDEX_SPAN || n > l->size || off > l->size - n)
                return layer_walk(l, off, n);
        if (span.mask) {
                state = map_span_state(&l->map, span);
                if (state == MAP_DATA)
                        return (struct piece){.layer = l, .len = n};
                if (state == MAP_HOLE)
                        return resolve_below(l, off, n);
        }
        blocks = map_run(&l->map, off / MAP_BLOCK, blocks_of(off, n), &state);
        n = MIN(n, blocks * MAP_BLOCK - off % MAP_BLOCK);
        if (state == MAP_HOLE)
                return resolve_below(l, off, n);
        return (struct piece){.layer = state == MAP_DATA ? l : NULL, .len = n};
}

/* A data file may be shorter than its layer: the rest is zeros. */
static int read_data(struct layer *l, char *p, size_t n, uint64_t off)
{
        struct ring_io io = {.fd = l->fd, .p = p, .n = n, .off = off};

        return l->sums ? sums_read(l, p, n, off) : ring_plain(&io);
}

/* Pieces that were not in the page cache: started, to be waited for when all are. */
struct started {
        size_t n;
        struct ring_io io[RING_DEPTH];
};

static int wait_started(struct started *s)
{
        int r = 0;

        for (size_t i = 0; i < s->n && r == 0; i++)
                r = ring_plain(&s->io[i]);
        s->n = 0;
        return r;
}

/* A piece of a read that has more of them. */
static int start_data(struct started *s, struct layer *l, char *p, size_t n, uint64_t off)
{
        struct iovec v = {.iov_base = p, .iov_len = n};
        ssize_t got;

        if (l->sums || l->waits)
                return read_data(l, p, n, off);
        got = preadv2(l->fd, &v, 1, off, RWF_NOWAIT);
        if (got == (ssize_t)n)
                return 0;
        if (got < 0 && errno == EOPNOTSUPP)
                l->waits = true;
        else if (got < 0 && errno != EAGAIN && errno != EINTR)
                return -errno;
        got = MAX(got, 0);
        s->io[s->n++] = (struct ring_io){.fd = l->fd, .p = p + got, .n = n - got, .off = off + got};
        return s->n == RING_DEPTH ? wait_started(s) : 0;
}

int layer_read(struct layer *l, void *p, size_t n, uint64_t off)
{
        struct started s;
        int r = 0;

        s.n = 0; /* its array is filled as far as used */
        while (n > 0 && r == 0) {
                struct piece k = layer_resolve(l, off, n);

                if (k.layer && k.len == n)
                        r = read_data(k.layer, p, k.len, off);
                else if (k.layer)
                        r = start_data(&s, k.layer, p, k.len, off);
                else
                        memset(p, 0, k.len);
                p = (char *)p + k.len;
                off += k.len;
                n -= k.len;
        }
        return r < 0 ? r : wait_started(&s);
}

int layer_lend(struct layer *l, uint64_t n, uint64_t off, struct volume_file *ret)
{
        struct piece k = layer_resolve(l, off, n);

        if (!k.layer || off >= k.layer->bytes || k.layer->sums)
                return 0;
        folios_read(&k.layer->folios, k.layer->fd, k.len, off);
        *ret = (struct volume_file){.fd = k.layer->fd,
                                    .off = off,
                                    .len = MIN(k.len, k.layer->bytes - off),
                                    .lender = k.layer};
        k.layer->lent++;
        return 1;
}

/* The bytes [from, to) of a block that the top layer does not hold, copied up into its data file
 * from below.  Nobody sees them before the map says so. */
static int copy_up(struct layer *l, uint64_t from, uint64_t to)
{
        char block[MAP_BLOCK];
        int r;

        to = MIN(to, l->size);
        if (from >= to || map_get(&l->map, from / MAP_BLOCK) == MAP_DATA)
                return 0;
        r = layer_read(l, block, to - from, from);
        return r < 0 ? r : pwrite_full(l->fd, block, to - from, from);
}

/* With what is around it in its first and last block. */
static int write_exclusive(struct layer *l, const void *p, size_t n, uint64_t off)
{
        uint64_t end = off + n, first = off / MAP_BLOCK, last = (end - 1) / MAP_BLOCK;
        int r = 0;

        pthread_rwlock_wrlock(&l->alloc);
        if (l->mapped)
                r = copy_up(l, first * MAP_BLOCK, off);
        if (r == 0 && l->mapped)
                r = copy_up(l, end, (last + 1) * MAP_BLOCK);
        if (r == 0)
                r = pwrite_full(l->fd, p, n, off);
        if (r == 0 && l->mapped)
                r = map_set(&l->map, first, last - first + 1, MAP_DATA);
        pthread_rwlock_unlock(&l->alloc);
        return r;
}

static bool whole_blocks(const struct layer *l, uint64_t n, uint64_t off)
{
        return off % MAP_BLOCK == 0 && ((off + n) % MAP_BLOCK == 0 || off + n == l->size);
}

/* Whether the layer holds all blocks of the range: nothing is to be copied up or noted. */
static bool holds(const struct layer *l, uint64_t n, uint64_t off)
{
        uint64_t first = off / MAP_BLOCK, blocks = blocks_of(off, n);
        const struct map_span span = map_span(first, blocks);
        enum map_state state;

        if (!l->mapped)
                return true;
        if (span.mask)
                return map_span_state(&l->map, span) == MAP_DATA;
        return map_run(&l->map, first, blocks, &state) == blocks && state == MAP_DATA;
}

static int write_layer(struct layer *l, const void *p, size_t n, uint64_t off)
{
        int r;

        if (l->direct_fd >= 0)
                return write_exclusive(l, p, n, off);
        if (holds(l, n, off))
                return pwrite_full(l->fd, p, n, off);
        if (!whole_blocks(l, n, off))
                return write_exclusive(l, p, n, off);
        pthread_rwlock_rdlock(&l->alloc);
        r = pwrite_full(l->fd, p, n, off);
        if (r == 0)
                r = layer_wrote(l, n, off);
        pthread_rwlock_unlock(&l->alloc);
        return r;
}

int layer_write(struct layer *l, const void *p, size_t n, uint64_t off)
{
        int64_t begin = folios_write(&l->folios, l->fd, n, off);
        int r = write_layer(l, p, n, off);

        folios_written(&l->folios, n, off, begin);
        return r;
}

int layer_wrote(struct layer *l, uint64_t n, uint64_t off)
{
        uint64_t first = off / MAP_BLOCK, last = (off + n - 1) / MAP_BLOCK;

        return holds(l, n, off) ? 0 : map_set(&l->map, first, last - first + 1, MAP_DATA);
}

bool layer_settled(struct layer *l, uint64_t n, uint64_t off)
{
        uint64_t first = off / MAP_BLOCK, last = (off + n - 1) / MAP_BLOCK;
        unsigned flushes = l->flushes;

        /* A flush that goes on has taken the dirty lines and not logged them yet. */
        return !l->mapped ||
               (flushes % 2 == 0 && !l->log_unsynced &&
                map_settled(&l->map, first, last - first + 1) && l->flushes == flushes);
}

bool layer_durable_ready(struct layer *l)
{
        _cleanup_free_ char *path = NULL;
        int fd, none = -1;

        if (l->durable_fd >= 0)
                return true;
        path = layer_data_path(l->dir, l->data);
        fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
        if (fd >= 0 && !atomic_compare_exchange_strong(&l->durable_fd, &none, fd))
                close(fd); /* another thread was faster */
        return l->durable_fd >= 0;
}

int layer_write_durable(struct layer *l, const void *p, size_t n, uint64_t off)
{
        struct ring_io io = {.fd = l->durable_fd,
                             .write = true,
                             .flags = RWF_DSYNC,
                             .p = (char *)p,
                             .n = n,
                             .off = off};
        int r = FAULT("volume.sync");

        folios_write(&l->folios, l->fd, n, off);
        return r < 0 ? r : ring_plain(&io);
}

static int write_zeros(struct layer *l, uint64_t n, uint64_t off)
{
        static const char zeros[ZEROS];

        while (n > 0) {
                size_t k = MIN(n, ZEROS - off % ZEROS);
                int r = layer_write(l, zeros, k, off);

                if (r < 0)
                        return r;
                off += k;
                n -= k;
        }
        return 0;
}

static int punch(int fd, uint64_t n, uint64_t off)
{
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, n) < 0 ? -errno : 0;
}

static int zero_range(int fd, uint64_t n, uint64_t off)
{
        return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, n) < 0 ? -errno : 0;
}

/* Whole blocks, in a layer with a map. */
static int zero_blocks(struct layer *l, uint64_t n, uint64_t off, unsigned flags)
{
        uint64_t first = off / MAP_BLOCK, blocks = (n + MAP_BLOCK - 1) / MAP_BLOCK;
        int r = 0;

        pthread_rwlock_rdlock(&l->alloc);
        if (flags & VOLUME_NO_HOLE) {
                r = zero_range(l->fd, n, off);
                if (r == 0)
                        r = map_set(&l->map, first, blocks, MAP_DATA);
                n = 0;
        }
        while (n > 0 && r == 0) {
                struct piece k = layer_resolve(l, off, n);

                /* Only the pieces below us cost map entries; nobody's holes stay nobody's. */
                blocks = (off + k.len + MAP_BLOCK - 1) / MAP_BLOCK - off / MAP_BLOCK;
                if (!k.hole)
                        r = map_set(&l->map, off / MAP_BLOCK, blocks, MAP_ZERO);
                /* The map says zero already: giving the room back is a kindness. */
                if (r == 0 && k.layer == l)
                        punch(l->fd, k.len, off);
                off += k.len;
                n -= k.len;
        }
        pthread_rwlock_unlock(&l->alloc);
        return r;
}

int layer_zero(struct layer *l, uint64_t n, uint64_t off, unsigned flags)
{
        uint64_t end = off + n, from, to;
        int r;

        if (!l->mapped) {
                r = flags & VOLUME_NO_HOLE ? zero_range(l->fd, n, off) : punch(l->fd, n, off);
                if (r == -EOPNOTSUPP)
                        return flags & VOLUME_FAST ? -ENOTSUP : write_zeros(l, n, off);
                return r;
        }
        from = MIN((off + MAP_BLOCK - 1) / MAP_BLOCK * MAP_BLOCK, end);
        to = end == l->size ? end : MAX(end / MAP_BLOCK * MAP_BLOCK, from);
        r = from < to ? zero_blocks(l, to - from, from, flags) : 0;
        if (r == -EOPNOTSUPP)
                r = flags & VOLUME_FAST ? -ENOTSUP : write_zeros(l, to - from, from);
        if (r == 0)
                r = write_zeros(l, from - off, off);
        if (r == 0)
                r = write_zeros(l, end - to, to);
        return r;
}

int layer_trim(struct layer *l, uint64_t n, uint64_t off)
{
        uint64_t from = (off + MAP_BLOCK - 1) / MAP_BLOCK * MAP_BLOCK, end = off + n;
        uint64_t to = end == l->size ? end : end / MAP_BLOCK * MAP_BLOCK;
        int r;

        if (from >= to)
                return 0;
        r = l->mapped ? zero_blocks(l, to - from, from, 0) : punch(l->fd, to - from, from);
        return r == -EOPNOTSUPP ? 0 : r;
}

/* A piece of a data file, cut where the file has holes. */
static int file_extents(int fd, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        uint64_t end = off + n;

        while (off < end) {
                off_t data = lseek(fd, off, SEEK_DATA), next;
                int r;

                if (data < 0 && errno != ENXIO)
                        return each(arg, off, end - off, VOLUME_DATA); /* cannot tell */
                next = data < 0 ? (off_t)end : MIN(data, (off_t)end);
                if (next > (off_t)off) {
                        r = each(arg, off, next - off, VOLUME_HOLE);
                } else {
                        next = lseek(fd, off, SEEK_HOLE);
                        next = next < 0 ? (off_t)end : MIN(next, (off_t)end);
                        if (next <= (off_t)off)
                                next = end; /* changed under us */
                        r = each(arg, off, next - off, VOLUME_DATA);
                }
                if (r != 0)
                        return r;
                off = next;
        }
        return 0;
}

int layer_extents(struct layer *l, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        while (n > 0) {
                struct piece k = layer_resolve(l, off, n);
                int r;

                if (k.layer && !k.layer->mapped)
                        r = file_extents(k.layer->fd, k.len, off, each, arg);
                else
                        r = each(arg, off, k.len,
                                 k.layer  ? VOLUME_DATA
                                 : k.hole ? VOLUME_HOLE
                                          : VOLUME_ZERO);
                if (r != 0)
                        return MIN(r, 0);
                off += k.len;
                n -= k.len;
        }
        return 0;
}

bool layer_starts_sparse(struct layer *l, uint64_t n, uint64_t off)
{
        struct piece k = layer_resolve(l, off, n);
        off_t data;

        if (!k.layer || k.layer->mapped || k.layer->dense)
                return !k.layer;
        data = lseek(k.layer->fd, off, SEEK_DATA);
        return data < 0 ? errno == ENXIO : (uint64_t)data > off;
}

void layer_cache(struct layer *l, uint64_t n, uint64_t off)
{
        while (n > 0) {
                struct piece k = layer_resolve(l, off, n);

                if (k.layer && k.layer->direct_fd < 0)
                        posix_fadvise(k.layer->fd, off, k.len, POSIX_FADV_WILLNEED);
                off += k.len;
                n -= k.len;
        }
}
