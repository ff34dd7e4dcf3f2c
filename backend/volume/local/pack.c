#include "backend/volume/local/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/fileio.h"
#include "common/macro.h"

enum {
        PAGE_BLOCKS = 16384,
        PAGE_LINES = 64,
        FILE_MIN = 256 << 10,
        CELL_BLOCKS = 16,                       /* of a page that is bits */
        BITS_CELLS = PAGE_BLOCKS / CELL_BLOCKS, /* a page with so many cells is bits */
        WORD_CELLS = sizeof(uint64_t) / sizeof(uint32_t),
};

/* An extent: its first block 14 bits, its last 14, its state 4. */
static uint32_t extent(unsigned first, unsigned last, unsigned state)
{
        return first << 18 | last << 4 | state;
}
static unsigned first_of(uint32_t x)
{
        return x >> 18;
}
static unsigned last_of(uint32_t x)
{
        return x >> 4 & (PAGE_BLOCKS - 1);
}

/* ---- building ---- */

/* Which line, and which of those that say the same line. */
struct at {
        uint64_t line;
        size_t i;
};

static int by_line(const void *pa, const void *pb)
{
        const struct at *a = pa, *b = pb;

        if (a->line != b->line)
                return a->line < b->line ? -1 : 1;
        return a->i < b->i ? -1 : a->i > b->i;
}

/* A page that is being built. */
struct page {
        uint64_t word[PAGE_LINES * PACK_LINE_WORDS];
        uint32_t cell[BITS_CELLS];
        size_t n;
};

static unsigned state_at(const struct page *g, unsigned b)
{
        return g->word[b / 32] >> b % 32 * 2 & 3;
}

/* Fills the page's cells from its words. */
static void page_cells(struct page *g)
{
        g->n = 0;
        for (unsigned b = 0; b < PAGE_BLOCKS;) {
                unsigned state = state_at(g, b), first = b;

                if (b % 32 == 0 && g->word[b / 32] == 0) {
                        b += 32;
                        continue;
                }
                while (b < PAGE_BLOCKS && state_at(g, b) == state)
                        b++;
                if (state == 0)
                        continue;
                if (g->n + 1 == BITS_CELLS)
                        goto bits;
                g->cell[g->n++] = extent(first, b - 1, state);
        }
        return;
bits:
        for (unsigned i = 0; i < BITS_CELLS; i++)
                g->cell[i] = g->word[i / WORD_CELLS] >> i % WORD_CELLS * 32;
        g->n = BITS_CELLS;
}

struct builder {
        struct pack *k;
        uint32_t npages;
        size_t ncells, apages, acells;
};

static int page_put(struct builder *b, uint64_t page, const struct page *g)
{
        struct pack *k = b->k;

        if (g->n == 0)
                return 0;
        if (b->npages + 2 > b->apages) {
                size_t n = MAX(b->apages * 2, (size_t)16);
                uint32_t *p = reallocarray(k->start, n, sizeof(*p));

                if (!p)
                        return -ENOMEM;
                k->start = p;
                b->apages = n;
        }
        if (b->ncells + g->n > b->acells) {
                size_t n = MAX(b->acells * 2, b->ncells + g->n);
                uint32_t *p = reallocarray(k->cell, n, sizeof(*p));

                if (!p || n > UINT32_MAX)
                        return -ENOMEM;
                k->cell = p;
                b->acells = n;
        }
        k->used[page / 64] |= UINT64_C(1) << page % 64;
        memcpy(k->cell + b->ncells, g->cell, g->n * sizeof(g->cell[0]));
        k->start[b->npages++] = b->ncells;
        b->ncells += g->n;
        k->start[b->npages] = b->ncells;
        return 0;
}

/* What was allocated in advance goes back. */
static void trim(struct builder *b)
{
        uint32_t *p = reallocarray(b->k->start, b->npages + 1, sizeof(*p));

        if (p)
                b->k->start = p;
        p = b->ncells ? reallocarray(b->k->cell, b->ncells, sizeof(*p)) : NULL;
        if (p)
                b->k->cell = p;
}

static int build(struct builder *b, const struct pack_line *line, const struct at *at, size_t n)
{
        _cleanup_free_ struct page *g = malloc(sizeof(*g));
        int r = g ? 0 : -ENOMEM;

        for (size_t i = 0; i < n && r == 0;) {
                uint64_t page = at[i].line / PAGE_LINES;

                memset(g->word, 0, sizeof(g->word));
                for (; i < n && at[i].line / PAGE_LINES == page; i++) {
                        uint64_t any = 0;

                        if (i + 1 < n && at[i + 1].line == at[i].line)
                                continue;
                        for (unsigned w = 0; w < PACK_LINE_WORDS; w++)
                                any |= line[at[i].i].word[w];
                        b->k->live += any != 0;
                        memcpy(g->word + at[i].line % PAGE_LINES * PACK_LINE_WORDS,
                               line[at[i].i].word, sizeof(line->word));
                }
                page_cells(g);
                r = page_put(b, page, g);
        }
        return r;
}

/* What grows with the extents goes to a file; where that does not work it stays in memory. */
static void to_file(struct pack *k, uint32_t npages, size_t ncells, const char *dir)
{
        const size_t start = (npages + 1) * sizeof(*k->start), cell = ncells * sizeof(*k->cell);
        _cleanup_close_ int fd = -1;
        char *p;

        if (!dir || start + cell < FILE_MIN)
                return;
        fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0 || pwrite_full(fd, k->start, start, 0) < 0 ||
            pwrite_full(fd, k->cell, cell, start) < 0)
                return;
        p = mmap(NULL, start + cell, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
                return;
        madvise(p, start + cell, MADV_RANDOM);
        free(k->start);
        free(k->cell);
        k->start = (uint32_t *)p;
        k->cell = (uint32_t *)(p + start);
        k->file = p;
        k->file_bytes = start + cell;
}

int pack_build(struct pack *k, uint64_t pages, const struct pack_line *line, size_t n,
               const char *dir)
{
        _cleanup_free_ struct at *at = reallocarray(NULL, n + 1, sizeof(*at));
        const uint64_t words = (pages + 63) / 64;
        struct builder b = {.k = k};
        uint32_t count = 0;
        int r = -ENOMEM;

        *k = (struct pack){.used = calloc(words, sizeof(*k->used)),
                           .rank = calloc(words, sizeof(*k->rank))};
        if (at && k->used && k->rank) {
                for (size_t i = 0; i < n; i++)
                        at[i] = (struct at){line[i].line, i};
                qsort(at, n, sizeof(*at), by_line);
                r = build(&b, line, at, n);
        }
        if (r < 0) {
                pack_done(k);
                return r;
        }
        trim(&b);
        if (b.npages > 0)
                to_file(k, b.npages, b.ncells, dir);
        for (uint64_t i = 0; i < words && count < b.npages; i++) {
                k->rank[i] = count;
                count += __builtin_popcountll(k->used[i]);
        }
        return 0;
}

void pack_done(struct pack *k)
{
        free(k->used);
        free(k->rank);
        if (k->file) {
                munmap(k->file, k->file_bytes);
                k->start = k->cell = NULL;
        }
        free(k->start);
        free(k->cell);
        *k = (struct pack){};
}

/* ---- reading ---- */

static uint64_t bits_run(const uint32_t *cell, unsigned block, unsigned *ret)
{
        const unsigned state = cell[block / CELL_BLOCKS] >> block % CELL_BLOCKS * 2 & 3;
        const uint32_t same = UINT32_C(0x55555555) * state;
        unsigned b = block;

        *ret = state;
        while (b < PAGE_BLOCKS) {
                uint32_t differ = (cell[b / CELL_BLOCKS] ^ same) >> b % CELL_BLOCKS * 2;

                if (differ)
                        return b + __builtin_ctz(differ) / 2 - block;
                b += CELL_BLOCKS - b % CELL_BLOCKS;
        }
        return PAGE_BLOCKS - block;
}

uint64_t pack_run(const struct pack *k, uint64_t block, unsigned *ret)
{
        const uint64_t page = block / PAGE_BLOCKS;
        const unsigned b = block % PAGE_BLOCKS;
        const uint32_t *cell;
        uint32_t i, lo = 0, hi;

        *ret = 0;
        if (!pack_used(k, page))
                return PAGE_BLOCKS - b;
        i = k->rank[page / 64] +
            __builtin_popcountll(k->used[page / 64] & ((UINT64_C(1) << page % 64) - 1));
        cell = k->cell + k->start[i];
        hi = k->start[i + 1] - k->start[i];
        if (hi == BITS_CELLS)
                return bits_run(cell, b, ret);
        while (lo < hi) { /* to the first extent that ends at b or later */
                uint32_t mid = (lo + hi) / 2;

                if (last_of(cell[mid]) < b)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        if (lo == k->start[i + 1] - k->start[i])
                return PAGE_BLOCKS - b;
        if (first_of(cell[lo]) > b)
                return first_of(cell[lo]) - b;
        *ret = cell[lo] & 3;
        return last_of(cell[lo]) + 1 - b;
}
