/* Reading every block of a layer, with its checksums. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "backend/volume/local/ring.h"
#include "backend/volume/local/sums.h"
#include "backend/volume/local/verify.h"
#include "common/fileio.h"

enum { PIECE = SUMS_PER_PAGE * MAP_BLOCK }; /* what one page of sums covers */

struct scrub {
        struct verify *v;
        struct layer *l;
        int fd; /* past the page cache where that can be: reads the disk, leaves memory */
        struct sums *sums; /* NULL: none, and none wanted */
        bool fresh;        /* they are being made */
        bool changed;      /* sums were written */
        char *buf;         /* PIECE bytes, aligned */
        uint32_t unset;    /* sums_unset() */
        uint64_t noted;    /* findings of blocks so far */
};

/* Whether anything is stored at off; up to where it is so, at most to end. */
static bool stored(struct verify *v, const struct layer *l, uint64_t off, uint64_t end,
                   uint64_t *ret_end)
{
        enum map_state state;
        off_t at;

        if (l->mapped) {
                uint64_t blocks;

                verify_hold(v);
                blocks = map_run(&l->map, off / MAP_BLOCK, (end - off + MAP_BLOCK - 1) / MAP_BLOCK,
                                 &state);
                verify_release(v);
                *ret_end = MIN(off + blocks * MAP_BLOCK, end);
                return state == MAP_DATA;
        }
        at = lseek(l->fd, off, SEEK_DATA);
        if (at < 0 || (uint64_t)at > off) {
                *ret_end = at < 0 && errno == ENXIO ? end : MIN((uint64_t)MAX(at, 0), end);
                *ret_end = *ret_end / MAP_BLOCK * MAP_BLOCK;
                if (at < 0)
                        *ret_end = end;
                if (*ret_end > off)
                        return at < 0 && errno != ENXIO;
        }
        at = lseek(l->fd, off, SEEK_HOLE);
        *ret_end = at < 0 ? end : MIN(((uint64_t)at + MAP_BLOCK - 1) / MAP_BLOCK * MAP_BLOCK, end);
        if (*ret_end <= off)
                *ret_end = end;
        return true;
}

uint64_t verify_data_bytes(struct verify *v, struct layer *l)
{
        uint64_t sum = 0, to;
        struct stat st;

        if (!l->mapped)
                return fstat(l->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
        for (uint64_t line = verify_next_line(v, l, 0); line != UINT64_MAX;
             line = verify_next_line(v, l, line + 1)) {
                uint64_t off = line * MAP_LINE_BLOCKS * MAP_BLOCK;
                uint64_t end = off + MAP_LINE_BLOCKS * MAP_BLOCK;

                for (; off < end; off = to)
                        if (stored(v, l, off, end, &to))
                                sum += to - off;
        }
        return sum;
}

static void bad_block(struct scrub *s, uint64_t off, const char *what)
{
        if (s->noted++ < VOLUME_FINDINGS / 2)
                verify_finding(s->v, false, s->l, "byte %" PRIu64 " %s", off, what);
}

/* Past the page cache the end of a file that ends inside a block cannot be asked for. */
static int fd_of(const struct scrub *s, uint64_t end)
{
        return end > s->l->bytes ? s->l->fd : s->fd;
}

/* Block by block where reading them all at once failed. */
static bool read_block(struct scrub *s, char *p, uint64_t off)
{
        struct ring_io io = {.fd = fd_of(s, off + MAP_BLOCK), .p = p, .n = MAP_BLOCK, .off = off};

        if (ring_plain(&io) == 0)
                return true;
        bad_block(s, off, "cannot be read from the disk: reads of it fail");
        return false;
}

static void check_block(struct scrub *s, const char *p, uint64_t off, struct sums_page *page,
                        bool *set)
{
        uint32_t *want = &page->sum[off / MAP_BLOCK % SUMS_PER_PAGE];

        if (!*want && !s->fresh && !page->damaged)
                *want = s->unset;
        if (!*want) {
                *want = sums_of(p);
                *set = true;
        } else if (*want != sums_of(p)) {
                bad_block(s, off, "does not match its checksum: reads of it fail");
        }
}

/* A stretch of stored blocks inside one page of sums. */
static void scrub_run(struct scrub *s, uint64_t off, uint64_t end, struct sums_page *page,
                      bool *set)
{
        size_t n = (end - off + MAP_BLOCK - 1) / MAP_BLOCK * MAP_BLOCK;
        struct ring_io io = {.fd = fd_of(s, off + n), .p = s->buf, .n = n, .off = off};
        bool all = ring_plain(&io) == 0;

        for (size_t at = 0; at < n; at += MAP_BLOCK)
                if ((all || read_block(s, s->buf + at, off + at)) && s->sums)
                        check_block(s, s->buf + at, off + at, page, set);
}

static int scrub_page(struct scrub *s, uint64_t no, uint64_t end)
{
        struct sums_page page = {};
        uint64_t off = no * PIECE, bytes = 0, to;
        bool set = false;
        int r = s->sums && !s->fresh ? sums_page_read(s->sums, no, &page) : 0;

        if (r < 0)
                return r;
        for (; off < end; off = to) {
                if (!stored(s->v, s->l, off, end, &to))
                        continue;
                scrub_run(s, off, to, &page, &set);
                bytes += to - off;
        }
        if (page.damaged)
                verify_finding(s->v, true, s->l,
                               "checksums of bytes %" PRIu64 " to %" PRIu64
                               " were damaged: made anew from the bytes as they are",
                               no * (uint64_t)PIECE, end);
        if (set || page.damaged) {
                r = sums_page_write(s->sums, no, &page);
                s->changed = true;
        }
        return r < 0 ? r : bytes ? verify_step(s->v, bytes) : 0;
}

/* Where the next page begins that has anything stored. */
static uint64_t next_page(const struct scrub *s, uint64_t no, uint64_t end)
{
        const struct layer *l = s->l;
        uint64_t off = no * PIECE, to;

        if (l->mapped) {
                uint64_t line = verify_next_line(s->v, l, off / MAP_BLOCK / MAP_LINE_BLOCKS);

                if (line == UINT64_MAX)
                        return UINT64_MAX;
                return MAX(no, line * MAP_LINE_BLOCKS * MAP_BLOCK / PIECE);
        }
        if (off < end && !stored(s->v, l, off, end, &to))
                return to < end ? to / PIECE : UINT64_MAX;
        return no;
}

static int scrub_all(struct scrub *s)
{
        struct layer *l = s->l;
        uint64_t end = l->mapped ? l->size : MIN(l->size, l->bytes);
        int r = 0;

        for (uint64_t no = next_page(s, 0, end); r == 0 && no != UINT64_MAX && no * PIECE < end;
             no = next_page(s, no + 1, end))
                r = scrub_page(s, no, MIN((no + 1) * PIECE, end));
        if (s->noted > VOLUME_FINDINGS / 2)
                verify_finding(s->v, false, l, "%" PRIu64 " blocks more are bad",
                               s->noted - VOLUME_FINDINGS / 2);
        return r;
}

static int scrub_sums(struct scrub *s, bool frozen)
{
        s->sums = s->l->sums;
        if (s->sums && s->sums->off)
                s->sums = NULL;
        if (s->sums || !frozen || !s->v->how->sums)
                return 0;
        s->fresh = true;
        return sums_make(s->l, s->l->bytes, &s->sums);
}

/* What reads have met: all of it was looked at again. */
static void forget(struct sums *s)
{
        WITH_LOCK(&s->lock);
        s->nnamed = 0;
        s->damaged = false;
}

/* Fresh sums are the layer's when all of them are there; where its file was bad there is a new one
 * now. */
static int finish(struct scrub *s, int r)
{
        _cleanup_free_ char *path = sums_path(s->l);
        bool was = path && access(path, F_OK) == 0;

        if (r == 0 && (s->fresh || s->changed))
                r = sums_commit(s->l, s->sums, s->fresh);
        if (s->fresh && s->l->sums != s->sums)
                sums_free(s->sums);
        else if (r == 0 && s->fresh && was)
                verify_finding(s->v, true, s->l,
                               "sum.%u was damaged: made anew from the bytes as they are",
                               s->l->id.layer);
        else if (r == 0 && s->sums && !s->fresh)
                forget(s->sums);
        return r;
}

int verify_data(struct verify *v, struct layer *l, bool frozen)
{
        _cleanup_free_ char *path = layer_data_path(l->dir, l->data);
        _cleanup_free_ char *buf = aligned_alloc(MAP_BLOCK, PIECE);
        struct scrub s = {.v = v, .l = l, .buf = buf, .fd = -1, .unset = sums_unset(l)};
        int own = -1, r;

        if (!buf || !path)
                return -ENOMEM;
        own = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
        s.fd = own >= 0 ? own : l->fd;
        r = scrub_sums(&s, frozen);
        if (r == 0)
                r = finish(&s, scrub_all(&s));
        if (own >= 0)
                close(own);
        return r;
}
