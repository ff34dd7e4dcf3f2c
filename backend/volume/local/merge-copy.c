/* The bytes of a merge: see merge.h. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "backend/volume/local/merge.h"
#include "backend/volume/local/sums.h"
#include "common/fault.h"
#include "common/fileio.h"

enum {
        PIECE = 256 << 10,
        RUNS = 20000, /* in a step: what is not copied costs, too */
};

static uint64_t count_data(const struct map *m)
{
        const uint64_t data = UINT64_C(0x5555555555555555);
        uint64_t n = 0;

        for (uint64_t l = map_next_line(m, 0); l != UINT64_MAX; l = map_next_line(m, l + 1)) {
                uint64_t words[MAP_LINE_BYTES / 8];

                map_get_line(m, l, (uint8_t *)words); /* bits only: their order is no matter */
                for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                        n += __builtin_popcountll(words[i] & data);
        }
        return n;
}

static uint64_t blocks_in(const struct layer *l)
{
        struct stat st;

        if (l->mapped)
                return count_data(&l->map);
        return fstat(l->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 / MAP_BLOCK : UINT64_MAX;
}

void merge_choose(struct merge *m)
{
        m->up = m->flatten || blocks_in(m->below) < count_data(&m->u->map);
}

/* Of a map: the run at m->off, at most n bytes. */
static enum map_state run_at(const struct map *map, uint64_t off, uint64_t *n)
{
        enum map_state state;
        uint64_t blocks = (off % MAP_BLOCK + *n + MAP_BLOCK - 1) / MAP_BLOCK;

        blocks = map_run(map, off / MAP_BLOCK, blocks, &state);
        *n = MIN(*n, blocks * MAP_BLOCK - off % MAP_BLOCK);
        return state;
}

/* The stored piece of a layer's own file at off, at most n bytes of it; false: nothing is there. */
static bool own_data(struct layer *l, uint64_t off, uint64_t *n)
{
        off_t at;

        if (l->mapped)
                return run_at(&l->map, off, n) == MAP_DATA;
        at = lseek(l->fd, off, SEEK_DATA);
        if (at < 0 || (uint64_t)at >= off + *n)
                return false;
        if ((uint64_t)at < off + MAP_BLOCK)
                return true;
        *n = (uint64_t)at / MAP_BLOCK * MAP_BLOCK - off;
        return false;
}

int merge_check(struct merge *m)
{
        struct layer *l = m->up ? m->u : m->below;
        const uint64_t end = MIN(l->size, l->bytes);
        _cleanup_free_ char *p = l->sums ? malloc(PIECE) : NULL;

        if (l->sums && !p)
                return -ENOMEM;
        m->copied = 0;
        for (int i = 0; l->sums && i < RUNS && m->copied < MERGE_SLICE && m->checked < end; i++) {
                uint64_t n = MIN(end - m->checked, (uint64_t)PIECE);
                bool data = own_data(l, m->checked, &n);
                int r = data ? sums_read(l, p, n, m->checked) : 0;

                if (r < 0)
                        return r;
                m->checked += n;
                m->copied += data ? n : 0;
        }
        return !l->sums || m->checked >= end;
}

static int punch(struct merge *m, uint64_t n)
{
        int r = fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, m->off, n);

        return r < 0 ? -errno : 0;
}

static int set(struct merge *m, uint64_t n, enum map_state state)
{
        uint64_t first = m->off / MAP_BLOCK, last = (m->off + n - 1) / MAP_BLOCK;

        return m->ground ? 0 : map_set(&m->map, first, last - first + 1, state);
}

/* n bytes at m->off of `from`, a stack, or if plain a file. */
static int copy(struct merge *m, struct layer *from, bool plain, uint64_t n)
{
        _cleanup_free_ char *p = malloc(PIECE);
        uint64_t off = m->off, end = m->off + n;
        int r = FAULT("volume.merge.copy");

        if (!p)
                return -ENOMEM;
        while (off < end && r == 0) {
                size_t k = MIN(end - off, (uint64_t)PIECE);

                if (plain && from->sums) {
                        r = sums_read(from, p, k, off);
                } else if (plain) {
                        ssize_t got = layer_log_read(&from->fd, p, k, off);

                        r = got < 0 ? (int)got : 0;
                        if (got >= 0)
                                memset(p + got, 0, k - got); /* past the file's end are zeros */
                } else {
                        r = layer_read(from, p, k, off);
                }
                if (r == 0)
                        r = pwrite_full(m->fd, p, k, off);
                off += k;
        }
        m->copied += n;
        return r;
}

/* A piece of what the step may still copy. */
static uint64_t limit(const struct merge *m, uint64_t n)
{
        return MIN(n, (uint64_t)MERGE_SLICE);
}

/* The lower's file takes the upper's blocks. */
static int down(struct merge *m, uint64_t *n)
{
        enum map_state state = run_at(&m->u->map, m->off, n);
        int r;

        if (state == MAP_DATA) {
                *n = limit(m, *n);
                r = copy(m, m->u, true, *n);
                return r < 0 ? r : set(m, *n, MAP_DATA);
        }
        if (state == MAP_ZERO) {
                r = punch(m, *n);
                return r < 0 ? r : set(m, *n, MAP_ZERO);
        }
        if (m->ground || m->off >= m->vis)
                return 0;
        *n = MIN(*n, m->vis - m->off);
        state = run_at(&m->below->map, m->off, n);
        return state == MAP_HOLE ? 0 : set(m, *n, state);
}

static int first_extent(void *arg, uint64_t off _unused_, uint64_t len, enum volume_kind kind)
{
        struct piece *k = arg;

        k->len = len;
        k->hole = kind != VOLUME_DATA;
        return 1;
}

/* The upper's file takes a piece of what is seen below where it has a hole. */
static int up_below(struct merge *m, uint64_t *n)
{
        struct piece k = {};
        enum map_state state;
        int r;

        *n = MIN(*n, m->vis - m->off);
        if (m->ground) {
                r = layer_extents(m->below, *n, m->off, first_extent, &k);
                if (r < 0)
                        return r;
                *n = MIN(*n, k.len);
                if (k.hole)
                        return punch(m, *n);
                *n = limit(m, *n);
                return copy(m, m->below, false, *n);
        }
        state = run_at(&m->below->map, m->off, n);
        if (state != MAP_DATA)
                return state == MAP_ZERO ? set(m, *n, MAP_ZERO) : 0;
        *n = limit(m, *n);
        r = copy(m, m->below, true, *n);
        return r < 0 ? r : set(m, *n, MAP_DATA);
}

static int up(struct merge *m, uint64_t *n)
{
        enum map_state state = run_at(&m->u->map, m->off, n);

        if (state == MAP_DATA)
                return set(m, *n, MAP_DATA);
        if (state == MAP_ZERO)
                return m->ground ? punch(m, *n) : set(m, *n, MAP_ZERO);
        if (m->off < m->vis)
                return up_below(m, n);
        /* Its hole may have leftovers: what a block has past the end of what is below. */
        return m->ground || m->off % MAP_BLOCK ? punch(m, *n) : 0;
}

int merge_copy(struct merge *m)
{
        const uint64_t from = m->off;
        int r = 0;

        m->copied = 0;
        for (int i = 0; i < RUNS && m->off < m->end && m->copied < MERGE_SLICE && r == 0; i++) {
                uint64_t n = m->end - m->off;

                r = m->up ? up(m, &n) : down(m, &n);
                if (r == 0)
                        m->off += n;
        }
        if (m->copied > 0) /* a long queue of it would hold up who syncs something else */
                sync_file_range(m->fd, from, m->off - from, SYNC_FILE_RANGE_WRITE);
        return r;
}
