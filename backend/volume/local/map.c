#include "backend/volume/local/map.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/mman.h>

enum {
        WORD_BLOCKS = MAP_WORD_BLOCKS,
        PAGE_BLOCKS = MAP_PAGE_BLOCKS,
        PAGE_LINES = MAP_PAGE / MAP_LINE_BYTES,
        LINE_WORDS = MAP_LINE_BYTES / 8,
};

/* A word whose 32 blocks all have the state. */
static const uint64_t pattern[] = {
        [MAP_HOLE] = 0,
        [MAP_DATA] = UINT64_C(0x5555555555555555),
        [MAP_ZERO] = UINT64_C(0xaaaaaaaaaaaaaaaa),
};

static bool bit_get(const uint64_t *bits, uint64_t i)
{
        return __atomic_load_n(&bits[i / 64], __ATOMIC_ACQUIRE) >> (i % 64) & 1;
}

static void bit_set(uint64_t *bits, uint64_t i, bool on)
{
        uint64_t mask = UINT64_C(1) << (i % 64);

        if (on)
                __atomic_fetch_or(&bits[i / 64], mask, __ATOMIC_RELEASE);
        else
                __atomic_fetch_and(&bits[i / 64], ~mask, __ATOMIC_RELEASE);
}

static uint64_t word_get(const struct map *m, uint64_t w)
{
        return __atomic_load_n(&m->words[w], __ATOMIC_ACQUIRE);
}

uint64_t map_bytes(uint64_t blocks)
{
        uint64_t pages = (blocks + PAGE_BLOCKS - 1) / PAGE_BLOCKS;

        return MAX(pages, (uint64_t)1) * MAP_PAGE;
}

static uint64_t *bits_grow(uint64_t *old, uint64_t had, uint64_t want)
{
        size_t a = (had + 63) / 64, b = (want + 63) / 64;
        uint64_t *p = calloc(b, sizeof(*p)); /* untouched pages of it cost nothing */

        if (p && old)
                memcpy(p, old, MIN(a, b) * sizeof(*p));
        return p;
}

int map_grow(struct map *m, uint64_t blocks)
{
        uint64_t bytes = map_bytes(blocks), pages = bytes / MAP_PAGE, had = m->bytes / MAP_PAGE;
        uint64_t *used, *dirty, *words;

        if (bytes == m->bytes) {
                m->blocks = MAX(m->blocks, blocks);
                return 0;
        }
        used = bits_grow(m->used, had, pages);
        dirty = bits_grow(m->dirty, had * PAGE_LINES, pages * PAGE_LINES);
        if (!used || !dirty)
                goto nomem;
        if (m->words)
                words = mremap(m->words, m->bytes, bytes, MREMAP_MAYMOVE);
        else
                words = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                             m->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
                                       : MAP_SHARED | MAP_NORESERVE,
                             m->fd, m->fd < 0 ? 0 : (off_t)m->base);
        if (words == MAP_FAILED)
                goto nomem;
        free(m->used);
        free(m->dirty);
        m->used = used;
        m->dirty = dirty;
        m->words = words;
        m->bytes = bytes;
        m->blocks = blocks;
        return 0;
nomem:
        free(used);
        free(dirty);
        return -ENOMEM;
}

int map_init(struct map *m, uint64_t blocks, int fd, uint64_t base)
{
        *m = (struct map){.fd = fd, .base = base};
        pthread_mutex_init(&m->lock, NULL);
        return map_grow(m, blocks);
}

void map_done(struct map *m)
{
        if (m->words)
                munmap(m->words, m->bytes);
        free(m->used);
        free(m->dirty);
        free(m->list);
        m->words = m->used = m->dirty = m->list = NULL;
        if (m->packed)
                pack_done(&m->pack);
        free(m->gathered);
        m->gathered = NULL;
}

int map_gather(struct map *m, uint64_t blocks)
{
        *m = (struct map){.fd = -1, .blocks = blocks, .bytes = map_bytes(blocks)};
        pthread_mutex_init(&m->lock, NULL);
        return 0;
}

/* Room for lines of the log is doubled as they come. */
static int gather(struct map *m, const struct pack_line *line)
{
        if (m->ngathered == m->agathered) {
                size_t n = MAX(m->agathered * 2, (size_t)16);
                struct pack_line *p = reallocarray(m->gathered, n, sizeof(*p));

                if (!p)
                        return -ENOMEM;
                m->gathered = p;
                m->agathered = n;
        }
        m->gathered[m->ngathered++] = *line;
        return 0;
}

int map_pack(struct map *m, const char *dir)
{
        int r = pack_build(&m->pack, m->bytes / MAP_PAGE, m->gathered, m->ngathered, dir);

        free(m->gathered);
        m->gathered = NULL;
        m->ngathered = m->agathered = 0;
        m->packed = r == 0;
        m->live = m->pack.live;
        return r;
}

enum map_state map_span_packed(const struct map *m, struct map_span s)
{
        unsigned state;
        uint64_t block = s.word * WORD_BLOCKS + __builtin_ctzll(s.mask) / 2;
        uint64_t n = pack_run(&m->pack, block, &state);

        return n * 2 >= (uint64_t)__builtin_popcountll(s.mask) ? state : MAP_MIXED;
}

/* map_run() in a packed map. */
static uint64_t run_packed(const struct map *m, uint64_t block, uint64_t max, enum map_state *ret)
{
        uint64_t n = 0;

        *ret = MAP_HOLE;
        while (n < max && block + n < m->blocks) {
                unsigned state;
                uint64_t k = pack_run(&m->pack, block + n, &state);

                if (n == 0)
                        *ret = state;
                if (state != *ret)
                        return n;
                n += k;
        }
        return n < max && *ret == MAP_HOLE ? max : MIN(n, max);
}

static bool line_empty(const struct map *m, uint64_t line)
{
        for (int i = 0; i < LINE_WORDS; i++)
                if (word_get(m, line * LINE_WORDS + i))
                        return false;
        return true;
}

int map_adopt(struct map *m)
{
        off_t end = m->base + m->bytes, at = m->base;

        while ((at = lseek(m->fd, at, SEEK_DATA)) >= 0 && at < end) {
                uint64_t page = (at - m->base) / MAP_PAGE;

                bit_set(m->used, page, true);
                for (uint64_t l = page * PAGE_LINES; l < (page + 1) * PAGE_LINES; l++)
                        m->live += !line_empty(m, l);
                at = m->base + (page + 1) * MAP_PAGE;
        }
        return at < 0 && errno != ENXIO ? -errno : 0;
}

enum map_state map_get(const struct map *m, uint64_t block)
{
        unsigned state;

        if (block < m->blocks && m->packed)
                return pack_run(&m->pack, block, &state) > 0 ? state : MAP_HOLE;
        if (block >= m->blocks || !bit_get(m->used, block / PAGE_BLOCKS))
                return MAP_HOLE;
        return word_get(m, block / WORD_BLOCKS) >> (block % WORD_BLOCKS * 2) & 3;
}

uint64_t map_run(const struct map *m, uint64_t block, uint64_t max, enum map_state *ret)
{
        enum map_state state;
        uint64_t n = 0;

        if (m->packed)
                return run_packed(m, block, max, ret);
        state = map_get(m, block);
        *ret = state;
        while (n < max) {
                uint64_t b = block + n, differ;
                unsigned first = b % WORD_BLOCKS;

                if (b >= m->blocks)
                        return state == MAP_HOLE ? max : n;
                if (!bit_get(m->used, b / PAGE_BLOCKS)) {
                        if (state != MAP_HOLE)
                                return n;
                        n += PAGE_BLOCKS - b % PAGE_BLOCKS;
                        continue;
                }
                differ = (word_get(m, b / WORD_BLOCKS) ^ pattern[state]) >> 2 * first;
                n += differ ? (uint64_t)__builtin_ctzll(differ) / 2 : WORD_BLOCKS - first;
                if (differ)
                        return MIN(MAX(n, UINT64_C(1)), max); /* 1: it changed just now */
        }
        return max;
}

bool map_settled(const struct map *m, uint64_t block, uint64_t n)
{
        uint64_t last = (block + n - 1) / MAP_LINE_BLOCKS;
        enum map_state state;

        /* In this order: a line is made dirty before it is changed. */
        if (map_run(m, block, n, &state) < n || state != MAP_DATA)
                return false;
        for (uint64_t line = block / MAP_LINE_BLOCKS; line <= last; line++)
                if (bit_get(m->dirty, line))
                        return false;
        return true;
}

/* Room for a page of the map, so that touching it cannot fail (a full tmpfs is SIGBUS then). */
static int page_use(struct map *m, uint64_t page)
{
        if (bit_get(m->used, page))
                return 0;
        if (m->fd >= 0 && fallocate(m->fd, 0, m->base + page * MAP_PAGE, MAP_PAGE) < 0)
                return -errno;
        bit_set(m->used, page, true);
        return 0;
}

static int dirty_add(struct map *m, uint64_t line)
{
        if (bit_get(m->dirty, line))
                return 0;
        if (m->nlist == m->alist) {
                size_t size = MAX(m->alist * 2, (size_t)64);
                uint64_t *p = reallocarray(m->list, size, sizeof(*p));

                if (!p)
                        return -ENOMEM;
                m->list = p;
                m->alist = size;
        }
        m->list[m->nlist++] = line;
        bit_set(m->dirty, line, true);
        return 0;
}

/* The part of one line: blocks [from, to) of it. */
static int set_in_line(struct map *m, uint64_t line, unsigned from, unsigned to,
                       enum map_state state)
{
        bool was_empty, changed = false;
        int r = page_use(m, line / PAGE_LINES);

        if (r < 0)
                return r;
        was_empty = line_empty(m, line);
        for (unsigned b = from; b < to;) {
                uint64_t w = line * LINE_WORDS + b / WORD_BLOCKS, old = word_get(m, w), mask;
                unsigned first = b % WORD_BLOCKS, n = MIN(WORD_BLOCKS - first, to - b);

                mask = n == WORD_BLOCKS ? UINT64_MAX : ((UINT64_C(1) << 2 * n) - 1) << 2 * first;
                b += n;
                if (((old ^ pattern[state]) & mask) == 0)
                        continue;
                if (!changed && (r = dirty_add(m, line)) < 0)
                        return r; /* before the first change: what is set is always dirty */
                changed = true;
                __atomic_store_n(&m->words[w], (old & ~mask) | (pattern[state] & mask),
                                 __ATOMIC_RELEASE);
        }
        m->live += was_empty && changed;
        return 0;
}

int map_set(struct map *m, uint64_t block, uint64_t n, enum map_state state)
{
        WITH_LOCK(&m->lock);
        assert(block + n <= m->blocks && state != MAP_HOLE);
        while (n > 0) {
                unsigned from = block % MAP_LINE_BLOCKS, k = MIN(n, MAP_LINE_BLOCKS - from);
                int r = set_in_line(m, block / MAP_LINE_BLOCKS, from, from + k, state);

                if (r < 0)
                        return r;
                block += k;
                n -= k;
        }
        return 0;
}

static void get_line_packed(const struct map *m, uint64_t line, uint8_t out[MAP_LINE_BYTES])
{
        memset(out, 0, MAP_LINE_BYTES);
        for (unsigned b = 0; b < MAP_LINE_BLOCKS;) {
                unsigned state;
                uint64_t n = pack_run(&m->pack, line * MAP_LINE_BLOCKS + b, &state);
                unsigned end = MIN(b + n, (uint64_t)MAP_LINE_BLOCKS);

                for (; b < end; b++)
                        out[b / 4] |= state << b % 4 * 2;
        }
}

void map_get_line(const struct map *m, uint64_t line, uint8_t out[MAP_LINE_BYTES])
{
        if (m->packed && line * MAP_LINE_BYTES < m->bytes) {
                get_line_packed(m, line, out);
                return;
        }
        if (line * MAP_LINE_BYTES >= m->bytes || !bit_get(m->used, line / PAGE_LINES)) {
                memset(out, 0, MAP_LINE_BYTES);
                return;
        }
        for (int i = 0; i < LINE_WORDS; i++) {
                uint64_t w = word_get(m, line * LINE_WORDS + i);

                for (int j = 0; j < 8; j++)
                        out[i * 8 + j] = w >> 8 * j;
        }
}

int map_set_line(struct map *m, uint64_t line, const uint8_t in[MAP_LINE_BYTES])
{
        uint64_t words[LINE_WORDS] = {}, any = 0;
        bool was_empty;
        int r;

        if (line >= m->bytes / MAP_LINE_BYTES)
                return -EINVAL;
        for (int i = 0; i < MAP_LINE_BYTES; i++)
                words[i / 8] |= (uint64_t)in[i] << 8 * (i % 8);
        for (int i = 0; i < LINE_WORDS; i++) {
                if (words[i] & (words[i] >> 1) & pattern[MAP_DATA])
                        return -EINVAL; /* state 3 */
                any |= words[i];
        }
        WITH_LOCK(&m->lock);
        if (!m->words) {
                struct pack_line l = {.line = line};

                memcpy(l.word, words, sizeof(words));
                return gather(m, &l);
        }
        if (!any && !bit_get(m->used, line / PAGE_LINES))
                return 0;
        r = page_use(m, line / PAGE_LINES);
        if (r < 0)
                return r;
        was_empty = line_empty(m, line);
        for (int i = 0; i < LINE_WORDS; i++)
                __atomic_store_n(&m->words[line * LINE_WORDS + i], words[i], __ATOMIC_RELEASE);
        if (was_empty && any)
                m->live++;
        else if (!was_empty && !any)
                m->live--;
        return 0;
}

static uint64_t next_line_packed(const struct map *m, uint64_t line)
{
        while (line < m->bytes / MAP_LINE_BYTES) {
                unsigned state;
                uint64_t n = pack_run(&m->pack, line * MAP_LINE_BLOCKS, &state);

                if (state != MAP_HOLE || n < MAP_LINE_BLOCKS)
                        return line;
                line += n / MAP_LINE_BLOCKS;
        }
        return UINT64_MAX;
}

uint64_t map_next_line(const struct map *m, uint64_t line)
{
        uint64_t lines = m->bytes / MAP_LINE_BYTES;

        if (m->packed)
                return next_line_packed(m, line);
        while (line < lines) {
                if (!bit_get(m->used, line / PAGE_LINES))
                        line = (line / PAGE_LINES + 1) * PAGE_LINES;
                else if (line_empty(m, line))
                        line++;
                else
                        return line;
        }
        return UINT64_MAX;
}

int map_take_dirty(struct map *m, uint64_t **ret_lines, uint8_t **ret_bytes, size_t *ret_n)
{
        uint8_t *bytes;

        WITH_LOCK(&m->lock);
        *ret_lines = NULL;
        *ret_bytes = NULL;
        *ret_n = 0;
        if (m->nlist == 0)
                return 0;
        bytes = reallocarray(NULL, m->nlist, MAP_LINE_BYTES);
        if (!bytes)
                return -ENOMEM;
        for (size_t i = 0; i < m->nlist; i++) {
                map_get_line(m, m->list[i], bytes + i * MAP_LINE_BYTES);
                bit_set(m->dirty, m->list[i], false);
        }
        *ret_n = m->nlist;
        *ret_bytes = bytes;
        *ret_lines = TAKE_PTR(m->list);
        m->nlist = m->alist = 0;
        return 0;
}

int map_put_dirty(struct map *m, const uint64_t *lines, size_t n)
{
        WITH_LOCK(&m->lock);
        for (size_t i = 0; i < n; i++) {
                int r = dirty_add(m, lines[i]);

                if (r < 0)
                        return r;
        }
        return 0;
}
